/* GET /api/queues, one vhost's, one; DELETE of one and of its contents.
 *
 * An operator is no connection, so a queue that is exclusive to one is no secret to him, and he may
 * purge and delete it. */
#include "manage/api.h"

#include "core/argument.h"
#include "session/connection.h"

static json_t *owner_details(struct queue_owner *owner)
{
    return api_connection_details(container_of(owner, struct connection, owned));
}

/* Whose tag is the only one: of an exclusive consumer. */
static json_t *exclusive_consumer_tag(const struct queue *queue)
{
    if (!queue->has_exclusive_consumer)
        return json_null();
    return json_from_slice(TAILQ_FIRST(&queue->consumers.all)->tag);
}

static void put_definition(json_t *object, const struct queue *queue)
{
    json_put_slice(object, "name", queue->name);
    json_put_slice(object, "vhost", queue->vhost->name);
    json_put_string(object, "type",
                    argument_queue_type(queue->arguments) == QUEUE_QUORUM ? "quorum" : "classic");
    json_put_bool(object, "durable", queue->durable);
    json_put_bool(object, "auto_delete", queue->auto_delete);
    json_put_bool(object, "exclusive", queue->exclusive);
    json_put(object, "arguments", json_from_table(queue->arguments));
    api_put_policies(object, &queue->policies);
    if (queue->owner != NULL)
        json_put(object, "owner_pid_details", owner_details(queue->owner));
}

static void put_figures(json_t *object, const struct queue *queue)
{
    const struct queue_depth depth = queue_depth_of_levels(queue);
    const struct message_counts counts = {depth.ready, depth.unacked};

    json_put_number(object, "consumers", queue->consumer_count);
    json_put(object, "exclusive_consumer_tag", exclusive_consumer_tag(queue));
    const struct consumer *active = queue->consumers.active;
    json_put(object, "single_active_consumer_tag",
             active == NULL ? json_null() : json_from_slice(active->tag));
    api_put_messages(object, &counts);
    json_put_number(object, "message_bytes", depth.ready_bytes + depth.unacked_bytes);
    json_put_number(object, "message_bytes_ready", depth.ready_bytes);
    json_put_number(object, "message_bytes_unacknowledged", depth.unacked_bytes);
    json_put(object, "message_stats", api_message_stats(&queue->counters));
}

static json_t *queue_object(const struct manage *manage, const struct queue *queue)
{
    json_t *object = json_object();

    put_definition(object, queue);
    json_put_string(object, "node", manage->node);
    json_put_string(object, "state", "running");
    put_figures(object, queue);
    return object;
}

static void add_queues(struct manage *manage, struct vhost *vhost, json_t *list)
{
    map_each (&vhost->queues, link)
        json_array_append_new(list,
                              queue_object(manage, container_of(link, struct queue, by_name)));
}

void api_queues(struct manage_request *request)
{
    api_list(request, add_queues);
}

/* The queue that the path names; NULL: there is none, and the request is answered. */
static struct queue *find_queue(struct manage_request *request)
{
    struct vhost *vhost = api_vhost(request);
    if (vhost == NULL)
        return NULL;

    struct map_link *link = map_find(&vhost->queues, request->arguments[1]);
    if (link == NULL) {
        manage_refuse_absent(request);
        return NULL;
    }
    return container_of(link, struct queue, by_name);
}

void api_queue(struct manage_request *request)
{
    const struct queue *queue = find_queue(request);
    if (queue == NULL)
        return;

    json_t *object = queue_object(request->manage, queue);
    json_t *consumers = json_array();
    api_add_consumers(request->manage, queue, consumers);
    json_put(object, "consumer_details", consumers);
    manage_answer(request, HTTP_OK, object, 0);
}

void api_queue_purge(struct manage_request *request)
{
    struct queue *queue = find_queue(request);
    uint64_t lsn;
    if (queue == NULL)
        return;

    queue_purge(queue, &lsn);
    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}

void api_queue_delete(struct manage_request *request)
{
    struct queue *queue = find_queue(request);
    struct amqp_error error;
    uint64_t count, lsn;
    if (queue == NULL)
        return;

    if (vhost_delete_queue(queue->vhost, queue->name, manage_flag(request, "if-unused"),
                           manage_flag(request, "if-empty"),
                           &(struct asker){.owner = queue->owner, .is_operator = true}, &count,
                           &lsn, &error))
        manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
    else
        api_refuse(request, &error);
}
