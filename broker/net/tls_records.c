/* OpenSSL between two pieces of memory. See the header for the picture.
 *
 * A batch of records is encrypted only when all that was encrypted before has left. So the scratch
 * has room for it, and a slow peer has one batch of ciphertext waiting, whatever the writer has for
 * it: that is still with the writer, who counts it.
 *
 * While ciphertext with the writer's octets waits, at least one of them is owed: the writer comes
 * back for it when the socket has room. For what OpenSSL says on its own account (the answer to a
 * key update, an alert) the reader does.
 *
 * A record need not bring anything: a key update is 27 octets on the wire and costs as much as
 * decrypting 10 KiB; of others OpenSSL itself takes few. SSL_read takes one after the other, and
 * only what it takes for a socket can stop it. So records are counted as it tells of them. A call
 * does so much work, about 3 ms of it, then it is the others' turn. And so many that bring nothing
 * may come one behind the other, as other libraries allow, then the peer has broken the protocol.
 *
 * Invariants. Between calls `in` is empty, and `out` is the connection's own. Within one `out` may
 * stand on the scratch; at most TLS_OUTPUT_SIZE octets are in it either way, then OpenSSL is told
 * to wait. */
#include "net/tls_records.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

enum {
    WORK_A_CALL = 2048, /* small records */
    BARREN_WORK = 8,    /* in such: what one costs that brings nothing */
    BARREN_MAX = 32,    /* BoringSSL and rustls allow as many */
};

/* ---- what OpenSSL takes for a socket ---- */

static void on_record(int is_sent, int version, int type, const void *bytes, size_t size, SSL *ssl,
                      void *argument)
{
    struct tls_records *records = argument;
    (void)version, (void)bytes, (void)size, (void)ssl;

    if (is_sent || type != SSL3_RT_HEADER)
        return;
    records->work += records->barren > 0 ? BARREN_WORK : 1; /* the one before brought nothing */
    records->barren++;
}

/* Of the last one nobody knows yet what it brings. */
static bool is_barren(const struct tls_records *records)
{
    return records->barren > BARREN_MAX + 1;
}

static bool may_go_on(const struct tls_records *records)
{
    return records->work < WORK_A_CALL && !is_barren(records);
}

static int on_bio_read(BIO *bio, char *bytes, int size)
{
    struct tls_records *records = BIO_get_data(bio);
    struct slice *in = &records->in;
    const size_t taken = may_go_on(records) ? min_of((size_t)size, in->size) : 0;

    BIO_clear_retry_flags(bio);
    if (taken == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(bytes, in->data, taken);
    *in = slice_of(in->data + taken, in->size - taken);
    return (int)taken;
}

static int on_bio_write(BIO *bio, const char *bytes, int size)
{
    struct buf *out = &((struct tls_records *)BIO_get_data(bio))->out;
    const size_t taken = min_of((size_t)size, TLS_OUTPUT_SIZE - buf_size(out));

    BIO_clear_retry_flags(bio);
    if (taken == 0) {
        BIO_set_retry_write(bio);
        return -1;
    }
    buf_append(out, slice_of(bytes, taken));
    return (int)taken;
}

static long on_bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH; /* there is nothing to it */
}

static BIO *new_bio(struct tls_records *records)
{
    static BIO_METHOD *method;

    if (method == NULL) {
        method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "records");
        if (method == NULL)
            return NULL;
        BIO_meth_set_read(method, on_bio_read);
        BIO_meth_set_write(method, on_bio_write);
        BIO_meth_set_ctrl(method, on_bio_control);
    }
    BIO *bio = BIO_new(method);
    if (bio == NULL)
        return NULL;
    BIO_set_data(bio, records);
    BIO_set_init(bio, 1);
    return bio;
}

bool tls_records_open(struct tls_records *records, SSL *ssl, int fd, struct tls_scratch *scratch)
{
    *records = (struct tls_records){.ssl = ssl, .fd = fd, .scratch = scratch};
    BIO *bio = new_bio(records);
    if (bio == NULL)
        return false;
    SSL_set_bio(ssl, bio, bio);
    SSL_set_msg_callback(ssl, on_record);
    SSL_set_msg_callback_arg(ssl, records);
    return true;
}

void tls_records_release(struct tls_records *records)
{
    buf_release(&records->unread);
    buf_release(&records->out);
}

/* ---- a call ---- */

/* Nothing is unsent: what OpenSSL writes next goes to the scratch. */
static void use_scratch(struct tls_records *records)
{
    assert(buf_size(&records->out) == 0);
    if (records->out.data == records->scratch->output)
        return;
    buf_release(&records->out);
    records->out = (struct buf){.data = records->scratch->output, .capacity = TLS_OUTPUT_SIZE};
}

static void enter(struct tls_records *records)
{
    records->in = buf_slice(&records->unread);
    if (buf_size(&records->out) == 0)
        use_scratch(records);
    ERR_clear_error();
}

/* What is left becomes the connection's own. */
static struct buf copy_of(struct slice bytes)
{
    struct buf copy = BUF_EMPTY;

    buf_append(&copy, bytes);
    return copy;
}

static void leave(struct tls_records *records)
{
    if (records->unread.data == NULL)
        records->unread = copy_of(records->in);
    else
        buf_consume(&records->unread, buf_size(&records->unread) - records->in.size);
    if (buf_size(&records->unread) == 0)
        buf_release(&records->unread);
    records->in = SLICE("");

    if (records->out.data == records->scratch->output)
        records->out = copy_of(buf_slice(&records->out));
    if (buf_size(&records->out) == 0)
        buf_release(&records->out);
}

/* What OpenSSL has against going on: -EAGAIN, 0 for a farewell, or -EPROTO. */
static int obstacle(struct tls_records *records, int rc)
{
    switch (SSL_get_error(records->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        records->wants_room = true;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    }
    if (records->reason == 0)
        records->reason = ERR_peek_error(); /* it is said once only */
    return -EPROTO;
}

/* How many octets of the ciphertext have left, or -errno. */
static ssize_t send_out(struct tls_records *records)
{
    const struct slice out = buf_slice(&records->out);
    const ssize_t sent = send(records->fd, out.data, out.size, MSG_NOSIGNAL);

    if (sent < 0)
        return -errno;
    buf_consume(&records->out, (size_t)sent);
    return sent;
}

/* ---- reading ---- */

static int refuse_barren(struct tls_records *records)
{
    records->reason = ERR_PACK(ERR_LIB_SSL, 0, SSL_R_TOO_MANY_KEY_UPDATES);
    return -EPROTO;
}

/* As long as there is room, and something to decrypt. *result: 1 or why it has ended. */
static size_t decrypt(struct tls_records *records, uint8_t *bytes, size_t size, ssize_t *result)
{
    size_t total = 0;

    *result = 1;
    while (total < size) {
        const int rc =
            SSL_read(records->ssl, bytes + total, (int)min_of(size - total, (size_t)INT32_MAX));
        if (rc <= 0) {
            *result = is_barren(records) ? refuse_barren(records) : obstacle(records, rc);
            break;
        }
        records->barren = 0;
        total += (size_t)rc;
    }
    return total;
}

/* Ciphertext for at most so many octets: a record that has begun finds room, too, if that is not
 * all there is. 1, 0 for the end, or -errno. */
static ssize_t receive(struct tls_records *records, size_t size)
{
    const size_t asked =
        min_of(size > 2 * TLS_RECORD_SIZE ? size - TLS_RECORD_SIZE : size, (size_t)TLS_INPUT_SIZE);
    buf_release(&records->unread);
    const ssize_t received = recv(records->fd, records->scratch->input, asked, 0);
    if (received <= 0)
        return received == 0 ? 0 : -errno;
    records->in = slice_of(records->scratch->input, (size_t)received);
    records->has_more = (size_t)received == asked;
    return 1;
}

static ssize_t read_more(struct tls_records *records, uint8_t *bytes, size_t size)
{
    ssize_t result;
    size_t total;

    do {
        total = decrypt(records, bytes, size, &result);
    } while (total == 0 && result == -EAGAIN && records->in.size == 0 &&
             (result = receive(records, size)) > 0);
    records->has_more |= total > 0 && result != -EAGAIN;
    return total > 0 ? (ssize_t)total : result;
}

ssize_t tls_records_read(struct tls_records *records, void *bytes, size_t size)
{
    enter(records);
    records->has_more = true; /* as long as nobody has asked the socket */
    records->wants_room = false;
    records->work = 0;
    ssize_t result = read_more(records, bytes, size);
    bool is_held_up = records->wants_room || records->in.size > 0;
    if (records->owed == 0) {
        if (buf_size(&records->out) > 0)
            (void)send_out(records); /* a failure is met again */
        records->wants_room = buf_size(&records->out) > 0;
    }
    is_held_up &= !records->wants_room;
    records->has_more |= is_held_up;
    if (is_held_up && result == -EAGAIN)
        result = -EINTR;
    leave(records);
    return result;
}

/* ---- writing ---- */

/* Up to a record of what is to leave, from `skip` octets into the parts on. */
static struct slice next_record(struct tls_scratch *scratch, const struct iovec *parts, int count,
                                size_t skip)
{
    size_t size = 0;
    int i = 0;

    while (i < count && skip >= parts[i].iov_len)
        skip -= parts[i++].iov_len;
    if (i < count && (parts[i].iov_len - skip >= TLS_RECORD_SIZE || i == count - 1))
        return slice_of((const uint8_t *)parts[i].iov_base + skip,
                        min_of(parts[i].iov_len - skip, (size_t)TLS_RECORD_SIZE));
    for (; i < count && size < TLS_RECORD_SIZE; i++, skip = 0) {
        const size_t part = min_of(parts[i].iov_len - skip, TLS_RECORD_SIZE - size);
        memcpy(scratch->record + size, (const uint8_t *)parts[i].iov_base + skip, part);
        size += part;
    }
    return slice_of(scratch->record, size);
}

/* A batch of records, of what comes `skip` octets into the parts. 0 or -errno. */
static int encrypt(struct tls_records *records, const struct iovec *parts, int count, size_t skip)
{
    assert(records->owed == 0);
    use_scratch(records);
    for (int i = 0; i < TLS_BATCH_RECORDS; i++) {
        const struct slice record =
            next_record(records->scratch, parts, count, skip + records->owed);
        if (record.size == 0)
            break;
        const int rc = SSL_write(records->ssl, record.data, (int)record.size);
        if (rc <= 0) {
            const int result = obstacle(records, rc);
            return result == 0 ? -EPIPE : result;
        }
        records->owed += (size_t)rc;
    }
    return 0;
}

/* So many octets of ciphertext have left: what may be reported for them. */
static size_t settle(struct tls_records *records, size_t sent)
{
    const size_t settled = buf_size(&records->out) == 0 ? records->owed
                           : records->owed == 0         ? 0
                                                        : min_of(sent, records->owed - 1);
    records->owed -= settled;
    return settled;
}

static ssize_t write_more(struct tls_records *records, const struct iovec *parts, int count)
{
    size_t total = 0;
    ssize_t result = 0;

    for (;;) {
        if (buf_size(&records->out) == 0)
            result = encrypt(records, parts, count, total);
        if (buf_size(&records->out) == 0)
            break;
        const ssize_t sent = send_out(records);
        if (sent < 0) {
            result = sent;
            break;
        }
        total += settle(records, (size_t)sent);
        if (buf_size(&records->out) > 0) {
            result = -EAGAIN;
            break;
        }
    }
    return total > 0 ? (ssize_t)total : result;
}

ssize_t tls_records_write(struct tls_records *records, const struct iovec *parts, int count)
{
    enter(records);
    const ssize_t result = write_more(records, parts, count);
    leave(records);
    return result;
}

void tls_records_shut_down(struct tls_records *records)
{
    enter(records);
    SSL_shutdown(records->ssl);
    if (buf_size(&records->out) > 0)
        (void)send_out(records);
    ERR_clear_error();
    leave(records);
}
