/* What all clients share: the vhosts, the users, the store behind them, the replies that wait for
 * it, and the counters.
 *
 * There is one struct broker in a process (tests make many). It owns its vhosts, and through them
 * exchanges, queues and bindings; it does not own the loop, the clock or the random source.
 * Everything in core/ belongs to the loop thread. */
#ifndef CORE_BROKER_H
#define CORE_BROKER_H

#include "access/user.h"
#include "base/map.h"
#include "base/random.h"
#include "core/dead_letter.h"
#include "core/late_confirm.h"
#include "core/paging.h"
#include "core/parking.h"
#include "core/quarantine.h"
#include "core/remains.h"
#include "net/loop.h"
#include "store/store.h"

struct message_counters { /* of a queue, or of all that there have been; only ever growing */
    uint64_t published, delivered, delivered_no_ack, got, got_no_ack, redelivered, acknowledged;
};

struct broker_counters { /* since start; only ever growing */
    struct message_counters messages;
    uint64_t confirmed, returned, dropped_unroutable, got_empty;
    uint64_t given;                  /* messages that exchanges remembered, to a new binding */
    uint64_t logins, logins_refused; /* of those who have said who they are (4.2.7) */
    uint64_t connections_opened, connections_closed, channels_opened, channels_closed;
    uint64_t queues_declared, queues_deleted;
    uint64_t set_aside; /* messages, because they were damaged on disk */
};

struct broker_limits { /* of all vhosts together, and of their number (17.7); 0: none */
    uint32_t queue_max, exchange_max, vhost_max, binding_max;
    uint32_t binding_max_per_queue, binding_max_per_exchange; /* that lead to it; from or to it */
    uint32_t routing_steps_max;                               /* see struct route */
    uint64_t definition_octets_max;                           /* see struct broker_totals */
};

/* Of work in steps of routing (see struct route), that all clients together may make in a turn: a few
 * milliseconds. See broker_spend. */
enum { TURN_STEPS_MAX = 20000 * ROUTE_QUEUE_STEPS };

/* What there is, in all vhosts: what the limits above are about. */
struct broker_totals {
    size_t queues, exchanges, bindings;
    /* names, keys and arguments of these, those of consumers, and what is made of them that grows:
     * matchers of headers bindings, windows of priorities */
    uint64_t octets;
};

/* What a store is given at the first start, and never again. */
struct broker_defaults {
    struct slice vhost;          /* if there is none */
    struct slice user, password; /* if there is none; user empty: no user */
    struct slice tags;
    struct slice permissions[ACCESS_RIGHTS]; /* in every vhost there is then */
    unsigned password_cost;                  /* PASSWORD_COST, but for tests */
};

struct access_watcher;
struct vhost_rule;

struct broker {
    struct loop *loop;
    struct clock *clock;
    struct random *random;
    struct store *store;
    struct users users;
    struct access_watcher *watcher; /* the session's; see core/account.h. NULL: nobody listens */
    struct map vhosts;              /* by name */
    struct map queues;              /* durable ones, by id */
    struct parking parking;         /* replies that wait for the store */
    struct late_confirms late_confirms[2]; /* of the open batch and the one under way, by LSN */
    struct dead_letters dead_letters;      /* what has died and is not yet routed */
    STAILQ_HEAD(overfull_queues, queue) overfull; /* see queues_drop_overflow */
    bool in_transaction;     /* what is settled now holds when the open batch does, */
    bool transaction_puts;   /* and its deletes leave with the puts of that or not at all */
    uint64_t next_queue_id;  /* never used before, in any run */
    uint64_t last_record_id; /* of definitions in the store: counted up, see core/definition.h */
    uint64_t route_mark;     /* a fresh one per message routed: see core/exchange.h */
    uint64_t steps;          /* that were spent in the turn ... */
    uint64_t steps_turn;     /* ... of this number */
    bool overspent;          /* see broker_has_overspent */
    uint64_t reserve_mark;   /* a fresh one per transaction: see queue_reserve */
    size_t fetches;          /* reads from the store, and from and to scratch, under way */
    bool is_ending;          /* none begins any more */
    bool restored;           /* a definition, from its copy; until all are there twice again */
    bool has_defaults;       /* the store: see broker_give_defaults */
    bool has_lost;           /* it may have had more, this or that was damaged */
    struct scratch *scratch; /* where messages go that the store does not have; NULL: nowhere */
    struct source scratch_source;
    struct quarantine quarantine;
    struct paging paging;                 /* memory for messages in queues */
    struct remains remains;               /* memory and of what a queue dropped all at once */
    struct broker_limits limits;          /* set by the server */
    const struct vhost_rule *vhost_rules; /* the server's; see core/vhost.h */
    size_t vhost_rule_count;
    struct broker_totals totals;
    struct broker_counters counters;
    struct task store_task;     /* hands the open batch over, in the STORE phase */
    struct source store_source; /* the store's eventfd */
    struct timer room_timer;    /* while the store is full: when it is asked again */
    void (*on_store_full)(struct broker *broker); /* it is full now, or no longer; may be NULL */
    bool was_full;                                /* at the last call of it */
    int store_error; /* the store has failed with this errno; on_store_failure was called */
    void (*on_store_failure)(struct broker *broker); /* set by the server */
};

/* Takes over the store and reads what it holds. 0, or -errno with nothing taken over. */
int broker_init(struct broker *broker, struct loop *loop, struct clock *clock,
                struct random *random, struct store *store);

/* Gives the store the defaults if it never had any; false: it has. A store that may have lost its
 * users gets none by default, whom somebody may have deleted. To be called last, when nothing else
 * can end a start: an operator who mends what ended it may change the defaults, too. */
bool broker_give_defaults(struct broker *broker, const struct broker_defaults *defaults);

/* Messages that the store does not have may leave memory for there. The broker owns it from here,
 * unless the answer is -errno. */
int broker_set_scratch(struct broker *broker, struct scratch *scratch);

/* Frees everything in memory. Clients must be gone. The store is handed back open, with all that is
 * durable in it. */
void broker_release(struct broker *broker);

/* Something was added to the open batch: it leaves in this turn's STORE phase, or as soon as the
 * store has finished the one before. */
static inline void broker_touch_store(struct broker *broker)
{
    loop_queue(broker->loop, LOOP_STORE, &broker->store_task);
}

/* Turns are shared. What a frame makes the loop do beyond what its octets are worth is counted, in
 * steps: finding queues for a message, and putting it into more of them than one. A plain message
 * is free. Who spent when TURN_STEPS_MAX are gone rests until its next turn, so that a turn is as
 * long as twice that and one frame: see session/spenders.h. */
void broker_spend(struct broker *broker, size_t steps);

/* Once in a turn, for those who rest: they have its steps, whatever others have spent. */
void broker_renew_steps(struct broker *broker);

static inline bool broker_turn_is_spent(const struct broker *broker)
{
    return broker->steps > TURN_STEPS_MAX && broker->steps_turn == broker->loop->turns;
}

/* After each frame that may have: whether it did, and the turn's steps are gone. Who has spent
 * nothing does not rest, whatever others have. */
static inline bool broker_has_overspent(struct broker *broker)
{
    if (likely(!broker->overspent))
        return false;
    broker->overspent = false;
    return broker_turn_is_spent(broker);
}

/* So many ids that no queue ever had, the first of them; remembered by the open batch. */
uint64_t broker_new_queue_ids(struct broker *broker, uint64_t count);

/* The open batch has grown so large that publishers should be held until it is handed over. */
bool broker_store_is_full(const struct broker *broker);

/* And it waits for room on the disk: what would put more into it stays where it is. */
bool broker_lacks_room(const struct broker *broker);

#endif
