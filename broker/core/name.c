#include "core/name.h"

struct slice name_random(struct random *random, const char *prefix, char *bytes, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t length = strlen(prefix);
    uint8_t secret[17] = {0}; /* one octet of padding: the last character holds 2 bits */

    assert(length + NAME_RANDOM_SIZE <= size);
    memcpy(bytes, prefix, length);
    random_bytes(random, secret, 16);
    for (size_t bit = 0; bit < 6 * NAME_RANDOM_SIZE; bit += 6) {
        uint32_t two = (uint32_t)secret[bit / 8] << 8 | secret[bit / 8 + 1];
        bytes[length++] = digits[two >> (10 - bit % 8) & 63];
    }
    return slice_of(bytes, length);
}
