/* From method to handler. A class has an array of rows indexed by method number, and the classes
 * one indexed by class number, so that a row is found in two loads; numbers without a row are
 * methods that clients do not send here, or that we do not serve.
 *
 * A row also says in which mode the channel must be. What the method itself must look like is the
 * handler's business. */
#include "session/dispatch.h"

enum mode { MODE_ANY, MODE_NOT_TX, MODE_NOT_CONFIRM, MODE_TX };

struct row {
    channel_handler *run;
    enum mode mode;
};

#define ROW(name, handler, needs) [AMQP_##name & 0xFFFF] = {.run = (handler), .mode = (needs)}

static const struct row access_rows[] = {ROW(ACCESS_REQUEST, on_access_request, MODE_ANY)};

static bool on_second_open(struct channel *channel, const struct amqp_method *method,
                           struct amqp_error *error)
{
    (void)channel, (void)method;
    return amqp_fail(error, AMQP_CHANNEL_ERROR, "second 'channel.open' seen"); /* 6.2 */
}

static const struct row channel_rows[] = {
    ROW(CHANNEL_OPEN, on_second_open, MODE_ANY),
    ROW(CHANNEL_FLOW, on_channel_flow, MODE_ANY),
};

static const struct row exchange_rows[] = {
    ROW(EXCHANGE_DECLARE, on_exchange_declare, MODE_ANY),
    ROW(EXCHANGE_DELETE, on_exchange_delete, MODE_ANY),
    ROW(EXCHANGE_BIND, on_exchange_bind, MODE_ANY),
    ROW(EXCHANGE_UNBIND, on_exchange_unbind, MODE_ANY),
};

static const struct row queue_rows[] = {
    ROW(QUEUE_DECLARE, on_queue_declare, MODE_ANY), ROW(QUEUE_BIND, on_queue_bind, MODE_ANY),
    ROW(QUEUE_UNBIND, on_queue_unbind, MODE_ANY),   ROW(QUEUE_PURGE, on_queue_purge, MODE_ANY),
    ROW(QUEUE_DELETE, on_queue_delete, MODE_ANY),
};

static const struct row basic_rows[] = {
    ROW(BASIC_QOS, on_basic_qos, MODE_ANY),
    ROW(BASIC_CONSUME, on_basic_consume, MODE_ANY),
    ROW(BASIC_CANCEL, on_basic_cancel, MODE_ANY),
    ROW(BASIC_CANCEL_OK, on_basic_cancel_ok, MODE_ANY),
    ROW(BASIC_PUBLISH, on_basic_publish, MODE_ANY),
    ROW(BASIC_GET, on_basic_get, MODE_ANY),
    ROW(BASIC_ACK, on_basic_ack, MODE_ANY),
    ROW(BASIC_NACK, on_basic_nack, MODE_ANY),
    ROW(BASIC_REJECT, on_basic_reject, MODE_ANY),
    ROW(BASIC_RECOVER, on_basic_recover, MODE_ANY),
    ROW(BASIC_RECOVER_ASYNC, on_basic_recover_async, MODE_ANY),
};

static const struct row confirm_rows[] = {ROW(CONFIRM_SELECT, on_confirm_select, MODE_NOT_TX)};

static const struct row tx_rows[] = {
    ROW(TX_SELECT, on_tx_select, MODE_NOT_CONFIRM),
    ROW(TX_COMMIT, on_tx_commit, MODE_TX),
    ROW(TX_ROLLBACK, on_tx_rollback, MODE_TX),
};

#define CLASS(number, name) [number] = {.rows = name##_rows, .count = countof(name##_rows)}

static const struct class_rows {
    const struct row *rows;
    uint16_t count;
} classes[] = {
    CLASS(20, channel), CLASS(30, access),  CLASS(40, exchange), CLASS(50, queue),
    CLASS(60, basic),   CLASS(85, confirm), CLASS(90, tx),
};

static const struct row *find_row(uint32_t id)
{
    const uint16_t class = amqp_class_of(id), method = amqp_method_of(id);

    if (class >= countof(classes) || method >= classes[class].count ||
        classes[class].rows[method].run == NULL)
        return NULL;
    return &classes[class].rows[method];
}

/* 9.9, 9.14 */
static bool check_mode(const struct channel *channel, enum mode mode, struct amqp_error *error)
{
    if (mode == MODE_NOT_TX && channel->tx != NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "cannot switch from tx to confirm mode");
    if (mode == MODE_NOT_CONFIRM && channel->confirms != NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "cannot switch from confirm to tx mode");
    if (mode == MODE_TX && channel->tx == NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "channel is not transactional");
    return true;
}

bool dispatch_method(struct channel *channel, const struct amqp_method *method,
                     struct amqp_error *error)
{
    const struct row *row = find_row(method->id);
    if (unlikely(row == NULL))
        return amqp_fail(error, AMQP_COMMAND_INVALID, "unimplemented method"); /* 2.3 */
    if (unlikely(row->mode != MODE_ANY) && !check_mode(channel, row->mode, error))
        return false;
    return row->run(channel, method, error);
}
