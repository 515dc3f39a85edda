/* What is done to a store that no broker has open; the caller holds the directory's lock.
 *
 * The file is taken to be damaged until the contrary is seen: first comes the look that a broker
 * has before it starts (salvage.h), at every page; then a child does the work (child.h). So -EBADMSG
 * says that the store is damaged, and nothing else does. */
#ifndef STORE_OFFLINE_H
#define STORE_OFFLINE_H

#include "store/child.h"
#include "store/verify.h"

/* Before anything else: root becomes the directory's owner, for good, and so does nothing that he
 * could not, whatever he puts there meanwhile. Then looks whether there is a store in it. 0, or
 * -errno with a sentence, -ENOENT when there is none. */
int offline_begin(const char *directory, char error[STORE_ERROR_SIZE]);

/* Whether the file can be read as it is. 0; or with a sentence -EBADMSG: the next start of a broker
 * salvages it; or another -errno: it could not be seen. */
int offline_look(const char *directory, char error[STORE_ERROR_SIZE]);

/* Has a child read the store: what it answers, with its sentence; -EBADMSG with one of our own when
 * it dies of a fault. Who is told to go by a signal that ends the child goes by it, too; another
 * that does is an -errno, and not -EBADMSG: nothing is known then. */
int offline_run(child_work *work, void *context, const char *directory,
                char error[STORE_ERROR_SIZE]);

/* LMDB's code, of who only reads, as 0 or -errno: -EBADMSG when it shows damage. */
int offline_errno(int rc);

/* Verifies all of it in one snapshot. verify_begin has been called with whom to tell. 0 or -errno
 * with a sentence, where what could be read is in *verify all the same. What it reads can be the end
 * of it: see offline_run. */
int offline_verify(struct verify *verify, char error[STORE_ERROR_SIZE]);

/* Looks; then has a child write the store anew, without free pages, and put it in the place of the
 * old one, which stays until the new one is complete and synced. 0 or -errno with a sentence,
 * -ECANCELED when waiting would rather go: then nothing is left of the new one. */
int offline_compact(const char *directory, const struct store_waiting *waiting,
                    char error[STORE_ERROR_SIZE]);

/* Bytes of its data file; 0 when it cannot be seen. */
uint64_t offline_file_size(const char *directory);

/* What a program answers for such a result, as sysexits.h has it: EX_DATAERR for damage alone,
 * EX_NOINPUT where there is no store, EX_NOPERM, EX_TEMPFAIL while a broker uses it; EX_IOERR else.
 */
int offline_exit_status(int result);

#endif
