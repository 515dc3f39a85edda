#include "net/proxied.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "net/proxy_header.h"

struct proxied {
    TAILQ_ENTRY(proxied) link; /* in listener->proxied */
    struct listener *listener;
    struct source source;
    struct timer timer;
    struct endpoint peer; /* the proxy */
};

/* Answers the descriptor, which is the caller's. */
static int forget(struct proxied *proxied)
{
    const int fd = proxied->source.fd;

    loop_unwatch(proxied->listener->loop, &proxied->source);
    timer_cancel(&proxied->timer);
    TAILQ_REMOVE(&proxied->listener->proxied, proxied, link);
    --*proxied->listener->proxied_count;
    free(proxied);
    return fd;
}

static void refuse(struct proxied *proxied, const char *why)
{
    log_warning("closing a connection from %s:%u: %s", proxied->peer.host, proxied->peer.port, why);
    close(forget(proxied));
}

static void hand_on(struct proxied *proxied, const struct proxy_header *header)
{
    struct listener *listener = proxied->listener;
    struct endpoint local = header->destination, peer = header->source;

    peer.loopback = peer.loopback && proxied->peer.loopback;
    if (!header->has_addresses) {
        endpoint_local(&local, proxied->source.fd);
        peer = proxied->peer;
    }
    listener->on_accept(listener, forget(proxied), &local, &peer);
}

static void on_proxied_ready(struct source *source, uint32_t events)
{
    struct proxied *proxied = container_of(source, struct proxied, source);
    struct proxy_header header;
    uint8_t bytes[PROXY_HEADER_SIZE_MAX];

    const ssize_t size = recv(source->fd, bytes, sizeof(bytes), MSG_PEEK);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        close(forget(proxied));
        return;
    }
    switch (proxy_header_parse(slice_of(bytes, (size_t)size), &header)) {
    case PROXY_MORE:
        if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
            close(forget(proxied));
        return;
    case PROXY_BAD:
        refuse(proxied, "it does not begin with a PROXY protocol header, and proxy_protocol is on");
        return;
    case PROXY_OK:
        break;
    }
    if (recv(source->fd, bytes, header.size, 0) == (ssize_t)header.size)
        hand_on(proxied, &header);
    else
        refuse(proxied, "its PROXY protocol header cannot be read");
}

static void on_header_late(struct timer *timer)
{
    refuse(container_of(timer, struct proxied, timer), "no PROXY protocol header came in time");
}

void proxied_await(struct listener *listener, int fd, const struct endpoint *peer)
{
    struct proxied *proxied = xmalloc(sizeof(*proxied));
    struct loop *loop = listener->loop;

    *proxied = (struct proxied){
        .listener = listener,
        .source = {.fd = fd, .on_ready = on_proxied_ready},
        .timer.on_expire = on_header_late,
        .peer = *peer,
    };
    const int error = loop_watch(loop, &proxied->source);
    if (error != 0) {
        log_error("cannot serve a connection from %s:%u: %s", peer->host, peer->port,
                  strerror(-error));
        close(fd);
        free(proxied);
        return;
    }
    TAILQ_INSERT_TAIL(&listener->proxied, proxied, link);
    ++*listener->proxied_count;
    timer_set(&loop->timers, &proxied->timer, loop->clock->now_ms + listener->proxy_timeout_ms);
}

bool proxied_drop_oldest(struct listener *listener)
{
    struct proxied *oldest = TAILQ_FIRST(&listener->proxied);

    if (oldest == NULL)
        return false;
    refuse(oldest, "it has not sent its PROXY protocol header, and others wait for its place");
    return true;
}

void proxied_drop_all(struct listener *listener)
{
    struct proxied *proxied;

    while ((proxied = TAILQ_FIRST(&listener->proxied)) != NULL)
        close(forget(proxied));
}
