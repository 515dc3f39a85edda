/* Latencies are printed in microseconds, sizes in bytes; the JSON has the unit in each name. */
#include "tools/stoatperf_report.h"

#include <jansson.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static double microseconds(uint64_t ns)
{
    return (double)ns / 1e3;
}

static double per_second(uint64_t count, double seconds)
{
    return seconds > 0 ? (double)count / seconds : 0;
}

/* What the CPU time is divided by: every message counts once where it goes in and out. */
static uint64_t messages_of(const struct counts *counts)
{
    return max_of(counts->published, counts->consumed);
}

static double cpu_us_per_message(const struct process_usage *usage, const struct counts *counts)
{
    const uint64_t messages = messages_of(counts);
    return messages > 0 ? usage->cpu_s * 1e6 / (double)messages : 0;
}

/* --- text --- */

static void print_plural(uint32_t count, const char *noun)
{
    printf("%" PRIu32 " %s%s, ", count, noun, count == 1 ? "" : "s");
}

void report_scenario(const struct load *load)
{
    const struct options *const options = load->options;
    printf("%s %s at %s:%s: ", load->broker.product, load->broker.version, options->uri.host,
           options->uri.port);
    print_plural(options->publishers, "publisher");
    print_plural(options->consumers, "consumer");
    print_plural(options->queues, "queue");
    printf("%" PRIu64 " B %s", options->body_size,
           options->persistent ? "persistent" : "transient");
    if (options->fan_out)
        printf(", fan-out");
    if (options->confirm_window > 0)
        printf(", confirms within %" PRIu32, options->confirm_window);
    if (options->ack_batch > 0)
        printf(", an ack for %" PRIu32, options->ack_batch);
    if (options->prefetch > 0)
        printf(", prefetch %" PRIu32, options->prefetch);
    if (options->rate > 0)
        printf(", %" PRIu64 "/s", options->rate);
    printf("\n");
    fflush(stdout);
}

static void print_interval_latency(const char *name, const struct latency *latency)
{
    if (latency->count > 0)
        printf("  %s p50 %.0f p99 %.0f max %.0f us", name, microseconds(latency->p50),
               microseconds(latency->p99), microseconds(latency->greatest));
}

void report_interval(const struct interval *interval)
{
    const struct counts *const counts = &interval->counts;
    printf("%7.1f s  published %9.0f/s", interval->at_s,
           per_second(counts->published, interval->seconds));
    if (counts->confirmed > 0)
        printf("  confirmed %9.0f/s", per_second(counts->confirmed, interval->seconds));
    printf("  consumed %9.0f/s", per_second(counts->consumed, interval->seconds));
    print_interval_latency("latency", &interval->consume);
    print_interval_latency("confirm", &interval->confirm);
    printf("\n");
    fflush(stdout);
}

static void print_count(const char *name, uint64_t count, double seconds, uint64_t body_size)
{
    if (count > 0)
        printf("  %-12s %12" PRIu64 "  %11.0f/s  %9.1f MB/s\n", name, count,
               per_second(count, seconds), per_second(count * body_size, seconds) / 1e6);
}

static void print_latency(const char *name, const struct histogram *histogram)
{
    if (histogram->count == 0)
        return;
    printf("  %-12s p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f  mean %.1f us\n", name,
           microseconds(histogram_percentile(histogram, 50)),
           microseconds(histogram_percentile(histogram, 90)),
           microseconds(histogram_percentile(histogram, 99)),
           microseconds(histogram_percentile(histogram, 99.9)), microseconds(histogram->greatest),
           histogram_mean(histogram) / 1e3);
}

static void print_usage(const char *name, const struct process_usage *usage,
                        const struct counts *counts, double seconds)
{
    if (!usage->known)
        return;
    printf("  %-12s %.3f us of CPU a message (%.2f cores, user %.2f, system %.2f), "
           "%.1f MB resident (most %.1f), %.0f switches/s, %.1f MB/s written\n",
           name, cpu_us_per_message(usage, counts), usage->cpu_s / seconds, usage->user_s / seconds,
           usage->system_s / seconds, (double)usage->resident / 1e6,
           (double)usage->resident_most / 1e6, per_second(usage->slices, seconds),
           per_second(usage->written, seconds) / 1e6);
}

static void print_phase(const struct phase *phase, uint64_t body_size)
{
    const struct meter *const meter = &phase->meter;
    const struct counts counts = meter_counts(meter);
    const double seconds = meter_seconds(meter);
    printf("%s: %.3f s\n", phase->name, seconds);
    print_count("published", counts.published, seconds, body_size);
    print_count("confirmed", counts.confirmed, seconds, body_size);
    print_count("nacked", counts.nacked, seconds, body_size);
    print_count("returned", counts.returned, seconds, body_size);
    print_count("consumed", counts.consumed, seconds, body_size);
    print_count("redelivered", counts.redelivered, seconds, body_size);
    if (phase->first_tenth > 0)
        printf("  %-12s %.0f/s in the first tenth, %.0f/s in the last\n", "drain",
               phase->first_tenth, phase->last_tenth);
    print_latency("latency", &meter->total_consume);
    print_latency("confirm", &meter->total_confirm);
    print_usage("broker", &meter->broker, &counts, seconds);
    print_usage("stoatperf", &meter->ourselves, &counts, seconds);
}

void report_text(const struct load *load)
{
    for (uint32_t i = 0; i < load->phase_count; i++)
        print_phase(&load->phases[i], load->options->body_size);
    if (failure_is_set(&load->void_run))
        printf("VOID: %s\n", load->void_run.text);
    else if (load->options->verify)
        printf("verified: %" PRIu64 " deliveries, each once and in order; %" PRIu64 " missing\n",
               load->verify.distinct, verify_lost(&load->verify));
}

/* --- JSON --- */

static json_t *json_of_uint(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *json_of_counts(const struct counts *counts)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "published", json_of_uint(counts->published),
                     "confirmed", json_of_uint(counts->confirmed), "nacked",
                     json_of_uint(counts->nacked), "returned", json_of_uint(counts->returned),
                     "consumed", json_of_uint(counts->consumed), "redelivered",
                     json_of_uint(counts->redelivered));
}

static json_t *json_of_rates(const struct counts *counts, double seconds)
{
    return json_pack("{s:f, s:f, s:f}", "published", per_second(counts->published, seconds),
                     "confirmed", per_second(counts->confirmed, seconds), "consumed",
                     per_second(counts->consumed, seconds));
}

static json_t *json_of_interval_latency(const struct latency *latency)
{
    return latency->count == 0
               ? json_null()
               : json_pack("{s:f, s:f, s:f}", "p50", microseconds(latency->p50), "p99",
                           microseconds(latency->p99), "max", microseconds(latency->greatest));
}

static json_t *json_of_intervals(const struct meter *meter)
{
    json_t *const intervals = json_array();
    for (size_t i = 0; i < meter->interval_count; i++) {
        const struct interval *const interval = &meter->intervals[i];
        json_array_append_new(
            intervals, json_pack("{s:f, s:f, s:o, s:o, s:o}", "at_s", interval->at_s, "seconds",
                                 interval->seconds, "rates",
                                 json_of_rates(&interval->counts, interval->seconds), "latency_us",
                                 json_of_interval_latency(&interval->consume), "confirm_latency_us",
                                 json_of_interval_latency(&interval->confirm)));
    }
    return intervals;
}

static json_t *json_of_latency(const struct histogram *histogram)
{
    if (histogram->count == 0)
        return json_null();
    return json_pack("{s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "count",
                     json_of_uint(histogram->count), "min", microseconds(histogram->least), "mean",
                     histogram_mean(histogram) / 1e3, "p50",
                     microseconds(histogram_percentile(histogram, 50)), "p90",
                     microseconds(histogram_percentile(histogram, 90)), "p99",
                     microseconds(histogram_percentile(histogram, 99)), "p99.9",
                     microseconds(histogram_percentile(histogram, 99.9)), "max",
                     microseconds(histogram->greatest));
}

static json_t *json_of_usage(const struct process_usage *usage, const struct counts *counts)
{
    if (!usage->known)
        return json_null();
    return json_pack("{s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "cpu_us_per_message",
                     cpu_us_per_message(usage, counts), "cpu_s", usage->cpu_s, "user_s",
                     usage->user_s, "system_s", usage->system_s, "switches",
                     json_of_uint(usage->slices), "resident_bytes", json_of_uint(usage->resident),
                     "resident_most_bytes", json_of_uint(usage->resident_most), "written_bytes",
                     json_of_uint(usage->written));
}

static json_t *json_of_phase(const struct phase *phase)
{
    const struct meter *const meter = &phase->meter;
    const struct counts counts = meter_counts(meter);
    const double seconds = meter_seconds(meter);
    json_t *const object = json_pack(
        "{s:s, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name", phase->name, "seconds", seconds,
        "counts", json_of_counts(&counts), "rates", json_of_rates(&counts, seconds), "latency_us",
        json_of_latency(&meter->total_consume), "confirm_latency_us",
        json_of_latency(&meter->total_confirm), "broker_process",
        json_of_usage(&meter->broker, &counts), "own_process",
        json_of_usage(&meter->ourselves, &counts), "intervals", json_of_intervals(meter));
    if (phase->first_tenth > 0) {
        json_object_set_new(object, "first_tenth_per_s", json_real(phase->first_tenth));
        json_object_set_new(object, "last_tenth_per_s", json_real(phase->last_tenth));
    }
    return object;
}

static json_t *json_of_options(const struct options *options)
{
    return json_pack("{s:i, s:i, s:i, s:o, s:b, s:b, s:b, s:b, s:b, s:i, s:i, s:i, s:o, s:o, s:o, "
                     "s:f, s:f, s:s*}",
                     "publishers", options->publishers, "consumers", options->consumers, "queues",
                     options->queues, "body_bytes", json_of_uint(options->body_size), "persistent",
                     options->persistent, "durable", options->durable, "mandatory",
                     options->mandatory, "fan_out", options->fan_out, "predeclared",
                     options->predeclared, "confirm_window", options->confirm_window, "prefetch",
                     options->prefetch, "ack_batch", options->ack_batch, "rate_per_s",
                     json_of_uint(options->rate), "messages", json_of_uint(options->messages),
                     "backlog", json_of_uint(options->backlog), "time_s", options->time_s,
                     "warm_up_s", options->warm_up_s, "queue_args", options->queue_args);
}

/* The processor's name as /proc/cpuinfo has it. */
static void read_processor(char *name, size_t size)
{
    static const char key[] = "model name\t: ";
    char line[256];
    name[0] = '\0';
    FILE *const file = fopen("/proc/cpuinfo", "re");
    while (file != NULL && name[0] == '\0' && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, key, sizeof(key) - 1) == 0)
            snprintf(name, size, "%.*s", (int)strcspn(line + sizeof(key) - 1, "\n"),
                     line + sizeof(key) - 1);
    if (file != NULL)
        fclose(file);
}

static json_t *json_of_machine(void)
{
    char processor[128];
    struct utsname name;
    read_processor(processor, sizeof(processor));
    if (uname(&name) != 0)
        return json_null();
    return json_pack("{s:s, s:I, s:s, s:s}", "processor", processor, "cores",
                     (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "kernel", name.release,
                     "architecture", name.machine);
}

static json_t *json_of_verify(const struct load *load)
{
    const struct verify *const verify = &load->verify;
    if (!load->options->verify)
        return json_null();
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "distinct", json_of_uint(verify->distinct),
                     "lost", json_of_uint(verify_lost(verify)), "duplicated",
                     json_of_uint(verify->duplicated), "reordered", json_of_uint(verify->reordered),
                     "invented", json_of_uint(verify->invented));
}

void report_json(const struct load *load)
{
    char now[32];
    const time_t seconds = time(NULL);
    strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", gmtime(&seconds));
    json_t *const phases = json_array();
    for (uint32_t i = 0; i < load->phase_count; i++)
        json_array_append_new(phases, json_of_phase(&load->phases[i]));

    json_t *const void_run =
        failure_is_set(&load->void_run) ? json_string(load->void_run.text) : json_null();
    json_t *const document =
        json_pack("{s:s, s:s, s:{s:s, s:s, s:s}, s:o, s:o, s:o, s:o, s:o}", "stoatperf",
                  STOATMQ_VERSION, "time", now, "broker", "product", load->broker.product,
                  "version", load->broker.version, "platform", load->broker.platform, "machine",
                  json_of_machine(), "options", json_of_options(load->options), "phases", phases,
                  "verify", json_of_verify(load), "void", void_run);
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    json_decref(document);
}
