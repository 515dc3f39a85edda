#include "session/reply_to.h"

#include "amqp/properties.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core/vhost.h"
#include "session/channel.h"

static const struct slice pseudo_queue = {(const uint8_t *)"amq.rabbitmq.reply-to", 21};

bool reply_to_is_pseudo_queue(struct slice name)
{
    return slice_equal(name, pseudo_queue);
}

bool reply_to_is_reserved(struct slice name)
{
    return slice_starts_with(name, pseudo_queue);
}

static void on_reply(struct reply_target *target, struct message *message)
{
    const struct reply_to *reply_to = container_of(target, struct reply_to, target);
    struct channel *channel = reply_to->channel;

    if (connection_is_flooded(channel->connection)) {
        log_warning("connection %s does not read its replies; one was dropped",
                    channel->connection->name);
        return;
    }
    channel->delivered++;
    channel->broker->counters.messages.delivered_no_ack++;
    channel_send_content(channel,
                         &(struct amqp_method){
                             .id = AMQP_BASIC_DELIVER,
                             .basic_deliver.consumer_tag = reply_to_tag(reply_to),
                             .basic_deliver.delivery_tag = deliveries_skip(&channel->deliveries),
                             .basic_deliver.exchange = message_exchange(message),
                             .basic_deliver.routing_key = message_routing_key(message),
                         },
                         message);
}

bool reply_to_consume(struct channel *channel, struct slice tag, bool no_ack,
                      struct amqp_error *error)
{
    if (!no_ack)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "reply consumer cannot acknowledge");
    if (channel->reply_to != NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "reply consumer already set");

    struct reply_to *reply_to = xcalloc(1, sizeof(*reply_to));
    reply_to->target.deliver = on_reply;
    reply_to->channel = channel;
    reply_to->tag_size = (uint8_t)tag.size;
    amqp_put_bytes(reply_to->tag, tag);
    const struct slice name = name_random(channel->broker->random, REPLY_TARGET_PREFIX,
                                          reply_to->name, sizeof(reply_to->name));
    map_insert(&channel->connection->vhost->reply_targets, &reply_to->target.by_name, name);
    channel->reply_to = reply_to;
    return true;
}

void reply_to_free(struct reply_to **reply_to)
{
    struct reply_to *gone = *reply_to;

    *reply_to = NULL;
    map_remove(&gone->channel->connection->vhost->reply_targets, &gone->target.by_name);
    free(gone);
}

bool reply_to_rewrite(const struct channel *channel, struct message **message,
                      struct amqp_error *error)
{
    struct amqp_properties properties;
    struct buf bytes = BUF_EMPTY;

    if (likely(!reply_to_is_pseudo_queue(
            amqp_properties_find(message_properties(*message), AMQP_PROPERTY_REPLY_TO))))
        return true;
    if (channel->reply_to == NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "fast reply consumer does not exist");

    amqp_properties_decode(message_properties(*message), &properties);
    properties.reply_to = channel->reply_to->target.by_name.key;
    amqp_properties_encode(&bytes, &properties);
    struct message *rebuilt = message_rebuild(*message, buf_slice(&bytes), message_bcc(*message));
    message_unref(message);
    *message = rebuilt;
    buf_release(&bytes);
    return true;
}

bool reply_to_exists(const struct vhost *vhost, struct slice name)
{
    return reply_to_is_pseudo_queue(name) || map_find(&vhost->reply_targets, name) != NULL;
}
