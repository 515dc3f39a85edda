/* Accepting connections on one address; behind a proxy they first say whose they are (proxied.h).
 * When descriptors run out, or those that its owner has for connections, accepting pauses and
 * resumes by itself; those already connected do not notice. */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include <sys/socket.h>

#include "net/loop.h"

struct endpoint { /* an address in print: "127.0.0.1", 5672; "::1" without brackets */
    char host[64];
    uint16_t port;
    bool loopback; /* IPv4-mapped addresses judged as IPv4 */
};

struct listener {
    struct source source; /* fd -1 when closed */
    struct loop *loop;
    struct task task;   /* accepts again next turn when a turn's share was taken */
    struct timer retry; /* set while accepting is paused for want of descriptors */
    bool starved;       /* since the last time that nobody was left waiting: it is logged once */
    /* accepted, and have yet to say whose they are; the oldest first */
    TAILQ_HEAD(proxied_list, proxied) proxied;
    int reserve_fd; /* to give up for the descriptor that cannot be had; -1: nor can this */
    struct endpoint local;
    uint64_t proxy_timeout_ms; /* for a header of the PROXY protocol; 0: none comes */
    size_t *proxied_count;     /* counts those in `proxied` of all listeners that share it */
    void *context;
    /* fd is connected, non-blocking, close-on-exec, TCP_NODELAY, and the callee's, who may close
     * the listener. */
    void (*on_accept)(struct listener *listener, int fd, const struct endpoint *local,
                      const struct endpoint *peer);
    bool (*has_room)(struct listener *listener); /* for one more; NULL: always */
    bool (*make_way)(struct listener *listener); /* if not: makes some for one who waits */
};

/* host: an address in print, or NULL for every address, IPv6 and IPv4. port 0: any free one, found
 * in local.port afterwards. Sets everything but what the caller has set: all from proxy_timeout_ms
 * on. 0 or -errno. */
int listener_open(struct listener *listener, struct loop *loop, const char *host, uint16_t port,
                  int backlog);
void listener_close(struct listener *listener); /* harmless twice */

/* Closes the one that has longest failed to say whose it is; false: there is none. */
bool listener_drop_proxied(struct listener *listener);

/* Of an IPv4 or IPv6 address; anything else is "?", port 0, and never loopback. */
void endpoint_of(struct endpoint *endpoint, const struct sockaddr *address);
void endpoint_local(struct endpoint *endpoint, int fd); /* of our side of a connected socket */

#endif
