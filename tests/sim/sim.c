/* Runs the whole broker with random clients from a seed, over a store that crashes, and compares it
 * with a model at every step.
 *
 *     sim [--seed N] [--seeds COUNT] [--steps M] [--lmdb DIR] [--trace]
 *
 * A run is a line of random steps: clients say things, pieces of what they said reach the broker,
 * the loop turns, the disk catches up or does not, carriers fill up, streams break, the store
 * fails, the broker crashes or is stopped and starts again. Now and then all comes to rest, and
 * everything must have been answered, confirmed and delivered. In the end the queues are emptied:
 * what comes out is exactly what must be there, in order. The same seed gives the same run, to the
 * byte.
 *
 * In two runs of three memory for messages is short or none, so that queues live on disk. In one of
 * two the disk has no room now and then: what is under way is refused, and what is added meanwhile
 * takes back, deletes and purges some of it.
 *
 * With --lmdb the store is the real one, on a directory that must be empty, and the broker is only
 * ever stopped in order; then the store's thread decides when a batch is durable, and a run is not
 * the same twice.
 *
 * Running out of memory is not simulated: it stops the process, which to the store is a crash like
 * any other. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "store/memory.h"
#include "tests/lib/unit.h"
#include "tests/sim/client.h"
#include "tests/sim/trace.h"

static struct options {
    uint64_t seed, seeds, steps;
    const char *lmdb; /* a directory, or NULL */
} options = {.seed = 1, .seeds = 200, .steps = 1000};

static struct sim sim;
static uint64_t memory_limit; /* of this run, for messages in queues */
static bool room_is_short;    /* in this run, now and then */

/* What of the store is in the test's hands. */
static struct {
    bool by_itself;          /* batches become durable without help */
    bool failed;             /* the broker has noticed that the store has failed */
    uint64_t crashes, stops; /* in all */
} disk;

static void on_queue_deleted(struct model_queue *queue)
{
    clients_on_queue_deleted(&sim, queue);
}

static void on_store_failure(struct broker *broker)
{
    (void)broker;
    disk.failed = true;
}

/* ---- steps ---- */

static void turn(void)
{
    sim.model.batch_lsn = store_open_lsn(sim.harness.store);
    loop_turn(&sim.harness.loop, 0);
    model_observe(&sim.model);
    if (!store_is_busy(sim.harness.store) && store_open_is_empty(sim.harness.store))
        sim.model.empty_lsn = store_open_lsn(sim.harness.store);
}

static void reap_clients(void)
{
    struct client *client, *next;

    TAILQ_FOREACH_SAFE (client, &sim.clients, link, next) {
        if (!client->peer->memory.closed || client->slow)
            continue;
        check(client->ended, "client %u was dropped without a word", client->serial);
        trace("%u is gone", client->serial);
        peer_free(&client->peer);
        client_free(&client);
    }
}

static void read_all(void)
{
    struct client *client;

    TAILQ_FOREACH (client, &sim.clients, link)
        if (!client->slow)
            client_read(client);
    reap_clients();
}

static void sync_disk(void)
{
    if (options.lmdb == NULL)
        store_memory_sync(sim.harness.store);
}

static void set_room(enum store_memory_room room)
{
    static const char *const names[] = {"all", "definitions and deletes", "deletes", "nothing"};

    if (options.lmdb != NULL)
        return;
    trace("there is room for %s", names[room]);
    store_memory_set_room(sim.harness.store, room);
}

static void change_room(void)
{
    if (room_is_short)
        set_room(chance(&sim, 40)
                     ? STORE_MEMORY_ROOM_FOR_ALL
                     : (enum store_memory_room)below(&sim, STORE_MEMORY_ROOM_FOR_NOTHING + 1));
}

/* A store without room is asked for some only now and then. */
static void let_time_pass(void)
{
    if (store_is_full(sim.harness.store))
        clock_advance(&sim.harness.clock, 100);
}

static void set_disk(bool by_itself)
{
    disk.by_itself = by_itself;
    trace("the disk is %s", by_itself ? "fast" : "slow");
}

static struct client *pick_client(void)
{
    struct client *client, *picked = NULL;
    size_t count = 0;

    TAILQ_FOREACH (client, &sim.clients, link)
        if (below(&sim, ++count) == 0)
            picked = client;
    return picked;
}

static void change_carrier(struct client *client)
{
    struct memory_transport *memory = &client->peer->memory;

    if (memory->closed)
        return;
    client->slow = chance(&sim, 30);
    memory->give_max = chance(&sim, 50) ? SIZE_MAX : 1 + below(&sim, 3000);
    memory_transport_take(memory, chance(&sim, 50) ? SIZE_MAX : below(&sim, 5000));
}

static void disturb(struct client *client)
{
    const uint64_t what = below(&sim, 100);

    if (what < 60)
        change_carrier(client);
    else if (what < 75)
        client_close(client);
    else if (what < 90) {
        trace("%u breaks", client->serial);
        client_break(client, chance(&sim, 50));
    } else {
        clock_advance(&sim.harness.clock, below(&sim, 4000));
    }
}

/* ---- the ends of the broker ---- */

/* All clients are gone with it. */
static void forget_clients(void)
{
    struct client *client;

    while ((client = TAILQ_FIRST(&sim.clients)) != NULL)
        client_free(&client);
}

static void begin_again(const struct model_durable *durable)
{
    sim.ending = false;
    disk.failed = false;
    sim.harness.broker.on_store_failure = on_store_failure;
    paging_set_limit(&sim.harness.broker.paging, memory_limit);
    sim.model.batch_lsn = store_open_lsn(sim.harness.store);
    model_recover(&sim.model, durable);
}

static void crash(void)
{
    struct store *store = sim.harness.store;

    disk.crashes++;
    sim.ending = true;
    store_process(store); /* what is synced counts, whether or not the broker knows */
    const struct model_durable durable = {
        .all = store_durable(store),
        .entries = store_durable_entries(store),
        .any = store_open_lsn(store) - 1 - store_is_busy(store),
    };
    trace("crash: %" PRIu64 " is durable, entries to %" PRIu64 ", %" PRIu64 " is open", durable.all,
          durable.entries, store_open_lsn(store));
    harness_restart(&sim.harness, true);
    forget_clients();
    store_memory_set_auto_sync(store, false);
    begin_again(&durable);
}

static void fail_disk(void)
{
    trace("the disk fails");
    store_memory_fail(sim.harness.store, EIO);
    for (int i = 0; i < 3; i++) {
        turn();
        read_all();
    }
    check(disk.failed, "nobody has noticed that the store has failed");
    crash();
}

static struct store *open_store(void)
{
    struct store *store = NULL;
    char error[STORE_ERROR_SIZE];

    if (options.lmdb == NULL)
        return store_memory_new();
    if (store_open(&(struct store_options){.directory = options.lmdb, .map_size = 1 << 28}, &store,
                   error) != 0)
        trace_fail("the store does not open: %s", error);
    return store;
}

/* In order: everything becomes durable, the ends of the clients included. */
static void stop_and_start(void)
{
    struct client *client;

    trace("stop and start");
    disk.stops++;
    set_room(STORE_MEMORY_ROOM_FOR_ALL);
    while (store_is_full(sim.harness.store)) {
        sync_disk();
        let_time_pass();
        turn();
    }
    TAILQ_FOREACH (client, &sim.clients, link)
        client_end(client);
    sim.ending = true;
    if (options.lmdb == NULL) {
        harness_restart(&sim.harness, false);
        store_memory_set_auto_sync(sim.harness.store, false);
    } else {
        harness_stop(&sim.harness);
        if (store_close(&sim.harness.store) != 0)
            trace_fail("the store does not close");
        sim.harness.store = open_store();
        harness_start(&sim.harness, &harness_limits);
    }
    forget_clients();
    begin_again(&(struct model_durable){UINT64_MAX, UINT64_MAX, UINT64_MAX});
}

/* ---- rest ---- */

static bool is_moving(void)
{
    struct store *store = sim.harness.store;
    struct client *client;

    if (store_is_busy(store) || !store_open_is_empty(store) || sim.harness.broker.fetches > 0)
        return true;
    TAILQ_FOREACH (client, &sim.clients, link)
        if (buf_size(&client->out) > 0 || buf_size(&client->peer->memory.sent) > 0 ||
            client->sent_count > 0 || client->broken || client->peer->memory.closed)
            return true;
    return false;
}

_Noreturn static void tell_unrest(void)
{
    struct client *client;

    TAILQ_FOREACH (client, &sim.clients, link) {
        const struct peer *peer = client->peer;
        if (peer->memory.closed)
            continue;
        trace("%u: %zu octets unsent, %zu unread by the broker, %zu operations under way%s%s%s",
              client->serial, buf_size(&client->out), buf_size(&peer->memory.sent),
              client->sent_count, client->broken ? ", broken" : "",
              peer->connection->held ? ", held" : "", peer->connection->choked ? ", choked" : "");
    }
    trace_fail("there is no rest: batch %" PRIu64 " is open, %" PRIu64 " is durable%s",
               store_open_lsn(sim.harness.store), store_durable(sim.harness.store),
               store_is_busy(sim.harness.store) ? ", one is under way" : "");
}

/* A real disk takes its time: a turn while it works would count for nothing. */
static void await_disk(void)
{
    struct pollfd done = {.fd = sim.harness.loop.epoll_fd, .events = POLLIN};

    if (options.lmdb != NULL &&
        (store_is_busy(sim.harness.store) || sim.harness.broker.fetches > 0))
        poll(&done, 1, -1);
}

/* Everything that can happen has happened. */
static void come_to_rest(void)
{
    enum { TURNS_MAX = 3000, TURNS_AT_REST = 6 };
    struct client *client;
    int still = 0;

    trace("rest");
    set_room(STORE_MEMORY_ROOM_FOR_ALL);
    TAILQ_FOREACH (client, &sim.clients, link) {
        client->slow = false;
        client->peer->memory.give_max = SIZE_MAX;
        if (!client->peer->memory.closed)
            memory_transport_take(&client->peer->memory, SIZE_MAX);
    }
    for (int i = 0; still < TURNS_AT_REST; i++) {
        if (i == TURNS_MAX)
            tell_unrest();
        TAILQ_FOREACH (client, &sim.clients, link)
            client_flush(client, SIZE_MAX);
        const uint64_t reads = sim.reads;
        sync_disk();
        let_time_pass();
        turn();
        read_all();
        still = is_moving() || sim.reads != reads ? 0 : still + 1;
        await_disk();
    }
    TAILQ_FOREACH (client, &sim.clients, link)
        client_check_idle(client);
    clients_check_queues(&sim);
}

static void check_counters(void)
{
    const struct broker *broker = &sim.harness.broker;
    const struct broker_counters *counters = &broker->counters;
    const size_t queues = vhost_find(&sim.harness.broker, SLICE("/"))->queues.count;

    check(TAILQ_EMPTY(&sim.clients) && sim.harness.service.connection_count == 0,
          "%zu connections are left", sim.harness.service.connection_count);
    check(counters->connections_opened == counters->connections_closed,
          "connections were opened and not closed");
    check(counters->channels_opened == counters->channels_closed,
          "channels were opened and not closed");
    check(counters->queues_declared - counters->queues_deleted == queues,
          "%zu queues are left of %" PRIu64 " declared and %" PRIu64 " deleted", queues,
          counters->queues_declared, counters->queues_deleted);
    check(counters->set_aside == 0, "%" PRIu64 " messages were damaged", counters->set_aside);
    check(TAILQ_EMPTY(&broker->parking.waiting), "somebody still waits for the store");
}

static void close_all(void)
{
    struct client *client;

    TAILQ_FOREACH (client, &sim.clients, link)
        client_close(client);
    come_to_rest();
    TAILQ_FOREACH (client, &sim.clients, link) /* those that never got in */
        client_break(client, true);
    come_to_rest();
    check_counters();
}

/* ---- the end of a run ---- */

static void wait_for_disk(void)
{
    while (is_moving()) {
        sync_disk();
        let_time_pass();
        harness_run(&sim.harness);
        await_disk();
    }
}

/* Takes all that is left, in order, as a client would. */
static void drain_queue(struct peer *peer, struct model_queue *queue)
{
    const struct amqp_method get = {
        .id = AMQP_BASIC_GET, .basic_get = {.queue = slice_of_string(queue->name), .no_ack = true}};

    for (size_t i = 0; i < queue->count; i++) {
        struct model_entry *entry = &queue->entries[i];
        if (entry->life.ended)
            continue;
        struct model_message *message = &sim.model.messages[entry->id];
        char *body = xcalloc(1, message->size + 1);
        struct amqp_frame frame;
        struct buf got = BUF_EMPTY;
        model_write_body(message, (uint8_t *)body);
        peer_send(peer, 1, &get);
        wait_for_disk();
        while (peer_next(peer, &frame))
            if (frame.type == AMQP_FRAME_BODY)
                buf_append(&got, frame.payload);
        check(slice_equal(buf_slice(&got), slice_of(body, message->size)),
              "message %u does not come out of queue %s", entry->id, queue->name);
        buf_release(&got);
        free(body);
        entry->life.ended = true;
    }
}

static void drain(void)
{
    struct peer *peer = peer_open_channel(&sim.harness);
    struct model_queue *queue;

    TAILQ_FOREACH (queue, &sim.model.queues, link)
        if (!queue->life.ended)
            drain_queue(peer, queue);
    wait_for_disk();
    peer_free(&peer);
    model_observe(&sim.model);
    if (options.lmdb == NULL)
        crash();
    else
        stop_and_start();
}

/* ---- a run ---- */

static void step(void)
{
    const uint64_t what = below(&sim, 1000);
    struct client *client = pick_client();

    if (client == NULL || (what < 10 && sim.next_serial < 40))
        client_connect(&sim);
    else if (what < 40)
        disturb(client);
    else if (what < 45)
        come_to_rest();
    else if (what < 47 && options.lmdb == NULL)
        crash();
    else if (what < 48)
        stop_and_start();
    else if (what < 49 && options.lmdb == NULL)
        fail_disk();
    else if (what < 60)
        set_disk(!disk.by_itself);
    else if (what < 80)
        change_room();
    else
        for (uint64_t count = 1 + below(&sim, 3); count > 0; count--)
            client_act(client);

    if (!TAILQ_EMPTY(&sim.clients)) {
        client = pick_client();
        client_flush(client, chance(&sim, 70) ? SIZE_MAX : below(&sim, 60));
    }
    if (disk.by_itself || chance(&sim, 10))
        sync_disk();
    if (chance(&sim, 20))
        let_time_pass();
    if (chance(&sim, 80))
        turn();
    read_all();
}

static void empty_directory(const char *path)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    char name[4096];

    for (size_t i = 0; path != NULL && i < countof(files); i++) {
        snprintf(name, sizeof(name), "%s/%s", path, files[i]);
        unlink(name);
    }
}

static void begin(uint64_t seed)
{
    char command[256];

    snprintf(command, sizeof(command), "sim --seed %" PRIu64 " --seeds 1 --steps %" PRIu64 "%s%s",
             seed, options.steps, options.lmdb != NULL ? " --lmdb " : "",
             options.lmdb != NULL ? options.lmdb : "");
    trace_begin(command);
    empty_directory(options.lmdb);
    random_init_seeded(&sim.random, seed);
    memory_limit = seed % 3 == 0 ? 0 : seed % 3 == 1 ? below(&sim, 40000) : PAGING_LIMIT_DEFAULT;
    room_is_short = seed / 3 % 2 == 0;
    TAILQ_INIT(&sim.clients);
    sim.next_serial = 0;
    sim.ending = false;
    harness_init_over(&sim.harness, NULL, open_store());
    sim.harness.broker.on_store_failure = on_store_failure;
    paging_set_limit(&sim.harness.broker.paging, memory_limit);
    model_init(&sim.model, &sim.harness.broker);
    sim.model.on_queue_deleted = on_queue_deleted;
    wait_for_disk();
    if (options.lmdb == NULL)
        store_memory_set_auto_sync(sim.harness.store, false);
    disk.failed = false;
}

static void run(uint64_t seed)
{
    begin(seed);
    for (uint64_t i = 0; i < options.steps; i++) {
        trace_step(i);
        step();
    }
    trace_step(options.steps);
    come_to_rest();
    close_all();
    drain();
    model_release(&sim.model);
    harness_release_over(&sim.harness);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0)
            trace_all = true;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            options.seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
            options.seeds = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--steps") == 0 && i + 1 < argc)
            options.steps = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--lmdb") == 0 && i + 1 < argc)
            options.lmdb = argv[++i];
        else {
            fprintf(stderr, "usage: sim [--seed N] [--seeds COUNT] [--steps M] [--lmdb DIR] "
                            "[--trace]\n");
            exit(2);
        }
    }
}

START_TEST(what_is_promised_holds)
{
    run((uint64_t)_i);
    if (options.seeds == 1)
        fprintf(stderr,
                "# %" PRIu64 " operations, %" PRIu64 " delivered, %" PRIu64 " confirmed, %" PRIu64
                " returned, %" PRIu64 " refused, %" PRIu64 " crashes, %" PRIu64 " restarts\n",
                sim.acts, sim.delivered, sim.confirmed, sim.returned, sim.refused, disk.crashes,
                disk.stops);
}
END_TEST

/* Each seed in a process of its own: one that fails does not end the others. */
int main(int argc, char **argv)
{
    parse(argc, argv);
    Suite *suite = suite_create("sim");
    TCase *tests = tcase_create("seed");
    tcase_set_timeout(tests, 0);
    tcase_add_loop_test(tests, what_is_promised_holds, (int)options.seed,
                        (int)(options.seed + options.seeds));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
