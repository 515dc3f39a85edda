/* One client: its handshake, heartbeats, channels, and its end.
 *
 *   AWAIT_HEADER → AWAIT_START_OK → AWAIT_TUNE_OK → AWAIT_OPEN → OPEN → AWAIT_CLOSE_OK → LINGER → CLOSED
 *        └───────────────┴────────────────┴─────────────┴─────────┴───────────┴────────────▲────────▲
 *
 * Every frame passes connection_on_input: the connection checks what state and channel allow,
 * channel 0 is its own, the rest goes to the channels. Errors of the connection's kind end it:
 * connection.close leaves, everything but close-ok is ignored, a timer ends the wait. LINGER is the
 * time in which a peer may read our last word (close-ok, or the close of a stream that cannot be
 * read any more; or none, for a refused login whose client would not understand it): input is
 * thrown away until the peer ends the stream or the timer does.
 *
 * Handlers never end the connection themselves: they return false, and connection_on_input, at the
 * top of the stack, acts on it.
 *
 * Waiting. A synchronous reply about something durable must not leave before its LSN is durable.
 * Then the connection is *held*: nothing more of its input is looked at (it stays where it is, in
 * order) until the reply has left. The same way it waits for a basic.get whose message is on disk,
 * for a password to be verified, and, who publishes, for the store when the open batch is full and
 * for scratch when memory is. One hold at a time, one mechanism. A peer that asks without reading
 * the answers is *choked*: not read either, until it has taken what it was sent. Who publishes
 * while an alarm is on is *blocked*: not read until none is (4.6); what it is to be sent,
 * deliveries and heartbeats, goes on. Nobody's heartbeats are missed while he is not read; but one
 * who is choked and takes nothing for as long is dead. Took is what his end of the connection has
 * acknowledged: his program has read, or his system has received in its stead.
 *
 * The struct is freed in the REAP phase after CLOSED; channels, consumers and exclusive queues go
 * at once when it is closed. */
#ifndef SESSION_CONNECTION_H
#define SESSION_CONNECTION_H

#include "access/address.h"
#include "access/authenticator.h"
#include "amqp/frame.h"
#include "amqp/method.h"
#include "base/log.h"
#include "base/map.h"
#include "core/parking.h"
#include "core/queue.h"
#include "core/vhost.h"
#include "net/listener.h"
#include "net/tls.h"
#include "net/transport.h"
#include "session/spenders.h"

struct service;
struct channel;

enum connection_state {
    CONNECTION_AWAIT_HEADER,
    CONNECTION_AWAIT_START_OK,
    CONNECTION_AWAIT_TUNE_OK,
    CONNECTION_AWAIT_OPEN,
    CONNECTION_OPEN,
    CONNECTION_AWAIT_CLOSE_OK, /* we sent close; all else is ignored */
    CONNECTION_LINGER,         /* nothing more is said or heard */
    CONNECTION_CLOSED,
};

struct connection {
    TAILQ_ENTRY(connection) link; /* in service->connections */
    struct service *service;
    struct broker *broker;
    struct transport transport;
    uint64_t id;
    enum connection_state state;
    struct endpoint local, peer;
    struct visitor visitor;       /* of where it comes from */
    char name[160];               /* "127.0.0.1:52771 -> 127.0.0.1:5672" */
    char *client_name;            /* client property connection_name, or NULL */
    struct buf client_properties; /* the client's field table */
    char mechanism[16];
    void (*on_login)(struct connection *connection); /* of session/login.h */
    struct user *user;                               /* from login to the end */
    char user_name[256];
    struct attempt *attempt; /* a password that is being verified: it is held */
    struct vhost *vhost;     /* once open: a reference */
    struct asker asker;      /* what it asks the vhost with; the grant from open to the end */
    bool can_consumer_cancel_notify, can_blocked, can_authentication_failure_close;

    uint32_t frame_size_max; /* negotiated; the initial one before */
    uint16_t channel_max;
    uint32_t heartbeat_s;

    struct map channels;          /* by number, those open or closing */
    struct channel *last_channel; /* that a frame was for: most often the next one's too */
    uint32_t channel_count;
    struct queue_owner owned; /* its exclusive queues */

    uint64_t publish_size; /* see connection_reserve */
    uint64_t unacked_size; /* see connection_await_acks */
    uint64_t laden_at;     /* because of it a consumer was given nothing: the limit; 0: none was */
    bool told_laden;       /* it is logged once */

    bool held, choked, blocked; /* not read, see above */
    bool noticed;               /* octets have come: it is no probe (1.3) */
    bool answered_close;        /* that crossed ours */
    struct parked parked;       /* held for an LSN, or a write to scratch */
    struct buf held_reply;      /* encoded frames that leave when the hold ends */

    struct spender spender;       /* held while it rests: see connection_share_turn */
    uint64_t overspent_ms;        /* when it has last, of one who is a spender */
    struct timer timer;           /* handshake deadline, then wait for close-ok or the peer's end */
    struct timer heartbeat_timer; /* both directions */
    uint64_t listening_ms;        /* since when it is read without a pause, by the loop's clock */
    size_t untaken_size;          /* when it was looked at last, while choked */
    uint64_t taken_ms;            /* when it was seen to have changed; 0: never */
    struct task reap;
    uint64_t connected_ms, connected_wall_ms;
    uint64_t frames_in, frames_out;
};
TAILQ_HEAD(connection_list, connection);

struct connection *connection_new(struct service *service, const struct endpoint *local,
                                  const struct endpoint *peer);

/* How a connection begins over a socket, with TLS when a context is given, and over anything else
 * (tests). A socket that cannot be watched (-errno) is closed, and the connection freed. */
int connection_open_socket(struct connection *connection, int fd, struct tls_context *tls);
void connection_open(struct connection *connection, const struct transport_ops *ops);

/* Sends one method. */
void connection_send(struct connection *connection, uint16_t channel,
                     const struct amqp_method *method);

/* Sends a reply that must not leave before lsn is durable, entries put under it included or not: at
 * once if it is (or is 0), else the connection is held. */
void connection_send_durable(struct connection *connection, uint16_t channel,
                             const struct amqp_method *method, uint64_t lsn, bool entries);

/* Sends one method, behind the reply that waits, if one does: the last word on a channel. */
void connection_send_behind_held(struct connection *connection, uint16_t channel,
                                 const struct amqp_method *method);

/* Holds the input; connection_unhold lets it go on, in the next turn's INPUT phase at the
 * latest. */
void connection_hold(struct connection *connection);
void connection_unhold(struct connection *connection);

/* After what may have spent steps: if all of the turn's are gone (see broker_spend) it holds the
 * input until its turn comes, and is a spender until it has not for a minute. */
void connection_share_turn(struct connection *connection);

/* It has not taken what it was sent, beyond all measure: whoever can must stop sending to it. */
bool connection_is_flooded(const struct connection *connection);

/* Messages that its client has begun and not ended, or has put into transactions, are in memory and
 * in no queue, where no consumer can make room: all of a connection together may have so much,
 * unless it is a single one. False with error filled: they would have more. One whose body and
 * properties have at most service->reserved_size_min octets counts in transactions alone. */
bool connection_reserve(struct connection *connection, uint64_t size, struct amqp_error *error);
void connection_unreserve(struct connection *connection, uint64_t size);

/* Messages that its client has to acknowledge stay in memory, even those that the store has: all of
 * a connection together may have service->unacked_size_max before one more is handed out, or
 * unacked_size_bare to consumers without a prefetch. Called when they have: these consumers wait
 * until less is left (connection_lighten). */
void connection_await_acks(struct connection *connection, uint64_t limit);

/* Some are settled: who waited for it goes on. */
void connection_lighten(struct connection *connection);

/* How much may be left unacknowledged, or wait to be written, has changed: who waited for either
 * goes on, as far as it may. */
void connection_on_limits(struct connection *connection);

/* A publish of it is not confirmed yet. */
bool connection_awaits_confirms(struct connection *connection);

/* At a publish: no more of the input is looked at until the last alarm clears (4.6.1). */
void connection_block(struct connection *connection);
void connection_unblock(struct connection *connection); /* harmless when it is not blocked */

/* What operators see: "running", "blocking" (an alarm is on, it has not published), "blocked",
 * "flow" ... */
const char *connection_state_name(const struct connection *connection);

/* After a publish: holds the connection while the open batch is full and the store is busy with the
 * one before, or while messages come faster than scratch takes them, or when the steps of a turn are
 * gone. */
void connection_pace(struct connection *connection);

/* After a binding, which may have brought messages to queues: counters.given was so before. If it
 * has it was a publish, alarms included. */
void connection_pace_given(struct connection *connection, uint64_t given);

/* After a publish that added to dead letters of earlier turns: holds the connection until more of
 * these are made. */
void connection_await_letters(struct connection *connection);

/* Ends it with connection.close: error as filled by amqp_fail; reason is for the log, NULL: the
 * error's text. */
void connection_fail(struct connection *connection, const struct amqp_error *error,
                     const char *reason);

/* Ends it now, without a word to the peer; reason is for the log, which has that of one that is
 * ending already. */
void connection_drop(struct connection *connection, const char *reason);

/* An operator's or the broker's own decision: 320 with this text (4.5.3). */
void connection_force_close(struct connection *connection, const char *text);

/* A frame that must hold a method: decodes it, and names it in error for whatever follows. */
bool connection_decode(const struct amqp_frame *frame, struct amqp_method *method,
                       struct amqp_error *error);

/* ---- for the handlers of channel 0, in class_connection.c ---- */

void connection_move(struct connection *connection, enum connection_state state);
void connection_start_heartbeats(struct connection *connection);

/* Its living part ends: channels and exclusive queues go, the end is logged once. reason NULL: the
 * client wanted it so. */
void connection_wind_up(struct connection *connection, enum log_level level, const char *reason);
/* Its last word to a client that has closed, or made a mistake: of what that one has not taken yet
 * no more goes before it than the rest of a frame. */
void connection_send_last(struct connection *connection, const struct amqp_method *method);
/* Its last word is said: ignores input, and closes when the peer does, 3 s from now at the
 * latest. */
void connection_linger(struct connection *connection);

/* The rows of class connection. */
bool connection_on_method(struct connection *connection, const struct amqp_method *method,
                          struct amqp_error *error);

/* What the log calls it: name, the client's own name for it, vhost and user as far as they are
 * known. */
enum { CONNECTION_LABEL_SIZE = 1024 };
const char *connection_label(const struct connection *connection,
                             char label[CONNECTION_LABEL_SIZE]);

/* Takes a channel that has ended off the connection. */
void connection_remove_channel(struct connection *connection, struct channel *channel);

#endif
