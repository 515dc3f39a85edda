/* Binding keys by word, with * for exactly one word and # for any number of them (7.12). Words are
 * separated by '.', empty ones are words, and the empty key has none. Keys are shared: a node holds
 * all bindings of one key. */
#ifndef CORE_TRIE_H
#define CORE_TRIE_H

#include "core/binding.h"

struct trie;

struct trie *trie_new(void);
void trie_free(struct trie **trie); /* the bindings are removed before */

void trie_add(struct trie *trie, struct binding *binding); /* under binding->key; takes of_type */
void trie_remove(struct trie *trie, struct binding *binding);

/* Calls on_match once for each key that matches, with its bindings (linked by by_key). Returns the
 * number of steps it took: at most one per node and position between the words of routing_key,
 * whatever the keys are. Beyond steps_max it gives up: not everything was found. */
size_t trie_match(struct trie *trie, struct slice routing_key, size_t steps_max,
                  void (*on_match)(void *context, const struct binding_list *bindings),
                  void *context);

/* How often # stands as a word of the key. */
size_t trie_count_hashes(struct slice key);

#endif
