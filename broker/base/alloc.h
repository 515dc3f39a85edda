/* Memory with one policy: running out stops the process. What a peer can inflate is refused by a
 * limit long before, so no caller has a path for NULL. Sizes are multiplied here, and checked
 * here. */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include "base/base.h"

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull)); /* zeroed */
void *xrealloc(void *old, size_t count, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *string) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *format, ...) __attribute__((malloc, returns_nonnull)) printf_like(1, 2);

/* a + b, a * b; stops the process on overflow, as running out would. */
size_t size_add(size_t a, size_t b);
size_t size_mul(size_t a, size_t b);

/* For tests: the n-th allocation from now is the one that finds no memory (0: none). on_failure, if
 * not NULL, is called in place of abort and must not return. */
void alloc_fail_at(uint64_t n, void (*on_failure)(void));

#endif
