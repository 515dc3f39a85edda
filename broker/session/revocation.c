#include "session/revocation.h"

#include "core/vhost.h"
#include "session/channel.h"
#include "session/service.h"
#include "session/subscription.h"

static struct service *service_of(struct access_watcher *watcher)
{
    return container_of(watcher, struct service, watcher);
}

static void on_user_deleted(struct access_watcher *watcher, struct user *user)
{
    struct connection *connection, *next;
    char text[USER_NAME_SIZE_MAX + 32];

    snprintf(text, sizeof(text), "user '%.*s' is deleted", SLICE_ARG(user->name));
    TAILQ_FOREACH_SAFE (connection, &service_of(watcher)->connections, link, next)
        if (connection->user == user)
            connection_force_close(connection, text);
    assert(user->connection_count == 0);
}

static void on_vhost_deleted(struct access_watcher *watcher, struct vhost *vhost)
{
    struct connection *connection, *next;
    char text[NAME_SIZE_MAX + 32];

    snprintf(text, sizeof(text), "vhost '%.*s' is deleted", SLICE_ARG(vhost->name));
    TAILQ_FOREACH_SAFE (connection, &service_of(watcher)->connections, link, next)
        if (connection->vhost == vhost)
            connection_force_close(connection, text);
    assert(vhost->connection_count == 0);
}

static void cancel_consumers(struct channel *channel)
{
    struct map_link *link = map_next(&channel->consumers, NULL);
    struct amqp_error error;

    while (link != NULL) {
        struct subscription *subscription = container_of(link, struct subscription, by_tag);
        const struct queue *queue = subscription->consumer.queue;
        link = map_next(&channel->consumers, link);
        if (!permission_check(channel->connection->asker.grant, ACCESS_CONSUME, queue->name,
                              (struct slice){0}, &error))
            subscription_cancel(&subscription);
    }
}

static void judge_again(struct connection *connection, const struct grant *grant)
{
    char text[2 * AMQP_SHORTSTR_MAX + 64];

    connection->asker.grant = grant;
    if (grant != NULL) {
        map_each (&connection->channels, link)
            cancel_consumers(container_of(link, struct channel, by_number));
        return;
    }
    snprintf(text, sizeof(text), "access to vhost '%.*s' refused for user '%s'",
             SLICE_ARG(connection->vhost->name), connection->user_name);
    connection_force_close(connection, text);
}

static void on_grant_changed(struct access_watcher *watcher, struct user *user, struct slice vhost)
{
    const struct grant *grant = user_open_grant(user, vhost);
    struct connection *connection, *next;

    TAILQ_FOREACH_SAFE (connection, &service_of(watcher)->connections, link, next)
        if (connection->user == user && connection->vhost != NULL &&
            slice_equal(connection->vhost->name, vhost))
            judge_again(connection, grant);
}

void revocation_init(struct access_watcher *watcher)
{
    *watcher = (struct access_watcher){
        .on_user_deleted = on_user_deleted,
        .on_grant_changed = on_grant_changed,
        .on_vhost_deleted = on_vhost_deleted,
    };
}
