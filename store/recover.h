/* The walk at start-up. */
#ifndef STORE_RECOVER_H
#define STORE_RECOVER_H

#include "store/database.h"

/* Tells recovery all records, then all queues. Adds what could not be read to *damaged. 0 or
 * -errno. */
int recover(const struct database *database, const struct store_waiting *waiting,
            struct store_recovery *recovery, uint64_t *damaged);

#endif
