/* Time as the loop sees it: a snapshot, so that within a turn no two decisions disagree about now.
 * Only clock_update and clock_advance move it; a fake clock starts wherever the test set it. */
#include "base/clock.h"

#include <time.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void clock_update(struct clock *clock)
{
    if (clock->fake)
        return;
    clock->now_ms = read_ns(CLOCK_MONOTONIC) / 1000000;
    clock->wall_ms = read_ns(CLOCK_REALTIME) / 1000000;
}

void clock_advance(struct clock *clock, uint64_t ms)
{
    assert(clock->fake);
    clock->now_ms += ms;
    clock->wall_ms += ms;
}

uint64_t clock_monotonic_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}
