#include "session/consumer_timeout.h"

#include "amqp/table.h"
#include "base/log.h"
#include "core/argument.h"
#include "core/vhost.h"
#include "session/service.h"

bool consumer_timeout_read(const struct channel *channel, const struct queue *queue,
                           struct slice arguments, uint64_t *timeout_ms, struct amqp_error *error)
{
    const struct slice key = SLICE("x-consumer-timeout");
    struct amqp_value value;
    int64_t number;

    *timeout_ms = queue->settings.consumer_timeout_ms != SETTING_NONE
                      ? queue->settings.consumer_timeout_ms
                      : channel->connection->service->limits.consumer_timeout_ms;
    if (!amqp_table_find(arguments, key, &value))
        return true;
    if (!amqp_value_integer(&value, &number) || number < 0)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "invalid arg '%.*s' for queue '%.*s' in vhost '%.*s': a number of "
                         "milliseconds is expected",
                         SLICE_ARG(key), SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name));
    *timeout_ms = (uint64_t)number;
    return true;
}

static void set_timer(struct channel *channel, uint64_t deadline_ms)
{
    timer_set(&channel->broker->loop->timers, &channel->timeout, deadline_ms);
}

void consumer_timeout_watch(struct subscription *subscription)
{
    struct channel *channel = subscription->channel;
    const uint64_t due_ms = channel->broker->clock->now_ms + subscription->timeout_ms;
    const uint64_t due_s = min_of((due_ms + 999) / 1000, (uint64_t)UINT32_MAX);

    deliveries_youngest(&channel->deliveries)->due_s = (uint32_t)due_s;
    if (!timer_is_set(&channel->timeout) || channel->timeout.deadline_ms > due_s * 1000)
        set_timer(channel, due_s * 1000);
}

static struct subscription *subscription_of(const struct delivery *delivery)
{
    return container_of(delivery->consumer, struct subscription, consumer);
}

/* Marks those who are late, and sets the timer for the others. Whether anybody is late. */
static bool find_overdue(struct channel *channel)
{
    const uint64_t now_ms = channel->broker->clock->now_ms, now_s = now_ms / 1000;
    uint64_t next_s = UINT64_MAX;
    bool found = false;

    for (struct delivery *delivery = deliveries_oldest(&channel->deliveries); delivery != NULL;
         delivery = deliveries_next(&channel->deliveries, delivery)) {
        if (delivery->due_s == 0)
            continue;
        if (delivery->due_s > now_s) {
            next_s = min_of(next_s, (uint64_t)delivery->due_s);
            continue;
        }
        if (delivery->consumer == NULL || delivery->consumer->state == CONSUMER_GONE)
            continue;
        if (delivery->held) {
            next_s = now_s + 1; /* the transaction may be rolled back */
            continue;
        }
        subscription_of(delivery)->overdue_ms = now_ms;
        found = true;
    }
    if (next_s != UINT64_MAX)
        set_timer(channel, next_s * 1000);
    return found;
}

static void log_overdue(const struct channel *channel, const struct subscription *subscription)
{
    const struct consumer *consumer = &subscription->consumer;
    char label[CONNECTION_LABEL_SIZE];

    log_warning("connection %s, channel %u: consumer '%.*s' of queue '%.*s' has not acknowledged a "
                "delivery for %" PRIu64 " ms and is cancelled, or its channel closed",
                connection_label(channel->connection, label), channel->number,
                SLICE_ARG(consumer->tag), SLICE_ARG(consumer->queue->name),
                subscription->timeout_ms);
}

/* Returns the timeout of the first. */
static uint64_t cancel_overdue(struct channel *channel)
{
    struct map_link *link = map_next(&channel->consumers, NULL);
    uint64_t timeout_ms = 0;

    while (link != NULL) {
        struct subscription *subscription = container_of(link, struct subscription, by_tag);
        link = map_next(&channel->consumers, link);
        if (subscription->overdue_ms == 0)
            continue;
        log_overdue(channel, subscription);
        if (timeout_ms == 0)
            timeout_ms = subscription->timeout_ms;
        subscription_cancel(&subscription);
    }
    return timeout_ms;
}

/* All that they have not settled, not only what is due. Who has any left is still there, though
 * cancelled; who was so at another time left what he had to the client. */
static void requeue_from_overdue(struct channel *channel)
{
    const uint64_t now_ms = channel->broker->clock->now_ms;
    struct delivery *delivery = deliveries_oldest(&channel->deliveries);

    while (delivery != NULL) {
        struct delivery *next = deliveries_next(&channel->deliveries, delivery);
        if (delivery->consumer != NULL && !delivery->held &&
            subscription_of(delivery)->overdue_ms == now_ms)
            channel_settle(channel, delivery, SETTLE_REQUEUE);
        delivery = next;
    }
    queues_drop_overflow(channel->broker);
    channel_wake_consumers(channel); /* the others may have what these had of their prefetch */
}

static void refuse_channel(struct channel *channel, uint64_t timeout_ms)
{
    struct amqp_error error = {0};

    amqp_fail(&error, AMQP_PRECONDITION_FAILED,
              "delivery acknowledgement on channel %u timed out. Timeout value used: %" PRIu64
              " ms. This timeout value can be configured, see consumers doc guide to learn more",
              channel->number, timeout_ms);
    channel_refuse(channel, &error);
}

/* They leave before their messages go back, which a queue that has too many hands out at once. */
void on_consumer_timeout(struct timer *timer)
{
    struct channel *channel = container_of(timer, struct channel, timeout);

    if (!find_overdue(channel))
        return;
    const uint64_t timeout_ms = cancel_overdue(channel);
    requeue_from_overdue(channel);
    if (!channel->connection->can_consumer_cancel_notify)
        refuse_channel(channel, timeout_ms);
}
