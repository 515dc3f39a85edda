/* Encoding is by hand, field after field; decoding is the same list read back. A record is believed
 * only when it is exactly one: version, all fields, no flag that this version does not know, tables
 * well-formed, nothing behind. */
#include "core/definition.h"

#include "amqp/table.h"
#include "base/log.h"

enum { VERSION = 1, VHOST_VERSION = 2, GRANT_VERSION = 2, KEY_SIZE = 9, COPY = 0x80 };

/* In order of recovery; a policy is then applied to what is there already, as when it was set. */
enum kind {
    KIND_VHOST = 1,
    KIND_EXCHANGE,
    KIND_QUEUE,
    KIND_BINDING,
    KIND_POLICY,
    KIND_USER,
    KIND_GRANT,
    KIND_TOPIC,
};

enum flag { AUTO_DELETE = 1, INTERNAL = 2, DELAYED = 2, TO_EXCHANGE = 1, OPERATOR = 1 };

/* ---- writing ---- */

static struct slice make_key(uint8_t room[KEY_SIZE], unsigned kind, uint64_t id)
{
    assert(id != 0);
    amqp_put_u64(amqp_put_u8(room, (uint8_t)kind), id);
    return slice_of(room, KEY_SIZE);
}

static bool has_copy(enum kind kind)
{
    return kind == KIND_USER || kind == KIND_GRANT || kind == KIND_TOPIC;
}

/* Writes and releases the value. */
static void put(struct broker *broker, enum kind kind, uint64_t id, struct buf *value)
{
    uint8_t key[KEY_SIZE];

    store_put_record(broker->store, make_key(key, kind, id), buf_slice(value));
    if (has_copy(kind))
        store_put_record(broker->store, make_key(key, kind | COPY, id), buf_slice(value));
    broker_touch_store(broker);
    buf_release(value);
}

static void forget(struct broker *broker, enum kind kind, uint64_t id)
{
    uint8_t key[KEY_SIZE];

    store_delete_record(broker->store, make_key(key, kind, id));
    if (has_copy(kind))
        store_delete_record(broker->store, make_key(key, kind | COPY, id));
    broker_touch_store(broker);
}

/* Nearly every value begins with the version and its vhost. */
static struct buf begin_value(const struct vhost *vhost)
{
    struct buf value = BUF_EMPTY;

    amqp_write_u8(&value, VERSION);
    amqp_write_shortstr(&value, vhost->name);
    return value;
}

static void write_limit(struct buf *value, int64_t limit)
{
    amqp_write_u64(value, (uint64_t)limit);
}

/* Of a record that may be put again. */
static uint64_t give_id(struct broker *broker, uint64_t *record_id)
{
    if (*record_id == 0)
        *record_id = ++broker->last_record_id;
    return *record_id;
}

void definition_put_vhost(struct vhost *vhost)
{
    struct buf value = BUF_EMPTY;

    amqp_write_u8(&value, VHOST_VERSION);
    amqp_write_shortstr(&value, vhost->name);
    amqp_write_longstr(&value, vhost->description);
    amqp_write_longstr(&value, vhost->tags);
    write_limit(&value, vhost->limits.connection_max);
    write_limit(&value, vhost->limits.queue_max);
    put(vhost->broker, KIND_VHOST, give_id(vhost->broker, &vhost->record_id), &value);
}

void definition_put_user(struct broker *broker, struct user *user)
{
    struct buf value = BUF_EMPTY;

    amqp_write_u8(&value, VERSION);
    amqp_write_shortstr(&value, user->name);
    password_write(&value, &user->password);
    amqp_write_longstr(&value, user->tags);
    write_limit(&value, user->limits.connection_max);
    write_limit(&value, user->limits.channel_max);
    put(broker, KIND_USER, give_id(broker, &user->record_id), &value);
}

static struct buf begin_grant(const struct grant *grant, uint8_t version)
{
    struct buf value = BUF_EMPTY;

    amqp_write_u8(&value, version);
    amqp_write_shortstr(&value, grant->vhost);
    amqp_write_shortstr(&value, grant->user->name);
    return value;
}

void definition_put_grant(struct broker *broker, struct grant *grant)
{
    struct buf value = begin_grant(grant, GRANT_VERSION);
    const struct topic_rule *topic;

    for (size_t right = 0; right < ACCESS_RIGHTS; right++)
        amqp_write_longstr(&value, grant->rules[right].text);
    TAILQ_FOREACH (topic, &grant->topics, link)
        amqp_write_shortstr(&value, topic->exchange);
    put(broker, KIND_GRANT, give_id(broker, &grant->record_id), &value);
}

void definition_put_topic(struct broker *broker, const struct grant *grant,
                          struct topic_rule *topic)
{
    struct buf value = begin_grant(grant, VERSION);

    amqp_write_shortstr(&value, topic->exchange);
    amqp_write_longstr(&value, topic->write.text);
    amqp_write_longstr(&value, topic->read.text);
    put(broker, KIND_TOPIC, give_id(broker, &topic->record_id), &value);
}

void definition_put_exchange(struct exchange *exchange)
{
    struct broker *broker = exchange->vhost->broker;
    struct buf value = begin_value(exchange->vhost);
    const unsigned flags =
        (exchange->auto_delete ? AUTO_DELETE : 0) | (exchange->internal ? INTERNAL : 0);

    amqp_write_shortstr(&value, exchange->name);
    amqp_write_shortstr(&value, slice_of_string(exchange->type->name));
    amqp_write_u8(&value, (uint8_t)flags);
    amqp_write_longstr(&value, exchange->arguments);
    exchange->record_id = ++broker->last_record_id;
    put(broker, KIND_EXCHANGE, exchange->record_id, &value);
}

void definition_put_queue(const struct queue *queue)
{
    struct buf value = begin_value(queue->vhost);
    const unsigned flags =
        (queue->auto_delete ? AUTO_DELETE : 0) | (queue->delayed_by != NULL ? DELAYED : 0);

    amqp_write_shortstr(&value, queue->name);
    amqp_write_u8(&value, (uint8_t)flags);
    amqp_write_longstr(&value, queue->arguments);
    put(queue->broker, KIND_QUEUE, queue->id, &value);
}

void definition_put_binding(struct binding *binding)
{
    struct broker *broker = binding->source->vhost->broker;
    struct buf value = begin_value(binding->source->vhost);
    const bool to_exchange = binding->exchange != NULL;

    amqp_write_shortstr(&value, binding->source->name);
    amqp_write_u8(&value, to_exchange ? TO_EXCHANGE : 0);
    amqp_write_shortstr(&value, to_exchange ? binding->exchange->name : binding->queue->name);
    amqp_write_shortstr(&value, binding->key);
    amqp_write_longstr(&value, binding->arguments);
    binding->record_id = ++broker->last_record_id;
    put(broker, KIND_BINDING, binding->record_id, &value);
}

/* A policy that replaces another takes over its record_id. */
void definition_put_policy(const struct vhost *vhost, struct policy *policy)
{
    const struct policy_options *options = &policy->options;
    struct buf value = begin_value(vhost);

    amqp_write_shortstr(&value, options->name);
    amqp_write_u8(&value, options->kind == POLICY_OPERATOR ? OPERATOR : 0);
    amqp_write_u8(&value, (uint8_t)options->apply_to);
    amqp_write_u32(&value, (uint32_t)options->priority);
    amqp_write_longstr(&value, options->pattern);
    amqp_write_longstr(&value, options->definition);
    put(vhost->broker, KIND_POLICY, give_id(vhost->broker, &policy->record_id), &value);
}

void definition_delete_vhost(const struct vhost *vhost)
{
    forget(vhost->broker, KIND_VHOST, vhost->record_id);
}

void definition_delete_user(struct broker *broker, const struct user *user)
{
    forget(broker, KIND_USER, user->record_id);
}

void definition_delete_grant(struct broker *broker, const struct grant *grant)
{
    forget(broker, KIND_GRANT, grant->record_id);
}

void definition_delete_topic(struct broker *broker, const struct topic_rule *topic)
{
    if (topic->record_id != 0) /* else it was lost */
        forget(broker, KIND_TOPIC, topic->record_id);
}

void definition_delete_exchange(const struct exchange *exchange)
{
    forget(exchange->vhost->broker, KIND_EXCHANGE, exchange->record_id);
}

void definition_delete_queue(const struct queue *queue)
{
    forget(queue->broker, KIND_QUEUE, queue->id);
}

void definition_delete_binding(const struct binding *binding)
{
    forget(binding->source->vhost->broker, KIND_BINDING, binding->record_id);
}

void definition_delete_policy(const struct vhost *vhost, const struct policy *policy)
{
    forget(vhost->broker, KIND_POLICY, policy->record_id);
}

/* ---- reading back ---- */

struct record {
    struct broker *broker;
    enum kind kind;
    uint64_t id;
    uint8_t version;
    struct amqp_reader reader; /* of the value, behind the version */
    struct vhost *vhost;       /* of all kinds but vhosts and users */
};

/* Whether all fields were there and nothing else. */
static bool ends_well(const struct record *record, uint8_t flags, uint8_t known_flags,
                      struct slice arguments)
{
    return !record->reader.bad && amqp_reader_left(&record->reader) == 0 &&
           (flags & ~known_flags) == 0 && amqp_table_check(arguments);
}

static int64_t read_limit(struct record *record)
{
    const int64_t limit = (int64_t)amqp_read_u64(&record->reader);

    return limit < 0 ? LIMIT_NONE : limit;
}

static bool recover_vhost(struct record *record)
{
    const struct slice name = amqp_read_shortstr(&record->reader);
    struct slice description = {0}, tags = {0};
    struct vhost_limits limits = {LIMIT_NONE, LIMIT_NONE};

    if (record->version > 1) {
        description = amqp_read_longstr(&record->reader);
        tags = amqp_read_longstr(&record->reader);
        limits.connection_max = read_limit(record);
        limits.queue_max = read_limit(record);
    }
    if (!ends_well(record, 0, 0, (struct slice){0}) || vhost_find(record->broker, name) != NULL)
        return false;
    struct vhost *vhost = vhost_new(record->broker, name, true);
    vhost->record_id = record->id;
    vhost->limits = limits;
    vhost_describe(vhost, description, tags);
    return true;
}

static bool recover_user(struct record *record)
{
    struct password password;
    struct user_limits limits;

    const struct slice name = amqp_read_shortstr(&record->reader);
    if (!password_read(&record->reader, &password))
        return false;
    const struct slice tags = amqp_read_longstr(&record->reader);
    limits.connection_max = read_limit(record);
    limits.channel_max = read_limit(record);
    if (!ends_well(record, 0, 0, (struct slice){0}) || name.size == 0 ||
        users_find(&record->broker->users, name) != NULL)
        return false;
    struct user *user = user_new(&record->broker->users, name);
    user->record_id = record->id;
    user->limits = limits;
    user_set_password(user, &password);
    return user_set_tags(user, tags);
}

static struct user *read_user(struct record *record)
{
    return users_find(&record->broker->users, amqp_read_shortstr(&record->reader));
}

/* A rule that no key passes for each topic, until its own record is read. */
static void shut_topics(struct record *record, struct user *user, struct amqp_reader names)
{
    char error[PATTERN_ERROR_SIZE];

    while (amqp_reader_left(&names) > 0)
        user_set_topic(&record->broker->users, user, record->vhost->name,
                       amqp_read_shortstr(&names), SLICE(""), SLICE(""), error);
}

static bool recover_grant(struct record *record)
{
    struct user *user = read_user(record);
    struct slice patterns[ACCESS_RIGHTS];
    char error[PATTERN_ERROR_SIZE];

    for (size_t right = 0; right < ACCESS_RIGHTS; right++)
        patterns[right] = amqp_read_longstr(&record->reader);
    const struct amqp_reader names = record->reader;
    while (record->version > 1 && !record->reader.bad && amqp_reader_left(&record->reader) > 0)
        amqp_read_shortstr(&record->reader);
    if (!ends_well(record, 0, 0, (struct slice){0}) || user == NULL ||
        user_open_grant(user, record->vhost->name) != NULL)
        return false;
    struct grant *grant =
        user_set_grant(&record->broker->users, user, record->vhost->name, patterns, error);
    if (grant == NULL)
        return false;
    grant->record_id = record->id;
    shut_topics(record, user, names);
    return true;
}

/* And not only shut because the grant speaks of it. */
static bool is_recovered(const struct grant *grant, struct slice exchange)
{
    const struct topic_rule *topic = grant == NULL ? NULL : permission_topic(grant, exchange);

    return topic != NULL && topic->record_id != 0;
}

static bool recover_topic(struct record *record)
{
    struct user *user = read_user(record);
    char error[PATTERN_ERROR_SIZE];

    const struct slice exchange = amqp_read_shortstr(&record->reader);
    const struct slice write = amqp_read_longstr(&record->reader);
    const struct slice read = amqp_read_longstr(&record->reader);
    if (!ends_well(record, 0, 0, (struct slice){0}) || user == NULL ||
        is_recovered(user_grant(user, record->vhost->name), exchange))
        return false;
    struct topic_rule *topic = user_set_topic(&record->broker->users, user, record->vhost->name,
                                              exchange, write, read, error);
    if (topic == NULL)
        return false;
    topic->record_id = record->id;
    return true;
}

static bool recover_exchange(struct record *record)
{
    struct exchange_options options = {.durable = true};

    options.name = amqp_read_shortstr(&record->reader);
    options.type = amqp_read_shortstr(&record->reader);
    const uint8_t flags = amqp_read_u8(&record->reader);
    options.arguments = amqp_read_longstr(&record->reader);
    options.auto_delete = flags & AUTO_DELETE;
    options.internal = flags & INTERNAL;
    if (!ends_well(record, flags, AUTO_DELETE | INTERNAL, options.arguments))
        return false;
    struct exchange *exchange = vhost_recover_exchange(record->vhost, &options);
    if (exchange == NULL)
        return false;
    exchange->record_id = record->id;
    return true;
}

/* The exchange whose waiting messages the queue of this name is for; false: there is none. */
static bool find_delaying(const struct record *record, struct queue_options *options)
{
    struct map_link *link = map_find(&record->vhost->exchanges, options->name);

    options->delayed_by = link == NULL ? NULL : container_of(link, struct exchange, by_name);
    return link != NULL && options->delayed_by->delayed_type != NULL &&
           options->delayed_by->delayed == NULL;
}

static bool recover_queue(struct record *record)
{
    struct queue_options options = {.durable = true};

    options.name = amqp_read_shortstr(&record->reader);
    const uint8_t flags = amqp_read_u8(&record->reader);
    options.arguments = amqp_read_longstr(&record->reader);
    options.auto_delete = flags & AUTO_DELETE;
    if (!ends_well(record, flags, AUTO_DELETE | DELAYED, options.arguments) ||
        options.name.size == 0 || map_find_id(&record->broker->queues, record->id) != NULL ||
        (flags & DELAYED ? !find_delaying(record, &options)
                         : map_find(&record->vhost->queues, options.name) != NULL))
        return false;
    struct queue *queue = queue_recover(record->vhost, &options, record->id);
    if (options.delayed_by != NULL)
        options.delayed_by->delayed = queue;
    return true;
}

static bool recover_binding(struct record *record)
{
    struct binding_request request;

    request.source = amqp_read_shortstr(&record->reader);
    const uint8_t flags = amqp_read_u8(&record->reader);
    request.destination = amqp_read_shortstr(&record->reader);
    request.key = amqp_read_shortstr(&record->reader);
    request.arguments = amqp_read_longstr(&record->reader);
    request.to_exchange = flags & TO_EXCHANGE;
    if (!ends_well(record, flags, TO_EXCHANGE, request.arguments))
        return false;
    struct binding *binding = vhost_recover_binding(record->vhost, &request);
    if (binding == NULL)
        return false;
    binding->record_id = record->id;
    return true;
}

static bool recover_policy(struct record *record)
{
    struct policy_options options;

    options.name = amqp_read_shortstr(&record->reader);
    const uint8_t flags = amqp_read_u8(&record->reader);
    const uint8_t apply_to = amqp_read_u8(&record->reader);
    options.priority = (int32_t)amqp_read_u32(&record->reader);
    options.pattern = amqp_read_longstr(&record->reader);
    options.definition = amqp_read_longstr(&record->reader);
    options.kind = flags & OPERATOR ? POLICY_OPERATOR : POLICY_PLAIN;
    options.apply_to = apply_to;
    return ends_well(record, flags, OPERATOR, options.definition) && apply_to < POLICY_SCOPES &&
           policy_recover(record->vhost, &options, record->id) != NULL;
}

static bool recover_record(struct record *record)
{
    if (record->kind == KIND_VHOST)
        return recover_vhost(record);
    if (record->kind == KIND_USER)
        return recover_user(record);
    record->vhost = vhost_find(record->broker, amqp_read_shortstr(&record->reader));
    if (record->reader.bad || record->vhost == NULL)
        return false;
    switch (record->kind) {
    case KIND_EXCHANGE:
        return recover_exchange(record);
    case KIND_QUEUE:
        return recover_queue(record);
    case KIND_BINDING:
        return recover_binding(record);
    case KIND_POLICY:
        return recover_policy(record);
    case KIND_GRANT:
        return recover_grant(record);
    case KIND_TOPIC:
        return recover_topic(record);
    default:
        return false;
    }
}

static bool knows_version(const struct record *record)
{
    return record->version == VERSION ||
           (record->kind == KIND_VHOST && record->version == VHOST_VERSION) ||
           (record->kind == KIND_GRANT && record->version == GRANT_VERSION);
}

/* An id that was given out is not given again, even if its record makes no sense. */
static void keep_id(const struct record *record)
{
    if (record->kind != KIND_QUEUE && record->id > record->broker->last_record_id)
        record->broker->last_record_id = record->id;
}

bool definition_recover(struct broker *broker, struct slice key, struct slice value)
{
    struct amqp_reader key_reader = amqp_reader_of(key);
    struct record record = {.broker = broker, .reader = amqp_reader_of(value)};

    const unsigned kind = amqp_read_u8(&key_reader);
    record.id = amqp_read_u64(&key_reader);
    record.version = amqp_read_u8(&record.reader);
    record.kind = kind & ~(unsigned)COPY;
    const bool is_copy = kind != record.kind && has_copy(record.kind);
    bool good = !key_reader.bad && amqp_reader_left(&key_reader) == 0 && record.id != 0 &&
                (is_copy || kind == record.kind) && knows_version(&record);
    if (good) {
        keep_id(&record);
        good = recover_record(&record);
    }
    if (good && is_copy) {
        broker->restored = true;
        log_warning("a definition in the store was lost, and is restored from its copy: kind %u, "
                    "id %" PRIu64,
                    (unsigned)record.kind, record.id);
    } else if (!good && !is_copy) {
        log_warning("a definition in the store cannot be used: kind %u, id %" PRIu64 ", %zu octets",
                    kind, record.id, value.size);
    }
    return good || is_copy;
}
