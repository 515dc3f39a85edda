/* A heap against a plain array, by random steps; and that removing looks at few. */
#include "base/heap.h"

#include "base/random.h"
#include "tests/lib/unit.h"

enum { LINKS = 300 };

static struct heap heap;
static struct heap_link links[LINKS];
static bool is_linked[LINKS];

static size_t below(const struct heap_link *parent)
{
    const struct heap_link *back = parent;
    size_t count = 0;

    for (const struct heap_link *child = parent->child; child != NULL; child = child->next) {
        if (child->key > parent->key || child->back != back)
            ck_abort_msg("a link is out of place");
        back = child;
        count += 1 + below(child);
    }
    return count;
}

static void check(size_t count)
{
    int64_t highest = INT64_MIN;

    ck_assert_uint_eq(heap.top == NULL ? 0 : 1 + below(heap.top), count);
    for (size_t i = 0; i < LINKS; i++)
        if (is_linked[i])
            highest = max_of(highest, links[i].key);
    ck_assert(count == 0 || heap.top->key == highest);
}

START_TEST(random_steps)
{
    static const int64_t kinds[] = {INT64_MAX, 2, LINKS};
    const int64_t kind = kinds[_i % 3];
    struct random random;
    size_t count = 0;

    random_init_seeded(&random, (uint64_t)_i + 1);
    heap = (struct heap){0};
    memset(is_linked, 0, sizeof(is_linked));
    for (int step = 0; step < 3000; step++) {
        const bool shrinks = step / 500 % 2 == 1;
        size_t i = random_below(&random, LINKS);
        if (shrinks && random_below(&random, 2) == 0 && heap.top != NULL)
            i = (size_t)(heap.top - links);
        if (is_linked[i]) {
            heap_remove(&heap, &links[i]);
            is_linked[i] = false;
            count--;
        } else if (!shrinks || random_below(&random, 3) == 0) {
            const int64_t key =
                kind == INT64_MAX ? (int64_t)(random_below(&random, UINT64_MAX) ^ (uint64_t)1 << 63)
                                  : (int64_t)random_below(&random, (uint64_t)kind) - kind / 2;
            heap_insert(&heap, &links[i], key);
            is_linked[i] = true;
            count++;
        }
        if (step % 7 == 0)
            check(count);
    }
    while (heap.top != NULL) {
        const struct heap_link *top = heap.top;
        heap_remove(&heap, heap.top);
        ck_assert(heap.top == NULL || heap.top->key <= top->key);
        is_linked[top - links] = false;
        check(--count);
    }
    ck_assert_uint_eq(count, 0);
}
END_TEST

/* All are below the first; then each removal finds few there. */
START_TEST(removing_looks_at_few)
{
    enum { COUNT = 10000 };
    struct heap_link *many = calloc(COUNT, sizeof(*many));
    size_t children = 0;

    heap = (struct heap){0};
    for (size_t i = 0; i < COUNT; i++)
        heap_insert(&heap, &many[i], -(int64_t)(i * 7919 % COUNT));
    while (heap.top != NULL) {
        for (const struct heap_link *child = heap.top->child; child != NULL; child = child->next)
            children++;
        heap_remove(&heap, heap.top);
    }
    ck_assert_uint_lt(children, (size_t)COUNT * 14 * 2); /* 2 log2(COUNT) each */
    free(many);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("heap");
    TCase *tests = tcase_create("heap");
    tcase_add_loop_test(tests, random_steps, 0, 9);
    tcase_add_test(tests, removing_looks_at_few);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
