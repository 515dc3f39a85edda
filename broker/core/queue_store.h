/* The entries of a queue and the store. Durability of one entry, from push to settlement:
 *
 *     push ── stored? ──no──▶ lsn 0: lives and dies in memory
 *                └─yes─▶ put into the open batch, lsn = that batch's
 *     settle ── its batch is still open ──▶ taken back: it never was; its publisher need not wait for it if a consumer
 *           │                               has acknowledged it, else waits for the batch: see late_confirm.h
 *           └── it has left, or was read back from disk ──▶ deleted by the open batch
 *
 * Each window of a priority queue is a queue of its own to the store: ids id, id + 1, ...
 *
 * For queue.c alone. */
#ifndef CORE_QUEUE_STORE_H
#define CORE_QUEUE_STORE_H

#include "core/queue.h"

static inline struct window *queue_window(const struct queue *queue, unsigned level)
{
    return level == 0 ? (struct window *)(uintptr_t)&queue->window : &queue->higher[level - 1];
}

void queue_store_create(struct queue *queue);
void queue_store_delete(struct queue *queue); /* what of it is in the open batch is taken back */
void queue_store_mark(struct queue *queue);   /* what has been handed out, for after a clean stop */

/* Puts the entry into the open batch. deadline_ms by the monotonic clock, or DEADLINE_NONE. */
void queue_store_entry(struct queue *queue, struct place place, uint64_t deadline_ms);

/* Who waits for this entry alone, and so for its dead letter from now on; NULL: nobody. Who waits for
 * other entries of the message too is told late: by then the letter is as certain as they are. */
struct publisher *queue_take_wait(struct queue *queue, struct place place);

/* The entry is gone: from the store too. Returns whether a reply about it must wait for the open
 * batch. Forgotten because a consumer is done with it, or dropped: its publisher, if it waits, is told
 * at once or late. Quietly: it is not told; the caller sees to that. */
bool queue_forget_entry(struct queue *queue, struct place place);
bool queue_drop_entry(struct queue *queue, struct place place);
void queue_forget_entry_quietly(struct queue *queue, struct place place);

/* The same for a range on disk with all its entries. */
bool queue_forget_range(struct queue *queue, struct segment *range);

/* Starts to read the front of the window's first range, unless a read is under way. */
void queue_read_ahead(struct queue *queue, struct window *window);

/* Who is served next: the highest priority, after those whose time is over. WINDOW_ON_DISK: it is
 * being read. In queue.c. */
enum window_next queue_first_ready(struct queue *queue, struct place *place);

/* Drops what is over the limit and in memory. In queue.c. */
void queue_drop_overflow(struct queue *queue);

#endif
