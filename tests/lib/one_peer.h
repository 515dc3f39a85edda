/* The set-up of most tests about queues: one broker, one peer with channel 1 open.
 *
 *     tcase_add_checked_fixture(tests, set_up, tear_down);
 *
 * check runs each test in a process of its own, so that these two belong to one test at a time. */
#ifndef TESTS_ONE_PEER_H
#define TESTS_ONE_PEER_H

#include "tests/lib/harness.h"

extern struct harness harness;
extern struct peer *peer;

void set_up(void);
void tear_down(void);

/* Stops the broker, in order or by a crash, starts it on the same store, and connects again. */
void restart(bool crash);

#endif
