/* stoatperf: load for any AMQP 0-9-1 broker, and what it did with it.
 *
 *     stoatperf_options      the command line
 *     stoatperf_load         the run: its loop and its phases
 *     stoatperf_topology     queues, and who uses which
 *     stoatperf_publisher    prebuilt publishes, schedule, confirms
 *     stoatperf_consumer     deliveries, acks; stoatperf_verify, stoatperf_ledger: each once and in
 *                            order?
 *     stoatperf_client       one connection; stoatperf_stream: what it sends, taken apart
 *     stoatperf_meter        counts and intervals; stoatperf_histogram, stoatperf_process
 *     stoatperf_report       text and JSON
 *
 * The tool must cost less than the broker it measures: bodies are never copied nor looked at
 * beyond their first 16 octets, one write carries many publishes, one clock reading serves a
 * write or a read. Its own CPU time is part of the report, so that a figure limited by the tool
 * can be told. */
#include <signal.h>
#include <sysexits.h>

#include "base/alloc.h"
#include "tools/stoatperf_report.h"

enum { EXIT_VOID = 1 };

static void ignore_interval(const struct interval *interval)
{
    (void)interval;
}

/* The exit status. */
static int run(struct load *load, const struct options *options)
{
    bool done = load_open(load, options, options->json ? ignore_interval : report_interval);
    if (done && !options->json)
        report_scenario(load);
    done = done && load_run(load);
    load_close(load);
    if (!done) {
        fprintf(stderr, "stoatperf: %s\n", load->failure.text);
        return EX_UNAVAILABLE;
    }
    (options->json ? report_json : report_text)(load);
    if (!failure_is_set(&load->void_run))
        return EXIT_SUCCESS;
    fprintf(stderr, "stoatperf: the run is void: %s\n", load->void_run.text);
    return EXIT_VOID;
}

int main(int argc, char **argv)
{
    struct options options;
    signal(SIGPIPE, SIG_IGN); /* that the broker has hung up is an error of a write */
    options_parse(&options, argc, argv);
    struct load *const load = xmalloc(sizeof(*load));
    const int status = run(load, &options);
    load_release(load);
    free(load);
    options_release(&options);
    return status;
}
