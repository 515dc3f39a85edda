#include "tests/sim/trace.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum { LINES = 160, LINE_SIZE = 160 };

bool trace_all;

static struct {
    char command[256];
    uint64_t step, count;
    char lines[LINES][LINE_SIZE];
} state;

static void show(void)
{
    for (uint64_t i = state.count > LINES ? state.count - LINES : 0; i < state.count; i++)
        fprintf(stderr, "# %s\n", state.lines[i % LINES]);
    fprintf(stderr, "# replay: %s\n", state.command);
}

/* An assertion of the broker's own. */
static void on_abort(int number)
{
    signal(number, SIG_DFL);
    show();
    raise(number);
}

void trace_begin(const char *command)
{
    snprintf(state.command, sizeof(state.command), "%s", command);
    state.step = state.count = 0;
    signal(SIGABRT, on_abort);
}

void trace_step(uint64_t step)
{
    state.step = step;
}

void trace(const char *format, ...)
{
    char *line = state.lines[state.count++ % LINES];
    va_list arguments;

    const int size = snprintf(line, LINE_SIZE, "%6" PRIu64 " ", state.step);
    va_start(arguments, format);
    vsnprintf(line + size, LINE_SIZE - (size_t)size, format, arguments);
    va_end(arguments);
    if (trace_all)
        fprintf(stderr, "%s\n", line);
}

void trace_fail(const char *format, ...)
{
    va_list arguments;

    if (!trace_all)
        show();
    fprintf(stderr, "# at step %" PRIu64 ": ", state.step);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n# replay: %s\n", state.command);
    fflush(NULL);
    _exit(1);
}
