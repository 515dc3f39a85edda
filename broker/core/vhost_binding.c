/* Binding, and its opposite. */
#include "core/vhost_parts.h"

#include "core/definition.h"

/* A request with clean names, and what they name now. */
struct edge {
    struct binding_request request;
    struct exchange *source;
    struct queue *queue; /* the destination: one of the two, or neither when it is absent */
    struct exchange *exchange;
    uint8_t rooms[2][NAME_SIZE_MAX];
};

static void find_edge(struct edge *edge, const struct vhost *vhost,
                      const struct binding_request *request)
{
    edge->request = *request;
    edge->request.source = vhost_strip_name(request->source, edge->rooms[0]);
    edge->request.destination = vhost_strip_name(request->destination, edge->rooms[1]);
    edge->source = vhost_get_exchange(vhost, edge->request.source);
    edge->queue = request->to_exchange ? NULL : vhost_get_queue(vhost, edge->request.destination);
    edge->exchange =
        request->to_exchange ? vhost_get_exchange(vhost, edge->request.destination) : NULL;
}

/* 7.19, whether or not the ends exist. */
static bool check_request(const struct binding_request *request, struct amqp_error *error)
{
    if (!vhost_check_not_default(request->source, error))
        return false;
    if (request->to_exchange)
        return vhost_check_not_default(request->destination, error);
    return !slice_starts_with(request->destination, SLICE("amq.rabbitmq.reply-to")) ||
           amqp_fail(error, AMQP_ACCESS_REFUSED,
                     "cannot bind or unbind to a volatile (direct reply-to) queue");
}

/* 7.19, 16.3: of the ends whether or not they exist, of the key when the source does. */
static bool check_access(const struct edge *edge, const struct asker *asking,
                         enum access_operation of_queue, enum access_operation of_exchange,
                         struct amqp_error *error)
{
    const struct binding_request *request = &edge->request;

    return vhost_check_access(asking, request->to_exchange ? of_exchange : of_queue,
                              request->destination, request->source, error) &&
           (edge->source == NULL || vhost_check_topic(asking, edge->source, request->key, error));
}

/* 7.18: both ends, the source first. */
static bool check_ends(struct vhost *vhost, const struct edge *edge, struct amqp_error *error)
{
    const struct binding_request *request = &edge->request;

    if (edge->source == NULL)
        return vhost_fail_no_exchange(vhost, request->source, error) != NULL;
    if (request->to_exchange)
        return edge->exchange != NULL ||
               vhost_fail_no_exchange(vhost, request->destination, error) != NULL;
    return edge->queue != NULL || vhost_fail_no_queue(vhost, request->destination, error) != NULL;
}

/* 7.19 */
static bool check_destination(const struct edge *edge, const struct asker *asking,
                              struct amqp_error *error)
{
    return edge->queue == NULL || vhost_is_open_to(edge->queue, asking) ||
           vhost_fail_locked(edge->queue, error);
}

static void write_identity(struct buf *out, const struct binding_request *request)
{
    binding_write_identity(out, request->to_exchange, request->destination, request->key,
                           request->arguments);
}

static struct binding *create_binding(const struct edge *edge, struct slice identity)
{
    struct binding *binding =
        exchange_add_binding(edge->source, identity, edge->queue, edge->exchange);

    if (binding->durable) {
        binding->lsn = store_open_lsn(edge->source->vhost->broker->store);
        definition_put_binding(binding);
    }
    return binding;
}

static bool check_new_binding(const struct edge *edge, struct amqp_error *error)
{
    const struct exchange_type *type = edge->source->type;
    const struct binding_request *request = &edge->request;

    return vhost_check_arguments_size(request->arguments, error) &&
           (type->check_binding == NULL ||
            type->check_binding(edge->source, edge->queue, request->key, request->arguments,
                                error));
}

/* Whether one more may lead from `what` to it, or from it. */
static bool check_count(size_t count, uint32_t max, const char *what, struct slice name,
                        const char *key, struct amqp_error *error)
{
    return max == 0 || count < max ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED,
                     "cannot bind: %s '%.*s' has reached the limit of %" PRIu32 " bindings (%s)",
                     what, SLICE_ARG(name), max, key);
}

/* One more at both ends, and in all. */
static bool check_limits(const struct edge *edge, size_t octets, struct amqp_error *error)
{
    const struct vhost *vhost = edge->source->vhost;
    const struct broker *broker = vhost->broker;
    const struct broker_limits *limits = &broker->limits;

    return check_count(broker->totals.bindings, limits->binding_max, "the broker behind vhost",
                       vhost->name, "cluster_binding_limit", error) &&
           check_count(edge->source->binding_count, limits->binding_max_per_exchange,
                       "source exchange", edge->source->name, "binding_max_per_exchange", error) &&
           (edge->queue != NULL
                ? check_count(edge->queue->binding_count, limits->binding_max_per_queue, "queue",
                              edge->queue->name, "binding_max_per_queue", error)
                : check_count(edge->exchange->incoming_count, limits->binding_max_per_exchange,
                              "destination exchange", edge->exchange->name,
                              "binding_max_per_exchange", error)) &&
           vhost_check_octets(vhost, "bind", edge->request.destination, octets, error);
}

bool vhost_bind(struct vhost *vhost, const struct binding_request *request,
                const struct asker *asking, uint64_t *lsn, struct amqp_error *error)
{
    struct buf identity = BUF_EMPTY;
    struct edge edge;

    find_edge(&edge, vhost, request);
    if (!check_request(&edge.request, error) ||
        !check_access(&edge, asking, ACCESS_QUEUE_BIND, ACCESS_EXCHANGE_BIND, error) ||
        !check_ends(vhost, &edge, error) || !check_new_binding(&edge, error) ||
        !check_destination(&edge, asking, error))
        return false;
    write_identity(&identity, &edge.request);
    struct binding *binding = exchange_find_binding(edge.source, buf_slice(&identity));
    if (binding == NULL && check_limits(&edge, buf_size(&identity), error))
        binding = create_binding(&edge, buf_slice(&identity));
    buf_release(&identity);
    if (binding == NULL)
        return false;
    *lsn = binding->lsn;
    return true;
}

bool vhost_unbind(struct vhost *vhost, const struct binding_request *request,
                  const struct asker *asking, uint64_t *lsn, struct amqp_error *error)
{
    struct buf identity = BUF_EMPTY;
    struct binding *binding = NULL;
    struct edge edge;

    find_edge(&edge, vhost, request);
    if (!check_request(&edge.request, error) ||
        !check_access(&edge, asking, ACCESS_QUEUE_UNBIND, ACCESS_EXCHANGE_UNBIND, error))
        return false;
    if (edge.source != NULL) {
        write_identity(&identity, &edge.request);
        binding = exchange_find_binding(edge.source, buf_slice(&identity));
        buf_release(&identity);
    }
    if (binding != NULL) { /* what is missing is unbound already, whoever asks: 7.18 */
        if (!check_destination(&edge, asking, error))
            return false;
        vhost_delete_binding(binding);
        vhost_bury_exchanges(vhost);
    }
    *lsn = vhost->deletion_lsn;
    return true;
}

struct binding *vhost_recover_binding(struct vhost *vhost, const struct binding_request *request)
{
    struct buf identity = BUF_EMPTY;
    struct binding *binding = NULL;
    struct edge edge;

    find_edge(&edge, vhost, request);
    if (edge.source == NULL || (edge.queue == NULL && edge.exchange == NULL))
        return NULL;
    write_identity(&identity, &edge.request);
    if (exchange_find_binding(edge.source, buf_slice(&identity)) == NULL)
        binding =
            exchange_add_binding(edge.source, buf_slice(&identity), edge.queue, edge.exchange);
    buf_release(&identity);
    return binding;
}
