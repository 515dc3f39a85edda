/* Whether the records of a store can be understood as definitions: a broker in memory reads
 * them. */
#include "base/alloc.h"
#include "core/broker.h"
#include "core/definition.h"
#include "store/memory.h"
#include "tools/stoatctl.h"

static struct reading {
    struct loop loop;
    struct clock clock;
    struct random random;
    struct broker broker;
} * reading;

bool definitions_are_sound(struct slice key, struct slice value)
{
    if (quarantine_recover_record(&reading->broker.quarantine, key, value))
        return true;
    if (key.data[0] == 0) /* not a definition, but the broker's own, as its highest queue id */
        return value.size > 0;
    return definition_recover(&reading->broker, key, value);
}

uint64_t definitions_quarantine(void)
{
    return reading->broker.quarantine.id;
}

bool definitions_begin(void)
{
    reading = xcalloc(1, sizeof *reading);

    clock_update(&reading->clock);
    random_init(&reading->random);
    return loop_init(&reading->loop, &reading->clock) == 0 &&
           broker_init(&reading->broker, &reading->loop, &reading->clock, &reading->random,
                       store_memory_new()) == 0;
}

void definitions_end(void)
{
    struct store *store = reading->broker.store;

    broker_release(&reading->broker);
    store_close(&store);
    loop_release(&reading->loop);
    free(reading);
    reading = NULL;
}
