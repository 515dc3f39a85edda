/* Paging: who gives up what when memory is short, and that what changes while it is written or read
 * is neither lost nor invented. */
#include "core/paging.h"

#include <unistd.h>

#include "amqp/table.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core/queue_page_out.h"
#include "core/queue_read.h"
#include "store/memory.h"
#include "tests/lib/memory_broker.h"
#include "tests/lib/unit.h"

enum { BODY_SIZE = 500, MIB = 1024 * 1024 };

static struct memory_broker memory;

static void set_up(void)
{
    memory_broker_start(&memory);
}

static void tear_down(void)
{
    store_memory_set_auto_sync(memory.store, true);
    memory_broker_sync(&memory);
    memory_broker_stop(&memory);
}

static struct queue *declare(const char *name, bool durable, bool quorum)
{
    struct buf arguments = BUF_EMPTY;
    if (quorum)
        amqp_table_put_string(&arguments, SLICE("x-queue-type"), SLICE("quorum"));
    struct queue *queue =
        queue_new(memory.vhost, &(struct queue_options){.name = slice_of_string(name),
                                                        .durable = durable,
                                                        .arguments = buf_slice(&arguments)});
    buf_release(&arguments);
    return queue;
}

static void turn(void)
{
    loop_turn(&memory.loop, 0);
    map_each (&memory.vhost->queues, link)
        ck_assert(window_check(&container_of(link, struct queue, by_name)->window));
}

/* So many more messages whose bodies begin with their position. */
static void push(struct queue *queue, size_t count, bool persistent)
{
    for (size_t i = 0; i < count; i++) {
        char body[BODY_SIZE] = {0};
        snprintf(body, sizeof(body), "%" PRIu64, queue->window.tail);
        struct message *message =
            message_new(SLICE(""), SLICE("q"), SLICE("\0\0"), sizeof(body), persistent);
        message_append_body(message, slice_of(body, sizeof(body)));
        queue_push(queue, message);
        message_unref(&message);
        if (i % 100 == 99)
            turn();
    }
}

/* Everything that can happen at this moment. */
static void settle(void)
{
    memory_broker_sync(&memory);
    for (int i = 0; i < 50; i++)
        turn();
}

/* Time passes, and nobody does anything. */
static void pass(uint64_t ms)
{
    for (uint64_t passed = 0; passed < ms; passed += 10) {
        memory.clock.now_ms += 10;
        memory.clock.wall_ms += 10;
        settle();
    }
}

static uint64_t used(void)
{
    const struct paging *paging = &memory.broker.paging;
    return message_memory() + paging->segment_bytes + paging->reading_bytes;
}

static uint64_t loaded_bytes(const struct queue *queue)
{
    return queue->window.ready_bytes - queue->window.disk_bytes;
}

struct getter {
    struct queue_waiter waiter;
    struct queue *queue;
    enum window_next next;
    struct place place;
};

static void try(struct queue_waiter *waiter)
{
    struct getter *getter = container_of(waiter, struct getter, waiter);

    getter->next = queue_get(getter->queue, false, &getter->place, &getter->waiter);
}

/* The next message; false: there is none. */
static bool get(struct queue *queue, struct place *place)
{
    struct getter getter = {.waiter.on_loaded = try, .queue = queue};

    try(&getter.waiter);
    for (int i = 0; i < 100 && getter.next == WINDOW_ON_DISK; i++)
        turn();
    ck_assert_int_ne(WINDOW_ON_DISK, getter.next);
    *place = getter.place;
    if (getter.next == WINDOW_READY)
        ck_assert_uint_eq(
            place_position(*place),
            strtoull((const char *)message_body(place_entry(*place)->message).data, NULL, 10));
    return getter.next == WINDOW_READY;
}

/* What stands at first to end - 1 comes next, in order. */
static void expect(struct queue *queue, uint64_t first, uint64_t end)
{
    struct place place;

    for (; first < end; first++) {
        ck_assert(get(queue, &place));
        ck_assert_uint_eq(first, place_position(place));
        queue_ack(queue, place, NULL);
    }
}

static void expect_nothing(struct queue *queue)
{
    struct place place;

    ck_assert(!get(queue, &place));
    ck_assert_uint_eq(0, queue_ready_count(queue));
    ck_assert_uint_eq(0, queue->window.ready_bytes);
}

/* ---- who gives up what ---- */

START_TEST(below_the_limit_nothing_goes)
{
    struct queue *queue = declare("q", true, false);

    paging_set_limit(&memory.broker.paging, 4 * MIB);
    push(queue, 4000, _i == 0);
    settle();
    ck_assert_uint_le(used(), 4 * MIB);
    ck_assert_uint_eq(0, queue->window.disk_count);
}
END_TEST

/* Two large ones keep about the same, a small one all; at their heads; the store's and scratch. */
START_TEST(each_keeps_its_share)
{
    struct queue *small = declare("small", true, false), *large = declare("large", true, false),
                 *larger = declare("larger", true, false);

    paging_set_limit(&memory.broker.paging, MIB);
    push(small, 100, _i == 0);
    push(large, 4000, _i == 0);
    settle();
    push(larger, 9000, _i == 0);
    settle();
    ck_assert_uint_le(used(), MIB);
    ck_assert_uint_eq(0, small->window.disk_count);
    ck_assert_uint_gt(large->window.disk_count, 3000);
    ck_assert_uint_gt(larger->window.disk_count, 8000);
    ck_assert_uint_gt(loaded_bytes(large), MIB / 8);
    ck_assert_uint_gt(loaded_bytes(larger), MIB / 8);
    ck_assert(!segment_is_on_disk(large->window.cursor));
    ck_assert(!segment_is_on_disk(larger->window.cursor));

    for (uint64_t at = 0; at < 4000; at += 500) { /* by turns, as far as memory goes */
        expect(large, at, at + 500);
        expect(larger, at, at + 500);
        ck_assert_uint_le(used(), MIB + MIB / 4);
    }
    expect_nothing(large);
    expect(larger, 4000, 9000);
    expect_nothing(larger);
    expect(small, 0, 100);
}
END_TEST

/* For what a purge has dropped, and is freed in the turns to come, nobody else gives up any. */
START_TEST(what_is_being_freed_is_not_in_use)
{
    struct queue *gone = declare("gone", false, false), *kept = declare("kept", false, false);
    const struct remains *remains = &memory.broker.remains;
    uint64_t lsn;

    push(gone, 20000, false);
    push(kept, 5000, false);
    paging_set_limit(&memory.broker.paging, used());
    queue_purge(gone, &lsn);
    for (int i = 0; i < 40; i++)
        push(kept, 99, false); /* within a turn */
    ck_assert_uint_gt(used(), memory.broker.paging.limit);
    settle();
    ck_assert_uint_eq(0, kept->window.disk_count);
    ck_assert_uint_eq(0, remains->count);
    ck_assert_uint_eq(0, remains->bytes);

    push(kept, 20000, false);
    settle();
    ck_assert_uint_gt(kept->window.disk_count, 0);
}
END_TEST

/* What comes when the last round has found nothing goes all the same, a little later. */
START_TEST(a_burst_after_a_round_in_vain)
{
    struct queue *held = declare("held", false, false), *queue = declare("q", false, false);
    struct place places[100];

    push(held, countof(places), false);
    for (size_t i = 0; i < countof(places); i++)
        ck_assert(get(held, &places[i]));
    paging_set_limit(&memory.broker.paging, 30000);
    settle();
    ck_assert_uint_gt(used(), 30000);
    push(queue, 99, false);
    settle();
    ck_assert_uint_eq(0, queue->window.disk_count);
    pass(20);
    ck_assert_uint_gt(queue->window.disk_count, 50);
    for (size_t i = 0; i < countof(places); i++)
        queue_ack(held, places[i], NULL);
    expect(queue, 0, 99);
}
END_TEST

/* What is unacked cannot go: the others keep less. */
START_TEST(who_can_gives_up_more)
{
    struct queue *held = declare("held", true, false), *queue = declare("q", true, false);
    struct place places[1000];

    push(held, countof(places), true);
    for (size_t i = 0; i < countof(places); i++)
        ck_assert(get(held, &places[i]));
    settle();
    push(queue, 800, true);
    settle();
    const uint64_t limit = used() - 700 * BODY_SIZE; /* the share of one is more than is left */
    paging_set_limit(&memory.broker.paging, limit);
    pass(100);
    ck_assert_uint_le(used(), limit);
    ck_assert_uint_gt(queue->window.disk_count, 0);
    for (size_t i = 0; i < countof(places); i++)
        queue_ack(held, places[i], NULL);
    expect(queue, 0, 800);
}
END_TEST

/* ---- written ---- */

START_TEST(what_cannot_be_written_stays)
{
    struct queue *queue = declare("q", false, false);

    log_level = LOG_NONE;
    push(queue, 1000, false);
    scratch_set_error(memory.broker.scratch, SCRATCH_WRITE, ENOSPC);
    paging_set_limit(&memory.broker.paging, 0);
    settle();
    ck_assert_uint_eq(0, queue->window.disk_count);
    ck_assert_uint_eq(0, memory.broker.paging.writing_bytes);
    scratch_set_error(memory.broker.scratch, SCRATCH_WRITE, 0);
    pass(100);
    ck_assert_uint_eq(0, queue->window.disk_count); /* not at once */
    pass(2000);
    ck_assert_uint_eq(1000, queue->window.disk_count);
    expect(queue, 0, 1000);
    expect_nothing(queue);
}
END_TEST

/* Memory is short, and all that the queue has is being written. */
static void begin_to_write(const struct queue *queue)
{
    const struct segment *segment;

    paging_set_limit(&memory.broker.paging, 0);
    turn();
    TAILQ_FOREACH (segment, &queue->window.segments, link)
        ck_assert_ptr_nonnull(segment->writer);
    ck_assert_uint_eq(0, queue->window.disk_count);
}

/* The file of the memory broker's scratch. */
static int find_scratch(void)
{
    char path[64], name[64];

    for (int fd = 3; fd < 100; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        const ssize_t size = readlink(path, name, sizeof(name) - 1);
        name[max_of(size, 0)] = '\0';
        if (strstr(name, "memfd:scratch") != NULL)
            return fd;
    }
    ck_abort_msg("there is no scratch file");
}

/* One bit of an octet of it; from its end on it begins again. */
static void flip_in_scratch(int octet_number, int bit)
{
    const int file = find_scratch();
    const off_t at = octet_number % lseek(file, 0, SEEK_END);
    uint8_t octet;

    ck_assert_int_eq(1, pread(file, &octet, 1, at));
    octet ^= (uint8_t)(1 << bit);
    ck_assert_int_eq(1, pwrite(file, &octet, 1, at));
}

/* Whatever octet has changed: what comes is as it was, in order, and the rest is counted. */
START_TEST(what_is_damaged_in_scratch_is_set_aside)
{
    enum { COUNT = 8, STEP = 97 };
    struct queue *queue = declare("q", false, false);
    uint64_t came = 0, next = 0;

    push(queue, COUNT, false);
    begin_to_write(queue);
    settle();
    ck_assert_uint_eq(COUNT, queue->window.disk_count);
    flip_in_scratch(_i * STEP, _i % 8);
    for (;; came++) {
        struct getter getter = {.waiter.on_loaded = try, .queue = queue};
        char body[BODY_SIZE] = {0};

        try(&getter.waiter);
        for (int i = 0; i < 100 && getter.next == WINDOW_ON_DISK; i++)
            turn();
        if (getter.next != WINDOW_READY)
            break;
        const uint64_t position = place_position(getter.place);
        ck_assert_uint_ge(position, next);
        next = position + 1;
        snprintf(body, sizeof(body), "%" PRIu64, position);
        ck_assert(slice_equal(message_body(place_entry(getter.place)->message),
                              slice_of(body, sizeof(body))));
        queue_ack(queue, getter.place, NULL);
    }
    ck_assert_uint_lt(came, COUNT);
    ck_assert_uint_eq(COUNT, came + memory.broker.counters.set_aside);
    ck_assert_uint_eq(0, queue_ready_count(queue));
}
END_TEST

/* The store has some of what is in scratch, too: of that nothing is lost, whatever octet has
 * changed, unless it is damaged there as well. */
START_TEST(what_the_store_has_too_is_read_there)
{
    enum { COUNT = 8, STEP = 101 };
    struct queue *queue = declare("q", true, false);
    const uint64_t damaged = _i % 3 == 2 ? 4 : UINT64_MAX;
    struct place place;
    bool came[COUNT] = {false};

    log_level = LOG_NONE;
    for (int i = 0; i < COUNT; i++)
        push(queue, 1, i % 2 == 0);
    settle();
    begin_to_write(queue);
    settle();
    ck_assert_uint_eq(COUNT, queue->window.disk_count);
    flip_in_scratch(_i * STEP, _i % 8);
    if (damaged != UINT64_MAX)
        store_memory_damage(memory.store, queue->id, damaged);

    for (uint64_t next = 0; get(queue, &place); next = place_position(place) + 1) {
        ck_assert_uint_ge(place_position(place), next);
        ck_assert_int_eq(place_position(place) % 2 == 0, place_entry(place)->lsn != 0);
        came[place_position(place)] = true;
        queue_ack(queue, place, NULL);
    }
    uint64_t lost = 0;
    for (uint64_t i = 0; i < COUNT; i++) {
        ck_assert(came[i] || i % 2 == 1 || i == damaged);
        lost += !came[i];
    }
    ck_assert_uint_eq(lost, memory.broker.counters.set_aside);
    expect_nothing(queue);
}
END_TEST

START_TEST(what_is_taken_while_it_is_written)
{
    enum { COUNT = 20 };
    struct queue *queue = declare("q", false, false);
    struct place place;
    uint64_t first = 0;

    push(queue, COUNT, false);
    begin_to_write(queue);
    ck_assert(get(queue, &place));
    switch (_i) {
    case 0: /* unacked: its segment stays */
        turn();
        ck_assert_uint_lt(queue->window.disk_count, COUNT - 1);
        queue_requeue(queue, place, NULL, false);
        break;
    case 1: /* gone: the rest goes without it */
        queue_ack(queue, place, NULL);
        turn();
        ck_assert_uint_eq(COUNT - 1, queue->window.disk_count);
        first = 1;
        break;
    case 2: /* there again */
        queue_requeue(queue, place, NULL, false);
        turn();
        ck_assert_uint_eq(COUNT, queue->window.disk_count);
        break;
    case 3: /* all are gone */
        queue_ack(queue, place, NULL);
        expect(queue, 1, COUNT);
        turn();
        ck_assert_uint_eq(0, queue->window.disk_count);
        first = COUNT;
        break;
    }
    expect(queue, first, COUNT);
    expect_nothing(queue);
}
END_TEST

START_TEST(what_is_pushed_while_the_tail_is_written)
{
    struct queue *queue = declare("q", false, false);

    push(queue, 5, false);
    begin_to_write(queue);
    push(queue, 5, false);
    settle();
    ck_assert_uint_eq(10, queue->window.disk_count);
    expect(queue, 0, 10);
    expect_nothing(queue);
}
END_TEST

/* The counts of a quorum queue are in memory alone: what is written must have the last ones. */
START_TEST(counts_that_change_while_they_are_written)
{
    struct queue *queue = declare("q", true, true);
    struct place place;

    push(queue, 5, true);
    settle();
    ck_assert(get(queue, &place));
    queue_requeue(queue, place, NULL, true);
    paging_set_limit(&memory.broker.paging, 0);
    while (place.segment->writer == NULL)
        turn();
    ck_assert(get(queue, &place));
    queue_requeue(queue, place, NULL, true);
    settle();
    ck_assert_uint_eq(5, queue->window.disk_count);
    ck_assert(get(queue, &place));
    ck_assert_uint_eq(0, place_position(place));
    ck_assert_uint_eq(2, place_entry(place)->acquired_count);
    ck_assert_uint_eq(2, place_entry(place)->delivery_count);
    queue_ack(queue, place, NULL);
    expect(queue, 1, 5);
    expect_nothing(queue);
}
END_TEST

START_TEST(a_queue_that_goes_while_it_is_written_or_read)
{
    struct queue *queue = declare("q", false, false);
    struct getter getter = {.waiter.on_loaded = try, .queue = queue};

    push(queue, 1000, false);
    begin_to_write(queue);
    if (_i == 1) {
        settle();
        try(&getter.waiter);
        ck_assert_int_eq(WINDOW_ON_DISK, getter.next);
        queue_waiter_cancel(&getter.waiter);
    }
    queue_delete(queue);
    settle();
    ck_assert_uint_eq(0, memory.broker.fetches);
    ck_assert_uint_eq(0, used());
}
END_TEST

/* ---- read ---- */

static void fail_reads(int error)
{
    store_memory_fail_fetches(memory.store, error);
    scratch_set_error(memory.broker.scratch, SCRATCH_READ, error);
}

/* A thousand messages, of which all are on disk: in the store, or in scratch. */
static struct queue *page_out_all(bool stored)
{
    struct queue *queue = declare("q", true, false);

    log_level = LOG_NONE;
    push(queue, 1000, stored);
    settle();
    paging_set_limit(&memory.broker.paging, 0);
    settle();
    ck_assert_uint_eq(1000, queue->window.disk_count);
    return queue;
}

/* Whatever it was that is not damage: nothing is lost, and who waits need not ask again. */
START_TEST(a_failed_read_is_tried_again)
{
    struct queue *queue = page_out_all(_i % 2 == 0);
    struct getter getter = {.waiter.on_loaded = try, .queue = queue};

    fail_reads(_i < 2 ? ENOMEM : EIO);
    try(&getter.waiter);
    pass(3000);
    ck_assert_int_eq(WINDOW_ON_DISK, getter.next);
    ck_assert_uint_eq(1000, queue_ready_count(queue));
    ck_assert_uint_eq(1000, queue->window.disk_count);
    ck_assert_uint_eq(0, memory.broker.counters.set_aside);
    fail_reads(0);
    settle();
    ck_assert_int_eq(WINDOW_ON_DISK, getter.next); /* not at once */
    pass(1000);
    ck_assert_int_eq(WINDOW_READY, getter.next);
    ck_assert_uint_eq(0, place_position(getter.place));
    queue_ack(queue, getter.place, NULL);
    expect(queue, 1, 1000);
    expect_nothing(queue);
}
END_TEST

START_TEST(damage_gives_a_part_up)
{
    struct queue *queue = page_out_all(_i == 0);

    const uint64_t gone = window_first_on_disk(&queue->window)->count;
    fail_reads(EBADMSG);
    queue_read(queue, window_first_on_disk(&queue->window));
    turn();
    fail_reads(0);
    settle();
    ck_assert_uint_eq(gone, memory.broker.counters.set_aside);
    expect(queue, gone, 1000);
    expect_nothing(queue);
}
END_TEST

/* A thousand in scratch, of which the store has every second. */
static struct queue *page_out_mixed(void)
{
    struct queue *queue = declare("q", true, false);

    log_level = LOG_NONE;
    for (int i = 0; i < 1000; i++)
        push(queue, 1, i % 2 == 0);
    settle();
    begin_to_write(queue);
    settle();
    ck_assert_uint_eq(1000, queue->window.disk_count);
    paging_set_limit(&memory.broker.paging, PAGING_LIMIT_DEFAULT);
    return queue;
}

/* All comes, in order, but the first so many of those that the store does not have, which are set
 * aside. */
static void expect_but(struct queue *queue, uint64_t lost)
{
    struct place place;
    uint64_t next = 0;

    for (; get(queue, &place); next++) {
        for (; next % 2 == 1 && next / 2 < lost; next++)
            continue;
        ck_assert_uint_eq(next, place_position(place));
        ck_assert_int_eq(next % 2 == 0, place_entry(place)->lsn != 0);
        queue_ack(queue, place, NULL);
    }
    ck_assert_uint_eq(1000, next);
    ck_assert_uint_eq(lost, memory.broker.counters.set_aside);
    expect_nothing(queue);
}

static void pass_seconds(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memory.clock.now_ms += 1000;
        memory.clock.wall_ms += 1000;
        settle();
    }
}

/* It may pass; if not, what could not be read is damaged, and no more than that. */
START_TEST(a_sector_of_scratch_that_fails_for_ever)
{
    struct queue *queue = page_out_mixed();
    struct getter getter = {.waiter.on_loaded = try, .queue = queue};
    const uint64_t gone = window_first_on_disk(&queue->window)->count / 2;

    scratch_set_error(memory.broker.scratch, SCRATCH_READ, EIO);
    try(&getter.waiter);
    settle();
    pass_seconds(28);
    ck_assert_int_eq(WINDOW_ON_DISK, getter.next);
    ck_assert_uint_eq(0, memory.broker.counters.set_aside);
    ck_assert_uint_eq(1000, queue->window.disk_count);
    pass_seconds(1);
    ck_assert_int_eq(WINDOW_READY, getter.next);
    ck_assert_uint_eq(gone, memory.broker.counters.set_aside);
    queue_requeue(queue, getter.place, NULL, false);
    queue_read(queue, window_first_on_disk(&queue->window));
    pass_seconds(20); /* what follows is tried as often */
    ck_assert_uint_eq(gone, memory.broker.counters.set_aside);
    scratch_set_error(memory.broker.scratch, SCRATCH_READ, 0);
    pass_seconds(1);
    expect_but(queue, gone);
}
END_TEST

/* What is behind its end, some of an entry or all, is read in the store. */
START_TEST(scratch_that_is_cut_short)
{
    struct queue *queue = page_out_mixed();
    const struct segment *first = window_first_on_disk(&queue->window);
    const size_t size = first->place.size / first->count;

    ck_assert_uint_eq(0, first->place.offset);
    const off_t end = (off_t)(size * ((unsigned)_i / 2) + (unsigned)_i % 2 * 8); /* or a bit more */
    ck_assert_int_eq(0, ftruncate(find_scratch(), end));
    struct place place;
    uint64_t came = 0;
    for (uint64_t next = 0; get(queue, &place); came++) {
        const uint64_t position = place_position(place);
        ck_assert_uint_le(position, next + 1);
        ck_assert_uint_ge(position, next);
        next = position + 1;
        queue_ack(queue, place, NULL); /* and the segment may be gone */
    }
    ck_assert_uint_eq(500 + (uint64_t)_i / 4, came);
    ck_assert_uint_eq(1000 - came, memory.broker.counters.set_aside);
    expect_nothing(queue);
}
END_TEST

/* While a range is read, what stood before it joins it: what was read begins behind that. Or it
 * joins what stood before it, and is gone. */
START_TEST(a_range_with_a_new_front)
{
    struct queue *queue = declare("q", true, false);
    const size_t count = _i == 0 ? SEGMENT_SMALL : SEGMENT_SMALL + 2;
    struct place places[SEGMENT_SMALL + 2], place;
    struct queue_waiter waiter = {.on_loaded = queue_waiter_cancel};

    push(queue, 1000, true);
    settle();
    for (size_t i = 0; i < count; i++)
        ck_assert(get(queue, &places[i]));
    paging_set_limit(&memory.broker.paging, 0);
    settle();
    ck_assert_uint_eq(1000 - count, queue->window.disk_count);
    ck_assert_int_eq(WINDOW_ON_DISK, queue_get(queue, false, &place, &waiter));
    ck_assert_uint_eq(count, queue->window.reading->first);
    for (size_t i = 0; i < count; i++)
        queue_requeue(queue, places[i], NULL, false);
    queue_page_out(&queue->window, 0, 64);
    if (_i == 0)
        ck_assert_uint_eq(0, queue->window.reading->first);
    else
        ck_assert_ptr_null(queue->window.reading);
    ck_assert_uint_eq(1000, queue->window.disk_count);
    expect(queue, 0, 1000);
    expect_nothing(queue);
}
END_TEST

/* What is deleted by a batch that is not durable is still in the store: nobody may read it back. */
START_TEST(a_delete_under_way)
{
    struct queue *queue = declare("q", true, false);
    struct place places[10];
    uint64_t lsn;

    push(queue, 100, true);
    settle();
    for (size_t i = 0; i < countof(places); i++)
        ck_assert(get(queue, &places[i]));
    store_memory_set_auto_sync(memory.store, false);
    if (_i == 0)
        ck_assert_uint_eq(90, queue_purge(queue, &lsn));
    else
        for (size_t i = 5; i < countof(places); i++)
            queue_ack(queue, places[i], NULL);
    for (size_t i = 0; i < (_i == 0 ? countof(places) : 5); i++)
        queue_requeue(queue, places[i], NULL, false);
    paging_set_limit(&memory.broker.paging, 0);
    for (int i = 0; i < 20; i++)
        turn();
    if (_i == 0) {
        expect(queue, 0, 10);
    } else {
        expect(queue, 0, 5);
        expect(queue, 10, 100);
    }
    expect_nothing(queue);
}
END_TEST

static void pass_unsynced(uint64_t ms)
{
    for (uint64_t passed = 0; passed < ms; passed += 10) {
        memory.clock.now_ms += 10;
        memory.clock.wall_ms += 10;
        turn();
    }
}

/* Of 50 ms. */
static void push_with_expiration(struct queue *queue)
{
    const struct slice properties = SLICE("\x01\x00\x02\x35\x30");
    struct message *message = message_new(SLICE(""), SLICE("q"), properties, 1, true);
    message_append_body(message, SLICE("1"));
    queue_push(queue, message);
    message_unref(&message);
}

/* What goes with all of its segment leaves a hole: a stub whose time is over, or what was read of
 * it and acknowledged. Those on both sides, read and given up again, do not bring it back. */
START_TEST(a_hole_under_way)
{
    struct queue *queue = declare("q", true, false);
    struct place places[3];

    paging_set_limit(&memory.broker.paging, 0);
    push(queue, 1, true);
    settle();
    push_with_expiration(queue);
    settle();
    push(queue, 1, true);
    settle();
    ck_assert_uint_eq(3, queue->window.disk_count);
    store_memory_set_auto_sync(memory.store, false);
    if (_i == 0)
        pass_unsynced(60);
    for (int i = 0; i < 3 - (_i == 0); i++) {
        ck_assert(get(queue, &places[i]));
        if (_i == 1 && i == 1)
            queue_ack(queue, places[1], NULL);
    }
    queue_requeue(queue, places[0], NULL, false);
    queue_requeue(queue, places[2 - (_i == 0)], NULL, false);
    pass_unsynced(2000);
    ck_assert_uint_eq(2, queue->window.disk_count);
    expect(queue, 0, 1);
    expect(queue, 2, 3);
    expect_nothing(queue);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("paging");
    TCase *rounds = tcase_create("rounds");
    tcase_add_checked_fixture(rounds, set_up, tear_down);
    tcase_add_loop_test(rounds, below_the_limit_nothing_goes, 0, 2);
    tcase_add_loop_test(rounds, each_keeps_its_share, 0, 2);
    tcase_add_test(rounds, what_is_being_freed_is_not_in_use);
    tcase_add_test(rounds, a_burst_after_a_round_in_vain);
    tcase_add_test(rounds, who_can_gives_up_more);
    suite_add_tcase(suite, rounds);

    TCase *writing = tcase_create("writing");
    tcase_add_checked_fixture(writing, set_up, tear_down);
    tcase_add_test(writing, what_cannot_be_written_stays);
    tcase_add_loop_test(writing, what_is_damaged_in_scratch_is_set_aside, 0, 48);
    tcase_add_loop_test(writing, what_the_store_has_too_is_read_there, 0, 48);
    tcase_add_loop_test(writing, what_is_taken_while_it_is_written, 0, 4);
    tcase_add_test(writing, what_is_pushed_while_the_tail_is_written);
    tcase_add_test(writing, counts_that_change_while_they_are_written);
    tcase_add_loop_test(writing, a_queue_that_goes_while_it_is_written_or_read, 0, 2);
    suite_add_tcase(suite, writing);

    TCase *reading = tcase_create("reading");
    tcase_add_checked_fixture(reading, set_up, tear_down);
    tcase_add_loop_test(reading, a_failed_read_is_tried_again, 0, 4);
    tcase_add_loop_test(reading, damage_gives_a_part_up, 0, 2);
    tcase_add_test(reading, a_sector_of_scratch_that_fails_for_ever);
    tcase_add_loop_test(reading, scratch_that_is_cut_short, 0, 10);
    tcase_add_loop_test(reading, a_range_with_a_new_front, 0, 2);
    tcase_add_loop_test(reading, a_delete_under_way, 0, 2);
    tcase_add_loop_test(reading, a_hole_under_way, 0, 2);
    suite_add_tcase(suite, reading);
    return unit_main(suite);
}
