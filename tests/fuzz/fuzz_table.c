/* Field tables: whatever passes the check can be walked to its end, looked up, compared and sorted;
 * sorting twice changes nothing; and what does not pass stops a walk without harm. */
#include "amqp/table.h"
#include "tests/fuzz/fuzz.h"

static size_t walk(struct slice table, bool checked)
{
    struct amqp_table_iter iter = amqp_table_walk(table);
    struct amqp_value value, found;
    struct slice key, text;
    int64_t integer;
    size_t count = 0;

    for (; amqp_table_next(&iter, &key, &value); count++) {
        if (checked)
            must(amqp_table_find(table, key, &found));
        if (checked)
            must(amqp_value_equal(&value, &value) || value.type == AMQP_FLOAT ||
                 value.type == AMQP_DOUBLE); /* not a number is not equal to itself */
        amqp_value_integer(&value, &integer);
        amqp_value_string(&value, &text);
        if (value.type == AMQP_ARRAY) {
            struct amqp_table_iter inner = amqp_table_walk(value.bytes);
            struct amqp_value element;
            while (amqp_array_next(&inner, &element))
                amqp_value_equal(&element, &value);
        }
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct slice table = slice_of(data, size);
    struct buf sorted = BUF_EMPTY, twice = BUF_EMPTY;

    if (!amqp_table_check(table)) {
        walk(table, false);
        return 0;
    }
    const size_t count = walk(table, true);
    amqp_table_sort(&sorted, table);
    must(amqp_table_check(buf_slice(&sorted)));
    must(walk(buf_slice(&sorted), true) <= count);
    must(amqp_table_equal(table, buf_slice(&sorted)));
    amqp_table_sort(&twice, buf_slice(&sorted));
    must(slice_equal(buf_slice(&sorted), buf_slice(&twice)));
    buf_release(&sorted);
    buf_release(&twice);
    return 0;
}
