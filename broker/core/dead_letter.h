/* Where a message goes after reject, expiry or overflow: published anew, by the broker, to its
 * queue's dead-letter exchange, with its history in the headers (section 13).
 *
 * What dies is set aside in the outbox of its queue (core/outbox.h); at the end of the turn, before
 * the batch is submitted, dead_letters_run goes over the outboxes that owe letters:
 *
 *     dies ─▶ outbox of its queue ─▶ letter: routed, and its entry deleted, in one batch
 *                  ▲                    └─▶ queue that has no room for it, or lets it expire at once
 *                  └────────────────────────────────────────────┘ the outbox of that owes next
 *
 * So a chain of overflowing queues is a loop, not a recursion, and one message may become as
 * many letters as there are ways through such queues: ten layers of ten make 10^10 of it. So a turn
 * makes as many as TURN_STEPS_MAX allow, and one: to each letter its own routing, its queues and the
 * octets that are copied. The rest stays where it is, in its queue and on disk as before it died,
 * for the turns that follow.
 *
 * The outbox to which something came last is first, for one letter at a time; the letters of one
 * queue stay in order. So a tree of them is gone through in depth: what waits is never much more
 * than what the queues on one way through it were given. And who comes after such a storm has begun
 * need not wait for its end. Publishers to a queue whose letters are behind wait for the turns that
 * make them (dead_letters_lag), and while very many are owed, or large ones, until they are fewer;
 * then, too, deadlines bring one at a time.
 *
 * What a transaction rejects is the exception: it is taken from its queue at once, and routed by
 * dead_letters_run_taken, for the commit is one batch. So it is for LETTERS_TAKEN_STEPS, a tenth of a
 * second; what is rejected then is owed like any other. What they set off, and what the transaction
 * crowds out, has the budget of all.
 *
 * A queue that keeps its dead letters until they are taken hands them over by itself, through
 * dead_letter_publish and at the expense of the same budget, of which it may use half.
 *
 * A message whose delay is over goes the same way, out of the queue of its delayed exchange:
 * nobody has died, so it goes on as it was, through that exchange (core/exchange_delayed.c). */
#ifndef CORE_DEAD_LETTER_H
#define CORE_DEAD_LETTER_H

#include "core/exchange.h"
#include "core/message.h"
#include "core/parking.h"

struct broker;
struct outbox;
struct place;

enum {
    LETTER_STEPS = 200,    /* to make one that leads nowhere, beside its octets */
    LETTERS_HEAVY = 10000, /* that all queues owe, of either: see dead_letters_are_heavy */
    LETTERS_HEAVY_BYTES = 64 * 1024 * 1024,
    LETTERS_TAKEN_STEPS = 20000000, /* in a turn: of plain letters 100000 */
};

enum death { DEATH_REJECTED, DEATH_EXPIRED, DEATH_MAXLEN, DEATH_DELIVERY_LIMIT };

struct dead_letter {         /* its entry is gone */
    struct queue *queue;     /* a counted reference */
    struct message *message; /* likewise */
    enum death death;
    struct publisher *publisher; /* still waits for its confirm: likewise, or NULL */
    uint64_t sequence;
};

TAILQ_HEAD(outboxes, outbox);
struct dead_letters {
    struct outboxes owing; /* outboxes with letters to make; where one came last is first */
    uint64_t owed_count, owed_bytes; /* letters to make, of all these, and body octets of them */
    bool is_making;                  /* one: what dies now is set off by that */
    bool are_behind;                 /* the last turn did not make them all */
    struct parking relief; /* who waits until some are made; an LSN counts how often some were */
    size_t spent;          /* steps, ... */
    size_t spent_on_taken; /* ... and those of transactions, in the turn ... */
    uint64_t spent_turn;   /* ... with this number */
    struct dead_letter *taken; /* from their queues, and not yet routed */
    size_t taken_count, taken_capacity;
    struct route route; /* scratch */
};

void dead_letters_init(struct broker *broker);
void dead_letters_end(struct broker *broker); /* what is owed stays in its queues, for the store */

static inline bool dead_letters_are_heavy(const struct dead_letters *letters)
{
    return letters->owed_count >= LETTERS_HEAVY || letters->owed_bytes >= LETTERS_HEAVY_BYTES;
}

/* Of this turn's budget there is more than `kept`. */
bool dead_letters_may_spend(struct broker *broker, size_t kept);

/* The entry, set aside or not, becomes a dead letter now and is gone. Who waited for it alone waits
 * for the letter: told when that needs no disk, else by the batch that holds it. */
void dead_letter_send(struct queue *queue, struct place place, enum death death);

/* The entry goes now, and becomes a dead letter in dead_letters_run_taken, before the open batch is
 * submitted: if it dies in a transaction that has not had too many. */
bool dead_letters_are_taken(struct broker *broker);
void dead_letter_take(struct queue *queue, struct place place, enum death death);
void dead_letters_run_taken(struct broker *broker);

/* For who has just published to these queues: whether he is to wait, as one of them has letters to
 * make that the turns before have not. */
bool dead_letters_lag(const struct broker *broker, const struct route *route);
void dead_letters_await(struct broker *broker, struct parked *parked);

/* Publishes the dead letter of this message at once if it has somewhere to go, and all its targets
 * take it: then the answer is NULL, and the caller deletes the message in the same turn. Else why
 * not. */
const char *dead_letter_publish(struct queue *queue, struct message *message, enum death death);

/* At the end of the turn: makes what is owed, as far as the budget goes. */
void dead_letters_run(struct broker *broker);

#endif
