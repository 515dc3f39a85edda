/* A connection that was accepted from a proxy and has yet to say whose it is (proxy_header.h). The
 * header is looked at where it lies in the socket, and taken from there when it is whole: what
 * follows it, be it AMQP or TLS, is untouched.
 *
 *     accepted ──whole header──▶ on_accept of its listener, from the header's addresses
 *          └─────bad header, its end, no header in time──▶ closed
 *
 * From this machine is only who is so by the header and whose proxy is, too: a header is easily
 * written. For listener.c alone. */
#ifndef NET_PROXIED_H
#define NET_PROXIED_H

#include "net/listener.h"

/* fd is owned from here. */
void proxied_await(struct listener *listener, int fd, const struct endpoint *peer);
bool proxied_drop_oldest(struct listener *listener); /* false: there is none */
void proxied_drop_all(struct listener *listener);

#endif
