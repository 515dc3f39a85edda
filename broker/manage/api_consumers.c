/* GET /api/consumers, one vhost's */
#include "manage/api.h"

#include "session/subscription.h"

/* Every consumer of the core is a subscription of the session. */
static void add_consumer(const struct manage *manage, struct consumer *consumer, json_t *list)
{
    const struct subscription *subscription = container_of(consumer, struct subscription, consumer);
    const struct queue *queue = consumer->queue;
    json_t *object = json_object();
    json_t *place = json_object();

    json_put_slice(place, "name", queue->name);
    json_put_slice(place, "vhost", queue->vhost->name);
    json_put(object, "queue", place);
    json_put(object, "channel_details", api_channel_details(manage, subscription->channel));
    json_put_slice(object, "consumer_tag", consumer->tag);
    json_put_bool(object, "ack_required", !consumer->no_ack);
    json_put_bool(object, "exclusive", consumer->exclusive);
    json_put_number(object, "prefetch_count", consumer->prefetch);
    const bool active = consumer->state != CONSUMER_WAITING;
    json_put_bool(object, "active", active);
    json_put_string(object, "activity_status",
                    !queue->consumers.single_active ? "up"
                    : active                        ? "single_active"
                                                    : "waiting");
    json_put(object, "arguments", json_from_table(consumer->arguments));
    json_array_append_new(list, object);
}

void api_add_consumers(const struct manage *manage, const struct queue *queue, json_t *list)
{
    struct consumer *consumer;

    TAILQ_FOREACH (consumer, &queue->consumers.all, by_queue)
        add_consumer(manage, consumer, list);
}

static void add_consumers(struct manage *manage, struct vhost *vhost, json_t *list)
{
    map_each (&vhost->queues, link)
        api_add_consumers(manage, container_of(link, struct queue, by_name), list);
}

void api_consumers(struct manage_request *request)
{
    api_list(request, add_consumers);
}
