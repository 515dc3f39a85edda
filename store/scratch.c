#include "store/scratch.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/thread.h"

struct scratch_file {
    struct scratch *scratch;
    uint64_t end, wanted;       /* octets given out, and those not dropped yet; the owner's */
    int fd;                     /* the thread's; -1: not yet open */
    struct scratch_order order; /* to close it */
};

struct scratch {
    char *directory; /* NULL: in memory, no thread */
    struct mailbox inbox, done;
    pthread_t thread;
    struct scratch_order stop;

    struct scratch_file *current; /* the owner's; NULL: none yet */
    int fails[2];                 /* writes, reads: -errno for all of them, or 0 */
};

/* ---- the thread ---- */

static int open_file(struct scratch_file *file)
{
    const char *directory = file->scratch->directory;

    if (file->fd >= 0)
        return 0;
    file->fd = directory == NULL ? memfd_create("scratch", MFD_CLOEXEC)
                                 : open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return file->fd >= 0 ? 0 : -errno;
}

/* What is left of iov after so many octets. */
static void advance(struct iovec **iov, int *count, size_t octets)
{
    while (*count > 0 && octets >= (*iov)->iov_len) {
        octets -= (*iov)->iov_len;
        ++*iov;
        --*count;
    }
    if (*count > 0) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + octets;
        (*iov)->iov_len -= octets;
    }
}

static int transfer(const struct scratch_job *job)
{
    struct iovec *iov = job->iov;
    uint64_t offset = job->place.offset;
    int count = job->iov_count;

    while (count > 0) {
        const int now = min_of(count, IOV_MAX);
        const ssize_t n = job->order.kind == SCRATCH_WRITE
                              ? pwritev(job->place.file->fd, iov, now, (off_t)offset)
                              : preadv(job->place.file->fd, iov, now, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : job->order.kind == SCRATCH_READ ? -EBADMSG : -EIO;
        offset += (uint64_t)n;
        advance(&iov, &count, (size_t)n);
    }
    return 0;
}

static void perform(struct scratch *scratch, struct scratch_job *job)
{
    job->error = job->order.kind == SCRATCH_WRITE ? open_file(job->place.file) : 0;
    if (job->error == 0)
        job->error = transfer(job);
    mailbox_post(&scratch->done, &job->order.letter);
}

static void close_file(struct scratch_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file);
}

/* false: that was the last order. */
static bool obey(struct scratch *scratch, struct scratch_order *order)
{
    if (order->kind == SCRATCH_STOP)
        return false;
    if (order->kind == SCRATCH_CLOSE)
        close_file(container_of(order, struct scratch_file, order));
    else
        perform(scratch, container_of(order, struct scratch_job, order));
    return true;
}

static void *run(void *argument)
{
    struct scratch *scratch = argument;
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);

    for (bool goes_on = true; goes_on;) {
        mailbox_wait(&scratch->inbox);
        mailbox_take(&scratch->inbox, &letters);
        while (!STAILQ_EMPTY(&letters)) {
            struct letter *letter = STAILQ_FIRST(&letters);
            STAILQ_REMOVE_HEAD(&letters, link);
            goes_on = obey(scratch, container_of(letter, struct scratch_order, letter));
        }
    }
    return NULL;
}

/* ---- the owner ---- */

static void give(struct scratch *scratch, struct scratch_order *order, enum scratch_kind kind)
{
    order->kind = kind;
    if (scratch->directory != NULL)
        mailbox_post(&scratch->inbox, &order->letter);
    else
        obey(scratch, order);
}

static void close_if_unwanted(struct scratch_file *file)
{
    if (file->wanted == 0 && file != file->scratch->current)
        give(file->scratch, &file->order, SCRATCH_CLOSE);
}

/* The file that takes so many octets more. */
static struct scratch_file *file_for(struct scratch *scratch, size_t size)
{
    struct scratch_file *full = scratch->current;

    if (full != NULL && (full->end == 0 || full->end + size <= SCRATCH_FILE_SIZE))
        return full;
    scratch->current = xcalloc(1, sizeof(*scratch->current));
    scratch->current->scratch = scratch;
    scratch->current->fd = -1;
    if (full != NULL)
        close_if_unwanted(full);
    return scratch->current;
}

static void order(struct scratch *scratch, struct scratch_job *job, enum scratch_kind kind)
{
    job->error = scratch->fails[kind];
    if (job->error != 0)
        mailbox_post(&scratch->done, &job->order.letter);
    else
        give(scratch, &job->order, kind);
}

void scratch_write(struct scratch *scratch, struct scratch_job *job, size_t size)
{
    struct scratch_file *file = file_for(scratch, size);

    job->place = (struct scratch_place){file, file->end, size};
    file->end += size;
    file->wanted += size;
    order(scratch, job, SCRATCH_WRITE);
}

void scratch_read(struct scratch *scratch, struct scratch_job *job)
{
    order(scratch, job, SCRATCH_READ);
}

void scratch_drop(struct scratch_place *place)
{
    struct scratch_file *file = place->file;

    assert(file->wanted >= place->size);
    file->wanted -= place->size;
    place->file = NULL;
    close_if_unwanted(file);
}

int scratch_fd(const struct scratch *scratch)
{
    return scratch->done.fd;
}

void scratch_process(struct scratch *scratch)
{
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);

    mailbox_take(&scratch->done, &letters);
    while (!STAILQ_EMPTY(&letters)) {
        struct letter *letter = STAILQ_FIRST(&letters);
        STAILQ_REMOVE_HEAD(&letters, link);
        struct scratch_job *job = container_of(container_of(letter, struct scratch_order, letter),
                                               struct scratch_job, order);
        job->on_done(job);
    }
}

void scratch_set_error(struct scratch *scratch, enum scratch_kind kind, int error)
{
    assert(kind == SCRATCH_WRITE || kind == SCRATCH_READ);
    scratch->fails[kind] = -error;
}

/* ---- life ---- */

static int start(struct scratch *scratch)
{
    int rc = mailbox_open(&scratch->inbox);

    if (rc != 0)
        return rc;
    rc = mailbox_open(&scratch->done);
    if (rc == 0 && scratch->directory != NULL) {
        rc = thread_start(&scratch->thread, run, scratch);
        if (rc != 0)
            mailbox_close(&scratch->done);
    }
    if (rc != 0)
        mailbox_close(&scratch->inbox);
    return rc;
}

int scratch_open(const char *directory, struct scratch **scratch, char error[SCRATCH_ERROR_SIZE])
{
    struct scratch *opened = xcalloc(1, sizeof(*opened));

    opened->directory = directory == NULL ? NULL : xasprintf("%s", directory);
    const int rc = start(opened);
    if (rc != 0) {
        snprintf(error, SCRATCH_ERROR_SIZE, "the thread that pages out: %s", strerror(-rc));
        free(opened->directory);
        free(opened);
        return rc;
    }
    *scratch = opened;
    return 0;
}

void scratch_close(struct scratch **scratch)
{
    struct scratch *gone = *scratch;

    *scratch = NULL;
    if (gone->directory != NULL) {
        give(gone, &gone->stop, SCRATCH_STOP);
        pthread_join(gone->thread, NULL);
    }
    if (gone->current != NULL)
        close_file(gone->current);
    mailbox_close(&gone->inbox);
    mailbox_close(&gone->done);
    free(gone->directory);
    free(gone);
}
