#include "access/address.h"

#include <arpa/inet.h>

#include "amqp/wire.h"
#include "base/alloc.h"

enum {
    REMEMBERED_MAX = 4096,
    FORGET_MS = 60000,
    DELAY_MIN_MS = 100,
    DELAY_DOUBLINGS = 20,
    REGULARS_MAX = 16, /* of an address */
    MISSES_MAX = 10,
};

struct regular {
    TAILQ_ENTRY(regular) link; /* in address->regulars */
    uint32_t miss_count;
    size_t name_size;
    uint8_t name[];
};

void addresses_init(struct addresses *addresses, const struct clock *clock)
{
    *addresses = (struct addresses){.clock = clock};
    TAILQ_INIT(&addresses->remembered);
    for (size_t i = 0; i < countof(addresses->weights); i++)
        TAILQ_INIT(&addresses->weights[i]);
}

static void forget_regular(struct address *address, struct regular *regular)
{
    TAILQ_REMOVE(&address->regulars, regular, link);
    address->regular_count--;
    free(regular);
}

static void address_free(struct address *address)
{
    assert(address->ref_count == 0 && address->open_count == 0);
    assert(address->handshake_count == 0 && address->ending_count == 0);
    assert(address->logins.line.count == 0 && address->tls_handshakes.waiting.count == 0 &&
           address->tls_handshakes.begun_count == 0);
    while (address->regular_count > 0)
        forget_regular(address, TAILQ_FIRST(&address->regulars));
    map_remove(&address->addresses->by_key, &address->by_key);
    free(address);
}

/* It has nobody, and something is known of it. */
static bool is_remembered(const struct address *address)
{
    return address->ref_count == 0 && (address->failure_count > 0 || address->regular_count > 0);
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
    address->logins.address = address;
    turn_line_init(&address->logins.line);
    tls_line_init(&address->tls_handshakes);
    TAILQ_INIT(&address->handshakes);
    TAILQ_INIT(&address->endings);
    TAILQ_INIT(&address->regulars);
    map_insert(&addresses->by_key, &address->by_key, key);
    return address;
}

static void remember(struct address *address)
{
    struct addresses *addresses = address->addresses;

    TAILQ_INSERT_HEAD(&addresses->remembered, address, link);
    if (++addresses->remembered_count > REMEMBERED_MAX)
        forget_oldest(addresses);
}

struct address *address_ref(struct address *address)
{
    if (is_remembered(address))
        recall(address);
    address->ref_count++;
    return address;
}

void address_unref(struct address **address)
{
    struct address *left = *address;

    *address = NULL;
    assert(left->ref_count > 0);
    if (--left->ref_count > 0)
        return;
    if (is_remembered(left))
        remember(left);
    else
        address_free(left);
}

/* ---- visitors ---- */

static unsigned weight_of(uint32_t count)
{
    return count == 0 ? 0 : 32 - (unsigned)__builtin_clz(count);
}

/* How many can make way. */
static void set_yielding(struct address *address, uint32_t handshake_count, uint32_t ending_count)
{
    struct address_list *weights = address->addresses->weights;
    const uint32_t count = address->handshake_count + address->ending_count;
    const uint32_t new_count = handshake_count + ending_count;
    const unsigned before = weight_of(count), after = weight_of(new_count);

    address->addresses->yielding_count += (size_t)new_count - count;
    address->handshake_count = handshake_count;
    address->ending_count = ending_count;
    if (before == after)
        return;
    if (before > 0)
        TAILQ_REMOVE(&weights[before], address, by_weight);
    if (after > 0)
        TAILQ_INSERT_TAIL(&weights[after], address, by_weight);
}

void visitor_enter(struct visitor *visitor, struct addresses *addresses,
                   const struct endpoint *peer)
{
    struct address *address = address_ref(get_address(addresses, peer));

    *visitor = (struct visitor){.address = address, .state = VISITOR_IN_HANDSHAKE};
    TAILQ_INSERT_TAIL(&address->handshakes, visitor, link);
    set_yielding(address, address->handshake_count + 1, address->ending_count);
}

static void end_handshake(struct visitor *visitor)
{
    struct address *address = visitor->address;

    TAILQ_REMOVE(&address->handshakes, visitor, link);
    set_yielding(address, address->handshake_count - 1, address->ending_count);
}

void visitor_open(struct visitor *visitor)
{
    assert(visitor->state == VISITOR_IN_HANDSHAKE);
    end_handshake(visitor);
    visitor->state = VISITOR_OPEN;
    visitor->address->open_count++;
}

void visitor_end(struct visitor *visitor)
{
    struct address *address = visitor->address;

    if (visitor->state != VISITOR_OPEN)
        return;
    visitor->state = VISITOR_ENDING;
    assert(address->open_count > 0);
    address->open_count--;
    TAILQ_INSERT_TAIL(&address->endings, visitor, link);
    set_yielding(address, address->handshake_count, address->ending_count + 1);
}

void visitor_leave(struct visitor *visitor)
{
    struct address *address = visitor->address;

    visitor_end(visitor);
    if (visitor->state == VISITOR_IN_HANDSHAKE) {
        end_handshake(visitor);
    } else {
        TAILQ_REMOVE(&address->endings, visitor, link);
        set_yielding(address, address->handshake_count, address->ending_count - 1);
    }
    address_unref(&visitor->address);
}

struct visitor *addresses_oldest(const struct addresses *addresses)
{
    for (size_t i = countof(addresses->weights); i-- > 0;) {
        const struct address *address = TAILQ_FIRST(&addresses->weights[i]);
        if (address == NULL)
            continue;
        return TAILQ_FIRST(address->ending_count > 0 ? &address->endings : &address->handshakes);
    }
    return NULL;
}

/* ---- logins ---- */

static bool has_failed(const struct address *address)
{
    return address->failure_count > 0 &&
           address->addresses->clock->now_ms - address->failed_ms < FORGET_MS;
}

void address_login_failed(struct address *address)
{
    const uint32_t before = has_failed(address) ? address->failure_count : 0;

    address->failure_count = min_of(before + 1, (uint32_t)DELAY_DOUBLINGS);
    address->failed_ms = address->addresses->clock->now_ms;
}

uint64_t address_login_ms(const struct address *address, uint64_t max_ms)
{
    if (!has_failed(address))
        return 0;
    return address->failed_ms +
           min_of((uint64_t)DELAY_MIN_MS << (address->failure_count - 1), max_ms);
}

static struct regular *find_regular(const struct address *address, struct slice user)
{
    struct regular *regular;

    TAILQ_FOREACH (regular, &address->regulars, link)
        if (slice_equal(slice_of(regular->name, regular->name_size), user))
            return regular;
    return NULL;
}

void address_login_succeeded(struct address *address, struct slice user)
{
    struct regular *regular = find_regular(address, user);

    if (regular != NULL)
        forget_regular(address, regular);
    else if (address->regular_count == REGULARS_MAX)
        forget_regular(address, TAILQ_LAST(&address->regulars, regular_list));
    regular = xcalloc(1, sizeof(*regular) + user.size);
    regular->name_size = user.size;
    amqp_put_bytes(regular->name, user);
    TAILQ_INSERT_HEAD(&address->regulars, regular, link);
    address->regular_count++;
}

bool address_is_regular(struct address *address, struct slice user, bool right)
{
    struct regular *regular = find_regular(address, user);

    if (regular == NULL)
        return false;
    if (!right && ++regular->miss_count == MISSES_MAX)
        forget_regular(address, regular);
    return right;
}
