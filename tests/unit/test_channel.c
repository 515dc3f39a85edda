/* Channels: opening and closing, the assembly of content, the rules of queues and exchanges as a
 * client meets them. */
#include "amqp/client.h"
#include "amqp/properties.h"
#include "tests/lib/harness.h"
#include "tests/lib/unit.h"

#define STRING(literal)                                                                            \
    {                                                                                              \
        (const uint8_t *)("" literal), sizeof(literal) - 1                                         \
    }

static const struct amqp_method open_channel = {.id = AMQP_CHANNEL_OPEN};
static const struct amqp_method close_ok = {.id = AMQP_CHANNEL_CLOSE_OK};
static const struct amqp_method declare_q = {.id = AMQP_QUEUE_DECLARE,
                                             .queue_declare = {.queue = STRING("q")}};
static const struct amqp_method publish_q = {.id = AMQP_BASIC_PUBLISH,
                                             .basic_publish = {.routing_key = STRING("q")}};
static const struct amqp_method get_q = {.id = AMQP_BASIC_GET, .basic_get = {.queue = STRING("q")}};

static void put_frame(struct buf *out, uint8_t type, uint16_t channel, struct slice payload)
{
    amqp_write_u8(out, type);
    amqp_write_u16(out, channel);
    amqp_write_longstr(out, payload);
    amqp_write_u8(out, AMQP_FRAME_END);
}

static void put_header(struct buf *out, uint16_t channel, uint64_t body_size)
{
    amqp_content_header_encode(out, channel,
                               &(struct amqp_content_header){.class_id = 60,
                                                             .body_size = body_size,
                                                             .properties = SLICE("\0\0")});
}

static void put_publish(struct buf *out, uint16_t channel)
{
    amqp_method_encode(out, channel, &publish_q);
}

static void send_and_release(struct peer *peer, struct buf *out)
{
    peer_send_bytes(peer, buf_slice(out));
    buf_release(out);
}

static uint32_t count_ready(struct peer *peer, const char *queue)
{
    const struct amqp_method method = {
        .id = AMQP_QUEUE_DECLARE,
        .queue_declare = {.queue = slice_of_string(queue), .passive = true}};
    return peer_call(peer, 1, &method, AMQP_QUEUE_DECLARE_OK).queue_declare_ok.message_count;
}

/* ---- open and close ---- */

START_TEST(channels_open_and_close) /* 6.1, 6.3 */
{
    static const uint16_t numbers[] = {1, 2, 300, 65535};
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open(&harness);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < countof(numbers); i++)
            peer_call(peer, numbers[i], &open_channel, AMQP_CHANNEL_OPEN_OK);
        ck_assert_uint_eq(countof(numbers), peer->connection->channel_count);
        for (size_t i = 0; i < countof(numbers); i++)
            peer_call(peer, numbers[i], &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE},
                      AMQP_CHANNEL_CLOSE_OK);
        ck_assert_uint_eq(0, peer->connection->channel_count);
    }
    harness_release(&harness);
}
END_TEST

START_TEST(channels_are_counted) /* 6.1 */
{
    struct service_limits limits = harness_limits;
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, &limits);
    struct peer *peer = peer_new(&harness, false);
    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, SLICE("guest"), SLICE("guest"), SLICE(""));
    amqp_client_tune_ok(&out, 2, 4096, 0);
    amqp_client_open(&out, SLICE("/"));
    send_and_release(peer, &out);
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
    peer_expect(peer, 0, AMQP_CONNECTION_OPEN_OK);
    peer_call(peer, 7, &open_channel, AMQP_CHANNEL_OPEN_OK); /* numbers are not checked: 6.1 */
    peer_call(peer, 9, &open_channel, AMQP_CHANNEL_OPEN_OK);
    peer_send(peer, 1, &open_channel);
    peer_expect_close(peer, 0, 530,
                      "NOT_ALLOWED - number of channels opened (2) has reached the negotiated "
                      "channel_max (2)");
    harness_release(&harness);
}
END_TEST

START_TEST(a_channel_closed_by_error_waits_for_close_ok) /* 5.6 */
{
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_call(peer, 2, &open_channel, AMQP_CHANNEL_OPEN_OK);
    peer_call(peer, 2, &declare_q, AMQP_QUEUE_DECLARE_OK);
    peer_publish(peer, 1, "nowhere", "q", "lost");
    peer_expect_close(peer, 1, 404, "NOT_FOUND - no exchange 'nowhere' in vhost '/'");
    ck_assert_uint_eq(1, harness_logged(&harness, "channel 1: operation basic.publish caused a "
                                                  "channel exception: NOT_FOUND"));

    peer_publish(peer, 1, "", "q", "in flight"); /* 9.8 */
    peer_send(peer, 1, &declare_q);
    put_frame(&out, AMQP_FRAME_BODY, 1, SLICE("stray"));
    send_and_release(peer, &out);
    peer_expect_nothing(peer);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE}, AMQP_CHANNEL_CLOSE_OK);
    peer_send(peer, 1, &declare_q);
    peer_expect_nothing(peer);
    peer_call(peer, 2, &declare_q, AMQP_QUEUE_DECLARE_OK); /* the other channel lives */

    peer_send(peer, 1, &close_ok);
    peer_call(peer, 1, &open_channel, AMQP_CHANNEL_OPEN_OK);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    harness_release(&harness);
}
END_TEST

START_TEST(closing_requeues) /* 6.5 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_call(peer, 2, &open_channel, AMQP_CHANNEL_OPEN_OK);
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);
    peer_publish(peer, 1, "", "q", "one");
    peer_publish(peer, 1, "", "q", "two");
    peer_send(peer, 2, &get_q);
    ck_assert(!peer_expect_content(peer, 2, AMQP_BASIC_GET_OK, "one").basic_get_ok.redelivered);
    peer_send(
        peer, 2,
        &(struct amqp_method){.id = AMQP_BASIC_CONSUME, .basic_consume = {.queue = SLICE("q")}});
    peer_expect(peer, 2, AMQP_BASIC_CONSUME_OK);
    peer_expect_content(peer, 2, AMQP_BASIC_DELIVER, "two");
    ck_assert_uint_eq(0, count_ready(peer, "q"));

    peer_call(peer, 2, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE}, AMQP_CHANNEL_CLOSE_OK);
    ck_assert_uint_eq(2, count_ready(peer, "q"));
    peer_send(peer, 1, &get_q);
    ck_assert(peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, "one").basic_get_ok.redelivered);
    peer_send(peer, 1, &get_q);
    ck_assert(peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, "two").basic_get_ok.redelivered);
    harness_release(&harness);
}
END_TEST

/* ---- methods ---- */

static const struct request_case {
    const char *name;
    struct amqp_method method;
    uint16_t code; /* soft: of channel.close; hard: of connection.close */
    const char *text;
} request_cases[] = {
    {"flow false",
     {.id = AMQP_CHANNEL_FLOW, .channel_flow = {.active = false}},
     540,
     "NOT_IMPLEMENTED - active=false"},
    {"flow-ok unasked",
     {.id = AMQP_CHANNEL_FLOW_OK},
     503,
     "COMMAND_INVALID - unimplemented method"},
    {"deliver from a client",
     {.id = AMQP_BASIC_DELIVER},
     503,
     "COMMAND_INVALID - unimplemented method"},
    {"immediate",
     {.id = AMQP_BASIC_PUBLISH, .basic_publish = {.immediate = true}},
     540,
     "NOT_IMPLEMENTED - immediate=true"},
    {"no queue yet",
     {.id = AMQP_QUEUE_BIND, .queue_bind = {.exchange = STRING("amq.direct")}},
     404,
     "NOT_FOUND - no previously declared queue"},
    {"no queue yet, purge",
     {.id = AMQP_QUEUE_PURGE},
     404,
     "NOT_FOUND - no previously declared queue"},
    {"no queue yet, delete",
     {.id = AMQP_QUEUE_DELETE},
     404,
     "NOT_FOUND - no previously declared queue"},
    {"no such queue",
     {.id = AMQP_QUEUE_PURGE, .queue_purge = {.queue = STRING("absent")}},
     404,
     "NOT_FOUND - no queue 'absent' in vhost '/'"},
    {"no such queue, nowait",
     {.id = AMQP_QUEUE_PURGE, .queue_purge = {.queue = STRING("absent"), .no_wait = true}},
     404,
     "NOT_FOUND - no queue 'absent' in vhost '/'"},
    {"passive declare of an absent queue",
     {.id = AMQP_QUEUE_DECLARE, .queue_declare = {.queue = STRING("absent"), .passive = true}},
     404,
     "NOT_FOUND - no queue 'absent' in vhost '/'"},
    {"reserved queue name",
     {.id = AMQP_QUEUE_DECLARE, .queue_declare = {.queue = STRING("amq.foo")}},
     403,
     "ACCESS_REFUSED - queue name 'amq.foo' contains reserved prefix 'amq.*'"},
    {"bind to an absent exchange",
     {.id = AMQP_QUEUE_BIND,
      .queue_bind = {.queue = STRING("absent"), .exchange = STRING("nowhere")}},
     404,
     "NOT_FOUND - no exchange 'nowhere' in vhost '/'"},
    {"passive declare of an absent exchange",
     {.id = AMQP_EXCHANGE_DECLARE,
      .exchange_declare = {.exchange = STRING("nowhere"), .passive = true}},
     404,
     "NOT_FOUND - no exchange 'nowhere' in vhost '/'"},
    {"the default exchange, passive",
     {.id = AMQP_EXCHANGE_DECLARE, .exchange_declare = {.passive = true}},
     403,
     "ACCESS_REFUSED - operation not permitted on the default exchange"},
    {"the default exchange",
     {.id = AMQP_EXCHANGE_DECLARE, .exchange_declare = {.type = STRING("direct")}},
     403,
     "ACCESS_REFUSED - operation not permitted on the default exchange"},
    {"an unknown type",
     {.id = AMQP_EXCHANGE_DECLARE,
      .exchange_declare = {.exchange = STRING("x"), .type = STRING("nosuch")}},
     406,
     "PRECONDITION_FAILED - unknown exchange type 'nosuch'"},
    {"another type",
     {.id = AMQP_EXCHANGE_DECLARE,
      .exchange_declare = {.exchange = STRING("amq.direct"),
                           .type = STRING("fanout"),
                           .durable = true}},
     406,
     "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': "
     "received 'fanout' but current is 'direct'"},
    {"a system exchange",
     {.id = AMQP_EXCHANGE_DELETE, .exchange_delete = {.exchange = STRING("amq.direct")}},
     403,
     "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"},
    {"an unknown tag",
     {.id = AMQP_BASIC_ACK, .basic_ack = {.delivery_tag = 7}},
     406,
     "PRECONDITION_FAILED - unknown delivery tag 7"},
    {"commit without tx",
     {.id = AMQP_TX_COMMIT},
     406,
     "PRECONDITION_FAILED - channel is not transactional"},
    {"rollback without tx",
     {.id = AMQP_TX_ROLLBACK},
     406,
     "PRECONDITION_FAILED - channel is not transactional"},
};

START_TEST(wrong_requests_are_refused)
{
    const struct request_case *row = &request_cases[_i];
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_send(peer, 1, &row->method);
    peer_expect_close(peer, amqp_reply_is_soft(row->code) ? 1 : 0, row->code, row->text);
    peer_expect_nothing(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(closes_name_the_method) /* 5.1 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_send(peer, 1, &get_q);
    const struct amqp_method close = peer_expect(peer, 1, AMQP_CHANNEL_CLOSE);
    ck_assert_uint_eq(60, close.channel_close.class_id);
    ck_assert_uint_eq(70, close.channel_close.method_id);
    harness_release(&harness);
}
END_TEST

START_TEST(modes_exclude_each_other) /* 9.9, 9.14 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    const struct amqp_method confirm = {.id = AMQP_CONFIRM_SELECT}, tx = {.id = AMQP_TX_SELECT};
    peer_call(peer, 1, &confirm, AMQP_CONFIRM_SELECT_OK);
    peer_call(peer, 1, &confirm, AMQP_CONFIRM_SELECT_OK);
    peer_send(peer, 1, &tx);
    peer_expect_close(peer, 1, 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode");
    peer_call(peer, 2, &open_channel, AMQP_CHANNEL_OPEN_OK);
    peer_call(peer, 2, &tx, AMQP_TX_SELECT_OK);
    peer_call(peer, 2, &tx, AMQP_TX_SELECT_OK);
    peer_send(peer, 2, &confirm);
    peer_expect_close(peer, 2, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode");
    harness_release(&harness);
}
END_TEST

START_TEST(small_courtesies) /* 6.4, 18 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    ck_assert(peer_call(peer, 1,
                        &(struct amqp_method){.id = AMQP_CHANNEL_FLOW, .channel_flow.active = true},
                        AMQP_CHANNEL_FLOW_OK)
                  .channel_flow_ok.active);
    ck_assert_uint_eq(1, peer_call(peer, 1, &(struct amqp_method){.id = AMQP_ACCESS_REQUEST},
                                   AMQP_ACCESS_REQUEST_OK)
                             .access_request_ok.ticket);
    harness_release(&harness);
}
END_TEST

/* All sent at once; a delivery may stand between, answers do not change places. */
START_TEST(answers_come_in_order) /* 6.6 */
{
    const struct amqp_method methods[] = {
        declare_q,
        {.id = AMQP_BASIC_QOS},
        {.id = AMQP_BASIC_CONSUME, .basic_consume = {.queue = SLICE("q"), .no_ack = true}},
        {.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")},
        {.id = AMQP_CONFIRM_SELECT},
        {.id = AMQP_EXCHANGE_DECLARE,
         .exchange_declare = {.exchange = SLICE("x"), .type = SLICE("topic"), .durable = true}},
        {.id = AMQP_QUEUE_DECLARE, .queue_declare = {.queue = SLICE("d"), .durable = true}},
        {.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")},
    };
    static const uint32_t answers[] = {
        AMQP_QUEUE_DECLARE_OK, AMQP_BASIC_QOS_OK,      AMQP_BASIC_CONSUME_OK,
        AMQP_QUEUE_PURGE_OK,   AMQP_CONFIRM_SELECT_OK, AMQP_EXCHANGE_DECLARE_OK,
        AMQP_QUEUE_DECLARE_OK, AMQP_QUEUE_DELETE_OK,
    };
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    for (size_t i = 0; i < countof(methods); i++)
        amqp_method_encode(&out, 1, &methods[i]);
    send_and_release(peer, &out);
    size_t seen = 0;
    struct amqp_frame frame;
    while (peer_next(peer, &frame))
        if (seen < countof(answers) && amqp_get_u32(frame.payload.data) == answers[seen])
            seen++;
        else
            ck_assert_uint_eq(AMQP_BASIC_CANCEL, amqp_get_u32(frame.payload.data));
    ck_assert_uint_eq(countof(answers), seen);
    harness_release(&harness);
}
END_TEST

START_TEST(what_follows_a_bad_publish_is_dropped) /* 9.8, 5.6 */
{
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);
    for (int i = 0; i < 3; i++)
        amqp_client_publish(
            &out, 1, 4096,
            &(struct amqp_client_message){.exchange = i == 1 ? SLICE("absent") : SLICE(""),
                                          .routing_key = SLICE("q"),
                                          .body = SLICE("m")});
    send_and_release(peer, &out);
    peer_expect_close(peer, 1, 404, "NOT_FOUND - no exchange 'absent' in vhost '/'");
    peer_expect_nothing(peer);
    peer_send(peer, 1, &close_ok);
    peer_call(peer, 1, &open_channel, AMQP_CHANNEL_OPEN_OK);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
    harness_release(&harness);
}
END_TEST

/* ---- content ---- */

START_TEST(a_body_may_come_in_any_pieces) /* 2.5, 2.6 */
{
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_call(peer, 2, &open_channel, AMQP_CHANNEL_OPEN_OK);
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);

    put_publish(&out, 1); /* empty frames, and another channel in between: 2.5, 2.6 */
    put_publish(&out, 2);
    put_header(&out, 1, 6);
    put_header(&out, 2, 0);
    put_frame(&out, AMQP_FRAME_BODY, 1, SLICE("ab"));
    put_frame(&out, AMQP_FRAME_BODY, 1, SLICE(""));
    amqp_method_encode(&out, 2, &declare_q);
    put_frame(&out, AMQP_FRAME_BODY, 1, SLICE("cde"));
    put_frame(&out, AMQP_FRAME_BODY, 1, SLICE("f"));
    for (size_t i = 0; i < out.end; i++)
        peer_send_bytes(peer, slice_of(out.data + i, 1));
    buf_release(&out);
    peer_expect(peer, 2, AMQP_QUEUE_DECLARE_OK);

    ck_assert_uint_eq(2, count_ready(peer, "q"));
    peer_send(peer, 1, &get_q);
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, "");
    peer_send(peer, 1, &get_q);
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, "abcdef");
    peer_call(peer, 1, &get_q, AMQP_BASIC_GET_EMPTY);
    harness_release(&harness);
}
END_TEST

static void method_for_header(struct buf *out)
{
    put_publish(out, 1);
    put_publish(out, 1);
}
static void body_for_header(struct buf *out)
{
    put_publish(out, 1);
    put_frame(out, AMQP_FRAME_BODY, 1, SLICE("body"));
}
static void header_of_another_class(struct buf *out)
{
    put_publish(out, 1);
    put_frame(out, AMQP_FRAME_HEADER, 1, SLICE("\0\12\0\0\0\0\0\0\0\0\0\0\0\0"));
}
static void header_with_weight(struct buf *out)
{
    put_publish(out, 1);
    put_frame(out, AMQP_FRAME_HEADER, 1, SLICE("\0\74\0\1\0\0\0\0\0\0\0\0\0\0"));
}
static void header_cut(struct buf *out)
{
    put_publish(out, 1);
    put_frame(out, AMQP_FRAME_HEADER, 1, SLICE("\0\74\0\0\0"));
}
static void header_empty(struct buf *out)
{
    put_publish(out, 1);
    put_frame(out, AMQP_FRAME_HEADER, 1, SLICE(""));
}
static void header_with_lost_property(struct buf *out)
{
    put_publish(out, 1);
    put_frame(out, AMQP_FRAME_HEADER, 1, SLICE("\0\74\0\0\0\0\0\0\0\0\0\0\200\0\5ab"));
}
static void header_too_large(struct buf *out)
{
    put_publish(out, 1);
    put_header(out, 1, 536870913);
}
static void method_for_body(struct buf *out)
{
    put_publish(out, 1);
    put_header(out, 1, 4);
    put_publish(out, 1);
}
static void header_for_body(struct buf *out)
{
    put_publish(out, 1);
    put_header(out, 1, 4);
    put_header(out, 1, 4);
}
static void body_too_long(struct buf *out)
{
    put_publish(out, 1);
    put_header(out, 1, 4);
    put_frame(out, AMQP_FRAME_BODY, 1, SLICE("abc"));
    put_frame(out, AMQP_FRAME_BODY, 1, SLICE("de"));
}
static void body_after_none(struct buf *out)
{
    put_publish(out, 1);
    put_header(out, 1, 0);
    put_frame(out, AMQP_FRAME_BODY, 1, SLICE(""));
}

static const struct content_case {
    void (*put)(struct buf *out);
    uint16_t code;
    const char *text;
} content_cases[] = {
    {method_for_header, 505,
     "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame "
     "instead"},
    {body_for_header, 505,
     "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame "
     "instead"},
    {header_of_another_class, 505,
     "UNEXPECTED_FRAME - expected content header for class 60, got one for class 10 instead"},
    {header_with_weight, 501, "FRAME_ERROR - *"},
    {header_cut, 501, "FRAME_ERROR - *"},
    {header_empty, 501, "FRAME_ERROR - *"},
    {header_with_lost_property, 501, "FRAME_ERROR - *"},
    {header_too_large, 501,
     "FRAME_ERROR - content body size 536870913 exceeds maximum allowed size 536870912"},
    {method_for_body, 505,
     "UNEXPECTED_FRAME - expected content body, got non content body frame instead"},
    {header_for_body, 505,
     "UNEXPECTED_FRAME - expected content body, got non content body frame instead"},
    {body_too_long, 501, "FRAME_ERROR - content body frame exceeds remaining content size"},
    {body_after_none, 505,
     "UNEXPECTED_FRAME - expected method frame, got non method frame instead"},
};

START_TEST(bad_content_ends_the_connection) /* 2.3, 2.4, CVE-2026-67235 */
{
    const struct content_case *row = &content_cases[_i];
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    row->put(&out);
    send_and_release(peer, &out);
    peer_expect_close(peer, 0, row->code, row->text);
    peer_send(peer, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
    peer_expect_end(peer);
    harness_release(&harness);
}
END_TEST

START_TEST(too_large_a_message_closes_the_channel) /* 9.1, CVE-2026-67235 */
{
    struct service_limits limits = harness_limits;
    struct harness harness;
    struct buf out = BUF_EMPTY;
    limits.message_size_max = 5;
    harness_init(&harness, &limits);
    struct peer *peer = peer_open_channel(&harness);
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);
    peer_publish(peer, 1, "", "q", "12345");
    put_publish(&out, 1);
    put_header(&out, 1, 6);
    put_frame(&out, AMQP_FRAME_BODY, 1, SLICE("123456"));
    send_and_release(peer, &out);
    peer_expect_close(peer, 1, 406,
                      "PRECONDITION_FAILED - message size 6 is larger than configured max size 5");
    peer_send(peer, 1, &close_ok);
    peer_call(peer, 1, &open_channel, AMQP_CHANNEL_OPEN_OK);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
    harness_release(&harness);
}
END_TEST

/* Around the sizes where a body is copied or shared, and where it needs another frame. */
START_TEST(bodies_come_back_whole)
{
    static const size_t sizes[] = {0,    1,    4087, 4088,  4089,  4095,  4096,
                                   4097, 8176, 8177, 12265, 65536, 300000};
    static const uint32_t frame_maxes[] = {4096, 8192, 131072};
    const size_t size = sizes[_i / 3];
    struct harness harness;
    struct buf out = BUF_EMPTY;
    harness_init(&harness, NULL);
    struct peer *peer = peer_new(&harness, false);
    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, SLICE("guest"), SLICE("guest"), SLICE(""));
    amqp_client_tune_ok(&out, 2047, frame_maxes[_i % 3], 0);
    amqp_client_open(&out, SLICE("/"));
    amqp_method_encode(&out, 1, &open_channel);
    amqp_method_encode(&out, 1, &declare_q);

    char *body = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        body[i] = (char)('a' + i * 7 % 26);
    body[size] = '\0';
    amqp_client_publish(
        &out, 1, frame_maxes[_i % 3],
        &(struct amqp_client_message){.routing_key = SLICE("q"), .body = slice_of_string(body)});
    amqp_client_publish(&out, 1, frame_maxes[_i % 3],
                        &(struct amqp_client_message){.routing_key = SLICE("nowhere"),
                                                      .body = slice_of_string(body),
                                                      .mandatory = true});
    amqp_method_encode(&out, 1, &get_q);
    amqp_method_encode(
        &out, 1, &(struct amqp_method){.id = AMQP_BASIC_RECOVER, .basic_recover.requeue = true});
    amqp_method_encode(
        &out, 1,
        &(struct amqp_method){.id = AMQP_BASIC_CONSUME, .basic_consume = {.queue = SLICE("q")}});
    send_and_release(peer, &out);
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
    peer_expect(peer, 0, AMQP_CONNECTION_OPEN_OK);
    peer_expect(peer, 1, AMQP_CHANNEL_OPEN_OK);
    peer_expect(peer, 1, AMQP_QUEUE_DECLARE_OK);
    const struct amqp_method returned = peer_expect_content(peer, 1, AMQP_BASIC_RETURN, body);
    ck_assert_uint_eq(312, returned.basic_return.reply_code);
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, body);
    peer_expect(peer, 1, AMQP_BASIC_RECOVER_OK);
    peer_expect(peer, 1, AMQP_BASIC_CONSUME_OK);
    ck_assert(peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, body).basic_deliver.redelivered);
    peer_expect_nothing(peer);
    free(body);
    harness_release(&harness);
}
END_TEST

START_TEST(frames_keep_to_frame_max) /* 2.2, GHSA-jh48-qjf5-fx5v */
{
    struct harness harness;
    struct buf out = BUF_EMPTY;
    struct amqp_frame frame;
    harness_init(&harness, NULL);
    struct peer *peer = peer_new(&harness, false);
    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, SLICE("guest"), SLICE("guest"), SLICE(""));
    amqp_client_tune_ok(&out, 2047, 4096, 0);
    amqp_client_open(&out, SLICE("/"));
    amqp_method_encode(&out, 1, &open_channel);
    char body[20000];
    memset(body, 'x', sizeof(body));
    amqp_client_publish(&out, 1, 4096,
                        &(struct amqp_client_message){.routing_key = SLICE("nowhere"),
                                                      .body = slice_of(body, sizeof(body)),
                                                      .mandatory = true});
    send_and_release(peer, &out);
    size_t bodies = 0;
    while (peer_next(peer, &frame)) {
        ck_assert_uint_le(frame.payload.size, 4096 - AMQP_FRAME_OVERHEAD);
        bodies += frame.type == AMQP_FRAME_BODY;
    }
    ck_assert_uint_eq(5, bodies);
    harness_release(&harness);
}
END_TEST

/* ---- queues and exchanges ---- */

START_TEST(an_empty_name_is_the_last_declared) /* 6.7, 7.20, 8.2, 8.9 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    const struct amqp_method server_named = {.id = AMQP_QUEUE_DECLARE};
    const struct amqp_method ok = peer_call(peer, 1, &server_named, AMQP_QUEUE_DECLARE_OK);
    ck_assert(slice_starts_with(ok.queue_declare_ok.queue, SLICE("amq.gen-")));
    char *name = slice_to_string(ok.queue_declare_ok.queue);

    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                    .queue_bind = {.exchange = SLICE("amq.direct")}},
              AMQP_QUEUE_BIND_OK); /* 7.20: the key is the name, too */
    peer_publish(peer, 1, "amq.direct", name, "by name");
    peer_send(peer, 1, &(struct amqp_method){.id = AMQP_BASIC_GET, .basic_get.no_ack = true});
    peer_expect_content(peer, 1, AMQP_BASIC_GET_OK, "by name");
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_UNBIND,
                                    .queue_unbind = {.exchange = SLICE("amq.direct")}},
              AMQP_QUEUE_UNBIND_OK);
    peer_publish(peer, 1, "amq.direct", name, "unbound");
    peer_publish(peer, 1, "", name, "one");
    peer_publish(peer, 1, "", name, "two");
    ck_assert_uint_eq(
        2, peer_call(peer, 1, &(struct amqp_method){.id = AMQP_QUEUE_PURGE}, AMQP_QUEUE_PURGE_OK)
               .queue_purge_ok.message_count);
    peer_publish(peer, 1, "", name, "three");
    ck_assert_uint_eq(
        1, peer_call(peer, 1, &(struct amqp_method){.id = AMQP_QUEUE_DELETE}, AMQP_QUEUE_DELETE_OK)
               .queue_delete_ok.message_count);
    ck_assert_uint_eq(
        0, peer_call(peer, 1, &(struct amqp_method){.id = AMQP_QUEUE_DELETE}, AMQP_QUEUE_DELETE_OK)
               .queue_delete_ok.message_count); /* absent is success: 8.12 */
    free(name);
    harness_release(&harness);
}
END_TEST

START_TEST(nowait_gets_no_answer)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    const struct amqp_method methods[] = {
        {.id = AMQP_QUEUE_DECLARE, .queue_declare = {.queue = SLICE("q"), .no_wait = true}},
        {.id = AMQP_EXCHANGE_DECLARE,
         .exchange_declare = {.exchange = SLICE("x"), .type = SLICE("fanout"), .no_wait = true}},
        {.id = AMQP_EXCHANGE_BIND,
         .exchange_bind = {.source = SLICE("amq.topic"),
                           .destination = SLICE("x"),
                           .routing_key = SLICE("#"),
                           .no_wait = true}},
        {.id = AMQP_QUEUE_BIND,
         .queue_bind = {.queue = SLICE("q"), .exchange = SLICE("x"), .no_wait = true}},
    };
    for (size_t i = 0; i < countof(methods); i++)
        peer_send(peer, 1, &methods[i]);
    peer_publish(peer, 1, "amq.topic", "any.thing", "through two");
    peer_expect_nothing(peer);
    ck_assert_uint_eq(1, count_ready(peer, "q"));

    const struct amqp_method undo[] = {
        {.id = AMQP_EXCHANGE_UNBIND,
         .exchange_unbind = {.source = SLICE("amq.topic"),
                             .destination = SLICE("x"),
                             .routing_key = SLICE("#"),
                             .no_wait = true}},
        {.id = AMQP_EXCHANGE_DELETE, .exchange_delete = {.exchange = SLICE("x"), .no_wait = true}},
        {.id = AMQP_QUEUE_PURGE, .queue_purge = {.queue = SLICE("q"), .no_wait = true}},
    };
    for (size_t i = 0; i < countof(undo); i++)
        peer_send(peer, 1, &undo[i]);
    peer_expect_nothing(peer);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    harness_release(&harness);
}
END_TEST

START_TEST(answers_say_ok)
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                              .exchange_declare = {.exchange = SLICE("x"), .type = SLICE("topic")}},
        AMQP_EXCHANGE_DECLARE_OK);
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                    .exchange_declare = {.exchange = SLICE("x"), .passive = true}},
              AMQP_EXCHANGE_DECLARE_OK);
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_EXCHANGE_BIND,
                  .exchange_bind = {.source = SLICE("amq.fanout"), .destination = SLICE("x")}},
              AMQP_EXCHANGE_BIND_OK);
    peer_call(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_EXCHANGE_UNBIND,
                  .exchange_unbind = {.source = SLICE("amq.fanout"), .destination = SLICE("x")}},
              AMQP_EXCHANGE_UNBIND_OK);
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_EXCHANGE_DELETE,
                                    .exchange_delete = {.exchange = SLICE("x")}},
              AMQP_EXCHANGE_DELETE_OK);
    harness_release(&harness);
}
END_TEST

START_TEST(consumers_hear_of_a_deleted_queue) /* 8.12, 10.10 */
{
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    peer_call(peer, 1, &declare_q, AMQP_QUEUE_DECLARE_OK);
    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                              .basic_consume = {.queue = SLICE("q"), .consumer_tag = SLICE("tag")}},
        AMQP_BASIC_CONSUME_OK);
    peer_publish(other, 1, "", "q", "unacked");
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "unacked");
    peer_call(other, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")},
              AMQP_QUEUE_DELETE_OK);
    const struct amqp_method cancel = peer_expect(peer, 1, AMQP_BASIC_CANCEL);
    ck_assert(slice_equal(cancel.basic_cancel.consumer_tag, SLICE("tag")));
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE}, AMQP_CHANNEL_CLOSE_OK);
    harness_release(&harness);
}
END_TEST

/* The channel's limit is shared: what a commit settles for one queue lets another deliver. */
START_TEST(a_commit_gives_credit_back)
{
    static const char *const queues[] = {"q", "r"};
    struct harness harness;
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness), *other = peer_open_channel(&harness);
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_QOS,
                                    .basic_qos = {.prefetch_count = 1, .global = true}},
              AMQP_BASIC_QOS_OK);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    for (size_t i = 0; i < countof(queues); i++) {
        const struct slice name = slice_of_string(queues[i]);
        peer_call(peer, 1,
                  &(struct amqp_method){.id = AMQP_QUEUE_DECLARE, .queue_declare.queue = name},
                  AMQP_QUEUE_DECLARE_OK);
        peer_call(peer, 1,
                  &(struct amqp_method){.id = AMQP_BASIC_CONSUME, .basic_consume.queue = name},
                  AMQP_BASIC_CONSUME_OK);
    }
    for (size_t i = 0; i < countof(queues); i++)
        peer_publish(other, 1, "", queues[i], queues[i]);
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "q");
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_ACK, .basic_ack = {.delivery_tag = 1}});
    peer_expect_nothing(peer);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
    peer_expect_content(peer, 1, AMQP_BASIC_DELIVER, "r");
    harness_release(&harness);
}
END_TEST

/* More clients ask than one read of the disk brings messages. */
START_TEST(gets_share_what_is_read_from_disk)
{
    enum { SIZE = 1100 * 1024, CLIENTS = 3 };
    static char body[SIZE + 1];
    struct harness harness;
    struct peer *peers[CLIENTS];
    struct buf get = BUF_EMPTY;
    memset(body, 'x', SIZE);
    harness_init(&harness, NULL);
    struct peer *peer = peer_open_channel(&harness);
    struct amqp_method declare = declare_q;
    declare.queue_declare.durable = true;
    peer_call(peer, 1, &declare, AMQP_QUEUE_DECLARE_OK);
    for (int i = 0; i < CLIENTS; i++) {
        struct buf out = BUF_EMPTY;
        amqp_client_publish(&out, 1, 131072,
                            &(struct amqp_client_message){.routing_key = SLICE("q"),
                                                          .properties = SLICE("\x10\x00\x02"),
                                                          .body = slice_of(body, SIZE)});
        send_and_release(peer, &out);
    }
    harness_restart(&harness, false);

    amqp_method_encode(&get, 1, &get_q);
    for (int i = 0; i < CLIENTS; i++)
        peers[i] = peer_open_channel(&harness);
    for (int i = 0; i < CLIENTS; i++)
        memory_transport_send(&peers[i]->memory, buf_slice(&get));
    harness_run(&harness);
    harness_run(&harness);
    for (int i = 0; i < CLIENTS; i++)
        peer_expect_content(peers[i], 1, AMQP_BASIC_GET_OK, body);
    buf_release(&get);
    harness_release(&harness);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("channel");

    TCase *life = tcase_create("life");
    tcase_add_test(life, channels_open_and_close);
    tcase_add_test(life, channels_are_counted);
    tcase_add_test(life, a_channel_closed_by_error_waits_for_close_ok);
    tcase_add_test(life, closing_requeues);
    suite_add_tcase(suite, life);

    TCase *methods = tcase_create("methods");
    tcase_add_loop_test(methods, wrong_requests_are_refused, 0, countof(request_cases));
    tcase_add_test(methods, closes_name_the_method);
    tcase_add_test(methods, modes_exclude_each_other);
    tcase_add_test(methods, small_courtesies);
    tcase_add_test(methods, answers_come_in_order);
    tcase_add_test(methods, what_follows_a_bad_publish_is_dropped);
    suite_add_tcase(suite, methods);

    TCase *content = tcase_create("content");
    tcase_add_test(content, a_body_may_come_in_any_pieces);
    tcase_add_loop_test(content, bad_content_ends_the_connection, 0, countof(content_cases));
    tcase_add_test(content, too_large_a_message_closes_the_channel);
    tcase_add_loop_test(content, bodies_come_back_whole, 0, 13 * 3);
    tcase_add_test(content, frames_keep_to_frame_max);
    suite_add_tcase(suite, content);

    TCase *queues = tcase_create("queues");
    tcase_add_test(queues, an_empty_name_is_the_last_declared);
    tcase_add_test(queues, nowait_gets_no_answer);
    tcase_add_test(queues, answers_say_ok);
    tcase_add_test(queues, consumers_hear_of_a_deleted_queue);
    tcase_add_test(queues, a_commit_gives_credit_back);
    tcase_add_test(queues, gets_share_what_is_read_from_disk);
    suite_add_tcase(suite, queues);
    return unit_main(suite);
}
