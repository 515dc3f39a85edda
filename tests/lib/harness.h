/* The whole broker in one process: fake clock, seeded random source, memory store, and clients over
 * memory transports. Nothing moves unless the test says so, one turn of the loop after another.
 *
 *     struct harness harness;
 *     harness_init(&harness, NULL);
 *     struct peer *peer = peer_open(&harness);              handshake done
 *     peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
 *     ...
 *     harness_release(&harness);
 *
 * Expectations are check's assertions: they end the test. */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#include "amqp/frame.h"
#include "amqp/method.h"
#include "core/broker.h"
#include "session/service.h"
#include "tests/lib/memory_transport.h"

struct peer {
    TAILQ_ENTRY(peer) link; /* in harness->peers */
    struct harness *harness;
    struct connection *connection; /* the broker's side; NULL once its socket was seen closed */
    struct memory_transport memory;
    struct buf payload;    /* of the frame last read: what a decoded method points into */
    struct buf properties; /* of the content last read */
};
TAILQ_HEAD(peer_list, peer);

struct harness {
    struct clock clock;
    struct random random;
    struct loop loop;
    struct store *store; /* a memory store: see store/memory.h for its faults */
    struct broker broker;
    struct service service;
    struct peer_list peers;
    int log_fd; /* what the broker logs, debug included */
};

/* The configuration's defaults, but that nobody waits for the refusal of a login. */
extern const struct service_limits harness_limits;

enum { HARNESS_PASSWORD_COST = 1 }; /* of its passwords, which no thread verifies */

/* limits NULL: harness_limits. User guest/guest, from loopback only, who may do everything in vhost
 * "/". */
void harness_init(struct harness *harness, const struct service_limits *limits);
void harness_release(struct harness *harness); /* clients included */

/* The broker ends and starts again over what the store holds; peers are gone. crash: without a
 * word, what was not synced is lost. */
void harness_restart(struct harness *harness, bool crash);

/* The same over a store of the caller's choice, which the harness owns from here; and for the time
 * between two opens of it, the broker alone. */
void harness_init_over(struct harness *harness, const struct service_limits *limits,
                       struct store *store);
void harness_release_over(struct harness *harness);
void harness_stop(struct harness *harness); /* peers are gone */
void harness_start(struct harness *harness, const struct service_limits *limits);

/* Turns until everything that can happen at this moment has happened. */
void harness_run(struct harness *harness);

/* Moves the clock, a tenth of a second at a time, with turns in between. */
void harness_advance(struct harness *harness, uint64_t ms);

/* How often the log says it so far. */
size_t harness_logged(struct harness *harness, const char *text);

/* A user without tags who may do nothing yet; what he may do in a vhost. */
struct user *harness_add_user(struct harness *harness, const char *name, const char *password);
void harness_permit(struct harness *harness, const char *user, const char *vhost,
                    const char *configure, const char *write, const char *read);

/* A client that has connected and said nothing; remote: from an address that is not a loopback
 * one. */
struct peer *peer_new(struct harness *harness, bool remote);
void peer_free(struct peer **peer); /* vanishes, if it is still there */

/* Sends the whole handshake, and has read no more than the start of it. */
struct peer *peer_log_in(struct harness *harness, const char *user, const char *password,
                         const char *vhost, bool remote);
struct peer *peer_open_as(struct harness *harness, const char *user, const char *password,
                          const char *vhost);
struct peer *peer_open(
    struct harness *harness); /* through the handshake, frame_max 131072, no heartbeats */
struct peer *peer_open_channel(struct harness *harness); /* and channel 1 open */

/* Sends, and lets the broker act. */
void peer_send_bytes(struct peer *peer, struct slice bytes);
void peer_send(struct peer *peer, uint16_t channel, const struct amqp_method *method);
void peer_publish(struct peer *peer, uint16_t channel, const char *exchange,
                  const char *routing_key, const char *body);

/* The next frame that came; false: none. Its payload lives until the next call. */
bool peer_next(struct peer *peer, struct amqp_frame *frame);

/* The next frame must be this method on this channel; what it points to lives until the next frame
 * is read. */
struct amqp_method peer_expect(struct peer *peer, uint16_t channel, uint32_t id);

/* Sends a method and expects its answer. */
struct amqp_method peer_call(struct peer *peer, uint16_t channel, const struct amqp_method *method,
                             uint32_t reply_id);

/* The next frame must be connection.close (channel 0) or channel.close with this code and text; a
 * text ending in '*' matches what begins like it. */
void peer_expect_close(struct peer *peer, uint16_t channel, uint16_t code, const char *text);

/* basic.deliver, get-ok or return, with header and body; the body must be this. Returns the method,
 * which has lost its strings. */
struct amqp_method peer_expect_content(struct peer *peer, uint16_t channel, uint32_t id,
                                       const char *body);

void peer_expect_nothing(struct peer *peer); /* no frame is there, and the socket is open */
void peer_expect_end(struct peer *peer);     /* no frame is there, and the socket is closed */

#endif
