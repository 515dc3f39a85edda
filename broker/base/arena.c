/* A chain of blocks, filled from the front. The first block of the chain is the one being filled:
 *
 *     blocks -> [ header | used .... | left ] -> [ header | full ] -> [ header | one large object ]
 *                                    ^ next
 *
 * Blocks double in size from BLOCK_MIN to BLOCK_MAX, so a small arena stays small. An object too
 * large to share a block gets one of its own, linked behind the first, so that the rest of the
 * first is not lost. */
#include "base/arena.h"

#include <stdalign.h>

#include "base/alloc.h"

enum { BLOCK_MIN = 256, BLOCK_MAX = 16384 };

struct arena_block {
    struct arena_block *next;
    size_t size; /* of bytes */
    alignas(max_align_t) uint8_t bytes[];
};

static struct arena_block *block_new(size_t size)
{
    struct arena_block *block = xmalloc(size_add(sizeof *block, size));
    block->size = size;
    return block;
}

/* The size that the next shared block would have. */
static size_t next_block_size(const struct arena *arena)
{
    if (arena->blocks == NULL)
        return BLOCK_MIN;
    return max_of(BLOCK_MIN, min_of(size_mul(arena->blocks->size, 2), BLOCK_MAX));
}

static void *alloc_own_block(struct arena *arena, size_t size)
{
    struct arena_block *block = block_new(size);
    struct arena_block **where = arena->blocks == NULL ? &arena->blocks : &arena->blocks->next;
    block->next = *where;
    *where = block;
    return block->bytes;
}

static void *alloc_aligned(struct arena *arena, size_t size, size_t alignment)
{
    const size_t padding = -(uintptr_t)arena->next & (alignment - 1);
    if (unlikely(arena->left < padding || arena->left - padding < size || arena->next == NULL)) {
        const size_t block_size = next_block_size(arena);
        if (size > block_size / 2)
            return alloc_own_block(arena, size);
        struct arena_block *block = block_new(block_size);
        block->next = arena->blocks;
        arena->blocks = block;
        arena->next = block->bytes + size;
        arena->left = block_size - size;
        return block->bytes;
    }
    uint8_t *object = arena->next + padding;
    arena->next = object + size;
    arena->left -= padding + size;
    return object;
}

void arena_release(struct arena *arena)
{
    struct arena_block *next;
    for (struct arena_block *block = arena->blocks; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
    *arena = ARENA_EMPTY;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    return alloc_aligned(arena, size, alignof(max_align_t));
}

struct slice arena_copy(struct arena *arena, struct slice bytes)
{
    if (bytes.size == 0)
        return (struct slice){0};
    return slice_of(memcpy(alloc_aligned(arena, bytes.size, 1), bytes.data, bytes.size),
                    bytes.size);
}

char *arena_string(struct arena *arena, struct slice bytes)
{
    char *string = alloc_aligned(arena, size_add(bytes.size, 1), 1);
    if (bytes.size > 0)
        memcpy(string, bytes.data, bytes.size);
    string[bytes.size] = '\0';
    return string;
}
