/* See the header. */
#include "tools/stoatperf_publisher.h"

#include <sys/epoll.h>

#include "amqp/client.h"
#include "amqp/frame.h"
#include "amqp/properties.h"
#include "base/alloc.h"
#include "base/clock.h"

enum {
    BATCH_SIZE = 64 * 1024,             /* octets to a write: larger ones only leave the cache */
    BLOCKS_SIZE_ALL = 32 * 1024 * 1024, /* of all publishers together */
};

static void settle_run(struct publisher *publisher, uint64_t sent_ns, uint64_t times)
{
    const uint64_t now_ns = publisher->client.read_ns;
    histogram_record(&publisher->meter->confirm, now_ns > sent_ns ? now_ns - sent_ns : 0, times);
}

/* Settles the messages first to last, skipping those that are; equal times are recorded at once. */
static void settle(struct publisher *publisher, uint64_t first, uint64_t last, bool positive)
{
    uint64_t run_ns = 0, run = 0, count = 0;
    for (uint64_t number = first; number <= last; number++) {
        uint64_t *const sent_ns = &publisher->sent_ns[number & (publisher->ring_size - 1)];
        if (*sent_ns == 0)
            continue;
        if (*sent_ns != run_ns && run > 0 && positive) {
            settle_run(publisher, run_ns, run);
            run = 0;
        }
        run_ns = *sent_ns;
        run++;
        count++;
        *sent_ns = 0;
    }
    if (run > 0 && positive)
        settle_run(publisher, run_ns, run);
    publisher->settled += count;
    *(positive ? &publisher->meter->counts.confirmed : &publisher->meter->counts.nacked) += count;
}

static bool on_confirm(void *owner, uint64_t delivery_tag, bool multiple, bool positive)
{
    struct publisher *const publisher = owner;
    if (delivery_tag == 0 && multiple)
        delivery_tag = publisher->sequence;
    if (delivery_tag == 0 || delivery_tag > publisher->sequence)
        return failure_set(publisher->client.failure,
                           "the broker confirmed message %" PRIu64 " of %" PRIu64, delivery_tag,
                           publisher->sequence);

    const uint64_t last = delivery_tag - 1; /* tags count from 1 */
    if (last >= publisher->oldest)
        settle(publisher, multiple ? publisher->oldest : last, last, positive);
    while (publisher->oldest < publisher->sequence &&
           publisher->sent_ns[publisher->oldest & (publisher->ring_size - 1)] == 0)
        publisher->oldest++;
    publisher_activate(publisher);
    return true;
}

static bool on_method(void *owner, const struct amqp_method *method)
{
    struct publisher *const publisher = owner;
    switch (method->id) {
    case AMQP_BASIC_RETURN:
        publisher->meter->counts.returned++;
        return true;
    case AMQP_BASIC_QOS_OK:
        publisher->fenced = true;
        return true;
    default:
        return client_on_method(&publisher->client, method);
    }
}

static const struct stream_events events = {.on_confirm = on_confirm, .on_method = on_method};

static void on_ready(struct client *client, uint32_t ready)
{
    struct publisher *const publisher = container_of(client, struct publisher, client);
    if (ready & EPOLLOUT) {
        client_await_output(client, false);
        client_flush(client);
        publisher_activate(publisher);
    }
    if (ready & ~(uint32_t)EPOLLOUT)
        client_read(client, publisher->scratch);
}

/* One publish to the publisher's first queue, as it goes over the wire. */
static void encode_block(struct publisher *publisher, struct buf *block)
{
    const struct topology *const topology = publisher->topology;
    const struct options *const options = topology->options;
    struct buf properties = BUF_EMPTY;
    if (options->persistent)
        amqp_properties_encode(&properties, &(struct amqp_properties){
                                                .flags = AMQP_PROPERTY_DELIVERY_MODE,
                                                .delivery_mode = AMQP_DELIVERY_PERSISTENT,
                                            });
    char name[QUEUE_NAME_SIZE];
    uint8_t *const body = xcalloc(options->body_size + 1, 1);
    const struct amqp_client_message message = {
        .exchange = topology_exchange(topology),
        .routing_key = topology_queue_name(topology, publisher->queue, name),
        .properties = buf_slice(&properties),
        .body = slice_of(body, options->body_size),
        .mandatory = options->mandatory,
    };
    amqp_client_publish(block, CLIENT_CHANNEL, publisher->client.frame_max, &message);

    const size_t exchange_at = AMQP_FRAME_HEAD_SIZE + 2 + 2 + 2;
    publisher->key_at =
        exchange_at + 1 + message.exchange.size + 1 + message.routing_key.size - topology->digits;
    const size_t method_size = amqp_get_u32(buf_slice(block).data + 3) + AMQP_FRAME_OVERHEAD;
    const size_t header_size =
        amqp_get_u32(buf_slice(block).data + method_size + 3) + AMQP_FRAME_OVERHEAD;
    publisher->body_at = method_size + header_size + AMQP_FRAME_HEAD_SIZE;
    free(body);
    buf_release(&properties);
}

static void make_blocks(struct publisher *publisher)
{
    struct buf block = BUF_EMPTY;
    encode_block(publisher, &block);
    publisher->block_size = buf_size(&block);
    const size_t share = BLOCKS_SIZE_ALL / publisher->topology->options->publishers;
    publisher->block_count =
        max_of(min_of(share, (size_t)BATCH_SIZE) / publisher->block_size, (size_t)1);
    publisher->blocks = xmalloc(size_mul(publisher->block_count, publisher->block_size));
    for (size_t i = 0; i < publisher->block_count; i++)
        memcpy(publisher->blocks + i * publisher->block_size, buf_slice(&block).data,
               publisher->block_size);
    buf_release(&block);
}

/* Confirms may come one by one and in any order: the ring holds the window and as much again of
 * what was confirmed behind one that was not. */
static void make_ring(struct publisher *publisher, uint32_t window)
{
    publisher->window = window;
    publisher->ring_size = 64;
    while (publisher->ring_size < 2ull * window)
        publisher->ring_size *= 2;
    publisher->sent_ns = xcalloc(publisher->ring_size, sizeof(uint64_t));
}

bool publisher_open(struct publisher *publisher, uint32_t index, const struct topology *topology,
                    int epoll, struct failure *failure)
{
    const struct options *const options = topology->options;
    struct client *const client = &publisher->client;
    struct amqp_method answer;
    publisher->index = index;
    publisher->topology = topology;
    publisher->queue = index % options->queues;
    if (!client_open(client, options, "stoatperf publisher", failure, NULL))
        return false;
    if (options->confirm_window > 0 &&
        !client_call(client, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT},
                     AMQP_CONFIRM_SELECT_OK, &answer))
        return false;
    if (options->confirm_window > 0)
        make_ring(publisher, options->confirm_window);
    make_blocks(publisher);
    return client_attach(client, epoll, &events, publisher, on_ready);
}

void publisher_close(struct publisher *publisher)
{
    client_close(&publisher->client, publisher->unwritten);
    free(publisher->blocks);
    free(publisher->sent_ns);
    publisher->blocks = NULL;
    publisher->sent_ns = NULL;
}

void publisher_activate(struct publisher *publisher)
{
    if (publisher->active)
        return;
    publisher->active = true;
    TAILQ_INSERT_TAIL(publisher->list, publisher, link);
}

static void deactivate(struct publisher *publisher)
{
    publisher->active = false;
    TAILQ_REMOVE(publisher->list, publisher, link);
}

/* How many messages may be published now. */
static uint64_t allowance(const struct publisher *publisher)
{
    uint64_t count =
        min_of(publisher->limit - publisher->sequence, (uint64_t)publisher->block_count);
    if (publisher->schedule->interval_ns > 0)
        count = min_of(count, publisher->due - publisher->sequence);
    if (publisher->window > 0) {
        const uint64_t unsettled = publisher->sequence - publisher->settled;
        const uint64_t kept = publisher->sequence - publisher->oldest;
        count = min_of(count, publisher->window - unsettled);
        count = min_of(count, publisher->ring_size - kept);
    }
    return count;
}

static uint64_t due_ns(const struct publisher *publisher, uint64_t sequence)
{
    const struct schedule *const schedule = publisher->schedule;
    const double number = (double)sequence * schedule->publishers + publisher->index;
    return schedule->start_ns + (uint64_t)(number * schedule->interval_ns);
}

/* Writes the number of the queue whose turn it is into the routing key. */
static void stamp_key(struct publisher *publisher, uint8_t *block)
{
    uint32_t number = publisher->queue;
    for (uint32_t i = publisher->topology->digits; i-- > 0; number /= 10)
        block[publisher->key_at + i] = (uint8_t)('0' + number % 10);

    const struct options *const options = publisher->topology->options;
    publisher->queue += options->publishers;
    if (publisher->queue >= options->queues)
        publisher->queue = publisher->index;
}

static void stamp(struct publisher *publisher, uint64_t count)
{
    const bool scheduled = publisher->schedule->interval_ns > 0;
    const bool stamped = publisher->topology->options->body_size >= STREAM_STAMP_SIZE;
    const bool turns = topology_turns(publisher->topology, publisher->index) > 1;
    const uint64_t id = (uint64_t)publisher->index << PUBLISHER_ID_SHIFT;
    uint64_t sent_ns = clock_monotonic_ns();
    uint8_t *block = publisher->blocks;
    for (uint64_t i = 0; i < count; i++, block += publisher->block_size) {
        const uint64_t sequence = publisher->sequence++;
        if (scheduled)
            sent_ns = due_ns(publisher, sequence);
        if (stamped)
            amqp_put_u64(amqp_put_u64(block + publisher->body_at, sent_ns), id | sequence);
        if (turns)
            stamp_key(publisher, block);
        if (publisher->window > 0)
            publisher->sent_ns[sequence & (publisher->ring_size - 1)] = sent_ns;
    }
    publisher->meter->counts.published += count;
    publisher->unwritten = slice_of(publisher->blocks, (size_t)(block - publisher->blocks));
}

static void send_fence(struct publisher *publisher)
{
    publisher->fence_sent = true;
    amqp_method_encode(&publisher->client.out, CLIENT_CHANNEL,
                       &(struct amqp_method){.id = AMQP_BASIC_QOS});
    client_flush(&publisher->client);
}

void publisher_turn(struct publisher *publisher)
{
    if (publisher->unwritten.size == 0) {
        const uint64_t count = allowance(publisher);
        if (count > 0)
            stamp(publisher, count);
    }
    if (publisher->unwritten.size == 0) {
        deactivate(publisher);
        if (publisher->fence_wanted && !publisher->fence_sent &&
            publisher->sequence == publisher->limit)
            send_fence(publisher);
        return;
    }

    struct slice *const unwritten = &publisher->unwritten;
    const ssize_t sent = client_write(&publisher->client, unwritten->data, unwritten->size);
    if (sent < 0)
        return;
    *unwritten = slice_of(unwritten->data + sent, unwritten->size - (size_t)sent);
    if (unwritten->size > 0) {
        deactivate(publisher);
        client_await_output(&publisher->client, true);
    }
}

void publisher_stop(struct publisher *publisher)
{
    publisher->limit = publisher->sequence;
}

void publisher_fence(struct publisher *publisher)
{
    publisher->fence_wanted = true;
    publisher_activate(publisher);
}

bool publisher_is_done(const struct publisher *publisher)
{
    return publisher->sequence == publisher->limit && publisher->unwritten.size == 0 &&
           (publisher->window == 0 || publisher->settled == publisher->sequence) &&
           (!publisher->fence_wanted || publisher->fenced);
}
