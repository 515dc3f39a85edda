/* A row per argument and per set of queue types that read it alike. What an argument does is the
 * business of whoever honours it; here stands only what it may be. An argument in the table that
 * this version does not act upon says so (`honoured`), and whoever uses it is told in the log: to
 * accept it silently would be a lie. */
#include "core/argument.h"

#include "base/log.h"

enum { CLASSIC = 1 << QUEUE_CLASSIC, QUORUM = 1 << QUEUE_QUORUM, STREAM = 1 << 2 };

enum kind { INTEGER, STRING, BOOLEAN };

#define MS_MAX INT64_C(315360000000) /* ten years */

struct rule {
    const char *name;
    unsigned types; /* of queues that know it */
    bool honoured;
    enum kind kind;
    int64_t min, max;    /* of an integer */
    const char *choices; /* of a string; NULL: any */
    const char
        *reason; /* when the value is none of these; it follows one that begins with a quote */
};

/* In the order in which redeclares are compared, which is not the same for all types: of two that
 * differ the first is named (8.7.3). */
static const struct rule rules[] = {
    {"x-expires", CLASSIC, true, INTEGER, 1, MS_MAX, NULL, "value_too_large"},
    {"x-message-ttl", CLASSIC, true, INTEGER, 0, MS_MAX, NULL, "value_too_large"},
    {"x-dead-letter-exchange", CLASSIC | QUORUM, true, STRING, 0, 0, NULL, NULL},
    {"x-dead-letter-routing-key", CLASSIC | QUORUM, true, STRING, 0, 0, NULL, NULL},
    {"x-dead-letter-strategy", QUORUM, true, STRING, 0, 0, "at-most-once at-least-once",
     "invalid_dlx_strategy"},
    {"x-expires", QUORUM, true, INTEGER, 1, MS_MAX, NULL, "value_too_large"},
    {"x-max-length", CLASSIC | QUORUM, true, INTEGER, 0, INT64_MAX, NULL, NULL},
    {"x-max-length-bytes", CLASSIC | QUORUM | STREAM, true, INTEGER, 0, INT64_MAX, NULL, NULL},
    {"x-max-in-memory-length", QUORUM, true, INTEGER, 0, INT64_MAX, NULL, NULL},
    {"x-max-in-memory-bytes", QUORUM, true, INTEGER, 0, INT64_MAX, NULL, NULL},
    {"x-max-priority", CLASSIC, true, INTEGER, 0, 255, NULL, "max_value_exceeded"},
    {"x-overflow", CLASSIC, true, STRING, 0, 0, "drop-head reject-publish reject-publish-dlx",
     "invalid_overflow"},
    {"x-overflow", QUORUM, true, STRING, 0, 0, "drop-head reject-publish", "invalid_overflow"},
    {"x-queue-mode", CLASSIC, true, STRING, 0, 0, "default lazy", "\"unsupported queue mode"},
    {"x-queue-version", CLASSIC, true, INTEGER, 2, 2, NULL, "\"unsupported queue version"},
    {"x-single-active-consumer", CLASSIC | QUORUM, true, BOOLEAN, 0, 0, NULL, NULL},
    {"x-queue-type", CLASSIC | QUORUM, true, STRING, 0, 0, NULL, NULL},
    {"x-quorum-initial-group-size", QUORUM, true, INTEGER, 1, INT64_MAX, NULL, NULL},
    {"x-delivery-limit", QUORUM, true, INTEGER, INT64_MIN, INT64_MAX, NULL, NULL},
    {"x-message-ttl", QUORUM, true, INTEGER, 0, MS_MAX, NULL, "value_too_large"},
    {"x-queue-leader-locator", CLASSIC | QUORUM | STREAM, true, STRING, 0, 0,
     "client-local balanced", "invalid_queue_locator_arg"},
    {"x-queue-master-locator", CLASSIC | QUORUM | STREAM, true, STRING, 0, 0,
     "client-local balanced", "invalid_queue_locator_arg"},
    {"x-member-placement-tag", QUORUM, true, STRING, 0, 0, NULL, NULL},
    {"x-consumer-timeout", QUORUM, true, INTEGER, 0, MS_MAX, NULL, "value_too_large"},
    {"x-consumer-disconnected-timeout", QUORUM, false, INTEGER, 0, MS_MAX, NULL, "value_too_large"},
    {"x-delayed-retry-type", QUORUM, true, STRING, 0, 0, "disabled all failed returned",
     "invalid_delayed_retry_type"},
    {"x-delayed-retry-min", QUORUM, true, INTEGER, 0, MS_MAX, NULL, "value_too_large"},
    {"x-delayed-retry-max", QUORUM, true, INTEGER, 0, MS_MAX, NULL, "value_too_large"},
    {"x-max-age", STREAM, false, STRING, 0, 0, NULL, NULL},
    {"x-stream-max-segment-size-bytes", STREAM, false, INTEGER, 0, INT64_MAX, NULL, NULL},
    {"x-stream-filter-size-bytes", STREAM, false, INTEGER, 0, INT64_MAX, NULL, NULL},
    {"x-initial-cluster-size", STREAM, false, INTEGER, 1, INT64_MAX, NULL, NULL},
};

/* Arguments of exchanges that begin with x- and mean something to a type. */
static const char *const exchange_names[] = {"x-recent-history-length", "x-delayed-type"};

static const char queue_type_key[] = "x-queue-type";
static const char alternate_key[] = "alternate-exchange";
static const char dead_letter_key[] = "x-dead-letter-exchange";

/* ---- texts ---- */

const char *argument_type_name(const struct amqp_value *value)
{
    static const char *const names[] = {
        ['t'] = "bool",          ['b'] = "byte",      ['B'] = "unsignedbyte", ['s'] = "short",
        ['u'] = "unsignedshort", ['I'] = "signedint", ['i'] = "unsignedint",  ['l'] = "long",
        ['f'] = "float",         ['d'] = "double",    ['D'] = "decimal",      ['S'] = "longstr",
        ['A'] = "array",         ['T'] = "timestamp", ['F'] = "table",        ['V'] = "void",
        ['x'] = "binary",
    };

    assert(value->type < countof(names) && names[value->type] != NULL);
    return names[value->type];
}

const char *argument_print(const struct amqp_value *value, struct argument_text *text)
{
    char *bytes = text->bytes;
    const size_t size = sizeof(text->bytes);

    switch (value->type) {
    case AMQP_STRING:
    case AMQP_BYTES:
        snprintf(bytes, size, "%.*s", (int)min_of(value->bytes.size, 255),
                 (const char *)value->bytes.data);
        break;
    case AMQP_BOOL:
        snprintf(bytes, size, "%s", value->boolean ? "true" : "false");
        break;
    case AMQP_FLOAT:
    case AMQP_DOUBLE:
        snprintf(bytes, size, "%g", value->real);
        break;
    case AMQP_DECIMAL:
        snprintf(bytes, size, "{%u,%" PRIu32 "}", value->decimal.scale, value->decimal.digits);
        break;
    case AMQP_TIMESTAMP:
        snprintf(bytes, size, "%" PRIu64, value->timestamp_s);
        break;
    case AMQP_VOID:
        snprintf(bytes, size, "undefined");
        break;
    case AMQP_ARRAY:
    case AMQP_TABLE:
        snprintf(bytes, size, "%s", argument_type_name(value));
        break;
    default:
        snprintf(bytes, size, "%" PRId64, value->integer);
    }
    return bytes;
}

static bool is_named(const struct rule *rule, struct slice name)
{
    return slice_equal(name, slice_of_string(rule->name));
}

/* ---- the type of a queue ---- */

enum queue_type argument_queue_type(struct slice arguments)
{
    struct amqp_value value;
    struct slice name;

    if (amqp_table_find(arguments, slice_of_string(queue_type_key), &value) &&
        amqp_value_string(&value, &name) && slice_equal(name, SLICE("quorum")))
        return QUEUE_QUORUM;
    return QUEUE_CLASSIC;
}

static bool fail_invalid(const struct argument_owner *owner, struct slice argument,
                         const char *reason, struct amqp_error *error)
{
    return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "invalid arg '%.*s' for %s '%.*s' in vhost '%.*s': %s", SLICE_ARG(argument),
                     owner->kind, SLICE_ARG(owner->name), SLICE_ARG(owner->vhost), reason);
}

static bool fail_property(const struct argument_owner *owner, const char *property,
                          struct amqp_error *error)
{
    return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "invalid property '%s' for %s '%.*s' in vhost '%.*s'", property, owner->kind,
                     SLICE_ARG(owner->name), SLICE_ARG(owner->vhost));
}

/* 8.10. Streams are not served yet; what a queue cannot be must not be taken for something else. */
static bool check_type(const struct argument_queue *queue, struct slice arguments,
                       struct amqp_error *error)
{
    const struct slice key = slice_of_string(queue_type_key);
    struct argument_text text;
    struct amqp_value value;
    char reason[320];

    if (!amqp_table_find(arguments, key, &value))
        return true;
    if (value.type != AMQP_STRING) {
        snprintf(reason, sizeof(reason), "{unacceptable_type,%s}", argument_type_name(&value));
        return fail_invalid(&queue->owner, key, reason, error);
    }
    if (slice_equal(value.bytes, SLICE("classic")))
        return true;
    if (!slice_equal(value.bytes, SLICE("quorum"))) {
        snprintf(reason, sizeof(reason), "\"unsupported queue type '%s'\"",
                 argument_print(&value, &text));
        return fail_invalid(&queue->owner, key, reason, error);
    }
    if (queue->auto_delete)
        return fail_property(&queue->owner, "auto-delete", error);
    if (queue->exclusive)
        return fail_property(&queue->owner, "exclusive-owner", error);
    if (!queue->durable)
        return fail_property(&queue->owner, "non-durable", error);
    return true;
}

/* ---- values ---- */

enum { REASON_SIZE = 64 };

static bool check_integer(const struct rule *rule, const struct amqp_value *value,
                          char reason[REASON_SIZE])
{
    const char *what = rule->reason;
    int64_t integer = 0;

    if (!amqp_value_integer(value, &integer)) {
        snprintf(reason, REASON_SIZE, "\"expected integer, got %s\"", argument_type_name(value));
        return false;
    }
    if (integer >= rule->min && integer <= rule->max)
        return true;
    if (what != NULL && what[0] == '"')
        snprintf(reason, REASON_SIZE, "%s '%" PRId64 "'\"", what, integer);
    else if (integer < rule->min && integer <= 0)
        snprintf(reason, REASON_SIZE, "{%s,%" PRId64 "}",
                 integer < 0 ? "value_negative" : "value_zero", integer);
    else
        snprintf(reason, REASON_SIZE, "{%s,%" PRId64 "}", what, integer);
    return false;
}

static bool is_choice(const char *choices, struct slice value)
{
    while (*choices != '\0') {
        const size_t size = strcspn(choices, " ");
        if (slice_equal(value, slice_of(choices, size)))
            return true;
        choices += size + strspn(choices + size, " ");
    }
    return false;
}

static bool check_value(const struct rule *rule, const struct amqp_value *value,
                        char reason[REASON_SIZE])
{
    if (rule->kind == INTEGER)
        return check_integer(rule, value, reason);
    if (value->type != (rule->kind == STRING ? AMQP_STRING : AMQP_BOOL)) {
        snprintf(reason, REASON_SIZE, "{unacceptable_type,%s}", argument_type_name(value));
        return false;
    }
    if (rule->choices == NULL || is_choice(rule->choices, value->bytes))
        return true;
    if (rule->reason[0] == '"')
        snprintf(reason, REASON_SIZE, "%s '%.*s'\"", rule->reason, SLICE_ARG(value->bytes));
    else
        snprintf(reason, REASON_SIZE, "%s", rule->reason);
    return false;
}

/* The name of an exchange, in whatever is declared, must be a string (7.3, 8.8). */
static bool fail_exchange_name(const struct argument_owner *owner, struct slice argument,
                               const struct amqp_value *value, struct amqp_error *error)
{
    return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "invalid type '%s' for arg '%.*s' in %s '%.*s' in vhost '%.*s'",
                     argument_type_name(value), SLICE_ARG(argument), owner->kind,
                     SLICE_ARG(owner->name), SLICE_ARG(owner->vhost));
}

/* One argument of a new queue (8.11). Unknown ones are anybody's. */
static bool check_argument(const struct argument_owner *owner, enum queue_type type,
                           struct slice name, const struct amqp_value *value,
                           struct amqp_error *error)
{
    char reason[REASON_SIZE];
    bool known = false;

    for (size_t i = 0; i < countof(rules); i++) {
        if (!is_named(&rules[i], name))
            continue;
        known = true;
        if (!(rules[i].types & 1U << type))
            continue;
        if (slice_equal(name, slice_of_string(dead_letter_key)) && value->type != AMQP_STRING)
            return fail_exchange_name(owner, name, value, error);
        return check_value(&rules[i], value, reason) || fail_invalid(owner, name, reason, error);
    }
    if (!known)
        return true;
    return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "invalid arg '%.*s' for %s '%.*s' in vhost '%.*s' of queue type %s",
                     SLICE_ARG(name), owner->kind, SLICE_ARG(owner->name), SLICE_ARG(owner->vhost),
                     type == QUEUE_QUORUM ? "rabbit_quorum_queue" : "rabbit_classic_queue");
}

bool argument_check_queue(const struct argument_queue *queue, struct slice arguments,
                          struct amqp_error *error)
{
    const struct slice key = SLICE("x-dead-letter-routing-key");
    struct amqp_table_iter iter = amqp_table_walk(arguments);
    struct amqp_value value;
    struct slice name;

    if (!check_type(queue, arguments, error))
        return false;
    const enum queue_type type = argument_queue_type(arguments);
    while (amqp_table_next(&iter, &name, &value))
        if (!check_argument(&queue->owner, type, name, &value, error))
            return false;
    if (amqp_table_find(arguments, key, &value) &&
        !amqp_table_find(arguments, slice_of_string(dead_letter_key), &value))
        return fail_invalid(&queue->owner, key, "routing_key_but_no_dlx_defined", error);
    return true;
}

bool argument_check_consumer(const struct argument_owner *queue, struct slice arguments,
                             struct amqp_error *error)
{
    static const struct rule rule = {"x-priority", CLASSIC | QUORUM, true, INTEGER,
                                     INT64_MIN,    INT64_MAX,        NULL, NULL};
    const struct slice name = slice_of_string(rule.name);
    struct amqp_value value;
    char reason[REASON_SIZE];

    return !amqp_table_find(arguments, name, &value) || check_value(&rule, &value, reason) ||
           fail_invalid(queue, name, reason, error);
}

int64_t argument_priority(struct slice arguments)
{
    struct amqp_value value;
    int64_t priority = 0;

    if (amqp_table_find(arguments, SLICE("x-priority"), &value))
        amqp_value_integer(&value, &priority);
    return priority;
}

bool argument_is_true(struct slice arguments, const char *name)
{
    struct amqp_value value;

    return amqp_table_find(arguments, slice_of_string(name), &value) && value.type == AMQP_BOOL &&
           value.boolean;
}

bool argument_check_exchange(const struct argument_owner *exchange, struct slice arguments,
                             struct amqp_error *error)
{
    const struct slice key = slice_of_string(alternate_key);
    struct amqp_value value;

    return !amqp_table_find(arguments, key, &value) || value.type == AMQP_STRING ||
           fail_exchange_name(exchange, key, &value, error);
}

/* ---- the same rules for policies ---- */

static bool is_key(const struct rule *rule, struct slice key)
{
    return slice_equal(key, slice_of_string(rule->name + strlen("x-")));
}

unsigned argument_types_of_key(struct slice key)
{
    unsigned types = 0;

    for (size_t i = 0; i < countof(rules); i++)
        if (is_key(&rules[i], key))
            types |= rules[i].types;
    return types;
}

bool argument_check_key(struct slice key, const struct amqp_value *value)
{
    char reason[REASON_SIZE];

    for (size_t i = 0; i < countof(rules); i++)
        if (is_key(&rules[i], key) && check_value(&rules[i], value, reason))
            return true;
    return false;
}

bool argument_honours_key(struct slice key)
{
    for (size_t i = 0; i < countof(rules); i++)
        if (is_key(&rules[i], key) && rules[i].honoured)
            return true;
    return false;
}

/* ---- warnings ---- */

static bool is_of_exchanges(struct slice name)
{
    for (size_t i = 0; i < countof(exchange_names); i++)
        if (slice_equal(name, slice_of_string(exchange_names[i])))
            return true;
    return false;
}

void argument_warn(const struct argument_owner *owner, struct slice arguments)
{
    const bool is_queue = strcmp(owner->kind, "queue") == 0;
    struct amqp_table_iter iter = amqp_table_walk(arguments);
    struct amqp_value value;
    struct slice name;

    while (amqp_table_next(&iter, &name, &value)) {
        const struct rule *rule = is_queue ? rules : rules + countof(rules);
        while (rule < rules + countof(rules) && !is_named(rule, name))
            rule++;
        if (rule < rules + countof(rules) ? rule->honoured : !slice_starts_with(name, SLICE("x-")))
            continue;
        if (!is_queue && is_of_exchanges(name))
            continue;
        log_warning("%s '%.*s' in vhost '%.*s': argument '%.*s' is %s", owner->kind,
                    SLICE_ARG(owner->name), SLICE_ARG(owner->vhost), SLICE_ARG(name),
                    rule < rules + countof(rules) ? "accepted but not honoured yet"
                                                  : "not known; it is kept and has no effect");
    }
}

/* ---- agreement ---- */

static bool is_real(const struct amqp_value *value)
{
    return value->type == AMQP_FLOAT || value->type == AMQP_DOUBLE;
}

/* Integers of all widths are one class, floats another, strings a third. */
static bool values_agree(const struct amqp_value *a, const struct amqp_value *b)
{
    return is_real(a) == is_real(b) && amqp_value_equal(a, b);
}

/* "none", "the value '1000' of type 'signedint'"; or, when both sides have one, "'1000'". */
static void print_side(char *out, size_t size, const struct amqp_value *value, bool alone)
{
    struct argument_text text;

    if (value == NULL)
        snprintf(out, size, "none");
    else if (alone)
        snprintf(out, size, "the value '%s' of type '%s'", argument_print(value, &text),
                 argument_type_name(value));
    else
        snprintf(out, size, "'%s'", argument_print(value, &text));
}

static bool fail_inequivalent(const struct argument_owner *owner, const char *argument,
                              const struct amqp_value *received, const struct amqp_value *current,
                              struct amqp_error *error)
{
    const bool alone = received == NULL || current == NULL;
    char left[320], right[320];

    print_side(left, sizeof(left), received, alone);
    print_side(right, sizeof(right), current, alone);
    return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "inequivalent arg '%s' for %s '%.*s' in vhost '%.*s': "
                     "received %s but current is %s",
                     argument, owner->kind, SLICE_ARG(owner->name), SLICE_ARG(owner->vhost), left,
                     right);
}

static bool agree(const struct argument_owner *owner, const char *argument,
                  const struct amqp_value *received, const struct amqp_value *current,
                  struct amqp_error *error)
{
    if (received == NULL && current == NULL)
        return true;
    if (received != NULL && current != NULL && values_agree(received, current))
        return true;
    return fail_inequivalent(owner, argument, received, current, error);
}

static const struct amqp_value *find(struct slice arguments, const char *name,
                                     struct amqp_value *value)
{
    return amqp_table_find(arguments, slice_of_string(name), value) ? value : NULL;
}

bool argument_agree_exchange(const struct argument_owner *exchange, struct slice received,
                             struct slice current, struct amqp_error *error)
{
    struct amqp_value left, right;

    return agree(exchange, alternate_key, find(received, alternate_key, &left),
                 find(current, alternate_key, &right), error);
}

/* A type that is not given is classic. */
static bool agree_type(const struct argument_owner *queue, struct slice received,
                       struct slice current, struct amqp_error *error)
{
    const struct amqp_value classic = {.type = AMQP_STRING, .bytes = SLICE("classic")};
    struct amqp_value left, right;
    const struct amqp_value *new = find(received, queue_type_key, &left);
    const struct amqp_value *old = find(current, queue_type_key, &right);

    if (values_agree(new != NULL ? new : &classic, old != NULL ? old : &classic))
        return true;
    return fail_inequivalent(queue, queue_type_key, new, old, error);
}

bool argument_agree_queue(const struct argument_owner *queue, struct slice received,
                          struct slice current, struct amqp_error *error)
{
    const unsigned type = 1U << argument_queue_type(current);
    struct amqp_value left, right;

    for (size_t i = 0; i < countof(rules); i++) {
        const char *name = rules[i].name;
        if (!(rules[i].types & type))
            continue;
        if (strcmp(name, queue_type_key) == 0 ? !agree_type(queue, received, current, error)
                                              : !agree(queue, name, find(received, name, &left),
                                                       find(current, name, &right), error))
            return false;
    }
    return true;
}
