/* A growing array of one type: the store's batches are made of these, because adding to one costs a
 * compare and a store, and emptying one keeps its memory for the next batch.
 *
 *     ARRAY_OF(struct batch_entry) entries;
 *     struct batch_entry *entry = array_add(&batch->entries);
 */
#ifndef STORE_ARRAY_H
#define STORE_ARRAY_H

#include "base/alloc.h"

enum { ARRAY_FIRST = 64, ARRAY_KEEP = 1 << 16 };

#define ARRAY_OF(type)                                                                             \
    struct {                                                                                       \
        type *items;                                                                               \
        uint32_t count, capacity;                                                                  \
    }

/* A pointer to one more item at the end, not initialised; valid until the next array_add. */
#define array_add(array)                                                                           \
    ((array)->count == (array)->capacity                                                           \
         ? (void)((array)->items =                                                                 \
                      array_grow((array)->items, &(array)->capacity, sizeof *(array)->items))      \
         : (void)0,                                                                                \
     &(array)->items[(array)->count++])

/* Empties it; what a burst made it grow to is given back. */
#define array_clear(array)                                                                         \
    do {                                                                                           \
        if ((array)->capacity > ARRAY_KEEP)                                                        \
            array_release(array);                                                                  \
        (array)->count = 0;                                                                        \
    } while (0)

#define array_release(array)                                                                       \
    do {                                                                                           \
        free((array)->items);                                                                      \
        (array)->items = NULL;                                                                     \
        (array)->count = 0;                                                                        \
        (array)->capacity = 0;                                                                     \
    } while (0)

static inline void *array_grow(void *items, uint32_t *capacity, size_t size)
{
    assert(*capacity <= UINT32_MAX / 2);
    *capacity = *capacity == 0 ? ARRAY_FIRST : *capacity * 2;
    return xrealloc(items, *capacity, size);
}

#endif
