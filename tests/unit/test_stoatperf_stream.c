/* The same input in one piece, cut in two at every octet and one octet at a time tells the same
 * story. */
#include "amqp/frame.h"
#include "amqp/properties.h"
#include "tests/lib/unit.h"
#include "tools/stoatperf_stream.h"

enum { FRAME_MAX = 4096 };

static struct buf input, story, expected;

static void release(void)
{
    buf_release(&input);
    buf_release(&story);
    buf_release(&expected);
}

static void on_delivery(void *owner, const struct delivery *delivery)
{
    buf_printf(owner, "deliver %u %d %" PRIu64 " %" PRIx64 " %" PRIx64 "\n", delivery->queue,
               delivery->redelivered, delivery->delivery_tag, delivery->sent_ns, delivery->id);
}

static bool on_confirm(void *owner, uint64_t delivery_tag, bool multiple, bool positive)
{
    buf_printf(owner, "%s %" PRIu64 " %d\n", positive ? "ack" : "nack", delivery_tag, multiple);
    return delivery_tag != 666;
}

static bool on_method(void *owner, const struct amqp_method *method)
{
    buf_printf(owner, "%s\n", amqp_method_info(method->id)->name);
    return method->id != AMQP_CONNECTION_CLOSE;
}

static const struct stream_events consumer_events = {.on_delivery = on_delivery,
                                                     .on_method = on_method};
static const struct stream_events publisher_events = {.on_confirm = on_confirm,
                                                      .on_method = on_method};

static void put_method(const struct amqp_method *method)
{
    amqp_method_encode(&input, 1, method);
}

/* Header and body frames of a body that counts up from 0, at most frame_size octets of it to a
 * frame. */
static void put_content(size_t body_size, size_t frame_size)
{
    const struct amqp_content_header header = {
        .class_id = 60, .body_size = body_size, .properties = slice_of("\0", 2)};
    amqp_content_header_encode(&input, 1, &header);
    for (size_t done = 0; done < body_size;) {
        const size_t size = min_of(frame_size, body_size - done);
        const size_t frame = amqp_frame_begin(&input, AMQP_FRAME_BODY, 1);
        for (size_t i = 0; i < size; i++)
            amqp_write_u8(&input, (uint8_t)(done + i));
        amqp_frame_end(&input, frame);
        done += size;
    }
}

static void put_delivery(const char *tag, uint64_t delivery_tag, size_t body_size,
                         size_t frame_size)
{
    put_method(&(struct amqp_method){.id = AMQP_BASIC_DELIVER,
                                     .basic_deliver = {.consumer_tag = slice_of_string(tag),
                                                       .delivery_tag = delivery_tag,
                                                       .redelivered = delivery_tag % 2 == 1,
                                                       .routing_key = SLICE("key")}});
    put_content(body_size, frame_size);
}

/* Feeds size octets from *from, keeping for the next piece what was not used. */
static enum stream_result feed(struct stream *stream, size_t *from, size_t to)
{
    struct amqp_error error;
    size_t used;
    const enum stream_result result = stream_feed(
        stream, slice_of(buf_slice(&input).data + *from, to - *from), FRAME_MAX, &used, &error);
    *from += used;
    return result;
}

static enum stream_result feed_cut(const struct stream_events *events, size_t cut, size_t step)
{
    struct stream stream;
    stream_init(&stream, events, &story);
    buf_clear(&story);
    size_t from = 0, to = cut;
    enum stream_result result = STREAM_OK;
    while (result == STREAM_OK && to < buf_size(&input)) {
        result = feed(&stream, &from, to);
        to += step;
    }
    return result == STREAM_OK ? feed(&stream, &from, buf_size(&input)) : result;
}

static void assert_story(const struct stream_events *events, enum stream_result result,
                         const char *text)
{
    const size_t size = buf_size(&input);
    buf_append(&expected, slice_of_string(text));
    for (size_t cut = 0; cut <= size; cut++) {
        ck_assert_int_eq(feed_cut(events, cut, size), result);
        ck_assert_msg(slice_equal(buf_slice(&story), buf_slice(&expected)), "cut at %zu: %.*s", cut,
                      SLICE_ARG(buf_slice(&story)));
    }
    ck_assert_int_eq(feed_cut(events, 1, 1), result);
    ck_assert(slice_equal(buf_slice(&story), buf_slice(&expected)));
}

START_TEST(reads_deliveries)
{
    put_method(&(struct amqp_method){.id = AMQP_BASIC_CONSUME_OK});
    put_delivery("0", 1, 16, FRAME_MAX);
    put_delivery("42", 2, 15, FRAME_MAX);
    put_delivery("7", 3, 0, FRAME_MAX);
    amqp_write_heartbeat(&input);
    put_delivery("7", 4, 100, 40);
    put_delivery("", 5, 17, 16);
    put_delivery("123", 6, 40, FRAME_MAX);
    assert_story(&consumer_events, STREAM_OK,
                 "basic.consume-ok\n"
                 "deliver 0 1 1 1020304050607 8090a0b0c0d0e0f\n"
                 "deliver 42 0 2 0 0\n"
                 "deliver 7 1 3 0 0\n"
                 "deliver 7 0 4 1020304050607 8090a0b0c0d0e0f\n"
                 "deliver 0 1 5 1020304050607 8090a0b0c0d0e0f\n"
                 "deliver 123 0 6 1020304050607 8090a0b0c0d0e0f\n");
}
END_TEST

START_TEST(reads_confirms_and_returns)
{
    put_method(&(struct amqp_method){.id = AMQP_BASIC_ACK,
                                     .basic_ack = {.delivery_tag = 5, .multiple = true}});
    put_method(&(struct amqp_method){.id = AMQP_BASIC_RETURN, .basic_return.reply_code = 312});
    put_content(50, 20);
    put_method(&(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack = {.delivery_tag = 6}});
    put_method(&(struct amqp_method){.id = AMQP_BASIC_NACK, .basic_nack = {.delivery_tag = 7}});
    assert_story(&publisher_events, STREAM_OK, "ack 5 1\nbasic.return\nack 6 0\nnack 7 0\n");
}
END_TEST

START_TEST(ends_when_the_owner_says_so)
{
    put_delivery("0", 2, 16, FRAME_MAX);
    put_method(&(struct amqp_method){.id = AMQP_CONNECTION_CLOSE});
    put_delivery("0", 4, 16, FRAME_MAX);
    assert_story(&consumer_events, STREAM_ENDED,
                 "deliver 0 0 2 1020304050607 8090a0b0c0d0e0f\nconnection.close\n");
}
END_TEST

START_TEST(ends_at_a_confirm_too)
{
    put_method(&(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack = {.delivery_tag = 666}});
    assert_story(&publisher_events, STREAM_ENDED, "ack 666 0\n");
}
END_TEST

/* Frames that are well-formed and come at the wrong time. */
START_TEST(refuses_a_header_without_a_method)
{
    put_content(16, FRAME_MAX);
    assert_story(&consumer_events, STREAM_BAD, "");
}
END_TEST

START_TEST(refuses_a_method_within_content)
{
    put_method(&(struct amqp_method){.id = AMQP_BASIC_DELIVER});
    put_method(&(struct amqp_method){.id = AMQP_BASIC_DELIVER});
    assert_story(&consumer_events, STREAM_BAD, "");
}
END_TEST

START_TEST(refuses_more_body_than_announced)
{
    put_delivery("0", 1, 16, FRAME_MAX);
    const size_t body_frame = 16 + AMQP_FRAME_OVERHEAD;
    input.end -= body_frame;
    const size_t frame = amqp_frame_begin(&input, AMQP_FRAME_BODY, 1);
    buf_append(&input, slice_of("0123456789abcdef0", 17));
    amqp_frame_end(&input, frame);
    assert_story(&consumer_events, STREAM_BAD, "");
}
END_TEST

START_TEST(refuses_what_is_no_frame)
{
    put_delivery("0", 2, 16, FRAME_MAX);
    buf_append(&input, slice_of("\x09\0\0\0\0\0\0\xCE", 8));
    assert_story(&consumer_events, STREAM_BAD, "deliver 0 0 2 1020304050607 8090a0b0c0d0e0f\n");
}
END_TEST

/* Whatever an octet is changed to: an answer, and never a read beyond the input (for the sanitizers
 * to see). */
START_TEST(survives_any_octet)
{
    put_delivery("12", 2, 20, FRAME_MAX);
    put_delivery("3", 3, 20, FRAME_MAX);
    for (size_t at = 0; at < buf_size(&input); at++) {
        uint8_t *const octet = input.data + input.begin + at;
        const uint8_t kept = *octet;
        for (int bit = 0; bit < 8; bit++) {
            *octet = (uint8_t)(kept ^ 1 << bit);
            feed_cut(&consumer_events, buf_size(&input), 1);
        }
        *octet = kept;
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stoatperf_stream");
    TCase *tests = tcase_create("stoatperf_stream");
    tcase_add_checked_fixture(tests, NULL, release);
    tcase_add_test(tests, reads_deliveries);
    tcase_add_test(tests, reads_confirms_and_returns);
    tcase_add_test(tests, ends_when_the_owner_says_so);
    tcase_add_test(tests, ends_at_a_confirm_too);
    tcase_add_test(tests, refuses_a_header_without_a_method);
    tcase_add_test(tests, refuses_a_method_within_content);
    tcase_add_test(tests, refuses_more_body_than_announced);
    tcase_add_test(tests, refuses_what_is_no_frame);
    tcase_add_test(tests, survives_any_octet);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
