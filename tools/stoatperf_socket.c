/* See the header. All connections share one context, made for the first of them. */
#include "tools/stoatperf_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct tls_scratch scratch;

void socket_set_timeout(struct socket *sock, int timeout_s)
{
    const struct timeval timeout = {.tv_sec = timeout_s};
    setsockopt(sock->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(sock->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
}

void socket_set_blocking(struct socket *sock, bool blocking)
{
    fcntl(sock->fd, F_SETFL, blocking ? 0 : O_NONBLOCK);
}

/* 0, or the errno of the last address tried. */
static int connect_any(struct socket *sock, const struct addrinfo *addresses, int timeout_s)
{
    int error = EADDRNOTAVAIL;
    for (const struct addrinfo *address = addresses; address != NULL; address = address->ai_next) {
        sock->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (sock->fd >= 0) {
            socket_set_timeout(sock, timeout_s);
            if (connect(sock->fd, address->ai_addr, address->ai_addrlen) == 0)
                return 0;
        }
        error = errno;
        socket_close(sock);
    }
    return error;
}

bool socket_open(struct socket *sock, const char *host, const char *port, int timeout_s,
                 struct failure *failure)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses;
    *sock = (struct socket){.fd = -1};
    const int status = getaddrinfo(host, port, &hints, &addresses);
    if (status != 0)
        return failure_set(failure, "cannot find %s: %s", host, gai_strerror(status));
    const int error = connect_any(sock, addresses, timeout_s);
    freeaddrinfo(addresses);
    if (error != 0)
        return failure_set(failure, "cannot connect to %s:%s: %s", host, port, strerror(error));
    setsockopt(sock->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return true;
}

static bool load_trust(SSL_CTX *context, const char *ca_file)
{
    return ca_file == NULL ? SSL_CTX_set_default_verify_paths(context) == 1
                           : SSL_CTX_load_verify_file(context, ca_file) == 1;
}

static SSL_CTX *shared_context(const char *ca_file, bool insecure, struct failure *failure)
{
    static SSL_CTX *context;
    if (context != NULL)
        return context;
    SSL_CTX *const fresh = SSL_CTX_new(TLS_client_method());
    if (fresh == NULL) {
        failure_set(failure, "cannot set up TLS: %s", socket_error());
        return NULL;
    }
    SSL_CTX_set_min_proto_version(fresh, TLS1_2_VERSION);
    SSL_CTX_set_mode(fresh, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(fresh, insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (!insecure && !load_trust(fresh, ca_file)) {
        failure_set(failure, "cannot use the certificates in %s: %s",
                    ca_file == NULL ? "the system's store" : ca_file, socket_error());
        SSL_CTX_free(fresh);
        return NULL;
    }
    return context = fresh;
}

/* Whom the certificate must name; an address is no name to tell the broker. */
static bool expect_peer(SSL *tls, const char *host)
{
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), host) == 1 ||
           (SSL_set1_host(tls, host) == 1 && SSL_set_tlsext_host_name(tls, host) == 1);
}

static bool handshake(struct socket *sock, const char *host, SSL_CTX *context,
                      struct failure *failure)
{
    sock->tls = SSL_new(context);
    if (sock->tls == NULL || SSL_set_fd(sock->tls, sock->fd) != 1 || !expect_peer(sock->tls, host))
        return failure_set(failure, "cannot set up TLS: %s", socket_error());
    ERR_clear_error();
    errno = 0;
    if (SSL_connect(sock->tls) == 1)
        return tls_records_open(&sock->records, sock->tls, sock->fd, &scratch) ||
               failure_set(failure, "cannot set up TLS: %s", socket_error());
    const long verdict = SSL_get_verify_result(sock->tls);
    if (verdict == X509_V_OK)
        return failure_set(failure, "no TLS with %s: %s", host, socket_error());
    return failure_set(failure,
                       "no TLS with %s: %s; --cacert names the certificates to trust, --insecure "
                       "trusts any",
                       host, X509_verify_cert_error_string(verdict));
}

bool socket_encrypt(struct socket *sock, const char *host, const char *ca_file, bool insecure,
                    struct failure *failure)
{
    SSL_CTX *const context = shared_context(ca_file, insecure, failure);
    if (context != NULL && handshake(sock, host, context, failure))
        return true;
    socket_close(sock);
    return false;
}

/* As a socket would say it. */
static ssize_t answer(ssize_t result)
{
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

ssize_t socket_receive(struct socket *sock, void *data, size_t size)
{
    return sock->tls == NULL ? recv(sock->fd, data, size, 0)
                             : answer(tls_records_read(&sock->records, data, size));
}

ssize_t socket_send(struct socket *sock, const void *data, size_t size)
{
    if (sock->tls == NULL)
        return send(sock->fd, data, size, 0);
    const struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    return answer(tls_records_write(&sock->records, &part, 1));
}

bool socket_has_more(const struct socket *sock)
{
    return sock->tls != NULL && (buf_size(&sock->records.unread) > 0 || SSL_pending(sock->tls) > 0);
}

const char *socket_error(void)
{
    const unsigned long error = ERR_peek_last_error();
    const char *const reason = error == 0 ? NULL : ERR_reason_error_string(error);
    return reason != NULL ? reason : errno != 0 ? strerror(errno) : "the broker hung up";
}

void socket_close(struct socket *sock)
{
    tls_records_release(&sock->records);
    SSL_free(sock->tls);
    if (sock->fd >= 0)
        close(sock->fd);
    *sock = (struct socket){.fd = -1};
}
