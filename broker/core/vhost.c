/* Creating and deleting what clients name.
 *
 * What is durable joins the open batch as a definition, and the caller learns its LSN. Deleting
 * leaves a mark on the vhost, `deletion_lsn`: who asks to delete what is gone already waits as long
 * as the one who deleted it.
 *
 * An exchange with auto-delete goes with its last binding, and takes with it bindings of other
 * exchanges that lead to it, which may be the last of those (7.7). Such a chain can be as long as
 * peers like, so it is not recursion but a list: exchanges to be deleted wait in `doomed`, those
 * without any binding left in `deleted`, from where the REAP phase frees them. */
#include "core/vhost.h"

#include "base/alloc.h"
#include "core/argument.h"
#include "core/definition.h"
#include "core/name.h"

static const struct predeclared {
    const char *name;
    const struct exchange_type *type;
    bool internal;
} predeclared[] = {
    /* 7.1 */
    {"", &exchange_type_default, false},
    {"amq.direct", &exchange_type_direct, false},
    {"amq.fanout", &exchange_type_fanout, false},
    {"amq.topic", &exchange_type_topic, false},
    {"amq.headers", &exchange_type_headers, false},
    {"amq.match", &exchange_type_headers, false},
    {"amq.rabbitmq.trace", &exchange_type_topic, true},
};

/* ---- vhosts ---- */

struct vhost *vhost_find(struct broker *broker, struct slice name)
{
    struct map_link *link = map_find(&broker->vhosts, name);

    return link == NULL ? NULL : container_of(link, struct vhost, by_name);
}

static struct exchange *find_exchange(const struct vhost *vhost, struct slice name)
{
    struct map_link *link = map_find(&vhost->exchanges, name);

    return link == NULL ? NULL : container_of(link, struct exchange, by_name);
}

static struct queue *find_queue(const struct vhost *vhost, struct slice name)
{
    struct map_link *link = map_find(&vhost->queues, name);

    return link == NULL ? NULL : container_of(link, struct queue, by_name);
}

static void predeclare(struct vhost *vhost)
{
    for (size_t i = 0; i < countof(predeclared); i++) {
        const struct exchange_options options = {
            .name = slice_of_string(predeclared[i].name),
            .durable = true,
            .internal = predeclared[i].internal,
        };
        exchange_new(vhost, predeclared[i].type, &options);
    }
    vhost->default_exchange = find_exchange(vhost, SLICE(""));
}

struct vhost *vhost_new(struct broker *broker, struct slice name, bool recovered)
{
    struct vhost *vhost = xmalloc(sizeof(*vhost) + name.size);

    *vhost = (struct vhost){.broker = broker};
    vhost->name = slice_of(vhost + 1, name.size);
    amqp_put_bytes((uint8_t *)(vhost + 1), name);
    TAILQ_INIT(&vhost->doomed);
    TAILQ_INIT(&vhost->deleted);
    for (size_t kind = 0; kind < POLICY_KINDS; kind++)
        TAILQ_INIT(&vhost->policies[kind]);
    map_insert(&broker->vhosts, &vhost->by_name, vhost->name);
    predeclare(vhost);
    if (!recovered)
        definition_put_vhost(vhost);
    return vhost;
}

static void reap_exchange(struct exchange *exchange)
{
    loop_unqueue(exchange->vhost->broker->loop, &exchange->task);
    TAILQ_REMOVE(&exchange->vhost->deleted, exchange, by_deleted);
    exchange_free(&exchange);
}

static void release_exchanges(struct vhost *vhost)
{
    struct map_link *link;
    struct exchange *exchange;
    struct binding *binding;

    map_each (&vhost->exchanges, each) {
        exchange = container_of(each, struct exchange, by_name);
        while ((binding = TAILQ_FIRST(&exchange->bindings)) != NULL)
            exchange_remove_binding(&binding);
    }
    while ((link = map_next(&vhost->exchanges, NULL)) != NULL) {
        exchange = container_of(link, struct exchange, by_name);
        map_remove(&vhost->exchanges, link);
        exchange_free(&exchange);
    }
    while ((exchange = TAILQ_FIRST(&vhost->deleted)) != NULL)
        reap_exchange(exchange);
    map_release(&vhost->exchanges);
}

void vhost_free(struct vhost **vhost)
{
    struct vhost *gone = *vhost;
    struct map_link *link;

    *vhost = NULL;
    release_exchanges(gone);
    while ((link = map_next(&gone->queues, NULL)) != NULL) {
        struct queue *queue = container_of(link, struct queue, by_name);
        queue_free(&queue);
    }
    map_release(&gone->queues);
    policies_release(gone);
    map_release(&gone->reply_targets);
    map_remove(&gone->broker->vhosts, &gone->by_name);
    free(gone);
}

/* ---- what every request is asked ---- */

struct slice vhost_strip_name(struct slice name, uint8_t room[NAME_SIZE_MAX])
{
    size_t size = 0;

    assert(name.size <= NAME_SIZE_MAX);
    if (name.size == 0 ||
        (memchr(name.data, '\r', name.size) == NULL && memchr(name.data, '\n', name.size) == NULL))
        return name;
    for (size_t i = 0; i < name.size; i++)
        if (name.data[i] != '\r' && name.data[i] != '\n')
            room[size++] = name.data[i];
    return slice_of(room, size);
}

static bool check_not_default(struct slice exchange_name, struct amqp_error *error)
{
    return exchange_name.size > 0 ||
           amqp_fail(error, AMQP_ACCESS_REFUSED, "operation not permitted on the default exchange");
}

/* 7.3, 8.1: at creation only. */
static bool check_not_reserved(const char *kind, struct slice name, struct amqp_error *error)
{
    return !slice_starts_with(name, SLICE("amq.")) ||
           amqp_fail(error, AMQP_ACCESS_REFUSED, "%s name '%.*s' contains reserved prefix 'amq.*'",
                     kind, SLICE_ARG(name));
}

static bool check_arguments_size(struct slice arguments, struct amqp_error *error)
{
    return arguments.size <= ARGUMENTS_SIZE_MAX ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "arguments of %zu octets are larger than the maximum of %d", arguments.size,
                     ARGUMENTS_SIZE_MAX);
}

/* 7.4, 8.7.2: what a redeclare says against what is there. */
static bool check_equal(const struct argument_owner *owner, const char *property,
                        struct slice received, struct slice current, struct amqp_error *error)
{
    return slice_equal(received, current) ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "inequivalent arg '%s' for %s '%.*s' in vhost '%.*s': "
                     "received '%.*s' but current is '%.*s'",
                     property, owner->kind, SLICE_ARG(owner->name), SLICE_ARG(owner->vhost),
                     SLICE_ARG(received), SLICE_ARG(current));
}

static bool check_same(const struct argument_owner *owner, const char *property, bool received,
                       bool current, struct amqp_error *error)
{
    const struct slice words[] = {SLICE("false"), SLICE("true")};

    return check_equal(owner, property, words[received], words[current], error);
}

static struct exchange *fail_no_exchange(const struct vhost *vhost, struct slice name,
                                         struct amqp_error *error)
{
    amqp_fail(error, AMQP_NOT_FOUND, "no exchange '%.*s' in vhost '%.*s'", SLICE_ARG(name),
              SLICE_ARG(vhost->name));
    return NULL;
}

/* 8.7.1 */
static bool fail_locked(const struct queue *queue, struct amqp_error *error)
{
    return amqp_fail(error, AMQP_RESOURCE_LOCKED,
                     "cannot obtain exclusive access to locked queue '%.*s' in vhost '%.*s'. "
                     "It could be originally declared on another connection or the exclusive "
                     "property value does not match that of the original declaration.",
                     SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name));
}

/* ---- deleting exchanges ---- */

static void on_reap(struct task *task)
{
    reap_exchange(container_of(task, struct exchange, task));
}

static void note_deletion(struct vhost *vhost)
{
    vhost->deletion_lsn = store_open_lsn(vhost->broker->store);
}

/* No client finds it any more. */
static void doom_exchange(struct exchange *exchange)
{
    assert(!exchange->deleted);
    exchange->deleted = true;
    map_remove(&exchange->vhost->exchanges, &exchange->by_name);
    TAILQ_INSERT_TAIL(&exchange->vhost->doomed, exchange, by_deleted);
}

/* Its source, if it was the last of an auto-delete exchange, is doomed by it. */
static void delete_binding(struct binding *binding)
{
    struct exchange *source = binding->source;

    if (binding->durable) {
        definition_delete_binding(binding);
        note_deletion(source->vhost);
    }
    exchange_remove_binding(&binding);
    if (source->auto_delete && source->binding_count == 0 && !source->deleted)
        doom_exchange(source);
}

static void delete_bindings(struct exchange *exchange)
{
    struct binding *binding;

    while ((binding = TAILQ_FIRST(&exchange->bindings)) != NULL ||
           (binding = TAILQ_FIRST(&exchange->incoming)) != NULL)
        delete_binding(binding);
}

/* Until nothing is doomed any more. */
static void bury_exchanges(struct vhost *vhost)
{
    struct exchange *exchange;

    while ((exchange = TAILQ_FIRST(&vhost->doomed)) != NULL) {
        delete_bindings(exchange);
        if (exchange->durable) {
            definition_delete_exchange(exchange);
            note_deletion(vhost);
        }
        TAILQ_REMOVE(&vhost->doomed, exchange, by_deleted);
        TAILQ_INSERT_TAIL(&vhost->deleted, exchange, by_deleted);
        exchange->task.run = on_reap;
        loop_queue(vhost->broker->loop, LOOP_REAP, &exchange->task);
        if (exchange->type->on_deleted != NULL)
            exchange->type->on_deleted(exchange);
    }
}

/* ---- exchanges ---- */

struct exchange *vhost_find_exchange(struct vhost *vhost, struct slice name,
                                     struct amqp_error *error)
{
    struct exchange *exchange =
        name.size == 0 ? vhost->default_exchange : find_exchange(vhost, name);

    return likely(exchange != NULL) ? exchange : fail_no_exchange(vhost, name, error);
}

static struct argument_owner exchange_owner(const struct vhost *vhost, struct slice name)
{
    return (struct argument_owner){"exchange", name, vhost->name};
}

/* 7.4, in this order. */
static bool check_exchange_agrees(const struct exchange *exchange,
                                  const struct exchange_options *options, struct amqp_error *error)
{
    const struct argument_owner owner = exchange_owner(exchange->vhost, exchange->name);

    return check_equal(&owner, "type", options->type, slice_of_string(exchange->type->name),
                       error) &&
           check_same(&owner, "durable", options->durable, exchange->durable, error) &&
           check_same(&owner, "auto_delete", options->auto_delete, exchange->auto_delete, error) &&
           check_same(&owner, "internal", options->internal, exchange->internal, error) &&
           argument_agree_exchange(&owner, options->arguments, exchange->arguments, error);
}

/* 17.7; those that are predeclared count. */
static bool check_exchange_limit(const struct vhost *vhost, struct slice name,
                                 struct amqp_error *error)
{
    const struct broker *broker = vhost->broker;
    const uint32_t max = broker->limits.exchange_max;
    size_t count = 0;

    if (max == 0)
        return true;
    map_each (&broker->vhosts, link)
        count += container_of(link, struct vhost, by_name)->exchanges.count;
    return count < max ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "cannot declare exchange '%.*s' in vhost '%.*s': exchange limit of %" PRIu32
                     " is reached",
                     SLICE_ARG(name), SLICE_ARG(vhost->name), max);
}

static bool check_new_exchange(const struct vhost *vhost, const struct exchange_type *type,
                               const struct exchange_options *options, struct amqp_error *error)
{
    const struct argument_owner owner = exchange_owner(vhost, options->name);

    return check_not_reserved("exchange", options->name, error) &&
           argument_check_exchange(&owner, options->arguments, error) &&
           check_arguments_size(options->arguments, error) &&
           (type->check_arguments == NULL || type->check_arguments(options->arguments, error)) &&
           check_exchange_limit(vhost, options->name, error);
}

static struct exchange *create_exchange(struct vhost *vhost, const struct exchange_type *type,
                                        const struct exchange_options *options)
{
    const struct argument_owner owner = exchange_owner(vhost, options->name);
    struct exchange *exchange = exchange_new(vhost, type, options);

    argument_warn(&owner, options->arguments);
    if (exchange->durable) {
        exchange->lsn = store_open_lsn(vhost->broker->store);
        definition_put_exchange(exchange);
    }
    return exchange;
}

struct exchange *vhost_declare_exchange(struct vhost *vhost, const struct exchange_options *options,
                                        uint64_t *lsn, struct amqp_error *error)
{
    const struct exchange_type *type = exchange_type_find(options->type);
    struct exchange_options wanted = *options;
    uint8_t room[NAME_SIZE_MAX];

    if (type == NULL) {
        amqp_fail(error, AMQP_PRECONDITION_FAILED, "unknown exchange type '%.*s'",
                  SLICE_ARG(options->type));
        return NULL;
    }
    wanted.name = vhost_strip_name(options->name, room);
    if (!check_not_default(wanted.name, error))
        return NULL;
    struct exchange *exchange = find_exchange(vhost, wanted.name);
    if (exchange == NULL) {
        if (!check_new_exchange(vhost, type, &wanted, error))
            return NULL;
        exchange = create_exchange(vhost, type, &wanted);
    } else if (!check_exchange_agrees(exchange, &wanted, error)) {
        return NULL;
    }
    *lsn = exchange->lsn;
    return exchange;
}

/* 7.6 */
bool vhost_delete_exchange(struct vhost *vhost, struct slice name, bool if_unused, uint64_t *lsn,
                           struct amqp_error *error)
{
    uint8_t room[NAME_SIZE_MAX];

    name = vhost_strip_name(name, room);
    if (!check_not_default(name, error))
        return false;
    if (slice_starts_with(name, SLICE("amq.")))
        return amqp_fail(error, AMQP_ACCESS_REFUSED,
                         "deletion of system exchange '%.*s' in vhost '%.*s' not allowed",
                         SLICE_ARG(name), SLICE_ARG(vhost->name));
    struct exchange *exchange = find_exchange(vhost, name);
    if (exchange != NULL) {
        if (if_unused && exchange->binding_count > 0)
            return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                             "exchange '%.*s' in vhost '%.*s' in use", SLICE_ARG(name),
                             SLICE_ARG(vhost->name));
        doom_exchange(exchange);
        bury_exchanges(vhost);
    }
    *lsn = vhost->deletion_lsn;
    return true;
}

struct exchange *vhost_recover_exchange(struct vhost *vhost, const struct exchange_options *options)
{
    const struct exchange_type *type = exchange_type_find(options->type);
    struct amqp_error error;

    if (type == NULL || find_exchange(vhost, options->name) != NULL ||
        (type->check_arguments != NULL && !type->check_arguments(options->arguments, &error)))
        return NULL;
    return exchange_new(vhost, type, options);
}

/* ---- queues ---- */

static struct queue *fail_no_queue(const struct vhost *vhost, struct slice name,
                                   struct amqp_error *error)
{
    amqp_fail(error, AMQP_NOT_FOUND, "no queue '%.*s' in vhost '%.*s'", SLICE_ARG(name),
              SLICE_ARG(vhost->name));
    return NULL;
}

struct queue *vhost_find_queue(struct vhost *vhost, struct slice name,
                               const struct queue_owner *asking, struct amqp_error *error)
{
    struct queue *queue = find_queue(vhost, name);

    if (queue == NULL)
        return fail_no_queue(vhost, name, error);
    if (!queue_is_open_to(queue, asking)) {
        fail_locked(queue, error);
        return NULL;
    }
    return queue;
}

static struct argument_owner queue_name_of(const struct vhost *vhost, struct slice name)
{
    return (struct argument_owner){"queue", name, vhost->name};
}

/* 8.7, in this order. */
static bool check_queue_agrees(const struct queue *queue, const struct queue_options *options,
                               struct amqp_error *error)
{
    const struct argument_owner name = queue_name_of(queue->vhost, queue->name);

    if (queue->owner != options->owner)
        return fail_locked(queue, error);
    return check_same(&name, "durable", options->durable, queue->durable, error) &&
           check_same(&name, "auto_delete", options->auto_delete, queue->auto_delete, error) &&
           argument_agree_queue(&name, options->arguments, queue->arguments, error);
}

/* 17.7 */
static bool check_queue_limit(const struct vhost *vhost, struct slice name,
                              struct amqp_error *error)
{
    const struct broker *broker = vhost->broker;
    const uint32_t max = broker->limits.queue_max;
    size_t count = 0;

    if (max == 0)
        return true;
    map_each (&broker->vhosts, link)
        count += container_of(link, struct vhost, by_name)->queues.count;
    return count < max ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "cannot declare queue '%.*s': queue limit in cluster (%" PRIu32 ") is reached",
                     SLICE_ARG(name), max);
}

/* Whatever its name: that was looked at before. */
static struct queue *create_queue(struct vhost *vhost, const struct queue_options *options,
                                  uint64_t *lsn, struct amqp_error *error)
{
    const struct argument_queue asked = {
        .owner = queue_name_of(vhost, options->name),
        .durable = options->durable,
        .exclusive = options->owner != NULL,
        .auto_delete = options->auto_delete,
    };

    if (!argument_check_queue(&asked, options->arguments, error) ||
        !check_arguments_size(options->arguments, error) ||
        !check_queue_limit(vhost, options->name, error))
        return NULL;
    argument_warn(&asked.owner, options->arguments);
    struct queue *queue = queue_new(vhost, options);
    *lsn = queue->lsn;
    return queue;
}

enum { PREFIX_SIZE_MAX = 64 };

/* The prefix for a server-named queue, and its arguments without what asked for it, appended to
 * *rest. */
static bool take_name_prefix(struct slice arguments, struct slice *prefix, struct buf *rest,
                             struct amqp_error *error)
{
    const struct slice wanted = SLICE("x-name-prefix");
    struct amqp_table_iter iter = amqp_table_walk(arguments);
    struct amqp_value value;
    struct slice key;

    *prefix = SLICE("amq.gen-");
    if (amqp_table_find(arguments, wanted, &value)) {
        if (value.type != AMQP_STRING)
            return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                             "invalid type '%s' for arg 'x-name-prefix'",
                             argument_type_name(&value));
        if (value.bytes.size > PREFIX_SIZE_MAX)
            return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                             "Queue name prefix '%.*s' exceeds the %d-byte limit",
                             SLICE_ARG(value.bytes), PREFIX_SIZE_MAX);
        *prefix = value.bytes;
    }
    while (amqp_table_next(&iter, &key, &value))
        if (!slice_equal(key, wanted))
            amqp_table_put(rest, key, &value);
    return true;
}

/* Nobody may guess it: it is the address of a private queue, often. */
static struct slice make_name(struct vhost *vhost, struct slice prefix,
                              char room[PREFIX_SIZE_MAX + NAME_RANDOM_SIZE])
{
    const struct slice name = slice_of(room, prefix.size + NAME_RANDOM_SIZE);

    memcpy(room, prefix.data, prefix.size);
    do
        name_random(vhost->broker->random, "", room + prefix.size, NAME_RANDOM_SIZE);
    while (find_queue(vhost, name) != NULL);
    return name;
}

/* 8.2 */
static struct queue *declare_server_named(struct vhost *vhost, const struct queue_options *options,
                                          uint64_t *lsn, struct amqp_error *error)
{
    struct queue_options named = *options;
    char room[PREFIX_SIZE_MAX + NAME_RANDOM_SIZE];
    struct buf arguments = BUF_EMPTY;
    struct slice prefix;
    struct queue *queue = NULL;

    if (!take_name_prefix(options->arguments, &prefix, &arguments, error))
        goto out;
    if (argument_queue_type(options->arguments) != QUEUE_CLASSIC) {
        amqp_fail(error, AMQP_PRECONDITION_FAILED,
                  "Cannot declare a server-named queue for type rabbit_quorum_queue");
        goto out;
    }
    named.name = make_name(vhost, prefix, room);
    named.arguments = buf_slice(&arguments);
    queue = create_queue(vhost, &named, lsn, error);
out:
    buf_release(&arguments);
    return queue;
}

struct queue *vhost_declare_queue(struct vhost *vhost, const struct queue_options *options,
                                  uint64_t *lsn, struct amqp_error *error)
{
    struct queue_options wanted = *options;
    uint8_t room[NAME_SIZE_MAX];

    wanted.name = vhost_strip_name(options->name, room);
    wanted.durable = options->durable && options->owner == NULL; /* 8.3 */
    if (wanted.name.size == 0)
        return declare_server_named(vhost, &wanted, lsn, error);
    struct queue *queue = find_queue(vhost, wanted.name);
    if (queue == NULL)
        return check_not_reserved("queue", wanted.name, error)
                   ? create_queue(vhost, &wanted, lsn, error)
                   : NULL;
    if (!check_queue_agrees(queue, &wanted, error))
        return NULL;
    queue_used(queue);
    *lsn = queue->lsn;
    return queue;
}

/* 8.12 */
static bool check_may_delete(const struct queue *queue, bool if_unused, bool if_empty,
                             const struct queue_owner *asking, struct amqp_error *error)
{
    const char *in_the_way = NULL;

    if (!queue_is_open_to(queue, asking))
        return fail_locked(queue, error);
    if ((if_unused || if_empty) && argument_queue_type(queue->arguments) == QUEUE_QUORUM)
        return amqp_fail(error, AMQP_NOT_IMPLEMENTED,
                         "cannot delete queue '%.*s' in vhost '%.*s'. queue.delete operations with "
                         "%s flag set are not supported by quorum queues",
                         SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name),
                         if_unused ? "if-unused" : "if-empty");
    if (if_empty && queue_ready_count(queue) > 0)
        in_the_way = "not empty";
    else if (if_unused && queue->consumer_count > 0)
        in_the_way = "in use";
    return in_the_way == NULL ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED, "queue '%.*s' in vhost '%.*s' %s",
                     SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), in_the_way);
}

bool vhost_delete_queue(struct vhost *vhost, struct slice name, bool if_unused, bool if_empty,
                        const struct queue_owner *asking, uint64_t *count, uint64_t *lsn,
                        struct amqp_error *error)
{
    uint8_t room[NAME_SIZE_MAX];
    struct queue *queue = find_queue(vhost, vhost_strip_name(name, room));

    *count = 0;
    if (queue != NULL) {
        if (!check_may_delete(queue, if_unused, if_empty, asking, error))
            return false;
        *count = queue_ready_count(queue);
        queue_delete(queue);
    }
    *lsn = vhost->deletion_lsn;
    return true;
}

void vhost_drop_bindings_of_queue(struct vhost *vhost, struct queue *queue)
{
    struct binding *binding;

    if (queue->durable)
        note_deletion(vhost);
    while ((binding = TAILQ_FIRST(&queue->bindings)) != NULL)
        delete_binding(binding);
    bury_exchanges(vhost);
}

/* ---- bindings ---- */

/* A request with clean names, and what they name now. */
struct edge {
    struct binding_request request;
    struct exchange *source;
    struct queue *queue; /* the destination: one of the two, or neither when it is absent */
    struct exchange *exchange;
    uint8_t rooms[2][NAME_SIZE_MAX];
};

static void find_edge(struct edge *edge, const struct vhost *vhost,
                      const struct binding_request *request)
{
    edge->request = *request;
    edge->request.source = vhost_strip_name(request->source, edge->rooms[0]);
    edge->request.destination = vhost_strip_name(request->destination, edge->rooms[1]);
    edge->source = find_exchange(vhost, edge->request.source);
    edge->queue = request->to_exchange ? NULL : find_queue(vhost, edge->request.destination);
    edge->exchange = request->to_exchange ? find_exchange(vhost, edge->request.destination) : NULL;
}

/* 7.19, whether or not the ends exist. */
static bool check_request(const struct binding_request *request, struct amqp_error *error)
{
    if (!check_not_default(request->source, error))
        return false;
    if (request->to_exchange)
        return check_not_default(request->destination, error);
    return !slice_starts_with(request->destination, SLICE("amq.rabbitmq.reply-to")) ||
           amqp_fail(error, AMQP_ACCESS_REFUSED,
                     "cannot bind or unbind to a volatile (direct reply-to) queue");
}

/* 7.18: both ends, the source first. */
static bool check_ends(struct vhost *vhost, const struct edge *edge, struct amqp_error *error)
{
    const struct binding_request *request = &edge->request;

    if (edge->source == NULL)
        return fail_no_exchange(vhost, request->source, error) != NULL;
    if (request->to_exchange)
        return edge->exchange != NULL ||
               fail_no_exchange(vhost, request->destination, error) != NULL;
    return edge->queue != NULL || fail_no_queue(vhost, request->destination, error) != NULL;
}

/* 7.19 */
static bool check_destination(const struct edge *edge, const struct queue_owner *asking,
                              struct amqp_error *error)
{
    return edge->queue == NULL || queue_is_open_to(edge->queue, asking) ||
           fail_locked(edge->queue, error);
}

static void write_identity(struct buf *out, const struct binding_request *request)
{
    binding_write_identity(out, request->to_exchange, request->destination, request->key,
                           request->arguments);
}

static struct binding *create_binding(const struct edge *edge, struct slice identity)
{
    struct binding *binding =
        exchange_add_binding(edge->source, identity, edge->queue, edge->exchange);

    if (binding->durable) {
        binding->lsn = store_open_lsn(edge->source->vhost->broker->store);
        definition_put_binding(binding);
    }
    return binding;
}

static bool check_new_binding(const struct edge *edge, struct amqp_error *error)
{
    const struct exchange_type *type = edge->source->type;
    const struct binding_request *request = &edge->request;

    return check_arguments_size(request->arguments, error) &&
           (type->check_binding == NULL ||
            type->check_binding(edge->source, edge->queue, request->key, request->arguments,
                                error));
}

bool vhost_bind(struct vhost *vhost, const struct binding_request *request,
                const struct queue_owner *asking, uint64_t *lsn, struct amqp_error *error)
{
    struct buf identity = BUF_EMPTY;
    struct edge edge;

    find_edge(&edge, vhost, request);
    if (!check_request(&edge.request, error) || !check_ends(vhost, &edge, error) ||
        !check_new_binding(&edge, error) || !check_destination(&edge, asking, error))
        return false;
    write_identity(&identity, &edge.request);
    struct binding *binding = exchange_find_binding(edge.source, buf_slice(&identity));
    if (binding == NULL)
        binding = create_binding(&edge, buf_slice(&identity));
    *lsn = binding->lsn;
    buf_release(&identity);
    return true;
}

bool vhost_unbind(struct vhost *vhost, const struct binding_request *request,
                  const struct queue_owner *asking, uint64_t *lsn, struct amqp_error *error)
{
    struct buf identity = BUF_EMPTY;
    struct binding *binding = NULL;
    struct edge edge;

    find_edge(&edge, vhost, request);
    if (!check_request(&edge.request, error))
        return false;
    if (edge.source != NULL) {
        write_identity(&identity, &edge.request);
        binding = exchange_find_binding(edge.source, buf_slice(&identity));
        buf_release(&identity);
    }
    if (binding != NULL) { /* what is missing is unbound already, whoever asks: 7.18 */
        if (!check_destination(&edge, asking, error))
            return false;
        delete_binding(binding);
        bury_exchanges(vhost);
    }
    *lsn = vhost->deletion_lsn;
    return true;
}

struct binding *vhost_recover_binding(struct vhost *vhost, const struct binding_request *request)
{
    struct buf identity = BUF_EMPTY;
    struct binding *binding = NULL;
    struct edge edge;

    find_edge(&edge, vhost, request);
    if (edge.source == NULL || (edge.queue == NULL && edge.exchange == NULL))
        return NULL;
    write_identity(&identity, &edge.request);
    if (exchange_find_binding(edge.source, buf_slice(&identity)) == NULL)
        binding =
            exchange_add_binding(edge.source, buf_slice(&identity), edge.queue, edge.exchange);
    buf_release(&identity);
    return binding;
}
