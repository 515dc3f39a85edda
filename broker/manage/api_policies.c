/* /api/policies and /api/operator-policies: lists, GET, PUT and DELETE of one. */
#include "manage/api.h"

enum { REASON_SIZE = POLICY_ERROR_SIZE + 32 };

/* The paths of both kinds have the same shape, and so handlers in common. */
static enum policy_kind kind_of(const struct manage_request *request)
{
    return slice_starts_with(slice_of_string(request->route->pattern), SLICE("/api/operator-"))
               ? POLICY_OPERATOR
               : POLICY_PLAIN;
}

static json_t *policy_object(const struct vhost *vhost, const struct policy *policy)
{
    const struct policy_options *options = &policy->options;
    json_t *object = json_object();

    json_put_slice(object, "vhost", vhost->name);
    json_put_slice(object, "name", options->name);
    json_put_slice(object, "pattern", options->pattern);
    json_put_string(object, "apply-to", policy_scope_name(options->apply_to));
    json_put(object, "definition", json_from_table(options->definition));
    json_put(object, "priority", json_integer(options->priority));
    return object;
}

static void add(struct vhost *vhost, enum policy_kind kind, json_t *list)
{
    const struct policy *policy;

    TAILQ_FOREACH (policy, &vhost->policies[kind], link)
        json_array_append_new(list, policy_object(vhost, policy));
}

static void add_policies(struct manage *manage, struct vhost *vhost, json_t *list)
{
    (void)manage;
    add(vhost, POLICY_PLAIN, list);
}

static void add_operator_policies(struct manage *manage, struct vhost *vhost, json_t *list)
{
    (void)manage;
    add(vhost, POLICY_OPERATOR, list);
}

void api_policies(struct manage_request *request)
{
    api_list(request, add_policies);
}

void api_operator_policies(struct manage_request *request)
{
    api_list(request, add_operator_policies);
}

/* The policy that the path names; NULL: there is none, and the request is answered. */
static struct policy *find(struct manage_request *request, struct vhost *vhost)
{
    struct policy *policy = policy_find(vhost, kind_of(request), request->arguments[1]);

    if (policy == NULL)
        manage_refuse_absent(request);
    return policy;
}

void api_policy(struct manage_request *request)
{
    struct vhost *vhost = api_vhost(request);
    const struct policy *policy = vhost == NULL ? NULL : find(request, vhost);

    if (policy != NULL)
        manage_answer(request, HTTP_OK, policy_object(vhost, policy), 0);
}

void api_policy_delete(struct manage_request *request)
{
    struct vhost *vhost = api_vhost(request);
    struct policy *policy = vhost == NULL ? NULL : find(request, vhost);
    uint64_t lsn;

    if (policy == NULL)
        return;
    policy_clear(vhost, policy, &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}

/* ---- PUT ---- */

static bool fail(char error[POLICY_ERROR_SIZE], const char *text)
{
    snprintf(error, POLICY_ERROR_SIZE, "%s", text);
    return false;
}

static bool read_scope(const json_t *json, enum policy_scope *scope, char error[POLICY_ERROR_SIZE])
{
    if (json == NULL) {
        *scope = POLICY_ALL;
        return true;
    }
    for (*scope = 0; json_is_string(json) && *scope < POLICY_SCOPES; (*scope)++)
        if (slice_equal(json_to_slice(json), slice_of_string(policy_scope_name(*scope))))
            return true;
    snprintf(error, POLICY_ERROR_SIZE,
             "apply-to '%.64s' unrecognised; should be 'queues', 'classic_queues', "
             "'quorum_queues', 'streams', 'exchanges' or 'all'",
             json_is_string(json) ? json_string_value(json) : "");
    return false;
}

static bool read_priority(const json_t *json, int32_t *priority, char error[POLICY_ERROR_SIZE])
{
    const json_int_t number = json_integer_value(json);

    *priority = (int32_t)number;
    if (json == NULL || (json_is_integer(json) && number == *priority))
        return true;
    return fail(error, "priority should be a number of 32 bits");
}

/* Those of a body; definition is where the table is built. */
static bool read_options(json_t *input, struct policy_options *options, struct buf *definition,
                         char error[POLICY_ERROR_SIZE])
{
    const json_t *pattern = json_object_get(input, "pattern");
    json_t *object = json_object_get(input, "definition");

    if (!json_is_string(pattern))
        return fail(error, "pattern should be a string");
    if (!json_is_object(object))
        return fail(error, "definition should be an object");
    if (!json_to_table(object, definition))
        return fail(error, "definition is too deep, or has a key that is too long");
    options->pattern = json_to_slice(pattern);
    options->definition = buf_slice(definition);
    return read_scope(json_object_get(input, "apply-to"), &options->apply_to, error) &&
           read_priority(json_object_get(input, "priority"), &options->priority, error);
}

static void refuse(struct manage_request *request, const char *error)
{
    char reason[REASON_SIZE];

    snprintf(reason, sizeof(reason), "Validation failed\n\n%s\n", error);
    manage_refuse(request, HTTP_BADREQUEST, "bad_request", reason);
}

void api_policy_put(struct manage_request *request)
{
    struct policy_options options = {.kind = kind_of(request), .name = request->arguments[1]};
    struct buf definition = BUF_EMPTY;
    char error[POLICY_ERROR_SIZE];
    struct policy *policy = NULL;

    struct vhost *vhost = api_vhost(request);
    if (vhost == NULL)
        return;
    if (!json_is_object(request->input)) {
        manage_refuse(request, HTTP_BADREQUEST, "bad_request", "not_json");
        return;
    }
    const bool is_new = policy_find(vhost, options.kind, options.name) == NULL;
    if (read_options(request->input, &options, &definition, error))
        policy = policy_set(vhost, &options, error);
    buf_release(&definition);
    if (policy == NULL)
        refuse(request, error);
    else
        manage_answer(request, is_new ? 201 : HTTP_NOCONTENT, NULL, policy->lsn);
}
