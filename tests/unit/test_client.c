/* The client's side, read back with the server's. */
#include "amqp/client.h"

#include "amqp/frame.h"
#include "amqp/method.h"
#include "amqp/properties.h"
#include "amqp/sasl.h"
#include "amqp/table.h"
#include "tests/lib/unit.h"

static struct buf out;

static struct amqp_frame next_frame(void)
{
    static uint8_t copy[8192];
    struct amqp_frame frame;
    struct amqp_error error;
    size_t used = 0;

    ck_assert_int_eq(amqp_frame_parse(buf_slice(&out), 4096, &frame, &used, &error), AMQP_PARSE_OK);
    memcpy(copy, frame.payload.data, frame.payload.size);
    frame.payload.data = copy;
    buf_consume(&out, used);
    return frame;
}

static struct amqp_method next_method(uint32_t id)
{
    struct amqp_frame frame = next_frame();
    struct amqp_method method;
    struct amqp_error error;

    ck_assert_uint_eq(frame.type, AMQP_FRAME_METHOD);
    ck_assert(amqp_method_decode(frame.payload, &method, &error));
    ck_assert_uint_eq(method.id, id);
    return method;
}

START_TEST(handshake)
{
    struct amqp_method method;
    struct slice user, password;
    struct amqp_error error;
    struct amqp_value value;

    amqp_client_protocol_header(&out);
    ck_assert_int_eq(amqp_protocol_parse(out.data), AMQP_PROTOCOL_0_9_1);
    buf_consume(&out, AMQP_PROTOCOL_HEADER_SIZE);

    amqp_client_start_ok(&out, SLICE("guest"), SLICE("secret"), SLICE("test"));
    method = next_method(AMQP_CONNECTION_START_OK);
    ck_assert(slice_equal(method.connection_start_ok.mechanism, SLICE("PLAIN")));
    ck_assert(amqp_sasl_plain(method.connection_start_ok.response, &user, &password, &error));
    ck_assert(slice_equal(user, SLICE("guest")) && slice_equal(password, SLICE("secret")));
    struct slice properties = method.connection_start_ok.client_properties;
    ck_assert(amqp_table_find(properties, SLICE("connection_name"), &value));
    ck_assert(slice_equal(value.bytes, SLICE("test")));
    ck_assert(amqp_table_find(properties, SLICE("capabilities"), &value));
    ck_assert(amqp_table_find(value.bytes, SLICE("connection.blocked"), &value) && value.boolean);

    amqp_client_tune_ok(&out, 2047, 131072, 60);
    method = next_method(AMQP_CONNECTION_TUNE_OK);
    ck_assert_uint_eq(method.connection_tune_ok.channel_max, 2047);
    ck_assert_uint_eq(method.connection_tune_ok.frame_max, 131072);
    ck_assert_uint_eq(method.connection_tune_ok.heartbeat, 60);

    amqp_client_open(&out, SLICE("/"));
    method = next_method(AMQP_CONNECTION_OPEN);
    ck_assert(slice_equal(method.connection_open.virtual_host, SLICE("/")));
    ck_assert_uint_eq(buf_size(&out), 0);
    buf_release(&out);
}
END_TEST

static const size_t body_sizes[] = {0, 1, 4087, 4088, 4089, 8176, 10000};

START_TEST(publish)
{
    static uint8_t body[10000];
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (uint8_t)(i * 7);
    struct amqp_client_message message = {
        .exchange = SLICE("x"),
        .routing_key = SLICE("key"),
        .properties = _i % 2 == 0 ? (struct slice){NULL, 0} : SLICE("\x10\0\2"),
        .body = slice_of(body, body_sizes[_i]),
        .mandatory = true,
    };
    amqp_client_publish(&out, 3, 4096, &message);

    struct amqp_method method = next_method(AMQP_BASIC_PUBLISH);
    ck_assert(slice_equal(method.basic_publish.exchange, SLICE("x")));
    ck_assert(slice_equal(method.basic_publish.routing_key, SLICE("key")));
    ck_assert(method.basic_publish.mandatory && !method.basic_publish.immediate);

    struct amqp_frame frame = next_frame();
    struct amqp_content_header header;
    struct amqp_error error;
    ck_assert_uint_eq(frame.type, AMQP_FRAME_HEADER);
    ck_assert(amqp_content_header_decode(frame.payload, &header, &error));
    ck_assert_uint_eq(header.class_id, 60);
    ck_assert_uint_eq(header.body_size, body_sizes[_i]);
    ck_assert_uint_eq(amqp_properties_delivery_mode(header.properties), _i % 2 == 0 ? 0 : 2);

    size_t seen = 0;
    while (buf_size(&out) > 0) {
        frame = next_frame();
        ck_assert_uint_eq(frame.type, AMQP_FRAME_BODY);
        ck_assert_uint_eq(frame.channel, 3);
        ck_assert_uint_gt(frame.payload.size, 0); /* 2.5 */
        ck_assert_uint_le(frame.payload.size, 4096 - AMQP_FRAME_OVERHEAD);
        ck_assert(memcmp(frame.payload.data, body + seen, frame.payload.size) == 0);
        seen += frame.payload.size;
    }
    ck_assert_uint_eq(seen, body_sizes[_i]);
    buf_release(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client");
    TCase *tests = tcase_create("client");
    tcase_add_test(tests, handshake);
    tcase_add_loop_test(tests, publish, 0, countof(body_sizes));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
