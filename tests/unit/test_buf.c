/* buf: appended bytes come out in order, whatever the pieces, and room is found without waste. */
#include "base/buf.h"

#include "base/random.h"
#include "tests/lib/unit.h"

START_TEST(starts_empty)
{
    struct buf buf = BUF_EMPTY;
    ck_assert_uint_eq(buf_size(&buf), 0);
    buf_append(&buf, (struct slice){0});
    buf_consume(&buf, 0);
    buf_shrink(&buf, 0);
    ck_assert_ptr_null(buf.data);
    ck_assert_ptr_nonnull(buf_reserve(&buf, 0));
    buf_release(&buf);
    buf_release(&buf);
    ck_assert_ptr_null(buf.data);
}
END_TEST

START_TEST(counts_only_what_is_committed)
{
    struct buf buf = BUF_EMPTY;
    memcpy(buf_reserve(&buf, 100), "abcdef", 6);
    ck_assert_uint_eq(buf_size(&buf), 0);
    buf_commit(&buf, 6);
    ck_assert(slice_equal(buf_slice(&buf), SLICE("abcdef")));
    buf_consume(&buf, 4);
    ck_assert(slice_equal(buf_slice(&buf), SLICE("ef")));
    buf_clear(&buf);
    ck_assert_uint_eq(buf_size(&buf), 0);
    buf_release(&buf);
}
END_TEST

START_TEST(prints)
{
    struct buf buf = BUF_EMPTY;
    for (int i = 0; i < 300; i++) { /* every fit: roomy, exact, one short */
        buf_printf(&buf, "%d,", i);
        buf_printf(&buf, "%s", "");
    }
    const struct slice all = buf_slice(&buf);
    ck_assert(slice_starts_with(all, SLICE("0,1,2,3,")));
    ck_assert(slice_equal(slice_of(all.data + all.size - 8, 8), SLICE("298,299,")));
    ck_assert_uint_eq(all.size, 10 * 2 + 90 * 3 + 200 * 4);
    buf_clear(&buf);
    buf_printf(&buf, "%5000d", 7);
    ck_assert_uint_eq(buf_size(&buf), 5000);
    buf_release(&buf);
}
END_TEST

/* The stream 0, 1, 2, ... 255, 0, ... goes in and comes out in pieces of any size. */
START_TEST(is_a_stream)
{
    struct random random;
    struct buf buf = BUF_EMPTY;
    uint64_t written = 0, read = 0, wrong = 0;
    random_init_seeded(&random, (uint64_t)_i);
    for (int round = 0; round < 20000; round++) {
        const size_t size = random_below(&random, round % 100 == 0 ? 5000 : 50);
        uint8_t *room = buf_reserve(&buf, size);
        for (size_t i = 0; i < size; i++)
            room[i] = (uint8_t)written++;
        buf_commit(&buf, size);

        const struct slice unread = buf_slice(&buf);
        ck_assert_uint_eq(unread.size, written - read);
        const size_t taken = random_below(&random, min_of(unread.size, 60) + 1);
        for (size_t i = 0; i < taken; i++)
            wrong += unread.data[i] != (uint8_t)read++;
        buf_consume(&buf, taken);
        if (round % 1000 == 999) {
            for (size_t i = taken; i < unread.size; i++)
                wrong += unread.data[i] != (uint8_t)read++;
            buf_clear(&buf);
        }
    }
    ck_assert_uint_eq(wrong, 0);
    buf_release(&buf);
}
END_TEST

START_TEST(does_not_grow_when_drained)
{
    struct buf buf = BUF_EMPTY;
    buf_append(&buf, SLICE("0123456789"));
    for (int i = 0; i < 100000; i++) {
        buf_append(&buf, SLICE("0123456789"));
        buf_consume(&buf, 10);
    }
    ck_assert_uint_le(buf.capacity, 64);
    ck_assert(slice_equal(buf_slice(&buf), SLICE("0123456789")));
    buf_release(&buf);
}
END_TEST

START_TEST(shrinks_only_when_empty)
{
    struct buf buf = BUF_EMPTY;
    buf_commit(&buf, (memset(buf_reserve(&buf, 100000), 'x', 100000), 100000));
    buf_shrink(&buf, 4096);
    ck_assert_uint_eq(buf_size(&buf), 100000);
    buf_consume(&buf, 100000);
    buf_shrink(&buf, 4096);
    ck_assert_uint_eq(buf.capacity, 4096);
    ck_assert_ptr_nonnull(buf.data);
    buf_shrink(&buf, 0);
    ck_assert_ptr_null(buf.data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("buf");
    TCase *tests = tcase_create("buf");
    tcase_add_test(tests, starts_empty);
    tcase_add_test(tests, counts_only_what_is_committed);
    tcase_add_test(tests, prints);
    tcase_add_loop_test(tests, is_a_stream, 0, 4);
    tcase_add_test(tests, does_not_grow_when_drained);
    tcase_add_test(tests, shrinks_only_when_empty);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
