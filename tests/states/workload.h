/* Random batches for a store, from a seed, each of them noted in a model: every operation of
 * store.h, in the mixtures that a broker makes of them.
 *
 *     put          bodies from nothing to several parts, to one queue or to many
 *     ack          entries from the front, or from anywhere
 *     purge        a range; take back what is still in the open batch
 *     move         delete here, put there: a dead letter
 *     queues       created, deleted; marked as delivered
 *     records      put, overwritten, deleted */
#ifndef TESTS_STATES_WORKLOAD_H
#define TESTS_STATES_WORKLOAD_H

#include "base/random.h"
#include "tests/states/model.h"

struct workload {
    struct store *store;
    struct random *random;
    struct model *model; /* of what is in the open batch as well */
};

void workload_on_body_done(void *body_owner);

/* Fills the open batch; it is not empty afterwards. The model's LSN becomes the batch's. */
void workload_fill(struct workload *workload);

#endif
