/* A transaction of a channel: publishes and settlements held until tx.commit, when they are applied
 * in one turn and so join one batch of the store: all of it or nothing survives a crash. Publishes
 * first, then acks (9.15). */
#ifndef SESSION_TX_H
#define SESSION_TX_H

#include "base/base.h"

struct channel;
struct delivery;
struct message;
struct amqp_error;

enum settlement {
    SETTLE_ACK,
    SETTLE_REJECT,
    SETTLE_REQUEUE,
    SETTLE_RETURN /* the same, and it counts as a failed delivery (10.19) */
};

struct tx;

struct tx *tx_new(struct channel *channel);
void tx_free(struct tx **tx); /* drops what it holds */

/* Holds a publish that passed all checks; takes over the caller's reference. False with error
 * filled, and the message gone: the connection holds too much. */
bool tx_publish(struct tx *tx, struct message *message, bool mandatory, struct amqp_error *error);

/* Holds a settlement of this delivery, which must not be held yet. */
void tx_settle(struct tx *tx, struct delivery *delivery, enum settlement how);

/* The same for all up to this tag that are not held yet, oldest first. */
void tx_settle_up_to(struct tx *tx, uint64_t last, enum settlement how);

/* Applies everything; *lsn is what commit-ok must wait for, or 0, *entries whether for entries put
 * under it, too: it does more than acknowledge. false with error filled: nothing was applied. */
bool tx_commit(struct tx *tx, uint64_t *lsn, bool *entries, struct amqp_error *error);

/* Forgets everything: publishes are dropped, deliveries stay unacked (9.17). */
void tx_rollback(struct tx *tx);

#endif
