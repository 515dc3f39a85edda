/* The payload of a method frame. What can be decoded is written again, and reads the same: the
 * second writing is the first. */
#include "amqp/frame.h"
#include "amqp/method.h"
#include "tests/fuzz/fuzz.h"

static struct slice payload_of(const struct buf *frame)
{
    struct slice bytes = buf_slice(frame);

    must(bytes.size >= AMQP_FRAME_OVERHEAD);
    return slice_of(bytes.data + AMQP_FRAME_HEAD_SIZE, bytes.size - AMQP_FRAME_OVERHEAD);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amqp_method method, again;
    struct amqp_error error = {0};
    struct buf first = BUF_EMPTY, second = BUF_EMPTY;

    if (!amqp_method_decode(slice_of(data, size), &method, &error)) {
        must(error.code == AMQP_FRAME_ERROR || error.code == AMQP_COMMAND_INVALID);
        must(strnlen(error.text, sizeof(error.text)) < sizeof(error.text));
        return 0;
    }
    must(amqp_method_info(method.id) != NULL);
    amqp_method_encode(&first, 1, &method);
    must(amqp_method_decode(payload_of(&first), &again, &error));
    amqp_method_encode(&second, 1, &again);
    must(slice_equal(buf_slice(&first), buf_slice(&second)));
    must(payload_of(&first).size == size); /* nothing was skipped, nothing made up */
    buf_release(&first);
    buf_release(&second);
    return 0;
}
