/* A client's connection, from the first octet to the last: the whole broker in one process, and a
 * clock that the test moves. */
#include <unistd.h>

#include "amqp/client.h"
#include "amqp/properties.h"
#include "amqp/table.h"
#include "store/memory.h"
#include "tests/lib/harness.h"
#include "tests/lib/unit.h"

static void put_frame(struct buf *out, uint8_t type, uint16_t channel, struct slice payload)
{
    amqp_write_u8(out, type);
    amqp_write_u16(out, channel);
    amqp_write_longstr(out, payload);
    amqp_write_u8(out, AMQP_FRAME_END);
}

static void send_frame(struct peer *peer, uint8_t type, uint16_t channel, struct slice payload)
{
    struct buf out = BUF_EMPTY;
    put_frame(&out, type, channel, payload);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
}

static void expect_no_connections(struct harness *harness)
{
    harness_run(harness);
    ck_assert_uint_eq(0, harness->service.connection_count);
}

/* ---- the protocol header ---- */

static const struct header_case {
    struct slice octets;
    const char *log; /* NULL: it is served */
} header_cases[] = {
    {{(const uint8_t *)"AMQP\x00\x00\x09\x01", 8}, NULL},
    {{(const uint8_t *)"AMQP\x01\x01\x00\x09", 8}, NULL},
    {{(const uint8_t *)"AMQP\x00\x00\x09\x02", 8}, "unsupported protocol version"},
    {{(const uint8_t *)"AMQP\x01\x01\x08\x00", 8}, "unsupported protocol version"},
    {{(const uint8_t *)"AMQP\x03\x01\x00\x00", 8}, "unsupported protocol version"},
    {{(const uint8_t *)"GET / HT", 8}, "HTTP client"},
    {{(const uint8_t *)"\x16\x03\x01\x02\x00\x01\x00\x01", 8}, "TLS client"},
    {{(const uint8_t *)"12345678", 8}, "not an AMQP client"},
};

START_TEST(answers_the_protocol_header) /* 1.2 */
{
    const struct header_case *row = &header_cases[_i];
    struct harness harness;
    harness_init(&harness, NULL);

    struct peer *peer = peer_new(&harness, false);
    peer_send_bytes(peer, slice_of(row->octets.data, 7));
    peer_expect_nothing(peer);
    peer_send_bytes(peer, slice_of(row->octets.data + 7, 1));
    ck_assert_uint_eq(1, harness_logged(&harness, "accepting AMQP connection 127.0.0.1:40000 -> "
                                                  "127.0.0.1:5672"));
    if (row->log == NULL) {
        const struct amqp_method start = peer_expect(peer, 0, AMQP_CONNECTION_START);
        ck_assert_uint_eq(0, start.connection_start.major);
        ck_assert_uint_eq(9, start.connection_start.minor);
    } else {
        ck_assert(slice_equal(buf_slice(&peer->memory.received), amqp_protocol_header));
        ck_assert(peer->memory.closed);
        ck_assert_uint_eq(1, harness_logged(&harness, row->log));
        expect_no_connections(&harness);
    }
    harness_release(&harness);
}
END_TEST

START_TEST(a_probe_is_logged_at_debug_only) /* 1.3 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_new(&harness, false);
    memory_transport_end(&peer->memory);
    expect_no_connections(&harness);
    ck_assert_uint_eq(0, harness_logged(&harness, "accepting AMQP connection"));
    ck_assert_uint_eq(1, harness_logged(&harness, "[debug] closing AMQP connection"));
    harness_release(&harness);
}
END_TEST

START_TEST(start_says_who_we_are) /* 4.1.1 to 4.1.3 */
{
    static const char *const capabilities[] = {
        "publisher_confirms",     "exchange_exchange_bindings", "basic.nack",
        "consumer_cancel_notify", "per_consumer_qos",           "authentication_failure_close",
        "direct_reply_to",        "consumer_priorities",        "connection.blocked"};
    static const char *const strings[][2] = {
        {"product", "RabbitMQ"}, {"version", "3.13.7"}, {"stoatmq_version", STOATMQ_VERSION}};
    struct harness harness;
    struct amqp_value value;
    harness_init(&harness, NULL);
    struct peer *peer = peer_new(&harness, false);
    peer_send_bytes(peer, amqp_protocol_header);

    const struct amqp_method start = peer_expect(peer, 0, AMQP_CONNECTION_START);
    const struct slice properties = start.connection_start.server_properties;
    ck_assert(slice_equal(start.connection_start.mechanisms, SLICE("PLAIN AMQPLAIN")));
    ck_assert(slice_equal(start.connection_start.locales, SLICE("en_US")));
    for (size_t i = 0; i < countof(strings); i++) {
        ck_assert(amqp_table_find(properties, slice_of_string(strings[i][0]), &value));
        ck_assert(slice_equal(value.bytes, slice_of_string(strings[i][1])));
    }
    ck_assert(amqp_table_find(properties, SLICE("capabilities"), &value));
    const struct slice table = value.bytes;
    for (size_t i = 0; i < countof(capabilities); i++)
        ck_assert(amqp_table_find(table, slice_of_string(capabilities[i]), &value) &&
                  value.boolean);
    harness_release(&harness);
}
END_TEST

START_TEST(server_properties_can_be_overridden) /* 4.1.2 */
{
    const struct service_property properties[] = {{"product", "Stoat"}, {"room", "burrow"}};
    struct harness harness;
    struct service service;
    struct amqp_value value;
    harness_init(&harness, NULL);
    service_init(&service, &harness.broker, &harness_limits, properties, countof(properties),
                 HARNESS_PASSWORD_COST, false);
    const struct slice table = buf_slice(&service.server_properties);
    ck_assert(amqp_table_find(table, SLICE("product"), &value));
    ck_assert(slice_equal(value.bytes, SLICE("Stoat")));
    ck_assert(amqp_table_find(table, SLICE("room"), &value));
    ck_assert(slice_equal(value.bytes, SLICE("burrow")));
    service_release(&service);
    harness_release(&harness);
}
END_TEST

/* ---- the handshake, cut and dripped ---- */

static void put_handshake(struct buf *out)
{
    amqp_client_protocol_header(out);
    amqp_client_start_ok(out, SLICE("guest"), SLICE("guest"), SLICE("cut"));
    amqp_client_tune_ok(out, 2047, 131072, 60);
    amqp_client_open(out, SLICE("/"));
    amqp_method_encode(out, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN});
}

static void expect_handshake(struct peer *peer)
{
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
    peer_expect(peer, 0, AMQP_CONNECTION_OPEN_OK);
    peer_expect(peer, 1, AMQP_CHANNEL_OPEN_OK);
    peer_expect_nothing(peer);
}

START_TEST(a_handshake_may_be_cut_anywhere)
{
    struct harness harness;
    struct buf all = BUF_EMPTY;
    harness_init(&harness, NULL);
    put_handshake(&all);
    for (size_t cut = 0; cut <= all.end; cut++) {
        struct peer *vanishing = peer_new(&harness, false);
        peer_send_bytes(vanishing, slice_of(all.data, cut));
        memory_transport_end(&vanishing->memory);
        expect_no_connections(&harness);
        peer_free(&vanishing);

        struct peer *peer = peer_new(&harness, false);
        peer_send_bytes(peer, slice_of(all.data, cut));
        peer_send_bytes(peer, slice_of(all.data + cut, all.end - cut));
        expect_handshake(peer);
        peer_free(&peer);
        expect_no_connections(&harness);
    }
    buf_release(&all);
    harness_release(&harness);
}
END_TEST

START_TEST(a_handshake_may_drip) /* CVE-2026-57220 */
{
    struct harness harness;
    struct buf all = BUF_EMPTY;
    harness_init(&harness, NULL);
    put_handshake(&all);
    struct peer *peer = peer_new(&harness, false);
    for (size_t i = 0; i < all.end; i++)
        peer_send_bytes(peer, slice_of(all.data + i, 1));
    expect_handshake(peer);
    ck_assert_uint_eq(1, harness_logged(&harness, "connection 127.0.0.1:40000 -> 127.0.0.1:5672 - "
                                                  "cut: user 'guest' authenticated and granted "
                                                  "access to vhost '/'"));
    buf_release(&all);
    harness_release(&harness);
}
END_TEST

START_TEST(a_handshake_has_a_deadline) /* 1.4, CVE-2026-57220 */
{
    struct harness harness;
    struct buf all = BUF_EMPTY;
    harness_init(&harness, NULL);
    put_handshake(&all);
    struct peer *silent = peer_new(&harness, false), *slow = peer_new(&harness, false);
    peer_send_bytes(slow, slice_of(all.data, 100));
    peer_expect(slow, 0, AMQP_CONNECTION_START);
    harness_advance(&harness, 9900);
    peer_expect_nothing(silent);
    peer_expect_nothing(slow);
    harness_advance(&harness, 200);
    peer_expect_end(silent);
    peer_expect_end(slow);
    ck_assert_uint_eq(2, harness_logged(&harness, ": handshake timeout"));
    buf_release(&all);
    harness_release(&harness);
}
END_TEST

/* ---- login ---- */

static const struct login_case {
    const char *mechanism;
    struct slice response;
    bool remote, capable;
    uint16_t code; /* of the close that comes; 0: none; 200: logged in */
    const char *text, *log;
} login_cases[] = {
#define RESPONSE(bytes)                                                                            \
    {                                                                                              \
        (const uint8_t *)(bytes), sizeof(bytes) - 1                                                \
    }
#define REFUSED(mechanism)                                                                         \
    "ACCESS_REFUSED - Login was refused using authentication mechanism " mechanism                 \
    ". For details see the broker logfile."
    {"PLAIN", RESPONSE("\0guest\0guest"), false, true, 200, NULL, NULL},
    {"PLAIN", RESPONSE("\0remote\0secret"), true, true, 200, NULL, NULL},
    {"PLAIN", RESPONSE("\0guest\0wrong"), false, true, 403, REFUSED("PLAIN"),
     "PLAIN login refused: user 'guest' - invalid credentials"},
    {"PLAIN", RESPONSE("\0guest\0guestguest"), false, true, 403, REFUSED("PLAIN"), NULL},
    {"PLAIN", RESPONSE("\0guest\0"), false, true, 403, REFUSED("PLAIN"), NULL},
    {"PLAIN", RESPONSE("\0nobody\0guest"), false, true, 403, REFUSED("PLAIN"),
     "PLAIN login refused: user 'nobody' - invalid credentials"},
    {"PLAIN", RESPONSE("\0\0"), false, true, 403, REFUSED("PLAIN"), NULL},
    {"PLAIN", RESPONSE("\0guest\0guest"), true, true, 403, REFUSED("PLAIN"),
     "PLAIN login refused: user 'guest' - user can only connect via localhost"},
    {"PLAIN", RESPONSE("\0guest\0wrong"), false, false, 0, NULL,
     "PLAIN login refused: user 'guest' - invalid credentials"},
    {"PLAIN", RESPONSE("guest"), false, true, 502, "SYNTAX_ERROR - *", NULL},
    {"PLAIN", RESPONSE("a\0guest\0guest"), false, true, 502, "SYNTAX_ERROR - *", NULL},
    {"AMQPLAIN", RESPONSE("\5LOGINS\0\0\0\5guest\10PASSWORDS\0\0\0\5guest"), false, true, 200, NULL,
     NULL},
    {"AMQPLAIN", RESPONSE("\5LOGINS\0\0\0\5guest\10PASSWORDS\0\0\0\5gues_"), false, true, 403,
     REFUSED("AMQPLAIN"), "AMQPLAIN login refused"},
    {"AMQPLAIN", RESPONSE("\5LOGINS\0\0\0\5guest"), false, true, 502, "SYNTAX_ERROR - *", NULL},
    {"EXTERNAL", RESPONSE(""), false, true, 503,
     "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'", NULL},
    {"", RESPONSE(""), false, true, 503, "COMMAND_INVALID - unknown authentication mechanism ''",
     NULL},
};

START_TEST(logs_in_or_refuses) /* 4.1.4, 4.2.1 to 4.2.6, 4.3.1 */
{
    const struct login_case *row = &login_cases[_i];
    struct harness harness;
    struct buf properties = BUF_EMPTY;
    harness_init(&harness, NULL);
    harness_add_user(&harness, "remote", "secret");
    const size_t capabilities = amqp_table_begin_table(&properties, SLICE("capabilities"));
    amqp_table_put_bool(&properties, SLICE("authentication_failure_close"), row->capable);
    amqp_table_end(&properties, capabilities);

    struct peer *peer = peer_new(&harness, row->remote);
    peer_send_bytes(peer, amqp_protocol_header);
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    peer_send(peer, 0,
              &(struct amqp_method){.id = AMQP_CONNECTION_START_OK,
                                    .connection_start_ok = {
                                        .client_properties = buf_slice(&properties),
                                        .mechanism = slice_of_string(row->mechanism),
                                        .response = row->response,
                                        .locale = SLICE("en_US"),
                                    }});
    if (row->code == 200) {
        const struct amqp_method tune = peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
        ck_assert_uint_eq(2047, tune.connection_tune.channel_max);
        ck_assert_uint_eq(131072, tune.connection_tune.frame_max);
        ck_assert_uint_eq(60, tune.connection_tune.heartbeat);
    } else if (row->code == 0) { /* left waiting: 4.2.5 */
        peer_send(peer, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE});
        harness_advance(&harness, 2900);
        peer_expect_nothing(peer);
        harness_advance(&harness, 200);
        peer_expect_end(peer);
    } else {
        peer_expect_close(peer, 0, row->code, row->text);
        peer_send(peer, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
        peer_expect_end(peer);
    }
    if (row->code != 200)
        ck_assert_uint_eq(1, harness_logged(&harness, "closing AMQP connection"));
    if (row->log != NULL)
        ck_assert_uint_eq(1, harness_logged(&harness, row->log));
    buf_release(&properties);
    harness_release(&harness);
}
END_TEST

START_TEST(old_fields_are_ignored) /* 4.1.6, 4.4.3 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_new(&harness, false);
    peer_send_bytes(peer, amqp_protocol_header);
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    peer_call(peer, 0,
              &(struct amqp_method){.id = AMQP_CONNECTION_START_OK,
                                    .connection_start_ok =
                                        {
                                            .mechanism = SLICE("PLAIN"),
                                            .response = slice_of("\0guest\0guest", 12),
                                            .locale = SLICE("xx_XX"),
                                        }},
              AMQP_CONNECTION_TUNE);
    peer_send(peer, 0,
              &(struct amqp_method){.id = AMQP_CONNECTION_TUNE_OK,
                                    .connection_tune_ok = {.channel_max = 1, .frame_max = 8192}});
    const struct amqp_method open = {.id = AMQP_CONNECTION_OPEN,
                                     .connection_open = {.virtual_host = SLICE("/"),
                                                         .capabilities = SLICE("anything"),
                                                         .insist = true}};
    const struct amqp_method ok = peer_call(peer, 0, &open, AMQP_CONNECTION_OPEN_OK);
    ck_assert_uint_eq(0, ok.connection_open_ok.known_hosts.size);
    harness_release(&harness);
}
END_TEST

/* ---- tune and open ---- */

static struct peer *log_in(struct harness *harness)
{
    struct peer *peer = peer_new(harness, false);
    struct buf out = BUF_EMPTY;
    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, SLICE("guest"), SLICE("guest"), SLICE(""));
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
    return peer;
}

static void send_tune_ok(struct peer *peer, uint16_t channel_max, uint32_t frame_max,
                         uint16_t heartbeat_s)
{
    struct buf out = BUF_EMPTY;
    amqp_client_tune_ok(&out, channel_max, frame_max, heartbeat_s);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
}

static void send_open(struct peer *peer, struct slice vhost)
{
    struct buf out = BUF_EMPTY;
    amqp_client_open(&out, vhost);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
}

static const struct tune_case {
    uint16_t channel_max;
    uint32_t frame_max;
    const char *text; /* NULL: accepted */
} tune_cases[] = {
    {2047, 131072, NULL},
    {1, 4096, NULL},
    {2047, 4095,
     "NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"},
    {2047, 131073,
     "NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value "
     "(131072)"},
    {2047, 0,
     "NOT_ALLOWED - negotiated frame_max = 0 (no limit) is higher than the maximum allowed value "
     "(131072)"},
    {2048, 131072,
     "NOT_ALLOWED - negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"},
    {0, 131072,
     "NOT_ALLOWED - negotiated channel_max = 0 (no limit) is higher than the maximum allowed value "
     "(2047)"},
};

START_TEST(agrees_on_limits) /* 4.3.2, GHSA-jh48-qjf5-fx5v */
{
    const struct tune_case *row = &tune_cases[_i];
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = log_in(&harness);
    send_tune_ok(peer, row->channel_max, row->frame_max, 0);
    if (row->text == NULL) {
        send_open(peer, SLICE("/"));
        peer_expect(peer, 0, AMQP_CONNECTION_OPEN_OK);
    } else {
        peer_expect_close(peer, 0, 530, row->text);
    }
    harness_release(&harness);
}
END_TEST

START_TEST(opens_known_vhosts_only) /* 4.4.1, 4.4.2 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = log_in(&harness);
    send_tune_ok(peer, 10, 4096, 0);
    send_open(peer, SLICE("nowhere"));
    peer_expect_close(peer, 0, 530, "NOT_ALLOWED - vhost nowhere not found");
    harness_advance(&harness, 3100); /* who does not answer is closed */
    peer_expect_end(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(limits_connections) /* 4.4.1, 17.7 */
{
    struct service_limits limits = harness_limits;
    struct harness harness;
    limits.connection_max = 1;
    harness_init(&harness, &limits);
    struct peer *first = peer_open(&harness);
    struct peer *second = log_in(&harness);
    send_tune_ok(second, 10, 4096, 0);
    send_open(second, SLICE("/"));
    peer_expect_close(second, 0, 530,
                      "NOT_ALLOWED - connection refused: node connection limit (1) is reached");
    peer_expect_nothing(first);
    harness_release(&harness);
}
END_TEST

/* ---- bad input (2.3, 4.4.4) ---- */

static void put_method(struct buf *out, uint16_t channel, uint32_t id)
{
    amqp_method_encode(out, channel, &(struct amqp_method){.id = id});
}

static void bad_size(struct buf *out)
{
    amqp_write_u8(out, 1);
    amqp_write_u16(out, 1);
    amqp_write_u32(out, 131073);
}
static void bad_end(struct buf *out)
{
    amqp_write_heartbeat(out);
    out->data[out->end - 1] = 0xCD;
}
static void bad_type(struct buf *out)
{
    put_frame(out, 7, 0, SLICE("?"));
}
static void bad_heartbeat(struct buf *out)
{
    put_frame(out, AMQP_FRAME_HEARTBEAT, 0, SLICE("x"));
}
static void heartbeat_on_channel(struct buf *out)
{
    put_frame(out, AMQP_FRAME_HEARTBEAT, 1, SLICE(""));
}
static void header_for_method(struct buf *out)
{
    put_frame(out, AMQP_FRAME_HEADER, 1, SLICE("0123456789abcd"));
}
static void body_for_method(struct buf *out)
{
    put_frame(out, AMQP_FRAME_BODY, 1, SLICE("body"));
}
static void body_on_channel_0(struct buf *out)
{
    put_frame(out, AMQP_FRAME_BODY, 0, SLICE("body"));
}
static void body_on_closed_channel(struct buf *out)
{
    put_frame(out, AMQP_FRAME_BODY, 2, SLICE("body"));
}
static void cut_method(struct buf *out)
{
    put_frame(out, AMQP_FRAME_METHOD, 1, SLICE("\0\62\0\12\0\0\5q"));
}
static void empty_method(struct buf *out)
{
    put_frame(out, AMQP_FRAME_METHOD, 1, SLICE(""));
}
static void unknown_class(struct buf *out)
{
    put_frame(out, AMQP_FRAME_METHOD, 1, SLICE("\0\143\0\12"));
}
static void unknown_method(struct buf *out)
{
    put_frame(out, AMQP_FRAME_METHOD, 1, SLICE("\0\62\0\143"));
}
static void server_method(struct buf *out)
{
    put_method(out, 1, AMQP_BASIC_DELIVER);
}
static void server_method_on_0(struct buf *out)
{
    put_method(out, 0, AMQP_CONNECTION_START);
}
static void connection_method_on_1(struct buf *out)
{
    put_method(out, 1, AMQP_CONNECTION_CLOSE);
}
static void late_start_ok(struct buf *out)
{
    put_method(out, 0, AMQP_CONNECTION_START_OK);
}
static void second_open(struct buf *out)
{
    put_method(out, 0, AMQP_CONNECTION_OPEN);
}
static void queue_method_on_0(struct buf *out)
{
    put_method(out, 0, AMQP_QUEUE_DECLARE);
}
static void second_channel_open(struct buf *out)
{
    put_method(out, 1, AMQP_CHANNEL_OPEN);
}
static void method_before_channel_open(struct buf *out)
{
    put_method(out, 2, AMQP_QUEUE_DECLARE);
}
static void update_secret(struct buf *out)
{
    put_method(out, 0, AMQP_CONNECTION_UPDATE_SECRET);
}

static const struct bad_case {
    void (*put)(struct buf *out);
    uint16_t code;
    const char *text;
    bool fatal; /* nothing is read after it */
} bad_cases[] = {
    {bad_size, 501, "FRAME_ERROR - *", true},
    {bad_end, 501, "FRAME_ERROR - *", true},
    {bad_type, 501, "FRAME_ERROR - *", true},
    {bad_heartbeat, 501, "FRAME_ERROR - *", true},
    {heartbeat_on_channel, 505, "UNEXPECTED_FRAME - *", true},
    {header_for_method, 505,
     "UNEXPECTED_FRAME - expected method frame, got non method frame instead", false},
    {body_for_method, 505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
     false},
    {body_on_channel_0, 505,
     "UNEXPECTED_FRAME - expected method frame, got non method frame instead", false},
    {body_on_closed_channel, 505,
     "UNEXPECTED_FRAME - expected method frame, got non method frame instead", false},
    {cut_method, 501, "FRAME_ERROR - cannot decode *", false},
    {empty_method, 501, "FRAME_ERROR - *", false},
    {unknown_class, 503, "COMMAND_INVALID - *", false},
    {unknown_method, 503, "COMMAND_INVALID - *", false},
    {server_method, 503, "COMMAND_INVALID - unimplemented method", false},
    {server_method_on_0, 504, "CHANNEL_ERROR - unexpected method in connection state running",
     false},
    {connection_method_on_1, 503, "COMMAND_INVALID - unimplemented method", false},
    {update_secret, 530, "NOT_ALLOWED - New secret was refused by one of the backends", false},
    {late_start_ok, 504, "CHANNEL_ERROR - unexpected method in connection state running", false},
    {second_open, 504, "CHANNEL_ERROR - unexpected method in connection state running", false},
    {queue_method_on_0, 504, "CHANNEL_ERROR - unexpected method in connection state running",
     false},
    {second_channel_open, 504, "CHANNEL_ERROR - second 'channel.open' seen", false},
    {method_before_channel_open, 504, "CHANNEL_ERROR - expected 'channel.open'", false},
};

START_TEST(bad_input_ends_the_connection) /* 2.3, 2.4, 5.4 */
{
    const struct bad_case *row = &bad_cases[_i];
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    row->put(&out);
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);

    peer_expect_close(peer, 0, row->code, row->text);
    ck_assert_uint_eq(1, harness_logged(&harness, "closing AMQP connection"));
    ck_assert_uint_eq(1, harness_logged(&harness, "[error] closing AMQP connection"));
    peer_send(peer, 1, &(struct amqp_method){.id = AMQP_QUEUE_DECLARE}); /* ignored */
    peer_expect_nothing(peer);
    if (row->fatal) {
        peer_send(peer, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
        harness_advance(&harness, 2900);
        peer_expect_nothing(peer);
        harness_advance(&harness, 200);
    } else {
        peer_send(peer, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE});
        peer_expect(peer, 0, AMQP_CONNECTION_CLOSE_OK);
        peer_send(peer, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
    }
    peer_expect_end(peer);
    expect_no_connections(&harness);
    ck_assert_uint_eq(1, harness_logged(&harness, "closing AMQP connection"));
    harness_release(&harness);
}
END_TEST

START_TEST(bad_input_in_the_handshake_ends_it) /* 1.5, 2.3, 4.4.4, CVE-2017-7651 */
{
    struct harness harness;
    struct buf large = BUF_EMPTY;
    harness_init(&harness, NULL);

    struct peer *early = log_in(&harness); /* 2.3: a channel before open-ok */
    peer_send(early, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN});
    peer_expect_close(early, 0, 505, "UNEXPECTED_FRAME - *");

    struct peer *eager = log_in(&harness); /* 4.4.4 */
    send_open(eager, SLICE("/"));
    peer_expect_close(eager, 0, 504,
                      "CHANNEL_ERROR - unexpected method in connection state tuning");

    struct peer *big = peer_new(&harness, false); /* 1.5 */
    peer_send_bytes(big, amqp_protocol_header);
    peer_expect(big, 0, AMQP_CONNECTION_START);
    amqp_write_u8(&large, 1);
    amqp_write_u16(&large, 0);
    amqp_write_u32(&large, 16385);
    peer_send_bytes(big, buf_slice(&large));
    peer_expect_close(big, 0, 501, "FRAME_ERROR - *");
    buf_release(&large);
    harness_release(&harness);
}
END_TEST

/* ---- heartbeats ---- */

static struct peer *open_with_heartbeat(struct harness *harness, uint16_t heartbeat_s)
{
    struct peer *peer = log_in(harness);
    send_tune_ok(peer, 2047, 131072, heartbeat_s);
    send_open(peer, SLICE("/"));
    peer_expect(peer, 0, AMQP_CONNECTION_OPEN_OK);
    return peer;
}

static size_t count_heartbeats(struct peer *peer)
{
    struct amqp_frame frame;
    size_t count = 0;
    while (peer_next(peer, &frame)) {
        ck_assert_uint_eq(AMQP_FRAME_HEARTBEAT, frame.type);
        count++;
    }
    return count;
}

START_TEST(heartbeats_go_out_at_half_the_interval) /* 4.3.4 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = open_with_heartbeat(&harness, 10);
    for (int i = 0; i < 6; i++) {
        send_frame(peer, AMQP_FRAME_HEARTBEAT, 0, SLICE(""));
        harness_advance(&harness, 5000);
    }
    const size_t count = count_heartbeats(peer);
    ck_assert_uint_ge(count, 5);
    ck_assert_uint_le(count, 6);

    /* What else is sent does as well (4.3.4). */
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
    for (int i = 0; i < 10; i++) {
        harness_advance(&harness, 3000);
        peer_call(peer, 1,
                  &(struct amqp_method){.id = AMQP_CHANNEL_FLOW, .channel_flow.active = true},
                  AMQP_CHANNEL_FLOW_OK);
    }
    peer_expect_nothing(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(a_silent_client_is_dropped) /* 4.3.5 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = open_with_heartbeat(&harness, 60);
    harness_advance(&harness, 60000);
    peer_send_bytes(peer, SLICE("\10")); /* any octet is life */
    harness_advance(&harness, 119000);
    ck_assert(!peer->memory.closed);
    harness_advance(&harness, 2000);
    count_heartbeats(peer);
    peer_expect_end(peer);
    ck_assert_uint_eq(1, harness_logged(&harness, "missed heartbeats from client, timeout: 60s"));
    expect_no_connections(&harness);
    harness_release(&harness);
}
END_TEST

START_TEST(zero_disables_heartbeats) /* 4.3.3 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = open_with_heartbeat(&harness, 0);
    harness_advance(&harness, 600000);
    peer_expect_nothing(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(a_held_client_is_not_missed) /* 4.3.5 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = open_with_heartbeat(&harness, 10);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
    store_memory_set_auto_sync(harness.store, false);
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("q"), .durable = true}});
    harness_advance(&harness, 60000);
    ck_assert_uint_ge(count_heartbeats(peer), 10); /* ours go on */
    ck_assert(!peer->memory.closed);
    store_memory_set_auto_sync(harness.store, true);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_QUEUE_DECLARE_OK);
    harness_advance(&harness, 19000);
    ck_assert(!peer->memory.closed);
    harness_advance(&harness, 2000);
    ck_assert(peer->memory.closed);
    harness_release(&harness);
}
END_TEST

/* Choked: it has asked for more than it reads. */
static struct peer *open_choked(struct harness *harness, uint16_t heartbeat_s)
{
    struct peer *peer = open_with_heartbeat(harness, heartbeat_s);
    struct buf out = BUF_EMPTY;

    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
    memory_transport_take(&peer->memory, 0);
    for (int i = 0; i < 10000; i++)
        amqp_method_encode(
            &out, 1, &(struct amqp_method){.id = AMQP_CHANNEL_FLOW, .channel_flow.active = true});
    while (!peer->connection->choked)
        peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    return peer;
}

/* Nobody hears it, but it reads: some octets in each interval. */
START_TEST(a_choked_client_that_reads_is_not_missed) /* 4.3.5 */
{
    struct service_limits limits = harness_limits;
    struct harness harness;
    limits.message_size_max = 1024;
    harness_init(&harness, &limits);
    struct peer *peer = open_choked(&harness, 10);
    for (int i = 0; i < 6; i++) {
        memory_transport_take(&peer->memory, 100);
        harness_advance(&harness, 15000);
        ck_assert(!peer->memory.closed);
        ck_assert(peer->connection->choked);
    }
    memory_transport_take(&peer->memory, SIZE_MAX); /* from now on it is heard */
    harness_run(&harness);
    ck_assert(!peer->connection->choked);
    harness_advance(&harness, 19000);
    ck_assert(!peer->memory.closed);
    harness_advance(&harness, 2000);
    ck_assert(peer->memory.closed);
    harness_release(&harness);
}
END_TEST

/* Its socket has no room for long, as it reads slowly, but has less and less. */
START_TEST(a_choked_client_that_reads_slowly_is_not_missed) /* 4.3.5 */
{
    struct service_limits limits = harness_limits;
    struct harness harness;
    limits.message_size_max = 1024;
    harness_init(&harness, &limits);
    struct peer *peer = open_choked(&harness, 10);
    peer->memory.untaken = 1000000;
    for (int i = 0; i < 6; i++) {
        harness_advance(&harness, 14000);
        ck_assert(!peer->memory.closed);
        peer->memory.untaken -= 1000;
    }
    harness_advance(&harness, 6000);
    ck_assert(!peer->memory.closed);
    harness_advance(&harness, 20000);
    ck_assert(peer->memory.closed);
    harness_release(&harness);
}
END_TEST

START_TEST(a_choked_client_that_is_dead_is_dropped) /* 4.3.5 */
{
    struct service_limits limits = harness_limits;
    struct harness harness;
    limits.message_size_max = 1024;
    harness_init(&harness, &limits);
    struct peer *peer = open_choked(&harness, 10);
    harness_advance(&harness, 19000); /* since it was choked, not since it last read */
    ck_assert(!peer->memory.closed);
    memory_transport_take(&peer->memory, 100);
    harness_advance(&harness, 19000);
    ck_assert(!peer->memory.closed);
    harness_advance(&harness, 2000);
    ck_assert(peer->memory.closed);
    ck_assert_uint_eq(1, harness_logged(&harness, "missed heartbeats from client, timeout: 10s"));
    expect_no_connections(&harness);
    harness_release(&harness);
}
END_TEST

/* ---- the end ---- */

START_TEST(a_client_closes) /* 4.5.1 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *patient = peer_open_channel(&harness), *hasty = peer_open_channel(&harness);

    peer_call(patient, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE},
              AMQP_CONNECTION_CLOSE_OK);
    peer_send(patient, 1, &(struct amqp_method){.id = AMQP_QUEUE_DECLARE});
    peer_expect_nothing(patient);
    harness_advance(&harness, 3100);
    peer_expect_end(patient);

    peer_call(hasty, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE},
              AMQP_CONNECTION_CLOSE_OK);
    memory_transport_end(&hasty->memory);
    harness_run(&harness);
    peer_expect_end(hasty);
    expect_no_connections(&harness);
    ck_assert_uint_eq(2, harness_logged(&harness, "closing AMQP connection"));
    ck_assert_uint_eq(2, harness_logged(&harness, "[info] closing AMQP connection"));
    harness_release(&harness);
}
END_TEST

START_TEST(a_client_vanishes) /* 4.5.4 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *ended = peer_open_channel(&harness), *broken = peer_open_channel(&harness);
    memory_transport_end(&ended->memory);
    memory_transport_break(&broken->memory, ECONNRESET);
    expect_no_connections(&harness);
    ck_assert_uint_eq(2, harness_logged(&harness, "client unexpectedly closed TCP connection"));
    ck_assert_uint_eq(2, harness_logged(&harness, "[warning] closing AMQP connection"));
    ck_assert_uint_eq(2, harness.broker.counters.channels_closed);
    harness_release(&harness);
}
END_TEST

START_TEST(close_ok_is_awaited) /* 4.5.2, 4.5.3 */
{
    static const struct {
        uint16_t heartbeat_s;
        uint64_t wait_ms;
    } rows[] = {{0, 30000}, {60, 30000}, {10, 10000}};
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = open_with_heartbeat(&harness, rows[_i].heartbeat_s);
    service_stop(&harness.service,
                 "broker forced connection closure with reason 'shutdown'"); /* 4.5.3 */
    harness_run(&harness);
    peer_expect_close(peer, 0, 320,
                      "CONNECTION_FORCED - broker forced connection closure with reason "
                      "'shutdown'");
    harness_advance(&harness, rows[_i].wait_ms - 100);
    peer_expect_nothing(peer);
    harness_advance(&harness, 200);
    peer_expect_end(peer);
    ck_assert_uint_eq(1, harness_logged(&harness, "closing AMQP connection"));
    harness_release(&harness);
}
END_TEST

static size_t idle_count;
static void count_idle(struct service *service)
{
    ck_assert_uint_eq(0, service->connection_count);
    idle_count++;
}

START_TEST(the_service_stops) /* 4.5.3 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *polite = peer_open_channel(&harness), *rude = peer_open_channel(&harness);
    struct peer *silent = peer_new(&harness, false);
    harness.service.on_idle = count_idle;
    service_stop(&harness.service, "stop");
    harness_run(&harness);
    peer_expect_end(silent);
    peer_expect_close(rude, 0, 320, "CONNECTION_FORCED - stop");
    peer_expect_close(polite, 0, 320, "CONNECTION_FORCED - stop");
    peer_send(polite, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
    peer_expect_end(polite);
    service_stop(&harness.service, "stop"); /* harmless */
    ck_assert_uint_eq(0, idle_count);
    service_abort(&harness.service, "stop");
    harness_run(&harness);
    peer_expect_end(rude);
    ck_assert_uint_eq(1, idle_count);
    harness.service.on_idle = NULL;
    harness_release(&harness);
}
END_TEST

static const struct amqp_method declare_exclusive = {
    .id = AMQP_QUEUE_DECLARE,
    .queue_declare = {.queue = {(const uint8_t *)"mine", 4}, .exclusive = true}};

START_TEST(exclusive_queues_go_first) /* 4.5.2, 8.7.1 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *owner = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    peer_call(owner, 1, &declare_exclusive, AMQP_QUEUE_DECLARE_OK);
    peer_send(other, 1, &declare_exclusive);
    peer_expect_close(other, 1, 405,
                      "RESOURCE_LOCKED - cannot obtain exclusive access to locked "
                      "queue 'mine' in vhost '/'*");
    peer_send(other, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);

    /* The owner makes a mistake: when its close comes, the name is free (4.5.2). */
    peer_send(owner, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN});
    peer_expect_close(owner, 0, 504, "CHANNEL_ERROR - *");
    peer_call(other, 1, &declare_exclusive, AMQP_QUEUE_DECLARE_OK);
    harness_release(&harness);
}
END_TEST

/* ---- waiting ---- */

START_TEST(nothing_overtakes_a_reply_that_waits)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    store_memory_set_auto_sync(harness.store, false);
    struct buf out = BUF_EMPTY;
    amqp_method_encode(
        &out, 1,
        &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                              .queue_declare = {.queue = SLICE("q"), .durable = true}});
    amqp_method_encode(&out, 1,
                       &(struct amqp_method){.id = AMQP_CHANNEL_FLOW, .channel_flow.active = true});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    harness_advance(&harness, 1000);
    peer_expect_nothing(peer);
    peer_call(other, 1, &(struct amqp_method){.id = AMQP_CHANNEL_FLOW, .channel_flow.active = true},
              AMQP_CHANNEL_FLOW_OK); /* others go on */

    store_memory_sync(harness.store);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_QUEUE_DECLARE_OK);
    peer_expect(peer, 1, AMQP_CHANNEL_FLOW_OK);
    harness_release(&harness);
}
END_TEST

START_TEST(a_held_client_can_be_told_to_go)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    store_memory_set_auto_sync(harness.store, false);
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("q"), .durable = true}});
    connection_force_close(peer->connection, "go");
    harness_run(&harness);
    peer_expect_close(peer, 0, 320, "CONNECTION_FORCED - go");
    peer_send(peer, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
    peer_expect_end(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(publishers_wait_while_the_store_is_full)
{
    enum { BODY_SIZE = 1024 * 1024, COUNT = 64 };
    struct harness harness;
    struct buf out = BUF_EMPTY, properties = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("q"), .durable = true}},
              AMQP_QUEUE_DECLARE_OK);
    store_memory_set_auto_sync(harness.store, false);

    uint8_t *body = calloc(1, BODY_SIZE);
    amqp_properties_encode(
        &properties,
        &(struct amqp_properties){.flags = AMQP_PROPERTY_DELIVERY_MODE, .delivery_mode = 2});
    amqp_client_publish(&out, 1, 131072,
                        &(struct amqp_client_message){.routing_key = SLICE("q"),
                                                      .properties = buf_slice(&properties),
                                                      .body = slice_of(body, BODY_SIZE)});
    for (int i = 0; i < COUNT; i++) {
        memory_transport_send(&peer->memory, buf_slice(&out));
        for (int turn = 0; turn < 8; turn++)
            loop_turn(&harness.loop, 0);
    }
    harness_run(&harness);
    ck_assert(peer->connection->held);
    ck_assert_uint_gt(peer->connection->frames_in, 8 * 11);
    ck_assert_uint_lt(peer->connection->frames_in, 12 * 11);

    store_memory_set_auto_sync(harness.store, true);
    for (int i = 0; i < 40; i++)
        harness_run(&harness);
    ck_assert(!peer->connection->held);
    const struct amqp_method ok = peer_call(
        peer, 1, &(struct amqp_method){.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")},
        AMQP_QUEUE_PURGE_OK);
    ck_assert_uint_eq(COUNT, ok.queue_purge_ok.message_count);
    free(body);
    buf_release(&out);
    buf_release(&properties);
    harness_release(&harness);
}
END_TEST

static uint32_t purge(struct peer *peer)
{
    return peer_call(peer, 1,
                     &(struct amqp_method){.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")},
                     AMQP_QUEUE_PURGE_OK)
        .queue_purge_ok.message_count;
}

START_TEST(publishers_wait_while_scratch_is_behind)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct paging *paging = &harness.broker.paging;
    struct peer *peer = peer_open_channel(&harness), *leaver = peer_open_channel(&harness);
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("q"), .durable = true}},
              AMQP_QUEUE_DECLARE_OK);

    paging_begin_write(paging, PAGING_WRITING_MAX); /* by a disk that takes its time */
    for (int i = 0; i < 3; i++) {                   /* memory is not short: none waits */
        peer_publish(peer, 1, "", "q", "m");
        ck_assert(!peer->connection->held);
    }
    ck_assert_uint_eq(3, purge(peer));
    paging_set_limit(paging, 0);
    for (int i = 0; i < 3; i++)
        peer_publish(peer, 1, "", "q", "m");
    peer_publish(leaver, 1, "", "q", "m");
    ck_assert(peer->connection->held);
    ck_assert(leaver->connection->held);
    ck_assert_str_eq("flow", connection_state_name(peer->connection));
    peer_free(&leaver);

    paging_end_write(paging, PAGING_WRITING_MAX / 4, false); /* others publish, too */
    harness_run(&harness);
    ck_assert(peer->connection->held);
    paging_end_write(paging, PAGING_WRITING_MAX / 4 * 3, true);
    harness_run(&harness);
    ck_assert(!peer->connection->held);
    ck_assert_uint_eq(4, purge(peer));
    harness_release(&harness);
}
END_TEST

START_TEST(who_does_not_read_is_not_read) /* 4.8 */
{
    struct service_limits limits = harness_limits;
    struct harness harness;
    struct buf out = BUF_EMPTY;
    limits.message_size_max = 1024;
    harness_init(&harness, &limits);
    struct peer *peer = peer_open_channel(&harness);
    memory_transport_take(&peer->memory, 0);
    for (int i = 0; i < 4000; i++)
        amqp_method_encode(
            &out, 1, &(struct amqp_method){.id = AMQP_CHANNEL_FLOW, .channel_flow.active = true});
    uint64_t sent = 0;
    for (int i = 0; i < 200; i++) {
        memory_transport_send(&peer->memory, buf_slice(&out));
        sent += 4000;
        loop_turn(&harness.loop, 0);
    }
    harness_run(&harness);
    ck_assert(peer->connection->choked);
    ck_assert_uint_lt(peer->connection->transport.chunks_size, 5 * 1024 * 1024);

    memory_transport_take(&peer->memory, SIZE_MAX);
    uint64_t answered = 0;
    for (int i = 0; i < 100; i++) {
        struct amqp_frame frame;
        harness_run(&harness);
        while (peer_next(peer, &frame))
            answered++;
    }
    ck_assert_uint_eq(sent, answered);
    ck_assert(!peer->connection->choked);
    buf_release(&out);
    harness_release(&harness);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("connection");

    TCase *handshake = tcase_create("handshake");
    tcase_add_loop_test(handshake, answers_the_protocol_header, 0, countof(header_cases));
    tcase_add_test(handshake, a_probe_is_logged_at_debug_only);
    tcase_add_test(handshake, start_says_who_we_are);
    tcase_add_test(handshake, server_properties_can_be_overridden);
    tcase_add_test(handshake, a_handshake_may_be_cut_anywhere);
    tcase_add_test(handshake, a_handshake_may_drip);
    tcase_add_test(handshake, a_handshake_has_a_deadline);
    tcase_add_loop_test(handshake, logs_in_or_refuses, 0, countof(login_cases));
    tcase_add_test(handshake, old_fields_are_ignored);
    tcase_add_loop_test(handshake, agrees_on_limits, 0, countof(tune_cases));
    tcase_add_test(handshake, opens_known_vhosts_only);
    tcase_add_test(handshake, limits_connections);
    suite_add_tcase(suite, handshake);

    TCase *bad = tcase_create("bad input");
    tcase_add_loop_test(bad, bad_input_ends_the_connection, 0, countof(bad_cases));
    tcase_add_test(bad, bad_input_in_the_handshake_ends_it);
    suite_add_tcase(suite, bad);

    TCase *heartbeats = tcase_create("heartbeats");
    tcase_add_test(heartbeats, heartbeats_go_out_at_half_the_interval);
    tcase_add_test(heartbeats, a_silent_client_is_dropped);
    tcase_add_test(heartbeats, zero_disables_heartbeats);
    tcase_add_test(heartbeats, a_held_client_is_not_missed);
    tcase_add_test(heartbeats, a_choked_client_that_reads_is_not_missed);
    tcase_add_test(heartbeats, a_choked_client_that_reads_slowly_is_not_missed);
    tcase_add_test(heartbeats, a_choked_client_that_is_dead_is_dropped);
    suite_add_tcase(suite, heartbeats);

    TCase *end = tcase_create("end");
    tcase_add_test(end, a_client_closes);
    tcase_add_test(end, a_client_vanishes);
    tcase_add_loop_test(end, close_ok_is_awaited, 0, 3);
    tcase_add_test(end, the_service_stops);
    tcase_add_test(end, exclusive_queues_go_first);
    suite_add_tcase(suite, end);

    TCase *waiting = tcase_create("waiting");
    tcase_add_test(waiting, nothing_overtakes_a_reply_that_waits);
    tcase_add_test(waiting, a_held_client_can_be_told_to_go);
    tcase_add_test(waiting, publishers_wait_while_the_store_is_full);
    tcase_add_test(waiting, publishers_wait_while_scratch_is_behind);
    tcase_add_test(waiting, who_does_not_read_is_not_read);
    suite_add_tcase(suite, waiting);
    return unit_main(suite);
}
