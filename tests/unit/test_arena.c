/* arena: objects are aligned, apart from each other, and stay as they were until the end. */
#include "base/arena.h"

#include <stdalign.h>

#include "base/random.h"
#include "tests/lib/unit.h"

START_TEST(starts_empty)
{
    struct arena arena = ARENA_EMPTY;
    arena_release(&arena);
    ck_assert_ptr_nonnull(arena_alloc(&arena, 0));
    ck_assert_uint_eq(arena_copy(&arena, (struct slice){0}).size, 0);
    ck_assert_str_eq(arena_string(&arena, (struct slice){0}), "");
    arena_release(&arena);
    ck_assert_ptr_null(arena.blocks);
}
END_TEST

START_TEST(copies)
{
    struct arena arena = ARENA_EMPTY;
    char name[] = "a queue's name";
    const struct slice copy = arena_copy(&arena, slice_of_string(name));
    char *string = arena_string(&arena, slice_of(name, 7));
    memset(name, 'x', sizeof name);
    ck_assert(slice_equal(copy, SLICE("a queue's name")));
    ck_assert_str_eq(string, "a queue");
    arena_release(&arena);
}
END_TEST

/* Each object is filled with its own number; at the end all are still what they were. */
START_TEST(keeps_objects_apart)
{
    enum { OBJECTS = 3000 };
    static struct {
        uint8_t *bytes;
        size_t size;
    } objects[OBJECTS];
    struct random random;
    struct arena arena = ARENA_EMPTY;
    random_init_seeded(&random, (uint64_t)_i);

    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < OBJECTS; i++) {
            static const size_t limits[] = {16, 16, 100, 100, 1000, 20000};
            const size_t size = 1 + random_below(&random, limits[random_below(&random, 6)]);
            uint8_t *bytes = arena_alloc(&arena, size);
            if (i % 3 == 0) /* unaligned ones between */
                arena_string(&arena, SLICE("odd"));
            ck_assert_uint_eq((uintptr_t)bytes % alignof(max_align_t), 0);
            memset(bytes, (uint8_t)i, size);
            objects[i].bytes = bytes;
            objects[i].size = size;
        }
        size_t wrong = 0;
        for (size_t i = 0; i < OBJECTS; i++)
            for (size_t j = 0; j < objects[i].size; j++)
                wrong += objects[i].bytes[j] != (uint8_t)i;
        ck_assert_uint_eq(wrong, 0);
        arena_release(&arena);
    }
}
END_TEST

START_TEST(large_objects_do_not_waste_the_block)
{
    struct arena arena = ARENA_EMPTY;
    uint8_t *before = arena_alloc(&arena, 16);
    arena_alloc(&arena, 100000);
    ck_assert_ptr_eq(arena_alloc(&arena, 16), before + 16);
    arena_release(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arena");
    TCase *tests = tcase_create("arena");
    tcase_add_test(tests, starts_empty);
    tcase_add_test(tests, copies);
    tcase_add_loop_test(tests, keeps_objects_apart, 0, 4);
    tcase_add_test(tests, large_objects_do_not_waste_the_block);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
