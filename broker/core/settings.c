#include "core/settings.h"

#include "amqp/table.h"
#include "core/argument.h"

/* Of quorum queues (8.11, 11.7). */
enum { DELIVERY_LIMIT_DEFAULT = 20, QUORUM_PRIORITY_MAX = 31, QUORUM_PRIORITY_PLAIN = 4 };

static bool find_number(struct slice table, struct slice key, uint64_t *found)
{
    struct amqp_value value;
    int64_t number;

    if (!amqp_table_find(table, key, &value) || !amqp_value_integer(&value, &number))
        return false;
    *found = number < 0 ? SETTING_NONE : (uint64_t)number;
    return true;
}

static bool find_string(struct slice table, struct slice key, struct slice *string)
{
    struct amqp_value value;

    return amqp_table_find(table, key, &value) && amqp_value_string(&value, string);
}

/* The key of a policy is that of the argument without its x-. */
static struct slice policy_key(struct slice key)
{
    return slice_of(key.data + 2, key.size - 2);
}

/* The smallest that anyone gives. */
static uint64_t read_number(const struct settings_source *source, struct slice key,
                            uint64_t otherwise)
{
    uint64_t numbers[3], smallest = SETTING_NONE;
    size_t count = 0;

    count += find_number(source->arguments, key, &numbers[count]);
    count += find_number(source->policy, policy_key(key), &numbers[count]);
    count += find_number(source->operator_policy, policy_key(key), &numbers[count]);
    for (size_t i = 0; i < count; i++)
        smallest = min_of(smallest, numbers[i]);
    return count == 0 ? otherwise : smallest;
}

/* Operators' policies have none of the keys that these two are for. */
static uint64_t read_first_number(const struct settings_source *source, struct slice key,
                                  uint64_t otherwise)
{
    uint64_t number = otherwise;

    if (!find_number(source->arguments, key, &number))
        find_number(source->policy, policy_key(key), &number);
    return number;
}

static bool read_string(const struct settings_source *source, struct slice key,
                        struct slice *string)
{
    return find_string(source->arguments, key, string) ||
           find_string(source->policy, policy_key(key), string);
}

/* An argument cannot be what the queue's type does not know, a policy can: then it is as if it were
 * not there. */
static enum overflow overflow_named(struct slice name, bool quorum)
{
    if (slice_equal(name, SLICE("reject-publish")))
        return OVERFLOW_REJECT_PUBLISH;
    if (slice_equal(name, SLICE("reject-publish-dlx")) && !quorum)
        return OVERFLOW_REJECT_PUBLISH_DLX;
    return OVERFLOW_DROP_HEAD;
}

static enum overflow read_overflow(const struct settings_source *source, bool quorum)
{
    struct slice argument, policy;
    const bool argued = find_string(source->arguments, SLICE("x-overflow"), &argument);
    const bool ruled = find_string(source->operator_policy, SLICE("overflow"), &policy) ||
                       find_string(source->policy, SLICE("overflow"), &policy);

    if (ruled && (quorum || !argued))
        return overflow_named(policy, quorum);
    return argued ? overflow_named(argument, quorum) : OVERFLOW_DROP_HEAD;
}

static enum retry_type read_retry_type(const struct settings_source *source)
{
    static const char *const names[] = {
        [RETRY_ALL] = "all",
        [RETRY_FAILED] = "failed",
        [RETRY_RETURNED] = "returned",
    };
    struct slice name;

    if (read_string(source, SLICE("x-delayed-retry-type"), &name))
        for (size_t i = RETRY_ALL; i < countof(names); i++)
            if (slice_equal(name, slice_of_string(names[i])))
                return (enum retry_type)i;
    return RETRY_DISABLED;
}

void settings_read(struct settings *settings, const struct settings_source *source)
{
    const bool quorum = argument_queue_type(source->arguments) == QUEUE_QUORUM;
    uint64_t priority_max = quorum ? QUORUM_PRIORITY_MAX : 0;
    struct slice strategy;

    if (!quorum)
        find_number(source->arguments, SLICE("x-max-priority"), &priority_max);
    *settings = (struct settings){
        .message_ttl_ms = read_number(source, SLICE("x-message-ttl"), SETTING_NONE),
        .expires_ms = read_number(source, SLICE("x-expires"), SETTING_NONE),
        .length_max = read_number(source, SLICE("x-max-length"), SETTING_NONE),
        .bytes_max = read_number(source, SLICE("x-max-length-bytes"), SETTING_NONE),
        .overflow = read_overflow(source, quorum),
        .quorum = quorum,
        .consumer_timeout_ms =
            quorum ? read_number(source, SLICE("x-consumer-timeout"), SETTING_NONE) : SETTING_NONE,
        .delivery_limit =
            quorum ? read_number(source, SLICE("x-delivery-limit"), DELIVERY_LIMIT_DEFAULT)
                   : SETTING_NONE,
        .retry_type = quorum ? read_retry_type(source) : RETRY_DISABLED,
        .retry_min_ms = read_first_number(source, SLICE("x-delayed-retry-min"), 0),
        .retry_max_ms = read_first_number(source, SLICE("x-delayed-retry-max"), SETTING_NONE),
        .priority_max = (uint8_t)priority_max,
        .priority_plain = quorum ? QUORUM_PRIORITY_PLAIN : 0,
    };
    settings->dead_letters =
        read_string(source, SLICE("x-dead-letter-exchange"), &settings->dead_letter_exchange);
    settings->wants_dead_letters_kept =
        quorum && read_string(source, SLICE("x-dead-letter-strategy"), &strategy) &&
        slice_equal(strategy, SLICE("at-least-once"));
    settings->keeps_dead_letters = settings->wants_dead_letters_kept && settings->dead_letters &&
                                   settings->overflow == OVERFLOW_REJECT_PUBLISH;
    settings->has_dead_letter_key =
        read_string(source, SLICE("x-dead-letter-routing-key"), &settings->dead_letter_key);
}
