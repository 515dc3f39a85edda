/* Started as root, for which a broker has no use, it becomes the user of config key `user` before
 * it opens anything: a new data directory is the user's, groups, group and user are changed and all
 * capabilities given up, and the way back is tried, which must fail.
 *
 * What it reads later, certificates on SIGHUP for one, must be the user's to read; and a port below
 * 1024 needs a service manager that lends the right to it.
 *
 * Where no user is named root stays root, and its files are its own. Of root's capabilities it keeps
 * two then: to read certificates and keys whosever they are, and to listen on a port below 1024. It is
 * a part of the sandbox, and switched off with it. */
#ifndef BROKER_PRIVILEGES_H
#define BROKER_PRIVILEGES_H

#include "base/base.h"

enum { PRIVILEGES_ERROR_SIZE = 512 };

/* Whether there is such a user. 0, or -errno with a sentence for the operator; origin: where the
 * name is from, or empty. */
int privileges_check(const char *user, const char *origin, char error[PRIVILEGES_ERROR_SIZE]);

/* Before the first thread. Does nothing when the process is that user's already. 0, or -errno with
 * a sentence for the operator. */
int privileges_become(const char *user, const char *data_dir, char error[PRIVILEGES_ERROR_SIZE]);

/* As root; before the first thread, when the data directory is there. 0 or -errno. */
int privileges_shed(void);

/* The sentence for a data directory that this process may not make, reach or use, or a file in it:
 * the reason is EACCES, or whatever errno was. */
void privileges_explain(const char *data_dir, int reason, char error[PRIVILEGES_ERROR_SIZE]);

#endif
