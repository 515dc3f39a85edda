/* Memory for messages that wait in queues, of all queues together, and who gives some up when it is
 * short.
 *
 *     messages and segments in memory
 *     0 ─────────────────────────────── 7/8 ──── limit
 *                                        ▲         │ above: a round begins
 *                                        └─────────┘ windows page out, in turn, until so much is left
 *
 * A round goes over the windows that have anything in memory, those that grew last first: they are
 * why memory is short. Each may keep an equal share of the limit, at its head, where consumers are;
 * what it has above that it gives up, as far as the disk has it (queue_page_out). When the sum is
 * above the limit some window is above its share, so a round finds something; if it does not,
 * because much is unacked, shared or not yet written, the next one allows half as much, down to a
 * 64th of the limit for all, and begins when the store has got on, or a little later: at first
 * RETRY_MS, each time in vain twice as long, up to a second. Work per turn is bounded.
 *
 * What only scratch can take is written, some megabytes at a time. Where the disk is slower than the
 * publishers, memory would grow as far as it goes; so from half the limit above it on publishers
 * wait until it is less, or nothing is being written (paging_lags), as they do for the store when
 * its batch is full.
 *
 * Nothing else happens on the path of a message: memory is looked at when a segment is added to a
 * window, when a large message comes, and when a batch has become durable. */
#ifndef CORE_PAGING_H
#define CORE_PAGING_H

#include "core/parking.h"
#include "core/window.h"
#include "net/loop.h"

struct remains;

#define PAGING_LIMIT_DEFAULT (UINT64_C(48) << 20)

enum {
    PAGING_ENTRY_SIZE = 200,              /* octets of an entry and its message beside the body */
    PAGING_WRITING_MAX = 8 * 1024 * 1024, /* octets under way to scratch; one write may pass it */
};

struct paging {
    TAILQ_HEAD(, window) windows; /* with segments in memory; the last to grow first */
    size_t window_count;
    struct window *hand; /* where the round goes on; NULL: none is under way */
    uint64_t share;      /* octets that a window may keep in this round */
    bool gave_up_some;   /* in this round */
    struct timer retry;  /* set: the last round found nothing, and none begins before */
    uint64_t retry_ms;   /* how long that is next time */
    uint64_t limit, segment_bytes, reading_bytes;
    uint64_t writing_bytes; /* of messages that are being written to scratch: as good as gone */
    uint64_t write_ms;      /* nothing is written before: the last write failed */
    struct parking writes;  /* who waits for them; an LSN is how often some went on */
    const struct remains *remains; /* what will be free in some turns is taken for free */
    struct loop *loop;
    struct task task;
};

void paging_init(struct paging *paging, struct loop *loop, const struct remains *remains);
void paging_release(struct paging *paging);
void paging_set_limit(struct paging *paging, uint64_t limit);

/* The window has one segment more, or less, of so many octets. For window.c alone. */
void paging_grow(struct window *window, size_t bytes, bool has_slots);
void paging_shrink(struct window *window, size_t bytes);

/* There is none left: nobody reads what he may not need at once. */
bool paging_is_short(const struct paging *paging);
bool paging_is_far_above(const struct paging *paging); /* by half the limit */

/* Begins a round if memory is short. on_progress: more may have become durable. */
void paging_review(struct paging *paging);
void paging_on_progress(struct paging *paging);

/* May something be written to scratch now? Both of these about what is being written. */
bool paging_may_write(const struct paging *paging);

/* Much is being written, and memory is far above the limit: who publishes should wait
 * (paging_await_write) until one of both has changed, as it does when writes end, well or not. */
static inline bool paging_lags(const struct paging *paging)
{
    return unlikely(paging->writing_bytes >= PAGING_WRITING_MAX / 2) && paging_is_far_above(paging);
}

void paging_await_write(struct paging *paging, struct parked *parked);
void paging_begin_write(struct paging *paging, size_t bytes);
void paging_end_write(struct paging *paging, size_t bytes, bool failed);

/* How much may be read into memory now, at least paging_read_min: a part of what is free. What is
 * being read counts as used until paging_end_read. */
size_t paging_begin_read(struct paging *paging);
void paging_end_read(struct paging *paging, size_t bytes);

bool paging_check(const struct window *window); /* it is in the list exactly when it should be */

#endif
