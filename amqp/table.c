/* Tables and arrays, walked with one function that reads a value and never looks inside it; going
 * inside is the caller's business, who brings a stack if he needs one. */
#include "amqp/table.h"

#include "base/alloc.h"

static void read_value(struct amqp_reader *reader, struct amqp_value *value)
{
    value->type = amqp_read_u8(reader);
    switch (value->type) {
    case AMQP_BOOL:
        value->boolean = amqp_read_u8(reader) != 0;
        break;
    case AMQP_INT8:
        value->integer = (int8_t)amqp_read_u8(reader);
        break;
    case AMQP_UINT8:
        value->integer = amqp_read_u8(reader);
        break;
    case AMQP_INT16:
        value->integer = (int16_t)amqp_read_u16(reader);
        break;
    case AMQP_UINT16:
        value->integer = amqp_read_u16(reader);
        break;
    case AMQP_INT32:
        value->integer = (int32_t)amqp_read_u32(reader);
        break;
    case AMQP_UINT32:
        value->integer = amqp_read_u32(reader);
        break;
    case 'L': /* 2.8: as some clients spell it */
        value->type = AMQP_INT64;
        value->integer = (int64_t)amqp_read_u64(reader);
        break;
    case AMQP_INT64:
        value->integer = (int64_t)amqp_read_u64(reader);
        break;
    case AMQP_FLOAT: {
        uint32_t bits = amqp_read_u32(reader);
        float real;
        memcpy(&real, &bits, sizeof(real));
        value->real = real;
        break;
    }
    case AMQP_DOUBLE: {
        uint64_t bits = amqp_read_u64(reader);
        memcpy(&value->real, &bits, sizeof(value->real));
        break;
    }
    case AMQP_DECIMAL:
        value->decimal.scale = amqp_read_u8(reader);
        value->decimal.digits = amqp_read_u32(reader);
        break;
    case AMQP_TIMESTAMP:
        value->timestamp_s = amqp_read_u64(reader);
        break;
    case AMQP_STRING:
    case AMQP_BYTES:
    case AMQP_TABLE:
    case AMQP_ARRAY:
        value->bytes = amqp_read_longstr(reader);
        break;
    case AMQP_VOID:
        break;
    default:
        reader->bad = true;
    }
}

/* The size of a value behind its tag, and one more; 0 where there is no such tag. */
enum { SIZED = 0xFF }; /* as long as its first 32 bits say */
static const uint8_t value_sizes[256] = {
    [AMQP_VOID] = 1 + 0,      [AMQP_BOOL] = 1 + 1,    [AMQP_INT8] = 1 + 1,   [AMQP_UINT8] = 1 + 1,
    [AMQP_INT16] = 1 + 2,     [AMQP_UINT16] = 1 + 2,  [AMQP_INT32] = 1 + 4,  [AMQP_UINT32] = 1 + 4,
    [AMQP_FLOAT] = 1 + 4,     [AMQP_DECIMAL] = 1 + 5, [AMQP_INT64] = 1 + 8,  ['L'] = 1 + 8,
    [AMQP_TIMESTAMP] = 1 + 8, [AMQP_DOUBLE] = 1 + 8,  [AMQP_STRING] = SIZED, [AMQP_BYTES] = SIZED,
    [AMQP_TABLE] = SIZED,     [AMQP_ARRAY] = SIZED,
};

bool amqp_table_check(struct slice table)
{
    struct {
        const uint8_t *end;
        bool keyed;
    } outer[AMQP_TABLE_DEPTH_MAX - 1]; /* the levels around the one that is being read */
    size_t depth = 0;
    struct amqp_reader reader = amqp_reader_of(table);
    bool keyed = true; /* entries of a table, not elements of an array */

    for (;;) {
        if (reader.next == reader.end) {
            if (depth == 0)
                return true;
            depth--;
            reader.end = outer[depth].end;
            keyed = outer[depth].keyed;
            continue;
        }

        if (keyed)
            amqp_read_shortstr(&reader);
        uint8_t type = amqp_read_u8(&reader);
        uint8_t size = value_sizes[type];
        if (size == 0)
            return false;
        struct slice content =
            size == SIZED ? amqp_read_longstr(&reader) : amqp_read_bytes(&reader, size - 1);
        if (reader.bad)
            return false;
        if (type == AMQP_TABLE || type == AMQP_ARRAY) {
            if (depth == countof(outer))
                return false;
            outer[depth].end = reader.end;
            outer[depth].keyed = keyed;
            depth++;
            reader = amqp_reader_of(content);
            keyed = type == AMQP_TABLE;
        }
    }
}

bool amqp_table_next(struct amqp_table_iter *iter, struct slice *key, struct amqp_value *value)
{
    if (iter->reader.bad || iter->reader.next == iter->reader.end)
        return false;
    *key = amqp_read_shortstr(&iter->reader);
    read_value(&iter->reader, value);
    return !iter->reader.bad;
}

bool amqp_array_next(struct amqp_table_iter *iter, struct amqp_value *value)
{
    if (iter->reader.bad || iter->reader.next == iter->reader.end)
        return false;
    read_value(&iter->reader, value);
    return !iter->reader.bad;
}

bool amqp_table_find(struct slice table, struct slice key, struct amqp_value *value)
{
    struct amqp_table_iter iter = amqp_table_walk(table);
    struct slice name;

    while (amqp_table_next(&iter, &name, value))
        if (slice_equal(name, key))
            return true;
    return false;
}

bool amqp_value_integer(const struct amqp_value *value, int64_t *integer)
{
    switch (value->type) {
    case AMQP_INT8:
    case AMQP_UINT8:
    case AMQP_INT16:
    case AMQP_UINT16:
    case AMQP_INT32:
    case AMQP_UINT32:
    case AMQP_INT64:
        *integer = value->integer;
        return true;
    default:
        return false;
    }
}

bool amqp_value_string(const struct amqp_value *value, struct slice *string)
{
    if (value->type != AMQP_STRING && value->type != AMQP_BYTES)
        return false;
    *string = value->bytes;
    return true;
}

/* A number of any type. A whole one is its two's complement in 64 bits and whether it is below
 * zero, so that both int64 and a timestamp above INT64_MAX fit. */
struct number {
    bool is_whole, is_negative;
    uint64_t whole;
    double real;
};

static bool number_of(const struct amqp_value *value, struct number *number)
{
    int64_t integer;

    if (amqp_value_integer(value, &integer)) {
        *number = (struct number){true, integer < 0, (uint64_t)integer, 0};
        return true;
    }
    if (value->type == AMQP_TIMESTAMP) {
        *number = (struct number){true, false, value->timestamp_s, 0};
        return true;
    }
    if (value->type == AMQP_FLOAT || value->type == AMQP_DOUBLE) {
        *number = (struct number){false, false, 0, value->real};
        return true;
    }
    return false;
}

static bool whole_equals_real(const struct number *whole, double real)
{
    if (whole->is_negative)
        return real >= -0x1p63 && real < 0 && (double)(int64_t)real == real &&
               (int64_t)real == (int64_t)whole->whole;
    return real >= 0 && real < 0x1p64 && (double)(uint64_t)real == real &&
           (uint64_t)real == whole->whole;
}

static bool number_equal(const struct number *a, const struct number *b)
{
    if (a->is_whole && b->is_whole)
        return a->is_negative == b->is_negative && a->whole == b->whole;
    if (a->is_whole)
        return whole_equals_real(a, b->real);
    if (b->is_whole)
        return whole_equals_real(b, a->real);
    return a->real == b->real;
}

bool amqp_value_equal(const struct amqp_value *a, const struct amqp_value *b)
{
    struct number a_number, b_number;
    if (number_of(a, &a_number))
        return number_of(b, &b_number) && number_equal(&a_number, &b_number);

    struct slice a_string, b_string;
    if (amqp_value_string(a, &a_string))
        return amqp_value_string(b, &b_string) && slice_equal(a_string, b_string);

    if (a->type != b->type)
        return false;
    switch (a->type) {
    case AMQP_BOOL:
        return a->boolean == b->boolean;
    case AMQP_DECIMAL:
        return a->decimal.scale == b->decimal.scale && a->decimal.digits == b->decimal.digits;
    case AMQP_TABLE:
    case AMQP_ARRAY:
        return slice_equal(a->bytes, b->bytes);
    case AMQP_VOID:
        return true;
    default:
        assert(!"a value of no type");
        return false;
    }
}

static struct slice entry_key(const struct slice *entry)
{
    return slice_of(entry->data + 1, entry->data[0]);
}

/* By key; of the same key the one that came first. */
static int entry_compare(const void *a, const void *b)
{
    const struct slice *left = a, *right = b;
    int order = slice_compare(entry_key(left), entry_key(right));
    if (order != 0)
        return order;
    return left->data < right->data ? -1 : left->data > right->data;
}

void amqp_table_sort(struct buf *out, struct slice table)
{
    struct slice key;
    struct amqp_value value;
    size_t count = 0;

    struct amqp_table_iter iter = amqp_table_walk(table);
    while (amqp_table_next(&iter, &key, &value))
        count++;
    if (count == 0)
        return;

    struct slice *entries = xmalloc(size_mul(count, sizeof(*entries)));
    iter = amqp_table_walk(table);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *begin = iter.reader.next;
        amqp_table_next(&iter, &key, &value);
        entries[i] = slice_of(begin, (size_t)(iter.reader.next - begin));
    }
    qsort(entries, count, sizeof(*entries), entry_compare);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || !slice_equal(entry_key(&entries[i - 1]), entry_key(&entries[i])))
            buf_append(out, entries[i]);
    free(entries);
}

bool amqp_table_equal(struct slice a, struct slice b)
{
    if (slice_equal(a, b))
        return true;

    struct buf a_sorted = BUF_EMPTY, b_sorted = BUF_EMPTY;
    amqp_table_sort(&a_sorted, a);
    amqp_table_sort(&b_sorted, b);
    bool equal = slice_equal(buf_slice(&a_sorted), buf_slice(&b_sorted));
    buf_release(&a_sorted);
    buf_release(&b_sorted);
    return equal;
}

void amqp_array_put(struct buf *out, const struct amqp_value *value)
{
    amqp_write_u8(out, value->type);
    switch (value->type) {
    case AMQP_BOOL:
        amqp_write_u8(out, value->boolean);
        break;
    case AMQP_INT8:
    case AMQP_UINT8:
        amqp_write_u8(out, (uint8_t)value->integer);
        break;
    case AMQP_INT16:
    case AMQP_UINT16:
        amqp_write_u16(out, (uint16_t)value->integer);
        break;
    case AMQP_INT32:
    case AMQP_UINT32:
        amqp_write_u32(out, (uint32_t)value->integer);
        break;
    case AMQP_INT64:
        amqp_write_u64(out, (uint64_t)value->integer);
        break;
    case AMQP_FLOAT: {
        float real = (float)value->real;
        uint32_t bits;
        memcpy(&bits, &real, sizeof(bits));
        amqp_write_u32(out, bits);
        break;
    }
    case AMQP_DOUBLE: {
        uint64_t bits;
        memcpy(&bits, &value->real, sizeof(bits));
        amqp_write_u64(out, bits);
        break;
    }
    case AMQP_DECIMAL:
        amqp_write_u8(out, value->decimal.scale);
        amqp_write_u32(out, value->decimal.digits);
        break;
    case AMQP_TIMESTAMP:
        amqp_write_u64(out, value->timestamp_s);
        break;
    case AMQP_STRING:
    case AMQP_BYTES:
    case AMQP_TABLE:
    case AMQP_ARRAY:
        amqp_write_longstr(out, value->bytes);
        break;
    case AMQP_VOID:
        break;
    default:
        assert(!"a value of no type");
    }
}

void amqp_array_put_string(struct buf *out, struct slice string)
{
    amqp_array_put(out, &(struct amqp_value){.type = AMQP_STRING, .bytes = string});
}

void amqp_table_put(struct buf *out, struct slice key, const struct amqp_value *value)
{
    amqp_write_shortstr(out, key);
    amqp_array_put(out, value);
}

void amqp_table_put_string(struct buf *out, struct slice key, struct slice string)
{
    amqp_table_put(out, key, &(struct amqp_value){.type = AMQP_STRING, .bytes = string});
}

void amqp_table_put_bool(struct buf *out, struct slice key, bool boolean)
{
    amqp_table_put(out, key, &(struct amqp_value){.type = AMQP_BOOL, .boolean = boolean});
}

void amqp_table_put_u32(struct buf *out, struct slice key, uint32_t integer)
{
    amqp_table_put(out, key, &(struct amqp_value){.type = AMQP_UINT32, .integer = integer});
}

void amqp_table_put_i64(struct buf *out, struct slice key, int64_t integer)
{
    amqp_table_put(out, key, &(struct amqp_value){.type = AMQP_INT64, .integer = integer});
}

void amqp_table_put_timestamp(struct buf *out, struct slice key, uint64_t timestamp_s)
{
    amqp_table_put(out, key,
                   &(struct amqp_value){.type = AMQP_TIMESTAMP, .timestamp_s = timestamp_s});
}

/* The tag and a size that amqp_table_end will know; returns where the content begins. */
static size_t begin(struct buf *out, enum amqp_value_type type)
{
    amqp_write_u8(out, (uint8_t)type);
    amqp_write_u32(out, 0);
    return buf_size(out);
}

size_t amqp_array_begin_table(struct buf *out)
{
    return begin(out, AMQP_TABLE);
}

size_t amqp_array_begin_array(struct buf *out)
{
    return begin(out, AMQP_ARRAY);
}

size_t amqp_table_begin_table(struct buf *out, struct slice key)
{
    amqp_write_shortstr(out, key);
    return begin(out, AMQP_TABLE);
}

size_t amqp_table_begin_array(struct buf *out, struct slice key)
{
    amqp_write_shortstr(out, key);
    return begin(out, AMQP_ARRAY);
}

void amqp_table_end(struct buf *out, size_t content)
{
    assert(content >= sizeof(uint32_t) && content <= buf_size(out));
    size_t size = buf_size(out) - content;
    assert(size <= UINT32_MAX);
    amqp_put_u32(out->data + out->begin + content - sizeof(uint32_t), (uint32_t)size);
}
