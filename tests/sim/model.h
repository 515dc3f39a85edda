/* What the broker should hold: exchanges, bindings, queues and their entries, kept by rules so
 * simple that they can be believed. Operations come in the order in which the broker acts on them,
 * each right after it did.
 *
 * Everything durable carries the LSN of the batch that made it and of the one that ended it, so
 * that what must be there after a crash is not a guess: what was made by an LSN that is durable,
 * and not ended by one. Ended things stay in the model until their end is durable.
 *
 *     made ≤ D, not ended, or ended > D      there after a crash at D
 *     made > D, or ended ≤ D                 not there
 *
 * While the store has no room for all (store.h) entries, and the deletes that are tied to them, go
 * by another D than the rest; and of what was deleted since some may be gone that nobody was
 * promised: there the model looks. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "core/vhost.h"

enum { MODEL_NAME = 16 };
#define MODEL_NOWHERE UINT64_MAX

struct model_life {
    bool durable; /* what is not dies with the broker */
    bool ended;
    bool tied; /* its end goes with entries that are made by the same LSN, or not at all */
    uint64_t made_lsn, ended_lsn;
};

struct model_message {
    uint32_t id;
    char exchange[MODEL_NAME], key[MODEL_NAME];
    bool persistent, mandatory;
    uint32_t size;
    bool routed;   /* the broker has acted on it */
    bool unwanted; /* no queue took it */
    bool returned; /* and its publisher knows */
};

struct model_entry {
    uint32_t id;       /* of the message */
    uint64_t number;   /* in order of arrival in the queue */
    uint64_t position; /* in the broker's window; MODEL_NOWHERE: it was not seen there yet */
    struct model_life life;
    bool in_flight; /* ended by a no-ack delivery that its client has not read yet */
    bool seen;      /* by a client */
};

struct model_queue {
    TAILQ_ENTRY(model_queue) link;
    char name[MODEL_NAME];
    bool exclusive, auto_delete;
    const void *owner; /* of an exclusive one */
    struct model_life life;
    struct model_entry *entries;
    size_t count, capacity;
    uint64_t next_number;
    unsigned consumers, no_ack_takers; /* the latter: consumers, and gets not yet answered */
    bool exclusive_consumer;
};
TAILQ_HEAD(model_queues, model_queue);

enum model_type { MODEL_DIRECT, MODEL_FANOUT, MODEL_TOPIC };

struct model_exchange {
    TAILQ_ENTRY(model_exchange) link;
    char name[MODEL_NAME];
    enum model_type type;
    bool auto_delete;
    struct model_life life;
};
TAILQ_HEAD(model_exchanges, model_exchange);

struct model_binding {
    TAILQ_ENTRY(model_binding) link;
    struct model_exchange *exchange;
    struct model_queue *queue;
    char key[MODEL_NAME];
    struct model_life life;
};
TAILQ_HEAD(model_bindings, model_binding);

struct model_durable { /* LSNs */
    uint64_t all;      /* all up to it is, apart from entries */
    uint64_t entries;  /* and entries, and what is tied to them */
    uint64_t any;      /* nothing beyond it is */
};

struct model {
    struct broker *broker;
    struct model_queues queues; /* those ended too: whoever has a pointer to one may keep it */
    struct model_exchanges exchanges;
    struct model_bindings bindings;
    struct model_message *messages; /* by id, from 1 on */
    uint32_t message_count;
    uint64_t batch_lsn; /* the open batch when this turn began */
    uint64_t empty_lsn; /* the last one in which nothing was left */
    void (*on_queue_deleted)(struct model_queue *queue); /* its consumers are gone */
};

void model_init(struct model *model, struct broker *broker);
void model_release(struct model *model);

/* A new message, not yet sent. */
struct model_message *model_add_message(struct model *model);
/* Its body, byte for byte; out has room for its size. */
enum { MODEL_BODY_MIN = 4 };
void model_write_body(const struct model_message *message, uint8_t *out);

struct model_queue *model_find_queue(struct model *model, const char *name);
struct model_exchange *model_find_exchange(struct model *model, const char *name);
struct model_entry *model_find_entry(struct model_queue *queue,
                                     uint32_t id); /* ended ones too, for a while */

/* Each of these follows the broker; false: it should have refused. *lsn: what an answer must wait
 * for; it is never lowered. */
bool model_declare_queue(struct model *model, const struct model_queue *wanted, uint64_t *lsn);
bool model_delete_queue(struct model *model, const char *name, const void *asking, uint64_t *lsn);
bool model_purge_queue(struct model *model, const char *name, const void *asking, uint32_t *count,
                       uint64_t *lsn);
bool model_declare_exchange(struct model *model, const struct model_exchange *wanted,
                            uint64_t *lsn);
void model_delete_exchange(struct model *model, const char *name, uint64_t *lsn);
bool model_bind(struct model *model, const char *exchange, const char *queue, const char *key,
                const void *asking, uint64_t *lsn);
bool model_unbind(struct model *model, const char *exchange, const char *queue, const char *key,
                  const void *asking, uint64_t *lsn);

/* The exchange is there. */
void model_route(struct model *model, uint32_t id);
/* An entry is acknowledged or rejected for good. tied: by a transaction. */
void model_settle(struct model *model, struct model_queue *queue, uint32_t id, bool tied,
                  uint64_t *lsn);
void model_remove_consumer(struct model *model, struct model_queue *queue, bool exclusive,
                           bool no_ack);
void model_drop_exclusive(struct model *model, const void *owner);

/* Compares every queue with the broker's, entry by entry; what is missing there and was ready for
 * someone who does not acknowledge has been delivered. */
void model_observe(struct model *model);
/* And exchanges and bindings, too. */
void model_compare(struct model *model);

/* A confirm or commit-ok of this message has been read: each entry of it is durable, or gone. */
void model_check_stored(struct model *model, uint32_t id);

/* The broker has started again over what was durable. */
void model_recover(struct model *model, const struct model_durable *durable);

#endif
