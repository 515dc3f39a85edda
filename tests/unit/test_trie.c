/* trie: the same answers as comparing every key for itself, in a number of steps that no keys can
 * multiply. */
#include "core/trie.h"

#include "base/alloc.h"
#include "base/random.h"
#include "tests/lib/unit.h"

enum { WORDS_MAX = 256 };

/* ---- the plain way ---- */

static size_t split(struct slice key, struct slice words[WORDS_MAX])
{
    size_t count = 0, begin = 0;

    if (key.size == 0)
        return 0;
    for (size_t i = 0; i <= key.size; i++)
        if (i == key.size || key.data[i] == '.') {
            words[count++] = slice_of(key.data + begin, i - begin);
            begin = i + 1;
        }
    return count;
}

/* matches[j]: the binding words so far match the first j routing words. */
static bool plainly_matches(struct slice binding_key, struct slice routing_key)
{
    static struct slice pattern[WORDS_MAX], words[WORDS_MAX];
    bool matches[WORDS_MAX + 1] = {true};
    const size_t pattern_count = split(binding_key, pattern), count = split(routing_key, words);

    for (size_t i = 0; i < pattern_count; i++) {
        const bool hash = slice_equal(pattern[i], SLICE("#"));
        const bool star = slice_equal(pattern[i], SLICE("*"));
        bool before = matches[0];
        matches[0] = hash && matches[0];
        for (size_t j = 1; j <= count; j++) {
            const bool old = matches[j];
            matches[j] = hash ? old || matches[j - 1]
                              : before && (star || slice_equal(pattern[i], words[j - 1]));
            before = old;
        }
    }
    return matches[count];
}

/* ---- a trie with bindings of given keys ---- */

static struct binding *add(struct trie *trie, struct slice key)
{
    struct buf identity = BUF_EMPTY;
    binding_write_identity(&identity, false, SLICE("q"), key, (struct slice){0});
    struct binding *binding = binding_new(buf_slice(&identity));
    buf_release(&identity);
    trie_add(trie, binding);
    return binding;
}

static void drop(struct trie *trie, struct binding **binding)
{
    trie_remove(trie, *binding);
    free(*binding);
    *binding = NULL;
}

static void count_bindings(void *context, const struct binding_list *bindings)
{
    struct binding *binding;

    TAILQ_FOREACH (binding, bindings, by_key) {
        binding->lsn++; /* here: how often it was met */
        ++*(size_t *)context;
    }
}

static size_t match(struct trie *trie, struct slice key, size_t *steps)
{
    size_t matched = 0;
    const size_t took = trie_match(trie, key, SIZE_MAX, count_bindings, &matched);

    if (steps != NULL)
        *steps = took;
    return matched;
}

/* ---- tests ---- */

static const struct example {
    const char *binding_key, *routing_key;
    bool matches;
} examples[] = {
    {"a.b", "a.b", true},
    {"a.b", "a", false},
    {"a.b", "a.b.c", false},
    {"*", "a", true},
    {"*", "", false},
    {"*", "a.b", false},
    {"*.*", ".", true},
    {"*", "*", true},
    {"a", "*", false},
    {"#", "", true},
    {"#", "a.b.c", true},
    {"#", "..", true},
    {"a.#", "a", true},
    {"a.#", "a.b.c", true},
    {"a.#", "b", false},
    {"#.a", "a", true},
    {"#.a", "b.c.a", true},
    {"#.a", "a.b", false},
    {"#.a.#", "a", true},
    {"#.a.#", "x.a.y", true},
    {"#.a.#", "x.y", false},
    {"*.#", "", false},
    {"*.#", "a", true},
    {"#.*", "a.b", true},
    {"#.*.#", "", false},
    {"", "", true},
    {"", "a", false},
    {"", ".", false},
    {".", ".", true},
    {".", "", false},
    {"a..b", "a..b", true},
    {"a..b", "a.b", false},
    {"a.*.b", "a..b", true},
    {"a.#.b", "a.b", true},
    {"a.#.b", "a.x.y.b", true},
    {"a.#.b", "a.x.y", false},
    {"#.#", "", true},
    {"#.#", "a", true},
    {"a*", "a*", true},
    {"a*", "ab", false},
    {"##", "##", true},
    {"##", "a", false},
    {"stock.*.usd", "stock.nyse.usd", true},
};

START_TEST(matches_by_word)
{
    const struct example *example = &examples[_i];
    const struct slice routing_key = slice_of_string(example->routing_key);
    struct trie *trie = trie_new();
    struct binding *binding = add(trie, slice_of_string(example->binding_key));

    ck_assert_msg(match(trie, routing_key, NULL) == example->matches, "'%s' and '%s'",
                  example->binding_key, example->routing_key);
    ck_assert(plainly_matches(binding->key, routing_key) == example->matches);
    drop(trie, &binding);
    ck_assert_uint_eq(match(trie, routing_key, NULL), 0);
    trie_free(&trie);
}
END_TEST

/* Up to seven words of few letters, wildcards among them or not. */
static struct slice random_key(struct random *random, bool wildcards, char room[64])
{
    static const char *const words[] = {"a", "b", "", "cc", "*", "#", "#"};
    const uint64_t count = random_below(random, 8);
    size_t size = 0;

    for (uint64_t i = 0; i < count; i++)
        size += (size_t)snprintf(room + size, 64 - size, "%s%s", i > 0 ? "." : "",
                                 words[random_below(random, wildcards ? countof(words) : 4)]);
    return slice_of(room, size);
}

/* Bindings come and go; whatever is there is met exactly once when it matches. */
START_TEST(agrees_with_the_plain_way)
{
    enum { BINDINGS = 300, ROUNDS = 1500 };
    static struct binding *bindings[BINDINGS];
    struct random random;
    struct trie *trie = trie_new();
    size_t wrong = 0;
    char room[64];

    random_init_seeded(&random, (uint64_t)_i);
    for (size_t round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 3; i++) {
            struct binding **slot = &bindings[random_below(&random, BINDINGS)];
            if (*slot != NULL)
                drop(trie, slot);
            else
                *slot = add(trie, random_key(&random, true, room));
        }
        const struct slice key = random_key(&random, false, room);
        match(trie, key, NULL);
        for (size_t i = 0; i < BINDINGS; i++)
            if (bindings[i] != NULL) {
                wrong += bindings[i]->lsn != plainly_matches(bindings[i]->key, key);
                bindings[i]->lsn = 0;
            }
    }
    ck_assert_uint_eq(wrong, 0);
    for (size_t i = 0; i < BINDINGS; i++)
        if (bindings[i] != NULL)
            drop(trie, &bindings[i]);
    trie_free(&trie);
}
END_TEST

/* count times the word, with dots between; at most 255 octets. */
static struct slice repeat(const char *word, size_t count, char room[256])
{
    size_t size = 0;

    for (size_t i = 0; i < count; i++)
        size += (size_t)snprintf(room + size, 256 - size, "%s%s", i > 0 ? "." : "", word);
    return slice_of(room, size);
}

static const struct hostile {
    const char *word; /* of the binding key, over and over */
    size_t count;
    const char *routing_word;
    size_t routing_count;
    bool matches;
} hostile[] = {
    {"#", 128, "a", 128, true},  {"#.a", 64, "a", 128, true},   {"#.a", 64, "a", 63, false},
    {"#.*", 64, "a", 128, true}, {"*.#", 64, "a", 63, false},   {"#.a.#.b", 32, "a", 128, false},
    {"a.#", 64, "a", 128, true}, {"*", 128, "a", 128, true},    {"", 256, "", 256, true},
    {"#.", 85, "", 256, true},   {"#.*.a", 42, "a", 128, true},
};

/* Each state at most once: the nodes of one key are its words and the root, the positions the
 * routing words and the end. */
START_TEST(never_takes_more_steps_than_states)
{
    const struct hostile *h = &hostile[_i];
    struct trie *trie = trie_new();
    char room[256];
    size_t steps;
    struct binding *binding = add(trie, repeat(h->word, h->count, room));
    static struct slice words[WORDS_MAX];
    const size_t nodes = split(binding->key, words) + 1;

    ck_assert(match(trie, repeat(h->routing_word, h->routing_count, room), &steps) == h->matches);
    ck_assert_uint_le(steps, nodes * (h->routing_count + 1));
    drop(trie, &binding);
    trie_free(&trie);
}
END_TEST

/* All keys of eight words that are each a, * or #: 3^8 of them share 9841 nodes. */
START_TEST(many_hashes_together_do_not_multiply) /* CVE-2026-67419 */
{
    enum { DEPTH = 8, KEYS = 6561, NODES = 9841, ROUTING_WORDS = 100 };
    static struct binding *bindings[KEYS];
    struct trie *trie = trie_new();
    char room[256];
    size_t steps;

    for (size_t i = 0; i < KEYS; i++) {
        size_t digits = i;
        char key[2 * DEPTH];
        for (size_t word = 0; word < DEPTH; word++, digits /= 3) {
            key[2 * word] = "a*#"[digits % 3];
            key[2 * word + 1] = '.';
        }
        bindings[i] = add(trie, slice_of(key, sizeof(key) - 1));
    }
    /* a hundred words can only be matched by keys with a # */
    ck_assert_uint_eq(match(trie, repeat("a", ROUTING_WORDS, room), &steps), KEYS - 256);
    ck_assert_uint_le(steps, NODES * (ROUTING_WORDS + 1));
    for (size_t i = 0; i < KEYS; i++)
        drop(trie, &bindings[i]);
    trie_free(&trie);
}
END_TEST

START_TEST(steps_follow_matches_not_bindings)
{
    enum { KEYS = 100000 };
    static struct binding *bindings[KEYS];
    struct trie *trie = trie_new();
    char room[64];
    size_t steps;

    for (size_t i = 0; i < KEYS; i++) {
        const int size = snprintf(room, sizeof(room), "region%zu.host%zu.cpu", i % 100, i);
        bindings[i] = add(trie, slice_of(room, (size_t)size));
    }
    struct binding *wild = add(trie, SLICE("region7.*.#"));
    ck_assert_uint_eq(match(trie, SLICE("region7.host50007.cpu"), &steps), 2);
    ck_assert_uint_le(steps, 7);
    ck_assert_uint_eq(match(trie, SLICE("region8.host50007.cpu"), &steps), 0);
    drop(trie, &wild);
    for (size_t i = 0; i < KEYS; i++)
        drop(trie, &bindings[i]);
    trie_free(&trie);
}
END_TEST

START_TEST(counts_hashes)
{
    ck_assert_uint_eq(trie_count_hashes(SLICE("")), 0);
    ck_assert_uint_eq(trie_count_hashes(SLICE("#")), 1);
    ck_assert_uint_eq(trie_count_hashes(SLICE("a.##.#a")), 0);
    ck_assert_uint_eq(trie_count_hashes(SLICE("#.a.#.#")), 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trie");
    TCase *tests = tcase_create("trie");
    tcase_add_loop_test(tests, matches_by_word, 0, countof(examples));
    tcase_add_loop_test(tests, agrees_with_the_plain_way, 0, 10);
    tcase_add_loop_test(tests, never_takes_more_steps_than_states, 0, countof(hostile));
    tcase_add_test(tests, many_hashes_together_do_not_multiply);
    tcase_add_test(tests, steps_follow_matches_not_bindings);
    tcase_add_test(tests, counts_hashes);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
