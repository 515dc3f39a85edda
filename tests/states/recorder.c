/* See recorder.h. A file is known by its inode, its name by /proc/self/fd at its first call:
 * opening needs not be seen. */
#include "tests/states/recorder.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fault.h"
#include "store/datasync.h"

enum { FILES_MAX = 64 };

static struct {
    pthread_mutex_t lock;
    _Atomic bool on;
    char directory[128];
    struct call_log *log;
    ino_t files[FILES_MAX];
    uint32_t file_count;
} recorder = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The name below the directory; NULL: it is elsewhere, or a lock file. */
static const char *name_below(const char *path)
{
    const size_t size = strlen(recorder.directory);
    const char *suffix = strrchr(path, '/');

    if (strncmp(path, recorder.directory, size) != 0 || path[size] != '/' ||
        strcmp(suffix, "/lock.mdb") == 0 || strcmp(suffix, "/lock") == 0)
        return NULL;
    return path + size + 1;
}

static struct call *add(enum call_kind kind, uint32_t file, uint64_t offset)
{
    struct call *call = array_add(&recorder.log->calls);

    *call = (struct call){.kind = kind, .file = file, .offset = offset};
    return call;
}

static void set_name(char to[CALL_NAME_SIZE], const char *name)
{
    assert(strlen(name) < CALL_NAME_SIZE);
    strcpy(to, name);
}

/* A file not seen before has just been created. */
static uint32_t file_number(ino_t inode, const char *name)
{
    for (uint32_t i = 0; i < recorder.file_count; i++)
        if (recorder.files[i] == inode)
            return i;
    assert(recorder.file_count < FILES_MAX);
    recorder.files[recorder.file_count] = inode;
    set_name(add(CALL_CREATE, recorder.file_count, 0)->name, name);
    return recorder.file_count++;
}

static void add_write(uint32_t file, uint64_t offset, const struct iovec *pieces, int count)
{
    struct call *call = add(CALL_WRITE, file, offset);
    size_t at = 0;

    for (int i = 0; i < count; i++)
        call->size += pieces[i].iov_len;
    call->bytes = xmalloc(call->size + 1);
    for (int i = 0; i < count; at += pieces[i++].iov_len)
        memcpy(call->bytes + at, pieces[i].iov_base, pieces[i].iov_len);
}

/* What a call on fd is about; false: nothing to log. With the lock held. */
struct about {
    bool is_directory;
    uint32_t file;
};

static bool look_at(int fd, struct about *about)
{
    char link[48], path[256];
    struct stat status;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0 || fstat(fd, &status) != 0)
        return false;
    path[size] = '\0';
    about->is_directory = S_ISDIR(status.st_mode);
    if (about->is_directory)
        return strncmp(path, recorder.directory, strlen(recorder.directory)) == 0;
    const char *name = S_ISREG(status.st_mode) ? name_below(path) : NULL;
    if (name != NULL)
        about->file = file_number(status.st_ino, name);
    return name != NULL;
}

/* Answers whether it was logged, and where, for log_through. */
static bool log_write_call(int fd, const struct iovec *pieces, int count, off_t offset,
                           uint32_t *index)
{
    struct about about;
    bool logged = false;

    if (!recorder.on)
        return false;
    pthread_mutex_lock(&recorder.lock);
    if (recorder.on && look_at(fd, &about) && !about.is_directory) {
        add_write(about.file, (uint64_t)offset, pieces, count);
        *index = recorder.log->calls.count - 1;
        logged = true;
    }
    pthread_mutex_unlock(&recorder.lock);
    return logged;
}

static void log_through(int fd, bool logged, uint32_t index)
{
    if (!logged || !(fcntl(fd, F_GETFL) & O_DSYNC))
        return;
    pthread_mutex_lock(&recorder.lock);
    add(CALL_THROUGH, recorder.log->calls.items[index].file, index);
    pthread_mutex_unlock(&recorder.lock);
}

static void log_call(int fd, enum call_kind kind, uint64_t offset)
{
    struct about about;

    if (!recorder.on)
        return;
    pthread_mutex_lock(&recorder.lock);
    if (recorder.on && look_at(fd, &about))
        add(about.is_directory ? CALL_SYNC_NAMES : kind, about.is_directory ? 0 : about.file,
            offset);
    pthread_mutex_unlock(&recorder.lock);
}

/* Below the directory that fd is of; with the lock held. */
static void set_name_at(char to[CALL_NAME_SIZE], int fd, const char *name)
{
    char link[48], path[256];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, path, sizeof path - 1);
    assert(size > 0);
    snprintf(path + size, sizeof path - (size_t)size, "/%s", name);
    set_name(to, name_below(path));
}

static void log_naming(enum call_kind kind, int from_fd, const char *from, int to_fd,
                       const char *to)
{
    struct about about;

    if (!recorder.on)
        return;
    pthread_mutex_lock(&recorder.lock);
    if (recorder.on && look_at(from_fd, &about) && about.is_directory) {
        struct call *call = add(kind, 0, 0);
        set_name_at(call->name, from_fd, from);
        if (to != NULL)
            set_name_at(call->to, to_fd, to);
    }
    pthread_mutex_unlock(&recorder.lock);
}

/* ---- in front of the C library --------------------------------------------------------------- */

ssize_t write(int fd, const void *bytes, size_t size)
{
    const struct iovec piece = {(void *)(uintptr_t)bytes, size};
    const off_t offset = recorder.on ? lseek(fd, 0, SEEK_CUR) : 0;
    uint32_t index;
    const bool logged = log_write_call(fd, &piece, 1, offset, &index);
    const ssize_t done = syscall(SYS_write, fd, bytes, size);

    log_through(fd, logged, index);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    const struct iovec piece = {(void *)(uintptr_t)bytes, size};
    uint32_t index;
    const bool logged = log_write_call(fd, &piece, 1, offset, &index);
    const ssize_t done = syscall(SYS_pwrite64, fd, bytes, size, offset);

    log_through(fd, logged, index);
    return done;
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    const off_t offset = recorder.on ? lseek(fd, 0, SEEK_CUR) : 0;
    uint32_t index;
    const bool logged = log_write_call(fd, pieces, count, offset, &index);
    const ssize_t done = syscall(SYS_writev, fd, pieces, count);

    log_through(fd, logged, index);
    return done;
}

int ftruncate(int fd, off_t size)
{
    log_call(fd, CALL_TRUNCATE, (uint64_t)size);
    return (int)syscall(SYS_ftruncate, fd, size);
}

/* Nothing is on a disk here, so that the sync itself can be spared. */
int datasync_disk(int fd)
{
    if (!fault_bug(FAULT_SKIP_SYNC))
        log_call(fd, CALL_SYNC, 0);
    return 0;
}

int fsync(int fd)
{
    log_call(fd, CALL_SYNC, 0);
    return 0;
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    log_naming(CALL_RENAME, from_fd, from, to_fd, to);
    return (int)syscall(SYS_renameat, from_fd, from, to_fd, to);
}

int unlinkat(int fd, const char *name, int flags)
{
    log_naming(CALL_UNLINK, fd, name, -1, NULL);
    return (int)syscall(SYS_unlinkat, fd, name, flags);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static void log_present_file(const char *name)
{
    char path[512];
    struct stat status;

    snprintf(path, sizeof path, "%s/%s", recorder.directory, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert(fd >= 0 && fstat(fd, &status) == 0);
    const uint32_t file = file_number(status.st_ino, name);
    uint8_t *bytes = xmalloc((size_t)status.st_size + 1);
    const ssize_t size = pread(fd, bytes, (size_t)status.st_size, 0);
    assert(size == status.st_size);
    add_write(file, 0, &(struct iovec){bytes, (size_t)size}, 1);
    add(CALL_SYNC, file, 0);
    free(bytes);
    close(fd);
}

void recorder_begin(const char *directory, struct call_log *log)
{
    snprintf(recorder.directory, sizeof recorder.directory, "%s", directory);
    recorder.log = log;
    recorder.file_count = 0;
    DIR *listing = opendir(directory);
    assert(listing != NULL);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;)
        if (entry->d_type == DT_REG && strcmp(entry->d_name, "lock.mdb") != 0)
            log_present_file(entry->d_name);
    closedir(listing);
    add(CALL_SYNC_NAMES, 0, 0);
    recorder.on = true;
}

void recorder_end(void)
{
    pthread_mutex_lock(&recorder.lock);
    recorder.on = false;
    pthread_mutex_unlock(&recorder.lock);
}

void recorder_mark(enum call_kind kind, uint64_t lsn)
{
    pthread_mutex_lock(&recorder.lock);
    if (recorder.on)
        add(kind, 0, lsn);
    pthread_mutex_unlock(&recorder.lock);
}

void call_log_release(struct call_log *log)
{
    for (uint32_t i = 0; i < log->calls.count; i++)
        free(log->calls.items[i].bytes);
    array_release(&log->calls);
}
