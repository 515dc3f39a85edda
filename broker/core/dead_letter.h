/* Where a message goes after reject, expiry or overflow: published anew, by the broker, to its
 * queue's dead-letter exchange, with its history in the headers (section 13).
 *
 * It happens in two steps within one turn. The queue hands the message over when it drops the
 * entry; dead_letters_run, at the end of the turn and before the batch is submitted, routes what
 * has gathered, and what that drops in turn, until nothing is left. So the delete here and the
 * insert there are in one batch, and a chain of overflowing queues is a loop, not a recursion.
 *
 * A queue that keeps its dead letters until they are taken hands them over by itself, through
 * dead_letter_publish: core/outbox.h.
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

/* A message has been pushed to its queues, and nobody waits for it yet: how many things there are
 * to wait for, its entries in the open batch (one, however many) and each letter of it that waits,
 * where a queue has dropped it already. since: dead_letters.count before. */
size_t dead_letters_count_awaited(const struct broker *broker, const struct message *message,
                                  size_t since);
/* There is something: this publisher waits for it from now on; of several, it is told late. Takes
 * its own reference. */
void dead_letters_await(struct broker *broker, struct message *message, size_t since,
                        struct publisher *publisher, uint64_t sequence);

/* Publishes the dead letter of this message at once if it has somewhere to go, and all its targets
 * take it: then the answer is NULL, and the caller deletes the message in the same turn. Else why
 * not. */
const char *dead_letter_publish(struct queue *queue, struct message *message, enum death death);

/* Routes all that waits. */
void dead_letters_run(struct broker *broker);

#endif
