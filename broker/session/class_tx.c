/* Class tx (9.14 to 9.17). */
#include "session/dispatch.h"
#include "session/tx.h"

bool on_tx_select(struct channel *channel, const struct amqp_method *method,
                  struct amqp_error *error)
{
    (void)method;
    if (channel->confirms != NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "cannot switch from confirm to tx mode");
    if (channel->tx == NULL)
        channel->tx = tx_new(channel);
    channel_send(channel, &(struct amqp_method){.id = AMQP_TX_SELECT_OK});
    return true;
}

static bool check_transactional(const struct channel *channel, struct amqp_error *error)
{
    if (channel->tx == NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "channel is not transactional");
    return true;
}

bool on_tx_commit(struct channel *channel, const struct amqp_method *method,
                  struct amqp_error *error)
{
    uint64_t lsn;
    (void)method;

    if (!check_transactional(channel, error) || !tx_commit(channel->tx, &lsn, error))
        return false;
    channel_send_durable(channel, &(struct amqp_method){.id = AMQP_TX_COMMIT_OK}, lsn);
    return true;
}

bool on_tx_rollback(struct channel *channel, const struct amqp_method *method,
                    struct amqp_error *error)
{
    (void)method;
    if (!check_transactional(channel, error))
        return false;
    tx_rollback(channel->tx);
    channel_send(channel, &(struct amqp_method){.id = AMQP_TX_ROLLBACK_OK});
    return true;
}
