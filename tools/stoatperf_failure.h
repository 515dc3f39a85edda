/* Why a run cannot go on: the first reason counts, later ones are its consequences. */
#ifndef TOOLS_STOATPERF_FAILURE_H
#define TOOLS_STOATPERF_FAILURE_H

#include "base/base.h"

struct failure {
    char text[640]; /* empty while nothing failed */
};

/* Always false, for `return failure_set(failure, ...)`. */
bool failure_set(struct failure *failure, const char *format, ...) printf_like(2, 3);

static inline bool failure_is_set(const struct failure *failure)
{
    return failure->text[0] != '\0';
}

#endif
