/* exchange: where messages go, by type, through other exchanges and to alternates; each queue
 * once. */
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
    route_init(&route, &memory.broker);
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
    struct queue *queue = vhost_declare_queue(memory.vhost, &options, NULL, &lsn, &error);

    ck_assert_msg(queue != NULL, "%s", error.text);
    return queue;
}

static struct exchange *exchange_named(const char *name, const char *type, struct slice arguments)
{
    const struct exchange_options options = {
        .name = slice_of_string(name), .type = slice_of_string(type), .arguments = arguments};
    struct exchange *exchange = vhost_declare_exchange(memory.vhost, &options, NULL, &lsn, &error);

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
    const struct routing routing = {
        .keys = keys, .key_count = countof(keys), .properties = properties};

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

START_TEST(topic_refuses_three_hashes) /* 7.12, CVE-2026-67419 */
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

/* "name=value,...": a value of digits is an int32, of digits with a dot a double, "-" void, "+"
 * true, else a string. */
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

/* ---- types that pick one ---- */

enum { MESSAGES = 6000 };

/* How many of MESSAGES keys reach each of these queues, of which there are count. */
static void share_out(const char *exchange, const char *const *queues, size_t count, size_t *shares)
{
    char key[16];

    memset(shares, 0, count * sizeof(*shares));
    for (int i = 0; i < MESSAGES; i++) {
        snprintf(key, sizeof(key), "key-%d", i);
        const char *reached = routed_by_key(exchange, key);
        size_t which = 0;
        while (which < count && strcmp(reached, queues[which]) != 0)
            which++;
        ck_assert_msg(which < count, "'%s' reached '%s'", key, reached);
        shares[which]++;
    }
}

static void check_share(size_t share, double expected)
{
    const double difference = (double)share - expected * MESSAGES;

    ck_assert_msg(difference < 0.03 * MESSAGES && -difference < 0.03 * MESSAGES,
                  "%zu where %.0f were expected", share, expected * MESSAGES);
}

static const char *const three[] = {"a", "b", "c"};

static void bind_three(const char *exchange, const char *type, const char *key)
{
    exchange_named(exchange, type, (struct slice){0});
    for (size_t i = 0; i < countof(three); i++) {
        queue_named(three[i]);
        must_bind(exchange, three[i], key);
    }
}

static const struct {
    const char *type, *key;
} sharing[] = {
    {"x-random", "any"},
    {"x-local-random", ""},
    {"x-modulus-hash", "any"},
    {"x-consistent-hash", "1"},
};

START_TEST(each_takes_its_share) /* 7.17 */
{
    size_t shares[3];

    exchange_named("x1", sharing[_i].type, (struct slice){0});
    ck_assert_str_eq(routed_by_key("x1", "k"), "");
    bind_three("x2", sharing[_i].type, sharing[_i].key);
    share_out("x2", three, 3, shares);
    for (size_t i = 0; i < 3; i++)
        check_share(shares[i], 1.0 / 3);

    must_unbind("x2", "b", sharing[_i].key);
    share_out("x2", (const char *const[]){"a", "c"}, 2, shares);
    check_share(shares[0], 1.0 / 2);
    must_unbind("x2", "a", sharing[_i].key);
    must_unbind("x2", "c", sharing[_i].key);
    ck_assert_str_eq(routed_by_key("x2", "k"), "");
}
END_TEST

START_TEST(consistent_hash_keeps_to_weights) /* 7.17 */
{
    size_t shares[3];

    exchange_named("x1", "x-consistent-hash", (struct slice){0});
    for (size_t i = 0; i < 3; i++) {
        const char *weights[] = {"1", "+2", "3"};
        queue_named(three[i]);
        must_bind("x1", three[i], weights[i]);
    }
    share_out("x1", three, 3, shares);
    for (size_t i = 0; i < 3; i++)
        check_share(shares[i], (double)(i + 1) / 6);
}
END_TEST

/* A queue that goes loses its own messages and no others; one that comes takes from all alike. */
START_TEST(consistent_hash_is_consistent) /* 7.17 */
{
    char key[16], before[2000][4];

    bind_three("x1", "x-consistent-hash", _i == 0 ? "1" : "7");
    if (_i == 1)
        must_bind("x1", "c", "9"); /* unequal, and the same queue twice */
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof(key), "key-%d", i);
        snprintf(before[i], sizeof(before[i]), "%s", routed_by_key("x1", key));
    }
    must_unbind("x1", "b", _i == 0 ? "1" : "7");
    queue_named("d");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2000; i++) {
            snprintf(key, sizeof(key), "key-%d", i);
            const char *now = routed_by_key("x1", key);
            ck_assert(strcmp(before[i], "b") == 0 || strcmp(now, before[i]) == 0 ||
                      strcmp(now, "d") == 0);
        }
        must_bind("x1", "d", "2");
    }
}
END_TEST

START_TEST(hashes_survive_a_restart) /* 7.17 */
{
    static const char *const types[] = {"x-consistent-hash", "x-modulus-hash"};
    char key[16], before[200][4];

    const struct exchange_options options = {
        .name = SLICE("x1"), .type = slice_of_string(types[_i]), .durable = true};
    ck_assert_ptr_nonnull(vhost_declare_exchange(memory.vhost, &options, NULL, &lsn, &error));
    for (size_t i = 3; i-- > 0;) {
        const struct queue_options queue = {.name = slice_of_string(three[i]), .durable = true};
        ck_assert_ptr_nonnull(vhost_declare_queue(memory.vhost, &queue, NULL, &lsn, &error));
        must_bind("x1", three[i], _i == 0 && i == 1 ? "2" : "1");
    }
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "key-%d", i);
        snprintf(before[i], sizeof(before[i]), "%s", routed_by_key("x1", key));
    }
    memory_broker_sync(&memory);
    memory_broker_restart(&memory);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "key-%d", i);
        ck_assert_str_eq(routed_by_key("x1", key), before[i]);
    }
}
END_TEST

static const struct {
    const char *key;
    const char *text; /* NULL: it may */
} weights[] = {
    {"1", NULL},
    {"+7", NULL},
    {"0010", NULL},
    {"1000000", NULL},
    {"0", "The binding key must be greater than 0"},
    {"-5", "The binding key must be greater than 0"},
    {"", "The binding key must be an integer: <<>>"},
    {"-", "The binding key must be an integer: <<\"-\">>"},
    {"two", "The binding key must be an integer: <<\"two\">>"},
    {"1.5", "The binding key must be an integer: <<\"1.5\">>"},
    {"1000001", "The binding key must be at most 1000000"},
    {"99999999999999999999999999", "The binding key must be at most 1000000"},
};

START_TEST(weights_are_checked) /* 7.17, CVE-2026-67219 */
{
    queue_named("q");
    exchange_named("x1", "x-consistent-hash", (struct slice){0});
    const bool bound = bind("x1", "q", weights[_i].key, (struct slice){0});
    ck_assert(bound == (weights[_i].text == NULL));
    if (!bound) {
        ck_assert_uint_eq(error.code, AMQP_PRECONDITION_FAILED);
        ck_assert_str_eq(error.text + strlen("PRECONDITION_FAILED - "), weights[_i].text);
    }
}
END_TEST

static const struct {
    const char *type, *arguments;
    const char *text; /* NULL: it may */
} type_arguments[] = {
    {"x-consistent-hash", "hash-header=h", NULL},
    {"x-consistent-hash", "hash-property=message_id", NULL},
    {"x-consistent-hash", "hash-property=app_id", "Unsupported property: app_id"},
    {"x-consistent-hash", "hash-property=1", "invalid type 'long' for arg 'hash-property'"},
    {"x-consistent-hash", "hash-header=-", "invalid type 'void' for arg 'hash-header'"},
    {"x-consistent-hash", "hash-header=h,hash-property=timestamp",
     "hash-header and hash-property are mutually exclusive"},
    {"x-recent-history", "x-recent-history-length=1", NULL},
    {"x-recent-history", "x-recent-history-length=10000", NULL},
    {"x-recent-history", "x-recent-history-length=0",
     "Invalid argument 0, 'x-recent-history-length' must be a positive integer"},
    {"x-recent-history", "x-recent-history-length=ten",
     "Invalid argument ten, 'x-recent-history-length' must be a positive integer"},
    {"x-recent-history", "x-recent-history-length=10001",
     "Invalid argument 10001, 'x-recent-history-length' must be at most 10000"},
};

START_TEST(types_check_arguments) /* 7.2, 7.17 */
{
    struct buf arguments = BUF_EMPTY;
    const struct exchange_options options = {
        .name = SLICE("x1"),
        .type = slice_of_string(type_arguments[_i].type),
        .arguments = table_of(&arguments, type_arguments[_i].arguments),
    };
    const struct exchange *exchange =
        vhost_declare_exchange(memory.vhost, &options, NULL, &lsn, &error);

    ck_assert((exchange != NULL) == (type_arguments[_i].text == NULL));
    if (exchange == NULL)
        ck_assert_str_eq(error.text + strlen("PRECONDITION_FAILED - "), type_arguments[_i].text);
    buf_release(&arguments);
}
END_TEST

static const struct {
    const char *arguments;
    /* of two messages that must part, or keep together when equal */
    struct amqp_properties one, other;
} hashed[] = {
    {"hash-header=h",
     {.flags = AMQP_PROPERTY_HEADERS, .headers = {(const uint8_t *)"\1hS\0\0\0\1a", 8}},
     {.flags = AMQP_PROPERTY_HEADERS, .headers = {(const uint8_t *)"\1hS\0\0\0\1b", 8}}},
    {"hash-header=h",
     {.flags = AMQP_PROPERTY_HEADERS, .headers = {(const uint8_t *)"\1hb\1", 4}},
     {.flags = AMQP_PROPERTY_HEADERS, .headers = {(const uint8_t *)"\1hs\0\7", 5}}},
    {"hash-property=correlation_id",
     {.flags = AMQP_PROPERTY_CORRELATION_ID, .correlation_id = {(const uint8_t *)"a", 1}},
     {.flags = AMQP_PROPERTY_CORRELATION_ID, .correlation_id = {(const uint8_t *)"b", 1}}},
    {"hash-property=message_id",
     {.flags = AMQP_PROPERTY_MESSAGE_ID, .message_id = {(const uint8_t *)"a", 1}},
     {.flags = AMQP_PROPERTY_MESSAGE_ID, .message_id = {(const uint8_t *)"b", 1}}},
    {"hash-property=timestamp",
     {.flags = AMQP_PROPERTY_TIMESTAMP, .timestamp = 1},
     {.flags = AMQP_PROPERTY_TIMESTAMP, .timestamp = 2}},
};

/* With so many queues two hashes meet once in a hundred; these do not. */
START_TEST(consistent_hash_by_header_or_property) /* 7.17 */
{
    struct buf arguments = BUF_EMPTY, one = BUF_EMPTY, other = BUF_EMPTY;
    char name[8], first[8];

    exchange_named("x1", "x-consistent-hash", table_of(&arguments, hashed[_i].arguments));
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "q%d", i);
        queue_named(name);
        must_bind("x1", name, "1");
    }
    amqp_properties_encode(&one, &hashed[_i].one);
    amqp_properties_encode(&other, &hashed[_i].other);
    snprintf(first, sizeof(first), "%s", routed("x1", "k", buf_slice(&one)));
    ck_assert_str_ne(first, "");
    ck_assert_str_eq(routed("x1", "another key", buf_slice(&one)), first);
    ck_assert_str_ne(routed("x1", "k", buf_slice(&other)), first);
    snprintf(first, sizeof(first), "%s", routed("x1", "k", no_properties));
    ck_assert_str_eq(routed("x1", "another key", no_properties), first);
    buf_release(&arguments);
    buf_release(&one);
    buf_release(&other);
}
END_TEST

START_TEST(local_random_wants_classic_queues_without_a_key) /* 7.17 */
{
    struct buf arguments = BUF_EMPTY;
    const struct queue_options quorum = {.name = SLICE("quorum"),
                                         .durable = true,
                                         .arguments = table_of(&arguments, "x-queue-type=quorum")};

    exchange_named("x1", "x-local-random", (struct slice){0});
    queue_named("q");
    ck_assert(!bind("x1", "q", "k", (struct slice){0}));
    ck_assert_str_eq(error.text, "PRECONDITION_FAILED - Non empty binding 'k' key not permitted");
    ck_assert(!bind("x1", "x1", "", (struct slice){0}));
    ck_assert_str_eq(error.text, "PRECONDITION_FAILED - Destination not found");
    ck_assert_ptr_nonnull(vhost_declare_queue(memory.vhost, &quorum, NULL, &lsn, &error));
    ck_assert(!bind("x1", "quorum", "", (struct slice){0}));
    ck_assert_str_eq(error.text, "PRECONDITION_FAILED - Queue type rabbit_quorum_queue not valid "
                                 "for this exchange type");
    buf_release(&arguments);
}
END_TEST

/* ---- x-recent-history ---- */

static void publish(const char *exchange, const char *body, struct slice properties)
{
    struct message *message = message_new(slice_of_string(exchange), SLICE("k"), properties,
                                          (uint32_t)strlen(body), true);

    message_append_body(message, slice_of_string(body));
    exchange_route_message(vhost_find_exchange(memory.vhost, slice_of_string(exchange), &error),
                           message, &route);
    route_deliver(&route, message);
    message_unref(&message);
}

/* The bodies in a queue, taken off, with spaces between. */
static const char *taken(const char *queue_name)
{
    static char bodies[256];
    struct queue *queue =
        vhost_find_queue(memory.vhost, slice_of_string(queue_name), ACCESS_GET, NULL, &error);
    struct queue_waiter waiter = {0};
    struct place place;

    bodies[0] = '\0';
    for (size_t size = 0; queue_get(queue, true, &place, &waiter) == WINDOW_READY;) {
        size +=
            (size_t)snprintf(bodies + size, sizeof(bodies) - size, "%s%.*s", size > 0 ? " " : "",
                             SLICE_ARG(message_body(place_entry(place)->message)));
        queue_discard(queue, place);
    }
    return bodies;
}

START_TEST(recent_history_gives_the_last_ones) /* 7.2 */
{
    struct buf arguments = BUF_EMPTY;

    exchange_named("x1", "x-recent-history", table_of(&arguments, "x-recent-history-length=3"));
    queue_named("a");
    queue_named("b");
    must_bind("x1", "a", "");
    ck_assert_str_eq(taken("a"), "");
    for (int i = 1; i <= 5; i++)
        publish("x1", (char[]){(char)('0' + i), '\0'}, no_properties);
    ck_assert_str_eq(taken("a"), "1 2 3 4 5");
    must_bind("x1", "b", "any");
    ck_assert_str_eq(taken("b"), "3 4 5");
    must_bind("x1", "b", "any"); /* not a new one */
    ck_assert_str_eq(taken("b"), "");
    buf_release(&arguments);
}
END_TEST

START_TEST(recent_history_forgets_what_it_is_told_to) /* 7.2 */
{
    struct buf headers = BUF_EMPTY, properties = BUF_EMPTY;
    const struct amqp_properties decoded = {.flags = AMQP_PROPERTY_HEADERS,
                                            .headers =
                                                table_of(&headers, "x-recent-history-no-store=+")};

    amqp_properties_encode(&properties, &decoded);
    exchange_named("x1", "x-recent-history", (struct slice){0});
    queue_named("a");
    for (int i = 0; i < 25; i++)
        publish("x1", (char[]){(char)('a' + i), '\0'}, no_properties);
    publish("x1", "secret", buf_slice(&properties));
    must_bind("x1", "a", "");
    ck_assert_str_eq(taken("a"), "f g h i j k l m n o p q r s t u v w x y");
    buf_release(&headers);
    buf_release(&properties);
}
END_TEST

START_TEST(recent_history_leads_through_exchanges) /* 7.2, 7.14 */
{
    exchange_named("x1", "x-recent-history", (struct slice){0});
    exchange_named("x2", "direct", (struct slice){0});
    queue_named("a");
    must_bind("x2", "a", "k");
    must_bind("x2", "x1", "k"); /* a cycle: what comes back is remembered again */
    publish("x1", "1", no_properties);
    publish("x1", "2", no_properties);
    must_bind("x1", "x2", "");
    ck_assert_str_eq(taken("a"), "1 2");
    must_bind("x1", "a", "");
    ck_assert_str_eq(taken("a"), "1 2 1 2");
}
END_TEST

START_TEST(recent_history_is_bounded)
{
    static char body[3 * 1024 * 1024 + 1];
    struct queue *queue = queue_named("a");

    memset(body, 'x', sizeof(body) - 1);
    exchange_named("x1", "x-recent-history", (struct slice){0});
    for (int i = 0; i < 20; i++)
        publish("x1", body, no_properties);
    must_bind("x1", "a", "");
    ck_assert_uint_eq(queue->window.ready_count, 10);
}
END_TEST

/* Somebody waits for a publish. */
static void on_settled(struct publisher *publisher, uint64_t sequence)
{
    (void)publisher, (void)sequence;
}

static const struct publisher_ops publisher_ops = {.on_settled = on_settled};
static struct publisher publisher;

static void await(struct message *message)
{
    publisher = (struct publisher){.ops = &publisher_ops, .refs = 1};
    publisher_ref(&publisher);
    message->publisher = &publisher;
}

/* However many bindings there are; of what somebody waits for there is one more, once. */
START_TEST(recent_history_shares_what_it_gives)
{
    enum { REMEMBERED = 5, BINDINGS = 50, SIZE = 1000000 };
    static char body[SIZE + 1];
    struct message *messages[REMEMBERED];
    struct exchange *exchange = exchange_named("x1", "x-recent-history", (struct slice){0});
    struct queue *queue = queue_named("a");
    char key[16];

    memset(body, 'x', SIZE);
    for (int i = 0; i < REMEMBERED; i++) {
        messages[i] = message_new(SLICE("x1"), SLICE("k"), no_properties, SIZE, true);
        message_append_body(messages[i], slice_of_string(body));
        exchange_route_message(exchange, messages[i], &route);
    }
    if (_i == 1)
        await(messages[0]);
    const uint64_t before = message_memory();
    for (int i = 0; i < BINDINGS; i++) {
        snprintf(key, sizeof(key), "%d", i);
        must_bind("x1", "a", key);
    }
    ck_assert_uint_eq(queue->window.ready_count, REMEMBERED * BINDINGS);
    ck_assert_uint_eq(memory.broker.counters.given, REMEMBERED * BINDINGS);
    ck_assert_uint_ge(message_memory(), before + (size_t)_i * SIZE);
    ck_assert_uint_lt(message_memory(), before + (size_t)_i * SIZE + 1000);
    for (int i = 0; i < REMEMBERED; i++)
        message_unref(&messages[i]);
}
END_TEST

/* To queues through an exchange: no more than a publish may be. */
START_TEST(recent_history_takes_no_more_than_a_publish)
{
    exchange_named("x1", "x-recent-history", (struct slice){0});
    exchange_named("x2", "fanout", (struct slice){0});
    struct queue *a = queue_named("a"), *b = queue_named("b");
    must_bind("x2", "a", "");
    must_bind("x2", "b", "");
    for (int i = 0; i < 10; i++)
        publish("x1", "m", no_properties);
    memory.broker.limits.routing_steps_max = 4 * (2 + 2 * ROUTE_QUEUE_STEPS);
    must_bind("x1", "x2", "");
    ck_assert_uint_eq(a->window.ready_count, 4);
    ck_assert_uint_eq(b->window.ready_count, 4);
    memory.broker.limits.routing_steps_max = 10;
    must_bind("x1", "a", "");
    ck_assert_uint_eq(a->window.ready_count, 4 + 10);
}
END_TEST

START_TEST(a_copy_does_not_settle_its_original) /* 9.10 */
{
    const struct queue_options durable = {.name = SLICE("a"), .durable = true};
    struct message *message = message_new(SLICE("x1"), SLICE("k"), no_properties, 0, true);

    exchange_named("x1", "x-recent-history", (struct slice){0});
    ck_assert_ptr_nonnull(vhost_declare_queue(memory.vhost, &durable, NULL, &lsn, &error));
    must_bind("x1", "a", "first");
    exchange_route_message(vhost_find_exchange(memory.vhost, SLICE("x1"), &error), message, &route);
    route_deliver(&route, message);
    const uint64_t stored_by = message->lsn;
    await(message);
    must_bind("x1", "a", "second");
    ck_assert_uint_eq(message->lsn, stored_by);
    ck_assert_uint_eq(message->unsynced, 1);
    message_unref(&message);
    memory_broker_sync(&memory);
}
END_TEST

START_TEST(a_copy_is_as_dead_as_its_original) /* 13.4 */
{
    struct message *message = message_new(SLICE(""), SLICE("k"), no_properties, 0, true);
    struct message *letter = message_forward(message, SLICE("x1"), SLICE("k"), no_properties, true);
    struct queue *queue = queue_named("a");
    struct queue_waiter waiter = {0};
    struct place place;

    struct exchange *exchange = exchange_named("x1", "x-recent-history", (struct slice){0});
    exchange_route_message(exchange, letter, &route);
    await(letter);
    must_bind("x1", "a", "");
    ck_assert_int_eq(queue_get(queue, true, &place, &waiter), WINDOW_READY);
    ck_assert(place_entry(place)->message->is_dead_letter);
    ck_assert_ptr_ne(place_entry(place)->message, letter);
    queue_discard(queue, place);
    message_unref(&message);
    message_unref(&letter);
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
    tcase_add_loop_test(tests, each_takes_its_share, 0, countof(sharing));
    tcase_add_test(tests, consistent_hash_keeps_to_weights);
    tcase_add_loop_test(tests, consistent_hash_is_consistent, 0, 2);
    tcase_add_loop_test(tests, hashes_survive_a_restart, 0, 2);
    tcase_add_loop_test(tests, weights_are_checked, 0, countof(weights));
    tcase_add_loop_test(tests, types_check_arguments, 0, countof(type_arguments));
    tcase_add_loop_test(tests, consistent_hash_by_header_or_property, 0, countof(hashed));
    tcase_add_test(tests, local_random_wants_classic_queues_without_a_key);
    tcase_add_test(tests, recent_history_gives_the_last_ones);
    tcase_add_test(tests, recent_history_forgets_what_it_is_told_to);
    tcase_add_test(tests, recent_history_leads_through_exchanges);
    tcase_add_test(tests, recent_history_is_bounded);
    tcase_add_loop_test(tests, recent_history_shares_what_it_gives, 0, 2);
    tcase_add_test(tests, recent_history_takes_no_more_than_a_publish);
    tcase_add_test(tests, a_copy_does_not_settle_its_original);
    tcase_add_test(tests, a_copy_is_as_dead_as_its_original);
    tcase_add_test(tests, exchanges_lead_to_exchanges);
    tcase_add_test(tests, alternate_takes_what_matched_nothing);
    tcase_add_loop_test(tests, a_hundred_thousand_bindings, 0, 2);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
