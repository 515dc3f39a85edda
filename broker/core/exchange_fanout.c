/* fanout: every binding, whatever its key (7.11). */
#include "core/exchange.h"

static void fanout_route(struct exchange *exchange, const struct routing *routing,
                         struct route *route)
{
    (void)routing;
    route_add_all(route, exchange);
}

const struct exchange_type exchange_type_fanout = {.name = "fanout", .route = fanout_route};
