/* Frames, and the eight octets that come before the first one.
 *
 *     0      1         3         7                  7+size
 *     +------+---------+---------+------------------+------+
 *     | type | channel |  size   |  size octets     | 0xCE |
 *     +------+---------+---------+------------------+------+
 *
 * frame_max counts the whole frame. A sender keeps the payload within frame_max - 8; a reader
 * forgives those 8 octets, as sloppy clients have come to expect (2.2). Everything else that is
 * wrong with a frame ends the connection. */
#ifndef AMQP_FRAME_H
#define AMQP_FRAME_H

#include "amqp/reply.h"
#include "amqp/wire.h"

enum amqp_frame_type {
    AMQP_FRAME_METHOD = 1,
    AMQP_FRAME_HEADER = 2,
    AMQP_FRAME_BODY = 3,
    AMQP_FRAME_HEARTBEAT = 8,
};

enum {
    AMQP_FRAME_HEAD_SIZE = 7,
    AMQP_FRAME_OVERHEAD = 8, /* the head and the end octet */
    AMQP_FRAME_END = 0xCE,
    AMQP_FRAME_MAX_LEAST = 4096, /* every peer must take frames of this size */
};

struct amqp_frame {
    uint8_t type; /* enum amqp_frame_type */
    uint16_t channel;
    struct slice payload; /* points into the input */
};

enum amqp_parse { AMQP_PARSE_OK, AMQP_PARSE_MORE, AMQP_PARSE_BAD };

/* What is at the start of input is no frame, says amqp_frame_parse: why not. */
void amqp_frame_refuse(struct slice input, uint32_t frame_max, struct amqp_error *error);

/* Looks for one frame at the start of input. OK: *frame is filled and *used is its whole size.
 * MORE: what is there may become a frame; no more than frame_max + 8 octets are ever asked for.
 * BAD: *error says why (2.3), class and method 0; the stream cannot be read any further. frame_max
 * is the negotiated one. */
static inline enum amqp_parse amqp_frame_parse(struct slice input, uint32_t frame_max,
                                               struct amqp_frame *frame, size_t *used,
                                               struct amqp_error *error)
{
    if (input.size < AMQP_FRAME_HEAD_SIZE)
        return AMQP_PARSE_MORE;

    uint8_t type = input.data[0];
    uint16_t channel = amqp_get_u16(input.data + 1);
    uint32_t size = amqp_get_u32(input.data + 3);
    bool carries = type >= AMQP_FRAME_METHOD && type <= AMQP_FRAME_BODY;
    bool heartbeat = type == AMQP_FRAME_HEARTBEAT && channel == 0 && size == 0;
    if (unlikely(size > frame_max || (!carries && !heartbeat))) {
        amqp_frame_refuse(input, frame_max, error);
        return AMQP_PARSE_BAD;
    }
    if (input.size - AMQP_FRAME_HEAD_SIZE <= size)
        return AMQP_PARSE_MORE;
    if (unlikely(input.data[AMQP_FRAME_HEAD_SIZE + (size_t)size] != AMQP_FRAME_END)) {
        amqp_frame_refuse(input, frame_max, error);
        return AMQP_PARSE_BAD;
    }

    frame->type = type;
    frame->channel = channel;
    frame->payload = (struct slice){input.data + AMQP_FRAME_HEAD_SIZE, size};
    *used = (size_t)size + AMQP_FRAME_OVERHEAD;
    return AMQP_PARSE_OK;
}

/* Writes head and end around a payload that the caller appends in between. Returns what
 * amqp_frame_end wants: the place of the frame, counted from the front of the buf, which must not
 * be consumed meanwhile. */
size_t amqp_frame_begin(struct buf *out, enum amqp_frame_type type, uint16_t channel);
void amqp_frame_end(struct buf *out, size_t frame);

/* Stores a frame head at a pointer whose room the caller has reserved; returns the octet after. */
static inline uint8_t *amqp_put_frame_head(uint8_t *at, enum amqp_frame_type type, uint16_t channel,
                                           uint32_t size)
{
    return amqp_put_u32(amqp_put_u16(amqp_put_u8(at, (uint8_t)type), channel), size);
}

void amqp_write_heartbeat(struct buf *out);

/* What the first eight octets of a client ask for (1.2). Only AMQP_PROTOCOL_0_9_1 is served; all
 * others are answered with amqp_protocol_header and closed, and differ in what the log says. */
enum amqp_protocol {
    AMQP_PROTOCOL_0_9_1, /* AMQP 0 0 9 1, and 0-9's AMQP 1 1 0 9 */
    AMQP_PROTOCOL_OTHER, /* "AMQP", another version */
    AMQP_PROTOCOL_HTTP,  /* "GET " */
    AMQP_PROTOCOL_TLS,   /* a TLS ClientHello on a plain port */
    AMQP_PROTOCOL_UNKNOWN,
};

enum { AMQP_PROTOCOL_HEADER_SIZE = 8 };

enum amqp_protocol amqp_protocol_parse(const uint8_t octets[AMQP_PROTOCOL_HEADER_SIZE]);

/* AMQP 0 0 9 1: what we answer, and what a client sends. */
extern const struct slice amqp_protocol_header;

#endif
