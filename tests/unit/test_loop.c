/* The loop: the order of a turn, what a task may do to others, and that nobody hears from a source
 * that is gone. */
#include "net/loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/lib/unit.h"

static struct clock test_clock;
static struct loop loop;

static char trail[64]; /* a letter for each thing that ran */

static void note(char letter)
{
    const size_t length = strlen(trail);
    ck_assert_uint_lt(length + 1, sizeof(trail));
    trail[length] = letter;
    trail[length + 1] = '\0';
}

static void setup(void)
{
    test_clock = (struct clock){.now_ms = 1000, .wall_ms = 1000000, .fake = true};
    trail[0] = '\0';
    ck_assert_int_eq(loop_init(&loop, &test_clock), 0);
}

static void teardown(void)
{
    loop_release(&loop);
}

/* A task that notes its letter and then queues others. */
struct step {
    struct task task;
    char letter;
    struct step *next;
    enum loop_phase next_phase;
    struct step *removes;
};

static void run_step(struct task *task)
{
    struct step *step = container_of(task, struct step, task);
    note(step->letter);
    if (step->removes != NULL)
        loop_unqueue(&loop, &step->removes->task);
    if (step->next != NULL)
        loop_queue(&loop, step->next_phase, &step->next->task);
}

#define STEP(x)                                                                                    \
    {                                                                                              \
        .task = {.run = run_step}, .letter = (x)                                                   \
    }

static void note_timer(struct timer *timer)
{
    (void)timer;
    note('t');
}

static void note_event(struct source *source, uint32_t events)
{
    (void)events;
    uint64_t value;
    if (read(source->fd, &value, sizeof(value)) == sizeof(value))
        note('e');
}

START_TEST(a_turn_has_its_order)
{
    struct step input = STEP('i'), deferred = STEP('d'), store = STEP('s'), output = STEP('o'),
                reap = STEP('r');
    struct timer timer = {.on_expire = note_timer};
    struct source source = {.fd = eventfd(1, EFD_NONBLOCK), .on_ready = note_event};
    ck_assert_int_eq(loop_watch(&loop, &source), 0);
    loop_queue(&loop, LOOP_REAP, &reap.task);
    loop_queue(&loop, LOOP_OUTPUT, &output.task);
    loop_queue(&loop, LOOP_STORE, &store.task);
    loop_queue(&loop, LOOP_DEFERRED, &deferred.task);
    loop_queue(&loop, LOOP_INPUT, &input.task);
    timer_set(&loop.timers, &timer, 1000);
    clock_advance(&test_clock, 1);

    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "eitdsor");
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "eitdsor");
    ck_assert_uint_eq(loop.turns, 2);

    loop_unwatch(&loop, &source);
    close(source.fd);
}
END_TEST

START_TEST(a_later_phase_is_this_turn_an_earlier_the_next)
{
    struct step a = STEP('a'), b = STEP('b'), c = STEP('c'), d = STEP('d');
    a.next = &b, a.next_phase = LOOP_OUTPUT; /* later */
    b.next = &c, b.next_phase = LOOP_OUTPUT; /* the same */
    c.next = &d, c.next_phase = LOOP_INPUT;  /* earlier */
    loop_queue(&loop, LOOP_DEFERRED, &a.task);

    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "ab");
    loop_turn(&loop, UINT64_MAX); /* does not wait: a task is queued */
    ck_assert_str_eq(trail, "abc");
    loop_turn(&loop, UINT64_MAX);
    ck_assert_str_eq(trail, "abcd");
}
END_TEST

START_TEST(a_task_queues_itself_for_the_next_turn)
{
    struct step a = STEP('a');
    a.next = &a, a.next_phase = LOOP_INPUT;
    loop_queue(&loop, LOOP_INPUT, &a.task);
    for (int i = 0; i < 3; i++)
        loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "aaa");
    loop_unqueue(&loop, &a.task);
    loop_unqueue(&loop, &a.task);
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "aaa");
}
END_TEST

START_TEST(queueing_twice_is_queueing_once)
{
    struct step a = STEP('a');
    loop_queue(&loop, LOOP_STORE, &a.task);
    loop_queue(&loop, LOOP_STORE, &a.task);
    loop_queue(&loop, LOOP_REAP, &a.task);
    ck_assert_uint_eq(a.task.phase, LOOP_STORE);
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "a");
}
END_TEST

START_TEST(a_task_takes_another_out)
{
    struct step a = STEP('a'), b = STEP('b'), c = STEP('c');
    a.removes = &c; /* the last of the list */
    loop_queue(&loop, LOOP_INPUT, &a.task);
    loop_queue(&loop, LOOP_INPUT, &b.task);
    loop_queue(&loop, LOOP_INPUT, &c.task);
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "ab");
    ck_assert(!c.task.queued);
}
END_TEST

/* Two sources, both ready: whoever comes first unwatches the other and closes it. */
static struct source pair[2];

static void unwatch_the_other(struct source *source, uint32_t events)
{
    struct source *other = source == &pair[0] ? &pair[1] : &pair[0];
    (void)events;
    note('x');
    loop_unwatch(&loop, other);
    close(other->fd);
    *other = (struct source){.fd = -1};
}

START_TEST(no_event_comes_for_a_source_that_is_gone)
{
    for (int i = 0; i < 2; i++) {
        pair[i] = (struct source){.fd = eventfd(1, EFD_NONBLOCK), .on_ready = unwatch_the_other};
        ck_assert_int_eq(loop_watch(&loop, &pair[i]), 0);
    }
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "x");
    struct source *left = pair[0].fd >= 0 ? &pair[0] : &pair[1];
    loop_unwatch(&loop, left);
    close(left->fd);
}
END_TEST

START_TEST(sources_are_edge_triggered)
{
    struct source source = {.fd = eventfd(0, EFD_NONBLOCK), .on_ready = note_event};
    ck_assert_int_eq(loop_watch(&loop, &source), 0);
    loop_turn(&loop, 0); /* not readable, and being writable does not count */
    ck_assert_str_eq(trail, "");
    ck_assert_int_eq(eventfd_write(source.fd, 1), 0);
    loop_turn(&loop, UINT64_MAX);
    ck_assert_str_eq(trail, "e");
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "e");
    loop_unwatch(&loop, &source);
    close(source.fd);
}
END_TEST

START_TEST(a_bad_descriptor_is_an_error)
{
    struct source source = {.fd = -1, .on_ready = note_event};
    ck_assert_int_eq(loop_watch(&loop, &source), -EBADF);
}
END_TEST

static int counted;

static void count_event(struct source *source, uint32_t events)
{
    (void)source, (void)events;
    counted++;
}

START_TEST(many_events_take_more_than_one_turn)
{
    static struct source sources[LOOP_EVENTS_MAX + 10];
    for (size_t i = 0; i < countof(sources); i++) {
        sources[i] = (struct source){.fd = eventfd(1, EFD_NONBLOCK), .on_ready = count_event};
        ck_assert_int_eq(loop_watch(&loop, &sources[i]), 0);
    }
    loop_turn(&loop, 0);
    ck_assert_int_eq(counted, LOOP_EVENTS_MAX);
    loop_turn(&loop, 0);
    ck_assert_int_eq(counted, countof(sources));
    for (size_t i = 0; i < countof(sources); i++) {
        loop_unwatch(&loop, &sources[i]);
        close(sources[i].fd);
    }
}
END_TEST

START_TEST(timers_follow_the_fake_clock)
{
    struct timer timer = {.on_expire = note_timer};
    timer_set(&loop.timers, &timer, 1000 + 3600 * 1000);
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "");
    clock_advance(&test_clock, 3600 * 1000 - 1);
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "");
    clock_advance(&test_clock, 1);
    loop_turn(&loop, 0);
    ck_assert_str_eq(trail, "t");
}
END_TEST

START_TEST(a_turn_waits_no_longer_than_asked)
{
    struct timer timer = {.on_expire = note_timer};
    timer_set(&loop.timers, &timer, 1000 + 60 * 1000);
    const uint64_t begin_ns = clock_monotonic_ns();
    loop_turn(&loop, 10);
    const uint64_t took_ms = (clock_monotonic_ns() - begin_ns) / 1000000;
    ck_assert_uint_ge(took_ms, 9);
    ck_assert_uint_lt(took_ms, 10000);
    timer_cancel(&timer);
}
END_TEST

static void stop_the_loop(struct timer *timer)
{
    (void)timer;
    note('t');
    loop_stop(&loop);
}

START_TEST(the_real_clock_wakes_the_loop)
{
    struct clock real = {0};
    loop_release(&loop);
    ck_assert_int_eq(loop_init(&loop, &real), 0);
    struct timer timer = {.on_expire = stop_the_loop};
    timer_set(&loop.timers, &timer, real.now_ms + 20);
    const uint64_t begin_ns = clock_monotonic_ns();
    loop_run(&loop);
    ck_assert_uint_ge((clock_monotonic_ns() - begin_ns) / 1000000, 18);
    ck_assert_str_eq(trail, "t");
}
END_TEST

START_TEST(buffers_rest_up_to_a_limit)
{
    enum { COUNT = LOOP_BUFFERS_MAX + 5 };
    struct buf buffers[COUNT];
    for (int i = 0; i < COUNT; i++) {
        buffers[i] = loop_take_buffer(&loop);
        ck_assert_uint_eq(buffers[i].capacity, LOOP_BUFFER_SIZE);
        buf_append(&buffers[i], SLICE("x"));
    }
    ck_assert_uint_eq(loop.buffer_count, 0);
    buf_reserve(&buffers[0], 2 * LOOP_BUFFER_SIZE); /* grown: is not kept */
    for (int i = 0; i < COUNT; i++) {
        loop_give_buffer(&loop, &buffers[i]);
        ck_assert_ptr_null(buffers[i].data);
        ck_assert_uint_eq(loop.buffer_count, min_of(i, LOOP_BUFFERS_MAX));
    }
    struct buf again = loop_take_buffer(&loop);
    ck_assert_uint_eq(buf_size(&again), 0);
    ck_assert_uint_eq(loop.buffer_count, LOOP_BUFFERS_MAX - 1);
    loop_give_buffer(&loop, &again);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loop");
    TCase *tests = tcase_create("loop");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_turn_has_its_order);
    tcase_add_test(tests, a_later_phase_is_this_turn_an_earlier_the_next);
    tcase_add_test(tests, a_task_queues_itself_for_the_next_turn);
    tcase_add_test(tests, queueing_twice_is_queueing_once);
    tcase_add_test(tests, a_task_takes_another_out);
    tcase_add_test(tests, no_event_comes_for_a_source_that_is_gone);
    tcase_add_test(tests, sources_are_edge_triggered);
    tcase_add_test(tests, a_bad_descriptor_is_an_error);
    tcase_add_test(tests, many_events_take_more_than_one_turn);
    tcase_add_test(tests, timers_follow_the_fake_clock);
    tcase_add_test(tests, a_turn_waits_no_longer_than_asked);
    tcase_add_test(tests, the_real_clock_wakes_the_loop);
    tcase_add_test(tests, buffers_rest_up_to_a_limit);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
