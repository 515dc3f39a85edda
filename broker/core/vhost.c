/* Vhosts themselves: made with the exchanges that every one has, found by name, freed. What is in
 * them stands in vhost_exchange.c, vhost_queue.c and vhost_binding.c, what these have in common in
 * vhost_check.c. */
#include "core/vhost_parts.h"

#include "access/pattern.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core/account.h"
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

/* A rule whose pattern cannot tell holds: a limit too many is seen, one too few is not. */
static struct vhost_limits first_limits(const struct broker *broker, struct slice name)
{
    for (size_t i = 0; i < broker->vhost_rule_count; i++)
        if (pattern_match(broker->vhost_rules[i].pattern, name) != PATTERN_DIFFERS)
            return broker->vhost_rules[i].limits;
    return (struct vhost_limits){LIMIT_NONE, LIMIT_NONE};
}

struct vhost *vhost_new(struct broker *broker, struct slice name, bool recovered)
{
    struct vhost *vhost = xmalloc(sizeof(*vhost) + name.size);

    *vhost = (struct vhost){.broker = broker, .refs = 1, .limits = first_limits(broker, name)};
    vhost->name = slice_of(vhost + 1, name.size);
    amqp_put_bytes((uint8_t *)(vhost + 1), name);
    TAILQ_INIT(&vhost->doomed);
    TAILQ_INIT(&vhost->deleted);
    for (size_t kind = 0; kind < POLICY_KINDS; kind++)
        TAILQ_INIT(&vhost->policies[kind]);
    map_insert(&broker->vhosts, &vhost->by_name, vhost->name);
    predeclare(vhost);
    vhost_describe(vhost, (struct slice){0}, (struct slice){0});
    if (!recovered)
        definition_put_vhost(vhost);
    return vhost;
}

static void replace(struct slice *owned, struct slice with)
{
    char *copy = slice_to_string(with); /* before: it may be a part of what goes */

    free((void *)(uintptr_t)owned->data);
    *owned = slice_of(copy, with.size);
}

void vhost_describe(struct vhost *vhost, struct slice description, struct slice tags)
{
    replace(&vhost->description, description);
    replace(&vhost->tags, tags);
}

void vhost_save(struct vhost *vhost, uint64_t *lsn)
{
    definition_put_vhost(vhost);
    *lsn = store_open_lsn(vhost->broker->store);
}

struct vhost *vhost_create(struct broker *broker, struct slice name, uint64_t *lsn,
                           struct amqp_error *error)
{
    const uint32_t max = broker->limits.vhost_max;

    if (name.size == 0 || name.size > NAME_SIZE_MAX || vhost_find(broker, name) != NULL) {
        amqp_fail(error, AMQP_PRECONDITION_FAILED, "cannot create vhost '%.*s': %s",
                  SLICE_ARG(name),
                  name.size == 0              ? "it has no name"
                  : name.size > NAME_SIZE_MAX ? "its name is too long"
                                              : "it exists");
        return NULL;
    }
    if (max != 0 && broker->vhosts.count >= max) { /* 17.7 */
        amqp_fail(error, AMQP_PRECONDITION_FAILED,
                  "cannot create vhost '%.*s': vhost limit of %" PRIu32 " is reached",
                  SLICE_ARG(name), max);
        return NULL;
    }
    struct vhost *vhost = vhost_new(broker, name, false);
    *lsn = store_open_lsn(broker->store);
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
    link = map_next(&vhost->exchanges, NULL);
    while (link != NULL) {
        exchange = container_of(link, struct exchange, by_name);
        link = map_next(&vhost->exchanges, link);
        map_remove(&vhost->exchanges, &exchange->by_name);
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
    link = map_next(&gone->queues, NULL);
    while (link != NULL) {
        struct queue *queue = container_of(link, struct queue, by_name);
        link = map_next(&gone->queues, link);
        queue_free(&queue);
    }
    policies_release(gone);
    map_remove(&gone->broker->vhosts, &gone->by_name);
    gone->is_deleted = true;
    assert(gone->refs == 1);
    vhost_unref(&gone);
}

struct vhost *vhost_ref(struct vhost *vhost)
{
    vhost->refs++;
    return vhost;
}

void vhost_unref(struct vhost **vhost)
{
    struct vhost *gone = *vhost;

    *vhost = NULL;
    assert(gone->refs > 0);
    if (--gone->refs > 0)
        return;
    assert(gone->is_deleted && gone->queues.count == 0 && gone->exchanges.count == 0);
    map_release(&gone->exchanges);
    map_release(&gone->queues);
    map_release(&gone->reply_targets);
    free((void *)(uintptr_t)gone->description.data);
    free((void *)(uintptr_t)gone->tags.data);
    free(gone);
}

/* ---- deleting ---- */

static void delete_queues(struct vhost *vhost)
{
    struct map_link *link = map_next(&vhost->queues, NULL);

    while (link != NULL) {
        struct queue *queue = container_of(link, struct queue, by_name);
        link = map_next(&vhost->queues, link);
        queue_delete(queue);
    }
}

static void delete_policies(struct vhost *vhost)
{
    const struct policy *policy;

    for (size_t kind = 0; kind < POLICY_KINDS; kind++)
        TAILQ_FOREACH (policy, &vhost->policies[kind], link)
            definition_delete_policy(vhost, policy);
    policies_release(vhost);
}

/* What is counted still (deliveries under way, exchanges until the end of the turn) holds the vhost
 * until it has gone. */
void vhost_delete(struct vhost *vhost, uint64_t *lsn)
{
    struct broker *broker = vhost->broker;

    log_info("deleting vhost '%.*s'", SLICE_ARG(vhost->name));
    if (broker->watcher != NULL)
        broker->watcher->on_vhost_deleted(broker->watcher, vhost);
    map_remove(&broker->vhosts, &vhost->by_name);
    vhost->is_deleted = true;
    account_forget_vhost(broker, vhost->name);
    delete_queues(vhost);
    vhost_delete_exchanges(vhost);
    delete_policies(vhost);
    definition_delete_vhost(vhost);
    *lsn = store_open_lsn(broker->store);
    vhost_unref(&vhost);
}
