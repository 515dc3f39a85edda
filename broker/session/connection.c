/* The life of one client's connection: its input cut into frames, its states, its timers, and its
 * end.
 *
 *     on_input ─▶ protocol header │ frame ─┬─ channel 0: connection_on_method (class_connection.c)
 *                                          ├─ an open channel: channel_on_frame
 *                                          └─ no such channel: channel_open
 *
 * Invariants:
 *   1. state changes in connection_move alone, along `legal_moves`.
 *   2. A *living* connection (up to OPEN) becomes an ending one in connection_wind_up alone:
 *      channels and exclusive queues are gone after it, it refers to no user, no limit on open
 *      connections counts it, and the log has its one line about the end. So it is in nobody's
 *      way: it sends nothing but close and close-ok, each once, holds no output but that and the
 *      rest of a frame (unless the broker ended it for reasons of its own), and goes at once when
 *      others need its place (access/address.h).
 *   3. The transport is paused exactly while the connection is held, choked or blocked. A client
 *      that hangs up is waited for no longer when that may take as long as others like: while its
 *      password is verified, and while it is blocked.
 *   4. held: either `parked` waits, with held_reply to be sent when it ends, or `attempt` is under
 *      way, or `spender` rests, or whoever called connection_hold knows why.
 *
 * The connection owns its transport, channels and exclusive queues. It is freed by its reap task,
 * after CLOSED. */
#include "session/connection.h"

#include "amqp/frame.h"
#include "base/alloc.h"
#include "session/channel.h"
#include "session/login.h"
#include "session/service.h"

enum {
    LINGER_MS = 3000, /* for our last word to be read (2.3), or none after a refusal (4.2.5) */
    CLOSE_WAIT_MAX_MS = 30000, /* for close-ok (4.5.2) */
    SPENDER_MS = 60000,        /* who has not overspent for so long is a spender no more */
    CHOKE_FACTOR = 4, /* times output_size_max, beside one message, is not taken by the peer */
};

static const struct transport_events events_of_spender; /* what it is told as one, see spenders.h */

#define TO(state) (1u << CONNECTION_##state)
static const uint32_t legal_moves[] = {
    [CONNECTION_AWAIT_HEADER] = TO(AWAIT_START_OK) | TO(CLOSED),
    [CONNECTION_AWAIT_START_OK] = TO(AWAIT_TUNE_OK) | TO(AWAIT_CLOSE_OK) | TO(LINGER) | TO(CLOSED),
    [CONNECTION_AWAIT_TUNE_OK] = TO(AWAIT_OPEN) | TO(AWAIT_CLOSE_OK) | TO(LINGER) | TO(CLOSED),
    [CONNECTION_AWAIT_OPEN] = TO(OPEN) | TO(AWAIT_CLOSE_OK) | TO(LINGER) | TO(CLOSED),
    [CONNECTION_OPEN] = TO(AWAIT_CLOSE_OK) | TO(LINGER) | TO(CLOSED),
    [CONNECTION_AWAIT_CLOSE_OK] = TO(LINGER) | TO(CLOSED),
    [CONNECTION_LINGER] = TO(CLOSED),
    [CONNECTION_CLOSED] = 0,
};

void connection_move(struct connection *connection, enum connection_state state)
{
    assert(legal_moves[connection->state] & (1u << state));
    connection->state = state;
}

static bool is_living(const struct connection *connection)
{
    return connection->state <= CONNECTION_OPEN;
}

static void set_timer(struct connection *connection, uint64_t from_now_ms)
{
    timer_set(&connection->broker->loop->timers, &connection->timer,
              connection->broker->clock->now_ms + from_now_ms);
}

/* ---- the end ---- */

const char *connection_label(const struct connection *connection, char label[CONNECTION_LABEL_SIZE])
{
    const bool named = connection->client_name != NULL;
    const int size = snprintf(label, CONNECTION_LABEL_SIZE, "%s%s%.255s", connection->name,
                              named ? " - " : "", named ? connection->client_name : "");
    if (connection->vhost != NULL)
        snprintf(label + size, CONNECTION_LABEL_SIZE - (size_t)size, " (vhost: '%.*s', user: '%s')",
                 SLICE_ARG(connection->vhost->name), connection->user_name);
    return label;
}

static void log_end(const struct connection *connection, enum log_level level, const char *reason)
{
    char label[CONNECTION_LABEL_SIZE];
    log_at(level, "closing AMQP connection %s%s%s", connection_label(connection, label),
           reason == NULL ? "" : ": ", reason == NULL ? "" : reason);
}

static void free_channels(struct connection *connection)
{
    struct map_link *link = map_next(&connection->channels, NULL);

    while (link != NULL) {
        struct channel *channel = container_of(link, struct channel, by_number);
        link = map_next(&connection->channels, link);
        channel_free(&channel);
    }
    assert(connection->channel_count == 0);
}

void connection_wind_up(struct connection *connection, enum log_level level, const char *reason)
{
    assert(is_living(connection));
    log_end(connection, level, reason);
    parking_cancel(&connection->parked);
    authenticator_cancel(&connection->attempt);
    spenders_remove(&connection->service->spenders, &connection->spender);
    buf_release(&connection->held_reply);
    free_channels(connection);
    queue_owner_release(&connection->owned);
    timer_cancel(&connection->heartbeat_timer);
    if (connection->state == CONNECTION_OPEN) {
        connection->user->connection_count--;
        connection->vhost->connection_count--;
        connection->service->open_count--;
        visitor_end(&connection->visitor);
    }
    connection->user = NULL;
    connection->asker.grant = NULL;

    connection->held = connection->choked = connection->blocked = false;
    transport_resume(&connection->transport);
    service_look_at_room(connection->service);
}

static void connection_free(struct connection *connection)
{
    struct service *service = connection->service;

    TAILQ_REMOVE(&service->connections, connection, link);
    connection->broker->counters.connections_closed++;
    map_release(&connection->channels);
    if (connection->vhost != NULL)
        vhost_unref(&connection->vhost);
    buf_release(&connection->client_properties);
    free(connection->client_name);
    free(connection);
    service_on_gone(service);
}

static void on_reap(struct task *task)
{
    connection_free(container_of(task, struct connection, reap));
}

/* Its socket is closed, or was never had. */
static void leave_service(struct connection *connection)
{
    visitor_leave(&connection->visitor);
    connection->service->closed_count++;
    service_look_at_room(connection->service);
}

/* From any state but CLOSED; a living connection has been wound up. */
static void connection_close(struct connection *connection)
{
    connection_move(connection, CONNECTION_CLOSED);
    timer_cancel(&connection->timer);
    transport_close(&connection->transport);
    leave_service(connection);
    loop_queue(connection->broker->loop, LOOP_REAP, &connection->reap);
}

void connection_drop(struct connection *connection, const char *reason)
{
    if (connection->state == CONNECTION_CLOSED)
        return;
    if (is_living(connection))
        connection_wind_up(connection, LOG_ERROR, reason);
    connection_close(connection);
}

void connection_linger(struct connection *connection)
{
    connection_move(connection, CONNECTION_LINGER);
    set_timer(connection, LINGER_MS);
}

void connection_send_last(struct connection *connection, const struct amqp_method *method)
{
    transport_cut_output(&connection->transport);
    connection_send(connection, 0, method);
}

/* Who is sent away for no mistake of his gets what he was to be sent before. */
static void send_close(struct connection *connection, const struct amqp_error *error)
{
    const struct amqp_method close = {.id = AMQP_CONNECTION_CLOSE,
                                      .connection_close = {
                                          .reply_code = error->code,
                                          .reply_text = slice_of_string(error->text),
                                          .class_id = error->class_id,
                                          .method_id = error->method_id,
                                      }};
    if (error->code == AMQP_CONNECTION_FORCED)
        connection_send(connection, 0, &close);
    else
        connection_send_last(connection, &close);
}

/* How long close-ok may take: the heartbeat or 30 s, whichever is less; a client in its handshake
 * has proved nothing yet. */
static uint64_t close_wait_ms(const struct connection *connection)
{
    if (connection->state != CONNECTION_OPEN)
        return LINGER_MS;
    const uint64_t heartbeat_ms = (uint64_t)connection->heartbeat_s * 1000;
    return heartbeat_ms == 0 ? CLOSE_WAIT_MAX_MS : min_of(heartbeat_ms, CLOSE_WAIT_MAX_MS);
}

void connection_fail(struct connection *connection, const struct amqp_error *error,
                     const char *reason)
{
    if (!is_living(connection))
        return;
    const uint64_t wait_ms = close_wait_ms(connection);
    connection_wind_up(connection, error->code == AMQP_CONNECTION_FORCED ? LOG_WARNING : LOG_ERROR,
                       reason == NULL ? error->text : reason);
    send_close(connection, error);
    connection_move(connection, CONNECTION_AWAIT_CLOSE_OK);
    set_timer(connection, wait_ms);
}

/* What follows in the input cannot be told into frames any more (2.3). */
static void fail_stream(struct connection *connection, const struct amqp_error *error)
{
    if (is_living(connection)) {
        connection_wind_up(connection, LOG_ERROR, error->text);
        send_close(connection, error);
    }
    connection_linger(connection);
}

void connection_force_close(struct connection *connection, const char *text)
{
    if (connection->state == CONNECTION_AWAIT_HEADER) {
        connection_drop(connection, text);
        return;
    }
    struct amqp_error error = {0};
    amqp_fail(&error, AMQP_CONNECTION_FORCED, "%s", text);
    connection_fail(connection, &error, NULL);
}

/* The handshake took too long; or the peer has had its time to answer our close, or to read our
 * last word. */
static void on_timer(struct timer *timer)
{
    struct connection *connection = container_of(timer, struct connection, timer);

    connection_drop(connection, "handshake timeout"); /* 1.4; the reason is for the living */
}

static void on_broken(struct transport *transport, int error)
{
    struct connection *connection = container_of(transport, struct connection, transport);

    if (is_living(connection)) {
        const bool reset = error == 0 || error == ECONNRESET || error == EPIPE;
        connection_wind_up(connection, connection->noticed ? LOG_WARNING : LOG_DEBUG,
                           reset ? "client unexpectedly closed TCP connection" : strerror(error));
    }
    connection_close(connection);
}

/* ---- output, and waiting for the store ---- */

/* Frames are counted here, though some wait before they leave. */
static void put_method(struct connection *connection, struct buf *out, uint16_t channel,
                       const struct amqp_method *method)
{
    amqp_method_encode(out, channel, method);
    connection->frames_out++;
}

void connection_send(struct connection *connection, uint16_t channel,
                     const struct amqp_method *method)
{
    put_method(connection, transport_output(&connection->transport), channel, method);
}

static bool is_paused(const struct connection *connection)
{
    return connection->held || connection->choked || connection->blocked;
}

static void update_reading(struct connection *connection)
{
    if (is_paused(connection)) {
        transport_pause(&connection->transport, connection->attempt != NULL || connection->blocked);
        return;
    }
    connection->listening_ms = connection->broker->clock->now_ms;
    transport_resume(&connection->transport);
}

void connection_hold(struct connection *connection)
{
    assert(!connection->held && is_living(connection));
    connection->held = true;
    update_reading(connection);
}

void connection_unhold(struct connection *connection)
{
    assert(connection->held && !parked_waits(&connection->parked));
    connection->held = false;
    update_reading(connection);
}

static void on_durable(struct parked *parked)
{
    struct connection *connection = container_of(parked, struct connection, parked);

    if (buf_size(&connection->held_reply) > 0) {
        buf_append(transport_output(&connection->transport), buf_slice(&connection->held_reply));
        buf_release(&connection->held_reply);
    }
    connection_unhold(connection);
}

void connection_send_behind_held(struct connection *connection, uint16_t channel,
                                 const struct amqp_method *method)
{
    if (buf_size(&connection->held_reply) == 0) {
        connection_send(connection, channel, method);
        return;
    }
    put_method(connection, &connection->held_reply, channel, method);
}

static void hold_until(struct connection *connection, uint64_t lsn, bool entries)
{
    connection_hold(connection);
    connection->parked.entries = entries;
    parking_wait(&connection->broker->parking, &connection->parked, lsn);
}

void connection_send_durable(struct connection *connection, uint16_t channel,
                             const struct amqp_method *method, uint64_t lsn, bool entries)
{
    const struct parking *parking = &connection->broker->parking;

    if (lsn <= (entries ? parking->durable_entries : parking->durable)) {
        connection_send(connection, channel, method);
        return;
    }
    put_method(connection, &connection->held_reply, channel, method);
    hold_until(connection, lsn, entries);
}

static void rest(struct connection *connection)
{
    connection_hold(connection);
    spenders_rest(&connection->service->spenders, &connection->spender);
}

static __attribute__((noinline)) void become_spender(struct connection *connection)
{
    connection->transport.events = &events_of_spender;
    connection->overspent_ms = connection->broker->clock->now_ms;
    if (!connection->held)
        rest(connection);
}

void connection_share_turn(struct connection *connection)
{
    if (unlikely(broker_has_overspent(connection->broker)))
        become_spender(connection);
}

void connection_pace(struct connection *connection)
{
    struct broker *broker = connection->broker;

    if (unlikely(broker_store_is_full(broker)) && store_is_busy(broker->store) && !connection->held)
        hold_until(connection, broker->parking.durable + 1, false);
    if (paging_lags(&broker->paging) && !connection->held) {
        connection_hold(connection);
        paging_await_write(&broker->paging, &connection->parked);
    }
    connection_share_turn(connection);
}

void connection_await_letters(struct connection *connection)
{
    if (connection->held)
        return;
    connection_hold(connection);
    dead_letters_await(connection->broker, &connection->parked);
}

void connection_pace_given(struct connection *connection, uint64_t given)
{
    if (connection->broker->counters.given == given)
        return;
    if (alarm_is_on(&connection->service->alarm))
        connection_block(connection);
    connection_pace(connection);
}

bool connection_reserve(struct connection *connection, uint64_t size, struct amqp_error *error)
{
    const uint64_t max = connection->service->limits.publish_size_max;

    if (max != 0 && connection->publish_size > 0 &&
        size > max - min_of(max, connection->publish_size))
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "messages that this connection has begun to publish, or holds in "
                         "transactions, would have %" PRIu64 " octets, the maximum is %" PRIu64
                         " (publish_memory_limit)",
                         connection->publish_size + size, max);
    connection->publish_size += size;
    return true;
}

void connection_unreserve(struct connection *connection, uint64_t size)
{
    assert(size <= connection->publish_size);
    connection->publish_size -= size;
}

static void wake_consumers(struct connection *connection)
{
    map_each (&connection->channels, link)
        channel_wake_consumers(container_of(link, struct channel, by_number));
}

/* For the log: of whom the limit is, and when. */
static const char *why_so_little(const struct service *service, uint64_t limit)
{
    if (service->alarm.critical)
        return "while memory is critical ";
    return limit < service->unacked_size_max
               ? "for consumers without a prefetch, while memory is low, "
               : "";
}

void connection_await_acks(struct connection *connection, uint64_t limit)
{
    char label[CONNECTION_LABEL_SIZE];

    connection->laden_at = max_of(connection->laden_at, limit);
    if (!connection->told_laden)
        log_warning("AMQP connection %s has not acknowledged messages of %" PRIu64
                    " octets, and is given no more until it does: the maximum %sis %" PRIu64
                    " (unacked_memory_limit)",
                    connection_label(connection, label), connection->unacked_size,
                    why_so_little(connection->service, limit), limit);
    connection->told_laden = true;
}

void connection_on_limits(struct connection *connection)
{
    if (connection->laden_at == 0 && transport_output_size(&connection->transport) == 0)
        return;
    connection->laden_at = 0;
    wake_consumers(connection);
}

/* With some distance to the limit, so that not every acknowledgement wakes everybody. */
void connection_lighten(struct connection *connection)
{
    if (connection->laden_at == 0 || connection->unacked_size > connection->laden_at / 8 * 7)
        return;
    connection->laden_at = 0;
    wake_consumers(connection);
}

/* ---- alarms ---- */

bool connection_awaits_confirms(struct connection *connection)
{
    map_each (&connection->channels, link) {
        const struct channel *channel = container_of(link, struct channel, by_number);
        if (channel->confirms != NULL && confirms_waiting(channel->confirms) > 0)
            return true;
    }
    return false;
}

/* Told once, however many alarms come and go before the last has cleared (4.6.2). */
void connection_block(struct connection *connection)
{
    assert(!connection->blocked);
    connection->blocked = true;
    update_reading(connection);
    if (connection->can_blocked)
        connection_send(connection, 0,
                        &(struct amqp_method){.id = AMQP_CONNECTION_BLOCKED,
                                              .connection_blocked.reason = slice_of_string(
                                                  alarm_reason(&connection->service->alarm))});
}

void connection_unblock(struct connection *connection)
{
    if (!connection->blocked)
        return;
    connection->blocked = false;
    if (connection->can_blocked)
        connection_send(connection, 0, &(struct amqp_method){.id = AMQP_CONNECTION_UNBLOCKED});
    update_reading(connection);
}

static const char *open_state_name(const struct connection *connection)
{
    const bool awaits_store =
        parked_waits(&connection->parked) && buf_size(&connection->held_reply) == 0;

    if (connection->blocked)
        return "blocked";
    if (alarm_is_on(&connection->service->alarm))
        return "blocking";
    return connection->choked || awaits_store ? "flow" : "running";
}

const char *connection_state_name(const struct connection *connection)
{
    static const char *const names[] = {
        [CONNECTION_AWAIT_HEADER] = "starting",  [CONNECTION_AWAIT_START_OK] = "starting",
        [CONNECTION_AWAIT_TUNE_OK] = "tuning",   [CONNECTION_AWAIT_OPEN] = "opening",
        [CONNECTION_AWAIT_CLOSE_OK] = "closing", [CONNECTION_LINGER] = "closing",
        [CONNECTION_CLOSED] = "closed",
    };

    return connection->state == CONNECTION_OPEN ? open_state_name(connection)
                                                : names[connection->state];
}

/* ---- the peer does not read ---- */

bool connection_is_flooded(const struct connection *connection)
{
    const struct service_limits *limits = &connection->service->limits;
    const size_t size = connection->transport.chunks_size,
                 max = CHOKE_FACTOR * limits->output_size_max;

    return size > max && size - max > limits->message_size_max;
}

static void on_drained(struct transport *transport)
{
    struct connection *connection = container_of(transport, struct connection, transport);

    if (connection->choked) {
        connection->choked = false;
        update_reading(connection);
    }
    wake_consumers(connection);
}

/* ---- heartbeats ---- */

/* When a choked peer has last taken an octet, as far as that is known: the carrier has had room for
 * more (write_ms), or holds less than at the last look. A slow reader is not heard of by the former
 * for minutes. The first look is at nothing known and counts as a change. */
static uint64_t last_taken_ms(struct connection *connection)
{
    const size_t untaken_size = transport_untaken_size(&connection->transport);

    if (untaken_size != connection->untaken_size)
        connection->taken_ms = connection->broker->clock->now_ms;
    connection->untaken_size = untaken_size;
    return max_of(connection->taken_ms, connection->transport.write_ms);
}

/* When its peer has last shown that it lives: by an octet (4.3.4), or, when it is not heard because
 * it does not read, by one that it took. UINT64_MAX: that it is not heard is none of its doing
 * (4.3.5). */
static uint64_t last_life_ms(struct connection *connection)
{
    const uint64_t heard_ms = max_of(connection->transport.read_ms, connection->listening_ms);

    if (connection->choked)
        return max_of(heard_ms, last_taken_ms(connection));
    return is_paused(connection) ? UINT64_MAX : heard_ms;
}

/* One timer for both directions, moved only when it expires: traffic costs it nothing. */
static void on_heartbeat_timer(struct timer *timer)
{
    struct connection *connection = container_of(timer, struct connection, heartbeat_timer);
    struct transport *transport = &connection->transport;
    const uint64_t now_ms = connection->broker->clock->now_ms;
    const uint64_t interval_ms = (uint64_t)connection->heartbeat_s * 1000;

    const uint64_t life_ms = last_life_ms(connection);
    if (life_ms != UINT64_MAX && now_ms - life_ms >= 2 * interval_ms) { /* 4.3.5 */
        char reason[64];
        snprintf(reason, sizeof(reason), "missed heartbeats from client, timeout: %us",
                 connection->heartbeat_s);
        connection_drop(connection, reason);
        return;
    }

    uint64_t send_ms = max_of(transport->write_ms, connection->connected_ms) + interval_ms / 2;
    if (send_ms <= now_ms) {
        if (transport_output_size(transport) == 0) {
            amqp_write_heartbeat(transport_output(transport));
            connection->frames_out++;
        }
        send_ms = now_ms + interval_ms / 2;
    }
    const uint64_t dead_ms = life_ms == UINT64_MAX ? send_ms : life_ms + 2 * interval_ms;
    timer_set(&connection->broker->loop->timers, timer, min_of(send_ms, dead_ms));
}

void connection_start_heartbeats(struct connection *connection)
{
    connection->listening_ms = connection->broker->clock->now_ms;
    if (connection->heartbeat_s > 0)
        timer_set(&connection->broker->loop->timers, &connection->heartbeat_timer,
                  connection->listening_ms + (uint64_t)connection->heartbeat_s * 500);
}

/* ---- input ---- */

bool connection_decode(const struct amqp_frame *frame, struct amqp_method *method,
                       struct amqp_error *error)
{
    if (unlikely(frame->type != AMQP_FRAME_METHOD))
        return amqp_fail(error, AMQP_UNEXPECTED_FRAME,
                         "expected method frame, got non method frame instead");
    if (unlikely(!amqp_method_decode(frame->payload, method, error)))
        return false;
    error->class_id = amqp_class_of(method->id);
    error->method_id = amqp_method_of(method->id);
    return true;
}

static bool on_method_frame(struct connection *connection, const struct amqp_frame *frame,
                            struct amqp_error *error)
{
    struct amqp_method method;

    return connection_decode(frame, &method, error) &&
           connection_on_method(connection, &method, error);
}

static bool on_channel_frame(struct connection *connection, const struct amqp_frame *frame,
                             struct amqp_error *error)
{
    struct channel *channel = connection->last_channel;
    if (likely(channel != NULL && channel->number == frame->channel))
        return channel_on_frame(channel, frame, error);

    if (connection->state != CONNECTION_OPEN)
        return amqp_fail(error, AMQP_UNEXPECTED_FRAME,
                         "frame of type %u on channel %u before connection.open-ok", frame->type,
                         frame->channel);
    struct map_link *link = map_find_id(&connection->channels, frame->channel);
    if (link == NULL)
        return channel_open(connection, frame, error);
    connection->last_channel = container_of(link, struct channel, by_number);
    return channel_on_frame(connection->last_channel, frame, error);
}

/* After our close: everything is ignored but close-ok, and close, which is answered (4.5.2): once,
 * as there may be any number of them. */
static void on_frame_while_closing(struct connection *connection, const struct amqp_frame *frame)
{
    if (frame->channel != 0 || frame->type != AMQP_FRAME_METHOD || frame->payload.size < 4)
        return;
    switch (amqp_get_u32(frame->payload.data)) {
    case AMQP_CONNECTION_CLOSE:
        if (!connection->answered_close)
            connection_send(connection, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
        connection->answered_close = true;
        break;
    case AMQP_CONNECTION_CLOSE_OK:
        connection_close(connection);
        break;
    }
}

static void on_frame(struct connection *connection, const struct amqp_frame *frame)
{
    connection->frames_in++;
    if (unlikely(connection->state == CONNECTION_AWAIT_CLOSE_OK)) {
        on_frame_while_closing(connection, frame);
        return;
    }

    bool good = true;
    struct amqp_error error;
    error.class_id = error.method_id = 0;
    if (likely(frame->channel != 0))
        good = on_channel_frame(connection, frame, &error);
    else if (frame->type != AMQP_FRAME_HEARTBEAT)
        good = on_method_frame(connection, frame, &error);
    if (unlikely(!good))
        connection_fail(connection, &error, NULL);
}

static bool is_reading(const struct connection *connection)
{
    return !is_paused(connection) && connection->state <= CONNECTION_AWAIT_CLOSE_OK;
}

/* The frames at the start of input; returns how many octets they have. */
static size_t on_frames(struct connection *connection, struct slice input)
{
    const uint8_t *const start = input.data;

    while (is_reading(connection)) {
        struct amqp_frame frame;
        struct amqp_error error;
        size_t used = 0;
        const enum amqp_parse parse =
            amqp_frame_parse(input, connection->frame_size_max, &frame, &used, &error);
        if (parse == AMQP_PARSE_MORE)
            break;
        if (unlikely(parse == AMQP_PARSE_BAD)) {
            fail_stream(connection, &error);
            break;
        }
        input.data += used;
        input.size -= used;
        on_frame(connection, &frame);
        if (unlikely(connection_is_flooded(connection))) {
            connection->choked = true;
            update_reading(connection);
        }
    }
    return (size_t)(input.data - start);
}

static void send_start(struct connection *connection)
{
    char mechanisms[LOGIN_NAMES_SIZE];

    login_offer(connection, mechanisms);
    connection_send(connection, 0,
                    &(struct amqp_method){
                        .id = AMQP_CONNECTION_START,
                        .connection_start = {
                            .major = 0,
                            .minor = 9,
                            .server_properties = buf_slice(&connection->service->server_properties),
                            .mechanisms = slice_of_string(mechanisms),
                            .locales = SLICE("en_US"),
                        }});
}

/* The eight octets that come first (1.2). */
static void on_protocol_header(struct connection *connection, const uint8_t *octets)
{
    static const char *const mistakes[] = {
        [AMQP_PROTOCOL_OTHER] = "unsupported protocol version",
        [AMQP_PROTOCOL_HTTP] = "bad header: is an HTTP client connecting to the AMQP port?",
        [AMQP_PROTOCOL_TLS] = "bad header: is a TLS client connecting to a plain port?",
        [AMQP_PROTOCOL_UNKNOWN] = "bad header: not an AMQP client",
    };
    const enum amqp_protocol protocol = amqp_protocol_parse(octets);
    if (protocol == AMQP_PROTOCOL_0_9_1) {
        send_start(connection);
        connection_move(connection, CONNECTION_AWAIT_START_OK);
        return;
    }
    buf_append(transport_output(&connection->transport), amqp_protocol_header);
    connection_drop(connection, mistakes[protocol]);
}

static size_t connection_on_input(struct transport *transport, struct slice bytes)
{
    struct connection *connection = container_of(transport, struct connection, transport);

    size_t taken = 0;
    if (unlikely(connection->state == CONNECTION_AWAIT_HEADER)) {
        if (!connection->noticed)
            log_info("accepting AMQP connection %s", connection->name);
        connection->noticed = true;
        if (bytes.size < AMQP_PROTOCOL_HEADER_SIZE)
            return 0;
        on_protocol_header(connection, bytes.data);
        taken = AMQP_PROTOCOL_HEADER_SIZE;
    }
    taken += on_frames(connection, slice_of(bytes.data + taken, bytes.size - taken));
    return connection->state < CONNECTION_LINGER ? taken : bytes.size;
}

static const struct transport_events events = {
    .on_input = connection_on_input,
    .on_drained = on_drained,
    .on_broken = on_broken,
};

/* ---- turns: see spenders.h ---- */

static size_t on_input_of_spender(struct transport *transport, struct slice bytes)
{
    struct connection *connection = container_of(transport, struct connection, transport);

    if (connection->broker->clock->now_ms - connection->overspent_ms >= SPENDER_MS)
        transport->events = &events;
    if (transport->events == &events || !is_living(connection) ||
        !spenders_must_wait(&connection->service->spenders))
        return connection_on_input(transport, bytes);
    rest(connection);
    return 0;
}

static const struct transport_events events_of_spender = {
    .on_input = on_input_of_spender,
    .on_drained = on_drained,
    .on_broken = on_broken,
};

/* What it has sent is looked at as anybody's, whoever rests behind it. */
static void on_turn(struct spender *spender)
{
    struct connection *connection = container_of(spender, struct connection, spender);

    connection->transport.events = &events;
    connection_unhold(connection);
    transport_hurry(&connection->transport);
    connection->transport.events = &events_of_spender;
}

/* ---- the beginning ---- */

/* "127.0.0.1:52771 -> 127.0.0.1:5672", "[::1]:52771 -> [::1]:5672" */
static void print_name(struct connection *connection)
{
    struct buf text = BUF_EMPTY;
    const struct endpoint *ends[] = {&connection->peer, &connection->local};
    for (size_t i = 0; i < countof(ends); i++)
        buf_printf(&text, strchr(ends[i]->host, ':') != NULL ? "%s[%s]:%u" : "%s%s:%u",
                   i == 0 ? "" : " -> ", ends[i]->host, ends[i]->port);
    snprintf(connection->name, sizeof(connection->name), "%.*s", SLICE_ARG(buf_slice(&text)));
    buf_release(&text);
}

struct connection *connection_new(struct service *service, const struct endpoint *local,
                                  const struct endpoint *peer)
{
    struct connection *connection = xcalloc(1, sizeof(*connection));
    connection->service = service;
    connection->broker = service->broker;
    connection->id = ++service->next_connection_id;
    connection->state = CONNECTION_AWAIT_HEADER;
    connection->local = *local;
    connection->peer = *peer;
    print_name(connection);
    connection->frame_size_max = service->limits.initial_frame_size_max;
    visitor_enter(&connection->visitor, &service->addresses, peer);
    queue_owner_init(&connection->owned);
    connection->asker.owner = &connection->owned;
    connection->parked.on_durable = on_durable;
    connection->timer.on_expire = on_timer;
    connection->heartbeat_timer.on_expire = on_heartbeat_timer;
    connection->reap.run = on_reap;
    connection->spender.on_turn = on_turn;
    connection->connected_ms = connection->broker->clock->now_ms;
    connection->connected_wall_ms = connection->broker->clock->wall_ms;

    TAILQ_INSERT_TAIL(&service->connections, connection, link);
    service->connection_count++;
    service->connection_most = max_of(service->connection_most, service->connection_count);
    connection->broker->counters.connections_opened++;
    return connection;
}

/* Somebody of whom we know no more than where he comes from. */
static void begin(struct connection *connection)
{
    const struct service_limits *limits = &connection->service->limits;
    const struct address *address = connection->visitor.address;

    set_timer(connection, limits->handshake_timeout_ms);
    transport_set_share(&connection->transport,
                        limits->initial_frame_size_max + AMQP_FRAME_OVERHEAD);
    if (limits->handshake_max_per_address != 0 &&
        address->handshake_count > limits->handshake_max_per_address)
        connection_drop(
            container_of(TAILQ_FIRST(&address->handshakes), struct connection, visitor),
            "too many others from its address have connected since, and its handshake has not "
            "ended (handshake_max_per_address)");
}

int connection_open_socket(struct connection *connection, int fd, struct tls_context *tls)
{
    struct transport *transport = &connection->transport;
    const int result = tls == NULL
                           ? transport_open_socket(transport, connection->broker->loop, &events, fd)
                           : tls_transport_open(transport, tls, &events, fd, &connection->peer,
                                                &connection->visitor.address->tls_handshakes);
    if (result < 0) {
        leave_service(connection);
        connection_free(connection);
        return result;
    }
    begin(connection);
    return 0;
}

void connection_open(struct connection *connection, const struct transport_ops *ops)
{
    transport_open(&connection->transport, connection->broker->loop, &events, ops);
    begin(connection);
}

void connection_remove_channel(struct connection *connection, struct channel *channel)
{
    map_remove(&connection->channels, &channel->by_number);
    connection->channel_count--;
    if (connection->last_channel == channel)
        connection->last_channel = NULL;
}
