/* The HTTP API: which paths there are, and what their objects look like. Paths and names are
 * RabbitMQ's. A name appears when the broker knows the thing; nothing is made up. All of this runs
 * on the loop thread. */
#ifndef MANAGE_API_H
#define MANAGE_API_H

#include "core/broker.h"
#include "core/vhost.h"
#include "manage/http.h"
#include "manage/json.h"

struct channel;
struct connection;

#define API_RABBITMQ_VERSION "3.13.7" /* whose API this is */

extern const struct http_route api_routes[];
extern const size_t api_route_count;

manage_handler api_overview;                                           /* api_overview.c */
manage_handler api_control_status, api_control_ping, api_control_stop; /* api_control.c */
manage_handler api_control_environment;                                /* likewise */
manage_handler api_control_backup, api_control_backup_state;           /* likewise */
/* likewise: removes a backup whose client went away before it took it */
void api_control_begin(const struct manage_options *options);
manage_handler api_control_quarantine, api_control_quarantine_clear;       /* likewise */
manage_handler api_control_close_connections;                              /* api_connections.c */
manage_handler api_vhosts, api_vhost_get, api_vhost_put, api_vhost_delete; /* api_vhosts.c */
/* api_users.c */
manage_handler api_users, api_user_get, api_user_put, api_user_delete;
manage_handler api_control_user_create, api_control_user_password, api_control_user_clear_password,
    api_control_user_tags, api_control_authenticate;
/* api_permissions.c */
manage_handler api_permissions, api_permissions_of_user, api_permissions_of_vhost;
manage_handler api_permission, api_permission_put, api_permission_delete;
manage_handler api_topic_permissions, api_topic_permissions_of_user, api_topic_permissions_of_vhost;
manage_handler api_topic_permission, api_topic_permission_put, api_topic_permission_delete;
/* api_limits.c */
manage_handler api_vhost_limits, api_vhost_limit_put, api_vhost_limit_delete;
manage_handler api_user_limits, api_user_limit_put, api_user_limit_delete;
manage_handler api_exchanges, api_exchange;                              /* api_exchanges.c */
manage_handler api_bindings;                                             /* api_bindings.c */
manage_handler api_queues, api_queue, api_queue_delete, api_queue_purge; /* api_queues.c */
manage_handler api_consumers;                                            /* api_consumers.c */
manage_handler api_connections;                                          /* api_connections.c */
manage_handler api_channels;                                             /* api_channels.c */
manage_handler api_policies, api_operator_policies;                      /* api_policies.c */
manage_handler api_policy, api_policy_put, api_policy_delete; /* likewise; of both kinds */

/* ---- for handlers: api.c ---- */

/* The vhost that the first argument of the path names; NULL: there is none, and the request is
 * answered. */
struct vhost *api_vhost(struct manage_request *request);

/* The user that this argument of the path names; likewise. api_users.c. */
struct user *api_user(struct manage_request *request, size_t argument);

/* "a,b" as an array, and back: from an array, or from one text with commas, spaces left out. False:
 * neither. api_users.c. */
json_t *api_list_of(struct slice text);
bool api_read_list(const json_t *json, struct buf *out);

/* Answers with a list: add is called for the vhost that the path names, or for each when it names
 * none. */
void api_list(struct manage_request *request,
              void (*add)(struct manage *manage, struct vhost *vhost, json_t *list));

/* Answers a mistake that the core found: 404 for what is absent, else 400 with the reply text that
 * an AMQP client would get. */
void api_refuse(struct manage_request *request, const struct amqp_error *error);

/* A connection as others refer to it. api_connections.c. */
json_t *api_connection_details(const struct connection *connection);

/* Whose channel it is, likewise; its name is the connection's with its number behind:
 * "NAME (1)". api_channels.c. */
json_t *api_channel_details(const struct manage *manage, const struct channel *channel);

struct message_counts {
    uint64_t ready, unacked;
};

void api_count_messages(const struct vhost *vhost, struct message_counts *counts); /* adds */

/* messages, messages_ready, messages_unacknowledged */
void api_put_messages(json_t *object, const struct message_counts *counts);

/* message_stats: "publish", "deliver" and so on, "deliver_get" their sum */
json_t *api_message_stats(const struct message_counters *counters);

/* policy, operator_policy, effective_policy_definition */
void api_put_policies(json_t *object, const struct policy_set *set);

/* [{"node", "protocol", "ip_address", "port"}] */
json_t *api_listeners(const struct manage *manage);

/* {"connections", "channels", "consumers", "exchanges", "queues"} */
json_t *api_object_totals(const struct manage *manage);

/* Appends each consumer of the queue: those that take turns, then those without room. */
void api_add_consumers(const struct manage *manage, const struct queue *queue, json_t *list);

#endif
