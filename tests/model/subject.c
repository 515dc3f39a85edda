#include "tests/model/subject.h"

#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "amqp/client.h"
#include "amqp/properties.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/harness.h"
#include "tests/lib/queue_client.h"

enum { PUBLISHES_MAX = 4096 };

/* What was published on a channel since confirm.select. */
struct publishes {
    uint32_t count;
    uint32_t origins[PUBLISHES_MAX];
    bool settled[PUBLISHES_MAX];
    uint32_t unsettled;
};

static struct {
    const char *lmdb;
    struct sights *sights; /* where what is read goes */
    struct harness harness;
    struct peer *peers[MODEL_CONNECTIONS];
    bool open[MODEL_CHANNELS];
    uint64_t tags[MODEL_CHANNELS];   /* of the last delivery */
    bool confirming[MODEL_CHANNELS]; /* in confirm mode */
    struct publishes confirms[MODEL_CHANNELS];
    int committing[MODEL_CONNECTIONS]; /* channel whose commit-ok waits for the disk, or NONE */
    bool held;                         /* the disk */
    uint64_t memory;                   /* for messages, octets */
    const struct command *command;     /* under way */
} subject;

static void complain(const char *format, ...) printf_like(1, 2);
static void complain(const char *format, ...)
{
    char *out = subject.sights->complaint;
    va_list arguments;

    if (out[0] != '\0')
        return;
    va_start(arguments, format);
    vsnprintf(out, sizeof(subject.sights->complaint), format, arguments);
    va_end(arguments);
}

/* The harness asserts with check. Here no test of check's runs: what does not hold ends the
 * process, and so the sequence. */
void _mark_point(const char *file, int line)
{
    (void)file, (void)line;
}

void _ck_assert_failed(const char *file, int line, const char *expression, const char *message, ...)
{
    va_list arguments;

    fprintf(stderr, "# %s:%d: %s: ", file, line, expression);
    va_start(arguments, message);
    if (message != NULL)
        vfprintf(stderr, message, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    fflush(NULL);
    _exit(1);
}

/* ---- the broker ---- */

static const uint32_t replies[COMMAND_KINDS] = {
    [COMMAND_DECLARE] = AMQP_QUEUE_DECLARE_OK, [COMMAND_DELETE] = AMQP_QUEUE_DELETE_OK,
    [COMMAND_PURGE] = AMQP_QUEUE_PURGE_OK,     [COMMAND_BIND] = AMQP_QUEUE_BIND_OK,
    [COMMAND_UNBIND] = AMQP_QUEUE_UNBIND_OK,   [COMMAND_CONSUME] = AMQP_BASIC_CONSUME_OK,
    [COMMAND_CANCEL] = AMQP_BASIC_CANCEL_OK,   [COMMAND_RECOVER] = AMQP_BASIC_RECOVER_OK,
    [COMMAND_QOS] = AMQP_BASIC_QOS_OK,         [COMMAND_CONFIRM] = AMQP_CONFIRM_SELECT_OK,
    [COMMAND_TX] = AMQP_TX_SELECT_OK,          [COMMAND_COMMIT] = AMQP_TX_COMMIT_OK,
    [COMMAND_ROLLBACK] = AMQP_TX_ROLLBACK_OK,  [COMMAND_CLOSE] = AMQP_CHANNEL_CLOSE_OK,
};

static bool is_moving(void)
{
    struct harness *h = &subject.harness;
    struct peer *peer;

    for (int phase = 0; phase < LOOP_PHASES; phase++)
        if (!TAILQ_EMPTY(&h->loop.phases[phase]))
            return true;
    if (wheel_wait_ms(&h->loop.timers) == 0 || h->broker.fetches > 0 ||
        (store_is_busy(h->store) ? !subject.held : !store_open_is_empty(h->store)))
        return true;
    TAILQ_FOREACH (peer, &h->peers, link)
        if (buf_size(&peer->memory.sent) > 0 && !peer->memory.closed && !peer->connection->held)
            return true;
    return false;
}

static void await_disk(void)
{
    struct pollfd done = {.fd = subject.harness.loop.epoll_fd, .events = POLLIN};

    if (subject.lmdb != NULL &&
        (store_is_busy(subject.harness.store) || subject.harness.broker.fetches > 0))
        poll(&done, 1, -1);
}

/* Turns until nothing moves. */
static void come_to_rest(void)
{
    enum { TURNS_MAX = 1000 };
    struct peer *peer;
    int turns = 0;

    do {
        if (turns++ == TURNS_MAX) {
            complain("the broker does not come to rest");
            return;
        }
        await_disk();
        loop_turn(&subject.harness.loop, 0);
    } while (is_moving());
    TAILQ_FOREACH (peer, &subject.harness.peers, link)
        if (peer->memory.closed)
            peer->connection = NULL;
}

static void store_path(char path[PATH_MAX], const char *name)
{
    snprintf(path, PATH_MAX, "%s/%s", subject.lmdb, name);
}

static struct store *open_store(void)
{
    struct store *store = NULL;
    char error[STORE_ERROR_SIZE];

    if (subject.lmdb == NULL)
        return store_memory_new();
    if (store_open(&(struct store_options){.directory = subject.lmdb, .map_size = 1 << 26}, &store,
                   error) != 0) {
        fprintf(stderr, "model: the store does not open: %s\n", error);
        exit(2);
    }
    return store;
}

static void remove_store(void)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "killed.mdb"};
    char path[PATH_MAX];

    for (size_t i = 0; subject.lmdb != NULL && i < countof(names); i++) {
        store_path(path, names[i]);
        unlink(path);
    }
}

static void copy_file(const char *from, const char *to)
{
    char source[PATH_MAX], target[PATH_MAX], bytes[65536];
    ssize_t size;

    store_path(source, from);
    store_path(target, to);
    const int in = open(source, O_RDONLY | O_CLOEXEC);
    const int out = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while ((size = read(in, bytes, sizeof(bytes))) > 0)
        if (write(out, bytes, (size_t)size) != size)
            abort();
    if (in < 0 || out < 0 || size < 0)
        abort();
    close(in);
    close(out);
}

static void hold_disk(bool held)
{
    subject.held = held;
    if (subject.lmdb == NULL)
        store_memory_set_auto_sync(subject.harness.store, !held);
}

static void forget_channel(int channel)
{
    subject.open[channel] = false;
    subject.confirming[channel] = false;
    subject.tags[channel] = 0;
    subject.confirms[channel].count = subject.confirms[channel].unsettled = 0;
}

static void forget_clients(void)
{
    for (int i = 0; i < MODEL_CHANNELS; i++)
        forget_channel(i);
    for (int i = 0; i < MODEL_CONNECTIONS; i++) {
        subject.peers[i] = NULL;
        subject.committing[i] = MODEL_NONE;
    }
}

/* On LMDB a kill is a start over the file as it was while the broker ran. */
static void start_again(bool killed)
{
    struct harness *h = &subject.harness;
    const bool lmdb = subject.lmdb != NULL;

    if (lmdb && killed)
        copy_file("data.mdb", "killed.mdb");
    if (!lmdb) {
        harness_restart(h, killed);
    } else {
        harness_stop(h);
        if (store_close(&h->store) != 0)
            complain("the store does not close");
        if (killed)
            copy_file("killed.mdb", "data.mdb");
        h->store = open_store();
        harness_start(h, &harness_limits);
    }
    subject.held = false;
    paging_set_limit(&h->broker.paging, subject.memory);
    forget_clients();
    come_to_rest();
}

/* ---- what clients say ---- */

static struct peer *peer_of(int channel)
{
    return subject.peers[channel / 2];
}

static uint16_t number_of(int channel)
{
    return (uint16_t)(1 + channel % 2);
}

static const char *queue_name(int queue)
{
    static const char *const names[MODEL_QUEUES] = {"q0", "q1", "q2", "q3", "q4"};
    return names[queue];
}

static const char *exchange_name(int exchange)
{
    static const char *const names[MODEL_EXCHANGES] = {"", "x1", "x2"};
    return names[exchange];
}

static struct slice queue_slice(int queue)
{
    return slice_of_string(queue_name(queue));
}

static void put_argument(char **at, const char *format, ...) printf_like(2, 3);
static void put_argument(char **at, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    *at += vsprintf(*at, format, arguments);
    va_end(arguments);
}

static struct slice queue_arguments(struct buf *out, const struct command *command)
{
    static const char *const overflows[] = {"drop-head", "reject-publish", "reject-publish-dlx"};
    const struct {
        const char *name;
        int value;
    } numbers[] = {
        {"x-message-ttl", command->ttl},      {"x-expires", command->expires},
        {"x-max-length", command->length},    {"x-max-length-bytes", command->bytes},
        {"x-delivery-limit", command->limit},
    };
    char text[512] = "", *at = text;

    for (size_t i = 0; i < countof(numbers); i++)
        if (numbers[i].value != MODEL_NONE)
            put_argument(&at, "%s=I%d,", numbers[i].name, numbers[i].value);
    if (command->priorities > 0)
        put_argument(&at, "x-max-priority=I%d,", command->priorities);
    if (command->quorum)
        put_argument(&at, "x-queue-type=Squorum,");
    if (command->single)
        put_argument(&at, "x-single-active-consumer=t1,");
    if (command->overflow > 0)
        put_argument(&at, "x-overflow=S%s,", overflows[command->overflow]);
    if (command->dlx != MODEL_NONE)
        put_argument(&at, "x-dead-letter-exchange=S%s,", exchange_name(command->dlx));
    if (command->dlk != MODEL_NONE)
        put_argument(&at, "x-dead-letter-routing-key=S%s,", queue_name(command->dlk));
    return arguments_of(out, text);
}

static void put_method(struct buf *out, int channel, const struct amqp_method *method)
{
    amqp_method_encode(out, number_of(channel), method);
}

static void put_publishes(struct buf *out, const struct command *command)
{
    struct publishes *confirms = &subject.confirms[command->channel];

    for (int i = 0; i < command->count; i++) {
        struct amqp_properties properties = {.delivery_mode = AMQP_DELIVERY_PERSISTENT};
        const uint32_t origin = command->origin + (uint32_t)i;
        struct buf bytes = BUF_EMPTY;
        char body[BODY_MAX], expiration[16];
        command_body(origin, command->size, body);
        if (command->persistent)
            properties.flags |= AMQP_PROPERTY_DELIVERY_MODE;
        if (command->priority != MODEL_NONE) {
            properties.flags |= AMQP_PROPERTY_PRIORITY;
            properties.priority = (uint8_t)command->priority;
        }
        if (command->expiration != MODEL_NONE) {
            snprintf(expiration, sizeof(expiration), "%d", command->expiration);
            properties.flags |= AMQP_PROPERTY_EXPIRATION;
            properties.expiration = slice_of_string(expiration);
        }
        amqp_properties_encode(&bytes, &properties);
        amqp_client_publish(out, number_of(command->channel), 131072,
                            &(struct amqp_client_message){
                                .exchange = slice_of_string(exchange_name(command->exchange)),
                                .routing_key = queue_slice(command->key),
                                .properties = buf_slice(&bytes),
                                .body = slice_of_string(body),
                                .mandatory = command->mandatory});
        buf_release(&bytes);
        confirms->origins[confirms->count % PUBLISHES_MAX] = origin;
        confirms->settled[confirms->count % PUBLISHES_MAX] = false;
        confirms->count++;
        confirms->unsettled++;
    }
}

static void put_settlement(struct buf *out, const struct command *command)
{
    const uint64_t tag = command->unknown ? 1000000 : command->tag;
    struct amqp_method method;

    if (command->kind == COMMAND_ACK)
        method =
            (struct amqp_method){.id = AMQP_BASIC_ACK,
                                 .basic_ack = {.delivery_tag = tag, .multiple = command->multiple}};
    else if (command->kind == COMMAND_NACK)
        method = (struct amqp_method){.id = AMQP_BASIC_NACK,
                                      .basic_nack = {.delivery_tag = tag,
                                                     .multiple = command->multiple,
                                                     .requeue = command->requeue}};
    else
        method = (struct amqp_method){
            .id = AMQP_BASIC_REJECT,
            .basic_reject = {.delivery_tag = tag, .requeue = command->requeue}};
    put_method(out, command->channel, &method);
}

static void put_consume(struct buf *out, const struct command *command)
{
    struct buf table = BUF_EMPTY;
    char text[32] = "";

    if (command->rank != 0)
        snprintf(text, sizeof(text), "x-priority=I%d", command->rank);
    put_method(out, command->channel,
               &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                                     .basic_consume = {.queue = queue_slice(command->queue),
                                                       .consumer_tag = queue_slice(command->queue),
                                                       .no_ack = command->no_ack,
                                                       .exclusive = command->exclusive,
                                                       .arguments = arguments_of(&table, text)}});
    buf_release(&table);
}

static void put_declare(struct buf *out, const struct command *command)
{
    struct buf table = BUF_EMPTY;

    put_method(
        out, command->channel,
        &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                              .queue_declare = {.queue = queue_slice(command->queue),
                                                .durable = command->durable,
                                                .exclusive = command->exclusive,
                                                .auto_delete = command->auto_delete,
                                                .arguments = queue_arguments(&table, command)}});
    buf_release(&table);
}

static void put_command(struct buf *out, const struct command *command)
{
    const struct slice queue = queue_slice(command->queue);
    const struct slice exchange = slice_of_string(exchange_name(command->exchange));
    const struct slice key = queue_slice(command->key);
    struct amqp_method method;

    switch (command->kind) {
    case COMMAND_DECLARE:
        put_declare(out, command);
        return;
    case COMMAND_PUBLISH:
        put_publishes(out, command);
        return;
    case COMMAND_CONSUME:
        put_consume(out, command);
        return;
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_REJECT:
        put_settlement(out, command);
        return;
    case COMMAND_DELETE:
        method = (struct amqp_method){.id = AMQP_QUEUE_DELETE, .queue_delete.queue = queue};
        break;
    case COMMAND_PURGE:
        method = (struct amqp_method){.id = AMQP_QUEUE_PURGE, .queue_purge.queue = queue};
        break;
    case COMMAND_BIND:
        method = (struct amqp_method){
            .id = AMQP_QUEUE_BIND,
            .queue_bind = {.queue = queue, .exchange = exchange, .routing_key = key}};
        break;
    case COMMAND_UNBIND:
        method = (struct amqp_method){
            .id = AMQP_QUEUE_UNBIND,
            .queue_unbind = {.queue = queue, .exchange = exchange, .routing_key = key}};
        break;
    case COMMAND_GET:
        method = (struct amqp_method){.id = AMQP_BASIC_GET,
                                      .basic_get = {.queue = queue, .no_ack = command->no_ack}};
        break;
    case COMMAND_CANCEL:
        method = (struct amqp_method){.id = AMQP_BASIC_CANCEL, .basic_cancel.consumer_tag = queue};
        break;
    case COMMAND_RECOVER:
        method = (struct amqp_method){.id = AMQP_BASIC_RECOVER, .basic_recover.requeue = true};
        break;
    case COMMAND_QOS:
        method = (struct amqp_method){.id = AMQP_BASIC_QOS,
                                      .basic_qos = {.prefetch_count = (uint16_t)command->prefetch,
                                                    .global = command->global}};
        break;
    case COMMAND_CONFIRM:
        subject.confirming[command->channel] = true;
        subject.confirms[command->channel].count = subject.confirms[command->channel].unsettled = 0;
        method = (struct amqp_method){.id = AMQP_CONFIRM_SELECT};
        break;
    case COMMAND_TX:
        method = (struct amqp_method){.id = AMQP_TX_SELECT};
        break;
    case COMMAND_COMMIT:
        method = (struct amqp_method){.id = AMQP_TX_COMMIT};
        break;
    case COMMAND_ROLLBACK:
        method = (struct amqp_method){.id = AMQP_TX_ROLLBACK};
        break;
    case COMMAND_CLOSE:
        method = (struct amqp_method){.id = AMQP_CHANNEL_CLOSE};
        break;
    default:
        abort();
    }
    put_method(out, command->channel, &method);
}

/* ---- what clients read ---- */

static void copy(char *out, size_t size, struct slice bytes)
{
    snprintf(out, size, "%.*s", SLICE_ARG(bytes));
}

static struct sight *see(enum event_kind kind, int channel)
{
    struct sights *sights = subject.sights;
    struct sight *sight = &sights->list[min_of(sights->count, (size_t)SIGHTS_MAX - 1)];

    if (sights->count++ >= SIGHTS_MAX)
        complain("more comes than a command can bring about");
    sight->kind = kind;
    sight->channel = channel;
    return sight;
}

static int queue_named(struct slice name)
{
    for (int i = 0; i < MODEL_QUEUES; i++)
        if (slice_equal(name, queue_slice(i)))
            return i;
    complain("nobody knows '%.*s'", SLICE_ARG(name));
    return 0;
}

/* x-acquired-count and x-delivery-count are read with the rest, as text. */
static void see_content(struct peer *peer, struct sight *sight, struct slice exchange,
                        struct slice key)
{
    struct amqp_frame frame;
    struct amqp_content_header header;
    struct amqp_properties properties;
    struct amqp_error error;

    copy(sight->exchange, sizeof(sight->exchange), exchange);
    copy(sight->key, sizeof(sight->key), key);
    if (!peer_next(peer, &frame) || !amqp_content_header_decode(frame.payload, &header, &error)) {
        complain("content without a header");
        return;
    }
    buf_clear(&peer->properties);
    buf_append(&peer->properties, header.properties);
    if (!peer_next(peer, &frame) || frame.type != AMQP_FRAME_BODY ||
        frame.payload.size != header.body_size) {
        complain("content without a body");
        return;
    }
    copy(sight->body, sizeof(sight->body), frame.payload);
    amqp_properties_decode(buf_slice(&peer->properties), &properties);
    sight->delivery_mode = properties.delivery_mode;
    sight->priority = properties.flags & AMQP_PROPERTY_PRIORITY ? properties.priority : MODEL_NONE;
    sight->expiration = MODEL_NONE;
    if (properties.flags & AMQP_PROPERTY_EXPIRATION) {
        char text[16];
        copy(text, sizeof(text), properties.expiration);
        sight->expiration = atoi(text);
    }
    sight->headers[0] = '\0';
    if (properties.flags & AMQP_PROPERTY_HEADERS)
        snprintf(sight->headers, sizeof(sight->headers), "%s", headers_of(peer));
}

/* Tags count up by one (10.13). */
static void see_tag(struct sight *sight, uint64_t tag)
{
    uint64_t *last = &subject.tags[sight->channel];

    if (tag != *last + 1)
        complain("delivery tag %" PRIu64 " after %" PRIu64 "", tag, *last);
    *last = sight->tag = tag;
}

static void see_confirm(int channel, uint64_t last, bool multiple, bool refused)
{
    struct publishes *confirms = &subject.confirms[channel];
    const uint64_t first = multiple ? 1 : last;

    if (last == 0 || last > confirms->count)
        complain("a confirm of publish %" PRIu64 " of %u", last, confirms->count);
    for (uint64_t number = first; number <= last && number <= confirms->count; number++) {
        bool *settled = &confirms->settled[(number - 1) % PUBLISHES_MAX];
        if (*settled) {
            if (!multiple)
                complain("publish %" PRIu64 " is confirmed twice", number);
            continue;
        }
        *settled = true;
        confirms->unsettled--;
        if (refused) {
            see(REFUSED, channel)->number = (uint32_t)number;
        } else if (subject.sights->ack_count < ACKS_MAX) {
            subject.sights->acks[subject.sights->ack_count++] =
                confirms->origins[(number - 1) % PUBLISHES_MAX];
        }
    }
}

static void see_closed(struct peer *peer, int channel, uint16_t code)
{
    see(CLOSED, channel)->number = code;
    forget_channel(channel);

    struct buf out = BUF_EMPTY;
    put_method(&out, channel, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
    memory_transport_send(&peer->memory, buf_slice(&out));
    buf_release(&out);
}

static void see_reply(int channel, uint32_t id)
{
    const int connection = channel / 2;

    if (id == AMQP_TX_COMMIT_OK && subject.committing[connection] == channel)
        subject.committing[connection] = MODEL_NONE;
    if (subject.command->kind < COMMAND_BREAK && channel == subject.command->channel &&
        id == replies[subject.command->kind]) {
        subject.sights->replies++;
        if (id == AMQP_CHANNEL_CLOSE_OK)
            forget_channel(channel);
        return;
    }
    if (id != AMQP_TX_COMMIT_OK)
        complain("%s came on channel %d", amqp_method_info(id)->name, channel);
}

static void see_method(struct peer *peer, int channel, const struct amqp_method *method)
{
    const struct amqp_basic_deliver *deliver = &method->basic_deliver;
    const struct amqp_basic_get_ok *got = &method->basic_get_ok;
    struct sight *sight;

    switch (method->id) {
    case AMQP_BASIC_DELIVER:
        sight = see(DELIVERED, channel);
        sight->queue = queue_named(deliver->consumer_tag);
        sight->redelivered = deliver->redelivered;
        see_tag(sight, deliver->delivery_tag);
        see_content(peer, sight, deliver->exchange, deliver->routing_key);
        return;
    case AMQP_BASIC_GET_OK:
        sight = see(GOT, channel);
        sight->queue = subject.command->queue;
        sight->redelivered = got->redelivered;
        sight->number = got->message_count;
        see_tag(sight, got->delivery_tag);
        see_content(peer, sight, got->exchange, got->routing_key);
        return;
    case AMQP_BASIC_RETURN:
        see_content(peer, see(RETURNED, channel), method->basic_return.exchange,
                    method->basic_return.routing_key);
        return;
    case AMQP_BASIC_GET_EMPTY:
        see(GOT_NOTHING, channel);
        return;
    case AMQP_BASIC_CANCEL:
        see(CANCELLED, channel)->queue = queue_named(method->basic_cancel.consumer_tag);
        return;
    case AMQP_BASIC_ACK:
        see_confirm(channel, method->basic_ack.delivery_tag, method->basic_ack.multiple, false);
        return;
    case AMQP_BASIC_NACK:
        see_confirm(channel, method->basic_nack.delivery_tag, method->basic_nack.multiple, true);
        return;
    case AMQP_CHANNEL_CLOSE:
        see_closed(peer, channel, method->channel_close.reply_code);
        return;
    default:
        see_reply(channel, method->id);
    }
}

static void read_frames(void)
{
    struct amqp_frame frame;
    struct amqp_method method;
    struct amqp_error error;

    for (int i = 0; i < MODEL_CONNECTIONS; i++)
        while (subject.peers[i] != NULL && subject.sights->complaint[0] == '\0' &&
               peer_next(subject.peers[i], &frame)) {
            if (frame.channel == 0 || frame.channel > 2 || frame.type != AMQP_FRAME_METHOD ||
                !amqp_method_decode(frame.payload, &method, &error)) {
                complain("a frame of type %u came on channel %u: %s", frame.type, frame.channel,
                         frame.payload.size >= 4 &&
                                 amqp_method_decode(frame.payload, &method, &error)
                             ? amqp_method_info(method.id)->name
                             : "?");
                return;
            }
            see_method(subject.peers[i], 2 * i + frame.channel - 1, &method);
        }
}

static void begin_to_look(const struct command *command, struct sights *sights)
{
    subject.sights = sights;
    subject.command = command;
    sights->complaint[0] = '\0';
    sights->replies = 0;
    sights->count = sights->ack_count = 0;
}

/* A channel's close asks for an answer, and that may bring about more. */
static void look(void)
{
    do {
        come_to_rest();
        read_frames();
    } while (is_moving() && subject.sights->complaint[0] == '\0');
}

/* ---- commands ---- */

static void open_channel_for(const struct command *command)
{
    const int channel = command->channel;

    if (peer_of(channel) == NULL)
        subject.peers[channel / 2] = peer_open(&subject.harness);
    if (subject.open[channel])
        return;
    peer_call(peer_of(channel), number_of(channel), &(struct amqp_method){.id = AMQP_CHANNEL_OPEN},
              AMQP_CHANNEL_OPEN_OK);
    subject.open[channel] = true;
}

static void break_connection(int connection)
{
    if (subject.peers[connection] == NULL)
        return;
    peer_free(&subject.peers[connection]);
    forget_channel(2 * connection);
    forget_channel(2 * connection + 1);
    subject.committing[connection] = MODEL_NONE;
}

static void sync_disk(bool all)
{
    if (subject.lmdb != NULL) {
        subject.held = false;
        return;
    }
    store_memory_sync(subject.harness.store);
    if (all)
        hold_disk(false);
}

static void limit_memory(const struct command *command)
{
    subject.memory = command->ample ? PAGING_LIMIT_DEFAULT : (uint64_t)command->kilobytes * 1024;
    paging_set_limit(&subject.harness.broker.paging, subject.memory);
}

static void say(const struct command *command)
{
    struct buf out = BUF_EMPTY;

    if (command->kind == COMMAND_COMMIT)
        subject.committing[command->channel / 2] = command->channel;
    put_command(&out, command);
    memory_transport_send(&peer_of(command->channel)->memory, buf_slice(&out));
    buf_release(&out);
}

void subject_do(const struct command *command, struct sights *sights)
{
    begin_to_look(command, sights);
    switch (command->kind) {
    case COMMAND_BREAK:
        break_connection(command->connection);
        break;
    case COMMAND_MEMORY:
        limit_memory(command);
        break;
    case COMMAND_HOLD:
        hold_disk(true);
        break;
    case COMMAND_SYNC:
        sync_disk(command->all);
        break;
    case COMMAND_RESTART:
    case COMMAND_KILL:
        start_again(command->kind == COMMAND_KILL);
        break;
    default:
        open_channel_for(command);
        say(command);
        break;
    }
    look();
    bool closed = false;
    for (size_t i = 0; i < min_of(sights->count, (size_t)SIGHTS_MAX); i++)
        closed |= sights->list[i].kind == CLOSED;
    const bool waits = command->kind == COMMAND_COMMIT && subject.held &&
                       subject.committing[command->channel / 2] != MODEL_NONE;
    if (closed && command->kind == COMMAND_COMMIT)
        subject.committing[command->channel / 2] = MODEL_NONE;
    if (replies[command->kind] != 0 && sights->replies != 1 && !closed && !waits)
        complain("no answer");
}

void subject_advance(uint64_t ms, struct sights *sights)
{
    static const struct command time_passes = {.kind = COMMAND_ADVANCE};

    begin_to_look(&time_passes, sights);
    clock_advance(&subject.harness.clock, ms);
    look();
}

bool subject_needs_disk(const struct command *command)
{
    switch (command->kind) {
    case COMMAND_DECLARE:
    case COMMAND_DELETE:
    case COMMAND_PURGE:
    case COMMAND_BIND:
    case COMMAND_UNBIND:
    case COMMAND_RESTART:
        return subject.held;
    default:
        return subject.held && command->kind < COMMAND_BREAK &&
               subject.committing[command->channel / 2] != MODEL_NONE;
    }
}

bool subject_awaits_confirms(void)
{
    for (int i = 0; i < MODEL_CHANNELS; i++)
        if (subject.confirming[i] && subject.confirms[i].unsettled > 0)
            return true;
    return false;
}

bool subject_count(int number, struct subject_counts *counts)
{
    struct vhost *vhost = vhost_find(&subject.harness.broker, SLICE("/"));
    struct map_link *link = map_find(&vhost->queues, queue_slice(number));

    if (link == NULL)
        return false;
    const struct queue *queue = container_of(link, struct queue, by_name);
    const struct queue_depth depth = queue_depth_of_levels(queue);
    *counts = (struct subject_counts){depth.ready, depth.unacked, queue->consumer_count};
    return true;
}

/* ---- beginning and end ---- */

static void declare_exchanges(void)
{
    struct peer *peer = peer_open_channel(&subject.harness);

    for (int i = 1; i < MODEL_EXCHANGES; i++) {
        peer_send(peer, 1,
                  &(struct amqp_method){
                      .id = AMQP_EXCHANGE_DECLARE,
                      .exchange_declare = {.exchange = slice_of_string(exchange_name(i)),
                                           .type = i == 1 ? SLICE("fanout") : SLICE("direct"),
                                           .durable = true}});
        come_to_rest();
        peer_expect(peer, 1, AMQP_EXCHANGE_DECLARE_OK);
    }
    peer_free(&peer);
    come_to_rest();
}

void subject_begin(const char *lmdb, struct sights *sights)
{
    begin_to_look(NULL, sights);
    subject.lmdb = lmdb;
    subject.held = false;
    subject.memory = PAGING_LIMIT_DEFAULT;
    remove_store();
    harness_init_over(&subject.harness, NULL, open_store());
    log_level = LOG_ERROR;
    forget_clients();
    come_to_rest();
    declare_exchanges();
}

void subject_end(void)
{
    hold_disk(false);
    come_to_rest();
    harness_release_over(&subject.harness);
    remove_store();
}
