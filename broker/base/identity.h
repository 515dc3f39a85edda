/* Whose rights the process has. Root gives up its own for another user's before it touches what is
 * that user's: by a link, or a name that changes between two looks, he could have root do to any
 * file what was meant for his. There is no way back, which is tried. */
#ifndef BASE_IDENTITY_H
#define BASE_IDENTITY_H

#include <pwd.h>

#include "base/base.h"

/* Takes on the user's groups, group and id, for good; capabilities go with root's. Before the first
 * thread. 0 or -errno; then the process must end, as some of it may be done. */
int identity_become(const struct passwd *user);

/* Root becomes the owner of what the path leads to; where he has no name, in the one group that it
 * has. Others, and root where it is root's, stay what they are. 0 or -errno, as -ENOENT when there
 * is nothing. */
int identity_become_owner(const char *path);

#endif
