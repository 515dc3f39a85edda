/* Deadlines of a queue's entries: each leaves at its own, wherever it stands.
 *
 *     timer ─▶ heap of segments, by their earliest deadline
 *                 └─▶ segment: a deadline per slot, in an array that exists only where some slot has one
 *
 * So a deadline costs 8 octets, a segment of 256 entries one place in the heap, a queue one timer;
 * entries without deadlines cost nothing. A stub (window.h) has its deadlines in memory like any
 * segment, although its entries are on disk. A segment's earliest deadline may be out of date on
 * the early side, when the entry that had it was consumed: then the timer finds nothing due and the
 * segment's true earliest is computed. An entry that is unacked does not expire; requeued after its
 * deadline it does at once.
 *
 * Times are milliseconds of the monotonic clock. */
#ifndef CORE_EXPIRY_H
#define CORE_EXPIRY_H

#include "base/wheel.h"

struct segment;

#define DEADLINE_NONE UINT64_MAX

struct deadlines {       /* of one segment */
    uint64_t *slots;     /* NULL: none has one */
    uint64_t earliest;   /* not later than any ready entry's; meaningful while queued */
    uint32_t heap_index; /* meaningful while queued */
    bool queued;         /* in the heap */
};

struct expiry {
    struct segment **heap; /* the earliest first */
    size_t count, capacity;
    struct wheel *wheel;
    struct timer timer; /* set to the earliest of all */
};

/* on_due is called when something may be due; it calls expiry_first until that is NULL. */
void expiry_init(struct expiry *expiry, struct wheel *wheel, void (*on_due)(struct timer *timer));
void expiry_release(struct expiry *expiry);

/* Gives a ready entry its deadline. */
void expiry_add(struct expiry *expiry, struct segment *segment, uint32_t slot,
                uint64_t deadline_ms);

/* The entry is ready again: its deadline, if it has one, counts again. */
void expiry_resume(struct expiry *expiry, struct segment *segment, uint32_t slot);

/* Whether a ready entry from this slot on has a deadline. */
bool expiry_has_deadlines(const struct segment *segment, uint32_t slot);

/* The deadlines of the entries from this slot on that are ready in `to` go there, to the slots from
 * 0 on. expiry may be NULL. */
void expiry_move(struct expiry *expiry, struct segment *from, uint32_t slot, struct segment *to);

/* The segment goes, or starts over. expiry may be NULL. */
void expiry_forget(struct expiry *expiry, struct segment *segment);

/* A segment that may hold something due; NULL, with the timer set, when nothing is. The caller
 * removes what is due, and calls expiry_review if the segment is still there. */
struct segment *expiry_first(struct expiry *expiry, uint64_t now_ms);
void expiry_review(struct expiry *expiry, struct segment *segment);

uint64_t expiry_deadline_of(const struct segment *segment,
                            uint32_t slot); /* DEADLINE_NONE: it has none */

#endif
