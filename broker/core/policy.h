/* Policies: settings that an operator gives to all queues and exchanges of a vhost whose names
 * match a pattern, while they live (section 17).
 *
 *     vhost ─▶ policies, and operators' policies: each a list, the highest priority first
 *                 ▲
 *                 └── queue, exchange: the first of each list that applies to it
 *
 * The first that applies does so alone; an operator's is combined over it, and core/settings over
 * both and the arguments. A policy applies when it is meant for such a thing (apply-to), knows only
 * keys that the queue's type has (17.4), and its pattern is found in the name.
 *
 * Names are matched when a policy is set and when something is declared, never when a message
 * passes. A change is matched against each name once, and only where it could make a difference. A
 * pattern that takes too many steps to match a name that is there is refused; a name declared later
 * that it takes too many steps to match is one that it does not match, and the log says so.
 *
 * What follows from a change happens at once, but for the deadlines of messages: these are fixed
 * when a message comes to the queue (11.1).
 *
 * A policy never changes: to set it again replaces it. It is counted, because settings are slices
 * of its definition: it lives as long as anything it applied to, though no list has it any more. */
#ifndef CORE_POLICY_H
#define CORE_POLICY_H

#include "access/pattern.h"
#include "base/base.h"
#include "base/buf.h"

struct vhost;
struct queue;
struct exchange;

enum policy_kind { POLICY_PLAIN, POLICY_OPERATOR, POLICY_KINDS };

enum policy_scope {
    POLICY_ALL,
    POLICY_QUEUES,
    POLICY_CLASSIC_QUEUES,
    POLICY_QUORUM_QUEUES,
    POLICY_STREAMS,
    POLICY_EXCHANGES,
    POLICY_SCOPES
};

const char *policy_scope_name(enum policy_scope scope); /* as in apply-to */

struct policy_options {
    enum policy_kind kind;
    enum policy_scope apply_to;
    int32_t priority;
    struct slice name, pattern;
    struct slice definition; /* a checked field table */
};

struct policy {
    TAILQ_ENTRY(policy) link;      /* in its vhost's list */
    uint32_t refs;                 /* the list's, and one per queue and exchange it applies to */
    struct policy_options options; /* the slices are in one block with the policy */
    struct pattern *pattern;
    unsigned targets;   /* what it can apply to: by its scope, and by its keys */
    uint64_t record_id; /* in the store */
    uint64_t lsn;       /* the batch that holds its definition */
};
TAILQ_HEAD(policy_list, policy);

/* Those that apply to one queue or exchange: a reference on each, NULL where there is none. */
struct policy_set {
    struct policy *of[POLICY_KINDS];
};

/* ---- for the operator ---- */

enum { POLICY_ERROR_SIZE = 512 };

struct policy *policy_find(const struct vhost *vhost, enum policy_kind kind, struct slice name);

/* Makes a policy, in place of one of that name and kind, and applies it. A reply waits for
 * policy->lsn. NULL: it is not a policy, and error says why. */
struct policy *policy_set(struct vhost *vhost, const struct policy_options *options,
                          char error[POLICY_ERROR_SIZE]);

/* As the store has it. NULL when it cannot be used. */
struct policy *policy_recover(struct vhost *vhost, const struct policy_options *options,
                              uint64_t record_id);

/* Takes it away. *lsn: what a reply must wait for. */
void policy_clear(struct vhost *vhost, struct policy *policy, uint64_t *lsn);

/* For vhost_free: the lists; queues and exchanges are gone. */
void policies_release(struct vhost *vhost);

/* ---- for queues and exchanges ---- */

/* Fills in what applies to a new one, by its name and type. */
void policy_choose_for_queue(struct queue *queue);
void policy_choose_for_exchange(struct exchange *exchange);

void policy_set_release(struct policy_set *set);

/* The definition of one of them; empty where there is none. */
struct slice policy_definition(const struct policy_set *set, enum policy_kind kind);

/* Appends both together as one table: "effective_policy_definition" (17.3). */
void policy_write_effective(const struct policy_set *set, struct buf *out);

#endif
