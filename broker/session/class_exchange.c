/* Class exchange: the wire's side of it; the rules are the vhost's. */
#include "session/dispatch.h"

#include "core/vhost.h"
#include "session/names.h"

/* 7.5. The default exchange is refused here as everywhere. */
static struct exchange *find_passively(struct vhost *vhost, struct slice name,
                                       struct amqp_error *error)
{
    if (name.size == 0) {
        amqp_fail(error, AMQP_ACCESS_REFUSED, "operation not permitted on the default exchange");
        return NULL;
    }
    return vhost_find_exchange(vhost, name, error);
}

bool on_exchange_declare(struct channel *channel, const struct amqp_method *method,
                         struct amqp_error *error)
{
    const struct amqp_exchange_declare *declare = &method->exchange_declare;
    struct vhost *vhost = channel->connection->vhost;
    struct name_scratch scratch;
    const struct exchange_options options = {
        .name = name_clean(declare->exchange, &scratch),
        .type = declare->type,
        .durable = declare->durable,
        .auto_delete = declare->auto_delete,
        .internal = declare->internal,
        .arguments = declare->arguments,
    };

    uint64_t lsn = 0;
    const struct exchange *exchange =
        declare->passive ? find_passively(vhost, options.name, error)
                         : vhost_declare_exchange(vhost, &options, &lsn, error);
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
    struct name_scratch scratch;

    uint64_t lsn = 0;
    if (!vhost_delete_exchange(channel->connection->vhost, name_clean(delete->exchange, &scratch),
                               delete->if_unused, &lsn, error))
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
    struct name_scratch source, destination;
    const struct binding_request request = {
        .source = name_clean(bind->source, &source),
        .destination = name_clean(bind->destination, &destination),
        .to_exchange = true,
        .key = bind->routing_key,
        .arguments = bind->arguments,
    };

    uint64_t lsn = 0;
    if (!vhost_bind(connection->vhost, &request, &connection->owned, &lsn, error))
        return false;
    if (!bind->no_wait)
        channel_send_durable(channel, &(struct amqp_method){.id = AMQP_EXCHANGE_BIND_OK}, lsn);
    return true;
}

bool on_exchange_unbind(struct channel *channel, const struct amqp_method *method,
                        struct amqp_error *error)
{
    const struct amqp_exchange_unbind *unbind = &method->exchange_unbind;
    struct connection *connection = channel->connection;
    struct name_scratch source, destination;
    const struct binding_request request = {
        .source = name_clean(unbind->source, &source),
        .destination = name_clean(unbind->destination, &destination),
        .to_exchange = true,
        .key = unbind->routing_key,
        .arguments = unbind->arguments,
    };

    uint64_t lsn = 0;
    if (!vhost_unbind(connection->vhost, &request, &connection->owned, &lsn, error))
        return false;
    if (!unbind->no_wait)
        channel_send_durable(channel, &(struct amqp_method){.id = AMQP_EXCHANGE_UNBIND_OK}, lsn);
    return true;
}
