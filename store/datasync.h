/* Whether a sync of the store has ever failed. LMDB tells a write that failed and a sync that
 * failed by the same code, and they are not the same: after the first the transaction never was;
 * after the second the kernel may have dropped the pages, and a next sync would succeed without
 * them.
 *
 * Nothing of LMDB's own says which it was. It syncs within mdb_txn_commit, between the pages and
 * the meta page that makes them count, and has no hook there; and were it told not to (MDB_NOSYNC),
 * a sync of ours would come when the meta page is on its way already. So its call of fdatasync(2)
 * is where to look: the process has one of its own, which stands before libc's. */
#ifndef STORE_DATASYNC_H
#define STORE_DATASYNC_H

#include "base/base.h"

/* The file to note failures of, from now on: others, a backup's, are their makers' business. */
void datasync_watch(int fd);

bool datasync_has_failed(void); /* in this process */

/* fdatasync(2) of libc, or of who stands before it. Weak: a test may be the disk. */
int datasync_disk(int fd);

#endif
