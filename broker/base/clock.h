/* Monotonic and wall time, read once per turn of the loop, so that all of a turn happens at one
 * moment. A test sets `fake` and moves both by hand. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/base.h"

struct clock {
    uint64_t now_ms;  /* monotonic */
    uint64_t wall_ms; /* since 1970 */
    bool fake;        /* clock_update leaves it alone */
};

void clock_update(struct clock *clock);
void clock_advance(struct clock *clock, uint64_t ms); /* a fake one only */

/* The same moment by the other clock. What outlives the process is told by wall time, for the
 * monotonic clock begins anew with the machine; what is over then is due now. */
static inline uint64_t clock_to_wall_ms(const struct clock *clock, uint64_t at_ms)
{
    return clock->wall_ms + (at_ms - clock->now_ms);
}

static inline uint64_t clock_from_wall_ms(const struct clock *clock, uint64_t wall_ms)
{
    return wall_ms <= clock->wall_ms ? clock->now_ms : clock->now_ms + (wall_ms - clock->wall_ms);
}

/* The monotonic clock itself, for measuring; not for decisions that a test must be able to
 * steer. */
uint64_t clock_monotonic_ns(void);

#endif
