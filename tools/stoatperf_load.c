/* See the header. */
#include "tools/stoatperf_load.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

#define NS_PER_S UINT64_C(1000000000)

static const uint64_t stall_ns = 10 * NS_PER_S; /* without any progress the run is given up */
static const uint64_t spin_ns = 5000;           /* a due time so near is not worth a sleep */

/* How many of SIGINT and SIGTERM came. The first ends the measurement, and the report and tidying
 * up follow; the third hurries (timeout(1) sends two at once). */
static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    if (interrupted++ == 2)
        _exit(128 + signal_number);
}

static void catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool open_publishers(struct load *load)
{
    load->publishers = xcalloc(max_of(load->options->publishers, 1u), sizeof(struct publisher));
    bool open = true;
    while (open && load->publishers_open < load->options->publishers) {
        struct publisher *const publisher = &load->publishers[load->publishers_open];
        publisher->list = &load->active;
        publisher->schedule = &load->schedule;
        publisher->meter = &load->meter;
        publisher->scratch = load->scratch;
        open = publisher_open(publisher, load->publishers_open++, &load->topology, load->epoll,
                              &load->failure);
    }
    return open;
}

static bool open_consumers(struct load *load)
{
    load->consumers = xcalloc(max_of(load->options->consumers, 1u), sizeof(struct consumer));
    bool open = true;
    while (open && load->consumers_open < load->options->consumers) {
        struct consumer *const consumer = &load->consumers[load->consumers_open];
        consumer->meter = &load->meter;
        consumer->verify = load->options->verify ? &load->verify : NULL;
        consumer->scratch = load->scratch;
        open = consumer_open(consumer, load->consumers_open++, &load->topology, load->epoll,
                             &load->failure);
    }
    return open;
}

bool load_open(struct load *load, const struct options *options,
               void (*on_interval)(const struct interval *interval))
{
    memset(load, 0, sizeof(*load));
    load->options = options;
    load->on_interval = on_interval;
    load->scratch = xmalloc(CLIENT_SCRATCH_SIZE);
    TAILQ_INIT(&load->active);
    topology_init(&load->topology, options);
    meter_init(&load->meter, options->pid);
    load->schedule.publishers = options->publishers;
    load->schedule.interval_ns = options->rate > 0 ? (double)NS_PER_S / (double)options->rate : 0;

    catch_signals();
    raise_file_limit();
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (load->epoll < 0)
        return failure_set(&load->failure, "cannot create an epoll: %s", strerror(errno));
    if (!topology_open(&load->topology, &load->failure, &load->broker) || !open_publishers(load) ||
        !open_consumers(load))
        return false;
    if (options->verify)
        verify_init(&load->verify, &load->topology, load->publishers);
    return true;
}

void load_close(struct load *load)
{
    for (uint32_t i = 0; i < load->publishers_open; i++)
        publisher_close(&load->publishers[i]);
    for (uint32_t i = 0; i < load->consumers_open; i++)
        consumer_close(&load->consumers[i]);
    topology_close(&load->topology);
    if (load->epoll >= 0)
        close(load->epoll);
    load->epoll = -1;
}

void load_release(struct load *load)
{
    verify_release(&load->verify);
    meter_release(&load->meter);
    for (uint32_t i = 0; i < load->phase_count; i++)
        meter_release(&load->phases[i].meter);
    free(load->publishers);
    free(load->consumers);
    free(load->scratch);
}

/* --- the loop --- */

/* Lets the publishers have what has become due, in turn. */
static void pace(struct load *load, uint64_t now_ns)
{
    while (load->pacing && load->next_due_ns <= now_ns) {
        struct publisher *const publisher =
            &load->publishers[load->handed_out % load->options->publishers];
        publisher->due++;
        publisher_activate(publisher);
        load->handed_out++;
        load->next_due_ns = load->schedule.start_ns +
                            (uint64_t)((double)load->handed_out * load->schedule.interval_ns);
    }
}

static void publish(struct load *load)
{
    struct publisher *publisher, *next;
    TAILQ_FOREACH_SAFE (publisher, &load->active, link, next)
        publisher_turn(publisher);
}

/* Until when the loop may sleep, at most to until_ns. */
static uint64_t wake_ns(const struct load *load, uint64_t now_ns, uint64_t until_ns)
{
    if (!TAILQ_EMPTY(&load->active))
        return now_ns;
    uint64_t wake = min_of(until_ns, now_ns + NS_PER_S);
    if (load->measuring)
        wake = min_of(wake, load->next_tick_ns);
    if (load->pacing)
        wake = min_of(wake, load->next_due_ns);
    return wake > now_ns + spin_ns ? wake : now_ns;
}

static void await_sockets(struct load *load, uint64_t wait_ns)
{
    enum { EVENTS = 256 };
    struct epoll_event events[EVENTS];
    const struct timespec timeout = {.tv_sec = (time_t)(wait_ns / NS_PER_S),
                                     .tv_nsec = (long)(wait_ns % NS_PER_S)};
    const int count = epoll_pwait2(load->epoll, events, EVENTS, &timeout, NULL);
    for (int i = 0; i < count && !failure_is_set(&load->failure); i++) {
        struct client *const client = events[i].data.ptr;
        client->on_ready(client, events[i].events);
    }
}

static uint64_t interval_ns(const struct load *load)
{
    return (uint64_t)(load->options->interval_s * (double)NS_PER_S);
}

static void tick(struct load *load, uint64_t now_ns)
{
    if (!load->measuring || now_ns < load->next_tick_ns)
        return;
    load->on_interval(meter_tick(&load->meter, now_ns));
    while (load->next_tick_ns <= now_ns)
        load->next_tick_ns += interval_ns(load);
}

static bool has_stalled(struct load *load, uint64_t now_ns)
{
    const struct counts *const counts = &load->meter.counts;
    const uint64_t progress =
        counts->published + counts->confirmed + counts->nacked + counts->consumed;
    if (progress != load->progress) {
        load->progress = progress;
        load->progress_ns = now_ns;
    }
    return now_ns - load->progress_ns > stall_ns;
}

/* Turns until done says so (NULL: never) or until_ns has come. False when the run failed, stalled
 * before it was done or was interrupted. */
static bool drive(struct load *load, uint64_t until_ns, bool (*done)(struct load *load))
{
    uint64_t now_ns = load->progress_ns = clock_monotonic_ns();
    while (now_ns < until_ns && !(done != NULL && done(load))) {
        tick(load, now_ns);
        pace(load, now_ns);
        publish(load);
        await_sockets(load, wake_ns(load, now_ns, until_ns) - now_ns);
        now_ns = clock_monotonic_ns();
        if (failure_is_set(&load->failure) || interrupted)
            return false;
        load->stalled = done != NULL && has_stalled(load, now_ns);
        if (load->stalled)
            return false;
    }
    return true;
}

/* --- what a phase waits for --- */

static uint64_t expected_count(const struct load *load)
{
    return load->meter.counts.published * topology_copies(&load->topology);
}

static bool all_attached(struct load *load)
{
    for (uint32_t i = 0; i < load->options->consumers; i++)
        if (load->consumers[i].queues_awaited > 0)
            return false;
    return true;
}

/* Asked once a turn: what is cheap comes first. */
static bool all_published(struct load *load)
{
    const struct counts *const counts = &load->meter.counts;
    if (load->options->confirm_window > 0 && counts->confirmed + counts->nacked < counts->published)
        return false;
    for (uint32_t i = 0; i < load->options->publishers; i++)
        if (!publisher_is_done(&load->publishers[i]))
            return false;
    return true;
}

static bool all_consumed(struct load *load)
{
    const uint64_t expected = load->options->consumers == 0 ? 0 : expected_count(load);
    return load->meter.counts.consumed >= expected && all_published(load);
}

/* Of a drain, where everything has been published before. */
static bool drained(struct load *load)
{
    const uint64_t consumed = load->meter.counts.consumed;
    const uint64_t expected = expected_count(load);
    if (load->tenth_ns == 0 && consumed >= expected / 10) {
        load->tenth_ns = clock_monotonic_ns();
        load->tenth = consumed;
    }
    if (load->ninth_ns == 0 && consumed >= expected - expected / 10) {
        load->ninth_ns = clock_monotonic_ns();
        load->ninth = consumed;
    }
    return consumed >= expected;
}

/* --- phases --- */

static void begin_phase(struct load *load)
{
    const uint64_t now_ns = clock_monotonic_ns();
    meter_begin(&load->meter, now_ns);
    load->measuring = true;
    load->next_tick_ns = now_ns + interval_ns(load);
}

/* Moves what was measured to the results; the counts go on. A last interval too short to say much
 * is not told. */
static struct phase *end_phase(struct load *load, const char *name)
{
    assert(load->phase_count < PHASES_MAX);
    struct phase *const phase = &load->phases[load->phase_count++];
    const uint64_t now_ns = clock_monotonic_ns();
    if (now_ns - load->meter.tick_ns > interval_ns(load) / 2)
        load->on_interval(meter_tick(&load->meter, now_ns));
    meter_end(&load->meter, now_ns);
    load->measuring = false;
    phase->name = name;
    phase->meter = load->meter;
    load->meter.intervals = NULL;
    load->meter.interval_count = 0;
    return phase;
}

/* total: of all publishers together; UINT64_MAX for no limit. */
static void start_publishers(struct load *load, uint64_t total)
{
    const uint32_t count = load->options->publishers;
    load->schedule.start_ns = load->next_due_ns = clock_monotonic_ns();
    load->pacing = load->schedule.interval_ns > 0 && count > 0;
    for (uint32_t i = 0; i < count; i++) {
        struct publisher *const publisher = &load->publishers[i];
        publisher->limit = total == UINT64_MAX ? total : total / count + (i < total % count);
        publisher_activate(publisher);
    }
}

/* Without confirms only an answer to something sent behind it says that a message was taken in. */
static void fence_publishers(struct load *load)
{
    for (uint32_t i = 0; i < load->options->publishers; i++)
        publisher_fence(&load->publishers[i]);
}

static void stop_publishers(struct load *load)
{
    load->pacing = false;
    for (uint32_t i = 0; i < load->options->publishers; i++)
        publisher_stop(&load->publishers[i]);
}

static bool start_consumers(struct load *load)
{
    for (uint32_t i = 0; i < load->options->consumers; i++)
        if (!consumer_start(&load->consumers[i]))
            return false;
    return true;
}

static uint64_t seconds_from_now(double seconds)
{
    return clock_monotonic_ns() + (uint64_t)(seconds * (double)NS_PER_S);
}

static void run_time(struct load *load)
{
    const struct options *const options = load->options;
    if (!start_consumers(load) || !drive(load, UINT64_MAX, all_attached))
        return;
    start_publishers(load, UINT64_MAX);
    if (!drive(load, seconds_from_now(options->warm_up_s), NULL))
        return;
    begin_phase(load);
    drive(load, seconds_from_now(options->time_s), NULL);
    end_phase(load, "run");
    stop_publishers(load);
    if (options->verify && !failure_is_set(&load->failure))
        drive(load, UINT64_MAX, all_consumed);
}

static void run_messages(struct load *load)
{
    if (!start_consumers(load) || !drive(load, UINT64_MAX, all_attached))
        return;
    begin_phase(load);
    start_publishers(load, load->options->messages);
    if (load->options->consumers == 0 && load->options->confirm_window == 0)
        fence_publishers(load);
    drive(load, UINT64_MAX, all_consumed);
    end_phase(load, "run");
}

static void run_backlog(struct load *load)
{
    begin_phase(load);
    start_publishers(load, load->options->backlog);
    if (load->options->confirm_window == 0)
        fence_publishers(load);
    const bool filled = drive(load, UINT64_MAX, all_published);
    end_phase(load, "fill");
    load->pacing = false;
    if (!filled)
        return;

    begin_phase(load);
    const bool done = start_consumers(load) && drive(load, UINT64_MAX, drained);
    struct phase *const phase = end_phase(load, "drain");
    const struct meter *const meter = &phase->meter;
    if (done && load->tenth_ns > meter->begin_ns && meter->end_ns > load->ninth_ns) {
        phase->first_tenth = (double)load->tenth * 1e9 / (double)(load->tenth_ns - meter->begin_ns);
        phase->last_tenth = (double)(meter->counts.consumed - load->ninth) * 1e9 /
                            (double)(meter->end_ns - load->ninth_ns);
    }
}

/* Whether what was measured counts. A run that was to see every message through is judged by
 * whether it did; after an interruption nobody has waited for what is missing. */
static void judge(struct load *load)
{
    const struct options *const options = load->options;
    const struct verify *const verify = &load->verify;
    const bool complete =
        !interrupted && (options->verify || options->messages > 0 || options->backlog > 0);
    const uint64_t lost = options->verify && !interrupted ? verify_lost(verify) : 0;
    const uint64_t consumed = load->meter.counts.consumed, expected = expected_count(load);
    if (lost + verify->duplicated + verify->reordered + verify->invented > 0)
        failure_set(&load->void_run,
                    "%" PRIu64 " lost, %" PRIu64 " duplicated, %" PRIu64 " out of order, %" PRIu64
                    " never published",
                    lost, verify->duplicated, verify->reordered, verify->invented);
    if (load->stalled)
        failure_set(&load->void_run, "nothing moved for %u s", (unsigned)(stall_ns / NS_PER_S));
    if (complete && options->consumers > 0 && consumed != expected)
        failure_set(&load->void_run, "%" PRIu64 " deliveries where %" PRIu64 " were expected",
                    consumed, expected);
}

bool load_run(struct load *load)
{
    if (load->options->backlog > 0)
        run_backlog(load);
    else if (load->options->messages > 0)
        run_messages(load);
    else
        run_time(load);

    if (failure_is_set(&load->failure))
        return false;
    for (uint32_t i = 0; i < load->options->consumers; i++)
        consumer_settle(&load->consumers[i]);
    judge(load);
    return !failure_is_set(&load->failure);
}
