/* The HTTP API: which paths there are, and what their objects look like. Paths and names are
 * RabbitMQ's. A name appears when the broker knows the thing; nothing is made up. All of this runs
 * on the loop thread. */
#ifndef MANAGE_API_H
#define MANAGE_API_H

#include "core/broker.h"
#include "core/vhost.h"
#include "manage/http.h"
#include "manage/json.h"

#define API_RABBITMQ_VERSION "3.13.7" /* whose API this is */

extern const struct http_route api_routes[];
extern const size_t api_route_count;

manage_handler api_overview;                                             /* api_overview.c */
manage_handler api_control_status, api_control_ping, api_control_stop;   /* api_control.c */
manage_handler api_vhosts;                                               /* api_vhosts.c */
manage_handler api_exchanges, api_exchange;                              /* api_exchanges.c */
manage_handler api_bindings;                                             /* api_bindings.c */
manage_handler api_queues, api_queue, api_queue_delete, api_queue_purge; /* api_queues.c */
manage_handler api_consumers;                                            /* api_consumers.c */
manage_handler api_connections;                                          /* api_connections.c */
manage_handler api_policies, api_operator_policies;                      /* api_policies.c */
manage_handler api_policy, api_policy_put, api_policy_delete; /* likewise; of both kinds */

/* ---- for handlers: api.c ---- */

/* The vhost that the first argument of the path names; NULL: there is none, and the request is
 * answered. */
struct vhost *api_vhost(struct manage_request *request);

/* Answers with a list: add is called for the vhost that the path names, or for each when it names
 * none. */
void api_list(struct manage_request *request,
              void (*add)(struct manage *manage, struct vhost *vhost, json_t *list));

/* Answers a mistake that the core found: 404 for what is absent, else 400 with the reply text that
 * an AMQP client would get. */
void api_refuse(struct manage_request *request, const struct amqp_error *error);

struct message_counts {
    uint64_t ready, unacked;
};

void api_count_messages(const struct vhost *vhost, struct message_counts *counts); /* adds */

/* messages, messages_ready, messages_unacknowledged */
void api_put_messages(json_t *object, const struct message_counts *counts);

/* policy, operator_policy, effective_policy_definition */
void api_put_policies(json_t *object, const struct policy_set *set);

/* [{"node", "protocol", "ip_address", "port"}] */
json_t *api_listeners(const struct manage *manage);

/* {"connections", "channels", "consumers", "exchanges", "queues"} */
json_t *api_object_totals(const struct manage *manage);

/* Appends each consumer of the queue: those that take turns, then those without room. */
void api_add_consumers(const struct manage *manage, const struct queue *queue, json_t *list);

#endif
