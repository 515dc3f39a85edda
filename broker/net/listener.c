/* Accepting connections on one address.
 *
 * A turn takes at most SHARE_MAX of those that wait; the rest is for the next turn, so that a storm
 * of connects does not stand in the way of those who are connected.
 *
 * Out of descriptors, the queue of the waiting would keep the loop awake for nothing. Instead the
 * reserve descriptor is given up, one waiting connection is accepted with it and closed (its client
 * learns at once that there is no room), the reserve is taken again, and accepting pauses for
 * RETRY_MS:
 *
 *     ACCEPTING ──EMFILE, ENFILE, ENOBUFS, ENOMEM──▶ PAUSED (retry set) ──RETRY_MS──▶ ACCEPTING
 *
 * The same when its owner has no room for one more, and nobody whom it could send away for him,
 * long before: then nobody else in the process is short of descriptors.
 *
 * TCP_NODELAY is set on the listening socket: Linux hands it down to what is accepted. */
#include "net/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include "base/log.h"
#include "net/proxied.h"

enum { SHARE_MAX = 64, RETRY_MS = 100 };

/* ---- endpoints ----------------------------------------------------------------------------- */

static void endpoint_of_ipv4(struct endpoint *endpoint, struct in_addr address, in_port_t port)
{
    inet_ntop(AF_INET, &address, endpoint->host, sizeof(endpoint->host));
    endpoint->port = ntohs(port);
    endpoint->loopback = ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET;
}

static void endpoint_of_ipv6(struct endpoint *endpoint, const struct sockaddr_in6 *address)
{
    if (IN6_IS_ADDR_V4MAPPED(&address->sin6_addr)) {
        struct in_addr mapped;
        memcpy(&mapped, address->sin6_addr.s6_addr + 12, sizeof(mapped));
        endpoint_of_ipv4(endpoint, mapped, address->sin6_port);
        return;
    }
    inet_ntop(AF_INET6, &address->sin6_addr, endpoint->host, sizeof(endpoint->host));
    endpoint->port = ntohs(address->sin6_port);
    endpoint->loopback = IN6_IS_ADDR_LOOPBACK(&address->sin6_addr);
}

void endpoint_of(struct endpoint *endpoint, const struct sockaddr *address)
{
    *endpoint = (struct endpoint){.host = "?"};
    if (address->sa_family == AF_INET) {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, address, sizeof(ipv4));
        endpoint_of_ipv4(endpoint, ipv4.sin_addr, ipv4.sin_port);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 ipv6;
        memcpy(&ipv6, address, sizeof(ipv6));
        endpoint_of_ipv6(endpoint, &ipv6);
    }
}

void endpoint_local(struct endpoint *endpoint, int fd)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof(address);
    getsockname(fd, (struct sockaddr *)&address, &size);
    endpoint_of(endpoint, (const struct sockaddr *)&address);
}

/* ---- accepting ----------------------------------------------------------------------------- */

static void take_reserve(struct listener *listener)
{
    if (listener->reserve_fd < 0)
        listener->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Closes one waiting connection with the help of the reserve. */
static void turn_one_away(struct listener *listener)
{
    if (listener->reserve_fd < 0)
        return;
    close(listener->reserve_fd);
    listener->reserve_fd = -1;
    const int fd = accept4(listener->source.fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
}

static void pause_accepting(struct listener *listener, int error)
{
    if (!listener->starved) {
        listener->starved = true;
        log_warning("cannot accept connections on port %u for the time being: %s",
                    listener->local.port, strerror(error));
    }
    if (error == EMFILE || error == ENFILE)
        turn_one_away(listener);
    take_reserve(listener);
    timer_set(&listener->loop->timers, &listener->retry, listener->loop->clock->now_ms + RETRY_MS);
}

/* What ends one waiting connection before it was accepted is no failure of the listener. */
static bool is_of_one_connection(int error)
{
    static const int errors[] = {ECONNABORTED, EINTR,       EPROTO, ENETDOWN,
                                 ENOPROTOOPT,  EHOSTDOWN,   ENONET, EHOSTUNREACH,
                                 EOPNOTSUPP,   ENETUNREACH, EPERM,  ETIMEDOUT};
    for (size_t i = 0; i < countof(errors); i++) {
        if (errors[i] == error)
            return true;
    }
    return false;
}

static bool is_awaited(const struct listener *listener)
{
    struct pollfd ready = {.fd = listener->source.fd, .events = POLLIN};

    return poll(&ready, 1, 0) > 0;
}

/* Accepts one; false when there is nothing to go on with in this turn. */
static bool accept_one(struct listener *listener)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof(address);

    if (listener->has_room != NULL && !listener->has_room(listener) && is_awaited(listener) &&
        !listener->make_way(listener)) {
        pause_accepting(listener, EMFILE);
        return false;
    }
    const int fd = accept4(listener->source.fd, (struct sockaddr *)&address, &size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && errno == EAGAIN) {
        listener->starved = false;
        return false;
    }
    if (fd < 0 && !is_of_one_connection(errno)) {
        pause_accepting(listener, errno);
        return false;
    }
    if (fd < 0)
        return true;

    struct endpoint local, peer;
    endpoint_of(&peer, (const struct sockaddr *)&address);
    if (listener->proxy_timeout_ms > 0) {
        proxied_await(listener, fd, &peer);
    } else {
        endpoint_local(&local, fd);
        listener->on_accept(listener, fd, &local, &peer);
    }
    return listener->source.fd >= 0;
}

static void accept_share(struct listener *listener)
{
    for (int i = 0; i < SHARE_MAX; i++) {
        if (!accept_one(listener))
            return;
    }
    loop_queue(listener->loop, LOOP_INPUT, &listener->task);
}

static void on_listener_ready(struct source *source, uint32_t events)
{
    struct listener *listener = container_of(source, struct listener, source);
    (void)events;
    if (!timer_is_set(&listener->retry))
        loop_queue(listener->loop, LOOP_INPUT, &listener->task);
}

static void run_listener(struct task *task)
{
    accept_share(container_of(task, struct listener, task));
}

static void on_listener_retry(struct timer *timer)
{
    accept_share(container_of(timer, struct listener, retry));
}

/* ---- opening and closing ------------------------------------------------------------------- */

/* A listening socket on the address, or -errno. */
static int listen_on(const struct sockaddr *address, socklen_t size, int backlog)
{
    const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;

    const int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (address->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, address, size) == 0 && listen(fd, backlog) == 0)
        return fd;

    const int error = errno;
    close(fd);
    return -error;
}

static int listen_everywhere(uint16_t port, int backlog)
{
    const struct sockaddr_in6 ipv6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
    const int fd = listen_on((const struct sockaddr *)&ipv6, sizeof(ipv6), backlog);
    if (fd != -EAFNOSUPPORT && fd != -EADDRNOTAVAIL)
        return fd;
    const struct sockaddr_in ipv4 = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_ANY)}};
    return listen_on((const struct sockaddr *)&ipv4, sizeof(ipv4), backlog);
}

static int listen_at(const char *host, uint16_t port, int backlog)
{
    char service[8];
    snprintf(service, sizeof(service), "%u", port);
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found;
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    const int fd = listen_on(found->ai_addr, found->ai_addrlen, backlog);
    freeaddrinfo(found);
    return fd;
}

int listener_open(struct listener *listener, struct loop *loop, const char *host, uint16_t port,
                  int backlog)
{
    const int fd = host == NULL ? listen_everywhere(port, backlog) : listen_at(host, port, backlog);
    listener->source = (struct source){.fd = fd < 0 ? -1 : fd, .on_ready = on_listener_ready};
    if (fd < 0)
        return fd;

    listener->loop = loop;
    listener->task = (struct task){.run = run_listener};
    listener->retry = (struct timer){.on_expire = on_listener_retry};
    listener->starved = false;
    TAILQ_INIT(&listener->proxied);
    listener->reserve_fd = -1;
    endpoint_local(&listener->local, fd);
    const int result = loop_watch(loop, &listener->source);
    if (result < 0) {
        close(fd);
        listener->source.fd = -1;
        return result;
    }
    take_reserve(listener);
    return 0;
}

bool listener_drop_proxied(struct listener *listener)
{
    return proxied_drop_oldest(listener);
}

void listener_close(struct listener *listener)
{
    if (listener->source.fd < 0)
        return;
    loop_unwatch(listener->loop, &listener->source);
    loop_unqueue(listener->loop, &listener->task);
    timer_cancel(&listener->retry);
    close(listener->source.fd);
    listener->source.fd = -1;
    proxied_drop_all(listener);
    if (listener->reserve_fd >= 0)
        close(listener->reserve_fd);
    listener->reserve_fd = -1;
}
