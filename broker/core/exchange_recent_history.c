/* x-recent-history: a fanout that remembers the last messages (argument x-recent-history-length, 20
 * without it) and gives them, oldest first, to whoever is bound later (7.2). A message whose header
 * x-recent-history-no-store is true is not remembered. The memory is no store: it is empty after a
 * restart.
 *
 *     messages  │ 3 │ 4 │ 5 │   │   │ 1 │ 2 │      a ring; `begin` is the oldest
 *                             ▲       ▲ begin
 *
 * What a new binding gets are copies: the fate of one must not settle the publish of the other.
 * Beside the number of messages their octets are limited, for they stay in memory. */
#include "amqp/properties.h"
#include "amqp/table.h"
#include "base/alloc.h"
#include "core/argument.h"
#include "core/exchange.h"
#include "core/queue.h"
#include "core/vhost.h"

enum { LENGTH_DEFAULT = 20, LENGTH_MAX = 10000, OCTETS_MAX = 32 * 1024 * 1024 };

static const char length_key[] = "x-recent-history-length";

struct history {               /* exchange->of_type */
    struct message **messages; /* counted references; room for `length` */
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
    history->messages = xcalloc(history->length, sizeof(struct message *));
    return history;
}

static struct message **message_at(const struct history *history, size_t i)
{
    return &history->messages[(history->begin + i) % history->length];
}

static void forget_oldest(struct history *history)
{
    struct message **oldest = message_at(history, 0);

    history->octets -= message_record(*oldest).size;
    message_unref(oldest);
    history->begin = (history->begin + 1) % history->length;
    history->count--;
}

static bool is_to_be_kept(const struct routing *routing)
{
    struct amqp_value value;

    return !amqp_table_find(amqp_properties_find(routing->properties, AMQP_PROPERTY_HEADERS),
                            SLICE("x-recent-history-no-store"), &value) ||
           value.type != AMQP_BOOL || !value.boolean;
}

static void keep(struct history *history, struct message *message)
{
    const size_t octets = message_record(message).size;

    while (history->count > 0 &&
           (history->count == history->length || history->octets + octets > OCTETS_MAX))
        forget_oldest(history);
    *message_at(history, history->count++) = message_ref(message);
    history->octets += octets;
}

static void recent_history_route(struct exchange *exchange, const struct routing *routing,
                                 struct route *route)
{
    if (routing->message != NULL && is_to_be_kept(routing)) {
        if (exchange->of_type == NULL)
            exchange->of_type = history_new(exchange->arguments);
        keep(exchange->of_type, routing->message);
    }
    route_add_all(route, exchange);
}

/* Where an exchange leads a copy, or the queue itself. */
static void give(const struct binding *binding, const struct message *message)
{
    struct message *copy =
        message_rebuild(message, message_properties(message), message_bcc(message));
    struct route route;

    if (binding->queue != NULL) {
        queue_push(binding->queue, copy);
    } else {
        route_init(&route, binding->exchange->vhost->broker);
        exchange_route_message(binding->exchange, copy, &route);
        route_deliver(&route, copy);
        route_release(&route);
    }
    message_unref(&copy);
}

/* Routing through an exchange may lead back here, and change what is remembered: a list is taken
 * first. */
static void recent_history_add(struct exchange *exchange, struct binding *binding)
{
    const struct history *history = exchange->of_type;
    const size_t count = history == NULL ? 0 : history->count;

    if (count == 0)
        return;
    struct message **messages = xcalloc(count, sizeof(*messages));
    for (size_t i = 0; i < count; i++)
        messages[i] = message_ref(*message_at(history, i));
    for (size_t i = 0; i < count; i++) {
        give(binding, messages[i]);
        message_unref(&messages[i]);
    }
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
