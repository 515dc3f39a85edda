/* A run from beginning to end: connections, the loop that drives them, the phases that are
 * measured.
 *
 *     time       consumers attach | warm up | run                   | with --verify: until all has come
 *     messages   consumers attach | run: until all has come
 *     backlog    fill: until all is taken in | consumers attach, drain: until all has come
 *
 * One thread, one epoll. A turn hands out what is due, gives every publisher that can write one
 * write, waits for sockets, and reads each once. */
#ifndef TOOLS_STOATPERF_LOAD_H
#define TOOLS_STOATPERF_LOAD_H

#include "tools/stoatperf_consumer.h"

struct phase { /* what was measured */
    const char *name;
    struct meter meter;
    double first_tenth, last_tenth; /* of a drain: deliveries a second; 0 elsewhere */
};

enum { PHASES_MAX = 2 };

struct load {
    const struct options *options;
    struct topology topology;
    struct broker_identity broker;
    struct failure failure;  /* the broker cannot be reached, or ended it */
    struct failure void_run; /* the run was carried through and its figures are worth nothing */

    int epoll;
    uint8_t *scratch;
    struct publisher *publishers;
    struct consumer *consumers;
    uint32_t publishers_open, consumers_open;
    struct publisher_list active;

    struct schedule schedule;
    uint64_t handed_out; /* messages that have become due */
    uint64_t next_due_ns;
    bool pacing; /* messages become due */

    struct meter meter;
    bool measuring;
    uint64_t next_tick_ns;
    void (*on_interval)(const struct interval *interval);
    /* When a drain had passed 10 and 90 percent, and with how many. */
    uint64_t tenth_ns, tenth, ninth_ns, ninth;
    struct verify verify;

    uint64_t progress, progress_ns; /* sum of all counts, and since when it has been that */
    bool stalled;                   /* too long: what was waited for did not come */

    struct phase phases[PHASES_MAX];
    uint32_t phase_count;
};

/* options must outlive it. Every call but the first is for a load that has been opened, well or
 * not. on_interval is called after every interval that was measured. */
bool load_open(struct load *load, const struct options *options,
               void (*on_interval)(const struct interval *interval));

/* False when the run failed. Else phases hold what was measured, and void_run says whether it
 * counts. */
bool load_run(struct load *load);

/* Closes the connections and deletes the queues. */
void load_close(struct load *load);
void load_release(struct load *load); /* frees the results */

#endif
