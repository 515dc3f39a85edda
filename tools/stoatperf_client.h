/* One AMQP connection with one channel, number 1, seen from the client.
 *
 * It begins blocking: client_open does the handshake and client_call waits for replies, 30 s at
 * most. From client_attach on it is non-blocking and belongs to an epoll: client_read gives what
 * comes to the stream, what is written waits in `out` or with the owner until the socket takes it.
 * Nothing that leads to deliveries may be sent before that. Failures are the run's: the first one
 * ends it. */
#ifndef TOOLS_STOATPERF_CLIENT_H
#define TOOLS_STOATPERF_CLIENT_H

#include "base/buf.h"
#include "tools/stoatperf_failure.h"
#include "tools/stoatperf_options.h"
#include "tools/stoatperf_socket.h"
#include "tools/stoatperf_stream.h"

enum { CLIENT_CHANNEL = 1, CLIENT_SCRATCH_SIZE = 256 * 1024 };

struct broker_identity { /* from its server-properties; empty strings where it does not say */
    char product[64], version[64], platform[64];
};

struct client {
    struct socket socket;                                     /* fd -1 while not open */
    int epoll;                                                /* valid once attached */
    uint32_t events;                                          /* that the epoll waits for */
    void (*on_ready)(struct client *client, uint32_t events); /* set by the owner */

    struct buf in;  /* the start of what input has cut */
    struct buf out; /* not yet taken by the socket */
    uint32_t frame_max;
    uint64_t read_ns; /* when the input being looked at had come */
    struct stream stream;
    struct failure *failure; /* the run's */
};

/* Connects to the broker of the options and opens the connection and channel 1. identity may be
 * NULL. */
bool client_open(struct client *client, const struct options *options, const char *name,
                 struct failure *failure, struct broker_identity *identity);

/* Sends the method and waits for the one called reply; *answer borrows from the client until its
 * next call. */
bool client_call(struct client *client, const struct amqp_method *method, uint32_t reply,
                 struct amqp_method *answer);

/* Sends what is in out, while still blocking. */
bool client_send_all(struct client *client);

/* From now on the stream's events go to owner, and on_ready is called by whoever waits on epoll. */
bool client_attach(struct client *client, int epoll, const struct stream_events *events,
                   void *owner, void (*on_ready)(struct client *client, uint32_t events));

/* Reads once, at most what scratch of CLIENT_SCRATCH_SIZE takes, and feeds the stream; with TLS
 * again until no decrypted input is left. */
bool client_read(struct client *client, uint8_t *scratch);

/* Writes as much as the socket takes. The number of octets, or -1. */
ssize_t client_write(struct client *client, const uint8_t *data, size_t size);

/* Writes what it can of out. */
bool client_flush(struct client *client);

/* Whether on_ready is to be called when the socket takes output again. */
void client_await_output(struct client *client, bool await);

/* Methods that nobody expects: connection.close and channel.close end the run. True for those that
 * may be ignored. */
bool client_on_method(struct client *client, const struct amqp_method *method);

/* The rest of a publish that was begun, then an orderly close, 2 s at most; whatever comes is
 * thrown away. Does nothing when it is not open. */
void client_close(struct client *client, struct slice rest);

#endif
