/* jansson refuses strings that are not UTF-8; only then is a string copied and escaped. The depth
 * of a table is limited by amqp_table_check, and so is the recursion over it. */
#include "manage/json.h"

#include "amqp/table.h"

/* Octets of the UTF-8 character that the bytes begin with; 0 when they begin with none (surrogates
 * and overlong forms are none). */
static size_t utf8_size(struct slice bytes)
{
    static const struct {
        uint8_t first_low, first_high, second_low, second_high;
        size_t size;
    } forms[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t i = 0; i < countof(forms); i++) {
        if (bytes.data[0] < forms[i].first_low || bytes.data[0] > forms[i].first_high)
            continue;
        const size_t size = forms[i].size;
        if (size == 1)
            return 1;
        if (size > bytes.size || bytes.data[1] < forms[i].second_low ||
            bytes.data[1] > forms[i].second_high)
            return 0;
        for (size_t at = 2; at < size; at++)
            if ((bytes.data[at] & 0xc0) != 0x80)
                return 0;
        return size;
    }
    return 0;
}

/* NUL too: those who read JSON take none in keys. */
static void append_escaped(struct buf *out, struct slice bytes)
{
    while (bytes.size > 0) {
        size_t size = utf8_size(bytes);
        if (size == 0 || bytes.data[0] == '\0') {
            buf_printf(out, "\\x%02x", bytes.data[0]);
            size = 1;
        } else {
            buf_append(out, slice_of(bytes.data, size));
        }
        bytes = slice_of(bytes.data + size, bytes.size - size);
    }
}

json_t *json_from_slice(struct slice bytes)
{
    json_t *string = json_stringn(bytes.size == 0 ? "" : (const char *)bytes.data, bytes.size);
    if (string != NULL)
        return string;

    struct buf escaped = BUF_EMPTY;
    append_escaped(&escaped, bytes);
    string = json_stringn((const char *)escaped.data, buf_size(&escaped));
    assert(string != NULL);
    buf_release(&escaped);
    return string;
}

static json_t *from_real(double real)
{
    json_t *number = json_real(real);
    return number == NULL ? json_null() : number;
}

static json_t *from_decimal(uint32_t digits, uint8_t scale)
{
    double real = digits;
    for (; scale > 0; scale--)
        real /= 10;
    return json_real(real);
}

static json_t *from_array(struct slice array);

static json_t *from_value(const struct amqp_value *value)
{
    switch ((enum amqp_value_type)value->type) {
    case AMQP_BOOL:
        return json_boolean(value->boolean);
    case AMQP_INT8:
    case AMQP_UINT8:
    case AMQP_INT16:
    case AMQP_UINT16:
    case AMQP_INT32:
    case AMQP_UINT32:
    case AMQP_INT64:
        return json_integer(value->integer);
    case AMQP_FLOAT:
    case AMQP_DOUBLE:
        return from_real(value->real);
    case AMQP_DECIMAL:
        return from_decimal(value->decimal.digits, value->decimal.scale);
    case AMQP_TIMESTAMP:
        return json_integer((json_int_t)value->timestamp_s);
    case AMQP_STRING:
    case AMQP_BYTES:
        return json_from_slice(value->bytes);
    case AMQP_ARRAY:
        return from_array(value->bytes);
    case AMQP_TABLE:
        return json_from_table(value->bytes);
    case AMQP_VOID:
        break;
    }
    return json_null();
}

static json_t *from_array(struct slice array)
{
    struct amqp_table_iter iter = amqp_table_walk(array);
    struct amqp_value value;
    json_t *list = json_array();

    while (amqp_array_next(&iter, &value))
        json_array_append_new(list, from_value(&value));
    return list;
}

/* Of a key that is there twice the first one counts (2.9). */
json_t *json_from_table(struct slice table)
{
    struct amqp_table_iter iter = amqp_table_walk(table);
    struct amqp_value value;
    struct slice key;
    struct buf escaped = BUF_EMPTY;
    json_t *object = json_object();

    while (amqp_table_next(&iter, &key, &value)) {
        buf_clear(&escaped);
        append_escaped(&escaped, key);
        const char *name = key.size == 0 ? "" : (const char *)escaped.data;
        if (json_object_getn(object, name, buf_size(&escaped)) == NULL)
            json_object_setn_new(object, name, buf_size(&escaped), from_value(&value));
    }
    buf_release(&escaped);
    return object;
}

/* ---- back ---- */

struct slice json_to_slice(const json_t *string)
{
    return slice_of(json_string_value(string), json_string_length(string));
}

static struct amqp_value to_scalar(const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_STRING:
        return (struct amqp_value){.type = AMQP_STRING, .bytes = json_to_slice(json)};
    case JSON_INTEGER:
        return (struct amqp_value){.type = AMQP_INT64, .integer = json_integer_value(json)};
    case JSON_REAL:
        return (struct amqp_value){.type = AMQP_DOUBLE, .real = json_real_value(json)};
    case JSON_TRUE:
    case JSON_FALSE:
        return (struct amqp_value){.type = AMQP_BOOL, .boolean = json_is_true(json)};
    default:
        return (struct amqp_value){.type = AMQP_VOID};
    }
}

static bool put_entries(struct buf *out, json_t *container, unsigned depth);

/* key: NULL in an array. depth: levels around the value. */
static bool put_value(struct buf *out, const struct slice *key, json_t *json, unsigned depth)
{
    size_t begin;

    if (key != NULL && key->size > UINT8_MAX)
        return false;
    if (!json_is_object(json) && !json_is_array(json)) {
        const struct amqp_value value = to_scalar(json);
        if (key != NULL)
            amqp_table_put(out, *key, &value);
        else
            amqp_array_put(out, &value);
        return true;
    }
    if (depth == AMQP_TABLE_DEPTH_MAX)
        return false;
    if (json_is_object(json))
        begin = key != NULL ? amqp_table_begin_table(out, *key) : amqp_array_begin_table(out);
    else
        begin = key != NULL ? amqp_table_begin_array(out, *key) : amqp_array_begin_array(out);
    const bool fits = put_entries(out, json, depth + 1);
    amqp_table_end(out, begin);
    return fits;
}

static bool put_entries(struct buf *out, json_t *container, unsigned depth)
{
    for (size_t i = 0; i < json_array_size(container); i++)
        if (!put_value(out, NULL, json_array_get(container, i), depth))
            return false;
    for (void *iter = json_object_iter(container); iter != NULL;
         iter = json_object_iter_next(container, iter)) {
        const struct slice key =
            slice_of(json_object_iter_key(iter), json_object_iter_key_len(iter));
        if (!put_value(out, &key, json_object_iter_value(iter), depth))
            return false;
    }
    return true;
}

bool json_to_table(json_t *object, struct buf *out)
{
    assert(json_is_object(object));
    return put_entries(out, object, 1);
}

/* ---- members ---- */

void json_put(json_t *object, const char *key, json_t *value)
{
    const int result = json_object_set_new_nocheck(object, key, value);
    assert(result == 0);
    (void)result;
}

void json_put_string(json_t *object, const char *key, const char *value)
{
    json_put(object, key, json_from_slice(slice_of_string(value)));
}

void json_put_slice(json_t *object, const char *key, struct slice value)
{
    json_put(object, key, json_from_slice(value));
}

void json_put_bool(json_t *object, const char *key, bool value)
{
    json_put(object, key, json_boolean(value));
}

void json_put_number(json_t *object, const char *key, uint64_t value)
{
    json_put(object, key, json_integer((json_int_t)value));
}
