/* What is wrong with a frame, and writing one; the parser itself is inline in frame.h. */
#include "amqp/frame.h"

enum { SNIPPET_SIZE = 16 }; /* octets of a bad frame's payload that its error shows (2.3) */

static void fail_frame(struct slice input, uint16_t code, const char *reason,
                       struct amqp_error *error)
{
    char octets[SNIPPET_SIZE * 4 + 1] = "";
    size_t size = min_of(amqp_get_u32(input.data + 3), input.size - AMQP_FRAME_HEAD_SIZE);
    size_t shown = min_of(size, SNIPPET_SIZE);

    char *end = octets;
    for (size_t i = 0; i < shown; i++)
        end += sprintf(end, "%s%u", i == 0 ? "" : ",", input.data[AMQP_FRAME_HEAD_SIZE + i]);
    amqp_fail(error, code, "type %u, %s octets = <<%s>>: %s", input.data[0],
              shown < size ? "first 16" : "all", octets, reason);
}

void amqp_frame_refuse(struct slice input, uint32_t frame_max, struct amqp_error *error)
{
    assert(input.size >= AMQP_FRAME_HEAD_SIZE && frame_max >= AMQP_FRAME_OVERHEAD);
    uint8_t type = input.data[0];
    uint16_t channel = amqp_get_u16(input.data + 1);
    uint32_t size = amqp_get_u32(input.data + 3);
    uint16_t code = AMQP_FRAME_ERROR;
    char reason[64];

    if (size > frame_max) {
        snprintf(reason, sizeof(reason), "{frame_too_large,%" PRIu32 ",%" PRIu32 "}", size,
                 frame_max - AMQP_FRAME_OVERHEAD);
    } else if (type == 0 || (type > AMQP_FRAME_BODY && type != AMQP_FRAME_HEARTBEAT)) {
        snprintf(reason, sizeof(reason), "unknown_frame");
    } else if (type == AMQP_FRAME_HEARTBEAT && channel != 0) {
        code = AMQP_UNEXPECTED_FRAME;
        snprintf(reason, sizeof(reason), "heartbeat on channel %u", channel);
    } else if (type == AMQP_FRAME_HEARTBEAT && size != 0) {
        snprintf(reason, sizeof(reason), "heartbeat with a payload");
    } else {
        snprintf(reason, sizeof(reason), "{invalid_frame_end_marker,%u}",
                 input.data[AMQP_FRAME_HEAD_SIZE + (size_t)size]);
    }
    error->class_id = error->method_id = 0;
    fail_frame(input, code, reason, error);
}

size_t amqp_frame_begin(struct buf *out, enum amqp_frame_type type, uint16_t channel)
{
    size_t frame = buf_size(out);
    amqp_put_frame_head(buf_reserve(out, AMQP_FRAME_HEAD_SIZE), type, channel, 0);
    buf_commit(out, AMQP_FRAME_HEAD_SIZE);
    return frame;
}

void amqp_frame_end(struct buf *out, size_t frame)
{
    assert(frame + AMQP_FRAME_HEAD_SIZE <= buf_size(out));
    size_t size = buf_size(out) - frame - AMQP_FRAME_HEAD_SIZE;
    assert(size <= UINT32_MAX);
    amqp_put_u32(out->data + out->begin + frame + 3, (uint32_t)size);
    amqp_write_u8(out, AMQP_FRAME_END);
}

void amqp_write_heartbeat(struct buf *out)
{
    amqp_frame_end(out, amqp_frame_begin(out, AMQP_FRAME_HEARTBEAT, 0));
}

const struct slice amqp_protocol_header = {(const uint8_t *)"AMQP\0\0\x09\x01",
                                           AMQP_PROTOCOL_HEADER_SIZE};

enum amqp_protocol amqp_protocol_parse(const uint8_t octets[AMQP_PROTOCOL_HEADER_SIZE])
{
    static const uint8_t amqp_0_9[] = {'A', 'M', 'Q', 'P', 1, 1, 0, 9};

    if (memcmp(octets, amqp_protocol_header.data, AMQP_PROTOCOL_HEADER_SIZE) == 0 ||
        memcmp(octets, amqp_0_9, sizeof(amqp_0_9)) == 0)
        return AMQP_PROTOCOL_0_9_1;
    if (memcmp(octets, "AMQP", 4) == 0)
        return AMQP_PROTOCOL_OTHER;
    if (memcmp(octets, "GET ", 4) == 0)
        return AMQP_PROTOCOL_HTTP;
    if (octets[0] == 0x16 && octets[1] == 0x03 &&
        octets[5] == 0x01) /* handshake, 3.x, ClientHello */
        return AMQP_PROTOCOL_TLS;
    return AMQP_PROTOCOL_UNKNOWN;
}
