#include "access/user.h"

#include <openssl/crypto.h>

#include "base/alloc.h"

struct loopback_name {
    struct map_link by_name;
    uint8_t bytes[];
};

void users_init(struct users *users)
{
    *users = (struct users){.generation = 1};
}

static void release_loopback(struct users *users)
{
    struct map_link *link;

    while ((link = map_next(&users->loopback, NULL)) != NULL) {
        struct loopback_name *name = container_of(link, struct loopback_name, by_name);
        map_remove(&users->loopback, link);
        free(name);
    }
    map_release(&users->loopback);
}

void users_release(struct users *users)
{
    struct map_link *link;

    while ((link = map_next(&users->by_name, NULL)) != NULL) {
        struct user *user = container_of(link, struct user, by_name);
        user_free(users, &user);
    }
    map_release(&users->by_name);
    release_loopback(users);
}

struct user *users_find(const struct users *users, struct slice name)
{
    struct map_link *link = map_find(&users->by_name, name);

    return link == NULL ? NULL : container_of(link, struct user, by_name);
}

struct user *user_new(struct users *users, struct slice name)
{
    struct user *user = xcalloc(1, sizeof(*user) + name.size);

    user->name = slice_of(user + 1, name.size);
    amqp_put_bytes((uint8_t *)(user + 1), name);
    user->limits = (struct user_limits){LIMIT_NONE, LIMIT_NONE};
    map_insert(&users->by_name, &user->by_name, user->name);
    return user;
}

void user_set_password(struct user *user, const struct password *password)
{
    user->password = *password;
    user->verified = false;
}

static void replace(struct slice *owned, struct slice with)
{
    char *copy = slice_to_string(with); /* before: it may be a part of what goes */

    free((void *)(uintptr_t)owned->data);
    *owned = slice_of(copy, with.size);
}

/* ---- tags ---- */

static bool is_of_tag(uint8_t octet)
{
    return octet > ' ' && octet < 0x7F && strchr("\"\\[]{}", octet) == NULL;
}

static bool has_tag(struct slice tags, struct slice tag)
{
    while (tags.size > 0) {
        const uint8_t *comma = memchr(tags.data, ',', tags.size);
        const size_t size = comma == NULL ? tags.size : (size_t)(comma - tags.data);
        if (slice_equal(slice_of(tags.data, size), tag))
            return true;
        const size_t used = size + (comma != NULL);
        tags = slice_of(tags.data + used, tags.size - used);
    }
    return false;
}

bool user_tags_are_valid(struct slice tags)
{
    if (tags.size > USER_TAGS_SIZE_MAX)
        return false;
    for (size_t i = 0; i < tags.size; i++)
        if (!is_of_tag(tags.data[i]))
            return false;
    return true;
}

bool user_set_tags(struct user *user, struct slice tags)
{
    if (!user_tags_are_valid(tags))
        return false;
    replace(&user->tags, tags);
    user->impersonator = has_tag(user->tags, SLICE("impersonator"));
    return true;
}

/* ---- loopback ---- */

void users_restrict_to_loopback(struct users *users, struct slice name)
{
    if (users_is_restricted(users, name))
        return;
    struct loopback_name *entry = xmalloc(sizeof(*entry) + name.size);
    amqp_put_bytes(entry->bytes, name);
    map_insert(&users->loopback, &entry->by_name, slice_of(entry->bytes, name.size));
}

bool users_is_restricted(const struct users *users, struct slice name)
{
    return map_find(&users->loopback, name) != NULL;
}

/* ---- grants ---- */

struct grant *user_grant(const struct user *user, struct slice vhost)
{
    struct map_link *link = map_find(&user->grants, vhost);

    return link == NULL ? NULL : container_of(link, struct grant, by_vhost);
}

static struct grant *grant_new(struct user *user, struct slice vhost)
{
    struct grant *grant = xcalloc(1, sizeof(*grant) + vhost.size);

    grant->user = user;
    grant->vhost = slice_of(grant + 1, vhost.size);
    amqp_put_bytes((uint8_t *)(grant + 1), vhost);
    TAILQ_INIT(&grant->topics);
    map_insert(&user->grants, &grant->by_vhost, grant->vhost);
    return grant;
}

static void release_rules(struct grant *grant)
{
    for (size_t right = 0; right < ACCESS_RIGHTS; right++)
        rule_release(&grant->rules[right]);
}

static void free_topic(struct grant *grant, struct topic_rule *topic)
{
    TAILQ_REMOVE(&grant->topics, topic, link);
    rule_release(&topic->write);
    rule_release(&topic->read);
    free(topic);
}

static void free_grant(struct grant *grant)
{
    struct topic_rule *topic;

    while ((topic = TAILQ_FIRST(&grant->topics)) != NULL)
        free_topic(grant, topic);
    release_rules(grant);
    map_remove(&grant->user->grants, &grant->by_vhost);
    free(grant);
}

static void free_if_empty(struct grant *grant)
{
    if (!grant->open && TAILQ_EMPTY(&grant->topics))
        free_grant(grant);
}

struct grant *user_set_grant(struct users *users, struct user *user, struct slice vhost,
                             const struct slice patterns[ACCESS_RIGHTS],
                             char error[PATTERN_ERROR_SIZE])
{
    struct access_rule rules[ACCESS_RIGHTS] = {0};

    for (size_t right = 0; right < ACCESS_RIGHTS; right++)
        if (!rule_init(&rules[right], patterns[right], error)) {
            while (right-- > 0)
                rule_release(&rules[right]);
            return NULL;
        }
    struct grant *grant = user_grant(user, vhost);
    if (grant == NULL)
        grant = grant_new(user, vhost);
    release_rules(grant);
    memcpy(grant->rules, rules, sizeof(rules));
    grant->open = true;
    users->generation++;
    return grant;
}

void user_clear_grant(struct users *users, struct grant *grant)
{
    grant->open = false;
    grant->record_id = 0;
    release_rules(grant);
    users->generation++;
    free_if_empty(grant);
}

static bool init_topic_rule(struct access_rule *rule, const struct user *user, struct slice vhost,
                            struct slice text, char error[PATTERN_ERROR_SIZE])
{
    struct buf expanded = BUF_EMPTY;

    topic_rule_expand(&expanded, text, user->name, vhost);
    const bool good = rule_init(rule, buf_slice(&expanded), error);
    buf_release(&expanded);
    if (good)
        replace(&rule->text, text); /* as it was written */
    return good;
}

static struct topic_rule *topic_new(const struct user *user, struct slice vhost,
                                    struct slice exchange, struct slice write, struct slice read,
                                    char error[PATTERN_ERROR_SIZE])
{
    struct topic_rule *topic = xcalloc(1, sizeof(*topic) + exchange.size);

    topic->exchange = slice_of(topic + 1, exchange.size);
    amqp_put_bytes((uint8_t *)(topic + 1), exchange);
    if (init_topic_rule(&topic->write, user, vhost, write, error) &&
        init_topic_rule(&topic->read, user, vhost, read, error))
        return topic;
    rule_release(&topic->write);
    free(topic);
    return NULL;
}

struct topic_rule *user_set_topic(struct users *users, struct user *user, struct slice vhost,
                                  struct slice exchange, struct slice write, struct slice read,
                                  char error[PATTERN_ERROR_SIZE])
{
    struct topic_rule *topic = topic_new(user, vhost, exchange, write, read, error);

    if (topic == NULL)
        return NULL;
    struct grant *grant = user_grant(user, vhost);
    if (grant == NULL)
        grant = grant_new(user, vhost);
    struct topic_rule *before = (struct topic_rule *)(uintptr_t)permission_topic(grant, exchange);
    if (before != NULL) {
        topic->record_id = before->record_id;
        free_topic(grant, before);
    }
    TAILQ_INSERT_TAIL(&grant->topics, topic, link);
    users->generation++;
    return topic;
}

void user_clear_topic(struct users *users, struct grant *grant, struct topic_rule *topic)
{
    free_topic(grant, topic);
    users->generation++;
    free_if_empty(grant);
}

void user_free(struct users *users, struct user **user)
{
    struct user *gone = *user;
    struct map_link *link;

    *user = NULL;
    assert(gone->connection_count == 0 && gone->channel_count == 0);
    while ((link = map_next(&gone->grants, NULL)) != NULL)
        free_grant(container_of(link, struct grant, by_vhost));
    map_release(&gone->grants);
    map_remove(&users->by_name, &gone->by_name);
    users->generation++;
    free((void *)(uintptr_t)gone->tags.data);
    OPENSSL_cleanse(&gone->password, sizeof(gone->password));
    free(gone);
}
