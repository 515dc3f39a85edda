#include "core/account.h"

#include "base/log.h"
#include "core/definition.h"
#include "core/vhost.h"

static uint64_t save(struct broker *broker, struct user *user)
{
    definition_put_user(broker, user);
    return store_open_lsn(broker->store);
}

struct user *account_create(struct broker *broker, struct slice name,
                            const struct password *password, uint64_t *lsn)
{
    assert(name.size > 0 && name.size <= USER_NAME_SIZE_MAX);
    struct user *user = user_new(&broker->users, name);

    user_set_password(user, password);
    *lsn = save(broker, user);
    return user;
}

void account_set_password(struct broker *broker, struct user *user, const struct password *password,
                          uint64_t *lsn)
{
    user_set_password(user, password);
    *lsn = save(broker, user);
}

bool account_set_tags(struct broker *broker, struct user *user, struct slice tags, uint64_t *lsn)
{
    if (!user_set_tags(user, tags))
        return false;
    *lsn = save(broker, user);
    return true;
}

void account_set_limits(struct broker *broker, struct user *user, const struct user_limits *limits,
                        uint64_t *lsn)
{
    user->limits = *limits;
    *lsn = save(broker, user);
}

/* ---- grants ---- */

static void tell(struct broker *broker, struct user *user, struct slice vhost)
{
    if (broker->watcher != NULL)
        broker->watcher->on_grant_changed(broker->watcher, user, vhost);
}

bool account_set_grant(struct broker *broker, struct user *user, const struct vhost *vhost,
                       const struct slice patterns[ACCESS_RIGHTS], uint64_t *lsn,
                       char error[PATTERN_ERROR_SIZE])
{
    struct grant *grant = user_set_grant(&broker->users, user, vhost->name, patterns, error);

    if (grant == NULL)
        return false;
    definition_put_grant(broker, grant);
    *lsn = store_open_lsn(broker->store);
    tell(broker, user, vhost->name);
    return true;
}

/* Whoever may not use the vhost any more is told while the grant is still there. */
void account_clear_grant(struct broker *broker, struct grant *grant, uint64_t *lsn)
{
    *lsn = store_open_lsn(broker->store);
    if (!grant->open)
        return;
    definition_delete_grant(broker, grant);
    grant->open = false;
    tell(broker, grant->user, grant->vhost);
    user_clear_grant(&broker->users, grant);
}

bool account_set_topic(struct broker *broker, struct user *user, const struct vhost *vhost,
                       struct slice exchange, struct slice write, struct slice read, uint64_t *lsn,
                       char error[PATTERN_ERROR_SIZE])
{
    struct topic_rule *topic =
        user_set_topic(&broker->users, user, vhost->name, exchange, write, read, error);

    if (topic == NULL)
        return false;
    struct grant *grant = user_grant(user, vhost->name);
    definition_put_topic(broker, grant, topic);
    if (grant->open)
        definition_put_grant(broker, grant);
    *lsn = store_open_lsn(broker->store);
    return true;
}

void account_clear_topic(struct broker *broker, struct grant *grant, struct topic_rule *topic,
                         uint64_t *lsn)
{
    const bool open = grant->open; /* else it may go with the topic */

    definition_delete_topic(broker, topic);
    *lsn = store_open_lsn(broker->store);
    user_clear_topic(&broker->users, grant, topic);
    if (open)
        definition_put_grant(broker, grant);
}

/* ---- the end ---- */

static void forget_grant(struct broker *broker, struct grant *grant)
{
    struct topic_rule *topic, *next;

    if (grant->open)
        definition_delete_grant(broker, grant);
    TAILQ_FOREACH (topic, &grant->topics, link)
        definition_delete_topic(broker, topic);
    grant->open = true; /* so that it goes with its rules, not with the last topic */
    TAILQ_FOREACH_SAFE (topic, &grant->topics, link, next)
        user_clear_topic(&broker->users, grant, topic);
    user_clear_grant(&broker->users, grant);
}

void account_forget_vhost(struct broker *broker, struct slice vhost)
{
    map_each (&broker->users.by_name, link) {
        struct user *user = container_of(link, struct user, by_name);
        struct grant *grant = user_grant(user, vhost);
        if (grant != NULL)
            forget_grant(broker, grant);
    }
}

void account_delete(struct broker *broker, struct user *user, uint64_t *lsn)
{
    struct map_link *link;

    if (broker->watcher != NULL)
        broker->watcher->on_user_deleted(broker->watcher, user);
    while ((link = map_next(&user->grants, NULL)) != NULL)
        forget_grant(broker, container_of(link, struct grant, by_vhost));
    definition_delete_user(broker, user);
    *lsn = store_open_lsn(broker->store);
    user_free(&broker->users, &user);
}

/* ---- after a start ---- */

static void report_lost_topics(const struct grant *grant)
{
    const struct topic_rule *topic;

    TAILQ_FOREACH (topic, &grant->topics, link)
        if (topic->record_id == 0)
            log_error(
                "the topic permission of user '%.*s' for exchange '%.*s' in vhost '%.*s' is lost: "
                "no routing key is allowed until it is set again (stoatctl set_topic_permissions)",
                SLICE_ARG(grant->user->name), SLICE_ARG(topic->exchange), SLICE_ARG(grant->vhost));
}

void account_report_losses(const struct broker *broker)
{
    if (broker->users.by_name.count == 0)
        log_error(
            "there is no user left: nobody can log in until 'stoatctl add_user' makes one, and "
            "'stoatctl set_permissions' says what it may do");
    map_each (&broker->users.by_name, link) {
        const struct user *user = container_of(link, struct user, by_name);
        map_each (&user->grants, grant)
            report_lost_topics(container_of(grant, struct grant, by_vhost));
    }
}

void account_save_all(struct broker *broker)
{
    struct topic_rule *topic;

    map_each (&broker->users.by_name, link) {
        struct user *user = container_of(link, struct user, by_name);
        save(broker, user);
        map_each (&user->grants, inner) {
            struct grant *grant = container_of(inner, struct grant, by_vhost);
            if (grant->open)
                definition_put_grant(broker, grant);
            TAILQ_FOREACH (topic, &grant->topics, link)
                if (topic->record_id != 0)
                    definition_put_topic(broker, grant, topic);
        }
    }
    broker->restored = false;
}
