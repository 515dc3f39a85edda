/* Messages that are damaged on disk leave their queues, once, and nothing else does: whoever finds
 * them, whatever else happens at that moment, and whenever the process dies. */
#include "core/quarantine.h"

#include "core/paging.h"
#include "core/queue.h"
#include "store/memory.h"
#include "tests/lib/one_peer.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

static void sync_and_tear_down(void)
{
    store_memory_set_auto_sync(harness.store, true);
    harness_run(&harness);
    tear_down();
}

static const struct sent stored = {.persistent = true};

/* A message for each letter. */
static void publish_each(const char *queue, const char *bodies, const struct sent *sent)
{
    for (; *bodies != '\0'; bodies++)
        publish_with(peer, queue, (char[]){*bodies, '\0'}, sent);
}

/* The queue has them, and in the store alone. */
static void declare_on_disk(const char *bodies)
{
    declare_queue(peer, "q", true, NULL);
    publish_each("q", bodies, &stored);
    restart(true);
}

static void get_each(const char *queue, const char *bodies)
{
    for (; *bodies != '\0'; bodies++)
        get_one(peer, queue, (char[]){*bodies, '\0'});
    get_nothing(peer, queue);
}

/* The first durable queue that was declared. */
static struct queue *first_queue(void)
{
    struct queue *first = NULL;

    map_each (&harness.broker.queues, link) {
        struct queue *queue = container_of(link, struct queue, by_id);
        if (first == NULL || queue->id < first->id)
            first = queue;
    }
    return first;
}

static void damage(uint64_t position)
{
    store_memory_damage(harness.store, first_queue()->id, position);
}

/* The check of the store comes to it. */
static void find(uint64_t position)
{
    store_memory_find(harness.store, &(struct store_finding){.queue_id = first_queue()->id,
                                                             .is_entry = true,
                                                             .position = position});
}

/* It counts again: so many messages of an octet are lost, or have come back. */
static void find_lost(uint64_t queue_id, int64_t count)
{
    store_memory_find(
        harness.store,
        &(struct store_finding){.queue_id = queue_id, .lost_count = count, .lost_bytes = count});
}

static uint32_t quarantined(void)
{
    harness_run(&harness);
    return harness.broker.quarantine.items.count;
}

START_TEST(a_read_sets_it_aside)
{
    declare_queue(peer, "q", true, NULL);
    publish_each("q", "abc", &stored);
    restart(_i == 1);
    damage(1);
    get_each("q", "ac");
    ck_assert_uint_eq(1, quarantined());
    ck_assert_uint_eq(1, harness_logged(&harness, "the message at position 1 is damaged"));
    for (int i = 0; i < 2; i++) {
        restart(_i == 1);
        ck_assert_uint_eq(1, quarantined());
        ck_assert_uint_eq(0, count_ready(peer, "q"));
        ck_assert_uint_eq(1, harness_logged(&harness, "is damaged"));
    }
    const struct quarantined *item = &harness.broker.quarantine.items.items[0];
    ck_assert(slice_equal(item->vhost, SLICE("/")) && slice_equal(item->queue, SLICE("q")));
    ck_assert_uint_eq(item->position, 1);
    ck_assert_uint_eq(item->when_ms, harness.clock.wall_ms);
    ck_assert_uint_gt(item->size, 0);
}
END_TEST

START_TEST(the_check_sets_it_aside)
{
    declare_queue(peer, "q", true, NULL);
    publish_each("q", "abc", &stored);
    restart(false);
    damage(_i);
    find(_i);
    ck_assert_uint_eq(1, quarantined());
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    restart(true);
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    get_each("q", (const char *[]){"bc", "ac", "ab"}[_i]);
    ck_assert_uint_eq(1, quarantined());
}
END_TEST

/* Nobody counts it twice, while the store still reads it back. */
START_TEST(all_find_it_at_once)
{
    declare_on_disk("abc");
    damage(1);
    store_memory_set_auto_sync(harness.store, false);
    find(1);
    find(1);
    get_each("q", "ac");
    find(1);
    ck_assert_uint_eq(1, quarantined());
    ck_assert_uint_eq(0, first_queue()->window.ready_count);
    ck_assert_uint_eq(0, first_queue()->window.ready_bytes);
}
END_TEST

/* Taken out before anything of the queue was read; then the rest goes its ways. */
START_TEST(the_range_goes_on_without_it)
{
    declare_on_disk("abc");
    damage(1);
    if (_i == 0)
        store_memory_set_auto_sync(harness.store, false);
    find(1);
    harness_run(&harness);
    const struct amqp_method purge = {.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")};
    peer_send(peer, 1, &purge);
    ck_assert_uint_eq(0, first_queue()->window.ready_count);
    store_memory_set_auto_sync(harness.store, true);
    harness_run(&harness);
    ck_assert_uint_eq(2, peer_expect(peer, 1, AMQP_QUEUE_PURGE_OK).queue_purge_ok.message_count);
    publish_each("q", "d", &stored);
    restart(true);
    get_each("q", "d");
    ck_assert_uint_eq(1, quarantined());
}
END_TEST

/* Gone, in memory or purged by the time that it has been read by itself. */
START_TEST(it_may_be_gone_meanwhile)
{
    uint64_t lsn;

    declare_queue(peer, "q", true, NULL);
    publish_each("q", "abc", &stored);
    if (_i < 2)
        restart(true);
    const uint64_t id = first_queue()->id;
    damage(1);
    find(1);
    if (_i == 0)
        queue_delete(first_queue());
    else if (_i == 1)
        queue_purge(first_queue(), &lsn);
    else
        get_each("q", "abc");
    store_memory_find(harness.store,
                      &(struct store_finding){.queue_id = id, .is_entry = true, .position = 1});
    ck_assert_uint_eq(0, quarantined());
    restart(true);
    ck_assert_uint_eq(0, quarantined());
}
END_TEST

START_TEST(with_deadlines)
{
    const struct sent sent = {.persistent = true, .expiration = "5000"};

    declare_queue(peer, "q", true, NULL);
    publish_each("q", "abcd", &sent);
    restart(true);
    damage(1);
    damage(2);
    if (_i == 0) {
        store_memory_set_auto_sync(harness.store, false); /* learnt while it can still be read */
        find(1);
        harness_run(&harness);
        store_memory_set_auto_sync(harness.store, true);
    }
    find(1);
    find(2);
    ck_assert_uint_eq(2, quarantined());
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    get_one(peer, "q", "a");
    harness_advance(&harness, 6000);
    get_nothing(peer, "q");
    restart(true);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    ck_assert_uint_eq(2, quarantined());
}
END_TEST

/* To the store each priority is a queue, and in a quorum queue the plain one stands before those
 * below it: 2 ids from the first, in all of these. */
static const struct {
    const char *arguments;
    uint8_t priority;
    const char *others; /* both in the order of the queue, without "c" */
    const char *left;   /* and without "b" */
} prioritized[] = {{"x-max-priority=I5", 2, "dab", "da"},
                   {"x-queue-type=Squorum", 1, "abd", "ad"},
                   {"x-queue-type=Squorum", 6, "dab", "da"}};

static void begin_prioritized(int row)
{
    const struct sent sent = {
        .persistent = true, .has_priority = true, .priority = prioritized[row].priority};

    declare_queue(peer, "q", true, prioritized[row].arguments);
    publish_each("q", "ab", &stored);
    publish_each("q", "cd", &sent);
    restart(true);
}

/* The id under which the store has "c" and "d". */
static uint64_t other_id(int row)
{
    return first_queue()->id + (prioritized[row].priority == 6 ? 6 : 2);
}

START_TEST(with_priorities)
{
    begin_prioritized(_i);
    store_memory_damage(harness.store, other_id(_i), 0);
    store_memory_find(harness.store,
                      &(struct store_finding){.queue_id = other_id(_i), .is_entry = true});
    ck_assert_uint_eq(1, quarantined());
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    restart(true);
    damage(1);
    find(1);
    ck_assert_uint_eq(2, quarantined());
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    restart(true);
    get_each("q", prioritized[_i].left);
    ck_assert_uint_eq(2, quarantined());
}
END_TEST

/* What is lost of one priority is not lost of another. */
START_TEST(each_priority_counts_by_itself)
{
    begin_prioritized(_i);
    find_lost(other_id(_i), -5);
    ck_assert_uint_eq(2, first_queue()->window.ready_count);
    ck_assert_uint_eq(9, count_ready(peer, "q"));
    find_lost(first_queue()->id, -3);
    ck_assert_uint_eq(5, first_queue()->window.ready_count);
    ck_assert_uint_eq(12, count_ready(peer, "q"));
    /* Of ids that the queue keeps free, and of none of its own. */
    for (uint64_t number = 7; number < 40; number++)
        store_memory_find(harness.store,
                          &(struct store_finding){.queue_id = first_queue()->id + number,
                                                  .is_entry = number % 2 == 0,
                                                  .lost_count = 1});
    ck_assert_uint_eq(12, count_ready(peer, "q"));
}
END_TEST

/* It is set aside, or in place. */
START_TEST(a_crash_in_the_middle)
{
    declare_on_disk("abc");
    damage(1);
    store_memory_set_auto_sync(harness.store, false);
    find(1);
    ck_assert_uint_eq(1, quarantined());
    restart(true);
    ck_assert_uint_eq(0, quarantined());
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    get_each("q", "ac");
    ck_assert_uint_eq(1, quarantined());
}
END_TEST

/* No room: what cannot be kept is not taken away either. */
START_TEST(without_room)
{
    declare_on_disk("abc");
    damage(1);
    store_memory_set_room(harness.store, STORE_MEMORY_ROOM_FOR_DELETES);
    get_each("q", "ac");
    harness_run(&harness);
    if (_i == 0) {
        restart(true);
        store_memory_set_room(harness.store, STORE_MEMORY_ROOM_FOR_ALL);
        ck_assert_uint_eq(1, count_ready(peer, "q"));
        get_nothing(peer, "q");
    } else {
        store_memory_set_room(harness.store, STORE_MEMORY_ROOM_FOR_ALL);
        harness_advance(&harness, 1000);
        restart(true);
        ck_assert_uint_eq(0, count_ready(peer, "q"));
    }
    ck_assert_uint_eq(1, quarantined());
}
END_TEST

START_TEST(it_is_bounded_and_cleared)
{
    enum { COUNT = QUARANTINE_COUNT_MAX + 50 };

    declare_queue(peer, "q", true, NULL);
    for (int i = 0; i < COUNT; i++)
        publish_with(peer, "q", "m", &stored);
    publish_with(peer, "q", "last", &stored);
    restart(true);
    for (uint64_t position = 0; position < COUNT; position++)
        damage(position);
    get_one(peer, "q", "last");
    get_nothing(peer, "q");
    ck_assert_uint_eq(QUARANTINE_COUNT_MAX, quarantined());
    ck_assert_uint_eq(1, harness_logged(&harness, "the quarantine is full"));
    restart(true);
    ck_assert_uint_eq(QUARANTINE_COUNT_MAX, quarantined());
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    ck_assert_uint_gt(quarantine_clear(&harness.broker.quarantine), 0);
    ck_assert_uint_eq(0, quarantine_clear(&harness.broker.quarantine));
    ck_assert_uint_eq(0, quarantined());
    restart(true);
    ck_assert_uint_eq(0, quarantined());
    publish_each("q", "ab", &stored);
    restart(true);
    damage(COUNT + 1);
    find(COUNT + 1);
    ck_assert_uint_eq(1, quarantined());
    restart(true);
    ck_assert_uint_eq(1, quarantined());
    get_each("q", "b");
}
END_TEST

/* The record names its queue, but the row of that is lost: the next gets another. */
START_TEST(its_queue_may_be_lost)
{
    static const uint8_t id[8] = {0, 0, 0, 0, 0, 0, 1, 0};

    declare_queue(peer, "q", true, NULL);
    publish_each("q", "abc", &stored);
    store_put_record(harness.store, slice_of("\0quarantine", 11), slice_of(id, sizeof(id)));
    broker_touch_store(&harness.broker);
    harness_run(&harness);
    restart(true);
    ck_assert_uint_eq(0, quarantine_clear(&harness.broker.quarantine));
    damage(1);
    get_each("q", "ac");
    ck_assert_uint_eq(1, quarantined());
    restart(true);
    ck_assert_uint_eq(1, quarantined());
}
END_TEST

/* What is in it may be damaged, too: all of it goes nevertheless. */
START_TEST(what_is_kept_may_be_damaged)
{
    const uint64_t lost = _i == 0 ? 1 : 2;

    declare_on_disk("abc");
    damage(0);
    damage(1);
    get_each("q", "c");
    ck_assert_uint_eq(2, quarantined());
    for (uint64_t position = 0; position < lost; position++)
        store_memory_damage(harness.store, harness.broker.quarantine.id, position);
    restart(true);
    ck_assert_uint_eq(2 - lost, quarantined());
    ck_assert_uint_eq(lost, harness_logged(&harness, "of the quarantine is damaged itself"));
    ck_assert_uint_gt(quarantine_clear(&harness.broker.quarantine), 0);
    ck_assert_uint_eq(0, quarantine_clear(&harness.broker.quarantine));
    ck_assert_uint_eq(0, quarantined());
    restart(true);
    ck_assert_uint_eq(0, quarantined());
    ck_assert_uint_eq(lost, harness_logged(&harness, "of the quarantine is damaged itself"));
}
END_TEST

/* What a mended store has lost, or has back, shows at once. */
START_TEST(counts_follow_the_store)
{
    declare_on_disk("abcdef");
    const int64_t lost = _i == 0 ? 2 : _i == 1 ? -3 : 100;
    find_lost(first_queue()->id, lost);
    ck_assert_uint_eq(_i == 0 ? 4 : _i == 1 ? 9 : 1, first_queue()->window.ready_count);
    ck_assert(window_check(&first_queue()->window));
    harness_run(&harness);
    ck_assert_uint_eq(_i == 0 ? 4 : _i == 1 ? 9 : 6, first_queue()->window.ready_count);
    get_each("q", "abcdef"); /* it is what there is that counts in the end */
}
END_TEST

/* Whoever reads when the store mends a queue is told, once. */
START_TEST(counts_follow_any_read)
{
    const struct amqp_method get = {.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("q")};

    declare_on_disk("abcdef");
    damage(0);
    store_memory_lose(harness.store, -3, -3);
    if (_i == 0)
        find(0);
    else
        peer_send(peer, 1, &get);
    harness_run(&harness);
    if (_i == 0)
        ck_assert_uint_eq(8, count_ready(peer, "q")); /* less the one that is set aside */
    else
        ck_assert_uint_eq(4, peer_expect(peer, 1, AMQP_BASIC_GET_OK).basic_get_ok.message_count);
    ck_assert_uint_eq(1, quarantined());
}
END_TEST

/* What the store has lost is what memory has of it: the rest is handed out nevertheless. */
START_TEST(what_is_left_is_handed_out)
{
    enum { COUNT = 300 };

    declare_queue(peer, "q", true, NULL);
    for (int i = 0; i < COUNT; i++)
        publish_with(peer, "q", "m", &stored);
    restart(true);
    struct paging *paging = &harness.broker.paging;
    paging_set_limit(paging, message_memory() + paging->segment_bytes + 24 * 1024);
    get_one(peer, "q", "m");
    const int64_t loaded = COUNT - (int64_t)first_queue()->window.disk_count;
    ck_assert_int_gt(loaded, 10);
    ck_assert_int_lt(loaded, COUNT - 10);
    for (int i = 0; i < 2; i++) /* all but the one that is left to see */
        find_lost(first_queue()->id, loaded);
    for (int i = 1; i < COUNT; i++)
        get_one(peer, "q", "m");
    get_nothing(peer, "q");
    ck_assert(window_check(&first_queue()->window));
    restart(true);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

/* However few are counted, a purge deletes them all. */
START_TEST(what_is_left_is_purged)
{
    uint64_t lsn;

    declare_on_disk("abcdef");
    find_lost(first_queue()->id, 6);
    queue_purge(first_queue(), &lsn);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    restart(true);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    get_nothing(peer, "q");
}
END_TEST

/* The last of a range, too: nobody is told of one that is not there. */
START_TEST(nothing_is_left)
{
    declare_on_disk("a");
    damage(0);
    find(0);
    harness_run(&harness);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    get_nothing(peer, "q");
    ck_assert_uint_eq(1, quarantined());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quarantine");
    TCase *tests = tcase_create("quarantine");
    tcase_add_checked_fixture(tests, set_up, sync_and_tear_down);
    tcase_add_loop_test(tests, a_read_sets_it_aside, 0, 2);
    tcase_add_loop_test(tests, the_check_sets_it_aside, 0, 3);
    tcase_add_test(tests, all_find_it_at_once);
    tcase_add_loop_test(tests, the_range_goes_on_without_it, 0, 2);
    tcase_add_loop_test(tests, it_may_be_gone_meanwhile, 0, 3);
    tcase_add_loop_test(tests, with_deadlines, 0, 2);
    tcase_add_loop_test(tests, with_priorities, 0, (int)countof(prioritized));
    tcase_add_loop_test(tests, each_priority_counts_by_itself, 0, (int)countof(prioritized));
    tcase_add_test(tests, a_crash_in_the_middle);
    tcase_add_loop_test(tests, without_room, 0, 2);
    tcase_add_test(tests, it_is_bounded_and_cleared);
    tcase_add_test(tests, its_queue_may_be_lost);
    tcase_add_loop_test(tests, what_is_kept_may_be_damaged, 0, 2);
    tcase_add_loop_test(tests, counts_follow_the_store, 0, 3);
    tcase_add_loop_test(tests, counts_follow_any_read, 0, 2);
    tcase_add_test(tests, what_is_left_is_handed_out);
    tcase_add_test(tests, what_is_left_is_purged);
    tcase_add_test(tests, nothing_is_left);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
