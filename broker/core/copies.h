/* CC and BCC: routing keys beside the routing key, which a publisher gives in the headers of a
 * message (7.16). Each is an array of long strings. CC stays where it is; BCC is taken out of the
 * headers when the message comes in, and kept behind its properties, so that no consumer sees it
 * but dead-lettering can still route by it (13.2). */
#ifndef CORE_COPIES_H
#define CORE_COPIES_H

#include "amqp/reply.h"
#include "core/message.h"

enum {
    COPIES_MAX = 1024
}; /* of both headers together: one message must not become any number of them */

/* Looks for both headers in a complete message that nobody shares yet, and puts another in its
 * place where it must. false: 406 for headers of another type or with too many keys. */
bool copies_take(struct message **message, struct amqp_error *error);

/* All routing keys of a message, its own first. They point into the message. Returns how many. */
size_t copies_list(const struct message *message, struct slice keys[1 + COPIES_MAX]);

#endif
