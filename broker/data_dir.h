/* The data directory: there, and ours alone. The lock is flock(2) on DIR/lock, so it ends with the
 * process, however that ends; the file holds our process id for the one who comes second. */
#ifndef BROKER_DATA_DIR_H
#define BROKER_DATA_DIR_H

#include "base/base.h"

enum { DATA_DIR_ERROR_SIZE = 512 };

/* Makes the directory (0700) if it is missing, though not its parents, and locks it. The descriptor
 * of the lock, to be closed when nothing in the directory is used any more; or -errno with a
 * sentence for the operator, -EWOULDBLOCK when another holds it. */
int data_dir_lock(const char *path, char error[DATA_DIR_ERROR_SIZE]);

/* Whether somebody holds the lock of the directory, which may be any: then the sentence says so. */
bool data_dir_is_used(const char *path, char error[DATA_DIR_ERROR_SIZE]);

#endif
