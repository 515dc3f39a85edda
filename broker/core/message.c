#include "core/message.h"

#include "base/alloc.h"

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
    struct message *message = xmalloc(size_add(sizeof(*message), record_size));

    *message = (struct message){.refs = 1};
    return message;
}

struct message *message_new(struct slice exchange, struct slice routing_key,
                            struct slice properties, uint32_t body_size, bool persistent)
{
    assert(exchange.size <= UINT8_MAX && routing_key.size <= UINT8_MAX);
    assert(properties.size <= UINT32_MAX);

    size_t names_size = exchange.size + routing_key.size;
    struct message *message =
        message_alloc(MESSAGE_HEAD_SIZE + names_size + properties.size + body_size);
    message->persistent = persistent;
    message->exchange_size = (uint8_t)exchange.size;
    message->routing_key_size = (uint8_t)routing_key.size;
    message->properties_size = (uint32_t)properties.size;
    message->body_size = body_size;

    uint8_t *next = message->record;
    *next++ = MESSAGE_VERSION;
    *next++ = persistent ? MESSAGE_FLAG_PERSISTENT : 0;
    *next++ = message->exchange_size;
    *next++ = message->routing_key_size;
    *next++ = (uint8_t)(properties.size >> 24);
    *next++ = (uint8_t)(properties.size >> 16);
    *next++ = (uint8_t)(properties.size >> 8);
    *next++ = (uint8_t)properties.size;
    if (exchange.size > 0)
        next = (uint8_t *)mempcpy(next, exchange.data, exchange.size);
    if (routing_key.size > 0)
        next = (uint8_t *)mempcpy(next, routing_key.data, routing_key.size);
    if (properties.size > 0)
        memcpy(next, properties.data, properties.size);
    return message;
}

struct message *message_from_record(struct slice record)
{
    const uint8_t *head = record.data;

    if (record.size < MESSAGE_HEAD_SIZE || head[0] != MESSAGE_VERSION)
        return NULL;
    uint32_t properties_size =
        (uint32_t)head[4] << 24 | (uint32_t)head[5] << 16 | (uint32_t)head[6] << 8 | head[7];
    size_t left = record.size - MESSAGE_HEAD_SIZE;
    size_t names_size = (size_t)head[2] + head[3];
    if (names_size > left || properties_size > left - names_size ||
        left - names_size - properties_size > UINT32_MAX)
        return NULL;

    struct message *message = message_alloc(record.size);
    message->persistent = (head[1] & MESSAGE_FLAG_PERSISTENT) != 0;
    message->is_dead_letter = (head[1] & MESSAGE_FLAG_DEAD_LETTER) != 0;
    message->exchange_size = head[2];
    message->routing_key_size = head[3];
    message->properties_size = properties_size;
    message->body_size = (uint32_t)(left - names_size - properties_size);
    message->body_received = message->body_size;
    memcpy(message->record, record.data, record.size);
    return message;
}

void message_mark_dead_letter(struct message *message)
{
    message->is_dead_letter = true;
    message->record[1] |= MESSAGE_FLAG_DEAD_LETTER;
}

void message_append_body(struct message *message, struct slice bytes)
{
    assert(bytes.size <= message->body_size - message->body_received);

    uint8_t *body = message->record + MESSAGE_HEAD_SIZE + message->exchange_size +
                    message->routing_key_size + message->properties_size;
    if (bytes.size > 0)
        memcpy(body + message->body_received, bytes.data, bytes.size);
    message->body_received += (uint32_t)bytes.size;
}

void message_free(struct message *message)
{
    if (message->publisher != NULL)
        publisher_unref(&message->publisher);
    free(message);
}
