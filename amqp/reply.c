/* Names and scope of reply codes, and the text of an error. */
#include "amqp/reply.h"

#include <stdarg.h>

const char *amqp_reply_name(uint16_t code)
{
    switch (code) {
    case AMQP_REPLY_SUCCESS:
        return "SUCCESS";
    case AMQP_CONTENT_TOO_LARGE:
        return "CONTENT_TOO_LARGE";
    case AMQP_NO_ROUTE:
        return "NO_ROUTE";
    case AMQP_NO_CONSUMERS:
        return "NO_CONSUMERS";
    case AMQP_ACCESS_REFUSED:
        return "ACCESS_REFUSED";
    case AMQP_NOT_FOUND:
        return "NOT_FOUND";
    case AMQP_RESOURCE_LOCKED:
        return "RESOURCE_LOCKED";
    case AMQP_PRECONDITION_FAILED:
        return "PRECONDITION_FAILED";
    case AMQP_CONNECTION_FORCED:
        return "CONNECTION_FORCED";
    case AMQP_INVALID_PATH:
        return "INVALID_PATH";
    case AMQP_FRAME_ERROR:
        return "FRAME_ERROR";
    case AMQP_SYNTAX_ERROR:
        return "SYNTAX_ERROR";
    case AMQP_COMMAND_INVALID:
        return "COMMAND_INVALID";
    case AMQP_CHANNEL_ERROR:
        return "CHANNEL_ERROR";
    case AMQP_UNEXPECTED_FRAME:
        return "UNEXPECTED_FRAME";
    case AMQP_RESOURCE_ERROR:
        return "RESOURCE_ERROR";
    case AMQP_NOT_ALLOWED:
        return "NOT_ALLOWED";
    case AMQP_NOT_IMPLEMENTED:
        return "NOT_IMPLEMENTED";
    case AMQP_INTERNAL_ERROR:
        return "INTERNAL_ERROR";
    default:
        return "UNKNOWN";
    }
}

bool amqp_reply_is_soft(uint16_t code) /* 5.3 */
{
    switch (code) {
    case AMQP_CONTENT_TOO_LARGE:
    case AMQP_NO_ROUTE:
    case AMQP_NO_CONSUMERS:
    case AMQP_ACCESS_REFUSED:
    case AMQP_NOT_FOUND:
    case AMQP_RESOURCE_LOCKED:
    case AMQP_PRECONDITION_FAILED:
        return true;
    default:
        return false;
    }
}

/* How many of the first size octets of text end with a whole UTF-8 character. Octets that are no
 * UTF-8 stay. */
static size_t cut_between_characters(const char *text, size_t size)
{
    size_t tail = 0; /* continuation octets at the end */
    while (tail < 3 && tail < size && ((uint8_t)text[size - 1 - tail] & 0xC0) == 0x80)
        tail++;
    if (tail == size)
        return size;

    uint8_t lead = (uint8_t)text[size - 1 - tail];
    size_t wanted = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    return wanted > tail ? size - 1 - tail : size;
}

bool amqp_fail(struct amqp_error *error, uint16_t code, const char *format, ...)
{
    error->code = code;
    size_t name_size = (size_t)sprintf(error->text, "%s - ", amqp_reply_name(code));
    size_t room = sizeof(error->text) - name_size;

    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(error->text + name_size, room, format, arguments);
    va_end(arguments);
    assert(size >= 0);
    if ((size_t)size >= room)
        error->text[cut_between_characters(error->text, sizeof(error->text) - 1)] = '\0';
    return false;
}
