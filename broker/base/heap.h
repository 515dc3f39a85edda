/* A priority queue over links in the object: a pairing heap. It allocates nothing. Inserting is
 * O(1), removing any link O(log n) on average over all that is done.
 *
 *     struct line { struct heap_link link; ... };
 *     struct line *highest = container_of(lines.top, struct line, link);
 *
 * A link has a key at least as high as those below it. Its children are a list, of which it knows
 * the first:
 *
 *     top ─child─▶ a ─next─▶ b ─next─▶ c        a.back = top, b.back = a, c.back = b
 *                  └─child─▶ ... */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include "base/base.h"

struct heap_link {
    struct heap_link *child, *next, *back; /* valid only while linked */
    int64_t key;
};

struct heap {
    struct heap_link *top; /* of the highest key, any of them; NULL: it is empty */
};

void heap_insert(struct heap *heap, struct heap_link *link, int64_t key);
void heap_remove(struct heap *heap, struct heap_link *link); /* must be linked in this heap */

#endif
