/* What goes all at once is freed a slice a turn. */
#include "core/remains.h"

#include "core/vhost.h"
#include "tests/lib/memory_broker.h"
#include "tests/lib/unit.h"

static struct memory_broker memory;

static void set_up(void)
{
    memory_broker_start(&memory);
}

static void tear_down(void)
{
    memory_broker_stop(&memory);
}

static struct queue *declare(void)
{
    return queue_new(memory.vhost, &(struct queue_options){.name = SLICE("q"), .durable = true});
}

static void push(struct queue *queue, size_t count, uint32_t size)
{
    for (size_t i = 0; i < count; i++) {
        struct message *message = message_new(SLICE(""), SLICE("q"), SLICE("\0\0"), size, false);
        message->body_received = size;
        queue_push(queue, message);
        message_unref(&message);
    }
}

static void drop_by_purge(struct queue *queue)
{
    uint64_t lsn;

    const uint64_t count = queue_ready_count(queue);
    ck_assert_uint_eq(count, queue_purge(queue, &lsn));
    ck_assert_uint_eq(0, lsn);
    ck_assert(window_check(&queue->window));
    ck_assert_uint_eq(0, queue->window.ready_bytes);
}

static void drop_by_delete(struct queue *queue)
{
    queue_delete(queue);
}

static void drop_by_disuse(struct queue *queue) /* x-expires */
{
    queue->unused_timer.on_expire(&queue->unused_timer);
}

static void (*const drops[])(struct queue *queue) = {drop_by_purge, drop_by_delete, drop_by_disuse};

/* At once out of the queue; of memory, a slice in each turn. */
START_TEST(a_turn_frees_a_slice)
{
    enum { COUNT = 5 * REMAINS_SLICE + 17, SIZE = 100 };
    struct remains *remains = &memory.broker.remains;

    struct queue *queue = declare();
    push(queue, COUNT, SIZE);
    drops[_i](queue);
    ck_assert_uint_eq(COUNT, remains->count);

    uint64_t left = COUNT;
    for (; left > 0; left = remains->count) {
        const uint64_t octets = message_memory();
        loop_turn(&memory.loop, 0);
        const uint64_t freed = left - remains->count;
        ck_assert_uint_eq(min_of(left, (uint64_t)REMAINS_SLICE), freed);
        ck_assert_uint_ge(octets - message_memory(), freed * SIZE);
        ck_assert_uint_le(octets - message_memory(), freed * (SIZE + 100));
    }
    ck_assert(!remains->task.queued);
    ck_assert_uint_eq(0, message_memory());
}
END_TEST

/* A large message counts as as many small ones. */
START_TEST(a_slice_has_so_many_octets)
{
    enum { COUNT = 30, SIZE = 1024 * 1024 };

    struct queue *queue = declare();
    push(queue, COUNT, SIZE);
    drop_by_purge(queue);
    loop_turn(&memory.loop, 0);
    ck_assert_uint_eq(COUNT - REMAINS_SLICE * REMAINS_SLICE_OCTETS / SIZE,
                      memory.broker.remains.count);
}
END_TEST

/* However much comes in each turn, a part of all that waits goes. */
START_TEST(what_comes_each_turn_does_not_pile_up)
{
    enum { EACH = 3 * REMAINS_SLICE };
    struct queue *queue = declare();
    uint64_t most = 0;

    for (int i = 0; i < 300; i++) {
        push(queue, EACH, 0);
        drop_by_purge(queue);
        loop_turn(&memory.loop, 0);
        most = max_of(most, memory.broker.remains.count);
    }
    ck_assert_uint_le(most, EACH * REMAINS_SLICE_PART);
}
END_TEST

/* Of a backlog on disk the segments, which are some thousands for a million messages. */
START_TEST(what_was_on_disk_goes_with_them)
{
    enum { COUNT = 3 * SEGMENT_LARGE * 100, LEFT = 100 };
    struct remains *remains = &memory.broker.remains;
    struct queue *queue = declare();
    uint64_t lsn;

    paging_set_limit(&memory.broker.paging, 0);
    for (int i = 0; i < 300; i++) {
        push(queue, SEGMENT_LARGE, 10);
        loop_turn(&memory.loop, 0);
    }
    while (queue->window.disk_count < COUNT) {
        memory.clock.now_ms += 10;
        loop_turn(&memory.loop, 0);
    }
    ck_assert_uint_eq(COUNT, queue_purge(queue, &lsn));
    ck_assert(window_check(&queue->window));
    const uint64_t count = remains->count;
    ck_assert_uint_ge(count, COUNT / SEGMENT_LARGE);
    ck_assert_uint_le(count, COUNT / SEGMENT_LARGE + LEFT);
    loop_turn(&memory.loop, 0);
    ck_assert_uint_eq(0, remains->count);
    ck_assert(TAILQ_EMPTY(&remains->segments) && !remains->task.queued);
}
END_TEST

/* Those that consumers hold stay, wherever they stand. */
START_TEST(unacked_entries_stay)
{
    enum { COUNT = 3 * SEGMENT_LARGE };
    struct queue *queue = declare();
    struct place held[3];
    uint64_t lsn;

    push(queue, COUNT, 10);
    for (size_t i = 0; i < countof(held); i++) {
        ck_assert_int_eq(WINDOW_READY, window_first_ready(&queue->window, &held[i]));
        window_take(&queue->window, held[i]);
    }
    ck_assert_uint_eq(COUNT - countof(held), queue_purge(queue, &lsn));
    ck_assert(window_check(&queue->window));
    push(queue, 2, 10);
    queue_requeue(queue, held[0], NULL, false);
    ck_assert(window_check(&queue->window));
    ck_assert_uint_eq(3, queue_ready_count(queue));
    for (size_t i = 1; i < countof(held); i++)
        queue_ack(queue, held[i], NULL);
    ck_assert(window_check(&queue->window));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("remains");
    TCase *tcase = tcase_create("core");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_loop_test(tcase, a_turn_frees_a_slice, 0, countof(drops));
    tcase_add_test(tcase, a_slice_has_so_many_octets);
    tcase_add_test(tcase, what_comes_each_turn_does_not_pile_up);
    tcase_add_test(tcase, what_was_on_disk_goes_with_them);
    tcase_add_test(tcase, unacked_entries_stay);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
