/* The routing loop, and what all types have in common.
 *
 *     exchange ──its type's route──▶ route_add ─▶ queues: once each, by mark
 *        ▲                               └──────▶ pending: exchanges, once each, by mark
 *        └───────────────── next pending ◀───────────┘
 *
 * Exchanges that are reached through bindings, or as the alternate of one where nothing matched
 * (7.10), wait in `pending`: no recursion, and a cycle ends at its first exchange that carries the
 * mark. The arrays of a route grow to the largest message they have seen, and stay. */
#include "core/exchange.h"

#include "amqp/table.h"
#include "base/alloc.h"
#include "core/copies.h"
#include "core/queue.h"
#include "core/vhost.h"

/* ---- types ---- */

const struct exchange_type *exchange_type_find(struct slice name)
{
    static const struct exchange_type *const types[] = {
        &exchange_type_direct,       &exchange_type_fanout,          &exchange_type_topic,
        &exchange_type_headers,      &exchange_type_consistent_hash, &exchange_type_random,
        &exchange_type_local_random, &exchange_type_modulus_hash,    &exchange_type_recent_history,
        &exchange_type_delayed,
    };

    for (size_t i = 0; i < countof(types); i++)
        if (slice_equal(name, slice_of_string(types[i]->name)))
            return types[i];
    return NULL;
}

/* ---- life ---- */

static struct slice find_alternate(struct slice table)
{
    struct amqp_value value;

    if (amqp_table_find(table, SLICE("alternate-exchange"), &value) && value.type == AMQP_STRING)
        return value.bytes;
    return (struct slice){0};
}

/* The argument goes before the policy. */
void exchange_apply_policies(struct exchange *exchange)
{
    exchange->alternate = find_alternate(exchange->arguments);
    if (exchange->alternate.data == NULL)
        exchange->alternate = find_alternate(policy_definition(&exchange->policies, POLICY_PLAIN));
}

struct exchange *exchange_new(struct vhost *vhost, const struct exchange_type *type,
                              const struct exchange_options *options)
{
    struct exchange *exchange =
        xmalloc(sizeof(*exchange) + size_add(options->name.size, options->arguments.size));

    *exchange = (struct exchange){
        .vhost = vhost_ref(vhost),
        .type = type,
        .durable = options->durable,
        .auto_delete = options->auto_delete,
        .internal = options->internal,
    };
    uint8_t *next = (uint8_t *)(exchange + 1);
    exchange->name = slice_of(next, options->name.size);
    next = amqp_put_bytes(next, options->name);
    exchange->arguments = slice_of(next, options->arguments.size);
    amqp_put_bytes(next, options->arguments);
    policy_choose_for_exchange(exchange);
    exchange_apply_policies(exchange);

    TAILQ_INIT(&exchange->bindings);
    TAILQ_INIT(&exchange->incoming);
    map_insert(&vhost->exchanges, &exchange->by_name, exchange->name);
    vhost->broker->totals.exchanges++;
    vhost->broker->totals.octets += exchange->name.size + exchange->arguments.size;
    if (type->init != NULL)
        type->init(exchange);
    return exchange;
}

void exchange_free(struct exchange **exchange)
{
    struct exchange *gone = *exchange;

    *exchange = NULL;
    assert(TAILQ_EMPTY(&gone->bindings) && TAILQ_EMPTY(&gone->incoming));
    if (gone->type->release != NULL)
        gone->type->release(gone);
    map_release(&gone->identities);
    policy_set_release(&gone->policies);
    gone->vhost->broker->users.generation++; /* answers about it are kept by its address */
    vhost_unref(&gone->vhost);
    free(gone);
}

/* ---- bindings ---- */

struct binding *exchange_find_binding(const struct exchange *exchange, struct slice identity)
{
    struct map_link *link = map_find(&exchange->identities, identity);

    return link == NULL ? NULL : container_of(link, struct binding, by_identity);
}

static struct binding_list *incoming_of(const struct binding *binding)
{
    return binding->queue != NULL ? &binding->queue->bindings : &binding->exchange->incoming;
}

static uint32_t *incoming_count_of(const struct binding *binding)
{
    return binding->queue != NULL ? &binding->queue->binding_count
                                  : &binding->exchange->incoming_count;
}

struct binding *exchange_add_binding(struct exchange *exchange, struct slice identity,
                                     struct queue *queue, struct exchange *destination)
{
    struct binding *binding = binding_new(identity);

    assert((queue == NULL) != (destination == NULL));
    binding->source = exchange;
    binding->queue = queue;
    binding->exchange = destination;
    binding->durable = exchange->durable && (queue != NULL ? queue->durable : destination->durable);
    TAILQ_INSERT_TAIL(&exchange->bindings, binding, by_source);
    TAILQ_INSERT_TAIL(incoming_of(binding), binding, by_destination);
    map_insert(&exchange->identities, &binding->by_identity, binding->by_identity.key);
    exchange->binding_count++;
    (*incoming_count_of(binding))++;
    exchange->vhost->broker->totals.bindings++;
    exchange->vhost->broker->totals.octets += identity.size;
    if (exchange->type->add != NULL)
        exchange->type->add(exchange, binding);
    return binding;
}

void exchange_remove_binding(struct binding **binding)
{
    struct binding *gone = *binding;
    struct exchange *exchange = gone->source;

    *binding = NULL;
    assert(exchange->binding_count > 0);
    if (exchange->type->remove != NULL)
        exchange->type->remove(exchange, gone);
    exchange->binding_count--;
    (*incoming_count_of(gone))--;
    exchange->vhost->broker->totals.bindings--;
    exchange->vhost->broker->totals.octets -= gone->by_identity.key.size;
    map_remove(&exchange->identities, &gone->by_identity);
    TAILQ_REMOVE(incoming_of(gone), gone, by_destination);
    TAILQ_REMOVE(&exchange->bindings, gone, by_source);
    free(gone);
}

/* ---- routing ---- */

void route_init(struct route *route, struct broker *broker)
{
    *route = (struct route){.broker = broker};
}

void route_release(struct route *route)
{
    free(route->queues);
    free(route->targets);
    free(route->pending);
    *route = (struct route){0};
}

/* Doubles an array that is full. */
static void *make_room(void *array, size_t count, size_t *capacity)
{
    if (likely(count < *capacity))
        return array;
    *capacity = max_of(8, 2 * *capacity);
    return xrealloc(array, *capacity, sizeof(void *));
}

/* It leads nowhere, whatever else is found: there is no room for queues any more. */
static void exhaust(struct route *route)
{
    route->is_exhausted = true;
    route->count = route->capacity = route->target_count = route->pending_count = 0;
}

static size_t queues_max(const struct route *route)
{
    const uint32_t steps_max = route->broker->limits.routing_steps_max;

    return steps_max == 0 ? SIZE_MAX : max_of(steps_max / ROUTE_QUEUE_STEPS, 1);
}

static __attribute__((noinline)) bool make_queue_room(struct route *route)
{
    if (route->is_exhausted)
        return false;
    if (route->count >= queues_max(route)) {
        exhaust(route);
        return false;
    }
    route->queues = make_room(route->queues, route->count, &route->capacity);
    route->capacity = min_of(route->capacity, queues_max(route));
    return true;
}

void route_add_queue(struct route *route, struct queue *queue)
{
    route->matches++;
    if (queue->route_mark == route->mark)
        return;
    queue->route_mark = route->mark;
    if (unlikely(route->count == route->capacity) && !make_queue_room(route))
        return;
    route->queues[route->count++] = queue;
}

size_t route_spent(const struct route *route)
{
    return route->spent_mark == route->mark ? route->spent : 0;
}

size_t route_budget(const struct route *route)
{
    const size_t max = route->broker->limits.routing_steps_max;

    return max == 0 ? SIZE_MAX : max - min_of(route_spent(route), max);
}

bool route_spend(struct route *route, size_t steps)
{
    const size_t budget = route_budget(route);

    if (steps > budget)
        exhaust(route);
    route->spent = route_spent(route) + steps;
    route->spent_mark = route->mark;
    broker_spend(route->broker, min_of(steps, budget));
    return !route->is_exhausted;
}

void route_add_all(struct route *route, const struct exchange *exchange)
{
    const struct binding *binding;

    if (exchange->binding_count > 1 && !route_spend(route, exchange->binding_count))
        return;
    TAILQ_FOREACH (binding, &exchange->bindings, by_source)
        route_add(route, binding);
}

bool route_fail(const struct route *route, const struct exchange *exchange,
                struct amqp_error *error)
{
    return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "routing a message of exchange '%.*s' in vhost '%.*s' takes more than %" PRIu32
                     " steps of matching, or leads to more than %zu queues (routing_steps_max)",
                     SLICE_ARG(exchange->name), SLICE_ARG(exchange->vhost->name),
                     route->broker->limits.routing_steps_max, queues_max(route));
}

void route_add_target(struct route *route, struct reply_target *target)
{
    if (target->route_mark == route->mark || route->is_exhausted)
        return;
    target->route_mark = route->mark;
    route->targets = make_room(route->targets, route->target_count, &route->target_capacity);
    route->targets[route->target_count++] = target;
}

static void add_exchange(struct route *route, struct exchange *exchange)
{
    route->matches++;
    if (exchange->route_mark == route->mark)
        return;
    exchange->route_mark = route->mark;
    route->pending = make_room(route->pending, route->pending_count, &route->pending_capacity);
    route->pending[route->pending_count++] = exchange;
}

void route_add(struct route *route, const struct binding *binding)
{
    if (likely(binding->queue != NULL))
        route_add_queue(route, binding->queue);
    else
        add_exchange(route, binding->exchange);
}

/* 7.10: one that does not exist now is no error. */
static void add_alternate(struct route *route, const struct exchange *exchange)
{
    struct map_link *link = map_find(&exchange->vhost->exchanges, exchange->alternate);

    if (link != NULL)
        add_exchange(route, container_of(link, struct exchange, by_name));
}

/* Any type may look at the key and the properties. */
static __attribute__((noinline)) struct exchange *take_pending(struct route *route,
                                                               const struct routing *routing)
{
    const size_t steps =
        ROUTE_EXCHANGE_STEPS * routing->key_count + routing->properties.size / ROUTE_STEP_OCTETS;

    return route_spend(route, steps) ? route->pending[--route->pending_count] : NULL;
}

void exchange_route(struct exchange *exchange, const struct routing *routing, struct route *route)
{
    route->count = route->target_count = route->pending_count = 0;
    route->is_reply = route->is_exhausted = false;
    route->mark = ++exchange->vhost->broker->route_mark;
    exchange->route_mark = route->mark;
    exchange->published++;
    for (;;) {
        route->matches = 0;
        exchange->type->route(exchange, routing, route);
        if (unlikely(route->matches == 0 && exchange->alternate.data != NULL))
            add_alternate(route, exchange);
        if (likely(route->pending_count == 0))
            return;
        exchange = take_pending(route, routing);
        if (exchange == NULL)
            return;
    }
}

/* Apart, because the keys are many: routing a message without copies must not pay for their
 * room. */
static __attribute__((noinline)) void route_copies(struct exchange *exchange,
                                                   const struct message *message,
                                                   struct message *kept, struct route *route)
{
    struct slice keys[1 + COPIES_MAX];
    const struct routing routing = {.keys = keys,
                                    .key_count = copies_list(message, keys),
                                    .properties = message_properties(message),
                                    .message = kept};

    exchange_route(exchange, &routing, route);
}

static inline void route_message(struct exchange *exchange, const struct message *message,
                                 struct message *kept, struct route *route)
{
    if (unlikely(message->has_copies)) {
        route_copies(exchange, message, kept, route);
        return;
    }
    const struct slice key = message_routing_key(message);
    const struct routing routing = {
        .keys = &key, .key_count = 1, .properties = message_properties(message), .message = kept};
    exchange_route(exchange, &routing, route);
}

void exchange_route_message(struct exchange *exchange, struct message *message, struct route *route)
{
    route_message(exchange, message, message, route);
}

void exchange_preview(struct exchange *exchange, const struct message *message, struct route *route)
{
    route_message(exchange, message, NULL, route);
}

static __attribute__((noinline)) bool deliver_all(const struct route *route,
                                                  struct message *message)
{
    bool taken = true;

    broker_spend(route->broker, (route->count + route->target_count) * ROUTE_QUEUE_STEPS);
    for (size_t i = 0; i < route->count; i++)
        taken &= queue_push(route->queues[i], message);
    for (size_t i = 0; i < route->target_count; i++)
        route->targets[i]->deliver(route->targets[i], message);
    return taken;
}

bool route_deliver(const struct route *route, struct message *message)
{
    if (likely(route->count == 1 && route->target_count == 0))
        return queue_push(route->queues[0], message);
    return deliver_all(route, message);
}
