/* What the broker should do: queues as lists, by rules so plain that they can be believed. It
 * shares nothing with the broker, knows neither frames nor the store, and is told one command at a
 * time; each is followed to its end, as the broker is by whoever plays the sequence.
 *
 *     command ──▶ reference_do ──▶ events that clients must see, and the state after them
 *
 * The state is one flat struct, so that it can be copied: a *world* is what is, what a crash would
 * leave, and what it would leave once the batch under way is durable. Where the broker is free
 * (whose turn it is when two queues have something due in one millisecond) the reference asks
 * choose(), and whoever plays goes through all answers, keeping the worlds that agree with what the
 * broker did.
 *
 * Time is in milliseconds since the sequence began. Rules are named by their numbers. */
#ifndef MODEL_REFERENCE_H
#define MODEL_REFERENCE_H

#include "tests/model/command.h"

enum {
    ENTRIES_MAX = 48,    /* of a queue */
    DELIVERIES_MAX = 64, /* of a channel */
    HELD_MAX = 48,       /* publishes of a transaction */
    LETTERS_MAX = 256,
    DEATHS_MAX = 4 * MODEL_QUEUES,
    BINDINGS_MAX = 40,
    EVENTS_MAX = 512,
    CHOICES_MAX = 64,
};

#define NEVER UINT64_MAX

/* ---- messages: immutable, known by index ---- */

enum reason { REJECTED, EXPIRED, MAXLEN, DELIVERY_LIMIT };

struct model_death {
    uint8_t queue, reason, exchange, key;
    uint32_t count;
    int32_t expiration; /* that it had; MODEL_NONE */
    uint32_t time_s;
};

struct model_message {
    uint32_t origin; /* the publish that it comes from, from 1 on */
    int32_t size, priority, expiration;
    uint8_t exchange, key, persistent;
    uint8_t last_exchange;                 /* it had before its last death */
    uint8_t death_count;                   /* of different (queue, reason) */
    struct model_death first;              /* the very first */
    struct model_death deaths[DEATHS_MAX]; /* newest first */
};

void messages_reset(void);
const struct model_message *message_at(uint32_t index);
/* What the headers of a delivery must be, as queue_client's headers_of prints them. */
void message_headers(const struct model_message *message, unsigned acquired, unsigned failed,
                     char *out, size_t size);

/* ---- the state ---- */

struct model_entry {
    uint32_t message;
    uint32_t position; /* in order of arrival */
    uint64_t deadline;
    uint8_t level; /* of priority */
    bool unacked;
    bool redelivered;
    bool stored;
    bool awaited;   /* its publisher waits for the disk: it stored this, or what died into this */
    uint32_t batch; /* that stores it */
    uint16_t acquired, failed; /* 10.19 */
};

enum turn { ABSENT, IN_TURN, IDLE, WAITING };

struct model_consumer { /* at most one per queue and channel */
    uint8_t turn;       /* enum turn */
    bool no_ack, exclusive;
    int rank;
    int prefetch, unacked;
    uint32_t place; /* in its list: the lowest is first; of equal rank */
};

struct model_queue {
    bool exists;
    struct command options; /* as declared */
    int owner;              /* connection; MODEL_NONE */
    uint8_t cold;           /* levels, a bit each: some of it may have to be read from disk */
    bool late;              /* so what is too much of it goes later */
    uint32_t next_position, next_place;
    uint64_t unused_deadline;
    int active; /* channel of the single active consumer, or MODEL_NONE */
    struct model_consumer consumers[MODEL_CHANNELS];
    uint32_t count;
    /* priorities up to this one, without it, have a place; 0: the plain one alone */
    uint8_t levels;
    struct model_entry entries[ENTRIES_MAX];
};

enum model_settlement { NOT_HELD, ACK, REJECT, REQUEUE, RETURN };

struct model_delivery {
    uint64_t tag;
    uint32_t position;
    uint8_t queue;
    bool gone;        /* its queue was deleted */
    bool by_consumer; /* not basic.get */
    bool credits;     /* that consumer is still there */
    uint8_t held;     /* by the transaction: enum model_settlement */
    uint32_t held_place;
};

enum mode { PLAIN, CONFIRM, TX };

struct model_publish {
    uint32_t message;
    bool mandatory;
};

struct model_channel {
    bool open;
    uint8_t mode;
    int prefetch, global_prefetch, global_unacked;
    uint32_t next_held_place;
    uint32_t publishes; /* since confirm.select */
    uint32_t count;
    struct model_delivery deliveries[DELIVERIES_MAX];
    uint32_t held_count;
    struct model_publish held[HELD_MAX];
};

struct model_binding {
    uint8_t exchange, queue, key;
};

/* The order in which the queues that a key leads to get a message, as far as it has shown. */
struct model_order {
    uint8_t count, queues[MODEL_QUEUES];
};

struct reference {
    uint64_t now;
    bool clean_restarts; /* a restart in order does not mark all as redelivered */
    bool full;           /* a limit of the model was reached: the sequence ends here */
    uint32_t batch;      /* the open one */
    uint32_t durable;    /* all up to this one are */
    bool dirty;          /* the open batch has something beside entries */
    bool held;           /* batches wait */
    bool scarce;         /* memory: what is ready may go to disk at the end of any command */
    struct model_queue queues[MODEL_QUEUES];
    struct model_channel channels[MODEL_CHANNELS];
    uint32_t binding_count;
    struct model_binding bindings[BINDINGS_MAX];
    struct model_order orders[MODEL_EXCHANGES][MODEL_QUEUES];
};

struct world {
    struct reference now;
    struct reference durable;   /* meaningful while now.held */
    struct reference under_way; /* and has_under_way */
    bool has_under_way;
};

/* ---- what clients see ---- */

struct event {
    enum event_kind kind;
    int channel;
    int queue; /* delivered, cancelled: whose consumer */
    uint32_t message;
    bool redelivered, acknowledges; /* acknowledges: there is a tag to be settled */
    unsigned acquired, failed;
    uint32_t number; /* got: messages left; closed: the reply code; refused: the publish */
    uint32_t position;
};

struct events {
    size_t count;
    struct event list[EVENTS_MAX];
};

/* Answers to choose(), 0 where none was given, and of how many each was one. */
struct choices {
    unsigned count;
    uint8_t answers[CHOICES_MAX], options[CHOICES_MAX];
};
/* The next combination; false when there is none. */
bool choices_next(struct choices *choices);

/* Of what is meaningful. */
void world_copy(struct world *to, const struct world *from);
bool world_equals(const struct world *a, const struct world *b);

void world_init(struct world *world, bool clean_restarts);

/* Whether the command means something now; fills in what it is about. */
bool world_resolve(const struct world *world, struct command *command);

void world_do(struct world *world, const struct command *command, struct choices *choices,
              struct events *events);

/* Time passes, up to the next deadline at most. */
void world_advance(struct world *world, uint64_t now, struct choices *choices,
                   struct events *events);
uint64_t world_next_deadline(const struct world *world);

/* The client has read this tag for the event. */
void world_set_tag(struct world *world, const struct event *event, uint64_t tag);

/* Nothing that this publish led to waits for the disk (promise 1). */
bool world_may_confirm(const struct world *world, uint32_t origin);

uint32_t model_count_ready(const struct model_queue *queue);
unsigned model_count_consumers(const struct model_queue *queue);

#endif
