/* What a store must hold after each LSN, and what it does hold, as the same text:
 *
 *     record KEY SIZE CRC
 *     queue ID tail T delivered D count N bytes B
 *     entry POSITION expires E weight W flags F size S crc C
 *
 * so that comparing is comparing text, and the first line that differs is the complaint. */
#ifndef TESTS_STATES_MODEL_H
#define TESTS_STATES_MODEL_H

#include "base/buf.h"
#include "store/array.h"
#include "store/store.h"

struct model_entry {
    uint64_t position, expires_ms, lsn; /* of the batch that put it */
    uint32_t weight, size, crc;
    uint8_t flags;
};

struct model_queue {
    uint64_t id, next;  /* next: above every position used so far, taken back or not */
    uint64_t tail;      /* one past the last that was stored */
    uint64_t delivered; /* the highest mark */
    ARRAY_OF(struct model_entry) entries;
};

struct model_record {
    char key[16];
    uint32_t size, crc;
};

struct model {
    uint64_t lsn;
    bool closing;    /* that LSN is the mark of a clean end */
    uint64_t bodies; /* made so far: each is different */
    uint64_t next_queue_id;
    ARRAY_OF(struct model_queue) queues;   /* alive, ids ascend */
    ARRAY_OF(struct model_record) records; /* keys ascend */
};

struct model *model_new(void);
struct model *model_copy(const struct model *model);
void model_free(struct model **model);

struct model_queue *model_add_queue(struct model *model, uint64_t id);
void model_remove_queue(struct model *model, uint32_t index);
struct model_entry *model_add_entry(struct model_queue *queue, const struct model_entry *entry);
/* Entries [first, first + count) of the array. */
void model_remove_entries(struct model_queue *queue, uint32_t first, uint32_t count);
void model_set_record(struct model *model, const char *key, uint32_t size, uint32_t crc);
bool model_remove_record(struct model *model, const char *key);

uint64_t model_bytes(const struct model *model); /* of all entries' bodies */

/* clean: after a clean end; otherwise all may have been delivered. */
void model_dump(const struct model *model, bool clean, struct buf *out);

/* ---- the store's side ------------------------------------------------------------------------ */

struct observed {
    uint64_t lsn;
    struct buf dump;
    struct buf wrong; /* sentences: what no model allows */
    bool was_clean;
};

/* Recovers the store, which was opened just now, and reads all of it. */
void observe(struct store *store, struct observed *observed);
void observed_release(struct observed *observed);

/* Says in out how what was observed differs from the model; nothing when it does not. */
void compare(const struct observed *observed, const struct model *model, struct buf *out);

/* Waits until the store is not busy; 0 or the store's error. */
int settle_store(struct store *store);

#endif
