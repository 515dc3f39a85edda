#include "session/subscription.h"

#include "base/alloc.h"
#include "core/argument.h"
#include "core/delivery_count.h"
#include "core/queue.h"
#include "session/consumer_timeout.h"
#include "session/service.h"

/* Up to here a delivery is copied into the output in one piece; a longer body is shared instead. */
enum { COPY_SIZE_MAX = 4096 };

/* How much its connection may leave unacknowledged before it has to wait. */
static uint64_t unacked_size_limit(const struct channel *channel, const struct consumer *consumer)
{
    const struct service *service = channel->connection->service;
    const bool has_prefetch = consumer->prefetch > 0 || channel->global_prefetch > 0;

    return has_prefetch ? service->unacked_size_max : service->unacked_size_bare;
}

static bool is_laden(const struct channel *channel, const struct consumer *consumer)
{
    const uint64_t limit = unacked_size_limit(channel, consumer);

    if (channel->connection->unacked_size < limit)
        return false;
    connection_await_acks(channel->connection, limit);
    return true;
}

static bool may_take(struct consumer *consumer)
{
    struct channel *channel = container_of(consumer, struct subscription, consumer)->channel;
    struct connection *connection = channel->connection;

    if (transport_is_congested(&connection->transport))
        return false;
    if (consumer->no_ack)
        return true;
    if (unlikely(connection->unacked_size >= connection->service->unacked_size_bare) &&
        is_laden(channel, consumer))
        return false;
    if (!channel_is_full(channel))
        return true;
    channel_warn_when_full(channel);
    return false;
}

/* basic.deliver, content header and body, each in its frame, written in one piece: the path of
 * every small message. */
static void send_small(struct channel *channel, const struct consumer *consumer, uint64_t tag,
                       bool redelivered, const struct message *message)
{
    struct slice exchange = message_exchange(message);
    struct slice routing_key = message_routing_key(message);
    struct slice properties = message_properties(message);
    struct slice body = message_body(message);
    uint32_t method_size =
        (uint32_t)(4 + 1 + consumer->tag.size + 8 + 1 + 1 + exchange.size + 1 + routing_key.size);
    uint32_t header_size = (uint32_t)(12 + properties.size);
    size_t size = method_size + header_size + body.size + 3 * AMQP_FRAME_OVERHEAD;
    struct buf *out = transport_output(&channel->connection->transport);
    uint8_t *const start = buf_reserve(out, size);

    uint8_t *at = amqp_put_frame_head(start, AMQP_FRAME_METHOD, channel->number, method_size);
    at = amqp_put_u32(at, AMQP_BASIC_DELIVER);
    at = amqp_put_shortstr(at, consumer->tag);
    at = amqp_put_u64(at, tag);
    at = amqp_put_u8(at, redelivered);
    at = amqp_put_shortstr(at, exchange);
    at = amqp_put_shortstr(at, routing_key);
    at = amqp_put_u8(at, AMQP_FRAME_END);

    at = amqp_put_frame_head(at, AMQP_FRAME_HEADER, channel->number, header_size);
    at = amqp_put_u16(at, amqp_class_of(AMQP_BASIC_DELIVER));
    at = amqp_put_u16(at, 0);
    at = amqp_put_u64(at, body.size);
    at = amqp_put_bytes(at, properties);
    at = amqp_put_u8(at, AMQP_FRAME_END);
    channel->connection->frames_out += 2;

    if (body.size > 0) {
        at = amqp_put_frame_head(at, AMQP_FRAME_BODY, channel->number, (uint32_t)body.size);
        at = amqp_put_bytes(at, body);
        at = amqp_put_u8(at, AMQP_FRAME_END);
        channel->connection->frames_out++;
    }
    buf_commit(out, (size_t)(at - start));
}

/* Any message, in as many frames as it takes. */
static void send_any(struct channel *channel, const struct consumer *consumer, uint64_t tag,
                     bool redelivered, struct message *message)
{
    channel_send_content(channel,
                         &(struct amqp_method){
                             .id = AMQP_BASIC_DELIVER,
                             .basic_deliver.consumer_tag = consumer->tag,
                             .basic_deliver.delivery_tag = tag,
                             .basic_deliver.redelivered = redelivered,
                             .basic_deliver.exchange = message_exchange(message),
                             .basic_deliver.routing_key = message_routing_key(message),
                         },
                         message);
}

static void send_counted(struct channel *channel, const struct consumer *consumer, uint64_t tag,
                         const struct entry *entry)
{
    struct message *shown = delivery_count_show(entry);

    send_any(channel, consumer, tag, entry->redelivered, shown);
    message_unref(&shown);
}

static bool is_small(const struct channel *channel, const struct message *message)
{
    const size_t frame_size_max = channel->connection->frame_size_max;

    return message->body_size <= COPY_SIZE_MAX &&
           message->body_size + AMQP_FRAME_OVERHEAD <= frame_size_max &&
           message->properties_size + 12u + AMQP_FRAME_OVERHEAD <= frame_size_max;
}

static void on_deliver(struct consumer *consumer, struct place place)
{
    struct subscription *subscription = container_of(consumer, struct subscription, consumer);
    struct channel *channel = subscription->channel;
    const struct entry *entry = place_entry(place);
    uint64_t tag;

    if (consumer->no_ack) {
        tag = deliveries_skip(&channel->deliveries);
    } else {
        tag = deliveries_add(&channel->deliveries, consumer->queue, place, consumer);
        channel->global_unacked++;
        channel_count_unacked(channel, entry);
        if (unlikely(subscription->timeout_ms > 0))
            consumer_timeout_watch(subscription);
    }
    channel->delivered++;
    if (unlikely(entry->acquired_count > 0))
        send_counted(channel, consumer, tag, entry);
    else if (is_small(channel, entry->message))
        send_small(channel, consumer, tag, entry->redelivered, entry->message);
    else
        send_any(channel, consumer, tag, entry->redelivered, entry->message);
}

/* Takes it out of the channel, which then knows the tag no more, and counts it no more: it may stay
 * for its deliveries. */
static void leave_channel(struct subscription *subscription)
{
    struct channel *channel = subscription->channel;

    map_remove(&channel->consumers, &subscription->by_tag);
    channel->consumer_count--;
    channel->connection->service->consumer_count--;
    channel->broker->totals.octets -= subscription->consumer.arguments.size;
    subscription->channel = NULL;
    subscription->consumer.tag = subscription->consumer.arguments = (struct slice){0};
    free(subscription->bytes);
    subscription->bytes = NULL;
}

/* A client that wants to know is told (10.10). */
static void tell_cancelled(const struct subscription *subscription)
{
    struct channel *channel = subscription->channel;

    if (channel->connection->can_consumer_cancel_notify)
        channel_send(channel,
                     &(struct amqp_method){.id = AMQP_BASIC_CANCEL,
                                           .basic_cancel.consumer_tag = subscription->consumer.tag,
                                           .basic_cancel.no_wait = true});
}

static void on_queue_deleted(struct consumer *consumer)
{
    struct subscription *subscription = container_of(consumer, struct subscription, consumer);

    tell_cancelled(subscription);
    leave_channel(subscription);
}

static void on_gone(struct consumer *consumer)
{
    free(container_of(consumer, struct subscription, consumer));
}

static const struct consumer_ops subscription_ops = {.may_take = may_take,
                                                     .deliver = on_deliver,
                                                     .on_queue_deleted = on_queue_deleted,
                                                     .on_gone = on_gone};

struct subscription *subscription_new(struct channel *channel, struct queue *queue,
                                      const struct subscription_options *options)
{
    struct subscription *subscription = xcalloc(1, sizeof(*subscription));

    subscription->bytes = xmalloc(options->tag.size + options->arguments.size);
    uint8_t *arguments = amqp_put_bytes(subscription->bytes, options->tag);
    amqp_put_bytes(arguments, options->arguments);
    subscription->channel = channel;
    subscription->timeout_ms = options->timeout_ms;
    subscription->consumer = (struct consumer){
        .ops = &subscription_ops,
        .tag = slice_of(subscription->bytes, options->tag.size),
        .arguments = slice_of(arguments, options->arguments.size),
        .priority = argument_priority(options->arguments),
        .no_ack = options->no_ack,
        .exclusive = options->exclusive,
        .prefetch = options->prefetch,
    };
    map_insert(&channel->consumers, &subscription->by_tag, subscription->consumer.tag);
    channel->consumer_count++;
    channel->connection->service->consumer_count++;
    channel->broker->totals.octets += options->arguments.size;
    queue_attach(queue, &subscription->consumer);
    return subscription;
}

struct subscription *subscription_find(struct channel *channel, struct slice tag)
{
    struct map_link *link = map_find(&channel->consumers, tag);

    return link == NULL ? NULL : container_of(link, struct subscription, by_tag);
}

void subscription_cancel(struct subscription **subscription)
{
    tell_cancelled(*subscription);
    subscription_free(subscription);
}

void subscription_free(struct subscription **subscription)
{
    struct subscription *gone = *subscription;

    *subscription = NULL;
    leave_channel(gone);
    queue_detach(gone->consumer.queue, &gone->consumer);
}
