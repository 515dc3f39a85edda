/* The entries of a queue, in order of position, and which part of them is in memory.
 *
 *     head                                                                      tail
 *     │ loaded segment │ range on disk            │ stub │ loaded │ loaded (fresh) │
 *       R U . R U R R    ????????????????????????   rr.r   R R R    R R R
 *
 * A position is given once, at push, and never changes: an entry that is requeued becomes ready
 * again where it stands. A segment holds consecutive positions; each slot is ready (R), unacked (U)
 * or gone (.). A segment whose entries are all gone is freed; nothing refers to it any more.
 *
 * What is not in memory is in segments without slots, of which there are two kinds:
 *
 *     range    any stretch of positions, all in the store, all ready, known by count and bytes
 *              alone. Neighbours join where no hole is between them. Read from its front, piece by
 *              piece. If the store is damaged it may have more than that, or less: so a range
 *              counts one at least, and someone comes to see, until it was read to its end.
 *     stub     what one segment held, with a bit (r) for each entry that is alive and, where some
 *              have deadlines, those and the weights: so that one can go at its time without being
 *              read. Read as a whole. Its bodies are in the store or, if that does not have all of
 *              them, in scratch (store/scratch.h): then all are, and those that the store has too
 *              are marked, for it must hear when they go.
 *
 * A queue starts with its entries in memory. When memory is short (paging.h) the middle goes: what
 * the store has anyway costs nothing to give up (window_page_out), and is read again before the
 * consumer comes to it (queue_read.h). So a queue of ten million messages is what consumers want
 * next, a range, and what is not durable yet; a recovered queue is one range; and one lone unacked
 * message costs one segment.
 *
 * An entry that is gone may still be in the store, until its delete is durable. Segments and stubs
 * that have a slot for it know that it is gone, and when that will be durable (deleted_lsn).
 * Between segments is a *hole* wherever a whole segment went; of it nobody knows. So nothing grows
 * over a hole: neither does a range join over one, nor does what is read go into the segment before
 * it.
 *
 * Whether an entry was handed out before need not be remembered while it is on disk: the first
 * ready one is always the next to be taken, so all that stand below `delivered` have been, and no
 * others.
 *
 * Invariants (window_check):
 *   1. segments are disjoint and ascend; the last ends at or before `tail`
 *   2. a slot's message is not NULL exactly while the slot is ready or unacked
 *   3. ready_count and ready_bytes are sums over all segments, disk_count and disk_bytes over those
 *      on disk, where all entries are ready; unacked_count and unacked_bytes over the others; none
 *      on disk counts 0
 *   4. `cursor` stands at or before the first segment with anything ready
 *   5. `on_disk` has the segments without slots, in order
 *   6. a window is in its paging's list exactly while it has a segment with slots
 *   7. what covers the position of an entry whose delete is not durable has at least the delete's
 *      lsn as its deleted_lsn, so no range covers any (only who deletes can check this) */
#ifndef CORE_WINDOW_H
#define CORE_WINDOW_H

#include "core/expiry.h"
#include "core/message.h"
#include "store/scratch.h"

struct paging;
struct queue;
struct remains;

struct entry {
    struct message *message;  /* a counted reference */
    uint64_t lsn;             /* batch that puts it in the store; 0: it is not to be stored */
    uint32_t put_number;      /* in that batch */
    uint32_t redelivered : 1; /* handed out before, perhaps */
    uint32_t delivery_count : 15, acquired_count : 16; /* see delivery_count.h */
};

enum { SEGMENT_SMALL = 8, SEGMENT_LARGE = 256 };
enum { STUB_BYTES = 1024 * 1024 }; /* of bodies in a stub, unless one entry has more */

struct window;

struct segment {
    TAILQ_ENTRY(segment) link;
    TAILQ_ENTRY(segment) disk_link; /* while on disk */
    struct window *window;
    uint64_t first;       /* position of slot 0, or of the first on disk */
    uint64_t end;         /* one past the last slot given out, or the last on disk */
    uint64_t count;       /* entries alive: ready or unacked; on disk: its entries */
    uint64_t bytes;       /* on disk: body octets of its entries */
    uint64_t deleted_lsn; /* the last batch that deletes an entry of its slots; 0: none does */
    uint32_t ready_count;
    uint16_t capacity;          /* slots; 0: on disk */
    bool is_stub;               /* on disk: `ready` says who is alive */
    bool has_unread_deadlines;  /* a range: entries may have deadlines that nobody knows yet */
    struct segment **writer;    /* loaded: who writes it to scratch; cleared when it goes */
    struct scratch_place place; /* of a stub: where its bodies are; none: in the store */
    uint32_t stored_count;      /* of a stub in scratch: those of its entries that the store has */
    bool has_come_back;         /* of a stub: some came back to a quorum queue, and stand first */
    uint64_t stored_bytes;
    struct deadlines deadlines; /* of slots that have one */
    uint32_t *weights;          /* of a stub with deadlines, by slot: see stub_weight; else NULL */
    uint64_t ready[SEGMENT_LARGE / 64]; /* a bit per slot */
    struct entry entries[];
};
TAILQ_HEAD(segment_list, segment);

/* Body octets of an entry of a stub with deadlines; and whether the store has it. */
enum { STUB_STORED = 1 << 30 };
static inline uint32_t stub_weight(const struct segment *stub, uint32_t slot)
{
    return stub->weights[slot] & ~(uint32_t)STUB_STORED;
}
static inline bool stub_is_stored(const struct segment *stub, uint32_t slot)
{
    return (stub->weights[slot] & STUB_STORED) != 0;
}

static inline bool segment_is_on_disk(const struct segment *segment)
{
    return segment->capacity == 0;
}

static inline bool segment_is_ready(const struct segment *segment, uint32_t slot)
{
    return (segment->ready[slot / 64] >> (slot % 64) & 1) != 0;
}

struct window_recovery {
    uint64_t head, tail, count, bytes;
    bool deadlines; /* some may have one */
};

struct place { /* of an entry: stays valid until window_remove of that entry */
    struct segment *segment;
    uint32_t slot;
};

struct window {
    struct segment_list segments;
    struct segment_list on_disk; /* those of them that are */
    TAILQ_ENTRY(window) paging_link;
    struct queue *queue;    /* whose window it is; NULL: nobody's, in tests */
    struct expiry *expiry;  /* told when a segment with deadlines goes; NULL: none ever has any */
    struct paging *paging;  /* counts its memory; NULL: nobody does */
    struct segment *cursor; /* where the search for ready entries starts; NULL when there is none */
    struct segment *reading;           /* on disk, being read; NULL: none, or it went meanwhile */
    struct segment *unlearnt;          /* the range with unread deadlines; NULL: there is none */
    uint64_t tail;                     /* the next position */
    uint64_t ready_count, ready_bytes; /* body octets, what is on disk included */
    uint64_t unacked_count, unacked_bytes;
    uint64_t disk_count, disk_bytes;
    uint64_t delivered;    /* entries below this position may have been handed out before */
    uint32_t loaded_count; /* segments with slots */
    bool listed;           /* in paging->windows */
    uint8_t level;         /* of the queue's windows, one for each priority; see queue.h */
};

void window_init(struct window *window, struct queue *queue, unsigned level, struct expiry *expiry,
                 struct paging *paging);
void window_release(struct window *window);     /* drops every entry's message */
bool window_check(const struct window *window); /* the invariants hold; for tests, O(entries) */

static inline struct entry *place_entry(struct place place)
{
    return &place.segment->entries[place.slot];
}
static inline uint64_t place_position(struct place place)
{
    return place.segment->first + place.slot;
}

/* Appends a ready entry at the tail and takes its own reference on the message. */
struct place window_push(struct window *window, struct message *message);

/* A recovered queue: everything in [head, tail) is on disk and ready, and something is if that is
 * not empty. The window must be empty. */
void window_recover(struct window *window, const struct window_recovery *recovery);

enum window_next { WINDOW_NOTHING, WINDOW_READY, WINDOW_ON_DISK };

/* The first ready entry, or that the first ready one is on disk and must be loaded first. */
enum window_next window_first_ready(struct window *window, struct place *place);

void window_take(struct window *window, struct place place); /* ready -> unacked */
/* The same without a consumer: it was not handed out. */
void window_set_aside(struct window *window, struct place place);
void window_requeue(struct window *window,
                    struct place place); /* unacked -> ready, where it stands; sets redelivered */
void window_remove(struct window *window,
                   struct place place); /* ready or unacked -> gone; drops the message */

/* All that is still ready is gone: nothing of that is on disk, and whatever segment has some has
 * nothing unacked. Their messages are freed with the remains. */
void window_drop_ready(struct window *window, struct remains *remains);

/* ---- what is on disk ---- */

/* The first part on disk, or NULL when all entries are in memory. */
static inline struct segment *window_first_on_disk(const struct window *window)
{
    return TAILQ_FIRST(&window->on_disk);
}

/* Whether fewer than so many segments with something ready stand before the first on disk. */
bool window_runs_dry(const struct window *window, unsigned segments);

/* The slots from `from` on, all of them ready or gone and some ready, are given up. place NULL: the
 * store has them all; they join a range, or become a stub if some have deadlines. Else a stub takes
 * over the place. The segment is gone when nothing of it is left. */
void window_page_out(struct window *window, struct segment *segment, uint32_t from,
                     const struct scratch_place *place);

/* The segment takes no more pushes. */
void window_seal(struct window *window, struct segment *segment);

/* The segment that an empty window keeps for the next push goes, if it is a large one. */
void window_shrink(struct window *window);

/* A part on disk is gone with all its entries. */
void window_remove_on_disk(struct window *window, struct segment *segment);

/* The same of one of many: it is freed with the remains. */
void window_drop_on_disk(struct window *window, struct segment *segment, struct remains *remains);

/* An entry of the range was read: it is in memory now, before the range, which begins behind it: in
 * the segment that ends where the range began, if that has a slot for it, or in a new one.
 * Positions ascend; about so many more will follow. */
struct place window_add_loaded(struct window *window, struct segment *range, uint64_t position,
                               struct message *message, size_t more);
/* Nothing alive is left in the range below next: the store has an entry there, with which it
 * begins, or that is its end, and it is gone. */
void window_shorten_range(struct window *window, struct segment *range, uint64_t next);

/* The store has so many entries fewer than it counted, as it turned out; or more. Which is not
 * said: the ranges count so many less or more together, and the rest shows when they are read. */
void window_recount(struct window *window, int64_t count, int64_t bytes);

/* The part on disk in which the position lies, or NULL. */
struct segment *window_find_on_disk(const struct window *window, uint64_t position);

/* An entry of the range could not be read back: it counts no more. */
void window_drop_from_range(struct window *window, struct segment *range, uint64_t bytes);

/* The deadlines of a range's entries below next were read: these are alive there, at most
 * SEGMENT_LARGE positions from first to end. They become stubs before the range; what else the
 * range counted below next is gone. */
struct window_learnt {
    uint64_t position, deadline_ms; /* DEADLINE_NONE: it has none */
    uint32_t weight;
};
void window_learn(struct window *window, struct segment *range, const struct window_learnt *entries,
                  size_t count, uint64_t next);

/* The stub was read: its entries by slot, each a reference that the window takes over, NULL where
 * none is alive (or none could be read: it counts no more). NULL: none is left, and nothing takes
 * the stub's place. */
struct segment *window_load_stub(struct window *window, struct segment *stub,
                                 struct message *messages[SEGMENT_LARGE]);

/* An entry of a stub with deadlines is gone. */
void window_remove_from_stub(struct window *window, struct segment *stub, uint32_t slot);

#endif
