/* clock: the real one moves forward, the fake one only by hand. */
#include "base/clock.h"

#include <time.h>

#include "tests/lib/unit.h"

START_TEST(real_time_moves)
{
    struct clock clock = {.fake = false};
    clock_update(&clock);
    const struct clock first = clock;
    const uint64_t first_ns = clock_monotonic_ns();
    ck_assert_uint_ge(first_ns / 1000000, first.now_ms);
    nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    ck_assert_uint_eq(clock.now_ms, first.now_ms); /* a snapshot */
    clock_update(&clock);
    ck_assert_uint_ge(clock.now_ms, first.now_ms + 2);
    ck_assert_uint_ge(clock_monotonic_ns(), first_ns + 3000000);
    ck_assert_uint_le(clock.wall_ms / 1000, (uint64_t)time(NULL) + 1);
    ck_assert_uint_ge(clock.wall_ms / 1000 + 60, (uint64_t)time(NULL));
}
END_TEST

START_TEST(fake_time_obeys)
{
    struct clock clock = {.now_ms = 5, .wall_ms = 1000, .fake = true};
    clock_update(&clock);
    ck_assert_uint_eq(clock.now_ms, 5);
    clock_advance(&clock, 30000);
    ck_assert_uint_eq(clock.now_ms, 30005);
    ck_assert_uint_eq(clock.wall_ms, 31000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *tests = tcase_create("clock");
    tcase_add_test(tests, real_time_moves);
    tcase_add_test(tests, fake_time_obeys);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
