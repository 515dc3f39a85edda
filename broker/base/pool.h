/* Blocks that come and go by the thousand in one turn of the loop: freed ones wait by size for the
 * next that asks, a few instructions away, where malloc and free take hundreds once more of them
 * are let go than a thread's own cache holds.
 *
 *     class    0        1         2         ...  15
 *     size     64       128       192       ...  1024     larger ones: malloc and free
 *     kept     at most POOL_CLASS_BYTES of each class; more are freed
 *
 * A pool belongs to one thread. Under AddressSanitizer it keeps nothing, so that what is used after
 * its end is found. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/alloc.h"

enum {
    POOL_CLASS_SIZE = 64,
    POOL_CLASSES = 16,
    POOL_CLASS_BYTES = 256 * 1024,
};

struct pool_block {
    struct pool_block *next;
};

struct pool { /* all zero: empty */
    struct {
        struct pool_block *first;
        size_t bytes;
    } classes[POOL_CLASSES];
};

#ifdef __SANITIZE_ADDRESS__
enum { POOL_KEEPS = 0 };
#else
enum { POOL_KEEPS = 1 };
#endif

/* At least size bytes, not zeroed, aligned for anything; size above 0. Goes back through pool_free
 * with the same size. Never NULL. */
static inline void *pool_alloc(struct pool *pool, size_t size)
{
    const size_t class = (size - 1) / POOL_CLASS_SIZE;

    if (unlikely(class >= POOL_CLASSES))
        return xmalloc(size);
    struct pool_block *block = pool->classes[class].first;
    if (unlikely(block == NULL))
        return xmalloc((class + 1) * POOL_CLASS_SIZE);
    pool->classes[class].first = block->next;
    pool->classes[class].bytes -= (class + 1) * POOL_CLASS_SIZE;
    return block;
}

static inline void pool_free(struct pool *pool, void *memory, size_t size)
{
    const size_t class = (size - 1) / POOL_CLASS_SIZE;

    if (unlikely(!POOL_KEEPS || class >= POOL_CLASSES ||
                 pool->classes[class].bytes >= POOL_CLASS_BYTES)) {
        free(memory);
        return;
    }
    struct pool_block *block = memory;
    block->next = pool->classes[class].first;
    pool->classes[class].first = block;
    pool->classes[class].bytes += (class + 1) * POOL_CLASS_SIZE;
}

/* Frees what waits. */
void pool_release(struct pool *pool);

#endif
