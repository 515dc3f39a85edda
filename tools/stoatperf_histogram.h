/* A histogram of durations that is exact enough at every scale: within each power of two the
 * buckets are equally wide, HISTOGRAM_STEPS of them, so that a percentile is never off by more than
 * 1 part in HISTOGRAM_STEPS.
 *
 *     value     0 .. 127   128 .. 255   256 .. 511   512 .. 1023   ...   2^42 ns and above
 *     width        1           1            2             4                 all in the last
 *
 * Recording touches one counter; nothing is allocated. Least, greatest and sum are kept exactly. */
#ifndef TOOLS_STOATPERF_HISTOGRAM_H
#define TOOLS_STOATPERF_HISTOGRAM_H

#include "base/base.h"

enum {
    HISTOGRAM_STEP_BITS = 7,
    HISTOGRAM_STEPS = 1 << HISTOGRAM_STEP_BITS,
    HISTOGRAM_VALUE_BITS = 42, /* of nanoseconds: 73 minutes */
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS,
};

struct histogram {
    uint64_t count;
    uint64_t least, greatest; /* valid when count is not 0 */
    double sum;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);

/* The bucket of a value: the power of two says which row, the next HISTOGRAM_STEP_BITS bits which
 * step of it. */
static inline uint32_t histogram_bucket(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (uint32_t)value;
    const uint32_t shift = 63 - (uint32_t)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    const uint64_t bucket = (uint64_t)shift * HISTOGRAM_STEPS + (value >> shift);
    return (uint32_t)min_of(bucket, (uint64_t)HISTOGRAM_BUCKETS - 1);
}

/* Records a value that occurred times times. */
static inline void histogram_record(struct histogram *histogram, uint64_t value, uint64_t times)
{
    if (histogram->count == 0 || value < histogram->least)
        histogram->least = value;
    if (histogram->count == 0 || value > histogram->greatest)
        histogram->greatest = value;
    histogram->count += times;
    histogram->sum += (double)value * (double)times;
    histogram->buckets[histogram_bucket(value)] += times;
}

/* Adds what other holds. */
void histogram_add(struct histogram *histogram, const struct histogram *other);

/* The greatest value that its bucket cannot tell from the one at that percentile (0 to 100), never
 * above the greatest recorded; 0 when nothing was recorded. */
uint64_t histogram_percentile(const struct histogram *histogram, double percentile);

double histogram_mean(const struct histogram *histogram); /* 0 when nothing was recorded */

#endif
