/* TLS: certificates, and the transport over them. OpenSSL behind a door: nobody else includes it
 * for this.
 *
 *     struct tls            what all of it shares: the thread that does the handshakes' slow
 *                           arithmetic
 *     struct tls_context    certificate, key and rules: replaced as a whole when they are reloaded
 *     tls_transport_open    a transport whose bytes are encrypted; for its owner like any other
 *
 * A handshake is the peer's to start and never holds up the loop: its steps, with the signature
 * that costs a third of a millisecond with an RSA key, run on the worker. What the owner writes
 * meanwhile waits. A handshake that fails ends in on_broken; its reason is logged here.
 *
 * To begin one costs its peer nothing: the same octets, sent again and again. So those that wait
 * for the worker take turns by the line that the owner puts them in, an address's (base/turns.h),
 * and whoever floods us waits behind its own.
 *
 * Only TLS 1.2 with forward secrecy and authenticated encryption, unless other ciphers are named,
 * and TLS 1.3. No renegotiation, no compression, resumption by tickets alone; where certificates of
 * clients are verified there is none, as each is to be looked at each time. */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/turns.h"
#include "base/worker.h"
#include "net/listener.h"
#include "net/tls_records.h"
#include "net/transport.h"

enum { TLS_ERROR_SIZE = 512 };

struct stream;
TAILQ_HEAD(stream_list, stream);

/* How many there may be at a time. */
struct tls_limits {
    uint32_t begun;   /* handshakes that wait for their peer, of all lines */
    uint32_t waiting; /* that wait for us to begin, of a line */
};

struct tls {
    struct loop *loop;
    struct tls_limits limits;
    struct worker worker;
    struct source source;     /* of the worker */
    struct turns waiting;     /* for a step of their handshake */
    unsigned away_count;      /* steps that are the worker's */
    struct stream_list begun; /* that wait for their peer to go on, oldest first */
    uint32_t begun_count, begun_line_count;
    struct tls_scratch *scratch;
};

/* The handshakes of an address. */
struct tls_line {
    struct turn_line waiting;
    struct stream_list begun; /* as above */
    uint32_t begun_count;
};

void tls_line_init(struct tls_line *line);

int tls_open(struct tls *tls, struct loop *loop, const struct tls_limits *limits); /* 0 or -errno */
void tls_close(struct tls *tls); /* its transports are closed */

struct tls_options {
    const char *certificate_file; /* PEM: the certificate, then those between it and the root */
    const char *key_file;         /* PEM; NULL: it is in certificate_file */
    const char *password;         /* of the key; NULL: none */
    const char *ca_file;          /* PEM: who may sign client certificates; NULL: nobody */
    const char *ciphers;          /* of TLS 1.2, OpenSSL's names with colons; NULL: the good ones */
    const char *ciphersuites;     /* of TLS 1.3, likewise */
    bool verify_peer;             /* ask for a client certificate, and refuse a bad one */
    bool require_peer;            /* and refuse a client without one */
    unsigned depth;               /* certificates between a client's and a root, at most */
    bool tls_1_2, tls_1_3;        /* spoken versions: one at least */
    bool client_order;            /* of ciphers, rather than the server's */
};

struct tls_context;

/* Reads the files. NULL with a sentence for the operator that names what could not be used. */
struct tls_context *tls_context_new(struct tls *tls, const struct tls_options *options,
                                    char error[TLS_ERROR_SIZE]);

/* A cipher that may be spoken and is without forward secrecy or authenticated encryption: options
 * have named it. NULL: none. */
const char *tls_context_weak_cipher(const struct tls_context *context);

/* Transports that were opened with it keep what they need. NULL is fine. Clears *context. */
void tls_context_free(struct tls_context **context);

/* Over a connected non-blocking socket, which the transport owns from here. peer: for the log; line:
 * lives until the transport is closed. 0 or -errno (the socket is closed then). */
int tls_transport_open(struct transport *transport, struct tls_context *context,
                       const struct transport_events *events, int fd, const struct endpoint *peer,
                       struct tls_line *line);

/* What was agreed on. Strings live as long as the transport is open. */
struct tls_facts {
    const char *version, *cipher; /* "TLSv1.3", "TLS_AES_256_GCM_SHA384" */
    bool resumed;
    bool has_certificate; /* the client has shown one, and it was verified */
};

/* false: the transport is not one of these, or its handshake is not over. */
bool tls_transport_facts(const struct transport *transport, struct tls_facts *facts);

/* Who the verified certificate of the client names. */
enum tls_name {
    TLS_DISTINGUISHED_NAME, /* as RabbitMQ writes it, most specific first: "CN=app,O=Example" */
    TLS_COMMON_NAME,        /* none if there are several: which one was looked at is not known */
    TLS_ALTERNATIVE_DNS,
    TLS_ALTERNATIVE_EMAIL,
    TLS_ALTERNATIVE_URI,
    TLS_ALTERNATIVE_IP,
};

/* Appends the name; index counts alternative names of this kind, from 0. NULL, or why there is none
 * and *name is as it was: for the log. */
const char *tls_transport_name(const struct transport *transport, enum tls_name kind,
                               unsigned index, struct buf *name);

#endif
