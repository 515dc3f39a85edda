/* Random bytes: the kernel's, or from a seed so that a test can replay. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include "base/base.h"

struct random {
    bool seeded;
    uint64_t state[4]; /* xoshiro256**, when seeded */
};

void random_init(struct random *random); /* the kernel's */
void random_init_seeded(struct random *random, uint64_t seed);
void random_bytes(struct random *random, void *bytes,
                  size_t size); /* a kernel that gives none stops the process */
uint64_t random_u64(struct random *random);
uint64_t random_below(struct random *random, uint64_t bound); /* 0 to bound - 1, without bias */

#endif
