/* A consistent copy of a store as one file, which is a store again when it stands in a directory as
 * data.mdb. The same makes a smaller file of one that has grown.
 *
 * A read transaction keeps every page that is freed after it began, so that a copy made in one
 * would let the file of a busy store grow by all that is written meanwhile. But a blob never
 * changes once it is written, and their numbers ascend:
 *
 *     blobs up to the last of now      in small pieces, each in a snapshot of its own; again, until
 *                                      few are new
 *     the few, and everything else     in one last snapshot; blobs that are gone by then are taken
 *                                      out of the copy
 *
 * What is copied is the state of the last snapshot. It lasts as long as it takes to copy the index,
 * a few dozen bytes a message. */
#ifndef STORE_COPY_H
#define STORE_COPY_H

#include <stdatomic.h>

#include "store/database.h"

struct copy_control {
    atomic_bool cancelled;       /* set by others: stop soon, -ECANCELED */
    atomic_uint_least64_t bytes; /* copied so far */
    uint32_t idle_percent; /* of the time to sleep between pieces, 0 to 99: so that others get on */
};

/* Writes the copy to path, in place of what is there, whose owner and mode it gets, and syncs it:
 * it is there whole, or what was there still is. 0, or -errno with a sentence. */
int copy_database(const struct database *database, const char *path, struct copy_control *control,
                  char error[STORE_ERROR_SIZE]);

/* Removes a copy, and what an attempt that was cut short has left of one. */
void copy_remove(const char *path);
void copy_remove_part(const char *path); /* the latter alone */

#endif
