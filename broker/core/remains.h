/* What a queue dropped all at once: segments that no window has any more, with their messages,
 * which are freed in the turns that follow, a slice in each.
 *
 *     purge, delete ──▶ segment ▒ segment ▒ segment ──(REAP task)──▶ message_unref, free
 *
 * To free the two hundred thousand messages that a queue may have in memory takes tens of
 * milliseconds, most of it waiting for memory that was last touched long ago; and all other clients
 * wait too. That they are gone is known without a look at any of them.
 *
 * A slice takes about a millisecond; but it is never less than a part of all, so that what comes
 * each turn cannot pile up. What waits here belongs to no queue and counts in no figure. It is
 * memory still, but as good as free: nobody else need give up any for it (paging.c). Of what is on
 * disk there are only the segments, each of which counts as a message. */
#ifndef CORE_REMAINS_H
#define CORE_REMAINS_H

#include "core/window.h"
#include "net/loop.h"

enum {
    REMAINS_SLICE = 4096, /* messages; one of so many octets more counts as another */
    REMAINS_SLICE_OCTETS = 1024,
    REMAINS_SLICE_PART = 32, /* of all, at least */
};

struct remains {
    struct segment_list segments;
    uint64_t count; /* of their messages, and of those without any */
    uint64_t bytes; /* in the bodies of the messages */
    uint32_t slot;  /* of the first segment: those before it are freed */
    struct loop *loop;
    struct task task;
};

void remains_init(struct remains *remains, struct loop *loop);
void remains_release(struct remains *remains); /* frees all that is left */

/* Takes over a segment that is in no list, with what it has in memory. */
void remains_add(struct remains *remains, struct segment *segment);
void remains_add_bytes(struct remains *remains, uint64_t bytes); /* in the bodies of what it took */

/* How much memory will be free when it has gone, about: what other queues have, too, stays. */
uint64_t remains_memory(const struct remains *remains);

#endif
