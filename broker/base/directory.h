/* Directories, as those need them whose files must survive a power cut: a name that was made,
 * renamed or removed is durable once its directory is synced. */
#ifndef BASE_DIRECTORY_H
#define BASE_DIRECTORY_H

#include "base/base.h"

/* The directory that the file is in, as dirname(1) has it. To be freed. */
char *directory_of(const char *path);

/* fsync(2) of the directory that the file is in. 0 or -errno. */
int directory_sync_of(const char *path);

#endif
