/* Appending to a buf; all else of the wire is inline in wire.h. */
#include "amqp/wire.h"

void amqp_write_u8(struct buf *out, uint8_t value)
{
    amqp_put_u8(buf_reserve(out, sizeof(value)), value);
    buf_commit(out, sizeof(value));
}

void amqp_write_u16(struct buf *out, uint16_t value)
{
    amqp_put_u16(buf_reserve(out, sizeof(value)), value);
    buf_commit(out, sizeof(value));
}

void amqp_write_u32(struct buf *out, uint32_t value)
{
    amqp_put_u32(buf_reserve(out, sizeof(value)), value);
    buf_commit(out, sizeof(value));
}

void amqp_write_u64(struct buf *out, uint64_t value)
{
    amqp_put_u64(buf_reserve(out, sizeof(value)), value);
    buf_commit(out, sizeof(value));
}

void amqp_write_shortstr(struct buf *out, struct slice string)
{
    assert(string.size <= AMQP_SHORTSTR_MAX);
    amqp_write_u8(out, (uint8_t)string.size);
    buf_append(out, string);
}

void amqp_write_longstr(struct buf *out, struct slice string)
{
    assert(string.size <= UINT32_MAX);
    amqp_write_u32(out, (uint32_t)string.size);
    buf_append(out, string);
}
