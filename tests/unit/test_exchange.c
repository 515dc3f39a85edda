/* exchange: where messages go, by type, through other exchanges and to alternates; each queue once. */
#include "amqp/properties.h"
#include "amqp/table.h"
#include "base/alloc.h"
#include "tests/lib/memory_broker.h"
#include "tests/lib/unit.h"

static struct memory_broker memory;
static struct route route;
static struct amqp_error error;
static uint64_t lsn;

static void set_up(void)
{
    memory_broker_start(&memory);
    route_init(&route);
}

static void tear_down(void)
{
    route_release(&route);
    memory_broker_stop(&memory);
}

/* ---- making things ---- */

static struct queue *queue_named(const char *name)
{
    const struct queue_options options = {.name = slice_of_string(name)};
    struct queue *queue = vhost_declare_queue(memory.vhost, &options, &lsn, &error);

    ck_assert_msg(queue != NULL, "%s", error.text);
    return queue;
}

static struct exchange *exchange_named(const char *name, const char *type, struct slice arguments)
{
    const struct exchange_options options = {
        .name = slice_of_string(name), .type = slice_of_string(type), .arguments = arguments};
    struct exchange *exchange = vhost_declare_exchange(memory.vhost, &options, &lsn, &error);

    ck_assert_msg(exchange != NULL, "%s", error.text);
    return exchange;
}

/* The destination is an exchange when its name begins with "x". */
static bool bind(const char *source, const char *destination, const char *key,
                 struct slice arguments)
{
    const struct binding_request request = {
        .source = slice_of_string(source),
        .destination = slice_of_string(destination),
        .to_exchange = destination[0] == 'x',
        .key = slice_of_string(key),
        .arguments = arguments,
    };

    return vhost_bind(memory.vhost, &request, NULL, &lsn, &error);
}

static void must_bind(const char *source, const char *destination, const char *key)
{
    ck_assert_msg(bind(source, destination, key, (struct slice){0}), "%s", error.text);
}

static void must_unbind(const char *source, const char *destination, const char *key)
{
    const struct binding_request request = {
        .source = slice_of_string(source),
        .destination = slice_of_string(destination),
        .to_exchange = destination[0] == 'x',
        .key = slice_of_string(key),
    };

    ck_assert(vhost_unbind(memory.vhost, &request, NULL, &lsn, &error));
}

static int compare_names(const void *a, const void *b)
{
    return slice_compare((*(struct queue *const *)a)->name, (*(struct queue *const *)b)->name);
}

/* The names of the queues that a message reaches, in order, with spaces between. */
static const char *routed(const char *exchange, const char *key, struct slice properties)
{
    static char names[256];
    const struct slice keys[] = {slice_of_string(key)};
    const struct routing routing = {keys, countof(keys), properties};

    exchange_route(vhost_find_exchange(memory.vhost, slice_of_string(exchange), &error), &routing,
                   &route);
    if (route.count > 1)
        qsort(route.queues, route.count, sizeof(struct queue *), compare_names);
    names[0] = '\0';
    for (size_t i = 0, size = 0; i < route.count; i++)
        size += (size_t)snprintf(names + size, sizeof(names) - size, "%s%.*s", i > 0 ? " " : "",
                                 SLICE_ARG(route.queues[i]->name));
    return names;
}

static const struct slice no_properties = {(const uint8_t *)"\0\0", 2};

static const char *routed_by_key(const char *exchange, const char *key)
{
    return routed(exchange, key, no_properties);
}

/* ---- types that look at the key ---- */

START_TEST(default_exchange_knows_every_queue) /* 7.11 */
{
    queue_named("a");
    queue_named("b");
    ck_assert_str_eq(routed_by_key("", "a"), "a");
    ck_assert_str_eq(routed_by_key("", "c"), "");
    ck_assert_str_eq(routed_by_key("", ""), "");

    uint64_t count;
    ck_assert(
        vhost_delete_queue(memory.vhost, SLICE("a"), false, false, NULL, &count, &lsn, &error));
    ck_assert_str_eq(routed_by_key("", "a"), "");
    ck_assert_ptr_eq(memory.vhost->default_exchange->type, &exchange_type_default);
    ck_assert_uint_eq(memory.vhost->default_exchange->published, 4);
}
END_TEST

START_TEST(direct_wants_the_same_key) /* 7.11, 7.15 */
{
    queue_named("a");
    queue_named("b");
    must_bind("amq.direct", "a", "red");
    must_bind("amq.direct", "b", "red");
    must_bind("amq.direct", "b", "");
    must_bind("amq.direct", "b", "#");
    ck_assert_str_eq(routed_by_key("amq.direct", "red"), "a b");
    ck_assert_str_eq(routed_by_key("amq.direct", ""), "b");
    ck_assert_str_eq(routed_by_key("amq.direct", "blue"), "");
    must_unbind("amq.direct", "a", "red");
    ck_assert_str_eq(routed_by_key("amq.direct", "red"), "b");
    must_unbind("amq.direct", "b", "red");
    ck_assert_str_eq(routed_by_key("amq.direct", "red"), "");
}
END_TEST

START_TEST(fanout_ignores_the_key) /* 7.11, 7.15 */
{
    ck_assert_str_eq(routed_by_key("amq.fanout", "k"), "");
    queue_named("a");
    queue_named("b");
    must_bind("amq.fanout", "a", "x");
    must_bind("amq.fanout", "b", "");
    must_bind("amq.fanout", "b", "y");
    ck_assert_str_eq(routed_by_key("amq.fanout", "k"), "a b");
    must_unbind("amq.fanout", "b", "y");
    ck_assert_str_eq(routed_by_key("amq.fanout", "k"), "a b");
    must_unbind("amq.fanout", "b", "");
    ck_assert_str_eq(routed_by_key("amq.fanout", "k"), "a");
}
END_TEST

START_TEST(topic_matches_words) /* 7.12, 7.15 */
{
    queue_named("a");
    queue_named("b");
    must_bind("amq.topic", "a", "*.orange.*");
    must_bind("amq.topic", "b", "*.*.rabbit");
    must_bind("amq.topic", "b", "lazy.#");
    ck_assert_str_eq(routed_by_key("amq.topic", "quick.orange.rabbit"), "a b");
    ck_assert_str_eq(routed_by_key("amq.topic", "lazy.pink.rabbit"), "b");
    ck_assert_str_eq(routed_by_key("amq.topic", "quick.brown.fox"), "");
    ck_assert_str_eq(routed_by_key("amq.topic", "lazy"), "b");
}
END_TEST

START_TEST(topic_refuses_three_hashes) /* 7.12 */
{
    queue_named("q");
    ck_assert(bind("amq.topic", "q", "#.a.#", (struct slice){0}));
    ck_assert(!bind("amq.topic", "q", "#.a.#.b.#", (struct slice){0}));
    ck_assert_uint_eq(error.code, AMQP_PRECONDITION_FAILED);
    ck_assert_str_eq(error.text, "PRECONDITION_FAILED - Topic binding key '#.a.#.b.#' uses 3 '#' "
                                 "wildcards, at most 2 are allowed");
    ck_assert(bind("amq.direct", "q", "#.a.#.b.#", (struct slice){0}));
}
END_TEST

/* ---- headers ---- */

/* "name=value,...": a value of digits is an int32, of digits with a dot a double, "-" void, "+" true, else a string. */
static void put_entry(struct buf *out, const char *name, const char *value)
{
    const struct slice key = slice_of_string(name);

    if (strcmp(value, "-") == 0)
        amqp_table_put(out, key, &(struct amqp_value){.type = AMQP_VOID});
    else if (strcmp(value, "+") == 0)
        amqp_table_put_bool(out, key, true);
    else if (strspn(value, "0123456789") == strlen(value))
        amqp_table_put_i64(out, key, atoi(value));
    else if (strspn(value, "0123456789.") == strlen(value))
        amqp_table_put(out, key,
                       &(struct amqp_value){.type = AMQP_DOUBLE, .real = strtod(value, NULL)});
    else
        amqp_table_put_string(out, key, slice_of_string(value));
}

static struct slice table_of(struct buf *out, const char *text)
{
    char copy[128], *rest = copy, *entry;

    buf_clear(out);
    snprintf(copy, sizeof(copy), "%s", text);
    while ((entry = strsep(&rest, ",")) != NULL && *entry != '\0') {
        char *value = strchr(entry, '=');
        *value = '\0';
        put_entry(out, entry, value + 1);
    }
    return buf_slice(out);
}

static const struct {
    const char *arguments, *headers;
    bool matches;
} header_cases[] = {
    /* 7.13 */
    {"", "", true},
    {"", "a=1", true},
    {"a=1", "a=1", true},
    {"a=1", "a=2", false},
    {"a=1", "", false},
    {"a=1", "a=1.0", true},
    {"a=text", "a=text,b=2", true},
    {"a=text", "a=TEXT", false},
    {"a=1,b=2", "a=1,b=2,c=3", true},
    {"a=1,b=2", "b=2", false},
    {"a=-", "a=anything", true},
    {"a=-", "b=anything", false},
    {"a=+", "a=+", true},
    {"a=1", "a=+", false},
    {"a=1", "a=2,a=1", false}, /* the first counts: 2.9 */
    {"x-match=all,a=1,b=2", "a=1,b=2", true},
    {"x-match=all,x-a=1", "", true},
    {"x-match=any", "a=1", false},
    {"x-match=any,a=1,b=2", "b=2", true},
    {"x-match=any,a=1,b=2", "b=1", false},
    {"x-match=any,x-a=1", "x-a=1", false},
    {"x-match=all-with-x,x-a=1", "x-a=1", true},
    {"x-match=all-with-x,x-a=1", "", false},
    {"x-match=all-with-x", "", true},
    {"x-match=any-with-x,x-a=1,b=1", "x-a=1", true},
    {"x-match=any-with-x", "x-match=any-with-x", false},
};

START_TEST(headers_compare_with_arguments)
{
    struct buf arguments = BUF_EMPTY, headers = BUF_EMPTY, properties = BUF_EMPTY;

    queue_named("q");
    ck_assert(bind("amq.headers", "q", "", table_of(&arguments, header_cases[_i].arguments)));
    const struct amqp_properties with = {.flags = AMQP_PROPERTY_HEADERS,
                                         .headers = table_of(&headers, header_cases[_i].headers)};
    amqp_properties_encode(&properties, &with);
    for (int again = 0; again < 2; again++)
        ck_assert_msg(strcmp(routed("amq.headers", "k", buf_slice(&properties)),
                             header_cases[_i].matches ? "q" : "") == 0,
                      "binding %s, message %s", header_cases[_i].arguments,
                      header_cases[_i].headers);
    if (*header_cases[_i].headers == '\0')
        ck_assert_str_eq(routed("amq.headers", "k", no_properties),
                         header_cases[_i].matches ? "q" : "");
    buf_release(&arguments);
    buf_release(&headers);
    buf_release(&properties);
}
END_TEST

START_TEST(headers_refuse_other_modes) /* 7.13 */
{
    struct buf arguments = BUF_EMPTY;

    queue_named("q");
    ck_assert(!bind("amq.match", "q", "", table_of(&arguments, "x-match=some")));
    ck_assert_str_eq(error.text,
                     "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; expected "
                     "all, any, all-with-x, or any-with-x");
    ck_assert(!bind("amq.match", "q", "", table_of(&arguments, "x-match=1")));
    ck_assert_str_eq(error.text, "PRECONDITION_FAILED - Invalid x-match field type long (value 1); "
                                 "expected longstr");
    ck_assert_uint_eq(vhost_find_exchange(memory.vhost, SLICE("amq.match"), &error)->binding_count,
                      0);
    buf_release(&arguments);
}
END_TEST

/* ---- from exchange to exchange ---- */

START_TEST(exchanges_lead_to_exchanges) /* 7.14, 7.15 */
{
    queue_named("a");
    queue_named("b");
    exchange_named("x1", "topic", (struct slice){0});
    exchange_named("x2", "fanout", (struct slice){0});
    exchange_named("x3", "direct", (struct slice){0});
    must_bind("x1", "x2", "k.#");
    must_bind("x1", "x3", "#");
    must_bind("x2", "x3", "");
    must_bind("x3", "x1", "k.1"); /* a cycle */
    must_bind("x3", "x3", "k.1");
    must_bind("x3", "a", "k.1");
    must_bind("x2", "a", "");
    must_bind("x1", "b", "*.1");
    ck_assert_str_eq(routed_by_key("x1", "k.1"), "a b");
    ck_assert_str_eq(routed_by_key("x2", "k.1"), "a b");
    ck_assert_str_eq(routed_by_key("x1", "j.1"), "b");
    ck_assert_str_eq(routed_by_key("x3", "k.2"), "");
    ck_assert_uint_eq(route.pending_count, 0);
}
END_TEST

START_TEST(alternate_takes_what_matched_nothing) /* 7.10 */
{
    struct buf arguments = BUF_EMPTY;

    queue_named("a");
    queue_named("b");
    exchange_named("x1", "direct", table_of(&arguments, "alternate-exchange=x2"));
    ck_assert_str_eq(routed_by_key("x1", "k"), ""); /* the alternate does not exist yet */
    exchange_named("x2", "direct", table_of(&arguments, "alternate-exchange=x3"));
    exchange_named("x3", "fanout", table_of(&arguments, "alternate-exchange=x1"));
    must_bind("x1", "a", "k");
    ck_assert_str_eq(routed_by_key("x1", "k"), "a");
    ck_assert_str_eq(routed_by_key("x1", "other"),
                     ""); /* x1, x2, x3, and x1 is not visited again */
    must_bind("x3", "b", "");
    ck_assert_str_eq(routed_by_key("x1", "other"), "b");
    must_bind("x2", "a", "other");
    ck_assert_str_eq(routed_by_key("x1", "other"), "a");

    /* An exchange is a destination, whatever comes out of it. */
    exchange_named("x4", "fanout", (struct slice){0});
    must_bind("x1", "x4", "dead end");
    ck_assert_str_eq(routed_by_key("x1", "dead end"), "");
    buf_release(&arguments);
}
END_TEST

/* ---- many bindings ---- */

START_TEST(a_hundred_thousand_bindings)
{
    enum { BINDINGS = 100000, DECLARES = 2 };
    const char *exchange = _i == 0 ? "amq.direct" : "amq.topic";
    char key[32];

    queue_named("q");
    for (int round = 0; round < DECLARES; round++) /* 7.18: the second time changes nothing */
        for (int i = 0; i < BINDINGS; i++) {
            snprintf(key, sizeof(key), "region.%d.host.%d", i % 10, i);
            const struct binding_request request = {
                .source = slice_of_string(exchange),
                .destination = SLICE("q"),
                .key = slice_of_string(key),
            };
            if (!vhost_bind(memory.vhost, &request, NULL, &lsn, &error))
                ck_abort_msg("%s", error.text);
        }
    ck_assert_uint_eq(
        vhost_find_exchange(memory.vhost, slice_of_string(exchange), &error)->binding_count,
        BINDINGS);
    ck_assert_str_eq(routed_by_key(exchange, "region.7.host.77777"), "q");
    ck_assert_str_eq(routed_by_key(exchange, "region.6.host.77777"), "");
    must_unbind(exchange, "q", "region.7.host.77777");
    ck_assert_str_eq(routed_by_key(exchange, "region.7.host.77777"), "");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exchange");
    TCase *tests = tcase_create("exchange");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, default_exchange_knows_every_queue);
    tcase_add_test(tests, direct_wants_the_same_key);
    tcase_add_test(tests, fanout_ignores_the_key);
    tcase_add_test(tests, topic_matches_words);
    tcase_add_test(tests, topic_refuses_three_hashes);
    tcase_add_loop_test(tests, headers_compare_with_arguments, 0, countof(header_cases));
    tcase_add_test(tests, headers_refuse_other_modes);
    tcase_add_test(tests, exchanges_lead_to_exchanges);
    tcase_add_test(tests, alternate_takes_what_matched_nothing);
    tcase_add_loop_test(tests, a_hundred_thousand_bindings, 0, 2);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
