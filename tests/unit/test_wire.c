/* The sticky reader and the stores: what is written is read back, and nothing past the end ever
 * is. */
#include "amqp/wire.h"

#include "tests/lib/unit.h"

static const uint8_t octets[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

START_TEST(integers_are_big_endian)
{
    struct amqp_reader reader = amqp_reader_of(slice_of(octets, sizeof(octets)));

    ck_assert_uint_eq(amqp_read_u8(&reader), 0x01);
    ck_assert_uint_eq(amqp_read_u16(&reader), 0x0203);
    ck_assert_uint_eq(amqp_read_u32(&reader), 0x04050607);
    ck_assert_uint_eq(amqp_read_u64(&reader), 0x08090a0b0c0d0e0f);
    ck_assert(!reader.bad && reader.next == reader.end);
}
END_TEST

START_TEST(written_is_read)
{
    struct buf out = BUF_EMPTY;
    amqp_write_u8(&out, 0xfe);
    amqp_write_u16(&out, 0xfedc);
    amqp_write_u32(&out, 0xfedcba98);
    amqp_write_u64(&out, 0xfedcba9876543210);
    amqp_write_shortstr(&out, SLICE("short"));
    amqp_write_longstr(&out, SLICE("long\0er"));
    amqp_write_shortstr(&out, SLICE(""));
    amqp_write_longstr(&out, (struct slice){NULL, 0});

    struct amqp_reader reader = amqp_reader_of(buf_slice(&out));
    ck_assert_uint_eq(amqp_read_u8(&reader), 0xfe);
    ck_assert_uint_eq(amqp_read_u16(&reader), 0xfedc);
    ck_assert_uint_eq(amqp_read_u32(&reader), 0xfedcba98);
    ck_assert_uint_eq(amqp_read_u64(&reader), 0xfedcba9876543210);
    ck_assert(slice_equal(amqp_read_shortstr(&reader), SLICE("short")));
    ck_assert(slice_equal(amqp_read_longstr(&reader), SLICE("long\0er")));
    ck_assert_uint_eq(amqp_read_shortstr(&reader).size, 0);
    ck_assert_uint_eq(amqp_read_longstr(&reader).size, 0);
    ck_assert(!reader.bad && reader.next == reader.end);
    buf_release(&out);
}
END_TEST

static void read_u8(struct amqp_reader *reader)
{
    ck_assert_uint_eq(amqp_read_u8(reader), 0);
}

static void read_u16(struct amqp_reader *reader)
{
    ck_assert_uint_eq(amqp_read_u16(reader), 0);
}

static void read_u32(struct amqp_reader *reader)
{
    ck_assert_uint_eq(amqp_read_u32(reader), 0);
}

static void read_u64(struct amqp_reader *reader)
{
    ck_assert_uint_eq(amqp_read_u64(reader), 0);
}

static void read_shortstr(struct amqp_reader *reader)
{
    ck_assert_uint_eq(amqp_read_shortstr(reader).size, 0);
}

static void read_longstr(struct amqp_reader *reader)
{
    ck_assert_uint_eq(amqp_read_longstr(reader).size, 0);
}

/* Each input is too short for its read, and once it was, everything after is refused too. */
static const struct {
    void (*read)(struct amqp_reader *reader);
    struct slice input;
} short_reads[] = {
    {read_u8, {(const uint8_t *)"", 0}},
    {read_u16, {(const uint8_t *)"\1", 1}},
    {read_u32, {(const uint8_t *)"\1\1\1", 3}},
    {read_u64, {(const uint8_t *)"\1\1\1\1\1\1\1", 7}},
    {read_shortstr, {(const uint8_t *)"", 0}},
    {read_shortstr, {(const uint8_t *)"\2a", 2}},
    {read_longstr, {(const uint8_t *)"\0\0\0", 3}},
    {read_longstr, {(const uint8_t *)"\0\0\0\2a", 5}},
    {read_longstr, {(const uint8_t *)"\377\377\377\377a", 5}},
};

START_TEST(a_short_read_sticks) /* CVE-2019-18609 */
{
    struct amqp_reader reader = amqp_reader_of(short_reads[_i].input);

    short_reads[_i].read(&reader);
    ck_assert(reader.bad);
    ck_assert_uint_eq(amqp_reader_left(&reader), 0);
    for (size_t i = 0; i < countof(short_reads); i++)
        short_reads[i].read(&reader);
    ck_assert(reader.bad);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire");
    TCase *tests = tcase_create("wire");
    tcase_add_test(tests, integers_are_big_endian);
    tcase_add_test(tests, written_is_read);
    tcase_add_loop_test(tests, a_short_read_sticks, 0, countof(short_reads));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
