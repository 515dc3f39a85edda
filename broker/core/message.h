/* A message: properties and body with the exchange and routing key of its publish; counted,
 * immutable once complete, shared by all its queues. It is one block whose tail is, byte for byte,
 * the record that the store keeps:
 *
 *     offset  size
 *     0       1     format version (1)
 *     1       1     flags
 *     2       1     length of the exchange name (e)
 *     3       1     length of the routing key (k)
 *     4       4     length of the properties (p), big-endian
 *     8       e     exchange name
 *     8+e     k     routing key
 *     8+e+k   p     properties: flags and fields as on the wire
 *     ...     4+b   with flag BCC: the keys of that header, an array with its size, which nobody is shown (7.16)
 *     ...           body, to the end
 *
 * so that storing it copies nothing on the loop, and reading it back copies it once. */
#ifndef CORE_MESSAGE_H
#define CORE_MESSAGE_H

#include "base/slice.h"

/* Who waits for the fate of a publish: the confirms of a channel. Counted, because messages may
 * outlive the channel. */
struct publisher;
struct publisher_ops {
    /* The publish with this sequence number no longer waits for the store. */
    void (*on_settled)(struct publisher *publisher, uint64_t sequence);
    void (*on_free)(struct publisher *publisher);
};
struct publisher {
    const struct publisher_ops *ops;
    uint32_t refs;
};
void publisher_ref(struct publisher *publisher);
void publisher_unref(struct publisher **publisher);

enum { MESSAGE_VERSION = 1, MESSAGE_HEAD_SIZE = 8 };
enum {
    MESSAGE_FLAG_PERSISTENT = 1,
    MESSAGE_FLAG_CC = 2,
    MESSAGE_FLAG_BCC = 4,
    MESSAGE_FLAG_DEAD_LETTER = 8
};

struct message {
    uint32_t refs;
    bool persistent;     /* delivery-mode 2 */
    bool has_copies;     /* more routing keys than one: see core/copies.h */
    bool is_dead_letter; /* its x-death header is ours: see dead_letter.h */
    uint8_t exchange_size, routing_key_size;
    uint32_t properties_size;
    uint32_t bcc_size; /* of the array of BCC, its size included; 0: there is none */
    uint32_t body_size;
    uint32_t body_received; /* octets of the body present; == body_size once complete */

    /* entries of it in the open batch; meaningful while lsn is the open batch's */
    uint32_t unsynced;
    uint32_t body_number;        /* of its body in that batch */
    uint64_t lsn;                /* the batch that last took its body; 0: none */
    struct publisher *publisher; /* waits for the store's word, or NULL; a counted reference */
    uint64_t sequence;           /* its publish, when publisher is set */

    uint8_t record[]; /* MESSAGE_HEAD_SIZE octets, then exchange, routing key, properties, body */
};

/* With room for the whole body, none of it present. exchange and routing_key at most 255 octets.
 * The caller owns the one reference. */
struct message *message_new(struct slice exchange, struct slice routing_key,
                            struct slice properties, uint32_t body_size, bool persistent);

/* From a record read back; NULL when it is none. */
struct message *message_from_record(struct slice record);

uint64_t message_memory(void); /* octets in all messages that there are */

/* Whether its body is among them; it is, unless said otherwise. */
void message_count_body(const struct message *message, bool counts);

void message_append_body(struct message *message, struct slice bytes); /* must fit */

/* It has keys in header CC. */
void message_mark_cc(struct message *message);

/* A complete one like this, which is complete, with other properties; bcc: elements of an array, or
 * empty for none. Nobody waits for it. */
struct message *message_rebuild(const struct message *message, struct slice properties,
                                struct slice bcc);

/* The dead letter of a complete message: published to this exchange with this key and these
 * properties, with or without its copies. */
struct message *message_forward(const struct message *message, struct slice exchange,
                                struct slice routing_key, struct slice properties,
                                bool with_copies);

static inline struct message *message_ref(struct message *message)
{
    message->refs++;
    return message;
}
void message_free(struct message *message); /* message_unref's last step */
static inline void message_unref(struct message **message)
{
    struct message *gone = *message;

    *message = NULL;
    assert(gone->refs > 0);
    if (--gone->refs == 0)
        message_free(gone);
}

static inline struct slice message_exchange(const struct message *m)
{
    return (struct slice){m->record + MESSAGE_HEAD_SIZE, m->exchange_size};
}
static inline struct slice message_routing_key(const struct message *m)
{
    return (struct slice){m->record + MESSAGE_HEAD_SIZE + m->exchange_size, m->routing_key_size};
}
static inline struct slice message_properties(const struct message *m)
{
    return (struct slice){m->record + MESSAGE_HEAD_SIZE + m->exchange_size + m->routing_key_size,
                          m->properties_size};
}
static inline struct slice message_bcc(const struct message *m) /* elements of an array */
{
    if (m->bcc_size == 0)
        return (struct slice){0};
    return (struct slice){message_properties(m).data + m->properties_size + 4, m->bcc_size - 4};
}
static inline struct slice message_body(const struct message *m)
{
    return (struct slice){message_properties(m).data + m->properties_size + m->bcc_size,
                          m->body_size};
}
static inline struct slice message_record(const struct message *m)
{
    return (struct slice){m->record, (size_t)(message_body(m).data - m->record) + m->body_size};
}
static inline size_t message_size(const struct message *m) /* octets of memory */
{
    return sizeof(*m) + message_record(m).size;
}

#endif
