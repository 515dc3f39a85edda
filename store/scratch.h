/* Bytes that need not outlive the process: written, read back, let go, by a thread of their own.
 * What queues give up of memory and the store does not have goes here.
 *
 *     owner ── write, read, close ──▶ thread ──▶ scratch_process: on_done
 *
 *     file 0  │▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│  nothing of it is wanted any more: closed, and its space with it
 *     file 1  │▒▒▒▒░░░░░░▒▒░░░░│
 *     file 2  │░░░░░░░ ─▶ write│  the current one, up to SCRATCH_FILE_SIZE
 *
 * Files have no names, so that no crash leaves any behind, and are never synced. The owner gives
 * out places, one behind the other; space comes back a file at a time.
 *
 * A failed write is an answer, not an end: the owner keeps its bytes and may try again. */
#ifndef STORE_SCRATCH_H
#define STORE_SCRATCH_H

#include <sys/uio.h>

#include "base/mailbox.h"

struct scratch;
struct scratch_file;

enum { SCRATCH_FILE_SIZE = 64 * 1024 * 1024, SCRATCH_ERROR_SIZE = 256 };

struct scratch_place {
    struct scratch_file *file; /* NULL: nowhere */
    uint64_t offset;
    size_t size;
};

enum scratch_kind { SCRATCH_WRITE, SCRATCH_READ, SCRATCH_CLOSE, SCRATCH_STOP };

struct scratch_order { /* what goes to the thread */
    struct letter letter;
    enum scratch_kind kind;
};

/* A write or a read: the owner's until it is handed over, and again from on_done. What iov points
 * to must stay as it is meanwhile. */
struct scratch_job {
    struct scratch_place place; /* of a write: set by scratch_write */
    struct iovec *iov;          /* as many octets as the place has; in the end what is left to do */
    int iov_count;
    int error; /* 0 or -errno, in on_done; -EBADMSG: what was written is not there any more */
    void (*on_done)(struct scratch_job *job);
    struct scratch_order order;
};

/* In this directory; NULL: in memory and without a thread, for tests: a job is done at the next
 * scratch_process. 0, or -errno with a sentence. */
int scratch_open(const char *directory, struct scratch **scratch, char error[SCRATCH_ERROR_SIZE]);

/* No job may be under way. */
void scratch_close(struct scratch **scratch);

int scratch_fd(const struct scratch *scratch); /* readable when scratch_process has something */
void scratch_process(struct scratch *scratch); /* calls on_done */

void scratch_write(struct scratch *scratch, struct scratch_job *job, size_t size);
void scratch_read(struct scratch *scratch, struct scratch_job *job);

/* Nobody wants it any more. place->file becomes NULL. */
void scratch_drop(struct scratch_place *place);

/* The next jobs of this kind, writes or reads, fail, until it is 0 again. For tests. */
void scratch_set_error(struct scratch *scratch, enum scratch_kind kind, int error);

#endif
