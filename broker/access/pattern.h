/* Patterns that names are matched against, in policies and permissions: Perl-like regular
 * expressions, over octets, found anywhere in the name unless the pattern says otherwise.
 *
 * Whoever writes a pattern can write one whose matching grows exponentially with the name, by
 * mistake or not. So a match costs a bounded number of steps, a bounded depth and a bounded piece
 * of memory; what would cost more is an answer of its own. */
#ifndef ACCESS_PATTERN_H
#define ACCESS_PATTERN_H

#include "base/slice.h"

struct pattern;

enum { PATTERN_SIZE_MAX = 16 * 1024, PATTERN_ERROR_SIZE = 192, PATTERN_STEPS_MAX = 100000 };

/* NULL, with what is wrong and where, when the text is no pattern, or a longer one than there may
 * be. */
struct pattern *pattern_new(struct slice text, char error[PATTERN_ERROR_SIZE]);
void pattern_free(struct pattern **pattern);

enum pattern_result { PATTERN_DIFFERS, PATTERN_MATCHES, PATTERN_TOO_COSTLY };

enum pattern_result pattern_match(const struct pattern *pattern, struct slice name);

#endif
