/* A binding: one edge from an exchange to a queue or an exchange. */
#ifndef CORE_BINDING_H
#define CORE_BINDING_H

#include "base/slice.h"

struct exchange;
struct queue;

struct binding {
    TAILQ_ENTRY(binding) by_source;      /* in source->bindings */
    TAILQ_ENTRY(binding) by_destination; /* in the queue's or exchange's bindings */
    TAILQ_ENTRY(binding)
    by_key; /* among the source's bindings of equal key, where its type keeps such lists */
    struct exchange *source;
    struct queue *queue; /* the destination: exactly one of the two is set */
    struct exchange *exchange;
    struct slice key;       /* with the arguments, one block with the binding */
    struct slice arguments; /* a field table; equal as a sorted set means equal (7.18) */
    bool durable;           /* both ends are */
    uint64_t lsn;           /* the batch that holds it; 0 when not durable */
    void *of_type;          /* the source's type's own: a key group, a trie leaf, a matcher */
};
TAILQ_HEAD(binding_list, binding);

#endif
