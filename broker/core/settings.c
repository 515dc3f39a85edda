#include "core/settings.h"

#include "amqp/table.h"
#include "core/argument.h"

enum { DELIVERY_LIMIT_DEFAULT = 20 }; /* of quorum queues (8.11) */

static uint64_t read_number(struct slice arguments, struct slice key, uint64_t otherwise)
{
    struct amqp_value value;
    int64_t number;

    if (!amqp_table_find(arguments, key, &value) || !amqp_value_integer(&value, &number))
        return otherwise;
    return number < 0 ? SETTING_NONE : (uint64_t)number;
}

static bool read_string(struct slice arguments, struct slice key, struct slice *string)
{
    struct amqp_value value;

    return amqp_table_find(arguments, key, &value) && amqp_value_string(&value, string);
}

static enum overflow read_overflow(struct slice arguments)
{
    struct slice name;

    if (!read_string(arguments, SLICE("x-overflow"), &name))
        return OVERFLOW_DROP_HEAD;
    if (slice_equal(name, SLICE("reject-publish")))
        return OVERFLOW_REJECT_PUBLISH;
    if (slice_equal(name, SLICE("reject-publish-dlx")))
        return OVERFLOW_REJECT_PUBLISH_DLX;
    return OVERFLOW_DROP_HEAD;
}

void settings_read(struct settings *settings, struct slice arguments)
{
    bool quorum = argument_queue_type(arguments) == QUEUE_QUORUM;

    *settings = (struct settings){
        .message_ttl_ms = read_number(arguments, SLICE("x-message-ttl"), SETTING_NONE),
        .expires_ms = read_number(arguments, SLICE("x-expires"), SETTING_NONE),
        .length_max = read_number(arguments, SLICE("x-max-length"), SETTING_NONE),
        .bytes_max = read_number(arguments, SLICE("x-max-length-bytes"), SETTING_NONE),
        .overflow = read_overflow(arguments),
        .counts_deliveries = quorum,
        .consumer_timeout_ms =
            quorum ? read_number(arguments, SLICE("x-consumer-timeout"), SETTING_NONE)
                   : SETTING_NONE,
        .delivery_limit =
            quorum ? read_number(arguments, SLICE("x-delivery-limit"), DELIVERY_LIMIT_DEFAULT)
                   : SETTING_NONE,
        .priority_max = quorum ? 0 : (uint8_t)read_number(arguments, SLICE("x-max-priority"), 0),
    };
    settings->dead_letters =
        read_string(arguments, SLICE("x-dead-letter-exchange"), &settings->dead_letter_exchange);
    settings->has_dead_letter_key =
        read_string(arguments, SLICE("x-dead-letter-routing-key"), &settings->dead_letter_key);
}
