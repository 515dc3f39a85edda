/* The keys  a.b   a.*.c   a.#   a.#.c  make
 *
 *     root ── a ─┬─ b  ●
 *                ├─ * ── c  ●
 *                └─ #  ● ── c  ●                       ● a key ends here: the node has bindings
 *
 * A node knows its * and its # child by pointer. Its other children are edges in one map for the
 * whole trie, by (node, word), and words are interned: a routing key is hashed word by word once,
 * and from then on a step is one lookup of two pointers. A node of a hundred thousand keys thus
 * costs the same as one of two, and has no table of its own.
 *
 * Matching walks states (node, position): the words before the position are used up. From there a
 * word leads to the literal child and to *, one position on; and # may be entered at the same
 * position, and then stand at every later one. The only way to reach a state twice is through a #
 * that is entered at several positions: each # remembers the first of them in this match
 * (`entered_at`), and what lies behind it is not walked again. So every state is visited at most
 * once, by induction from the root, and no choice of keys multiplies.
 *
 * The walk is depth first over a stack that cannot overflow: popping a step leaves at most its own
 * continuation and three children, so each depth of the trie holds at most three steps at a time,
 * and no path is longer than the words of a key. */
#include "core/trie.h"

#include "base/alloc.h"

/* 255 octets, all dots. */
enum { WORDS_MAX = 256, STEPS_MAX = 3 * (WORDS_MAX + 1) + 1 };

struct word {
    struct map_link by_text; /* in trie->words */
    size_t refs;             /* edges that bear it */
    uint8_t text[];
};

struct edge {                 /* to a node; its bytes are a key, so it has no padding */
    struct trie_node *parent; /* NULL: the root */
    struct word *word;        /* NULL: the parent's star or hash, or the root */
};

struct trie_node {
    struct map_link by_edge; /* in trie->edges, when the edge bears a word */
    struct edge edge;
    struct trie_node *star, *hash;
    struct binding_list bindings; /* whose key ends here */
    size_t literal_count;         /* children by a word */
    uint64_t entered_mark;        /* of a #: the match that entered it last ... */
    uint32_t entered_at;          /* ... and the first position at which it did */
};

struct trie {
    struct map words, edges;
    struct trie_node root;
    uint64_t mark; /* counts matches */
};

/* ---- words ---- */

/* Takes the first word off *rest; false when none is left. *rest begins as the key, and *more as
 * whether that has words at all. */
static bool next_word(struct slice *rest, bool *more, struct slice *word)
{
    if (!*more)
        return false;
    const uint8_t *dot = memchr(rest->data, '.', rest->size);
    *word = slice_of(rest->data, dot == NULL ? rest->size : (size_t)(dot - rest->data));
    *more = dot != NULL;
    if (*more)
        *rest = slice_of(dot + 1, rest->size - word->size - 1);
    return true;
}

static bool is_word(struct slice word, char wildcard)
{
    return word.size == 1 && word.data[0] == (uint8_t)wildcard;
}

size_t trie_count_hashes(struct slice key)
{
    size_t count = 0;
    bool more = key.size > 0;
    struct slice word;

    while (next_word(&key, &more, &word))
        count += is_word(word, '#');
    return count;
}

static struct word *find_word(const struct trie *trie, struct slice text)
{
    struct map_link *link = map_find(&trie->words, text);

    return link == NULL ? NULL : container_of(link, struct word, by_text);
}

static struct word *get_word(struct trie *trie, struct slice text)
{
    struct word *word = find_word(trie, text);

    if (word == NULL) {
        word = xmalloc(sizeof(*word) + text.size);
        word->refs = 0;
        if (text.size > 0)
            memcpy(word->text, text.data, text.size);
        map_insert(&trie->words, &word->by_text, slice_of(word->text, text.size));
    }
    word->refs++;
    return word;
}

static void put_word(struct trie *trie, struct word *word)
{
    if (--word->refs > 0)
        return;
    map_remove(&trie->words, &word->by_text);
    free(word);
}

/* ---- nodes ---- */

static struct slice edge_key(const struct edge *edge)
{
    return slice_of(edge, sizeof(*edge));
}

static struct trie_node *node_new(struct trie_node *parent)
{
    struct trie_node *node = xcalloc(1, sizeof(*node));

    node->edge.parent = parent;
    TAILQ_INIT(&node->bindings);
    return node;
}

static struct trie_node *find_child(const struct trie *trie, struct trie_node *parent,
                                    struct word *word)
{
    if (parent->literal_count == 0 || word == NULL)
        return NULL;
    const struct edge edge = {parent, word};
    struct map_link *link = map_find(&trie->edges, edge_key(&edge));
    return link == NULL ? NULL : container_of(link, struct trie_node, by_edge);
}

static struct trie_node *get_child(struct trie *trie, struct trie_node *parent, struct slice text)
{
    if (is_word(text, '*'))
        return parent->star != NULL ? parent->star : (parent->star = node_new(parent));
    if (is_word(text, '#'))
        return parent->hash != NULL ? parent->hash : (parent->hash = node_new(parent));

    struct trie_node *child = find_child(trie, parent, find_word(trie, text));
    if (child == NULL) {
        child = node_new(parent);
        child->edge.word = get_word(trie, text);
        map_insert(&trie->edges, &child->by_edge, edge_key(&child->edge));
        parent->literal_count++;
    }
    return child;
}

static void detach_node(struct trie *trie, struct trie_node *node)
{
    struct trie_node *parent = node->edge.parent;

    if (node->edge.word != NULL) {
        map_remove(&trie->edges, &node->by_edge);
        put_word(trie, node->edge.word);
        parent->literal_count--;
    } else if (parent->star == node) {
        parent->star = NULL;
    } else {
        assert(parent->hash == node);
        parent->hash = NULL;
    }
}

static bool has_children(const struct trie_node *node)
{
    return node->literal_count > 0 || node->star != NULL || node->hash != NULL;
}

static bool node_is_bare(const struct trie_node *node)
{
    return TAILQ_EMPTY(&node->bindings) && !has_children(node);
}

struct trie *trie_new(void)
{
    struct trie *trie = xcalloc(1, sizeof(*trie));

    TAILQ_INIT(&trie->root.bindings);
    return trie;
}

void trie_free(struct trie **trie)
{
    assert(node_is_bare(&(*trie)->root) && (*trie)->words.count == 0);
    map_release(&(*trie)->words);
    map_release(&(*trie)->edges);
    free(*trie);
    *trie = NULL;
}

void trie_add(struct trie *trie, struct binding *binding)
{
    struct trie_node *node = &trie->root;
    struct slice rest = binding->key, word;
    bool more = rest.size > 0;

    while (next_word(&rest, &more, &word))
        node = get_child(trie, node, word);
    TAILQ_INSERT_TAIL(&node->bindings, binding, by_key);
    binding->of_type = node;
}

void trie_remove(struct trie *trie, struct binding *binding)
{
    struct trie_node *node = binding->of_type;

    TAILQ_REMOVE(&node->bindings, binding, by_key);
    while (node != &trie->root && node_is_bare(node)) {
        struct trie_node *parent = node->edge.parent;
        detach_node(trie, node);
        free(node);
        node = parent;
    }
}

/* ---- matching ---- */

struct step { /* node stands at position, and is still to stand at all others up to last */
    struct trie_node *node;
    uint32_t position, last;
};

struct walk {
    struct trie *trie;
    struct word *words[WORDS_MAX]; /* of the routing key; NULL: one that no binding key has */
    uint32_t word_count;
    uint32_t step_count;
    struct step steps[STEPS_MAX];
};

static void push_step(struct walk *walk, struct trie_node *node, uint32_t position, uint32_t last)
{
    if (node == NULL)
        return;
    assert(walk->step_count < STEPS_MAX);
    walk->steps[walk->step_count++] = (struct step){node, position, last};
}

/* At this position and all behind it, as far as no earlier step has taken care of them. A # that
 * ends its keys can only take all there is. */
static void enter_hash(struct walk *walk, struct trie_node *hash, uint32_t position)
{
    if (hash == NULL)
        return;
    if (!has_children(hash))
        position = walk->word_count;
    uint32_t end = walk->word_count + 1;
    if (hash->entered_mark == walk->trie->mark)
        end = hash->entered_at;
    if (position >= end)
        return;
    hash->entered_mark = walk->trie->mark;
    hash->entered_at = position;
    push_step(walk, hash, position, end - 1);
}

static void split_routing_key(struct walk *walk, struct slice key)
{
    bool more = key.size > 0;
    struct slice word;

    walk->word_count = 0;
    while (next_word(&key, &more, &word)) {
        assert(walk->word_count < WORDS_MAX);
        walk->words[walk->word_count++] = find_word(walk->trie, word);
    }
}

size_t trie_match(struct trie *trie, struct slice routing_key, size_t steps_max,
                  void (*on_match)(void *context, const struct binding_list *bindings),
                  void *context)
{
    struct walk walk; /* a few pages of stack, touched only as far as they are needed */
    size_t steps = 0;

    walk.trie = trie;
    walk.step_count = 0;
    trie->mark++;
    split_routing_key(&walk, routing_key);

    push_step(&walk, &trie->root, 0, 0);
    while (walk.step_count > 0 && steps <= steps_max) {
        struct step step = walk.steps[--walk.step_count];
        struct trie_node *node = step.node;
        steps++;
        if (step.position < step.last)
            push_step(&walk, node, step.position + 1, step.last);
        enter_hash(&walk, node->hash, step.position);
        if (step.position < walk.word_count) {
            struct word *word = walk.words[step.position];
            uint32_t next = step.position + 1;
            push_step(&walk, node->star, next, next);
            push_step(&walk, find_child(trie, node, word), next, next);
        } else if (!TAILQ_EMPTY(&node->bindings)) {
            on_match(context, &node->bindings);
        }
    }
    return steps;
}
