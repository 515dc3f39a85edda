/* Declaring is pipelined with no-wait, so that a hundred thousand queues cost one round trip; the
 * last method waits, and brings to light whatever was refused before. Deleting has a connection of
 * its own, since the run may have ended with the loss of every other. */
#include "tools/stoatperf_topology.h"

#include <unistd.h>

#include "amqp/table.h"

void topology_init(struct topology *topology, const struct options *options)
{
    *topology = (struct topology){.options = options, .control.socket.fd = -1};
    topology->digits = (uint32_t)snprintf(NULL, 0, "%" PRIu32, options->queues - 1);
    if (options->queue_prefix != NULL)
        snprintf(topology->prefix, PREFIX_SIZE, "%s", options->queue_prefix);
    else
        snprintf(topology->prefix, PREFIX_SIZE, "stoatperf-%d", (int)getpid());
}

struct slice topology_queue_name(const struct topology *topology, uint32_t queue,
                                 char name[QUEUE_NAME_SIZE])
{
    const int size = snprintf(name, QUEUE_NAME_SIZE, "%s-%0*" PRIu32, topology->prefix,
                              (int)topology->digits, queue);
    assert(size > 0 && size < QUEUE_NAME_SIZE);
    return slice_of(name, (size_t)size);
}

struct slice topology_exchange(const struct topology *topology)
{
    return topology->options->fan_out ? slice_of_string(topology->prefix) : SLICE("");
}

/* "x-max-length=10" as an integer, "x-single-active-consumer=true" as a boolean, the rest as
 * strings. */
static void put_argument(struct buf *table, struct slice key, struct slice value)
{
    uint64_t number;
    if (slice_equal(value, SLICE("true")) || slice_equal(value, SLICE("false")))
        amqp_table_put_bool(table, key, value.data[0] == 't');
    else if (slice_to_u64(value, INT64_MAX, &number))
        amqp_table_put_i64(table, key, (int64_t)number);
    else
        amqp_table_put_string(table, key, value);
}

/* "key=value,key=value", which the options have let through, as a table. */
static void put_arguments(struct buf *table, const char *text)
{
    while (text != NULL && *text != '\0') {
        const size_t size = strcspn(text, ",");
        const size_t key_size = strcspn(text, "=");
        assert(key_size < size);
        put_argument(table, slice_of(text, key_size),
                     slice_of(text + key_size + 1, size - key_size - 1));
        text += size + (text[size] == ',');
    }
}

static bool send_no_wait(struct topology *topology, const struct amqp_method *method)
{
    enum { PIECE = 64 * 1024 };
    struct client *const control = &topology->control;
    amqp_method_encode(&control->out, CLIENT_CHANNEL, method);
    return buf_size(&control->out) < PIECE || client_send_all(control);
}

static bool declare_queue(struct topology *topology, struct slice name, struct slice arguments)
{
    const struct options *const options = topology->options;
    const struct amqp_method declare = {.id = AMQP_QUEUE_DECLARE,
                                        .queue_declare = {.queue = name,
                                                          .durable = options->durable,
                                                          .auto_delete = options->auto_delete,
                                                          .no_wait = true,
                                                          .arguments = arguments}};
    const struct amqp_method purge = {.id = AMQP_QUEUE_PURGE,
                                      .queue_purge = {.queue = name, .no_wait = true}};
    const struct amqp_method bind = {
        .id = AMQP_QUEUE_BIND,
        .queue_bind = {.queue = name, .exchange = topology_exchange(topology), .no_wait = true}};
    return send_no_wait(topology, &declare) && send_no_wait(topology, &purge) &&
           (!options->fan_out || send_no_wait(topology, &bind));
}

static bool declare_exchange(struct topology *topology)
{
    const struct amqp_method declare = {.id = AMQP_EXCHANGE_DECLARE,
                                        .exchange_declare = {
                                            .exchange = topology_exchange(topology),
                                            .type = SLICE("fanout"),
                                            .durable = topology->options->durable,
                                            .no_wait = true,
                                        }};
    return send_no_wait(topology, &declare);
}

/* A round trip behind everything that was sent before. */
static bool settle(struct topology *topology)
{
    struct amqp_method answer;
    return client_call(&topology->control, &(struct amqp_method){.id = AMQP_BASIC_QOS},
                       AMQP_BASIC_QOS_OK, &answer);
}

static bool declare_all(struct topology *topology)
{
    char name[QUEUE_NAME_SIZE];
    struct buf arguments = BUF_EMPTY;
    put_arguments(&arguments, topology->options->queue_args);
    topology->declared = true;
    bool done = !topology->options->fan_out || declare_exchange(topology);
    for (uint32_t queue = 0; done && queue < topology->options->queues; queue++)
        done = declare_queue(topology, topology_queue_name(topology, queue, name),
                             buf_slice(&arguments));
    buf_release(&arguments);
    return done && settle(topology);
}

static bool open_control(struct topology *topology, struct failure *failure,
                         struct broker_identity *identity)
{
    return client_open(&topology->control, topology->options, "stoatperf control", failure,
                       identity);
}

bool topology_open(struct topology *topology, struct failure *failure,
                   struct broker_identity *identity)
{
    const bool done = open_control(topology, failure, identity) &&
                      (topology->options->predeclared || declare_all(topology));
    client_close(&topology->control, SLICE(""));
    return done;
}

static bool delete_all(struct topology *topology)
{
    char name[QUEUE_NAME_SIZE];
    bool done = true;
    for (uint32_t queue = 0; done && queue < topology->options->queues; queue++) {
        const struct amqp_method method = {
            .id = AMQP_QUEUE_DELETE,
            .queue_delete = {.queue = topology_queue_name(topology, queue, name), .no_wait = true}};
        done = send_no_wait(topology, &method);
    }
    if (done && topology->options->fan_out) {
        const struct amqp_method method = {
            .id = AMQP_EXCHANGE_DELETE,
            .exchange_delete = {.exchange = topology_exchange(topology), .no_wait = true}};
        done = send_no_wait(topology, &method);
    }
    return done && settle(topology);
}

void topology_close(struct topology *topology)
{
    struct failure failure = {0};
    if (!topology->declared)
        return;
    if (!open_control(topology, &failure, NULL) || !delete_all(topology))
        fprintf(stderr, "stoatperf: queues '%s-*' may be left: %s\n", topology->prefix,
                failure.text);
    client_close(&topology->control, SLICE(""));
    topology->declared = false;
}
