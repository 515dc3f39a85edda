/* A channel: methods in order, the assembly of a publish, consumers, unacked deliveries, and the
 * modes confirm and tx.
 *
 *     OPEN ──our error: channel.close──▶ AWAIT_CLOSE_OK ──close-ok──▶ gone
 *      └──────────client's close: close-ok─────────────────────────▶ gone
 *
 * A frame is looked at in three small states: METHOD → (publish) HEADER → (body_size > 0) BODY →
 * METHOD. What is wrong with a frame ends the connection (2.4); what is wrong with a request ends
 * the channel, or the connection, as its reply code says (5.3, 5.4). After channel.close has been
 * sent everything but close-ok and close is ignored (5.6). */
#ifndef SESSION_CHANNEL_H
#define SESSION_CHANNEL_H

#include "amqp/properties.h"
#include "core/consumer.h"
#include "core/message.h"
#include "session/confirm.h"
#include "session/connection.h"
#include "session/delivery.h"
#include "session/tx.h"

enum channel_state { CHANNEL_OPEN, CHANNEL_AWAIT_CLOSE_OK };
enum channel_expects { EXPECT_METHOD, EXPECT_HEADER, EXPECT_BODY };

struct channel {
    struct map_link by_number; /* in connection->channels */
    struct connection *connection;
    struct broker *broker;
    uint16_t number;
    enum channel_state state;

    /* the publish being assembled */
    enum channel_expects expects;
    bool publish_mandatory;
    uint8_t publish_exchange_size, publish_key_size;
    uint8_t publish_exchange[255], publish_key[255];
    struct message *message; /* from header to last body octet */
    uint32_t reserved_size;  /* of its body, with the connection: see connection_reserve */
    /* That it may publish to, whatever the key, as long as `generation` of the broker's users is
     * this. NULL: it has to be asked. */
    const struct exchange *publishable;
    uint64_t publishable_generation;

    struct reply_to *reply_to; /* waits for replies, or NULL */

    struct buf last_queue; /* name last declared (8.9); empty: none */

    struct map consumers; /* by tag */
    uint32_t consumer_count;
    uint16_t prefetch;           /* for consumers started from now on */
    uint16_t global_prefetch;    /* for all of them together; 0: none */
    uint32_t global_unacked;     /* deliveries to consumers, unacked, all together */
    uint32_t global_unacked_max; /* global prefetch, or the limit of the broker */
    bool warned_of_unacked;      /* that it has met the latter */
    struct deliveries deliveries;
    struct timer timeout;  /* set while one of them may become due: see consumer_timeout.h */
    uint64_t unacked_size; /* its part of the connection's */

    struct confirms *confirms; /* confirm mode, or NULL */
    struct tx *tx;             /* tx mode, or NULL */

    struct queue_waiter
        get_waiter;          /* a basic.get whose message is on disk: the connection is held */
    struct queue *get_queue; /* that it asked, while it waits */
    bool get_no_ack;
    uint64_t published, delivered, acknowledged, confirmed, returned;
};

/* A handler: does what the method asks and answers. false: error is filled, and the caller closes
 * channel or connection. */
typedef bool channel_handler(struct channel *channel, const struct amqp_method *method,
                             struct amqp_error *error);

struct channel *channel_new(struct connection *connection, uint16_t number);
/* Requeues what is unacked, cancels its consumers, drops an uncommitted tx; takes it off its
 * connection and frees it. Sends nothing. */
void channel_free(struct channel **channel);

/* A request was wrong, or the broker ends it for another reason: closes the channel with this
 * error, unless its code is for connections (5.3, 5.4): then false. */
bool channel_refuse(struct channel *channel, const struct amqp_error *error);

/* One frame for this channel; false: the connection must end with error. */
bool channel_on_frame(struct channel *channel, const struct amqp_frame *frame,
                      struct amqp_error *error);

void channel_send(struct channel *channel, const struct amqp_method *method);
void channel_send_durable(struct channel *channel, const struct amqp_method *method, uint64_t lsn);

/* Sends method, content header and body frames of a message as one content; small bodies are
 * copied, large ones shared. */
void channel_send_content(struct channel *channel, const struct amqp_method *method,
                          struct message *message);

/* The name of the queue that a method names: empty means the one last declared (8.9). False with
 * error filled when there is none. */
bool channel_queue_name(struct channel *channel, struct slice *name, struct amqp_error *error);

/* The queue that a method names, for this operation. NULL with error filled: 403, 404, or 405 when
 * it is exclusive to another connection. */
struct queue *channel_find_queue(struct channel *channel, struct slice name,
                                 enum access_operation operation, struct amqp_error *error);
void channel_remember_queue(struct channel *channel, struct slice name);

/* After credit came back: its consumers' queues are woken. */
void channel_wake_consumers(struct channel *channel);

/* How many deliveries its consumers may have unacked together; prefetch 0: as the broker's limit
 * says. */
void channel_set_global_prefetch(struct channel *channel, uint16_t prefetch);

/* It is full: says so in the log, once, when the broker's limit did it and not its client's. */
void channel_warn_when_full(struct channel *channel);

/* No consumer of it gets anything until something is settled. */
static inline bool channel_is_full(const struct channel *channel)
{
    return channel->global_unacked >= channel->global_unacked_max;
}

/* About what it takes in memory that this has to be acknowledged: names of exchange and key left
 * out. */
static inline uint64_t channel_unacked_size(const struct message *message)
{
    return sizeof(struct message) + sizeof(struct entry) + sizeof(struct delivery) +
           message->properties_size + (uint64_t)message->body_size;
}

/* The entry has to be acknowledged: it counts until it is settled. */
static inline void channel_count_unacked(struct channel *channel, const struct entry *entry)
{
    const uint64_t size = channel_unacked_size(entry->message);

    channel->unacked_size += size;
    channel->connection->unacked_size += size;
}
static inline void channel_uncount_unacked(struct channel *channel, const struct entry *entry)
{
    const uint64_t size = channel_unacked_size(entry->message);

    channel->unacked_size -= size;
    channel->connection->unacked_size -= size;
}

/* ---- in class_channel.c ---- */

/* A frame for a channel that is not open: channel.open makes it. */
bool channel_open(struct connection *connection, const struct amqp_frame *frame,
                  struct amqp_error *error);
/* channel.close and close-ok: the channel is gone after them. */
void channel_on_close(struct channel *channel);
void channel_on_close_ok(struct channel *channel);

/* ---- in class_basic.c ---- */

/* channel->message is whole: checks it, then routes it or holds it for tx.commit. */
bool channel_publish(struct channel *channel, struct amqp_error *error);

/* Routes a message that passed all checks, and sees to its return or confirm. Takes over the
 * caller's reference. */
void channel_route(struct channel *channel, struct exchange *exchange, struct message *message,
                   bool mandatory);

/* Of one that leads nowhere: returns it or counts it as dropped, with the caller's reference. */
void channel_drop(struct channel *channel, struct message *message, bool mandatory);

/* Settles one delivery now. Whoever gives something back calls queues_drop_overflow when all of it
 * is. */
void channel_settle(struct channel *channel, struct delivery *delivery, enum settlement how);

#endif
