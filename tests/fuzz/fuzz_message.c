/* A message's record, as the store gives it back: the whole is read, or none of it. */
#include "core/message.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message *message = message_from_record(slice_of(data, size));

    if (message == NULL)
        return 0;
    must(slice_equal(message_record(message), slice_of(data, size)));
    must(message_exchange(message).size + message_routing_key(message).size +
             message_properties(message).size + message_body(message).size <=
         size);
    message_unref(&message);
    return 0;
}
