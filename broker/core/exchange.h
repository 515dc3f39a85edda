/* An exchange: where a publish enters, and the rule by which it finds queues. A row per type says
 * how.
 *
 * Routing gathers each destination queue once, whatever the number of bindings, keys and exchanges
 * that lead there: the broker counts a mark up per message, and a queue or exchange that carries
 * the current mark has been seen. */
#ifndef CORE_EXCHANGE_H
#define CORE_EXCHANGE_H

#include "amqp/reply.h"
#include "base/map.h"
#include "core/binding.h"
#include "core/policy.h"
#include "net/loop.h"

struct vhost;
struct exchange;
struct message;

/* What routing looks at. */
struct routing {
    const struct slice *keys; /* the routing key, then those of CC and BCC (7.16) */
    size_t key_count;         /* at least 1 */
    struct message *message;  /* which has all this; NULL when none is there */
    struct slice properties;  /* of the content header, wire form; the headers are among them */
};

/* Who waits for replies (section 14): the default exchange finds it by name, as if that were a
 * queue's. */
#define REPLY_TARGET_PREFIX "amq.rabbitmq.reply-to."
struct reply_target {
    struct map_link by_name; /* in vhost->reply_targets; the name begins with the prefix */
    uint64_t route_mark;
    void (*deliver)(struct reply_target *target, struct message *message);
};

/* Where a message goes. Reused from publish to publish.
 *
 * Finding that out may take limits.routing_steps_max steps: bindings that match, nodes of a topic's
 * trie, entries of headers bindings and of the headers they ask, bindings among which a hash
 * chooses, exchanges on the way; and lead to that many queues divided by ROUTE_QUEUE_STEPS. What
 * takes more is exhausted: it leads nowhere, whatever was found. So no publish can hold the loop
 * for long, by whatever bindings; and the steps of many of them are the turn's: see broker_spend.
 *
 * One queue found in a map, or as the only binding of its kind, takes no step. */
struct route {
    struct queue **queues;
    size_t count, capacity;
    struct reply_target **targets;
    size_t target_count, target_capacity;
    bool is_reply;       /* a key is a name of that kind, whether or not somebody waits there */
    bool is_exhausted;   /* it would take more than routing may: it leads nowhere then */
    size_t spent;        /* steps of matching, for the message whose mark is ... */
    uint64_t spent_mark; /* ... this */
    struct broker *broker;
    struct exchange **pending; /* exchanges reached and not yet evaluated */
    size_t pending_count, pending_capacity;
    size_t matches; /* destinations found so far, those seen before included */
    uint64_t mark;
};

enum {
    ROUTE_QUEUE_STEPS = 20,    /* what it costs to put a message into one more queue */
    ROUTE_EXCHANGE_STEPS = 10, /* to ask one more exchange, for each key */
    ROUTE_STEP_OCTETS = 16     /* read or compared for a step */
};

void route_init(struct route *route, struct broker *broker);
void route_release(struct route *route);

/* For exchange types: the destination of a binding that matches, or a queue found without one. */
void route_add(struct route *route, const struct binding *binding);
void route_add_queue(struct route *route, struct queue *queue);
void route_add_target(struct route *route, struct reply_target *target);
void route_add_all(struct route *route, const struct exchange *exchange); /* all bindings of it */

/* What a type does for a message is spent: how many steps are left, how many are gone, and that so
 * many more are. False: they were not left, and the route is exhausted. */
size_t route_budget(const struct route *route);
size_t route_spent(const struct route *route);
bool route_spend(struct route *route, size_t steps);

struct exchange_type {
    const char *name;
    void (*init)(struct exchange *exchange); /* it is new, or recovered. May be NULL */
    /* May refuse the arguments of a new exchange with 406. May be NULL. */
    bool (*check_arguments)(struct slice arguments, struct amqp_error *error);
    /* May refuse a new binding to a queue or, when that is NULL, an exchange, with 406. May be
     * NULL. */
    bool (*check_binding)(const struct exchange *exchange, const struct queue *queue,
                          struct slice key, struct slice arguments, struct amqp_error *error);
    void (*add)(struct exchange *exchange,
                struct binding *binding); /* after it joined exchange->bindings. May be NULL */
    void (*remove)(struct exchange *exchange,
                   struct binding *binding); /* before it leaves. May be NULL */
    void (*route)(struct exchange *exchange, const struct routing *routing, struct route *route);
    void (*on_deleted)(struct exchange *exchange); /* with its bindings; not when the broker
                                                      just ends. May be NULL */
    void (*release)(
        struct exchange *exchange); /* frees of_type; the last binding is gone. May be NULL */
};

extern const struct exchange_type exchange_type_default, exchange_type_direct, exchange_type_fanout,
    exchange_type_topic, exchange_type_headers, exchange_type_consistent_hash, exchange_type_random,
    exchange_type_local_random, exchange_type_modulus_hash, exchange_type_recent_history,
    exchange_type_delayed;

struct exchange_options {
    struct slice name, type;
    bool durable, auto_delete, internal;
    struct slice arguments;
};

struct exchange {
    struct map_link by_name;          /* in vhost->exchanges */
    TAILQ_ENTRY(exchange) by_deleted; /* in vhost->doomed, then vhost->deleted */
    struct vhost *vhost;
    const struct exchange_type *type;
    struct slice name, arguments; /* in one block with the exchange */
    /* Inside the arguments or a policy's definition; data is NULL when there is none (7.10). */
    struct slice alternate;
    struct policy_set policies; /* that apply */
    bool durable, auto_delete, internal;
    bool deleted;                 /* still referenced by this turn only; freed in the REAP phase */
    struct binding_list bindings; /* that start here */
    struct map identities;        /* the same by identity: see core/binding.h */
    size_t binding_count;
    struct binding_list incoming; /* that lead here */
    uint32_t incoming_count;
    uint64_t route_mark;
    uint64_t record_id; /* in the store; 0: not there (not durable, or predeclared) */
    uint64_t lsn;       /* the batch that holds its definition */
    void *of_type;      /* the type's index over bindings */
    const struct exchange_type *delayed_type; /* how x-delayed-message routes; else NULL */
    struct queue *delayed; /* its messages that wait for their time; NULL: none ever did */
    struct task task;      /* frees it, in REAP */
    uint64_t published;
};
TAILQ_HEAD(exchange_list, exchange);

const struct exchange_type *exchange_type_find(struct slice name); /* NULL: there is none (7.2) */

/* Joins vhost->exchanges, where the name must not be yet. Nothing is checked or stored: the rules
 * are the vhost's. */
struct exchange *exchange_new(struct vhost *vhost, const struct exchange_type *type,
                              const struct exchange_options *options);
void exchange_free(struct exchange **exchange); /* without bindings, and out of the vhost's map */

/* Whether its keys have words: topic permissions are about those (16.3). */
static inline bool exchange_is_topic(const struct exchange *exchange)
{
    return exchange->type == &exchange_type_topic || exchange->delayed_type == &exchange_type_topic;
}

/* Other policies apply to it now: its alternate may be another. */
void exchange_apply_policies(struct exchange *exchange);

struct binding *exchange_find_binding(const struct exchange *exchange, struct slice identity);

/* A new edge of this identity to queue or, when that is NULL, to destination. */
struct binding *exchange_add_binding(struct exchange *exchange, struct slice identity,
                                     struct queue *queue, struct exchange *destination);
void exchange_remove_binding(struct binding **binding); /* and frees it */

/* Fills route with the distinct queues of this message; route->count 0: unroutable. The default
 * exchange is asked by its own type: queue name equals routing key. */
void exchange_route(struct exchange *exchange, const struct routing *routing, struct route *route);

/* 406, of a route that is exhausted. */
bool route_fail(const struct route *route, const struct exchange *exchange,
                struct amqp_error *error);

/* The same by what a message carries. */
void exchange_route_message(struct exchange *exchange, struct message *message,
                            struct route *route);

/* Where it would go, without any exchange keeping it. */
void exchange_preview(struct exchange *exchange, const struct message *message,
                      struct route *route);

/* ---- in exchange_delayed.c ---- */

/* How long a message with these properties is to wait: header x-delay, if it is above 0; else
 * UINT64_MAX. */
uint64_t exchange_delay_ms(struct slice properties);

/* The same message when it has waited: its x-delay is below 0 now. */
struct message *exchange_make_undelayed(const struct message *message);

/* Puts the message where the route leads, which is spent when that is not one queue. false: a queue
 * refused it. */
bool route_deliver(const struct route *route, struct message *message);

/* A reply to somebody who is gone counts as routed (14.3). */
static inline bool route_leads_nowhere(const struct route *route)
{
    return route->count == 0 && !route->is_reply;
}

#endif
