#include "session/confirm.h"

#include "base/alloc.h"
#include "core/broker.h"
#include "session/channel.h"

static uint64_t *state_of(const struct confirms *confirms, uint64_t number)
{
    return &confirms->ring[number & (confirms->capacity - 1)];
}

static void grow(struct confirms *confirms)
{
    struct confirms old = *confirms;

    confirms->capacity = old.capacity == 0 ? 16 : size_mul(old.capacity, 2);
    confirms->ring = xcalloc(confirms->capacity, sizeof(*confirms->ring));
    for (uint64_t number = old.base; number < old.next; number++)
        *state_of(confirms, number) = *state_of(&old, number);
    free(old.ring);
}

/* Something was settled: it leaves at the end of this turn. */
static void queue_flush(struct confirms *confirms)
{
    loop_queue(confirms->channel->broker->loop, LOOP_STORE, &confirms->task);
}

static void settle(struct confirms *confirms, uint64_t number, uint64_t state)
{
    *state_of(confirms, number) = state;
    if (confirms->early_first == confirms->early_end)
        confirms->early_first = confirms->early_end = number;
    confirms->early_first = min_of(confirms->early_first, number);
    confirms->early_end = max_of(confirms->early_end, number + 1);
    queue_flush(confirms);
}

static void on_settled(struct publisher *publisher, uint64_t number)
{
    struct confirms *confirms = container_of(publisher, struct confirms, publisher);

    if (confirms->channel != NULL && number >= confirms->base)
        settle(confirms, number, CONFIRM_SETTLED);
}

static void send_ack(struct confirms *confirms, uint64_t number, bool multiple)
{
    channel_send(confirms->channel, &(struct amqp_method){.id = AMQP_BASIC_ACK,
                                                          .basic_ack.delivery_tag = number,
                                                          .basic_ack.multiple = multiple});
}

static void send_nack(struct confirms *confirms, uint64_t number)
{
    channel_send(confirms->channel,
                 &(struct amqp_method){.id = AMQP_BASIC_NACK, .basic_nack.delivery_tag = number});
}

static void count_confirmed(struct confirms *confirms, uint64_t count)
{
    confirms->channel->confirmed += count;
    confirms->channel->broker->counters.confirmed += count;
}

/* Acknowledges a run of settled numbers that ends at `last` and has `count` not yet answered. */
static void ack_run(struct confirms *confirms, uint64_t last, uint64_t count)
{
    if (count == 0)
        return;
    send_ack(confirms, last, count > 1);
    count_confirmed(confirms, count);
}

/* Moves base over everything that waits no longer; one frame for each run between refusals. */
static void flush_prefix(struct confirms *confirms)
{
    uint64_t durable = confirms->channel->broker->parking.durable_entries;
    uint64_t last = 0, count = 0;

    for (; confirms->base < confirms->next; confirms->base++) {
        uint64_t state = *state_of(confirms, confirms->base);
        if (state == CONFIRM_SENT)
            continue;
        if (state == CONFIRM_REFUSED) {
            ack_run(confirms, last, count);
            count = 0;
            send_nack(confirms, confirms->base);
            continue;
        }
        if (state != CONFIRM_SETTLED && state > durable)
            break;
        last = confirms->base;
        count++;
    }
    ack_run(confirms, last, count);
}

/* Answers, one by one, what was settled behind a number that still waits. */
static void flush_early(struct confirms *confirms)
{
    for (uint64_t number = max_of(confirms->early_first, confirms->base);
         number < confirms->early_end; number++) {
        uint64_t *state = state_of(confirms, number);
        if (*state == CONFIRM_SETTLED) {
            send_ack(confirms, number, false);
            count_confirmed(confirms, 1);
            *state = CONFIRM_SENT;
        } else if (*state == CONFIRM_REFUSED) {
            send_nack(confirms, number);
            *state = CONFIRM_SENT;
        }
    }
    confirms->early_first = confirms->early_end = 0;
}

static void flush(struct task *task)
{
    struct confirms *confirms = container_of(task, struct confirms, task);
    struct broker *broker = confirms->channel->broker;

    flush_prefix(confirms);
    flush_early(confirms);
    if (confirms->base < confirms->next && !parked_waits(&confirms->parked))
        parking_wait(&broker->parking, &confirms->parked, *state_of(confirms, confirms->base));
}

static void on_durable(struct parked *parked)
{
    queue_flush(container_of(parked, struct confirms, parked));
}

static void on_free(struct publisher *publisher)
{
    struct confirms *confirms = container_of(publisher, struct confirms, publisher);

    free(confirms->ring);
    free(confirms);
}

struct confirms *confirms_new(struct channel *channel)
{
    static const struct publisher_ops ops = {.on_settled = on_settled, .on_free = on_free};
    struct confirms *confirms = xcalloc(1, sizeof(*confirms));

    confirms->publisher = (struct publisher){.ops = &ops, .refs = 1};
    confirms->channel = channel;
    confirms->base = confirms->next = 1;
    confirms->parked.on_durable = on_durable;
    confirms->parked.entries = true;
    confirms->task.run = flush;
    return confirms;
}

void confirms_close(struct confirms **confirms)
{
    struct broker *broker = (*confirms)->channel->broker;
    struct publisher *publisher = &(*confirms)->publisher;

    loop_unqueue(broker->loop, &(*confirms)->task);
    parking_cancel(&(*confirms)->parked);
    (*confirms)->channel = NULL;
    *confirms = NULL;
    publisher_unref(&publisher);
}

static uint64_t next_number(struct confirms *confirms)
{
    if (confirms->next - confirms->base == confirms->capacity)
        grow(confirms);
    return confirms->next++;
}

uint64_t confirms_add(struct confirms *confirms, uint64_t lsn)
{
    uint64_t number = next_number(confirms);

    if (lsn == 0) {
        settle(confirms, number, CONFIRM_SETTLED);
    } else {
        *state_of(confirms, number) = lsn;
        if (!parked_waits(&confirms->parked))
            queue_flush(confirms);
    }
    return number;
}

void confirms_refuse(struct confirms *confirms)
{
    settle(confirms, next_number(confirms), CONFIRM_REFUSED);
}
