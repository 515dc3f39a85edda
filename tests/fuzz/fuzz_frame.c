/* A stream of frames cut anywhere: whole or a byte at a time, the same frames come out. */
#include "amqp/frame.h"
#include "tests/fuzz/fuzz.h"

enum { FRAME_MAX = 4096, FRAMES_MAX = 64 };

struct seen {
    struct amqp_frame frames[FRAMES_MAX];
    size_t count;
    enum amqp_parse last;
    uint16_t code;
};

/* step 0: all at once; else that many bytes more each time. */
static void parse(struct slice stream, size_t step, struct seen *seen)
{
    size_t shown = step == 0 ? stream.size : 0, taken = 0;

    *seen = (struct seen){.last = AMQP_PARSE_MORE};
    for (;;) {
        struct amqp_error error;
        size_t used = 0;
        if (seen->count == FRAMES_MAX)
            return;
        struct amqp_frame *frame = &seen->frames[seen->count];
        seen->last = amqp_frame_parse(slice_of(stream.data + taken, shown - taken), FRAME_MAX,
                                      frame, &used, &error);
        if (seen->last == AMQP_PARSE_BAD) {
            seen->code = error.code;
            return;
        }
        if (seen->last == AMQP_PARSE_OK) {
            must(used <= shown - taken);
            must(used == frame->payload.size + AMQP_FRAME_OVERHEAD);
            must(frame->payload.size <= FRAME_MAX);
            seen->count++;
            taken += used;
            continue;
        }
        must(shown - taken <= FRAME_MAX + AMQP_FRAME_OVERHEAD);
        if (shown == stream.size)
            return;
        shown = min_of(shown + step, stream.size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole, slow;

    if (size == 0)
        return 0;
    parse(slice_of(data, size), 0, &whole);
    parse(slice_of(data, size), 1 + data[0] % 7, &slow);
    must(whole.count == slow.count && whole.last == slow.last && whole.code == slow.code);
    for (size_t i = 0; i < whole.count; i++) {
        must(whole.frames[i].type == slow.frames[i].type);
        must(whole.frames[i].channel == slow.frames[i].channel);
        must(slice_equal(whole.frames[i].payload, slow.frames[i].payload));
    }
    if (size >= AMQP_PROTOCOL_HEADER_SIZE)
        amqp_protocol_parse(data);
    return 0;
}
