/* What stoatperf itself costs: it is run against a peer that is as fast as a socket can be. The
 * peer answers the handshake, throws publishes away unread, confirms nothing, and sends a consumer
 * one prebuilt delivery after the other without end. Printed is stoatperf's own report; "stoatperf
 * ... us of CPU a message" in it is the figure.
 *
 * The peer is this process, a thread per connection; stoatperf is started from the folder above
 * this program's. */
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "amqp/client.h"
#include "amqp/frame.h"
#include "amqp/method.h"
#include "amqp/properties.h"
#include "amqp/table.h"
#include "base/alloc.h"

enum { FRAME_MAX = 131072, CHANNEL = 1, BATCH_SIZE = 128 * 1024 };

struct peer {
    int fd;
    size_t body_size;
    struct buf in, out;
};

static const struct {
    uint32_t method, reply;
    uint16_t channel;
} replies[] = {
    {AMQP_CONNECTION_START_OK, AMQP_CONNECTION_TUNE, 0},
    {AMQP_CONNECTION_OPEN, AMQP_CONNECTION_OPEN_OK, 0},
    {AMQP_CONNECTION_CLOSE, AMQP_CONNECTION_CLOSE_OK, 0},
    {AMQP_CHANNEL_OPEN, AMQP_CHANNEL_OPEN_OK, CHANNEL},
    {AMQP_BASIC_QOS, AMQP_BASIC_QOS_OK, CHANNEL},
};

static bool send_all(int fd, struct slice bytes)
{
    while (bytes.size > 0) {
        const ssize_t sent = send(fd, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        bytes = slice_of(bytes.data + sent, bytes.size - (size_t)sent);
    }
    return true;
}

static bool reply(struct peer *peer, uint16_t channel, const struct amqp_method *method)
{
    amqp_method_encode(&peer->out, channel, method);
    const bool sent = send_all(peer->fd, buf_slice(&peer->out));
    buf_clear(&peer->out);
    return sent;
}

/* As many deliveries as one write takes, over and over. */
static void send_deliveries(struct peer *peer)
{
    const struct amqp_method method = {
        .id = AMQP_BASIC_DELIVER,
        .basic_deliver = {.consumer_tag = SLICE("0"),
                          .delivery_tag = 1,
                          .routing_key = SLICE("stoatperf-12345-0")}};
    const struct amqp_content_header header = {
        .class_id = 60, .body_size = peer->body_size, .properties = slice_of("\0", 2)};
    uint8_t *const body = xcalloc(peer->body_size, 1);
    do {
        amqp_method_encode(&peer->out, CHANNEL, &method);
        amqp_content_header_encode(&peer->out, CHANNEL, &header);
        const size_t frame = amqp_frame_begin(&peer->out, AMQP_FRAME_BODY, CHANNEL);
        buf_append(&peer->out, slice_of(body, peer->body_size));
        amqp_frame_end(&peer->out, frame);
    } while (buf_size(&peer->out) < BATCH_SIZE);
    free(body);
    while (send_all(peer->fd, buf_slice(&peer->out)))
        ;
}

/* Answers one method. False when the connection has nothing more to say. */
static bool answer(struct peer *peer, struct slice payload)
{
    struct amqp_method method;
    struct amqp_error error;
    if (!amqp_method_decode(payload, &method, &error))
        return false;
    for (size_t i = 0; i < countof(replies); i++)
        if (replies[i].method == method.id)
            return reply(peer, replies[i].channel, &(struct amqp_method){.id = replies[i].reply});
    if (method.id == AMQP_BASIC_CONSUME) {
        if (reply(peer, CHANNEL, &(struct amqp_method){.id = AMQP_BASIC_CONSUME_OK}))
            send_deliveries(peer);
        return false;
    }
    return method.id != AMQP_BASIC_PUBLISH;
}

/* Reads and answers until a publish has come or the connection is over. */
static void converse(struct peer *peer)
{
    struct amqp_frame frame = {0};
    struct amqp_error error;
    for (;;) {
        size_t used = 0;
        if (amqp_frame_parse(buf_slice(&peer->in), FRAME_MAX, &frame, &used, &error) ==
            AMQP_PARSE_OK) {
            if (frame.type == AMQP_FRAME_METHOD && !answer(peer, frame.payload))
                return;
            buf_consume(&peer->in, used);
            continue;
        }
        const ssize_t got = recv(peer->fd, buf_reserve(&peer->in, 4096), 4096, 0);
        if (got <= 0)
            return;
        buf_commit(&peer->in, (size_t)got);
    }
}

static void *serve(void *argument)
{
    static _Thread_local uint8_t waste[256 * 1024];
    struct peer *const peer = argument;
    uint8_t header[AMQP_PROTOCOL_HEADER_SIZE];
    struct buf properties = BUF_EMPTY;
    amqp_table_put_string(&properties, SLICE("product"), SLICE("a peer"));
    const struct amqp_method start = {.id = AMQP_CONNECTION_START,
                                      .connection_start = {
                                          .minor = 9,
                                          .server_properties = buf_slice(&properties),
                                          .mechanisms = SLICE("PLAIN"),
                                      }};
    if (recv(peer->fd, header, sizeof(header), MSG_WAITALL) == sizeof(header) &&
        reply(peer, 0, &start))
        converse(peer);
    buf_release(&properties);
    while (recv(peer->fd, waste, sizeof(waste), 0) > 0)
        ;
    close(peer->fd);
    buf_release(&peer->in);
    buf_release(&peer->out);
    free(peer);
    return NULL;
}

static int listener;
static size_t body_size;

static void *accept_all(void *argument)
{
    for (;;) {
        struct peer *const peer = xcalloc(1, sizeof(*peer));
        pthread_t thread;
        peer->fd = accept(listener, NULL, NULL);
        peer->body_size = body_size;
        if (peer->fd < 0 || pthread_create(&thread, NULL, serve, peer) != 0)
            abort();
        pthread_detach(thread);
    }
    return argument;
}

/* Listens on a free port of the loopback address and returns the port. */
static uint16_t listen_anywhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    pthread_t thread;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 16) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0 ||
        pthread_create(&thread, NULL, accept_all, NULL) != 0)
        abort();
    return ntohs(address.sin_port);
}

static int run_stoatperf(const char *program, uint16_t port, const char *const *load)
{
    char uri[64];
    const char *arguments[16] = {program, "-p", "-z2", "-h", uri};
    for (size_t i = 5; *load != NULL; i++)
        arguments[i] = *load++;
    snprintf(uri, sizeof(uri), "amqp://127.0.0.1:%u", port);
    const pid_t child = fork();
    if (child == 0) {
        execv(program, (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(int argc, char **argv)
{
    static const struct {
        size_t body_size;
        const char *load[6];
    } rows[] = {
        {16, {"-x1", "-y0", "-s16"}},       {16, {"-x0", "-y1", "-s16"}},
        {16, {"-x1", "-y1", "-s16"}},       {1024, {"-x1", "-y1", "-s1024"}},
        {65536, {"-x1", "-y1", "-s65536"}},
    };
    const char *const slash = strrchr(argv[0], '/');
    char program[512];
    snprintf(program, sizeof(program), "%.*s/../stoatperf",
             slash == NULL ? 1 : (int)(slash - argv[0]), slash == NULL ? "." : argv[0]);
    const uint16_t port = listen_anywhere();
    int failures = argc > 1;
    for (size_t i = 0; i < countof(rows); i++) {
        body_size = rows[i].body_size;
        failures += run_stoatperf(program, port, rows[i].load) != 0;
    }
    return failures > 0;
}
