/* See the header. */
#include "tools/stoatperf_meter.h"

#include "base/alloc.h"

void meter_init(struct meter *meter, int32_t pid)
{
    memset(meter, 0, sizeof(*meter));
    meter->pid = pid;
}

void meter_release(struct meter *meter)
{
    free(meter->intervals);
    meter->intervals = NULL;
    meter->interval_count = 0;
}

static struct counts counts_between(const struct counts *from, const struct counts *to)
{
    return (struct counts){
        .published = to->published - from->published,
        .confirmed = to->confirmed - from->confirmed,
        .nacked = to->nacked - from->nacked,
        .returned = to->returned - from->returned,
        .consumed = to->consumed - from->consumed,
        .redelivered = to->redelivered - from->redelivered,
    };
}

void meter_begin(struct meter *meter, uint64_t now_ns)
{
    histogram_clear(&meter->consume);
    histogram_clear(&meter->confirm);
    histogram_clear(&meter->total_consume);
    histogram_clear(&meter->total_confirm);
    meter->at_begin = meter->at_tick = meter->counts;
    meter->begin_ns = meter->tick_ns = meter->end_ns = now_ns;
    meter_release(meter);
    process_usage_of_self(&meter->ourselves);
    process_usage_of(&meter->broker, meter->pid);
}

/* Moves an interval's histogram into the total. */
static struct latency take_latency(struct histogram *histogram, struct histogram *total)
{
    const struct latency latency = {
        .count = histogram->count,
        .p50 = histogram_percentile(histogram, 50),
        .p99 = histogram_percentile(histogram, 99),
        .greatest = histogram_percentile(histogram, 100),
    };
    histogram_add(total, histogram);
    histogram_clear(histogram);
    return latency;
}

const struct interval *meter_tick(struct meter *meter, uint64_t now_ns)
{
    meter->intervals =
        xrealloc(meter->intervals, meter->interval_count + 1, sizeof(struct interval));
    struct interval *const interval = &meter->intervals[meter->interval_count++];
    *interval = (struct interval){
        .at_s = (double)(now_ns - meter->begin_ns) / 1e9,
        .seconds = (double)(now_ns - meter->tick_ns) / 1e9,
        .counts = counts_between(&meter->at_tick, &meter->counts),
        .consume = take_latency(&meter->consume, &meter->total_consume),
        .confirm = take_latency(&meter->confirm, &meter->total_confirm),
    };
    meter->at_tick = meter->counts;
    meter->tick_ns = meter->end_ns = now_ns;
    return interval;
}

void meter_end(struct meter *meter, uint64_t now_ns)
{
    struct process_usage now;
    if (now_ns > meter->tick_ns)
        meter_tick(meter, now_ns);
    process_usage_of_self(&now);
    process_usage_since(&meter->ourselves, &now);
    process_usage_of(&now, meter->pid);
    process_usage_since(&meter->broker, &now);
}

double meter_seconds(const struct meter *meter)
{
    return (double)(meter->end_ns - meter->begin_ns) / 1e9;
}

struct counts meter_counts(const struct meter *meter)
{
    return counts_between(&meter->at_begin, &meter->at_tick);
}
