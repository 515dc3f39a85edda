/* Those who connect, by where they come from, so that nobody who has not said who he is can take
 * what is there for all.
 *
 *     addresses ─by key─▶ address ─▶ visitors in their handshake, the oldest first
 *         └─▶ remembered: without visitors, but with failed logins; the latest first
 *
 * An address is an IPv4 address, or the 64 bits of an IPv6 one that a site is given as a whole. It is
 * here while somebody from there is, and for FORGET_MS after a login from there failed last; at most
 * REMEMBERED_MAX of those are remembered without a visitor, and the oldest go first.
 *
 * Handshakes. An address may have so many connections that have not opened a vhost yet. One more
 * takes the place of the oldest: who is honest needs milliseconds, so that the oldest is not, and a
 * flood from one's own address keeps nobody out.
 *
 * Failed logins. Each makes the answer to the next one from there wait twice as long, from
 * DELAY_MIN_MS to the configured most. Only refusals wait: whoever knows the password is let in at
 * once, whatever his neighbours do. */
#ifndef ACCESS_ADDRESS_H
#define ACCESS_ADDRESS_H

#include "base/clock.h"
#include "base/map.h"
#include "net/listener.h"

struct address;

struct visitor { /* a connection, which has it inside */
    TAILQ_ENTRY(visitor) link;
    struct address *address;
    bool in_handshake;
};
TAILQ_HEAD(visitor_list, visitor);

struct address {
    struct map_link by_key;
    TAILQ_ENTRY(address) link; /* in addresses->remembered, while it has no visitors */
    struct addresses *addresses;
    uint32_t visitor_count, handshake_count;
    struct visitor_list handshakes; /* the oldest first */
    uint32_t failure_count;         /* of logins, as long as they are remembered ... */
    uint64_t failed_ms;             /* ... from the last one on */
    char key[sizeof((struct endpoint){0}.host)];
};

TAILQ_HEAD(address_list, address);

struct addresses {
    const struct clock *clock;
    struct map by_key;
    struct address_list remembered;
    size_t remembered_count;
};

void addresses_init(struct addresses *addresses, const struct clock *clock);
void addresses_release(struct addresses *addresses); /* no visitors left */

/* Somebody has connected, and is in the handshake until visitor_settle. */
void visitor_enter(struct visitor *visitor, struct addresses *addresses,
                   const struct endpoint *peer);
void visitor_settle(struct visitor *visitor);
void visitor_leave(struct visitor *visitor);

/* The one that is longest in its handshake, of those from there; or NULL. */
struct visitor *address_oldest(const struct address *address);

/* A login has failed: how long the answer is to wait, at most max_ms. */
uint64_t address_login_failed(struct address *address, uint64_t max_ms);

#endif
