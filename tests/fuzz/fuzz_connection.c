/* A whole broker in one process, and two clients that say anything. The input is a script:
 *
 *     what u8 | size u16 | octets          again and again
 *
 *     what    bit 0     which client
 *             bits 1-2  0: octets as they are, 1 to 3: the payload of a frame of that type
 *             bits 3-4  its channel
 *             bit 5     a second passes before
 *             bit 6     the turn comes now; else more is sent with it
 *             bit 7     the client goes away after, and another takes its place
 *
 * Clients are logged in at first, with channels 1 and 2 open. After each turn: what the broker says
 * is well-formed. In the end, with all clients gone: no channel, consumer, exclusive queue or
 * unacked delivery is left. */
#include "amqp/client.h"
#include "amqp/frame.h"
#include "amqp/method.h"
#include "base/log.h"
#include "core/vhost.h"
#include "session/connection.h"
#include "session/service.h"
#include "store/memory.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/memory_transport.h"

enum { CLIENTS = 2, TURNS = 12, STEPS_MAX = 200 };

struct world {
    struct clock clock;
    struct random random;
    struct loop loop;
    struct store *store;
    struct broker broker;
    struct service service;
    struct memory_transport clients[CLIENTS];
};

/* Frames only, each whole, and methods that a server may send. */
static void check_output(struct memory_transport *client)
{
    struct amqp_error error;
    struct amqp_frame frame;
    struct amqp_method method;
    size_t used;

    if (buf_size(&client->received) == 8 &&
        memcmp(buf_slice(&client->received).data, amqp_protocol_header.data, 8) == 0) {
        buf_clear(&client->received);
        return;
    }
    for (;;) {
        const enum amqp_parse parse =
            amqp_frame_parse(buf_slice(&client->received), 131072, &frame, &used, &error);
        must(parse != AMQP_PARSE_BAD);
        if (parse == AMQP_PARSE_MORE)
            break;
        if (frame.type == AMQP_FRAME_METHOD) {
            must(amqp_method_decode(frame.payload, &method, &error));
            must(amqp_method_info(method.id)->senders & AMQP_FROM_SERVER);
        }
        buf_consume(&client->received, used);
    }
}

static void turn(struct world *world)
{
    for (int i = 0; i < TURNS; i++)
        loop_turn(&world->loop, 0);
    for (int i = 0; i < CLIENTS; i++)
        check_output(&world->clients[i]);
}

static void connect_client(struct world *world, struct memory_transport *client)
{
    const struct endpoint local = {"127.0.0.1", 5672, true}, peer = {"127.0.0.1", 40000, true};
    struct connection *connection = connection_new(&world->service, &local, &peer);
    struct buf out = BUF_EMPTY;

    connection_open(connection, &memory_transport_ops);
    memory_transport_attach(client, &connection->transport);
    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, SLICE("guest"), SLICE("guest"), SLICE("fuzz"));
    amqp_client_tune_ok(&out, 8, 8192, 0);
    amqp_client_open(&out, SLICE("/"));
    for (uint16_t channel = 1; channel <= 2; channel++)
        amqp_method_encode(&out, channel, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN});
    memory_transport_send(client, buf_slice(&out));
    buf_release(&out);
}

static void disconnect_client(struct world *world, struct memory_transport *client)
{
    if (!client->closed)
        memory_transport_break(client, ECONNRESET);
    turn(world);
    while (!client->closed) { /* held for the store, or waiting for a close-ok */
        clock_advance(&world->clock, 1000);
        turn(world);
    }
    memory_transport_release(client);
}

static void start(struct world *world)
{
    const struct broker_defaults defaults = {
        .vhost = SLICE("/"),
        .user = SLICE("guest"),
        .password = SLICE("guest"),
        .permissions = {SLICE(".*"), SLICE(".*"), SLICE(".*")},
        .password_cost = 1,
    };
    static const struct service_limits limits = {
        .heartbeat_s = 60,
        .frame_size_max = 131072,
        .initial_frame_size_max = 8192,
        .channel_max = 2047,
        .handshake_timeout_ms = 10000,
        .message_size_max = 1024 * 1024,
    };

    *world = (struct world){.clock = {.now_ms = 1000000, .wall_ms = 1700000000000, .fake = true},
                            .store = store_memory_new()};
    atomic_store(&log_level, (int)LOG_NONE);
    random_init_seeded(&world->random, 1);
    must(loop_init(&world->loop, &world->clock) == 0);
    must(broker_init(&world->broker, &world->loop, &world->clock, &world->random, world->store) ==
         0);
    broker_give_defaults(&world->broker, &defaults);
    must(service_init(&world->service, &world->broker, &limits, NULL, 0, defaults.password_cost,
                      false) == 0);
    for (int i = 0; i < CLIENTS; i++)
        connect_client(world, &world->clients[i]);
    turn(world);
}

static void check_nothing_is_left(const struct world *world)
{
    const struct broker_counters *counters = &world->broker.counters;
    const struct vhost *vhost = vhost_find((struct broker *)(uintptr_t)&world->broker, SLICE("/"));

    must(counters->channels_opened == counters->channels_closed);
    must(counters->connections_opened == counters->connections_closed);
    map_each (&vhost->queues, link) {
        const struct queue *queue = container_of(link, struct queue, by_name);
        must(queue->consumer_count == 0 && !queue->exclusive);
        must(queue_depth_of_levels(queue).unacked == 0);
    }
}

static void stop(struct world *world)
{
    for (int i = 0; i < CLIENTS; i++)
        disconnect_client(world, &world->clients[i]);
    check_nothing_is_left(world);
    service_release(&world->service);
    broker_release(&world->broker);
    loop_release(&world->loop);
    store_close(&world->store);
}

static void say(struct memory_transport *client, uint8_t what, struct slice bytes)
{
    const uint8_t type = what >> 1 & 3, channel = what >> 3 & 3;
    uint8_t head[AMQP_FRAME_HEAD_SIZE];

    if (type == 0) {
        memory_transport_send(client, bytes);
        return;
    }
    amqp_put_frame_head(head, (enum amqp_frame_type)type, channel, (uint32_t)bytes.size);
    memory_transport_send(client, slice_of(head, sizeof(head)));
    memory_transport_send(client, bytes);
    memory_transport_send(client, SLICE("\xCE"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_of(data, size), bytes;
    struct world world;

    start(&world);
    for (int i = 0; i < STEPS_MAX && input.size > 0; i++) {
        const uint8_t what = input.data[0];
        struct memory_transport *client = &world.clients[what & 1];
        input = slice_of(input.data + 1, input.size - 1);
        if (!fuzz_part(&input, &bytes))
            break;
        if (what & 0x20)
            clock_advance(&world.clock, 1000);
        if (!client->closed)
            say(client, what, bytes);
        if (what & 0xC0)
            turn(&world);
        if (what & 0x80) {
            disconnect_client(&world, client);
            connect_client(&world, client);
            turn(&world);
        }
    }
    stop(&world);
    return 0;
}
