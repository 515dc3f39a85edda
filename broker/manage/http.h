/* Management: a thread that speaks HTTP, and the letters through which it asks the loop thread.
 *
 *     client ──▶ management thread ──inbox──▶ loop thread: handler ──▶ (parked on an LSN) ──┐
 *       ▲        parse, find the route                                                      │
 *       └─────── serialise, send ◀───────────────────outbox─────────────────────────────────┘
 *
 * The management thread owns sockets and HTTP; whatever is about the broker belongs to the loop
 * thread. A request is one letter: posted into the inbox it is the loop thread's, posted into the
 * outbox it is the management thread's again. A handler never waits; a positive answer about
 * something durable goes into the outbox when its LSN is durable.
 *
 * It listens on the control socket, whose clients are root and our own user and may do
 * everything. */
#ifndef MANAGE_HTTP_H
#define MANAGE_HTTP_H

#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <pthread.h>

#include "access/authenticator.h"
#include "base/mailbox.h"
#include "core/parking.h"
#include "manage/http_route.h"
#include "net/listener.h"
#include "net/loop.h"

struct broker;
struct service;
struct manage;
struct event;
struct evconnlistener;

struct manage_listener { /* where the broker serves clients, for the operator to see */
    const char *protocol;
    struct endpoint address;
};

struct manage_options {
    struct service *service;
    struct broker *broker;
    const char *data_dir;
    const char *socket_path; /* of the control socket */
    const struct manage_listener *listeners;
    size_t listener_count;
    void (*on_stop)(void *context); /* an operator asks the broker to stop; on the loop thread */
    /* Tells of each key of the configuration but those that are secret; likewise. */
    void (*each_setting)(void *context, void (*take)(void *to, const char *key, const char *value),
                         void *to);
    void *context;
};

enum { MANAGE_ERROR_SIZE = 512, MANAGE_NODE_SIZE = 128 };

/* Opens the control socket and starts the thread. The strings of the options must outlive it, the
 * listeners are copied. 0, or -errno with a sentence for the operator. */
int manage_open(const struct manage_options *options, struct manage **manage,
                char error[MANAGE_ERROR_SIZE]);

/* From the loop thread, which runs no turn meanwhile. What has been answered is sent, what has not
 * is answered 503; clients that do not take their answer within MANAGE_STOP_MS lose it. The control
 * socket is removed. */
void manage_close(struct manage **manage);

enum { MANAGE_STOP_MS = 500 };

/* ---- for handlers: on the loop thread ---- */

struct manage {
    struct manage_options options;     /* read by both threads, written by none */
    char node[MANAGE_NODE_SIZE];       /* likewise; "stoatmq@host" */
    struct manage_listener *listeners; /* likewise; those of the options */

    /* the loop thread's */
    struct source source;                 /* of the inbox */
    TAILQ_HEAD(, manage_request) parked;  /* answered, and waiting for the store */
    TAILQ_HEAD(, manage_request) hashing; /* waiting for a password */
    uint64_t started_ms;

    struct mailbox inbox, outbox; /* requests to the loop thread; answers, and finally `stop` */
    struct letter stop;

    /* the management thread's, while it runs */
    pthread_t thread;
    struct event_base *base;
    struct evhttp *http;
    struct evconnlistener *listener; /* of the control socket */
    struct event *retry;             /* set while accepting is paused */
    uint64_t starved_ms;             /* when accepting last failed; 0: it never did */
    struct event *outbox_event;
    struct event *deadline; /* set once stopping */
    size_t open_count;      /* requests not yet answered to the last byte */
    bool stopping;
};

struct manage_request {
    struct letter letter;
    struct manage *manage;

    /* the management thread's */
    struct evhttp_request *http; /* NULL once the client is gone */
    struct http_path path;
    bool is_out; /* with the loop thread */

    /* written by the management thread before, read by the handler */
    const struct http_route *route;
    struct slice arguments[HTTP_ARGUMENTS_MAX]; /* of the path, decoded */
    size_t argument_count;
    struct evkeyvalq query;
    json_t *input; /* the body of a PUT or POST; NULL: it had none */

    /* written by the loop thread */
    TAILQ_ENTRY(manage_request) by_parked;
    struct parked parked;
    bool is_parked;
    TAILQ_ENTRY(manage_request) by_hashing;
    struct attempt *attempt; /* while it is one of those; its context is the request */
    int status;
    json_t *body; /* or NULL */
};

/* Whether the query says `name=true`. */
bool manage_flag(const struct manage_request *request, const char *name);

/* The answer, which leaves when lsn is durable (0: now). Takes over the body, which may be NULL.
 * The request is out of reach after that. */
void manage_answer(struct manage_request *request, int status, json_t *body, uint64_t lsn);

/* The handler has begun an attempt (access/authenticator.h), whose context is the request: its
 * on_done begins with manage_resume, which gives the request back. */
void manage_await(struct manage_request *request, struct attempt *attempt);
struct manage_request *manage_resume(struct attempt *attempt);

/* {"error": ..., "reason": ...} */
void manage_refuse(struct manage_request *request, int status, const char *error,
                   const char *reason);
void manage_refuse_absent(struct manage_request *request); /* 404, as RabbitMQ words it */

#endif
