/* A data file that LMDB cannot be trusted with is read without it, and what is sound goes to a new
 * one.
 *
 *     open ──▶ a child walks the file ──sound──▶ go on
 *                  │ it died, or found what cannot be
 *                  ▼
 *     salvage: data.mdb ──rows whose checksums hold──▶ a new data.mdb;  the old one: data.mdb.damaged-TIME
 *
 * LMDB maps its file and believes it: a wild page number is a SIGSEGV, a file cut short a SIGBUS.
 * So each start first lets a child look at all that a start looks at, and at the branches of every
 * tree. Damage further down shows later, in one of the store's threads: then the process dies with
 * a line in the log and leaves a note (the file `salvage`), and the next start salvages without
 * asking.
 *
 * Salvage reads the file by read(2), page by page, and checks every number before it follows it
 * (pages.h):
 *   1. the trees, from the newer of the two meta pages, where a bit that has turned in a page's own
 *      head is turned back; and if anything of it was amiss,
 *   2. every leaf page that was not met and is not in the list of free ones.
 * A row counts when its checksum does; what was found first stays, of two rows of a queue the later
 * one. So an undamaged tree is taken as it is, and only around damage may what had been deleted
 * come back. Counts, and how much of each blob is alive, are made anew from what is there; ranges
 * that wait to be trimmed are. A sound file is salvaged whole. The new one is marked
 * as salvaged for good: even with nothing in it, it is not the store of a first start.
 *
 * The old file stays, and the new one may take as much: on a full disk nothing is changed, and each
 * start says what is missing. Nobody but the operator removes what salvages have left.
 *
 *     salvage.c   the rows      inspect.c   is it due?      guard.c   faults, and the note */
#ifndef STORE_SALVAGE_H
#define STORE_SALVAGE_H

#include "store/database.h"

#define SALVAGE_NOTE "salvage" /* the file */

/* Whether the file must be salvaged; says why in the log. Call it before any thread is started. */
bool salvage_is_due(const struct store_options *options);

/* The same for who has no broker to start, and the time to look at every page: 0; -EBADMSG: it must
 * be; or another -errno: it could not be seen. With a sentence why. */
int salvage_look(const struct store_options *options, char why[STORE_ERROR_SIZE]);

/* 0, or -errno with a sentence. Afterwards the directory holds a sound data file, unclean, and
 * *saved says what is in it; or that of another version, as it was. */
int salvage(const struct store_options *options, struct store_salvage *saved,
            char error[STORE_ERROR_SIZE]);

/* The next start is to salvage. From a signal handler, too. */
void salvage_leave_note(void);

/* Likewise when LMDB's code shows damage. Answers whether it does. */
bool salvage_if_damage(int rc);

/* From here on a fault of this thread leaves a note, in this directory, before it ends the process.
 * stage: a literal, for the log. */
void salvage_guard(const char *directory);
void salvage_stage(const char *stage);

#endif
