/* What C programs do with librabbitmq: publish with confirms, consume, settle, survive a channel
 * error.
 *
 * Usage: librabbitmq HOST PORT. Prints the Test Anything Protocol; a step that fails says where and
 * ends the program, because all share one connection. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

enum { MESSAGE_COUNT = 1000, PREFETCH = 50, LARGE = 1000000 };

static amqp_connection_state_t connection;
static int step_count;

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("not ok %d - %s:%d\n# %s\n", step_count + 1, __FILE__, __LINE__, #condition);   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define must_reply(call)                                                                           \
    do {                                                                                           \
        (void)(call);                                                                              \
        must(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL);                   \
    } while (0)

static void passed(const char *name)
{
    printf("ok %d - %s\n", ++step_count, name);
}

static void open_connection(const char *host, int port)
{
    connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    must(socket != NULL);
    must(amqp_socket_open(socket, host, port) == AMQP_STATUS_OK);
    must(amqp_login(connection, "/", 0, 131072, 10, AMQP_SASL_METHOD_PLAIN, "guest", "guest")
             .reply_type == AMQP_RESPONSE_NORMAL);
    must_reply(amqp_channel_open(connection, 1));
    passed("log in with PLAIN and open a channel");
}

static amqp_bytes_t declare_queue(amqp_channel_t channel)
{
    amqp_queue_declare_ok_t *declared =
        amqp_queue_declare(connection, channel, amqp_empty_bytes, 0, 0, 1, 0, amqp_empty_table);
    must(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL);
    return amqp_bytes_malloc_dup(declared->queue);
}

static void publish(amqp_bytes_t queue, uint32_t number)
{
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG,
        .delivery_mode = AMQP_DELIVERY_PERSISTENT,
        .message_id = amqp_cstring_bytes("from C"),
    };
    amqp_bytes_t body = {.len = sizeof number, .bytes = &number};
    must(amqp_basic_publish(connection, 1, amqp_empty_bytes, queue, 1, 0, &properties, body) ==
         AMQP_STATUS_OK);
}

/* Waits until every message published on channel 1 is confirmed, each once. */
static void await_confirms(uint64_t count)
{
    uint64_t confirmed = 0;
    while (confirmed < count) {
        amqp_frame_t frame;
        must(amqp_simple_wait_frame_noblock(connection, &frame, &(struct timeval){.tv_sec = 10}) ==
             AMQP_STATUS_OK);
        must(frame.frame_type == AMQP_FRAME_METHOD &&
             frame.payload.method.id == AMQP_BASIC_ACK_METHOD);
        const amqp_basic_ack_t *ack = frame.payload.method.decoded;
        must(ack->delivery_tag > 0 && ack->delivery_tag <= count);
        confirmed = ack->multiple ? ack->delivery_tag : confirmed + 1;
        amqp_maybe_release_buffers(connection);
    }
    must(confirmed == count);
}

static void publish_with_confirms(amqp_bytes_t queue)
{
    must_reply(amqp_confirm_select(connection, 1));
    for (uint32_t number = 0; number < MESSAGE_COUNT; number++)
        publish(queue, number);
    await_confirms(MESSAGE_COUNT);
    passed("publish 1000 persistent messages and get their confirms");
}

static void consume(amqp_bytes_t queue)
{
    must_reply(amqp_channel_open(connection, 2));
    must_reply(amqp_basic_qos(connection, 2, 0, PREFETCH, 0));
    must_reply(
        amqp_basic_consume(connection, 2, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table));
    for (uint32_t number = 0; number < MESSAGE_COUNT; number++) {
        amqp_envelope_t envelope;
        must(amqp_consume_message(connection, &envelope, &(struct timeval){.tv_sec = 10}, 0)
                 .reply_type == AMQP_RESPONSE_NORMAL);
        must(envelope.message.body.len == sizeof number);
        must(memcmp(envelope.message.body.bytes, &number, sizeof number) == 0);
        must(envelope.message.properties._flags & AMQP_BASIC_MESSAGE_ID_FLAG);
        must(envelope.delivery_tag == number + 1 && !envelope.redelivered);
        if (number % 10 == 9)
            must(amqp_basic_ack(connection, 2, envelope.delivery_tag, 1) == AMQP_STATUS_OK);
        amqp_destroy_envelope(&envelope);
    }
    must_reply(amqp_channel_close(connection, 2, AMQP_REPLY_SUCCESS));
    amqp_queue_declare_ok_t *left =
        amqp_queue_declare(connection, 1, queue, 1, 0, 0, 0, amqp_empty_table);
    must(left != NULL && left->message_count == 0);
    passed("consume them in order with a prefetch, acking by tens");
}

static void carry_a_large_body(amqp_bytes_t queue)
{
    unsigned char *bytes = malloc(LARGE);
    must(bytes != NULL);
    for (size_t at = 0; at < LARGE; at++)
        bytes[at] = (unsigned char)(at * 31 >> 3);
    must_reply(amqp_channel_open(connection, 3));
    must(amqp_basic_publish(connection, 3, amqp_empty_bytes, queue, 0, 0, NULL,
                            (amqp_bytes_t){.len = LARGE, .bytes = bytes}) == AMQP_STATUS_OK);
    must_reply(
        amqp_basic_consume(connection, 3, queue, amqp_empty_bytes, 0, 1, 0, amqp_empty_table));
    amqp_envelope_t envelope;
    must(amqp_consume_message(connection, &envelope, &(struct timeval){.tv_sec = 10}, 0)
             .reply_type == AMQP_RESPONSE_NORMAL);
    must(envelope.message.body.len == LARGE &&
         memcmp(envelope.message.body.bytes, bytes, LARGE) == 0);
    amqp_destroy_envelope(&envelope);
    must_reply(amqp_channel_close(connection, 3, AMQP_REPLY_SUCCESS));
    free(bytes);
    passed("carry a body of many frames");
}

static void survive_a_channel_error(void)
{
    must_reply(amqp_channel_open(connection, 4));
    must(amqp_queue_declare(connection, 4, amqp_cstring_bytes("absent"), 1, 0, 0, 0,
                            amqp_empty_table) == NULL);
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(connection);
    must(reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
         reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD);
    must(((amqp_channel_close_t *)reply.reply.decoded)->reply_code == AMQP_NOT_FOUND);
    amqp_channel_close_ok_t close_ok;
    must(amqp_send_method(connection, 4, AMQP_CHANNEL_CLOSE_OK_METHOD, &close_ok) ==
         AMQP_STATUS_OK);
    must_reply(amqp_channel_open(connection, 4));
    passed("get a channel error and open the channel again");
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 64;
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_connection(argv[1], atoi(argv[2]));
    amqp_bytes_t queue = declare_queue(1);
    publish_with_confirms(queue);
    consume(queue);
    carry_a_large_body(queue);
    survive_a_channel_error();
    amqp_bytes_free(queue);
    must(amqp_connection_close(connection, AMQP_REPLY_SUCCESS).reply_type == AMQP_RESPONSE_NORMAL);
    must(amqp_destroy_connection(connection) == AMQP_STATUS_OK);
    passed("close in order");
    printf("1..%d\n", step_count);
    return 0;
}
