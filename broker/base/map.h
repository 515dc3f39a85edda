/* A hash map over links in the object: it allocates its buckets and nothing else. A map is keyed
 * either by bytes or by an integer, never by both. The key's bytes belong to the object and must
 * not change while it is linked. Growing moves the buckets a few at a time, so that no single
 * insert pays for all of them.
 *
 *     struct queue { struct map_link by_name; ... };
 *     struct map_link *link = map_find(&vhost->queues, name);
 *     struct queue *queue = link == NULL ? NULL : container_of(link, struct queue, by_name);
 * */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/slice.h"

struct map_link {
    struct map_link *next; /* in its bucket; valid only while linked */
    uint64_t hash;
    union {
        struct slice key; /* of a map keyed by bytes */
        uint64_t id;      /* of a map keyed by integers */
    };
};

struct map {
    struct map_link **buckets;     /* NULL while empty */
    struct map_link **old_buckets; /* while growing: those not yet moved */
    uint32_t bits, old_bits;       /* log2 of the number of buckets */
    uint32_t moved;                /* how many of the old buckets have been moved */
    size_t count;
};

#define MAP_EMPTY ((struct map){0})

void map_release(struct map *map); /* frees the buckets; the objects are the owner's */

struct map_link *map_find(const struct map *map, struct slice key);
void map_insert(struct map *map, struct map_link *link,
                struct slice key); /* the key must not be there yet */

struct map_link *map_find_id(const struct map *map, uint64_t id);
void map_insert_id(struct map *map, struct map_link *link, uint64_t id);

void map_remove(struct map *map, struct map_link *link); /* must be linked in this map */

/* Every link, in no order: map_next(map, NULL) is the first, NULL comes after the last. To remove
 * while walking, ask for the next before removing; inserting ends the walk. To ask for the first
 * again and again until none is left takes time that is quadratic. */
struct map_link *map_next(const struct map *map, const struct map_link *link);

#define map_each(map, link)                                                                        \
    for (struct map_link *link = map_next(map, NULL); link != NULL; link = map_next(map, link))

#endif
