/* Frames, judged by table: whole, cut at every byte, fed byte by byte, and damaged. */
#include "amqp/frame.h"

#include "base/random.h"
#include "tests/lib/unit.h"

enum { FRAME_MAX = 4096 };

static const struct {
    const char *what;
    struct slice input;
    uint8_t type;
    uint16_t channel;
    size_t size;
} good[] = {
    {"method", {(const uint8_t *)"\1\0\1\0\0\0\4\0\x14\0\x0a\xce", 12}, AMQP_FRAME_METHOD, 1, 4},
    {"header", {(const uint8_t *)"\2\xff\xff\0\0\0\1x\xce", 9}, AMQP_FRAME_HEADER, 65535, 1},
    {"body", {(const uint8_t *)"\3\1\2\0\0\0\2\xce\xce\xce", 10}, AMQP_FRAME_BODY, 258, 2},
    {"empty body", {(const uint8_t *)"\3\0\1\0\0\0\0\xce", 8}, AMQP_FRAME_BODY, 1, 0}, /* 2.5 */
    {"heartbeat", {(const uint8_t *)"\10\0\0\0\0\0\0\xce", 8}, AMQP_FRAME_HEARTBEAT, 0, 0},
};

START_TEST(good_frames) /* 2.1 */
{
    struct amqp_frame frame;
    struct amqp_error error;
    size_t used = 0;

    ck_assert_int_eq(amqp_frame_parse(good[_i].input, FRAME_MAX, &frame, &used, &error),
                     AMQP_PARSE_OK);
    ck_assert_uint_eq(used, good[_i].input.size);
    ck_assert_uint_eq(frame.type, good[_i].type);
    ck_assert_uint_eq(frame.channel, good[_i].channel);
    ck_assert_uint_eq(frame.payload.size, good[_i].size);
    ck_assert_ptr_eq(frame.payload.data, good[_i].input.data + AMQP_FRAME_HEAD_SIZE);
}
END_TEST

START_TEST(a_cut_frame_needs_more)
{
    for (size_t size = 0; size < good[_i].input.size; size++) {
        uint8_t *bytes = malloc(size + 1); /* exact, so that a sanitizer sees a read too far */
        bytes = realloc(bytes, size > 0 ? size : 1);
        memcpy(bytes, good[_i].input.data, size);

        struct amqp_frame frame;
        struct amqp_error error;
        size_t used;
        ck_assert_int_eq(amqp_frame_parse(slice_of(bytes, size), FRAME_MAX, &frame, &used, &error),
                         AMQP_PARSE_MORE);
        free(bytes);
    }
}
END_TEST

START_TEST(frames_in_a_row)
{
    struct buf input = BUF_EMPTY;
    for (size_t i = 0; i < countof(good); i++)
        buf_append(&input, good[i].input);

    struct slice left = buf_slice(&input);
    for (size_t i = 0; i < countof(good); i++) {
        struct amqp_frame frame;
        struct amqp_error error;
        size_t used = 0;
        ck_assert_int_eq(amqp_frame_parse(left, FRAME_MAX, &frame, &used, &error), AMQP_PARSE_OK);
        ck_assert_uint_eq(frame.type, good[i].type);
        left = slice_of(left.data + used, left.size - used);
    }
    ck_assert_uint_eq(left.size, 0);
    buf_release(&input);
}
END_TEST

static const struct {
    const char *what;
    struct slice input;
    uint16_t code;
    const char *text;
} bad[] = {
    /* 2.3 */
    {"too large, seen from the head",
     {(const uint8_t *)"\3\0\1\0\0\x10\1", 7},
     501,
     "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}"},
    {"as large as can be",
     {(const uint8_t *)"\1\0\1\xff\xff\xff\xff"
                       "ab",
      9},
     501,
     "FRAME_ERROR - type 1, all octets = <<97,98>>: {frame_too_large,4294967295,4088}"},
    {"the first 16 octets",
     {(const uint8_t *)"\1\0\1\xff\xff\xff\xff"
                       "abcdefghijklmnopqrst",
      27},
     501,
     "FRAME_ERROR - type 1, first 16 octets = "
     "<<97,98,99,100,101,102,103,104,105,106,107,108,109,110,111,112>>: "
     "{frame_too_large,4294967295,4088}"},
    {"end octet",
     {(const uint8_t *)"\1\0\1\0\0\0\2ab\xcd", 10},
     501,
     "FRAME_ERROR - type 1, all octets = <<97,98>>: {invalid_frame_end_marker,205}"},
    {"end octet of a heartbeat",
     {(const uint8_t *)"\10\0\0\0\0\0\0\0", 8},
     501,
     "FRAME_ERROR - type 8, all octets = <<>>: {invalid_frame_end_marker,0}"},
    {"type 0",
     {(const uint8_t *)"\0\0\1\0\0\0\0\xce", 8},
     501,
     "FRAME_ERROR - type 0, all octets = <<>>: unknown_frame"},
    {"type 4",
     {(const uint8_t *)"\4\0\1\0\0\0\1a\xce", 9},
     501,
     "FRAME_ERROR - type 4, all octets = <<97>>: unknown_frame"},
    {"type 255",
     {(const uint8_t *)"\xff\0\1\0\0\0\0", 7},
     501,
     "FRAME_ERROR - type 255, all octets = <<>>: unknown_frame"},
    {"heartbeat with a payload",
     {(const uint8_t *)"\10\0\0\0\0\0\1", 7},
     501,
     "FRAME_ERROR - type 8, all octets = <<>>: heartbeat with a payload"},
    {"heartbeat on a channel",
     {(const uint8_t *)"\10\0\1\0\0\0\0\xce", 8},
     505,
     "UNEXPECTED_FRAME - type 8, all octets = <<>>: heartbeat on channel 1"},
    {"a protocol header", {(const uint8_t *)"AMQP\0\0\x09\1", 8}, 501, NULL},
};

START_TEST(bad_frames) /* 2.3, CVE-2019-18609 */
{
    struct amqp_frame frame;
    struct amqp_error error = {.class_id = 1, .method_id = 1};
    size_t used;

    ck_assert_int_eq(amqp_frame_parse(bad[_i].input, FRAME_MAX, &frame, &used, &error),
                     AMQP_PARSE_BAD);
    ck_assert_uint_eq(error.code, bad[_i].code);
    ck_assert_uint_eq(error.class_id, 0);
    ck_assert_uint_eq(error.method_id, 0);
    if (bad[_i].text != NULL)
        ck_assert_str_eq(error.text, bad[_i].text);
}
END_TEST

/* 2.2: a payload may fill frame_max, though a sender must not do that; one octet more is too
 * much. */
START_TEST(eight_octets_are_forgiven) /* 2.2 */
{
    static uint8_t bytes[FRAME_MAX + AMQP_FRAME_OVERHEAD];
    struct amqp_frame frame;
    struct amqp_error error;
    size_t used = 0;

    amqp_put_frame_head(bytes, AMQP_FRAME_BODY, 1, FRAME_MAX);
    bytes[sizeof(bytes) - 1] = AMQP_FRAME_END;
    struct slice input = slice_of(bytes, sizeof(bytes));
    ck_assert_int_eq(amqp_frame_parse(input, FRAME_MAX, &frame, &used, &error), AMQP_PARSE_OK);
    ck_assert_uint_eq(used, sizeof(bytes));
    ck_assert_int_eq(amqp_frame_parse(input, FRAME_MAX - 1, &frame, &used, &error), AMQP_PARSE_BAD);
}
END_TEST

START_TEST(any_bytes_are_judged) /* CVE-2019-18609 */
{
    struct random random;
    random_init_seeded(&random, (uint64_t)_i);

    for (int round = 0; round < 10000; round++) {
        size_t size = random_below(&random, 40);
        uint8_t bytes[40];
        random_bytes(&random, bytes, size);
        if (size > 7 && round % 2 == 0) { /* mostly a frame */
            amqp_put_frame_head(bytes, 1 + random_below(&random, 9), 0,
                                (uint32_t)random_below(&random, 32));
            bytes[size - 1] = AMQP_FRAME_END;
        }

        struct amqp_frame frame;
        struct amqp_error error;
        size_t used = 0;
        enum amqp_parse parse = amqp_frame_parse(slice_of(bytes, size), 32, &frame, &used, &error);
        if (parse == AMQP_PARSE_OK)
            ck_assert(used <= size && used == frame.payload.size + AMQP_FRAME_OVERHEAD);
        if (parse == AMQP_PARSE_MORE)
            ck_assert_uint_lt(size, 32 + AMQP_FRAME_OVERHEAD);
    }
}
END_TEST

START_TEST(written_frames)
{
    struct buf out = BUF_EMPTY;
    buf_append(&out, SLICE("gone"));
    amqp_write_heartbeat(&out);
    buf_consume(&out, 4);
    size_t frame = amqp_frame_begin(&out, AMQP_FRAME_BODY, 0x0102);
    for (int i = 0; i < 1000; i++)
        buf_append(&out, SLICE("payload"));
    amqp_frame_end(&out, frame);

    struct amqp_frame seen;
    struct amqp_error error;
    size_t used = 0;
    ck_assert_int_eq(amqp_frame_parse(buf_slice(&out), 8192, &seen, &used, &error), AMQP_PARSE_OK);
    ck_assert_uint_eq(seen.type, AMQP_FRAME_HEARTBEAT);
    buf_consume(&out, used);
    ck_assert_int_eq(amqp_frame_parse(buf_slice(&out), 8192, &seen, &used, &error), AMQP_PARSE_OK);
    ck_assert_uint_eq(seen.type, AMQP_FRAME_BODY);
    ck_assert_uint_eq(seen.channel, 0x0102);
    ck_assert_uint_eq(seen.payload.size, 7000);
    ck_assert_uint_eq(used, buf_size(&out));
    buf_release(&out);
}
END_TEST

static const struct {
    const char octets[AMQP_PROTOCOL_HEADER_SIZE + 1];
    enum amqp_protocol protocol;
} protocols[] = {
    /* 1.2 */
    {"AMQP\0\0\x09\x01", AMQP_PROTOCOL_0_9_1},
    {"AMQP\x01\x01\0\x09", AMQP_PROTOCOL_0_9_1},
    {"AMQP\0\0\x09\x02", AMQP_PROTOCOL_OTHER},
    {"AMQP\0\0\x0a\0", AMQP_PROTOCOL_OTHER},
    {"AMQP\x01\x01\x08\0", AMQP_PROTOCOL_OTHER},
    {"AMQP\x03\x01\0\0", AMQP_PROTOCOL_OTHER},
    {"AMQP\0\x01\0\0", AMQP_PROTOCOL_OTHER},
    {"GET / HT", AMQP_PROTOCOL_HTTP},
    {"\x16\x03\x01\x02\0\x01\0\x01", AMQP_PROTOCOL_TLS},
    {"\x16\x03\x03\0\xf4\x01\0\0", AMQP_PROTOCOL_TLS},
    {"\x16\x03\x03\0\xf4\x02\0\0", AMQP_PROTOCOL_UNKNOWN},
    {"GETS / H", AMQP_PROTOCOL_UNKNOWN},
    {"amqp\0\0\x09\x01", AMQP_PROTOCOL_UNKNOWN},
    {"\0\0\0\0\0\0\0\0", AMQP_PROTOCOL_UNKNOWN},
};

START_TEST(protocol_headers) /* 1.2 */
{
    ck_assert_int_eq(amqp_protocol_parse((const uint8_t *)protocols[_i].octets),
                     protocols[_i].protocol);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frame");
    TCase *tests = tcase_create("frame");
    tcase_add_loop_test(tests, good_frames, 0, countof(good));
    tcase_add_loop_test(tests, a_cut_frame_needs_more, 0, countof(good));
    tcase_add_test(tests, frames_in_a_row);
    tcase_add_loop_test(tests, bad_frames, 0, countof(bad));
    tcase_add_test(tests, eight_octets_are_forgiven);
    tcase_add_loop_test(tests, any_bytes_are_judged, 0, 4);
    tcase_add_test(tests, written_frames);
    tcase_add_loop_test(tests, protocol_headers, 0, countof(protocols));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
