/* Class queue: the wire's side of it; the rules are the vhost's. An empty queue name is the one
 * last declared on the channel (8.9). */
#include "session/dispatch.h"

#include "core/vhost.h"
#include "session/reply_to.h"

static uint32_t clamp_count(uint64_t count)
{
    return (uint32_t)min_of(count, (uint64_t)UINT32_MAX);
}

/* ---- declare ---- */

static struct queue *find_passively(struct connection *connection, struct slice name, uint64_t *lsn,
                                    struct amqp_error *error)
{
    uint8_t room[NAME_SIZE_MAX];
    struct queue *queue = vhost_find_queue(connection->vhost, vhost_strip_name(name, room),
                                           ACCESS_QUEUE_DECLARE_PASSIVE, &connection->asker, error);
    if (queue != NULL)
        *lsn = queue->lsn;
    return queue;
}

/* 14.4: nothing is declared, passively or not; who asks learns whether somebody waits there. */
static bool find_reply_to(struct channel *channel, const struct amqp_queue_declare *declare,
                          struct amqp_error *error)
{
    const struct vhost *vhost = channel->connection->vhost;

    if (!reply_to_exists(vhost, declare->queue))
        return amqp_fail(error, AMQP_NOT_FOUND, "no queue '%.*s' in vhost '%.*s'",
                         SLICE_ARG(declare->queue), SLICE_ARG(vhost->name));
    channel_remember_queue(channel, declare->queue);
    if (!declare->no_wait)
        channel_send(channel, &(struct amqp_method){.id = AMQP_QUEUE_DECLARE_OK,
                                                    .queue_declare_ok.queue = declare->queue,
                                                    .queue_declare_ok.consumer_count = 1});
    return true;
}

bool on_queue_declare(struct channel *channel, const struct amqp_method *method,
                      struct amqp_error *error)
{
    const struct amqp_queue_declare *declare = &method->queue_declare;
    struct connection *connection = channel->connection;
    if (unlikely(reply_to_is_reserved(declare->queue)))
        return find_reply_to(channel, declare, error);

    const struct queue_options options = {
        .name = declare->queue,
        .durable = declare->durable,
        .auto_delete = declare->auto_delete,
        .owner = declare->exclusive ? &connection->owned : NULL,
        .arguments = declare->arguments,
    };

    uint64_t lsn;
    struct queue *queue = declare->passive ? find_passively(connection, declare->queue, &lsn, error)
                                           : vhost_declare_queue(connection->vhost, &options,
                                                                 &connection->asker, &lsn, error);
    if (queue == NULL)
        return false;
    channel_remember_queue(channel, queue->name);
    if (!declare->no_wait)
        channel_send_durable(
            channel,
            &(struct amqp_method){
                .id = AMQP_QUEUE_DECLARE_OK,
                .queue_declare_ok.queue = queue->name,
                .queue_declare_ok.message_count = clamp_count(queue_ready_count(queue)), /* 8.5 */
                .queue_declare_ok.consumer_count = queue->consumer_count,
            },
            lsn);
    connection_share_turn(connection);
    return true;
}

/* ---- bind, unbind ---- */

/* 7.20: with an empty queue name an empty key is that queue's name too. */
static bool fill_request(struct channel *channel, struct slice queue, struct slice exchange,
                         struct slice key, struct slice arguments, struct binding_request *request,
                         struct amqp_error *error)
{
    *request = (struct binding_request){
        .source = exchange, .destination = queue, .key = key, .arguments = arguments};
    if (!channel_queue_name(channel, &request->destination, error))
        return false;
    if (queue.size == 0 && key.size == 0)
        request->key = request->destination;
    return true;
}

bool on_queue_bind(struct channel *channel, const struct amqp_method *method,
                   struct amqp_error *error)
{
    const struct amqp_queue_bind *bind = &method->queue_bind;
    struct connection *connection = channel->connection;
    const uint64_t given = connection->broker->counters.given;
    struct binding_request request;
    uint64_t lsn;

    if (!fill_request(channel, bind->queue, bind->exchange, bind->routing_key, bind->arguments,
                      &request, error) ||
        !vhost_bind(connection->vhost, &request, &connection->asker, &lsn, error))
        return false;
    if (!bind->no_wait)
        channel_send_durable(channel, &(struct amqp_method){.id = AMQP_QUEUE_BIND_OK}, lsn);
    connection_pace_given(connection, given);
    return true;
}

bool on_queue_unbind(struct channel *channel, const struct amqp_method *method,
                     struct amqp_error *error)
{
    const struct amqp_queue_unbind *unbind = &method->queue_unbind;
    struct connection *connection = channel->connection;
    struct binding_request request;
    uint64_t lsn;

    if (!fill_request(channel, unbind->queue, unbind->exchange, unbind->routing_key,
                      unbind->arguments, &request, error) ||
        !vhost_unbind(connection->vhost, &request, &connection->asker, &lsn, error))
        return false;
    channel_send_durable(channel, &(struct amqp_method){.id = AMQP_QUEUE_UNBIND_OK}, lsn);
    return true;
}

/* ---- purge, delete ---- */

/* Drops what is ready; what was delivered and is unacked stays (8.13). */
bool on_queue_purge(struct channel *channel, const struct amqp_method *method,
                    struct amqp_error *error)
{
    const struct amqp_queue_purge *purge = &method->queue_purge;

    struct queue *queue = channel_find_queue(channel, purge->queue, ACCESS_QUEUE_PURGE, error);
    if (queue == NULL)
        return false;
    uint64_t lsn;
    const uint64_t purged = queue_purge(queue, &lsn);
    if (!purge->no_wait)
        channel_send_durable(
            channel,
            &(struct amqp_method){.id = AMQP_QUEUE_PURGE_OK,
                                  .queue_purge_ok.message_count = clamp_count(purged)},
            lsn);
    return true;
}

bool on_queue_delete(struct channel *channel, const struct amqp_method *method,
                     struct amqp_error *error)
{
    const struct amqp_queue_delete *delete = &method->queue_delete;
    struct connection *connection = channel->connection;
    struct slice name = delete->queue;
    uint64_t count, lsn;

    if (!channel_queue_name(channel, &name, error) ||
        !vhost_delete_queue(connection->vhost, name, delete->if_unused, delete->if_empty,
                            &connection->asker, &count, &lsn, error))
        return false;
    if (!delete->no_wait)
        channel_send_durable(
            channel,
            &(struct amqp_method){.id = AMQP_QUEUE_DELETE_OK,
                                  .queue_delete_ok.message_count = clamp_count(count)},
            lsn);
    return true;
}
