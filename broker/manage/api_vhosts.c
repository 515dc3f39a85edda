/* GET /api/vhosts */
#include "manage/api.h"

static void add_vhost(struct manage *manage, struct vhost *vhost, json_t *list)
{
    struct message_counts counts = {0};
    json_t *object = json_object();
    json_t *state = json_object();

    api_count_messages(vhost, &counts);
    json_put_slice(object, "name", vhost->name);
    json_put_string(object, "description", "");
    json_put(object, "tags", json_array());
    json_put_string(object, "default_queue_type", "classic");
    json_put_bool(object, "tracing", false);
    json_put_string(state, manage->node, "running");
    json_put(object, "cluster_state", state);
    api_put_messages(object, &counts);
    json_array_append_new(list, object);
}

void api_vhosts(struct manage_request *request)
{
    api_list(request, add_vhost);
}
