/* What the parts of core/queue.h share: the windows of a queue, and what queue.c does for
 * queue_store.c, queue_read.c and outbox.c. */
#ifndef CORE_QUEUE_PARTS_H
#define CORE_QUEUE_PARTS_H

#include "core/queue.h"

/* Of the levels 0 to level_max. */
static inline struct window *queue_window(const struct queue *queue, unsigned level)
{
    const unsigned plain = queue->settings.priority_plain;

    if (queue->others == NULL || level == plain)
        return (struct window *)(uintptr_t)&queue->window;
    return &queue->others[level < plain ? level : level - 1];
}

/* The levels up to this one are in use. */
void queue_use_levels(struct queue *queue, unsigned level);

/* Something was read: whoever waited for it goes on. */
void queue_on_loaded(struct queue *queue);

/* Some may have left the outbox: there may be room again for what deadlines, limits and rejects
 * bring. */
void queue_on_outbox_tried(struct queue *queue);

/* Drops what is over the limit and in memory. */
void queue_drop_overflow(struct queue *queue);

#endif
