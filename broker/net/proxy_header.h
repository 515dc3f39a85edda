/* The PROXY protocol, versions 1 and 2: what a load balancer says in front of a client's first
 * octet, so that the broker knows whose connection it is.
 *
 *     1    PROXY TCP4 192.0.2.1 198.51.100.7 51234 5672 CR LF            TCP6 likewise; UNKNOWN: whatever follows
 *     2    signature (12) | version and command | family and transport | size (2) | addresses |
 *          TLVs
 *
 * A pure parser; nothing is forgiven. TLVs must fit, and are not looked at. */
#ifndef NET_PROXY_HEADER_H
#define NET_PROXY_HEADER_H

#include "base/slice.h"
#include "net/listener.h"

/* Of a header; what is longer is bad. The protocol's own bound of version 1 is 107, and version 2
 * has seldom more than a few hundred. */
enum { PROXY_HEADER_SIZE_MAX = 4096 };

enum proxy_parse { PROXY_MORE, PROXY_OK, PROXY_BAD };

struct proxy_header {
    size_t size;
    bool has_addresses; /* not UNKNOWN, nor the proxy's own check of whether we are well */
    struct endpoint source, destination; /* as the proxy has them, if so */
};

/* Of the first octets of a connection, as many as have come. */
enum proxy_parse proxy_header_parse(struct slice bytes, struct proxy_header *header);

#endif
