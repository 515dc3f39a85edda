/* See child.h. */
#include "store/child.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { QUESTION_MS = 50 };

static struct child *own; /* in a child: what it shares with its parent */

void child_note_damage(void)
{
    if (own != NULL)
        own->has_damage = true;
}

bool child_has_faulted(const struct child *child)
{
    return child->signal == SIGSEGV || child->signal == SIGBUS ||
           (child->signal == SIGABRT && child->has_damage);
}

void child_describe(const struct child *child, char *text, size_t size)
{
    snprintf(text, size, "SIG%s: %s", sigabbrev_np(child->signal), child->stage);
}

/* False: who waits for us would rather go. */
static bool await_end(pid_t pid, const struct store_waiting *waiting, int *status)
{
    struct pollfd ended = {.fd = pidfd_open(pid, 0), .events = POLLIN};
    bool goes_on = true;

    while (goes_on && ended.fd >= 0 && poll(&ended, 1, QUESTION_MS) <= 0)
        goes_on = store_goes_on(waiting);
    if (ended.fd >= 0)
        close(ended.fd);
    if (!goes_on)
        kill(pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
    return goes_on;
}

static void work_as_child(child_work *work, void *context, struct child *shared, pid_t parent)
{
    static char lines[BUFSIZ]; /* a buffer of its own, as one in use does not change its ways */

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it has the directory's lock, as long as it lives */
    if (getppid() != parent)
        _exit(EXIT_FAILURE); /* which has died meanwhile */
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    setvbuf(stdout, lines, _IOLBF, sizeof lines);
    own = shared;
    shared->result = work(context, shared);
    fflush(stdout);
    shared->has_answered = true;
    _exit(EXIT_SUCCESS);
}

int child_run(child_work *work, void *context, const struct store_waiting *waiting,
              struct child *child)
{
    struct child *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0, result = 0;

    if (shared == MAP_FAILED)
        return -errno;
    shared->stage = "its head";
    fflush(stdout); /* or the child would print it again */
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        work_as_child(work, context, shared, parent);
    if (pid < 0)
        result = -errno;
    else if (!await_end(pid, waiting, &status))
        result = -ECANCELED;
    *child = *shared;
    child->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (result == 0 && child->signal == 0 && !child->has_answered)
        result = -ECHILD;
    munmap(shared, sizeof *shared);
    return result;
}
