#include "tests/lib/queue_client.h"

#include <check.h>

#include "amqp/client.h"
#include "amqp/table.h"
#include "base/alloc.h"

/* ---- tables as text ---- */

static struct amqp_value value_of(const char *text)
{
    struct amqp_value value = {.type = (uint8_t)text[0]};

    if (value.type == AMQP_STRING)
        value.bytes = slice_of_string(text + 1);
    else if (value.type == AMQP_BOOL)
        value.boolean = text[1] == '1';
    else if (value.type != AMQP_VOID)
        value.integer = strtoll(text + 1, NULL, 10);
    return value;
}

struct slice arguments_of(struct buf *out, const char *text)
{
    char copy[512], *rest = copy, *entry;

    buf_clear(out);
    snprintf(copy, sizeof(copy), "%s", text == NULL ? "" : text);
    while ((entry = strsep(&rest, ",")) != NULL && *entry != '\0') {
        char *equals = strchr(entry, '=');
        const struct amqp_value value = value_of(equals + 1);
        amqp_table_put(out, slice_of(entry, (size_t)(equals - entry)), &value);
    }
    return buf_slice(out);
}

static void print_string(struct buf *out, const char *text)
{
    buf_append(out, slice_of_string(text));
}

static void print_table(struct buf *out, struct slice table);

static void print_value(struct buf *out, const struct amqp_value *value)
{
    struct amqp_table_iter iter;
    struct amqp_value element;
    char number[32];

    switch (value->type) {
    case AMQP_STRING:
        print_string(out, "S");
        buf_append(out, value->bytes);
        break;
    case AMQP_TABLE:
        print_string(out, "{");
        print_table(out, value->bytes);
        print_string(out, "}");
        break;
    case AMQP_ARRAY:
        print_string(out, "[");
        iter = amqp_table_walk(value->bytes);
        for (bool first = true; amqp_array_next(&iter, &element); first = false) {
            print_string(out, first ? "" : ",");
            print_value(out, &element);
        }
        print_string(out, "]");
        break;
    case AMQP_TIMESTAMP:
        snprintf(number, sizeof(number), "T%" PRIu64, value->timestamp_s);
        print_string(out, number);
        break;
    default:
        snprintf(number, sizeof(number), "%c%" PRId64, value->type, value->integer);
        print_string(out, number);
    }
}

static void print_table(struct buf *out, struct slice table)
{
    struct amqp_table_iter iter = amqp_table_walk(table);
    struct amqp_value value;
    struct slice key;

    for (bool first = true; amqp_table_next(&iter, &key, &value); first = false) {
        print_string(out, first ? "" : " ");
        buf_append(out, key);
        print_string(out, "=");
        print_value(out, &value);
    }
}

static char printed[4096];

static const char *finish(struct buf *out)
{
    snprintf(printed, sizeof(printed), "%.*s", SLICE_ARG(buf_slice(out)));
    buf_release(out);
    return printed;
}

static struct slice headers_slice(struct peer *peer)
{
    return amqp_properties_find(buf_slice(&peer->properties), AMQP_PROPERTY_HEADERS);
}

const char *headers_of(struct peer *peer)
{
    struct buf out = BUF_EMPTY;

    print_table(&out, headers_slice(peer));
    return finish(&out);
}

const char *header_of(struct peer *peer, const char *name)
{
    struct buf out = BUF_EMPTY;
    struct amqp_value value;

    if (!amqp_table_find(headers_slice(peer), slice_of_string(name), &value))
        return NULL;
    print_value(&out, &value);
    return finish(&out);
}

/* ---- queues ---- */

void declare_queue(struct peer *peer, const char *queue, bool durable, const char *arguments)
{
    struct buf table = BUF_EMPTY;

    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                              .queue_declare = {.queue = slice_of_string(queue),
                                                .durable = durable,
                                                .arguments = arguments_of(&table, arguments)}},
        AMQP_QUEUE_DECLARE_OK);
    buf_release(&table);
}

void declare_exchange(struct peer *peer, const char *exchange, const char *type)
{
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                    .exchange_declare = {.exchange = slice_of_string(exchange),
                                                         .type = slice_of_string(type),
                                                         .durable = true}},
              AMQP_EXCHANGE_DECLARE_OK);
}

void bind_queue(struct peer *peer, const char *queue, const char *exchange, const char *key)
{
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                    .queue_bind = {.queue = slice_of_string(queue),
                                                   .exchange = slice_of_string(exchange),
                                                   .routing_key = slice_of_string(key)}},
              AMQP_QUEUE_BIND_OK);
}

uint32_t count_ready(struct peer *peer, const char *queue)
{
    const struct amqp_method passive = {
        .id = AMQP_QUEUE_DECLARE,
        .queue_declare = {.queue = slice_of_string(queue), .passive = true}};

    return peer_call(peer, 1, &passive, AMQP_QUEUE_DECLARE_OK).queue_declare_ok.message_count;
}

/* ---- publishing ---- */

void put_publish(struct buf *out, const char *exchange, const char *key, const char *body,
                 const struct sent *sent)
{
    struct buf headers = BUF_EMPTY, bytes = BUF_EMPTY;
    struct amqp_properties properties = {.headers = arguments_of(&headers, sent->headers),
                                         .priority = sent->priority,
                                         .delivery_mode = AMQP_DELIVERY_PERSISTENT};

    if (sent->headers != NULL)
        properties.flags |= AMQP_PROPERTY_HEADERS;
    if (sent->persistent)
        properties.flags |= AMQP_PROPERTY_DELIVERY_MODE;
    if (sent->has_priority)
        properties.flags |= AMQP_PROPERTY_PRIORITY;
    if (sent->expiration != NULL) {
        properties.flags |= AMQP_PROPERTY_EXPIRATION;
        properties.expiration = slice_of_string(sent->expiration);
    }
    amqp_properties_encode(&bytes, &properties);
    amqp_client_publish(out, 1, 131072,
                        &(struct amqp_client_message){.exchange = slice_of_string(exchange),
                                                      .routing_key = slice_of_string(key),
                                                      .properties = buf_slice(&bytes),
                                                      .body = slice_of_string(body)});
    buf_release(&headers);
    buf_release(&bytes);
}

void publish_with(struct peer *peer, const char *queue, const char *body, const struct sent *sent)
{
    struct buf out = BUF_EMPTY;

    put_publish(&out, "", queue, body, sent);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
}

void publish(struct peer *peer, const char *queue, const char *body)
{
    publish_with(peer, queue, body, &(struct sent){.persistent = true});
}

/* ---- taking ---- */

static void send_get(struct peer *peer, const char *queue, bool no_ack)
{
    peer_send(
        peer, 1,
        &(struct amqp_method){.id = AMQP_BASIC_GET,
                              .basic_get = {.queue = slice_of_string(queue), .no_ack = no_ack}});
}

void get_one(struct peer *peer, const char *queue, const char *body)
{
    send_get(peer, queue, true);
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, body);
}

uint64_t get_unacked(struct peer *peer, const char *queue, const char *body)
{
    send_get(peer, queue, false);
    return peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, body).basic_get_ok.delivery_tag;
}

void get_nothing(struct peer *peer, const char *queue)
{
    send_get(peer, queue, true);
    peer_expect(peer, 1, AMQP_BASIC_GET_EMPTY);
}

void consume(struct peer *peer, const char *queue, const char *tag, bool no_ack,
             const char *arguments)
{
    struct buf table = BUF_EMPTY;

    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                              .basic_consume = {.queue = slice_of_string(queue),
                                                .consumer_tag = slice_of_string(tag),
                                                .no_ack = no_ack,
                                                .arguments = arguments_of(&table, arguments)}},
        AMQP_BASIC_CONSUME_OK);
    buf_release(&table);
}

uint64_t expect_delivery(struct peer *peer, const char *body)
{
    return peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, body).basic_deliver.delivery_tag;
}

void set_prefetch(struct peer *peer, uint16_t count)
{
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_QOS, .basic_qos.prefetch_count = count},
              AMQP_BASIC_QOS_OK);
}

void ack(struct peer *peer, uint64_t tag)
{
    peer_send(peer, 1, &(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack.delivery_tag = tag});
}

void reject(struct peer *peer, uint64_t tag, bool requeue)
{
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_REJECT, .basic_reject = {tag, requeue}});
}

void nack(struct peer *peer, uint64_t tag, bool requeue)
{
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_NACK,
                                    .basic_nack = {.delivery_tag = tag, .requeue = requeue}});
}

void close_channel(struct peer *peer)
{
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE}, AMQP_CHANNEL_CLOSE_OK);
}

void open_channel(struct peer *peer)
{
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
}
