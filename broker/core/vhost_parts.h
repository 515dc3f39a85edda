/* What the parts of core/vhost.h share.
 *
 * What is durable joins the open batch as a definition, and the caller learns its LSN. Deleting
 * leaves a mark on the vhost, `deletion_lsn`: who asks to delete what is gone already waits as long
 * as the one who deleted it. */
#ifndef CORE_VHOST_PARTS_H
#define CORE_VHOST_PARTS_H

#include "core/argument.h"
#include "core/vhost.h"

/* By name, NULL when there is none. */
struct exchange *vhost_get_exchange(const struct vhost *vhost, struct slice name);
struct queue *vhost_get_queue(const struct vhost *vhost, struct slice name);

/* ---- what requests are asked, and how they are refused: vhost_check.c ---- */

/* permission_check of who asks, which may be NULL; other as there. */
bool vhost_check_access(const struct asker *asking, enum access_operation operation,
                        struct slice name, struct slice other, struct amqp_error *error);

/* The same of a key to bind with, at the source (16.3). */
bool vhost_check_topic(const struct asker *asking, const struct exchange *exchange,
                       struct slice key, struct amqp_error *error);

/* True when who asks may use the queue: it is not exclusive to another. */
static inline bool vhost_is_open_to(const struct queue *queue, const struct asker *asking)
{
    return queue_is_open_to(queue, asking == NULL ? NULL : asking->owner);
}

bool vhost_check_not_default(struct slice exchange_name, struct amqp_error *error);
/* kind: "queue" or "exchange". */
bool vhost_check_not_reserved(const char *kind, struct slice name, struct amqp_error *error);

/* 7.4, 8.7.2: what a redeclare says against what is there. */
bool vhost_check_equal(const struct argument_owner *owner, const char *property,
                       struct slice received, struct slice current, struct amqp_error *error);
bool vhost_check_same(const struct argument_owner *owner, const char *property, bool received,
                      bool current, struct amqp_error *error);

/* These answer NULL or false, for the caller to return. */
struct exchange *vhost_fail_no_exchange(const struct vhost *vhost, struct slice name,
                                        struct amqp_error *error);
struct queue *vhost_fail_no_queue(const struct vhost *vhost, struct slice name,
                                  struct amqp_error *error);
bool vhost_fail_locked(const struct queue *queue, struct amqp_error *error); /* 8.7.1 */

/* Something durable is deleted by the open batch. */
void vhost_note_deletion(struct vhost *vhost);

/* ---- deleting: vhost_exchange.c ---- */

/* Its source, if it was the last of an auto-delete exchange, is doomed by it: the caller ends with
 * vhost_bury_exchanges. */
void vhost_delete_binding(struct binding *binding);
/* Until nothing is doomed any more. */
void vhost_bury_exchanges(struct vhost *vhost);
void vhost_delete_exchanges(struct vhost *vhost);    /* all, the predeclared ones too */
void vhost_reap_exchange(struct exchange *exchange); /* one of vhost->deleted: frees it */

#endif
