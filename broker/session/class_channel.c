/* Class channel, and the stub of class access that old clients still call.
 *
 * channel.open makes the channel, close and close-ok end it; in between its state machine is
 * channel.c. Numbers are the client's choice: only how many are open is limited (6.1). */
#include "session/dispatch.h"

#include "session/service.h"

/* 6.1, 17.6 */
static bool check_user_limit(const struct user *user, struct amqp_error *error)
{
    const int64_t max = user->limits.channel_max;

    return max == LIMIT_NONE || user->channel_count < max ||
           amqp_fail(error, AMQP_NOT_ALLOWED,
                     "number of channels opened for user '%.*s' has reached the maximum allowed "
                     "user limit of %" PRId64,
                     SLICE_ARG(user->name), max);
}

/* 6.1, 17.7 */
static bool check_node_limit(const struct service *service, struct amqp_error *error)
{
    const struct broker_counters *counters = &service->broker->counters;
    const uint32_t max = service->limits.channel_max_per_node;

    return max == 0 || counters->channels_opened - counters->channels_closed < max ||
           amqp_fail(error, AMQP_NOT_ALLOWED,
                     "number of channels opened on node '%s' has reached the maximum allowed limit "
                     "of %" PRIu32,
                     service->node, max);
}

/* A frame for a channel that is not open: its first one must be channel.open (6.2). */
bool channel_open(struct connection *connection, const struct amqp_frame *frame,
                  struct amqp_error *error)
{
    struct amqp_method method;
    if (!connection_decode(frame, &method, error))
        return false;
    if (method.id != AMQP_CHANNEL_OPEN)
        return amqp_fail(error, AMQP_CHANNEL_ERROR, "expected 'channel.open'");
    error->class_id = error->method_id = 0; /* of a limit, which is no method's failure (5.1) */
    if (connection->channel_max != 0 && connection->channel_count >= connection->channel_max)
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "number of channels opened (%u) has reached the negotiated channel_max "
                         "(%u)",
                         connection->channel_count, connection->channel_max);
    if (!check_node_limit(connection->service, error) || !check_user_limit(connection->user, error))
        return false;

    struct channel *channel = channel_new(connection, frame->channel);
    channel_send(channel, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN_OK});
    return true;
}

void channel_on_close(struct channel *channel)
{
    struct connection *connection = channel->connection;
    const uint16_t number = channel->number;

    channel_free(&channel);
    connection_send(connection, number, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
}

void channel_on_close_ok(struct channel *channel)
{
    channel_free(&channel);
}

/* We are never asked to stop sending: consumers have prefetch for that (6.4). */
bool on_channel_flow(struct channel *channel, const struct amqp_method *method,
                     struct amqp_error *error)
{
    if (!method->channel_flow.active)
        return amqp_fail(error, AMQP_NOT_IMPLEMENTED, "active=false");
    channel_send(channel,
                 &(struct amqp_method){.id = AMQP_CHANNEL_FLOW_OK, .channel_flow_ok.active = true});
    return true;
}

/* Realms ended with AMQP 0-8: everyone gets ticket 1, and tickets are ignored. */
bool on_access_request(struct channel *channel, const struct amqp_method *method,
                       struct amqp_error *error)
{
    (void)method, (void)error;
    channel_send(channel, &(struct amqp_method){.id = AMQP_ACCESS_REQUEST_OK,
                                                .access_request_ok.ticket = 1});
    return true;
}
