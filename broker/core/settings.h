/* What a queue is told to do: its x-arguments as numbers. One place reads them; whoever acts on them looks here. */
#ifndef CORE_SETTINGS_H
#define CORE_SETTINGS_H

#include "base/slice.h"

#define SETTING_NONE UINT64_MAX /* no limit, never */

enum overflow { OVERFLOW_DROP_HEAD, OVERFLOW_REJECT_PUBLISH, OVERFLOW_REJECT_PUBLISH_DLX };

struct settings {
    uint64_t message_ttl_ms; /* SETTING_NONE: messages stay */
    uint64_t expires_ms;     /* of the queue itself, unused; SETTING_NONE: never */
    uint64_t length_max;     /* ready messages */
    uint64_t bytes_max;      /* their body octets */
    enum overflow overflow;
    bool dead_letters;                                  /* there is a dead-letter exchange */
    bool has_dead_letter_key;                           /* else the message's own keys */
    struct slice dead_letter_exchange, dead_letter_key; /* in the arguments */
    bool counts_deliveries;                             /* quorum queues do: see delivery_count.h */
    uint64_t delivery_limit;                            /* of those; SETTING_NONE when negative */
    uint64_t consumer_timeout_ms; /* SETTING_NONE: as the consumer or the configuration says */
    uint8_t priority_max;         /* 0: no priorities */
};

/* From a checked argument table, into which the slices point. */
void settings_read(struct settings *settings, struct slice arguments);

#endif
