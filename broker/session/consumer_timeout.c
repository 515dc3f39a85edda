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

/* Whose it is, if that can still be cancelled; or NULL. */
static struct subscription *subscription_of(const struct delivery *delivery)
{
    struct consumer *consumer = delivery->consumer;

    return consumer == NULL || consumer->state == CONSUMER_GONE
               ? NULL
               : container_of(consumer, struct subscription, consumer);
}

/* Marks those who are late, and sets the timer for the others. Whether anybody is late. */
static bool find_overdue(struct channel *channel)
{
    const uint64_t now_s = channel->broker->clock->now_ms / 1000;
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
        struct subscription *subscription = subscription_of(delivery);
        if (subscription == NULL)
            continue;
        if (delivery->held)
            next_s = now_s + 1; /* the transaction may be rolled back */
        else
            subscription->overdue = found = true;
    }
    if (next_s != UINT64_MAX)
        set_timer(channel, next_s * 1000);
    return found;
}

/* All that they have not settled, not only what is due. */
static void requeue_from_overdue(struct channel *channel)
{
    struct delivery *delivery = deliveries_oldest(&channel->deliveries);

    while (delivery != NULL) {
        struct delivery *next = deliveries_next(&channel->deliveries, delivery);
        const struct subscription *subscription = subscription_of(delivery);
        if (subscription != NULL && subscription->overdue && !delivery->held)
            channel_settle(channel, delivery, SETTLE_REQUEUE);
        delivery = next;
    }
    queues_drop_overflow(channel->broker);
    channel_wake_consumers(channel); /* the others may have what these had of their prefetch */
}

static void log_overdue(const struct channel *channel, const struct subscription *subscription)
{
    const struct consumer *consumer = &subscription->consumer;
    char label[CONNECTION_LABEL_SIZE];

    log_warning("connection %s, channel %u: consumer '%.*s' of queue '%.*s' has not acknowledged a "
                "delivery for %" PRIu64 " ms and is cancelled",
                connection_label(channel->connection, label), channel->number,
                SLICE_ARG(consumer->tag), SLICE_ARG(consumer->queue->name),
                subscription->timeout_ms);
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

/* The first of them ends the channel of a client that is not told of cancels. */
static void cancel_overdue(struct channel *channel)
{
    struct map_link *link = map_next(&channel->consumers, NULL);

    while (link != NULL) {
        struct subscription *subscription = container_of(link, struct subscription, by_tag);
        link = map_next(&channel->consumers, link);
        if (!subscription->overdue)
            continue;
        log_overdue(channel, subscription);
        if (!channel->connection->can_consumer_cancel_notify) {
            refuse_channel(channel, subscription->timeout_ms);
            return;
        }
        subscription_cancel(&subscription);
    }
}

void on_consumer_timeout(struct timer *timer)
{
    struct channel *channel = container_of(timer, struct channel, timeout);

    if (!find_overdue(channel))
        return;
    requeue_from_overdue(channel);
    cancel_overdue(channel);
}
