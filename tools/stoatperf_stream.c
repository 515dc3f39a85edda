/* The two paths of the header's picture. The fast one only ever looks: unless all of the delivery
 * is as it should be it answers 0 and the careful one reads the same octets again. */
#include "tools/stoatperf_stream.h"

#include "amqp/frame.h"
#include "amqp/properties.h"

enum {
    METHOD_AT = AMQP_FRAME_HEAD_SIZE,        /* class and method in a method frame */
    BODY_SIZE_AT = AMQP_FRAME_HEAD_SIZE + 4, /* in a header frame */
    TAG_AT = AMQP_FRAME_HEAD_SIZE +
             4, /* in basic.deliver, the consumer tag; in basic.ack, the delivery tag */
    DELIVER_LEAST = TAG_AT + 1 + 8 + 1 + 1 + 1 + 1, /* all strings empty */
    HEADER_LEAST = AMQP_FRAME_HEAD_SIZE + 2 + 2 + 8 + 2 + 1,
    CONFIRM_SIZE = TAG_AT + 8 + 1 + 1,
};

void stream_init(struct stream *stream, const struct stream_events *events, void *owner)
{
    *stream = (struct stream){.events = events, .owner = owner};
}

static uint32_t tag_to_queue(const uint8_t *digits, size_t size)
{
    uint32_t queue = 0;
    for (size_t i = 0; i < size; i++)
        queue = queue * 10 + (uint32_t)(digits[i] - '0');
    return queue;
}

static void read_stamp(struct delivery *delivery, const uint8_t *body, uint64_t size)
{
    const bool stamped = size >= STREAM_STAMP_SIZE;
    delivery->sent_ns = stamped ? amqp_get_u64(body) : 0;
    delivery->id = stamped ? amqp_get_u64(body + 8) : 0;
}

/* A frame of that type, with its end octet, at the start of what is left? Its whole size, or 0. */
static inline size_t frame_size(const uint8_t *at, size_t left, enum amqp_frame_type type,
                                size_t least)
{
    if (unlikely(left < least || at[0] != type))
        return 0;
    const size_t size = (size_t)amqp_get_u32(at + 3) + AMQP_FRAME_OVERHEAD;
    if (unlikely(size < least || size > left || at[size - 1] != AMQP_FRAME_END))
        return 0;
    return size;
}

/* A whole delivery with its body in one frame, the shape of nearly all. Its size, or 0. */
static inline size_t take_delivery(struct stream *stream, const uint8_t *at, size_t left)
{
    const size_t method_size = frame_size(at, left, AMQP_FRAME_METHOD, DELIVER_LEAST);
    if (method_size == 0 || amqp_get_u32(at + METHOD_AT) != AMQP_BASIC_DELIVER)
        return 0;
    const size_t tag_size = at[TAG_AT];
    if (unlikely(DELIVER_LEAST + tag_size > method_size))
        return 0;

    const uint8_t *const header = at + method_size;
    left -= method_size;
    const size_t header_size = frame_size(header, left, AMQP_FRAME_HEADER, HEADER_LEAST);
    if (header_size == 0)
        return 0;

    const uint8_t *const body = header + header_size;
    left -= header_size;
    const uint64_t body_size = amqp_get_u64(header + BODY_SIZE_AT);
    const size_t body_frame = frame_size(body, left, AMQP_FRAME_BODY, AMQP_FRAME_OVERHEAD);
    if (body_frame == 0 || body_frame - AMQP_FRAME_OVERHEAD != body_size)
        return 0;

    const uint8_t *const after_tag = at + TAG_AT + 1 + tag_size;
    struct delivery delivery = {
        .queue = tag_to_queue(at + TAG_AT + 1, tag_size),
        .delivery_tag = amqp_get_u64(after_tag),
        .redelivered = after_tag[8] & 1,
    };
    read_stamp(&delivery, body + AMQP_FRAME_HEAD_SIZE, body_size);
    stream->events->on_delivery(stream->owner, &delivery);
    return method_size + header_size + body_frame;
}

/* A whole basic.ack, as many as there are messages when a broker does not gather them. Its size, or
 * 0. */
static inline size_t take_confirm(struct stream *stream, const uint8_t *at, size_t left,
                                  enum stream_result *result)
{
    if (frame_size(at, left, AMQP_FRAME_METHOD, CONFIRM_SIZE) != CONFIRM_SIZE ||
        amqp_get_u32(at + METHOD_AT) != AMQP_BASIC_ACK)
        return 0;
    if (!stream->events->on_confirm(stream->owner, amqp_get_u64(at + TAG_AT), at[TAG_AT + 8] & 1,
                                    true))
        *result = STREAM_ENDED;
    return CONFIRM_SIZE;
}

static void begin_content(struct stream *stream, bool is_delivery)
{
    stream->state = STREAM_HEADER;
    stream->is_delivery = is_delivery;
    stream->is_stamped = false;
}

static void end_content(struct stream *stream)
{
    stream->state = STREAM_METHOD;
    if (stream->is_delivery)
        stream->events->on_delivery(stream->owner, &stream->delivery);
}

static bool take_method(struct stream *stream, struct slice payload, enum stream_result *result,
                        struct amqp_error *error)
{
    const struct stream_events *const events = stream->events;
    struct amqp_method method;
    if (!amqp_method_decode(payload, &method, error))
        return false;

    bool more = true;
    if (method.id == AMQP_BASIC_DELIVER && events->on_delivery != NULL) {
        const struct amqp_basic_deliver *const deliver = &method.basic_deliver;
        stream->delivery = (struct delivery){
            .queue = tag_to_queue(deliver->consumer_tag.data, deliver->consumer_tag.size),
            .delivery_tag = deliver->delivery_tag,
            .redelivered = deliver->redelivered,
        };
        begin_content(stream, true);
    } else if (method.id == AMQP_BASIC_ACK && events->on_confirm != NULL) {
        more = events->on_confirm(stream->owner, method.basic_ack.delivery_tag,
                                  method.basic_ack.multiple, true);
    } else if (method.id == AMQP_BASIC_NACK && events->on_confirm != NULL) {
        more = events->on_confirm(stream->owner, method.basic_nack.delivery_tag,
                                  method.basic_nack.multiple, false);
    } else {
        more = events->on_method(stream->owner, &method);
        if (method.id == AMQP_BASIC_RETURN)
            begin_content(stream, false);
    }
    if (!more)
        *result = STREAM_ENDED;
    return true;
}

static bool take_header(struct stream *stream, struct slice payload, struct amqp_error *error)
{
    struct amqp_content_header header;
    if (!amqp_content_header_decode(payload, &header, error))
        return false;
    stream->body_left = header.body_size;
    stream->state = STREAM_BODY;
    if (header.body_size == 0)
        end_content(stream);
    return true;
}

/* The head of a body frame, and the stamp behind it if it is the first. False when more is needed
 * or it is wrong: then error->code is set. */
static size_t begin_body(struct stream *stream, const uint8_t *at, size_t left, uint32_t frame_max,
                         struct amqp_error *error)
{
    const uint32_t size = amqp_get_u32(at + 3);
    if (size > stream->body_left || size > frame_max)
        return amqp_fail(error, AMQP_FRAME_ERROR, "a body frame of %" PRIu32 " octets", size);

    if (!stream->is_stamped) {
        if (left - AMQP_FRAME_HEAD_SIZE < min_of(size, (uint32_t)STREAM_STAMP_SIZE))
            return 0;
        read_stamp(&stream->delivery, at + AMQP_FRAME_HEAD_SIZE, size);
        stream->is_stamped = true;
    }
    stream->body_left -= size;
    stream->skip = (uint64_t)size + 1;
    return AMQP_FRAME_HEAD_SIZE;
}

static size_t skip_body(struct stream *stream, size_t left)
{
    const size_t size = (size_t)min_of(stream->skip, (uint64_t)left);
    stream->skip -= size;
    if (stream->skip == 0 && stream->body_left == 0)
        end_content(stream);
    return size;
}

/* One frame, or a piece of a body. 0 when more is needed, or with error->code set. */
static size_t take_frame(struct stream *stream, const uint8_t *at, size_t left, uint32_t frame_max,
                         enum stream_result *result, struct amqp_error *error)
{
    if (stream->skip > 0)
        return skip_body(stream, left);
    if (left < AMQP_FRAME_HEAD_SIZE)
        return 0;
    if (stream->state == STREAM_BODY && at[0] == AMQP_FRAME_BODY)
        return begin_body(stream, at, left, frame_max, error);

    struct amqp_frame frame = {0};
    size_t used = 0;
    if (amqp_frame_parse(slice_of(at, left), frame_max, &frame, &used, error) != AMQP_PARSE_OK)
        return 0;
    if (frame.type == AMQP_FRAME_HEARTBEAT)
        return used;
    if (frame.type == AMQP_FRAME_METHOD && stream->state == STREAM_METHOD)
        return take_method(stream, frame.payload, result, error) ? used : 0;
    if (frame.type == AMQP_FRAME_HEADER && stream->state == STREAM_HEADER)
        return take_header(stream, frame.payload, error) ? used : 0;
    return amqp_fail(error, AMQP_UNEXPECTED_FRAME, "a frame of type %d out of order", frame.type);
}

enum stream_result stream_feed(struct stream *stream, struct slice input, uint32_t frame_max,
                               size_t *used, struct amqp_error *error)
{
    enum stream_result result = STREAM_OK;
    error->code = 0;
    size_t at = 0;
    while (at < input.size && result == STREAM_OK) {
        size_t taken = 0;
        if (stream->state == STREAM_METHOD && stream->events->on_delivery != NULL)
            taken = take_delivery(stream, input.data + at, input.size - at);
        else if (stream->state == STREAM_METHOD && stream->events->on_confirm != NULL)
            taken = take_confirm(stream, input.data + at, input.size - at, &result);
        if (taken == 0)
            taken = take_frame(stream, input.data + at, input.size - at, frame_max, &result, error);
        if (taken == 0)
            break;
        at += taken;
    }
    *used = at;
    return error->code != 0 ? STREAM_BAD : result;
}
