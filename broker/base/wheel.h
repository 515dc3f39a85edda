/* A hierarchical timer wheel. The timer lives in the object that waits; setting and cancelling are
 * O(1). Times are milliseconds of the monotonic clock, any 64-bit value. */
#ifndef BASE_WHEEL_H
#define BASE_WHEEL_H

#include "base/base.h"

struct timer {
    TAILQ_ENTRY(timer) link;
    uint64_t deadline_ms;
    void (*on_expire)(struct timer *timer); /* may set or cancel this and any other timer */
    struct wheel *wheel;                    /* NULL when not set */
    uint16_t slot;                          /* valid while set */
};
TAILQ_HEAD(timer_list, timer);

#define WHEEL_LEVELS 11
#define WHEEL_SLOTS  64

struct wheel {
    uint64_t now_ms;
    struct timer_list slots[WHEEL_LEVELS * WHEEL_SLOTS];
    uint64_t occupied[WHEEL_LEVELS]; /* a bit per slot that holds a timer */
    struct timer_list expired;       /* being run by wheel_advance */
    /* set with a deadline that had passed; the next wheel_advance runs them */
    struct timer_list overdue;
};

void wheel_init(struct wheel *wheel, uint64_t now_ms);

/* Sets or moves the timer; a deadline that has passed expires at the next wheel_advance. on_expire
 * must be set. */
void timer_set(struct wheel *wheel, struct timer *timer, uint64_t deadline_ms);
void timer_cancel(struct timer *timer); /* nothing happens when it is not set */

static inline bool timer_is_set(const struct timer *timer)
{
    return timer->wheel != NULL;
}

/* Moves time forward, all at once, then runs what has expired: first those that were overdue when
 * they were set, in that order, then the others by deadline. Not to be called from on_expire; a
 * time before the last one changes nothing. */
void wheel_advance(struct wheel *wheel, uint64_t now_ms);

/* Milliseconds from now until something may expire (never too late, perhaps too early); UINT64_MAX
 * when no timer is set. */
uint64_t wheel_wait_ms(const struct wheel *wheel);

#endif
