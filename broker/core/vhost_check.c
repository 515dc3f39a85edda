#include "core/vhost_parts.h"

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

bool vhost_check_access(const struct asker *asking, enum access_operation operation,
                        struct slice name, struct slice other, struct amqp_error *error)
{
    return asking == NULL || asking->is_operator ||
           permission_check(asking->grant, operation, name, other, error);
}

bool vhost_check_topic(const struct asker *asking, const struct exchange *exchange,
                       struct slice key, struct amqp_error *error)
{
    return asking == NULL || asking->is_operator || !exchange_is_topic(exchange) ||
           permission_check_topic(asking->grant, ACCESS_READ, exchange->name, key, error);
}

bool vhost_check_not_default(struct slice exchange_name, struct amqp_error *error)
{
    return exchange_name.size > 0 ||
           amqp_fail(error, AMQP_ACCESS_REFUSED, "operation not permitted on the default exchange");
}

/* 7.3, 8.1: at creation only. */
bool vhost_check_not_reserved(const char *kind, struct slice name, struct amqp_error *error)
{
    return !slice_starts_with(name, SLICE("amq.")) ||
           amqp_fail(error, AMQP_ACCESS_REFUSED, "%s name '%.*s' contains reserved prefix 'amq.*'",
                     kind, SLICE_ARG(name));
}

bool vhost_check_arguments_size(struct slice arguments, struct amqp_error *error)
{
    return arguments.size <= ARGUMENTS_SIZE_MAX ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "arguments of %zu octets are larger than the maximum of %d", arguments.size,
                     ARGUMENTS_SIZE_MAX);
}

bool vhost_check_octets(const struct vhost *vhost, const char *what, struct slice name,
                        size_t octets, struct amqp_error *error)
{
    const struct broker *broker = vhost->broker;
    const uint64_t max = broker->limits.definition_octets_max;

    return max == 0 || (broker->totals.octets <= max && octets <= max - broker->totals.octets) ||
           amqp_fail(
               error, AMQP_PRECONDITION_FAILED,
               "cannot %s '%.*s' in vhost '%.*s': names and arguments of all that is declared "
               "have reached the limit of %" PRIu64 " octets (definition_memory_limit)",
               what, SLICE_ARG(name), SLICE_ARG(vhost->name), max);
}

/* 7.4, 8.7.2: what a redeclare says against what is there. */
bool vhost_check_equal(const struct argument_owner *owner, const char *property,
                       struct slice received, struct slice current, struct amqp_error *error)
{
    return slice_equal(received, current) ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "inequivalent arg '%s' for %s '%.*s' in vhost '%.*s': "
                     "received '%.*s' but current is '%.*s'",
                     property, owner->kind, SLICE_ARG(owner->name), SLICE_ARG(owner->vhost),
                     SLICE_ARG(received), SLICE_ARG(current));
}

bool vhost_check_same(const struct argument_owner *owner, const char *property, bool received,
                      bool current, struct amqp_error *error)
{
    const struct slice words[] = {SLICE("false"), SLICE("true")};

    return vhost_check_equal(owner, property, words[received], words[current], error);
}

struct exchange *vhost_fail_no_exchange(const struct vhost *vhost, struct slice name,
                                        struct amqp_error *error)
{
    amqp_fail(error, AMQP_NOT_FOUND, "no exchange '%.*s' in vhost '%.*s'", SLICE_ARG(name),
              SLICE_ARG(vhost->name));
    return NULL;
}

/* 8.7.1 */
bool vhost_fail_locked(const struct queue *queue, struct amqp_error *error)
{
    return amqp_fail(error, AMQP_RESOURCE_LOCKED,
                     "cannot obtain exclusive access to locked queue '%.*s' in vhost '%.*s'. "
                     "It could be originally declared on another connection or the exclusive "
                     "property value does not match that of the original declaration.",
                     SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name));
}

struct queue *vhost_fail_no_queue(const struct vhost *vhost, struct slice name,
                                  struct amqp_error *error)
{
    amqp_fail(error, AMQP_NOT_FOUND, "no queue '%.*s' in vhost '%.*s'", SLICE_ARG(name),
              SLICE_ARG(vhost->name));
    return NULL;
}

void vhost_note_deletion(struct vhost *vhost)
{
    vhost->deletion_lsn = store_open_lsn(vhost->broker->store);
}
