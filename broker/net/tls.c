/* The transport over TLS. A stream is the carrier of one; either thread has its SSL, never both:
 *
 *     SILENT
 *       │ the peer's first record is there
 *       ▼         something came, or the answer was "more"
 *     WAITING ◀──────────────────────────────────────────── HANDSHAKE: the peer's turn
 *       │ fewer than STEPS_AT_ONCE are away                      ▲
 *       ▼                                                        │
 *     AWAY (the worker's: one step) ──────── more is wanted ─────┤
 *                                   ──────── done ─────────────▶ OPEN
 *                                   ──────── a bad peer ───────▶ REFUSED ── it hangs up ──▶ FAILED
 *                                   ──────── its end ──────────▶ FAILED
 *
 * A peer that has not said its first word whole costs no SSL and no step: the word waits in the
 * kernel. Nor does one whose turn has not come: those who flood us with handshakes and leave again
 * do so for the price of a socket, and in their own line; one more than limits.waiting there is
 * refused. So a peer that comes alone waits for the steps that are away and one of each other line.
 *
 * A handshake that has begun costs some 40 KiB, so those go first in their line, and of those whose
 * peer does not go on there are limits.begun at most. One more ends the oldest of its own line, if
 * that has more than its share of them, else the oldest of all: a line that has few is not pushed
 * out by one that is fast.
 *
 * A peer that is REFUSED is told why by an alert, and may have gone on meanwhile: TLS 1.3 lets it.
 * To close a socket with something unread, or yet to come, is a reset, which takes the alert with
 * it. So we say that we are done, and drop what comes, until the peer hangs up or its owner does,
 * for whom it is in its handshake all the while, with the limits of time and number of those. It
 * has no SSL then.
 *
 * While it is AWAY reads and writes say EAGAIN, and `again` remembers that the socket had something
 * to say. A transport that is closed then leaves its stream behind, which goes when the worker
 * hands it back.
 *
 * The handshake reads and writes the socket itself, a record at a time. Once the stream is OPEN
 * that is for net/tls_records.
 *
 * Invariants: job is posted exactly while state is AWAY, of at most STEPS_AT_ONCE streams; a stream
 * waits in its line exactly while it is WAITING, is in tls->begun and line->begun exactly while it is
 * in HANDSHAKE; transport and line are NULL only while it is AWAY and the owner has closed it. */
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "net/tls_context.h"

enum {
    DISCARD_SIZE = 1024 * 1024,
    HEAD_SIZE = 5, /* of a record: type, version, length */
    HANDSHAKE_RECORD = 22,
    STEPS_AT_ONCE = 8, /* enough that the worker need not wait for the loop */
};

enum stream_state {
    STREAM_SILENT,
    STREAM_WAITING,
    STREAM_AWAY,
    STREAM_HANDSHAKE,
    STREAM_OPEN,
    STREAM_REFUSED,
    STREAM_FAILED,
};

struct stream {
    struct turn turn;                  /* in line->waiting */
    TAILQ_ENTRY(stream) link, in_line; /* in tls->begun, in line->begun */
    struct tls *tls;
    struct tls_line *line;
    struct transport *transport;
    SSL_CTX *ctx;
    SSL *ssl; /* NULL until the first step */
    int fd;
    enum stream_state state;
    struct tls_records records; /* while it is OPEN */
    bool again;                 /* the socket became ready while it was AWAY */
    _Atomic bool abandoned;     /* the transport is gone: the step would be for nobody */
    struct job job;
    int result; /* of the step: SSL_ERROR_... */
    int error;  /* errno, when that is SSL_ERROR_SYSCALL, or for the owner when it is FAILED */
    char reason[160];
    struct endpoint peer;
};

static struct stream *stream_of(const struct transport *transport)
{
    return transport->carrier;
}

static void stream_free(struct stream *stream)
{
    tls_records_release(&stream->records);
    SSL_free(stream->ssl);
    SSL_CTX_free(stream->ctx);
    close(stream->fd);
    free(stream);
}

/* ---- the handshake ---- */

/* What OpenSSL has to say about the last failure, emptied. */
static void take_reason(char *reason, size_t size)
{
    const unsigned long code = ERR_peek_error();
    const char *text = code == 0 ? NULL : ERR_reason_error_string(code);

    snprintf(reason, size, "%s", text == NULL ? "unexpected end" : text);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST)
        snprintf(reason, size, "an HTTP client on a TLS port?");
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_WRONG_VERSION_NUMBER)
        snprintf(reason, size, "a client without TLS on a TLS port?");
    ERR_clear_error();
}

static void on_step(struct job *job)
{
    struct stream *stream = container_of(job, struct stream, job);

    if (stream->abandoned)
        return;
    ERR_clear_error();
    errno = 0;
    const int rc = SSL_accept(stream->ssl);
    stream->error = errno;
    stream->result = SSL_get_error(stream->ssl, rc);
    if (stream->result == SSL_ERROR_SSL || stream->result == SSL_ERROR_SYSCALL)
        take_reason(stream->reason, sizeof(stream->reason));
}

static void end_handshake(struct stream *stream, enum stream_state state, int error,
                          enum log_level level, const char *reason)
{
    stream->state = state;
    stream->error = error;
    log_at(level, "TLS handshake with %s:%u failed: %s", stream->peer.host, stream->peer.port,
           reason);
    transport_wake(stream->transport, true, true);
}

static void fail(struct stream *stream, enum log_level level, int error, const char *reason)
{
    end_handshake(stream, STREAM_FAILED, error, level, reason);
}

/* OpenSSL has sent the alert. */
static void refuse(struct stream *stream)
{
    SSL_free(stream->ssl);
    stream->ssl = NULL;
    shutdown(stream->fd, SHUT_WR);
    end_handshake(stream, STREAM_REFUSED, EPROTO, LOG_ERROR, stream->reason);
}

/* The answer of a read. */
static ssize_t drain(struct stream *stream)
{
    const ssize_t size = recv(stream->fd, NULL, DISCARD_SIZE, MSG_TRUNC | MSG_DONTWAIT);

    if (size > 0)
        return -EINTR;
    if (size < 0 && errno == EAGAIN)
        return -EAGAIN;
    stream->state = STREAM_FAILED;
    return -stream->error;
}

static bool begin_handshake(struct stream *stream)
{
    if (stream->ssl != NULL)
        return true;
    stream->ssl = SSL_new(stream->ctx);
    if (stream->ssl == NULL || SSL_set_fd(stream->ssl, stream->fd) != 1)
        return false;
    SSL_set_accept_state(stream->ssl);
    return true;
}

/* Hands the worker those whose turn it is. */
static void start_steps(struct tls *tls)
{
    struct turn *turn;

    while (tls->away_count < STEPS_AT_ONCE && (turn = turns_take(&tls->waiting)) != NULL) {
        struct stream *stream = container_of(turn, struct stream, turn);
        if (!begin_handshake(stream)) {
            fail(stream, LOG_ERROR, ENOMEM, "out of memory");
            continue;
        }
        stream->state = STREAM_AWAY;
        stream->again = false;
        tls->away_count++;
        worker_post(&tls->worker, &stream->job);
    }
}

static void enter_begun(struct stream *stream)
{
    struct tls *tls = stream->tls;

    TAILQ_INSERT_TAIL(&tls->begun, stream, link);
    TAILQ_INSERT_TAIL(&stream->line->begun, stream, in_line);
    tls->begun_count++;
    tls->begun_line_count += stream->line->begun_count++ == 0;
}

static void leave_begun(struct stream *stream)
{
    struct tls *tls = stream->tls;

    TAILQ_REMOVE(&tls->begun, stream, link);
    TAILQ_REMOVE(&stream->line->begun, stream, in_line);
    tls->begun_count--;
    tls->begun_line_count -= --stream->line->begun_count == 0;
}

static void await_peer(struct stream *stream)
{
    struct tls *tls = stream->tls;
    const struct tls_line *line = stream->line;

    stream->state = STREAM_HANDSHAKE;
    enter_begun(stream);
    if (tls->begun_count <= tls->limits.begun)
        return;
    const uint32_t share = max_of(tls->limits.begun / tls->begun_line_count, 1U);
    const bool is_many = line->begun_count > share;
    struct stream *oldest = TAILQ_FIRST(is_many ? &line->begun : &tls->begun);
    leave_begun(oldest);
    fail(oldest, LOG_ERROR, ETIMEDOUT,
         "it has not gone on, and others have begun (ssl_handshake_max)");
}

static void step(struct stream *stream)
{
    struct tls *tls = stream->tls;
    struct turn_line *line = &stream->line->waiting;

    if (stream->state == STREAM_HANDSHAKE)
        leave_begun(stream);
    if (stream->ssl == NULL && line->count >= tls->limits.waiting) {
        fail(stream, LOG_ERROR, EBUSY,
             "too many others from its address wait for theirs (ssl_handshake_max_per_address)");
        return;
    }
    stream->state = STREAM_WAITING;
    if (stream->ssl == NULL)
        turn_wait(&tls->waiting, line, &stream->turn);
    else
        turn_wait_first(&tls->waiting, line, &stream->turn);
    start_steps(tls);
}

static void become_open(struct stream *stream)
{
    if (!tls_records_open(&stream->records, stream->ssl, stream->fd, stream->tls->scratch)) {
        fail(stream, LOG_ERROR, ENOMEM, "out of memory");
        return;
    }
    stream->state = STREAM_OPEN;
    transport_wake(stream->transport, true, true);
}

static void judge_step(struct stream *stream)
{
    switch (stream->result) {
    case SSL_ERROR_NONE:
        become_open(stream);
        break;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        if (stream->again)
            step(stream);
        else
            await_peer(stream);
        break;
    case SSL_ERROR_SYSCALL:
        if (stream->error != 0)
            fail(stream, LOG_DEBUG, stream->error, strerror(stream->error));
        else
            fail(stream, LOG_DEBUG, EPROTO, stream->reason);
        break;
    default:
        refuse(stream);
    }
}

static void on_step_done(struct job *job)
{
    struct stream *stream = container_of(job, struct stream, job);
    struct tls *tls = stream->tls;

    tls->away_count--;
    if (stream->transport == NULL)
        stream_free(stream);
    else
        judge_step(stream);
    start_steps(tls);
}

/* Begins when there is something for OpenSSL to judge: a whole record, or what is none. One that
 * ends before that is no client, but somebody's look at whether the port is open. */
static void hear_first_word(struct stream *stream)
{
    uint8_t head[HEAD_SIZE];
    int waiting = 0;
    const ssize_t size = recv(stream->fd, head, sizeof(head), MSG_PEEK);
    const bool is_whole = size == HEAD_SIZE && ioctl(stream->fd, FIONREAD, &waiting) == 0 &&
                          waiting >= HEAD_SIZE + (head[3] << 8 | head[4]);

    if (is_whole || (size > 0 && head[0] != HANDSHAKE_RECORD))
        step(stream);
    else if (size < 0 && errno != EAGAIN)
        fail(stream, LOG_DEBUG, errno, strerror(errno));
    else if (size == 0 || stream->transport->hung_up)
        fail(stream, LOG_DEBUG, ECONNRESET, "it has ended before its first record was there");
}

/* True when the stream carries bytes; else the answer is in *result. */
static bool is_open(struct stream *stream, ssize_t *result)
{
    switch (stream->state) {
    case STREAM_OPEN:
        return true;
    case STREAM_SILENT:
        hear_first_word(stream);
        break;
    case STREAM_WAITING:
    case STREAM_REFUSED:
        break;
    case STREAM_HANDSHAKE:
        step(stream);
        break;
    case STREAM_AWAY:
        stream->again = true;
        break;
    case STREAM_FAILED:
        break;
    }
    *result = stream->state == STREAM_FAILED ? -stream->error : -EAGAIN;
    return false;
}

/* ---- reading and writing ---- */

static ssize_t report(const struct stream *stream, ssize_t result)
{
    if (result != -EPROTO)
        return result;
    const char *reason = ERR_reason_error_string(stream->records.reason);
    log_warning("TLS with %s:%u has broken: %s", stream->peer.host, stream->peer.port,
                reason == NULL ? "no reason is known" : reason);
    return result;
}

static ssize_t tls_read(struct transport *transport, void *bytes, size_t size)
{
    struct stream *stream = stream_of(transport);
    ssize_t result;

    if (stream->state == STREAM_REFUSED)
        return drain(stream);
    if (!is_open(stream, &result))
        return result;
    result = tls_records_read(&stream->records, bytes, size);
    if (result > 0 && !stream->records.has_more && !transport->hung_up)
        transport->readable = false;
    return report(stream, result);
}

static ssize_t tls_write(struct transport *transport, struct iovec *parts, int count)
{
    struct stream *stream = stream_of(transport);
    ssize_t result;

    if (!is_open(stream, &result))
        return result;
    result = tls_records_write(&stream->records, parts, count);
    transport->begun = stream->records.owed;
    if (stream->records.wants_room && tls_records_has_room(&stream->records))
        transport_wake(transport, true, false);
    return report(stream, result);
}

static void on_socket_ready(struct source *source, uint32_t events)
{
    struct transport *transport = container_of(source, struct transport, source);
    const struct stream *stream = stream_of(transport);
    const bool writable = events & (EPOLLOUT | EPOLLHUP | EPOLLERR);
    const bool readable = events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR);

    transport->hung_up |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    /* A handshake may wait for room to speak, too. */
    const bool goes_on = stream->records.wants_room || stream->state != STREAM_OPEN;
    transport_wake(transport, readable || (writable && goes_on), writable);
}

/* Unread input would turn the close into a reset, as in transport.c. One that has FAILED is broken
 * for its owner, and its socket may be as good as ever. */
static void tls_stream_close(struct transport *transport)
{
    struct stream *stream = stream_of(transport);

    loop_unwatch(transport->loop, &transport->source);
    transport->source.fd = -1;
    transport->carrier = NULL;
    if (stream->state == STREAM_AWAY) {
        stream->transport = NULL;
        stream->line = NULL;
        stream->abandoned = true;
        return;
    }
    if (stream->state == STREAM_WAITING)
        turn_cancel(&stream->tls->waiting, &stream->turn);
    if (stream->state == STREAM_HANDSHAKE)
        leave_begun(stream);
    if (stream->state == STREAM_OPEN && !transport->broken)
        tls_records_shut_down(&stream->records);
    if (stream->state != STREAM_OPEN || !transport->broken)
        recv(stream->fd, NULL, DISCARD_SIZE, MSG_TRUNC | MSG_DONTWAIT);
    stream_free(stream);
}

static const struct transport_ops tls_ops = {.read = tls_read,
                                             .write = tls_write,
                                             .close = tls_stream_close,
                                             .untaken_size = transport_untaken_by_socket};

/* ---- opening ---- */

static struct stream *stream_new(struct transport *transport, struct tls_context *context, int fd,
                                 const struct endpoint *peer, struct tls_line *line)
{
    struct stream *stream = xcalloc(1, sizeof(*stream));

    SSL_CTX_up_ref(context->ctx);
    stream->tls = context->tls;
    stream->line = line;
    stream->transport = transport;
    stream->ctx = context->ctx;
    stream->fd = fd;
    stream->peer = *peer;
    stream->job = (struct job){.run = on_step, .done = on_step_done};
    return stream;
}

int tls_transport_open(struct transport *transport, struct tls_context *context,
                       const struct transport_events *events, int fd, const struct endpoint *peer,
                       struct tls_line *line)
{
    struct loop *loop = context->tls->loop;
    struct stream *stream = stream_new(transport, context, fd, peer, line);

    transport_open(transport, loop, events, &tls_ops);
    transport->carrier = stream;
    transport->source =
        (struct source){.fd = fd, .wants_output = true, .on_ready = on_socket_ready};
    const int result = loop_watch(loop, &transport->source);
    if (result == 0)
        return 0;
    stream_free(stream);
    transport->carrier = NULL;
    transport->source.fd = -1;
    transport->closed = true;
    return result;
}

static void on_worker_ready(struct source *source, uint32_t events)
{
    (void)events;
    worker_process(&container_of(source, struct tls, source)->worker);
}

void tls_line_init(struct tls_line *line)
{
    turn_line_init(&line->waiting);
    TAILQ_INIT(&line->begun);
    line->begun_count = 0;
}

int tls_open(struct tls *tls, struct loop *loop, const struct tls_limits *limits)
{
    *tls = (struct tls){.loop = loop, .limits = *limits};
    turns_init(&tls->waiting);
    TAILQ_INIT(&tls->begun);
    int rc = worker_open(&tls->worker);
    if (rc != 0)
        return rc;
    tls->source = (struct source){.fd = worker_fd(&tls->worker), .on_ready = on_worker_ready};
    rc = loop_watch(loop, &tls->source);
    if (rc != 0) {
        worker_close(&tls->worker);
        return rc;
    }
    tls->scratch = xmalloc(sizeof(*tls->scratch));
    return 0;
}

void tls_close(struct tls *tls)
{
    loop_unwatch(tls->loop, &tls->source);
    worker_close(&tls->worker);
    free(tls->scratch);
}

/* ---- facts ---- */

static const struct stream *open_stream_of(const struct transport *transport)
{
    if (transport->ops != &tls_ops || transport->carrier == NULL)
        return NULL;
    const struct stream *stream = stream_of(transport);
    return stream->state == STREAM_OPEN ? stream : NULL;
}

bool tls_transport_facts(const struct transport *transport, struct tls_facts *facts)
{
    const struct stream *stream = open_stream_of(transport);

    if (stream == NULL)
        return false;
    *facts = (struct tls_facts){
        .version = SSL_get_version(stream->ssl),
        .cipher = SSL_get_cipher_name(stream->ssl),
        .resumed = SSL_session_reused(stream->ssl) == 1,
        .has_certificate = SSL_get0_peer_certificate(stream->ssl) != NULL &&
                           SSL_get_verify_result(stream->ssl) == X509_V_OK,
    };
    return true;
}

const char *tls_transport_name(const struct transport *transport, enum tls_name kind,
                               unsigned index, struct buf *name)
{
    const struct stream *stream = open_stream_of(transport);

    const X509 *certificate = stream == NULL ? NULL : SSL_get0_peer_certificate(stream->ssl);

    if (certificate == NULL || SSL_get_verify_result(stream->ssl) != X509_V_OK)
        return "there is no certificate that was verified";
    return tls_certificate_name(certificate, kind, index, name);
}
