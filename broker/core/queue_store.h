/* The entries of a queue and the store. Durability of one entry, from push to settlement:
 *
 *     push ── stored? ──no──▶ lsn 0: lives and dies in memory
 *                └─yes─▶ put into the open batch, lsn = that batch's
 *     settle ── its batch is still open ──▶ taken back: it never was; its publisher need not wait for it if a consumer
 *           │                               has acknowledged it, else waits for the batch: see late_confirm.h
 *           └── it has left, or was read back from disk ──▶ deleted by the open batch
 *
 * What is durable can be given up and read again. Reads go to the store's reader thread, one at a
 * time for a queue, in pieces whose size follows from the memory that is free (paging.h); while
 * consumers are being served, the next piece is asked for when READ_AHEAD_SEGMENTS are left before
 * it, so that they need not wait. What a read brings is taken in if the part on disk still begins
 * where it did. A part that is damaged is given up; any other failure to read may pass: nothing of
 * the queue is read for a second, and then whoever waits asks again. What a stub has both in scratch
 * and in the store is read there when it is damaged here.
 *
 *     read for       whom                                            reads
 *     entries        consumers, basic.get, limits; a stub whose      bodies
 *                    entries are due and have somewhere to go
 *     deadlines      ranges recovered with deadlines, behind all     the index alone
 *                    else: they become stubs
 *
 * An entry that was deleted may be read back while its delete is not durable: so a segment is not
 * given up before the deletes of its entries are (deleted_lsn), and a stub's bits say who is alive.
 * Of those that went with all of their segment nobody knows: nothing grows over their place
 * (window.h).
 *
 * Each window of a queue with priorities is a queue of its own to the store: ids id, id + 1, ...
 *
 * For queue.c alone. */
#ifndef CORE_QUEUE_STORE_H
#define CORE_QUEUE_STORE_H

#include "core/queue.h"

/* Of the levels 0 to level_max. */
static inline struct window *queue_window(const struct queue *queue, unsigned level)
{
    const unsigned plain = queue->settings.priority_plain;

    if (queue->others == NULL || level == plain)
        return (struct window *)(uintptr_t)&queue->window;
    return &queue->others[level < plain ? level : level - 1];
}

void queue_store_create(struct queue *queue);
void queue_store_create_level(struct queue *queue, unsigned level);
void queue_store_delete(struct queue *queue); /* what of it is in the open batch is taken back */
void queue_store_mark(struct queue *queue);   /* what has been handed out, for after a clean stop */

/* Puts the entry into the open batch. deadline_ms by the monotonic clock, or DEADLINE_NONE. */
void queue_store_entry(struct queue *queue, struct place place, uint64_t deadline_ms);

/* Who waits for this entry alone, and so for its dead letter from now on; NULL: nobody. Who waits
 * for other entries of the message too is told late: by then the letter is as certain as they
 * are. */
struct publisher *queue_take_wait(struct queue *queue, struct place place);

/* Why an entry goes. Its publisher, if it waits for this entry, is told at once or late
 * (late_confirm.h); and its delete leaves when there is room for it, or only together with what is
 * put into the open batch. */
enum removal {
    REMOVE_SETTLED,  /* a consumer is done with it: at once, in a transaction late */
    REMOVE_DROPPED,  /* nobody will have it: late */
    REMOVE_REPLACED, /* by its dead letter, or by what crowded it out: late, and not without that */
    REMOVE_MOVED,    /* the same, and its publisher waits for the dead letter: not told */
};

/* The entry is gone: from the store too. Returns whether the open batch now deletes it, so that a
 * reply about it must wait for that. */
bool queue_remove_entry(struct queue *queue, struct place place, enum removal removal);

/* The same for one entry of a stub with deadlines, of which nobody needs the body. */
void queue_forget_in_stub(struct queue *queue, struct segment *stub, uint32_t slot);

/* Drops all that is ready in the window, however much that is: what is stored is deleted by the
 * open batch in runs, not one by one, and what never was is freed later (remains.h). Returns whether
 * it deletes anything. */
bool queue_drop_ready(struct queue *queue, struct window *window);

/* Gives up what the window has in memory beyond the first `keep` octets or so that are ready, as
 * far as the store has it: the newest first, at most so many segments. Answers how many. For
 * paging.c. */
unsigned queue_page_out(struct window *window, uint64_t keep, unsigned segments_max);

/* Starts to read a part on disk and what follows it, unless a read of the queue is under way:
 * queue_on_loaded runs when it ends. */
void queue_read(struct queue *queue, struct segment *segment);

/* The same, if consumers will soon have taken all that stands before the first part on disk. */
void queue_read_ahead(struct queue *queue);

/* A read had failed: whoever waits for it asks again. */
void queue_on_read_timer(struct timer *timer);

/* Something was read: whoever waited for it goes on. In queue.c. */
void queue_on_loaded(struct queue *queue);

/* Who is served next: the highest priority, after those whose time is over. WINDOW_ON_DISK: it is
 * being read, or so many are over that the rest of them goes in the next turn. In queue.c. */
enum window_next queue_first_ready(struct queue *queue, struct place *place);

/* Drops the entry, into a dead letter at most once if it may have one. In queue.c. */
void queue_let_go(struct queue *queue, struct place place, enum death death);

/* Some may have left the outbox: there may be room again for what deadlines and rejects bring. In
 * queue.c. */
void queue_on_outbox_tried(struct queue *queue);

/* The levels up to this one are in use. In queue.c. */
void queue_use_levels(struct queue *queue, unsigned level);

/* Drops what is over the limit and in memory. In queue.c. */
void queue_drop_overflow(struct queue *queue);

#endif
