/* The content header and the basic properties.
 *
 *     0       2        4           12      14
 *     +-------+--------+-----------+-------+----------------------------------+
 *     | class | weight | body size | flags | the properties whose flag is set |
 *     +-------+--------+-----------+-------+----------------------------------+
 *                                  |<--------- "properties" below ---------->|
 *
 * Properties travel through the broker as these bytes, checked once when they arrive and forwarded
 * as they are (2.9); they are taken apart only by who asks. Flags stand from bit 15 downwards in
 * the order of the list (2.7); no property is defined for bits 1 and 0, so that a header that sets
 * one cannot be read. */
#ifndef AMQP_PROPERTIES_H
#define AMQP_PROPERTIES_H

#include "amqp/reply.h"
#include "amqp/wire.h"

#define AMQP_PROPERTY_LIST(SHORTSTR, TABLE, OCTET, LONGLONG)                                       \
    SHORTSTR(CONTENT_TYPE, content_type, 15)                                                       \
    SHORTSTR(CONTENT_ENCODING, content_encoding, 14)                                               \
    TABLE(HEADERS, headers, 13)                                                                    \
    OCTET(DELIVERY_MODE, delivery_mode, 12)                                                        \
    OCTET(PRIORITY, priority, 11)                                                                  \
    SHORTSTR(CORRELATION_ID, correlation_id, 10)                                                   \
    SHORTSTR(REPLY_TO, reply_to, 9)                                                                \
    SHORTSTR(EXPIRATION, expiration, 8)                                                            \
    SHORTSTR(MESSAGE_ID, message_id, 7)                                                            \
    LONGLONG(TIMESTAMP, timestamp, 6)                                                              \
    SHORTSTR(TYPE, type, 5)                                                                        \
    SHORTSTR(USER_ID, user_id, 4)                                                                  \
    SHORTSTR(APP_ID, app_id, 3)                                                                    \
    SHORTSTR(CLUSTER_ID, cluster_id, 2)

enum amqp_property {
#define FLAG(NAME, name, bit) AMQP_PROPERTY_##NAME = 1 << (bit),
    AMQP_PROPERTY_LIST(FLAG, FLAG, FLAG, FLAG)
#undef FLAG
};

enum { AMQP_DELIVERY_TRANSIENT = 1, AMQP_DELIVERY_PERSISTENT = 2 };

struct amqp_properties {
    uint16_t flags; /* which of the others are there: enum amqp_property */
    uint8_t delivery_mode;
    uint8_t priority;
    uint64_t timestamp; /* seconds */
    struct slice content_type, content_encoding;
    struct slice headers; /* a checked table, without its size */
    struct slice correlation_id, reply_to, expiration, message_id, type, user_id, app_id,
        cluster_id;
};

/* From and to the bytes of the picture. What is decoded points into them; what is absent is zero.
 * Decode is false when they are not exactly the properties that their flags promise, *properties
 * then being undefined; encode trusts flags. */
bool amqp_properties_decode(struct slice bytes, struct amqp_properties *properties);
void amqp_properties_encode(struct buf *out, const struct amqp_properties *properties);

/* The shortcuts of the publishing path, for bytes that amqp_content_header_decode has let
 * through. */

/* The bytes of one property, a short string or table without its size; data is NULL when it is
 * absent. */
struct slice amqp_properties_find(struct slice bytes, enum amqp_property property);

static inline uint16_t amqp_properties_flags(struct slice bytes)
{
    assert(bytes.size >= 2);
    return amqp_get_u16(bytes.data);
}

static inline uint8_t amqp_properties_delivery_mode(struct slice bytes) /* 0 when absent */
{
    uint16_t flags = amqp_properties_flags(bytes);
    if (!(flags & AMQP_PROPERTY_DELIVERY_MODE))
        return 0;
    const uint8_t *at = bytes.data + 2;
    if (flags & AMQP_PROPERTY_CONTENT_TYPE)
        at += 1 + *at;
    if (flags & AMQP_PROPERTY_CONTENT_ENCODING)
        at += 1 + *at;
    if (flags & AMQP_PROPERTY_HEADERS)
        at += 4 + amqp_get_u32(at);
    return *at;
}

struct amqp_content_header {
    uint16_t class_id;
    uint64_t body_size;
    struct slice properties; /* the bytes of the picture, never empty */
};

/* Decodes the payload of a header frame. False with FRAME_ERROR when the weight is not 0 or the
 * properties cannot be read (2.3); the size is for the caller to judge. */
bool amqp_content_header_decode(struct slice payload, struct amqp_content_header *header,
                                struct amqp_error *error);

/* Appends the whole frame. */
void amqp_content_header_encode(struct buf *out, uint16_t channel,
                                const struct amqp_content_header *header);

#endif
