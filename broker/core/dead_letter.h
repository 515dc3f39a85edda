/* Where a message goes after reject, expiry or overflow: published anew, by the broker, to its
 * queue's dead-letter exchange, with its history in the headers (section 13).
 *
 * It happens in two steps within one turn. The queue hands the message over when it drops the
 * entry; dead_letters_run, at the end of the turn and before the batch is submitted, routes what
 * has gathered, and what that drops in turn, until nothing is left. So the delete here and the
 * insert there are in one batch, and a chain of overflowing queues is a loop, not a recursion.
 *
 * A message whose delay is over takes the same two steps, out of the queue of its delayed exchange:
 * nobody has died, so it goes on as it was, through that exchange (core/exchange_delayed.c). */
#ifndef CORE_DEAD_LETTER_H
#define CORE_DEAD_LETTER_H

#include "core/exchange.h"
#include "core/message.h"

struct broker;

enum death { DEATH_REJECTED, DEATH_EXPIRED, DEATH_MAXLEN, DEATH_DELIVERY_LIMIT };

struct dead_letter {
    struct queue *queue;     /* a counted reference */
    struct message *message; /* likewise */
    enum death death;
    struct publisher *publisher; /* still waits for its confirm: likewise, or NULL */
    uint64_t sequence;
};

struct dead_letters {
    struct dead_letter *waiting;
    size_t count, capacity;
    struct route route; /* scratch */
};

void dead_letters_release(struct dead_letters *letters); /* none may wait */

/* The queue drops an entry of this message; its settings name a dead-letter exchange. publisher, if
 * not NULL, would have been told now: it is told when the dead letter needs no disk, else by the
 * batch that holds it. Takes its own references. */
void dead_letters_add(struct broker *broker, struct queue *queue, struct message *message,
                      enum death death, struct publisher *publisher);

/* The message was dropped by a queue that it has just been pushed to, before anybody waited for it,
 * and this letter of it waits: who waits for the message must wait for the letter, and is its
 * publisher from now on. NULL: there is none. since: dead_letters.count before the push. */
static inline struct dead_letter *dead_letters_find(struct dead_letters *letters,
                                                    const struct message *message, size_t since)
{
    for (size_t i = letters->count; i > since; i--)
        if (letters->waiting[i - 1].message == message)
            return &letters->waiting[i - 1];
    return NULL;
}
void dead_letter_await(struct dead_letter *letter, struct publisher *publisher, uint64_t sequence);

/* Routes all that waits. */
void dead_letters_run(struct broker *broker);

#endif
