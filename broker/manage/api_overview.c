/* GET /api/overview: the broker at a glance. */
#include "manage/api.h"

static json_t *exchange_types(void)
{
    static const char *const names[] = {
        "direct",
        "fanout",
        "headers",
        "topic",
        "x-consistent-hash",
        "x-delayed-message",
        "x-local-random",
        "x-modulus-hash",
        "x-random",
        "x-recent-history",
    };
    json_t *list = json_array();

    for (size_t i = 0; i < countof(names); i++) {
        json_t *type = json_object();
        json_put_string(type, "name", names[i]);
        json_put_bool(type, "enabled", true);
        json_array_append_new(list, type);
    }
    return list;
}

static json_t *message_stats(const struct broker_counters *counters)
{
    json_t *stats = api_message_stats(&counters->messages);

    json_put_number(stats, "confirm", counters->confirmed);
    json_put_number(stats, "return_unroutable", counters->returned);
    json_put_number(stats, "drop_unroutable", counters->dropped_unroutable);
    json_put_number(stats, "get_empty", counters->got_empty);
    return stats;
}

static json_t *churn_rates(const struct broker_counters *counters)
{
    json_t *churn = json_object();

    json_put_number(churn, "connection_created", counters->connections_opened);
    json_put_number(churn, "connection_closed", counters->connections_closed);
    json_put_number(churn, "channel_created", counters->channels_opened);
    json_put_number(churn, "channel_closed", counters->channels_closed);
    json_put_number(churn, "queue_declared", counters->queues_declared);
    json_put_number(churn, "queue_deleted", counters->queues_deleted);
    return churn;
}

static json_t *queue_totals(const struct broker *broker)
{
    struct message_counts counts = {0};
    json_t *totals = json_object();

    map_each (&broker->vhosts, link)
        api_count_messages(container_of(link, struct vhost, by_name), &counts);
    api_put_messages(totals, &counts);
    return totals;
}

void api_overview(struct manage_request *request)
{
    const struct manage *manage = request->manage;
    const struct broker *broker = manage->options.broker;
    json_t *overview = json_object();

    json_put_string(overview, "management_version", API_RABBITMQ_VERSION);
    json_put_string(overview, "rabbitmq_version", API_RABBITMQ_VERSION);
    json_put_string(overview, "product_name", "StoatMQ");
    json_put_string(overview, "product_version", STOATMQ_VERSION);
    json_put_string(overview, "cluster_name", manage->node);
    json_put_string(overview, "node", manage->node);
    json_put_string(overview, "rates_mode", "none");
    json_put(overview, "exchange_types", exchange_types());
    json_put(overview, "object_totals", api_object_totals(manage));
    json_put(overview, "queue_totals", queue_totals(broker));
    json_put(overview, "message_stats", message_stats(&broker->counters));
    json_put(overview, "churn_rates", churn_rates(&broker->counters));
    json_put(overview, "listeners", api_listeners(manage));
    json_put(overview, "contexts", json_array());
    json_put_number(overview, "statistics_db_event_queue", 0);
    manage_answer(request, HTTP_OK, overview, 0);
}
