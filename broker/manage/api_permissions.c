/* /api/permissions and /api/topic-permissions, of all, of one vhost, of one user, and of one in the
 * other. */
#include "core/account.h"
#include "manage/api.h"

static struct broker *broker_of(const struct manage_request *request)
{
    return request->manage->options.broker;
}

static json_t *begin_object(const struct grant *grant)
{
    json_t *object = json_object();

    json_put_slice(object, "user", grant->user->name);
    json_put_slice(object, "vhost", grant->vhost);
    return object;
}

static json_t *grant_object(const struct grant *grant)
{
    json_t *object = begin_object(grant);

    for (size_t right = 0; right < ACCESS_RIGHTS; right++)
        json_put_slice(object, access_right_name(right), grant->rules[right].text);
    return object;
}

static json_t *topic_object(const struct grant *grant, const struct topic_rule *topic)
{
    json_t *object = begin_object(grant);

    json_put_slice(object, "exchange", topic->exchange);
    json_put_slice(object, "write", topic->write.text);
    json_put_slice(object, "read", topic->read.text);
    return object;
}

/* ---- lists ---- */

typedef void add_grant(const struct grant *grant, json_t *list);

static void add_permissions(const struct grant *grant, json_t *list)
{
    if (grant->open)
        json_array_append_new(list, grant_object(grant));
}

static void add_topics(const struct grant *grant, json_t *list)
{
    const struct topic_rule *topic;

    TAILQ_FOREACH (topic, &grant->topics, link)
        json_array_append_new(list, topic_object(grant, topic));
}

/* Of these users, in this vhost; NULL: all. */
static json_t *make_list(struct broker *broker, const struct user *user, const struct vhost *vhost,
                         add_grant *add)
{
    json_t *list = json_array();

    map_each (&broker->users.by_name, by_name) {
        const struct user *each = container_of(by_name, struct user, by_name);
        if (user != NULL && user != each)
            continue;
        map_each (&each->grants, by_vhost) {
            const struct grant *grant = container_of(by_vhost, struct grant, by_vhost);
            if (vhost == NULL || slice_equal(vhost->name, grant->vhost))
                add(grant, list);
        }
    }
    return list;
}

/* Whose the path asks for. */
enum scope { OF_ALL, OF_USER, OF_VHOST };

static void answer_list(struct manage_request *request, enum scope scope, add_grant *add)
{
    const struct user *user = scope == OF_USER ? api_user(request, 0) : NULL;
    const struct vhost *vhost = scope == OF_VHOST ? api_vhost(request) : NULL;

    if ((scope == OF_USER && user == NULL) || (scope == OF_VHOST && vhost == NULL))
        return; /* there is none, and the request is answered */
    manage_answer(request, HTTP_OK, make_list(broker_of(request), user, vhost, add), 0);
}

void api_permissions(struct manage_request *request)
{
    answer_list(request, OF_ALL, add_permissions);
}

void api_permissions_of_user(struct manage_request *request)
{
    answer_list(request, OF_USER, add_permissions);
}

void api_permissions_of_vhost(struct manage_request *request)
{
    answer_list(request, OF_VHOST, add_permissions);
}

void api_topic_permissions(struct manage_request *request)
{
    answer_list(request, OF_ALL, add_topics);
}

void api_topic_permissions_of_user(struct manage_request *request)
{
    answer_list(request, OF_USER, add_topics);
}

void api_topic_permissions_of_vhost(struct manage_request *request)
{
    answer_list(request, OF_VHOST, add_topics);
}

/* ---- one user in one vhost ---- */

/* Those of the path. False: one is not there, and the request is answered. */
static bool find(struct manage_request *request, struct vhost **vhost, struct user **user)
{
    *vhost = api_vhost(request);
    *user = *vhost == NULL ? NULL : api_user(request, 1);
    return *user != NULL;
}

/* The grant of the path, or NULL: the request is answered. */
static struct grant *find_grant(struct manage_request *request, bool open)
{
    struct vhost *vhost;
    struct user *user;

    if (!find(request, &vhost, &user))
        return NULL;
    struct grant *grant = open ? user_open_grant(user, vhost->name) : user_grant(user, vhost->name);
    if (grant == NULL)
        manage_refuse_absent(request);
    return grant;
}

void api_permission(struct manage_request *request)
{
    const struct grant *grant = find_grant(request, true);

    if (grant != NULL)
        manage_answer(request, HTTP_OK, grant_object(grant), 0);
}

void api_permission_delete(struct manage_request *request)
{
    struct grant *grant = find_grant(request, true);
    uint64_t lsn;

    if (grant == NULL)
        return;
    account_clear_grant(broker_of(request), grant, &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}

/* The texts of a body by name. False: one is missing, and the request is answered. */
static bool read_texts(struct manage_request *request, const char *const *names, size_t count,
                       struct slice *texts)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_object_get(request->input, names[i]);
        if (!json_is_string(text)) {
            char reason[64];
            snprintf(reason, sizeof(reason), "%s should be a text", names[i]);
            manage_refuse(request, HTTP_BADREQUEST, "bad_request", reason);
            return false;
        }
        texts[i] = json_to_slice(text);
    }
    return true;
}

static void refuse_pattern(struct manage_request *request, const char *error)
{
    char reason[PATTERN_ERROR_SIZE + 32];

    snprintf(reason, sizeof(reason), "no regular expression: %s", error);
    manage_refuse(request, HTTP_BADREQUEST, "bad_request", reason);
}

void api_permission_put(struct manage_request *request)
{
    static const char *const names[] = {
        [ACCESS_CONFIGURE] = "configure", [ACCESS_WRITE] = "write", [ACCESS_READ] = "read"};
    struct slice patterns[ACCESS_RIGHTS];
    char error[PATTERN_ERROR_SIZE];
    struct vhost *vhost;
    struct user *user;
    uint64_t lsn;

    if (!find(request, &vhost, &user) || !read_texts(request, names, countof(names), patterns))
        return;
    const bool is_new = user_open_grant(user, vhost->name) == NULL;
    if (account_set_grant(broker_of(request), user, vhost, patterns, &lsn, error))
        manage_answer(request, is_new ? 201 : HTTP_NOCONTENT, NULL, lsn);
    else
        refuse_pattern(request, error);
}

/* ---- topics ---- */

void api_topic_permission(struct manage_request *request)
{
    const struct grant *grant = find_grant(request, false);

    if (grant == NULL)
        return;
    json_t *list = json_array();
    add_topics(grant, list);
    manage_answer(request, HTTP_OK, list, 0);
}

void api_topic_permission_put(struct manage_request *request)
{
    static const char *const names[] = {"exchange", "write", "read"};
    struct slice texts[countof(names)];
    char error[PATTERN_ERROR_SIZE];
    struct vhost *vhost;
    struct user *user;
    uint64_t lsn;

    if (!find(request, &vhost, &user) || !read_texts(request, names, countof(names), texts))
        return;
    if (texts[0].size > NAME_SIZE_MAX) {
        manage_refuse(request, HTTP_BADREQUEST, "bad_request", "exchange is no exchange's name");
        return;
    }
    const struct grant *grant = user_grant(user, vhost->name);
    const bool is_new = grant == NULL || permission_topic(grant, texts[0]) == NULL;
    if (account_set_topic(broker_of(request), user, vhost, texts[0], texts[1], texts[2], &lsn,
                          error))
        manage_answer(request, is_new ? 201 : HTTP_NOCONTENT, NULL, lsn);
    else
        refuse_pattern(request, error);
}

/* Of one exchange, or of all. */
void api_topic_permission_delete(struct manage_request *request)
{
    struct grant *grant = find_grant(request, false);
    const bool all = request->argument_count < 3;
    struct topic_rule *topic, *next;
    uint64_t lsn = 0;

    if (grant == NULL)
        return;
    TAILQ_FOREACH_SAFE (topic, &grant->topics, link, next) {
        if (!all && !slice_equal(topic->exchange, request->arguments[2]))
            continue;
        const bool last = next == NULL; /* with the last topic the grant may go */
        account_clear_topic(broker_of(request), grant, topic, &lsn);
        if (last)
            break;
    }
    if (lsn == 0)
        manage_refuse_absent(request);
    else
        manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}
