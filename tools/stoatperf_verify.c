/* The publishers of a queue are its feeders: all of them with fan-out; else those that topology.h
 * deals to it, of which the one called p is the (p / queues)-th.
 *
 * A line is a sequence of deliveries in which order can be asked for: a queue, where each has one
 * consumer; a consumer, where each has one queue. */
#include "tools/stoatperf_verify.h"

#include "base/alloc.h"

void verify_init(struct verify *verify, const struct topology *topology,
                 const struct publisher *publishers)
{
    const struct options *const options = topology->options;
    const uint32_t lines = max_of(options->queues, options->consumers);
    *verify = (struct verify){.topology = topology, .publishers = publishers};
    verify->feeders = options->fan_out
                          ? options->publishers
                          : (options->publishers + options->queues - 1) / options->queues;
    verify->ledgers = xcalloc(size_mul(options->queues, verify->feeders), sizeof(*verify->ledgers));
    verify->expected = xcalloc(size_mul(lines, verify->feeders), sizeof(*verify->expected));
}

void verify_release(struct verify *verify)
{
    if (verify->ledgers == NULL)
        return;
    const size_t count = (size_t)verify->topology->options->queues * verify->feeders;
    for (size_t i = 0; i < count; i++)
        ledger_release(&verify->ledgers[i]);
    free(verify->ledgers);
    free(verify->expected);
    verify->ledgers = NULL;
    verify->expected = NULL;
}

/* To which queue a publisher sends that message; with fan-out any will do. */
static bool is_meant_for(const struct topology *topology, uint32_t publisher, uint64_t sequence,
                         uint32_t queue)
{
    const struct options *const options = topology->options;
    if (queue >= options->queues)
        return false;
    if (options->fan_out)
        return true;
    const uint32_t turn = (uint32_t)(sequence % topology_turns(topology, publisher));
    return publisher % options->queues + turn * options->publishers == queue;
}

void verify_delivery(struct verify *verify, uint32_t consumer, const struct delivery *delivery)
{
    const struct topology *const topology = verify->topology;
    const struct options *const options = topology->options;
    const uint32_t publisher = (uint32_t)(delivery->id >> PUBLISHER_ID_SHIFT);
    const uint64_t sequence = delivery->id & ((1ull << PUBLISHER_ID_SHIFT) - 1);
    if (publisher >= options->publishers || sequence >= verify->publishers[publisher].sequence ||
        !is_meant_for(topology, publisher, sequence, delivery->queue)) {
        verify->invented++;
        return;
    }

    const size_t feeder = options->fan_out ? publisher : publisher / options->queues;
    const uint64_t ordinal = sequence / topology_turns(topology, publisher);
    if (!ledger_add(&verify->ledgers[delivery->queue * (size_t)verify->feeders + feeder],
                    ordinal)) {
        verify->duplicated++;
        return;
    }
    verify->distinct++;

    const uint32_t line = options->consumers < options->queues ? delivery->queue : consumer;
    uint64_t *const expected = &verify->expected[line * (size_t)verify->feeders + feeder];
    if (ordinal < *expected)
        verify->reordered++;
    else
        *expected = ordinal + 1;
}

uint64_t verify_lost(const struct verify *verify)
{
    uint64_t published = 0;
    for (uint32_t i = 0; i < verify->topology->options->publishers; i++)
        published += verify->publishers[i].sequence;
    return published * topology_copies(verify->topology) - verify->distinct;
}
