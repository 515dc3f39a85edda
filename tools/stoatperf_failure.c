/* See the header. */
#include "tools/stoatperf_failure.h"

#include <stdarg.h>

bool failure_set(struct failure *failure, const char *format, ...)
{
    if (!failure_is_set(failure)) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(failure->text, sizeof(failure->text), format, arguments);
        va_end(arguments);
    }
    return false;
}
