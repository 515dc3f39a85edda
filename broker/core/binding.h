/* A binding: one edge from an exchange to a queue or an exchange.
 *
 * What tells it from the other bindings of its source is its identity (7.18): destination, key and
 * arguments, the latter as a sorted set. These bytes stand behind the struct, in one block with it,
 * and key and arguments point into them:
 *
 *     'q' or 'x' | destination name, with its size | key, with its size | arguments, sorted
 *
 * so that binding twice is one lookup in the source's map, however many bindings it has. */
#ifndef CORE_BINDING_H
#define CORE_BINDING_H

#include "base/buf.h"
#include "base/map.h"

struct exchange;
struct queue;

struct binding {
    TAILQ_ENTRY(binding) by_source;      /* in source->bindings */
    TAILQ_ENTRY(binding) by_destination; /* in the queue's or exchange's bindings */
    /* among the source's bindings of equal key, where its type keeps such lists */
    TAILQ_ENTRY(binding) by_key;
    struct map_link by_identity; /* in source->identities; its key is the identity */
    struct exchange *source;
    struct queue *queue; /* the destination: exactly one of the two is set */
    struct exchange *exchange;
    struct slice key;       /* inside the identity, as are the arguments */
    struct slice arguments; /* a field table, sorted by name */
    bool durable;           /* both ends are */
    uint64_t record_id;     /* in the store; 0 when not durable */
    uint64_t lsn;           /* the batch that holds it; 0 when not durable */
    void *of_type;          /* the source's type's own: a key group, a trie node, a matcher */
};
TAILQ_HEAD(binding_list, binding);

/* Appends the identity of a binding between these. Names and key have at most 255 octets, arguments
 * are a checked table. */
void binding_write_identity(struct buf *out, bool to_exchange, struct slice destination,
                            struct slice key, struct slice arguments);

/* Tied to nothing yet; identity is one that binding_write_identity wrote, and is copied. */
struct binding *binding_new(struct slice identity);

#endif
