/* Class exchange: the wire's side of it; the rules are the vhost's. */
#include "session/dispatch.h"

#include "core/vhost.h"

bool on_exchange_declare(struct channel *channel, const struct amqp_method *method,
                         struct amqp_error *error)
{
    const struct amqp_exchange_declare *declare = &method->exchange_declare;
    struct vhost *vhost = channel->connection->vhost;
    const struct asker *asking = &channel->connection->asker;
    const struct exchange_options options = {
        .name = declare->exchange,
        .type = declare->type,
        .durable = declare->durable,
        .auto_delete = declare->auto_delete,
        .internal = declare->internal,
        .arguments = declare->arguments,
    };

    uint64_t lsn;
    const struct exchange *exchange =
        declare->passive ? vhost_inspect_exchange(vhost, declare->exchange, asking, error)
                         : vhost_declare_exchange(vhost, &options, asking, &lsn, error);
    if (exchange == NULL)
        return false;
    if (!declare->no_wait)
        channel_send_durable(channel, &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE_OK},
                             declare->passive ? exchange->lsn : lsn);
    return true;
}

bool on_exchange_delete(struct channel *channel, const struct amqp_method *method,
                        struct amqp_error *error)
{
    const struct amqp_exchange_delete *delete = &method->exchange_delete;

    uint64_t lsn;
    if (!vhost_delete_exchange(channel->connection->vhost, delete->exchange, delete->if_unused,
                               &channel->connection->asker, &lsn, error))
        return false;
    if (!delete->no_wait)
        channel_send_durable(channel, &(struct amqp_method){.id = AMQP_EXCHANGE_DELETE_OK}, lsn);
    return true;
}

bool on_exchange_bind(struct channel *channel, const struct amqp_method *method,
                      struct amqp_error *error)
{
    const struct amqp_exchange_bind *bind = &method->exchange_bind;
    struct connection *connection = channel->connection;
    const struct binding_request request = {
        .source = bind->source,
        .destination = bind->destination,
        .to_exchange = true,
        .key = bind->routing_key,
        .arguments = bind->arguments,
    };

    const uint64_t given = connection->broker->counters.given;
    uint64_t lsn;
    if (!vhost_bind(connection->vhost, &request, &connection->asker, &lsn, error))
        return false;
    if (!bind->no_wait)
        channel_send_durable(channel, &(struct amqp_method){.id = AMQP_EXCHANGE_BIND_OK}, lsn);
    connection_pace_given(connection, given);
    return true;
}

bool on_exchange_unbind(struct channel *channel, const struct amqp_method *method,
                        struct amqp_error *error)
{
    const struct amqp_exchange_unbind *unbind = &method->exchange_unbind;
    struct connection *connection = channel->connection;
    const struct binding_request request = {
        .source = unbind->source,
        .destination = unbind->destination,
        .to_exchange = true,
        .key = unbind->routing_key,
        .arguments = unbind->arguments,
    };

    uint64_t lsn;
    if (!vhost_unbind(connection->vhost, &request, &connection->asker, &lsn, error))
        return false;
    if (!unbind->no_wait)
        channel_send_durable(channel, &(struct amqp_method){.id = AMQP_EXCHANGE_UNBIND_OK}, lsn);
    return true;
}
