#include "tests/lib/memory_broker.h"

#include "store/memory.h"

static void on_store_failure(struct broker *broker)
{
    (void)broker;
    abort(); /* a test that makes the store fail sets its own */
}

static void open_broker(struct memory_broker *memory)
{
    const struct broker_defaults defaults = {.vhost = SLICE("/")};

    if (loop_init(&memory->loop, &memory->clock) != 0 ||
        broker_init(&memory->broker, &memory->loop, &memory->clock, &memory->random,
                    memory->store) != 0)
        abort();
    broker_give_defaults(&memory->broker, &defaults);
    struct scratch *scratch;
    char error[SCRATCH_ERROR_SIZE];
    if (scratch_open(NULL, &scratch, error) != 0 ||
        broker_set_scratch(&memory->broker, scratch) != 0)
        abort();
    memory->broker.on_store_failure = on_store_failure;
    memory->vhost = vhost_find(&memory->broker, SLICE("/"));
}

/* The turn frees what was deleted. */
static void close_broker(struct memory_broker *memory)
{
    loop_turn(&memory->loop, 0);
    broker_release(&memory->broker);
    loop_release(&memory->loop);
}

void memory_broker_start(struct memory_broker *memory)
{
    *memory = (struct memory_broker){.clock = {.fake = true, .now_ms = 1000, .wall_ms = 1000}};
    random_init_seeded(&memory->random, 1);
    memory->store = store_memory_new();
    open_broker(memory);
}

void memory_broker_stop(struct memory_broker *memory)
{
    close_broker(memory);
    store_close(&memory->store);
}

void memory_broker_sync(struct memory_broker *memory)
{
    do
        loop_turn(&memory->loop, 0);
    while (store_is_busy(memory->store) || !store_open_is_empty(memory->store));
}

void memory_broker_restart(struct memory_broker *memory)
{
    store_memory_set_auto_sync(memory->store, false);
    close_broker(memory);
    store_memory_crash(memory->store);
    store_memory_set_auto_sync(memory->store, true);
    open_broker(memory);
}
