#include "core/delivery_count.h"

#include "amqp/properties.h"
#include "amqp/table.h"

static void put_count(struct buf *out, struct slice key, unsigned count)
{
    if (count > 0)
        amqp_table_put_i64(out, key, count);
}

struct message *delivery_count_show(const struct entry *entry)
{
    struct buf unsorted = BUF_EMPTY, headers = BUF_EMPTY, bytes = BUF_EMPTY;
    struct amqp_properties properties;

    amqp_properties_decode(message_properties(entry->message), &properties);
    /* Where a key is there twice the first one counts. */
    put_count(&unsorted, SLICE("x-acquired-count"), entry->acquired_count);
    put_count(&unsorted, SLICE("x-delivery-count"), entry->delivery_count);
    buf_append(&unsorted, properties.headers);
    amqp_table_sort(&headers, buf_slice(&unsorted)); /* 2.9 */
    properties.headers = buf_slice(&headers);
    properties.flags |= AMQP_PROPERTY_HEADERS;
    amqp_properties_encode(&bytes, &properties);

    struct message *shown = message_rebuild(entry->message, buf_slice(&bytes), (struct slice){0});
    buf_release(&unsorted);
    buf_release(&headers);
    buf_release(&bytes);
    return shown;
}
