/* Chained hashing over links that live in the objects.
 *
 * A link's bucket is given by the top bits of its hash, so that when the table doubles, bucket i
 * becomes buckets 2i and 2i + 1. While it grows there are two tables, and `moved` says how far the
 * move has come:
 *
 *     old   [ - - - - - - i i i i i i i i ]      old buckets below `moved` are empty,
 *                         ^ moved
 *     new   [ n n n n n n n n n n n n - - - - - - - - - - - - - - - - ]
 *                                     ^ 2 * moved        new ones from there on are empty
 *
 * A hash thus has exactly one bucket at any time (bucket_of), and a lookup looks at one chain.
 * Every insert moves MOVES_PER_INSERT old buckets; the table doubles when it holds as many links as
 * buckets, by when the last move has long ended. Only inserting moves links, so a walk may remove.
 *
 * Keys of bytes are hashed with slice_hash, which peers cannot predict. Integers are the broker's
 * own counters: a multiplication spreads them evenly, and one key after the other falls far from
 * its neighbours. */
#include "base/map.h"

#include "base/alloc.h"

enum { BITS_MIN = 3, BITS_MAX = 31, MOVES_PER_INSERT = 2 };

static size_t bucket_count(uint32_t bits)
{
    return (size_t)1 << bits;
}

static uint64_t hash_id(uint64_t id)
{
    return id * 0x9e3779b97f4a7c15; /* 2^64 divided by the golden ratio */
}

/* The one bucket where a link with this hash is, or would be. There must be buckets. */
static inline struct map_link **bucket_of(const struct map *map, uint64_t hash)
{
    if (unlikely(map->old_buckets != NULL)) {
        const uint64_t old = hash >> (64 - map->old_bits);
        if (old >= map->moved)
            return &map->old_buckets[old];
    }
    return &map->buckets[hash >> (64 - map->bits)];
}

static void push(struct map_link **bucket, struct map_link *link)
{
    link->next = *bucket;
    *bucket = link;
}

static void move_bucket(struct map *map)
{
    struct map_link *next;
    struct map_link *link = map->old_buckets[map->moved];
    map->old_buckets[map->moved++] = NULL;
    for (; link != NULL; link = next) {
        next = link->next;
        push(&map->buckets[link->hash >> (64 - map->bits)], link);
    }
}

static void move_some(struct map *map)
{
    for (int i = 0; i < MOVES_PER_INSERT && map->moved < bucket_count(map->old_bits); i++)
        move_bucket(map);
    if (map->moved == bucket_count(map->old_bits)) {
        free(map->old_buckets);
        map->old_buckets = NULL;
    }
}

static void start_growing(struct map *map)
{
    assert(map->old_buckets == NULL && map->bits < BITS_MAX);
    map->old_buckets = map->buckets;
    map->old_bits = map->bits;
    map->moved = 0;
    map->bits++;
    map->buckets = xcalloc(bucket_count(map->bits), sizeof(struct map_link *));
}

static void make_room(struct map *map)
{
    if (unlikely(map->buckets == NULL)) {
        map->bits = BITS_MIN;
        map->buckets = xcalloc(bucket_count(map->bits), sizeof(struct map_link *));
    } else if (unlikely(map->old_buckets != NULL)) {
        move_some(map);
    } else if (unlikely(map->count >= bucket_count(map->bits))) {
        start_growing(map);
    }
}

static void insert(struct map *map, struct map_link *link, uint64_t hash)
{
    make_room(map);
    link->hash = hash;
    push(bucket_of(map, hash), link);
    map->count++;
}

void map_release(struct map *map)
{
    free(map->buckets);
    free(map->old_buckets);
    *map = MAP_EMPTY;
}

struct map_link *map_find(const struct map *map, struct slice key)
{
    if (map->count == 0)
        return NULL;
    const uint64_t hash = slice_hash(key);
    struct map_link *link = *bucket_of(map, hash);
    while (link != NULL && !(link->hash == hash && slice_equal(link->key, key)))
        link = link->next;
    return link;
}

void map_insert(struct map *map, struct map_link *link, struct slice key)
{
    link->key = key;
    insert(map, link, slice_hash(key));
}

struct map_link *map_find_id(const struct map *map, uint64_t id)
{
    if (map->count == 0)
        return NULL;
    struct map_link *link = *bucket_of(map, hash_id(id));
    while (link != NULL && link->id != id)
        link = link->next;
    return link;
}

void map_insert_id(struct map *map, struct map_link *link, uint64_t id)
{
    link->id = id;
    insert(map, link, hash_id(id));
}

/* The last removal also gives back a table that has grown: what a burst took does not stay. */
void map_remove(struct map *map, struct map_link *link)
{
    assert(map->count > 0);
    struct map_link **where = bucket_of(map, link->hash);
    while (*where != link) {
        assert(*where != NULL);
        where = &(*where)->next;
    }
    *where = link->next;
    link->next = NULL;
    if (--map->count == 0 && map->bits > BITS_MIN)
        map_release(map);
}

static struct map_link *first_in(struct map_link **buckets, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if (buckets[i] != NULL)
            return buckets[i];
    return NULL;
}

/* First the buckets of the new table that may hold something, then what is left of the old one. */
struct map_link *map_next(const struct map *map, const struct map_link *link)
{
    if (map->count == 0)
        return NULL;
    if (link != NULL && link->next != NULL)
        return link->next;

    struct map_link **after = link == NULL ? map->buckets : bucket_of(map, link->hash) + 1;
    const bool growing = map->old_buckets != NULL;
    const size_t old_count = growing ? bucket_count(map->old_bits) : 0;
    if (growing && link != NULL && link->hash >> (64 - map->old_bits) >= map->moved)
        return first_in(map->old_buckets, (size_t)(after - map->old_buckets), old_count);

    const size_t new_count = growing ? 2 * (size_t)map->moved : bucket_count(map->bits);
    struct map_link *next = first_in(map->buckets, (size_t)(after - map->buckets), new_count);
    return next != NULL ? next : first_in(map->old_buckets, map->moved, old_count);
}
