#include "tests/lib/harness.h"

#include <check.h>
#include <sys/mman.h>
#include <unistd.h>

#include "amqp/client.h"
#include "amqp/properties.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core/account.h"
#include "store/memory.h"

const struct service_limits harness_limits = {
    .heartbeat_s = 60,
    .frame_size_max = 131072,
    .initial_frame_size_max = 8192,
    .channel_max = 2047,
    .handshake_timeout_ms = 10000,
    .message_size_max = 16777216,
    .consumer_max_per_channel = 100000,
    .consumer_max_per_node = 1000000,
    .unacked_max_per_channel = 100000,
    .publish_size_max = UINT64_C(128) << 20,
    .handshake_max_per_address = 10000,
    .channel_max_per_node = 500000,
};

/* ---- the broker ---- */

void harness_start(struct harness *harness, const struct service_limits *limits)
{
    const struct broker_defaults defaults = {
        .vhost = SLICE("/"),
        .user = SLICE("guest"),
        .password = SLICE("guest"),
        .tags = SLICE("administrator"),
        .permissions = {SLICE(".*"), SLICE(".*"), SLICE(".*")},
        .password_cost = HARNESS_PASSWORD_COST,
    };

    ck_assert_int_eq(0, loop_init(&harness->loop, &harness->clock));
    ck_assert_int_eq(0, broker_init(&harness->broker, &harness->loop, &harness->clock,
                                    &harness->random, harness->store));
    broker_give_defaults(&harness->broker, &defaults);
    struct scratch *scratch;
    char error[SCRATCH_ERROR_SIZE];
    ck_assert_int_eq(0, scratch_open(NULL, &scratch, error));
    ck_assert_int_eq(0, broker_set_scratch(&harness->broker, scratch));
    ck_assert_int_eq(0, service_init(&harness->service, &harness->broker, limits, NULL, 0,
                                     HARNESS_PASSWORD_COST, false));
    users_restrict_to_loopback(&harness->broker.users, SLICE("guest"));
    harness_run(harness);
}

void harness_stop(struct harness *harness)
{
    service_abort(&harness->service, "stop");
    harness_run(harness);
    while (!TAILQ_EMPTY(&harness->peers)) {
        struct peer *peer = TAILQ_FIRST(&harness->peers);
        peer_free(&peer);
    }
    service_release(&harness->service);
    broker_release(&harness->broker);
    loop_release(&harness->loop);
}

void harness_init_over(struct harness *harness, const struct service_limits *limits,
                       struct store *store)
{
    *harness = (struct harness){
        .clock = {.now_ms = 1000000, .wall_ms = 1700000000000, .fake = true},
        .store = store,
        .log_fd = memfd_create("log", MFD_CLOEXEC),
    };
    log_to(harness->log_fd);
    log_level = LOG_DEBUG;
    random_init_seeded(&harness->random, 1);
    TAILQ_INIT(&harness->peers);
    harness_start(harness, limits == NULL ? &harness_limits : limits);
}

void harness_init(struct harness *harness, const struct service_limits *limits)
{
    harness_init_over(harness, limits, store_memory_new());
}

void harness_release_over(struct harness *harness)
{
    harness_stop(harness);
    store_close(&harness->store);
    log_to(STDERR_FILENO);
    close(harness->log_fd);
}

void harness_release(struct harness *harness)
{
    store_memory_set_auto_sync(harness->store, true);
    harness_release_over(harness);
}

void harness_restart(struct harness *harness, bool crash)
{
    const struct service_limits limits = harness->service.limits;

    store_memory_set_auto_sync(harness->store, !crash);
    harness_stop(harness);
    store_memory_crash(harness->store);
    store_memory_set_auto_sync(harness->store, true);
    harness_start(harness, &limits);
}

void harness_run(struct harness *harness)
{
    enum { TURNS = 12 }; /* more than any chain of causes has: input, store, its answer, output */
    for (int i = 0; i < TURNS; i++)
        loop_turn(&harness->loop, 0);
    struct peer *peer;
    TAILQ_FOREACH (peer, &harness->peers, link)
        if (peer->memory.closed)
            peer->connection = NULL;
}

void harness_advance(struct harness *harness, uint64_t ms)
{
    enum { STEP_MS = 100 };
    while (ms > 0) {
        const uint64_t step_ms = min_of(ms, (uint64_t)STEP_MS);
        clock_advance(&harness->clock, step_ms);
        harness_run(harness);
        ms -= step_ms;
    }
}

size_t harness_logged(struct harness *harness, const char *text)
{
    const off_t size = lseek(harness->log_fd, 0, SEEK_END);
    char *log = xcalloc(1, (size_t)size + 1);
    ck_assert_int_eq(size, pread(harness->log_fd, log, (size_t)size, 0));
    size_t count = 0;
    for (const char *at = log; (at = strstr(at, text)) != NULL; at += strlen(text))
        count++;
    free(log);
    return count;
}

/* ---- users ---- */

struct user *harness_add_user(struct harness *harness, const char *name, const char *password)
{
    const uint8_t salt[PASSWORD_SALT_SIZE] = "salt of a test";
    struct password made;
    uint64_t lsn;

    password_make(&made, salt, HARNESS_PASSWORD_COST, slice_of_string(password));
    return account_create(&harness->broker, slice_of_string(name), &made, &lsn);
}

void harness_permit(struct harness *harness, const char *user, const char *vhost,
                    const char *configure, const char *write, const char *read)
{
    const struct slice patterns[ACCESS_RIGHTS] = {[ACCESS_CONFIGURE] = slice_of_string(configure),
                                                  [ACCESS_WRITE] = slice_of_string(write),
                                                  [ACCESS_READ] = slice_of_string(read)};
    char error[PATTERN_ERROR_SIZE];
    uint64_t lsn;

    if (!account_set_grant(
            &harness->broker, users_find(&harness->broker.users, slice_of_string(user)),
            vhost_find(&harness->broker, slice_of_string(vhost)), patterns, &lsn, error))
        ck_abort_msg("%s", error);
    harness_run(harness);
}

/* ---- clients ---- */

struct peer *peer_new(struct harness *harness, bool remote)
{
    const struct endpoint local = {"127.0.0.1", 5672, true};
    const struct endpoint near = {"127.0.0.1", 40000, true}, far = {"192.0.2.1", 40000, false};
    struct peer *peer = xcalloc(1, sizeof(*peer));
    peer->harness = harness;

    peer->connection = connection_new(&harness->service, &local, remote ? &far : &near);
    connection_open(peer->connection, &memory_transport_ops);
    memory_transport_attach(&peer->memory, &peer->connection->transport);
    TAILQ_INSERT_TAIL(&harness->peers, peer, link);
    return peer;
}

void peer_free(struct peer **peer)
{
    struct peer *gone = *peer;
    *peer = NULL;

    if (!gone->memory.closed) {
        memory_transport_break(&gone->memory, ECONNRESET);
        harness_run(gone->harness);
    }
    if (!gone->memory.closed) { /* the broker does not look at it: it is held */
        connection_drop(gone->connection, "peer_free");
        harness_run(gone->harness);
    }
    TAILQ_REMOVE(&gone->harness->peers, gone, link);
    memory_transport_release(&gone->memory);
    buf_release(&gone->payload);
    buf_release(&gone->properties);
    free(gone);
}

static void send_and_release(struct peer *peer, struct buf *out)
{
    peer_send_bytes(peer, buf_slice(out));
    buf_release(out);
}

struct peer *peer_log_in(struct harness *harness, const char *user, const char *password,
                         const char *vhost, bool remote)
{
    struct peer *peer = peer_new(harness, remote);
    struct buf out = BUF_EMPTY;

    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, slice_of_string(user), slice_of_string(password), SLICE("test"));
    amqp_client_tune_ok(&out, 2047, 131072, 0);
    amqp_client_open(&out, slice_of_string(vhost));
    send_and_release(peer, &out);
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    return peer;
}

struct peer *peer_open_as(struct harness *harness, const char *user, const char *password,
                          const char *vhost)
{
    struct peer *peer = peer_log_in(harness, user, password, vhost, false);

    peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
    peer_expect(peer, 0, AMQP_CONNECTION_OPEN_OK);
    return peer;
}

struct peer *peer_open(struct harness *harness)
{
    return peer_open_as(harness, "guest", "guest", "/");
}

struct peer *peer_open_channel(struct harness *harness)
{
    struct peer *peer = peer_open(harness);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
    return peer;
}

void peer_send_bytes(struct peer *peer, struct slice bytes)
{
    memory_transport_send(&peer->memory, bytes);
    harness_run(peer->harness);
}

void peer_send(struct peer *peer, uint16_t channel, const struct amqp_method *method)
{
    struct buf out = BUF_EMPTY;
    amqp_method_encode(&out, channel, method);
    send_and_release(peer, &out);
}

void peer_publish(struct peer *peer, uint16_t channel, const char *exchange,
                  const char *routing_key, const char *body)
{
    struct buf out = BUF_EMPTY;
    amqp_client_publish(&out, channel, 131072,
                        &(struct amqp_client_message){.exchange = slice_of_string(exchange),
                                                      .routing_key = slice_of_string(routing_key),
                                                      .body = slice_of_string(body)});
    send_and_release(peer, &out);
}

bool peer_next(struct peer *peer, struct amqp_frame *frame)
{
    struct amqp_error error;
    size_t used = 0;
    const enum amqp_parse parse =
        amqp_frame_parse(buf_slice(&peer->memory.received), 1 << 24, frame, &used, &error);
    ck_assert_msg(parse != AMQP_PARSE_BAD, "the broker sent a bad frame");
    if (parse == AMQP_PARSE_MORE)
        return false;
    buf_clear(&peer->payload);
    buf_append(&peer->payload, frame->payload);
    frame->payload = buf_slice(&peer->payload);
    buf_consume(&peer->memory.received, used);
    return true;
}

static const char *name_of(uint32_t id)
{
    const struct amqp_method_info *info = amqp_method_info(id);
    return info == NULL ? "no method" : info->name;
}

struct amqp_method peer_expect(struct peer *peer, uint16_t channel, uint32_t id)
{
    struct amqp_frame frame;
    struct amqp_method method;
    struct amqp_error error;

    ck_assert_msg(peer_next(peer, &frame), "%s expected, nothing came", name_of(id));
    ck_assert_msg(frame.type == AMQP_FRAME_METHOD, "%s expected, a frame of type %u came",
                  name_of(id), frame.type);
    ck_assert(amqp_method_decode(frame.payload, &method, &error));
    if (method.id != id && method.id == AMQP_CONNECTION_CLOSE)
        ck_abort_msg("%s expected, the connection was closed: %.*s", name_of(id),
                     SLICE_ARG(method.connection_close.reply_text));
    if (method.id != id && method.id == AMQP_CHANNEL_CLOSE)
        ck_abort_msg("%s expected, the channel was closed: %.*s", name_of(id),
                     SLICE_ARG(method.channel_close.reply_text));
    ck_assert_msg(method.id == id && frame.channel == channel,
                  "%s expected on channel %u, %s came on channel %u", name_of(id), channel,
                  name_of(method.id), frame.channel);
    return method;
}

struct amqp_method peer_call(struct peer *peer, uint16_t channel, const struct amqp_method *method,
                             uint32_t reply_id)
{
    peer_send(peer, channel, method);
    return peer_expect(peer, channel, reply_id);
}

void peer_expect_close(struct peer *peer, uint16_t channel, uint16_t code, const char *text)
{
    const struct amqp_method method =
        peer_expect(peer, channel, channel == 0 ? AMQP_CONNECTION_CLOSE : AMQP_CHANNEL_CLOSE);
    const uint16_t sent_code =
        channel == 0 ? method.connection_close.reply_code : method.channel_close.reply_code;
    const struct slice sent =
        channel == 0 ? method.connection_close.reply_text : method.channel_close.reply_text;
    struct slice expected = slice_of_string(text);
    bool good;

    if (expected.size > 0 && text[expected.size - 1] == '*') {
        expected.size--;
        good = slice_starts_with(sent, expected);
    } else {
        good = slice_equal(sent, expected);
    }
    ck_assert_msg(good && sent_code == code, "close %u '%s' expected, %u '%.*s' came", code, text,
                  sent_code, SLICE_ARG(sent));
}

struct amqp_method peer_expect_content(struct peer *peer, uint16_t channel, uint32_t id,
                                       const char *body)
{
    const struct amqp_method method = peer_expect(peer, channel, id);
    struct amqp_frame frame;
    struct amqp_content_header header;
    struct amqp_error error;
    struct buf got = BUF_EMPTY;

    ck_assert(peer_next(peer, &frame) && frame.type == AMQP_FRAME_HEADER);
    ck_assert(frame.channel == channel);
    ck_assert(amqp_content_header_decode(frame.payload, &header, &error));
    buf_clear(&peer->properties);
    buf_append(&peer->properties, header.properties);
    while (buf_size(&got) < header.body_size) {
        ck_assert_msg(peer_next(peer, &frame), "the body of %s is cut short", name_of(id));
        ck_assert(frame.type == AMQP_FRAME_BODY && frame.channel == channel);
        buf_append(&got, frame.payload);
    }
    ck_assert_msg(slice_equal(buf_slice(&got), slice_of_string(body)),
                  "body '%s' expected, '%.*s' came", body, SLICE_ARG(buf_slice(&got)));
    buf_release(&got);
    return method;
}

static void expect_no_frame(struct peer *peer)
{
    struct amqp_frame frame;
    if (peer_next(peer, &frame))
        ck_abort_msg("nothing expected, a frame came: type %u, %s", frame.type,
                     frame.payload.size < 4 ? "short" : name_of(amqp_get_u32(frame.payload.data)));
    ck_assert_uint_eq(0, buf_size(&peer->memory.received));
}

void peer_expect_nothing(struct peer *peer)
{
    expect_no_frame(peer);
    ck_assert_msg(!peer->memory.closed, "the broker has closed the socket");
}

void peer_expect_end(struct peer *peer)
{
    expect_no_frame(peer);
    ck_assert_msg(peer->memory.closed, "the broker has not closed the socket");
}
