/* The permission matrix: every method that names a resource, on every kind of resource, under every
 * set of permissions, against what the rules say (section 16). A row says what its method needs, in
 * the words of the rule; the broker's own table is not looked at.
 *
 * Each row is tried with all 64 sets of rights on two names, so that a right that the rule does not
 * ask for must not help, and every one that it asks for must be there. */
#include "amqp/client.h"
#include "amqp/table.h"
#include "core/account.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

enum { CONFIGURE = 1, WRITE = 2, READ = 4, RIGHTS = 8, OTHER = 8 }; /* OTHER: shifted by 3 */

#define OF_OTHER(right) ((right) << 3)

/* What is there before. s is the subject, o the other name. */
enum {
    S_EXCHANGE = 1,
    O_EXCHANGE = 2,
    S_QUEUE = 4,
    S_INTERNAL = 8, /* the exchange s is */
    S_OTHERS = 16,  /* the queue s is exclusive to another connection */
    S_OWN = 32,     /* the queue s is exclusive to this one */
    BOUND = 64,     /* s to o */
    O_TOPIC = 128,  /* the exchange o is of that type */
};

struct row {
    const char *what;
    unsigned there;
    uint32_t method;
    unsigned needs[3]; /* one right each, in the order in which they are asked for */
    bool any;          /* one of those of s is enough */
    uint32_t reply;    /* when allowed; 0: none */
    uint16_t code;     /* or the channel is closed with this code */
    bool passive, to_exchange;
    const char *s, *o; /* names, "s" and "o" when NULL */
    const char *shown; /* s in texts, when it is shown by another name */
    const char *arguments;
};

#define X_DECLARE .method = AMQP_EXCHANGE_DECLARE, .reply = AMQP_EXCHANGE_DECLARE_OK
#define X_DELETE  .method = AMQP_EXCHANGE_DELETE, .reply = AMQP_EXCHANGE_DELETE_OK
#define X_BIND    .method = AMQP_EXCHANGE_BIND, .reply = AMQP_EXCHANGE_BIND_OK, .to_exchange = true
#define X_UNBIND                                                                                   \
    .method = AMQP_EXCHANGE_UNBIND, .reply = AMQP_EXCHANGE_UNBIND_OK, .to_exchange = true
#define Q_DECLARE    .method = AMQP_QUEUE_DECLARE, .reply = AMQP_QUEUE_DECLARE_OK
#define Q_DELETE     .method = AMQP_QUEUE_DELETE, .reply = AMQP_QUEUE_DELETE_OK
#define Q_BIND       .method = AMQP_QUEUE_BIND, .reply = AMQP_QUEUE_BIND_OK
#define Q_UNBIND     .method = AMQP_QUEUE_UNBIND, .reply = AMQP_QUEUE_UNBIND_OK
#define Q_PURGE      .method = AMQP_QUEUE_PURGE, .reply = AMQP_QUEUE_PURGE_OK
#define GET          .method = AMQP_BASIC_GET, .reply = AMQP_BASIC_GET_EMPTY
#define CONSUME      .method = AMQP_BASIC_CONSUME, .reply = AMQP_BASIC_CONSUME_OK
#define PUBLISH      .method = AMQP_BASIC_PUBLISH
#define ONE_OF_THREE .any = true, .needs = {CONFIGURE, WRITE, READ}

static const struct row rows[] = {
    {"a new exchange", 0, X_DECLARE, .needs = {CONFIGURE}},
    {"an exchange again", S_EXCHANGE, X_DECLARE, .needs = {CONFIGURE}},
    {"a new exchange with an alternate", O_EXCHANGE, X_DECLARE,
     .needs = {CONFIGURE, READ, OF_OTHER(WRITE)}, .arguments = "alternate-exchange=So"},
    {"a new exchange with an absent alternate", 0, X_DECLARE,
     .needs = {CONFIGURE, READ, OF_OTHER(WRITE)}, .arguments = "alternate-exchange=So"},
    {"an exchange of a reserved name", 0, X_DECLARE, .needs = {CONFIGURE}, .s = "amq.s",
     .code = 403},
    {"a predeclared exchange again", 0, X_DECLARE, .needs = {CONFIGURE}, .s = "amq.fanout"},
    {"an exchange, passively", S_EXCHANGE, X_DECLARE, ONE_OF_THREE, .passive = true},
    {"a predeclared exchange, passively", 0, X_DECLARE, ONE_OF_THREE, .passive = true,
     .s = "amq.topic"},
    {"an internal exchange, passively", S_EXCHANGE | S_INTERNAL, X_DECLARE, ONE_OF_THREE,
     .passive = true},
    {"an absent exchange, passively", 0, X_DECLARE, ONE_OF_THREE, .passive = true, .code = 404},
    {"deleting an exchange", S_EXCHANGE, X_DELETE, .needs = {CONFIGURE}},
    {"deleting an absent exchange", 0, X_DELETE, .needs = {CONFIGURE}},
    {"deleting a predeclared exchange", 0, X_DELETE, .needs = {CONFIGURE}, .s = "amq.direct",
     .code = 403},
    {"binding exchanges", S_EXCHANGE | O_EXCHANGE, X_BIND, .needs = {WRITE, OF_OTHER(READ)}},
    {"binding an internal exchange", S_EXCHANGE | O_EXCHANGE | S_INTERNAL, X_BIND,
     .needs = {WRITE, OF_OTHER(READ)}},
    {"binding to an absent exchange", S_EXCHANGE, X_BIND, .needs = {WRITE, OF_OTHER(READ)},
     .code = 404},
    {"unbinding exchanges", S_EXCHANGE | O_EXCHANGE | BOUND, X_UNBIND,
     .needs = {WRITE, OF_OTHER(READ)}},
    {"unbinding absent exchanges", 0, X_UNBIND, .needs = {WRITE, OF_OTHER(READ)}},

    {"a new queue", 0, Q_DECLARE, .needs = {CONFIGURE}},
    {"a queue again", S_QUEUE, Q_DECLARE, .needs = {CONFIGURE}},
    {"a new queue with dead letters", O_EXCHANGE, Q_DECLARE,
     .needs = {CONFIGURE, READ, OF_OTHER(WRITE)}, .arguments = "x-dead-letter-exchange=So"},
    {"a new queue with an absent dead letter exchange", 0, Q_DECLARE,
     .needs = {CONFIGURE, READ, OF_OTHER(WRITE)}, .arguments = "x-dead-letter-exchange=So"},
    {"a new queue with dead letters to a queue", 0, Q_DECLARE,
     .needs = {CONFIGURE, READ, OF_OTHER(WRITE)}, .arguments = "x-dead-letter-exchange=S",
     .o = "amq.default"},
    {"a queue of a reserved name", 0, Q_DECLARE, .needs = {CONFIGURE}, .s = "amq.s", .code = 403},
    {"a queue of another connection", S_OTHERS, Q_DECLARE, .needs = {CONFIGURE}, .code = 405},
    {"a queue, passively", S_QUEUE, Q_DECLARE, ONE_OF_THREE, .passive = true},
    {"an absent queue, passively", 0, Q_DECLARE, ONE_OF_THREE, .passive = true, .code = 404},
    {"a queue of another connection, passively", S_OTHERS, Q_DECLARE, ONE_OF_THREE, .passive = true,
     .code = 405},
    {"deleting a queue", S_QUEUE, Q_DELETE, .needs = {CONFIGURE}},
    {"deleting an absent queue", 0, Q_DELETE, .needs = {CONFIGURE}},
    {"deleting a queue of another connection", S_OTHERS, Q_DELETE, .needs = {CONFIGURE},
     .code = 405},
    {"deleting a queue of one's own", S_OWN, Q_DELETE, .needs = {CONFIGURE}},
    {"binding a queue", S_QUEUE | O_EXCHANGE, Q_BIND, .needs = {WRITE, OF_OTHER(READ)}},
    {"binding a queue to a topic exchange", S_QUEUE | O_EXCHANGE | O_TOPIC, Q_BIND,
     .needs = {WRITE, OF_OTHER(READ)}},
    {"binding a queue to a predeclared exchange", S_QUEUE, Q_BIND, .needs = {WRITE, OF_OTHER(READ)},
     .o = "amq.headers"},
    {"binding a queue to the trace", S_QUEUE, Q_BIND, .needs = {WRITE, OF_OTHER(READ)},
     .o = "amq.rabbitmq.trace"},
    {"binding an absent queue", O_EXCHANGE, Q_BIND, .needs = {WRITE, OF_OTHER(READ)}, .code = 404},
    {"binding a queue of another connection", S_OTHERS | O_EXCHANGE, Q_BIND,
     .needs = {WRITE, OF_OTHER(READ)}, .code = 405},
    {"binding a queue of one's own", S_OWN | O_EXCHANGE, Q_BIND, .needs = {WRITE, OF_OTHER(READ)}},
    {"unbinding a queue", S_QUEUE | O_EXCHANGE | BOUND, Q_UNBIND, .needs = {WRITE, OF_OTHER(READ)}},
    {"unbinding what is absent", 0, Q_UNBIND, .needs = {WRITE, OF_OTHER(READ)}},
    {"purging", S_QUEUE, Q_PURGE, .needs = {READ}},
    {"purging a queue of another connection", S_OTHERS, Q_PURGE, .needs = {READ}, .code = 405},
    {"purging an absent queue", 0, Q_PURGE, .needs = {READ}, .code = 404},
    {"getting", S_QUEUE, GET, .needs = {READ}},
    {"getting from an absent queue", 0, GET, .needs = {READ}, .code = 404},
    {"getting from a queue of one's own", S_OWN, GET, .needs = {READ}},
    {"getting from a queue of another connection", S_OTHERS, GET, .needs = {READ}, .code = 405},
    {"consuming", S_QUEUE, CONSUME, .needs = {READ}},
    {"consuming from an absent queue", 0, CONSUME, .needs = {READ}, .code = 404},
    {"consuming from a queue of one's own", S_OWN, CONSUME, .needs = {READ}},
    {"consuming from a queue of another connection", S_OTHERS, CONSUME, .needs = {READ},
     .code = 405},
    {"publishing", S_EXCHANGE, PUBLISH, .needs = {WRITE}},
    {"publishing to a predeclared exchange", 0, PUBLISH, .needs = {WRITE}, .s = "amq.match"},
    {"publishing to an internal exchange", S_EXCHANGE | S_INTERNAL, PUBLISH, .needs = {WRITE},
     .code = 403},
    {"publishing to an absent exchange", 0, PUBLISH, .needs = {WRITE}, .code = 404},
    {"publishing to a queue", S_QUEUE, PUBLISH, .needs = {WRITE}, .s = "", .shown = "amq.default"},
};

static struct harness harness;
static struct peer *peer, *stranger;

static void set_up(void)
{
    harness_init(&harness, NULL);
    harness_add_user(&harness, "stoat", "secret");
    harness_permit(&harness, "stoat", "/", "", "", "");
    peer = peer_open_as(&harness, "stoat", "secret", "/");
    stranger = peer_open_channel(&harness);
}

static void tear_down(void)
{
    harness_release(&harness);
}

static struct vhost *vhost(void)
{
    return vhost_find(&harness.broker, SLICE("/"));
}

/* ---- one cell ---- */

static void permit(unsigned rights, const char *s, const char *o)
{
    char patterns[3][600];

    for (int i = 0; i < 3; i++) {
        const bool of_s = rights & (1u << i), of_o = rights & OF_OTHER(1u << i);
        snprintf(patterns[i], sizeof(patterns[i]), "%s%s%s%s%s%s%s", of_s ? "^\\Q" : "",
                 of_s ? s : "", of_s ? "\\E$" : "", of_s && of_o ? "|" : "", of_o ? "^\\Q" : "",
                 of_o ? o : "", of_o ? "\\E$" : "");
    }
    harness_permit(&harness, "stoat", "/", patterns[0], patterns[1], patterns[2]);
}

static void make_exchange(const char *name, const char *type, bool internal)
{
    const struct exchange_options options = {
        .name = slice_of_string(name), .type = slice_of_string(type), .internal = internal};
    struct amqp_error error;
    uint64_t lsn;

    ck_assert_ptr_nonnull(vhost_declare_exchange(vhost(), &options, NULL, &lsn, &error));
}

static void make_queue(struct queue_owner *owner)
{
    const struct queue_options options = {.name = SLICE("s"), .owner = owner};
    struct amqp_error error;
    uint64_t lsn;

    ck_assert_ptr_nonnull(vhost_declare_queue(vhost(), &options, NULL, &lsn, &error));
}

static void make(const struct row *row)
{
    const unsigned there = row->there;
    struct amqp_error error;
    uint64_t lsn;

    if (there & S_EXCHANGE)
        make_exchange("s", "fanout", there & S_INTERNAL);
    if (there & O_EXCHANGE)
        make_exchange("o", there & O_TOPIC ? "topic" : "fanout", false);
    if (there & (S_QUEUE | S_OWN | S_OTHERS))
        make_queue(there & S_OWN      ? &peer->connection->owned
                   : there & S_OTHERS ? &stranger->connection->owned
                                      : NULL);
    if (there & BOUND)
        ck_assert(vhost_bind(vhost(),
                             &(struct binding_request){.source = SLICE("o"),
                                                       .destination = SLICE("s"),
                                                       .to_exchange = row->to_exchange,
                                                       .key = SLICE("k")},
                             NULL, &lsn, &error));
}

static void unmake(void)
{
    struct queue *queue;
    struct map_link *link;
    struct amqp_error error;
    uint64_t lsn;

    while ((link = map_next(&vhost()->queues, NULL)) != NULL) {
        queue = container_of(link, struct queue, by_name);
        queue_delete(queue);
    }
    vhost_delete_exchange(vhost(), SLICE("s"), false, NULL, &lsn, &error);
    vhost_delete_exchange(vhost(), SLICE("o"), false, NULL, &lsn, &error);
    harness_run(&harness);
}

static void fill(struct amqp_method *method, const struct row *row, struct slice s, struct slice o,
                 struct slice arguments)
{
    *method = (struct amqp_method){.id = row->method};
    switch (row->method) {
    case AMQP_EXCHANGE_DECLARE:
        method->exchange_declare.exchange = s;
        method->exchange_declare.type = SLICE("fanout");
        method->exchange_declare.durable = slice_equal(s, SLICE("amq.fanout"));
        method->exchange_declare.passive = row->passive;
        method->exchange_declare.arguments = arguments;
        break;
    case AMQP_EXCHANGE_DELETE:
        method->exchange_delete.exchange = s;
        break;
    case AMQP_EXCHANGE_BIND:
        method->exchange_bind.destination = s;
        method->exchange_bind.source = o;
        method->exchange_bind.routing_key = SLICE("k");
        break;
    case AMQP_EXCHANGE_UNBIND:
        method->exchange_unbind.destination = s;
        method->exchange_unbind.source = o;
        method->exchange_unbind.routing_key = SLICE("k");
        break;
    case AMQP_QUEUE_DECLARE:
        method->queue_declare.queue = s;
        method->queue_declare.passive = row->passive;
        method->queue_declare.arguments = arguments;
        break;
    case AMQP_QUEUE_DELETE:
        method->queue_delete.queue = s;
        break;
    case AMQP_QUEUE_BIND:
        method->queue_bind.queue = s;
        method->queue_bind.exchange = o;
        method->queue_bind.routing_key = SLICE("k");
        break;
    case AMQP_QUEUE_UNBIND:
        method->queue_unbind.queue = s;
        method->queue_unbind.exchange = o;
        method->queue_unbind.routing_key = SLICE("k");
        break;
    case AMQP_QUEUE_PURGE:
        method->queue_purge.queue = s;
        break;
    case AMQP_BASIC_GET:
        method->basic_get.queue = s;
        break;
    case AMQP_BASIC_CONSUME:
        method->basic_consume.queue = s;
        break;
    }
}

static void send_method(const struct row *row, const char *s, const char *o)
{
    struct buf arguments = BUF_EMPTY;
    struct amqp_method method;

    if (row->method == AMQP_BASIC_PUBLISH) {
        peer_publish(peer, 1, s, "s", "m");
        return;
    }
    fill(&method, row, slice_of_string(s), slice_of_string(o),
         row->arguments == NULL ? (struct slice){0} : arguments_of(&arguments, row->arguments));
    peer_send(peer, 1, &method);
    buf_release(&arguments);
}

/* The first need that the rights do not meet; 0: all are met. */
static unsigned find_missing(const struct row *row, unsigned rights)
{
    for (size_t i = 0; i < countof(row->needs) && row->needs[i] != 0; i++) {
        if (row->any && (rights & row->needs[i]))
            return 0;
        if (!row->any && !(rights & row->needs[i]))
            return row->needs[i];
    }
    return row->any ? CONFIGURE : 0;
}

static bool is_about_queues(const struct row *row)
{
    return amqp_class_of(row->method) == amqp_class_of(AMQP_QUEUE_DECLARE) ||
           row->method == AMQP_BASIC_GET || row->method == AMQP_BASIC_CONSUME;
}

static void expect_refused(const struct row *row, unsigned missing, const char *s, const char *o)
{
    static const char *const names[] = {
        [CONFIGURE] = "configure", [WRITE] = "write", [READ] = "read"};
    const bool of_other = missing >= RIGHTS;
    char text[512];

    snprintf(text, sizeof(text),
             "ACCESS_REFUSED - %s access to %s '%s' in vhost '/' refused for user 'stoat'",
             row->any ? "configure, write or read" : names[of_other ? missing >> 3 : missing],
             is_about_queues(row) && !of_other ? "queue" : "exchange",
             of_other             ? o
             : row->shown != NULL ? row->shown
                                  : s);
    peer_expect_close(peer, 1, 403, text);
}

/* Allowed, but not possible: for any reason but permissions. */
static void expect_impossible(uint16_t code)
{
    const struct amqp_method method = peer_expect(peer, 1, AMQP_CHANNEL_CLOSE);
    const struct slice text = method.channel_close.reply_text;

    ck_assert_uint_eq(code, method.channel_close.reply_code);
    ck_assert(memmem(text.data, text.size, "refused for user", 16) == NULL);
}

static void try_cell(const struct row *row, unsigned rights)
{
    const char *s = row->s == NULL ? "s" : row->s, *o = row->o == NULL ? "o" : row->o;
    const unsigned missing = find_missing(row, rights);

    permit(rights, row->shown == NULL ? s : row->shown, o);
    make(row);
    open_channel(peer);
    send_method(row, s, o);
    if (missing != 0)
        expect_refused(row, missing, s, o);
    else if (row->code != 0)
        expect_impossible(row->code);
    else if (row->reply != 0)
        peer_expect(peer, 1, row->reply);
    if (missing != 0 || row->code != 0)
        peer_send(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
    else
        close_channel(peer);
    unmake();
    peer_expect_nothing(peer);
}

START_TEST(every_method_needs_its_permissions) /* 16.1, 16.2, 7.5, 7.19, 8.6, CVE-2026-57221 */
{
    for (unsigned rights = 0; rights < RIGHTS * RIGHTS; rights++)
        try_cell(&rows[_i], rights);
}
END_TEST

START_TEST(there_are_a_thousand_cells) /* CVE-2026-57221 */
{
    ck_assert_uint_ge(countof(rows) * RIGHTS * RIGHTS, 1000);
}
END_TEST

/* ---- what has no row ---- */

/* An empty pattern matches nothing, ".*" everything, others anywhere in the name. */
static const struct {
    const char *pattern, *name;
    bool allowed;
} patterns[] = {
    {"", "q", false},        {"^$", "q", false},     {".*", "q", true},
    {"q", "a q here", true}, {"^q", "a q", false},   {"^q$", "q", true},
    {"^q$", "qq", false},    {"^(a|b)$", "b", true}, {"^\\.", ".q", true},
    {"^amq\\.", "q", false}, {"Q", "q", false},      {"^a{2,3}$", "aaaa", false},
};

START_TEST(patterns_are_found_anywhere) /* 16.1 */
{
    harness_permit(&harness, "stoat", "/", patterns[_i].pattern, "", "");
    open_channel(peer);
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare.queue = slice_of_string(patterns[_i].name)});
    peer_expect(peer, 1, patterns[_i].allowed ? AMQP_QUEUE_DECLARE_OK : AMQP_CHANNEL_CLOSE);
}
END_TEST

START_TEST(a_pattern_that_takes_for_ever_is_refused) /* 16.1, GHSA-pj8f-mw2q-3xjj */
{
    harness_permit(&harness, "stoat", "/", "^(a+)+$", "", "");
    open_channel(peer);
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare.queue =
                                        SLICE("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")});
    peer_expect_close(peer, 1, 403, "ACCESS_REFUSED - configure access to queue 'aaa*");
    ck_assert_uint_eq(1, harness_logged(&harness, "takes too many steps"));
}
END_TEST

/* The name that the server gives is asked about, prefix and all. */
static const struct {
    const char *pattern, *arguments;
    bool allowed;
} server_named[] = {
    {"^amq\\.gen-", NULL, true},
    {"^mine", NULL, false},
    {"^mine", "x-name-prefix=Smine.", true},
    {"^amq\\.gen-", "x-name-prefix=Smine.", false},
};

START_TEST(server_named_queues_are_asked_about) /* 16.2, 8.2 */
{
    struct buf arguments = BUF_EMPTY;
    struct amqp_method declare = {.id = AMQP_QUEUE_DECLARE};

    if (server_named[_i].arguments != NULL)
        declare.queue_declare.arguments = arguments_of(&arguments, server_named[_i].arguments);
    harness_permit(&harness, "stoat", "/", server_named[_i].pattern, "", "");
    open_channel(peer);
    peer_send(peer, 1, &declare);
    peer_expect(peer, 1, server_named[_i].allowed ? AMQP_QUEUE_DECLARE_OK : AMQP_CHANNEL_CLOSE);
    buf_release(&arguments);
}
END_TEST

START_TEST(reply_to_needs_no_queue_of_ones_own) /* 7.19, 14.1, 14.4, 16.2, CVE-2026-57221 */
{
    harness_permit(&harness, "stoat", "/", "", ".*", ".*");
    open_channel(peer);
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_CONSUME,
                                    .basic_consume.queue = SLICE("amq.rabbitmq.reply-to"),
                                    .basic_consume.no_ack = true},
              AMQP_BASIC_CONSUME_OK);
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_BIND,
                                    .queue_bind.queue = SLICE("amq.rabbitmq.reply-to"),
                                    .queue_bind.exchange = SLICE("amq.topic")});
    peer_expect_close(
        peer, 1, 403,
        "ACCESS_REFUSED - cannot bind or unbind to a volatile (direct reply-to) queue");
}
END_TEST

/* ---- topics ---- */

static void limit_topics(const char *exchange, const char *write, const char *read)
{
    char error[PATTERN_ERROR_SIZE];
    uint64_t lsn;

    harness_permit(&harness, "stoat", "/", ".*", ".*", ".*");
    ck_assert(account_set_topic(&harness.broker, users_find(&harness.broker.users, SLICE("stoat")),
                                vhost(), slice_of_string(exchange), slice_of_string(write),
                                slice_of_string(read), &lsn, error));
    open_channel(peer);
}

static const struct {
    const char *limited, *pattern, *exchange, *key, *copies;
    const char *refused; /* the key in the text; NULL: allowed */
} topics[] = {
    {"amq.topic", "^a\\.", "amq.topic", "a.b", NULL, NULL},
    {"amq.topic", "^a\\.", "amq.topic", "b.b", NULL, "b.b"},
    {"amq.topic", "", "amq.topic", "a", NULL, "a"},
    {"amq.topic", ".*", "amq.topic", "b.b", NULL, NULL},
    {"amq.topic", "^a\\.", "amq.topic", "a.b", "CC=a.c", NULL},
    {"amq.topic", "^a\\.", "amq.topic", "a.b", "CC=b.c", "b.c"},
    {"amq.topic", "^a\\.", "amq.topic", "a.b", "CC=a.c,b.c", "b.c"},
    {"amq.topic", "^a\\.", "amq.topic", "a.b", "BCC=b.d", "b.d"},
    {"amq.topic", "^{username}\\.", "amq.topic", "stoat.b", NULL, NULL},
    {"amq.topic", "^{username}\\.", "amq.topic", "weasel.b", NULL, "weasel.b"},
    {"amq.topic", "^{vhost}\\.{username}$", "amq.topic", "/.stoat", NULL, NULL},
    {"amq.topic", "^{vhost}\\.{username}$", "amq.topic", "x.stoat", NULL, "x.stoat"},
    {"amq.topic", "^a\\.", "amq.fanout", "b.b", NULL, NULL},  /* of others nothing is said */
    {"amq.fanout", "^a\\.", "amq.fanout", "b.b", NULL, NULL}, /* no topic exchange */
};

/* "CC=a,b" as headers: an array of long strings. */
static void put_copies(struct buf *headers, const char *text)
{
    const char *equals = strchr(text, '=');
    const size_t array = amqp_table_begin_array(headers, slice_of(text, (size_t)(equals - text)));

    for (const char *at = equals + 1; *at != '\0'; at += *at == ',') {
        const size_t size = strcspn(at, ",");
        amqp_array_put_string(headers, slice_of(at, size));
        at += size;
    }
    amqp_table_end(headers, array);
}

static void publish_to(const char *exchange, const char *key, const char *copies)
{
    struct buf headers = BUF_EMPTY, properties = BUF_EMPTY, out = BUF_EMPTY;

    if (copies != NULL) {
        put_copies(&headers, copies);
        amqp_write_u16(&properties, AMQP_PROPERTY_HEADERS);
        amqp_write_longstr(&properties, buf_slice(&headers));
    }
    amqp_client_publish(&out, 1, 131072,
                        &(struct amqp_client_message){.exchange = slice_of_string(exchange),
                                                      .routing_key = slice_of_string(key),
                                                      .properties = buf_slice(&properties),
                                                      .body = SLICE("m")});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&headers);
    buf_release(&properties);
    buf_release(&out);
}

static void expect_topic_refused(const char *right, const char *key)
{
    char text[256];

    snprintf(
        text, sizeof(text),
        "ACCESS_REFUSED - %s access to topic '%s' in exchange 'amq.topic' in vhost '/' refused "
        "for user 'stoat'",
        right, key);
    peer_expect_close(peer, 1, 403, text);
}

START_TEST(publishing_is_limited_to_topics) /* 16.3, 9.1, 7.16, CVE-2026-57221 */
{
    limit_topics(topics[_i].limited, topics[_i].pattern, ".*");
    for (int i = 0; i < 2 && topics[_i].refused == NULL; i++)
        publish_to(topics[_i].exchange, topics[_i].key, topics[_i].copies);
    if (topics[_i].refused == NULL) {
        close_channel(peer);
        return;
    }
    publish_to(topics[_i].exchange, topics[_i].key, topics[_i].copies);
    expect_topic_refused("write", topics[_i].refused);
}
END_TEST

START_TEST(binding_is_limited_to_topics) /* 16.3, 7.19, CVE-2026-57221 */
{
    const bool refused = topics[_i].refused != NULL;

    if (topics[_i].copies != NULL)
        return;
    limit_topics(topics[_i].limited, ".*", topics[_i].pattern);
    declare_queue(peer, "q", true, NULL);
    for (int i = 0; i < 2; i++) {
        const struct amqp_method
            bind = {.id = AMQP_QUEUE_BIND,
                    .queue_bind = {.queue = SLICE("q"),
                                   .exchange = slice_of_string(topics[_i].exchange),
                                   .routing_key = slice_of_string(topics[_i].key)}},
            unbind = {.id = AMQP_QUEUE_UNBIND,
                      .queue_unbind = {.queue = SLICE("q"),
                                       .exchange = slice_of_string(topics[_i].exchange),
                                       .routing_key = slice_of_string(topics[_i].key)}};
        peer_send(peer, 1, i == 0 ? &bind : &unbind);
        if (!refused) {
            peer_expect(peer, 1, i == 0 ? AMQP_QUEUE_BIND_OK : AMQP_QUEUE_UNBIND_OK);
            continue;
        }
        expect_topic_refused("read", topics[_i].refused);
        peer_send(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_CLOSE_OK});
        open_channel(peer);
    }
}
END_TEST

/* A user is called what it likes. */
START_TEST(names_are_no_patterns) /* 16.3 */
{
    struct buf out = BUF_EMPTY;
    char error[PATTERN_ERROR_SIZE];

    topic_rule_expand(&out, SLICE("^{username}-{vhost}{other}$"), SLICE("a.*|\\"), SLICE("(b"));
    struct pattern *pattern = pattern_new(buf_slice(&out), error);
    ck_assert_msg(pattern != NULL, "%s", error);
    ck_assert(pattern_match(pattern, SLICE("a.*|\\-(b{other}")) == PATTERN_MATCHES);
    ck_assert(pattern_match(pattern, SLICE("axx")) == PATTERN_DIFFERS);
    pattern_free(&pattern);
    buf_release(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("permission");
    TCase *matrix = tcase_create("matrix");
    tcase_add_checked_fixture(matrix, set_up, tear_down);
    tcase_set_timeout(matrix, 60);
    tcase_add_loop_test(matrix, every_method_needs_its_permissions, 0, countof(rows));
    tcase_add_test(matrix, there_are_a_thousand_cells);
    suite_add_tcase(suite, matrix);

    TCase *more = tcase_create("more");
    tcase_add_checked_fixture(more, set_up, tear_down);
    tcase_set_timeout(more, 30);
    tcase_add_loop_test(more, patterns_are_found_anywhere, 0, countof(patterns));
    tcase_add_test(more, a_pattern_that_takes_for_ever_is_refused);
    tcase_add_loop_test(more, server_named_queues_are_asked_about, 0, countof(server_named));
    tcase_add_test(more, reply_to_needs_no_queue_of_ones_own);
    tcase_add_loop_test(more, publishing_is_limited_to_topics, 0, countof(topics));
    tcase_add_loop_test(more, binding_is_limited_to_topics, 0, countof(topics));
    tcase_add_test(more, names_are_no_patterns);
    suite_add_tcase(suite, more);
    return unit_main(suite);
}
