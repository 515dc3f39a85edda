/* slice: comparing, converting, and what a hash for peers' keys must keep to. */
#include "base/slice.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/random.h"
#include "tests/lib/unit.h"

START_TEST(compares)
{
    static const struct {
        const char *a, *b;
        int order;
        bool starts; /* a with b */
    } cases[] = {
        {"", "", 0, true},           {"a", "", 1, true},      {"", "a", -1, false},
        {"a", "b", -1, false},       {"ab", "a", 1, true},    {"ab", "ab", 0, true},
        {"a", "ab", -1, false},      {"\xff", "a", 1, false}, {"queue", "que", 1, true},
        {"queue", "quf", -1, false},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        const struct slice a = slice_of_string(cases[i].a), b = slice_of_string(cases[i].b);
        const int order = slice_compare(a, b);
        ck_assert_int_eq((order > 0) - (order < 0), cases[i].order);
        ck_assert_int_eq(slice_equal(a, b), cases[i].order == 0);
        ck_assert_int_eq(slice_starts_with(a, b), cases[i].starts);
    }
    ck_assert(slice_equal((struct slice){0}, SLICE("")));
    ck_assert_int_eq(slice_compare((struct slice){0}, SLICE("")), 0);
    ck_assert(slice_starts_with((struct slice){0}, (struct slice){0}));
}
END_TEST

START_TEST(tells_apart_any_single_byte)
{
    uint8_t a[70], b[70];
    memset(a, 'x', sizeof a);
    memset(b, 'x', sizeof b);
    for (size_t size = 1; size <= sizeof a; size++) {
        for (size_t at = 0; at < size; at++) {
            b[at] ^= 1;
            ck_assert(!slice_equal(slice_of(a, size), slice_of(b, size)));
            ck_assert_uint_ne(slice_hash(slice_of(a, size)), slice_hash(slice_of(b, size)));
            b[at] ^= 1;
        }
        ck_assert(slice_equal(slice_of(a, size), slice_of(b, size)));
        ck_assert_uint_eq(slice_hash(slice_of(a, size)), slice_hash(slice_of(b, size)));
        ck_assert_uint_ne(slice_hash(slice_of(a, size)), slice_hash(slice_of(a, size - 1)));
    }
}
END_TEST

START_TEST(copies_to_a_string)
{
    char *string = slice_to_string(slice_of("queue", 3));
    char *empty = slice_to_string((struct slice){0});
    ck_assert_str_eq(string, "que");
    ck_assert_str_eq(empty, "");
    free(string);
    free(empty);
}
END_TEST

START_TEST(reads_numbers)
{
    static const struct {
        const char *text;
        uint64_t max, value;
        bool ok;
    } cases[] = {
        {"0", 0, 0, true},
        {"1", 0, 0, false},
        {"007", 7, 7, true},
        {"65535", 65535, 65535, true},
        {"65536", 65535, 0, false},
        {"18446744073709551615", UINT64_MAX, UINT64_MAX, true},
        {"18446744073709551616", UINT64_MAX, 0, false},
        {"99999999999999999999999", UINT64_MAX, 0, false},
        {"", 10, 0, false},
        {"-1", 10, 0, false},
        {"+1", 10, 0, false},
        {" 1", 10, 0, false},
        {"1 ", 10, 0, false},
        {"1x", 100, 0, false},
        {"/", 100, 0, false},
        {":", 100, 0, false},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        uint64_t value = 0;
        const bool ok = slice_to_u64(slice_of_string(cases[i].text), cases[i].max, &value);
        ck_assert_msg(ok == cases[i].ok, "\"%s\"", cases[i].text);
        if (ok)
            ck_assert_uint_eq(value, cases[i].value);
    }
}
END_TEST

/* Every size, ending at a page that cannot be read and beginning after one. */
START_TEST(hash_reads_nothing_beyond)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(pages, MAP_FAILED);
    ck_assert_int_eq(mprotect(pages + page, page, PROT_READ | PROT_WRITE), 0);
    memset(pages + page, 'k', page);
    for (size_t size = 0; size <= 300; size++) {
        const struct slice at_end = slice_of(pages + 2 * page - size, size);
        const struct slice at_begin = slice_of(pages + page, size);
        ck_assert_uint_eq(slice_hash(at_end), slice_hash(at_begin));
    }
    munmap(pages, 3 * page);
}
END_TEST

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* 200,000 names of the kinds that people use: in 64 bits no two are to be expected to meet. */
START_TEST(hash_keeps_names_apart)
{
    static const char *const forms[] = {"q%d", "queue-%d", "orders.eu.%d", "amq.gen-%08d-abcdefgh",
                                        "a.rather.long.routing.key.with.number.%d.in.the.middle"};
    enum { PER_FORM = 40000 };
    static uint64_t hashes[countof(forms) * PER_FORM];
    static uint32_t top_bits[1024]; /* what the map's buckets come from */
    for (size_t i = 0; i < countof(hashes); i++) {
        char name[80];
        snprintf(name, sizeof name, "%d %s", (int)(i % PER_FORM), forms[i / PER_FORM]);
        hashes[i] = slice_hash(slice_of_string(name));
        top_bits[hashes[i] >> 54]++;
    }
    qsort(hashes, countof(hashes), sizeof hashes[0], compare_u64);
    size_t collisions = 0;
    for (size_t i = 1; i < countof(hashes); i++)
        collisions += hashes[i - 1] == hashes[i];
    ck_assert_uint_eq(collisions, 0);
    for (size_t i = 0; i < countof(top_bits); i++) { /* 195 each on average, deviation 14 */
        ck_assert_uint_gt(top_bits[i], 110);
        ck_assert_uint_lt(top_bits[i], 280);
    }
}
END_TEST

/* Flipping a bit of the key flips each bit of the hash about every other time. */
START_TEST(hash_spreads_every_bit)
{
    struct random random;
    random_init_seeded(&random, 1);
    static const size_t sizes[] = {1, 3, 4, 7, 8, 12, 16, 17, 32, 40};
    enum { ROUNDS = 400 };
    for (size_t i = 0; i < countof(sizes); i++) {
        uint32_t flips[64] = {0}, trials = 0;
        for (int round = 0; round < ROUNDS; round++) {
            uint8_t key[40];
            random_bytes(&random, key, sizeof key);
            const uint64_t before = slice_hash(slice_of(key, sizes[i]));
            const uint64_t bit = random_below(&random, sizes[i] * 8);
            key[bit / 8] ^= (uint8_t)(1 << bit % 8);
            const uint64_t changed = before ^ slice_hash(slice_of(key, sizes[i]));
            for (int j = 0; j < 64; j++)
                flips[j] += changed >> j & 1;
            trials++;
        }
        for (int j = 0; j < 64; j++) { /* six deviations of ten */
            ck_assert_uint_gt(flips[j], trials / 2 - 60);
            ck_assert_uint_lt(flips[j], trials / 2 + 60);
        }
    }
}
END_TEST

START_TEST(hash_depends_on_the_seed)
{
    const struct slice key = SLICE("my-queue");
    slice_hash_seed(1);
    const uint64_t one = slice_hash(key);
    slice_hash_seed(2);
    const uint64_t two = slice_hash(key);
    slice_hash_seed(1);
    ck_assert_uint_ne(one, two);
    ck_assert_uint_eq(one, slice_hash(key));
}
END_TEST

/* Choices that were made with it must hold for ever. */
START_TEST(stable_hash_never_changes)
{
    slice_hash_seed(1);
    ck_assert_uint_eq(slice_hash_stable(SLICE("")), 0xf52a15e9a9b5e89b);
    ck_assert_uint_eq(slice_hash_stable(SLICE("my-queue")), 0x263fb1ffa3f1ae0d);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slice");
    TCase *tests = tcase_create("slice");
    tcase_add_test(tests, compares);
    tcase_add_test(tests, tells_apart_any_single_byte);
    tcase_add_test(tests, copies_to_a_string);
    tcase_add_test(tests, reads_numbers);
    tcase_add_test(tests, hash_reads_nothing_beyond);
    tcase_add_test(tests, hash_keeps_names_apart);
    tcase_add_test(tests, hash_spreads_every_bit);
    tcase_add_test(tests, hash_depends_on_the_seed);
    tcase_add_test(tests, stable_hash_never_changes);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
