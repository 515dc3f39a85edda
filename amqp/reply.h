/* Reply codes, and the error that a peer's mistake becomes.
 *
 * A soft code closes the channel, a hard one the connection (5.3, 5.4); a soft one raised on
 * channel 0 closes the connection too, which is for the caller to see. The text of a reply is "NAME
 * - explanation" (5.1). */
#ifndef AMQP_REPLY_H
#define AMQP_REPLY_H

#include "base/base.h"

enum amqp_reply_code {
    AMQP_REPLY_SUCCESS = 200,
    AMQP_CONTENT_TOO_LARGE = 311, /* soft: 5.3 */
    AMQP_NO_ROUTE = 312,
    AMQP_NO_CONSUMERS = 313,
    AMQP_ACCESS_REFUSED = 403,
    AMQP_NOT_FOUND = 404,
    AMQP_RESOURCE_LOCKED = 405,
    AMQP_PRECONDITION_FAILED = 406,
    AMQP_CONNECTION_FORCED = 320, /* hard: 5.4 */
    AMQP_INVALID_PATH = 402,
    AMQP_FRAME_ERROR = 501,
    AMQP_SYNTAX_ERROR = 502,
    AMQP_COMMAND_INVALID = 503,
    AMQP_CHANNEL_ERROR = 504,
    AMQP_UNEXPECTED_FRAME = 505,
    AMQP_RESOURCE_ERROR = 506,
    AMQP_NOT_ALLOWED = 530,
    AMQP_NOT_IMPLEMENTED = 540,
    AMQP_INTERNAL_ERROR = 541,
};

const char *amqp_reply_name(
    uint16_t code); /* "NOT_FOUND"; "UNKNOWN" for a number that is no code */
bool amqp_reply_is_soft(uint16_t code);

struct amqp_error {
    uint16_t code;
    uint16_t class_id, method_id; /* the method that failed; 0, 0 when none did */
    char text[256];               /* at most 255 octets and a NUL: a short string */
};

/* Fills code and text, "NAME - " and then the explanation, cut to 255 octets between UTF-8
 * characters. class_id and method_id are left alone. Always false, for `return amqp_fail(error,
 * ...)`. */
bool amqp_fail(struct amqp_error *error, uint16_t code, const char *format, ...) printf_like(3, 4);

#endif
