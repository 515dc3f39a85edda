/* What the codec costs for one message, without routing, queues, store or sockets (V1 of the
 * performance goals): the publish of a 16 octet message taken apart, its deliver put together. One
 * line each: what, ns per message.
 *
 * The input is a stretch of prebuilt publishes about as long as one read of a socket. */
#include "amqp/client.h"
#include "amqp/frame.h"
#include "amqp/method.h"
#include "amqp/properties.h"
#include "base/clock.h"

enum { MESSAGES = 1000, ROUNDS = 2000, FRAME_MAX = 131072 };

static uint64_t sink; /* so that nothing is optimised away */

static bool next_frame(struct slice *input, struct amqp_frame *frame)
{
    struct amqp_error error;
    size_t used;
    if (amqp_frame_parse(*input, FRAME_MAX, frame, &used, &error) != AMQP_PARSE_OK)
        return false;
    *input = slice_of(input->data + used, input->size - used);
    return true;
}

static void parse_frames(struct slice input, struct buf *out)
{
    struct amqp_frame frame;
    (void)out;
    while (next_frame(&input, &frame))
        sink += frame.payload.size;
}

/* Decodes what is no body; true when it is one. */
static bool take_apart(const struct amqp_frame *frame, struct amqp_method *method,
                       struct amqp_content_header *header)
{
    struct amqp_error error;
    bool ok = true;
    if (frame->type == AMQP_FRAME_METHOD)
        ok = amqp_method_decode(frame->payload, method, &error);
    else if (frame->type == AMQP_FRAME_HEADER)
        ok = amqp_content_header_decode(frame->payload, header, &error);
    assert(ok);
    return frame->type == AMQP_FRAME_BODY;
}

static void decode(struct slice input, struct buf *out)
{
    struct amqp_frame frame;
    struct amqp_method method = {0};
    struct amqp_content_header header = {0};

    (void)out;
    while (next_frame(&input, &frame))
        if (take_apart(&frame, &method, &header))
            sink += method.basic_publish.routing_key.size +
                    amqp_properties_delivery_mode(header.properties);
}

static void deliver(struct buf *out, const struct amqp_method *publish,
                    const struct amqp_content_header *header, struct slice body, uint64_t tag)
{
    amqp_method_encode(out, 1,
                       &(struct amqp_method){
                           .id = AMQP_BASIC_DELIVER,
                           .basic_deliver = {.consumer_tag = SLICE("amq.ctag-1"),
                                             .delivery_tag = tag,
                                             .exchange = publish->basic_publish.exchange,
                                             .routing_key = publish->basic_publish.routing_key}});
    amqp_content_header_encode(out, 1, header);
    size_t frame = amqp_frame_begin(out, AMQP_FRAME_BODY, 1);
    buf_append(out, body);
    amqp_frame_end(out, frame);
}

static void decode_and_deliver(struct slice input, struct buf *out)
{
    struct amqp_frame frame;
    struct amqp_method method = {0};
    struct amqp_content_header header = {0};
    uint64_t tag = 0;

    buf_clear(out);
    while (next_frame(&input, &frame))
        if (take_apart(&frame, &method, &header))
            deliver(out, &method, &header, frame.payload, ++tag);
    sink += buf_size(out);
}

static void measure(const char *what, struct slice properties,
                    void (*work)(struct slice input, struct buf *out))
{
    struct buf input = BUF_EMPTY, out = BUF_EMPTY;
    for (int i = 0; i < MESSAGES; i++)
        amqp_client_publish(&input, 1, FRAME_MAX,
                            &(struct amqp_client_message){.routing_key = SLICE("perf-queue-1"),
                                                          .properties = properties,
                                                          .body = SLICE("sixteen octets!!")});

    uint64_t least = UINT64_MAX; /* of five runs: the machine may have had other things to do */
    for (int run = 0; run < 5; run++) {
        uint64_t begin = clock_monotonic_ns();
        for (int i = 0; i < ROUNDS; i++)
            work(buf_slice(&input), &out);
        uint64_t taken = clock_monotonic_ns() - begin;
        least = min_of(least, taken);
    }
    printf("%-48s %7.1f ns\n", what, (double)least / ROUNDS / MESSAGES);
    buf_release(&out);
    buf_release(&input);
}

int main(void)
{
    struct slice none = {NULL, 0}, persistent = SLICE("\x10\0\2");
    struct slice headers =
        SLICE("\xb0\0\x0atext/plain\0\0\0\x1b\7x-traceS\0\0\0\4abcd\4hopsI\0\0\0\1\2");

    measure("three frames parsed", none, parse_frames);
    measure("publish decoded, no properties", none, decode);
    measure("publish decoded, delivery mode", persistent, decode);
    measure("publish decoded, content type and two headers", headers, decode);
    measure("publish decoded, deliver encoded", none, decode_and_deliver);
    return sink == 0;
}
