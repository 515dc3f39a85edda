/* Faults on demand: see base/fault.h. The environment is read before main; afterwards nothing
 * changes but the count of passes, which threads share. */
#include "base/fault.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/slice.h"
#include "store/datasync.h"

static const char *const point_names[] = {
#define POINT(NAME, name, text) name,
#include "base/fault.def"
};

static const char *const bug_names[] = {
#define BUG(NAME, name, text) name,
#include "base/fault.def"
};

static struct {
    enum fault_point kill_at; /* FAULT_POINT_COUNT: nowhere */
    atomic_long passes_left;
    bool bugs[FAULT_BUG_COUNT];
} faults = {.kill_at = FAULT_POINT_COUNT};

static int (*next_fdatasync)(int fd);

static size_t find(const char *const *names, size_t count, const char *name, size_t size)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0)
            return i;
    fprintf(stderr, "fault: there is no '%.*s'; there are:", (int)size, name);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, " %s", names[i]);
    fputc('\n', stderr);
    exit(EX_CONFIG);
}

static void read_kill(const char *text)
{
    const size_t size = strcspn(text, ":");

    faults.kill_at = (enum fault_point)find(point_names, countof(point_names), text, size);
    faults.passes_left = text[size] == ':' ? strtol(text + size + 1, NULL, 10) : 1;
}

static void read_bugs(const char *text)
{
    while (*text != '\0') {
        const size_t size = strcspn(text, ",");
        faults.bugs[find(bug_names, countof(bug_names), text, size)] = true;
        text += size + (text[size] == ',');
    }
}

__attribute__((constructor)) static void read_environment(void)
{
    const char *kill_at = getenv("FAULT_KILL"), *bugs = getenv("FAULT_BUGS");

    *(void **)&next_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    if (kill_at != NULL)
        read_kill(kill_at);
    if (bugs != NULL)
        read_bugs(bugs);
}

void fault_point(enum fault_point point)
{
    if (point != faults.kill_at || atomic_fetch_sub(&faults.passes_left, 1) != 1)
        return;
    raise(SIGKILL);
    for (;;)
        pause();
}

bool fault_bug(enum fault_bug bug)
{
    return faults.bugs[bug];
}

/* LMDB's, of the data file; its meta page is synced by being written. */
int datasync_disk(int fd)
{
    fault_point(FAULT_SYNC_BEGINS);
    const int result = fault_bug(FAULT_SKIP_SYNC) ? 0 : next_fdatasync(fd);
    fault_point(FAULT_SYNC_ENDED);
    return result;
}
