/* Policies: set_policy, clear_policy, and the same for operators' policies. What a definition may
 * hold is the broker's to say; here it need only be JSON. What is refused is EX_DATAERR: that
 * there is no broker is something else. */
#include "base/alloc.h"
#include "tools/stoatctl.h"

/* Of the command: the path under /api. */
static const char *resource_of(const char *command)
{
    return strstr(command, "operator") == NULL ? "policies" : "operator-policies";
}

static int complain_of_vhost(const struct options *options)
{
    complain("virtual host '%s' does not exist", options->vhost);
    return EX_DATAERR;
}

static int put(struct client *client, const struct options *options, const char *path,
               const json_t *policy)
{
    struct reply reply;
    int status = client_send(client, "PUT", path, policy, &reply);
    if (status != EX_OK)
        return status;

    const char *reason = json_string_value(json_object_get(reply.body, "reason"));
    if (reply.status == 404) {
        status = complain_of_vhost(options);
    } else if (reply.status == 400) {
        complain("%s", reason == NULL ? "the broker refuses" : reason);
        status = EX_DATAERR;
    }
    json_decref(reply.body);
    return status;
}

int run_set_policy(struct client *client, const struct options *options, const char *command,
                   int count, char **words)
{
    const char *name = words[0], *pattern = words[1], *definition = words[2];
    const bool is_operators = strstr(command, "operator") != NULL;
    json_error_t error;
    (void)count;

    announce(options,
             "Setting %s \"%s\" for pattern \"%s\" to \"%s\" with priority \"%" PRId32
             "\" for vhost \"%s\" ...",
             is_operators ? "operator policy override" : "policy", name, pattern, definition,
             options->priority, options->vhost);
    json_t *object = json_loads(definition, JSON_DECODE_ANY, &error);
    if (object == NULL) {
        complain("JSON decoding error. Reason: %s", error.text);
        return EX_DATAERR;
    }
    json_t *policy = json_pack("{s:s, s:o, s:i, s:s}", "pattern", pattern, "definition", object,
                               "priority", (int)options->priority, "apply-to", options->apply_to);
    if (policy == NULL) {
        complain("the pattern is not UTF-8");
        return EX_DATAERR;
    }
    char *path =
        api_path((const char *[]){"api", resource_of(command), options->vhost, name, NULL});
    const int status = put(client, options, path, policy);
    free(path);
    json_decref(policy);
    return status;
}

/* Nothing was there to clear: no such policy, or no such vhost. */
static int explain_absent(struct client *client, const struct options *options, const char *command,
                          const char *name)
{
    char *path = api_path((const char *[]){"api", resource_of(command), options->vhost, NULL});
    struct reply reply;

    int status = client_request(client, "GET", path, &reply);
    free(path);
    if (status != EX_OK)
        return status;
    json_decref(reply.body);
    if (reply.status == 404)
        return complain_of_vhost(options);
    complain("policy '%s' in vhost '%s' does not exist", name, options->vhost);
    return EX_DATAERR;
}

int run_clear_policy(struct client *client, const struct options *options, const char *command,
                     int count, char **words)
{
    char *path =
        api_path((const char *[]){"api", resource_of(command), options->vhost, words[0], NULL});
    struct reply reply;
    (void)count;

    announce(options, "Clearing %spolicy \"%s\" on vhost \"%s\" ...",
             strstr(command, "operator") == NULL ? "" : "operator ", words[0], options->vhost);
    int status = client_request(client, "DELETE", path, &reply);
    free(path);
    if (status != EX_OK)
        return status;
    json_decref(reply.body);
    return reply.status == 404 ? explain_absent(client, options, command, words[0]) : EX_OK;
}
