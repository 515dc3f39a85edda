/* Allocations that end together: freed at once, never one by one. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/slice.h"

struct arena_block;

struct arena {
    struct arena_block *blocks; /* newest first */
    uint8_t *next;              /* free bytes of the newest block */
    size_t left;
};

#define ARENA_EMPTY ((struct arena){0})

void arena_release(struct arena *arena);             /* frees all; usable again */
void *arena_alloc(struct arena *arena, size_t size); /* aligned for any object; not zeroed */
struct slice arena_copy(struct arena *arena, struct slice bytes);
char *arena_string(struct arena *arena, struct slice bytes); /* NUL-terminated copy */

#endif
