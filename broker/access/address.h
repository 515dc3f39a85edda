/* Those who connect, by where they come from, so that nobody who has not said who he is can take
 * what is there for all.
 *
 *     addresses ─by key─▶ address ─▶ visitors in their handshake; those that have ended
 *         │    └by weight─▶  ├─────▶ lines: TLS handshakes (net/tls.h) and logins (authenticator.h)
 *         │                  │       that wait for their turn
 *         │                  └─────▶ regulars: who has logged in from there, the latest first
 *         └─▶ remembered: those where nobody is, the latest first
 *
 * An address is an IPv4 address, or the 64 bits of an IPv6 one that a site is given as a whole. It
 * is here while somebody from there is, or an answer to one who was is being computed; and
 * afterwards, for what is known of its logins: at most REMEMBERED_MAX are remembered, and the
 * oldest go first.
 *
 * Handshakes. An address may have so many connections that have not opened a vhost yet. One more
 * takes the place of the oldest: who is honest needs milliseconds, so that the oldest is not, and a
 * flood from one's own address keeps nobody out.
 *
 * Endings. A connection that was open and has ended may stay a while to read why. The limits on
 * open connections count it no more: it does nothing and has nothing, and who has one and connects
 * anew must not be refused because of it. But ending is as cheap as opening, so an address has
 * ADDRESS_ENDINGS_MAX of them: beyond it, one that opens takes the place of the one that ended
 * first. (One that opens, and not one that ends: those that an operator sends away, however many,
 * are no more than were open.)
 *
 * And when there is no room for anybody, one of either makes way: at the address that has most of
 * them, where those of n bits' number have weight n; first who has ended.
 *
 * Failed logins. Each makes the next one from there wait twice as long before anybody looks at it,
 * from DELAY_MIN_MS to the configured most; FORGET_MS after the last all is forgotten. It is the
 * login that waits, not its refusal: a guess costs its time whether the guesser awaits the answer
 * or not, and however many he makes at once.
 *
 * Regulars. That would shut out those who share their address with a guesser, behind a NAT or a
 * proxy. So a user who has logged in from there may do so again at once, whatever the neighbours
 * do. That tells a neighbour at once what the password is not: after MISSES_MAX that were wrong the
 * user is no regular there until the next login in turn. */
#ifndef ACCESS_ADDRESS_H
#define ACCESS_ADDRESS_H

#include "base/clock.h"
#include "base/map.h"
#include "base/turns.h"
#include "base/wheel.h"
#include "net/tls.h"

struct address;
struct regular;
TAILQ_HEAD(regular_list, regular);

enum { ADDRESS_ENDINGS_MAX = 100 };

enum visitor_state { VISITOR_IN_HANDSHAKE, VISITOR_OPEN, VISITOR_ENDING };

struct visitor {               /* a connection, which has it inside */
    TAILQ_ENTRY(visitor) link; /* in address->handshakes or ->endings, unless it is open */
    struct address *address;
    enum visitor_state state;
};
TAILQ_HEAD(visitor_list, visitor);

/* The authenticator's. */
struct login_line {
    struct turn_line line;   /* of questions; held while one of them has its turn, and in a pause */
    struct address *address; /* NULL: operators */
    struct timer pause;      /* set: it has questions, and the time for one has not come */
};

struct address {
    struct map_link by_key;
    TAILQ_ENTRY(address) link; /* in addresses->remembered, while nobody refers to it */
    struct addresses *addresses;
    uint32_t ref_count, open_count, handshake_count, ending_count;
    struct visitor_list handshakes, endings; /* the oldest first */
    TAILQ_ENTRY(address) by_weight;          /* in addresses->weights, while it has any of them */
    struct login_line logins;
    struct tls_line tls_handshakes;
    uint32_t failure_count; /* of logins, as long as they are remembered ... */
    uint64_t failed_ms;     /* ... from the last one on */
    struct regular_list regulars;
    uint32_t regular_count;
    char key[sizeof((struct endpoint){0}.host)];
};

TAILQ_HEAD(address_list, address);

struct addresses {
    const struct clock *clock;
    struct map by_key;
    size_t yielding_count;           /* in their handshakes or ending: those who can make way */
    struct address_list weights[33]; /* of 0 none is kept */
    struct address_list remembered;
    size_t remembered_count;
};

void addresses_init(struct addresses *addresses, const struct clock *clock);
void addresses_release(struct addresses *addresses); /* nobody refers to any */

struct address *address_ref(struct address *address);
void address_unref(struct address **address);

/* Somebody has connected, and is in the handshake; has opened a vhost; does nothing more (who has
 * never opened one stays where he is); is gone. */
void visitor_enter(struct visitor *visitor, struct addresses *addresses,
                   const struct endpoint *peer);
void visitor_open(struct visitor *visitor);
void visitor_end(struct visitor *visitor);
void visitor_leave(struct visitor *visitor);

/* Who makes way, at the address with about the most who can (half of it at least): the one that
 * ended first, or else the one that is longest in its handshake. NULL: nobody. */
struct visitor *addresses_oldest(const struct addresses *addresses);

/* A login in turn has failed, or was right. */
void address_login_failed(struct address *address);
void address_login_succeeded(struct address *address, struct slice user);

/* When the next login may have its turn: so many milliseconds after the last failure, at most
 * max_ms. 0: at any time. */
uint64_t address_login_ms(const struct address *address, uint64_t max_ms);

/* Whether a login is let in out of turn: its user is a regular, and the password is right. One that
 * is not is held against the user. */
bool address_is_regular(struct address *address, struct slice user, bool right);

#endif
