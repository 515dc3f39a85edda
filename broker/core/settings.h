/* What a queue is told to do, by its x-arguments and the policies that apply to it, as numbers. One
 * place reads them; whoever acts on them looks here. */
#ifndef CORE_SETTINGS_H
#define CORE_SETTINGS_H

#include "base/slice.h"

#define SETTING_NONE UINT64_MAX /* no limit, never */

enum retry_type { RETRY_DISABLED, RETRY_ALL, RETRY_FAILED, RETRY_RETURNED };

enum overflow { OVERFLOW_DROP_HEAD, OVERFLOW_REJECT_PUBLISH, OVERFLOW_REJECT_PUBLISH_DLX };

struct settings {
    uint64_t message_ttl_ms; /* SETTING_NONE: messages stay */
    uint64_t expires_ms;     /* of the queue itself, unused; SETTING_NONE: never */
    uint64_t length_max;     /* ready messages */
    uint64_t bytes_max;      /* their body octets */
    enum overflow overflow;
    bool dead_letters;                                /* there is a dead-letter exchange */
    bool wants_dead_letters_kept, keeps_dead_letters; /* at-least-once, and can be: see outbox.h */
    bool has_dead_letter_key;                         /* else the message's own keys */
    struct slice dead_letter_exchange, dead_letter_key; /* in the source */
    bool quorum; /* it stores every message (12), and counts deliveries: see delivery_count.h */
    uint64_t delivery_limit;             /* of those; SETTING_NONE when negative */
    enum retry_type retry_type;          /* which of those that come back wait: see retry.h */
    uint64_t retry_min_ms, retry_max_ms; /* 0: none waits; SETTING_NONE: as long as it takes */
    uint64_t consumer_timeout_ms; /* SETTING_NONE: as the consumer or the configuration says */
    uint8_t priority_max;         /* 0: no priorities */
    uint8_t priority_plain;       /* of a message that says nothing (11.7) */
};

/* Checked tables: x-arguments, and definitions of policies, whose keys are the same without the x-.
 * Empty where there is none. */
struct settings_source {
    struct slice arguments, policy, operator_policy;
};

/* The slices of the settings point into the source. Where several say something (11.6, 17.3),
 * limits are the smallest of them; for the rest an argument goes before the policy, but for a
 * quorum queue's overflow, and the operator's policy before the other one. */
void settings_read(struct settings *settings, const struct settings_source *source);

#endif
