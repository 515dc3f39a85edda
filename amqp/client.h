/* The client's side of the wire, for tools and tests: its part of the handshake, and whole
 * publishes. Everything is appended to a buf; what a server sends is read with amqp_frame_parse and
 * amqp_method_decode like anything else. */
#ifndef AMQP_CLIENT_H
#define AMQP_CLIENT_H

#include "base/buf.h"

void amqp_client_protocol_header(struct buf *out);

/* start-ok with PLAIN. name, when not empty, is the connection_name (4.1.5). Declares the
 * capabilities that any reader of frames has: consumer_cancel_notify, connection.blocked,
 * authentication_failure_close, basic.nack, publisher_confirms. */
void amqp_client_start_ok(struct buf *out, struct slice user, struct slice password,
                          struct slice name);
void amqp_client_tune_ok(struct buf *out, uint16_t channel_max, uint32_t frame_max,
                         uint16_t heartbeat_s);
void amqp_client_open(struct buf *out, struct slice virtual_host);

struct amqp_client_message {
    struct slice exchange, routing_key;
    struct slice properties; /* flags and fields as on the wire; empty for none */
    struct slice body;
    bool mandatory;
};

/* The method, header and body frames of one publish, the body cut to frames of at most frame_max
 * octets. */
void amqp_client_publish(struct buf *out, uint16_t channel, uint32_t frame_max,
                         const struct amqp_client_message *message);

#endif
