/* x-modulus-hash: one binding, that whose number is the hash of the routing key modulo how many
 * there are (7.17). The same key goes the same way until bindings come or go, also after a
 * restart. */
#include "base/alloc.h"
#include "core/binding_array.h"
#include "core/exchange.h"

static void modulus_hash_add(struct exchange *exchange, struct binding *binding)
{
    if (exchange->of_type == NULL)
        exchange->of_type = xcalloc(1, sizeof(struct binding_array));
    binding_array_add(exchange->of_type, binding);
}

static void modulus_hash_remove(struct exchange *exchange, struct binding *binding)
{
    binding_array_remove(exchange->of_type, binding);
}

static void modulus_hash_route(struct exchange *exchange, const struct routing *routing,
                               struct route *route)
{
    const struct binding_array *array = exchange->of_type;

    if (array != NULL && array->count > 0)
        route_add(route, array->items[slice_hash_stable(routing->keys[0]) % array->count]);
}

static void modulus_hash_release(struct exchange *exchange)
{
    if (exchange->of_type != NULL)
        binding_array_release(exchange->of_type);
    free(exchange->of_type);
    exchange->of_type = NULL;
}

const struct exchange_type exchange_type_modulus_hash = {
    .name = "x-modulus-hash",
    .add = modulus_hash_add,
    .remove = modulus_hash_remove,
    .route = modulus_hash_route,
    .release = modulus_hash_release,
};
