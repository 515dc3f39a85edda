/* Creating and deleting exchanges.
 *
 * An exchange with auto-delete goes with its last binding, and takes with it bindings of other
 * exchanges that lead to it, which may be the last of those (7.7). Such a chain can be as long as
 * peers like, so it is not recursion but a list: exchanges to be deleted wait in `doomed`, those
 * without any binding left in `deleted`, from where the REAP phase frees them. */
#include "core/vhost_parts.h"

#include "core/definition.h"

/* ---- deleting exchanges ---- */

static void on_reap(struct task *task)
{
    vhost_reap_exchange(container_of(task, struct exchange, task));
}

/* No client finds it any more. */
static void doom_exchange(struct exchange *exchange)
{
    assert(!exchange->deleted);
    exchange->deleted = true;
    map_remove(&exchange->vhost->exchanges, &exchange->by_name);
    exchange->vhost->broker->totals.exchanges--;
    exchange->vhost->broker->totals.octets -= exchange->name.size + exchange->arguments.size;
    TAILQ_INSERT_TAIL(&exchange->vhost->doomed, exchange, by_deleted);
}

/* Its source, if it was the last of an auto-delete exchange, is doomed by it. */
void vhost_delete_binding(struct binding *binding)
{
    struct exchange *source = binding->source;

    if (binding->durable) {
        definition_delete_binding(binding);
        vhost_note_deletion(source->vhost);
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
        vhost_delete_binding(binding);
}

/* Until nothing is doomed any more. */
void vhost_bury_exchanges(struct vhost *vhost)
{
    struct exchange *exchange;

    while ((exchange = TAILQ_FIRST(&vhost->doomed)) != NULL) {
        delete_bindings(exchange);
        if (exchange->record_id != 0) {
            definition_delete_exchange(exchange);
            vhost_note_deletion(vhost);
        }
        TAILQ_REMOVE(&vhost->doomed, exchange, by_deleted);
        TAILQ_INSERT_TAIL(&vhost->deleted, exchange, by_deleted);
        exchange->task.run = on_reap;
        loop_queue(vhost->broker->loop, LOOP_REAP, &exchange->task);
        if (exchange->type->on_deleted != NULL)
            exchange->type->on_deleted(exchange);
    }
}

void vhost_delete_exchanges(struct vhost *vhost)
{
    struct map_link *link = map_next(&vhost->exchanges, NULL);

    while (link != NULL) {
        struct exchange *exchange = container_of(link, struct exchange, by_name);
        link = map_next(&vhost->exchanges, link);
        doom_exchange(exchange);
    }
    vhost->default_exchange = NULL;
    vhost_bury_exchanges(vhost);
}

/* ---- exchanges ---- */

struct exchange *vhost_find_exchange(struct vhost *vhost, struct slice name,
                                     struct amqp_error *error)
{
    struct exchange *exchange =
        name.size == 0 ? vhost->default_exchange : vhost_get_exchange(vhost, name);

    return likely(exchange != NULL) ? exchange : vhost_fail_no_exchange(vhost, name, error);
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

    return vhost_check_equal(&owner, "type", options->type, slice_of_string(exchange->type->name),
                             error) &&
           vhost_check_same(&owner, "durable", options->durable, exchange->durable, error) &&
           vhost_check_same(&owner, "auto_delete", options->auto_delete, exchange->auto_delete,
                            error) &&
           vhost_check_same(&owner, "internal", options->internal, exchange->internal, error) &&
           argument_agree_exchange(&owner, options->arguments, exchange->arguments, error);
}

/* 17.7; those that are predeclared count. */
static bool check_exchange_limit(const struct vhost *vhost, struct slice name,
                                 struct amqp_error *error)
{
    const uint32_t max = vhost->broker->limits.exchange_max;

    return max == 0 || vhost->broker->totals.exchanges < max ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "cannot declare exchange '%.*s' in vhost '%.*s': exchange limit of %" PRIu32
                     " is reached",
                     SLICE_ARG(name), SLICE_ARG(vhost->name), max);
}

/* 7.3, 16.2: its alternate is one that who asks could publish to. */
static bool check_alternate(const struct exchange_options *options, const struct asker *asking,
                            struct amqp_error *error)
{
    struct amqp_value value;

    return !amqp_table_find(options->arguments, SLICE("alternate-exchange"), &value) ||
           vhost_check_access(asking, ACCESS_EXCHANGE_DECLARE, options->name, value.bytes, error);
}

static bool check_new_exchange(const struct vhost *vhost, const struct exchange_type *type,
                               const struct exchange_options *options, const struct asker *asking,
                               struct amqp_error *error)
{
    const struct argument_owner owner = exchange_owner(vhost, options->name);

    return vhost_check_not_reserved("exchange", options->name, error) &&
           argument_check_exchange(&owner, options->arguments, error) &&
           check_alternate(options, asking, error) &&
           vhost_check_arguments_size(options->arguments, error) &&
           (type->check_arguments == NULL || type->check_arguments(options->arguments, error)) &&
           check_exchange_limit(vhost, options->name, error) &&
           vhost_check_octets(vhost, "declare exchange", options->name,
                              options->name.size + options->arguments.size, error);
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
                                        const struct asker *asking, uint64_t *lsn,
                                        struct amqp_error *error)
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
    if (!vhost_check_not_default(wanted.name, error) ||
        !vhost_check_access(asking, ACCESS_EXCHANGE_DECLARE, wanted.name, (struct slice){0}, error))
        return NULL;
    struct exchange *exchange = vhost_get_exchange(vhost, wanted.name);
    if (exchange == NULL) {
        if (!check_new_exchange(vhost, type, &wanted, asking, error))
            return NULL;
        exchange = create_exchange(vhost, type, &wanted);
    } else if (!check_exchange_agrees(exchange, &wanted, error)) {
        return NULL;
    }
    *lsn = exchange->lsn;
    return exchange;
}

/* 7.5. The default exchange is refused here as everywhere. */
struct exchange *vhost_inspect_exchange(struct vhost *vhost, struct slice name,
                                        const struct asker *asking, struct amqp_error *error)
{
    uint8_t room[NAME_SIZE_MAX];

    name = vhost_strip_name(name, room);
    if (!vhost_check_not_default(name, error) ||
        !vhost_check_access(asking, ACCESS_EXCHANGE_DECLARE_PASSIVE, name, (struct slice){0},
                            error))
        return NULL;
    return vhost_find_exchange(vhost, name, error);
}

/* 7.6 */
bool vhost_delete_exchange(struct vhost *vhost, struct slice name, bool if_unused,
                           const struct asker *asking, uint64_t *lsn, struct amqp_error *error)
{
    uint8_t room[NAME_SIZE_MAX];

    name = vhost_strip_name(name, room);
    if (!vhost_check_not_default(name, error))
        return false;
    if (!vhost_check_access(asking, ACCESS_EXCHANGE_DELETE, name, (struct slice){0}, error))
        return false;
    if (slice_starts_with(name, SLICE("amq.")))
        return amqp_fail(error, AMQP_ACCESS_REFUSED,
                         "deletion of system exchange '%.*s' in vhost '%.*s' not allowed",
                         SLICE_ARG(name), SLICE_ARG(vhost->name));
    struct exchange *exchange = vhost_get_exchange(vhost, name);
    if (exchange != NULL) {
        if (if_unused && exchange->binding_count > 0)
            return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                             "exchange '%.*s' in vhost '%.*s' in use", SLICE_ARG(name),
                             SLICE_ARG(vhost->name));
        doom_exchange(exchange);
        vhost_bury_exchanges(vhost);
    }
    *lsn = vhost->deletion_lsn;
    return true;
}

struct exchange *vhost_recover_exchange(struct vhost *vhost, const struct exchange_options *options)
{
    const struct exchange_type *type = exchange_type_find(options->type);
    struct amqp_error error;

    if (type == NULL || vhost_get_exchange(vhost, options->name) != NULL ||
        (type->check_arguments != NULL && !type->check_arguments(options->arguments, &error)))
        return NULL;
    return exchange_new(vhost, type, options);
}
