/* A vhost: names to exchanges and queues, and every operation that creates, binds or deletes them.
 * These functions hold all the rules: who may (access/permission.h), what may be (existence,
 * equivalence, reserved names); replies belong to session/. Names have at most 255 octets,
 * arguments are checked tables.
 *
 * Each that can fail fills a struct amqp_error (code and text of wire-behaviour sections 5, 7, 8)
 * and returns false or NULL. Each that changes something durable gives the LSN that a reply must
 * wait for in *lsn: 0 when there is nothing to wait for. For things that exist already it is the
 * LSN of their definition, so that a second client does not see an ok before the first. */
#ifndef CORE_VHOST_H
#define CORE_VHOST_H

#include "core/broker.h"
#include "core/exchange.h"
#include "core/policy.h"
#include "core/queue.h"

/* Who asks. Where a function takes one, NULL is the broker itself: it may do everything, and
 * nothing exclusive is its own. */
struct asker {
    struct queue_owner *owner; /* of the exclusive queues that it may use; or NULL */
    const struct grant *grant; /* NULL: may do nothing */
    bool is_operator;          /* may do everything, whatever the grant */
};

struct vhost_limits {
    int64_t connection_max, queue_max; /* LIMIT_NONE: no limit (17.6) */
};

/* What a new vhost begins with: the limits of the first rule whose pattern its name matches. */
struct vhost_rule {
    struct pattern *pattern;
    struct vhost_limits limits;
};

struct vhost {
    struct map_link by_name; /* in broker->vhosts, unless it is deleted */
    struct broker *broker;
    uint32_t refs; /* the broker's, and one per exchange, queue and connection */
    bool is_deleted;
    struct slice name;
    struct slice description, tags; /* owned; tags: "a,b" */
    struct vhost_limits limits;
    uint32_t connection_count; /* open ones; the session's */
    struct map exchanges, queues;
    struct policy_list policies[POLICY_KINDS]; /* core/policy.c's */
    struct map reply_targets;                  /* see core/exchange.h; the session's */
    struct exchange *default_exchange;
    struct exchange_list doomed;  /* deleted, but still with bindings; empty between operations */
    struct exchange_list deleted; /* to be freed in the REAP phase */
    uint64_t record_id;           /* in the store */
    /* The last batch that deletes something durable: every delete-ok and unbind-ok waits for it,
     * also those that found nothing to delete. */
    uint64_t deletion_lsn;
};

enum { NAME_SIZE_MAX = 255, ARGUMENTS_SIZE_MAX = 256 * 1024, VHOST_TEXT_SIZE_MAX = 4096 };

/* The name without CR and LF (8.1): itself, or a copy in room. Operations that declare, delete or
 * bind do so themselves; this is for who must know the name before, and for passive declares. */
struct slice vhost_strip_name(struct slice name, uint8_t room[NAME_SIZE_MAX]);

struct vhost *vhost_find(struct broker *broker, struct slice name);
struct vhost *vhost_new(
    struct broker *broker, struct slice name,
    bool recovered); /* with the predeclared exchanges of 7.1; joins the batch unless recovered */
void vhost_free(struct vhost **vhost); /* memory only */

/* A new one for an operator; NULL: the name is taken or none, or there are too many (17.7). */
struct vhost *vhost_create(struct broker *broker, struct slice name, uint64_t *lsn,
                           struct amqp_error *error);
/* With everything in it, all that its users may do in it included, in one batch. Its clients are
 * told first. */
void vhost_delete(struct vhost *vhost, uint64_t *lsn);

/* In memory only: a description and tags, separated by commas. */
void vhost_describe(struct vhost *vhost, struct slice description, struct slice tags);
void vhost_save(struct vhost *vhost, uint64_t *lsn); /* after any of its own fields has changed */

struct vhost *vhost_ref(struct vhost *vhost);
void vhost_unref(struct vhost **vhost);

/* exchange.declare, 7.2 to 7.5. The default exchange is refused, passive too. */
struct exchange *vhost_declare_exchange(struct vhost *vhost, const struct exchange_options *options,
                                        const struct asker *asking, uint64_t *lsn,
                                        struct amqp_error *error);
struct exchange *vhost_inspect_exchange(struct vhost *vhost, struct slice name,
                                        const struct asker *asking, struct amqp_error *error);
struct exchange *vhost_find_exchange(
    struct vhost *vhost, struct slice name,
    struct amqp_error *error); /* 404; "" is the default exchange */
bool vhost_delete_exchange(struct vhost *vhost, struct slice name, bool if_unused,
                           const struct asker *asking, uint64_t *lsn, struct amqp_error *error);

/* queue.declare, 8.1 to 8.8. options->name empty: a server-named queue. options->owner is who asks,
 * for an exclusive queue, else NULL. */
struct queue *vhost_declare_queue(struct vhost *vhost, const struct queue_options *options,
                                  const struct asker *asking, uint64_t *lsn,
                                  struct amqp_error *error);
/* For this operation: 403, 404 when absent, 405 when exclusive to another. */
struct queue *vhost_find_queue(struct vhost *vhost, struct slice name,
                               enum access_operation operation, const struct asker *asking,
                               struct amqp_error *error);
/* 8.12; *count: entries that were ready. Absent is success with 0. */
bool vhost_delete_queue(struct vhost *vhost, struct slice name, bool if_unused, bool if_empty,
                        const struct asker *asking, uint64_t *count, uint64_t *lsn,
                        struct amqp_error *error);

struct binding_request {
    struct slice source;
    struct slice destination;
    bool to_exchange; /* the destination is an exchange */
    struct slice key, arguments;
};

/* queue.bind, exchange.bind and their opposites, 7.18 to 7.20. */
bool vhost_bind(struct vhost *vhost, const struct binding_request *request,
                const struct asker *asking, uint64_t *lsn, struct amqp_error *error);
bool vhost_unbind(struct vhost *vhost, const struct binding_request *request,
                  const struct asker *asking, uint64_t *lsn, struct amqp_error *error);

/* As the store has them; nothing is written. NULL when they do not fit what is there already. */
struct exchange *vhost_recover_exchange(struct vhost *vhost,
                                        const struct exchange_options *options);
struct binding *vhost_recover_binding(struct vhost *vhost, const struct binding_request *request);

/* For queue_delete: its bindings go, and auto-delete exchanges with their last one. */
void vhost_drop_bindings_of_queue(struct vhost *vhost, struct queue *queue);

/* At most ARGUMENTS_SIZE_MAX. */
bool vhost_check_arguments_size(struct slice arguments, struct amqp_error *error);

/* Whether names, keys and arguments of so many octets fit beside what is there. what and name: of
 * what is to be. */
bool vhost_check_octets(const struct vhost *vhost, const char *what, struct slice name,
                        size_t octets, struct amqp_error *error);

#endif
