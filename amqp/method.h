/* Methods: a struct for each, filled from a frame's payload and written back as a whole frame. All
 * of it is expanded from methods.def.
 *
 * A decoded method borrows: its strings and tables point into the payload and live as long as that.
 * A table is its entries, without the size in front, and has been through amqp_table_check. */
#ifndef AMQP_METHOD_H
#define AMQP_METHOD_H

#include "amqp/reply.h"
#include "base/buf.h"
#include "base/slice.h"

enum amqp_method_id { /* class << 16 | method */
#define METHOD(NAME, name, text, class, method, ...) AMQP_##NAME = (class) << 16 | (method),
#include "amqp/methods.def"
};

static inline uint16_t amqp_class_of(uint32_t method_id)
{
    return (uint16_t)(method_id >> 16);
}

static inline uint16_t amqp_method_of(uint32_t method_id)
{
    return (uint16_t)method_id;
}

#define OCTET(name)    uint8_t name;
#define SHORT(name)    uint16_t name;
#define LONG(name)     uint32_t name;
#define LONGLONG(name) uint64_t name;
#define BIT(name)      bool name;
#define SHORTSTR(name) struct slice name;
#define LONGSTR(name)  struct slice name;
#define TABLE(name)    struct slice name;
#define TICKET(name)
#define BARE(...)
#define METHOD(NAME, name, text, class, method, senders, traits, arguments)                        \
    struct amqp_##name {                                                                           \
        arguments                                                                                  \
    };
#include "amqp/methods.def"

struct amqp_method {
    uint32_t id; /* enum amqp_method_id */
    union {      /* the member named as the method; none for a method without arguments */
#define BARE(...)
#define METHOD(NAME, name, ...) struct amqp_##name name;
#include "amqp/methods.def"
    };
};

enum amqp_sender { AMQP_FROM_CLIENT = 1, AMQP_FROM_SERVER = 2, AMQP_FROM_BOTH = 3 };

struct amqp_method_info {
    const char *name;         /* "basic.publish" */
    enum amqp_sender senders; /* who may send it */
    bool has_content;         /* header and body frames follow */
    bool synchronous;         /* waits for a reply, unless no_wait */
};

/* Static; NULL for a number that is no method. */
const struct amqp_method_info *amqp_method_info(uint32_t id);

/* Decodes the payload of a method frame. False with error filled, class and method too: FRAME_ERROR
 * when the arguments are not exactly those of the method, COMMAND_INVALID when there is no such
 * method (2.3). *method is then undefined. */
bool amqp_method_decode(struct slice payload, struct amqp_method *method, struct amqp_error *error);

/* Appends the whole frame. A short string must have at most 255 octets; a table must be checked, or
 * our own. */
void amqp_method_encode(struct buf *out, uint16_t channel, const struct amqp_method *method);

#endif
