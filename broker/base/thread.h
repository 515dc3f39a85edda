/* Starting a thread of ours. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* With signals blocked, which are the loop's, but for faults of its own. 0 or -errno. */
int thread_start(pthread_t *thread, void *(*function)(void *), void *argument);

#endif
