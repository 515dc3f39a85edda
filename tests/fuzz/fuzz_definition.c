/* Definitions as the store gives them back, key and value in turns: each becomes an object or is
 * skipped, and the broker with all of them routes, restarts and ends. */
#include "base/log.h"
#include "core/definition.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/memory_broker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_of(data, size), key, value;
    struct memory_broker memory;

    atomic_store(&log_level, (int)LOG_NONE);
    memory_broker_start(&memory);
    while (fuzz_part(&input, &key) && fuzz_part(&input, &value))
        if (key.size > 0)
            definition_recover(&memory.broker, key, value);
    memory_broker_sync(&memory);
    memory_broker_stop(&memory);
    return 0;
}
