/* json: whatever bytes a name or table holds, the outcome is JSON and says what they were. */
#include "manage/json.h"

#include "amqp/table.h"
#include "base/buf.h"
#include "tests/lib/unit.h"

static void expect_json(json_t *value, const char *text)
{
    char *dumped = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

    ck_assert_ptr_nonnull(dumped);
    ck_assert_str_eq(text, dumped);
    free(dumped);
    json_decref(value);
}

static const struct {
    struct slice bytes;
    const char *json;
} strings[] = {
    {SLICE(""), "\"\""},
    {SLICE("plain"), "\"plain\""},
    {SLICE("a\tb\n\"\\"), "\"a\\tb\\n\\\"\\\\\""},
    {SLICE("nul\0inside"), "\"nul\\u0000inside\""},
    {SLICE("\xc3\xbc \xe2\x82\xac \xf0\x9f\x90\xbe"), "\"\xc3\xbc \xe2\x82\xac \xf0\x9f\x90\xbe\""},
    {SLICE("\xff"), "\"\\\\xff\""},
    {SLICE("a\x80z"), "\"a\\\\x80z\""},
    {SLICE("\xc0\xaf"), "\"\\\\xc0\\\\xaf\""},                       /* overlong */
    {SLICE("\xe0\x80\xaf"), "\"\\\\xe0\\\\x80\\\\xaf\""},            /* overlong */
    {SLICE("\xed\xa0\x80"), "\"\\\\xed\\\\xa0\\\\x80\""},            /* a surrogate */
    {SLICE("\xf4\x90\x80\x80"), "\"\\\\xf4\\\\x90\\\\x80\\\\x80\""}, /* above U+10FFFF */
    {SLICE("\xe2\x82"), "\"\\\\xe2\\\\x82\""},                       /* cut short */
    {SLICE("\xff\0\xc3\xbc"), "\"\\\\xff\\\\x00\xc3\xbc\""},
};

START_TEST(strings_of_any_bytes)
{
    expect_json(json_from_slice(strings[_i].bytes), strings[_i].json);
}
END_TEST

START_TEST(every_pair_of_bytes_becomes_a_string)
{
    size_t wrong = 0;

    for (unsigned i = 0; i < 65536; i++) {
        const uint8_t pair[] = {(uint8_t)(i >> 8), (uint8_t)i, 'x'};
        json_t *value = json_from_slice(slice_of(pair, sizeof(pair)));
        wrong += !json_is_string(value);
        json_decref(value);
    }
    ck_assert_uint_eq(0, wrong);
}
END_TEST

START_TEST(tables_with_every_type)
{
    struct buf table = BUF_EMPTY;
    amqp_table_put_string(&table, SLICE("s"), SLICE("t\xff"));
    amqp_table_put_bool(&table, SLICE("b"), true);
    amqp_table_put_u32(&table, SLICE("u"), 4000000000);
    amqp_table_put_i64(&table, SLICE("i"), -5);
    amqp_table_put_timestamp(&table, SLICE("t"), 1700000000);
    amqp_table_put(&table, SLICE("d"), &(struct amqp_value){.type = AMQP_DOUBLE, .real = 0.1});
    amqp_table_put(&table, SLICE("n"),
                   &(struct amqp_value){.type = AMQP_DOUBLE, .real = __builtin_nan("")});
    amqp_table_put(&table, SLICE("D"),
                   &(struct amqp_value){.type = AMQP_DECIMAL, .decimal = {2, 314}});
    amqp_table_put(&table, SLICE("v"), &(struct amqp_value){.type = AMQP_VOID});
    const size_t inner = amqp_table_begin_table(&table, SLICE("F"));
    const size_t array = amqp_table_begin_array(&table, SLICE("A"));
    amqp_array_put_string(&table, SLICE("x"));
    amqp_array_put(&table, &(struct amqp_value){.type = AMQP_BOOL, .boolean = false});
    amqp_table_end(&table, array);
    amqp_table_end(&table, inner);

    ck_assert(amqp_table_check(buf_slice(&table)));
    expect_json(
        json_from_table(buf_slice(&table)),
        "{\"s\":\"t\\\\xff\",\"b\":true,\"u\":4000000000,\"i\":-5,\"t\":1700000000,\"d\":0.1,"
        "\"n\":null,\"D\":3.14,\"v\":null,\"F\":{\"A\":[\"x\",false]}}");
    buf_release(&table);
}
END_TEST

START_TEST(keys_of_any_bytes)
{
    struct buf table = BUF_EMPTY;
    amqp_table_put_bool(&table, SLICE(""), true);
    amqp_table_put_bool(&table, SLICE("\xfe"), true);
    amqp_table_put_bool(&table, SLICE("a\0b"), true);
    amqp_table_put_bool(&table, SLICE("twice"), true);
    amqp_table_put_bool(&table, SLICE("twice"), false);

    expect_json(json_from_table(buf_slice(&table)),
                "{\"\":true,\"\\\\xfe\":true,\"a\\\\x00b\":true,\"twice\":true}");
    buf_release(&table);
}
END_TEST

START_TEST(tables_as_deep_as_may_be) /* CVE-2026-67414 */
{
    struct buf table = BUF_EMPTY;
    size_t begins[AMQP_TABLE_DEPTH_MAX - 1];

    for (size_t i = 0; i < countof(begins); i++)
        begins[i] = amqp_table_begin_table(&table, SLICE("k"));
    for (size_t i = countof(begins); i > 0; i--)
        amqp_table_end(&table, begins[i - 1]);
    ck_assert(amqp_table_check(buf_slice(&table)));
    json_t *value = json_from_table(buf_slice(&table));
    size_t depth = 0;
    for (const json_t *at = value; at != NULL; at = json_object_get(at, "k"))
        depth++;
    ck_assert_uint_eq(AMQP_TABLE_DEPTH_MAX, depth);
    json_decref(value);
    buf_release(&table);
}
END_TEST

/* ---- back ---- */

static const char *const round_trips[] = {
    "{}",
    "{\"a\":1,\"b\":-9223372036854775808,\"c\":\"text\",\"d\":true,\"e\":false,\"f\":null,\"g\":0."
    "5}",
    "{\"t\":{\"a\":[1,\"x\",{\"y\":[]},[[2]]],\"b\":{}},\"\":\"\"}",
};

START_TEST(tables_and_back)
{
    json_t *object = json_loads(round_trips[_i], 0, NULL);
    struct buf table = BUF_EMPTY;

    ck_assert(json_to_table(object, &table));
    ck_assert(amqp_table_check(buf_slice(&table)));
    expect_json(json_from_table(buf_slice(&table)), round_trips[_i]);
    buf_release(&table);
    json_decref(object);
}
END_TEST

/* So many levels, the table around the arrays included. */
static json_t *nest_arrays(unsigned levels)
{
    json_t *inner = json_array();

    for (unsigned i = 2; i < levels; i++)
        inner = json_pack("[o]", inner);
    return json_pack("{s:o}", "k", inner);
}

START_TEST(what_no_table_holds)
{
    const struct {
        json_t *object;
        bool fits;
    } cases[] = {
        {json_pack("{s:o}", "k", nest_arrays(AMQP_TABLE_DEPTH_MAX - 1)), true},
        {json_pack("{s:o}", "k", nest_arrays(AMQP_TABLE_DEPTH_MAX)), false},
        {nest_arrays(AMQP_TABLE_DEPTH_MAX), true},
        {nest_arrays(AMQP_TABLE_DEPTH_MAX + 1), false},
    };

    for (size_t i = 0; i < countof(cases); i++) {
        struct buf table = BUF_EMPTY;
        ck_assert_int_eq(cases[i].fits, json_to_table(cases[i].object, &table));
        ck_assert(!cases[i].fits || amqp_table_check(buf_slice(&table)));
        buf_release(&table);
        json_decref(cases[i].object);
    }
}
END_TEST

START_TEST(keys_have_a_largest_size)
{
    char key[257];
    struct buf table = BUF_EMPTY;

    memset(key, 'k', sizeof(key));
    key[255] = '\0';
    json_t *object = json_pack("{s:i}", key, 1);
    ck_assert(json_to_table(object, &table));
    json_decref(object);
    key[255] = 'k';
    key[256] = '\0';
    object = json_pack("{s:i}", key, 1);
    ck_assert(!json_to_table(object, &table));
    json_decref(object);
    buf_release(&table);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tests = tcase_create("json");
    tcase_add_loop_test(tests, strings_of_any_bytes, 0, countof(strings));
    tcase_add_test(tests, every_pair_of_bytes_becomes_a_string);
    tcase_add_test(tests, tables_with_every_type);
    tcase_add_test(tests, keys_of_any_bytes);
    tcase_add_test(tests, tables_as_deep_as_may_be);
    tcase_add_loop_test(tests, tables_and_back, 0, countof(round_trips));
    tcase_add_test(tests, what_no_table_holds);
    tcase_add_test(tests, keys_have_a_largest_size);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
