/* Fuzzing: each fuzz_x.c feeds one parser, or a whole connection, with any bytes at all.
 *
 *     make fuzz FUZZ_SECONDS=60     libFuzzer with AddressSanitizer and UBSan, each target in turn;
 *                                   what it finds is written to build/fuzz/found
 *     make test                     replays tests/fuzz/corpus/x through the same targets (replay.c)
 *
 * A target returns when all is well; what must hold is a `must`, which stays in every build. An
 * input that once broke something stays in the corpus, named after what it broke. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include "base/slice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(condition)                                                                            \
    ((condition)                                                                                   \
         ? (void)0                                                                                 \
         : (fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #condition), abort()))

/* Cuts the input into parts, each with its size in front of it: two octets, as much as there is. */
static inline bool fuzz_part(struct slice *input, struct slice *part)
{
    if (input->size < 2)
        return false;
    size_t size = (size_t)input->data[0] << 8 | input->data[1];
    if (size > input->size - 2)
        size = input->size - 2;
    *part = slice_of(input->data + 2, size);
    *input = slice_of(input->data + 2 + size, input->size - 2 - size);
    return true;
}

#endif
