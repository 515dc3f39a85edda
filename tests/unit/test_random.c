/* random: a seed replays, the kernel does not, and a bound is kept without bias. */
#include "base/random.h"

#include "tests/lib/unit.h"

/* The published xoshiro256** from the state 1, 2, 3, 4. */
START_TEST(is_xoshiro)
{
    static const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    struct random random = {.seeded = true, .state = {1, 2, 3, 4}};
    for (size_t i = 0; i < countof(expected); i++)
        ck_assert_uint_eq(random_u64(&random), expected[i]);
}
END_TEST

START_TEST(seed_replays)
{
    struct random one, same, other;
    random_init_seeded(&one, 42);
    random_init_seeded(&same, 42);
    random_init_seeded(&other, 43);
    ck_assert_uint_eq(one.state[0], 0xbdd732262feb6e95); /* the published splitmix64 of 42 */
    uint8_t a[37], b[37], c[37];
    random_bytes(&one, a, sizeof a);
    random_bytes(&same, b, sizeof b);
    random_bytes(&other, c, sizeof c);
    ck_assert_mem_eq(a, b, sizeof a);
    ck_assert_mem_ne(a, c, sizeof a);
    ck_assert_uint_eq(random_u64(&one), random_u64(&same));
}
END_TEST

START_TEST(kernel_does_not_replay)
{
    struct random random;
    uint8_t a[1000], b[1000];
    random_init(&random);
    random_bytes(&random, a, sizeof a);
    random_bytes(&random, b, sizeof b);
    ck_assert_mem_ne(a, b, sizeof a);
    ck_assert_uint_ne(random_u64(&random), random_u64(&random));
    random_bytes(&random, a, 0);
}
END_TEST

START_TEST(below_keeps_its_bound)
{
    struct random random;
    random_init_seeded(&random, 7);
    static const uint64_t bounds[] = {1, 2, 3, 10, 1000, UINT64_C(1) << 63, UINT64_MAX};
    for (size_t i = 0; i < countof(bounds); i++)
        for (int round = 0; round < 1000; round++)
            ck_assert_uint_lt(random_below(&random, bounds[i]), bounds[i]);
}
END_TEST

/* A bound of three quarters of 2^64: a plain modulo would hit the first third twice as often as the
 * others. */
START_TEST(below_is_even)
{
    struct random random;
    random_init_seeded(&random, 8);
    const uint64_t third = UINT64_C(1) << 62;
    uint32_t counts[3] = {0};
    for (int round = 0; round < 30000; round++)
        counts[random_below(&random, 3 * third) / third]++;
    for (size_t i = 0; i < 3; i++) { /* six deviations of 82 */
        ck_assert_uint_gt(counts[i], 9500);
        ck_assert_uint_lt(counts[i], 10500);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("random");
    TCase *tests = tcase_create("random");
    tcase_add_test(tests, is_xoshiro);
    tcase_add_test(tests, seed_replays);
    tcase_add_test(tests, kernel_does_not_replay);
    tcase_add_test(tests, below_keeps_its_bound);
    tcase_add_test(tests, below_is_even);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
