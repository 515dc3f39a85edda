#include "base/pool.h"

void pool_release(struct pool *pool)
{
    for (size_t i = 0; i < POOL_CLASSES; i++) {
        struct pool_block *block;
        while ((block = pool->classes[i].first) != NULL) {
            pool->classes[i].first = block->next;
            free(block);
        }
        pool->classes[i].bytes = 0;
    }
}
