/* The bindings of an exchange as an array, for types that pick one of them by number. They stand
 * in order of identity, destination first: the order is the same after a restart, whatever came
 * first. */
#ifndef CORE_BINDING_ARRAY_H
#define CORE_BINDING_ARRAY_H

#include "core/binding.h"

struct binding_array {
    struct binding **items;
    size_t count, capacity;
};

void binding_array_release(struct binding_array *array); /* the bindings are their exchange's */
void binding_array_add(struct binding_array *array, struct binding *binding);
void binding_array_remove(struct binding_array *array,
                          const struct binding *binding); /* must be there */

#endif
