/* What stands behind store.h: the part that every store has, and the functions by which one differs
 * from another.
 *
 * The open batch, LSNs and figures are kept in store.c for both. An implementation embeds struct
 * store as its first member, takes what is submitted, and says what became of it. */
#ifndef STORE_ENGINE_H
#define STORE_ENGINE_H

#include "store/batch.h"

struct engine {
    int (*recover)(struct store *store, struct store_recovery *recovery);
    void (*submit)(struct store *store, struct batch *batch);
    int (*process)(struct store *store);
    void (*fetch)(struct store *store, struct store_fetch *fetch);
    int (*backup)(struct store *store, const char *path); /* NULL: it cannot */
    uint64_t (*backup_size)(struct store *store);         /* so far, while one is under way */
    int (*close)(
        struct store *
            store); /* stops, makes the last batch durable, frees all but struct store's own part */
};

struct store {
    const struct engine *engine;
    int fd;                     /* readable when process has something to do; the engine's */
    store_body_done *body_done; /* NULL: nobody wants them */
    store_found *found;         /* NULL: likewise */
    void *found_context;

    struct batch batches[2];
    struct batch *open;      /* always there */
    struct batch *under_way; /* NULL: idle */
    uint64_t durable;
    uint64_t durable_max;  /* no more than this is told: later ones left definitions waiting */
    enum batch_part going; /* what of the open batch may go: less than all while there is no room */
    bool full;             /* there was no room, and there is not enough yet */
    bool asking;           /* an empty batch goes, too: is there room again? */
    int error;             /* 0, or -errno: nothing becomes durable any more */

    struct store_stats stats; /* of the owner's side */
    struct store_check check;
    struct store_salvage salvage;
    struct store_backup backup;
};

void engine_init(struct store *store, const struct engine *engine, uint64_t durable);
void engine_release(struct store *store);

/* Makes the open batch, or what of it may go, the one under way, and opens the next. */
struct batch *engine_take_open(struct store *store);

/* The batch under way is over: durable, or failed for good with -errno, and its bodies go back; or
 * refused, and it is open again. */
void engine_settle(struct store *store, int error);

/* Room for the results of a fetch: sets entries and memory, and answers where size bytes of bodies
 * may go. */
uint8_t *engine_fetch_room(struct store_fetch *fetch, size_t count, size_t size);

#endif
