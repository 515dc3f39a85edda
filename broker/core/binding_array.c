#include "core/binding_array.h"

#include "base/alloc.h"

void binding_array_release(struct binding_array *array)
{
    free(array->items);
    *array = (struct binding_array){0};
}

/* Where a binding of this identity stands, or would. */
static size_t find_place(const struct binding_array *array, struct slice identity)
{
    size_t low = 0, high = array->count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (slice_compare(array->items[middle]->by_identity.key, identity) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void binding_array_add(struct binding_array *array, struct binding *binding)
{
    const size_t place = find_place(array, binding->by_identity.key);

    if (array->count == array->capacity) {
        array->capacity = max_of(8, 2 * array->capacity);
        array->items = xrealloc(array->items, array->capacity, sizeof(*array->items));
    }
    memmove(array->items + place + 1, array->items + place,
            (array->count - place) * sizeof(*array->items));
    array->items[place] = binding;
    array->count++;
}

void binding_array_remove(struct binding_array *array, const struct binding *binding)
{
    const size_t place = find_place(array, binding->by_identity.key);

    assert(place < array->count && array->items[place] == binding);
    array->count--;
    memmove(array->items + place, array->items + place + 1,
            (array->count - place) * sizeof(*array->items));
}
