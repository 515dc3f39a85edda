/* copies: the keys of CC and BCC (7.16), what is left of the headers (2.9), and the record that
 * keeps both. */
#include "core/copies.h"

#include "amqp/properties.h"
#include "amqp/table.h"
#include "tests/lib/unit.h"

static struct amqp_error error;

static void put_keys(struct buf *out, const char *header, const char *keys)
{
    char copy[64], *rest = copy, *key;
    const size_t array = amqp_table_begin_array(out, slice_of_string(header));

    snprintf(copy, sizeof(copy), "%s", keys);
    while ((key = strsep(&rest, " ")) != NULL && *key != '\0')
        amqp_array_put_string(out, slice_of_string(key));
    amqp_table_end(out, array);
}

/* With these headers and a priority, key "k", body "body". */
static struct message *message_with(struct slice headers)
{
    const struct amqp_properties properties = {
        .flags = AMQP_PROPERTY_HEADERS | AMQP_PROPERTY_PRIORITY, .headers = headers, .priority = 3};
    struct buf bytes = BUF_EMPTY;

    amqp_properties_encode(&bytes, &properties);
    struct message *message = message_new(SLICE("x"), SLICE("k"), buf_slice(&bytes), 4, true);
    message_append_body(message, SLICE("body"));
    buf_release(&bytes);
    return message;
}

/* All keys, with spaces between. */
static const char *keys_of(const struct message *message)
{
    static char text[128];
    struct slice keys[1 + COPIES_MAX];
    const size_t count = copies_list(message, keys);

    text[0] = '\0';
    for (size_t i = 0, size = 0; i < count; i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%s%.*s", i > 0 ? " " : "",
                                 SLICE_ARG(keys[i]));
    return text;
}

static const struct {
    const char *cc, *bcc; /* NULL: absent */
    const char *keys;
    bool has_copies, hides;
} cases[] = {
    {NULL, NULL, "k", false, false},         {"", NULL, "k", true, false},
    {NULL, "", "k", false, false},           {"a", NULL, "k a", true, false},
    {"a b k", NULL, "k a b k", true, false}, {NULL, "c d", "k c d", true, true},
    {"a", "c", "k a c", true, true},         {"a", "", "k a", true, false},
};

static struct message *taken_case(int i)
{
    struct buf headers = BUF_EMPTY;

    amqp_table_put_bool(&headers, SLICE("z"), true);
    if (cases[i].bcc != NULL)
        put_keys(&headers, "BCC", cases[i].bcc);
    if (cases[i].cc != NULL)
        put_keys(&headers, "CC", cases[i].cc);
    struct message *message = message_with(buf_slice(&headers));
    ck_assert(copies_take(&message, &error));
    buf_release(&headers);
    return message;
}

START_TEST(keys_are_listed_and_bcc_is_hidden) /* 7.16 */
{
    struct message *message = taken_case(_i);
    struct amqp_properties properties;
    struct amqp_value value;

    ck_assert_str_eq(keys_of(message), cases[_i].keys);
    ck_assert(message->has_copies == cases[_i].has_copies);
    ck_assert((message_bcc(message).size > 0) == cases[_i].hides);
    ck_assert(slice_equal(message_body(message), SLICE("body")));
    ck_assert(amqp_properties_decode(message_properties(message), &properties));
    ck_assert_uint_eq(properties.priority, 3);
    ck_assert(!amqp_table_find(properties.headers, SLICE("BCC"), &value));
    ck_assert(amqp_table_find(properties.headers, SLICE("z"), &value));
    ck_assert(amqp_table_find(properties.headers, SLICE("CC"), &value) == (cases[_i].cc != NULL));
    message_unref(&message);
}
END_TEST

START_TEST(the_record_keeps_the_keys) /* 13.2 */
{
    struct message *message = taken_case(_i);
    const struct slice record = message_record(message);
    struct message *again = message_from_record(record);

    ck_assert_ptr_nonnull(again);
    ck_assert_str_eq(keys_of(again), cases[_i].keys);
    ck_assert(again->persistent);
    ck_assert(slice_equal(message_body(again), SLICE("body")));
    ck_assert(slice_equal(message_properties(again), message_properties(message)));
    message_unref(&again);
    for (size_t size = 0; size < record.size; size++) {
        again = message_from_record(slice_of(record.data, size));
        if (again != NULL) {
            ck_assert_uint_ge(size, record.size - 4); /* the body alone is shorter */
            message_unref(&again);
        }
    }
    message_unref(&message);
}
END_TEST

START_TEST(keys_have_a_largest_number) /* 7.16, GHSA-6chv-gv3h-cvcj */
{
    for (int more = 0; more < 2; more++) {
        struct buf headers = BUF_EMPTY;
        const size_t array = amqp_table_begin_array(&headers, SLICE("BCC"));
        for (int i = 0; i < COPIES_MAX - 2 + more; i++)
            amqp_array_put_string(&headers, SLICE("a"));
        amqp_table_end(&headers, array);
        put_keys(&headers, "CC", "b c");
        struct message *message = message_with(buf_slice(&headers));
        ck_assert(copies_take(&message, &error) == !more);
        if (more)
            ck_assert_str_eq(error.text, "PRECONDITION_FAILED - invalid message: more than 1024 "
                                         "routing keys in headers CC and BCC");
        message_unref(&message);
        buf_release(&headers);
    }
}
END_TEST

START_TEST(of_equal_headers_the_first_counts) /* 2.9 */
{
    struct buf headers = BUF_EMPTY;

    put_keys(&headers, "BCC", "a");
    put_keys(&headers, "CC", "b");
    put_keys(&headers, "BCC", "c");
    put_keys(&headers, "CC", "d");
    amqp_table_put_bool(&headers, SLICE("A"), true);
    struct message *message = message_with(buf_slice(&headers));
    ck_assert(copies_take(&message, &error));
    ck_assert_str_eq(keys_of(message), "k b a");

    struct buf expected = BUF_EMPTY; /* sorted, once each */
    amqp_table_put_bool(&expected, SLICE("A"), true);
    put_keys(&expected, "CC", "b");
    ck_assert(slice_equal(amqp_properties_find(message_properties(message), AMQP_PROPERTY_HEADERS),
                          buf_slice(&expected)));
    buf_release(&expected);
    buf_release(&headers);
    message_unref(&message);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("copies");
    TCase *tests = tcase_create("copies");
    tcase_add_loop_test(tests, keys_are_listed_and_bcc_is_hidden, 0, countof(cases));
    tcase_add_loop_test(tests, the_record_keeps_the_keys, 0, countof(cases));
    tcase_add_test(tests, keys_have_a_largest_number);
    tcase_add_test(tests, of_equal_headers_the_first_counts);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
