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

static uint64_t now_ms(const struct subscription *subscription)
{
    return subscription->channel->broker->clock->now_ms;
}

static void set_timer(struct subscription *subscription, uint64_t deadline_ms)
{
    timer_set(&subscription->channel->broker->loop->timers, &subscription->timer, deadline_ms);
}

void consumer_timeout_watch(struct subscription *subscription)
{
    deliveries_youngest(&subscription->channel->deliveries)->delivered_s =
        (uint32_t)((now_ms(subscription) + 999) / 1000);
    if (!timer_is_set(&subscription->timer))
        set_timer(subscription, now_ms(subscription) + subscription->timeout_ms);
}

/* This delivery or the next younger one that the consumer has not settled; or NULL. */
static struct delivery *next_unsettled(struct subscription *subscription, struct delivery *delivery)
{
    while (delivery != NULL && (delivery->consumer != &subscription->consumer || delivery->held))
        delivery = deliveries_next(&subscription->channel->deliveries, delivery);
    return delivery;
}

static void requeue_unsettled(struct subscription *subscription)
{
    struct channel *channel = subscription->channel;
    struct delivery *delivery =
        next_unsettled(subscription, deliveries_oldest(&channel->deliveries));

    while (delivery != NULL) {
        struct delivery *next =
            next_unsettled(subscription, deliveries_next(&channel->deliveries, delivery));
        channel_settle(channel, delivery, SETTLE_REQUEUE);
        delivery = next;
    }
    queues_drop_overflow(channel->broker);
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

static void time_out(struct subscription *subscription)
{
    struct channel *channel = subscription->channel;
    struct consumer *consumer = &subscription->consumer;
    char label[CONNECTION_LABEL_SIZE];

    log_warning("connection %s, channel %u: consumer '%.*s' of queue '%.*s' has not acknowledged a "
                "delivery for %" PRIu64 " ms and is cancelled",
                connection_label(channel->connection, label), channel->number,
                SLICE_ARG(consumer->tag), SLICE_ARG(consumer->queue->name),
                subscription->timeout_ms);
    requeue_unsettled(subscription);
    channel_wake_consumers(channel); /* the others may have what this one had of their prefetch */
    if (channel->connection->can_consumer_cancel_notify)
        subscription_cancel(&subscription);
    else
        refuse_channel(channel, subscription->timeout_ms);
}

void on_consumer_timeout(struct timer *timer)
{
    struct subscription *subscription = container_of(timer, struct subscription, timer);
    const struct delivery *oldest =
        next_unsettled(subscription, deliveries_oldest(&subscription->channel->deliveries));

    if (oldest == NULL) {
        if (subscription->consumer.unacked_count > 0) /* held: the transaction may be rolled back */
            set_timer(subscription, now_ms(subscription) + subscription->timeout_ms);
        return;
    }
    const uint64_t deadline_ms = oldest->delivered_s * UINT64_C(1000) + subscription->timeout_ms;
    if (deadline_ms > now_ms(subscription))
        set_timer(subscription, deadline_ms);
    else
        time_out(subscription);
}
