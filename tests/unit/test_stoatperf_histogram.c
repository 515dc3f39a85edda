/* Buckets are as narrow as promised at every scale, and percentiles are those of the values. */
#include "tests/lib/unit.h"
#include "tools/stoatperf_histogram.h"

static struct histogram histogram;

static void setup(void)
{
    histogram_clear(&histogram);
}

START_TEST(holds_nothing_at_first)
{
    ck_assert_uint_eq(histogram_percentile(&histogram, 50), 0);
    ck_assert_double_eq(histogram_mean(&histogram), 0);
}
END_TEST

START_TEST(numbers_buckets_without_a_gap)
{
    uint32_t last = 0;
    for (uint64_t value = 0; value < 1 << 20; value++) {
        const uint32_t bucket = histogram_bucket(value);
        ck_assert(bucket == last || bucket == last + 1);
        last = bucket;
    }
    ck_assert_uint_eq(histogram_bucket((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1),
                      HISTOGRAM_BUCKETS - 1);
    ck_assert_uint_eq(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}
END_TEST

START_TEST(is_exact_to_one_part_in_128)
{
    for (uint64_t value = 1; value < UINT64_C(1) << HISTOGRAM_VALUE_BITS;
         value = value * 9 / 8 + 1) {
        histogram_clear(&histogram);
        histogram_record(&histogram, value, 1);
        histogram_record(&histogram, value * 4, 1);
        const uint64_t answer = histogram_percentile(&histogram, 50);
        ck_assert_uint_ge(answer, value);
        ck_assert_uint_le(answer - value, value / HISTOGRAM_STEPS);
    }
}
END_TEST

static const struct {
    double percentile;
    uint64_t value;
} percentiles[] = {
    {0, 1}, {1, 1}, {50, 50}, {50.1, 51}, {90, 90}, {99, 99}, {99.9, 100}, {100, 100},
};

START_TEST(finds_percentiles)
{
    for (uint64_t value = 1; value <= 100; value++)
        histogram_record(&histogram, value, 1);
    ck_assert_uint_eq(histogram_percentile(&histogram, percentiles[_i].percentile),
                      percentiles[_i].value);
}
END_TEST

START_TEST(weighs_what_occurred_more_than_once)
{
    histogram_record(&histogram, 10, 98);
    histogram_record(&histogram, 20, 2);
    ck_assert_uint_eq(histogram.count, 100);
    ck_assert_uint_eq(histogram_percentile(&histogram, 98), 10);
    ck_assert_uint_eq(histogram_percentile(&histogram, 99), 20);
    ck_assert_double_eq(histogram_mean(&histogram), 10.2);
}
END_TEST

START_TEST(keeps_the_greatest_beyond_its_range)
{
    histogram_record(&histogram, UINT64_MAX, 1);
    ck_assert_uint_eq(histogram_percentile(&histogram, 50), UINT64_MAX);
    ck_assert_uint_eq(histogram.least, UINT64_MAX);
}
END_TEST

START_TEST(adds_another)
{
    static struct histogram other;
    histogram_clear(&other);
    histogram_add(&histogram, &other);
    ck_assert_uint_eq(histogram.count, 0);

    histogram_record(&histogram, 7, 1);
    histogram_record(&other, 3, 1);
    histogram_record(&other, 90, 1);
    histogram_add(&histogram, &other);
    ck_assert_uint_eq(histogram.count, 3);
    ck_assert_uint_eq(histogram.least, 3);
    ck_assert_uint_eq(histogram.greatest, 90);
    ck_assert_uint_eq(histogram_percentile(&histogram, 50), 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stoatperf_histogram");
    TCase *tests = tcase_create("stoatperf_histogram");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, holds_nothing_at_first);
    tcase_add_test(tests, numbers_buckets_without_a_gap);
    tcase_add_test(tests, is_exact_to_one_part_in_128);
    tcase_add_loop_test(tests, finds_percentiles, 0, (int)countof(percentiles));
    tcase_add_test(tests, weighs_what_occurred_more_than_once);
    tcase_add_test(tests, keeps_the_greatest_beyond_its_range);
    tcase_add_test(tests, adds_another);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
