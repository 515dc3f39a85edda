/* Field tables and arrays (2.8): check, walk, look up, compare, sort, build. A table travels as its
 * entries, without the 32 bit size in front of them.
 *
 *     table: ( key size 8 | key | value )*         array: ( value )*         value: tag 8 | as the tag says
 *
 * Nothing here recurses: nesting is walked with an explicit stack of AMQP_TABLE_DEPTH_MAX ends.
 * Walking, looking up and comparing never allocate; they expect bytes that passed amqp_table_check,
 * and on others stop early. Where a key is there twice the first one counts (2.9). */
#ifndef AMQP_TABLE_H
#define AMQP_TABLE_H

#include "amqp/wire.h"

enum { AMQP_TABLE_DEPTH_MAX = 32 }; /* levels, the outermost included */

enum amqp_value_type { /* the tags of the wire, except AMQP_INT64 which is also written 'L' */
                       AMQP_BOOL = 't',
                       AMQP_INT8 = 'b',
                       AMQP_UINT8 = 'B',
                       AMQP_INT16 = 's',
                       AMQP_UINT16 = 'u',
                       AMQP_INT32 = 'I',
                       AMQP_UINT32 = 'i',
                       AMQP_INT64 = 'l',
                       AMQP_FLOAT = 'f',
                       AMQP_DOUBLE = 'd',
                       AMQP_DECIMAL = 'D',
                       AMQP_STRING = 'S',
                       AMQP_ARRAY = 'A',
                       AMQP_TIMESTAMP = 'T',
                       AMQP_TABLE = 'F',
                       AMQP_VOID = 'V',
                       AMQP_BYTES = 'x',
};

struct amqp_value {
    uint8_t type; /* enum amqp_value_type */
    union {
        bool boolean;
        int64_t integer; /* INT8 to INT64, signed or not */
        double real;     /* FLOAT, DOUBLE */
        struct {
            uint8_t scale;
            uint32_t digits;
        } decimal;
        uint64_t timestamp_s;
        struct slice bytes; /* STRING, BYTES; the content of TABLE, ARRAY */
    };
};

/* Whether table is well-formed through all its levels. */
bool amqp_table_check(struct slice table);

struct amqp_table_iter {
    struct amqp_reader reader;
};

static inline struct amqp_table_iter amqp_table_walk(struct slice table)
{
    return (struct amqp_table_iter){amqp_reader_of(table)};
}

/* The next entry of a table, the next element of an array; false after the last. */
bool amqp_table_next(struct amqp_table_iter *iter, struct slice *key, struct amqp_value *value);
bool amqp_array_next(struct amqp_table_iter *iter, struct amqp_value *value);

bool amqp_table_find(struct slice table, struct slice key, struct amqp_value *value);

/* Of any integer type, not of a timestamp; of STRING and BYTES alike. */
bool amqp_value_integer(const struct amqp_value *value, int64_t *integer);
bool amqp_value_string(const struct amqp_value *value, struct slice *string);

/* Equality as headers exchanges see it (7.13): numbers by value whatever their type and width,
 * timestamps among them; STRING and BYTES by octets. What is inside tables and arrays is compared
 * octet by octet. */
bool amqp_value_equal(const struct amqp_value *a, const struct amqp_value *b);

/* Appends table with its keys in order and each only once: the form in which equal argument tables
 * are equal octets (7.18), and in which a table is rebuilt (2.9). Types count; inner tables stay as
 * they are. */
void amqp_table_sort(struct buf *out, struct slice table);

/* The same entries in whatever order (7.18). */
bool amqp_table_equal(struct slice a, struct slice b);

/* Building: entries of a table are appended with amqp_table_put_..., elements of an array with
 * amqp_array_put_... Inner ones stand between begin and end; begin returns what end wants. Keys
 * have at most 255 octets. The outermost table is just the bytes that were appended.
 *
 *     size_t capabilities = amqp_table_begin_table(out, SLICE("capabilities"));
 *     amqp_table_put_bool(out, SLICE("basic.nack"), true);
 *     amqp_table_end(out, capabilities);
 * */
void amqp_table_put(struct buf *out, struct slice key, const struct amqp_value *value);
void amqp_table_put_string(struct buf *out, struct slice key, struct slice string);
void amqp_table_put_bool(struct buf *out, struct slice key, bool boolean);
void amqp_table_put_u32(struct buf *out, struct slice key, uint32_t integer);
void amqp_table_put_i64(struct buf *out, struct slice key, int64_t integer);
void amqp_table_put_timestamp(struct buf *out, struct slice key, uint64_t timestamp_s);
size_t amqp_table_begin_table(struct buf *out, struct slice key);
size_t amqp_table_begin_array(struct buf *out, struct slice key);

void amqp_array_put(struct buf *out, const struct amqp_value *value);
void amqp_array_put_string(struct buf *out, struct slice string);
size_t amqp_array_begin_table(struct buf *out);
size_t amqp_array_begin_array(struct buf *out);

void amqp_table_end(struct buf *out, size_t begin); /* of a table or an array */

#endif
