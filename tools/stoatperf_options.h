/* The command line, checked, as a struct. */
#ifndef TOOLS_STOATPERF_OPTIONS_H
#define TOOLS_STOATPERF_OPTIONS_H

#include "base/base.h"

struct uri {
    char *user, *password, *host, *port, *vhost; /* on the heap, decoded */
    bool tls;                                    /* amqps */
};

struct options {
    struct uri uri;
    const char
        *ca_file;  /* with TLS: what the broker's certificate must lead to; NULL: the system's */
    bool insecure; /* with TLS: any certificate will do */

    uint32_t publishers, consumers, queues;
    uint64_t body_size;
    bool persistent, mandatory, fan_out;

    const char *queue_prefix; /* NULL: one of our own */
    const char *queue_args;   /* "key=value,key=value", or NULL */
    bool durable, auto_delete, predeclared;

    uint32_t confirm_window; /* 0: no confirms */
    uint32_t prefetch;       /* 0: no limit */
    uint32_t ack_batch;      /* 0: deliveries need no ack */
    uint64_t rate; /* messages a second of all publishers together; 0: as fast as it goes */

    /* One of the three says how long: a backlog, a number of messages, or a time. */
    uint64_t backlog, messages; /* of all publishers together; 0: not given */
    double time_s, warm_up_s;

    double interval_s;
    bool json, verify;
    int32_t pid; /* of the broker; 0: not given */
};

/* What the command line says. Prints the help, the version or what is wrong with it, and ends the
 * process, where that is what it comes to. Strings point into argv, but for the URI's. */
void options_parse(struct options *options, int argc, char **argv);
void options_release(struct options *options);

/* amqp:// or amqps://user:password@host:port/vhost, every part of it optional, percent-encoded.
 * NULL, or what is wrong with it; then *uri is empty. */
const char *uri_parse(struct uri *uri, const char *text);
void uri_release(struct uri *uri);

#endif
