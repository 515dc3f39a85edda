/* /api/vhost-limits and /api/user-limits. */
#include "core/account.h"
#include "manage/api.h"

static struct broker *broker_of(const struct manage_request *request)
{
    return request->manage->options.broker;
}

/* The limits of one thing, by name. */
struct limit {
    const char *name;
    int64_t *value;
};
enum { LIMITS = 2 };

static void add(json_t *list, const char *key, struct slice name, const struct limit *limits)
{
    json_t *object = json_object(), *values = json_object();
    bool any = false;

    for (size_t i = 0; i < LIMITS; i++)
        if (*limits[i].value != LIMIT_NONE) {
            json_put(values, limits[i].name, json_integer(*limits[i].value));
            any = true;
        }
    json_put_slice(object, key, name);
    json_put(object, "value", values);
    if (any)
        json_array_append_new(list, object);
    else
        json_decref(object);
}

/* The one that the path names; NULL: there is none, and the request is answered. */
static int64_t *find(struct manage_request *request, const struct limit *limits)
{
    for (size_t i = 0; i < LIMITS; i++)
        if (slice_equal(request->arguments[1], slice_of_string(limits[i].name)))
            return limits[i].value;
    manage_refuse(request, HTTP_BADREQUEST, "bad_request", "there is no limit of this name");
    return NULL;
}

/* Sets it to what the body says; any number below 0 is none. False: the request is answered. */
static bool set(struct manage_request *request, int64_t *limit)
{
    const json_t *value = json_object_get(request->input, "value");

    if (!json_is_integer(value)) {
        manage_refuse(request, HTTP_BADREQUEST, "bad_request", "value should be a whole number");
        return false;
    }
    *limit = json_integer_value(value) < 0 ? LIMIT_NONE : json_integer_value(value);
    return true;
}

/* ---- vhosts ---- */

#define LIMITS_OF_VHOST(limits)                                                                    \
    {                                                                                              \
        {"max-connections", &(limits)->connection_max},                                            \
        {                                                                                          \
            "max-queues", &(limits)->queue_max                                                     \
        }                                                                                          \
    }

static void add_vhost(struct manage *manage, struct vhost *vhost, json_t *list)
{
    const struct limit limits[LIMITS] = LIMITS_OF_VHOST(&vhost->limits);
    (void)manage;

    add(list, "vhost", vhost->name, limits);
}

void api_vhost_limits(struct manage_request *request)
{
    api_list(request, add_vhost);
}

static void change_vhost(struct manage_request *request, bool is_put)
{
    struct vhost *vhost = api_vhost(request);
    uint64_t lsn;

    if (vhost == NULL)
        return;
    const struct limit limits[LIMITS] = LIMITS_OF_VHOST(&vhost->limits);
    int64_t *limit = find(request, limits);
    if (limit == NULL || (is_put && !set(request, limit)))
        return;
    if (!is_put)
        *limit = LIMIT_NONE;
    vhost_save(vhost, &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}

void api_vhost_limit_put(struct manage_request *request)
{
    change_vhost(request, true);
}

void api_vhost_limit_delete(struct manage_request *request)
{
    change_vhost(request, false);
}

/* ---- users ---- */

#define LIMITS_OF_USER(limits)                                                                     \
    {                                                                                              \
        {"max-connections", &(limits)->connection_max},                                            \
        {                                                                                          \
            "max-channels", &(limits)->channel_max                                                 \
        }                                                                                          \
    }

static void add_user(struct user *user, json_t *list)
{
    const struct limit limits[LIMITS] = LIMITS_OF_USER(&user->limits);

    add(list, "user", user->name, limits);
}

void api_user_limits(struct manage_request *request)
{
    struct user *user = request->argument_count == 0 ? NULL : api_user(request, 0);

    if (request->argument_count > 0 && user == NULL)
        return;
    json_t *list = json_array();
    if (user != NULL)
        add_user(user, list);
    else
        map_each (&broker_of(request)->users.by_name, link)
            add_user(container_of(link, struct user, by_name), list);
    manage_answer(request, HTTP_OK, list, 0);
}

static void change_user(struct manage_request *request, bool is_put)
{
    struct user *user = api_user(request, 0);
    uint64_t lsn;

    if (user == NULL)
        return;
    struct user_limits wanted = user->limits;
    const struct limit limits[LIMITS] = LIMITS_OF_USER(&wanted);
    int64_t *limit = find(request, limits);
    if (limit == NULL || (is_put && !set(request, limit)))
        return;
    if (!is_put)
        *limit = LIMIT_NONE;
    account_set_limits(broker_of(request), user, &wanted, &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}

void api_user_limit_put(struct manage_request *request)
{
    change_user(request, true);
}

void api_user_limit_delete(struct manage_request *request)
{
    change_user(request, false);
}
