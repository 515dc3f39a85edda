/* Direct reply-to (section 14): replies to a channel's requests without a queue.
 *
 *     requester   consume amq.rabbitmq.reply-to, no-ack            ─▶ the channel gets a name that nobody can guess
 *                 publish, reply_to = amq.rabbitmq.reply-to        ─▶ reply_to = amq.rabbitmq.reply-to.<name>
 *     responder   publish to the default exchange, that as its key ─▶ basic.deliver on the requester's channel
 *
 * Nothing is kept: a reply that comes when the requester is gone is dropped, and so is one for a
 * requester that has stopped reading. */
#ifndef SESSION_REPLY_TO_H
#define SESSION_REPLY_TO_H

#include "amqp/reply.h"
#include "core/exchange.h"
#include "core/name.h"

struct channel;

struct reply_to {
    struct reply_target target; /* its name stands in `name` */
    struct channel *channel;
    char name[sizeof(REPLY_TARGET_PREFIX) + NAME_RANDOM_SIZE];
    uint8_t tag_size;
    uint8_t tag[255];
};

/* Whether a queue of this name, or one whose name begins like it, is none but this. */
bool reply_to_is_pseudo_queue(struct slice name);
bool reply_to_is_reserved(struct slice name);

/* basic.consume from the pseudo-queue; false: 406. The tag is not in use. */
bool reply_to_consume(struct channel *channel, struct slice tag, bool no_ack,
                      struct amqp_error *error);
void reply_to_free(struct reply_to **reply_to);

static inline struct slice reply_to_tag(const struct reply_to *reply_to)
{
    return slice_of(reply_to->tag, reply_to->tag_size);
}

/* A publish with property reply_to: when that is the pseudo-queue the channel's own name takes its
 * place, in a message that takes the place of this one. false: 406. */
bool reply_to_rewrite(const struct channel *channel, struct message **message,
                      struct amqp_error *error);

/* 14.4: the pseudo-queue always, of names those at which somebody waits. */
bool reply_to_exists(const struct vhost *vhost, struct slice name);

#endif
