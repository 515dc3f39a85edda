/* The core without anything around it: a broker with a fake clock, seeded random bytes, the
 * memory store and scratch in memory, for tests of core/.
 *
 *     struct memory_broker memory;
 *     memory_broker_start(&memory);
 *     ... vhost_declare_queue(memory.vhost, ...) ...
 *     memory_broker_sync(&memory);
 *     memory_broker_restart(&memory);         what was durable is there again
 *     memory_broker_stop(&memory); */
#ifndef TESTS_MEMORY_BROKER_H
#define TESTS_MEMORY_BROKER_H

#include "core/vhost.h"

struct memory_broker {
    struct clock clock;
    struct loop loop;
    struct random random;
    struct store *store;
    struct broker broker;
    struct vhost *vhost; /* "/" */
};

void memory_broker_start(struct memory_broker *memory);
void memory_broker_stop(struct memory_broker *memory);

/* Turns until all that was done is durable and what is deleted is freed. */
void memory_broker_sync(struct memory_broker *memory);

/* A crash: what is not durable is lost. */
void memory_broker_restart(struct memory_broker *memory);

#endif
