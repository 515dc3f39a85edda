/* Class tx (9.14 to 9.17). Whether the channel's mode fits is dispatch's question. */
#include "session/dispatch.h"
#include "session/tx.h"

bool on_tx_select(struct channel *channel, const struct amqp_method *method,
                  struct amqp_error *error)
{
    (void)method, (void)error;
    if (channel->tx == NULL)
        channel->tx = tx_new(channel);
    channel_send(channel, &(struct amqp_method){.id = AMQP_TX_SELECT_OK});
    return true;
}

bool on_tx_commit(struct channel *channel, const struct amqp_method *method,
                  struct amqp_error *error)
{
    uint64_t lsn;
    bool entries;
    (void)method;

    const bool done = tx_commit(channel->tx, &lsn, &entries, error);
    if (done)
        connection_send_durable(channel->connection, channel->number,
                                &(struct amqp_method){.id = AMQP_TX_COMMIT_OK}, lsn, entries);
    connection_share_turn(channel->connection);
    return done;
}

bool on_tx_rollback(struct channel *channel, const struct amqp_method *method,
                    struct amqp_error *error)
{
    (void)method, (void)error;
    tx_rollback(channel->tx);
    channel_send(channel, &(struct amqp_method){.id = AMQP_TX_ROLLBACK_OK});
    return true;
}
