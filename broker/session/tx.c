#include "session/tx.h"

#include "base/alloc.h"
#include "base/fault.h"
#include "core/vhost.h"
#include "session/channel.h"
#include "session/service.h"

struct tx_publish {
    struct message *message; /* a counted reference */
    bool mandatory;
};

struct tx_settlement {
    uint64_t tag;
    enum settlement how;
};

struct tx {
    struct channel *channel;
    struct buf publishes;   /* of struct tx_publish, never consumed from the front */
    struct buf settlements; /* of struct tx_settlement, likewise */
    uint64_t reserved_size; /* with the connection, for the publishes */
    uint64_t steps;      /* of routing, while it is committed: all of them together are limited */
    uint64_t held_up_to; /* all deliveries up to this tag are held: none is looked at twice */
};

struct tx *tx_new(struct channel *channel)
{
    struct tx *tx = xcalloc(1, sizeof(*tx));

    tx->channel = channel;
    return tx;
}

static struct tx_publish *publishes_of(const struct tx *tx, size_t *count)
{
    *count = buf_size(&tx->publishes) / sizeof(struct tx_publish);
    return (struct tx_publish *)(void *)tx->publishes.data;
}

static struct tx_settlement *settlements_of(const struct tx *tx, size_t *count)
{
    *count = buf_size(&tx->settlements) / sizeof(struct tx_settlement);
    return (struct tx_settlement *)(void *)tx->settlements.data;
}

static void release_publishes(struct tx *tx)
{
    buf_release(&tx->publishes);
    connection_unreserve(tx->channel->connection, tx->reserved_size);
    tx->reserved_size = 0;
}

static void drop_publishes(struct tx *tx)
{
    size_t count;
    struct tx_publish *publishes = publishes_of(tx, &count);

    for (size_t i = 0; i < count; i++)
        if (publishes[i].message != NULL)
            message_unref(&publishes[i].message);
    release_publishes(tx);
}

void tx_free(struct tx **tx)
{
    struct tx *gone = *tx;

    *tx = NULL;
    drop_publishes(gone);
    buf_release(&gone->settlements);
    free(gone);
}

bool tx_publish(struct tx *tx, struct message *message, bool mandatory, struct amqp_error *error)
{
    struct tx_publish publish = {message, mandatory};
    const uint64_t size = message_size(message) + sizeof(publish);

    if (!connection_reserve(tx->channel->connection, size, error)) {
        message_unref(&message);
        return false;
    }
    tx->reserved_size += size;
    buf_append(&tx->publishes, slice_of(&publish, sizeof(publish)));
    return true;
}

void tx_settle(struct tx *tx, struct delivery *delivery, enum settlement how)
{
    struct tx_settlement settlement = {delivery->tag, how};

    assert(!delivery->held);
    delivery->held = true;
    buf_append(&tx->settlements, slice_of(&settlement, sizeof(settlement)));
}

void tx_settle_up_to(struct tx *tx, uint64_t last, enum settlement how)
{
    struct deliveries *deliveries = &tx->channel->deliveries;
    struct delivery *delivery = deliveries_after(deliveries, tx->held_up_to);

    for (; delivery != NULL && delivery->tag <= last;
         delivery = deliveries_next(deliveries, delivery))
        if (!delivery->held)
            tx_settle(tx, delivery, how);
    tx->held_up_to = max_of(tx->held_up_to, min_of(last, deliveries->next_tag - 1));
}

/* NULL: it has gone since the publish was accepted, and its bindings with it. */
static struct exchange *exchange_of(const struct tx *tx, const struct message *message)
{
    struct amqp_error error;

    return vhost_find_exchange(tx->channel->connection->vhost, message_exchange(message), &error);
}

/* Whether the queues that this publish leads to would take it, behind those before it. */
static bool check_publish(struct tx *tx, const struct message *message, struct amqp_error *error)
{
    struct channel *channel = tx->channel;
    struct route *route = &channel->connection->service->route;
    const uint32_t steps_max = channel->broker->limits.routing_steps_max;
    struct exchange *exchange = exchange_of(tx, message);

    if (exchange == NULL)
        return true;
    exchange_preview(exchange, message, route);
    tx->steps += 1 + max_of(route->count, route_spent(route));
    if (route->is_exhausted || (steps_max != 0 && tx->steps > steps_max))
        return route_fail(route, exchange, error);
    for (size_t i = 0; i < route->count; i++)
        if (!queue_reserve(route->queues[i], channel->broker->reserve_mark, message->body_size))
            return amqp_fail(error, AMQP_PRECONDITION_FAILED, "partial tx completion"); /* 9.16 */
    return true;
}

/* One refusal refuses the whole transaction, before anything of it has happened. */
static bool check_publishes(struct tx *tx, struct amqp_error *error)
{
    size_t count;
    struct tx_publish *publishes = publishes_of(tx, &count);

    tx->channel->broker->reserve_mark++;
    tx->steps = 0;
    for (size_t i = 0; i < count; i++)
        if (!check_publish(tx, publishes[i].message, error))
            return false;
    return true;
}

static void apply_publishes(struct tx *tx)
{
    size_t count;
    struct tx_publish *publishes = publishes_of(tx, &count);

    for (size_t i = 0; i < count; i++) {
        struct message *message = publishes[i].message;
        publishes[i].message = NULL;
        struct exchange *exchange = exchange_of(tx, message);
        if (exchange != NULL)
            channel_route(tx->channel, exchange, message, publishes[i].mandatory);
        else
            channel_drop(tx->channel, message, publishes[i].mandatory);
    }
    release_publishes(tx);
}

static void apply_settlements(struct tx *tx)
{
    size_t count;
    struct tx_settlement *settlements = settlements_of(tx, &count);

    for (size_t i = 0; i < count; i++) {
        struct delivery *delivery = deliveries_find(&tx->channel->deliveries, settlements[i].tag);
        assert(delivery != NULL && delivery->held);
        channel_settle(tx->channel, delivery, settlements[i].how);
        dead_letters_run_taken(tx->channel->broker); /* part of it */
    }
    broker_spend(tx->channel->broker, count * ROUTE_QUEUE_STEPS);
    buf_release(&tx->settlements);
    tx->held_up_to = 0;
}

/* A planted bug. */
static void submit_now(struct store *store)
{
    while (store_is_busy(store))
        store_process(store);
    if (!store_open_is_empty(store))
        store_submit(store);
}

/* It may put entries: publishes, or dead letters of what it rejects. */
static bool may_put(const struct tx *tx)
{
    size_t publishes, settlements;

    publishes_of(tx, &publishes);
    const struct tx_settlement *settled = settlements_of(tx, &settlements);
    for (size_t i = 0; i < settlements; i++)
        if (settled[i].how != SETTLE_ACK)
            return true;
    return publishes > 0;
}

bool tx_commit(struct tx *tx, uint64_t *lsn, bool *entries, struct amqp_error *error)
{
    struct broker *broker = tx->channel->broker;
    struct store *store = broker->store;
    const bool was_full = channel_is_full(tx->channel);

    if (!check_publishes(tx, error))
        return false;
    *entries = may_put(tx);
    apply_publishes(tx);
    fault_point(FAULT_TX_PUBLISHED);
    if (fault_bug(FAULT_SPLIT_TX))
        submit_now(store);
    broker->in_transaction = true;
    broker->transaction_puts = *entries; /* all of it or nothing, even without room */
    apply_settlements(tx);
    broker->in_transaction = broker->transaction_puts = false;
    queues_drop_overflow(broker);
    if (was_full)
        channel_wake_consumers(tx->channel);
    fault_point(FAULT_TX_WHOLE);
    *lsn = store_open_is_empty(store) ? 0 : store_open_lsn(store);
    return true;
}

static void forget_settlements(struct tx *tx)
{
    size_t count;
    const struct tx_settlement *settlements = settlements_of(tx, &count);

    for (size_t i = 0; i < count; i++)
        deliveries_find(&tx->channel->deliveries, settlements[i].tag)->held = false;
    buf_release(&tx->settlements);
    tx->held_up_to = 0;
}

void tx_rollback(struct tx *tx)
{
    forget_settlements(tx);
    drop_publishes(tx);
}
