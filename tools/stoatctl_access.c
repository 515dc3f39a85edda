/* Users, virtual hosts, and who may do what: the commands that change or ask about one of them. The
 * lists are stoatctl_list.c's. Words and statuses are rabbitmqctl's: a user who is not there is
 * EX_NOUSER, a virtual host EX_DATAERR.
 *
 * A password may be the last word, as scripts have it, or else is the first line of standard input,
 * where no other user of the machine can see it. */
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include "access/password.h"
#include "base/alloc.h"
#include "base/random.h"
#include "tools/stoatctl.h"

/* ---- asking the broker ---- */

static const char *reason_of(const struct reply *reply)
{
    const char *reason = json_string_value(json_object_get(reply->body, "reason"));

    return reason == NULL ? "the broker refuses" : reason;
}

static int complain_of_user(const char *user)
{
    complain("user \"%s\" does not exist", user);
    return EX_NOUSER;
}

static int complain_of_vhost(const char *vhost)
{
    complain("virtual host '%s' does not exist", vhost);
    return EX_DATAERR;
}

/* Whether GET of this path finds something. EX_OK, or the exit status. */
static int look(struct client *client, const char *const *segments, bool *found)
{
    char *path = api_path(segments);
    struct reply reply;

    const int status = client_request(client, "GET", path, &reply);
    free(path);
    if (status != EX_OK)
        return status;
    *found = reply.status == 200;
    json_decref(reply.body);
    return EX_OK;
}

/* Of a request that was answered 404, or had no effect: which of the two is not there; `otherwise`
 * when both are. */
static int explain_absent(struct client *client, const char *user, const char *vhost, int otherwise)
{
    bool found;

    if (vhost != NULL) {
        const int status = look(client, (const char *[]){"api", "vhosts", vhost, NULL}, &found);
        if (status != EX_OK)
            return status;
        if (!found)
            return complain_of_vhost(vhost);
    }
    if (user != NULL) {
        const int status = look(client, (const char *[]){"api", "users", user, NULL}, &found);
        if (status != EX_OK)
            return status;
        if (!found)
            return complain_of_user(user);
    }
    return otherwise;
}

/* Sends it; body may be NULL, and is released. 404 is explained by user and vhost, which may be
 * NULL; when neither is missing it is `absent`. */
static int request(struct client *client, const char *method, const char *const *segments,
                   json_t *body, const char *user, const char *vhost, int absent)
{
    char *path = api_path(segments);
    struct reply reply;

    int status = body == NULL ? client_request(client, method, path, &reply)
                              : client_send(client, method, path, body, &reply);
    free(path);
    json_decref(body);
    if (status != EX_OK)
        return status;
    if (reply.status == 404) {
        status = explain_absent(client, user, vhost, absent);
    } else if (reply.status == 400) {
        complain("%s", reason_of(&reply));
        status = EX_DATAERR;
    } else if (reply.status == 409) {
        complain("user \"%s\" already exists", user);
        status = EX_DATAERR;
    } else if (reply.status == 401) {
        complain("failed to authenticate user \"%s\"", user);
        status = EX_DATAERR;
    }
    json_decref(reply.body);
    return status;
}

/* A body of one text; NULL, and told, when it is not UTF-8. */
static json_t *body_of(const char *key, const char *text)
{
    json_t *string = json_string(text);

    if (string != NULL)
        return json_pack("{s:o}", key, string);
    complain("%s: not UTF-8", key);
    return NULL;
}

/* ---- passwords ---- */

static struct termios shown; /* how the terminal was before it was told to show nothing */

/* Ends the process as the signal would have, but not with a terminal that shows nothing. */
static void on_signal(int number)
{
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    raise(number);
}

static void hide_input(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGTSTP};
    const struct sigaction ending = {.sa_handler = on_signal,
                                     .sa_flags = SA_RESETHAND | SA_NODEFER};
    struct termios silent = shown;

    for (size_t i = 0; i < countof(signals); i++)
        sigaction(signals[i], &ending, NULL);
    silent.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
}

/* The first line of standard input, without the terminal showing it. To be freed; NULL: there is
 * none. */
static char *ask_password(void)
{
    const bool is_terminal = tcgetattr(STDIN_FILENO, &shown) == 0;
    char *line = NULL;
    size_t room = 0;

    if (is_terminal) {
        fputs("Password: ", stderr);
        hide_input();
    }
    const ssize_t size = getline(&line, &room, stdin);
    if (is_terminal) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
        fputc('\n', stderr);
    }
    if (size > 0)
        line[strcspn(line, "\r\n")] = '\0';
    if (size > 0 && *line != '\0')
        return line;
    free(line);
    complain("a password is expected, as the last word or on standard input");
    return NULL;
}

/* Sends a password where the segments lead, as this member of the body. */
static int send_password_as(struct client *client, const char *member, const char *method,
                            const char *const *segments, const char *user, const char *given)
{
    char *password = given == NULL ? ask_password() : xstrdup(given);

    if (password == NULL)
        return EX_USAGE;
    json_t *body = body_of(member, password);
    explicit_bzero(password, strlen(password));
    free(password);
    return body == NULL ? EX_DATAERR
                        : request(client, method, segments, body, user, NULL, EX_DATAERR);
}

static int send_password(struct client *client, const char *method, const char *const *segments,
                         const char *user, const char *given)
{
    return send_password_as(client, "password", method, segments, user, given);
}

int run_add_user(struct client *client, const struct options *options, const char *command,
                 int count, char **words)
{
    (void)command;

    announce(options, "Adding user \"%s\" ...", words[0]);
    const int status =
        send_password_as(client, options->pre_hashed ? "password_hash" : "password", "POST",
                         (const char *[]){"api", "control", "users", words[0], NULL}, words[0],
                         count < 2 ? NULL : words[1]);
    if (status == EX_OK)
        announce(options,
                 "Done. Don't forget to grant the user permissions to some virtual hosts! See "
                 "'stoatctl help set_permissions' to learn more.");
    return status;
}

int run_change_password(struct client *client, const struct options *options, const char *command,
                        int count, char **words)
{
    (void)command;

    announce(options, "Changing password for user \"%s\" ...", words[0]);
    return send_password(client, "PUT",
                         (const char *[]){"api", "control", "users", words[0], "password", NULL},
                         words[0], count < 2 ? NULL : words[1]);
}

int run_authenticate_user(struct client *client, const struct options *options, const char *command,
                          int count, char **words)
{
    (void)command;

    announce(options, "Authenticating user \"%s\" ...", words[0]);
    const int status = send_password(
        client, "POST", (const char *[]){"api", "control", "users", words[0], "login", NULL},
        words[0], count < 2 ? NULL : words[1]);
    if (status == EX_OK)
        announce(options, "Success");
    return status;
}

int run_hash_password(struct client *client, const struct options *options, const char *command,
                      int count, char **words)
{
    char *clear = count < 1 ? ask_password() : xstrdup(words[0]);
    uint8_t salt[PASSWORD_RABBITMQ_SALT_SIZE];
    struct password password;
    struct random random;
    struct buf text = BUF_EMPTY;
    (void)client;
    (void)command;

    if (clear == NULL)
        return EX_USAGE;
    announce(options, "Hashing a password ...");
    random_init(&random);
    random_bytes(&random, salt, sizeof(salt));
    password_make_rabbitmq(&password, salt, slice_of_string(clear));
    password_to_text(&password, &text);
    printf("%.*s\n", SLICE_ARG(buf_slice(&text)));
    buf_release(&text);
    explicit_bzero(clear, strlen(clear));
    free(clear);
    return EX_OK;
}

int run_clear_password(struct client *client, const struct options *options, const char *command,
                       int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Clearing password for user \"%s\" ...", words[0]);
    return request(client, "DELETE",
                   (const char *[]){"api", "control", "users", words[0], "password", NULL}, NULL,
                   words[0], NULL, EX_DATAERR);
}

/* ---- users ---- */

int run_delete_user(struct client *client, const struct options *options, const char *command,
                    int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Deleting user \"%s\" ...", words[0]);
    return request(client, "DELETE", (const char *[]){"api", "users", words[0], NULL}, NULL,
                   words[0], NULL, EX_DATAERR);
}

/* To be released; NULL, and told, when one is not UTF-8. */
static json_t *list_of(int count, char **words)
{
    json_t *list = json_array();

    for (int i = 0; i < count; i++) {
        for (char *word = words[i]; *word != '\0'; word += *word == ',') {
            const size_t size = strcspn(word, ",");
            if (size > 0 && json_array_append_new(list, json_stringn(word, size)) != 0) {
                complain("a tag is not UTF-8");
                json_decref(list);
                return NULL;
            }
            word += size;
        }
    }
    return list;
}

int run_set_user_tags(struct client *client, const struct options *options, const char *command,
                      int count, char **words)
{
    json_t *tags = list_of(count - 1, words + 1);
    char *text = NULL;
    size_t size;
    (void)command;

    if (tags == NULL)
        return EX_DATAERR;
    FILE *out = open_memstream(&text, &size);
    for (size_t i = 0; i < json_array_size(tags); i++)
        fprintf(out, "%s%s", i == 0 ? "" : ", ", json_string_value(json_array_get(tags, i)));
    fclose(out);
    announce(options, "Setting tags for user \"%s\" to [%s] ...", words[0], text);
    free(text);
    return request(client, "PUT",
                   (const char *[]){"api", "control", "users", words[0], "tags", NULL},
                   json_pack("{s:o}", "tags", tags), words[0], NULL, EX_DATAERR);
}

/* ---- virtual hosts ---- */

/* PUT makes it, or describes anew the one that is there. */
static int put_vhost(struct client *client, const struct options *options, const char *name)
{
    json_t *body = json_object();

    if ((options->description != NULL &&
         json_object_set_new(body, "description", json_string(options->description)) != 0) ||
        (options->tags != NULL &&
         json_object_set_new(body, "tags", json_string(options->tags)) != 0)) {
        complain("the description or a tag is not UTF-8");
        json_decref(body);
        return EX_DATAERR;
    }
    return request(client, "PUT", (const char *[]){"api", "vhosts", name, NULL}, body, NULL, NULL,
                   EX_DATAERR);
}

int run_add_vhost(struct client *client, const struct options *options, const char *command,
                  int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Adding vhost \"%s\" ...", words[0]);
    return put_vhost(client, options, words[0]);
}

int run_update_vhost_metadata(struct client *client, const struct options *options,
                              const char *command, int count, char **words)
{
    bool found;
    (void)command;
    (void)count;

    announce(options, "Updating metadata of vhost \"%s\" ...", words[0]);
    const int status = look(client, (const char *[]){"api", "vhosts", words[0], NULL}, &found);
    if (status != EX_OK)
        return status;
    return found ? put_vhost(client, options, words[0]) : complain_of_vhost(words[0]);
}

int run_delete_vhost(struct client *client, const struct options *options, const char *command,
                     int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Deleting vhost \"%s\" ...", words[0]);
    return request(client, "DELETE", (const char *[]){"api", "vhosts", words[0], NULL}, NULL, NULL,
                   words[0], EX_DATAERR);
}

/* ---- permissions ---- */

/* words: the user and three patterns. */
static int set_permissions(struct client *client, const char *vhost, char **words)
{
    json_t *body =
        json_pack("{s:s, s:s, s:s}", "configure", words[1], "write", words[2], "read", words[3]);

    if (body == NULL) {
        complain("a pattern is not UTF-8");
        return EX_DATAERR;
    }
    return request(client, "PUT", (const char *[]){"api", "permissions", vhost, words[0], NULL},
                   body, words[0], vhost, EX_DATAERR);
}

int run_set_permissions(struct client *client, const struct options *options, const char *command,
                        int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Setting permissions for user \"%s\" in vhost \"%s\" ...", words[0],
             options->vhost);
    return set_permissions(client, options->vhost, words);
}

/* In every virtual host that there is now. */
int run_set_permissions_globally(struct client *client, const struct options *options,
                                 const char *command, int count, char **words)
{
    struct reply reply;
    json_t *vhost;
    size_t index;
    (void)command;
    (void)count;

    announce(options, "Setting permissions for user \"%s\" in all virtual hosts ...", words[0]);
    int status = client_request(client, "GET", "/api/vhosts", &reply);
    if (status != EX_OK)
        return status;
    json_array_foreach(reply.body, index, vhost)
    {
        if (status == EX_OK)
            status =
                set_permissions(client, json_string_value(json_object_get(vhost, "name")), words);
    }
    json_decref(reply.body);
    return status;
}

/* What is not there is cleared already. */
int run_clear_permissions(struct client *client, const struct options *options, const char *command,
                          int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Clearing permissions for user \"%s\" in vhost \"%s\" ...", words[0],
             options->vhost);
    return request(client, "DELETE",
                   (const char *[]){"api", "permissions", options->vhost, words[0], NULL}, NULL,
                   words[0], options->vhost, EX_OK);
}

int run_set_topic_permissions(struct client *client, const struct options *options,
                              const char *command, int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Setting topic permissions on \"%s\" for user \"%s\" in vhost \"%s\" ...",
             words[1], words[0], options->vhost);
    json_t *body =
        json_pack("{s:s, s:s, s:s}", "exchange", words[1], "write", words[2], "read", words[3]);
    if (body == NULL) {
        complain("the exchange or a pattern is not UTF-8");
        return EX_DATAERR;
    }
    return request(client, "PUT",
                   (const char *[]){"api", "topic-permissions", options->vhost, words[0], NULL},
                   body, words[0], options->vhost, EX_DATAERR);
}

int run_clear_topic_permissions(struct client *client, const struct options *options,
                                const char *command, int count, char **words)
{
    const char *exchange = count < 2 ? NULL : words[1];
    (void)command;

    if (exchange == NULL)
        announce(options, "Clearing topic permissions for user \"%s\" in vhost \"%s\" ...",
                 words[0], options->vhost);
    else
        announce(options,
                 "Clearing topic permissions on \"%s\" for user \"%s\" in vhost \"%s\" ...",
                 exchange, words[0], options->vhost);
    return request(
        client, "DELETE",
        (const char *[]){"api", "topic-permissions", options->vhost, words[0], exchange, NULL},
        NULL, words[0], options->vhost, EX_OK);
}

/* ---- limits ---- */

enum { LIMITS = 2 };

/* What may be limited. */
static const struct limited {
    const char *resource; /* /api/... */
    bool is_user;         /* else it is a virtual host */
    const char *limits[LIMITS];
} limited_user = {"user-limits", true, {"max-connections", "max-channels"}},
  limited_vhost = {"vhost-limits", false, {"max-connections", "max-queues"}};

/* One request about one limit of the user or virtual host `name`. */
static int request_limit(struct client *client, const struct limited *limited, const char *method,
                         const char *name, const char *limit, json_t *body)
{
    return request(client, method, (const char *[]){"api", limited->resource, name, limit, NULL},
                   body, limited->is_user ? name : NULL, limited->is_user ? NULL : name,
                   EX_DATAERR);
}

static bool is_limit(const struct limited *limited, const char *name)
{
    for (size_t i = 0; i < LIMITS; i++)
        if (strcmp(name, limited->limits[i]) == 0)
            return true;
    complain("there is no limit '%s': %s and %s are the limits", name, limited->limits[0],
             limited->limits[1]);
    return false;
}

/* {"max-connections": 5, ...}: one request for each, unless one is none. */
static int set_limits(struct client *client, const struct limited *limited, const char *name,
                      const char *definition)
{
    json_t *object = json_loads(definition, 0, NULL);
    const char *key;
    json_t *value;
    int status = EX_OK;

    if (!json_is_object(object)) {
        complain("a JSON object is expected, for example '{\"max-connections\": 10}'");
        status = EX_DATAERR;
    }
    json_object_foreach(object, key, value)
    {
        if (status == EX_OK && !is_limit(limited, key))
            status = EX_DATAERR;
    }
    json_object_foreach(object, key, value)
    {
        if (status == EX_OK)
            status = request_limit(client, limited, "PUT", name, key,
                                   json_pack("{s:O}", "value", value));
    }
    json_decref(object);
    return status;
}

static int clear_limits(struct client *client, const struct limited *limited, const char *name)
{
    int status = EX_OK;

    for (size_t i = 0; i < LIMITS && status == EX_OK; i++)
        status = request_limit(client, limited, "DELETE", name, limited->limits[i], NULL);
    return status;
}

int run_set_user_limits(struct client *client, const struct options *options, const char *command,
                        int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Setting user limits to \"%s\" for user \"%s\" ...", words[1], words[0]);
    return set_limits(client, &limited_user, words[0], words[1]);
}

int run_set_vhost_limits(struct client *client, const struct options *options, const char *command,
                         int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Setting vhost limits to \"%s\" for vhost \"%s\" ...", words[0],
             options->vhost);
    return set_limits(client, &limited_vhost, options->vhost, words[0]);
}

int run_clear_user_limits(struct client *client, const struct options *options, const char *command,
                          int count, char **words)
{
    (void)command;
    (void)count;

    announce(options, "Clearing \"%s\" limit for user \"%s\" ...", words[1], words[0]);
    if (strcmp(words[1], "all") == 0)
        return clear_limits(client, &limited_user, words[0]);
    if (!is_limit(&limited_user, words[1]))
        return EX_DATAERR;
    return request_limit(client, &limited_user, "DELETE", words[0], words[1], NULL);
}

int run_clear_vhost_limits(struct client *client, const struct options *options,
                           const char *command, int count, char **words)
{
    (void)command;
    (void)count;
    (void)words;

    announce(options, "Clearing vhost \"%s\" limits ...", options->vhost);
    return clear_limits(client, &limited_vhost, options->vhost);
}

/* ---- connections ---- */

/* Closes those that `key` is true of. */
static int close_connections(struct client *client, const char *key, const char *value,
                             const char *reason, json_int_t *closed)
{
    json_t *body = json_pack("{s:s, s:s}", key, value, "reason", reason);
    struct reply reply;

    if (body == NULL) {
        complain("the name or the reason is not UTF-8");
        return EX_DATAERR;
    }
    const int status = client_send(client, "POST", "/api/control/close-connections", body, &reply);
    json_decref(body);
    if (status != EX_OK)
        return status;
    *closed = json_integer_value(json_object_get(reply.body, "closed"));
    json_decref(reply.body);
    return EX_OK;
}

int run_close_connection(struct client *client, const struct options *options, const char *command,
                         int count, char **words)
{
    json_int_t closed = 0;
    (void)command;
    (void)count;

    announce(options, "Closing connection \"%s\", reason: \"%s\"...", words[0], words[1]);
    const int status = close_connections(client, "name", words[0], words[1], &closed);
    if (status != EX_OK || closed > 0)
        return status;
    complain("there is no connection \"%s\"", words[0]);
    return EX_DATAERR;
}

int run_close_all_connections(struct client *client, const struct options *options,
                              const char *command, int count, char **words)
{
    json_int_t closed = 0;
    (void)command;
    (void)count;

    announce(options, "Closing all connections in vhost %s, reason: \"%s\"...", options->vhost,
             words[0]);
    int status = close_connections(client, "vhost", options->vhost, words[0], &closed);
    if (status == EX_OK && closed == 0)
        status = explain_absent(client, NULL, options->vhost, EX_OK);
    if (status == EX_OK)
        announce(options, "Closed %" JSON_INTEGER_FORMAT " connections", closed);
    return status;
}

int run_close_all_user_connections(struct client *client, const struct options *options,
                                   const char *command, int count, char **words)
{
    json_int_t closed = 0;
    (void)command;
    (void)count;

    announce(options, "Closing all connections of user %s, reason: \"%s\"...", words[0], words[1]);
    int status = close_connections(client, "user", words[0], words[1], &closed);
    if (status == EX_OK && closed == 0)
        status = explain_absent(client, words[0], NULL, EX_OK);
    if (status == EX_OK)
        announce(options, "Closed %" JSON_INTEGER_FORMAT " connections", closed);
    return status;
}
