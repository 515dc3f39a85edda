/* Work that may be the end of who does it is done by a child. LMDB maps its file and believes it: a
 * wild page number is a SIGSEGV, a file cut short or a disk that cannot read a SIGBUS, a page of
 * another kind an assertion. So whoever reads a file that may be damaged waits beside it:
 *
 *     parent ──fork──▶ child: the work ──▶ its answer, or a fault: that is damage
 *        └─ waits; asks now and then whether to go on ──no──▶ kills it
 *
 * What a child dies of otherwise is none: memory that runs out is an abort, too, so an abort is
 * damage only when LMDB had an assertion that failed, which says so before.
 *
 * A child ends with its parent, whatever ends that. The two share one struct child. */
#ifndef STORE_CHILD_H
#define STORE_CHILD_H

#include "store/store.h"

struct child {
    const char *volatile stage; /* a literal: what the work is at */
    int result;                 /* what it answered */
    char error[STORE_ERROR_SIZE];
    int signal;      /* what the child died of; 0: it ended by itself */
    bool has_damage; /* it said so: child_note_damage */
    bool has_answered;
};

/* Runs in the child, which ends with it. Whole lines that it prints are not lost, however it ends. */
typedef int child_work(void *context, struct child *child);

/* 0: there was a child, and *child is what it left; -ECANCELED: waiting would rather go; -ECHILD: it
 * ended by itself and without an answer; or another -errno: there was none. */
int child_run(child_work *work, void *context, const struct store_waiting *waiting,
              struct child *child);

/* In the child: what it reads is damaged, and it aborts. Elsewhere it does nothing. */
void child_note_damage(void);

/* Whether it died of what damage makes a reader die of. */
bool child_has_faulted(const struct child *child);

/* "SIGBUS: reading messages" */
void child_describe(const struct child *child, char *text, size_t size);

#endif
