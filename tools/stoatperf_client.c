/* See the header. In the blocking part replies are looked for with amqp_frame_parse in `in`;
 * afterwards `in` holds only what the stream could not use yet. */
#include "tools/stoatperf_client.h"

#include <sys/epoll.h>

#include "amqp/client.h"
#include "amqp/frame.h"
#include "amqp/table.h"
#include "base/clock.h"

enum { FRAME_MAX_WANTED = 131072, CALL_TIMEOUT_S = 30, CLOSE_TIMEOUT_S = 2 };

bool client_send_all(struct client *client)
{
    while (buf_size(&client->out) > 0) {
        const struct slice out = buf_slice(&client->out);
        const ssize_t sent = socket_send(&client->socket, out.data, out.size);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return failure_set(client->failure, "cannot write to the broker: %s", socket_error());
        buf_consume(&client->out, (size_t)sent);
    }
    return true;
}

static bool receive_failed(struct client *client, ssize_t received)
{
    if (received == 0)
        return failure_set(client->failure, "the broker closed the connection without a reason");
    if (errno == EAGAIN)
        return failure_set(client->failure, "no answer from the broker for %d s", CALL_TIMEOUT_S);
    return failure_set(client->failure, "cannot read from the broker: %s", socket_error());
}

/* Blocking: more into `in`. */
static bool receive_more(struct client *client)
{
    enum { PIECE = 16 * 1024 };
    uint8_t *const room = buf_reserve(&client->in, PIECE);
    ssize_t received;
    do
        received = socket_receive(&client->socket, room, PIECE);
    while (received < 0 && errno == EINTR);
    if (received <= 0)
        return receive_failed(client, received);
    buf_commit(&client->in, (size_t)received);
    return true;
}

/* Blocking: the next method, *used octets long with its frame. */
static bool next_method(struct client *client, struct amqp_method *method, size_t *used)
{
    struct amqp_error error;
    struct amqp_frame frame = {0};
    for (;;) {
        const struct slice in = buf_slice(&client->in);
        if (in.size >= 4 && memcmp(in.data, "AMQP", 4) == 0)
            return failure_set(client->failure, "the broker does not speak AMQP 0-9-1");
        switch (amqp_frame_parse(in, client->frame_max, &frame, used, &error)) {
        case AMQP_PARSE_MORE:
            if (!receive_more(client))
                return false;
            break;
        case AMQP_PARSE_BAD:
            return failure_set(client->failure, "not understood: %s", error.text);
        case AMQP_PARSE_OK:
            if (frame.type == AMQP_FRAME_METHOD)
                return amqp_method_decode(frame.payload, method, &error) ||
                       failure_set(client->failure, "not understood: %s", error.text);
            buf_consume(&client->in, *used);
        }
    }
}

/* Waits for the method called id, passing by what may be ignored. What it borrows lives in `in`,
 * which is consumed by the next call. */
static bool await_method(struct client *client, uint32_t id, struct amqp_method *method)
{
    for (;;) {
        size_t used;
        if (!next_method(client, method, &used))
            return false;
        buf_consume(&client->in, used);
        if (method->id == id)
            return true;
        if (!client_on_method(client, method))
            return false;
    }
}

static void copy_property(struct slice properties, const char *key, char *text, size_t size)
{
    struct amqp_value value;
    struct slice string = {0};
    if (amqp_table_find(properties, slice_of_string(key), &value))
        amqp_value_string(&value, &string);
    snprintf(text, size, "%.*s", SLICE_ARG(string));
}

/* StoatMQ names itself RabbitMQ for the sake of clients that look, and says who it is beside
 * that. */
static void identify(struct broker_identity *identity, struct slice properties)
{
    copy_property(properties, "product", identity->product, sizeof(identity->product));
    copy_property(properties, "version", identity->version, sizeof(identity->version));
    copy_property(properties, "platform", identity->platform, sizeof(identity->platform));

    char stoatmq[sizeof(identity->version)];
    copy_property(properties, "stoatmq_version", stoatmq, sizeof(stoatmq));
    if (stoatmq[0] != '\0') {
        snprintf(identity->product, sizeof(identity->product), "StoatMQ");
        snprintf(identity->version, sizeof(identity->version), "%s", stoatmq);
    }
}

static uint32_t lesser_limit(uint32_t ours, uint32_t theirs) /* theirs: 0 is none */
{
    return theirs == 0 || theirs > ours ? ours : theirs;
}

static bool handshake(struct client *client, const struct uri *uri, const char *name,
                      struct broker_identity *identity)
{
    struct amqp_method method;
    amqp_client_protocol_header(&client->out);
    if (!client_send_all(client) || !await_method(client, AMQP_CONNECTION_START, &method))
        return false;
    if (identity != NULL)
        identify(identity, method.connection_start.server_properties);

    amqp_client_start_ok(&client->out, slice_of_string(uri->user), slice_of_string(uri->password),
                         slice_of_string(name));
    if (!client_send_all(client) || !await_method(client, AMQP_CONNECTION_TUNE, &method))
        return false;

    client->frame_max = lesser_limit(FRAME_MAX_WANTED, method.connection_tune.frame_max);
    amqp_client_tune_ok(&client->out,
                        (uint16_t)lesser_limit(16, method.connection_tune.channel_max),
                        client->frame_max, 0);
    amqp_client_open(&client->out, slice_of_string(uri->vhost));
    return client_send_all(client) && await_method(client, AMQP_CONNECTION_OPEN_OK, &method);
}

bool client_open(struct client *client, const struct options *options, const char *name,
                 struct failure *failure, struct broker_identity *identity)
{
    const struct uri *const uri = &options->uri;
    *client = (struct client){.frame_max = FRAME_MAX_WANTED, .failure = failure};
    struct amqp_method answer;
    return socket_open(&client->socket, uri->host, uri->port, CALL_TIMEOUT_S, failure) &&
           (!uri->tls || socket_encrypt(&client->socket, uri->host, options->ca_file,
                                        options->insecure, failure)) &&
           handshake(client, uri, name, identity) &&
           client_call(client, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK,
                       &answer);
}

bool client_call(struct client *client, const struct amqp_method *method, uint32_t reply,
                 struct amqp_method *answer)
{
    amqp_method_encode(&client->out, CLIENT_CHANNEL, method);
    return client_send_all(client) && await_method(client, reply, answer);
}

bool client_attach(struct client *client, int epoll, const struct stream_events *events,
                   void *owner, void (*on_ready)(struct client *client, uint32_t events))
{
    assert(buf_size(&client->in) == 0);
    stream_init(&client->stream, events, owner);
    client->epoll = epoll;
    client->events = EPOLLIN;
    client->on_ready = on_ready;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    socket_set_blocking(&client->socket, false);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client->socket.fd, &event) < 0)
        return failure_set(client->failure, "cannot wait for a socket: %s", strerror(errno));
    return true;
}

static bool feed(struct client *client, struct slice input)
{
    struct amqp_error error;
    size_t used;
    switch (stream_feed(&client->stream, input, client->frame_max, &used, &error)) {
    case STREAM_BAD:
        return failure_set(client->failure, "not understood: %s", error.text);
    case STREAM_ENDED:
        return failure_set(client->failure, "the broker ended the connection");
    case STREAM_OK:
        break;
    }
    buf_clear(&client->in);
    buf_append(&client->in, slice_of(input.data + used, input.size - used));
    return true;
}

static bool read_once(struct client *client, uint8_t *scratch)
{
    const size_t kept = buf_size(&client->in);
    assert(kept < CLIENT_SCRATCH_SIZE);
    if (kept > 0)
        memcpy(scratch, buf_slice(&client->in).data, kept);
    const ssize_t received =
        socket_receive(&client->socket, scratch + kept, CLIENT_SCRATCH_SIZE - kept);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (received <= 0)
        return receive_failed(client, received);
    client->read_ns = clock_monotonic_ns();
    return feed(client, slice_of(scratch, kept + (size_t)received));
}

bool client_read(struct client *client, uint8_t *scratch)
{
    bool fine;
    do
        fine = read_once(client, scratch);
    while (fine && socket_has_more(&client->socket));
    return fine;
}

ssize_t client_write(struct client *client, const uint8_t *data, size_t size)
{
    const ssize_t sent = socket_send(&client->socket, data, size);
    if (sent >= 0)
        return sent;
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    failure_set(client->failure, "cannot write to the broker: %s", socket_error());
    return -1;
}

bool client_flush(struct client *client)
{
    const struct slice out = buf_slice(&client->out);
    if (out.size == 0)
        return true;
    const ssize_t sent = client_write(client, out.data, out.size);
    if (sent < 0)
        return false;
    buf_consume(&client->out, (size_t)sent);
    client_await_output(client, buf_size(&client->out) > 0);
    return true;
}

void client_await_output(struct client *client, bool await)
{
    const uint32_t events = EPOLLIN | (await ? (uint32_t)EPOLLOUT : 0);
    if (events == client->events)
        return;
    client->events = events;
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(client->epoll, EPOLL_CTL_MOD, client->socket.fd, &event) < 0)
        failure_set(client->failure, "cannot wait for a socket: %s", strerror(errno));
}

bool client_on_method(struct client *client, const struct amqp_method *method)
{
    const struct amqp_method_info *info;
    switch (method->id) {
    case AMQP_CONNECTION_CLOSE:
        return failure_set(client->failure, "the broker closed the connection: %u %.*s",
                           method->connection_close.reply_code,
                           SLICE_ARG(method->connection_close.reply_text));
    case AMQP_CHANNEL_CLOSE:
        return failure_set(client->failure, "the broker closed the channel: %u %.*s",
                           method->channel_close.reply_code,
                           SLICE_ARG(method->channel_close.reply_text));
    case AMQP_CONNECTION_BLOCKED:
        fprintf(stderr, "stoatperf: the broker blocks publishers: %.*s\n",
                SLICE_ARG(method->connection_blocked.reason));
        return true;
    case AMQP_CONNECTION_UNBLOCKED:
        fputs("stoatperf: the broker no longer blocks publishers\n", stderr);
        return true;
    case AMQP_BASIC_CANCEL:
        return failure_set(client->failure, "the broker cancelled a consumer: its queue is gone");
    default:
        info = amqp_method_info(method->id);
        return failure_set(client->failure, "the broker sent %s, which nobody asked for",
                           info->name);
    }
}

/* Throws away what comes until close-ok, which a stream of deliveries may precede. */
static void await_close_ok(struct client *client)
{
    static const uint8_t close_ok[] = {AMQP_FRAME_METHOD, 0, 0, 0, 0, 0, 4, 0, 10, 0, 51,
                                       AMQP_FRAME_END};
    static uint8_t scratch[CLIENT_SCRATCH_SIZE];
    const uint64_t until_ns = clock_monotonic_ns() + CLOSE_TIMEOUT_S * UINT64_C(1000000000);
    size_t kept = 0;
    while (clock_monotonic_ns() < until_ns) {
        const ssize_t received =
            socket_receive(&client->socket, scratch + kept, sizeof(scratch) - kept);
        if (received <= 0)
            return;
        const size_t size = kept + (size_t)received;
        if (size >= sizeof(close_ok) &&
            memcmp(scratch + size - sizeof(close_ok), close_ok, sizeof(close_ok)) == 0)
            return;
        kept = min_of(size, sizeof(close_ok) - 1);
        memmove(scratch, scratch + size - kept, kept);
    }
}

void client_close(struct client *client, struct slice rest)
{
    if (client->socket.fd < 0)
        return;
    struct failure ignored = {0};
    client->failure = &ignored;
    socket_set_blocking(&client->socket, true);
    socket_set_timeout(&client->socket, CLOSE_TIMEOUT_S);
    buf_append(&client->out, rest);
    amqp_method_encode(&client->out, 0,
                       &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE,
                                             .connection_close.reply_code = AMQP_REPLY_SUCCESS});
    if (client_send_all(client))
        await_close_ok(client);
    socket_close(&client->socket);
    client->failure = NULL;
    buf_release(&client->in);
    buf_release(&client->out);
}
