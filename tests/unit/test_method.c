/* The method codec. Known frames octet by octet; then every method of methods.def with random
 * arguments: what is decoded is what was encoded, every cut is refused, and so is every octet too
 * many. */
#include "amqp/method.h"

#include "amqp/frame.h"
#include "amqp/table.h"
#include "base/random.h"
#include "tests/lib/unit.h"

#define BYTES(literal)                                                                             \
    {                                                                                              \
        (const uint8_t *)(literal), sizeof(literal) - 1                                            \
    }

static const struct {
    const char *what;
    struct amqp_method method;
    struct slice frame; /* on channel 1 */
} known[] = {
    {"publish",
     {.id = AMQP_BASIC_PUBLISH,
      .basic_publish = {.exchange = BYTES("ex"), .routing_key = BYTES("key"), .immediate = true}},
     BYTES("\1\0\1\0\0\0\x0e\0\x3c\0\x28\0\0\2ex\3key\2\xce")},
    {"queue.declare: five bits in an octet, the first lowest",
     {.id = AMQP_QUEUE_DECLARE,
      .queue_declare =
          {.queue = BYTES("q"), .durable = true, .no_wait = true, .arguments = BYTES("\1aV")}},
     BYTES("\1\0\1\0\0\0\x10\0\x32\0\x0a\0\0\1q\x12\0\0\0\3\1aV\xce")},
    {"deliver: a bit between wider arguments",
     {.id = AMQP_BASIC_DELIVER,
      .basic_deliver = {.consumer_tag = BYTES("t"),
                        .delivery_tag = 0x0102030405060708,
                        .redelivered = true,
                        .routing_key = BYTES("k")}},
     BYTES("\1\0\1\0\0\0\x12\0\x3c\0\x3c\1t\1\2\3\4\5\6\7\x08\1\0\1k\xce")},
    {"close",
     {.id = AMQP_CHANNEL_CLOSE,
      .channel_close =
          {.reply_code = 404, .reply_text = BYTES("N"), .class_id = 60, .method_id = 40}},
     BYTES("\1\0\1\0\0\0\x0c\0\x14\0\x28\1\x94\1N\0\x3c\0\x28\xce")},
    {"unbind-ok: 51", {.id = AMQP_EXCHANGE_UNBIND_OK}, BYTES("\1\0\1\0\0\0\4\0\x28\0\x33\xce")},
};

START_TEST(known_frames) /* 2.10, 3 */
{
    struct buf out = BUF_EMPTY;
    amqp_method_encode(&out, 1, &known[_i].method);
    ck_assert(slice_equal(buf_slice(&out), known[_i].frame));
    buf_release(&out);
}
END_TEST

static const struct {
    const char *what;
    struct slice payload;
    uint16_t code, class_id, method_id;
    const char *text;
} bad[] = {
    /* 2.3 */
    {"nothing", BYTES(""), 501, 0, 0, "FRAME_ERROR - cannot decode a method of 0 octets"},
    {"half an id", BYTES("\0\x3c\0"), 501, 0, 0,
     "FRAME_ERROR - cannot decode a method of 3 octets"},
    {"unknown method", BYTES("\0\x3c\0\x29"), 503, 60, 41,
     "COMMAND_INVALID - unknown method 41 of class 60"},
    {"unknown class", BYTES("\3\xe7\0\1rest"), 503, 999, 1,
     "COMMAND_INVALID - unknown method 1 of class 999"},
    {"string too long", BYTES("\0\x14\0\x0a\5abcd"), 501, 20, 10,
     "FRAME_ERROR - cannot decode the arguments of channel.open"},
    {"octets left over", BYTES("\0\x14\0\x0a\1ab"), 501, 20, 10, NULL},
    {"arguments where there are none", BYTES("\0\x14\0\x29\0"), 501, 20, 41, NULL},
    {"unknown tag in a table", BYTES("\0\x32\0\x0a\0\0\1q\0\0\0\0\3\1a?"), 501, 50, 10, NULL},
    {"table shorter than its entry", BYTES("\0\x32\0\x0a\0\0\1q\0\0\0\0\2\1aV"), 501, 50, 10, NULL},
    {"long string of 4 GiB", BYTES("\0\x0a\0\x14\xff\xff\xff\xff"), 501, 10, 20, NULL},
};

START_TEST(bad_methods) /* 2.3 */
{
    struct amqp_method method;
    struct amqp_error error = {0};

    ck_assert(!amqp_method_decode(bad[_i].payload, &method, &error));
    ck_assert_uint_eq(error.code, bad[_i].code);
    ck_assert_uint_eq(error.class_id, bad[_i].class_id);
    ck_assert_uint_eq(error.method_id, bad[_i].method_id);
    if (bad[_i].text != NULL)
        ck_assert_str_eq(error.text, bad[_i].text);
}
END_TEST

START_TEST(the_ticket_is_ignored) /* 3 */
{
    struct amqp_method method;
    struct amqp_error error;

    ck_assert(
        amqp_method_decode((struct slice)BYTES("\0\x3c\0\x46\xab\xcd\1q\xff"), &method, &error));
    ck_assert_uint_eq(method.id, AMQP_BASIC_GET);
    ck_assert(slice_equal(method.basic_get.queue, SLICE("q")));
    ck_assert(method.basic_get.no_ack);
}
END_TEST

/* Random arguments; their bytes live in this pool until the next method. */
static struct random source;
static uint8_t pool[4096];
static size_t pool_used;

static struct slice random_string(size_t size_max)
{
    size_t size = random_below(&source, 4) == 0 ? size_max : random_below(&source, size_max);
    uint8_t *bytes = pool + pool_used;
    ck_assert_uint_le(size, sizeof(pool) - pool_used);
    random_bytes(&source, bytes, size);
    pool_used += size;
    return slice_of(bytes, size);
}

static struct slice random_table(void)
{
    struct buf out = BUF_EMPTY;
    uint64_t count = random_below(&source, 4);
    for (uint64_t i = 0; i < count; i++) {
        amqp_table_put_u32(&out, random_string(10), (uint32_t)random_u64(&source));
        size_t inner = amqp_table_begin_table(&out, SLICE("inner"));
        amqp_table_put_string(&out, random_string(10), random_string(50));
        amqp_table_end(&out, inner);
    }
    uint8_t *bytes = pool + pool_used;
    struct slice table = slice_of(bytes, buf_size(&out));
    ck_assert_uint_le(table.size, sizeof(pool) - pool_used);
    if (table.size > 0)
        memcpy(bytes, out.data, table.size);
    pool_used += table.size;
    buf_release(&out);
    return table;
}

#define OCTET(field)    method->field = (uint8_t)random_u64(&source);
#define SHORT(field)    method->field = (uint16_t)random_u64(&source);
#define LONG(field)     method->field = (uint32_t)random_u64(&source);
#define LONGLONG(field) method->field = random_u64(&source);
#define BIT(field)      method->field = random_below(&source, 2) == 1;
#define SHORTSTR(field) method->field = random_string(255);
#define LONGSTR(field)  method->field = random_string(600);
#define TABLE(field)    method->field = random_table();
#define TICKET(field)
#define BARE(...)
#define METHOD(NAME, name, text, class, id, senders, traits, arguments)                            \
    static void fill_##name(struct amqp_##name *method)                                            \
    {                                                                                              \
        arguments                                                                                  \
    }
#include "amqp/methods.def"

#define OCTET(field)    ck_assert_uint_eq(a->field, b->field);
#define SHORT(field)    ck_assert_uint_eq(a->field, b->field);
#define LONG(field)     ck_assert_uint_eq(a->field, b->field);
#define LONGLONG(field) ck_assert_uint_eq(a->field, b->field);
#define BIT(field)      ck_assert(a->field == b->field);
#define SHORTSTR(field) ck_assert(slice_equal(a->field, b->field));
#define LONGSTR(field)  ck_assert(slice_equal(a->field, b->field));
#define TABLE(field)    ck_assert(slice_equal(a->field, b->field));
#define TICKET(field)
#define BARE(...)
#define METHOD(NAME, name, text, class, id, senders, traits, arguments)                            \
    static void compare_##name(const struct amqp_##name *a, const struct amqp_##name *b)           \
    {                                                                                              \
        arguments                                                                                  \
    }
#include "amqp/methods.def"

static void fill(struct amqp_method *method)
{
    switch (method->id) {
#define BARE(...)
#define METHOD(NAME, name, ...)                                                                    \
    case AMQP_##NAME:                                                                              \
        fill_##name(&method->name);                                                                \
        break;
#include "amqp/methods.def"
    }
}

static void compare(const struct amqp_method *a, const struct amqp_method *b)
{
    ck_assert_uint_eq(a->id, b->id);
    switch (a->id) {
#define BARE(...)
#define METHOD(NAME, name, ...)                                                                    \
    case AMQP_##NAME:                                                                              \
        compare_##name(&a->name, &b->name);                                                        \
        break;
#include "amqp/methods.def"
    }
}

static const uint32_t ids[] = {
#define METHOD(NAME, ...) AMQP_##NAME,
#include "amqp/methods.def"
};

/* Decoding must refuse all that is not exactly the payload; each piece is in memory of its own
 * size. */
static void refuse_all_but(struct slice payload)
{
    for (size_t size = 0; size <= payload.size + 1; size++) {
        uint8_t *bytes = malloc(size > 0 ? size : 1);
        memcpy(bytes, payload.data, min_of(size, payload.size));
        if (size > payload.size)
            bytes[payload.size] = 0;

        struct amqp_method method;
        struct amqp_error error = {0};
        bool ok = amqp_method_decode(slice_of(bytes, size), &method, &error);
        ck_assert_msg(ok == (size == payload.size), "%zu of %zu octets", size, payload.size);
        if (!ok)
            ck_assert_uint_eq(error.code, AMQP_FRAME_ERROR);
        free(bytes);
    }
}

START_TEST(every_method_both_ways) /* 3 */
{
    random_init_seeded(&source, (uint64_t)_i);
    for (int round = 0; round < 50; round++) {
        struct amqp_method method = {.id = ids[_i]}, seen;
        struct amqp_error error;
        struct amqp_frame frame;
        size_t used = 0;
        struct buf out = BUF_EMPTY, again = BUF_EMPTY;

        pool_used = 0;
        fill(&method);
        uint16_t channel = (uint16_t)random_u64(&source);
        amqp_method_encode(&out, channel, &method);
        ck_assert_int_eq(amqp_frame_parse(buf_slice(&out), 8192, &frame, &used, &error),
                         AMQP_PARSE_OK);
        ck_assert_uint_eq(used, buf_size(&out));
        ck_assert_uint_eq(frame.type, AMQP_FRAME_METHOD);
        ck_assert_uint_eq(frame.channel, channel);

        ck_assert_msg(amqp_method_decode(frame.payload, &seen, &error), "%s", error.text);
        compare(&method, &seen);
        amqp_method_encode(&again, channel, &seen);
        ck_assert(slice_equal(buf_slice(&out), buf_slice(&again)));
        if (round < 4)
            refuse_all_but(frame.payload);
        buf_release(&out);
        buf_release(&again);
    }
}
END_TEST

/* Any octets behind any id: no crash, and what is taken can be written back with the same
 * meaning. */
START_TEST(random_arguments) /* CVE-2019-18609 */
{
    random_init_seeded(&source, (uint64_t)_i);
    for (int round = 0; round < 2000; round++) {
        uint8_t payload[64];
        size_t size = 4 + random_below(&source, sizeof(payload) - 3);
        random_bytes(&source, payload, sizeof(payload));
        for (size_t i = 4; i < size; i++)
            payload[i] &= (uint8_t)random_u64(&source) & 0x1f; /* small sizes */
        amqp_put_u32(payload, ids[_i]);

        struct amqp_method method, again;
        struct amqp_error error;
        if (!amqp_method_decode(slice_of(payload, size), &method, &error))
            continue;
        struct buf out = BUF_EMPTY;
        amqp_method_encode(&out, 7, &method);
        struct slice frame = buf_slice(&out);
        ck_assert_uint_eq(frame.size, size + AMQP_FRAME_OVERHEAD);
        ck_assert(
            amqp_method_decode(slice_of(frame.data + AMQP_FRAME_HEAD_SIZE, size), &again, &error));
        compare(&method, &again);
        buf_release(&out);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("method");
    TCase *tests = tcase_create("method");
    tcase_add_loop_test(tests, known_frames, 0, countof(known));
    tcase_add_loop_test(tests, bad_methods, 0, countof(bad));
    tcase_add_test(tests, the_ticket_is_ignored);
    tcase_add_loop_test(tests, every_method_both_ways, 0, countof(ids));
    tcase_add_loop_test(tests, random_arguments, 0, countof(ids));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
