/* definition: what is durable comes back as it was, and bytes that are no record do nothing. */
#include "core/definition.h"

#include "amqp/table.h"
#include "base/alloc.h"
#include "base/log.h"
#include "store/memory.h"
#include "tests/lib/memory_broker.h"
#include "tests/lib/unit.h"

static struct memory_broker memory;
static struct amqp_error error;
static uint64_t lsn;

static void set_up(void)
{
    memory_broker_start(&memory);
}

static void tear_down(void)
{
    memory_broker_stop(&memory);
}

/* ---- a vhost with one of everything ---- */

static uint8_t longest[2][NAME_SIZE_MAX];

/* 255 octets of any value; not CR or LF. */
static struct slice longest_name(int which)
{
    for (size_t i = 0; i < NAME_SIZE_MAX; i++)
        longest[which][i] = (uint8_t)(i + 20);
    longest[which][0] = (uint8_t)('a' + which);
    return slice_of(longest[which], NAME_SIZE_MAX);
}

static void declare_exchange(struct slice name, const char *type, bool durable, bool auto_delete,
                             bool internal, struct slice arguments)
{
    const struct exchange_options options = {
        name, slice_of_string(type), durable, auto_delete, internal, arguments};

    ck_assert_ptr_nonnull(vhost_declare_exchange(memory.vhost, &options, NULL, &lsn, &error));
}

static void declare_queue(struct slice name, bool durable, bool auto_delete, struct slice arguments)
{
    const struct queue_options options = {
        .name = name, .durable = durable, .auto_delete = auto_delete, .arguments = arguments};

    ck_assert_ptr_nonnull(vhost_declare_queue(memory.vhost, &options, NULL, &lsn, &error));
}

static void bind(struct slice source, struct slice destination, bool to_exchange, struct slice key,
                 struct slice arguments)
{
    const struct binding_request request = {source, destination, to_exchange, key, arguments};

    ck_assert(vhost_bind(memory.vhost, &request, NULL, &lsn, &error));
}

static void unbind(struct slice source, struct slice destination, struct slice key)
{
    const struct binding_request request = {source, destination, false, key, (struct slice){0}};

    ck_assert(vhost_unbind(memory.vhost, &request, NULL, &lsn, &error));
}

static void set_policy(enum policy_kind kind, struct slice name, struct slice definition)
{
    const struct policy_options options = {.kind = kind,
                                           .apply_to = POLICY_QUEUES,
                                           .priority = -3,
                                           .name = name,
                                           .pattern = SLICE("^q"),
                                           .definition = definition};
    char reason[POLICY_ERROR_SIZE];

    ck_assert_ptr_nonnull(policy_set(memory.vhost, &options, reason));
}

static void declare_everything(void)
{
    const struct slice none = {0};
    struct buf buf = BUF_EMPTY;
    amqp_table_put_string(&buf, SLICE("alternate-exchange"), SLICE("ae"));
    amqp_table_put_bool(&buf, SLICE("flag"), true);
    const struct slice arguments = buf_slice(&buf);

    declare_exchange(SLICE("x"), "topic", true, false, false, none);
    declare_exchange(SLICE("xa"), "headers", true, true, true, arguments);
    declare_exchange(SLICE("transient"), "fanout", false, false, false, none);
    declare_exchange(longest_name(0), "direct", true, false, true, none);
    declare_queue(SLICE("q"), true, false, none);
    declare_queue(SLICE("qa"), true, true, arguments);
    declare_queue(SLICE("transient"), false, false, none);
    declare_queue(longest_name(1), true, false, none);
    bind(SLICE("x"), SLICE("q"), false, SLICE("a.#"), none);
    bind(SLICE("x"), SLICE("q"), false, SLICE("a.#"), arguments);
    bind(SLICE("amq.direct"), SLICE("q"), false, SLICE(""), none);
    bind(SLICE("xa"), SLICE("x"), true, SLICE("k"), arguments);
    bind(longest_name(0), longest_name(1), false, longest_name(0), arguments);
    bind(SLICE("x"), SLICE("transient"), false, SLICE("k"), none);
    bind(SLICE("transient"), SLICE("q"), false, SLICE("k"), none);
    buf_clear(&buf);
    amqp_table_put_i64(&buf, SLICE("max-length"), 5);
    set_policy(POLICY_PLAIN, longest_name(0), buf_slice(&buf));
    set_policy(POLICY_OPERATOR, SLICE("p"), buf_slice(&buf));
    buf_release(&buf);
}

/* ---- the whole vhost as text ---- */

static void print_bytes(struct buf *out, struct slice bytes)
{
    for (size_t i = 0; i < bytes.size; i++)
        buf_printf(out, bytes.data[i] > ' ' && bytes.data[i] < 127 ? "%c" : "\\%02x",
                   bytes.data[i]);
    buf_printf(out, "|");
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Lines in order, so that the order in maps does not matter. */
static char *sort_lines(struct buf *text)
{
    char *lines[256], *rest = slice_to_string(buf_slice(text)), *whole = rest, *line;
    size_t count = 0;

    buf_clear(text);
    while ((line = strsep(&rest, "\n")) != NULL && count < countof(lines))
        lines[count++] = line;
    qsort(lines, count, sizeof(lines[0]), compare_lines);
    for (size_t i = 0; i < count; i++)
        buf_printf(text, "%s\n", lines[i]);
    free(whole);
    line = slice_to_string(buf_slice(text));
    buf_release(text);
    return line;
}

static void describe_binding(struct buf *out, const struct binding *binding)
{
    buf_printf(out, "binding %s ", binding->exchange != NULL ? "exchange" : "queue");
    print_bytes(out, binding->source->name);
    print_bytes(out, binding->exchange != NULL ? binding->exchange->name : binding->queue->name);
    print_bytes(out, binding->key);
    print_bytes(out, binding->arguments);
    buf_printf(out, " record %" PRIu64 "\n", binding->record_id);
}

static void describe_policies(struct buf *out, enum policy_kind kind)
{
    const struct policy *policy;

    TAILQ_FOREACH (policy, &memory.vhost->policies[kind], link) {
        buf_printf(out, "policy %d %d %d record %" PRIu64 " ", kind, policy->options.apply_to,
                   policy->options.priority, policy->record_id);
        print_bytes(out, policy->options.name);
        print_bytes(out, policy->options.pattern);
        print_bytes(out, policy->options.definition);
        buf_printf(out, "\n");
    }
}

/* Durable things, with their ids. */
static char *describe(void)
{
    struct buf out = BUF_EMPTY;

    map_each (&memory.vhost->exchanges, link) {
        const struct exchange *exchange = container_of(link, struct exchange, by_name);
        const struct binding *binding;
        TAILQ_FOREACH (binding, &exchange->bindings, by_source)
            if (binding->durable)
                describe_binding(&out, binding);
        if (!exchange->durable)
            continue;
        buf_printf(&out, "exchange %s %d %d record %" PRIu64 " ", exchange->type->name,
                   exchange->auto_delete, exchange->internal, exchange->record_id);
        print_bytes(&out, exchange->name);
        print_bytes(&out, exchange->arguments);
        print_bytes(&out, exchange->alternate);
        buf_printf(&out, "\n");
    }
    map_each (&memory.vhost->queues, link) {
        const struct queue *queue = container_of(link, struct queue, by_name);
        if (!queue->durable)
            continue;
        buf_printf(&out, "queue %d id %" PRIu64 " ", queue->auto_delete, queue->id);
        print_bytes(&out, queue->name);
        print_bytes(&out, queue->arguments);
        for (size_t kind = 0; kind < POLICY_KINDS; kind++)
            print_bytes(&out, policy_definition(&queue->policies, (enum policy_kind)kind));
        buf_printf(&out, "\n");
    }
    describe_policies(&out, POLICY_PLAIN);
    describe_policies(&out, POLICY_OPERATOR);
    return sort_lines(&out);
}

static size_t count_lines(const char *text, const char *begin)
{
    size_t count = 0;

    for (; text != NULL && *text != '\0'; text = strchr(text, '\n') + 1)
        count += strncmp(text, begin, strlen(begin)) == 0;
    return count;
}

/* ---- there and back ---- */

START_TEST(durable_things_come_back) /* 7.9, 8.15 */
{
    declare_everything();
    memory_broker_sync(&memory);
    char *before = describe();
    ck_assert_uint_eq(count_lines(before, "exchange"), 7 + 3);
    ck_assert_uint_eq(count_lines(before, "queue"), 3);
    ck_assert_uint_eq(count_lines(before, "binding"), 5);
    for (int i = 0; i < 2; i++) {
        memory_broker_restart(&memory);
        char *after = describe();
        ck_assert_str_eq(after, before);
        free(after);
    }
    ck_assert_uint_eq(memory.broker.vhosts.count, 1);
    ck_assert_uint_eq(memory.vhost->exchanges.count, 7 + 3);
    ck_assert_uint_eq(memory.vhost->queues.count, 3);
    free(before);
}
END_TEST

START_TEST(deleted_things_stay_away)
{
    uint64_t count;

    declare_everything();
    memory_broker_sync(&memory);
    memory_broker_restart(&memory);
    ck_assert(vhost_delete_exchange(memory.vhost, longest_name(0), false, NULL, &lsn, &error));
    ck_assert(
        vhost_delete_queue(memory.vhost, SLICE("qa"), false, false, NULL, &count, &lsn, &error));
    unbind(SLICE("x"), SLICE("q"), SLICE("a.#"));
    unbind(SLICE("amq.direct"), SLICE("q"), SLICE(""));
    declare_queue(SLICE("new"), true, false,
                  (struct slice){0}); /* ids go on from where they were */
    bind(SLICE("x"), SLICE("new"), false, SLICE("a.#"), (struct slice){0});
    char *before = describe();
    ck_assert_uint_eq(count_lines(before, "exchange"), 7 + 2);
    ck_assert_uint_eq(count_lines(before, "queue"), 3);
    ck_assert_uint_eq(count_lines(before, "binding"), 3);
    memory_broker_sync(&memory);
    memory_broker_restart(&memory);
    char *after = describe();
    ck_assert_str_eq(after, before);
    free(after);
    free(before);
}
END_TEST

START_TEST(what_is_not_durable_is_lost) /* 7.9, 8.15 */
{
    declare_everything();
    memory_broker_restart(&memory);
    /* not even the vhost was: a new one is made */
    ck_assert_uint_eq(memory.vhost->exchanges.count, 7);
    ck_assert_uint_eq(memory.vhost->queues.count, 0);
}
END_TEST

/* ---- bytes that are no record ---- */

struct copy {
    char *key, *value; /* slice_to_string */
    size_t key_size, value_size;
};

static struct copy records[32];
static size_t record_count;

static void keep_record(void *context, struct slice key, struct slice value)
{
    (void)context;
    ck_assert_uint_lt(record_count, countof(records));
    if (key.data[0] != 0) /* the broker's own */
        records[record_count++] =
            (struct copy){slice_to_string(key), slice_to_string(value), key.size, value.size};
}

static void ignore_queue(void *context, const struct store_queue_state *queue)
{
    (void)context;
    (void)queue;
}

/* All records of declare_everything, read from the store itself; the broker is then an empty
 * one. */
static void collect_records(void)
{
    struct store_recovery walk = {.on_record = keep_record, .on_queue = ignore_queue};

    declare_everything();
    memory_broker_sync(&memory);
    store_memory_crash(memory.store);
    ck_assert_int_eq(store_recover(memory.store, &walk), 0);
    ck_assert_uint_eq(record_count, 1 + 3 + 3 + 5 + 2);
    memory_broker_stop(&memory);
    memory_broker_start(&memory);
}

static void free_records(void)
{
    for (size_t i = 0; i < record_count; i++) {
        free(records[i].key);
        free(records[i].value);
    }
    record_count = 0;
}

/* In a block of exactly their size, so that a read beyond them is seen. */
static bool recover(struct slice key, struct slice value)
{
    uint8_t *exact_key = xmalloc(key.size), *exact_value = xmalloc(value.size);

    memcpy(exact_key, key.data, key.size);
    memcpy(exact_value, value.data, value.size);
    const bool good = definition_recover(&memory.broker, slice_of(exact_key, key.size),
                                         slice_of(exact_value, value.size));
    free(exact_key);
    free(exact_value);
    return good;
}

static struct slice key_of(const struct copy *copy)
{
    return slice_of(copy->key, copy->key_size);
}

static struct slice value_of(const struct copy *copy)
{
    return slice_of(copy->value, copy->value_size);
}

/* The record of the highest queue id is lost, as when it was damaged. */
START_TEST(a_queue_id_is_not_given_twice)
{
    declare_everything();
    store_delete_record(memory.store, SLICE("\0queue-id"));
    memory_broker_sync(&memory);
    memory_broker_restart(&memory);
    const size_t count = memory.broker.queues.count;
    declare_queue(SLICE("new"), true, false, (struct slice){0});
    memory_broker_sync(&memory);
    memory_broker_restart(&memory);
    ck_assert_uint_eq(memory.broker.queues.count, count + 1);
}
END_TEST

START_TEST(half_a_record_is_none)
{
    size_t accepted = 0;

    atomic_store(&log_level, LOG_NONE);
    collect_records();
    char *before = describe();
    for (size_t i = 0; i < record_count; i++) {
        struct buf longer = BUF_EMPTY;
        buf_append(&longer, value_of(&records[i]));
        buf_append(&longer, SLICE("\0"));
        for (size_t size = 0; size < records[i].value_size; size++)
            accepted += recover(key_of(&records[i]), slice_of(records[i].value, size));
        for (size_t size = 0; size < records[i].key_size; size++)
            accepted += recover(slice_of(records[i].key, size), value_of(&records[i]));
        accepted += recover(key_of(&records[i]), buf_slice(&longer));
        buf_release(&longer);
    }
    ck_assert_uint_eq(accepted, 0);
    char *after = describe();
    ck_assert_str_eq(after, before);

    /* Whole they are good, once; all but the vhost, which is there. */
    for (size_t i = 0; i < record_count; i++) {
        ck_assert(recover(key_of(&records[i]), value_of(&records[i])) == (i > 0));
        ck_assert(!recover(key_of(&records[i]), value_of(&records[i])));
    }
    free(before);
    free(after);
    free_records();
}
END_TEST

START_TEST(changed_records_do_no_harm)
{
    struct random random;

    atomic_store(&log_level, LOG_NONE);
    random_init_seeded(&random, (uint64_t)_i);
    collect_records();
    for (int round = 0; round < 5000; round++) {
        struct copy *copy = &records[random_below(&random, record_count)];
        const size_t at = random_below(&random, copy->value_size);
        const char old = copy->value[at];
        copy->value[at] = (char)random_below(&random, 256);
        copy->key[0] = (char)(random_below(&random, 20) == 0 ? 9 : 1 + random_below(&random, 5));
        recover(key_of(copy), value_of(copy));
        copy->value[at] = old;
    }
    free_records();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("definition");
    TCase *tests = tcase_create("definition");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, durable_things_come_back);
    tcase_add_test(tests, deleted_things_stay_away);
    tcase_add_test(tests, what_is_not_durable_is_lost);
    tcase_add_test(tests, a_queue_id_is_not_given_twice);
    tcase_add_test(tests, half_a_record_is_none);
    tcase_add_loop_test(tests, changed_records_do_no_harm, 0, 4);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
