/* What is done to a store that no broker has open; the caller holds the directory's lock. */
#ifndef STORE_OFFLINE_H
#define STORE_OFFLINE_H

#include "store/verify.h"

/* Before anything else: root becomes the directory's owner, for good, and so does nothing that he
 * could not, whatever he puts there meanwhile. Then looks whether there is a store in it. 0, or
 * -errno with a sentence, -ENOENT when there is none. */
int offline_begin(const char *directory, char error[STORE_ERROR_SIZE]);

/* Verifies all of it in one snapshot. verify_begin has been called with whom to tell. 0 or -errno
 * with a sentence, where what could be read is in *verify all the same. */
int offline_verify(struct verify *verify, char error[STORE_ERROR_SIZE]);

/* Writes the store anew, without free pages, and puts it in the place of the old one, which stays
 * until the new one is complete and synced. 0 or -errno with a sentence. */
int offline_compact(const char *directory, char error[STORE_ERROR_SIZE]);

/* Bytes of its data file; 0 when it cannot be seen. */
uint64_t offline_file_size(const char *directory);

#endif
