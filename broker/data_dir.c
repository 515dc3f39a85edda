/* Making and locking the data directory. See data_dir.h. */
#include "data_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"

static int fail(char error[DATA_DIR_ERROR_SIZE], const char *what, const char *path)
{
    const int reason = errno;
    snprintf(error, DATA_DIR_ERROR_SIZE, "cannot %s %s: %s", what, path, strerror(reason));
    return -reason;
}

/* The process id that the holder of the lock has left in it, or 0. */
static long read_holder(int fd)
{
    char text[24];
    const ssize_t size = pread(fd, text, sizeof(text) - 1, 0);
    text[max_of(size, 0)] = '\0';
    return strtol(text, NULL, 10);
}

static int fail_locked(int fd, const char *path, char error[DATA_DIR_ERROR_SIZE])
{
    const long holder = read_holder(fd);
    if (holder > 0)
        snprintf(error, DATA_DIR_ERROR_SIZE, "a broker (pid %ld) is using %s; stop it first",
                 holder, path);
    else
        snprintf(error, DATA_DIR_ERROR_SIZE, "a broker is using %s; stop it first", path);
    return -EWOULDBLOCK;
}

/* In place, and always as long, so that a full disk has room for it. It is for people alone: who
 * cannot write it starts all the same, and leaves nobody else's there. */
static void write_holder(int fd)
{
    char text[24];
    const int size = snprintf(text, sizeof(text), "%-20ld\n", (long)getpid());
    if (pwrite(fd, text, (size_t)size, 0) == size)
        return;
    log_warning("cannot write the process id into the lock file of the data directory: %s",
                strerror(errno));
    if (ftruncate(fd, 0) < 0)
        log_warning("the process id in it is another's: %s", strerror(errno));
}

static struct flock whole_file(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

static int lock(int directory, const char *path, char error[DATA_DIR_ERROR_SIZE])
{
    const int fd = openat(directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail(error, "open the lock file in", path);
    int result = 0;
    struct flock wanted = whole_file();
    if (fcntl(fd, F_OFD_SETLK, &wanted) < 0)
        result = errno == EWOULDBLOCK ? fail_locked(fd, path, error)
                                      : fail(error, "lock the data directory", path);
    if (result < 0) {
        close(fd);
        return result;
    }
    write_holder(fd);
    return fd;
}

bool data_dir_is_used(const char *path, char error[DATA_DIR_ERROR_SIZE])
{
    char *name = xasprintf("%s/lock", path);
    const int fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    struct flock found = whole_file();
    const bool used = fd >= 0 && fcntl(fd, F_OFD_GETLK, &found) == 0 && found.l_type != F_UNLCK;

    if (used)
        fail_locked(fd, path, error);
    if (fd >= 0)
        close(fd);
    free(name);
    return used;
}

/* The name of a new directory must survive a power cut, as what is put into it does. A parent that
 * may not be read cannot be synced either. */
static int sync_parent(int directory)
{
    const int parent = openat(directory, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return 0;
    const int result = fsync(parent);
    close(parent);
    return result;
}

int data_dir_check(const char *path, char error[DATA_DIR_ERROR_SIZE])
{
    struct stat status;

    if (stat(path, &status) < 0 || !S_ISDIR(status.st_mode)) /* who locks it will say so */
        return 0;
    if (status.st_uid != geteuid())
        snprintf(
            error, DATA_DIR_ERROR_SIZE,
            "the data directory %s belongs to another user: run the broker as that one (user), or "
            "give it away, as chown -R %u %s does, or name one that it may make there (data_dir), "
            "as %s/data",
            path, (unsigned)geteuid(), path, path);
    else if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        snprintf(error, DATA_DIR_ERROR_SIZE,
                 "others than its owner may write to the data directory %s: chmod go-w %s", path,
                 path);
    else
        return 0;
    return -EPERM;
}

int data_dir_lock(const char *path, char error[DATA_DIR_ERROR_SIZE])
{
    const bool is_new = mkdir(path, 0700) == 0;
    if (!is_new && errno != EEXIST)
        return fail(error, "make the data directory", path);
    const int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return fail(error, "open the data directory", path);
    const int fd = is_new && sync_parent(directory) < 0 ? fail(error, "sync what holds", path)
                                                        : lock(directory, path, error);
    close(directory);
    return fd;
}
