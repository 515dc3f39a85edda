/* A transaction of a channel: publishes and settlements held until tx.commit, when they are applied in one turn and so join one batch
 * of the store: all of it or nothing survives a crash. Publishes first, then acks (9.15). */
#ifndef SESSION_TX_H
#define SESSION_TX_H

#include "base/base.h"

struct channel;
struct message;
struct amqp_error;

enum tx_settle { TX_ACK, TX_REJECT, TX_REQUEUE };

struct tx;

struct tx *tx_new(struct channel *channel);
void tx_free(struct tx **tx); /* drops what it holds */

/* Holds a routed publish; takes its own reference on the message. */
void tx_publish(struct tx *tx, struct message *message, bool mandatory);
/* Holds a settlement of the delivery with this tag, which is known to be outstanding. */
void tx_settle(struct tx *tx, uint64_t tag, enum tx_settle how);
bool tx_holds(const struct tx *tx, uint64_t tag); /* a settlement of this tag is held already */

/* Applies everything; *lsn is what commit-ok must wait for, or 0. */
bool tx_commit(struct tx *tx, uint64_t *lsn, struct amqp_error *error);
void tx_rollback(struct tx *tx);

#endif
