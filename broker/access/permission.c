#include "access/permission.h"

#include "access/user.h"
#include "base/alloc.h"
#include "base/log.h"

/* What an operation needs. A resource of kind NONE ends the list. */
enum kind { NONE, EXCHANGE, QUEUE };

struct demand {
    enum kind kind;
    enum access_right right;
    bool of_other; /* asked of the second resource; left out when there is none */
    bool if_other; /* asked of the first, only when there is a second */
};

enum { DEMANDS_MAX = 3 };

/* 16.2 */
static const struct operation {
    bool any; /* one of the demands is enough */
    struct demand demands[DEMANDS_MAX];
} operations[] = {
    [ACCESS_EXCHANGE_DECLARE] = {.demands = {{EXCHANGE, ACCESS_CONFIGURE, false, false},
                                             {EXCHANGE, ACCESS_READ, false, true},
                                             {EXCHANGE, ACCESS_WRITE, true, false}}},
    [ACCESS_EXCHANGE_DECLARE_PASSIVE] = {.any = true,
                                         .demands = {{EXCHANGE, ACCESS_CONFIGURE, false, false},
                                                     {EXCHANGE, ACCESS_WRITE, false, false},
                                                     {EXCHANGE, ACCESS_READ, false, false}}},
    [ACCESS_EXCHANGE_DELETE] = {.demands = {{EXCHANGE, ACCESS_CONFIGURE, false, false}}},
    [ACCESS_EXCHANGE_BIND] = {.demands = {{EXCHANGE, ACCESS_WRITE, false, false},
                                          {EXCHANGE, ACCESS_READ, true, false}}},
    [ACCESS_EXCHANGE_UNBIND] = {.demands = {{EXCHANGE, ACCESS_WRITE, false, false},
                                            {EXCHANGE, ACCESS_READ, true, false}}},
    [ACCESS_QUEUE_DECLARE] = {.demands = {{QUEUE, ACCESS_CONFIGURE, false, false},
                                          {QUEUE, ACCESS_READ, false, true},
                                          {EXCHANGE, ACCESS_WRITE, true, false}}},
    [ACCESS_QUEUE_DECLARE_PASSIVE] = {.any = true,
                                      .demands = {{QUEUE, ACCESS_CONFIGURE, false, false},
                                                  {QUEUE, ACCESS_WRITE, false, false},
                                                  {QUEUE, ACCESS_READ, false, false}}},
    [ACCESS_QUEUE_DELETE] = {.demands = {{QUEUE, ACCESS_CONFIGURE, false, false}}},
    [ACCESS_QUEUE_BIND] = {.demands = {{QUEUE, ACCESS_WRITE, false, false},
                                       {EXCHANGE, ACCESS_READ, true, false}}},
    [ACCESS_QUEUE_UNBIND] = {.demands = {{QUEUE, ACCESS_WRITE, false, false},
                                         {EXCHANGE, ACCESS_READ, true, false}}},
    [ACCESS_QUEUE_PURGE] = {.demands = {{QUEUE, ACCESS_READ, false, false}}},
    [ACCESS_GET] = {.demands = {{QUEUE, ACCESS_READ, false, false}}},
    [ACCESS_CONSUME] = {.demands = {{QUEUE, ACCESS_READ, false, false}}},
    [ACCESS_PUBLISH] = {.demands = {{EXCHANGE, ACCESS_WRITE, false, false}}},
};
static_assert(countof(operations) == ACCESS_OPERATIONS, "a row for each");

static const char *const right_names[] = {
    [ACCESS_CONFIGURE] = "configure", [ACCESS_WRITE] = "write", [ACCESS_READ] = "read"};

const char *access_right_name(enum access_right right)
{
    return right_names[right];
}

/* ---- rules ---- */

bool rule_init(struct access_rule *rule, struct slice text, char error[PATTERN_ERROR_SIZE])
{
    *rule = (struct access_rule){.always = slice_equal(text, SLICE(".*"))};
    if (text.size > 0) {
        rule->pattern = pattern_new(text, error);
        if (rule->pattern == NULL)
            return false;
    }
    rule->text = slice_of(slice_to_string(text), text.size);
    return true;
}

void rule_release(struct access_rule *rule)
{
    if (rule->pattern != NULL)
        pattern_free(&rule->pattern);
    free((void *)(uintptr_t)rule->text.data);
    *rule = (struct access_rule){0};
}

static bool rule_allows(const struct access_rule *rule, const struct grant *grant,
                        struct slice name)
{
    if (rule->always)
        return true;
    if (rule->pattern == NULL)
        return false;
    const enum pattern_result result = pattern_match(rule->pattern, name);
    if (result == PATTERN_TOO_COSTLY)
        log_warning(
            "a permission of user '%.*s' in vhost '%.*s' takes too many steps to be matched "
            "with '%.*s', and is refused",
            SLICE_ARG(grant->user->name), SLICE_ARG(grant->vhost), SLICE_ARG(name));
    return result == PATTERN_MATCHES;
}

/* ---- names ---- */

/* 16.1 */
static struct slice name_asked(const struct demand *demand, struct slice name)
{
    return demand->kind == EXCHANGE && name.size == 0 ? SLICE("amq.default") : name;
}

static bool meets(const struct grant *grant, const struct demand *demand, struct slice name)
{
    return rule_allows(&grant->rules[demand->right], grant, name_asked(demand, name));
}

static bool refuse(const struct grant *grant, const char *access, const struct demand *demand,
                   struct slice name, struct amqp_error *error)
{
    name = name_asked(demand, name);
    return amqp_fail(error, AMQP_ACCESS_REFUSED,
                     "%s access to %s '%.*s' in vhost '%.*s' refused for user '%.*s'", access,
                     demand->kind == QUEUE ? "queue" : "exchange", SLICE_ARG(name),
                     SLICE_ARG(grant->vhost), SLICE_ARG(grant->user->name));
}

static bool check_any(const struct grant *grant, const struct operation *operation,
                      struct slice name, struct amqp_error *error)
{
    for (size_t i = 0; i < DEMANDS_MAX; i++)
        if (meets(grant, &operation->demands[i], name))
            return true;
    return refuse(grant, "configure, write or read", &operation->demands[0], name, error);
}

bool permission_check(const struct grant *grant, enum access_operation which, struct slice name,
                      struct slice other, struct amqp_error *error)
{
    const struct operation *operation = &operations[which];

    if (grant == NULL || !grant->open)
        return amqp_fail(error, AMQP_ACCESS_REFUSED, "access refused");
    if (operation->any)
        return check_any(grant, operation, name, error);
    for (const struct demand *demand = operation->demands;
         demand < operation->demands + DEMANDS_MAX && demand->kind != NONE; demand++) {
        const struct slice asked = demand->of_other ? other : name;
        if ((demand->of_other || demand->if_other) && other.data == NULL)
            continue;
        if (!meets(grant, demand, asked))
            return refuse(grant, right_names[demand->right], demand, asked, error);
    }
    return true;
}

/* ---- topics ---- */

const struct topic_rule *permission_topic(const struct grant *grant, struct slice exchange)
{
    const struct topic_rule *topic;

    TAILQ_FOREACH (topic, &grant->topics, link)
        if (slice_equal(topic->exchange, exchange))
            return topic;
    return NULL;
}

bool permission_check_topic(const struct grant *grant, enum access_right right,
                            struct slice exchange, struct slice key, struct amqp_error *error)
{
    if (grant == NULL || !grant->open)
        return amqp_fail(error, AMQP_ACCESS_REFUSED, "access refused");
    const struct topic_rule *topic = permission_topic(grant, exchange);
    return topic == NULL ||
           rule_allows(right == ACCESS_WRITE ? &topic->write : &topic->read, grant, key) ||
           amqp_fail(
               error, AMQP_ACCESS_REFUSED,
               "%s access to topic '%.*s' in exchange '%.*s' in vhost '%.*s' refused for user "
               "'%.*s'",
               right_names[right], SLICE_ARG(key), SLICE_ARG(exchange), SLICE_ARG(grant->vhost),
               SLICE_ARG(grant->user->name));
}

/* Letter by letter: no character of a name means anything in the pattern. */
static void append_literal(struct buf *out, struct slice name)
{
    for (size_t i = 0; i < name.size; i++)
        buf_printf(out, "\\x%02x", name.data[i]);
}

void topic_rule_expand(struct buf *out, struct slice text, struct slice user, struct slice vhost)
{
    const struct {
        struct slice word, name;
    } variables[] = {{SLICE("{username}"), user}, {SLICE("{vhost}"), vhost}};

    while (text.size > 0) {
        size_t size = 1;
        for (size_t i = 0; i < countof(variables); i++)
            if (slice_starts_with(text, variables[i].word)) {
                append_literal(out, variables[i].name);
                size = variables[i].word.size;
            }
        if (size == 1)
            buf_append(out, slice_of(text.data, 1));
        text = slice_of(text.data + size, text.size - size);
    }
}
