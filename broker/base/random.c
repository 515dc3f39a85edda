/* Two sources behind one struct. The kernel's is getrandom(2), asked anew each time: what comes
 * from it may be a secret, so nothing is kept in memory ahead of its use. The seeded one is
 * xoshiro256** (Blackman and Vigna), its state filled by splitmix64; it is for replaying a test and
 * predictable to anyone who sees its output. */
#include "base/random.h"

#include <sys/random.h>

#include "base/log.h"

void random_init(struct random *random)
{
    *random = (struct random){.seeded = false};
}

void random_init_seeded(struct random *random, uint64_t seed)
{
    random->seeded = true;
    for (size_t i = 0; i < countof(random->state); i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        random->state[i] = z ^ z >> 31;
    }
}

static uint64_t rotate_left(uint64_t word, unsigned count)
{
    return word << count | word >> (64 - count);
}

static uint64_t next_seeded(uint64_t state[4])
{
    const uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    const uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

static void kernel_bytes(uint8_t *bytes, size_t size)
{
    while (size > 0) {
        const ssize_t got = getrandom(bytes, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            log_critical("the kernel gives no random bytes: %s", strerror(errno));
            abort();
        }
        bytes += got;
        size -= (size_t)got;
    }
}

static void seeded_bytes(struct random *random, uint8_t *bytes, size_t size)
{
    while (size > 0) {
        const uint64_t word = next_seeded(random->state);
        const size_t part = min_of(size, sizeof word);
        memcpy(bytes, &word, part);
        bytes += part;
        size -= part;
    }
}

void random_bytes(struct random *random, void *bytes, size_t size)
{
    if (random->seeded)
        seeded_bytes(random, bytes, size);
    else
        kernel_bytes(bytes, size);
}

uint64_t random_u64(struct random *random)
{
    uint64_t word;
    random_bytes(random, &word, sizeof word);
    return word;
}

/* The high half of word * bound is below bound and nearly even; the words whose low half falls in
 * the first 2^64 mod bound are what makes some results come once too often, so they are drawn again
 * (Lemire 2019). */
uint64_t random_below(struct random *random, uint64_t bound)
{
    assert(bound > 0);
    const uint64_t uneven = -bound % bound;
    unsigned __int128 product;
    do
        product = (unsigned __int128)random_u64(random) * bound;
    while ((uint64_t)product < uneven);
    return (uint64_t)(product >> 64);
}
