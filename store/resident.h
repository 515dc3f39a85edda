/* How much of the mapped data file counts as our memory. LMDB reads through a mapping of the file,
 * and every page that was looked at once counts as resident until the kernel needs room, however
 * long ago that was: after a backlog of ten million messages more than a gigabyte. It is the page
 * cache's anyway, where it stays; what is given back here is our claim to it, so that what an
 * operator sees, or a limit on the process counts, is what the process needs. */
#ifndef STORE_RESIDENT_H
#define STORE_RESIDENT_H

#include "store/database.h"

struct resident {
    struct slice mapping; /* size 0: it cannot be known, and nothing is given back */
    int fd;               /* of /proc/self/statm, or -1 */
    uint64_t next_ns;     /* when to look again, by the monotonic clock */
};

void resident_open(struct resident *resident, const struct database *database);
void resident_close(struct resident *resident);

/* Gives pages back if there are many; looks a few times a second at most. From a thread that holds
 * no pointer into the mapping. */
void resident_trim(struct resident *resident);

#endif
