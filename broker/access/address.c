#include "access/address.h"

#include <arpa/inet.h>

#include "base/alloc.h"

enum { REMEMBERED_MAX = 4096, FORGET_MS = 60000, DELAY_MIN_MS = 100, DELAY_DOUBLINGS = 20 };

void addresses_init(struct addresses *addresses, const struct clock *clock)
{
    *addresses = (struct addresses){.clock = clock};
    TAILQ_INIT(&addresses->remembered);
}

static void address_free(struct address *address)
{
    assert(address->visitor_count == 0 && address->handshake_count == 0);
    map_remove(&address->addresses->by_key, &address->by_key);
    free(address);
}

static void recall(struct address *address)
{
    TAILQ_REMOVE(&address->addresses->remembered, address, link);
    address->addresses->remembered_count--;
}

static void forget_oldest(struct addresses *addresses)
{
    struct address *address = TAILQ_LAST(&addresses->remembered, address_list);

    recall(address);
    address_free(address);
}

void addresses_release(struct addresses *addresses)
{
    while (addresses->remembered_count > 0)
        forget_oldest(addresses);
    assert(addresses->by_key.count == 0);
    map_release(&addresses->by_key);
}

/* What has the first 64 bits of an IPv6 address in common is one, see address.h. */
static void print_key(char key[sizeof((struct endpoint){0}.host)], const char *host)
{
    struct in6_addr ipv6;

    snprintf(key, sizeof((struct endpoint){0}.host), "%s", host);
    if (inet_pton(AF_INET6, host, &ipv6) != 1)
        return;
    memset(ipv6.s6_addr + 8, 0, 8);
    inet_ntop(AF_INET6, &ipv6, key, sizeof((struct endpoint){0}.host));
}

static struct address *get_address(struct addresses *addresses, const struct endpoint *peer)
{
    struct address *address = xcalloc(1, sizeof(*address));

    print_key(address->key, peer->host);
    const struct slice key = slice_of_string(address->key);
    struct map_link *link = map_find(&addresses->by_key, key);
    if (link != NULL) {
        free(address);
        return container_of(link, struct address, by_key);
    }
    address->addresses = addresses;
    TAILQ_INIT(&address->handshakes);
    map_insert(&addresses->by_key, &address->by_key, key);
    return address;
}

static bool has_failed(const struct address *address)
{
    return address->failure_count > 0 &&
           address->addresses->clock->now_ms - address->failed_ms < FORGET_MS;
}

void visitor_enter(struct visitor *visitor, struct addresses *addresses,
                   const struct endpoint *peer)
{
    struct address *address = get_address(addresses, peer);

    if (address->visitor_count == 0 && address->failure_count > 0)
        recall(address);
    *visitor = (struct visitor){.address = address, .in_handshake = true};
    TAILQ_INSERT_TAIL(&address->handshakes, visitor, link);
    address->visitor_count++;
    address->handshake_count++;
}

void visitor_settle(struct visitor *visitor)
{
    struct address *address = visitor->address;

    if (!visitor->in_handshake)
        return;
    visitor->in_handshake = false;
    TAILQ_REMOVE(&address->handshakes, visitor, link);
    address->handshake_count--;
}

/* Those whose time is over go when they come to the end. */
static void remember(struct address *address)
{
    struct addresses *addresses = address->addresses;

    TAILQ_INSERT_HEAD(&addresses->remembered, address, link);
    if (++addresses->remembered_count > REMEMBERED_MAX)
        forget_oldest(addresses);
    while (addresses->remembered_count > 0 &&
           !has_failed(TAILQ_LAST(&addresses->remembered, address_list)))
        forget_oldest(addresses);
}

void visitor_leave(struct visitor *visitor)
{
    struct address *address = visitor->address;

    visitor_settle(visitor);
    visitor->address = NULL;
    assert(address->visitor_count > 0);
    if (--address->visitor_count > 0)
        return;
    if (has_failed(address))
        remember(address);
    else
        address_free(address);
}

struct visitor *address_oldest(const struct address *address)
{
    return TAILQ_FIRST(&address->handshakes);
}

uint64_t address_login_failed(struct address *address, uint64_t max_ms)
{
    const uint32_t before = has_failed(address) ? address->failure_count : 0;

    address->failure_count = min_of(before + 1, (uint32_t)DELAY_DOUBLINGS);
    address->failed_ms = address->addresses->clock->now_ms;
    return min_of((uint64_t)DELAY_MIN_MS << before, max_ms);
}
