/* Every allocation of the process passes through here or through a library's own. There is one
 * answer to running out, to a size that does not fit size_t, and to the failure that a test asks
 * for: out_of_memory(), which says what was wanted and aborts. Nothing here returns NULL, so nobody
 * above checks for it.
 *
 * A request for no bytes gives a block of one, so that a pointer that was allocated is never
 * NULL. */
#include "base/alloc.h"

#include <stdarg.h>
#include <stdatomic.h>

#include "base/log.h"

/* Of the test hook: allocations left until the one that fails, 0 when none is to. */
static _Atomic uint64_t fail_countdown;
static void (*_Atomic fail_callback)(void);

__attribute__((noreturn, cold)) static void out_of_memory(size_t size)
{
    void (*const callback)(void) = atomic_load(&fail_callback);
    if (callback != NULL)
        callback();
    log_critical("out of memory: no %zu bytes to be had", size);
    abort();
}

static bool fails_now(void)
{
    return unlikely(atomic_load_explicit(&fail_countdown, memory_order_relaxed) > 0) &&
           atomic_fetch_sub(&fail_countdown, 1) == 1;
}

void alloc_fail_at(uint64_t n, void (*on_failure)(void))
{
    atomic_store(&fail_callback, on_failure);
    atomic_store(&fail_countdown, n);
}

size_t size_add(size_t a, size_t b)
{
    size_t sum;
    if (unlikely(__builtin_add_overflow(a, b, &sum)))
        out_of_memory(SIZE_MAX);
    return sum;
}

size_t size_mul(size_t a, size_t b)
{
    size_t product;
    if (unlikely(__builtin_mul_overflow(a, b, &product)))
        out_of_memory(SIZE_MAX);
    return product;
}

void *xmalloc(size_t size)
{
    void *memory = fails_now() ? NULL : malloc(max_of(size, 1));
    if (unlikely(memory == NULL))
        out_of_memory(size);
    return memory;
}

void *xcalloc(size_t count, size_t size)
{
    const size_t total = size_mul(count, size);
    void *memory = fails_now() ? NULL : calloc(1, max_of(total, 1));
    if (unlikely(memory == NULL))
        out_of_memory(total);
    return memory;
}

void *xrealloc(void *old, size_t count, size_t size)
{
    const size_t total = size_mul(count, size);
    void *memory = fails_now() ? NULL : realloc(old, max_of(total, 1));
    if (unlikely(memory == NULL))
        out_of_memory(total);
    return memory;
}

char *xstrdup(const char *string)
{
    const size_t size = strlen(string) + 1;
    return memcpy(xmalloc(size), string, size);
}

char *xasprintf(const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);

    const int length = vsnprintf(NULL, 0, format, arguments);
    assert(length >= 0);
    char *string = xmalloc((size_t)length + 1);
    vsnprintf(string, (size_t)length + 1, format, again);

    va_end(again);
    va_end(arguments);
    return string;
}
