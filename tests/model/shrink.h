/* From a sequence that fails to a short one that still does: chunks of commands are left out, large
 * ones first, then each command is made simpler, until neither helps any more. */
#ifndef MODEL_SHRINK_H
#define MODEL_SHRINK_H

#include "tests/model/command.h"

/* The sequence fails before and after. Returns how often `fails` was asked. */
size_t shrink(struct sequence *sequence, bool (*fails)(const struct sequence *sequence));

#endif
