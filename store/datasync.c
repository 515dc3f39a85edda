/* See datasync.h. fdatasync(2) is libc's for everybody, and a failure that concerns the watched
 * file is noted on its way back. */
#include "store/datasync.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_int watched = -1;
static atomic_bool failed;

void datasync_watch(int fd)
{
    atomic_store(&watched, fd);
}

bool datasync_has_failed(void)
{
    return atomic_load(&failed);
}

__attribute__((weak)) int datasync_disk(int fd)
{
    static int (*_Atomic next)(int);
    int (*sync)(int) = atomic_load_explicit(&next, memory_order_relaxed);

    if (sync == NULL) {
        sync = (int (*)(int))(uintptr_t)dlsym(RTLD_NEXT, "fdatasync");
        assert(sync != NULL);
        atomic_store_explicit(&next, sync, memory_order_relaxed);
    }
    return sync(fd);
}

int fdatasync(int fd)
{
    const int result = datasync_disk(fd);

    if (result != 0 && fd == atomic_load(&watched))
        atomic_store(&failed, true);
    return result;
}
