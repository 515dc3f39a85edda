/* Definitions as bytes, for the store: vhosts, exchanges, queues, bindings, policies, users and
 * what they may do as named records.
 *
 *     key     kind (1) | id (8)                     id: given once, counted up; a queue's is its id in the store
 *     value   version (1) | names and flags as below, names with one octet of size, arguments with
 *             four; limits are signed, below 0 where there is none
 *
 *       vhost      name, and from version 2 on: description (4), tags (4), max-connections (8),
 *                  max-queues (8)
 *       exchange   vhost, name, type, flags (1: auto-delete, 2: internal), arguments
 *       queue      vhost, name, flags (1: auto-delete, 2: no client's, but where the messages of
 *                  the delayed exchange of this name wait), arguments
 *       binding    vhost, source, flags (1: to an exchange), destination, key, arguments
 *       policy     vhost, name, flags (1: an operator's), apply-to (1), priority (4), pattern,
 *                  definition
 *       user       name, password (access/password.h), tags (4), max-connections (8), max-channels
 *                  (8)
 *       grant      vhost, user, configure (4), write (4), read (4), and from version 2 on: the
 *                  exchange of each topic of theirs
 *       topic      vhost, user, exchange, write (4), read (4)
 *
 * Kinds are numbered in the order in which recovery needs them. The key has no names in it, because
 * they do not fit: a binding's identity alone is longer than the store's keys, and shortening it by
 * a hash would let a peer look for collisions. So the names are in the value, and the object in
 * memory remembers its id. Users, grants and topics, without which nobody gets in, are there twice:
 * once more under their kind with COPY added, behind all others, which is read where the first is
 * lost. A grant names the topics that restrict it: one whose record is lost lets no key pass. Only
 * what is durable is here; the predeclared exchanges are implied by their vhost. */
#ifndef CORE_DEFINITION_H
#define CORE_DEFINITION_H

#include "access/user.h"
#include "core/exchange.h"
#include "core/queue.h"
#include "core/vhost.h"

/* Into the open batch; but for a queue, which has its id, they give the object its record_id. Those
 * of vhosts, users and what these may do can be put again, in place of what was there. */
void definition_put_vhost(struct vhost *vhost);
void definition_put_exchange(struct exchange *exchange);
void definition_put_queue(const struct queue *queue);
void definition_put_binding(struct binding *binding);
void definition_put_policy(const struct vhost *vhost, struct policy *policy);
void definition_put_user(struct broker *broker, struct user *user);
void definition_put_grant(struct broker *broker, struct grant *grant);
void definition_put_topic(struct broker *broker, const struct grant *grant,
                          struct topic_rule *topic);
void definition_delete_vhost(const struct vhost *vhost);
void definition_delete_user(struct broker *broker, const struct user *user);
void definition_delete_grant(struct broker *broker, const struct grant *grant);
void definition_delete_topic(struct broker *broker, const struct topic_rule *topic);
void definition_delete_exchange(const struct exchange *exchange);
void definition_delete_queue(const struct queue *queue);
void definition_delete_binding(const struct binding *binding);
void definition_delete_policy(const struct vhost *vhost, const struct policy *policy);

/* One record of the store into memory: makes the vhost, exchange, queue, binding, ... False
 * when it cannot be understood (logged; the caller goes on with the next). broker->restored: a copy
 * was needed. */
bool definition_recover(struct broker *broker, struct slice key, struct slice value);

#endif
