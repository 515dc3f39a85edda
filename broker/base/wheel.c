/* A wheel per 6 bits of the time. A timer hangs on the level of the highest 6-bit digit in which
 * its deadline differs from now, in the slot that this digit of the deadline names:
 *
 *     now       ... 0 0 3 17 42      level 0: slots of 1 ms,   this 64 ms
 *     deadline  ... 0 0 3 20 05      level 1: slots of 64 ms,  this 4096 ms
 *                         ^^         ...
 *     level 1, slot 20               level 10: slots of 2^60 ms
 *
 * Invariants:
 *   1. A timer in a slot has a deadline after now, and its slot comes after now's own digit on its
 *      level.
 *   2. So everything on a level is due before anything on a higher one, and within a level slots
 *      are in order of time: the first set bit of the lowest level that has one is where time must
 *      stop next. No millisecond and no empty slot is ever visited.
 *   3. A slot of level 0 is one millisecond: when time reaches it, all in it expire. A slot of a
 *      higher level is opened when time reaches its start, and its timers are hung up anew, each on
 *      a lower level; that is at most ten times in a timer's life, and none for the many that are
 *      cancelled or moved before.
 *   4. Timers with the same deadline stay in the order in which they were set.
 *
 * wheel_advance first moves what is due to `expired`, then calls back. What a callback sets with a
 * deadline that has passed goes to `overdue` and waits for the next advance, so a turn ends. */
#include "base/wheel.h"

enum {
    DIGIT_BITS = 6,
    SLOT_EXPIRED =
        WHEEL_LEVELS * WHEEL_SLOTS, /* what timer->slot says of the two lists that are no slots */
    SLOT_OVERDUE
};
_Static_assert(WHEEL_SLOTS == 1 << DIGIT_BITS, "a slot per value of a digit");
_Static_assert(WHEEL_LEVELS *DIGIT_BITS >= 64, "a level per digit");

static unsigned digit_of(uint64_t time, unsigned level)
{
    return (unsigned)(time >> (level * DIGIT_BITS)) % WHEEL_SLOTS;
}

static struct timer_list *list_of(struct wheel *wheel, unsigned slot)
{
    if (slot == SLOT_EXPIRED)
        return &wheel->expired;
    return slot == SLOT_OVERDUE ? &wheel->overdue : &wheel->slots[slot];
}

static void append(struct wheel *wheel, struct timer *timer, unsigned slot)
{
    timer->slot = (uint16_t)slot;
    TAILQ_INSERT_TAIL(list_of(wheel, slot), timer, link);
    if (slot < SLOT_EXPIRED)
        wheel->occupied[slot / WHEEL_SLOTS] |= UINT64_C(1) << slot % WHEEL_SLOTS;
}

static void take_out(struct wheel *wheel, struct timer *timer)
{
    const unsigned slot = timer->slot;
    struct timer_list *list = list_of(wheel, slot);
    TAILQ_REMOVE(list, timer, link);
    if (slot < SLOT_EXPIRED && TAILQ_EMPTY(list))
        wheel->occupied[slot / WHEEL_SLOTS] &= ~(UINT64_C(1) << slot % WHEEL_SLOTS);
}

/* The slot of a deadline that is still to come. */
static unsigned slot_of(const struct wheel *wheel, uint64_t deadline_ms)
{
    assert(deadline_ms > wheel->now_ms);
    const unsigned highest_bit = 63 - (unsigned)__builtin_clzll(deadline_ms ^ wheel->now_ms);
    const unsigned level = highest_bit / DIGIT_BITS;
    return level * WHEEL_SLOTS + digit_of(deadline_ms, level);
}

/* The earliest occupied slot and the time at which it begins; false when all are empty. */
static bool next_slot(const struct wheel *wheel, unsigned *slot, uint64_t *start_ms)
{
    unsigned level = 0;
    while (level < WHEEL_LEVELS && wheel->occupied[level] == 0)
        level++;
    if (level == WHEEL_LEVELS)
        return false;

    const unsigned digit = (unsigned)__builtin_ctzll(wheel->occupied[level]);
    const unsigned shift = level * DIGIT_BITS;
    const uint64_t now_digit = digit_of(wheel->now_ms, level);
    assert(digit > now_digit);
    *slot = level * WHEEL_SLOTS + digit;
    *start_ms = ((wheel->now_ms >> shift) + (digit - now_digit)) << shift;
    return true;
}

/* Time stands at the start of the slot: its timers expire or move to a lower level. */
static void open_slot(struct wheel *wheel, unsigned slot)
{
    struct timer *timer;
    while ((timer = TAILQ_FIRST(&wheel->slots[slot])) != NULL) {
        take_out(wheel, timer);
        const bool due = timer->deadline_ms <= wheel->now_ms;
        append(wheel, timer, due ? SLOT_EXPIRED : slot_of(wheel, timer->deadline_ms));
    }
}

static void collect_overdue(struct wheel *wheel)
{
    struct timer *timer;
    while ((timer = TAILQ_FIRST(&wheel->overdue)) != NULL) {
        take_out(wheel, timer);
        append(wheel, timer, SLOT_EXPIRED);
    }
}

static void run_expired(struct wheel *wheel)
{
    struct timer *timer;
    while ((timer = TAILQ_FIRST(&wheel->expired)) != NULL) {
        timer_cancel(timer);
        timer->on_expire(timer);
    }
}

void wheel_init(struct wheel *wheel, uint64_t now_ms)
{
    wheel->now_ms = now_ms;
    for (unsigned slot = 0; slot < countof(wheel->slots); slot++)
        TAILQ_INIT(&wheel->slots[slot]);
    memset(wheel->occupied, 0, sizeof wheel->occupied);
    TAILQ_INIT(&wheel->expired);
    TAILQ_INIT(&wheel->overdue);
}

void timer_set(struct wheel *wheel, struct timer *timer, uint64_t deadline_ms)
{
    assert(timer->on_expire != NULL);
    timer_cancel(timer);
    timer->wheel = wheel;
    timer->deadline_ms = deadline_ms;
    append(wheel, timer, deadline_ms <= wheel->now_ms ? SLOT_OVERDUE : slot_of(wheel, deadline_ms));
}

void timer_cancel(struct timer *timer)
{
    if (timer->wheel == NULL)
        return;
    take_out(timer->wheel, timer);
    timer->wheel = NULL;
}

void wheel_advance(struct wheel *wheel, uint64_t now_ms)
{
    assert(TAILQ_EMPTY(&wheel->expired)); /* never from within on_expire */
    collect_overdue(wheel);

    unsigned slot;
    uint64_t start_ms;
    while (next_slot(wheel, &slot, &start_ms) && start_ms <= now_ms) {
        wheel->now_ms = start_ms;
        open_slot(wheel, slot);
    }
    wheel->now_ms = max_of(wheel->now_ms, now_ms);
    run_expired(wheel);
}

uint64_t wheel_wait_ms(const struct wheel *wheel)
{
    unsigned slot;
    uint64_t start_ms;
    if (!TAILQ_EMPTY(&wheel->overdue) || !TAILQ_EMPTY(&wheel->expired))
        return 0;
    return next_slot(wheel, &slot, &start_ms) ? start_ms - wheel->now_ms : UINT64_MAX;
}
