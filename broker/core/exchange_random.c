/* x-random: one binding, any, whatever the key. x-local-random: the same among classic queues of
 * this machine, with empty binding keys (7.17); one broker has no others. Both share what follows
 * but for that check. */
#include "base/alloc.h"
#include "core/argument.h"
#include "core/binding_array.h"
#include "core/exchange.h"
#include "core/queue.h"
#include "core/vhost.h"

struct lottery { /* exchange->of_type */
    struct binding_array bindings;
    struct random random; /* seeded from the broker's, which may cost a system call a number */
};

static bool local_check_binding(const struct exchange *exchange, const struct queue *queue,
                                struct slice key, struct slice arguments, struct amqp_error *error)
{
    (void)exchange;
    (void)arguments;

    if (key.size > 0)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "Non empty binding '%.*s' key not permitted", SLICE_ARG(key));
    if (queue == NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "Destination not found");
    return argument_queue_type(queue->arguments) == QUEUE_CLASSIC ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "Queue type rabbit_quorum_queue not valid for this exchange type");
}

static void random_add(struct exchange *exchange, struct binding *binding)
{
    struct lottery *lottery = exchange->of_type;

    if (lottery == NULL) {
        exchange->of_type = lottery = xcalloc(1, sizeof(*lottery));
        random_init_seeded(&lottery->random, random_u64(exchange->vhost->broker->random));
    }
    binding_array_add(&lottery->bindings, binding);
}

static void random_remove(struct exchange *exchange, struct binding *binding)
{
    struct lottery *lottery = exchange->of_type;

    binding_array_remove(&lottery->bindings, binding);
}

static void random_route(struct exchange *exchange, const struct routing *routing,
                         struct route *route)
{
    struct lottery *lottery = exchange->of_type;
    (void)routing;

    if (lottery != NULL && lottery->bindings.count > 0)
        route_add(route,
                  lottery->bindings.items[random_below(&lottery->random, lottery->bindings.count)]);
}

static void random_release(struct exchange *exchange)
{
    struct lottery *lottery = exchange->of_type;

    exchange->of_type = NULL;
    if (lottery != NULL)
        binding_array_release(&lottery->bindings);
    free(lottery);
}

const struct exchange_type exchange_type_random = {
    .name = "x-random",
    .add = random_add,
    .remove = random_remove,
    .route = random_route,
    .release = random_release,
};

const struct exchange_type exchange_type_local_random = {
    .name = "x-local-random",
    .check_binding = local_check_binding,
    .add = random_add,
    .remove = random_remove,
    .route = random_route,
    .release = random_release,
};
