/* Vhosts themselves: made with the exchanges that every one has, found by name, freed. What is in
 * them stands in vhost_exchange.c, vhost_queue.c and vhost_binding.c, what these have in common in
 * vhost_check.c. */
#include "core/vhost_parts.h"

#include "base/alloc.h"
#include "core/definition.h"

static const struct predeclared {
    const char *name;
    const struct exchange_type *type;
    bool internal;
} predeclared[] = {
    /* 7.1 */
    {"", &exchange_type_default, false},
    {"amq.direct", &exchange_type_direct, false},
    {"amq.fanout", &exchange_type_fanout, false},
    {"amq.topic", &exchange_type_topic, false},
    {"amq.headers", &exchange_type_headers, false},
    {"amq.match", &exchange_type_headers, false},
    {"amq.rabbitmq.trace", &exchange_type_topic, true},
};

/* ---- vhosts ---- */

struct vhost *vhost_find(struct broker *broker, struct slice name)
{
    struct map_link *link = map_find(&broker->vhosts, name);

    return link == NULL ? NULL : container_of(link, struct vhost, by_name);
}

struct exchange *vhost_get_exchange(const struct vhost *vhost, struct slice name)
{
    struct map_link *link = map_find(&vhost->exchanges, name);

    return link == NULL ? NULL : container_of(link, struct exchange, by_name);
}

struct queue *vhost_get_queue(const struct vhost *vhost, struct slice name)
{
    struct map_link *link = map_find(&vhost->queues, name);

    return link == NULL ? NULL : container_of(link, struct queue, by_name);
}

static void predeclare(struct vhost *vhost)
{
    for (size_t i = 0; i < countof(predeclared); i++) {
        const struct exchange_options options = {
            .name = slice_of_string(predeclared[i].name),
            .durable = true,
            .internal = predeclared[i].internal,
        };
        exchange_new(vhost, predeclared[i].type, &options);
    }
    vhost->default_exchange = vhost_get_exchange(vhost, SLICE(""));
}

struct vhost *vhost_new(struct broker *broker, struct slice name, bool recovered)
{
    struct vhost *vhost = xmalloc(sizeof(*vhost) + name.size);

    *vhost = (struct vhost){.broker = broker};
    vhost->name = slice_of(vhost + 1, name.size);
    amqp_put_bytes((uint8_t *)(vhost + 1), name);
    TAILQ_INIT(&vhost->doomed);
    TAILQ_INIT(&vhost->deleted);
    for (size_t kind = 0; kind < POLICY_KINDS; kind++)
        TAILQ_INIT(&vhost->policies[kind]);
    map_insert(&broker->vhosts, &vhost->by_name, vhost->name);
    predeclare(vhost);
    if (!recovered)
        definition_put_vhost(vhost);
    return vhost;
}

void vhost_reap_exchange(struct exchange *exchange)
{
    loop_unqueue(exchange->vhost->broker->loop, &exchange->task);
    TAILQ_REMOVE(&exchange->vhost->deleted, exchange, by_deleted);
    exchange_free(&exchange);
}

static void release_exchanges(struct vhost *vhost)
{
    struct map_link *link;
    struct exchange *exchange;
    struct binding *binding;

    map_each (&vhost->exchanges, each) {
        exchange = container_of(each, struct exchange, by_name);
        while ((binding = TAILQ_FIRST(&exchange->bindings)) != NULL)
            exchange_remove_binding(&binding);
    }
    while ((link = map_next(&vhost->exchanges, NULL)) != NULL) {
        exchange = container_of(link, struct exchange, by_name);
        map_remove(&vhost->exchanges, link);
        exchange_free(&exchange);
    }
    while ((exchange = TAILQ_FIRST(&vhost->deleted)) != NULL)
        vhost_reap_exchange(exchange);
    map_release(&vhost->exchanges);
}

void vhost_free(struct vhost **vhost)
{
    struct vhost *gone = *vhost;
    struct map_link *link;

    *vhost = NULL;
    release_exchanges(gone);
    while ((link = map_next(&gone->queues, NULL)) != NULL) {
        struct queue *queue = container_of(link, struct queue, by_name);
        queue_free(&queue);
    }
    map_release(&gone->queues);
    policies_release(gone);
    map_release(&gone->reply_targets);
    map_remove(&gone->broker->vhosts, &gone->by_name);
    free(gone);
}
