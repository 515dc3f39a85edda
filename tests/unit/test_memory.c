/* What the memory store can do beyond the interface: hold syncs back, fail, crash. test_store.c has
 * the rest. */
#include "store/memory.h"

#include <poll.h>

#include "tests/lib/unit.h"

static struct store *store;
static int bodies_back;
static char recovered[256]; /* what the last recover said */

static void on_body_done(void *body_owner)
{
    ck_assert_ptr_eq(body_owner, &store);
    bodies_back++;
}

static void begin(void)
{
    store = store_memory_new();
    store_on_body_done(store, on_body_done);
}

static void put(uint64_t position)
{
    const struct store_entry entry = {.queue_id = 1, .position = position, .weight = 1};

    store_put_entry(store, &entry, store_add_body(store, SLICE("body"), &store));
}

static bool is_readable(void)
{
    struct pollfd poll_fd = {.fd = store_fd(store), .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

static void on_record(void *context, struct slice key, struct slice value)
{
    char *text = context;

    snprintf(text + strlen(text), sizeof recovered - strlen(text), "%.*s=%.*s ", SLICE_ARG(key),
             SLICE_ARG(value));
}

static void on_queue(void *context, const struct store_queue_state *queue)
{
    char *text = context;

    snprintf(text + strlen(text), sizeof recovered - strlen(text),
             "queue %" PRIu64 ": [%" PRIu64 ", %" PRIu64 ") %" PRIu64 "/%" PRIu64 " ",
             queue->queue_id, queue->head, queue->tail, queue->count, queue->delivered);
}

static const char *recover(void)
{
    struct store_recovery recovery = {
        .context = recovered, .on_record = on_record, .on_queue = on_queue};

    recovered[0] = '\0';
    ck_assert_int_eq(store_recover(store, &recovery), 0);
    return recovered;
}

START_TEST(durable_by_itself)
{
    begin();
    ck_assert(!is_readable());
    store_create_queue(store, 1);
    put(0);
    ck_assert_uint_eq(store_submit(store), 1);
    ck_assert(store_is_busy(store));
    ck_assert_uint_eq(store_durable(store), 0);
    ck_assert(is_readable());
    ck_assert_int_eq(store_process(store), 0);
    ck_assert(!is_readable());
    ck_assert(!store_is_busy(store));
    ck_assert_uint_eq(store_durable(store), 1);
    ck_assert_int_eq(bodies_back, 1);
    ck_assert_int_eq(store_close(&store), 0);
}
END_TEST

START_TEST(durable_when_told)
{
    begin();
    store_memory_set_auto_sync(store, false);
    store_create_queue(store, 1);
    put(0);
    store_submit(store);
    put(1);
    ck_assert(!is_readable());
    ck_assert_int_eq(store_process(store), 0);
    ck_assert(store_is_busy(store));
    ck_assert_int_eq(bodies_back, 0);
    store_memory_sync(store);
    store_memory_sync(store); /* of nothing more */
    ck_assert(is_readable());
    ck_assert_uint_eq(store_durable(store), 0);
    ck_assert_int_eq(store_process(store), 0);
    ck_assert_uint_eq(store_durable(store), 1);
    ck_assert_int_eq(bodies_back, 1);
    ck_assert(!store_open_is_empty(store));
    store_submit(store);
    store_memory_set_auto_sync(store, true);
    ck_assert_int_eq(store_process(store), 0);
    ck_assert_uint_eq(store_durable(store), 2);
    ck_assert_int_eq(store_close(&store), 0);
}
END_TEST

START_TEST(a_crash_forgets_what_was_not_durable)
{
    begin();
    store_put_record(store, SLICE("name"), SLICE("1"));
    store_create_queue(store, 1);
    put(0);
    put(1);
    store_submit(store);
    store_process(store);
    store_memory_set_auto_sync(store, false);
    store_put_record(store, SLICE("name"), SLICE("2"));
    store_delete_entry(store, 1, 0, 1);
    put(2);
    store_submit(store);
    put(3);
    store_delete_queue(store, 1);
    store_memory_crash(store);
    ck_assert_int_eq(bodies_back, 4);
    ck_assert_str_eq(recover(), "name=1 queue 1: [0, 2) 2/2 ");
    ck_assert_uint_eq(store_durable(store), 1);
    ck_assert_uint_eq(store_open_lsn(store), 2);
    ck_assert(store_open_is_empty(store));
    ck_assert(!store_is_busy(store));
    ck_assert_int_eq(store_close(&store), 0);
}
END_TEST

START_TEST(what_was_submitted_can_still_fail)
{
    begin();
    store_create_queue(store, 1);
    store_submit(store);
    store_memory_fail(store, EIO);
    ck_assert_int_eq(store_process(store), -EIO);
    ck_assert_uint_eq(store_durable(store), 0);
    store_memory_crash(store);
    ck_assert_str_eq(recover(), "");
    ck_assert_int_eq(store_close(&store), 0);
}
END_TEST

START_TEST(a_crash_after_the_sync_keeps_the_batch)
{
    begin();
    store_create_queue(store, 1);
    put(0);
    store_submit(store);
    store_memory_sync(store);
    store_memory_crash(store); /* before the owner learned of it */
    ck_assert_str_eq(recover(), "queue 1: [0, 1) 1/1 ");
    ck_assert_uint_eq(store_durable(store), 1);
    ck_assert_uint_eq(store_open_lsn(store), 2);
    ck_assert_int_eq(bodies_back, 1);
    ck_assert_int_eq(store_close(&store), 0);
}
END_TEST

static void on_fetched(struct store_fetch *fetch)
{
    (void)fetch;
    ck_abort_msg("a fetch outlived the crash");
}

START_TEST(a_crash_drops_fetches)
{
    struct store_fetch fetch = {.queue_id = 1, .end = 10, .on_done = on_fetched};

    begin();
    store_fetch(store, &fetch);
    ck_assert(is_readable());
    store_memory_crash(store);
    ck_assert_int_eq(store_process(store), 0);
    ck_assert_int_eq(store_close(&store), 0);
}
END_TEST

START_TEST(a_failure_is_final_until_a_crash)
{
    begin();
    store_memory_set_auto_sync(store, false);
    store_create_queue(store, 1);
    store_submit(store);
    store_memory_fail(store, ENOSPC);
    ck_assert(is_readable());
    ck_assert_int_eq(store_process(store), -ENOSPC);
    store_memory_sync(store);
    ck_assert_int_eq(store_process(store), -ENOSPC);
    ck_assert_uint_eq(store_durable(store), 0);
    store_memory_crash(store);
    store_memory_set_auto_sync(store, true);
    store_create_queue(store, 1);
    ck_assert_uint_eq(store_submit(store), 1);
    ck_assert_int_eq(store_process(store), 0);
    ck_assert_str_eq(recover(), "queue 1: [0, 0) 0/0 ");
    ck_assert_int_eq(store_close(&store), 0);
}
END_TEST

START_TEST(a_failed_store_hands_bodies_back_when_closed)
{
    begin();
    store_memory_set_auto_sync(store, false);
    store_create_queue(store, 1);
    put(0);
    store_submit(store);
    put(1);
    store_memory_fail(store, EIO);
    ck_assert_int_eq(bodies_back, 0);
    ck_assert_int_eq(store_close(&store), -EIO);
    ck_assert_int_eq(bodies_back, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tests = tcase_create("memory");

    tcase_add_test(tests, durable_by_itself);
    tcase_add_test(tests, durable_when_told);
    tcase_add_test(tests, a_crash_forgets_what_was_not_durable);
    tcase_add_test(tests, what_was_submitted_can_still_fail);
    tcase_add_test(tests, a_crash_after_the_sync_keeps_the_batch);
    tcase_add_test(tests, a_crash_drops_fetches);
    tcase_add_test(tests, a_failure_is_final_until_a_crash);
    tcase_add_test(tests, a_failed_store_hands_bodies_back_when_closed);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
