/* A connected socket, plain or with TLS on it, read and written as with recv and send: -1 with
 * EAGAIN when a non-blocking one has nothing or takes nothing.
 *
 * TLS takes several records from the kernel at a time: what was taken and not read is seen by no
 * epoll, so whoever waits on one reads until socket_has_more says no. And a write that was not
 * taken must be tried again with the same octets first, which is how stoatperf writes anyway.
 * OpenSSL shakes hands by itself, so that the process must ignore SIGPIPE. */
#ifndef TOOLS_STOATPERF_SOCKET_H
#define TOOLS_STOATPERF_SOCKET_H

#include "net/tls_records.h"
#include "tools/stoatperf_failure.h"

struct socket {
    int fd;   /* -1: not open */
    SSL *tls; /* NULL: plain */
    struct tls_records records;
};

/* Connects, blocking, to the first address of host that answers; every wait of a blocking socket
 * ends after timeout_s. False with the failure set. */
bool socket_open(struct socket *sock, const char *host, const char *port, int timeout_s,
                 struct failure *failure);

/* TLS on an open, blocking socket, which is closed where that fails. The broker's certificate must
 * be for host, and lead to those in ca_file, or the system's where that is NULL; insecure: any will
 * do. The same for all of a process. */
bool socket_encrypt(struct socket *sock, const char *host, const char *ca_file, bool insecure,
                    struct failure *failure);

ssize_t socket_receive(struct socket *sock, void *data, size_t size);
ssize_t socket_send(struct socket *sock, const void *data, size_t size);
bool socket_has_more(const struct socket *sock);

/* What the last -1 means, for people. */
const char *socket_error(void);

void socket_set_timeout(struct socket *sock, int timeout_s);
void socket_set_blocking(struct socket *sock, bool blocking);

/* Without a word to the other side. */
void socket_close(struct socket *sock);

#endif
