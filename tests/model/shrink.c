#include "tests/model/shrink.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* Without count commands from first on, if that still fails. */
static bool leave_out(struct sequence *sequence, size_t first, size_t count,
                      bool (*fails)(const struct sequence *sequence))
{
    struct sequence shorter = {
        .commands = xcalloc(max_of(sequence->count, (size_t)1), sizeof(struct command))};

    for (size_t i = 0; i < sequence->count; i++)
        if (i < first || i >= first + count)
            shorter.commands[shorter.count++] = sequence->commands[i];
    struct sequence *worse = fails(&shorter) ? sequence : &shorter;
    free(worse->commands);
    if (worse != sequence)
        return false;
    *sequence = shorter;
    return true;
}

static bool make_shorter(struct sequence *sequence, size_t *runs,
                         bool (*fails)(const struct sequence *sequence))
{
    bool any = false;

    for (size_t size = max_of(sequence->count / 2, (size_t)1); size > 0; size /= 2)
        for (size_t first = 0; first < sequence->count;) {
            ++*runs;
            if (leave_out(sequence, first, size, fails))
                any = true;
            else
                first += size;
        }
    return any;
}

static bool make_simpler(struct sequence *sequence, size_t *runs,
                         bool (*fails)(const struct sequence *sequence))
{
    bool any = false;

    for (size_t i = 0; i < sequence->count; i++) {
        struct command *command = &sequence->commands[i];
        const struct command before = *command;
        for (unsigned n = 0; command_simplify(command, n); n++) {
            ++*runs;
            if (fails(sequence)) {
                any = true;
                break;
            }
            *command = before;
        }
    }
    return any;
}

size_t shrink(struct sequence *sequence, bool (*fails)(const struct sequence *sequence))
{
    size_t runs = 0;

    while (make_shorter(sequence, &runs, fails) | make_simpler(sequence, &runs, fails))
        ;
    return runs;
}
