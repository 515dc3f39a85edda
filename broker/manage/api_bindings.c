/* GET /api/bindings, one vhost's. That every queue is bound to the default exchange by its name is
 * not kept anywhere in the broker; here it is shown, because the tools expect it.
 *
 * properties_key tells apart the bindings between the same two ends:
 *
 *     ~            neither key nor arguments
 *     key          percent-encoded
 *     key~hash     with arguments: FNV-1a of their sorted table, the same in every run */
#include "manage/api.h"

#include "base/buf.h"

static void append_quoted(struct buf *out, struct slice key)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";

    for (size_t i = 0; i < key.size; i++) {
        if (memchr(plain, key.data[i], sizeof(plain) - 1) != NULL)
            buf_append(out, slice_of(&key.data[i], 1));
        else
            buf_printf(out, "%%%02X", key.data[i]);
    }
}

static uint64_t fnv_1a(struct slice bytes)
{
    uint64_t hash = 0xcbf29ce484222325;

    for (size_t i = 0; i < bytes.size; i++)
        hash = (hash ^ bytes.data[i]) * 0x100000001b3;
    return hash;
}

static json_t *properties_key(struct slice key, struct slice arguments)
{
    struct buf out = BUF_EMPTY;

    append_quoted(&out, key);
    if (arguments.size > 0)
        buf_printf(&out, "~%016" PRIx64, fnv_1a(arguments));
    else if (key.size == 0)
        buf_append(&out, SLICE("~"));
    json_t *string = json_from_slice(buf_slice(&out));
    buf_release(&out);
    return string;
}

struct edge {
    struct slice source, vhost, destination, key, arguments;
    bool to_exchange;
};

static void add_edge(json_t *list, const struct edge *edge)
{
    json_t *object = json_object();

    json_put_slice(object, "source", edge->source);
    json_put_slice(object, "vhost", edge->vhost);
    json_put_slice(object, "destination", edge->destination);
    json_put_string(object, "destination_type", edge->to_exchange ? "exchange" : "queue");
    json_put_slice(object, "routing_key", edge->key);
    json_put(object, "arguments", json_from_table(edge->arguments));
    json_put(object, "properties_key", properties_key(edge->key, edge->arguments));
    json_array_append_new(list, object);
}

static void add_default_bindings(const struct vhost *vhost, json_t *list)
{
    map_each (&vhost->queues, link) {
        const struct queue *queue = container_of(link, struct queue, by_name);
        add_edge(list, &(struct edge){
                           .vhost = vhost->name, .destination = queue->name, .key = queue->name});
    }
}

static void add_bindings_of(const struct exchange *exchange, json_t *list)
{
    const struct binding *binding;

    TAILQ_FOREACH (binding, &exchange->bindings, by_source) {
        const bool to_exchange = binding->exchange != NULL;
        add_edge(list,
                 &(struct edge){
                     .source = exchange->name,
                     .vhost = exchange->vhost->name,
                     .destination = to_exchange ? binding->exchange->name : binding->queue->name,
                     .key = binding->key,
                     .arguments = binding->arguments,
                     .to_exchange = to_exchange,
                 });
    }
}

static void add_bindings(struct manage *manage, struct vhost *vhost, json_t *list)
{
    (void)manage;
    add_default_bindings(vhost, list);
    map_each (&vhost->exchanges, link)
        add_bindings_of(container_of(link, struct exchange, by_name), list);
}

void api_bindings(struct manage_request *request)
{
    api_list(request, add_bindings);
}
