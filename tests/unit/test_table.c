/* Tables and arrays: well-formed or not, walked, looked up, compared, sorted, built. */
#include "amqp/table.h"

#include "base/random.h"
#include "tests/lib/unit.h"

#define BYTES(literal)                                                                             \
    {                                                                                              \
        (const uint8_t *)(literal), sizeof(literal) - 1                                            \
    }

/* One entry of every tag (2.8), keys a, b, c ... */
#define ENTRIES                                                                                    \
    "\1at\1"                                                                                       \
    "\1bb\xff"                                                                                     \
    "\1cB\xff"                                                                                     \
    "\1ds\xff\xfe"                                                                                 \
    "\1eu\xff\xfe"                                                                                 \
    "\1fI\xff\xff\xff\xfd"                                                                         \
    "\1gi\xff\xff\xff\xfd"                                                                         \
    "\1hl\xff\xff\xff\xff\xff\xff\xff\xfc"                                                         \
    "\1iL\0\0\0\0\0\0\0\5"                                                                         \
    "\1jf\x3f\xc0\0\0"                                                                             \
    "\1kd\xc0\4\0\0\0\0\0\0"                                                                       \
    "\1lD\2\0\0\1\x3a"                                                                             \
    "\1mS\0\0\0\4text"                                                                             \
    "\1nx\0\0\0\2\0\1"                                                                             \
    "\1oA\0\0\0\4Vt\0V"                                                                            \
    "\1pT\0\0\0\0\x65\0\0\0"                                                                       \
    "\1qF\0\0\0\4\1zt\1"                                                                           \
    "\1rV"

static const struct slice every_tag = BYTES(ENTRIES);

static const struct {
    const char *what;
    struct slice table;
    bool ok;
} checks[] = {
    {"empty", BYTES(""), true},
    {"every tag", BYTES(ENTRIES), true},
    {"empty key", BYTES("\0V"), true},
    {"the same key twice", BYTES("\1aV\1aV"), true}, /* 2.9 */
    {"empty inner table", BYTES("\1aF\0\0\0\0"), true},
    {"array in array in table",
     BYTES("\1aF\0\0\0\x14\1bA\0\0\0\x0d"
           "A\0\0\0\1VF\0\0\0\2\0V"),
     true},
    {"key without value", BYTES("\1a"), false},
    {"unknown tag", BYTES("\1a?"), false},
    {"tag 0", BYTES("\1a\0"), false},
    {"key longer than the table", BYTES("\4abV"), false},
    {"string longer than the table", BYTES("\1aS\0\0\0\3ab"), false},
    {"string of 4 GiB",
     BYTES("\1aS\xff\xff\xff\xff"
           "ab"),
     false},
    {"inner table longer than the outer", BYTES("\1aF\0\0\0\5\1bV"), false},
    {"value across the end of its inner table", BYTES("\1aF\0\0\0\3\1bt\1"), false},
    {"value across the end of its array", BYTES("\1aA\0\0\0\2sx\1bV"), false},
    {"bad value deep inside",
     BYTES("\1aA\0\0\0\x0c"
           "F\0\0\0\6\1bS\0\0\1V"),
     false},
};

START_TEST(well_formed_or_not)
{
    ck_assert(amqp_table_check(checks[_i].table) == checks[_i].ok);
}
END_TEST

/* A table may be cut between its entries, and nowhere else. */
START_TEST(cut_at_every_byte) /* CVE-2019-18609 */
{
    bool boundary[sizeof(ENTRIES)] = {[0] = true};
    struct amqp_table_iter iter = amqp_table_walk(every_tag);
    struct slice key;
    struct amqp_value value;
    while (amqp_table_next(&iter, &key, &value))
        boundary[iter.reader.next - every_tag.data] = true;

    for (size_t size = 0; size <= every_tag.size; size++) {
        uint8_t *bytes = malloc(size > 0 ? size : 1);
        memcpy(bytes, every_tag.data, size);
        struct slice table = slice_of(bytes, size);
        ck_assert(amqp_table_check(table) == boundary[size]);

        iter = amqp_table_walk(table); /* stops early, reads nothing beyond */
        while (amqp_table_next(&iter, &key, &value))
            ck_assert(key.data + key.size <= bytes + size);
        free(bytes);
    }
}
END_TEST

/* As many levels as wanted, of tables or arrays, the outermost counted. */
static struct buf nested(int levels, uint8_t tag)
{
    struct buf out = BUF_EMPTY;
    size_t ends[200];

    for (int i = 1; i < levels; i++)
        ends[i] = i > 1 && tag == AMQP_ARRAY ? amqp_array_begin_array(&out)
                  : tag == AMQP_ARRAY        ? amqp_table_begin_array(&out, SLICE("k"))
                                             : amqp_table_begin_table(&out, SLICE("k"));
    for (int i = levels - 1; i > 0; i--)
        amqp_table_end(&out, ends[i]);
    return out;
}

START_TEST(depth_is_limited) /* CVE-2026-67414 */
{
    static const uint8_t tags[] = {AMQP_TABLE, AMQP_ARRAY};
    for (size_t i = 0; i < countof(tags); i++) {
        struct buf out = nested(AMQP_TABLE_DEPTH_MAX, tags[i]);
        ck_assert(amqp_table_check(buf_slice(&out)));
        buf_release(&out);
        out = nested(AMQP_TABLE_DEPTH_MAX + 1, tags[i]);
        ck_assert(!amqp_table_check(buf_slice(&out)));
        buf_release(&out);
        out = nested(199, tags[i]);
        ck_assert(!amqp_table_check(buf_slice(&out)));
        buf_release(&out);
    }
}
END_TEST

/* A size of any kind, wherever one might be read: nothing beyond the table is, which the sanitizers
 * see to. */
START_TEST(lengths_beyond_the_table) /* CVE-2019-18609 */
{
    static const uint32_t lengths[] = {0,          1,          0x7ffffffe, 0x7fffffff,
                                       0x80000000, 0x80000001, 0xfffffffe, 0xffffffff};
    for (size_t at = 0; at + 4 <= every_tag.size; at++)
        for (size_t i = 0; i < countof(lengths); i++) {
            uint8_t *bytes = malloc(every_tag.size);
            memcpy(bytes, every_tag.data, every_tag.size);
            for (int octet = 0; octet < 4; octet++)
                bytes[at + octet] = (uint8_t)(lengths[i] >> (24 - 8 * octet));
            const struct slice table = slice_of(bytes, every_tag.size);
            const bool ok = amqp_table_check(table);
            struct amqp_table_iter iter = amqp_table_walk(table);
            struct slice key;
            struct amqp_value value;
            size_t walked = 0;
            while (amqp_table_next(&iter, &key, &value)) {
                ck_assert(iter.reader.next <= bytes + every_tag.size);
                walked = iter.reader.next - bytes;
            }
            ck_assert(!ok || walked == every_tag.size);
            free(bytes);
        }
}
END_TEST

/* Their tags are all they have: a million of them stays a megabyte. */
START_TEST(empty_values_take_no_room) /* CVE-2026-67414 */
{
    enum { VALUES = 1000000 };
    struct buf table = BUF_EMPTY, sorted = BUF_EMPTY;
    const size_t array = amqp_table_begin_array(&table, SLICE("k"));
    memset(buf_reserve(&table, VALUES), AMQP_VOID, VALUES);
    buf_commit(&table, VALUES);
    amqp_table_end(&table, array);

    ck_assert(amqp_table_check(buf_slice(&table)));
    amqp_table_sort(&sorted, buf_slice(&table));
    ck_assert(slice_equal(buf_slice(&sorted), buf_slice(&table)));
    buf_release(&sorted);
    buf_release(&table);
}
END_TEST

START_TEST(values_of_every_tag) /* 2.8 */
{
    struct amqp_value value;
    struct slice string;
    int64_t integer;

    ck_assert(amqp_table_find(every_tag, SLICE("a"), &value));
    ck_assert(value.type == AMQP_BOOL && value.boolean);
    static const int64_t integers[] = {-1, 255, -2, 65534, -3, 4294967293, -4, 5};
    for (size_t i = 0; i < countof(integers); i++) {
        char key = (char)('b' + i);
        ck_assert(amqp_table_find(every_tag, slice_of(&key, 1), &value));
        ck_assert(amqp_value_integer(&value, &integer));
        ck_assert_int_eq(integer, integers[i]);
    }
    ck_assert_int_eq(value.type, AMQP_INT64); /* 'L' too */
    ck_assert(amqp_table_find(every_tag, SLICE("j"), &value) && value.type == AMQP_FLOAT);
    ck_assert_double_eq(value.real, 1.5);
    ck_assert(amqp_table_find(every_tag, SLICE("k"), &value) && value.type == AMQP_DOUBLE);
    ck_assert_double_eq(value.real, -2.5);
    ck_assert(amqp_table_find(every_tag, SLICE("l"), &value) && value.type == AMQP_DECIMAL);
    ck_assert(value.decimal.scale == 2 && value.decimal.digits == 314);
    ck_assert(amqp_table_find(every_tag, SLICE("m"), &value) && amqp_value_string(&value, &string));
    ck_assert(slice_equal(string, SLICE("text")));
    ck_assert(amqp_table_find(every_tag, SLICE("n"), &value) && amqp_value_string(&value, &string));
    ck_assert(value.type == AMQP_BYTES && slice_equal(string, SLICE("\0\1")));
    ck_assert(amqp_table_find(every_tag, SLICE("p"), &value) && value.type == AMQP_TIMESTAMP);
    ck_assert_uint_eq(value.timestamp_s, 0x65000000);
    ck_assert(!amqp_value_integer(&value, &integer) && !amqp_value_string(&value, &string));
    ck_assert(amqp_table_find(every_tag, SLICE("q"), &value) && value.type == AMQP_TABLE);
    ck_assert(amqp_table_find(value.bytes, SLICE("z"), &value) && value.type == AMQP_BOOL);
    ck_assert(amqp_table_find(every_tag, SLICE("r"), &value) && value.type == AMQP_VOID);
    ck_assert(!amqp_table_find(every_tag, SLICE("s"), &value));
    ck_assert(!amqp_table_find(every_tag, SLICE(""), &value));
}
END_TEST

START_TEST(arrays_are_walked)
{
    struct amqp_value value;
    ck_assert(amqp_table_find(every_tag, SLICE("o"), &value) && value.type == AMQP_ARRAY);

    struct amqp_table_iter iter = amqp_table_walk(value.bytes);
    static const uint8_t types[] = {AMQP_VOID, AMQP_BOOL, AMQP_VOID};
    for (size_t i = 0; i < countof(types); i++) {
        ck_assert(amqp_array_next(&iter, &value));
        ck_assert_uint_eq(value.type, types[i]);
    }
    ck_assert(!amqp_array_next(&iter, &value));
}
END_TEST

START_TEST(the_first_of_a_key_wins) /* 2.9 */
{
    struct amqp_value value;
    ck_assert(amqp_table_find((struct slice)BYTES("\1at\0\1at\1"), SLICE("a"), &value));
    ck_assert(!value.boolean);
}
END_TEST

/* What is read is written again octet by octet, but for 'L', which we write 'l'. */
START_TEST(every_tag_is_written) /* 2.8 */
{
    struct buf out = BUF_EMPTY;
    struct amqp_table_iter iter = amqp_table_walk(every_tag);
    struct slice key;
    struct amqp_value value;

    while (amqp_table_next(&iter, &key, &value))
        amqp_table_put(&out, key, &value);
    ck_assert_uint_eq(buf_size(&out), every_tag.size);
    for (size_t i = 0; i < every_tag.size; i++)
        ck_assert(out.data[i] == every_tag.data[i] ||
                  (every_tag.data[i] == 'L' && out.data[i] == 'l'));
    buf_release(&out);
}
END_TEST

START_TEST(building)
{
    struct buf out = BUF_EMPTY;
    buf_append(&out, SLICE("before"));
    amqp_table_put_string(&out, SLICE("s"), SLICE("text"));
    amqp_table_put_bool(&out, SLICE("t"), true);
    amqp_table_put_u32(&out, SLICE("i"), 4000000000);
    amqp_table_put_i64(&out, SLICE("l"), -2);
    amqp_table_put_timestamp(&out, SLICE("T"), 3);
    size_t array = amqp_table_begin_array(&out, SLICE("A"));
    amqp_array_put_string(&out, SLICE("x"));
    size_t table = amqp_array_begin_table(&out);
    amqp_table_put_bool(&out, SLICE("b"), false);
    amqp_table_end(&out, table);
    amqp_table_end(&out, array);
    buf_consume(&out, 6);

    struct slice wanted = BYTES("\1sS\0\0\0\4text"
                                "\1tt\1"
                                "\1ii\xee\x6b\x28\0"
                                "\1ll\xff\xff\xff\xff\xff\xff\xff\xfe"
                                "\1TT\0\0\0\0\0\0\0\3"
                                "\1AA\0\0\0\x0fS\0\0\0\1xF\0\0\0\4\1bt\0");
    ck_assert(slice_equal(buf_slice(&out), wanted));
    ck_assert(amqp_table_check(buf_slice(&out)));
    buf_release(&out);
}
END_TEST

/* 7.13. Values by class: those of one class are equal to each other and to no others. */
static const struct {
    int class;
    struct amqp_value value;
} values[] = {
    {1, {AMQP_INT8, .integer = 5}},
    {1, {AMQP_UINT16, .integer = 5}},
    {1, {AMQP_INT64, .integer = 5}},
    {1, {AMQP_TIMESTAMP, .timestamp_s = 5}},
    {1, {AMQP_DOUBLE, .real = 5}},
    {1, {AMQP_FLOAT, .real = 5}},
    {2, {AMQP_INT32, .integer = -5}},
    {2, {AMQP_DOUBLE, .real = -5}},
    {3, {AMQP_DOUBLE, .real = 5.5}},
    {4, {AMQP_INT64, .integer = -1}},
    {5, {AMQP_TIMESTAMP, .timestamp_s = UINT64_MAX}},
    {6, {AMQP_INT64, .integer = INT64_MAX}},
    {6, {AMQP_TIMESTAMP, .timestamp_s = INT64_MAX}},
    {7, {AMQP_DOUBLE, .real = 0x1p63}},
    {7, {AMQP_TIMESTAMP, .timestamp_s = UINT64_C(1) << 63}},
    {8, {AMQP_DOUBLE, .real = 0x1p64}},
    {9, {AMQP_DOUBLE, .real = -0x1p63}},
    {9, {AMQP_INT64, .integer = INT64_MIN}},
    {10, {AMQP_DOUBLE, .real = 1e300}},
    {11, {AMQP_INT64, .integer = (INT64_C(1) << 53) + 1}},
    {12, {AMQP_DOUBLE, .real = 0x1p53}},
    {13, {AMQP_BOOL, .boolean = true}},
    {14, {AMQP_BOOL, .boolean = false}},
    {15, {AMQP_STRING, .bytes = BYTES("5")}},
    {15, {AMQP_BYTES, .bytes = BYTES("5")}},
    {16, {AMQP_STRING, .bytes = BYTES("")}},
    {17, {AMQP_VOID, .integer = 0}},
    {18, {AMQP_DECIMAL, .decimal = {1, 50}}},
    {19, {AMQP_DECIMAL, .decimal = {0, 5}}},
    {20, {AMQP_ARRAY, .bytes = BYTES("V")}},
    {21, {AMQP_TABLE, .bytes = BYTES("\0V")}},
    {22, {AMQP_TABLE, .bytes = BYTES("")}},
    {23, {AMQP_ARRAY, .bytes = BYTES("")}},
};

START_TEST(equal_values) /* 7.13 */
{
    for (size_t i = 0; i < countof(values); i++)
        for (size_t j = 0; j < countof(values); j++)
            ck_assert_msg(amqp_value_equal(&values[i].value, &values[j].value) ==
                              (values[i].class == values[j].class),
                          "%zu and %zu", i, j);

    struct amqp_value nan = {AMQP_DOUBLE, .real = 0.0 / 0.0}, zero = {AMQP_INT8, .integer = 0};
    ck_assert(!amqp_value_equal(&nan, &nan));
    ck_assert(!amqp_value_equal(&nan, &zero));
}
END_TEST

/* 7.18 */
static const struct {
    struct slice a, b;
    bool equal;
} tables[] = {
    {BYTES(""), BYTES(""), true},
    {BYTES("\1aV\1bt\1"), BYTES("\1aV\1bt\1"), true},
    {BYTES("\1aV\1bt\1"), BYTES("\1bt\1\1aV"), true},
    {BYTES("\2abV\1aV\0V"), BYTES("\0V\1aV\2abV"), true},
    {BYTES("\1at\1\1at\0"), BYTES("\1at\1"), true},
    {BYTES("\1at\1\1at\0"), BYTES("\1at\0"), false},
    {BYTES("\1aV"), BYTES(""), false},
    {BYTES("\1aV"), BYTES("\1bV"), false},
    {BYTES("\1aV\1bV"), BYTES("\1aV\1cV"), false},
    {BYTES("\1ab\1"), BYTES("\1aB\1"), false},
};

START_TEST(equal_tables)
{
    ck_assert(amqp_table_equal(tables[_i].a, tables[_i].b) == tables[_i].equal);
    ck_assert(amqp_table_equal(tables[_i].b, tables[_i].a) == tables[_i].equal);
}
END_TEST

START_TEST(sorted_tables) /* 2.9 */
{
    struct buf out = BUF_EMPTY;
    struct slice table = BYTES("\1cF\0\0\0\6\1zV\1yV"
                               "\1bV"
                               "\2abV"
                               "\1at\1"
                               "\1bt\1");
    struct slice wanted = BYTES("\1at\1"
                                "\2abV"
                                "\1bV"
                                "\1cF\0\0\0\6\1zV\1yV");
    amqp_table_sort(&out, table);
    ck_assert(slice_equal(buf_slice(&out), wanted));
    buf_release(&out);
}
END_TEST

/* Random small octets, often well-formed: no crash, and all that follows a check keeps to its
 * promises. */
START_TEST(any_bytes_are_judged) /* CVE-2019-18609 */
{
    static const uint8_t alphabet[] = {0,   0,   0,   1,   1,   2,   3,   5,  9,
                                       'a', 't', 'V', 'V', 'F', 'A', 'S', 'b'};
    struct random random;
    int passed = 0;

    random_init_seeded(&random, (uint64_t)_i);
    for (int round = 0; round < 50000; round++) {
        uint8_t bytes[48];
        size_t size = random_below(&random, sizeof(bytes));
        for (size_t i = 0; i < size; i++)
            bytes[i] = alphabet[random_below(&random, sizeof(alphabet))];
        struct slice table = slice_of(bytes, size);
        if (!amqp_table_check(table))
            continue;
        passed++;
        struct buf once = BUF_EMPTY, twice = BUF_EMPTY;
        amqp_table_sort(&once, table);
        ck_assert(amqp_table_check(buf_slice(&once)));
        amqp_table_sort(&twice, buf_slice(&once));
        ck_assert(slice_equal(buf_slice(&once), buf_slice(&twice)));
        ck_assert(amqp_table_equal(table, buf_slice(&once)));
        buf_release(&once);
        buf_release(&twice);
    }
    ck_assert_int_gt(passed, 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table");
    TCase *tests = tcase_create("table");
    tcase_add_loop_test(tests, well_formed_or_not, 0, countof(checks));
    tcase_add_test(tests, cut_at_every_byte);
    tcase_add_test(tests, lengths_beyond_the_table);
    tcase_add_test(tests, depth_is_limited);
    tcase_add_test(tests, empty_values_take_no_room);
    tcase_add_test(tests, values_of_every_tag);
    tcase_add_test(tests, arrays_are_walked);
    tcase_add_test(tests, the_first_of_a_key_wins);
    tcase_add_test(tests, every_tag_is_written);
    tcase_add_test(tests, building);
    tcase_add_test(tests, equal_values);
    tcase_add_loop_test(tests, equal_tables, 0, countof(tables));
    tcase_add_test(tests, sorted_tables);
    tcase_add_loop_test(tests, any_bytes_are_judged, 0, 4);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
