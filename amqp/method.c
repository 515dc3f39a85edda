/* The method codec, expanded from methods.def: for each method a straight-line function that reads
 * its arguments and one that writes its frame. An id finds its function through a switch, which
 * compilers make a search of.
 *
 * Bits (2.10): `bit` is the number of bits of the current octet that are taken; every other
 * argument starts a new one. It is known at compile time everywhere, so that nothing of it is left
 * in the code.
 *
 * Octets left over after the last argument are an error, as they are for RabbitMQ: a method is
 * exactly its arguments. */
#include "amqp/method.h"

#include "amqp/frame.h"
#include "amqp/table.h"

static struct slice read_table(struct amqp_reader *reader)
{
    struct slice table = amqp_read_longstr(reader);
    if (unlikely(!amqp_table_check(table)))
        reader->bad = true;
    return table;
}

#define READ(field, value)                                                                         \
    bit = 0;                                                                                       \
    method->field = (value);
#define OCTET(field)    READ(field, amqp_read_u8(reader))
#define SHORT(field)    READ(field, amqp_read_u16(reader))
#define LONG(field)     READ(field, amqp_read_u32(reader))
#define LONGLONG(field) READ(field, amqp_read_u64(reader))
#define SHORTSTR(field) READ(field, amqp_read_shortstr(reader))
#define LONGSTR(field)  READ(field, amqp_read_longstr(reader))
#define TABLE(field)    READ(field, read_table(reader))
#define TICKET(field)                                                                              \
    bit = 0;                                                                                       \
    amqp_read_u16(reader);
#define BIT(field)                                                                                 \
    if (bit == 0)                                                                                  \
        bits = amqp_read_u8(reader);                                                               \
    method->field = bits >> bit & 1;                                                               \
    bit = (bit + 1) % 8;

#define BARE(...)
#define METHOD(NAME, name, text, class, id, senders, traits, arguments)                            \
    static void decode_##name(struct amqp_reader *reader, struct amqp_##name *method)              \
    {                                                                                              \
        unsigned bit = 0;                                                                          \
        uint8_t bits = 0;                                                                          \
        (void)bit;                                                                                 \
        (void)bits;                                                                                \
        arguments                                                                                  \
    }
#include "amqp/methods.def"
#undef READ

static bool refuse(const struct amqp_method *method, size_t size, struct amqp_error *error)
{
    const struct amqp_method_info *info = amqp_method_info(method->id);

    error->class_id = amqp_class_of(method->id);
    error->method_id = amqp_method_of(method->id);
    if (size < sizeof(method->id))
        return amqp_fail(error, AMQP_FRAME_ERROR, "cannot decode a method of %zu octets", size);
    if (info == NULL)
        return amqp_fail(error, AMQP_COMMAND_INVALID, "unknown method %u of class %u",
                         error->method_id, error->class_id);
    return amqp_fail(error, AMQP_FRAME_ERROR, "cannot decode the arguments of %s", info->name);
}

bool amqp_method_decode(struct slice payload, struct amqp_method *method, struct amqp_error *error)
{
    struct amqp_reader reader = amqp_reader_of(payload);

    method->id = amqp_read_u32(&reader);
    switch (method->id) {
#define BARE(NAME, ...)                                                                            \
    case AMQP_##NAME:                                                                              \
        break;
#define METHOD(NAME, name, ...)                                                                    \
    case AMQP_##NAME:                                                                              \
        decode_##name(&reader, &method->name);                                                     \
        break;
#include "amqp/methods.def"
    default:
        reader.bad = true;
    }
    if (unlikely(reader.bad || reader.next != reader.end))
        return refuse(method, payload.size, error);
    return true;
}

/* The frame that begins at the reserved end of out and whose payload ends at `at`: its head, its
 * end octet. */
static void close_frame(struct buf *out, uint16_t channel, uint8_t *at)
{
    uint8_t *frame = out->data + out->end;
    size_t size = (size_t)(at - frame) - AMQP_FRAME_HEAD_SIZE;

    assert(size <= UINT32_MAX);
    amqp_put_frame_head(frame, AMQP_FRAME_METHOD, channel, (uint32_t)size);
    amqp_put_u8(at, AMQP_FRAME_END);
    buf_commit(out, size + AMQP_FRAME_OVERHEAD);
}

/* Reserves room for a method frame with arguments of at most size octets; returns where they
 * start. */
static uint8_t *open_frame(struct buf *out, uint32_t id, size_t size)
{
    uint8_t *frame = buf_reserve(out, AMQP_FRAME_OVERHEAD + sizeof(id) + size);
    return amqp_put_u32(frame + AMQP_FRAME_HEAD_SIZE, id);
}

/* The room that arguments take, a bit counted as an octet. */
#define OCTET(field)    +1
#define SHORT(field)    +2
#define LONG(field)     +4
#define LONGLONG(field) +8
#define SHORTSTR(field) +1 + method->field.size
#define LONGSTR(field)  +4 + method->field.size
#define TABLE(field)    +4 + method->field.size
#define TICKET(field)   +2
#define BIT(field)      +1
#define BARE(...)
#define METHOD(NAME, name, text, class, id, senders, traits, arguments)                            \
    static size_t room_##name(const struct amqp_##name *method)                                    \
    {                                                                                              \
        (void)method;                                                                              \
        return 0 arguments;                                                                        \
    }
#include "amqp/methods.def"

#define WRITE(value)                                                                               \
    bit = 0;                                                                                       \
    at = (value);
#define OCTET(field)    WRITE(amqp_put_u8(at, method->field))
#define SHORT(field)    WRITE(amqp_put_u16(at, method->field))
#define LONG(field)     WRITE(amqp_put_u32(at, method->field))
#define LONGLONG(field) WRITE(amqp_put_u64(at, method->field))
#define SHORTSTR(field) WRITE(amqp_put_shortstr(at, method->field))
#define LONGSTR(field)  WRITE(amqp_put_longstr(at, method->field))
#define TABLE(field)    WRITE(amqp_put_longstr(at, method->field))
#define TICKET(field)   WRITE(amqp_put_u16(at, 0))
#define BIT(field)                                                                                 \
    if (bit == 0)                                                                                  \
        at = amqp_put_u8(at, 0);                                                                   \
    at[-1] |= (uint8_t)(method->field << bit);                                                     \
    bit = (bit + 1) % 8;

#define BARE(...)
#define METHOD(NAME, name, text, class, id, senders, traits, arguments)                            \
    static void encode_##name(struct buf *out, uint16_t channel, const struct amqp_##name *method) \
    {                                                                                              \
        unsigned bit = 0;                                                                          \
        uint8_t *at = open_frame(out, AMQP_##NAME, room_##name(method));                           \
        (void)bit;                                                                                 \
        arguments;                                                                                 \
        close_frame(out, channel, at);                                                             \
    }
#include "amqp/methods.def"
#undef WRITE

void amqp_method_encode(struct buf *out, uint16_t channel, const struct amqp_method *method)
{
    switch (method->id) {
#define BARE(NAME, ...)                                                                            \
    case AMQP_##NAME:                                                                              \
        close_frame(out, channel, open_frame(out, AMQP_##NAME, 0));                                \
        break;
#define METHOD(NAME, name, ...)                                                                    \
    case AMQP_##NAME:                                                                              \
        encode_##name(out, channel, &method->name);                                                \
        break;
#include "amqp/methods.def"
    default:
        assert(!"a method that does not exist");
    }
}

enum trait { CONTENT = 1, SYNC = 2 };

const struct amqp_method_info *amqp_method_info(uint32_t id)
{
    switch (id) {
#define METHOD(NAME, name, text, class, method, senders, traits, ...)                              \
    case AMQP_##NAME: {                                                                            \
        static const struct amqp_method_info info = {                                              \
            text, AMQP_FROM_##senders, ((traits)&CONTENT) != 0, ((traits)&SYNC) != 0};             \
        return &info;                                                                              \
    }
#include "amqp/methods.def"
    default:
        return NULL;
    }
}
