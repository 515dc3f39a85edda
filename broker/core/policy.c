#include "core/policy.h"

#include <stdarg.h>

#include "base/alloc.h"
#include "base/log.h"
#include "core/argument.h"
#include "core/definition.h"
#include "core/vhost.h"

/* Targets: a bit 1 << enum queue_type for each type of queue, streams that are to come included,
 * and one for exchanges. */
enum {
    CLASSIC = 1 << QUEUE_CLASSIC,
    QUORUM = 1 << QUEUE_QUORUM,
    STREAM = 1 << 2,
    QUEUES = CLASSIC | QUORUM | STREAM,
    EXCHANGE = 1 << 7,
};

static const struct {
    const char *name;
    unsigned targets;
} scopes[POLICY_SCOPES] = {
    [POLICY_ALL] = {"all", QUEUES | EXCHANGE},
    [POLICY_QUEUES] = {"queues", QUEUES},
    [POLICY_CLASSIC_QUEUES] = {"classic_queues", CLASSIC},
    [POLICY_QUORUM_QUEUES] = {"quorum_queues", QUORUM},
    [POLICY_STREAMS] = {"streams", STREAM},
    [POLICY_EXCHANGES] = {"exchanges", EXCHANGE},
};

const char *policy_scope_name(enum policy_scope scope)
{
    return scopes[scope].name;
}

/* ---- keys ---- */

enum rule { AS_ARGUMENT, NAME, COUNT };

/* Of an argument the types of queues and the values are core/argument's business. A name may stand
 * in any policy, whatever that applies to. */
static const struct key {
    const char *name;
    enum rule rule;
    bool for_operators; /* 17.3 */
    bool honoured;      /* of those that are not arguments */
    const char *what;   /* a bad value is not */
} keys[] = {
    {"alternate-exchange", NAME, false, true, "alternate exchange name"},
    {"message-ttl", AS_ARGUMENT, true, false, "message TTL"},
    {"expires", AS_ARGUMENT, true, false, "queue expiry"},
    {"max-length", AS_ARGUMENT, true, false, "maximum length"},
    {"max-length-bytes", AS_ARGUMENT, true, false, "maximum length in bytes"},
    {"overflow", AS_ARGUMENT, true, false, "overflow strategy"},
    {"dead-letter-exchange", AS_ARGUMENT, false, false, "dead letter exchange name"},
    {"dead-letter-routing-key", AS_ARGUMENT, false, false, "dead letter routing key"},
    {"dead-letter-strategy", AS_ARGUMENT, false, false, "dead letter strategy"},
    {"delivery-limit", AS_ARGUMENT, true, false, "delivery limit"},
    {"consumer-timeout", AS_ARGUMENT, false, false, "consumer timeout"},
    {"consumer-disconnected-timeout", AS_ARGUMENT, false, false, "consumer disconnected timeout"},
    {"delayed-retry-type", AS_ARGUMENT, false, false, "delayed retry type"},
    {"delayed-retry-min", AS_ARGUMENT, false, false, "delayed retry minimum"},
    {"delayed-retry-max", AS_ARGUMENT, false, false, "delayed retry maximum"},
    {"queue-mode", AS_ARGUMENT, false, false, "queue mode"},
    {"queue-version", AS_ARGUMENT, true, false, "queue version"},
    {"queue-leader-locator", AS_ARGUMENT, false, false, "queue leader locator"},
    {"target-group-size", COUNT, false, true, "target group size"},
    {"initial-cluster-size", AS_ARGUMENT, false, false, "initial cluster size"},
    {"max-age", AS_ARGUMENT, false, false, "maximum age"},
    {"stream-max-segment-size-bytes", AS_ARGUMENT, false, false, "maximum segment size in bytes"},
    {"stream-filter-size-bytes", AS_ARGUMENT, false, false, "filter size in bytes"},
    {"max-in-memory-length", AS_ARGUMENT, true, false, "maximum length in memory"},
    {"max-in-memory-bytes", AS_ARGUMENT, true, false, "maximum memory in bytes"},
    {"federation-upstream", NAME, false, false, "federation upstream"},
    {"federation-upstream-set", NAME, false, false, "federation upstream set"},
};

static const struct key *find_key(struct slice name)
{
    for (size_t i = 0; i < countof(keys); i++)
        if (slice_equal(name, slice_of_string(keys[i].name)))
            return &keys[i];
    return NULL;
}

static bool check_value(const struct key *key, struct slice name, const struct amqp_value *value)
{
    int64_t count;

    switch (key->rule) {
    case AS_ARGUMENT:
        return argument_check_key(name, value);
    case NAME:
        return value->type == AMQP_STRING;
    case COUNT:
        return amqp_value_integer(value, &count) && count > 0;
    }
    __builtin_unreachable();
}

/* What can have the key. An exchange takes no notice of those for queues. */
static unsigned targets_of_key(const struct key *key, struct slice name)
{
    switch (key->rule) {
    case AS_ARGUMENT:
        return argument_types_of_key(name) | EXCHANGE;
    case NAME:
        return QUEUES | EXCHANGE;
    case COUNT:
        return QUORUM | EXCHANGE;
    }
    __builtin_unreachable();
}

static bool fail(char error[POLICY_ERROR_SIZE], const char *format, ...) printf_like(2, 3);

static bool fail(char error[POLICY_ERROR_SIZE], const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error, POLICY_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return false;
}

/* 17.2, 17.3; *targets: what can have all the keys. */
static bool check_definition(const struct policy_options *options, unsigned *targets,
                             char error[POLICY_ERROR_SIZE])
{
    struct amqp_table_iter iter = amqp_table_walk(options->definition);
    struct argument_text text;
    struct amqp_value value;
    struct slice name;

    if (options->definition.size == 0)
        return fail(error, "no policy provided");
    if (options->definition.size > ARGUMENTS_SIZE_MAX)
        return fail(error, "a definition of %zu octets is larger than the maximum of %d",
                    options->definition.size, ARGUMENTS_SIZE_MAX);
    while (amqp_table_next(&iter, &name, &value)) {
        const struct key *key = find_key(name);
        if (key == NULL || (options->kind == POLICY_OPERATOR && !key->for_operators))
            return fail(error, "[\"%.*s\"] are not recognised policy settings", SLICE_ARG(name));
        if (!check_value(key, name, &value))
            return fail(error, "%s is not a valid %s", argument_print(&value, &text), key->what);
        *targets &= targets_of_key(key, name);
    }
    return true;
}

static const char *kind_name(enum policy_kind kind)
{
    return kind == POLICY_OPERATOR ? "operator policy" : "policy";
}

static void warn(const struct vhost *vhost, const struct policy_options *options)
{
    struct amqp_table_iter iter = amqp_table_walk(options->definition);
    struct amqp_value value;
    struct slice name;

    while (amqp_table_next(&iter, &name, &value)) {
        const struct key *key = find_key(name);
        if (key->rule == AS_ARGUMENT ? argument_honours_key(name) : key->honoured)
            continue;
        log_warning("%s '%.*s' in vhost '%.*s': '%s' is accepted but not honoured yet",
                    kind_name(options->kind), SLICE_ARG(options->name), SLICE_ARG(vhost->name),
                    key->name);
    }
}

/* ---- life ---- */

static struct slice copy(uint8_t **room, struct slice bytes)
{
    const struct slice copied = slice_of(*room, bytes.size);

    *room = amqp_put_bytes(*room, bytes);
    return copied;
}

/* In no list yet; the one reference is the caller's. */
static struct policy *policy_new(const struct policy_options *options,
                                 char error[POLICY_ERROR_SIZE])
{
    unsigned targets = scopes[options->apply_to].targets;
    char reason[PATTERN_ERROR_SIZE];

    if (options->name.size == 0 || options->name.size > NAME_SIZE_MAX) {
        fail(error, "a policy's name has 1 to %d octets", NAME_SIZE_MAX);
        return NULL;
    }
    if (!check_definition(options, &targets, error))
        return NULL;
    struct pattern *pattern = pattern_new(options->pattern, reason);
    if (pattern == NULL) {
        fail(error, "pattern should be regular expression but is invalid: %s", reason);
        return NULL;
    }
    struct policy *policy = xmalloc(sizeof(*policy) + options->name.size + options->pattern.size +
                                    options->definition.size);
    uint8_t *room = (uint8_t *)(policy + 1);
    *policy =
        (struct policy){.refs = 1, .options = *options, .pattern = pattern, .targets = targets};
    policy->options.name = copy(&room, options->name);
    policy->options.pattern = copy(&room, options->pattern);
    policy->options.definition = copy(&room, options->definition);
    return policy;
}

/* Either may be NULL. */
static void put_reference(struct policy **place, struct policy *policy)
{
    struct policy *gone = *place;

    if (policy != NULL)
        policy->refs++;
    *place = policy;
    if (gone == NULL || --gone->refs > 0)
        return;
    pattern_free(&gone->pattern);
    free(gone);
}

void policy_set_release(struct policy_set *set)
{
    for (size_t kind = 0; kind < POLICY_KINDS; kind++)
        put_reference(&set->of[kind], NULL);
}

/* ---- matching ---- */

struct target {
    const struct vhost *vhost;
    struct slice name;
    unsigned bit;
};

/* None is meant for a queue that is not a client's. */
static struct target target_queue(const struct queue *queue)
{
    return (struct target){queue->vhost, queue->name,
                           queue->delayed_by != NULL ? 0
                                                     : 1u << argument_queue_type(queue->arguments)};
}

/* None is meant for the default exchange (7.11). */
static struct target target_exchange(const struct exchange *exchange)
{
    return (struct target){exchange->vhost, exchange->name,
                           exchange->name.size == 0 ? 0 : EXCHANGE};
}

static enum pattern_result match(const struct policy *policy, const struct target *target)
{
    return policy->targets & target->bit ? pattern_match(policy->pattern, target->name)
                                         : PATTERN_DIFFERS;
}

static bool applies(const struct policy *policy, const struct target *target)
{
    const enum pattern_result result = match(policy, target);

    if (result == PATTERN_TOO_COSTLY)
        log_warning("%s '%.*s' in vhost '%.*s' is not applied to '%.*s', which its pattern takes "
                    "more than %d steps to match",
                    kind_name(policy->options.kind), SLICE_ARG(policy->options.name),
                    SLICE_ARG(target->vhost->name), SLICE_ARG(target->name), PATTERN_STEPS_MAX);
    return result == PATTERN_MATCHES;
}

static struct policy *find_first(const struct policy_list *list, const struct target *target)
{
    struct policy *policy;

    TAILQ_FOREACH (policy, list, link)
        if (applies(policy, target))
            return policy;
    return NULL;
}

static void choose(struct policy_set *set, struct target target)
{
    for (size_t kind = 0; kind < POLICY_KINDS; kind++)
        put_reference(&set->of[kind], find_first(&target.vhost->policies[kind], &target));
}

void policy_choose_for_queue(struct queue *queue)
{
    choose(&queue->policies, target_queue(queue));
}

void policy_choose_for_exchange(struct exchange *exchange)
{
    choose(&exchange->policies, target_exchange(exchange));
}

/* ---- changes ---- */

/* The higher priority is asked first, then the lower name: so the order does not depend on when
 * they were set. */
static bool is_before(const struct policy *a, const struct policy *b)
{
    if (a->options.priority != b->options.priority)
        return a->options.priority > b->options.priority;
    return slice_compare(a->options.name, b->options.name) < 0;
}

static void insert(struct policy_list *list, struct policy *policy)
{
    struct policy *other;

    TAILQ_FOREACH (other, list, link)
        if (is_before(policy, other))
            break;
    if (other != NULL)
        TAILQ_INSERT_BEFORE(other, policy, link);
    else
        TAILQ_INSERT_TAIL(list, policy, link);
}

struct change { /* in the list already */
    enum policy_kind kind;
    const struct policy *old; /* left the list; or NULL */
    struct policy *new;       /* joined it; or NULL */
};

/* Whether something else applies now. */
static bool reconsider(const struct change *change, struct policy_set *set, struct target target)
{
    const struct policy *before = set->of[change->kind];
    struct policy *after = change->new;

    if (before != NULL && before == change->old)
        after = find_first(&target.vhost->policies[change->kind], &target);
    else if (after == NULL || (before != NULL && is_before(before, after)) ||
             !applies(after, &target))
        return false;
    put_reference(&set->of[change->kind], after);
    return true;
}

static void apply(struct vhost *vhost, const struct change *change)
{
    map_each (&vhost->queues, link) {
        struct queue *queue = container_of(link, struct queue, by_name);
        if (reconsider(change, &queue->policies, target_queue(queue)))
            queue_apply_policies(queue);
    }
    map_each (&vhost->exchanges, link) {
        struct exchange *exchange = container_of(link, struct exchange, by_name);
        if (reconsider(change, &exchange->policies, target_exchange(exchange)))
            exchange_apply_policies(exchange);
    }
}

static bool check_cost_of(const struct policy *policy, const char *kind, struct target target,
                          char error[POLICY_ERROR_SIZE])
{
    return match(policy, &target) != PATTERN_TOO_COSTLY ||
           fail(error, "pattern takes more than %d steps to match the %s '%.*s'", PATTERN_STEPS_MAX,
                kind, SLICE_ARG(target.name));
}

/* Against every name that is there, up to the first that costs too much. */
static bool check_cost(const struct vhost *vhost, const struct policy *policy,
                       char error[POLICY_ERROR_SIZE])
{
    map_each (&vhost->queues, link)
        if (!check_cost_of(policy, "queue", target_queue(container_of(link, struct queue, by_name)),
                           error))
            return false;
    map_each (&vhost->exchanges, link)
        if (!check_cost_of(policy, "exchange",
                           target_exchange(container_of(link, struct exchange, by_name)), error))
            return false;
    return true;
}

struct policy *policy_find(const struct vhost *vhost, enum policy_kind kind, struct slice name)
{
    struct policy *policy;

    TAILQ_FOREACH (policy, &vhost->policies[kind], link)
        if (slice_equal(policy->options.name, name))
            break;
    return policy;
}

/* The reference of the list's becomes the caller's. */
static void take_out(struct vhost *vhost, struct policy *policy)
{
    TAILQ_REMOVE(&vhost->policies[policy->options.kind], policy, link);
}

struct policy *policy_set(struct vhost *vhost, const struct policy_options *options,
                          char error[POLICY_ERROR_SIZE])
{
    struct policy *policy = policy_new(options, error);
    if (policy == NULL)
        return NULL;
    if (!check_cost(vhost, policy, error)) {
        put_reference(&policy, NULL);
        return NULL;
    }
    struct policy *old = policy_find(vhost, options->kind, options->name);
    if (old != NULL) {
        policy->record_id = old->record_id;
        take_out(vhost, old);
    }
    warn(vhost, options);
    insert(&vhost->policies[options->kind], policy);
    policy->lsn = store_open_lsn(vhost->broker->store);
    definition_put_policy(vhost, policy);
    apply(vhost, &(struct change){options->kind, old, policy});
    put_reference(&old, NULL);
    return policy;
}

struct policy *policy_recover(struct vhost *vhost, const struct policy_options *options,
                              uint64_t record_id)
{
    char error[POLICY_ERROR_SIZE];

    if (policy_find(vhost, options->kind, options->name) != NULL)
        return NULL;
    struct policy *policy = policy_new(options, error);
    if (policy == NULL) {
        log_error("%s '%.*s' in vhost '%.*s': %s", kind_name(options->kind),
                  SLICE_ARG(options->name), SLICE_ARG(vhost->name), error);
        return NULL;
    }
    policy->record_id = record_id;
    insert(&vhost->policies[options->kind], policy);
    apply(vhost, &(struct change){options->kind, NULL, policy});
    return policy;
}

void policy_clear(struct vhost *vhost, struct policy *policy, uint64_t *lsn)
{
    take_out(vhost, policy);
    definition_delete_policy(vhost, policy);
    *lsn = store_open_lsn(vhost->broker->store);
    apply(vhost, &(struct change){policy->options.kind, policy, NULL});
    put_reference(&policy, NULL);
}

void policies_release(struct vhost *vhost)
{
    struct policy *policy;

    for (size_t kind = 0; kind < POLICY_KINDS; kind++)
        while ((policy = TAILQ_FIRST(&vhost->policies[kind])) != NULL) {
            take_out(vhost, policy);
            put_reference(&policy, NULL);
        }
}

/* ---- what applies ---- */

struct slice policy_definition(const struct policy_set *set, enum policy_kind kind)
{
    return set->of[kind] == NULL ? (struct slice){0} : set->of[kind]->options.definition;
}

/* Numbers: the smaller; all else is as the operator has it. A delivery limit below 0 is none. */
static bool is_stricter(const struct amqp_value *value, const struct amqp_value *operators)
{
    int64_t a, b;

    return amqp_value_integer(value, &a) && amqp_value_integer(operators, &b) &&
           (uint64_t)a < (uint64_t)b;
}

void policy_write_effective(const struct policy_set *set, struct buf *out)
{
    const struct slice plain = policy_definition(set, POLICY_PLAIN);
    const struct slice operators = policy_definition(set, POLICY_OPERATOR);
    struct amqp_table_iter iter = amqp_table_walk(plain);
    struct amqp_value value, other;
    struct slice key;

    while (amqp_table_next(&iter, &key, &value))
        if (!amqp_table_find(operators, key, &other) || is_stricter(&value, &other))
            amqp_table_put(out, key, &value);
    iter = amqp_table_walk(operators);
    while (amqp_table_next(&iter, &key, &value))
        if (!amqp_table_find(plain, key, &other) || !is_stricter(&other, &value))
            amqp_table_put(out, key, &value);
}
