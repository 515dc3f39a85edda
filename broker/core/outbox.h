/* What has died in a queue and is not yet a dead letter.
 *
 *     retire ─▶ waiting ─▶ dead_letters_run: published if it has somewhere to go, and deleted, in one batch
 *
 * Until then the message stays where it stands in its queue, set aside: in its window it is
 * unacked, and no consumer holds it. Nearly always that ends in the same turn; how it can take
 * longer is in core/dead_letter.h. When the outbox is heavy, what is due or too much stays ready
 * until it is empty, as nothing that is set aside can leave memory; and consumers get nothing, for
 * they may reject it. All that owe are heavy while what they owe together is very large. The outbox
 * goes on without its queue when that is deleted, and is freed when it is empty.
 *
 * Dead letters that must not be lost are those of dead-letter-strategy at-least-once, of a quorum
 * queue that overflows by reject-publish (13.3):
 *
 *     retire ─▶ waiting ─▶ trying, OUTBOX_TRYING_MAX at a time ─▶ published and deleted, in one batch
 *                             ▲    │ the exchange is not there, no queue is bound, or one refuses
 *                             └────┘ OUTBOX_RETRY_MS later
 *
 * For the limits of their queue they still count, so that publishers are refused in the end and not
 * memory filled. Those that cannot go keep their place among those that are tried, so that the work
 * for them is bounded, however many wait behind; and while all places are taken, deadlines bring no
 * more. Rejects go on, so that one bad message does not stop a queue, until the outbox is heavy. None
 * is tried twice before the timer, and who has had its turn comes behind those who have not.
 *
 * What is set aside is on disk as it was before it died: after a restart it is ready again, to
 * expire at once if that was its end, to be delivered again if it was a reject.
 *
 * Which of both it is the settings of the queue say: when a policy changes that, what is there goes
 * the other way. A queue has one of these from the first message that dies. */
#ifndef CORE_OUTBOX_H
#define CORE_OUTBOX_H

#include "core/dead_letter.h"
#include "core/window.h"
#include "net/loop.h"

enum {
    OUTBOX_TRYING_MAX = 32,
    OUTBOX_RETRY_MS = 1000,
    OUTBOX_HEAVY_COUNT = 10000, /* of either: it is heavy */
    OUTBOX_HEAVY_BYTES = 16 * 1024 * 1024,
};

struct outgoing {
    struct place place;
    enum death death;
    bool tried; /* in vain, since the timer was set */
};

struct outbox {
    struct queue *queue; /* a counted reference while it owes */
    TAILQ_ENTRY(outbox) by_owing;
    bool owes;           /* in broker->dead_letters.owing: not empty, nothing is tried */
    uint64_t since_turn; /* owes: since then */
    struct outgoing trying[OUTBOX_TRYING_MAX];
    size_t trying_count;
    struct outgoing *waiting; /* a ring, the oldest first */
    size_t waiting_first, waiting_count, waiting_capacity;
    uint64_t bytes;     /* body octets of all of them */
    bool told;          /* the log knows that some cannot go */
    struct task task;   /* tries those that are new, if it does not owe */
    struct timer timer; /* set while some have been tried in vain, or had no time in this turn */
    uint64_t retry_ms;  /* when those are tried again; 0: none has been */
};

/* Sets the entry aside, which is ready or unacked, and sees to the rest. *outbox: the queue's, made
 * when it is NULL. */
void outbox_add(struct outbox **outbox, struct queue *queue, struct place place, enum death death);

/* Something has changed: all are tried again soon. */
void outbox_try(struct outbox *outbox);

/* For dead_letters_run, while it owes: makes the first letter; it may be the last, and the outbox
 * gone. */
void outbox_send_one(struct outbox *outbox);
void outbox_abandon(struct outbox *outbox); /* owes no more: the entries stay */

/* Its queue is deleted: what it owes is made, the rest of the entries are the caller's. */
void outbox_end(struct outbox **outbox);

/* With its queue; the entries are the caller's. Harmless when NULL. */
void outbox_free(struct outbox **outbox);

static inline size_t outbox_count(const struct outbox *outbox)
{
    return outbox == NULL ? 0 : outbox->trying_count + outbox->waiting_count;
}
bool outbox_is_heavy(const struct outbox *outbox); /* NULL: it is not */

/* Nothing is to be added that can wait. */
static inline bool outbox_is_full(const struct outbox *outbox)
{
    return outbox_is_heavy(outbox) ||
           (outbox != NULL && !outbox->owes && outbox_count(outbox) >= OUTBOX_TRYING_MAX);
}
/* It owes letters since an earlier turn. */
static inline bool outbox_lags(const struct outbox *outbox, uint64_t turn)
{
    return outbox != NULL && outbox->owes && outbox->since_turn != turn;
}

#endif
