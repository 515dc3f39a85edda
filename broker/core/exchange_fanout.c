/* fanout: every binding, whatever its key (7.11). */
#include "core/exchange.h"

static void fanout_route(struct exchange *exchange, const struct routing *routing,
                         struct route *route)
{
    const struct binding *binding;
    (void)routing;

    TAILQ_FOREACH (binding, &exchange->bindings, by_source)
        route_add(route, binding);
}

const struct exchange_type exchange_type_fanout = {.name = "fanout", .route = fanout_route};
