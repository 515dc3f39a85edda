/* Creating, finding and deleting queues. */
#include "core/vhost_parts.h"

#include "core/name.h"

struct queue *vhost_find_queue(struct vhost *vhost, struct slice name,
                               enum access_operation operation, const struct asker *asking,
                               struct amqp_error *error)
{
    if (!vhost_check_access(asking, operation, name, (struct slice){0}, error))
        return NULL;
    struct queue *queue = vhost_get_queue(vhost, name);
    if (queue == NULL)
        return vhost_fail_no_queue(vhost, name, error);
    if (!vhost_is_open_to(queue, asking)) {
        vhost_fail_locked(queue, error);
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
        return vhost_fail_locked(queue, error);
    return vhost_check_same(&name, "durable", options->durable, queue->durable, error) &&
           vhost_check_same(&name, "auto_delete", options->auto_delete, queue->auto_delete,
                            error) &&
           argument_agree_queue(&name, options->arguments, queue->arguments, error);
}

/* 8.8, 17.6 */
static bool check_limit_of_vhost(const struct vhost *vhost, struct slice name,
                                 struct amqp_error *error)
{
    const int64_t max = vhost->limits.queue_max;

    return max == LIMIT_NONE || (int64_t)vhost->queues.count < max ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "cannot declare queue '%.*s': queue limit in vhost '%.*s' (%" PRId64
                     ") is reached",
                     SLICE_ARG(name), SLICE_ARG(vhost->name), max);
}

/* 17.7 */
static bool check_queue_limit(const struct vhost *vhost, struct slice name,
                              struct amqp_error *error)
{
    const uint32_t max = vhost->broker->limits.queue_max;

    return max == 0 || vhost->broker->totals.queues < max ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "cannot declare queue '%.*s': queue limit in cluster (%" PRIu32 ") is reached",
                     SLICE_ARG(name), max);
}

/* 8.8, 16.2: its dead letters go where who asks could publish to. */
static bool check_dead_letter_exchange(const struct queue_options *options,
                                       const struct asker *asking, struct amqp_error *error)
{
    struct amqp_value value;

    return !amqp_table_find(options->arguments, SLICE("x-dead-letter-exchange"), &value) ||
           vhost_check_access(asking, ACCESS_QUEUE_DECLARE, options->name, value.bytes, error);
}

/* Whatever its name: that was looked at before. */
static struct queue *create_queue(struct vhost *vhost, const struct queue_options *options,
                                  const struct asker *asking, uint64_t *lsn,
                                  struct amqp_error *error)
{
    const struct argument_queue asked = {
        .owner = queue_name_of(vhost, options->name),
        .durable = options->durable,
        .exclusive = options->owner != NULL,
        .auto_delete = options->auto_delete,
    };

    if (!argument_check_queue(&asked, options->arguments, error) ||
        !vhost_check_arguments_size(options->arguments, error) ||
        !check_dead_letter_exchange(options, asking, error) ||
        !check_limit_of_vhost(vhost, options->name, error) ||
        !check_queue_limit(vhost, options->name, error) ||
        !vhost_check_octets(vhost, "declare queue", options->name,
                            options->name.size + options->arguments.size, error))
        return NULL;
    argument_warn(&asked.owner, options->arguments);
    struct queue *queue = queue_new(vhost, options);
    *lsn = queue->lsn;
    return queue;
}

enum { PREFIX_SIZE_MAX = 64 };

/* The prefix for a server-named queue, as names are found, and its arguments without what asked for
 * it, appended to *rest. */
static bool take_name_prefix(struct slice arguments, uint8_t room[NAME_SIZE_MAX],
                             struct slice *prefix, struct buf *rest, struct amqp_error *error)
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
        *prefix = vhost_strip_name(value.bytes, room);
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
    while (vhost_get_queue(vhost, name) != NULL);
    return name;
}

/* 8.2 */
static struct queue *declare_server_named(struct vhost *vhost, const struct queue_options *options,
                                          const struct asker *asking, uint64_t *lsn,
                                          struct amqp_error *error)
{
    struct queue_options named = *options;
    char room[PREFIX_SIZE_MAX + NAME_RANDOM_SIZE];
    uint8_t prefix_room[NAME_SIZE_MAX];
    struct buf arguments = BUF_EMPTY;
    struct slice prefix;
    struct queue *queue = NULL;

    if (!take_name_prefix(options->arguments, prefix_room, &prefix, &arguments, error))
        goto out;
    if (argument_queue_type(options->arguments) != QUEUE_CLASSIC) {
        amqp_fail(error, AMQP_PRECONDITION_FAILED,
                  "Cannot declare a server-named queue for type rabbit_quorum_queue");
        goto out;
    }
    named.name = make_name(vhost, prefix, room);
    named.arguments = buf_slice(&arguments);
    if (vhost_check_access(asking, ACCESS_QUEUE_DECLARE, named.name, (struct slice){0}, error))
        queue = create_queue(vhost, &named, asking, lsn, error);
out:
    buf_release(&arguments);
    return queue;
}

struct queue *vhost_declare_queue(struct vhost *vhost, const struct queue_options *options,
                                  const struct asker *asking, uint64_t *lsn,
                                  struct amqp_error *error)
{
    struct queue_options wanted = *options;
    uint8_t room[NAME_SIZE_MAX];

    wanted.name = vhost_strip_name(options->name, room);
    wanted.durable = options->durable && options->owner == NULL; /* 8.3 */
    if (wanted.name.size == 0)
        return declare_server_named(vhost, &wanted, asking, lsn, error);
    if (!vhost_check_access(asking, ACCESS_QUEUE_DECLARE, wanted.name, (struct slice){0}, error))
        return NULL;
    struct queue *queue = vhost_get_queue(vhost, wanted.name);
    if (queue == NULL)
        return vhost_check_not_reserved("queue", wanted.name, error)
                   ? create_queue(vhost, &wanted, asking, lsn, error)
                   : NULL;
    if (!check_queue_agrees(queue, &wanted, error))
        return NULL;
    queue_used(queue);
    *lsn = queue->lsn;
    return queue;
}

/* 8.12 */
static bool check_may_delete(const struct queue *queue, bool if_unused, bool if_empty,
                             const struct asker *asking, struct amqp_error *error)
{
    const char *in_the_way = NULL;

    if (!vhost_is_open_to(queue, asking))
        return vhost_fail_locked(queue, error);
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
                        const struct asker *asking, uint64_t *count, uint64_t *lsn,
                        struct amqp_error *error)
{
    uint8_t room[NAME_SIZE_MAX];

    name = vhost_strip_name(name, room);
    if (!vhost_check_access(asking, ACCESS_QUEUE_DELETE, name, (struct slice){0}, error))
        return false;
    struct queue *queue = vhost_get_queue(vhost, name);
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
        vhost_note_deletion(vhost);
    while ((binding = TAILQ_FIRST(&queue->bindings)) != NULL)
        vhost_delete_binding(binding);
    vhost_bury_exchanges(vhost);
}
