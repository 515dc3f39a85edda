/* /api/vhosts: list, GET, PUT and DELETE of one. */
#include "manage/api.h"

static json_t *vhost_object(struct manage *manage, struct vhost *vhost)
{
    struct message_counts counts = {0};
    json_t *object = json_object(), *state = json_object();

    api_count_messages(vhost, &counts);
    json_put_slice(object, "name", vhost->name);
    json_put_slice(object, "description", vhost->description);
    json_put(object, "tags", api_list_of(vhost->tags));
    json_put_string(object, "default_queue_type", "classic");
    json_put_bool(object, "tracing", false);
    json_put_string(state, manage->node, "running");
    json_put(object, "cluster_state", state);
    api_put_messages(object, &counts);
    return object;
}

static void add_vhost(struct manage *manage, struct vhost *vhost, json_t *list)
{
    json_array_append_new(list, vhost_object(manage, vhost));
}

void api_vhosts(struct manage_request *request)
{
    json_t *list = json_array();

    map_each (&request->manage->options.broker->vhosts, link)
        add_vhost(request->manage, container_of(link, struct vhost, by_name), list);
    manage_answer(request, HTTP_OK, list, 0);
}

void api_vhost_get(struct manage_request *request)
{
    struct vhost *vhost = api_vhost(request);

    if (vhost != NULL)
        manage_answer(request, HTTP_OK, vhost_object(request->manage, vhost), 0);
}

/* description and tags of a body; what it does not have stays. False: the request is answered. */
static bool read_body(struct manage_request *request, struct vhost *vhost)
{
    const json_t *description = json_object_get(request->input, "description");
    const json_t *tags = json_object_get(request->input, "tags");
    struct buf text = BUF_EMPTY;
    const bool good =
        (description == NULL || json_is_string(description)) && api_read_list(tags, &text) &&
        buf_size(&text) <= VHOST_TEXT_SIZE_MAX &&
        (description == NULL || json_string_length(description) <= VHOST_TEXT_SIZE_MAX);

    if (!good)
        manage_refuse(request, HTTP_BADREQUEST, "bad_request",
                      "description should be a text, tags an array of texts");
    else if (vhost != NULL)
        vhost_describe(vhost, description == NULL ? vhost->description : json_to_slice(description),
                       tags == NULL ? vhost->tags : buf_slice(&text));
    buf_release(&text);
    return good;
}

void api_vhost_put(struct manage_request *request)
{
    struct broker *broker = request->manage->options.broker;
    struct vhost *vhost = vhost_find(broker, request->arguments[0]);
    const bool is_new = vhost == NULL;
    struct amqp_error error;
    uint64_t lsn;

    if (!read_body(request, NULL))
        return;
    if (is_new)
        vhost = vhost_create(broker, request->arguments[0], &lsn, &error);
    if (vhost == NULL) {
        api_refuse(request, &error);
        return;
    }
    read_body(request, vhost);
    vhost_save(vhost, &lsn);
    manage_answer(request, is_new ? 201 : HTTP_NOCONTENT, NULL, lsn);
}

void api_vhost_delete(struct manage_request *request)
{
    struct vhost *vhost = api_vhost(request);
    uint64_t lsn;

    if (vhost == NULL)
        return;
    vhost_delete(vhost, &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}
