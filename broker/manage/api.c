#include "manage/api.h"

#include "session/service.h"

const struct http_route api_routes[] = {
    {EVHTTP_REQ_GET, "/api/overview", api_overview},
    {EVHTTP_REQ_GET, "/api/vhosts", api_vhosts},
    {EVHTTP_REQ_GET, "/api/vhosts/:vhost", api_vhost_get},
    {EVHTTP_REQ_PUT, "/api/vhosts/:vhost", api_vhost_put},
    {EVHTTP_REQ_DELETE, "/api/vhosts/:vhost", api_vhost_delete},
    {EVHTTP_REQ_GET, "/api/vhosts/:vhost/permissions", api_permissions_of_vhost},
    {EVHTTP_REQ_GET, "/api/vhosts/:vhost/topic-permissions", api_topic_permissions_of_vhost},
    {EVHTTP_REQ_GET, "/api/users", api_users},
    {EVHTTP_REQ_GET, "/api/users/:user", api_user_get},
    {EVHTTP_REQ_PUT, "/api/users/:user", api_user_put},
    {EVHTTP_REQ_DELETE, "/api/users/:user", api_user_delete},
    {EVHTTP_REQ_GET, "/api/users/:user/permissions", api_permissions_of_user},
    {EVHTTP_REQ_GET, "/api/users/:user/topic-permissions", api_topic_permissions_of_user},
    {EVHTTP_REQ_GET, "/api/permissions", api_permissions},
    {EVHTTP_REQ_GET, "/api/permissions/:vhost/:user", api_permission},
    {EVHTTP_REQ_PUT, "/api/permissions/:vhost/:user", api_permission_put},
    {EVHTTP_REQ_DELETE, "/api/permissions/:vhost/:user", api_permission_delete},
    {EVHTTP_REQ_GET, "/api/topic-permissions", api_topic_permissions},
    {EVHTTP_REQ_GET, "/api/topic-permissions/:vhost/:user", api_topic_permission},
    {EVHTTP_REQ_PUT, "/api/topic-permissions/:vhost/:user", api_topic_permission_put},
    {EVHTTP_REQ_DELETE, "/api/topic-permissions/:vhost/:user", api_topic_permission_delete},
    {EVHTTP_REQ_DELETE, "/api/topic-permissions/:vhost/:user/:exchange",
     api_topic_permission_delete},
    {EVHTTP_REQ_GET, "/api/vhost-limits", api_vhost_limits},
    {EVHTTP_REQ_GET, "/api/vhost-limits/:vhost", api_vhost_limits},
    {EVHTTP_REQ_PUT, "/api/vhost-limits/:vhost/:name", api_vhost_limit_put},
    {EVHTTP_REQ_DELETE, "/api/vhost-limits/:vhost/:name", api_vhost_limit_delete},
    {EVHTTP_REQ_GET, "/api/user-limits", api_user_limits},
    {EVHTTP_REQ_GET, "/api/user-limits/:user", api_user_limits},
    {EVHTTP_REQ_PUT, "/api/user-limits/:user/:name", api_user_limit_put},
    {EVHTTP_REQ_DELETE, "/api/user-limits/:user/:name", api_user_limit_delete},
    {EVHTTP_REQ_GET, "/api/connections", api_connections},
    {EVHTTP_REQ_GET, "/api/channels", api_channels},
    {EVHTTP_REQ_GET, "/api/exchanges", api_exchanges},
    {EVHTTP_REQ_GET, "/api/exchanges/:vhost", api_exchanges},
    {EVHTTP_REQ_GET, "/api/exchanges/:vhost/:name", api_exchange},
    {EVHTTP_REQ_GET, "/api/queues", api_queues},
    {EVHTTP_REQ_GET, "/api/queues/:vhost", api_queues},
    {EVHTTP_REQ_GET, "/api/queues/:vhost/:name", api_queue},
    {EVHTTP_REQ_DELETE, "/api/queues/:vhost/:name", api_queue_delete},
    {EVHTTP_REQ_DELETE, "/api/queues/:vhost/:name/contents", api_queue_purge},
    {EVHTTP_REQ_GET, "/api/bindings", api_bindings},
    {EVHTTP_REQ_GET, "/api/bindings/:vhost", api_bindings},
    {EVHTTP_REQ_GET, "/api/consumers", api_consumers},
    {EVHTTP_REQ_GET, "/api/consumers/:vhost", api_consumers},
    {EVHTTP_REQ_GET, "/api/policies", api_policies},
    {EVHTTP_REQ_GET, "/api/policies/:vhost", api_policies},
    {EVHTTP_REQ_GET, "/api/policies/:vhost/:name", api_policy},
    {EVHTTP_REQ_PUT, "/api/policies/:vhost/:name", api_policy_put},
    {EVHTTP_REQ_DELETE, "/api/policies/:vhost/:name", api_policy_delete},
    {EVHTTP_REQ_GET, "/api/operator-policies", api_operator_policies},
    {EVHTTP_REQ_GET, "/api/operator-policies/:vhost", api_operator_policies},
    {EVHTTP_REQ_GET, "/api/operator-policies/:vhost/:name", api_policy},
    {EVHTTP_REQ_PUT, "/api/operator-policies/:vhost/:name", api_policy_put},
    {EVHTTP_REQ_DELETE, "/api/operator-policies/:vhost/:name", api_policy_delete},

    /* of the control socket alone */
    {EVHTTP_REQ_GET, "/api/control/ping", api_control_ping},
    {EVHTTP_REQ_GET, "/api/control/status", api_control_status},
    {EVHTTP_REQ_GET, "/api/control/environment", api_control_environment},
    {EVHTTP_REQ_POST, "/api/control/stop", api_control_stop},
    {EVHTTP_REQ_POST, "/api/control/close-connections", api_control_close_connections},
    {EVHTTP_REQ_POST, "/api/control/users/:user", api_control_user_create},
    {EVHTTP_REQ_POST, "/api/control/users/:user/login", api_control_authenticate},
    {EVHTTP_REQ_PUT, "/api/control/users/:user/password", api_control_user_password},
    {EVHTTP_REQ_DELETE, "/api/control/users/:user/password", api_control_user_clear_password},
    {EVHTTP_REQ_PUT, "/api/control/users/:user/tags", api_control_user_tags},
    {EVHTTP_REQ_POST, "/api/control/backup", api_control_backup},
    {EVHTTP_REQ_GET, "/api/control/backup", api_control_backup_state},
    {EVHTTP_REQ_GET, "/api/control/quarantine", api_control_quarantine},
    {EVHTTP_REQ_DELETE, "/api/control/quarantine", api_control_quarantine_clear},
};

const size_t api_route_count = countof(api_routes);

struct vhost *api_vhost(struct manage_request *request)
{
    struct vhost *vhost = vhost_find(request->manage->options.broker, request->arguments[0]);

    if (vhost == NULL)
        manage_refuse_absent(request);
    return vhost;
}

void api_list(struct manage_request *request,
              void (*add)(struct manage *manage, struct vhost *vhost, json_t *list))
{
    struct manage *manage = request->manage;
    struct vhost *vhost = NULL;

    if (request->argument_count > 0 && (vhost = api_vhost(request)) == NULL)
        return;
    json_t *list = json_array();
    if (vhost != NULL)
        add(manage, vhost, list);
    else
        map_each (&manage->options.broker->vhosts, link)
            add(manage, container_of(link, struct vhost, by_name), list);
    manage_answer(request, HTTP_OK, list, 0);
}

void api_refuse(struct manage_request *request, const struct amqp_error *error)
{
    char reason[sizeof(error->text) + 16];

    snprintf(reason, sizeof(reason), "%u %s", error->code, error->text);
    if (error->code == AMQP_NOT_FOUND)
        manage_refuse_absent(request);
    else
        manage_refuse(request, HTTP_BADREQUEST, "bad_request", reason);
}

void api_count_messages(const struct vhost *vhost, struct message_counts *counts)
{
    map_each (&vhost->queues, link) {
        const struct queue *queue = container_of(link, struct queue, by_name);
        const struct queue_depth depth = queue_depth_of_levels(queue);
        counts->ready += depth.ready;
        counts->unacked += depth.unacked;
    }
}

void api_put_messages(json_t *object, const struct message_counts *counts)
{
    json_put_number(object, "messages", counts->ready + counts->unacked);
    json_put_number(object, "messages_ready", counts->ready);
    json_put_number(object, "messages_unacknowledged", counts->unacked);
}

static json_t *name_of(const struct policy *policy)
{
    return policy == NULL ? json_null() : json_from_slice(policy->options.name);
}

json_t *api_message_stats(const struct message_counters *counters)
{
    json_t *stats = json_object();

    json_put_number(stats, "publish", counters->published);
    json_put_number(stats, "deliver", counters->delivered);
    json_put_number(stats, "deliver_no_ack", counters->delivered_no_ack);
    json_put_number(stats, "get", counters->got);
    json_put_number(stats, "get_no_ack", counters->got_no_ack);
    json_put_number(stats, "deliver_get",
                    counters->delivered + counters->delivered_no_ack + counters->got +
                        counters->got_no_ack);
    json_put_number(stats, "redeliver", counters->redelivered);
    json_put_number(stats, "ack", counters->acknowledged);
    return stats;
}

void api_put_policies(json_t *object, const struct policy_set *set)
{
    struct buf effective = BUF_EMPTY;

    policy_write_effective(set, &effective);
    json_put(object, "policy", name_of(set->of[POLICY_PLAIN]));
    json_put(object, "operator_policy", name_of(set->of[POLICY_OPERATOR]));
    json_put(object, "effective_policy_definition", json_from_table(buf_slice(&effective)));
    buf_release(&effective);
}

json_t *api_listeners(const struct manage *manage)
{
    json_t *list = json_array();

    for (size_t i = 0; i < manage->options.listener_count; i++) {
        const struct manage_listener *listener = &manage->options.listeners[i];
        json_t *object = json_object();
        json_put_string(object, "node", manage->node);
        json_put_string(object, "protocol", listener->protocol);
        json_put_string(object, "ip_address", listener->address.host);
        json_put_number(object, "port", listener->address.port);
        json_array_append_new(list, object);
    }
    return list;
}

json_t *api_object_totals(const struct manage *manage)
{
    const struct broker *broker = manage->options.broker;
    uint64_t queues = 0, exchanges = 0, consumers = 0;

    map_each (&broker->vhosts, link) {
        const struct vhost *vhost = container_of(link, struct vhost, by_name);
        queues += vhost->queues.count;
        exchanges += vhost->exchanges.count;
        map_each (&vhost->queues, by_name)
            consumers += container_of(by_name, struct queue, by_name)->consumer_count;
    }
    json_t *totals = json_object();
    json_put_number(totals, "connections", manage->options.service->connection_count);
    json_put_number(totals, "channels",
                    broker->counters.channels_opened - broker->counters.channels_closed);
    json_put_number(totals, "consumers", consumers);
    json_put_number(totals, "exchanges", exchanges);
    json_put_number(totals, "queues", queues);
    return totals;
}
