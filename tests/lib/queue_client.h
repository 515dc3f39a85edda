/* What tests about queues say to the broker, a line each: on channel 1 of a peer of the harness. */
#ifndef TESTS_QUEUE_CLIENT_H
#define TESTS_QUEUE_CLIENT_H

#include "amqp/properties.h"
#include "tests/lib/harness.h"

/* A table from "name=I5,name=Stext,...": the tag of the type, then the value. */
struct slice arguments_of(struct buf *out, const char *text);

/* arguments NULL: none. */
void declare_queue(struct peer *peer, const char *queue, bool durable, const char *arguments);
void declare_exchange(struct peer *peer, const char *exchange, const char *type);
void bind_queue(struct peer *peer, const char *queue, const char *exchange, const char *key);
uint32_t count_ready(struct peer *peer, const char *queue);

/* To a queue by its name, with these properties; flags are set for all that are not empty or 0. */
struct sent {
    const char *expiration;
    uint8_t priority;
    bool has_priority;
    bool persistent;
    const char *headers; /* as for arguments_of */
};
void publish(struct peer *peer, const char *queue, const char *body);
void publish_with(struct peer *peer, const char *queue, const char *body, const struct sent *sent);
/* The same, more in one piece: appended to out, for peer_send_bytes. */
void put_publish(struct buf *out, const char *exchange, const char *key, const char *body,
                 const struct sent *sent);

/* basic.get. get_one: the message must be there, and is acknowledged by itself; get_unacked:
 * answers its tag. */
void get_one(struct peer *peer, const char *queue, const char *body);
uint64_t get_unacked(struct peer *peer, const char *queue, const char *body);
void get_nothing(struct peer *peer, const char *queue);

void consume(struct peer *peer, const char *queue, const char *tag, bool no_ack,
             const char *arguments);
uint64_t expect_delivery(struct peer *peer, const char *body); /* its tag */

void set_prefetch(struct peer *peer, uint16_t count);
void ack(struct peer *peer, uint64_t tag);
void reject(struct peer *peer, uint64_t tag, bool requeue);
void nack(struct peer *peer, uint64_t tag, bool requeue);
void close_channel(struct peer *peer);
void open_channel(struct peer *peer);

/* The headers of the content read last, as text: "name=Stext name=[{name=l1,...},...] ..."; of one
 * that is not there NULL. Valid until the next call. */
const char *headers_of(struct peer *peer);
const char *header_of(struct peer *peer, const char *name);

#endif
