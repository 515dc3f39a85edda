/* /api/users, and what the control socket alone offers about them: stoatctl's add_user,
 * change_password, set_user_tags and authenticate_user, each of which is a part of what PUT does,
 * or none of it. Passwords come in, and never go out. */
#include "core/account.h"
#include "manage/api.h"
#include "session/service.h"

static struct broker *broker_of(const struct manage_request *request)
{
    return request->manage->options.broker;
}

static struct user *find(const struct manage_request *request)
{
    return users_find(&broker_of(request)->users, request->arguments[0]);
}

struct user *api_user(struct manage_request *request, size_t argument)
{
    struct user *user = users_find(&broker_of(request)->users, request->arguments[argument]);

    if (user == NULL)
        manage_refuse_absent(request);
    return user;
}

static void refuse(struct manage_request *request, const char *reason)
{
    manage_refuse(request, HTTP_BADREQUEST, "bad_request", reason);
}

json_t *api_list_of(struct slice text)
{
    json_t *list = json_array();

    while (text.size > 0) {
        const uint8_t *comma = memchr(text.data, ',', text.size);
        const size_t size = comma == NULL ? text.size : (size_t)(comma - text.data);
        const size_t used = size + (comma != NULL);
        if (size > 0)
            json_array_append_new(list, json_from_slice(slice_of(text.data, size)));
        text = slice_of(text.data + used, text.size - used);
    }
    return list;
}

/* An array of strings, or one with commas; appended with commas and without spaces around them. */
bool api_read_list(const json_t *json, struct buf *out)
{
    if (json_is_string(json)) {
        const struct slice text = json_to_slice(json);
        for (size_t i = 0; i < text.size; i++)
            if (text.data[i] != ' ')
                buf_append(out, slice_of(text.data + i, 1));
        return true;
    }
    for (size_t i = 0; i < json_array_size(json); i++) {
        const json_t *item = json_array_get(json, i);
        if (!json_is_string(item) || json_string_length(item) == 0 ||
            strchr(json_string_value(item), ',') != NULL)
            return false;
        if (i > 0)
            buf_append(out, SLICE(","));
        buf_append(out, json_to_slice(item));
    }
    return json == NULL || json_is_array(json);
}

/* ---- GET ---- */

static json_t *user_object(const struct user *user)
{
    json_t *object = json_object(), *limits = json_object();
    struct buf hash = BUF_EMPTY;

    password_to_text(&user->password, &hash);
    json_put_slice(object, "name", user->name);
    json_put_slice(object, "password_hash", buf_slice(&hash));
    json_put_string(object, "hashing_algorithm", password_algorithm(&user->password));
    json_put(object, "tags", api_list_of(user->tags));
    if (user->limits.connection_max != LIMIT_NONE)
        json_put(limits, "max-connections", json_integer(user->limits.connection_max));
    if (user->limits.channel_max != LIMIT_NONE)
        json_put(limits, "max-channels", json_integer(user->limits.channel_max));
    json_put(object, "limits", limits);
    buf_release(&hash);
    return object;
}

void api_users(struct manage_request *request)
{
    json_t *list = json_array();

    map_each (&broker_of(request)->users.by_name, link)
        json_array_append_new(list, user_object(container_of(link, struct user, by_name)));
    manage_answer(request, HTTP_OK, list, 0);
}

void api_user_get(struct manage_request *request)
{
    const struct user *user = api_user(request, 0);

    if (user != NULL)
        manage_answer(request, HTTP_OK, user_object(user), 0);
}

void api_user_delete(struct manage_request *request)
{
    struct user *user = api_user(request, 0);
    uint64_t lsn;

    if (user == NULL)
        return;
    account_delete(broker_of(request), user, &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}

/* ---- PUT, and its parts ---- */

static bool check_name(struct manage_request *request)
{
    const size_t size = request->arguments[0].size;

    if (size > 0 && size <= USER_NAME_SIZE_MAX)
        return true;
    refuse(request, "a user's name has 1 to 255 octets");
    return false;
}

/* Of a body that has them. False: it is answered. */
static bool read_tags(struct manage_request *request, struct buf *tags)
{
    struct user probe = {0};

    const bool good = api_read_list(json_object_get(request->input, "tags"), tags) &&
                      user_set_tags(&probe, buf_slice(tags));
    free((void *)(uintptr_t)probe.tags.data);
    if (!good)
        refuse(request, "tags should be an array of words, or one text of words with commas");
    return good;
}

static void put_user(struct manage_request *request, const struct password *password)
{
    struct broker *broker = broker_of(request);
    struct user *user = find(request);
    struct buf tags = BUF_EMPTY;
    const bool is_new = user == NULL;
    uint64_t lsn;

    if (read_tags(request, &tags)) {
        if (is_new)
            user = account_create(broker, request->arguments[0], password, &lsn);
        else
            account_set_password(broker, user, password, &lsn);
        account_set_tags(broker, user, buf_slice(&tags), &lsn);
        manage_answer(request, is_new ? 201 : HTTP_NOCONTENT, NULL, lsn);
    }
    buf_release(&tags);
}

static void on_put_made(struct attempt *attempt)
{
    struct manage_request *request = manage_resume(attempt);

    put_user(request, attempt->made);
}

/* The clear password of a body, or NULL: it is answered. */
static const json_t *read_password(struct manage_request *request)
{
    const json_t *password = json_object_get(request->input, "password");

    if (json_is_string(password) && json_string_length(password) > 0)
        return password;
    refuse(request, "password should be a text that is not empty");
    return NULL;
}

static void make(struct manage_request *request, attempt_done *on_done)
{
    const json_t *password = read_password(request);

    if (password != NULL)
        manage_await(request, authenticator_make(&request->manage->options.service->authenticator,
                                                 json_to_slice(password), on_done, request));
}

/* password_hash and hashing_algorithm, or the first alone, which says by its size which it is;
 * neither: no password. False: it is answered. */
static bool read_hash(struct manage_request *request, struct password *password)
{
    const json_t *hash = json_object_get(request->input, "password_hash");
    const json_t *algorithm = json_object_get(request->input, "hashing_algorithm");

    if ((hash == NULL || json_is_string(hash)) &&
        (algorithm == NULL || json_is_string(algorithm)) &&
        password_from_text(password,
                           algorithm == NULL ? (struct slice){0} : json_to_slice(algorithm),
                           hash == NULL ? (struct slice){0} : json_to_slice(hash)))
        return true;
    refuse(request, algorithm == NULL ? "password_hash is no base64 of 4 octets of salt and a "
                                        "SHA-256 or SHA-512 of salt and password"
                                      : "password_hash is none of its hashing_algorithm");
    return false;
}

/* password, or password_hash and hashing_algorithm, or neither: then nobody logs in with one. */
void api_user_put(struct manage_request *request)
{
    struct password password;

    if (!check_name(request))
        return;
    if (json_object_get(request->input, "password") != NULL) {
        make(request, on_put_made);
        return;
    }
    if (read_hash(request, &password))
        put_user(request, &password);
}

static void refuse_existing(struct manage_request *request)
{
    manage_refuse(request, 409, "conflict", "there is a user of this name");
}

static void create(struct manage_request *request, const struct password *password)
{
    uint64_t lsn;

    account_create(broker_of(request), request->arguments[0], password, &lsn);
    manage_answer(request, 201, NULL, lsn);
}

static void on_create_made(struct attempt *attempt)
{
    struct manage_request *request = manage_resume(attempt);

    if (find(request) != NULL) /* since it was asked for */
        refuse_existing(request);
    else
        create(request, attempt->made);
}

/* password, or password_hash. */
void api_control_user_create(struct manage_request *request)
{
    struct password password;

    if (!check_name(request))
        return;
    if (find(request) != NULL)
        refuse_existing(request);
    else if (json_object_get(request->input, "password_hash") == NULL)
        make(request, on_create_made);
    else if (read_hash(request, &password))
        create(request, &password);
}

static void on_change_made(struct attempt *attempt)
{
    struct manage_request *request = manage_resume(attempt);
    struct user *user = api_user(request, 0);
    uint64_t lsn;

    if (user == NULL)
        return;
    account_set_password(broker_of(request), user, attempt->made, &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}

void api_control_user_password(struct manage_request *request)
{
    if (api_user(request, 0) != NULL)
        make(request, on_change_made);
}

void api_control_user_clear_password(struct manage_request *request)
{
    struct user *user = api_user(request, 0);
    uint64_t lsn;

    if (user == NULL)
        return;
    account_set_password(broker_of(request), user, &(struct password){.scheme = PASSWORD_NONE},
                         &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}

void api_control_user_tags(struct manage_request *request)
{
    struct user *user = api_user(request, 0);
    struct buf tags = BUF_EMPTY;
    uint64_t lsn;

    if (user != NULL && read_tags(request, &tags)) {
        account_set_tags(broker_of(request), user, buf_slice(&tags), &lsn);
        manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
    }
    buf_release(&tags);
}

static void on_login(struct attempt *attempt)
{
    const bool good = attempt->user != NULL;
    struct manage_request *request = manage_resume(attempt);

    if (good)
        manage_answer(request, HTTP_NOCONTENT, NULL, 0);
    else
        manage_refuse(request, 401, "not_authorised", "Login failed");
}

void api_control_authenticate(struct manage_request *request)
{
    const json_t *password = read_password(request);

    if (password != NULL)
        manage_await(request, authenticator_login(&request->manage->options.service->authenticator,
                                                  request->arguments[0], json_to_slice(password),
                                                  NULL, true, on_login, request));
}
