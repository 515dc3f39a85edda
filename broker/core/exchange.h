/* An exchange: where a publish enters, and the rule by which it finds queues. A row per type says how.
 *
 * Routing gathers each destination queue once, whatever the number of bindings, keys and exchanges that lead there:
 * the broker counts a mark up per message, and a queue or exchange that carries the current mark has been seen. */
#ifndef CORE_EXCHANGE_H
#define CORE_EXCHANGE_H

#include "amqp/reply.h"
#include "base/map.h"
#include "core/binding.h"

struct vhost;
struct exchange;

/* What routing looks at. */
struct routing {
    struct slice routing_key;
    struct slice
        properties; /* of the content header, wire form; the headers exchange reads its headers table */
};

/* Where a message goes. Reused from publish to publish. */
struct route {
    struct queue **queues;
    size_t count, capacity;
    struct exchange **pending; /* exchanges reached and not yet evaluated */
    size_t pending_count, pending_capacity;
    uint64_t mark;
};

void route_init(struct route *route);
void route_release(struct route *route);
void route_add(struct route *route,
               const struct binding *binding); /* for exchange types: its destination, once */

struct exchange_type {
    const char *name;
    /* May refuse the key or arguments with 406. May be NULL. */
    bool (*check_binding)(const struct exchange *exchange, struct slice key, struct slice arguments,
                          struct amqp_error *error);
    void (*add)(struct exchange *exchange,
                struct binding *binding); /* after it joined exchange->bindings */
    void (*remove)(struct exchange *exchange, struct binding *binding); /* before it leaves */
    void (*route)(struct exchange *exchange, const struct routing *routing, struct route *route);
    void (*release)(struct exchange *exchange); /* frees of_type when the last binding is gone */
};

struct exchange_options {
    struct slice name, type;
    bool durable, auto_delete, internal;
    struct slice arguments;
};

struct exchange {
    struct map_link by_name; /* in vhost->exchanges */
    struct vhost *vhost;
    const struct exchange_type *type;
    struct slice name, arguments;
    bool durable, auto_delete, internal;
    bool deleted;                 /* still referenced by this turn only; freed in the REAP phase */
    struct binding_list bindings; /* that start here */
    size_t binding_count;
    struct binding_list incoming; /* that lead here */
    uint64_t route_mark;
    uint64_t lsn;     /* the batch that holds its definition */
    void *of_type;    /* the type's index over bindings */
    struct task task; /* frees it, in REAP */
    uint64_t published;
};

const struct exchange_type *exchange_type_find(struct slice name);

/* Fills route with the distinct queues of this message; route->count 0: unroutable. The default exchange is asked by its own
 * type: queue name equals routing key. */
void exchange_route(struct exchange *exchange, const struct routing *routing, struct route *route);

#endif
