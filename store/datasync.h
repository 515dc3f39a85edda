/* Whether a sync of the store has ever failed. LMDB tells a write that failed and a sync that failed by
 * the same code, and they are not the same: after the first the transaction never was; after the
 * second the kernel may have dropped the pages, and a next sync would succeed without them. */
#ifndef STORE_DATASYNC_H
#define STORE_DATASYNC_H

#include "base/base.h"

/* The file to note failures of, from now on: others, a backup's, are their makers' business. */
void datasync_watch(int fd);

bool datasync_has_failed(void); /* in this process */

/* fdatasync(2) of libc, or of who stands before it. Weak: a test may be the disk. */
int datasync_disk(int fd);

#endif
