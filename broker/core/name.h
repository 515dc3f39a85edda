/* Names that the broker makes up: a prefix and 128 secure random bits as base64url, 22
 * characters. */
#ifndef CORE_NAME_H
#define CORE_NAME_H

#include "base/random.h"
#include "base/slice.h"

enum { NAME_RANDOM_SIZE = 22 };

/* Into bytes, which has room for prefix and NAME_RANDOM_SIZE. */
struct slice name_random(struct random *random, const char *prefix, char *bytes, size_t size);

#endif
