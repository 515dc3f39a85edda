/* Accepting connections on one address. When descriptors run out, accepting pauses and resumes by itself; those already
 * connected do not notice. */
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
    struct source source;
    struct loop *loop;
    struct timer retry; /* set while accepting is paused for want of descriptors */
    struct task task;   /* accepts again next turn when a turn's share was taken */
    struct endpoint local;
    void *context;
    /* fd is connected, non-blocking, close-on-exec, TCP_NODELAY, and the callee's. */
    void (*on_accept)(struct listener *listener, int fd, const struct endpoint *peer);
};

/* host may be NULL: every address, IPv6 and IPv4. port 0: any free one, found in local.port afterwards. 0 or -errno. */
int listener_open(struct listener *listener, struct loop *loop, const char *host, uint16_t port,
                  int backlog);
void listener_close(struct listener *listener); /* harmless twice */

void endpoint_of(struct endpoint *endpoint, const struct sockaddr *address);
void endpoint_local(struct endpoint *endpoint, int fd); /* of our side of a connected socket */

#endif
