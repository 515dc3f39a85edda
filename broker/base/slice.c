/* Work on borrowed bytes. The hash is the part with a design:
 *
 *     words    a, b: 8 bytes each, little work for short keys, never a byte read beyond the key
 *
 *              size 0          a = 0                b = 0
 *              size 1 to 3     a = first, middle and last byte    b = 0
 *              size 4 to 7     a = first 4          b = last 4      (they may overlap)
 *              size 8 to 16    a = first 8          b = last 8
 *              longer          16 bytes at a time from the front, then the last 16
 *
 *     mixing   hash = (a ^ key[0]) * (b ^ hash), 128 bits wide, the halves joined by xor
 *
 * Each factor holds a part of the key and one of the secret, so a peer cannot arrange for one of
 * them to be zero, which is how one makes the well-known unkeyed relatives collide. The size goes
 * in first and last: overlapping reads of keys of different sizes never meet. */
#include "base/slice.h"

#include "base/alloc.h"

/* Until slice_hash_seed is called any digits will do: these are of the roots of 2, 3 and 5. */
static uint64_t hash_key[3] = {0x6a09e667f3bcc909, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b};

static inline uint64_t load_4(const uint8_t *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t slice_hash(struct slice s)
{
    const uint8_t *bytes = s.data;
    const size_t size = s.size;
    uint64_t hash = hash_key[1] ^ size;
    uint64_t a = 0, b = 0;

    if (size > 16) {
        size_t left = size;
        for (; left > 16; left -= 16, bytes += 16)
            hash = fold(slice_load_8(bytes) ^ hash_key[0], slice_load_8(bytes + 8) ^ hash);
        a = slice_load_8(bytes + left - 16);
        b = slice_load_8(bytes + left - 8);
    } else if (size >= 8) {
        a = slice_load_8(bytes);
        b = slice_load_8(bytes + size - 8);
    } else if (size >= 4) {
        a = load_4(bytes);
        b = load_4(bytes + size - 4);
    } else if (size > 0) {
        a = (uint64_t)bytes[0] << 16 | (uint64_t)bytes[size / 2] << 8 | bytes[size - 1];
    }
    hash = fold(a ^ hash_key[0], b ^ hash);
    return fold(hash ^ size, hash_key[2]);
}

void slice_hash_seed(uint64_t seed)
{
    for (size_t i = 0; i < countof(hash_key); i++) { /* splitmix64 */
        uint64_t z = seed += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        hash_key[i] = (z ^ z >> 31) | 1; /* as a factor it must not be even, let alone zero */
    }
}

/* FNV-1a, and the last steps of splitmix64, which spread it over all bits. */
uint64_t slice_hash_stable(struct slice s)
{
    uint64_t z = 0xcbf29ce484222325;
    for (size_t i = 0; i < s.size; i++)
        z = (z ^ s.data[i]) * 0x100000001b3;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

int slice_compare(struct slice a, struct slice b)
{
    const size_t shorter = min_of(a.size, b.size);
    const int order = shorter == 0 ? 0 : memcmp(a.data, b.data, shorter);
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

bool slice_starts_with(struct slice s, struct slice prefix)
{
    return s.size >= prefix.size && slice_equal(slice_of(s.data, prefix.size), prefix);
}

char *slice_to_string(struct slice s)
{
    char *string = xmalloc(size_add(s.size, 1));
    if (s.size > 0)
        memcpy(string, s.data, s.size);
    string[s.size] = '\0';
    return string;
}

bool slice_to_u64(struct slice s, uint64_t max, uint64_t *value)
{
    uint64_t number = 0;
    for (size_t i = 0; i < s.size; i++) {
        const uint64_t digit = (uint64_t)s.data[i] - '0';
        if (digit > 9 || digit > max || number > (max - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *value = number;
    return s.size > 0;
}
