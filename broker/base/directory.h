/* Directories, as those need them whose files must survive a power cut and be found by others: a
 * name that was made, renamed or removed is durable once its directory is synced; and what root
 * makes in somebody else's directory is that user's, who could not open it otherwise. */
#ifndef BASE_DIRECTORY_H
#define BASE_DIRECTORY_H

#include "base/base.h"

/* The directory that the file is in, as dirname(1) has it. To be freed. */
char *directory_of(const char *path);

/* fsync(2) of the directory that the file is in. 0 or -errno. */
int directory_sync_of(const char *path);

/* Gives the file, or directory, `name` in the directory to the directory's owner and group, if we
 * are root and it is root's; does nothing otherwise, or when it is not there. 0 or -errno. */
int directory_give(const char *directory, const char *name);

#endif
