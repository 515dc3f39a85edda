/* The client's handshake and its publishes, built from the same codec that the server reads
 * with. */
#include "amqp/client.h"

#include "amqp/frame.h"
#include "amqp/method.h"
#include "amqp/properties.h"
#include "amqp/table.h"

void amqp_client_protocol_header(struct buf *out)
{
    buf_append(out, amqp_protocol_header);
}

static void write_client_properties(struct buf *out, struct slice name)
{
    amqp_table_put_string(out, SLICE("product"), SLICE("StoatMQ client"));
    amqp_table_put_string(out, SLICE("version"), SLICE(STOATMQ_VERSION));
    if (name.size > 0)
        amqp_table_put_string(out, SLICE("connection_name"), name);
    size_t capabilities = amqp_table_begin_table(out, SLICE("capabilities"));
    amqp_table_put_bool(out, SLICE("authentication_failure_close"), true);
    amqp_table_put_bool(out, SLICE("basic.nack"), true);
    amqp_table_put_bool(out, SLICE("connection.blocked"), true);
    amqp_table_put_bool(out, SLICE("consumer_cancel_notify"), true);
    amqp_table_put_bool(out, SLICE("publisher_confirms"), true);
    amqp_table_end(out, capabilities);
}

void amqp_client_start_ok(struct buf *out, struct slice user, struct slice password,
                          struct slice name)
{
    struct buf properties = BUF_EMPTY, response = BUF_EMPTY;

    write_client_properties(&properties, name);
    amqp_write_u8(&response, 0);
    buf_append(&response, user);
    amqp_write_u8(&response, 0);
    buf_append(&response, password);
    amqp_method_encode(out, 0,
                       &(struct amqp_method){.id = AMQP_CONNECTION_START_OK,
                                             .connection_start_ok = {
                                                 .client_properties = buf_slice(&properties),
                                                 .mechanism = SLICE("PLAIN"),
                                                 .response = buf_slice(&response),
                                                 .locale = SLICE("en_US"),
                                             }});
    buf_release(&response);
    buf_release(&properties);
}

void amqp_client_tune_ok(struct buf *out, uint16_t channel_max, uint32_t frame_max,
                         uint16_t heartbeat_s)
{
    amqp_method_encode(out, 0,
                       &(struct amqp_method){.id = AMQP_CONNECTION_TUNE_OK,
                                             .connection_tune_ok = {
                                                 .channel_max = channel_max,
                                                 .frame_max = frame_max,
                                                 .heartbeat = heartbeat_s,
                                             }});
}

void amqp_client_open(struct buf *out, struct slice virtual_host)
{
    amqp_method_encode(out, 0,
                       &(struct amqp_method){.id = AMQP_CONNECTION_OPEN,
                                             .connection_open.virtual_host = virtual_host});
}

void amqp_client_publish(struct buf *out, uint16_t channel, uint32_t frame_max,
                         const struct amqp_client_message *message)
{
    static const uint8_t no_properties[2] = {0, 0};
    struct amqp_content_header header = {
        .class_id = amqp_class_of(AMQP_BASIC_PUBLISH),
        .body_size = message->body.size,
        .properties = message->properties,
    };
    if (header.properties.size == 0)
        header.properties = slice_of(no_properties, sizeof(no_properties));

    amqp_method_encode(out, channel,
                       &(struct amqp_method){.id = AMQP_BASIC_PUBLISH,
                                             .basic_publish = {
                                                 .exchange = message->exchange,
                                                 .routing_key = message->routing_key,
                                                 .mandatory = message->mandatory,
                                             }});
    amqp_content_header_encode(out, channel, &header);

    assert(frame_max > AMQP_FRAME_OVERHEAD);
    for (size_t sent = 0, part; sent < message->body.size; sent += part) {
        part = min_of(message->body.size - sent, frame_max - AMQP_FRAME_OVERHEAD);
        size_t frame = amqp_frame_begin(out, AMQP_FRAME_BODY, channel);
        buf_append(out, slice_of(message->body.data + sent, part));
        amqp_frame_end(out, frame);
    }
}
