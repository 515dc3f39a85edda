/* The AMQP service: what all connections of the broker share, and the list of them. */
#ifndef SESSION_SERVICE_H
#define SESSION_SERVICE_H

#include "access/address.h"
#include "access/alarm.h"
#include "access/authenticator.h"
#include "core/account.h"
#include "core/broker.h"
#include "core/exchange.h"
#include "net/listener.h"
#include "session/connection.h"
#include "session/login.h"
#include "session/returns.h"
#include "session/spenders.h"

struct service_limits {
    uint32_t heartbeat_s;
    uint32_t frame_size_max;         /* offered in tune */
    uint32_t initial_frame_size_max; /* before tune-ok */
    uint16_t channel_max;
    uint32_t handshake_timeout_ms;
    uint32_t login_delay_max_ms; /* 0: none; see access/address.h */
    uint64_t message_size_max;
    size_t output_size_max; /* see transport.h; 0: LOOP_OUTPUT_MAX */
    /* 0 in any of these: no limit */
    uint32_t consumer_max_per_channel, consumer_max_per_node;
    uint32_t unacked_max_per_channel;
    uint64_t publish_size_max; /* see connection_reserve */
    uint64_t unacked_size_max; /* see connection_await_acks */
    uint32_t connection_max, connection_max_per_address;
    uint32_t handshake_max_per_address;
    uint32_t channel_max_per_node;
    uint64_t consumer_timeout_ms;
};

struct service {
    struct broker *broker;
    struct authenticator authenticator;
    struct access_watcher watcher; /* see session/revocation.h */
    struct service_limits limits;
    struct login_rules
        logins;         /* login_rules_default, unless whoever owns the service sets others */
    struct alarm alarm; /* blocks publishers (4.6); the server starts it */
    char node[300];     /* "stoatmq@host" */
    struct buf server_properties; /* encoded field table for connection.start, without its length */
    struct addresses addresses;   /* of the connections */
    struct connection_list connections;
    size_t connection_count, consumer_count;
    size_t closed_count;  /* of the connections: their sockets are closed, and they will be freed */
    size_t open_count;    /* likewise: they have opened a vhost */
    size_t proxied_count; /* the listeners': accepted, and not with the service yet */
    size_t connection_most;   /* at a time, since memory was last given back to the system */
    struct returns returns;   /* what channels that have ended had unacked */
    struct spenders spenders; /* connections that share turns */
    size_t connection_room; /* connections for which there are descriptors; 0: nobody has counted */
    uint32_t reserved_size_min; /* see connection_reserve */
    uint64_t unacked_size_max;  /* the limit, as memory is */
    uint64_t unacked_size_bare; /* for consumers without a prefetch */
    uint64_t next_connection_id;
    struct route route; /* scratch of the publish path */
    bool stopping;
    void (*on_idle)(struct service *service); /* stopping, and the last connection is gone */
    void *context;
};

/* The store is full now, or no longer: the alarm goes on or off. Who waits for the confirm of a
 * publish that found no room is blocked at once, and told why. */
void service_on_store_full(struct service *service);

struct service_property { /* server_properties.KEY */
    const char *key, *value;
};

/* threaded: passwords are verified on a thread, see authenticator_open. 0, or -errno with nothing
 * to release. */
int service_init(struct service *service, struct broker *broker,
                 const struct service_limits *limits, const struct service_property *properties,
                 size_t property_count, unsigned password_cost, bool threaded);
void service_release(struct service *service); /* no connections left */

/* Whether there is a descriptor for one more client, beside those that the broker needs itself. */
bool service_has_room(struct service *service);

/* There is none: drops a connection that has not opened a vhost yet, or has ended, one of the
 * address with most of them. False: there is no such. */
bool service_make_way(struct service *service);

/* Somebody has opened a vhost, has ended, or has gone: an alarm tells that nobody can make way for
 * another. */
void service_look_at_room(struct service *service);

/* A connection has been freed. The memory that a crowd had goes back to the system when the crowd
 * has left, not with each one of it. */
void service_on_gone(struct service *service);

/* A new client on a connected socket, which the service owns from here; tls NULL: without. */
void service_accept(struct service *service, int fd, struct tls_context *tls,
                    const struct endpoint *local, const struct endpoint *peer);

/* Tells every client 320 with this text (4.5.3) and refuses new ones; on_idle follows, from inside
 * when there are no clients. Harmless again. */
void service_stop(struct service *service, const char *reason);

/* Drops every client at once and refuses new ones; on_idle from inside. */
void service_abort(struct service *service, const char *reason);

#endif
