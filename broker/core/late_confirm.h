/* Publishers whose message was put into the open batch and has been taken back by something that is
 * only certain when that batch is durable: a queue that is full drops it for the sake of another, a
 * purge or the end of its queue takes it, a transaction acknowledges it. They are told then. Told
 * at once, a crash could leave them with the confirm of a message that is lost, and that nobody
 * purged or replaced.
 *
 * Who is told at once: whose message a consumer has acknowledged, or was handed without asking for
 * acks. It has done its work. And whose message a full queue did not keep even for the time of its
 * publish, for want of room or of priority: it was never there, whatever becomes of others. */
#ifndef CORE_LATE_CONFIRM_H
#define CORE_LATE_CONFIRM_H

#include "base/buf.h"
#include "core/message.h"
#include "core/parking.h"

struct late_confirms { /* of one batch */
    struct parked parked;
    struct buf waiting; /* of struct late_confirm, with a counted reference */
};

struct broker;
void late_confirms_init(struct broker *broker);
void late_confirms_release(struct broker *broker); /* without telling anybody */

/* Tells the publisher when the open batch is durable, or when nothing is left in it. */
void late_confirm(struct broker *broker, struct publisher *publisher, uint64_t sequence);

#endif
