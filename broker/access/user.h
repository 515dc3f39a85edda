/* Users: who may log in, from where, with which tags and limits, and into which vhosts. Memory
 * only: whoever changes something durable is core/account.c. */
#ifndef ACCESS_USER_H
#define ACCESS_USER_H

#include "access/password.h"
#include "access/permission.h"
#include "base/map.h"

enum { USER_TAGS_SIZE_MAX = 1024, LIMIT_NONE = -1 };

struct user_limits {
    int64_t connection_max, channel_max; /* LIMIT_NONE: as many as it likes (17.6) */
};

struct user {
    struct map_link by_name;
    struct slice name; /* in one block with it */
    struct password password;
    struct slice tags; /* owned: "administrator,monitoring" */
    bool impersonator; /* is one of them (9.3) */
    struct user_limits limits;
    struct map grants; /* by vhost name: see access/permission.h */

    uint32_t connection_count; /* open ones; the session's */
    uint32_t channel_count;

    bool verified;      /* `proof` is of its present password */
    uint8_t proof[32];  /* see access/authenticator.h */
    uint64_t record_id; /* in the store */
    uint64_t lsn;       /* the batch that holds its last change */
};

struct users {
    struct map by_name;
    struct map loopback; /* names of those who may log in from loopback peers only (4.2.6) */
    uint64_t generation; /* of all grants: see access/permission.h */
};

void users_init(struct users *users);
void users_release(struct users *users);

struct user *users_find(const struct users *users, struct slice name);

/* A new one, without password, tags, limits, grants; the name must not be there yet. */
struct user *user_new(struct users *users, struct slice name);
void user_free(struct users *users, struct user **user); /* with its grants */

void user_set_password(struct user *user, const struct password *password);

/* Tags in one text, separated by commas: short enough, and of the letters that tags have. */
bool user_tags_are_valid(struct slice tags);
bool user_set_tags(struct user *user, struct slice tags); /* false: they are not valid */

/* Names of users, whether they exist or not. */
void users_restrict_to_loopback(struct users *users, struct slice name);
bool users_is_restricted(const struct users *users, struct slice name);

/* ---- grants ---- */

/* NULL: none. An open one is what lets the user into the vhost. */
struct grant *user_grant(const struct user *user, struct slice vhost);
static inline struct grant *user_open_grant(const struct user *user, struct slice vhost)
{
    struct grant *grant = user_grant(user, vhost);
    return grant != NULL && grant->open ? grant : NULL;
}

/* Opens the grant, making it if need be, with these patterns. NULL: one is no pattern. */
struct grant *user_set_grant(struct users *users, struct user *user, struct slice vhost,
                             const struct slice patterns[ACCESS_RIGHTS],
                             char error[PATTERN_ERROR_SIZE]);
/* Shuts it; frees it unless topic rules are left. */
void user_clear_grant(struct users *users, struct grant *grant);

/* The rule for one exchange, in place of the one there was. NULL: one is no pattern. */
struct topic_rule *user_set_topic(struct users *users, struct user *user, struct slice vhost,
                                  struct slice exchange, struct slice write, struct slice read,
                                  char error[PATTERN_ERROR_SIZE]);
void user_clear_topic(struct users *users, struct grant *grant, struct topic_rule *topic);

#endif
