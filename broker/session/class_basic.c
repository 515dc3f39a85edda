/* Class basic: publish, consume, get, and the settling of deliveries. */
#include "core/argument.h"
#include "core/copies.h"
#include "core/delivery_count.h"
#include "core/name.h"
#include "core/vhost.h"
#include "session/consumer_timeout.h"
#include "session/dispatch.h"
#include "session/reply_to.h"
#include "session/service.h"
#include "session/subscription.h"
#include "session/tx.h"

/* ---- publish ---- */

/* The method alone: the content follows, and channel_publish when it is whole. */
bool on_basic_publish(struct channel *channel, const struct amqp_method *method,
                      struct amqp_error *error)
{
    const struct amqp_basic_publish *publish = &method->basic_publish;

    if (publish->immediate)
        return amqp_fail(error, AMQP_NOT_IMPLEMENTED, "immediate=true"); /* 9.4 */
    channel->publish_mandatory = publish->mandatory;
    channel->publish_exchange_size = (uint8_t)publish->exchange.size;
    channel->publish_key_size = (uint8_t)publish->routing_key.size;
    amqp_put_bytes(channel->publish_exchange, publish->exchange);
    amqp_put_bytes(channel->publish_key, publish->routing_key);
    channel->expects = EXPECT_HEADER;
    if (unlikely(alarm_is_on(&channel->connection->service->alarm)))
        connection_block(channel->connection);
    return true;
}

static void return_message(struct channel *channel, struct message *message)
{
    channel->returned++;
    channel->broker->counters.returned++;
    channel_send_content(channel,
                         &(struct amqp_method){
                             .id = AMQP_BASIC_RETURN,
                             .basic_return.reply_code = AMQP_NO_ROUTE,
                             .basic_return.reply_text = SLICE("NO_ROUTE"),
                             .basic_return.exchange = message_exchange(message),
                             .basic_return.routing_key = message_routing_key(message),
                         },
                         message);
}

/* 9.5 */
static void miss(struct channel *channel, struct message *message, bool mandatory)
{
    if (mandatory)
        return_message(channel, message);
    else
        channel->broker->counters.dropped_unroutable++;
}

void channel_drop(struct channel *channel, struct message *message, bool mandatory)
{
    channel->published++;
    channel->broker->counters.messages.published++;
    miss(channel, message, mandatory);
    message_unref(&message);
}

/* The LSN that the publish of this message, just routed, waits for; 0 when it waits for nothing. */
static uint64_t lsn_awaited(const struct channel *channel, const struct message *message)
{
    struct store *store = channel->broker->store;

    return store_lsn_is_open(store, message->lsn) && message->unsynced > 0 ? store_open_lsn(store)
                                                                           : 0;
}

static void await_confirm(struct channel *channel, struct message *message)
{
    uint64_t lsn = lsn_awaited(channel, message);
    uint64_t number = confirms_add(channel->confirms, lsn);

    if (lsn == 0)
        return;
    message->publisher = &channel->confirms->publisher;
    message->sequence = number;
    publisher_ref(message->publisher);
}

/* To none, or to many; true: the channel is closed, nothing of it may be touched. */
static __attribute__((noinline)) bool route_unusually(struct channel *channel,
                                                      const struct exchange *exchange,
                                                      struct message *message, bool mandatory)
{
    const struct route *route = &channel->connection->service->route;
    struct amqp_error error = {.class_id = amqp_class_of(AMQP_BASIC_PUBLISH),
                               .method_id = amqp_method_of(AMQP_BASIC_PUBLISH)};

    if (route->is_exhausted && channel->tx == NULL) {
        route_fail(route, exchange, &error);
        return channel_refuse(channel, &error);
    }
    if (route_leads_nowhere(route))
        miss(channel, message, mandatory);
    return false;
}

/* Dead letters are behind: who adds to those waits. */
static __attribute__((noinline)) void await_letters(struct channel *channel)
{
    if (channel->tx == NULL &&
        dead_letters_lag(channel->broker, &channel->connection->service->route))
        connection_await_letters(channel->connection);
}

void channel_route(struct channel *channel, struct exchange *exchange, struct message *message,
                   bool mandatory)
{
    struct route *route = &channel->connection->service->route;

    channel->published++;
    channel->broker->counters.messages.published++;
    exchange_route_message(exchange, message, route);
    bool taken = route_deliver(route, message);
    if (unlikely(route->count != 1) && route_unusually(channel, exchange, message, mandatory)) {
        message_unref(&message);
        return;
    }
    if (channel->confirms != NULL) {
        if (likely(taken))
            await_confirm(channel, message);
        else
            confirms_refuse(channel->confirms); /* 9.11 */
    }
    if (unlikely(channel->broker->dead_letters.are_behind))
        await_letters(channel);
    message_unref(&message);
}

enum { EXPIRATION_MAX_MS = 315360000000 }; /* ten years: 9.2 */

/* Why it is not a number of milliseconds, in the words that clients and their logs know. */
static bool fail_expiration(struct slice expiration, struct amqp_error *error)
{
    const size_t sign = slice_starts_with(expiration, SLICE("-")) ? 1 : 0;
    size_t end = sign;
    char reason[300];

    while (end < expiration.size && expiration.data[end] >= '0' && expiration.data[end] <= '9')
        end++;
    if (end == sign)
        snprintf(reason, sizeof(reason), "no_integer");
    else if (end < expiration.size)
        snprintf(reason, sizeof(reason), "{leftover_string,\"%.*s\"}", (int)(expiration.size - end),
                 (const char *)expiration.data + end);
    else
        snprintf(reason, sizeof(reason), "{%s,%.*s}", sign ? "value_negative" : "value_too_large",
                 SLICE_ARG(expiration));
    return amqp_fail(error, AMQP_PRECONDITION_FAILED, "invalid expiration '%.*s': %s",
                     SLICE_ARG(expiration), reason);
}

/* 9.2 */
static bool check_expiration(const struct message *message, struct amqp_error *error)
{
    const struct slice expiration =
        amqp_properties_find(message_properties(message), AMQP_PROPERTY_EXPIRATION);
    uint64_t ms;

    return slice_to_u64(expiration, EXPIRATION_MAX_MS, &ms) || fail_expiration(expiration, error);
}

/* 9.3 */
static bool check_user_id(const struct channel *channel, const struct message *message,
                          struct amqp_error *error)
{
    const struct slice claimed =
        amqp_properties_find(message_properties(message), AMQP_PROPERTY_USER_ID);
    const struct slice user = channel->connection->user->name;

    return channel->connection->user->impersonator || slice_equal(claimed, user) ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "user_id property set to '%.*s' but authenticated user was '%.*s'",
                     SLICE_ARG(claimed), SLICE_ARG(user));
}

enum {
    CHECKED_PROPERTIES = AMQP_PROPERTY_REPLY_TO | AMQP_PROPERTY_EXPIRATION | AMQP_PROPERTY_HEADERS |
                         AMQP_PROPERTY_USER_ID
};

/* 16.3: every key, those of CC and BCC too. */
static bool check_topics(const struct channel *channel, const struct exchange *exchange,
                         const struct message *message, struct amqp_error *error)
{
    const struct grant *grant = channel->connection->asker.grant;
    struct slice keys[1 + COPIES_MAX] = {message_routing_key(message)};
    const size_t count = message->has_copies ? copies_list(message, keys) : 1;

    for (size_t i = 0; i < count; i++)
        if (!permission_check_topic(grant, ACCESS_WRITE, exchange->name, keys[i], error))
            return false;
    return true;
}

static bool is_limited_to_topics(const struct channel *channel, const struct exchange *exchange)
{
    return exchange_is_topic(exchange) &&
           permission_topic(channel->connection->asker.grant, exchange->name) != NULL;
}

/* What the properties and keys must keep to, in the order of 9.1. Another message may take the
 * place of this one. */
static bool check_properties(const struct channel *channel, const struct exchange *exchange,
                             struct message **message, struct amqp_error *error)
{
    const uint16_t flags = amqp_properties_flags(message_properties(*message));

    return (!(flags & AMQP_PROPERTY_REPLY_TO) || reply_to_rewrite(channel, message, error)) &&
           (!(flags & AMQP_PROPERTY_EXPIRATION) || check_expiration(*message, error)) &&
           (!(flags & AMQP_PROPERTY_HEADERS) || copies_take(message, error)) &&
           (!is_limited_to_topics(channel, exchange) ||
            check_topics(channel, exchange, *message, error)) &&
           (!(flags & AMQP_PROPERTY_USER_ID) || check_user_id(channel, *message, error));
}

/* The exchange of a publish: one that is there, and that the user may write to. An answer that
 * holds for any key is kept, so that the next publish need not ask. NULL with error filled. */
static __attribute__((noinline)) struct exchange *find_publishable(struct channel *channel,
                                                                   struct slice name,
                                                                   struct amqp_error *error)
{
    struct vhost *vhost = channel->connection->vhost;

    channel->publishable = NULL;
    if (!permission_check(channel->connection->asker.grant, ACCESS_PUBLISH, name, (struct slice){0},
                          error))
        return NULL;
    struct exchange *exchange = vhost_find_exchange(vhost, name, error);
    if (exchange == NULL)
        return NULL;
    if (exchange->internal) {
        amqp_fail(error, AMQP_ACCESS_REFUSED,
                  "cannot publish to internal exchange '%.*s' in vhost '%.*s'",
                  SLICE_ARG(exchange->name), SLICE_ARG(vhost->name));
        return NULL;
    }
    if (!is_limited_to_topics(channel, exchange)) {
        channel->publishable = exchange;
        channel->publishable_generation = channel->broker->users.generation;
    }
    return exchange;
}

static bool is_publishable(const struct channel *channel, const struct exchange *exchange)
{
    return likely(exchange == channel->publishable &&
                  channel->publishable_generation == channel->broker->users.generation);
}

bool channel_publish(struct channel *channel, struct amqp_error *error)
{
    struct message *message = channel->message;
    const struct slice name = message_exchange(message);

    channel->message = NULL;
    struct exchange *exchange = vhost_find_exchange(channel->connection->vhost, name, error);
    if (exchange == NULL || !is_publishable(channel, exchange))
        exchange = find_publishable(channel, name, error);
    if (exchange == NULL)
        goto refused;
    if ((amqp_properties_flags(message_properties(message)) & CHECKED_PROPERTIES ||
         channel->publishable == NULL) &&
        !check_properties(channel, exchange, &message, error))
        goto refused;
    if (channel->tx != NULL)
        return tx_publish(channel->tx, message, channel->publish_mandatory, error);
    else
        channel_route(channel, exchange, message, channel->publish_mandatory);
    return true;

refused:
    message_unref(&message);
    return false;
}

/* ---- consume ---- */

bool on_basic_qos(struct channel *channel, const struct amqp_method *method,
                  struct amqp_error *error)
{
    const struct amqp_basic_qos *qos = &method->basic_qos;

    if (qos->prefetch_size != 0) /* 10.1 */
        return amqp_fail(error, AMQP_NOT_IMPLEMENTED, "prefetch_size!=0 (%" PRIu32 ")",
                         qos->prefetch_size);
    if (qos->global) {
        channel_set_global_prefetch(channel, qos->prefetch_count);
        channel_wake_consumers(channel);
    } else {
        channel->prefetch = qos->prefetch_count; /* 10.2: of consumers started afterwards */
    }
    channel_send(channel, &(struct amqp_method){.id = AMQP_BASIC_QOS_OK});
    return true;
}

/* A second reply consumer is refused as such, whatever its tag (14.1). */
static bool is_tag_in_use(const struct channel *channel, const struct amqp_basic_consume *consume)
{
    return map_find(&channel->consumers, consume->consumer_tag) != NULL ||
           (channel->reply_to != NULL && !reply_to_is_pseudo_queue(consume->queue) &&
            slice_equal(reply_to_tag(channel->reply_to), consume->consumer_tag));
}

static bool check_consume(const struct channel *channel, const struct amqp_basic_consume *consume,
                          struct amqp_error *error)
{
    const struct service *service = channel->connection->service;
    const uint32_t max = service->limits.consumer_max_per_channel;
    const uint32_t node_max = service->limits.consumer_max_per_node;

    if (max > 0 && channel->consumer_count >= max)
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "reached maximum (%" PRIu32 ") of consumers per channel", max);
    if (node_max > 0 && service->consumer_count >= node_max)
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "reached maximum (%" PRIu32
                         ") of consumers on node '%s' (consumer_max_per_node)",
                         node_max, service->node);
    if (is_tag_in_use(channel, consume))
        return amqp_fail(error, AMQP_NOT_ALLOWED, "attempt to reuse consumer tag '%.*s'",
                         SLICE_ARG(consume->consumer_tag));
    return true;
}

static bool is_quorum(const struct queue *queue)
{
    return argument_queue_type(queue->arguments) == QUEUE_QUORUM;
}

/* 10.5: an exclusive consumer is alone, for good (10.11). A quorum queue has none (10.6). */
static bool check_exclusive(const struct queue *queue, bool exclusive, struct amqp_error *error)
{
    if (queue->has_exclusive_consumer ||
        (exclusive && (queue->consumer_count > 0 || queue->consumers.single_active)))
        return amqp_fail(error, AMQP_ACCESS_REFUSED,
                         "queue '%.*s' in vhost '%.*s' in exclusive use", SLICE_ARG(queue->name),
                         SLICE_ARG(queue->vhost->name));
    return true;
}

static bool check_arguments(const struct queue *queue, struct slice arguments,
                            struct amqp_error *error)
{
    const struct argument_owner owner = {"queue", queue->name, queue->vhost->name};

    return argument_check_consumer(&owner, arguments, error) &&
           vhost_check_arguments_size(arguments, error) &&
           (arguments.size == 0 || vhost_check_octets(queue->vhost, "consume from queue",
                                                      queue->name, arguments.size, error));
}

/* Before anything is delivered: that begins later in this turn (10.8). */
static void send_consume_ok(struct channel *channel, const struct amqp_basic_consume *consume,
                            struct slice tag)
{
    if (!consume->no_wait)
        channel_send(channel, &(struct amqp_method){.id = AMQP_BASIC_CONSUME_OK,
                                                    .basic_consume_ok.consumer_tag = tag});
}

bool on_basic_consume(struct channel *channel, const struct amqp_method *method,
                      struct amqp_error *error)
{
    const struct amqp_basic_consume *consume = &method->basic_consume;
    char generated[NAME_RANDOM_SIZE + sizeof("amq.ctag-")];
    struct slice tag = consume->consumer_tag;
    struct slice name = consume->queue;

    if (!channel_queue_name(channel, &name, error) || !check_consume(channel, consume, error))
        return false;
    if (tag.size == 0)
        tag = name_random(channel->broker->random, "amq.ctag-", generated, sizeof(generated));
    if (reply_to_is_pseudo_queue(name)) {
        if (!reply_to_consume(channel, tag, consume->no_ack, error))
            return false;
        send_consume_ok(channel, consume, tag);
        return true;
    }
    struct queue *queue = channel_find_queue(channel, name, ACCESS_CONSUME, error);
    const bool exclusive = consume->exclusive && queue != NULL && !is_quorum(queue);
    uint64_t timeout_ms;
    if (queue == NULL || !check_exclusive(queue, exclusive, error) ||
        !check_arguments(queue, consume->arguments, error) ||
        !consumer_timeout_read(channel, queue, consume->arguments, &timeout_ms, error))
        return false;

    send_consume_ok(channel, consume, tag);
    subscription_new(channel, queue,
                     &(struct subscription_options){.tag = tag,
                                                    .arguments = consume->arguments,
                                                    .no_ack = consume->no_ack,
                                                    .exclusive = exclusive,
                                                    .prefetch = channel->prefetch,
                                                    .timeout_ms = timeout_ms});
    return true;
}

bool on_basic_cancel(struct channel *channel, const struct amqp_method *method,
                     struct amqp_error *error)
{
    const struct amqp_basic_cancel *cancel = &method->basic_cancel;
    struct subscription *subscription = subscription_find(channel, cancel->consumer_tag);
    (void)error;

    if (subscription != NULL)
        subscription_free(&subscription);
    else if (channel->reply_to != NULL &&
             slice_equal(reply_to_tag(channel->reply_to), cancel->consumer_tag))
        reply_to_free(&channel->reply_to);
    if (!cancel->no_wait) /* an unknown tag too: 10.9 */
        channel_send(channel,
                     &(struct amqp_method){.id = AMQP_BASIC_CANCEL_OK,
                                           .basic_cancel_ok.consumer_tag = cancel->consumer_tag});
    return true;
}

/* The client's answer to our cancel: nothing to do (10.10). */
bool on_basic_cancel_ok(struct channel *channel, const struct amqp_method *method,
                        struct amqp_error *error)
{
    (void)channel, (void)method, (void)error;
    return true;
}

/* ---- get ---- */

static void send_got(struct channel *channel, struct queue *queue, struct place place, bool no_ack)
{
    const struct entry *entry = place_entry(place);
    struct message *message =
        entry->acquired_count == 0 ? message_ref(entry->message) : delivery_count_show(entry);
    uint64_t tag = no_ack ? deliveries_skip(&channel->deliveries)
                          : deliveries_add(&channel->deliveries, queue, place, NULL);

    if (!no_ack)
        channel_count_unacked(channel, entry);

    channel->delivered++;
    channel_send_content(channel,
                         &(struct amqp_method){
                             .id = AMQP_BASIC_GET_OK,
                             .basic_get_ok.delivery_tag = tag,
                             .basic_get_ok.redelivered = entry->redelivered,
                             .basic_get_ok.exchange = message_exchange(message),
                             .basic_get_ok.routing_key = message_routing_key(message),
                             .basic_get_ok.message_count =
                                 (uint32_t)min_of(queue_ready_count(queue), (uint64_t)UINT32_MAX),
                         },
                         message);
    message_unref(&message);
    if (no_ack)
        queue_discard(queue, place);
}

/* Answers, or leaves the connection held until the message has been read from disk. */
static void get_from(struct channel *channel, struct queue *queue)
{
    struct place place;

    switch (queue_get(queue, channel->get_no_ack, &place, &channel->get_waiter)) {
    case WINDOW_READY:
        send_got(channel, queue, place, channel->get_no_ack);
        return;
    case WINDOW_NOTHING:
        channel_send(channel, &(struct amqp_method){.id = AMQP_BASIC_GET_EMPTY});
        return;
    case WINDOW_ON_DISK:
        channel->get_queue = queue;
        connection_hold(channel->connection);
        return;
    }
}

static void on_get_loaded(struct queue_waiter *waiter)
{
    struct channel *channel = container_of(waiter, struct channel, get_waiter);
    struct queue *queue = channel->get_queue;

    struct amqp_error error = {.class_id = amqp_class_of(AMQP_BASIC_GET),
                               .method_id = amqp_method_of(AMQP_BASIC_GET)};

    channel->get_queue = NULL;
    connection_unhold(channel->connection);
    if (queue->deleted)
        channel_send(channel, &(struct amqp_method){.id = AMQP_BASIC_GET_EMPTY});
    else if (permission_check(channel->connection->asker.grant, ACCESS_GET, queue->name,
                              (struct slice){0}, &error)) /* it may have been taken away */
        get_from(channel, queue);
    else
        channel_refuse(channel, &error);
}

/* Who takes and never acknowledges is stopped where consumers just wait. */
static bool check_unacked(const struct channel *channel, bool no_ack, struct amqp_error *error)
{
    const struct connection *connection = channel->connection;
    const uint32_t max = connection->service->limits.unacked_max_per_channel;
    const uint64_t size_max = connection->service->unacked_size_max;

    if (no_ack)
        return true;
    if (max != 0 && channel->deliveries.count >= max)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "%zu deliveries of this channel are not acknowledged, the maximum is "
                         "%" PRIu32 " (unacked_max_per_channel)",
                         channel->deliveries.count, max);
    return connection->unacked_size < size_max ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "messages of %" PRIu64 " octets that were delivered to this connection are "
                     "not acknowledged, the maximum is %" PRIu64 " (unacked_memory_limit)",
                     connection->unacked_size, size_max);
}

/* 10.11 */
static bool check_get(const struct queue *queue, struct amqp_error *error)
{
    return !queue->consumers.single_active || !is_quorum(queue) ||
           amqp_fail(error, AMQP_RESOURCE_LOCKED,
                     "cannot obtain access to locked queue '%.*s' in vhost '%.*s'. basic.get "
                     "operations are not supported by quorum queues with single active consumer",
                     SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name));
}

bool on_basic_get(struct channel *channel, const struct amqp_method *method,
                  struct amqp_error *error)
{
    if (unlikely(reply_to_is_reserved(method->basic_get.queue))) /* 10.12 */
        return amqp_fail(error, AMQP_NOT_IMPLEMENTED,
                         "basic.get is not supported by queue '%.*s' in vhost '%.*s'",
                         SLICE_ARG(method->basic_get.queue),
                         SLICE_ARG(channel->connection->vhost->name));
    struct queue *queue = channel_find_queue(channel, method->basic_get.queue, ACCESS_GET, error);
    if (queue == NULL || !check_get(queue, error) ||
        !check_unacked(channel, method->basic_get.no_ack, error))
        return false;
    channel->get_no_ack = method->basic_get.no_ack;
    channel->get_waiter.on_loaded = on_get_loaded;
    get_from(channel, queue);
    return true;
}

/* ---- settling ---- */

void channel_settle(struct channel *channel, struct delivery *delivery, enum settlement how)
{
    struct delivery settled = deliveries_take(&channel->deliveries, delivery);

    if (settled.consumer != NULL)
        channel->global_unacked--;
    channel_uncount_unacked(channel, place_entry(settled.place));
    switch (how) {
    case SETTLE_ACK:
        channel->acknowledged++;
        queue_ack(settled.queue, settled.place, settled.consumer);
        break;
    case SETTLE_REJECT:
        queue_reject(settled.queue, settled.place, settled.consumer);
        break;
    case SETTLE_REQUEUE:
    case SETTLE_RETURN:
        queue_requeue(settled.queue, settled.place, settled.consumer, how == SETTLE_RETURN);
        break;
    }
    queue_unref(&settled.queue);
    if (unlikely(channel->connection->laden_at > 0))
        connection_lighten(channel->connection);
}

static void settle_one(struct channel *channel, struct delivery *delivery, enum settlement how)
{
    if (channel->tx != NULL)
        tx_settle(channel->tx, delivery, how);
    else
        channel_settle(channel, delivery, how);
}

/* Everything outstanding up to this tag, oldest first. */
static void settle_up_to(struct channel *channel, uint64_t last, enum settlement how)
{
    struct delivery *delivery;

    if (channel->tx != NULL) {
        tx_settle_up_to(channel->tx, last, how);
        return;
    }
    while ((delivery = deliveries_oldest(&channel->deliveries)) != NULL && delivery->tag <= last)
        channel_settle(channel, delivery, how);
}

/* One frame may settle all that a channel has; one that settles one is worth its octets. */
static void share_turn(struct channel *channel, size_t before)
{
    assert(channel->deliveries.count <= before);
    const size_t count = before - channel->deliveries.count;

    if (likely(count <= 1))
        return;
    broker_spend(channel->broker, count * ROUTE_QUEUE_STEPS);
    connection_share_turn(channel->connection);
}

/* basic.ack, nack and reject (10.16, 10.17): tag 0 with multiple is all of them. */
static bool settle(struct channel *channel, uint64_t tag, bool multiple, enum settlement how,
                   struct amqp_error *error)
{
    const bool was_full = channel_is_full(channel);
    const size_t before = channel->deliveries.count;
    struct delivery *delivery = NULL;

    if (!multiple || tag != 0) {
        delivery = deliveries_find(&channel->deliveries, tag);
        if (delivery == NULL || delivery->held)
            return amqp_fail(error, AMQP_PRECONDITION_FAILED, "unknown delivery tag %" PRIu64, tag);
    }
    if (multiple)
        settle_up_to(channel, tag == 0 ? UINT64_MAX : tag, how);
    else
        settle_one(channel, delivery, how);
    if (was_full)
        channel_wake_consumers(channel);
    share_turn(channel, before);
    return true;
}

bool on_basic_ack(struct channel *channel, const struct amqp_method *method,
                  struct amqp_error *error)
{
    const struct amqp_basic_ack *ack = &method->basic_ack;

    return settle(channel, ack->delivery_tag, ack->multiple, SETTLE_ACK, error);
}

bool on_basic_nack(struct channel *channel, const struct amqp_method *method,
                   struct amqp_error *error)
{
    const struct amqp_basic_nack *nack = &method->basic_nack;

    if (!settle(channel, nack->delivery_tag, nack->multiple,
                nack->requeue ? SETTLE_REQUEUE : SETTLE_REJECT, error))
        return false;
    queues_drop_overflow(channel->broker);
    return true;
}

bool on_basic_reject(struct channel *channel, const struct amqp_method *method,
                     struct amqp_error *error)
{
    const struct amqp_basic_reject *reject = &method->basic_reject;

    if (!settle(channel, reject->delivery_tag, false,
                reject->requeue ? SETTLE_RETURN : SETTLE_REJECT, error))
        return false;
    queues_drop_overflow(channel->broker);
    return true;
}

/* What a transaction holds is settled already, as far as the client goes (9.15). */
static void requeue_unheld(struct channel *channel)
{
    struct delivery *delivery = deliveries_oldest(&channel->deliveries);

    while (delivery != NULL) {
        struct delivery *next = deliveries_next(&channel->deliveries, delivery);
        if (!delivery->held)
            channel_settle(channel, delivery, SETTLE_RETURN);
        delivery = next;
    }
    channel_wake_consumers(channel);
}

/* Nothing is delivered again before it is answered. */
static bool recover(struct channel *channel, bool requeue, bool answers, struct amqp_error *error)
{
    if (!requeue)
        return amqp_fail(error, AMQP_NOT_IMPLEMENTED, "requeue=false"); /* 10.18 */
    const size_t before = channel->deliveries.count;
    requeue_unheld(channel);
    if (answers)
        channel_send(channel, &(struct amqp_method){.id = AMQP_BASIC_RECOVER_OK});
    share_turn(channel, before);
    queues_drop_overflow(channel->broker); /* which may deliver some again */
    return true;
}

bool on_basic_recover(struct channel *channel, const struct amqp_method *method,
                      struct amqp_error *error)
{
    return recover(channel, method->basic_recover.requeue, true, error);
}

bool on_basic_recover_async(struct channel *channel, const struct amqp_method *method,
                            struct amqp_error *error)
{
    return recover(channel, method->basic_recover_async.requeue, false, error);
}
