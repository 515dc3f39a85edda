/* x-recent-history: a fanout that remembers the last messages (argument x-recent-history-length, 20
 * without it) and gives them, oldest first, to whoever is bound later (7.2). A message whose header
 * x-recent-history-no-store is true is not remembered. The memory is no store: it is empty after a
 * restart.
 *
 *     messages  │ 3 │ 4 │ 5 │   │   │ 1 │ 2 │      a ring; `begin` is the oldest
 *                             ▲       ▲ begin
 *
 * A new binding gets the messages themselves, not copies, so that many bindings are no more octets
 * than one. But the fate of what it gets must not settle a publish that still waits for its own:
 * such a message is remembered as a copy from then on. What is given are steps of the turn, which
 * may take it over its end; and as many as a publish may take (routing_steps_max) in all, where an
 * exchange leads to many queues. Beside the number of messages their octets are limited, for they
 * stay in memory. */
#include "amqp/properties.h"
#include "amqp/table.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core/argument.h"
#include "core/exchange.h"
#include "core/queue.h"
#include "core/vhost.h"

enum { LENGTH_DEFAULT = 20, LENGTH_MAX = 10000, OCTETS_MAX = 32 * 1024 * 1024 };

static const char length_key[] = "x-recent-history-length";

struct history {               /* exchange->of_type */
    struct message **messages; /* counted references */
    size_t capacity;           /* room for so many, up to length */
    size_t length, begin, count;
    size_t octets; /* of their records */
};

static bool recent_history_check_arguments(struct slice arguments, struct amqp_error *error)
{
    struct argument_text text;
    struct amqp_value value;
    int64_t length;

    if (!amqp_table_find(arguments, slice_of_string(length_key), &value))
        return true;
    if (!amqp_value_integer(&value, &length) || length <= 0)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "Invalid argument %s, '%s' must be a positive integer",
                         argument_print(&value, &text), length_key);
    return length <= LENGTH_MAX || amqp_fail(error, AMQP_PRECONDITION_FAILED,
                                             "Invalid argument %s, '%s' must be at most %d",
                                             argument_print(&value, &text), length_key, LENGTH_MAX);
}

static struct history *history_new(struct slice arguments)
{
    struct history *history = xcalloc(1, sizeof(*history));
    struct amqp_value value;
    int64_t length;

    history->length = LENGTH_DEFAULT;
    if (amqp_table_find(arguments, slice_of_string(length_key), &value) &&
        amqp_value_integer(&value, &length) && length > 0 && length <= LENGTH_MAX)
        history->length = (size_t)length;
    return history;
}

static struct message **message_at(const struct history *history, size_t i)
{
    return &history->messages[(history->begin + i) % history->capacity];
}

static void forget_oldest(struct history *history)
{
    struct message **oldest = message_at(history, 0);

    history->octets -= message_record(*oldest).size;
    message_unref(oldest);
    history->begin = (history->begin + 1) % history->capacity;
    history->count--;
}

static bool is_to_be_kept(const struct routing *routing)
{
    struct amqp_value value;

    return !amqp_table_find(amqp_properties_find(routing->properties, AMQP_PROPERTY_HEADERS),
                            SLICE("x-recent-history-no-store"), &value) ||
           value.type != AMQP_BOOL || !value.boolean;
}

/* More of it, the oldest first. */
static void make_room(struct history *history)
{
    const size_t capacity = min_of(max_of(8, 2 * history->capacity), history->length);
    struct message **messages = xcalloc(capacity, sizeof(*messages));

    for (size_t i = 0; i < history->count; i++)
        messages[i] = *message_at(history, i);
    free(history->messages);
    history->messages = messages;
    history->capacity = capacity;
    history->begin = 0;
}

static void keep(struct history *history, struct message *message)
{
    const size_t octets = message_record(message).size;

    while (history->count > 0 &&
           (history->count == history->length || history->octets + octets > OCTETS_MAX))
        forget_oldest(history);
    if (history->count == history->capacity)
        make_room(history);
    *message_at(history, history->count++) = message_ref(message);
    history->octets += octets;
}

static void recent_history_route(struct exchange *exchange, const struct routing *routing,
                                 struct route *route)
{
    route_add_all(route, exchange);
    if (routing->message == NULL || route->is_exhausted || !is_to_be_kept(routing))
        return;
    if (exchange->of_type == NULL)
        exchange->of_type = history_new(exchange->arguments);
    keep(exchange->of_type, routing->message);
}

/* ---- what a new binding gets ---- */

/* The message at i, for which nobody waits. */
static struct message *take(struct history *history, size_t i, struct broker *broker)
{
    struct message **kept = message_at(history, i);

    if ((*kept)->publisher != NULL) {
        struct message *copy =
            message_rebuild(*kept, message_properties(*kept), message_bcc(*kept));
        message_unref(kept);
        *kept = copy;
        broker_spend(broker, message_record(copy).size / ROUTE_STEP_OCTETS);
    }
    return message_ref(*kept);
}

/* Where the exchange leads it, or to the queue itself. Returns the steps it took. */
static size_t give(const struct binding *binding, struct message *message, struct route *route)
{
    if (binding->queue != NULL) {
        queue_push(binding->queue, message);
        return ROUTE_QUEUE_STEPS;
    }
    exchange_route_message(binding->exchange, message, route);
    route_deliver(route, message);
    return ROUTE_QUEUE_STEPS * max_of(route->count, 1) + route_spent(route);
}

static void tell_of_the_rest(const struct binding *binding, size_t given, size_t count)
{
    const struct exchange *exchange = binding->source;

    log_warning("exchange '%.*s' in vhost '%.*s': a new binding to exchange '%.*s' was given %zu "
                "of %zu messages, as more would take more than routing_steps_max",
                SLICE_ARG(exchange->name), SLICE_ARG(exchange->vhost->name),
                SLICE_ARG(binding->exchange->name), given, count);
}

static void give_all(const struct binding *binding, struct message *const *messages, size_t count)
{
    struct broker *broker = binding->source->vhost->broker;
    const size_t steps_max = broker->limits.routing_steps_max;
    size_t given = 0, steps = 0;
    struct route route;

    route_init(&route, broker);
    while (given < count && (binding->queue != NULL || steps_max == 0 || steps < steps_max))
        steps += give(binding, messages[given++], &route);
    route_release(&route);
    broker_spend(broker, given * ROUTE_QUEUE_STEPS);
    broker->counters.given += given;
    if (given < count)
        tell_of_the_rest(binding, given, count);
}

/* Routing through an exchange may lead back here, and change what is remembered: a list is taken
 * first. */
static void recent_history_add(struct exchange *exchange, struct binding *binding)
{
    struct history *history = exchange->of_type;
    const size_t count = history == NULL ? 0 : history->count;

    if (count == 0)
        return;
    struct message **messages = xcalloc(count, sizeof(*messages));
    for (size_t i = 0; i < count; i++)
        messages[i] = take(history, i, exchange->vhost->broker);
    give_all(binding, messages, count);
    for (size_t i = 0; i < count; i++)
        message_unref(&messages[i]);
    free(messages);
}

static void recent_history_release(struct exchange *exchange)
{
    struct history *history = exchange->of_type;

    exchange->of_type = NULL;
    if (history == NULL)
        return;
    while (history->count > 0)
        forget_oldest(history);
    free(history->messages);
    free(history);
}

const struct exchange_type exchange_type_recent_history = {
    .name = "x-recent-history",
    .check_arguments = recent_history_check_arguments,
    .add = recent_history_add,
    .route = recent_history_route,
    .release = recent_history_release,
};
