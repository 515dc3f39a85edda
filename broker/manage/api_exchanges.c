/* GET /api/exchanges, one vhost's, one */
#include "manage/api.h"

static json_t *exchange_object(const struct exchange *exchange)
{
    json_t *object = json_object();
    json_t *stats = json_object();

    json_put_slice(object, "name", exchange->name);
    json_put_slice(object, "vhost", exchange->vhost->name);
    json_put_string(object, "type", exchange->type->name);
    json_put_bool(object, "durable", exchange->durable);
    json_put_bool(object, "auto_delete", exchange->auto_delete);
    json_put_bool(object, "internal", exchange->internal);
    json_put(object, "arguments", json_from_table(exchange->arguments));
    api_put_policies(object, &exchange->policies);
    if (exchange->delayed_type != NULL)
        json_put_number(object, "messages_delayed",
                        exchange->delayed == NULL ? 0 : queue_ready_count(exchange->delayed));
    json_put_number(stats, "publish_in", exchange->published);
    json_put(object, "message_stats", stats);
    return object;
}

static void add_exchanges(struct manage *manage, struct vhost *vhost, json_t *list)
{
    (void)manage;
    map_each (&vhost->exchanges, link)
        json_array_append_new(list, exchange_object(container_of(link, struct exchange, by_name)));
}

void api_exchanges(struct manage_request *request)
{
    api_list(request, add_exchanges);
}

void api_exchange(struct manage_request *request)
{
    const struct vhost *vhost = api_vhost(request);
    if (vhost == NULL)
        return;

    struct map_link *link = map_find(&vhost->exchanges, request->arguments[1]);
    if (link == NULL)
        manage_refuse_absent(request);
    else
        manage_answer(request, HTTP_OK,
                      exchange_object(container_of(link, struct exchange, by_name)), 0);
}
