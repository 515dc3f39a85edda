/* Puts a batch's operations in the order of the keys they touch, so that the committer walks each
 * tree once, forwards. */
#ifndef STORE_SORT_H
#define STORE_SORT_H

#include "store/array.h"

struct sort_item {
    uint64_t major, minor;
    uint32_t value; /* the caller's: an index, a count */
};

struct sort_list {
    ARRAY_OF(struct sort_item) list;
    struct sort_item *spare; /* as large as the list was when it was last sorted */
    uint32_t spare_capacity;
};

void sort_release(struct sort_list *sort);

static inline void sort_add(struct sort_list *sort, uint64_t major, uint64_t minor, uint32_t value)
{
    *array_add(&sort->list) = (struct sort_item){major, minor, value};
}

/* By major, then minor; equal ones stay in the order they were added. What is in order already
 * costs one look. */
void sort_run(struct sort_list *sort);

#endif
