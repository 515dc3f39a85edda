/* map: the same answers as a plain array gives, whatever the order of operations and however far a
 * growth has come. */
#include "base/map.h"

#include "base/alloc.h"
#include "base/random.h"
#include "tests/lib/unit.h"

struct object {
    struct map_link link;
    char name[24];
    uint64_t id;
    bool linked, seen;
};

static struct object *object_of(struct map_link *link)
{
    return link == NULL ? NULL : container_of(link, struct object, link);
}

static void insert(struct map *map, struct object *object, bool by_id)
{
    if (by_id)
        map_insert_id(map, &object->link, object->id);
    else
        map_insert(map, &object->link, slice_of_string(object->name));
    object->linked = true;
}

static struct object *find(const struct map *map, const struct object *like, bool by_id)
{
    return object_of(by_id ? map_find_id(map, like->id)
                           : map_find(map, slice_of_string(like->name)));
}

/* Every object is found exactly when it is linked, and a walk meets each linked one once. */
static void check_against(const struct map *map, struct object *objects, size_t count, bool by_id)
{
    size_t linked = 0, met = 0, wrong = 0;
    for (size_t i = 0; i < count; i++) {
        wrong += find(map, &objects[i], by_id) != (objects[i].linked ? &objects[i] : NULL);
        linked += objects[i].linked;
        objects[i].seen = false;
    }
    map_each (map, link) {
        struct object *object = object_of(link);
        wrong += !object->linked || object->seen;
        object->seen = true;
        met++;
    }
    ck_assert_uint_eq(wrong, 0);
    ck_assert_uint_eq(met, linked);
    ck_assert_uint_eq(map->count, linked);
}

static void remove_while_walking(struct map *map, struct random *random)
{
    struct map_link *next;
    for (struct map_link *link = map_next(map, NULL); link != NULL; link = next) {
        next = map_next(map, link);
        if (random_below(random, 3) == 0) {
            object_of(link)->linked = false;
            map_remove(map, link);
        }
    }
}

/* Phases that mostly insert and phases that mostly remove, so that the map grows through several
 * tables and empties. */
static void run_model(uint64_t seed, bool by_id)
{
    enum { OBJECTS = 1500, STEPS = 20000 };
    struct random random;
    struct map map = MAP_EMPTY;
    struct object *objects = xcalloc(OBJECTS, sizeof *objects);
    random_init_seeded(&random, seed);
    for (size_t i = 0; i < OBJECTS; i++) {
        objects[i].id = seed % 2 == 0 ? i : i << 40;
        snprintf(objects[i].name, sizeof objects[i].name, "%.*s%zu", (int)(i % 16),
                 "queue-queue-queue", i);
    }

    for (int step = 0; step < STEPS; step++) {
        const bool growing = step / 4000 % 2 == 0;
        struct object *object = &objects[random_below(&random, OBJECTS)];
        ck_assert_ptr_eq(find(&map, object, by_id), object->linked ? object : NULL);
        if (!object->linked && random_below(&random, 4) < (growing ? 3 : 1)) {
            insert(&map, object, by_id);
        } else if (object->linked && random_below(&random, 4) < (growing ? 1 : 4)) {
            map_remove(&map, &object->link);
            object->linked = false;
        }
        if (step % 97 == 0)
            check_against(&map, objects, OBJECTS, by_id);
        if (step % 3989 == 0)
            remove_while_walking(&map, &random);
    }
    check_against(&map, objects, OBJECTS, by_id);
    map_release(&map);
    free(objects);
}

START_TEST(is_like_an_array_by_key)
{
    run_model((uint64_t)_i, false);
}
END_TEST

START_TEST(is_like_an_array_by_id)
{
    run_model((uint64_t)_i, true);
}
END_TEST

/* Checked after every single insert, so at every state of every growth. */
START_TEST(is_whole_at_every_step_of_growing)
{
    enum { OBJECTS = 300 };
    struct map map = MAP_EMPTY;
    static struct object objects[OBJECTS];
    for (size_t i = 0; i < OBJECTS; i++) {
        snprintf(objects[i].name, sizeof objects[i].name, "%zu", i);
        insert(&map, &objects[i], false);
        check_against(&map, objects, i + 1, false);
    }
    map_release(&map);
}
END_TEST

START_TEST(is_empty_at_first_and_last)
{
    struct map map = MAP_EMPTY;
    struct object object = {.name = "q"};
    ck_assert_ptr_null(map_find(&map, SLICE("q")));
    ck_assert_ptr_null(map_find_id(&map, 0));
    ck_assert_ptr_null(map_next(&map, NULL));
    insert(&map, &object, false);
    ck_assert_ptr_eq(map_next(&map, NULL), &object.link);
    ck_assert_ptr_null(map_next(&map, &object.link));
    map_remove(&map, &object.link);
    ck_assert_ptr_null(map_find(&map, SLICE("q")));
    ck_assert_ptr_null(map_next(&map, NULL));
    map_release(&map);
    map_release(&map);
}
END_TEST

START_TEST(keys_are_any_bytes)
{
    struct map map = MAP_EMPTY;
    uint8_t keys[300] = {0};
    static struct map_link links[300];
    for (size_t size = 0; size < countof(links); size++) /* zeros, told apart by size alone */
        map_insert(&map, &links[size], slice_of(size == 0 ? NULL : keys, size));
    for (size_t size = 0; size < countof(links); size++)
        ck_assert_ptr_eq(map_find(&map, slice_of(keys, size)), &links[size]);
    map_release(&map);
}
END_TEST

START_TEST(gives_memory_back_when_emptied)
{
    enum { OBJECTS = 1000 };
    struct map map = MAP_EMPTY;
    static struct map_link links[OBJECTS];
    for (uint64_t i = 0; i < OBJECTS; i++)
        map_insert_id(&map, &links[i], i);
    for (uint64_t i = 0; i < OBJECTS; i++)
        map_remove(&map, &links[i]);
    ck_assert_ptr_null(map.buckets);
    ck_assert_ptr_null(map.old_buckets);
    map_insert_id(&map, &links[0], 1);
    ck_assert_ptr_eq(map_find_id(&map, 1), &links[0]);
    map_release(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("map");
    TCase *tests = tcase_create("map");
    tcase_add_loop_test(tests, is_like_an_array_by_key, 0, 4);
    tcase_add_loop_test(tests, is_like_an_array_by_id, 0, 4);
    tcase_add_test(tests, is_whole_at_every_step_of_growing);
    tcase_add_test(tests, is_empty_at_first_and_last);
    tcase_add_test(tests, keys_are_any_bytes);
    tcase_add_test(tests, gives_memory_back_when_emptied);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
