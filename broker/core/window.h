/* The entries of a queue, in order of position, and which part of them is in memory.
 *
 *     head                                                             tail
 *     │ loaded segment │ range on disk            │ loaded │ loaded (fresh) │
 *       R U . R U R R    ????????????????????????   R R R    R R R
 *
 * A position is given once, at push, and never changes: an entry that is requeued becomes ready
 * again where it stands. A segment holds consecutive positions; each slot is ready (R), unacked (U)
 * or gone (.). A *range* is a stretch of positions that only the store has, all ready, known by
 * count and bytes alone; loading replaces it from its front, piece by piece, by segments. A segment
 * whose entries are all gone is freed; nothing refers to it any more. So a queue of ten million
 * recovered messages costs one range, and one lone unacked message costs one segment.
 *
 * Invariants: segments are disjoint and ascending; ready_count and ready_bytes are sums over
 * segments and ranges; a slot's message is not NULL exactly while the slot is ready or unacked;
 * `cursor` stands at or before the first segment with anything ready. */
#ifndef CORE_WINDOW_H
#define CORE_WINDOW_H

#include "core/expiry.h"
#include "core/message.h"

struct entry {
    struct message *message;  /* a counted reference */
    uint64_t lsn;             /* batch that puts it in the store; 0: it is not to be stored */
    uint32_t put_number;      /* in that batch */
    uint32_t redelivered : 1; /* handed out before, perhaps */
    uint32_t delivery_count : 15, acquired_count : 16; /* see delivery_count.h */
};

enum { SEGMENT_SMALL = 8, SEGMENT_LARGE = 256 };

struct window;

struct segment {
    TAILQ_ENTRY(segment) link;
    struct window *window;
    uint64_t first; /* position of slot 0, or of the range's first */
    uint64_t end;   /* one past the last slot given out, or the range's last */
    uint64_t count; /* entries alive: ready or unacked; of a range: its entries */
    uint64_t bytes; /* of a range: body octets of its entries */
    uint32_t ready_count;
    uint16_t capacity;                  /* slots; 0: a range on disk */
    struct deadlines deadlines;         /* of slots that have one */
    uint64_t ready[SEGMENT_LARGE / 64]; /* a bit per slot */
    struct entry entries[];
};
TAILQ_HEAD(segment_list, segment);

static inline bool segment_is_ready(const struct segment *segment, uint32_t slot)
{
    return (segment->ready[slot / 64] >> (slot % 64) & 1) != 0;
}

struct place { /* of an entry: stays valid until window_remove of that entry */
    struct segment *segment;
    uint32_t slot;
};

struct window {
    struct segment_list segments;
    struct expiry *expiry;  /* told when a segment with deadlines goes; NULL: none ever has any */
    struct segment *cursor; /* where the search for ready entries starts; NULL when there is none */
    uint64_t tail;          /* the next position */
    uint64_t ready_count, ready_bytes; /* body octets, ranges included */
    uint64_t unacked_count, unacked_bytes;
    uint64_t delivered; /* entries read back below this position may have been handed out before */
};

void window_init(struct window *window, struct expiry *expiry);
void window_release(struct window *window); /* drops every entry's message */

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

/* A recovered queue: everything in [head, tail) is on disk and ready. The window must be empty. */
void window_recover(struct window *window, uint64_t head, uint64_t tail, uint64_t count,
                    uint64_t bytes);

enum window_next { WINDOW_NOTHING, WINDOW_READY, WINDOW_ON_DISK };

/* The first ready entry, or that the first ready one lies in a range that must be loaded first. */
enum window_next window_first_ready(struct window *window, struct place *place);

void window_take(struct window *window, struct place place); /* ready -> unacked */
void window_requeue(struct window *window,
                    struct place place); /* unacked -> ready, where it stands; sets redelivered */
void window_remove(struct window *window,
                   struct place place); /* ready or unacked -> gone; drops the message */

/* The first range, or NULL when all entries are in memory. */
struct segment *window_first_range(struct window *window);

/* The range is gone with all its entries. */
void window_remove_range(struct window *window, struct segment *range);

/* An entry of the range was read: it is in memory now, before the range, which begins behind it.
 * Positions ascend. */
struct place window_add_loaded(struct window *window, struct segment *range, uint64_t position,
                               struct message *message);
/* Nothing alive is left in the range below next: it begins there, and is gone when that is its
 * end. */
void window_shorten_range(struct window *window, struct segment *range, uint64_t next);

/* An entry of the range could not be read back: it counts no more. */
void window_drop_from_range(struct window *window, struct segment *range, uint64_t bytes);

#endif
