/* Who may do what: one table of operations, one function that everyone asks.
 *
 *     operation ─▶ row: which rights on which resources ─▶ the user's patterns in this vhost ─▶ yes, or 403
 *
 * In each vhost that a user may use it has a *grant*: a pattern for configure, write and read each,
 * found in the names of what may be configured, written to and read (16.1). An empty pattern is
 * found nowhere. The default exchange is asked about under the name amq.default.
 *
 * On topic exchanges a user may be restricted to routing keys beside (16.3): a pattern for keys it
 * publishes with and one for keys it binds with. {username} and {vhost} in them stand for these
 * names, whatever characters they have. Without such a restriction all keys are allowed.
 *
 * A pattern whose match takes too many steps is one that is not found: what cannot be decided is
 * refused.
 *
 * Any change of a grant counts `generation` of its users up: who has kept an answer asks again
 * when it has moved. */
#ifndef ACCESS_PERMISSION_H
#define ACCESS_PERMISSION_H

#include "access/pattern.h"
#include "amqp/reply.h"
#include "base/buf.h"
#include "base/map.h"

struct user;

enum access_right { ACCESS_CONFIGURE, ACCESS_WRITE, ACCESS_READ, ACCESS_RIGHTS };

/* The right's name, as in texts and in the API. */
const char *access_right_name(enum access_right right);

struct access_rule {         /* a pattern, as it was written, and compiled */
    struct slice text;       /* owned */
    struct pattern *pattern; /* NULL when it need not be asked: see always */
    bool always;             /* found everywhere */
};

struct topic_rule {
    TAILQ_ENTRY(topic_rule) link;
    struct slice exchange; /* in one block with it */
    struct access_rule write, read;
    uint64_t record_id; /* in the store */
};
TAILQ_HEAD(topic_rule_list, topic_rule);

struct grant {                /* of one user in one vhost: made and freed in access/user.c */
    struct map_link by_vhost; /* in user->grants */
    struct user *user;
    struct slice vhost; /* its name, in one block with the grant */
    bool open;          /* the user may use the vhost; else only topic rules are here */
    struct access_rule rules[ACCESS_RIGHTS];
    struct topic_rule_list topics;
    uint64_t record_id; /* of the rules, in the store; 0 while not open */
};

enum access_operation {
    ACCESS_EXCHANGE_DECLARE, /* other: the alternate exchange, if one is given */
    ACCESS_EXCHANGE_DECLARE_PASSIVE,
    ACCESS_EXCHANGE_DELETE,
    ACCESS_EXCHANGE_BIND,   /* name: the destination, other: the source */
    ACCESS_EXCHANGE_UNBIND, /* likewise */
    ACCESS_QUEUE_DECLARE,   /* other: the dead letter exchange, if one is given */
    ACCESS_QUEUE_DECLARE_PASSIVE,
    ACCESS_QUEUE_DELETE,
    ACCESS_QUEUE_BIND, /* name: the queue, other: the exchange */
    ACCESS_QUEUE_UNBIND,
    ACCESS_QUEUE_PURGE,
    ACCESS_GET,
    ACCESS_CONSUME,
    ACCESS_PUBLISH, /* name: the exchange */
    ACCESS_OPERATIONS
};

/* Whether the grant (NULL: there is none) is enough for the operation on what name names; other is
 * the second resource of those that have one, its data NULL when there is none. Else 403. */
bool permission_check(const struct grant *grant, enum access_operation operation, struct slice name,
                      struct slice other, struct amqp_error *error);

/* Whether the grant has topic rules for this exchange. */
const struct topic_rule *permission_topic(const struct grant *grant, struct slice exchange);

/* The same for a key at a topic exchange: right is ACCESS_WRITE of a publish, ACCESS_READ of a
 * binding. */
bool permission_check_topic(const struct grant *grant, enum access_right right,
                            struct slice exchange, struct slice key, struct amqp_error *error);

/* ---- for access/user.c ---- */

/* False, with what is wrong, when the text is no pattern. */
bool rule_init(struct access_rule *rule, struct slice text, char error[PATTERN_ERROR_SIZE]);
void rule_release(struct access_rule *rule);

/* The pattern of a topic rule, with the variables in it replaced; appended. */
void topic_rule_expand(struct buf *out, struct slice text, struct slice user, struct slice vhost);

#endif
