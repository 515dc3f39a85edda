/* The store without a disk, for tests: same interface, one thread, faults on demand. A batch that
 * was submitted becomes durable when the test says so; a crash loses the rest. */
#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include "store/store.h"

struct store *store_memory_new(void);

/* With false, a submitted batch stays under way until store_memory_sync; true (at first) makes it
 * durable by itself, at the next store_process. */
void store_memory_set_auto_sync(struct store *store, bool automatic);
void store_memory_sync(struct store *store); /* what was submitted becomes durable */

/* The batch under way and all later ones fail with -error. */
void store_memory_fail(struct store *store, int error);

/* The next fetches fail with -error, until it is 0 again. */
void store_memory_fail_fetches(struct store *store, int error);

/* The entry, which is durable, cannot be read back any more as it was put. */
void store_memory_damage(struct store *store, uint64_t queue_id, uint64_t position);
/* What a check of the store would tell the owner of it. */
void store_memory_find(struct store *store, const struct store_finding *finding);
/* What the next fetch finds that its queue has lost. */
void store_memory_lose(struct store *store, int64_t count, int64_t bytes);

/* As if a start, before the next, had salvaged it. */
void store_memory_salvage(struct store *store);

/* What finds room in batches submitted from now on. */
enum store_memory_room {
    STORE_MEMORY_ROOM_FOR_ALL, /* at first */
    STORE_MEMORY_ROOM_FOR_DEFINITIONS,
    STORE_MEMORY_ROOM_FOR_DELETES,
    STORE_MEMORY_ROOM_FOR_NOTHING,
};
void store_memory_set_room(struct store *store, enum store_memory_room room);

/* What a crash and restart leaves: everything but the durable state is forgotten (bodies are handed
 * back), fetches under way are dropped without on_done, and store_recover may be called again. */
void store_memory_crash(struct store *store);

#endif
