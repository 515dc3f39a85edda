/* See resident.h. Whoever reads meanwhile in another thread finds the page in the page cache. */
#include "store/resident.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"

enum { LOOK_NS = 200000000, FILE_PAGES_MAX = 32 << 20 >> 12 };

void resident_open(struct resident *resident, const struct database *database)
{
    *resident = (struct resident){.mapping = database_mapping(database),
                                  .fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)};
}

void resident_close(struct resident *resident)
{
    if (resident->fd >= 0)
        close(resident->fd);
    resident->fd = -1;
}

/* Resident pages of files, of the program's own too; 0 when the kernel does not say. */
static uint64_t file_pages(const struct resident *resident)
{
    char text[128];
    uint64_t pages = 0;

    if (resident->fd < 0)
        return 0;
    const ssize_t size = pread(resident->fd, text, sizeof text - 1, 0);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    return sscanf(text, "%*u %*u %" SCNu64, &pages) == 1 ? pages : 0;
}

void resident_trim(struct resident *resident)
{
    const uint64_t now_ns = clock_monotonic_ns();

    if (now_ns < resident->next_ns)
        return;
    resident->next_ns = now_ns + LOOK_NS;
    if (resident->mapping.size > 0 && file_pages(resident) > FILE_PAGES_MAX)
        madvise((void *)(uintptr_t)resident->mapping.data, resident->mapping.size, MADV_DONTNEED);
}
