/* direct: the routing key equals the binding key (7.11). Bindings of one key form a group; a map
 * finds it, so that binding and routing cost the same with one key or a hundred thousand.
 *
 * The default exchange is direct too, but has no bindings: the vhost's queues by name are its
 * index, so that it costs nothing to keep and nobody can change it. */
#include "base/alloc.h"
#include "core/exchange.h"
#include "core/vhost.h"

struct group { /* of bindings with the same key; binding->of_type */
    struct map_link by_key;
    struct binding_list bindings;
    size_t count; /* of them */
    uint8_t key[];
};

static struct group *find_group(const struct map *groups, struct slice key)
{
    struct map_link *link = map_find(groups, key);

    return link == NULL ? NULL : container_of(link, struct group, by_key);
}

static struct group *group_new(struct map *groups, struct slice key)
{
    struct group *group = xmalloc(sizeof(*group) + key.size);

    TAILQ_INIT(&group->bindings);
    group->count = 0;
    if (key.size > 0)
        memcpy(group->key, key.data, key.size);
    map_insert(groups, &group->by_key, slice_of(group->key, key.size));
    return group;
}

static void direct_add(struct exchange *exchange, struct binding *binding)
{
    if (exchange->of_type == NULL)
        exchange->of_type = xcalloc(1, sizeof(struct map));
    struct group *group = find_group(exchange->of_type, binding->key);
    if (group == NULL)
        group = group_new(exchange->of_type, binding->key);
    TAILQ_INSERT_TAIL(&group->bindings, binding, by_key);
    group->count++;
    binding->of_type = group;
}

static void direct_remove(struct exchange *exchange, struct binding *binding)
{
    struct group *group = binding->of_type;

    TAILQ_REMOVE(&group->bindings, binding, by_key);
    if (--group->count == 0) {
        map_remove(exchange->of_type, &group->by_key);
        free(group);
    }
}

static void route_key(const struct map *groups, struct slice key, struct route *route)
{
    const struct group *group = find_group(groups, key);
    const struct binding *binding;

    if (group == NULL || (group->count > 1 && !route_spend(route, group->count)))
        return;
    TAILQ_FOREACH (binding, &group->bindings, by_key)
        route_add(route, binding);
}

static void direct_route(struct exchange *exchange, const struct routing *routing,
                         struct route *route)
{
    if (exchange->of_type == NULL)
        return;
    if (likely(routing->key_count == 1)) {
        route_key(exchange->of_type, routing->keys[0], route);
        return;
    }
    if (!route_spend(route, routing->key_count))
        return;
    for (size_t i = 0; i < routing->key_count && !route->is_exhausted; i++)
        route_key(exchange->of_type, routing->keys[i], route);
}

static void direct_release(struct exchange *exchange)
{
    if (exchange->of_type != NULL)
        map_release(exchange->of_type);
    free(exchange->of_type);
    exchange->of_type = NULL;
}

const struct exchange_type exchange_type_direct = {
    .name = "direct",
    .add = direct_add,
    .remove = direct_remove,
    .route = direct_route,
    .release = direct_release,
};

/* A key that names no queue: somebody who waits for replies, perhaps. */
static __attribute__((noinline)) void route_reply(const struct vhost *vhost, struct slice key,
                                                  struct route *route)
{
    if (!slice_starts_with(key, SLICE(REPLY_TARGET_PREFIX)))
        return;
    struct map_link *link = map_find(&vhost->reply_targets, key);
    route->is_reply = true;
    if (link != NULL)
        route_add_target(route, container_of(link, struct reply_target, by_name));
}

static inline void route_name(const struct vhost *vhost, const struct slice *key,
                              struct route *route)
{
    struct map_link *link = map_find(&vhost->queues, *key);

    if (likely(link != NULL))
        route_add_queue(route, container_of(link, struct queue, by_name));
    else
        route_reply(vhost, *key, route);
}

static __attribute__((noinline)) void route_names(const struct vhost *vhost,
                                                  const struct routing *routing,
                                                  struct route *route)
{
    if (!route_spend(route, routing->key_count))
        return;
    for (size_t i = 0; i < routing->key_count; i++)
        route_name(vhost, &routing->keys[i], route);
}

/* Every message of the simplest kind comes through here, with one key: what is rare stands in
 * functions of its own. */
static void default_route(struct exchange *exchange, const struct routing *routing,
                          struct route *route)
{
    if (likely(routing->key_count == 1))
        route_name(exchange->vhost, routing->keys, route);
    else
        route_names(exchange->vhost, routing, route);
}

const struct exchange_type exchange_type_default = {.name = "direct", .route = default_route};
