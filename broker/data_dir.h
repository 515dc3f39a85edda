/* The data directory: there, and ours alone. The lock is one of fcntl(2) on the open file DIR/lock,
 * so it ends with the process, however that ends, and can be looked at without being taken. The
 * file holds our process id for the one who comes second, where there is room for it. */
#ifndef BROKER_DATA_DIR_H
#define BROKER_DATA_DIR_H

#include "base/base.h"

enum { DATA_DIR_ERROR_SIZE = 512 };

/* Who can write there can put in place of it what he likes. -EPERM with a sentence when the
 * directory is another user's, or others than its owner may write to it; 0 when not, or there is
 * none. */
int data_dir_check(const char *path, char error[DATA_DIR_ERROR_SIZE]);

/* Makes the directory (0700) if it is missing, though not its parents, and locks it. The descriptor
 * of the lock, to be closed when nothing in the directory is used any more; or -errno with a
 * sentence for the operator, -EWOULDBLOCK when another holds it. */
int data_dir_lock(const char *path, char error[DATA_DIR_ERROR_SIZE]);

/* Whether somebody holds the lock of the directory, which may be any: then the sentence says so. */
bool data_dir_is_used(const char *path, char error[DATA_DIR_ERROR_SIZE]);

#endif
