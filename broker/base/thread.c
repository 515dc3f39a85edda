#include "base/thread.h"

#include <signal.h>

#include "base/base.h"

/* What a thread does wrong is its own: blocked, it would end the process and pass by the
 * handler. */
static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

int thread_start(pthread_t *thread, void *(*function)(void *), void *argument)
{
    sigset_t blocked, old;

    sigfillset(&blocked);
    for (size_t i = 0; i < countof(faults); i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    int rc = pthread_create(thread, NULL, function, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -rc;
}
