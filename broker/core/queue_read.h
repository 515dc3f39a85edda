/* Reading back what a queue has on disk. Reads go to the store's reader thread, or scratch's, one at
 * a time for a queue, in pieces whose size follows from the memory that is free (paging.h); while
 * consumers are being served, the next piece is asked for when READ_AHEAD_SEGMENTS are left before
 * it, so that they need not wait.
 *
 *     read for       whom                                            reads
 *     entries        consumers, basic.get, limits; a stub whose      bodies
 *                    entries are due and have somewhere to go
 *     deadlines      ranges recovered with deadlines, behind all     the index alone
 *                    else: they become stubs
 *     a finding      what the store's check found damaged, beside    one entry
 *                    the others: to set it aside
 *
 * What a read brings is taken in if the part on disk still begins where it did. A part that is
 * damaged is given up; any other failure to read may pass: nothing of the queue is read for a
 * second, and then whoever waits asks again. What a stub has both in scratch and in the store is
 * read there when it is damaged here; so is what scratch fails to read (EIO) again and again.
 *
 * An entry that was deleted may be read back while its delete is not durable: so a segment is not
 * given up before the deletes of its entries are (queue_page_out.h), and a stub's bits say who is
 * alive. Of those that went with all of their segment nobody knows: nothing grows over their place
 * (window.h).
 *
 * For queue.c alone; queue_recover_entries and queue_on_finding, of queue.h, are here too. */
#ifndef CORE_QUEUE_READ_H
#define CORE_QUEUE_READ_H

#include "core/queue.h"

/* Starts to read a part on disk and what follows it, unless a read of the queue is under way:
 * queue_on_loaded runs when it ends. */
void queue_read(struct queue *queue, struct segment *segment);

/* The same, if consumers will soon have taken all that stands before the first part on disk. */
void queue_read_ahead(struct queue *queue);

/* A read had failed: whoever waits for it asks again. */
void queue_on_read_timer(struct timer *timer);

#endif
