/* x-delayed-message: keeps a message for as long as its header x-delay says, in ms, and then routes
 * it as a plain exchange of the type in argument x-delayed-type would. A delay of 0 or below, or
 * none, is none.
 *
 *     publish ─▶ route ─┬─ no delay ─▶ delayed_type's route ─▶ queues, exchanges
 *                       │                      ▲
 *                       └─▶ exchange->delayed ─┘ when it has waited, as a dead letter goes: deleted there, put here, in one batch
 *
 * What waits lies in a queue of the exchange's own: durable if the exchange is, made for the first
 * message that waits, gone with the exchange and what it holds. No client can name it, for it is
 * not among the vhost's queues, and no list shows it. An entry's deadline is the end of its delay.
 * So timers, the store, confirms, transactions and recovery are those of any queue: on disk the
 * deadline is wall-clock time, in 64 bits, and what became due while the broker was down leaves as
 * soon as it has been read. Whatever waits in a durable exchange is stored, its delivery mode
 * notwithstanding.
 *
 * A message that waits has found its destination, as far as `mandatory` and alternate exchanges go;
 * when it is due it is routed by the bindings of that moment, and its publisher hears no more of
 * it. It then carries its delay with the sign turned, so that a consumer sees that it waited, and
 * another delayed exchange behind this one does not keep it again. */
#include "amqp/properties.h"
#include "amqp/table.h"
#include "core/exchange.h"
#include "core/queue.h"

static const char type_name[] = "x-delayed-message";

/* ---- the header ---- */

/* Integers of all widths; reals lose their fraction; strings of digits. */
static bool read_delay(const struct amqp_value *value, int64_t *delay_ms)
{
    const double real_max = 9e18;
    uint64_t number;

    if (amqp_value_integer(value, delay_ms))
        return true;
    if (value->type == AMQP_FLOAT || value->type == AMQP_DOUBLE) {
        *delay_ms = value->real > 0 && value->real < real_max ? (int64_t)value->real : 0;
        return true;
    }
    if (value->type != AMQP_STRING || !slice_to_u64(value->bytes, INT64_MAX, &number))
        return false;
    *delay_ms = (int64_t)number;
    return true;
}

static bool find_delay(struct slice properties, int64_t *delay_ms)
{
    struct amqp_value value;

    return amqp_table_find(amqp_properties_find(properties, AMQP_PROPERTY_HEADERS),
                           SLICE("x-delay"), &value) &&
           read_delay(&value, delay_ms) && *delay_ms > 0;
}

uint64_t exchange_delay_ms(struct slice properties)
{
    int64_t delay_ms;

    return find_delay(properties, &delay_ms) ? (uint64_t)delay_ms : UINT64_MAX;
}

static void put_waited(struct buf *out, int64_t delay_ms)
{
    amqp_table_put(out, SLICE("x-delay"),
                   &(struct amqp_value){.type = delay_ms > INT32_MAX ? AMQP_INT64 : AMQP_INT32,
                                        .integer = -delay_ms});
}

struct message *exchange_make_undelayed(const struct message *message)
{
    struct buf unsorted = BUF_EMPTY, headers = BUF_EMPTY, bytes = BUF_EMPTY;
    struct amqp_properties properties;
    struct amqp_value value;
    struct slice name;
    int64_t delay_ms = 0;

    amqp_properties_decode(message_properties(message), &properties);
    find_delay(message_properties(message), &delay_ms);
    put_waited(&unsorted, delay_ms);
    struct amqp_table_iter iter = amqp_table_walk(properties.headers);
    while (amqp_table_next(&iter, &name, &value))
        if (!slice_equal(name, SLICE("x-delay")))
            amqp_table_put(&unsorted, name, &value);
    amqp_table_sort(&headers, buf_slice(&unsorted)); /* 2.9 */
    properties.headers = buf_slice(&headers);
    amqp_properties_encode(&bytes, &properties);
    struct message *made = message_rebuild(message, buf_slice(&bytes), message_bcc(message));
    buf_release(&unsorted);
    buf_release(&headers);
    buf_release(&bytes);
    return made;
}

/* ---- the type ---- */

/* What the arguments name; data is NULL when they name nothing, or this type itself. */
static struct slice find_type_name(struct slice arguments)
{
    struct amqp_value value;

    if (amqp_table_find(arguments, SLICE("x-delayed-type"), &value) && value.type == AMQP_STRING &&
        !slice_equal(value.bytes, slice_of_string(type_name)))
        return value.bytes;
    return (struct slice){0};
}

static bool delayed_check_arguments(struct slice arguments, struct amqp_error *error)
{
    const struct slice name = find_type_name(arguments);
    const struct exchange_type *type = exchange_type_find(name);

    if (name.data == NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "Invalid argument, 'x-delayed-type' must be an existing exchange type");
    if (type == NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "unknown exchange type '%.*s'",
                         SLICE_ARG(name));
    return type->check_arguments == NULL || type->check_arguments(arguments, error);
}

static bool delayed_check_binding(const struct exchange *exchange, const struct queue *queue,
                                  struct slice key, struct slice arguments,
                                  struct amqp_error *error)
{
    const struct exchange_type *type = exchange->delayed_type;

    return type->check_binding == NULL ||
           type->check_binding(exchange, queue, key, arguments, error);
}

static void delayed_init(struct exchange *exchange)
{
    exchange->delayed_type = exchange_type_find(find_type_name(exchange->arguments));
    assert(exchange->delayed_type != NULL);
    if (exchange->delayed_type->init != NULL)
        exchange->delayed_type->init(exchange);
}

static void delayed_add(struct exchange *exchange, struct binding *binding)
{
    if (exchange->delayed_type->add != NULL)
        exchange->delayed_type->add(exchange, binding);
}

static void delayed_remove(struct exchange *exchange, struct binding *binding)
{
    if (exchange->delayed_type->remove != NULL)
        exchange->delayed_type->remove(exchange, binding);
}

static void delayed_route(struct exchange *exchange, const struct routing *routing,
                          struct route *route)
{
    int64_t delay_ms;

    if (!find_delay(routing->properties, &delay_ms)) {
        exchange->delayed_type->route(exchange, routing, route);
        return;
    }
    if (exchange->delayed == NULL)
        exchange->delayed =
            queue_new(exchange->vhost, &(struct queue_options){.name = exchange->name,
                                                               .durable = exchange->durable,
                                                               .delayed_by = exchange});
    route_add_queue(route, exchange->delayed);
}

static void delayed_on_deleted(struct exchange *exchange)
{
    if (exchange->delayed != NULL)
        queue_delete(exchange->delayed);
    exchange->delayed = NULL;
    if (exchange->delayed_type->on_deleted != NULL)
        exchange->delayed_type->on_deleted(exchange);
}

static void delayed_release(struct exchange *exchange)
{
    if (exchange->delayed != NULL)
        queue_free(&exchange->delayed);
    if (exchange->delayed_type->release != NULL)
        exchange->delayed_type->release(exchange);
}

const struct exchange_type exchange_type_delayed = {
    .name = type_name,
    .init = delayed_init,
    .check_arguments = delayed_check_arguments,
    .check_binding = delayed_check_binding,
    .add = delayed_add,
    .remove = delayed_remove,
    .route = delayed_route,
    .on_deleted = delayed_on_deleted,
    .release = delayed_release,
};
