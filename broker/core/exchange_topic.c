/* topic: the routing key matches the binding key word by word (7.12). The work is the trie's. */
#include "core/exchange.h"
#include "core/trie.h"

enum { HASHES_MAX = 2 };

static bool topic_check_binding(const struct exchange *exchange, const struct queue *queue,
                                struct slice key, struct slice arguments, struct amqp_error *error)
{
    const size_t hashes = trie_count_hashes(key);
    (void)exchange, (void)queue, (void)arguments;

    if (hashes <= HASHES_MAX)
        return true;
    return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "Topic binding key '%.*s' uses %zu '#' wildcards, at most %d are allowed",
                     SLICE_ARG(key), hashes, HASHES_MAX);
}

static void topic_add(struct exchange *exchange, struct binding *binding)
{
    if (exchange->of_type == NULL)
        exchange->of_type = trie_new();
    trie_add(exchange->of_type, binding);
}

static void topic_remove(struct exchange *exchange, struct binding *binding)
{
    trie_remove(exchange->of_type, binding);
}

static void add_all(void *context, const struct binding_list *bindings)
{
    const struct binding *binding;

    struct route *route = context;
    const size_t before = route->matches;

    TAILQ_FOREACH (binding, bindings, by_key)
        route_add(route, binding);
    route_spend(route, route->matches - before);
}

static void topic_route(struct exchange *exchange, const struct routing *routing,
                        struct route *route)
{
    if (exchange->of_type == NULL)
        return;
    for (size_t i = 0; i < routing->key_count && !route->is_exhausted; i++)
        route_spend(route, trie_match(exchange->of_type, routing->keys[i], route_budget(route),
                                      add_all, route));
}

static void topic_release(struct exchange *exchange)
{
    struct trie *trie = exchange->of_type;

    exchange->of_type = NULL;
    if (trie != NULL)
        trie_free(&trie);
}

const struct exchange_type exchange_type_topic = {
    .name = "topic",
    .check_binding = topic_check_binding,
    .add = topic_add,
    .remove = topic_remove,
    .route = topic_route,
    .release = topic_release,
};
