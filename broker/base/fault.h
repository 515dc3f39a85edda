/* Faults on demand, for build/stoatmq-faults and for nothing else: in the released program all of
 * this is empty, and a test looks that it is.
 *
 *     fault_point(FAULT_SYNC_ENDED);       ends the process there by SIGKILL, if so told
 *     if (fault_bug(FAULT_SKIP_SYNC)) ...  does on purpose what a test must notice
 *
 * What happens is told by the environment, with the names of fault.def:
 *
 *     FAULT_KILL=sync-ended:3              at the third pass of that point; without a number the first
 *     FAULT_BUGS=skip-sync,drop-ack
 *
 * A name that does not exist ends the program with status 78, so that no test passes by a typing
 * error. The body is in tests/faults/fault.c, which also stands before the C library's fdatasync:
 * LMDB's commit is seen there as it runs. It hands on to the next fdatasync in the order of
 * loading, so that a preloaded library still sees every call, but for those that skip-sync leaves
 * out. */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include "base/base.h"

enum fault_point {
#define POINT(NAME, name, text) FAULT_##NAME,
#include "base/fault.def"
    FAULT_POINT_COUNT
};

enum fault_bug {
#define BUG(NAME, name, text) FAULT_##NAME,
#include "base/fault.def"
    FAULT_BUG_COUNT
};

#ifdef STOATMQ_FAULTS

void fault_point(enum fault_point point);
bool fault_bug(enum fault_bug bug);

#else

static inline void fault_point(enum fault_point point)
{
    (void)point;
}

static inline bool fault_bug(enum fault_bug bug)
{
    (void)bug;
    return false;
}

#endif

/* A bug that shows once in every so many times. Each file counts for itself: its thread's. */
static inline bool fault_bug_each(enum fault_bug bug, unsigned times)
{
    static unsigned counts[FAULT_BUG_COUNT];
    return fault_bug(bug) && ++counts[bug] % times == 0;
}

#endif
