/* The content header codec: the list of properties, expanded once to read and once to write. */
#include "amqp/properties.h"

#include "amqp/frame.h"
#include "amqp/table.h"

enum { DEFINED_FLAGS = 0xFFFC };

bool amqp_properties_decode(struct slice bytes, struct amqp_properties *properties)
{
    struct amqp_reader reader = amqp_reader_of(bytes);
    uint16_t flags = amqp_read_u16(&reader);

    properties->flags = flags;
    if (flags & ~DEFINED_FLAGS)
        return false;
#define READ(NAME, name, read, absent)                                                             \
    properties->name = flags & AMQP_PROPERTY_##NAME ? read(&reader) : absent;
#define SHORTSTR(NAME, name, bit) READ(NAME, name, amqp_read_shortstr, ((struct slice){NULL, 0}))
#define LONGSTR(NAME, name, bit)  READ(NAME, name, amqp_read_longstr, ((struct slice){NULL, 0}))
#define OCTET(NAME, name, bit)    READ(NAME, name, amqp_read_u8, 0)
#define LONGLONG(NAME, name, bit) READ(NAME, name, amqp_read_u64, 0)
    AMQP_PROPERTY_LIST(SHORTSTR, LONGSTR, OCTET, LONGLONG)
#undef READ
#undef SHORTSTR
#undef LONGSTR
#undef OCTET
#undef LONGLONG
    return !reader.bad && reader.next == reader.end && amqp_table_check(properties->headers);
}

void amqp_properties_encode(struct buf *out, const struct amqp_properties *properties)
{
    uint16_t flags = properties->flags;

    assert((flags & ~DEFINED_FLAGS) == 0);
    amqp_write_u16(out, flags);
#define WRITE(NAME, name, write)                                                                   \
    if (flags & AMQP_PROPERTY_##NAME)                                                              \
        write(out, properties->name);
#define SHORTSTR(NAME, name, bit) WRITE(NAME, name, amqp_write_shortstr)
#define LONGSTR(NAME, name, bit)  WRITE(NAME, name, amqp_write_longstr)
#define OCTET(NAME, name, bit)    WRITE(NAME, name, amqp_write_u8)
#define LONGLONG(NAME, name, bit) WRITE(NAME, name, amqp_write_u64)
    AMQP_PROPERTY_LIST(SHORTSTR, LONGSTR, OCTET, LONGLONG)
#undef WRITE
#undef SHORTSTR
#undef LONGSTR
#undef OCTET
#undef LONGLONG
}

struct slice amqp_properties_find(struct slice bytes, enum amqp_property property)
{
    struct amqp_reader reader = amqp_reader_of(bytes);
    const uint16_t flags = amqp_read_u16(&reader);

    if (!(flags & property))
        return (struct slice){0};
#define PASS(NAME, read)                                                                           \
    if (flags & AMQP_PROPERTY_##NAME) {                                                            \
        const struct slice field = read;                                                           \
        if (property == AMQP_PROPERTY_##NAME)                                                      \
            return field;                                                                          \
    }
#define SHORTSTR(NAME, name, bit) PASS(NAME, amqp_read_shortstr(&reader))
#define LONGSTR(NAME, name, bit)  PASS(NAME, amqp_read_longstr(&reader))
#define OCTET(NAME, name, bit)    PASS(NAME, amqp_read_bytes(&reader, 1))
#define LONGLONG(NAME, name, bit) PASS(NAME, amqp_read_bytes(&reader, 8))
    AMQP_PROPERTY_LIST(SHORTSTR, LONGSTR, OCTET, LONGLONG)
#undef PASS
#undef SHORTSTR
#undef LONGSTR
#undef OCTET
#undef LONGLONG
    __builtin_unreachable();
}

/* Most messages have no properties, or the delivery mode alone. */
static bool properties_check(struct slice bytes)
{
    uint16_t flags = bytes.size >= 2 ? amqp_get_u16(bytes.data) : 0;
    if (flags == 0)
        return bytes.size == 2;
    if (flags == AMQP_PROPERTY_DELIVERY_MODE)
        return bytes.size == 3;

    struct amqp_properties properties;
    return amqp_properties_decode(bytes, &properties);
}

bool amqp_content_header_decode(struct slice payload, struct amqp_content_header *header,
                                struct amqp_error *error)
{
    struct amqp_reader reader = amqp_reader_of(payload);

    header->class_id = amqp_read_u16(&reader);
    uint16_t weight = amqp_read_u16(&reader);
    header->body_size = amqp_read_u64(&reader);
    header->properties = amqp_read_bytes(&reader, amqp_reader_left(&reader));
    if (likely(!reader.bad && weight == 0 && properties_check(header->properties)))
        return true;

    error->class_id = header->class_id;
    error->method_id = 0;
    if (reader.bad)
        return amqp_fail(error, AMQP_FRAME_ERROR, "cannot decode a content header of %zu octets",
                         payload.size);
    if (weight != 0)
        return amqp_fail(error, AMQP_FRAME_ERROR, "cannot decode a content header of weight %u",
                         weight);
    return amqp_fail(error, AMQP_FRAME_ERROR, "cannot decode the properties of class %u",
                     header->class_id);
}

void amqp_content_header_encode(struct buf *out, uint16_t channel,
                                const struct amqp_content_header *header)
{
    size_t size = 12 + header->properties.size;
    assert(header->properties.size >= 2 && size <= UINT32_MAX);

    uint8_t *at = buf_reserve(out, size + AMQP_FRAME_OVERHEAD);
    at = amqp_put_frame_head(at, AMQP_FRAME_HEADER, channel, (uint32_t)size);
    at = amqp_put_u16(at, header->class_id);
    at = amqp_put_u16(at, 0); /* weight */
    at = amqp_put_u64(at, header->body_size);
    at = amqp_put_bytes(at, header->properties);
    amqp_put_u8(at, AMQP_FRAME_END);
    buf_commit(out, size + AMQP_FRAME_OVERHEAD);
}
