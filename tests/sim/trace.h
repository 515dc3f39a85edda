/* What a run did lately: the last lines of its trace, shown with the seed when a check fails, so
 * that the failure can be told and replayed. `trace_all` prints every line as it comes. */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include "base/base.h"

extern bool trace_all;

/* A run begins; command is what replays it. */
void trace_begin(const char *command);
void trace_step(uint64_t step);
void trace(const char *format, ...) printf_like(1, 2);

/* Prints the trace and the reason, and ends the program with status 1. */
_Noreturn void trace_fail(const char *format, ...) printf_like(1, 2);

#define check(condition, ...)                                                                      \
    do {                                                                                           \
        if (unlikely(!(condition)))                                                                \
            trace_fail(__VA_ARGS__);                                                               \
    } while (0)

#endif
