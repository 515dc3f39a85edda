/* vhost: the rules of sections 7 and 8 for whoever asks, word for word, and what each reply waits
 * for. */
#include <ctype.h>

#include "amqp/table.h"
#include "base/alloc.h"
#include "tests/lib/memory_broker.h"
#include "tests/lib/unit.h"

static struct memory_broker memory;
static struct amqp_error error;
static uint64_t lsn;
static struct queue_owner somebody, somebody_else;
static const struct asker asking = {.owner = &somebody, .is_operator = true},
                          asking_else = {.owner = &somebody_else, .is_operator = true};

static void set_up(void)
{
    memory_broker_start(&memory);
    queue_owner_init(&somebody);
    queue_owner_init(&somebody_else);
}

static void tear_down(void)
{
    queue_owner_release(&somebody);
    queue_owner_release(&somebody_else);
    memory_broker_stop(&memory);
}

/* The last call failed with this code and text; the name of the code is looked up. */
static void check_error(uint16_t code, const char *explanation)
{
    char text[512];

    snprintf(text, sizeof(text), "%s - %s", amqp_reply_name(code), explanation);
    ck_assert_str_eq(error.text, text);
    ck_assert_uint_eq(error.code, code);
}

/* ---- arguments in one line: "name=I5,name=Stext": type and value ---- */

static struct amqp_value value_of(const char *text)
{
    struct amqp_value value = {.type = (uint8_t)text[0]};

    switch (value.type) {
    case AMQP_STRING:
    case AMQP_BYTES:
        value.bytes = slice_of_string(text + 1);
        break;
    case AMQP_BOOL:
        value.boolean = text[1] == '1';
        break;
    case AMQP_DOUBLE:
        value.real = strtod(text + 1, NULL);
        break;
    case AMQP_VOID:
        break;
    default:
        value.integer = strtoll(text + 1, NULL, 10);
    }
    return value;
}

static struct slice arguments_of(struct buf *out, const char *text)
{
    char copy[512], *rest = copy, *entry;

    buf_clear(out);
    snprintf(copy, sizeof(copy), "%s", text == NULL ? "" : text);
    while ((entry = strsep(&rest, ",")) != NULL && *entry != '\0') {
        char *equals = strchr(entry, '=');
        const struct amqp_value value = value_of(equals + 1);
        amqp_table_put(out, slice_of(entry, (size_t)(equals - entry)), &value);
    }
    return buf_slice(out);
}

/* ---- exchanges ---- */

struct exchange_case {
    const char *name, *type;
    bool durable, auto_delete, internal;
    const char *arguments;
};

static struct exchange *declare_exchange(const struct exchange_case *wanted)
{
    struct buf arguments = BUF_EMPTY;
    const struct exchange_options options = {
        .name = slice_of_string(wanted->name),
        .type = slice_of_string(wanted->type),
        .durable = wanted->durable,
        .auto_delete = wanted->auto_delete,
        .internal = wanted->internal,
        .arguments = arguments_of(&arguments, wanted->arguments),
    };
    struct exchange *exchange = vhost_declare_exchange(memory.vhost, &options, NULL, &lsn, &error);
    buf_release(&arguments);
    return exchange;
}

static struct exchange *exchange_named(const char *name)
{
    return vhost_find_exchange(memory.vhost, slice_of_string(name), &error);
}

static bool delete_exchange(const char *name, bool if_unused)
{
    return vhost_delete_exchange(memory.vhost, slice_of_string(name), if_unused, NULL, &lsn,
                                 &error);
}

START_TEST(predeclares_exchanges) /* 7.1 */
{
    static const struct {
        const char *name, *type;
    } expected[] = {
        {"", "direct"},
        {"amq.direct", "direct"},
        {"amq.fanout", "fanout"},
        {"amq.topic", "topic"},
        {"amq.headers", "headers"},
        {"amq.match", "headers"},
        {"amq.rabbitmq.trace", "topic"},
    };

    ck_assert_uint_eq(memory.vhost->exchanges.count, countof(expected));
    for (size_t i = 0; i < countof(expected); i++) {
        const struct exchange *exchange = exchange_named(expected[i].name);
        ck_assert_ptr_nonnull(exchange);
        ck_assert_str_eq(exchange->type->name, expected[i].type);
        ck_assert(exchange->durable && !exchange->auto_delete);
        ck_assert(exchange->internal == (i == countof(expected) - 1));
    }
}
END_TEST

static const struct {
    struct exchange_case wanted;
    uint16_t code;
    const char *text;
} refused_exchanges[] = {
    {{.name = "x", "nonsense", .durable = true}, 406, "unknown exchange type 'nonsense'"},
    {{.name = "", "nonsense"}, 406, "unknown exchange type 'nonsense'"},
    {{.name = "", "direct"}, 403, "operation not permitted on the default exchange"},
    {{.name = "\r\n", "direct"}, 403, "operation not permitted on the default exchange"},
    {{.name = "amq.mine", "direct"},
     403,
     "exchange name 'amq.mine' contains reserved prefix 'amq.*'"},
    {{.name = "x", "direct", .arguments = "alternate-exchange=I5"},
     406,
     "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"},
    {{.name = "there", "fanout", .durable = true},
     406,
     "inequivalent arg 'type' for exchange 'there' in vhost '/': received 'fanout' but current is "
     "'direct'"},
    {{.name = "there", "direct"},
     406,
     "inequivalent arg 'durable' for exchange 'there' in vhost '/': received 'false' but current "
     "is 'true'"},
    {{.name = "there", "direct", .durable = true, .auto_delete = true},
     406,
     "inequivalent arg 'auto_delete' for exchange 'there' in vhost '/': received 'true' but "
     "current is 'false'"},
    {{.name = "there", "direct", .durable = true, .internal = true},
     406,
     "inequivalent arg 'internal' for exchange 'there' in vhost '/': received 'true' but current "
     "is 'false'"},
    {{.name = "there", "direct", .durable = true},
     406,
     "inequivalent arg 'alternate-exchange' for exchange 'there' in vhost '/': received none but "
     "current is the value 'ae' of type 'longstr'"},
    {{.name = "there", "direct", .durable = true, .arguments = "alternate-exchange=Sother"},
     406,
     "inequivalent arg 'alternate-exchange' for exchange 'there' in vhost '/': received 'other' "
     "but current is 'ae'"},
    {{.name = "amq.direct", "direct", .durable = true, .arguments = "alternate-exchange=Sae"},
     406,
     "inequivalent arg 'alternate-exchange' for exchange 'amq.direct' in vhost '/': received the "
     "value 'ae' of type 'longstr' but current is none"},
};

static const struct exchange_case there = {
    .name = "there", "direct", .durable = true, .arguments = "alternate-exchange=Sae,other=I1"};

START_TEST(refuses_exchanges) /* 7.2 to 7.4 */
{
    ck_assert_ptr_nonnull(declare_exchange(&there));
    ck_assert_ptr_null(declare_exchange(&refused_exchanges[_i].wanted));
    check_error(refused_exchanges[_i].code, refused_exchanges[_i].text);
    ck_assert_uint_eq(memory.vhost->exchanges.count, 8);
}
END_TEST

START_TEST(redeclares_exchanges) /* 7.3, 7.4: other arguments are not compared, CR and LF go */
{
    struct exchange_case again = there;
    struct exchange *exchange = declare_exchange(&there);

    again.name = "th\rer\ne";
    again.arguments = "alternate-exchange=Sae,other=I2";
    ck_assert_ptr_eq(declare_exchange(&again), exchange);
    ck_assert_uint_eq(lsn, exchange->lsn);
    ck_assert_ptr_nonnull(
        declare_exchange(&(struct exchange_case){.name = "amq.topic", "topic", .durable = true}));
}
END_TEST

START_TEST(finds_exchanges) /* 7.5 */
{
    ck_assert_ptr_null(exchange_named("x"));
    check_error(404, "no exchange 'x' in vhost '/'");
    ck_assert_ptr_eq(exchange_named(""), memory.vhost->default_exchange);
}
END_TEST

START_TEST(deletes_exchanges) /* 7.6 */
{
    ck_assert(!delete_exchange("", false));
    check_error(403, "operation not permitted on the default exchange");
    ck_assert(!delete_exchange("amq.direct", false));
    check_error(403, "deletion of system exchange 'amq.direct' in vhost '/' not allowed");
    ck_assert(delete_exchange("absent", true));

    declare_exchange(&there);
    const struct binding_request request = {
        .source = SLICE("there"), .destination = SLICE("amq.fanout"), .to_exchange = true};
    ck_assert(vhost_bind(memory.vhost, &request, NULL, &lsn, &error));
    ck_assert(!delete_exchange("there", true));
    check_error(406, "exchange 'there' in vhost '/' in use");
    ck_assert(delete_exchange("there", false));
    ck_assert_ptr_null(exchange_named("there"));
    ck_assert(TAILQ_EMPTY(&exchange_named("amq.fanout")->incoming));
}
END_TEST

/* ---- queues ---- */

struct queue_case {
    const char *name;
    bool durable, auto_delete;
    struct queue_owner *owner;
    const char *arguments;
};

static struct queue *declare_queue(const struct queue_case *wanted)
{
    struct buf arguments = BUF_EMPTY;
    const struct queue_options options = {
        .name = slice_of_string(wanted->name),
        .durable = wanted->durable,
        .auto_delete = wanted->auto_delete,
        .owner = wanted->owner,
        .arguments = arguments_of(&arguments, wanted->arguments),
    };
    struct queue *queue = vhost_declare_queue(memory.vhost, &options, NULL, &lsn, &error);
    buf_release(&arguments);
    return queue;
}

static struct queue *queue_named(const char *name)
{
    struct queue *queue = declare_queue(&(struct queue_case){.name = name});

    ck_assert_ptr_nonnull(queue);
    return queue;
}

#define LOCKED                                                                                     \
    "cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be originally "  \
    "declared on another connection or the exclusive property value does not match that of the "   \
    "original declaration."
#define INVALID(name, reason) "invalid arg '" name "' for queue 'q' in vhost '/': " reason
#define PROPERTY(name)        "invalid property '" name "' for queue 'q' in vhost '/'"
#define UNEQUAL(name, rest)                                                                        \
    "inequivalent arg '" name "' for queue 'there' in vhost '/': received " rest

/* There already: "there" (durable, x-message-ttl=I1000, x-max-length=I5), "mine" (somebody's). */
static const struct {
    struct queue_case wanted;
    uint16_t code;
    const char *text;
} refused_queues[] = {
    {{.name = "amq.foo"}, 403, "queue name 'amq.foo' contains reserved prefix 'amq.*'"},
    /* 8.7.1 */
    {{.name = "mine"}, 405, LOCKED},
    {{.name = "mine", .owner = &somebody_else}, 405, LOCKED},
    /* 8.7.2 */
    {{.name = "there", .arguments = "x-message-ttl=I1000"},
     406,
     UNEQUAL("durable", "'false' but current is 'true'")},
    {{.name = "there", true, true}, 406, UNEQUAL("auto_delete", "'true' but current is 'false'")},
    /* 8.7.3 */
    {{.name = "there", true, .arguments = "x-max-length=I5"},
     406,
     UNEQUAL("x-message-ttl", "none but current is the value '1000' of type 'signedint'")},
    {{.name = "there", true, .arguments = "x-message-ttl=l2000,x-max-length=I5"},
     406,
     UNEQUAL("x-message-ttl", "'2000' but current is '1000'")},
    {{.name = "there", true, .arguments = "x-message-ttl=d1000,x-max-length=I5"},
     406,
     UNEQUAL("x-message-ttl", "'1000' but current is '1000'")},
    {{.name = "there", true, .arguments = "x-message-ttl=I1000,x-max-length=I5,x-expires=l1"},
     406,
     UNEQUAL("x-expires", "the value '1' of type 'long' but current is none")},
    {{.name = "there",
      true,
      .arguments = "x-message-ttl=I1000,x-max-length=I5,x-queue-type=Squorum"},
     406,
     UNEQUAL("x-queue-type", "the value 'quorum' of type 'longstr' but current is none")},
    {{.name = "there", true, .arguments = "x-queue-type=Squorum,x-max-priority=I1"},
     406,
     UNEQUAL("x-message-ttl", "none but current is the value '1000' of type 'signedint'")},
    /* 8.10 */
    {{.name = "q", true, .arguments = "x-queue-type=Sstream"},
     406,
     INVALID("x-queue-type", "\"unsupported queue type 'stream'\"")},
    {{.name = "q", true, .arguments = "x-queue-type=I1"},
     406,
     INVALID("x-queue-type", "{unacceptable_type,signedint}")},
    {{.name = "q", true, true, .arguments = "x-queue-type=Squorum"}, 406, PROPERTY("auto-delete")},
    {{.name = "q", true, .owner = &somebody, .arguments = "x-queue-type=Squorum"},
     406,
     PROPERTY("exclusive-owner")},
    {{.name = "q", .arguments = "x-queue-type=Squorum"}, 406, PROPERTY("non-durable")},
    /* 8.11 */
    {{.name = "q", .arguments = "x-expires=I0"}, 406, INVALID("x-expires", "{value_zero,0}")},
    {{.name = "q", .arguments = "x-expires=l-1"}, 406, INVALID("x-expires", "{value_negative,-1}")},
    {{.name = "q", .arguments = "x-expires=l315360000001"},
     406,
     INVALID("x-expires", "{value_too_large,315360000001}")},
    {{.name = "q", .arguments = "x-expires=Sten"},
     406,
     INVALID("x-expires", "\"expected integer, got longstr\"")},
    {{.name = "q", .arguments = "x-message-ttl=d1.5"},
     406,
     INVALID("x-message-ttl", "\"expected integer, got double\"")},
    {{.name = "q", .arguments = "x-max-length=b-7"},
     406,
     INVALID("x-max-length", "{value_negative,-7}")},
    {{.name = "q", .arguments = "x-max-length-bytes=V"},
     406,
     INVALID("x-max-length-bytes", "\"expected integer, got void\"")},
    {{.name = "q", .arguments = "x-overflow=Swhat"},
     406,
     INVALID("x-overflow", "invalid_overflow")},
    {{.name = "q", true, .arguments = "x-queue-type=Squorum,x-overflow=Sreject-publish-dlx"},
     406,
     INVALID("x-overflow", "invalid_overflow")},
    {{.name = "q", .arguments = "x-max-priority=I256"},
     406,
     INVALID("x-max-priority", "{max_value_exceeded,256}")},
    {{.name = "q", .arguments = "x-single-active-consumer=Strue"},
     406,
     INVALID("x-single-active-consumer", "{unacceptable_type,longstr}")},
    {{.name = "q", .arguments = "x-queue-version=I1"},
     406,
     INVALID("x-queue-version", "\"unsupported queue version '1'\"")},
    {{.name = "q", .arguments = "x-queue-mode=Sfast"},
     406,
     INVALID("x-queue-mode", "\"unsupported queue mode 'fast'\"")},
    {{.name = "q", .arguments = "x-dead-letter-exchange=I1"},
     406,
     "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"},
    {{.name = "q", .arguments = "x-dead-letter-routing-key=Sk"},
     406,
     INVALID("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")},
    {{.name = "q", true, .arguments = "x-queue-type=Squorum,x-max-priority=I5"},
     406,
     "invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue"},
    {{.name = "q", .arguments = "x-delivery-limit=I5"},
     406,
     "invalid arg 'x-delivery-limit' for queue 'q' in vhost '/' of queue type "
     "rabbit_classic_queue"},
    {{.name = "q", true, .arguments = "x-queue-type=Squorum,x-delayed-retry-type=Snever"},
     406,
     INVALID("x-delayed-retry-type", "invalid_delayed_retry_type")},
    {{.name = "q", true, .arguments = "x-queue-type=Squorum,x-delayed-retry-min=I-1"},
     406,
     INVALID("x-delayed-retry-min", "{value_negative,-1}")},
    {{.name = "q", true, .arguments = "x-queue-type=Squorum,x-delayed-retry-max=l315360000001"},
     406,
     INVALID("x-delayed-retry-max", "{value_too_large,315360000001}")},
    {{.name = "q", .arguments = "x-delayed-retry-type=Sall"},
     406,
     "invalid arg 'x-delayed-retry-type' for queue 'q' in vhost '/' of queue type "
     "rabbit_classic_queue"},
    {{.name = "q", true, .arguments = "x-queue-type=Squorum,x-dead-letter-strategy=Stwice"},
     406,
     INVALID("x-dead-letter-strategy", "invalid_dlx_strategy")},
    {{.name = "q", .arguments = "x-max-age=S1D"},
     406,
     "invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"},
    /* 8.2 */
    {{.name = "", .arguments = "x-queue-type=Squorum", .durable = true},
     406,
     "Cannot declare a server-named queue for type rabbit_quorum_queue"},
    {{.name = "",
      .arguments = "x-name-prefix="
                   "S12345678901234567890123456789012345678901234567890123456789012345"},
     406,
     "Queue name prefix '12345678901234567890123456789012345678901234567890123456789012345' "
     "exceeds the 64-byte limit"},
};

START_TEST(refuses_queues) /* 8.1, 8.7 to 8.7.3, 8.8, 8.10, 8.11 */
{
    ck_assert_ptr_nonnull(declare_queue(&(struct queue_case){
        .name = "there", true, .arguments = "x-message-ttl=I1000,x-max-length=I5"}));
    ck_assert_ptr_nonnull(declare_queue(&(struct queue_case){.name = "mine", .owner = &somebody}));
    ck_assert_ptr_null(declare_queue(&refused_queues[_i].wanted));
    check_error(refused_queues[_i].code, refused_queues[_i].text);
    ck_assert_uint_eq(memory.vhost->queues.count, 2);
}
END_TEST

static const struct queue_case accepted_queues[] = {
    {.name = "q"}, /* 8.4 */
    {.name = "q", .arguments = "x-expires=l315360000000,x-message-ttl=B0"},
    {.name = "q",
     .arguments = "x-max-length=I0,x-max-length-bytes=l5000000000,x-overflow=Sdrop-head"},
    {.name = "q", .arguments = "x-overflow=Sreject-publish-dlx,x-max-priority=s255"},
    {.name = "q", .arguments = "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sk"},
    {.name = "q", .arguments = "x-single-active-consumer=t1,x-queue-mode=Slazy,x-queue-version=I2"},
    {.name = "q", .arguments = "x-queue-leader-locator=Sbalanced,x-queue-type=Sclassic"},
    {.name = "q", true, .arguments = "x-queue-type=Squorum,x-delivery-limit=I-1"},
    {.name = "q", true, .arguments = "x-queue-type=Squorum,x-quorum-initial-group-size=I3"},
    {.name = "q",
     true,
     .arguments = "x-queue-type=Squorum,x-overflow=Sreject-publish,x-dead-letter-exchange=Sx,"
                  "x-dead-letter-strategy=Sat-least-once"},
    {.name = "q", .arguments = "x-unheard-of=I1,plain=Sword"},
    {.name = "q", true, .owner = &somebody},
    {.name = "q", false, true, &somebody, .arguments = "x-queue-type=Sclassic"},
};

START_TEST(accepts_queues)
{
    const struct queue_case *wanted = &accepted_queues[_i];
    struct queue *queue = declare_queue(wanted);

    ck_assert_msg(queue != NULL, "%s", error.text);
    ck_assert(queue->durable == (wanted->durable && wanted->owner == NULL)); /* 8.3 */
    ck_assert(queue->exclusive == (wanted->owner != NULL));
    ck_assert_ptr_eq(declare_queue(wanted), queue);
    ck_assert_uint_eq(memory.vhost->queues.count, 1);
}
END_TEST

/* 8.7.3: widths do not count, unknown arguments neither; no type is classic */
START_TEST(redeclares_queues)
{
    struct queue *queue = declare_queue(&(struct queue_case){
        .name = "q", .arguments = "x-message-ttl=I1000,x-mine=I1,x-queue-mode=Slazy"});
    ck_assert_ptr_eq(
        declare_queue(&(struct queue_case){.name = "q\n",
                                           .arguments = "x-queue-mode=xlazy,x-queue-type=Sclassic,"
                                                        "x-message-ttl=l1000,x-mine=I2"}),
        queue);
}
END_TEST

START_TEST(names_queues) /* 8.2 */
{
    struct queue *first = queue_named(""), *second = queue_named("\r");

    ck_assert_uint_eq(first->name.size, 30);
    ck_assert(slice_starts_with(first->name, SLICE("amq.gen-")));
    ck_assert(!slice_equal(first->name, second->name));
    for (size_t i = 8; i < first->name.size; i++)
        ck_assert(isalnum(first->name.data[i]) || first->name.data[i] == '-' ||
                  first->name.data[i] == '_');
    char *name = slice_to_string(first->name); /* 8.1: it may be redeclared */
    ck_assert_ptr_eq(queue_named(name), first);
    free(name);

    struct queue *prefixed = declare_queue(
        &(struct queue_case){.name = "", .arguments = "x-name-prefix=Sapp.,plain=I1"});
    struct buf arguments = BUF_EMPTY;
    ck_assert(slice_starts_with(prefixed->name, SLICE("app.")));
    ck_assert_uint_eq(prefixed->name.size, 26);
    ck_assert(slice_equal(prefixed->arguments, arguments_of(&arguments, "plain=I1")));
    buf_release(&arguments);
    /* Or it could not be found again by its name. */
    prefixed =
        declare_queue(&(struct queue_case){.name = "", .arguments = "x-name-prefix=Sa\r\nb."});
    ck_assert(slice_starts_with(prefixed->name, SLICE("ab.")));
}
END_TEST

START_TEST(finds_queues)
{
    struct queue *mine = declare_queue(&(struct queue_case){.name = "mine", .owner = &somebody});

    ck_assert_ptr_null(vhost_find_queue(memory.vhost, SLICE("q"), ACCESS_GET, &asking, &error));
    check_error(404, "no queue 'q' in vhost '/'");
    ck_assert_ptr_eq(vhost_find_queue(memory.vhost, SLICE("mine"), ACCESS_GET, &asking, &error),
                     mine);
    ck_assert_ptr_null(
        vhost_find_queue(memory.vhost, SLICE("mine"), ACCESS_GET, &asking_else, &error));
    check_error(405, LOCKED);
}
END_TEST

static bool delete_queue(const char *name, bool if_unused, bool if_empty, uint64_t *count)
{
    return vhost_delete_queue(memory.vhost, slice_of_string(name), if_unused, if_empty, NULL, count,
                              &lsn, &error);
}

static bool may_take(struct consumer *consumer)
{
    (void)consumer;
    return false;
}

static void on_end(struct consumer *consumer)
{
    (void)consumer;
}

START_TEST(deletes_queues) /* 8.12 */
{
    static const struct consumer_ops ops = {
        .may_take = may_take, .on_queue_deleted = on_end, .on_gone = on_end};
    struct consumer consumer = {.ops = &ops};
    struct queue *queue = queue_named("q");
    struct message *message = message_new(SLICE(""), SLICE("q"), SLICE("\0\0"), 0, false);
    uint64_t count;

    ck_assert(delete_queue("absent", true, true, &count));
    ck_assert_uint_eq(count, 0);
    queue_push(queue, message);
    message_unref(&message);
    queue_attach(queue, &consumer);
    ck_assert(!delete_queue("q", true, true, &count));
    check_error(406, "queue 'q' in vhost '/' not empty");
    ck_assert(!delete_queue("q", true, false, &count));
    check_error(406, "queue 'q' in vhost '/' in use");
    ck_assert(delete_queue("q", false, false, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(memory.vhost->queues.count, 0);

    declare_queue(&(struct queue_case){.name = "mine", .owner = &somebody});
    ck_assert(!delete_queue("mine", false, false, &count));
    check_error(405, LOCKED);
    declare_queue(&(struct queue_case){.name = "qq", true, .arguments = "x-queue-type=Squorum"});
    ck_assert(!delete_queue("qq", true, false, &count));
    check_error(540, "cannot delete queue 'qq' in vhost '/'. queue.delete operations with "
                     "if-unused flag set are not supported by quorum queues");
}
END_TEST

/* ---- bindings ---- */

static struct binding_request edge(const char *source, const char *destination, bool to_exchange,
                                   const char *key)
{
    return (struct binding_request){
        .source = slice_of_string(source),
        .destination = slice_of_string(destination),
        .to_exchange = to_exchange,
        .key = slice_of_string(key),
    };
}

static bool bind(const char *source, const char *destination, bool to_exchange, const char *key)
{
    const struct binding_request request = edge(source, destination, to_exchange, key);

    return vhost_bind(memory.vhost, &request, NULL, &lsn, &error);
}

static bool unbind(const char *source, const char *destination, bool to_exchange, const char *key)
{
    const struct binding_request request = edge(source, destination, to_exchange, key);

    return vhost_unbind(memory.vhost, &request, NULL, &lsn, &error);
}

static const struct {
    const char *source, *destination;
    bool to_exchange, unbind_too;
    uint16_t code;
    const char *text;
} refused_bindings[] = {
    /* 7.18, 7.19 */
    {"", "q", false, true, 403, "operation not permitted on the default exchange"},
    {"amq.topic", "", true, true, 403, "operation not permitted on the default exchange"},
    {"absent", "absent", false, false, 404, "no exchange 'absent' in vhost '/'"},
    {"amq.topic", "absent", false, false, 404, "no queue 'absent' in vhost '/'"},
    {"amq.topic", "absent", true, false, 404, "no exchange 'absent' in vhost '/'"},
    {"amq.topic", "mine", false, false, 405, LOCKED},
    {"amq.topic", "amq.rabbitmq.reply-to.abc", false, true, 403,
     "cannot bind or unbind to a volatile (direct reply-to) queue"},
};

START_TEST(refuses_bindings) /* 7.12, 7.18, 7.19 */
{
    queue_named("q");
    declare_queue(&(struct queue_case){.name = "mine", .owner = &somebody});
    ck_assert(!bind(refused_bindings[_i].source, refused_bindings[_i].destination,
                    refused_bindings[_i].to_exchange, "k"));
    check_error(refused_bindings[_i].code, refused_bindings[_i].text);
    ck_assert(unbind(refused_bindings[_i].source, refused_bindings[_i].destination,
                     refused_bindings[_i].to_exchange, "k") == !refused_bindings[_i].unbind_too);
    if (refused_bindings[_i].unbind_too)
        check_error(refused_bindings[_i].code, refused_bindings[_i].text);
}
END_TEST

/* 7.13, 7.18, 7.19: a wrong binding, an absent one; then whose queue it is */
START_TEST(binding_comes_before_ownership)
{
    struct buf arguments = BUF_EMPTY;
    struct binding_request request = edge("amq.headers", "mine", false, "k");

    declare_queue(&(struct queue_case){.name = "mine", .owner = &somebody});
    request.arguments = arguments_of(&arguments, "x-match=Snone");
    ck_assert(!vhost_bind(memory.vhost, &request, NULL, &lsn, &error));
    ck_assert_uint_eq(error.code, 406);
    request.arguments = arguments_of(&arguments, "x-match=Sany");
    ck_assert(vhost_bind(memory.vhost, &request, &asking, &lsn, &error));
    ck_assert(!vhost_bind(memory.vhost, &request, NULL, &lsn, &error));
    check_error(405, LOCKED);
    ck_assert(!vhost_unbind(memory.vhost, &request, NULL, &lsn, &error));
    check_error(405, LOCKED);
    request.key = SLICE("absent");
    ck_assert(vhost_unbind(memory.vhost, &request, NULL, &lsn, &error));
    buf_release(&arguments);
}
END_TEST

START_TEST(binds_once) /* 7.18 */
{
    struct buf arguments = BUF_EMPTY;
    struct binding_request request = edge("amq.topic", "q", false, "k");
    const struct exchange *topic = exchange_named("amq.topic");
    static const struct {
        const char *arguments;
        size_t count; /* of bindings afterwards */
    } steps[] = {
        {"", 1},          {"", 1},     {"a=I1,b=I2", 2}, {"b=I2,a=I1", 2}, {"a=I1,b=I2,a=I3", 2},
        {"a=l1,b=I2", 3}, {"a=I1", 4},
    };

    queue_named("q");
    for (size_t i = 0; i < countof(steps); i++) {
        request.arguments = arguments_of(&arguments, steps[i].arguments);
        ck_assert(vhost_bind(memory.vhost, &request, NULL, &lsn, &error));
        ck_assert_uint_eq(topic->binding_count, steps[i].count);
    }
    request.arguments = arguments_of(&arguments, "b=I2,a=I1");
    for (int i = 0; i < 2; i++) {
        ck_assert(vhost_unbind(memory.vhost, &request, NULL, &lsn, &error));
        ck_assert_uint_eq(topic->binding_count, 3);
    }
    /* an exchange of the queue's name is another destination */
    declare_exchange(&(struct exchange_case){.name = "q", "fanout"});
    ck_assert(bind("amq.topic", "q", true, "k"));
    ck_assert_uint_eq(topic->binding_count, 4);
    buf_release(&arguments);
}
END_TEST

START_TEST(auto_delete_waits_for_the_first_binding) /* 7.7 */
{
    declare_exchange(&(struct exchange_case){.name = "x", "direct", .auto_delete = true});
    queue_named("q");
    ck_assert(unbind("x", "q", false, "k"));
    ck_assert_ptr_nonnull(exchange_named("x"));
    ck_assert(bind("x", "q", false, "k"));
    ck_assert(bind("x", "q", false, "l"));
    ck_assert(unbind("x", "q", false, "k"));
    ck_assert_ptr_nonnull(exchange_named("x"));
    ck_assert(unbind("x", "q", false, "l"));
    ck_assert_ptr_null(exchange_named("x"));
}
END_TEST

/* q <- x0 <- x1 <- ... each with its only binding to the one before, and the last bound from the
 * first: a cycle too. */
START_TEST(auto_delete_goes_through_any_chain)
{
    enum { LENGTH = 20000 };
    char name[16], before[16] = "q";
    uint64_t count;

    queue_named("q");
    for (int i = 0; i < LENGTH; i++) {
        snprintf(name, sizeof(name), "x%d", i);
        const struct exchange_options options = {
            .name = slice_of_string(name), .type = SLICE("fanout"), .auto_delete = true};
        if (vhost_declare_exchange(memory.vhost, &options, NULL, &lsn, &error) == NULL ||
            !bind(name, before, i > 0, ""))
            ck_abort_msg("%s", error.text);
        memcpy(before, name, sizeof(before));
    }
    ck_assert(delete_queue("q", false, false, &count));
    ck_assert_uint_eq(memory.vhost->exchanges.count, 7);
    ck_assert(TAILQ_EMPTY(&memory.vhost->doomed));
    ck_assert_ptr_nonnull(TAILQ_FIRST(&memory.vhost->deleted)); /* until REAP */
    memory_broker_sync(&memory);
    ck_assert_ptr_null(TAILQ_FIRST(&memory.vhost->deleted));
}
END_TEST

START_TEST(deletes_both_ends_of_itself)
{
    declare_exchange(
        &(struct exchange_case){.name = "x", "fanout", .durable = true, .auto_delete = true});
    ck_assert(bind("x", "x", true, ""));
    ck_assert(bind("amq.topic", "x", true, ""));
    ck_assert(delete_exchange("x", false));
    ck_assert_uint_eq(exchange_named("amq.topic")->binding_count, 0);
    memory_broker_restart(&memory);
    memory_broker_sync(&memory);
}
END_TEST

/* ---- what a reply waits for ---- */

START_TEST(replies_wait_for_their_batch)
{
    struct store *store = memory.store;
    uint64_t count;

    memory_broker_sync(&memory);
    const uint64_t first = store_open_lsn(store);
    ck_assert_ptr_nonnull(
        declare_exchange(&(struct exchange_case){.name = "x", "fanout", .durable = true}));
    ck_assert_uint_eq(lsn, first);
    ck_assert_ptr_nonnull(declare_queue(&(struct queue_case){.name = "q", true}));
    ck_assert_uint_eq(lsn, first);
    ck_assert(bind("x", "q", false, ""));
    ck_assert_uint_eq(lsn, first);
    queue_named("transient");
    ck_assert_uint_eq(lsn, 0);
    ck_assert(bind("x", "transient", false, ""));
    ck_assert_uint_eq(lsn, 0);
    memory_broker_sync(&memory);

    const uint64_t second = store_open_lsn(store);
    ck_assert_uint_gt(second, first);
    ck_assert_ptr_nonnull(declare_queue(&(struct queue_case){.name = "q", true}));
    ck_assert_uint_eq(lsn, first);
    ck_assert(bind("x", "q", false, ""));
    ck_assert_uint_eq(lsn, first);
    ck_assert(unbind("x", "q", false, ""));
    ck_assert_uint_eq(lsn, second);
    ck_assert(unbind("x", "q", false, "")); /* gone already, but not yet from the disk */
    ck_assert_uint_eq(lsn, second);
    memory_broker_sync(&memory);

    const uint64_t third = store_open_lsn(store);
    ck_assert(delete_exchange("x", false));
    ck_assert_uint_eq(lsn, third);
    ck_assert(delete_queue("q", false, false, &count));
    ck_assert_uint_eq(lsn, third);
    ck_assert(delete_queue("q", false, false, &count));
    ck_assert_uint_eq(lsn, third);
    memory_broker_sync(&memory);
    ck_assert(delete_queue("q", false, false, &count));
    ck_assert_uint_le(lsn, store_durable(store));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vhost");
    TCase *tests = tcase_create("vhost");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, predeclares_exchanges);
    tcase_add_loop_test(tests, refuses_exchanges, 0, countof(refused_exchanges));
    tcase_add_test(tests, redeclares_exchanges);
    tcase_add_test(tests, finds_exchanges);
    tcase_add_test(tests, deletes_exchanges);
    tcase_add_loop_test(tests, refuses_queues, 0, countof(refused_queues));
    tcase_add_loop_test(tests, accepts_queues, 0, countof(accepted_queues));
    tcase_add_test(tests, redeclares_queues);
    tcase_add_test(tests, names_queues);
    tcase_add_test(tests, finds_queues);
    tcase_add_test(tests, deletes_queues);
    tcase_add_loop_test(tests, refuses_bindings, 0, countof(refused_bindings));
    tcase_add_test(tests, binding_comes_before_ownership);
    tcase_add_test(tests, binds_once);
    tcase_add_test(tests, auto_delete_waits_for_the_first_binding);
    tcase_add_test(tests, auto_delete_goes_through_any_chain);
    tcase_add_test(tests, deletes_both_ends_of_itself);
    tcase_add_test(tests, replies_wait_for_their_batch);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
