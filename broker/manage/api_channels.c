/* GET /api/channels */
#include "manage/api.h"

#include "session/channel.h"
#include "session/confirm.h"
#include "session/service.h"

json_t *api_channel_details(const struct manage *manage, const struct channel *channel)
{
    const struct connection *connection = channel->connection;
    char name[sizeof(connection->name) + 16];
    json_t *object = json_object();

    snprintf(name, sizeof(name), "%s (%u)", connection->name, channel->number);
    json_put_string(object, "name", name);
    json_put_number(object, "number", channel->number);
    json_put_string(object, "connection_name", connection->name);
    json_put_string(object, "peer_host", connection->peer.host);
    json_put_number(object, "peer_port", connection->peer.port);
    json_put_string(object, "user", connection->user_name);
    json_put_string(object, "node", manage->node);
    return object;
}

static json_t *message_stats(const struct channel *channel)
{
    json_t *object = json_object();

    json_put_number(object, "publish", channel->published);
    json_put_number(object, "confirm", channel->confirmed);
    json_put_number(object, "return_unroutable", channel->returned);
    json_put_number(object, "deliver_get", channel->delivered);
    json_put_number(object, "ack", channel->acknowledged);
    return object;
}

static json_t *describe(const struct manage *manage, const struct channel *channel)
{
    const struct connection *connection = channel->connection;
    json_t *object = api_channel_details(manage, channel);

    json_put(object, "connection_details", api_connection_details(connection));
    json_put_slice(object, "vhost", connection->vhost->name);
    json_put_string(object, "state", channel->state == CHANNEL_OPEN ? "running" : "closing");
    json_put_bool(object, "confirm", channel->confirms != NULL);
    json_put_bool(object, "transactional", channel->tx != NULL);
    json_put_number(object, "consumer_count", channel->consumer_count);
    json_put_number(object, "prefetch_count", channel->prefetch);
    json_put_number(object, "global_prefetch_count", channel->global_prefetch);
    json_put_number(object, "messages_unacknowledged", channel->deliveries.count);
    json_put_number(object, "messages_unconfirmed",
                    channel->confirms == NULL ? 0 : confirms_waiting(channel->confirms));
    json_put(object, "message_stats", message_stats(channel));
    return object;
}

void api_channels(struct manage_request *request)
{
    const struct manage *manage = request->manage;
    const struct connection *connection;
    json_t *list = json_array();

    TAILQ_FOREACH (connection, &manage->options.service->connections, link)
        map_each (&connection->channels, link)
            json_array_append_new(list,
                                  describe(manage, container_of(link, struct channel, by_number)));
    manage_answer(request, HTTP_OK, list, 0);
}
