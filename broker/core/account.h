/* Users and what they may do, as operators change them: in memory, in the store and for those who
 * are connected, in one step.
 *
 *     operator ─▶ account_... ─┬─▶ access/user       memory
 *                              ├─▶ definition_put    the open batch: a reply waits for its LSN
 *                              └─▶ access_watcher    live connections: the session's
 *
 * Each gives the LSN that a reply must wait for in *lsn. */
#ifndef CORE_ACCOUNT_H
#define CORE_ACCOUNT_H

#include "access/user.h"
#include "core/broker.h"

/* What became of users matters to those who are connected; the session fills this in. */
struct access_watcher {
    /* The user goes: nobody may refer to it when this returns. */
    void (*on_user_deleted)(struct access_watcher *watcher, struct user *user);
    /* Its grant in the vhost is another one now, or none. */
    void (*on_grant_changed)(struct access_watcher *watcher, struct user *user, struct slice vhost);
    /* The vhost goes: no client may use it when this returns. */
    void (*on_vhost_deleted)(struct access_watcher *watcher, struct vhost *vhost);
};

enum { USER_NAME_SIZE_MAX = 255 };

/* A new user of this name, which must be none yet and have 1 to USER_NAME_SIZE_MAX octets. */
struct user *account_create(struct broker *broker, struct slice name,
                            const struct password *password, uint64_t *lsn);
void account_delete(struct broker *broker, struct user *user, uint64_t *lsn);

/* Those who are connected stay. */
void account_set_password(struct broker *broker, struct user *user, const struct password *password,
                          uint64_t *lsn);
/* False: see user_set_tags. */
bool account_set_tags(struct broker *broker, struct user *user, struct slice tags, uint64_t *lsn);
/* For what comes: those who are above a new limit stay. */
void account_set_limits(struct broker *broker, struct user *user, const struct user_limits *limits,
                        uint64_t *lsn);

/* False, with what is wrong, when one is no pattern. */
bool account_set_grant(struct broker *broker, struct user *user, const struct vhost *vhost,
                       const struct slice patterns[ACCESS_RIGHTS], uint64_t *lsn,
                       char error[PATTERN_ERROR_SIZE]);
void account_clear_grant(struct broker *broker, struct grant *grant, uint64_t *lsn);

bool account_set_topic(struct broker *broker, struct user *user, const struct vhost *vhost,
                       struct slice exchange, struct slice write, struct slice read, uint64_t *lsn,
                       char error[PATTERN_ERROR_SIZE]);
void account_clear_topic(struct broker *broker, struct grant *grant, struct topic_rule *topic,
                         uint64_t *lsn);

/* For vhost_delete: the grants of all users in it. Nobody is told. */
void account_forget_vhost(struct broker *broker, struct slice vhost);

/* Says in the log what users lack after a start: all of them, or topic permissions that their
 * grants speak of. */
void account_report_losses(const struct broker *broker);

/* Some of it was read from copies: writes all of it anew. */
void account_save_all(struct broker *broker);

#endif
