/* /proc/self/cgroup has a line per hierarchy:
 *
 *     0::/system.slice/stoatmq.service        version 2: memory.max in that directory of /sys/fs/cgroup, and in all above it
 *     4:memory:/docker/53e1...                version 1: memory.limit_in_bytes, likewise under /sys/fs/cgroup/memory
 *
 * In a container the path may name what lies outside of it; then the root is the container's own
 * group. */
#include "access/resources.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define GROUPS_ROOT "/sys/fs/cgroup"

/* A number in a file of its own; UINT64_MAX: no file, or no number ("max"). */
static uint64_t read_limit(const char *path)
{
    uint64_t limit;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return UINT64_MAX;
    if (fscanf(file, "%" SCNu64, &limit) != 1)
        limit = UINT64_MAX;
    fclose(file);
    return limit;
}

/* Of the group at path under root, and of those above it. Shortens path. */
static uint64_t least_limit(const char *root, char *path, const char *name)
{
    uint64_t limit = UINT64_MAX;

    for (;;) {
        char file[2 * PATH_MAX];
        snprintf(file, sizeof(file), "%s%s/%s", root, path, name);
        limit = min_of(limit, read_limit(file));
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return limit;
        *slash = '\0';
    }
}

uint64_t resources_group_limit(const char *line, const char *root)
{
    char path[PATH_MAX], memory_root[PATH_MAX];
    const char *controllers = strchr(line, ':');
    const char *colon = controllers == NULL ? NULL : strchr(controllers + 1, ':');

    if (colon == NULL)
        return UINT64_MAX;
    snprintf(path, sizeof(path), "%.*s", (int)strcspn(colon + 1, "\n"), colon + 1);
    if (colon == controllers + 1)
        return least_limit(root, path, "memory.max");
    if (strncmp(controllers, ":memory:", 8) != 0)
        return UINT64_MAX;
    snprintf(memory_root, sizeof(memory_root), "%s/memory", root);
    return least_limit(memory_root, path, "memory.limit_in_bytes");
}

uint64_t resources_memory_total(void)
{
    uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[PATH_MAX + 64];

    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        total = min_of(total, resources_group_limit(line, GROUPS_ROOT));
    if (file != NULL)
        fclose(file);
    return total;
}

uint64_t resources_memory_used(void)
{
    /* Stays open: it is needed most when no descriptor is to be had. */
    static int file = -1;
    uint64_t size, resident, of_files;
    char line[128];

    if (file < 0)
        file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    const ssize_t length = file < 0 ? 0 : pread(file, line, sizeof(line) - 1, 0);
    line[max_of(length, (ssize_t)0)] = '\0';
    const int count = sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64, &size, &resident, &of_files);
    return count == 3 && resident > of_files
               ? (resident - of_files) * (uint64_t)sysconf(_SC_PAGESIZE)
               : 0;
}

uint64_t resources_disk_free(const char *directory)
{
    struct statvfs disk;

    return statvfs(directory, &disk) == 0 ? (uint64_t)disk.f_bavail * disk.f_frsize : UINT64_MAX;
}

uint64_t resources_descriptors_max(void)
{
    struct rlimit limit = {0};

    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

uint64_t resources_descriptors_used(void)
{
    uint64_t count = 0;
    DIR *directory = opendir("/proc/self/fd");

    if (directory == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count - 1; /* the directory itself */
}

void resources_release(void)
{
    malloc_trim(0);
}
