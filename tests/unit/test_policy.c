/* policy: which one applies, what follows from it at once, and that it comes back after a restart.
 * Names of tests begin with the rule. */
#include "core/policy.h"

#include "amqp/table.h"
#include "base/log.h"
#include "core/settings.h"
#include "tests/lib/memory_broker.h"
#include "tests/lib/unit.h"

static struct memory_broker memory;

static void set_up(void)
{
    atomic_store(&log_level, LOG_NONE);
    memory_broker_start(&memory);
}

static void tear_down(void)
{
    memory_broker_stop(&memory);
}

/* ---- definitions: "max-length=5 overflow=drop-head", the digits an integer, all else a string
 * ---- */

static struct buf table_of(const char *text)
{
    struct buf table = BUF_EMPTY;

    while (*text != '\0') {
        const size_t key = strcspn(text, "="), value = strcspn(text + key + 1, " ");
        const char *start = text + key + 1;
        if (value > 0 && strspn(start, "-0123456789") >= value)
            amqp_table_put_i64(&table, slice_of(text, key), strtoll(start, NULL, 10));
        else
            amqp_table_put_string(&table, slice_of(text, key), slice_of(start, value));
        text = start + value;
        text += *text == ' ';
    }
    return table;
}

static char *text_of(struct slice table, char text[256])
{
    struct amqp_table_iter iter = amqp_table_walk(table);
    struct amqp_value value;
    struct slice key;
    size_t size = 0;

    *text = '\0';
    while (amqp_table_next(&iter, &key, &value)) {
        size += (size_t)snprintf(text + size, 256 - size, "%s%.*s=", size > 0 ? " " : "",
                                 SLICE_ARG(key));
        if (value.type == AMQP_STRING)
            size += (size_t)snprintf(text + size, 256 - size, "%.*s", SLICE_ARG(value.bytes));
        else
            size += (size_t)snprintf(text + size, 256 - size, "%" PRId64, value.integer);
    }
    return text;
}

struct wish {
    const char *name, *pattern, *definition;
    int32_t priority;
    enum policy_scope apply_to;
    enum policy_kind kind;
};

static struct policy *try_set(const struct wish *wish, char error[POLICY_ERROR_SIZE])
{
    struct buf definition = table_of(wish->definition);
    const struct policy_options options = {
        .kind = wish->kind,
        .apply_to = wish->apply_to,
        .priority = wish->priority,
        .name = slice_of_string(wish->name),
        .pattern = slice_of_string(wish->pattern),
        .definition = buf_slice(&definition),
    };

    struct policy *policy = policy_set(memory.vhost, &options, error);
    buf_release(&definition);
    return policy;
}

static void set(const struct wish *wish)
{
    char error[POLICY_ERROR_SIZE] = "";

    ck_assert_msg(try_set(wish, error) != NULL, "%s", error);
}

#define SET(first, second, third, ...)                                                             \
    set(&(struct wish){.name = first, .pattern = second, .definition = third, __VA_ARGS__})

static void clear(enum policy_kind kind, const char *name)
{
    uint64_t lsn;

    policy_clear(memory.vhost, policy_find(memory.vhost, kind, slice_of_string(name)), &lsn);
    ck_assert_uint_eq(lsn, store_open_lsn(memory.store));
}

static struct queue *declare(const char *name, const char *arguments)
{
    struct buf table = table_of(arguments);
    struct amqp_error error;
    uint64_t lsn;
    struct queue *queue = vhost_declare_queue(memory.vhost,
                                              &(struct queue_options){
                                                  .name = slice_of_string(name),
                                                  .durable = true,
                                                  .arguments = buf_slice(&table),
                                              },
                                              NULL, &lsn, &error);

    ck_assert_ptr_nonnull(queue);
    buf_release(&table);
    return queue;
}

static struct exchange *declare_exchange(const char *name, const char *arguments)
{
    struct buf table = table_of(arguments);
    struct amqp_error error;
    uint64_t lsn;
    struct exchange *exchange = vhost_declare_exchange(memory.vhost,
                                                       &(struct exchange_options){
                                                           .name = slice_of_string(name),
                                                           .type = SLICE("fanout"),
                                                           .durable = true,
                                                           .arguments = buf_slice(&table),
                                                       },
                                                       NULL, &lsn, &error);

    ck_assert_ptr_nonnull(exchange);
    buf_release(&table);
    return exchange;
}

static struct queue *find(const char *name)
{
    struct amqp_error error;

    return vhost_find_queue(memory.vhost, slice_of_string(name), ACCESS_GET, NULL, &error);
}

static void push(struct queue *queue, int count, bool persistent)
{
    for (int i = 0; i < count; i++) {
        struct message *message = message_new(SLICE(""), queue->name, SLICE("\0\0"), 1, persistent);
        message_append_body(message, SLICE("a"));
        queue_push(queue, message);
        message_unref(&message);
    }
}

static void expect_applied(const struct policy_set *set, const char *plain, const char *operators)
{
    const char *const names[POLICY_KINDS] = {plain, operators};

    for (size_t kind = 0; kind < POLICY_KINDS; kind++) {
        const struct slice name =
            set->of[kind] == NULL ? SLICE("none") : set->of[kind]->options.name;
        ck_assert_msg(slice_equal(name, slice_of_string(names[kind])), "%.*s, not %s",
                      SLICE_ARG(name), names[kind]);
    }
}

/* ---- 11.6, 17.3: arguments, policy and operator policy together ---- */

static const struct {
    const char *arguments, *policy, *operators;
    const char *effective; /* of the policies alone */
    uint64_t length_max, ttl_ms, delivery_limit;
    enum overflow overflow;
    const char *exchange, *key; /* for dead letters; NULL: none */
} merges[] = {
    {"", "", "", "", SETTING_NONE, SETTING_NONE, SETTING_NONE, OVERFLOW_DROP_HEAD, NULL, NULL},
    {"x-max-length=3", "max-length=5", "", "max-length=5", 3, SETTING_NONE, SETTING_NONE,
     OVERFLOW_DROP_HEAD, NULL, NULL},
    {"x-max-length=7", "max-length=5", "max-length=6", "max-length=5", 5, SETTING_NONE,
     SETTING_NONE, OVERFLOW_DROP_HEAD, NULL, NULL},
    {"x-max-length=7", "max-length=6", "max-length=5 message-ttl=9", "max-length=5 message-ttl=9",
     5, 9, SETTING_NONE, OVERFLOW_DROP_HEAD, NULL, NULL},
    {"", "", "max-length=0", "max-length=0", 0, SETTING_NONE, SETTING_NONE, OVERFLOW_DROP_HEAD,
     NULL, NULL},
    {"x-overflow=reject-publish", "overflow=reject-publish-dlx", "overflow=drop-head",
     "overflow=drop-head", SETTING_NONE, SETTING_NONE, SETTING_NONE, OVERFLOW_REJECT_PUBLISH, NULL,
     NULL},
    {"", "overflow=reject-publish-dlx", "", "overflow=reject-publish-dlx", SETTING_NONE,
     SETTING_NONE, SETTING_NONE, OVERFLOW_REJECT_PUBLISH_DLX, NULL, NULL},
    {"", "overflow=reject-publish-dlx", "overflow=reject-publish", "overflow=reject-publish",
     SETTING_NONE, SETTING_NONE, SETTING_NONE, OVERFLOW_REJECT_PUBLISH, NULL, NULL},
    {"x-dead-letter-exchange=a", "dead-letter-exchange=b dead-letter-routing-key=k", "",
     "dead-letter-exchange=b dead-letter-routing-key=k", SETTING_NONE, SETTING_NONE, SETTING_NONE,
     OVERFLOW_DROP_HEAD, "a", "k"},
    {"", "dead-letter-exchange=", "", "dead-letter-exchange=", SETTING_NONE, SETTING_NONE,
     SETTING_NONE, OVERFLOW_DROP_HEAD, "", NULL},
    {"x-queue-type=quorum", "", "", "", SETTING_NONE, SETTING_NONE, 20, OVERFLOW_DROP_HEAD, NULL,
     NULL},
    {"x-queue-type=quorum", "delivery-limit=50", "", "delivery-limit=50", SETTING_NONE,
     SETTING_NONE, 50, OVERFLOW_DROP_HEAD, NULL, NULL},
    {"x-queue-type=quorum x-delivery-limit=-1", "delivery-limit=-1", "delivery-limit=4",
     "delivery-limit=4", SETTING_NONE, SETTING_NONE, 4, OVERFLOW_DROP_HEAD, NULL, NULL},
    {"x-queue-type=quorum x-delivery-limit=3", "delivery-limit=-1", "", "delivery-limit=-1",
     SETTING_NONE, SETTING_NONE, 3, OVERFLOW_DROP_HEAD, NULL, NULL},
    {"x-queue-type=quorum x-overflow=drop-head", "overflow=reject-publish", "",
     "overflow=reject-publish", SETTING_NONE, SETTING_NONE, 20, OVERFLOW_REJECT_PUBLISH, NULL,
     NULL},
    {"x-queue-type=quorum x-overflow=reject-publish", "", "", "", SETTING_NONE, SETTING_NONE, 20,
     OVERFLOW_REJECT_PUBLISH, NULL, NULL},
    {"x-queue-type=quorum", "overflow=reject-publish-dlx", "", "overflow=reject-publish-dlx",
     SETTING_NONE, SETTING_NONE, 20, OVERFLOW_DROP_HEAD, NULL, NULL},
};

static void expect_slice(const char *expected, bool is_there, struct slice slice)
{
    ck_assert_int_eq(expected != NULL, is_there);
    ck_assert(!is_there || slice_equal(slice, slice_of_string(expected)));
}

START_TEST(r11_6_and_17_3_several_say_something)
{
    if (*merges[_i].policy != '\0')
        SET("p", "", merges[_i].policy);
    if (*merges[_i].operators != '\0')
        SET("o", "", merges[_i].operators, .kind = POLICY_OPERATOR);
    const struct queue *queue = declare("q", merges[_i].arguments);
    const struct settings *settings = &queue->settings;
    struct buf effective = BUF_EMPTY;
    char text[256];

    ck_assert_uint_eq(merges[_i].length_max, settings->length_max);
    ck_assert_uint_eq(merges[_i].ttl_ms, settings->message_ttl_ms);
    ck_assert_uint_eq(merges[_i].delivery_limit, settings->delivery_limit);
    ck_assert_int_eq(merges[_i].overflow, settings->overflow);
    expect_slice(merges[_i].exchange, settings->dead_letters, settings->dead_letter_exchange);
    expect_slice(merges[_i].key, settings->has_dead_letter_key, settings->dead_letter_key);
    policy_write_effective(&queue->policies, &effective);
    ck_assert_str_eq(merges[_i].effective, text_of(buf_slice(&effective), text));
    buf_release(&effective);
}
END_TEST

/* ---- 17.1: which one ---- */

START_TEST(r17_1_the_highest_priority_alone)
{
    struct queue *queue = declare("orders", "");

    SET("b", "^o", "max-length=5");
    expect_applied(&queue->policies, "b", "none");
    SET("c", "^o", "max-length=6");
    expect_applied(&queue->policies, "b", "none"); /* equal: by name */
    SET("a", "^o", "max-length-bytes=7", .priority = -1);
    expect_applied(&queue->policies, "b", "none");
    SET("a", "^o", "max-length-bytes=7", .priority = 1);
    expect_applied(&queue->policies, "a", "none");
    ck_assert_uint_eq(SETTING_NONE, queue->settings.length_max); /* nothing is merged */
    SET("d", "^other", "max-length=8", .priority = 9);
    expect_applied(&queue->policies, "a", "none");
    SET("o", "", "max-length=9", .kind = POLICY_OPERATOR);
    expect_applied(&queue->policies, "a", "o");
    SET("a", "^orders!", "max-length=7", .priority = 1);
    expect_applied(&queue->policies, "b", "o");
    clear(POLICY_PLAIN, "b");
    expect_applied(&queue->policies, "c", "o");
    clear(POLICY_PLAIN, "d");
    expect_applied(&queue->policies, "c", "o");
    clear(POLICY_PLAIN, "c");
    expect_applied(&queue->policies, "none", "o");
    clear(POLICY_OPERATOR, "o");
    expect_applied(&queue->policies, "none", "none");
}
END_TEST

/* However it came about: the first of the list that matches. */
START_TEST(r17_1_the_order_of_events_does_not_matter)
{
    struct queue *queues[8];
    char name[16], pattern[16];

    for (size_t i = 0; i < countof(queues); i++) {
        snprintf(name, sizeof(name), "q%zu", i);
        queues[i] = declare(name, "");
    }
    for (uint64_t i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "p%u", (unsigned)(random_u64(&memory.random) % 6));
        struct policy *old = policy_find(memory.vhost, POLICY_PLAIN, slice_of_string(name));
        if (old != NULL && random_u64(&memory.random) % 3 == 0) {
            clear(POLICY_PLAIN, name);
        } else {
            snprintf(pattern, sizeof(pattern), "[%u%u%u]",
                     (unsigned)(random_u64(&memory.random) % 8),
                     (unsigned)(random_u64(&memory.random) % 8),
                     (unsigned)(random_u64(&memory.random) % 8));
            SET(name, pattern, "max-length=1",
                .priority = (int32_t)(random_u64(&memory.random) % 3));
        }
        for (size_t q = 0; q < countof(queues); q++) {
            const struct policy *first = NULL, *policy;
            TAILQ_FOREACH (policy, &memory.vhost->policies[POLICY_PLAIN], link)
                if (first == NULL &&
                    pattern_match(policy->pattern, queues[q]->name) == PATTERN_MATCHES)
                    first = policy;
            ck_assert_ptr_eq(first, queues[q]->policies.of[POLICY_PLAIN]);
        }
    }
}
END_TEST

static const struct {
    enum policy_scope apply_to;
    bool classic, quorum, exchange;
} scopes[] = {
    {POLICY_ALL, true, true, true},
    {POLICY_QUEUES, true, true, false},
    {POLICY_CLASSIC_QUEUES, true, false, false},
    {POLICY_QUORUM_QUEUES, false, true, false},
    {POLICY_STREAMS, false, false, false},
    {POLICY_EXCHANGES, false, false, true},
};

START_TEST(r17_1_apply_to)
{
    const struct queue *classic = declare("classic", "");
    const struct queue *quorum = declare("quorum", "x-queue-type=quorum");
    const struct exchange *exchange = declare_exchange("x", "");

    SET("p", "", "max-length=5", .apply_to = scopes[_i].apply_to);
    expect_applied(&classic->policies, scopes[_i].classic ? "p" : "none", "none");
    expect_applied(&quorum->policies, scopes[_i].quorum ? "p" : "none", "none");
    expect_applied(&exchange->policies, scopes[_i].exchange ? "p" : "none", "none");
    expect_applied(&memory.vhost->default_exchange->policies, "none", "none");
}
END_TEST

/* ---- 17.2, 17.3: what a definition may hold ---- */

static const struct {
    struct wish wish;
    const char *error; /* NULL: it is good */
} definitions[] = {
    {{.definition = "max-length=0 max-length-bytes=1 message-ttl=0 expires=1"}, NULL},
    {{.definition = "overflow=reject-publish-dlx queue-mode=lazy queue-version=2"}, NULL},
    {{.definition = "alternate-exchange=x dead-letter-exchange=y dead-letter-routing-key=z"}, NULL},
    {{.definition = "delivery-limit=-1 dead-letter-strategy=at-least-once"}, NULL},
    {{.definition = "consumer-timeout=1 consumer-disconnected-timeout=1 delayed-retry-type=all"},
     NULL},
    {{.definition = "delayed-retry-min=1 delayed-retry-max=2 queue-leader-locator=balanced"}, NULL},
    {{.definition = "target-group-size=3 initial-cluster-size=3 max-age=1D"}, NULL},
    {{.definition = "stream-max-segment-size-bytes=1 stream-filter-size-bytes=16"}, NULL},
    {{.definition = "max-in-memory-length=1 max-in-memory-bytes=1"}, NULL},
    {{.definition = "federation-upstream=a federation-upstream-set=all"}, NULL},
    {{.definition = ""}, "no policy provided"},
    {{.definition = "nosuch=1"}, "[\"nosuch\"] are not recognised policy settings"},
    {{.definition = "x-max-length=1"}, "[\"x-max-length\"] are not recognised policy settings"},
    {{.definition = "max-priority=1"}, "[\"max-priority\"] are not recognised policy settings"},
    {{.definition = "max-length=-1"}, "-1 is not a valid maximum length"},
    {{.definition = "max-length=x"}, "x is not a valid maximum length"},
    {{.definition = "max-length=5 message-ttl=-1"}, "-1 is not a valid message TTL"},
    {{.definition = "message-ttl=315360000001"}, "315360000001 is not a valid message TTL"},
    {{.definition = "expires=0"}, "0 is not a valid queue expiry"},
    {{.definition = "overflow=nosuch"}, "nosuch is not a valid overflow strategy"},
    {{.definition = "alternate-exchange=5"}, "5 is not a valid alternate exchange name"},
    {{.definition = "dead-letter-exchange=5"}, "5 is not a valid dead letter exchange name"},
    {{.definition = "target-group-size=0"}, "0 is not a valid target group size"},
    {{.definition = "queue-version=1"}, "1 is not a valid queue version"},
    {{.kind = POLICY_OPERATOR,
      .definition = "expires=1 message-ttl=1 max-length=1 max-length-bytes=1 delivery-limit=1"},
     NULL},
    {{.kind = POLICY_OPERATOR,
      .definition =
          "max-in-memory-length=1 max-in-memory-bytes=1 overflow=drop-head queue-version=2"},
     NULL},
    {{.kind = POLICY_OPERATOR, .definition = "dead-letter-exchange=x"},
     "[\"dead-letter-exchange\"] are not recognised policy settings"},
    {{.definition = "max-length=1", .pattern = "("},
     "pattern should be regular expression but is invalid: missing closing parenthesis at offset "
     "1"},
    {{.definition = "max-length=1", .name = ""}, "a policy's name has 1 to 255 octets"},
};

START_TEST(r17_2_and_17_3_definitions)
{
    struct wish wish = definitions[_i].wish;
    char error[POLICY_ERROR_SIZE] = "";

    wish.name = wish.name == NULL ? "p" : wish.name;
    wish.pattern = wish.pattern == NULL ? "" : wish.pattern;
    const struct policy *policy = try_set(&wish, error);
    ck_assert_str_eq(definitions[_i].error == NULL ? "" : definitions[_i].error, error);
    ck_assert_ptr_eq(policy, policy_find(memory.vhost, wish.kind, SLICE("p")));
    ck_assert_int_eq(policy == NULL, definitions[_i].error != NULL);
}
END_TEST

START_TEST(what_is_refused_changes_nothing)
{
    char error[POLICY_ERROR_SIZE];
    struct queue *queue = declare("q", "");

    SET("p", "", "max-length=5");
    ck_assert_ptr_null(
        try_set(&(struct wish){.name = "p", .pattern = "", .definition = "max-length=-5"}, error));
    ck_assert_uint_eq(5, queue->settings.length_max);
}
END_TEST

/* ---- patterns that cost too much ---- */

static char costly_name[256];

static const char *make_costly_name(void)
{
    memset(costly_name, 'a', sizeof(costly_name) - 2);
    costly_name[sizeof(costly_name) - 2] = '?';
    return costly_name;
}

START_TEST(a_bomb_is_refused_for_a_name_that_is_there)
{
    char error[POLICY_ERROR_SIZE];
    struct queue *queue = declare(make_costly_name(), "");

    ck_assert_ptr_null(try_set(
        &(struct wish){.name = "p", .pattern = "^(a+)+$", .definition = "max-length=5"}, error));
    ck_assert_ptr_nonnull(strstr(error, "pattern takes more than 100000 steps to match the queue"));
    expect_applied(&queue->policies, "none", "none");
    /* What it is not meant for, it is not matched with. */
    SET("p", "^(a+)+$", "max-length=5", .apply_to = POLICY_EXCHANGES);
}
END_TEST

START_TEST(a_bomb_does_not_apply_to_a_name_declared_later)
{
    SET("bomb", "^(a+)+$", "max-length=5", .priority = 1);
    SET("other", "", "max-length=6");
    expect_applied(&declare("aaa", "")->policies, "bomb", "none");
    expect_applied(&declare(make_costly_name(), "")->policies, "other", "none");
}
END_TEST

/* ---- 17.4 ---- */

static const struct {
    const char *definition;
    bool classic, quorum;
} unsupported[] = {
    {"max-length=5", true, true},
    {"max-length=5 delivery-limit=1", false, true},
    {"max-length=5 queue-mode=lazy", true, false},
    {"max-length=5 queue-version=2", true, false},
    {"max-length=5 target-group-size=3", false, true},
    {"max-length=5 dead-letter-strategy=at-least-once", false, true},
    {"max-length-bytes=5 max-age=1D", false, false},
    {"max-length=5 alternate-exchange=x", true, true},
    {"max-length=5 federation-upstream-set=all", true, true},
    {"delivery-limit=1 queue-mode=lazy", false, false},
};

START_TEST(r17_4_a_key_that_the_type_does_not_have)
{
    SET("lower", "", "expires=1000");
    SET("p", "", unsupported[_i].definition, .priority = 1);
    expect_applied(&declare("classic", "")->policies, unsupported[_i].classic ? "p" : "lower",
                   "none");
    expect_applied(&declare("quorum", "x-queue-type=quorum")->policies,
                   unsupported[_i].quorum ? "p" : "lower", "none");
    expect_applied(&declare_exchange("x", "")->policies, "p", "none");
}
END_TEST

/* ---- 17.5: what follows at once ---- */

START_TEST(r17_5_a_shorter_queue)
{
    struct queue *queue = declare("q", "");

    push(queue, 10, false);
    SET("p", "", "max-length=4");
    ck_assert_uint_eq(4, queue_ready_count(queue));
    SET("o", "", "max-length=3", .kind = POLICY_OPERATOR);
    ck_assert_uint_eq(3, queue_ready_count(queue));
    clear(POLICY_OPERATOR, "o");
    clear(POLICY_PLAIN, "p");
    push(queue, 10, false);
    ck_assert_uint_eq(13, queue_ready_count(queue));
}
END_TEST

START_TEST(r17_5_a_queue_that_refuses_drops_nothing)
{
    struct queue *queue = declare("q", "");

    push(queue, 10, false);
    SET("p", "", "max-length=4 overflow=reject-publish");
    push(queue, 1, false);
    ck_assert_uint_eq(10, queue_ready_count(queue));
}
END_TEST

/* A few turns, not one long one. */
START_TEST(r17_5_a_much_shorter_queue)
{
    struct queue *queue = declare("q", "");

    push(queue, 50000, false);
    SET("p", "", "max-length=1");
    ck_assert_uint_eq(30000, queue_ready_count(queue));
    for (int i = 0; i < 2; i++)
        loop_turn(&memory.loop, 0);
    ck_assert_uint_eq(1, queue_ready_count(queue));
}
END_TEST

START_TEST(r17_5_a_shorter_queue_on_disk)
{
    push(declare("q", ""), 5000, true);
    memory_broker_sync(&memory);
    memory_broker_restart(&memory);
    SET("p", "", "max-length=7");
    for (int i = 0; i < 100; i++)
        loop_turn(&memory.loop, 0);
    ck_assert_uint_eq(7, queue_ready_count(find("q")));
}
END_TEST

static void pass(uint64_t ms)
{
    memory.clock.now_ms += ms;
    memory.clock.wall_ms += ms;
    for (int i = 0; i < 2; i++)
        loop_turn(&memory.loop, 0);
}

START_TEST(r17_5_a_queue_that_expires)
{
    declare("q", "x-expires=5000");
    SET("p", "", "expires=1000");
    SET("other", "", "expires=1000 max-length=5", .priority = 1); /* the same: no new beginning */
    pass(900);
    ck_assert_ptr_nonnull(find("q"));
    clear(POLICY_PLAIN, "other");
    clear(POLICY_PLAIN, "p");
    pass(200);
    ck_assert_ptr_nonnull(find("q"));
    pass(4700);
    ck_assert_ptr_nonnull(find("q")); /* counted from the change */
    SET("p", "", "expires=100");
    pass(101);
    ck_assert_ptr_null(find("q"));
    declare("q", "");
    pass(101);
    ck_assert_ptr_null(find("q"));
}
END_TEST

/* 11.1: a deadline is fixed when the message comes. */
START_TEST(r11_1_deadlines_stay_as_they_are)
{
    struct queue *queue = declare("q", "");

    push(queue, 1, false);
    SET("p", "", "message-ttl=1000");
    push(queue, 1, false);
    SET("p", "", "message-ttl=10");
    push(queue, 1, false);
    pass(50);
    ck_assert_uint_eq(2, queue_ready_count(queue));
    clear(POLICY_PLAIN, "p");
    push(queue, 1, false);
    pass(1000);
    ck_assert_uint_eq(2, queue_ready_count(queue));
}
END_TEST

START_TEST(r17_5_dead_letters)
{
    struct queue *dead = declare("dead", "");
    struct queue *queue = declare("q", "");

    SET("length", "^q", "max-length=1", .kind = POLICY_OPERATOR);
    push(queue, 2, false);
    loop_turn(&memory.loop, 0);
    ck_assert_uint_eq(0, queue_ready_count(dead));
    SET("p", "^q", "dead-letter-exchange= dead-letter-routing-key=dead");
    push(queue, 1, false);
    loop_turn(&memory.loop, 0);
    ck_assert_uint_eq(1, queue_ready_count(dead));
    /* Gone in the turn in which a message dies: that one has nowhere to go, least of all the
     * default exchange. */
    declare("stray", "");
    push(queue, 1, false);
    clear(POLICY_PLAIN, "p");
    loop_turn(&memory.loop, 0);
    ck_assert_uint_eq(1, queue_ready_count(dead));
    ck_assert_uint_eq(1, queue_ready_count(queue));
}
END_TEST

/* A dead letter of a deleted queue still needs what its policy said. */
START_TEST(a_policy_outlives_its_list)
{
    struct queue *dead = declare("dead", "");
    struct queue *queue = declare("q", "");

    SET("p", "^q", "max-length=0 dead-letter-exchange= dead-letter-routing-key=dead");
    push(queue, 1, false);
    queue_delete(queue);
    clear(POLICY_PLAIN, "p");
    loop_turn(&memory.loop, 0);
    ck_assert_uint_eq(1, queue_ready_count(dead));
}
END_TEST

START_TEST(r7_10_an_alternate_exchange)
{
    struct exchange *exchange = declare_exchange("x", "");
    struct exchange *other = declare_exchange("other", "alternate-exchange=own");

    SET("p", "", "alternate-exchange=ae");
    ck_assert(slice_equal(exchange->alternate, SLICE("ae")));
    ck_assert(slice_equal(other->alternate, SLICE("own")));
    ck_assert_ptr_null(memory.vhost->default_exchange->alternate.data);
    ck_assert(slice_equal(declare_exchange("later", "")->alternate, SLICE("ae")));
    SET("p", "", "alternate-exchange=be");
    ck_assert(slice_equal(exchange->alternate, SLICE("be")));
    clear(POLICY_PLAIN, "p");
    ck_assert_ptr_null(exchange->alternate.data);
}
END_TEST

/* ---- the store ---- */

START_TEST(policies_come_back)
{
    struct queue *queue = declare("q", "");

    SET("p", "^q", "max-length=5 message-ttl=10", .priority = -7, .apply_to = POLICY_QUEUES);
    SET("gone", "^q", "max-length=1", .priority = 9);
    SET("p", "^q", "max-length=4 dead-letter-exchange=", .priority = 3);
    SET("p", "^q", "max-length=6", .kind = POLICY_OPERATOR);
    clear(POLICY_PLAIN, "gone");
    declare_exchange("qx", "");
    push(queue, 3, true);
    memory_broker_sync(&memory);
    memory_broker_restart(&memory);

    queue = find("q");
    expect_applied(&queue->policies, "p", "p");
    ck_assert_uint_eq(4, queue->settings.length_max);
    ck_assert_uint_eq(SETTING_NONE, queue->settings.message_ttl_ms);
    ck_assert(queue->settings.dead_letters);
    ck_assert_uint_eq(3, queue_ready_count(queue));
    const struct policy *policy = policy_find(memory.vhost, POLICY_PLAIN, SLICE("p"));
    ck_assert_int_eq(3, policy->options.priority);
    ck_assert_int_eq(POLICY_ALL, policy->options.apply_to);
    ck_assert(slice_equal(policy->options.pattern, SLICE("^q")));
    ck_assert_ptr_null(policy_find(memory.vhost, POLICY_PLAIN, SLICE("gone")));

    /* and can be replaced and cleared for good */
    SET("p", "^q", "max-length=2", .priority = 3);
    clear(POLICY_OPERATOR, "p");
    memory_broker_sync(&memory);
    memory_broker_restart(&memory);
    expect_applied(&find("q")->policies, "p", "none");
    ck_assert_uint_eq(2, find("q")->settings.length_max);
}
END_TEST

START_TEST(what_was_not_synced_never_was)
{
    declare("q", "");
    memory_broker_sync(&memory);
    SET("p", "", "max-length=5");
    memory_broker_restart(&memory);
    expect_applied(&find("q")->policies, "none", "none");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy");
    TCase *tcase = tcase_create("policy");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_loop_test(tcase, r11_6_and_17_3_several_say_something, 0, countof(merges));
    tcase_add_test(tcase, r17_1_the_highest_priority_alone);
    tcase_add_test(tcase, r17_1_the_order_of_events_does_not_matter);
    tcase_add_loop_test(tcase, r17_1_apply_to, 0, countof(scopes));
    tcase_add_loop_test(tcase, r17_2_and_17_3_definitions, 0, countof(definitions));
    tcase_add_test(tcase, what_is_refused_changes_nothing);
    tcase_add_test(tcase, a_bomb_is_refused_for_a_name_that_is_there);
    tcase_add_test(tcase, a_bomb_does_not_apply_to_a_name_declared_later);
    tcase_add_loop_test(tcase, r17_4_a_key_that_the_type_does_not_have, 0, countof(unsupported));
    tcase_add_test(tcase, r17_5_a_shorter_queue);
    tcase_add_test(tcase, r17_5_a_queue_that_refuses_drops_nothing);
    tcase_add_test(tcase, r17_5_a_much_shorter_queue);
    tcase_add_test(tcase, r17_5_a_shorter_queue_on_disk);
    tcase_add_test(tcase, r17_5_a_queue_that_expires);
    tcase_add_test(tcase, r11_1_deadlines_stay_as_they_are);
    tcase_add_test(tcase, r17_5_dead_letters);
    tcase_add_test(tcase, a_policy_outlives_its_list);
    tcase_add_test(tcase, r7_10_an_alternate_exchange);
    tcase_add_test(tcase, policies_come_back);
    tcase_add_test(tcase, what_was_not_synced_never_was);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
