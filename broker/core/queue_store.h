/* What a queue has in the store: the operations that a change of it puts into the open batch. Durability
 * of one entry, from push to settlement:
 *
 *     push ── stored? ──no──▶ lsn 0: lives and dies in memory
 *                └─yes─▶ put into the open batch, lsn = that batch's
 *     settle ── its batch is still open ──▶ taken back: it never was; its publisher need not wait for it if a consumer
 *           │                               has acknowledged it, else waits for the batch: see late_confirm.h
 *           └── it has left, or was read back from disk ──▶ deleted by the open batch
 *
 * Each window of a queue with priorities is a queue of its own to the store: ids id, id + 1, ...
 *
 * For queue.c and its parts. What is durable can be given up (queue_page_out.h) and read again
 * (queue_read.h). */
#ifndef CORE_QUEUE_STORE_H
#define CORE_QUEUE_STORE_H

#include "core/queue.h"

/* Which queue the window is to the store. */
static inline uint64_t queue_store_id(const struct queue *queue, const struct window *window)
{
    return window == &queue->window ? queue->id
                                    : queue->id + 1 + (uint64_t)(window - queue->others);
}

/* Which window that queue of the store is; NULL: none that is in use. */
struct window *queue_store_window(const struct queue *queue, uint64_t id);

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

#endif
