/* See the header. Acks are gathered in the client's out and leave at the end of each read. */
#include "tools/stoatperf_consumer.h"

#include <sys/epoll.h>

#include "amqp/frame.h"

static void record_run(struct consumer *consumer)
{
    const uint64_t now_ns = consumer->client.read_ns;
    if (consumer->run > 0 && consumer->run_ns > 0)
        histogram_record(&consumer->meter->consume,
                         now_ns > consumer->run_ns ? now_ns - consumer->run_ns : 0, consumer->run);
    consumer->run = 0;
}

/* basic.ack of everything up to the last delivery; `multiple` only says so where it means more than
 * one. */
static void put_ack(struct consumer *consumer)
{
    enum { PAYLOAD = 4 + 8 + 1 };
    struct buf *const out = &consumer->client.out;
    uint8_t *at = buf_reserve(out, AMQP_FRAME_OVERHEAD + PAYLOAD);
    at = amqp_put_frame_head(at, AMQP_FRAME_METHOD, CLIENT_CHANNEL, PAYLOAD);
    at = amqp_put_u64(amqp_put_u32(at, AMQP_BASIC_ACK), consumer->last_tag);
    at = amqp_put_u8(at, consumer->unacked > 1);
    amqp_put_u8(at, AMQP_FRAME_END);
    buf_commit(out, AMQP_FRAME_OVERHEAD + PAYLOAD);
    consumer->unacked = 0;
}

static void on_delivery(void *owner, const struct delivery *delivery)
{
    struct consumer *const consumer = owner;
    struct counts *const counts = &consumer->meter->counts;
    counts->consumed++;
    counts->redelivered += delivery->redelivered;
    consumer->last_tag = delivery->delivery_tag;
    if (delivery->sent_ns != consumer->run_ns) {
        record_run(consumer);
        consumer->run_ns = delivery->sent_ns;
    }
    consumer->run++;
    if (consumer->verify != NULL)
        verify_delivery(consumer->verify, consumer->index, delivery);

    const uint32_t batch = consumer->topology->options->ack_batch;
    if (batch > 0 && ++consumer->unacked == batch)
        put_ack(consumer);
}

static bool on_method(void *owner, const struct amqp_method *method)
{
    struct consumer *const consumer = owner;
    if (method->id != AMQP_BASIC_CONSUME_OK)
        return client_on_method(&consumer->client, method);
    consumer->queues_awaited--;
    return true;
}

static const struct stream_events events = {.on_delivery = on_delivery, .on_method = on_method};

static void on_ready(struct client *client, uint32_t ready)
{
    struct consumer *const consumer = container_of(client, struct consumer, client);
    if (ready & ~(uint32_t)EPOLLOUT) {
        client_read(client, consumer->scratch);
        record_run(consumer);
    }
    if (!failure_is_set(client->failure))
        client_flush(client);
}

bool consumer_open(struct consumer *consumer, uint32_t index, const struct topology *topology,
                   int epoll, struct failure *failure)
{
    struct client *const client = &consumer->client;
    struct amqp_method answer;
    consumer->index = index;
    consumer->topology = topology;
    if (!client_open(client, topology->options, "stoatperf consumer", failure, NULL))
        return false;
    const struct amqp_method qos = {
        .id = AMQP_BASIC_QOS, .basic_qos.prefetch_count = (uint16_t)topology->options->prefetch};
    return client_call(client, &qos, AMQP_BASIC_QOS_OK, &answer) &&
           client_attach(client, epoll, &events, consumer, on_ready);
}

void consumer_close(struct consumer *consumer)
{
    client_close(&consumer->client, SLICE(""));
}

static void consume(struct consumer *consumer, uint32_t queue)
{
    char name[QUEUE_NAME_SIZE], tag[16];
    snprintf(tag, sizeof(tag), "%" PRIu32, queue);
    const struct amqp_method method = {
        .id = AMQP_BASIC_CONSUME,
        .basic_consume = {
            .queue = topology_queue_name(consumer->topology, queue, name),
            .consumer_tag = slice_of_string(tag),
            .no_ack = consumer->topology->options->ack_batch == 0,
        }};
    amqp_method_encode(&consumer->client.out, CLIENT_CHANNEL, &method);
}

bool consumer_start(struct consumer *consumer)
{
    const struct options *const options = consumer->topology->options;
    const uint32_t count =
        topology_queue_count(consumer->topology, options->consumers, consumer->index);
    for (uint32_t i = 0; i < count; i++)
        consume(consumer, consumer->index % options->queues + i * options->consumers);
    consumer->queues_awaited = count;
    return client_flush(&consumer->client);
}

void consumer_settle(struct consumer *consumer)
{
    if (consumer->unacked > 0)
        put_ack(consumer);
    client_flush(&consumer->client);
}
