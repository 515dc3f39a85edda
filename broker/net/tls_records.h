/* The records of a TLS connection whose handshake is over: many cross the socket in one system
 * call. OpenSSL by itself makes two for each that comes and one for each that goes; here it only
 * turns memory into memory.
 *
 *     socket ─recv▶ input ─SSL_read▶ the reader      the writer ─SSL_write▶ output ─send▶ socket
 *                     ▲                                                       │
 *                     └ `unread`: what the reader              what the socket └ `unsent`
 *                       had no room for                        did not take
 *
 * input and output are the thread's, for the time of a call. What a connection keeps between calls
 * is bounded: `unread` by little more than a record, or by what was received when that had more
 * records than there is time for, `unsent` by TLS_OUTPUT_SIZE and by what the writer had, OpenSSL's
 * own buffers by a record each; when nothing is under way there is none of these.
 *
 * A batch is large because a send is dear: over loopback one costs as much as encrypting 15 KiB.
 * With four records a send a writer takes 10 % more time than with sixteen, with one record 60 %.
 * What is left above the socket's own time is two thirds the cipher's (tests/bench/bench_tls); the
 * rest is OpenSSL's work for each record, and a copy on either side of its buffers, in and out,
 * which it offers no way around.
 *
 * It works over a socket that blocks, too. */
#ifndef NET_TLS_RECORDS_H
#define NET_TLS_RECORDS_H

#include <openssl/types.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/buf.h"

enum {
    TLS_RECORD_SIZE = 16 * 1024,             /* the longest, as read or written */
    TLS_RECORD_ROOM = TLS_RECORD_SIZE + 128, /* that with its head, tag and padding */
    TLS_BATCH_RECORDS = 16,                  /* encrypted before they are sent */
    TLS_OUTPUT_SIZE = TLS_BATCH_RECORDS * TLS_RECORD_ROOM,
    TLS_INPUT_SIZE = 256 * 1024, /* received at a time */
};

/* One for all connections of a thread. */
struct tls_scratch {
    uint8_t input[TLS_INPUT_SIZE], output[TLS_OUTPUT_SIZE];
    uint8_t record[TLS_RECORD_SIZE]; /* where small parts become one record */
};

struct tls_records {
    SSL *ssl;
    int fd; /* both are borrowed */
    struct tls_scratch *scratch;
    struct slice in;      /* within a call: what OpenSSL has not taken yet */
    struct buf out;       /* what OpenSSL has written; between calls that is unsent */
    struct buf unread;    /* between calls: the rest of `in` */
    size_t owed;          /* the writer's octets that are in `out`, and were not reported yet */
    unsigned long reason; /* OpenSSL's, of an -EPROTO; else 0 */
    uint32_t work;        /* of this read */
    uint32_t barren;      /* those that have begun since one brought something */
    bool has_more;        /* the last read may have left something that nothing will announce */
    bool wants_room;      /* the last read is to be repeated when the socket takes something */
};

/* The SSL has shaken hands over the socket without reading ahead, and has both modes of partial
 * writes. From here on nothing else reads or writes either. False: out of memory. */
bool tls_records_open(struct tls_records *records, SSL *ssl, int fd, struct tls_scratch *scratch);

/* Frees what is kept; neither SSL nor socket. Harmless when all is zero. */
void tls_records_release(struct tls_records *records);

/* The size of what was read: what had been received, else what one recv brings; 0 at the end of the
 * stream, with a farewell or without; -EAGAIN; -EINTR for nothing yet, when it is others' turn, and
 * nothing will announce what is left; -EPROTO when the peer does not keep to the protocol; or
 * another -errno. */
ssize_t tls_records_read(struct tls_records *records, void *bytes, size_t size);

/* How many octets of the parts, from the first on, are done with; -EAGAIN for none, or another
 * -errno as above. Fewer than offered only when the socket is full, or has failed: the next write
 * begins with the rest, of which some may be encrypted already. An octet is done with when as many
 * have left, and the last of them when all of the ciphertext has. */
ssize_t tls_records_write(struct tls_records *records, const struct iovec *parts, int count);

/* All ciphertext has left: a read that waited for it goes on, whether or not the socket announces
 * room. */
static inline bool tls_records_has_room(const struct tls_records *records)
{
    return buf_size(&records->out) == 0;
}

/* Says farewell, as far as there is room. */
void tls_records_shut_down(struct tls_records *records);

#endif
