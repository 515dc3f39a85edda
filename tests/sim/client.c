#include "tests/sim/client.h"

#include "amqp/client.h"
#include "amqp/properties.h"
#include "base/alloc.h"
#include "session/channel.h"
#include "tests/sim/trace.h"

enum op_kind {
    OP_HANDSHAKE,
    OP_CLOSE_CONNECTION,
    OP_CLOSE_OK_CONNECTION,
    OP_GARBAGE,
    OP_WRONG_CHANNEL,
    OP_OPEN,
    OP_CLOSE,
    OP_CLOSE_OK,
    OP_SELECT,
    OP_QOS,
    OP_DECLARE_QUEUE,
    OP_DELETE_QUEUE,
    OP_PURGE,
    OP_DECLARE_EXCHANGE,
    OP_DELETE_EXCHANGE,
    OP_BIND,
    OP_UNBIND,
    OP_PUBLISH,
    OP_CONSUME,
    OP_CANCEL,
    OP_GET,
    OP_SETTLE,
    OP_RECOVER,
    OP_COMMIT,
    OP_ROLLBACK,
};

struct op {
    STAILQ_ENTRY(op) link;
    enum op_kind kind;
    uint16_t channel;
    uint32_t frames; /* that the broker has not yet acted on */
    uint32_t reply;  /* the method that answers; 0: none */
    char queue[MODEL_NAME], exchange[MODEL_NAME], key[MODEL_NAME];
    struct model_queue queue_wanted;
    struct model_exchange exchange_wanted;
    bool no_ack, multiple;
    uint64_t tag;
    uint32_t id;
    enum settle_how how;
    struct taker *taker;
    /* since the broker has acted on it */
    struct model_queue *on; /* what basic.get asked */
    bool takes;             /* and may take from it without an acknowledgement */
    uint64_t lsn;           /* its answer must wait for this */
    bool puts;              /* and for entries */
    uint32_t count;         /* what purge-ok must say */
    struct buf committed;   /* ids of the transaction's publishes */
};

uint64_t below(struct sim *sim, uint64_t bound)
{
    return random_below(&sim->random, bound);
}

bool chance(struct sim *sim, unsigned percent)
{
    return below(sim, 100) < percent;
}

static struct connection *connection_of(const struct client *client)
{
    return client->peer->connection;
}

static struct sim_channel *channel_of(struct client *client, uint16_t number)
{
    assert(number >= 1 && number <= CLIENT_CHANNELS);
    return &client->channels[number - 1];
}

static void copy_name(char name[MODEL_NAME], struct slice bytes)
{
    check(bytes.size < MODEL_NAME, "a name of %zu octets came", bytes.size);
    snprintf(name, MODEL_NAME, "%.*s", SLICE_ARG(bytes));
}

/* ---- records of a channel ---- */

static size_t unacked_count(const struct sim_channel *channel)
{
    return buf_size(&channel->unacked) / sizeof(struct unacked);
}

static struct unacked *unacked_at(const struct sim_channel *channel, size_t index)
{
    return (struct unacked *)(void *)(channel->unacked.data + channel->unacked.begin) + index;
}

static size_t published_count(const struct sim_channel *channel)
{
    return buf_size(&channel->published) / sizeof(struct confirmable);
}

static struct confirmable *published_at(const struct sim_channel *channel, size_t index)
{
    return (struct confirmable *)(void *)(channel->published.data + channel->published.begin) +
           index;
}

static struct taker *find_taker(struct sim_channel *channel, const char *tag)
{
    struct taker *taker;
    TAILQ_FOREACH (taker, &channel->takers, link)
        if (strcmp(taker->tag, tag) == 0)
            return taker;
    return NULL;
}

static void free_op(struct op **op)
{
    buf_release(&(*op)->committed);
    free(*op);
    *op = NULL;
}

static void free_ops(struct op_list *ops)
{
    struct op *op;
    while ((op = STAILQ_FIRST(ops)) != NULL) {
        STAILQ_REMOVE_HEAD(ops, link);
        free_op(&op);
    }
}

/* Its number is free for a new one. */
static void reset_channel(struct sim_channel *channel)
{
    struct taker *taker;
    while ((taker = TAILQ_FIRST(&channel->takers)) != NULL) {
        TAILQ_REMOVE(&channel->takers, taker, link);
        free(taker);
    }
    free_ops(&channel->awaiting);
    buf_release(&channel->unacked);
    buf_release(&channel->published);
    buf_release(&channel->held);
    *channel = (struct sim_channel){.next_tag = channel->next_tag};
    STAILQ_INIT(&channel->awaiting);
    TAILQ_INIT(&channel->takers);
}

/* ---- the model follows ---- */

static void end_taker(struct client *client, struct taker *taker)
{
    if (!taker->active)
        return;
    taker->active = false;
    model_remove_consumer(&client->sim->model, taker->queue, taker->exclusive, taker->no_ack);
}

/* A no-ack get was answered, or never will be. */
static void leave_get(struct op *op)
{
    if (op->takes && !op->on->life.ended)
        op->on->no_ack_takers--;
    op->takes = false;
}

/* The broker has ended it: what was unacked is ready again, which the model need not know. */
static void end_channel(struct client *client, struct sim_channel *channel)
{
    struct taker *taker;
    struct op *op;

    if (!channel->live)
        return;
    channel->live = false;
    TAILQ_FOREACH (taker, &channel->takers, link)
        end_taker(client, taker);
    STAILQ_FOREACH (op, &channel->awaiting, link)
        leave_get(op);
}

void client_end(struct client *client)
{
    if (client->ended)
        return;
    client->ended = true;
    for (uint16_t i = 0; i < CLIENT_CHANNELS; i++)
        end_channel(client, &client->channels[i]);
    model_drop_exclusive(&client->sim->model, client);
}

void clients_on_queue_deleted(struct sim *sim, const struct model_queue *queue)
{
    struct client *client;
    struct taker *taker;

    TAILQ_FOREACH (client, &sim->clients, link)
        for (size_t i = 0; i < CLIENT_CHANNELS; i++)
            TAILQ_FOREACH (taker, &client->channels[i].takers, link)
                if (taker->queue == queue)
                    taker->active = false;
}

static bool exchange_is_there(struct client *client, const char *name)
{
    return name[0] == '\0' || model_find_exchange(&client->sim->model, name) != NULL;
}

static bool follow_publish(struct client *client, struct sim_channel *channel, const struct op *op)
{
    if (!exchange_is_there(client, op->exchange))
        return false;
    if (channel->mode == MODE_TX)
        buf_append(&channel->held, slice_of(&op->id, sizeof(op->id)));
    else
        model_route(&client->sim->model, op->id);
    channel->publishes++;
    return true;
}

static void settle_now(struct client *client, struct sim_channel *channel, size_t index,
                       enum settle_how how, bool tied, uint64_t *lsn)
{
    struct unacked *unacked = unacked_at(channel, index);

    if (how != SETTLE_BY_REQUEUE)
        model_settle(&client->sim->model, unacked->queue, unacked->id, tied, lsn);
    if (unacked->taker != NULL)
        unacked->taker->unacked--;
    memmove(unacked, unacked + 1, (unacked_count(channel) - index - 1) * sizeof(*unacked));
    channel->unacked.end -= sizeof(*unacked);
}

static bool follow_settle(struct client *client, struct sim_channel *channel, const struct op *op)
{
    uint64_t lsn = 0;
    bool found = false;

    for (size_t i = 0; i < unacked_count(channel); i++)
        found |= unacked_at(channel, i)->tag == op->tag && !unacked_at(channel, i)->held;
    if (!found)
        return false;
    for (size_t i = 0; i < unacked_count(channel);) {
        struct unacked *unacked = unacked_at(channel, i);
        const bool meant = op->multiple ? unacked->tag <= op->tag : unacked->tag == op->tag;
        if (meant && channel->mode != MODE_TX) {
            settle_now(client, channel, i, op->how, false, &lsn);
            continue;
        }
        if (meant && !unacked->held) {
            unacked->held = true;
            unacked->how = op->how;
        }
        i++;
    }
    return true;
}

/* Publishes, or what could become a dead letter: then all of the transaction waits for room. */
static bool may_put(const struct sim_channel *channel, size_t publishes)
{
    bool puts = publishes > 0;

    for (size_t i = 0; i < unacked_count(channel); i++)
        puts |= unacked_at(channel, i)->held && unacked_at(channel, i)->how != SETTLE_BY_ACK;
    return puts;
}

static bool follow_commit(struct client *client, struct sim_channel *channel, struct op *op)
{
    struct model *model = &client->sim->model;
    const uint32_t *ids = (const uint32_t *)(void *)channel->held.data;
    const size_t count = buf_size(&channel->held) / sizeof(*ids);

    for (size_t i = 0; i < count; i++) /* nowhere, if the exchange has gone */
        model_route(model, ids[i]);
    op->puts = may_put(channel, count);
    op->committed = channel->held;
    channel->held = BUF_EMPTY;
    for (size_t i = 0; i < unacked_count(channel);)
        if (unacked_at(channel, i)->held)
            settle_now(client, channel, i, unacked_at(channel, i)->how, op->puts, &op->lsn);
        else
            i++;
    return true;
}

/* Forgets deliveries: all but those that a transaction has settled, which wait for its end; or only
 * those that were read while a basic.recover was under way. */
static void forget_unacked(struct sim_channel *channel, bool only_void)
{
    struct taker *taker;
    size_t kept = 0;

    TAILQ_FOREACH (taker, &channel->takers, link)
        taker->unacked = 0;
    for (size_t i = 0; i < unacked_count(channel); i++) {
        const struct unacked unacked = *unacked_at(channel, i);
        if (only_void ? unacked.read_while_recovering : !unacked.held)
            continue;
        if (unacked.taker != NULL)
            unacked.taker->unacked++;
        *unacked_at(channel, kept++) = unacked;
    }
    channel->unacked.end = channel->unacked.begin + kept * sizeof(struct unacked);
}

static void follow_rollback(struct sim_channel *channel)
{
    buf_clear(&channel->held);
    for (size_t i = 0; i < unacked_count(channel); i++)
        if (unacked_at(channel, i)->held)
            unacked_at(channel, i)->held = unacked_at(channel, i)->settling = false;
}

static struct model_queue *usable_queue(struct client *client, const char *name)
{
    struct model_queue *queue = model_find_queue(&client->sim->model, name);

    return queue == NULL || (queue->exclusive && queue->owner != client) ? NULL : queue;
}

static bool follow_consume(struct client *client, struct op *op)
{
    struct model_queue *queue = usable_queue(client, op->queue);
    struct taker *taker = op->taker;

    if (queue == NULL || queue->exclusive_consumer || (taker->exclusive && queue->consumers > 0))
        return false;
    queue->consumers++;
    queue->no_ack_takers += taker->no_ack;
    queue->exclusive_consumer = taker->exclusive;
    taker->queue = queue;
    taker->active = true;
    return true;
}

static bool follow_get(struct client *client, struct op *op)
{
    op->on = usable_queue(client, op->queue);
    op->takes = op->on != NULL && op->no_ack;
    if (op->takes)
        op->on->no_ack_takers++;
    return op->on != NULL;
}

/* false: the broker should have refused. */
static bool follow(struct client *client, struct sim_channel *channel, struct op *op)
{
    struct model *model = &client->sim->model;

    switch (op->kind) {
    case OP_OPEN:
        channel->live = true;
        return true;
    case OP_DECLARE_QUEUE:
        return model_declare_queue(model, &op->queue_wanted, &op->lsn);
    case OP_DELETE_QUEUE:
        return model_delete_queue(model, op->queue, client, &op->lsn);
    case OP_PURGE:
        return model_purge_queue(model, op->queue, client, &op->count, &op->lsn);
    case OP_DECLARE_EXCHANGE:
        return model_declare_exchange(model, &op->exchange_wanted, &op->lsn);
    case OP_DELETE_EXCHANGE:
        model_delete_exchange(model, op->exchange, &op->lsn);
        return true;
    case OP_BIND:
        return model_bind(model, op->exchange, op->queue, op->key, client, &op->lsn);
    case OP_UNBIND:
        return model_unbind(model, op->exchange, op->queue, op->key, client, &op->lsn);
    case OP_PUBLISH:
        return follow_publish(client, channel, op);
    case OP_CONSUME:
        return follow_consume(client, op);
    case OP_CANCEL:
        end_taker(client, op->taker);
        return true;
    case OP_GET:
        return follow_get(client, op);
    case OP_SETTLE:
        return follow_settle(client, channel, op);
    case OP_RECOVER:
        forget_unacked(channel, false);
        return true;
    case OP_COMMIT:
        return follow_commit(client, channel, op);
    case OP_ROLLBACK:
        follow_rollback(channel);
        return true;
    default:
        return true;
    }
}

static bool ends_connection(enum op_kind kind)
{
    return kind == OP_CLOSE_CONNECTION || kind == OP_GARBAGE || kind == OP_WRONG_CHANNEL;
}

static bool broker_has_channel(const struct client *client, uint16_t number)
{
    struct map_link *link = map_find_id(&connection_of(client)->channels, number);

    return link != NULL && container_of(link, struct channel, by_number)->state == CHANNEL_OPEN;
}

static void follow_on_channel(struct client *client, struct op *op)
{
    struct sim_channel *channel = channel_of(client, op->channel);
    const bool heard = channel->live || op->kind == OP_OPEN || op->kind == OP_CLOSE;

    if (channel->live && op->kind == OP_CLOSE)
        end_channel(client, channel);
    else if (heard && op->kind != OP_CLOSE && !follow(client, channel, op)) {
        trace("%u.%u is refused", client->serial, op->channel);
        client->sim->refused++;
        end_channel(client, channel);
    }
    check(channel->live == broker_has_channel(client, op->channel),
          "channel %u.%u is %s by the broker", client->serial, op->channel,
          channel->live ? "closed" : "kept open");
    if (heard && op->reply != 0 && (channel->live || op->kind == OP_CLOSE))
        STAILQ_INSERT_TAIL(&channel->awaiting, op, link);
    else
        free_op(&op);
}

/* The broker has acted on one frame. */
static void follow_frame(struct client *client)
{
    struct op *op = STAILQ_FIRST(&client->sent);

    check(op != NULL, "client %u has sent fewer frames than came", client->serial);
    if (--op->frames > 0)
        return;
    STAILQ_REMOVE_HEAD(&client->sent, link);
    client->sent_count--;
    const bool over = connection_of(client)->state > CONNECTION_OPEN;
    check(client->ended || over == ends_connection(op->kind), "client %u is %s", client->serial,
          over ? "thrown out" : "kept in spite of what it did");
    if (over)
        client_end(client);
    if (client->ended || op->channel == 0)
        free_op(&op);
    else
        follow_on_channel(client, op);
}

static struct client *client_of(const struct transport *transport);
static const struct transport_events *broker_events; /* those of connections */

/* The size of what comes first: the protocol header or a frame; 0 when it is not all there. */
static size_t piece_size(const struct client *client, struct slice bytes)
{
    enum { HEAD = 7, OVERHEAD = 8 };
    if (connection_of(client)->state == CONNECTION_AWAIT_HEADER)
        return bytes.size < OVERHEAD ? 0 : OVERHEAD;
    if (bytes.size < HEAD)
        return 0;
    const size_t size = (size_t)amqp_get_u32(bytes.data + 3) + OVERHEAD;
    return size <= bytes.size ? size : 0;
}

static size_t on_input(struct transport *transport, struct slice bytes)
{
    struct client *client = client_of(transport);
    const struct slice all = bytes;
    size_t size;

    while ((size = piece_size(client, bytes)) > 0) {
        model_observe(&client->sim->model);
        const size_t taken = broker_events->on_input(transport, slice_of(bytes.data, size));
        if (taken == 0)
            return all.size - bytes.size;
        follow_frame(client);
        if (connection_of(client)->state > CONNECTION_AWAIT_CLOSE_OK)
            return all.size;
        bytes.data += size;
        bytes.size -= size;
    }
    return all.size - bytes.size + broker_events->on_input(transport, bytes);
}

static void on_drained(struct transport *transport)
{
    broker_events->on_drained(transport);
}

static void on_broken(struct transport *transport, int error)
{
    struct client *client = client_of(transport);

    if (!client->sim->ending)
        model_observe(&client->sim->model);
    broker_events->on_broken(transport, error);
    if (!client->sim->ending)
        client_end(client);
}

static const struct transport_events client_events = {
    .on_input = on_input, .on_drained = on_drained, .on_broken = on_broken};

static struct sim *only_sim; /* to find the client of a transport */

static struct client *client_of(const struct transport *transport)
{
    struct client *client;
    TAILQ_FOREACH (client, &only_sim->clients, link)
        if (!client->peer->memory.closed && &connection_of(client)->transport == transport)
            return client;
    trace_fail("a transport without a client moves");
}

/* ---- saying something ---- */

static struct op *say(struct client *client, enum op_kind kind, uint16_t channel, uint32_t reply)
{
    struct op *op = xcalloc(1, sizeof(*op));
    op->kind = kind;
    op->channel = channel;
    op->reply = reply;
    op->frames = 1;
    STAILQ_INSERT_TAIL(&client->sent, op, link);
    client->sent_count++;
    client->sim->acts++;
    return op;
}

static void encode(struct client *client, uint16_t channel, const struct amqp_method *method)
{
    const struct amqp_method_info *info = amqp_method_info(method->id);
    trace("%u.%u ▶ %s", client->serial, channel, info->name);
    amqp_method_encode(&client->out, channel, method);
}

void client_connect(struct sim *sim)
{
    struct client *client = xcalloc(1, sizeof(*client));

    only_sim = sim;
    client->sim = sim;
    client->serial = ++sim->next_serial;
    client->peer = peer_new(&sim->harness, false);
    client->frame_size_max = chance(sim, 50) ? 4096 : 131072;
    STAILQ_INIT(&client->sent);
    for (size_t i = 0; i < CLIENT_CHANNELS; i++)
        reset_channel(&client->channels[i]);
    TAILQ_INSERT_TAIL(&sim->clients, client, link);
    broker_events = connection_of(client)->transport.events;
    connection_of(client)->transport.events = &client_events;

    trace("%u connects", client->serial);
    say(client, OP_HANDSHAKE, 0, 0)->frames = 4;
    amqp_client_protocol_header(&client->out);
    amqp_client_start_ok(&client->out, SLICE("guest"), SLICE("guest"), SLICE("sim"));
    amqp_client_tune_ok(&client->out, 2047, client->frame_size_max, 0);
    amqp_client_open(&client->out, SLICE("/"));
}

static void open_channel(struct client *client, uint16_t number)
{
    struct sim *sim = client->sim;
    struct sim_channel *channel = channel_of(client, number);

    reset_channel(channel);
    channel->use = CHANNEL_USED;
    say(client, OP_OPEN, number, AMQP_CHANNEL_OPEN_OK);
    encode(client, number, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN});
    if (chance(sim, 30)) {
        channel->mode = MODE_TX;
        say(client, OP_SELECT, number, AMQP_TX_SELECT_OK);
        encode(client, number, &(struct amqp_method){.id = AMQP_TX_SELECT});
    } else if (chance(sim, 70)) {
        channel->mode = MODE_CONFIRM;
        say(client, OP_SELECT, number, AMQP_CONFIRM_SELECT_OK);
        encode(client, number, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT});
    }
    channel->prefetch = (uint16_t)below(sim, 6);
    channel->global_prefetch = chance(sim, 30) ? (uint16_t)(1 + below(sim, 4)) : 0;
    for (int global = 0; global < 2; global++) {
        say(client, OP_QOS, number, AMQP_BASIC_QOS_OK);
        encode(
            client, number,
            &(struct amqp_method){.id = AMQP_BASIC_QOS,
                                  .basic_qos = {.prefetch_count = global ? channel->global_prefetch
                                                                         : channel->prefetch,
                                                .global = global}});
    }
}

/* Any name, whether or not there is such a queue. */
static void invent_queue(struct client *client, char name[MODEL_NAME])
{
    if (chance(client->sim, 15))
        snprintf(name, MODEL_NAME, "e%u", client->serial);
    else
        snprintf(name, MODEL_NAME, "q%u", (unsigned)below(client->sim, 6));
}

/* Most often one that is there, and may be used. */
static void pick_queue(struct client *client, char name[MODEL_NAME])
{
    const struct model_queue *queue;
    size_t count = 0;

    invent_queue(client, name);
    if (chance(client->sim, 4))
        return;
    TAILQ_FOREACH (queue, &client->sim->model.queues, link)
        if (!queue->life.ended && (!queue->exclusive || queue->owner == client) &&
            below(client->sim, ++count) == 0)
            memcpy(name, queue->name, MODEL_NAME);
}

static void pick_exchange(struct client *client, char name[MODEL_NAME])
{
    const struct model_exchange *exchange;
    size_t count = 0;

    snprintf(name, MODEL_NAME, "x%u", (unsigned)below(client->sim, 3));
    if (chance(client->sim, 4))
        return;
    TAILQ_FOREACH (exchange, &client->sim->model.exchanges, link)
        if (!exchange->life.ended && below(client->sim, ++count) == 0)
            memcpy(name, exchange->name, MODEL_NAME);
}

static void pick_key(struct client *client, char key[MODEL_NAME], bool pattern)
{
    static const char *const keys[] = {"a", "b", "a.b", "b.a", "a.b.c"};
    static const char *const patterns[] = {"a", "b", "a.b", "#", "*", "a.*", "*.b", "a.#", "#.c"};
    snprintf(key, MODEL_NAME, "%s",
             pattern ? patterns[below(client->sim, countof(patterns))]
                     : keys[below(client->sim, countof(keys))]);
}

/* Most names have properties of their own, so that most declarations agree. */
static void say_declare_queue(struct client *client, uint16_t number)
{
    struct sim *sim = client->sim;
    struct op *op = say(client, OP_DECLARE_QUEUE, number, AMQP_QUEUE_DECLARE_OK);
    struct model_queue *wanted = &op->queue_wanted;

    invent_queue(client, wanted->name);
    wanted->exclusive = wanted->name[0] == 'e';
    wanted->owner = wanted->exclusive ? client : NULL;
    wanted->life.durable = strcmp(wanted->name, "q4") != 0;
    wanted->auto_delete = strcmp(wanted->name, "q3") == 0 || strcmp(wanted->name, "q4") == 0;
    if (chance(sim, 3))
        wanted->auto_delete = !wanted->auto_delete;
    encode(client, number,
           &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                 .queue_declare = {.queue = slice_of_string(wanted->name),
                                                   .durable = wanted->life.durable,
                                                   .exclusive = wanted->exclusive,
                                                   .auto_delete = wanted->auto_delete}});
}

static void say_delete_queue(struct client *client, uint16_t number)
{
    struct op *op = say(client, OP_DELETE_QUEUE, number, AMQP_QUEUE_DELETE_OK);

    pick_queue(client, op->queue);
    encode(client, number,
           &(struct amqp_method){.id = AMQP_QUEUE_DELETE,
                                 .queue_delete.queue = slice_of_string(op->queue)});
}

static void say_purge(struct client *client, uint16_t number)
{
    struct op *op = say(client, OP_PURGE, number, AMQP_QUEUE_PURGE_OK);

    pick_queue(client, op->queue);
    encode(client, number,
           &(struct amqp_method){.id = AMQP_QUEUE_PURGE,
                                 .queue_purge.queue = slice_of_string(op->queue)});
}

static void say_declare_exchange(struct client *client, uint16_t number)
{
    static const char *const types[] = {"direct", "fanout", "topic"};
    struct op *op = say(client, OP_DECLARE_EXCHANGE, number, AMQP_EXCHANGE_DECLARE_OK);
    struct model_exchange *wanted = &op->exchange_wanted;

    const unsigned which = (unsigned)below(client->sim, 3);
    snprintf(wanted->name, sizeof(wanted->name), "x%u", which);
    wanted->type = (enum model_type)which;
    wanted->life.durable = which != 1;
    wanted->auto_delete = which == 2;
    encode(client, number,
           &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                 .exchange_declare = {.exchange = slice_of_string(wanted->name),
                                                      .type = slice_of_string(types[which]),
                                                      .durable = wanted->life.durable,
                                                      .auto_delete = wanted->auto_delete}});
}

static void say_delete_exchange(struct client *client, uint16_t number)
{
    struct op *op = say(client, OP_DELETE_EXCHANGE, number, AMQP_EXCHANGE_DELETE_OK);

    snprintf(op->exchange, sizeof(op->exchange), "x%u", (unsigned)below(client->sim, 3));
    encode(client, number,
           &(struct amqp_method){.id = AMQP_EXCHANGE_DELETE,
                                 .exchange_delete.exchange = slice_of_string(op->exchange)});
}

static void say_bind(struct client *client, uint16_t number)
{
    struct op *op = say(client, OP_BIND, number, AMQP_QUEUE_BIND_OK);

    pick_queue(client, op->queue);
    pick_exchange(client, op->exchange);
    pick_key(client, op->key, true);
    encode(client, number,
           &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                 .queue_bind = {.queue = slice_of_string(op->queue),
                                                .exchange = slice_of_string(op->exchange),
                                                .routing_key = slice_of_string(op->key)}});
}

static void say_unbind(struct client *client, uint16_t number)
{
    struct op *op = say(client, OP_UNBIND, number, AMQP_QUEUE_UNBIND_OK);

    pick_queue(client, op->queue);
    pick_exchange(client, op->exchange);
    pick_key(client, op->key, true);
    encode(client, number,
           &(struct amqp_method){.id = AMQP_QUEUE_UNBIND,
                                 .queue_unbind = {.queue = slice_of_string(op->queue),
                                                  .exchange = slice_of_string(op->exchange),
                                                  .routing_key = slice_of_string(op->key)}});
}

static uint32_t pick_size(struct sim *sim)
{
    if (chance(sim, 90))
        return MODEL_BODY_MIN + (uint32_t)below(sim, 200);
    return MODEL_BODY_MIN + (uint32_t)below(sim, chance(sim, 90) ? 12000 : 140000);
}

static void say_publish(struct client *client, uint16_t number)
{
    struct sim *sim = client->sim;
    struct sim_channel *channel = channel_of(client, number);
    struct op *op = say(client, OP_PUBLISH, number, 0);
    struct model_message *message = model_add_message(&sim->model);

    message->persistent = chance(sim, 75);
    message->mandatory = chance(sim, 30);
    message->size = pick_size(sim);
    if (chance(sim, 60)) {
        pick_queue(client, message->key);
    } else {
        pick_exchange(client, message->exchange);
        pick_key(client, message->key, false);
    }
    op->id = message->id;
    memcpy(op->exchange, message->exchange, sizeof(op->exchange));
    const uint32_t payload_max = client->frame_size_max - AMQP_FRAME_OVERHEAD;
    op->frames = 2 + (message->size + payload_max - 1) / payload_max;
    if (channel->mode == MODE_CONFIRM)
        buf_append(&channel->published,
                   slice_of(&(struct confirmable){.id = message->id}, sizeof(struct confirmable)));

    trace("%u.%u ▶ publish %u%s%s to '%s' '%s', %u octets", client->serial, number, message->id,
          message->persistent ? " persistent" : "", message->mandatory ? " mandatory" : "",
          message->exchange, message->key, message->size);
    uint8_t *body = xmalloc(message->size);
    model_write_body(message, body);
    amqp_client_publish(
        &client->out, number, client->frame_size_max,
        &(struct amqp_client_message){.exchange = slice_of_string(message->exchange),
                                      .routing_key = slice_of_string(message->key),
                                      .properties = message->persistent ? SLICE("\x10\x00\x02")
                                                                        : SLICE("\x00\x00"),
                                      .body = slice_of(body, message->size),
                                      .mandatory = message->mandatory});
    free(body);
}

static void say_consume(struct client *client, uint16_t number)
{
    struct sim_channel *channel = channel_of(client, number);
    struct op *op = say(client, OP_CONSUME, number, AMQP_BASIC_CONSUME_OK);
    struct taker *taker = xcalloc(1, sizeof(*taker));

    pick_queue(client, op->queue);
    op->taker = taker;
    snprintf(taker->tag, sizeof(taker->tag), "c%u", channel->next_tag++);
    taker->no_ack = chance(client->sim, 25);
    taker->exclusive = chance(client->sim, 4);
    taker->prefetch = channel->prefetch;
    TAILQ_INSERT_TAIL(&channel->takers, taker, link);
    encode(client, number,
           &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                                 .basic_consume = {.queue = slice_of_string(op->queue),
                                                   .consumer_tag = slice_of_string(taker->tag),
                                                   .no_ack = taker->no_ack,
                                                   .exclusive = taker->exclusive}});
}

static struct taker *pick_taker(struct client *client, struct sim_channel *channel)
{
    struct taker *taker, *picked = NULL;
    size_t count = 0;

    TAILQ_FOREACH (taker, &channel->takers, link)
        if (taker->active && below(client->sim, ++count) == 0)
            picked = taker;
    return picked;
}

static void say_cancel(struct client *client, uint16_t number)
{
    struct taker *taker = pick_taker(client, channel_of(client, number));

    if (taker == NULL)
        return;
    say(client, OP_CANCEL, number, AMQP_BASIC_CANCEL_OK)->taker = taker;
    encode(client, number,
           &(struct amqp_method){.id = AMQP_BASIC_CANCEL,
                                 .basic_cancel.consumer_tag = slice_of_string(taker->tag)});
}

static void say_get(struct client *client, uint16_t number)
{
    struct op *op = say(client, OP_GET, number, AMQP_BASIC_GET_OK);

    pick_queue(client, op->queue);
    op->no_ack = chance(client->sim, 30);
    encode(client, number,
           &(struct amqp_method){
               .id = AMQP_BASIC_GET,
               .basic_get = {.queue = slice_of_string(op->queue), .no_ack = op->no_ack}});
}

static void encode_settle(struct client *client, const struct op *op)
{
    const bool requeue = op->how == SETTLE_BY_REQUEUE;
    struct amqp_method method = {0};

    if (op->how == SETTLE_BY_ACK) {
        method.id = AMQP_BASIC_ACK;
        method.basic_ack.delivery_tag = op->tag;
        method.basic_ack.multiple = op->multiple;
    } else if (op->multiple || op->tag % 2 == 0) {
        method.id = AMQP_BASIC_NACK;
        method.basic_nack.delivery_tag = op->tag;
        method.basic_nack.multiple = op->multiple;
        method.basic_nack.requeue = requeue;
    } else {
        method.id = AMQP_BASIC_REJECT;
        method.basic_reject.delivery_tag = op->tag;
        method.basic_reject.requeue = requeue;
    }
    trace("%u.%u settles %" PRIu64 "%s", client->serial, op->channel, op->tag,
          op->multiple ? " and all before" : "");
    encode(client, op->channel, &method);
}

static void say_settle(struct client *client, uint16_t number)
{
    struct sim *sim = client->sim;
    struct sim_channel *channel = channel_of(client, number);
    const struct unacked *picked = NULL;
    size_t count = 0;

    for (size_t i = 0; i < unacked_count(channel); i++)
        if (!unacked_at(channel, i)->settling && below(sim, ++count) == 0)
            picked = unacked_at(channel, i);
    if (picked == NULL || channel->recovering > 0)
        return;
    struct op *op = say(client, OP_SETTLE, number, 0);
    op->tag = chance(sim, 1) ? channel->last_tag + 1000 : picked->tag;
    op->multiple = chance(sim, 30);
    op->how = chance(sim, 70)   ? SETTLE_BY_ACK
              : chance(sim, 50) ? SETTLE_BY_REQUEUE
                                : SETTLE_BY_DROP;
    for (size_t i = 0; i < unacked_count(channel); i++) {
        struct unacked *unacked = unacked_at(channel, i);
        if (unacked->tag == op->tag || (op->multiple && unacked->tag < op->tag))
            unacked->settling = true;
    }
    encode_settle(client, op);
}

static void say_recover(struct client *client, uint16_t number)
{
    channel_of(client, number)->recovering++;
    say(client, OP_RECOVER, number, AMQP_BASIC_RECOVER_OK);
    encode(client, number,
           &(struct amqp_method){.id = AMQP_BASIC_RECOVER, .basic_recover.requeue = true});
}

static void say_commit(struct client *client, uint16_t number)
{
    if (channel_of(client, number)->mode != MODE_TX)
        return;
    const bool commit = chance(client->sim, 85);
    say(client, commit ? OP_COMMIT : OP_ROLLBACK, number,
        commit ? AMQP_TX_COMMIT_OK : AMQP_TX_ROLLBACK_OK);
    encode(client, number, &(struct amqp_method){.id = commit ? AMQP_TX_COMMIT : AMQP_TX_ROLLBACK});
}

static void say_close(struct client *client, uint16_t number)
{
    channel_of(client, number)->use = CHANNEL_ENDING;
    say(client, OP_CLOSE, number, AMQP_CHANNEL_CLOSE_OK);
    encode(client, number, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE});
}

void client_close(struct client *client)
{
    if (!client->open || client->closing)
        return;
    client->closing = true;
    say(client, OP_CLOSE_CONNECTION, 0, 0);
    encode(client, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE});
}

static void say_garbage(struct client *client)
{
    client->closing = true;
    say(client, OP_GARBAGE, 0, 0);
    trace("%u ▶ garbage", client->serial);
    buf_append(&client->out, SLICE("\x01\x00\x00\x00\x00\x00\x01\xffX"));
}

/* On a channel that was never opened. */
static void say_on_wrong_channel(struct client *client)
{
    client->closing = true;
    say(client, OP_WRONG_CHANNEL, 0, 0);
    encode(client, CLIENT_CHANNELS + 1, &(struct amqp_method){.id = AMQP_TX_SELECT});
}

static void act_on_channel(struct client *client, uint16_t number)
{
    static const struct {
        unsigned weight;
        void (*say)(struct client *client, uint16_t number);
    } acts[] = {
        {300, say_publish},
        {250, say_settle},
        {60, say_declare_queue},
        {60, say_consume},
        {60, say_get},
        {40, say_bind},
        {40, say_commit},
        {20, say_cancel},
        {15, say_declare_exchange},
        {10, say_purge},
        {10, say_unbind},
        {10, say_close},
        {8, say_recover},
        {6, say_delete_exchange},
        {6, say_delete_queue},
    };
    unsigned total = 0, i = 0;

    for (size_t n = 0; n < countof(acts); n++)
        total += acts[n].weight;
    uint64_t left = below(client->sim, total);
    for (; left >= acts[i].weight; i++)
        left -= acts[i].weight;
    acts[i].say(client, number);
}

void client_act(struct client *client)
{
    const uint16_t number = (uint16_t)(1 + below(client->sim, CLIENT_CHANNELS));

    if (!client->open || client->closing || client->broken)
        return;
    if (below(client->sim, 2000) == 0)
        say_garbage(client);
    else if (below(client->sim, 2000) == 0)
        say_on_wrong_channel(client);
    else if (channel_of(client, number)->use == CHANNEL_FREE)
        open_channel(client, number);
    else if (channel_of(client, number)->use == CHANNEL_USED)
        act_on_channel(client, number);
}

void client_flush(struct client *client, size_t size)
{
    size = min_of(size, buf_size(&client->out));
    if (size == 0 || client->broken || client->peer->memory.closed)
        return;
    memory_transport_send(&client->peer->memory, slice_of(buf_slice(&client->out).data, size));
    buf_consume(&client->out, size);
}

void client_break(struct client *client, bool orderly)
{
    if (client->broken || client->peer->memory.closed)
        return;
    client->broken = true;
    if (orderly)
        memory_transport_end(&client->peer->memory);
    else
        memory_transport_break(&client->peer->memory, ECONNRESET);
}

void client_free(struct client **client_)
{
    struct client *client = *client_;
    *client_ = NULL;

    TAILQ_REMOVE(&client->sim->clients, client, link);
    for (size_t i = 0; i < CLIENT_CHANNELS; i++)
        reset_channel(&client->channels[i]);
    free_ops(&client->sent);
    buf_release(&client->out);
    buf_release(&client->properties);
    buf_release(&client->body);
    free(client);
}

/* ---- reading ---- */

static struct op *take_awaited(struct client *client, uint16_t number, uint32_t id)
{
    struct sim_channel *channel = channel_of(client, number);
    struct op *op = STAILQ_FIRST(&channel->awaiting);

    check(op != NULL && op->reply == id, "%u.%u did not expect %s", client->serial, number,
          amqp_method_info(id)->name);
    STAILQ_REMOVE_HEAD(&channel->awaiting, link);
    const struct store *store = client->sim->harness.store;
    const uint64_t durable = op->puts ? store_durable_entries(store) : store_durable(store);
    check(op->lsn <= durable || op->lsn <= client->sim->model.empty_lsn,
          "%u.%u: %s came, is about batch %" PRIu64 ", and %" PRIu64 " is durable", client->serial,
          number, amqp_method_info(id)->name, op->lsn, durable);
    return op;
}

static void on_reply(struct client *client, uint16_t number, const struct amqp_method *method)
{
    struct sim_channel *channel = channel_of(client, number);
    struct op *op = take_awaited(client, number, method->id);

    if (op->kind == OP_PURGE)
        check(op->count == method->queue_purge_ok.message_count,
              "%u.%u: %u messages were purged, and purge-ok says %u", client->serial, number,
              op->count, method->queue_purge_ok.message_count);
    const uint32_t *ids = (const uint32_t *)(void *)op->committed.data;
    for (size_t i = 0; i < buf_size(&op->committed) / sizeof(*ids); i++)
        model_check_stored(&client->sim->model, ids[i]);
    if (op->kind == OP_CANCEL)
        op->taker->over = true;
    if (op->kind == OP_RECOVER) {
        channel->recovering--;
        forget_unacked(channel, true);
    }
    if (op->kind == OP_CLOSE)
        channel->use = CHANNEL_FREE;
    free_op(&op);
}

static void confirm(struct client *client, uint16_t number, uint64_t publish)
{
    struct model *model = &client->sim->model;
    struct confirmable *confirmable = published_at(channel_of(client, number), publish - 1);
    const struct model_message *message = &model->messages[confirmable->id];

    confirmable->confirmed = true;
    client->sim->confirmed++;
    check(message->routed && (!message->mandatory || !message->unwanted || message->returned),
          "message %u is confirmed and was not returned", message->id);
    model_check_stored(model, message->id);
}

static void on_confirm(struct client *client, uint16_t number, const struct amqp_basic_ack *ack)
{
    struct sim_channel *channel = channel_of(client, number);
    const uint64_t last = ack->delivery_tag;

    check(last >= 1 && last <= channel->publishes && last <= published_count(channel),
          "%u.%u has not published number %" PRIu64, client->serial, number, last);
    check(!published_at(channel, last - 1)->confirmed,
          "%u.%u: number %" PRIu64 " is confirmed twice", client->serial, number, last);
    for (uint64_t publish = ack->multiple ? 1 : last; publish <= last; publish++)
        if (!published_at(channel, publish - 1)->confirmed)
            confirm(client, number, publish);
}

static void on_channel_closed(struct client *client, uint16_t number)
{
    struct sim_channel *channel = channel_of(client, number);
    const struct op *next = STAILQ_FIRST(&channel->awaiting);

    check(!channel->live, "%u.%u was closed without a reason", client->serial, number);
    check(next == NULL || next->kind == OP_CLOSE, "%u.%u was closed and not answered before",
          client->serial, number);
    if (channel->use == CHANNEL_USED)
        channel->use = CHANNEL_FREE;
    say(client, OP_CLOSE_OK, number, 0);
    encode(client, number, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
}

static void on_connection_method(struct client *client, uint32_t id)
{
    switch (id) {
    case AMQP_CONNECTION_START:
    case AMQP_CONNECTION_TUNE:
        return;
    case AMQP_CONNECTION_OPEN_OK:
        client->open = true;
        return;
    case AMQP_CONNECTION_CLOSE:
        check(client->ended, "client %u was thrown out without a reason", client->serial);
        client->closing = true;
        say(client, OP_CLOSE_OK_CONNECTION, 0, 0);
        encode(client, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
        if (!client->peer->memory.closed && connection_of(client)->state == CONNECTION_LINGER)
            client_break(client, true);
        return;
    case AMQP_CONNECTION_CLOSE_OK:
        client_break(client, true);
        return;
    default:
        trace_fail("client %u did not expect %s", client->serial, amqp_method_info(id)->name);
    }
}

static void begin_content(struct client *client, uint16_t number, const struct amqp_method *method,
                          struct slice tag, struct slice exchange, struct slice key)
{
    client->content = *method;
    client->content_channel = number;
    client->has_header = false;
    copy_name(client->content_tag, tag);
    copy_name(client->content_exchange, exchange);
    copy_name(client->content_key, key);
}

static void on_cancelled(struct client *client, uint16_t number, struct slice tag)
{
    char name[MODEL_NAME];
    copy_name(name, tag);
    struct taker *taker = find_taker(channel_of(client, number), name);
    check(taker != NULL && !taker->active, "%u.%u: consumer %s is cancelled without a reason",
          client->serial, number, name);
    taker->over = true;
}

static void on_method(struct client *client, uint16_t number, const struct amqp_method *method)
{
    const struct amqp_basic_deliver *deliver = &method->basic_deliver;
    const struct amqp_basic_get_ok *got = &method->basic_get_ok;
    const struct amqp_basic_return *returned = &method->basic_return;

    if (number == 0) {
        on_connection_method(client, method->id);
        return;
    }
    check(channel_of(client, number)->use != CHANNEL_FREE, "%u.%u is closed, and %s came",
          client->serial, number, amqp_method_info(method->id)->name);
    switch (method->id) {
    case AMQP_BASIC_DELIVER:
        begin_content(client, number, method, deliver->consumer_tag, deliver->exchange,
                      deliver->routing_key);
        return;
    case AMQP_BASIC_GET_OK:
        begin_content(client, number, method, SLICE(""), got->exchange, got->routing_key);
        return;
    case AMQP_BASIC_RETURN:
        begin_content(client, number, method, SLICE(""), returned->exchange, returned->routing_key);
        return;
    case AMQP_BASIC_GET_EMPTY: {
        struct op *op = take_awaited(client, number, AMQP_BASIC_GET_OK);
        leave_get(op);
        free_op(&op);
        return;
    }
    case AMQP_BASIC_ACK:
        on_confirm(client, number, &method->basic_ack);
        return;
    case AMQP_BASIC_CANCEL:
        on_cancelled(client, number, method->basic_cancel.consumer_tag);
        return;
    case AMQP_CHANNEL_CLOSE:
        on_channel_closed(client, number);
        return;
    default:
        on_reply(client, number, method);
    }
}

/* A message has come: it is one that was published, unchanged. */
static struct model_message *check_content(struct client *client)
{
    struct model *model = &client->sim->model;
    const struct slice body = buf_slice(&client->body);

    check(body.size >= MODEL_BODY_MIN, "a body of %zu octets came", body.size);
    const uint32_t id = amqp_get_u32(body.data);
    check(id >= 1 && id <= model->message_count, "message %u was invented", id);
    struct model_message *message = &model->messages[id];
    uint8_t *expected = xmalloc(message->size);
    model_write_body(message, expected);
    check(slice_equal(body, slice_of(expected, message->size)), "message %u has changed", id);
    free(expected);
    check(strcmp(message->exchange, client->content_exchange) == 0 &&
              strcmp(message->key, client->content_key) == 0 &&
              slice_equal(buf_slice(&client->properties),
                          message->persistent ? SLICE("\x10\x00\x02") : SLICE("\x00\x00")),
          "message %u has lost its exchange, routing key or properties", id);
    return message;
}

/* One entry has come out of a queue. */
static void check_delivery(struct client *client, struct model_queue *queue,
                           const struct model_message *message, bool no_ack, bool redelivered)
{
    const struct sim_channel *channel = channel_of(client, client->content_channel);
    struct model_entry *entry = model_find_entry(queue, message->id);

    client->sim->delivered++;
    if (queue->life.ended || !channel->live || channel->recovering > 0)
        return; /* it was on its way, and may be elsewhere by now */
    check(entry != NULL, "message %u came from queue %s, where it was not", message->id,
          queue->name);
    check(redelivered || !entry->seen, "message %u from queue %s came twice", message->id,
          queue->name);
    check(no_ack ? entry->in_flight : !entry->life.ended,
          "message %u from queue %s came at a wrong time", message->id, queue->name);
    entry->seen = true;
    entry->in_flight = false;
}

static void note_unacked(struct client *client, struct model_queue *queue, struct taker *taker,
                         uint32_t id, uint64_t tag)
{
    struct sim_channel *channel = channel_of(client, client->content_channel);
    const struct unacked unacked = {.tag = tag,
                                    .id = id,
                                    .queue = queue,
                                    .taker = taker,
                                    .read_while_recovering = channel->recovering > 0};
    size_t by_takers = 0;

    buf_append(&channel->unacked, slice_of(&unacked, sizeof(unacked)));
    if (taker == NULL || channel->recovering > 0)
        return;
    taker->unacked++;
    check(taker->prefetch == 0 || taker->unacked <= taker->prefetch,
          "%u.%u: consumer %s has %u unacked messages of %u", client->serial,
          client->content_channel, taker->tag, taker->unacked, taker->prefetch);
    for (size_t i = 0; i < unacked_count(channel); i++)
        by_takers += unacked_at(channel, i)->taker != NULL;
    check(channel->global_prefetch == 0 || by_takers <= channel->global_prefetch,
          "%u.%u has %zu unacked messages of %u", client->serial, client->content_channel,
          by_takers, channel->global_prefetch);
}

static void check_tag(struct client *client, uint64_t tag)
{
    struct sim_channel *channel = channel_of(client, client->content_channel);

    check(tag == channel->last_tag + 1, "%u.%u: delivery tag %" PRIu64 " after %" PRIu64,
          client->serial, client->content_channel, tag, channel->last_tag);
    channel->last_tag = tag;
}

/* New entries come in order. */
static void check_order(struct client *client, struct taker *taker, uint32_t id)
{
    const struct model_entry *entry = model_find_entry(taker->queue, id);

    if (entry == NULL)
        return;
    check(entry->number >= taker->next_new, "message %u of queue %s came to %u.%u out of order", id,
          taker->queue->name, client->serial, client->content_channel);
    taker->next_new = entry->number + 1;
}

static void on_delivery(struct client *client, const struct model_message *message)
{
    const struct amqp_basic_deliver *deliver = &client->content.basic_deliver;
    struct sim_channel *channel = channel_of(client, client->content_channel);
    struct taker *taker = find_taker(channel, client->content_tag);

    check(taker != NULL && taker->queue != NULL && !taker->over,
          "%u.%u has no consumer %s, and something came for it", client->serial,
          client->content_channel, client->content_tag);
    check_tag(client, deliver->delivery_tag);
    check_delivery(client, taker->queue, message, taker->no_ack, deliver->redelivered);
    if (!deliver->redelivered)
        check_order(client, taker, message->id);
    if (!taker->no_ack)
        note_unacked(client, taker->queue, taker, message->id, deliver->delivery_tag);
}

static void on_got(struct client *client, const struct model_message *message)
{
    const struct amqp_basic_get_ok *got = &client->content.basic_get_ok;
    struct op *op = take_awaited(client, client->content_channel, AMQP_BASIC_GET_OK);

    check_tag(client, got->delivery_tag);
    check_delivery(client, op->on, message, op->no_ack, got->redelivered);
    if (!op->no_ack)
        note_unacked(client, op->on, NULL, message->id, got->delivery_tag);
    leave_get(op);
    free_op(&op);
}

static void on_content(struct client *client)
{
    struct model_message *message = check_content(client);

    trace("%u.%u ◀ message %u%s", client->serial, client->content_channel, message->id,
          client->content.id == AMQP_BASIC_RETURN ? " returned" : "");
    if (client->content.id == AMQP_BASIC_DELIVER) {
        on_delivery(client, message);
    } else if (client->content.id == AMQP_BASIC_GET_OK) {
        on_got(client, message);
    } else {
        check(message->mandatory && message->unwanted && !message->returned,
              "message %u was returned without a reason", message->id);
        message->returned = true;
        client->sim->returned++;
    }
    client->content.id = 0;
}

static void on_content_frame(struct client *client, const struct amqp_frame *frame)
{
    struct amqp_error error;
    struct amqp_content_header header;

    check(frame->channel == client->content_channel, "content of two channels is mixed");
    if (!client->has_header) {
        check(frame->type == AMQP_FRAME_HEADER &&
                  amqp_content_header_decode(frame->payload, &header, &error),
              "a bad content header came");
        client->has_header = true;
        client->body_size = header.body_size;
        buf_clear(&client->properties);
        buf_clear(&client->body);
        buf_append(&client->properties, header.properties);
    } else {
        check(frame->type == AMQP_FRAME_BODY &&
                  frame->payload.size <= client->frame_size_max - AMQP_FRAME_OVERHEAD,
              "a bad body frame came");
        buf_append(&client->body, frame->payload);
    }
    check(buf_size(&client->body) <= client->body_size, "a body is longer than announced");
    if (buf_size(&client->body) == client->body_size)
        on_content(client);
}

/* The broker has no more to say than this; what it had begun to say it need not end. */
static bool is_last_word(const struct amqp_frame *frame)
{
    if (frame->channel != 0 || frame->type != AMQP_FRAME_METHOD || frame->payload.size < 4)
        return false;
    const uint32_t id = amqp_get_u32(frame->payload.data);
    return id == AMQP_CONNECTION_CLOSE || id == AMQP_CONNECTION_CLOSE_OK;
}

void client_read(struct client *client)
{
    struct amqp_frame frame;
    struct amqp_method method;
    struct amqp_error error;

    while (!client->broken && peer_next(client->peer, &frame)) {
        client->sim->reads++;
        if (client->content.id != 0 && is_last_word(&frame))
            client->content.id = 0;
        if (client->content.id != 0) {
            on_content_frame(client, &frame);
            continue;
        }
        check(frame.type == AMQP_FRAME_METHOD && amqp_method_decode(frame.payload, &method, &error),
              "client %u cannot read a frame of type %u", client->serial, frame.type);
        trace("%u.%u ◀ %s", client->serial, frame.channel, amqp_method_info(method.id)->name);
        on_method(client, frame.channel, &method);
    }
}

/* ---- when nothing moves ---- */

void client_check_idle(struct client *client)
{
    check(client->sent_count == 0, "the broker has not acted on all that client %u said",
          client->serial);
    for (uint16_t i = 0; i < CLIENT_CHANNELS; i++) {
        const struct sim_channel *channel = &client->channels[i];
        check(STAILQ_EMPTY(&channel->awaiting), "%u.%u was not answered", client->serial, i + 1);
        if (channel->live && channel->mode == MODE_CONFIRM)
            for (size_t n = 0; n < published_count(channel); n++)
                check(published_at(channel, n)->confirmed, "message %u was not confirmed",
                      published_at(channel, n)->id);
    }
}

static bool could_take(const struct sim_channel *channel, const struct taker *taker)
{
    size_t by_takers = 0;

    for (size_t i = 0; i < unacked_count(channel); i++)
        by_takers += unacked_at(channel, i)->taker != NULL;
    return taker->active &&
           (taker->no_ack ||
            ((taker->prefetch == 0 || taker->unacked < taker->prefetch) &&
             (channel->global_prefetch == 0 || by_takers < channel->global_prefetch)));
}

static uint64_t check_takers(struct client *client, const struct model_queue *queue, bool ready)
{
    uint64_t unacked = 0;
    const struct taker *taker;

    for (size_t i = 0; i < CLIENT_CHANNELS; i++) {
        const struct sim_channel *channel = &client->channels[i];
        TAILQ_FOREACH (taker, &channel->takers, link)
            check(!ready || taker->queue != queue || !could_take(channel, taker),
                  "queue %s does not deliver to %u.%zu", queue->name, client->serial, i + 1);
        for (size_t n = 0; channel->live && n < unacked_count(channel); n++)
            unacked += unacked_at(channel, n)->queue == queue;
    }
    return unacked;
}

void clients_check_queues(struct sim *sim)
{
    struct vhost *vhost = vhost_find(&sim->harness.broker, SLICE("/"));
    struct model_queue *queue;
    struct client *client;

    model_compare(&sim->model);
    TAILQ_FOREACH (queue, &sim->model.queues, link) {
        if (queue->life.ended)
            continue;
        const struct queue *real = container_of(
            map_find(&vhost->queues, slice_of_string(queue->name)), struct queue, by_name);
        uint64_t unacked = 0;
        TAILQ_FOREACH (client, &sim->clients, link)
            unacked += check_takers(client, queue, real->window.ready_count > 0);
        check(unacked == real->window.unacked_count,
              "queue %s counts %" PRIu64 " unacked messages, and its clients have %" PRIu64,
              queue->name, real->window.unacked_count, unacked);
    }
}
