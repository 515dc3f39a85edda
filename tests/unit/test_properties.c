/* Content headers and basic properties: all, none, each, cut, and with flags that mean nothing. */
#include "amqp/properties.h"

#include "amqp/frame.h"
#include "base/random.h"
#include "tests/lib/unit.h"

#define BYTES(literal)                                                                             \
    {                                                                                              \
        (const uint8_t *)(literal), sizeof(literal) - 1                                            \
    }

/* All fourteen in their order (2.7). */
static const struct slice all = BYTES("\xff\xfc"
                                      "\2ct\2ce\0\0\0\3\1hV\2\5\2ci\2rt\2ex\2mi"
                                      "\0\0\0\0\0\0\0\x2a"
                                      "\2ty\2us\2ap\2cl");

START_TEST(all_properties) /* 2.7 */
{
    struct amqp_properties p;
    ck_assert(amqp_properties_decode(all, &p));
    ck_assert_uint_eq(p.flags, 0xfffc);
    ck_assert(slice_equal(p.content_type, SLICE("ct")));
    ck_assert(slice_equal(p.content_encoding, SLICE("ce")));
    ck_assert(slice_equal(p.headers, SLICE("\1hV")));
    ck_assert_uint_eq(p.delivery_mode, 2);
    ck_assert_uint_eq(p.priority, 5);
    ck_assert(slice_equal(p.correlation_id, SLICE("ci")));
    ck_assert(slice_equal(p.reply_to, SLICE("rt")));
    ck_assert(slice_equal(p.expiration, SLICE("ex")));
    ck_assert(slice_equal(p.message_id, SLICE("mi")));
    ck_assert_uint_eq(p.timestamp, 42);
    ck_assert(slice_equal(p.type, SLICE("ty")));
    ck_assert(slice_equal(p.user_id, SLICE("us")));
    ck_assert(slice_equal(p.app_id, SLICE("ap")));
    ck_assert(slice_equal(p.cluster_id, SLICE("cl")));
}
END_TEST

/* Each property found alone, beside those that are there. */
static void check_found(struct slice bytes, const struct amqp_properties *seen){
#define FOUND(NAME, expected)                                                                      \
    {                                                                                              \
        const struct slice found = amqp_properties_find(bytes, AMQP_PROPERTY_##NAME);              \
        ck_assert((found.data != NULL) == ((seen->flags & AMQP_PROPERTY_##NAME) != 0));            \
        ck_assert(found.data == NULL || slice_equal(found, expected));                             \
    }
#define STRING(NAME, name, bit)   FOUND(NAME, seen->name)
#define OCTET(NAME, name, bit)    FOUND(NAME, slice_of(&seen->name, 1))
#define LONGLONG(NAME, name, bit) FOUND(NAME, SLICE("\0\0\0\0\0\0\0\x2a"))
    AMQP_PROPERTY_LIST(STRING, STRING, OCTET, LONGLONG)
#undef FOUND
#undef STRING
#undef OCTET
#undef LONGLONG
}

/* Every combination of flags, written from the same values, read back, and asked for its parts. */
START_TEST(every_combination) /* 2.7 */
{
    struct amqp_properties whole;
    ck_assert(amqp_properties_decode(all, &whole));

    struct buf out = BUF_EMPTY, again = BUF_EMPTY;
    for (uint32_t flags = 0; flags <= 0xfffc; flags += 4) {
        struct amqp_properties seen;
        whole.flags = (uint16_t)flags;
        buf_clear(&out);
        buf_clear(&again);
        amqp_properties_encode(&out, &whole);
        ck_assert(amqp_properties_decode(buf_slice(&out), &seen));
        ck_assert_uint_eq(seen.flags, flags);
        ck_assert_uint_eq(amqp_properties_flags(buf_slice(&out)), flags);
        ck_assert_uint_eq(seen.delivery_mode, flags & AMQP_PROPERTY_DELIVERY_MODE ? 2 : 0);
        ck_assert_uint_eq(amqp_properties_delivery_mode(buf_slice(&out)), seen.delivery_mode);
        check_found(buf_slice(&out), &seen);
        amqp_properties_encode(&again, &seen);
        ck_assert(slice_equal(buf_slice(&out), buf_slice(&again)));
    }
    buf_release(&out);
    buf_release(&again);
}
END_TEST

static const struct {
    const char *what;
    struct slice payload;
    bool ok;
    uint16_t class_id;
    uint64_t body_size;
    const char *text; /* of a refusal */
} headers[] = {
    {"no properties", BYTES("\0\x3c\0\0\0\0\0\0\0\0\1\0\0\0"), true, 60, 256, NULL},
    {"delivery mode", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\x10\0\2"), true, 60, 0, NULL},
    {"the largest body", BYTES("\0\x3c\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0"), true, 60,
     UINT64_MAX, NULL},
    {"another class", BYTES("\0\x32\0\0\0\0\0\0\0\0\0\0\0\0"), true, 50, 0, NULL},
    {"weight", BYTES("\0\x3c\0\1\0\0\0\0\0\0\0\0\0\0"), false, 60, 0,
     "FRAME_ERROR - cannot decode a content header of weight 1"},
    {"too short for a body size", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0"), false, 60, 0,
     "FRAME_ERROR - cannot decode a content header of 11 octets"},
    {"no flags", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0"), false, 60, 0,
     "FRAME_ERROR - cannot decode the properties of class 60"},
    {"half the flags", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\0"), false, 60, 0, NULL},
    {"octets left over", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0\0"), false, 60, 0, NULL},
    {"flag without its octet", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\x10\0"), false, 60, 0, NULL},
    {"an octet too many", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\x10\0\2\2"), false, 60, 0, NULL},
    {"flags go on", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\0\1\0\0"), false, 60, 0, NULL},
    {"undefined flag", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\0\2"), false, 60, 0, NULL},
    {"bad headers", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\x20\0\0\0\0\3\1h?"), false, 60, 0, NULL},
    {"headers too long", BYTES("\0\x3c\0\0\0\0\0\0\0\0\0\0\x20\0\0\0\0\4\1hV"), false, 60, 0, NULL},
};

START_TEST(content_headers) /* 2.3, 2.7 */
{
    struct amqp_content_header header;
    struct amqp_error error = {.method_id = 1};

    bool ok = amqp_content_header_decode(headers[_i].payload, &header, &error);
    ck_assert(ok == headers[_i].ok);
    if (ok) {
        ck_assert_uint_eq(header.class_id, headers[_i].class_id);
        ck_assert_uint_eq(header.body_size, headers[_i].body_size);
        ck_assert_uint_eq(header.properties.size, headers[_i].payload.size - 12);
    } else {
        ck_assert_uint_eq(error.code, AMQP_FRAME_ERROR);
        ck_assert_uint_eq(error.class_id, headers[_i].class_id);
        ck_assert_uint_eq(error.method_id, 0);
        if (headers[_i].text != NULL)
            ck_assert_str_eq(error.text, headers[_i].text);
    }
}
END_TEST

START_TEST(headers_both_ways)
{
    struct amqp_content_header header = {60, UINT64_C(0x0102030405060708), all}, seen;
    struct amqp_frame frame;
    struct amqp_error error;
    size_t used = 0;
    struct buf out = BUF_EMPTY;

    amqp_content_header_encode(&out, 9, &header);
    ck_assert_int_eq(amqp_frame_parse(buf_slice(&out), 4096, &frame, &used, &error), AMQP_PARSE_OK);
    ck_assert(used == buf_size(&out) && frame.channel == 9 && frame.type == AMQP_FRAME_HEADER);
    ck_assert(amqp_content_header_decode(frame.payload, &seen, &error));
    ck_assert_uint_eq(seen.class_id, 60);
    ck_assert_uint_eq(seen.body_size, header.body_size);
    ck_assert(slice_equal(seen.properties, all));

    for (size_t size = 0; size < frame.payload.size; size++) { /* cut at every byte */
        uint8_t *bytes = malloc(size > 0 ? size : 1);
        memcpy(bytes, frame.payload.data, size);
        ck_assert(!amqp_content_header_decode(slice_of(bytes, size), &seen, &error));
        free(bytes);
    }
    buf_release(&out);
}
END_TEST

START_TEST(any_bytes_are_judged)
{
    struct random random;
    random_init_seeded(&random, (uint64_t)_i);
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[32];
        size_t size = random_below(&random, sizeof(bytes));
        random_bytes(&random, bytes, sizeof(bytes));
        for (size_t i = 2; i < size; i++)
            bytes[i] &= 7;
        bytes[0] &= (uint8_t)random_u64(&random);
        bytes[1] &= (uint8_t)random_u64(&random) & 0xfc;

        struct amqp_properties properties;
        if (!amqp_properties_decode(slice_of(bytes, size), &properties))
            continue;
        ck_assert_uint_eq(amqp_properties_delivery_mode(slice_of(bytes, size)),
                          properties.delivery_mode);
        struct buf out = BUF_EMPTY;
        amqp_properties_encode(&out, &properties);
        ck_assert(slice_equal(buf_slice(&out), slice_of(bytes, size)));
        buf_release(&out);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("properties");
    TCase *tests = tcase_create("properties");
    tcase_add_test(tests, all_properties);
    tcase_add_test(tests, every_combination);
    tcase_add_loop_test(tests, content_headers, 0, countof(headers));
    tcase_add_test(tests, headers_both_ways);
    tcase_add_loop_test(tests, any_bytes_are_judged, 0, 4);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
