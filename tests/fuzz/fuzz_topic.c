/* Binding keys, then a routing key: the trie finds what a plain reading of the rule finds (7.12),
 * in as many steps as it promises. */
#include "base/alloc.h"
#include "core/binding.h"
#include "core/trie.h"
#include "tests/fuzz/fuzz.h"

enum { KEYS_MAX = 8, KEY_SIZE_MAX = 255, HASHES_MAX = 2, WORDS_MAX = KEY_SIZE_MAX + 1 };

static size_t split(struct slice key, struct slice words[WORDS_MAX])
{
    size_t count = 0, begin = 0;

    if (key.size == 0)
        return 0;
    for (size_t i = 0; i <= key.size; i++) {
        if (i < key.size && key.data[i] != '.')
            continue;
        words[count++] = slice_of(key.data + begin, i - begin);
        begin = i + 1;
    }
    return count;
}

/* Row by row: which prefixes of the routing key the first words of the pattern match. */
static bool matches(struct slice binding_key, struct slice routing_key)
{
    static struct slice pattern[WORDS_MAX], words[WORDS_MAX];
    static bool row[WORDS_MAX + 1], next[WORDS_MAX + 1];
    const size_t pattern_count = split(binding_key, pattern), count = split(routing_key, words);

    memset(row, 0, sizeof(row));
    row[0] = true;
    for (size_t p = 0; p < pattern_count; p++) {
        const bool hash = slice_equal(pattern[p], SLICE("#"));
        const bool star = slice_equal(pattern[p], SLICE("*"));
        next[0] = hash && row[0];
        for (size_t w = 1; w <= count; w++)
            next[w] = hash ? row[w] || next[w - 1]
                           : row[w - 1] && (star || slice_equal(pattern[p], words[w - 1]));
        memcpy(row, next, sizeof(row));
    }
    return row[count];
}

static void on_match(void *context, const struct binding_list *bindings)
{
    const struct binding *binding;

    (void)context;
    TAILQ_FOREACH (binding, bindings, by_key)
        ((struct binding *)(uintptr_t)binding)->durable = true; /* found */
}

static struct binding *make(struct slice key)
{
    struct binding *binding = xcalloc(1, sizeof(*binding));

    binding->key = key;
    return binding;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_of(data, size), part;
    struct binding *bindings[KEYS_MAX];
    size_t count = 0;
    struct trie *trie = trie_new();

    while (count < KEYS_MAX && fuzz_part(&input, &part)) {
        const struct slice key = slice_of(part.data, min_of(part.size, (size_t)KEY_SIZE_MAX));
        if (trie_count_hashes(key) > HASHES_MAX)
            continue;
        bindings[count] = make(key);
        trie_add(trie, bindings[count++]);
    }
    const struct slice routing_key = slice_of(input.data, min_of(input.size, (size_t)KEY_SIZE_MAX));
    trie_match(trie, routing_key, SIZE_MAX, on_match, NULL);
    for (size_t i = 0; i < count; i++)
        must(bindings[i]->durable == matches(bindings[i]->key, routing_key));
    while (count > 0) {
        trie_remove(trie, bindings[--count]);
        free(bindings[count]);
    }
    trie_free(&trie);
    return 0;
}
