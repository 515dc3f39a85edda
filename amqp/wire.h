/* Octets, integers, strings: what the wire is made of. All integers are big-endian and unsigned.
 *
 * The reader is sticky: a read past the end gives zero or an empty slice, marks the reader bad and
 * leaves nothing to read, so that a decoder reads all its fields and asks once, at the end, whether
 * they were there. What it returns points into the input. Packed bits (2.10) are the business of
 * the method codec, the only place that has them.
 *
 * Writing has two forms. amqp_put_* store at a pointer whose room the caller has reserved and
 * return the octet after; amqp_write_* append to a buf and reserve for themselves. */
#ifndef AMQP_WIRE_H
#define AMQP_WIRE_H

#include <endian.h>

#include "base/buf.h"
#include "base/slice.h"

enum { AMQP_SHORTSTR_MAX = 255 };

static inline uint16_t amqp_get_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return be16toh(value);
}

static inline uint32_t amqp_get_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return be32toh(value);
}

static inline uint64_t amqp_get_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return be64toh(value);
}

static inline uint8_t *amqp_put_u8(uint8_t *at, uint8_t value)
{
    *at = value;
    return at + 1;
}

static inline uint8_t *amqp_put_u16(uint8_t *at, uint16_t value)
{
    value = htobe16(value);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static inline uint8_t *amqp_put_u32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static inline uint8_t *amqp_put_u64(uint8_t *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static inline uint8_t *amqp_put_bytes(uint8_t *at, struct slice bytes)
{
    if (bytes.size > 0)
        memcpy(at, bytes.data, bytes.size);
    return at + bytes.size;
}

static inline uint8_t *amqp_put_shortstr(uint8_t *at, struct slice string)
{
    assert(string.size <= AMQP_SHORTSTR_MAX);
    return amqp_put_bytes(amqp_put_u8(at, (uint8_t)string.size), string);
}

/* A long string, and a table or array too: all three are bytes behind their 32 bit size. */
static inline uint8_t *amqp_put_longstr(uint8_t *at, struct slice string)
{
    assert(string.size <= UINT32_MAX);
    return amqp_put_bytes(amqp_put_u32(at, (uint32_t)string.size), string);
}

void amqp_write_u8(struct buf *out, uint8_t value);
void amqp_write_u16(struct buf *out, uint16_t value);
void amqp_write_u32(struct buf *out, uint32_t value);
void amqp_write_u64(struct buf *out, uint64_t value);
void amqp_write_shortstr(struct buf *out, struct slice string);
void amqp_write_longstr(struct buf *out, struct slice string);

struct amqp_reader {
    const uint8_t *next, *end;
    bool bad; /* something was read that was not there; stays */
};

static inline struct amqp_reader amqp_reader_of(struct slice input)
{
    const uint8_t *end = input.size > 0 ? input.data + input.size : input.data; /* may be NULL */
    return (struct amqp_reader){.next = input.data, .end = end};
}

static inline size_t amqp_reader_left(const struct amqp_reader *reader)
{
    return (size_t)(reader->end - reader->next);
}

/* The next size octets, or NULL. */
static inline const uint8_t *amqp_read(struct amqp_reader *reader, size_t size)
{
    if (unlikely(size > amqp_reader_left(reader))) {
        reader->bad = true;
        reader->next = reader->end;
        return NULL;
    }
    const uint8_t *at = reader->next;
    reader->next += size;
    return at;
}

static inline uint8_t amqp_read_u8(struct amqp_reader *reader)
{
    const uint8_t *at = amqp_read(reader, 1);
    return likely(at != NULL) ? *at : 0;
}

static inline uint16_t amqp_read_u16(struct amqp_reader *reader)
{
    const uint8_t *at = amqp_read(reader, 2);
    return likely(at != NULL) ? amqp_get_u16(at) : 0;
}

static inline uint32_t amqp_read_u32(struct amqp_reader *reader)
{
    const uint8_t *at = amqp_read(reader, 4);
    return likely(at != NULL) ? amqp_get_u32(at) : 0;
}

static inline uint64_t amqp_read_u64(struct amqp_reader *reader)
{
    const uint8_t *at = amqp_read(reader, 8);
    return likely(at != NULL) ? amqp_get_u64(at) : 0;
}

static inline struct slice amqp_read_bytes(struct amqp_reader *reader, size_t size)
{
    const uint8_t *at = amqp_read(reader, size);
    return likely(at != NULL) ? (struct slice){at, size} : (struct slice){reader->end, 0};
}

static inline struct slice amqp_read_shortstr(struct amqp_reader *reader)
{
    uint8_t size = amqp_read_u8(reader);
    return amqp_read_bytes(reader, size);
}

/* A long string, and the bytes of a table or array, not yet checked. */
static inline struct slice amqp_read_longstr(struct amqp_reader *reader)
{
    uint32_t size = amqp_read_u32(reader);
    return amqp_read_bytes(reader, size);
}

#endif
