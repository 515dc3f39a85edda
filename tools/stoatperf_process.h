/* What a process uses, from /proc: its threads' schedstat, which counts nanoseconds, and its status
 * and io. Threads that have ended are missing from the first, so that the coarser count of stat
 * wins where it is greater. */
#ifndef TOOLS_STOATPERF_PROCESS_H
#define TOOLS_STOATPERF_PROCESS_H

#include "base/base.h"

struct process_usage {
    bool known;                       /* it was there, and readable */
    double cpu_s;                     /* on a processor */
    double user_s, system_s;          /* how stat divides it, in ticks of 10 ms */
    uint64_t slices;                  /* how often it was put on a processor */
    uint64_t resident, resident_most; /* bytes, now and at most ever */
    uint64_t written;                 /* bytes sent towards a disk */
};

void process_usage_of(struct process_usage *usage, int32_t pid); /* not known for pid 0 */
void process_usage_of_self(struct process_usage *usage);

/* Makes of usage what was used between it and now; memory is that of now. */
void process_usage_since(struct process_usage *usage, const struct process_usage *now);

#endif
