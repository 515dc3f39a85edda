#include "core/copies.h"

#include "amqp/properties.h"
#include "amqp/table.h"
#include "core/argument.h"

/* The first header of each name, in one walk; type 0: absent. */
static void find_headers(struct slice headers, struct amqp_value *cc, struct amqp_value *bcc)
{
    struct amqp_table_iter iter = amqp_table_walk(headers);
    struct amqp_value value;
    struct slice name;

    cc->type = bcc->type = 0;
    while (amqp_table_next(&iter, &name, &value))
        if (slice_equal(name, SLICE("CC")) && cc->type == 0)
            *cc = value;
        else if (slice_equal(name, SLICE("BCC")) && bcc->type == 0)
            *bcc = value;
}

static bool check_type(const struct amqp_value *value, const char *name, struct amqp_error *error)
{
    return value->type == 0 || value->type == AMQP_ARRAY ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "invalid message: {unacceptable_type_in_header,\"%s\",%s}", name,
                     argument_type_name(value));
}

/* The long strings of an array count; what else is in it is nobody's key. */
static bool count_keys(struct slice array, size_t *count, struct amqp_error *error)
{
    struct amqp_table_iter iter = amqp_table_walk(array);
    struct amqp_value value;

    while (amqp_array_next(&iter, &value)) {
        if (value.type != AMQP_STRING)
            continue;
        if (value.bytes.size > AMQP_SHORTSTR_MAX)
            return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                             "invalid message: a routing key of %zu octets in its headers, at most "
                             "%d are allowed",
                             value.bytes.size, AMQP_SHORTSTR_MAX);
        ++*count;
    }
    return *count <= COPIES_MAX ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "invalid message: more than %d routing keys in headers CC and BCC",
                     COPIES_MAX);
}

/* The table in order of name, without BCC (2.9). */
static void write_visible(struct buf *out, struct slice headers)
{
    struct buf rest = BUF_EMPTY;
    struct amqp_table_iter iter = amqp_table_walk(headers);
    struct amqp_value value;
    struct slice name;

    while (amqp_table_next(&iter, &name, &value))
        if (!slice_equal(name, SLICE("BCC")))
            amqp_table_put(&rest, name, &value);
    amqp_table_sort(out, buf_slice(&rest));
    buf_release(&rest);
}

static struct message *hide_bcc(const struct message *message, struct slice bcc)
{
    struct buf headers = BUF_EMPTY, bytes = BUF_EMPTY;
    struct amqp_properties properties;

    amqp_properties_decode(message_properties(message), &properties);
    write_visible(&headers, properties.headers);
    properties.headers = buf_slice(&headers);
    amqp_properties_encode(&bytes, &properties);
    struct message *rebuilt = message_rebuild(message, buf_slice(&bytes), bcc);
    buf_release(&headers);
    buf_release(&bytes);
    return rebuilt;
}

bool copies_take(struct message **message, struct amqp_error *error)
{
    struct amqp_value cc, bcc;
    size_t count = 0;

    find_headers(amqp_properties_find(message_properties(*message), AMQP_PROPERTY_HEADERS), &cc,
                 &bcc);
    if (likely(cc.type == 0 && bcc.type == 0))
        return true;
    if (!check_type(&cc, "CC", error) || !check_type(&bcc, "BCC", error) ||
        (cc.type != 0 && !count_keys(cc.bytes, &count, error)) ||
        (bcc.type != 0 && !count_keys(bcc.bytes, &count, error)))
        return false;
    if (cc.type != 0)
        message_mark_cc(*message);
    if (bcc.type != 0) {
        struct message *rebuilt = hide_bcc(*message, bcc.bytes);
        message_unref(message);
        *message = rebuilt;
    }
    return true;
}

static size_t list_keys(struct slice array, struct slice *keys, size_t count)
{
    struct amqp_table_iter iter = amqp_table_walk(array);
    struct amqp_value value;

    while (count <= COPIES_MAX && amqp_array_next(&iter, &value))
        if (value.type == AMQP_STRING)
            keys[count++] = value.bytes;
    return count;
}

size_t copies_list(const struct message *message, struct slice keys[1 + COPIES_MAX])
{
    size_t count = 1;
    struct amqp_value cc;

    keys[0] = message_routing_key(message);
    if (!message->has_copies)
        return count;
    if (amqp_table_find(amqp_properties_find(message_properties(message), AMQP_PROPERTY_HEADERS),
                        SLICE("CC"), &cc) &&
        cc.type == AMQP_ARRAY)
        count = list_keys(cc.bytes, keys, count);
    return list_keys(message_bcc(message), keys, count);
}
