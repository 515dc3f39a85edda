/* A channel's own part: what kind of frame is due, the assembly of a publish, sending, and its end.
 *
 *               basic.publish            header, size > 0
 *     METHOD ──────────────────▶ HEADER ──────────────────▶ BODY ─┐ until body_size octets
 *       ▲                          │ size 0                  │ ◀──┘
 *       └──────────────────────────┴─────────────────────────┘ channel_publish
 *
 * Invariants: `message` is not NULL exactly in BODY; a channel that has sent channel.close has
 * neither consumers nor unacked deliveries nor a publish under way, and looks at nothing but close
 * and close-ok (5.6), so that what its peer had in flight falls on the floor.
 *
 * A channel belongs to its connection and is freed at once: whoever calls channel_free looks at it
 * no more. */
#include "session/channel.h"

#include "base/alloc.h"
#include "core/vhost.h"
#include "session/consumer_timeout.h"
#include "session/dispatch.h"
#include "session/reply_to.h"
#include "session/service.h"
#include "session/subscription.h"
#include "session/tx.h"

enum {
    BODY_SIZE_MAX = 536870912, /* that a header may declare (2.3) */
    BODY_COPY_MAX = 4096,      /* up to here copying costs less than a reference */
};

struct channel *channel_new(struct connection *connection, uint16_t number)
{
    struct channel *channel = xcalloc(1, sizeof(*channel));
    channel->connection = connection;
    channel->broker = connection->broker;
    channel->number = number;
    deliveries_init(&channel->deliveries);
    channel->timeout.on_expire = on_consumer_timeout;
    channel_set_global_prefetch(channel, 0);

    map_insert_id(&connection->channels, &channel->by_number, number);
    connection->channel_count++;
    connection->user->channel_count++;
    channel->broker->counters.channels_opened++;
    return channel;
}

/* ---- what a publish under way may take ---- */

/* A message that is not small: may its body come? It counts as the connection's until it is whole,
 * and not as a message: a word in a header takes no memory, for which queues would be paged out. */
static bool reserve(struct channel *channel, const struct amqp_content_header *header,
                    struct amqp_error *error)
{
    const uint64_t max = channel->connection->service->limits.message_size_max;

    if (header->body_size > BODY_SIZE_MAX)
        return amqp_fail(error, AMQP_FRAME_ERROR,
                         "content body size %" PRIu64 " exceeds maximum allowed size %d",
                         header->body_size, BODY_SIZE_MAX);
    if (header->body_size > max) /* 9.1 */
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "message size %" PRIu64 " is larger than configured max size %" PRIu64,
                         header->body_size, max);
    const uint64_t size = header->body_size + header->properties.size;
    if (!connection_reserve(channel->connection, size, error))
        return false;
    channel->reserved_size = (uint32_t)size;
    return true;
}

/* It is whole, or will never be. */
static __attribute__((noinline)) void unreserve(struct channel *channel)
{
    connection_unreserve(channel->connection, channel->reserved_size);
    channel->reserved_size = 0;
    message_count_body(channel->message, true);
}

/* ---- the end ---- */

static void free_consumers(struct channel *channel)
{
    struct map_link *link = map_next(&channel->consumers, NULL);

    while (link != NULL) {
        struct subscription *subscription = container_of(link, struct subscription, by_tag);
        link = map_next(&channel->consumers, link);
        subscription_free(&subscription);
    }
    assert(channel->consumer_count == 0);
}

/* Everything that it holds of the broker goes: it could be opened anew. A basic.get that waits ends
 * the connection's hold. */
static void drop_work(struct channel *channel)
{
    if (channel->get_waiter.queue != NULL) {
        queue_waiter_cancel(&channel->get_waiter);
        if (channel->connection->held)
            connection_unhold(channel->connection);
    }
    if (channel->reply_to != NULL)
        reply_to_free(&channel->reply_to);
    if (channel->tx != NULL)
        tx_free(&channel->tx);
    if (channel->confirms != NULL)
        confirms_close(&channel->confirms);
    struct deliveries unacked = channel->deliveries;
    deliveries_init(&channel->deliveries);
    timer_cancel(&channel->timeout);
    channel->global_unacked = 0;
    channel->connection->unacked_size -= channel->unacked_size;
    channel->unacked_size = 0;
    connection_lighten(channel->connection);
    /* First: a queue may go with its last consumer, and what is unacked with it (8.12). */
    free_consumers(channel);
    returns_add(&channel->connection->service->returns, &unacked); /* 6.5 */
    if (channel->reserved_size > 0)
        unreserve(channel);
    if (channel->message != NULL)
        message_unref(&channel->message);
    channel->expects = EXPECT_METHOD;
}

void channel_free(struct channel **channel_)
{
    struct channel *channel = *channel_;
    *channel_ = NULL;

    drop_work(channel);
    channel->connection->user->channel_count--;
    connection_remove_channel(channel->connection, channel);
    deliveries_release(&channel->deliveries);
    map_release(&channel->consumers);
    buf_release(&channel->last_queue);
    channel->broker->counters.channels_closed++;
    free(channel);
}

static void log_error_of_channel(const struct channel *channel, const struct amqp_error *error)
{
    char label[CONNECTION_LABEL_SIZE];
    const struct amqp_method_info *info =
        amqp_method_info((uint32_t)error->class_id << 16 | error->method_id);
    log_error("Channel error on connection %s, channel %u: operation %s caused a channel "
              "exception: %s",
              connection_label(channel->connection, label), channel->number,
              info == NULL ? "none" : info->name, error->text);
}

bool channel_refuse(struct channel *channel, const struct amqp_error *error)
{
    if (!amqp_reply_is_soft(error->code))
        return false;
    log_error_of_channel(channel, error);
    drop_work(channel);
    const struct amqp_method close = {.id = AMQP_CHANNEL_CLOSE,
                                      .channel_close = {
                                          .reply_code = error->code,
                                          .reply_text = slice_of_string(error->text),
                                          .class_id = error->class_id,
                                          .method_id = error->method_id,
                                      }};
    connection_send_behind_held(channel->connection, channel->number, &close);
    channel->state = CHANNEL_AWAIT_CLOSE_OK;
    return true;
}

/* ---- frames ---- */

static bool on_method_frame(struct channel *channel, const struct amqp_frame *frame,
                            struct amqp_error *error)
{
    struct amqp_method method;
    if (unlikely(!connection_decode(frame, &method, error)))
        return false;
    if (unlikely(method.id == AMQP_CHANNEL_CLOSE)) {
        channel_on_close(channel);
        return true;
    }
    return dispatch_method(channel, &method, error) || channel_refuse(channel, error);
}

/* What is wrong with content is basic.publish's mistake: nothing else has content. */
static void blame_publish(struct amqp_error *error)
{
    error->class_id = amqp_class_of(AMQP_BASIC_PUBLISH);
    error->method_id = amqp_method_of(AMQP_BASIC_PUBLISH);
}

static inline bool finish_publish(struct channel *channel, struct amqp_error *error)
{
    channel->expects = EXPECT_METHOD;
    if (unlikely(channel->reserved_size > 0))
        unreserve(channel);
    if (unlikely(!channel_publish(channel, error)))
        return channel_refuse(channel, error);
    connection_pace(channel->connection);
    return true;
}

static bool on_header_frame(struct channel *channel, const struct amqp_frame *frame,
                            struct amqp_error *error)
{
    struct amqp_content_header header;

    blame_publish(error);
    if (frame->type != AMQP_FRAME_HEADER)
        return amqp_fail(error, AMQP_UNEXPECTED_FRAME,
                         "expected content header for class 60, got non content header frame "
                         "instead");
    if (frame->payload.size >= 2 &&
        amqp_get_u16(frame->payload.data) != amqp_class_of(AMQP_BASIC_PUBLISH))
        return amqp_fail(error, AMQP_UNEXPECTED_FRAME,
                         "expected content header for class 60, got one for class %u instead",
                         amqp_get_u16(frame->payload.data));
    if (!amqp_content_header_decode(frame->payload, &header, error))
        return false;
    const uint32_t small = channel->connection->service->reserved_size_min;
    if (unlikely(header.body_size > small || header.properties.size > small) &&
        !reserve(channel, &header, error))
        return channel_refuse(channel, error);

    channel->message =
        message_new(slice_of(channel->publish_exchange, channel->publish_exchange_size),
                    slice_of(channel->publish_key, channel->publish_key_size), header.properties,
                    (uint32_t)header.body_size,
                    amqp_properties_delivery_mode(header.properties) == AMQP_DELIVERY_PERSISTENT);
    if (unlikely(channel->reserved_size > 0))
        message_count_body(channel->message, false);
    if (header.body_size == 0)
        return finish_publish(channel, error);
    channel->expects = EXPECT_BODY;
    return true;
}

static bool on_body_frame(struct channel *channel, const struct amqp_frame *frame,
                          struct amqp_error *error)
{
    struct message *message = channel->message;

    blame_publish(error);
    if (frame->type != AMQP_FRAME_BODY)
        return amqp_fail(error, AMQP_UNEXPECTED_FRAME,
                         "expected content body, got non content body frame instead");
    if (frame->payload.size > message->body_size - message->body_received)
        return amqp_fail(error, AMQP_FRAME_ERROR,
                         "content body frame exceeds remaining content size");
    message_append_body(message, frame->payload);
    if (message->body_received < message->body_size)
        return true;
    return finish_publish(channel, error);
}

static void on_frame_while_closing(struct channel *channel, const struct amqp_frame *frame)
{
    if (frame->type != AMQP_FRAME_METHOD || frame->payload.size < 4)
        return;
    switch (amqp_get_u32(frame->payload.data)) {
    case AMQP_CHANNEL_CLOSE:
        channel_send(channel, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
        break;
    case AMQP_CHANNEL_CLOSE_OK:
        channel_on_close_ok(channel);
        break;
    }
}

bool channel_on_frame(struct channel *channel, const struct amqp_frame *frame,
                      struct amqp_error *error)
{
    if (unlikely(channel->state == CHANNEL_AWAIT_CLOSE_OK)) {
        on_frame_while_closing(channel, frame);
        return true;
    }
    switch (channel->expects) {
    case EXPECT_METHOD:
        return on_method_frame(channel, frame, error);
    case EXPECT_HEADER:
        return on_header_frame(channel, frame, error);
    case EXPECT_BODY:
        return on_body_frame(channel, frame, error);
    }
    __builtin_unreachable();
}

/* ---- sending ---- */

void channel_send(struct channel *channel, const struct amqp_method *method)
{
    connection_send(channel->connection, channel->number, method);
}

void channel_send_durable(struct channel *channel, const struct amqp_method *method, uint64_t lsn)
{
    connection_send_durable(channel->connection, channel->number, method, lsn, false);
}

static void release_body(void *owner)
{
    struct message *message = owner;
    message_unref(&message);
}

/* A body frame whose payload is the message's own memory. */
static void send_body_shared(struct channel *channel, struct message *message, struct slice payload)
{
    struct transport *transport = &channel->connection->transport;

    struct buf *out = transport_output(transport);
    amqp_put_frame_head(buf_reserve(out, AMQP_FRAME_HEAD_SIZE), AMQP_FRAME_BODY, channel->number,
                        (uint32_t)payload.size);
    buf_commit(out, AMQP_FRAME_HEAD_SIZE);
    transport_output_shared(transport, payload, release_body, message_ref(message));
    amqp_write_u8(transport_output(transport), AMQP_FRAME_END);
}

static void send_body_copied(struct buf *out, uint16_t number, struct slice payload)
{
    uint8_t *at = buf_reserve(out, payload.size + AMQP_FRAME_OVERHEAD);
    at = amqp_put_frame_head(at, AMQP_FRAME_BODY, number, (uint32_t)payload.size);
    at = amqp_put_bytes(at, payload);
    amqp_put_u8(at, AMQP_FRAME_END);
    buf_commit(out, payload.size + AMQP_FRAME_OVERHEAD);
}

void channel_send_content(struct channel *channel, const struct amqp_method *method,
                          struct message *message)
{
    enum { METHOD_ROOM = 4 * 256, HEADER_ROOM = AMQP_FRAME_OVERHEAD + 12 };
    struct connection *connection = channel->connection;
    const size_t payload_max = connection->frame_size_max - AMQP_FRAME_OVERHEAD;
    struct slice body = message_body(message);
    const struct amqp_content_header header = {.class_id = amqp_class_of(method->id),
                                               .body_size = body.size,
                                               .properties = message_properties(message)};

    struct buf *out = transport_output(&connection->transport);
    buf_reserve(out, METHOD_ROOM + HEADER_ROOM + header.properties.size + AMQP_FRAME_OVERHEAD +
                         min_of(body.size, (size_t)BODY_COPY_MAX));
    amqp_method_encode(out, channel->number, method);
    amqp_content_header_encode(out, channel->number, &header);
    connection->frames_out += 2;
    while (body.size > 0) {
        const struct slice payload = {body.data, min_of(body.size, payload_max)};
        if (payload.size <= BODY_COPY_MAX)
            send_body_copied(transport_output(&connection->transport), channel->number, payload);
        else
            send_body_shared(channel, message, payload);
        connection->frames_out++;
        body.data += payload.size;
        body.size -= payload.size;
    }
}

/* ---- queues ---- */

bool channel_queue_name(struct channel *channel, struct slice *name, struct amqp_error *error)
{
    if (name->size > 0)
        return true;
    *name = buf_slice(&channel->last_queue);
    return name->size > 0 ||
           amqp_fail(error, AMQP_NOT_FOUND, "no previously declared queue"); /* 8.9 */
}

struct queue *channel_find_queue(struct channel *channel, struct slice name,
                                 enum access_operation operation, struct amqp_error *error)
{
    struct connection *connection = channel->connection;
    if (!channel_queue_name(channel, &name, error))
        return NULL;
    return vhost_find_queue(connection->vhost, name, operation, &connection->asker, error);
}

void channel_remember_queue(struct channel *channel, struct slice name)
{
    buf_clear(&channel->last_queue);
    buf_append(&channel->last_queue, name);
}

void channel_set_global_prefetch(struct channel *channel, uint16_t prefetch)
{
    const uint32_t max = channel->connection->service->limits.unacked_max_per_channel;

    channel->global_prefetch = prefetch;
    channel->global_unacked_max = max == 0 ? UINT32_MAX : max;
    if (prefetch > 0)
        channel->global_unacked_max = min_of(channel->global_unacked_max, (uint32_t)prefetch);
}

void channel_warn_when_full(struct channel *channel)
{
    const uint32_t max = channel->connection->service->limits.unacked_max_per_channel;
    char label[CONNECTION_LABEL_SIZE];

    if (channel->warned_of_unacked || channel->global_unacked < max || max == 0)
        return;
    channel->warned_of_unacked = true;
    log_warning(
        "connection %s, channel %u: %" PRIu32 " deliveries are not acknowledged, as many as "
        "it may have (unacked_max_per_channel); its consumers get nothing until some are",
        connection_label(channel->connection, label), channel->number, channel->global_unacked);
}

void channel_wake_consumers(struct channel *channel)
{
    map_each (&channel->consumers, link)
        consumer_wake(&container_of(link, struct subscription, by_tag)->consumer);
}
