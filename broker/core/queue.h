/* A queue: its entries, its consumers, its bindings, and who is next.
 *
 *     queue_push ──▶ window ──(DEFERRED task)──▶ consumer in turn ──▶ unacked ──▶ queue_ack      gone
 *                      ▲                                                │
 *                      └───── (retry.h) ◀─── queue_requeue ─────────────┘
 *
 * Ready entries and a consumer with credit meet in the queue's task, in the turn's DEFERRED phase;
 * whatever may have changed either side calls queue_wake. Persistent messages in a durable queue
 * are put into the store's open batch at push and deleted from it (or taken back, while the batch
 * is still open) when they are settled.
 *
 * A queue is freed in the REAP phase after queue_delete; deliveries that are still unacked then
 * hold a counted reference, and settling them does nothing. */
#ifndef CORE_QUEUE_H
#define CORE_QUEUE_H

#include "core/binding.h"
#include "core/broker.h"
#include "core/consumer.h"
#include "core/dead_letter.h"
#include "core/expiry.h"
#include "core/outbox.h"
#include "core/policy.h"
#include "core/retry.h"
#include "core/settings.h"
#include "core/window.h"

struct vhost;

/* Who has exclusive queues: embedded in a connection. */
struct queue_owner {
    TAILQ_HEAD(queue_owned, queue) queues;
};

/* A basic.get that found its message on disk, or behind too much that is due. */
struct queue_waiter {
    TAILQ_ENTRY(queue_waiter) link;
    struct queue *queue; /* NULL when not waiting */
    void (*on_loaded)(struct queue_waiter *waiter);
};
TAILQ_HEAD(queue_waiters, queue_waiter);

struct queue_options {
    struct slice name;
    bool durable, auto_delete;
    struct queue_owner *owner;   /* exclusive, when not NULL */
    struct slice arguments;      /* a checked field table, without its length */
    struct exchange *delayed_by; /* not NULL: whose waiting messages it is for, under its name */
};

struct queue {
    struct map_link by_name;     /* in vhost->queues, unless delayed_by is set */
    struct map_link by_id;       /* in broker->queues, when durable */
    TAILQ_ENTRY(queue) by_owner; /* when owner is set */
    STAILQ_ENTRY(queue) by_overfull;
    struct vhost *vhost;
    struct broker *broker;
    uint32_t refs; /* the vhost's, and one per unacked delivery */

    struct slice name; /* with the arguments, one block of the queue's own */
    struct slice arguments;
    bool durable, exclusive, auto_delete;
    bool deleted;
    bool overfull;      /* something went back to it over its limit: in broker->overfull */
    bool cycle_logged;  /* a dead letter came round to it: said once (13.7) */
    bool retires_later; /* more is due than goes at once: the rest goes with the timer */
    struct queue_owner *owner;
    uint64_t id;                 /* in the store, of its own window; those of `others` follow it */
    uint64_t lsn;                /* the batch that holds its definition; 0 when not durable */
    struct policy_set policies;  /* that apply */
    struct settings settings;    /* by these and the arguments */
    struct exchange *delayed_by; /* no client's queue, but where the messages of an exchange wait:
                                    see core/exchange_delayed.c. NULL otherwise, as nearly always */

    struct window window;  /* entries of settings.priority_plain, and all while `others` is NULL */
    struct window *others; /* settings.priority_max windows: of the other priorities, upwards */
    unsigned level_max;    /* of all these the first 0 to level_max are in use, here and in the
                                store; priorities are levels, but level 0 is all without `others` */
    struct expiry expiry;  /* of all windows */
    struct outbox *outbox; /* NULL: no dead letter has ever had to be kept */
    struct retries *retries;   /* NULL: nothing has ever waited for its retry */
    struct timer unused_timer; /* x-expires: runs while it has no consumer */
    struct consumers consumers;
    uint32_t consumer_count;
    bool has_exclusive_consumer;
    uint32_t binding_count;
    struct binding_list bindings; /* that lead here */
    uint64_t route_mark;          /* last message routed here: see core/exchange.h */

    size_t returning; /* see queue_begin_return */

    uint64_t reserve_mark, reserved, reserved_bytes; /* see queue_reserve */

    struct task task;         /* delivers, or frees after delete */
    struct store_fetch fetch; /* one read of what a window has on disk, at a time */
    struct window *fetching;  /* which; NULL: none is under way */
    size_t fetch_reserved;    /* of the memory for messages, for that read */
    struct timer read_timer;  /* set: a read has failed, and none begins before */
    bool read_failed;         /* the last one: said once */
    uint8_t scratch_tries;    /* reads of scratch that have failed with EIO, one after another */
    struct queue_waiters waiters; /* basic.gets that wait for it */

    struct message_counters counters;
};

/* The queue that is to be; must not exist. Durable ones join the open batch: queue->lsn is what
 * declare-ok waits for. */
struct queue *queue_new(struct vhost *vhost, const struct queue_options *options);

/* As the store has it; nothing is written. First the definition; then, of each of its levels that
 * the store knows, the counters. */
struct queue *queue_recover(struct vhost *vhost, const struct queue_options *options, uint64_t id);
void queue_recover_entries(struct queue *queue, const struct store_queue_state *state);

/* What the store's check found amiss in the entries of one of its levels. */
void queue_on_finding(struct queue *queue, const struct store_finding *finding);

/* Removes it with its bindings, entries and consumers; on_queue_deleted is called for each of
 * these. A reply about it waits for vhost->deletion_lsn. */
void queue_delete(struct queue *queue);

/* Other policies apply to it now: what follows from them happens at once, but for deadlines that
 * messages have already (11.1). */
void queue_apply_policies(struct queue *queue);

/* Out of memory only, for broker_release: the store keeps it. */
void queue_free(struct queue **queue);

void queue_owner_init(struct queue_owner *owner);
/* Deletes them all; what is due has expired before. */
void queue_owner_release(struct queue_owner *owner);

/* True when the client that owns `owner` may use the queue: it is not exclusive to another. */
static inline bool queue_is_open_to(const struct queue *queue, const struct queue_owner *owner)
{
    return !queue->exclusive || queue->owner == owner;
}

/* Entries, and their body octets, of all priorities. */
struct queue_depth {
    uint64_t ready, ready_bytes, unacked, unacked_bytes;
};
struct queue_depth queue_depth_of_levels(const struct queue *queue);

static inline uint64_t queue_ready_count(const struct queue *queue)
{
    return queue->others == NULL ? queue->window.ready_count : queue_depth_of_levels(queue).ready;
}

/* Appends. Takes its own reference on the message. When it is to be stored, the put joins the open
 * batch and message->unsynced counts it. false: the queue is full and refuses (reject-publish); it
 * has seen to the message's dead letter. */
bool queue_push(struct queue *queue, struct message *message);

/* Whether it would take one more message of this size, after what consumers can be handed. */
bool queue_has_room(struct queue *queue, uint64_t body_size);

/* Whether it would take one more message of this size beside those reserved before under the same
 * mark (a transaction's): reserves that if so. */
bool queue_reserve(struct queue *queue, uint64_t mark, uint64_t body_size);

/* Something to hand out, or someone to take it, has appeared. */
static inline void queue_wake(struct queue *queue)
{
    if (queue_ready_count(queue) > 0 && consumers_first(&queue->consumers) != NULL)
        loop_queue(queue->broker->loop, LOOP_DEFERRED, &queue->task);
}

/* basic.get: the first ready entry, now unacked; for a no-ack get the caller settles it with
 * queue_discard once it is sent. WINDOW_ON_DISK: a read was started, more is due before it than
 * goes at once, or something is on its way back, and waiter->on_loaded runs when it is worth trying
 * again (or the queue is gone). */
enum window_next queue_get(struct queue *queue, bool no_ack, struct place *place,
                           struct queue_waiter *waiter);
void queue_waiter_cancel(struct queue_waiter *waiter); /* harmless when not waiting */

/* Settling one delivery. consumer is who got it, also one that has left, or NULL (basic.get). */
void queue_ack(struct queue *queue, struct place place, struct consumer *consumer);
void queue_discard(struct queue *queue, struct place place); /* a no-ack get was sent */
void queue_reject(struct queue *queue, struct place place, struct consumer *consumer);
/* Back to where it stood, at once or later (11.8); failed: its delivery counts against the delivery
 * limit, above which it is dropped (10.19). */
void queue_requeue(struct queue *queue, struct place place, struct consumer *consumer, bool failed);
/* Something that it has handed out will be requeued in a later turn, and is. In between nobody is
 * given anything: it stands before what is ready. */
void queue_begin_return(struct queue *queue);
void queue_end_return(struct queue *queue);

/* After all that goes back at once: what is too much now is dropped, in the order of its queue and
 * not in that of its return (11.5). Of a quorum queue, after whoever waits has been served. */
void queues_drop_overflow(struct broker *broker);

/* It was redeclared, or asked by basic.get: x-expires counts from now (8.14). */
void queue_used(struct queue *queue);

/* Drops the ready entries; unacked stay. Returns how many; *lsn: what purge-ok must wait for, or
 * 0. */
uint64_t queue_purge(struct queue *queue, uint64_t *lsn);

void queue_attach(struct queue *queue, struct consumer *consumer);
/* Cancel or loss of the consumer, which is not to be touched after this: it ends when what it has
 * unacked is settled, at once if that is nothing. An auto-delete queue may delete itself. */
void queue_detach(struct queue *queue, struct consumer *consumer);

void queue_ref(struct queue *queue);
void queue_unref(struct queue **queue);

#endif
