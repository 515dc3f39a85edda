#include "core/message.h"

#include "amqp/wire.h"
#include "base/pool.h"

/* Messages live on the loop thread alone. */
static struct pool blocks;
static uint64_t memory; /* octets in all messages */

void publisher_ref(struct publisher *publisher)
{
    publisher->refs++;
}

void publisher_unref(struct publisher **publisher)
{
    struct publisher *gone = *publisher;

    *publisher = NULL;
    assert(gone->refs > 0);
    if (--gone->refs == 0)
        gone->ops->on_free(gone);
}

/* A block with room for a record of this size; the caller fills the record's head. */
static struct message *message_alloc(size_t record_size)
{
    const size_t size = size_add(sizeof(struct message), record_size);
    struct message *message = pool_alloc(&blocks, size);

    memory += size;
    *message = (struct message){.refs = 1};
    return message;
}

/* Everything before the body; bcc: elements of an array, or empty. */
static struct message *message_begin(struct slice exchange, struct slice routing_key,
                                     struct slice properties, struct slice bcc, uint32_t body_size,
                                     uint8_t flags)
{
    assert(exchange.size <= UINT8_MAX && routing_key.size <= UINT8_MAX);
    assert(properties.size <= UINT32_MAX && bcc.size <= UINT32_MAX - 4);

    const uint32_t bcc_size = bcc.size > 0 ? (uint32_t)(4 + bcc.size) : 0;
    struct message *message = message_alloc(MESSAGE_HEAD_SIZE + exchange.size + routing_key.size +
                                            properties.size + bcc_size + body_size);
    message->persistent = (flags & MESSAGE_FLAG_PERSISTENT) != 0;
    message->has_copies = (flags & (MESSAGE_FLAG_CC | MESSAGE_FLAG_BCC)) != 0;
    message->is_dead_letter = (flags & MESSAGE_FLAG_DEAD_LETTER) != 0;
    message->exchange_size = (uint8_t)exchange.size;
    message->routing_key_size = (uint8_t)routing_key.size;
    message->properties_size = (uint32_t)properties.size;
    message->bcc_size = bcc_size;
    message->body_size = body_size;

    uint8_t *next = message->record;
    next = amqp_put_u8(next, MESSAGE_VERSION);
    next = amqp_put_u8(next, flags);
    next = amqp_put_u8(next, message->exchange_size);
    next = amqp_put_u8(next, message->routing_key_size);
    next = amqp_put_u32(next, message->properties_size);
    next = amqp_put_bytes(next, exchange);
    next = amqp_put_bytes(next, routing_key);
    next = amqp_put_bytes(next, properties);
    if (unlikely(bcc_size > 0))
        amqp_put_bytes(amqp_put_u32(next, (uint32_t)bcc.size), bcc);
    return message;
}

struct message *message_new(struct slice exchange, struct slice routing_key,
                            struct slice properties, uint32_t body_size, bool persistent)
{
    return message_begin(exchange, routing_key, properties, (struct slice){0}, body_size,
                         persistent ? MESSAGE_FLAG_PERSISTENT : 0);
}

void message_mark_cc(struct message *message)
{
    message->record[1] |= MESSAGE_FLAG_CC;
    message->has_copies = true;
}

/* Elements of the array of BCC; empty when there is none. */
static struct slice bcc_of(const struct message *message)
{
    struct slice properties = message_properties(message);

    if (message->bcc_size == 0)
        return (struct slice){0};
    return slice_of(properties.data + properties.size + 4, message->bcc_size - 4);
}

struct message *message_forward(const struct message *message, struct slice exchange,
                                struct slice routing_key, struct slice properties, bool with_copies)
{
    const uint8_t copies = with_copies ? MESSAGE_FLAG_CC | MESSAGE_FLAG_BCC : 0;
    const uint8_t flags =
        (message->record[1] & (MESSAGE_FLAG_PERSISTENT | copies)) | MESSAGE_FLAG_DEAD_LETTER;
    struct message *letter =
        message_begin(exchange, routing_key, properties,
                      with_copies ? bcc_of(message) : (struct slice){0}, message->body_size, flags);

    message_append_body(letter, message_body(message));
    return letter;
}

struct message *message_rebuild(const struct message *message, struct slice properties,
                                struct slice bcc)
{
    const uint8_t kept =
        message->record[1] & (MESSAGE_FLAG_PERSISTENT | MESSAGE_FLAG_CC | MESSAGE_FLAG_DEAD_LETTER);
    struct message *copy =
        message_begin(message_exchange(message), message_routing_key(message), properties, bcc,
                      message->body_size, kept | (bcc.size > 0 ? MESSAGE_FLAG_BCC : 0));

    assert(message->body_received == message->body_size);
    message_append_body(copy, message_body(message));
    return copy;
}

/* The size of the array of BCC at the front of what is left of a record; false: it does not fit. */
static bool read_bcc_size(struct slice left, uint8_t flags, uint32_t *size)
{
    *size = 0;
    if (!(flags & MESSAGE_FLAG_BCC))
        return true;
    if (left.size < 4 || amqp_get_u32(left.data) > left.size - 4)
        return false;
    *size = 4 + amqp_get_u32(left.data);
    return true;
}

struct message *message_from_record(struct slice record)
{
    const uint8_t *head = record.data;
    uint32_t bcc_size;

    if (record.size < MESSAGE_HEAD_SIZE || head[0] != MESSAGE_VERSION)
        return NULL;
    uint32_t properties_size = amqp_get_u32(head + 4);
    size_t left = record.size - MESSAGE_HEAD_SIZE;
    size_t names_size = (size_t)head[2] + head[3];
    if (names_size > left || properties_size > left - names_size)
        return NULL;
    left -= names_size + properties_size;
    if (!read_bcc_size(slice_of(head + record.size - left, left), head[1], &bcc_size) ||
        left - bcc_size > UINT32_MAX)
        return NULL;

    struct message *message = message_alloc(record.size);
    message->persistent = (head[1] & MESSAGE_FLAG_PERSISTENT) != 0;
    message->is_dead_letter = (head[1] & MESSAGE_FLAG_DEAD_LETTER) != 0;
    message->has_copies = (head[1] & (MESSAGE_FLAG_CC | MESSAGE_FLAG_BCC)) != 0;
    message->exchange_size = head[2];
    message->routing_key_size = head[3];
    message->properties_size = properties_size;
    message->bcc_size = bcc_size;
    message->body_size = (uint32_t)(left - bcc_size);
    message->body_received = message->body_size;
    memcpy(message->record, record.data, record.size);
    return message;
}

uint64_t message_memory(void)
{
    return memory;
}

void message_count_body(const struct message *message, bool counts)
{
    if (counts)
        memory += message->body_size;
    else
        memory -= message->body_size;
}

void message_append_body(struct message *message, struct slice bytes)
{
    assert(bytes.size <= message->body_size - message->body_received);

    uint8_t *body = message->record + (message_body(message).data - message->record);
    if (bytes.size > 0)
        memcpy(body + message->body_received, bytes.data, bytes.size);
    message->body_received += (uint32_t)bytes.size;
}

void message_free(struct message *message)
{
    if (message->publisher != NULL)
        publisher_unref(&message->publisher);
    const size_t size = message_size(message);
    memory -= size;
    pool_free(&blocks, message, size);
}
