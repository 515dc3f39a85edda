#include "base/pool.h"

#include "tests/lib/unit.h"

static size_t kept(const struct pool *pool)
{
    size_t bytes = 0;

    for (size_t i = 0; i < POOL_CLASSES; i++)
        bytes += pool->classes[i].bytes;
    return bytes;
}

/* What was freed serves the next of its class, and of no other. */
START_TEST(blocks_serve_again_by_class)
{
    static const struct {
        size_t freed, asked;
        bool same;
    } cases[] = {
        {1, 64, true},       {64, 1, true},       {64, 65, false},    {65, 128, true},
        {128, 64, false},    {961, 1024, true},   {1024, 1023, true}, {1024, 960, false},
        {1025, 1024, false}, {1024, 1025, false},
    };

    for (size_t i = 0; i < countof(cases); i++) {
        struct pool pool = {0};
        void *first = pool_alloc(&pool, cases[i].freed);
        memset(first, 0xAA, cases[i].freed);
        void *other = xmalloc(cases[i].freed); /* malloc has nothing of this size at hand */
        pool_free(&pool, first, cases[i].freed);
        const size_t before = kept(&pool);
        void *second = pool_alloc(&pool, cases[i].asked);
        memset(second, 0xBB, cases[i].asked);
        ck_assert_msg((kept(&pool) < before) == (cases[i].same && POOL_KEEPS), "%zu, then %zu",
                      cases[i].freed, cases[i].asked);
        if (POOL_KEEPS && cases[i].same)
            ck_assert_ptr_eq(first, second);
        pool_free(&pool, second, cases[i].asked);
        pool_release(&pool);
        ck_assert_uint_eq(0, kept(&pool));
        free(other);
    }
}
END_TEST

/* However many are freed, a class keeps its share and no more. */
START_TEST(a_class_keeps_no_more_than_its_share)
{
    enum { SIZE = 1000, COUNT = 2 * POOL_CLASS_BYTES / 1024 };
    struct pool pool = {0};
    void *blocks[COUNT];

    for (size_t i = 0; i < COUNT; i++)
        blocks[i] = pool_alloc(&pool, SIZE);
    for (size_t i = 0; i < COUNT; i++)
        pool_free(&pool, blocks[i], SIZE);
    ck_assert_uint_eq(POOL_KEEPS ? POOL_CLASS_BYTES : 0, kept(&pool));
    pool_release(&pool);
}
END_TEST

/* Blocks handed out together never overlap: each keeps what was written to it. */
START_TEST(blocks_are_apart)
{
    enum { COUNT = 500 };
    struct pool pool = {0};
    uint8_t *blocks[COUNT];

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            blocks[i] = pool_alloc(&pool, 1 + i * 3);
            memset(blocks[i], (int)(i & 0xFF), 1 + i * 3);
        }
        for (size_t i = 0; i < COUNT; i++) {
            for (size_t at = 0; at < 1 + i * 3; at++)
                ck_assert_uint_eq(i & 0xFF, blocks[i][at]);
            pool_free(&pool, blocks[i], 1 + i * 3);
        }
    }
    pool_release(&pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *tests = tcase_create("pool");
    tcase_add_test(tests, blocks_serve_again_by_class);
    tcase_add_test(tests, a_class_keeps_no_more_than_its_share);
    tcase_add_test(tests, blocks_are_apart);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
