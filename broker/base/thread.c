#include "base/thread.h"

#include <signal.h>

int thread_start(pthread_t *thread, void *(*function)(void *), void *argument)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(thread, NULL, function, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -rc;
}
