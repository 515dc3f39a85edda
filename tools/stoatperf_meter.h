/* What is counted while a load runs. Publishers and consumers add to counts and to the two
 * histograms of the current interval; every tick closes an interval and moves its histograms into
 * the totals. Only what lies between meter_begin and meter_end is measured. */
#ifndef TOOLS_STOATPERF_METER_H
#define TOOLS_STOATPERF_METER_H

#include "tools/stoatperf_histogram.h"
#include "tools/stoatperf_process.h"

struct counts {
    uint64_t published, confirmed, nacked, returned; /* messages */
    uint64_t consumed, redelivered;                  /* deliveries */
};

struct latency { /* of an interval, in ns */
    uint64_t count, p50, p99, greatest;
};

struct interval {
    double at_s, seconds; /* when it ended, since meter_begin; how long it was */
    struct counts counts; /* in it */
    struct latency consume, confirm;
};

struct meter {
    struct counts counts; /* since the first message */
    /* Since the last tick: from due to consumed, from due to confirmed. */
    struct histogram consume, confirm;

    struct histogram total_consume, total_confirm; /* since meter_begin */
    uint64_t begin_ns, tick_ns, end_ns;
    struct counts at_begin, at_tick;
    struct interval *intervals; /* on the heap */
    size_t interval_count;

    int32_t pid; /* the broker's, or 0 */
    /* At meter_begin; after meter_end what was used in between. */
    struct process_usage broker, ourselves;
};

void meter_init(struct meter *meter, int32_t pid);
void meter_release(struct meter *meter);

/* Begins to measure; what was counted before does not count. */
void meter_begin(struct meter *meter, uint64_t now_ns);

/* Ends an interval and returns it; it lives until the next tick. */
const struct interval *meter_tick(struct meter *meter, uint64_t now_ns);

/* Ends the last interval, without returning it, and the measurement. */
void meter_end(struct meter *meter, uint64_t now_ns);

double meter_seconds(const struct meter *meter);
struct counts meter_counts(const struct meter *meter); /* between begin and the last tick */

#endif
