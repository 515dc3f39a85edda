/* wheel: fires what a sorted list would fire, in that order, whatever is set and cancelled
 * meanwhile. */
#include "base/wheel.h"

#include "base/random.h"
#include "tests/lib/unit.h"

enum { TIMERS = 200 };

/* The model keeps, for each timer, when it is due and when it was set; the next to fire is the
 * overdue one that was set first, else the least by deadline and then by setting. */
struct model_timer {
    struct timer timer;
    uint64_t deadline_ms, set_at;
    bool set, overdue, due; /* due: part of the advance that is running */
};

static struct model {
    struct wheel wheel;
    struct random random;
    struct model_timer timers[TIMERS];
    uint64_t set_count, fired_count;
} model;

static bool fires_before(const struct model_timer *a, const struct model_timer *b)
{
    if (a->overdue || b->overdue)
        return a->overdue && (!b->overdue || a->set_at < b->set_at);
    if (a->deadline_ms != b->deadline_ms)
        return a->deadline_ms < b->deadline_ms;
    return a->set_at < b->set_at;
}

static struct model_timer *next_due(void)
{
    struct model_timer *next = NULL;
    for (size_t i = 0; i < TIMERS; i++) {
        struct model_timer *timer = &model.timers[i];
        if (timer->set && timer->due && (next == NULL || fires_before(timer, next)))
            next = timer;
    }
    return next;
}

/* Near and far deadlines, and those just at the borders of slots and levels. */
static uint64_t random_deadline(void)
{
    struct random *random = &model.random;
    const uint64_t now = model.wheel.now_ms;
    switch (random_below(random, 6)) {
    case 0:
        return now - min_of(now, random_below(random, 100)); /* passed */
    case 1:
        return now + random_below(random, 64);
    case 2:
        return now + random_below(random, 5000);
    case 3:
        return (now | 63) + random_below(random, 3);
    case 4:
        return (now | 4095) + random_below(random, 3);
    default:
        return now + (random_u64(random) >> (1 + random_below(random, 63)));
    }
}

static void set_random(struct model_timer *timer)
{
    timer->deadline_ms = random_deadline();
    timer->overdue = timer->deadline_ms <= model.wheel.now_ms;
    timer->set = true;
    timer->due = false;
    timer->set_at = model.set_count++;
    timer_set(&model.wheel, &timer->timer, timer->deadline_ms);
}

static void cancel(struct model_timer *timer)
{
    timer->set = false;
    timer_cancel(&timer->timer);
    timer_cancel(&timer->timer);
}

static void act_at_random(void)
{
    struct model_timer *timer = &model.timers[random_below(&model.random, TIMERS)];
    ck_assert_int_eq(timer_is_set(&timer->timer), timer->set);
    if (random_below(&model.random, 3) == 0)
        cancel(timer);
    else
        set_random(timer);
}

static void on_expire(struct timer *timer)
{
    struct model_timer *expired = container_of(timer, struct model_timer, timer);
    ck_assert_ptr_eq(expired, next_due());
    ck_assert(!timer_is_set(timer));
    expired->set = false;
    model.fired_count++;
    for (uint64_t n = random_below(&model.random, 3); n > 0; n--)
        act_at_random(); /* this one, another that is about to fire, one that waits */
}

static void advance(uint64_t now_ms)
{
    for (size_t i = 0; i < TIMERS; i++)
        model.timers[i].due = model.timers[i].set && model.timers[i].deadline_ms <= now_ms;
    wheel_advance(&model.wheel, now_ms);
    ck_assert_ptr_null(next_due());
    ck_assert_uint_eq(model.wheel.now_ms, now_ms);
}

/* Not later than the first deadline, and never "none" while one is set. */
static void check_wait(void)
{
    uint64_t earliest = UINT64_MAX;
    bool any = false;
    for (size_t i = 0; i < TIMERS; i++) {
        if (model.timers[i].set) {
            any = true;
            earliest = min_of(earliest, model.timers[i].deadline_ms);
        }
    }
    const uint64_t now = model.wheel.now_ms;
    const uint64_t wait = wheel_wait_ms(&model.wheel);
    if (any)
        ck_assert_uint_le(wait, earliest > now ? earliest - now : 0);
    else
        ck_assert_uint_eq(wait, UINT64_MAX);
}

START_TEST(is_like_a_sorted_list)
{
    random_init_seeded(&model.random, (uint64_t)_i);
    const uint64_t start = _i == 0 ? 0 : random_u64(&model.random) >> (8 * _i);
    wheel_init(&model.wheel, start);
    for (size_t i = 0; i < TIMERS; i++)
        model.timers[i].timer.on_expire = on_expire;

    for (int step = 0; step < 3000; step++) {
        for (uint64_t n = random_below(&model.random, 10); n > 0; n--)
            act_at_random();
        check_wait();
        const uint64_t wait = wheel_wait_ms(&model.wheel);
        const uint64_t now = model.wheel.now_ms;
        switch (random_below(&model.random, 8)) {
        case 0:
            advance(now + (wait < 100000 ? wait : 0)); /* exactly to what it asks for */
            break;
        case 1:
            advance(now + random_below(&model.random, 1 << 20));
            break;
        case 2:
            advance(now);
            break;
        default:
            advance(now + random_below(&model.random, 100));
        }
        check_wait();
    }
    ck_assert_uint_gt(model.fired_count, 1000);
}
END_TEST

static uint64_t fired_at[16];
static size_t fired;

static void note_time(struct timer *timer)
{
    fired_at[fired++] = timer->deadline_ms;
}

/* The border of every level: one before, on, and one after. */
START_TEST(every_level_fires_in_time)
{
    for (unsigned shift = 0; shift < 64; shift++) {
        const uint64_t border = UINT64_C(1) << shift;
        const uint64_t deadlines[] = {border - 1, border, border + 1};
        for (size_t i = 0; i < countof(deadlines); i++) {
            struct wheel wheel;
            struct timer timer = {.on_expire = note_time};
            fired = 0;
            wheel_init(&wheel, 0);
            timer_set(&wheel, &timer, deadlines[i]);
            unsigned turns = 0;
            while (deadlines[i] > 0 && wheel.now_ms + wheel_wait_ms(&wheel) < deadlines[i]) {
                wheel_advance(&wheel, wheel.now_ms + wheel_wait_ms(&wheel));
                ck_assert_uint_le(++turns, WHEEL_LEVELS);
            }
            ck_assert_uint_eq(fired, 0);
            wheel_advance(&wheel, deadlines[i]);
            ck_assert_uint_eq(fired, 1);
            ck_assert_uint_eq(wheel_wait_ms(&wheel), UINT64_MAX);
        }
    }
}
END_TEST

START_TEST(knows_the_last_moment)
{
    struct wheel wheel;
    struct timer timer = {.on_expire = note_time};
    wheel_init(&wheel, 12345);
    timer_set(&wheel, &timer, UINT64_MAX);
    wheel_advance(&wheel, UINT64_MAX - 1);
    ck_assert_uint_eq(fired, 0);
    ck_assert_uint_eq(wheel_wait_ms(&wheel), 1);
    wheel_advance(&wheel, UINT64_MAX);
    ck_assert_uint_eq(fired, 1);
}
END_TEST

static void set_again(struct timer *timer)
{
    fired++;
    timer_set(&model.wheel, timer, 0);
}

START_TEST(a_past_deadline_waits_for_the_next_turn)
{
    wheel_init(&model.wheel, 1000);
    struct timer *timer = &model.timers[0].timer;
    timer->on_expire = set_again;
    timer_set(&model.wheel, timer, 1000);
    ck_assert_uint_eq(wheel_wait_ms(&model.wheel), 0);
    for (size_t turn = 1; turn <= 5; turn++) {
        wheel_advance(&model.wheel, 1000);
        ck_assert_uint_eq(fired, turn);
        ck_assert(timer_is_set(timer));
    }
    timer_cancel(timer);
    ck_assert_uint_eq(wheel_wait_ms(&model.wheel), UINT64_MAX);
}
END_TEST

START_TEST(time_does_not_go_back)
{
    struct wheel wheel;
    struct timer timer = {.on_expire = note_time};
    wheel_init(&wheel, 1000);
    timer_set(&wheel, &timer, 1010);
    wheel_advance(&wheel, 500);
    ck_assert_uint_eq(wheel.now_ms, 1000);
    ck_assert_uint_eq(wheel_wait_ms(&wheel), 10);
    wheel_advance(&wheel, 1010);
    ck_assert_uint_eq(fired, 1);
}
END_TEST

/* Ten million idle hours, advanced at once, many times: were a millisecond or a slot visited, this
 * would not end. */
START_TEST(idle_time_costs_nothing)
{
    const uint64_t hours = UINT64_C(10000000) * 3600 * 1000;
    wheel_init(&model.wheel, 0);
    struct timer *far = &model.timers[0].timer;
    far->on_expire = note_time;
    timer_set(&model.wheel, far, UINT64_C(1) << 62);
    for (uint64_t turn = 1; turn <= 10000; turn++)
        wheel_advance(&model.wheel, turn * hours);
    ck_assert_uint_eq(fired, 0);
    ck_assert(timer_is_set(far));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wheel");
    TCase *tests = tcase_create("wheel");
    tcase_add_loop_test(tests, is_like_a_sorted_list, 0, 8);
    tcase_add_test(tests, every_level_fires_in_time);
    tcase_add_test(tests, knows_the_last_moment);
    tcase_add_test(tests, a_past_deadline_waits_for_the_next_turn);
    tcase_add_test(tests, time_does_not_go_back);
    tcase_add_test(tests, idle_time_costs_nothing);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
