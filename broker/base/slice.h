/* Borrowed bytes: a pointer and a size. Never NUL-terminated, never owned, alive as long as what it
 * points into. Bytes from outside travel as slices; who keeps them copies them. */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include "base/base.h"

struct slice {
    const uint8_t *data; /* may be NULL when size is 0 */
    size_t size;
};

/* A slice over a string literal. */
#define SLICE(literal) ((struct slice){(const uint8_t *)("" literal), sizeof(literal) - 1})

/* For printf's "%.*s". */
#define SLICE_ARG(s) (int)(s).size, (const char *)(s).data

static inline struct slice slice_of(const void *data, size_t size)
{
    return (struct slice){data, size};
}

static inline struct slice slice_of_string(const char *string)
{
    return (struct slice){(const uint8_t *)string, strlen(string)};
}

/* The bytes, as a number that is only good for comparing and hashing within this process. */
static inline uint64_t slice_load_8(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

/* Most names have 8 to 16 bytes: two words that may overlap, in place of a call. */
static inline bool slice_equal(struct slice a, struct slice b)
{
    if (a.size != b.size)
        return false;
    if (a.size >= 8 && a.size <= 16)
        return slice_load_8(a.data) == slice_load_8(b.data) &&
               slice_load_8(a.data + a.size - 8) == slice_load_8(b.data + b.size - 8);
    return a.size == 0 || memcmp(a.data, b.data, a.size) == 0;
}

/* Less than, equal to or greater than zero, byte by byte; a prefix comes first. */
int slice_compare(struct slice a, struct slice b);

bool slice_starts_with(struct slice s, struct slice prefix);

/* A keyed hash: equal bytes hash alike within one process; peers cannot predict it once
 * slice_hash_seed was called. */
uint64_t slice_hash(struct slice s);
void slice_hash_seed(uint64_t seed);

/* The same in every process, for choices that outlive this one; peers can predict it. */
uint64_t slice_hash_stable(struct slice s);

/* A copy on the heap, NUL-terminated so that it can also serve as a C string; the caller frees
 * it. */
char *slice_to_string(struct slice s);

/* Decimal digits only, no sign, no spaces; false when empty, not a number, or above max. */
bool slice_to_u64(struct slice s, uint64_t max, uint64_t *value);

#endif
