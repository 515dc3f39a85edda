/* http: the management thread over a real control socket, and a broker in this process whose loop
 * the test turns. */
#include "manage/http.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "amqp/method.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "core/vhost.h"
#include "store/memory.h"
#include "tests/lib/harness.h"
#include "tests/lib/unit.h"

enum { PATIENCE_MS = 5000, NOBODY = 65534 };

static struct harness harness;
static struct manage *manage;
static char directory[] = "/tmp/test-http-XXXXXX";
static char socket_path[64];
static unsigned stops; /* how often on_stop was called */

static void on_stop(void *context)
{
    ck_assert_ptr_eq(&harness, context);
    stops++;
}

static void each_setting(void *context, void (*take)(void *to, const char *key, const char *value),
                         void *to)
{
    ck_assert_ptr_eq(&harness, context);
    take(to, "heartbeat", "60");
    take(to, "default_vhost", "\"\\\xff");
}

static int try_open(struct manage **opened, char error[MANAGE_ERROR_SIZE])
{
    const struct manage_listener listener = {"amqp", {.host = "127.0.0.1", .port = 5672}};
    const struct manage_options options = {
        .service = &harness.service,
        .broker = &harness.broker,
        .data_dir = directory,
        .socket_path = socket_path,
        .listeners = &listener,
        .listener_count = 1,
        .on_stop = on_stop,
        .each_setting = each_setting,
        .context = &harness,
    };
    return manage_open(&options, opened, error);
}

static void set_up(void)
{
    char error[MANAGE_ERROR_SIZE] = "";

    harness_init(&harness, NULL);
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(socket_path, sizeof(socket_path), "%s/control.sock", directory);
    ck_assert_msg(try_open(&manage, error) == 0, "%s", error);
}

static void tear_down(void)
{
    if (manage != NULL)
        manage_close(&manage);
    ck_assert_int_lt(access(socket_path, F_OK), 0);
    rmdir(directory);
    harness_release(&harness);
}

/* ---- a client ---- */

struct client {
    int fd;
    struct buf answer;
    bool at_end;
};

static struct client client_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, socket_path);
    struct client client = {.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ck_assert_int_eq(0, connect(client.fd, (struct sockaddr *)&address, sizeof(address)));
    return client;
}

static void client_close(struct client *client)
{
    buf_release(&client->answer);
    close(client->fd);
}

static void client_send(struct client *client, const char *method, const char *path)
{
    char *text = xasprintf("%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, path);
    ck_assert_int_eq((int)strlen(text), (int)send(client->fd, text, strlen(text), MSG_NOSIGNAL));
    free(text);
}

static void client_put(struct client *client, const char *path, const char *body)
{
    char *text = xasprintf("PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", path,
                           strlen(body), body);
    ck_assert_int_eq((int)strlen(text), (int)send(client->fd, text, strlen(text), MSG_NOSIGNAL));
    free(text);
}

/* Takes what has come, a moment at most. */
static void client_take(struct client *client)
{
    struct pollfd ready = {.fd = client->fd, .events = POLLIN};

    if (poll(&ready, 1, 2) == 0)
        return;
    const ssize_t size = recv(client->fd, buf_reserve(&client->answer, 65536), 65536, MSG_DONTWAIT);
    if (size > 0)
        buf_commit(&client->answer, (size_t)size);
    else
        client->at_end = true;
}

/* Turns the loop until the answer holds the text, or the connection has ended; false: neither
 * happened. */
static bool client_await(struct client *client, const char *text)
{
    const uint64_t deadline_ns = clock_monotonic_ns() + PATIENCE_MS * UINT64_C(1000000);

    while (clock_monotonic_ns() < deadline_ns) {
        if (manage != NULL)
            loop_turn(&harness.loop, 0);
        client_take(client);
        buf_append(&client->answer, SLICE("\0"));
        client->answer.end--;
        if (client->at_end || strstr((const char *)client->answer.data, text) != NULL)
            return true;
    }
    return false;
}

static void client_expect(struct client *client, const char *text)
{
    ck_assert(client_await(client, text));
    ck_assert_msg(strstr((const char *)client->answer.data, text) != NULL, "no '%s' in '%s'", text,
                  (const char *)client->answer.data);
    buf_clear(&client->answer);
}

/* Lets both threads do what they can. */
static void settle(void)
{
    for (int i = 0; i < 20; i++) {
        loop_turn(&harness.loop, 0);
        usleep(1000);
    }
}

static void expect_silence(struct client *client)
{
    settle();
    client_take(client);
    ck_assert_uint_eq(0, buf_size(&client->answer));
    ck_assert(!client->at_end);
}

static struct peer *declare(const char *queue)
{
    struct peer *peer = peer_open_channel(&harness);
    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                              .queue_declare = {.queue = slice_of_string(queue), .durable = true}},
        AMQP_QUEUE_DECLARE_OK);
    return peer;
}

/* ---- answers ---- */

static const struct {
    const char *method, *path, *status, *text;
} requests[] = {
    {"GET", "/api/overview", "HTTP/1.1 200", "\"rabbitmq_version\":\"3.13.7\""},
    {"GET", "/api/overview", "HTTP/1.1 200", "\"object_totals\":{\"connections\":1,"},
    {"GET", "/api/vhosts", "HTTP/1.1 200", "[{\"name\":\"/\","},
    {"GET", "/api/queues", "HTTP/1.1 200", "[{\"name\":\"q\",\"vhost\":\"/\",\"type\":\"classic\""},
    {"GET", "/api/queues/%2F", "HTTP/1.1 200", "\"messages\":0,\"messages_ready\":0"},
    {"GET", "/api/queues/%2F/q", "HTTP/1.1 200", "\"consumer_details\":[]"},
    {"GET", "/api/queues?x=%zz&x", "HTTP/1.1 400", "malformed"},
    {"GET", "/api/queues/nope", "HTTP/1.1 404",
     "{\"error\":\"Object Not Found\",\"reason\":\"Not Found\"}"},
    {"GET", "/api/queues/%2F/nope", "HTTP/1.1 404", "\"Not Found\"}"},
    {"GET", "/api/exchanges/%2F", "HTTP/1.1 200", "\"name\":\"amq.topic\""},
    {"GET", "/api/exchanges/%2F/amq.direct", "HTTP/1.1 200", "\"type\":\"direct\""},
    {"GET", "/api/exchanges/%2F/nope", "HTTP/1.1 404", "\"Not Found\"}"},
    {"GET", "/api/bindings", "HTTP/1.1 200",
     "{\"source\":\"\",\"vhost\":\"/\",\"destination\":\"q\",\"destination_type\":\"queue\","
     "\"routing_key\":\"q\",\"arguments\":{},\"properties_key\":\"q\"}"},
    {"GET", "/api/connections", "HTTP/1.1 200", "\"state\":\"running\""},
    {"GET", "/api/channels", "HTTP/1.1 200", "\"number\":1,"},
    {"GET", "/api/control/environment", "HTTP/1.1 200",
     "{\"heartbeat\":\"60\",\"default_vhost\":\"\\\"\\\\\\\\xff\"}"},
    {"GET", "/api/consumers/%2F", "HTTP/1.1 200", "[]"},
    {"GET", "/api/control/status", "HTTP/1.1 200", "\"listeners\":[{\"node\":\"stoatmq@"},
    {"GET", "/api/control/ping", "HTTP/1.1 204", "\r\n\r\n"},
    {"GET", "/api/nope", "HTTP/1.1 404", "\"Not Found\"}"},
    {"GET", "/%zz", "HTTP/1.1 400", "bad_request"},
    {"PUT", "/api/queues", "HTTP/1.1 405", "Allow: GET, HEAD\r\n"},
    {"GET", "/api/queues/%2F/q/contents", "HTTP/1.1 405", "Allow: DELETE\r\n"},
    {"DELETE", "/api/queues/%2F/q?if-unused=true", "HTTP/1.1 204", "\r\n\r\n"},
};

START_TEST(answers)
{
    struct peer *peer = declare("q");
    struct client client = client_connect();
    client_send(&client, requests[_i].method, requests[_i].path);
    ck_assert(client_await(&client, requests[_i].text));
    const char *answer = (const char *)client.answer.data;
    ck_assert_msg(strncmp(answer, requests[_i].status, strlen(requests[_i].status)) == 0, "%s",
                  answer);
    ck_assert_msg(strstr(answer, requests[_i].text) != NULL, "%s", answer);
    client_close(&client);
    peer_free(&peer);
}
END_TEST

START_TEST(one_connection_many_requests)
{
    struct client client = client_connect();
    for (int i = 0; i < 100; i++) {
        client_send(&client, "GET", "/api/vhosts");
        client_expect(&client, "\"name\":\"/\"");
    }
    client_send(&client, "HEAD", "/api/vhosts");
    client_send(&client, "GET", "/api/control/ping");
    ck_assert(client_await(&client, "HTTP/1.1 204"));
    ck_assert_ptr_null(strstr((const char *)client.answer.data, "[{"));
    client_close(&client);
}
END_TEST

START_TEST(preconditions_are_bad_requests)
{
    struct peer *peer = declare("q");
    peer_publish(peer, 1, "", "q", "body");
    struct client client = client_connect();
    client_send(&client, "DELETE", "/api/queues/%2F/q?if-empty=true");
    client_expect(&client,
                  "\"reason\":\"406 PRECONDITION_FAILED - queue 'q' in vhost '/' not empty\"");
    client_send(&client, "DELETE", "/api/queues/%2F/q/contents");
    client_expect(&client, "HTTP/1.1 204");
    client_send(&client, "DELETE", "/api/queues/%2F/q?if-empty=true");
    client_expect(&client, "HTTP/1.1 204");
    client_send(&client, "GET", "/api/queues/%2F/q");
    client_expect(&client, "HTTP/1.1 404");
    client_close(&client);
    peer_free(&peer);
}
END_TEST

/* ---- bodies ---- */

static const struct {
    const char *body, *status, *text;
} policies[] = {
    {"{\"pattern\":\"^q\",\"definition\":{\"max-length\":5}}", "HTTP/1.1 201", "\r\n\r\n"},
    {"{\"pattern\":\"\",\"definition\":{\"max-length\":5},\"priority\":-3,\"apply-to\":\"queues\"}",
     "HTTP/1.1 201", "\r\n\r\n"},
    {"", "HTTP/1.1 400", "\"not_json\""},
    {"{", "HTTP/1.1 400", "\"not_json\""},
    {"7", "HTTP/1.1 400", "\"not_json\""},
    {"{\"pattern\":\"\\u0000\"}", "HTTP/1.1 400", "\"not_json\""},
    {"{\"pattern\":\"^q\"}", "HTTP/1.1 400", "definition should be an object"},
    {"{\"definition\":{\"max-length\":5}}", "HTTP/1.1 400", "pattern should be a string"},
    {"{\"pattern\":8,\"definition\":{\"max-length\":5}}", "HTTP/1.1 400",
     "pattern should be a string"},
    {"{\"pattern\":\"(\",\"definition\":{\"max-length\":5}}", "HTTP/1.1 400",
     "\"Validation failed\\n\\npattern should be regular expression but is invalid: missing "
     "closing "
     "parenthesis at offset 1\\n\""},
    {"{\"pattern\":\"\",\"definition\":{\"max-length\":5},\"priority\":2147483648}", "HTTP/1.1 400",
     "priority should be a number of 32 bits"},
    {"{\"pattern\":\"\",\"definition\":{\"max-length\":5},\"priority\":\"x\"}", "HTTP/1.1 400",
     "priority should be a number of 32 bits"},
    {"{\"pattern\":\"\",\"definition\":{\"max-length\":5},\"apply-to\":\"x\"}", "HTTP/1.1 400",
     "apply-to 'x' unrecognised"},
    {"{\"pattern\":\"\",\"definition\":{\"max-length\":5},\"apply-to\":7}", "HTTP/1.1 400",
     "apply-to '' unrecognised"},
    {"{\"pattern\":\"\",\"definition\":{\"max-length\":\"5\"}}", "HTTP/1.1 400",
     "5 is not a valid maximum length"},
};

START_TEST(r17_1_policies)
{
    struct client client = client_connect();
    client_put(&client, "/api/policies/%2F/p", policies[_i].body);
    ck_assert(client_await(&client, policies[_i].text));
    const char *answer = (const char *)client.answer.data;
    ck_assert_msg(strncmp(answer, policies[_i].status, strlen(policies[_i].status)) == 0, "%s",
                  answer);
    ck_assert_msg(strstr(answer, policies[_i].text) != NULL, "%s", answer);
    client_close(&client);
}
END_TEST

START_TEST(r17_1_policies_of_both_kinds)
{
    struct peer *peer = declare("q");
    struct client client = client_connect();
    client_put(&client, "/api/policies/%2F/p",
               "{\"pattern\":\"^q\",\"definition\":{\"max-length\":5,\"expires\":60000}}");
    client_expect(&client, "HTTP/1.1 201");
    client_put(&client, "/api/policies/%2F/p",
               "{\"pattern\":\"^q\",\"definition\":{\"max-length\":4,\"expires\":60000}}");
    client_expect(&client, "HTTP/1.1 204");
    client_put(&client, "/api/operator-policies/%2F/o",
               "{\"pattern\":\"^q\",\"definition\":{\"max-length\":3}}");
    client_expect(&client, "HTTP/1.1 201");
    client_put(&client, "/api/policies/nope/p", "{}");
    client_expect(&client, "HTTP/1.1 404");
    client_send(&client, "GET", "/api/policies");
    client_expect(&client,
                  "[{\"vhost\":\"/\",\"name\":\"p\",\"pattern\":\"^q\",\"apply-to\":\"all\","
                  "\"definition\":{\"max-length\":4,\"expires\":60000},\"priority\":0}]");
    client_send(&client, "GET", "/api/operator-policies/%2F/o");
    client_expect(&client, "{\"vhost\":\"/\",\"name\":\"o\"");
    client_send(&client, "GET", "/api/queues/%2F/q");
    client_expect(&client, "\"policy\":\"p\",\"operator_policy\":\"o\","
                           "\"effective_policy_definition\":{\"expires\":60000,\"max-length\":3}");
    client_send(&client, "DELETE", "/api/operator-policies/%2F/o");
    client_expect(&client, "HTTP/1.1 204");
    client_send(&client, "DELETE", "/api/operator-policies/%2F/o");
    client_expect(&client, "HTTP/1.1 404");
    client_send(&client, "GET", "/api/operator-policies/%2F");
    client_expect(&client, "[]");
    client_close(&client);
    peer_free(&peer);
}
END_TEST

static const char *const too_large[] = {"header", "body"};

START_TEST(limits) /* CVE-2023-46118 */
{
    struct client client = client_connect();
    char *filler = xmalloc(100 * 1024 + 1);
    memset(filler, 'x', 100 * 1024);
    filler[100 * 1024] = '\0';
    char *text = _i == 0
                     ? xasprintf("GET /api/vhosts HTTP/1.1\r\nX: %s\r\n\r\n", filler)
                     : xasprintf("POST /api/control/stop HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s",
                                 strlen(filler), filler);
    send(client.fd, text, strlen(text), MSG_NOSIGNAL);
    ck_assert_msg(client_await(&client, "HTTP/1.1 4"), "%s", too_large[_i]);
    ck_assert_uint_eq(0, stops);
    free(text);
    free(filler);
    client_close(&client);
}
END_TEST

/* In pieces, whose number nobody knows; or of a size that it announces and that is never sent. */
static const char *const without_an_end[] = {
    "POST /api/control/stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "PUT /api/vhosts/v HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /api/nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "PUT /api/vhosts/v HTTP/1.1\r\nContent-Length: 4000000000\r\n\r\n",
    "PUT /api/vhosts/v HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
    "PUT /api/vhosts/v HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
};

START_TEST(bodies_without_an_end) /* CVE-2023-46118 */
{
    static const char piece[] = "400\r\n";
    char filler[1024 + 2];
    struct client client = client_connect();
    send(client.fd, without_an_end[_i], strlen(without_an_end[_i]), MSG_NOSIGNAL);
    memset(filler, 'x', 1024);
    memcpy(filler + 1024, "\r\n", 2);
    if (strstr(without_an_end[_i], "chunked") != NULL)
        for (int i = 0; i < 100; i++) {
            send(client.fd, piece, sizeof(piece) - 1, MSG_NOSIGNAL);
            send(client.fd, filler, sizeof(filler), MSG_NOSIGNAL);
        }
    ck_assert_msg(client_await(&client, "HTTP/1.1 4"), "%s", without_an_end[_i]);
    ck_assert_uint_eq(0, stops);
    client_close(&client);

    client = client_connect();
    client_send(&client, "GET", "/api/vhosts/v");
    client_expect(&client, "HTTP/1.1 404");
    client_close(&client);
}
END_TEST

/* What a client says stands in answers as it is, and does not lead out of what the path names. */
static const struct {
    const char *method, *path, *answer;
} texts[] = {
    {"GET", "/api/vhosts/%25n%25s%25n%25999999d", "\"%n%s%n%999999d\""},
    {"DELETE", "/api/vhosts/%25n%25s", "404"},
    {"GET", "/api/queues/%2F/%25n%25s?lengths_age=99999999999999999999&lengths_incr=1&x=%25n",
     "404"},
    {"GET", "/api/queues?sort=%25n&page_size=99999999999999999999&page=-1&columns=%25s",
     "HTTP/1.1 "},
    {"GET", "/api/vhosts/..%2F..%2F..%2Fetc%2Fpasswd", "404"},
    {"GET", "/api/vhosts/../../../etc/passwd", "404"},
    {"GET", "/api/vhosts/a%00b", "40"},
    {"GET", "/api/vhosts/a%0d%0aSet-Cookie:%20x=y", "404"},
};

START_TEST(texts_are_no_formats) /* CVE-2015-8786, CVE-2026-67224 */
{
    struct client client = client_connect();
    client_put(&client, "/api/vhosts/%25n%25s%25n%25999999d", "{}");
    client_expect(&client, "HTTP/1.1 201");
    char *text = xasprintf("%s %s HTTP/1.1\r\nHost: %%n%%s\r\nX-Reason: %%n%%n%%s%%999999d\r\n\r\n",
                           texts[_i].method, texts[_i].path);
    ck_assert_int_eq((int)strlen(text), (int)send(client.fd, text, strlen(text), MSG_NOSIGNAL));
    free(text);
    ck_assert(client_await(&client, "\r\n\r\n"));
    const char *const answer = (const char *)client.answer.data;
    ck_assert_msg(strstr(answer, texts[_i].answer) != NULL, "%s", answer);
    ck_assert_ptr_null(strstr(answer, "\nSet-Cookie"));
    client_close(&client);
}
END_TEST

START_TEST(stop_reaches_the_server)
{
    struct client client = client_connect();
    client_send(&client, "GET", "/api/control/stop");
    client_expect(&client, "HTTP/1.1 405");
    ck_assert_uint_eq(0, stops);
    client_send(&client, "POST", "/api/control/stop");
    client_expect(&client, "HTTP/1.1 202");
    ck_assert_uint_eq(1, stops);
    client_close(&client);
}
END_TEST

/* ---- waiting for the store ---- */

static const char *const durable_changes[] = {"/api/queues/%2F/q", "/api/queues/%2F/q/contents"};

/* A queue with a stored message, and a store that syncs when told. */
static struct peer *hold_store(void)
{
    struct peer *peer = declare("q");
    struct vhost *vhost = vhost_find(&harness.broker, SLICE("/"));
    struct queue *queue = vhost_find_queue(vhost, SLICE("q"), ACCESS_GET, NULL, NULL);
    struct message *message = message_new(SLICE(""), SLICE("q"), SLICE("\0\0"), 0, true);
    queue_push(queue, message);
    message_unref(&message);
    broker_touch_store(&harness.broker);
    harness_run(&harness);
    store_memory_set_auto_sync(harness.store, false);
    return peer;
}

START_TEST(durable_changes_are_answered_when_durable)
{
    struct peer *peer = hold_store();
    struct client client = client_connect();
    client_send(&client, "DELETE", durable_changes[_i]);
    expect_silence(&client);
    store_memory_sync(harness.store);
    client_expect(&client, "HTTP/1.1 204");
    client_close(&client);
    peer_free(&peer);
}
END_TEST

START_TEST(policies_are_answered_when_durable)
{
    struct peer *peer = hold_store();
    struct client client = client_connect();
    client_put(&client, "/api/policies/%2F/p",
               "{\"pattern\":\"^x\",\"definition\":{\"max-length\":5}}");
    expect_silence(&client);
    store_memory_sync(harness.store);
    client_expect(&client, "HTTP/1.1 201");
    client_send(&client, "DELETE", "/api/policies/%2F/p");
    expect_silence(&client);
    store_memory_sync(harness.store);
    client_expect(&client, "HTTP/1.1 204");
    client_close(&client);
    peer_free(&peer);
}
END_TEST

START_TEST(client_goes_while_it_waits)
{
    struct peer *peer = hold_store();
    struct client client = client_connect();
    client_send(&client, "DELETE", durable_changes[_i]);
    expect_silence(&client);
    client_close(&client);
    settle();
    store_memory_sync(harness.store);
    settle();
    peer_free(&peer);
}
END_TEST

START_TEST(close_answers_what_waits)
{
    struct peer *peer = hold_store();
    struct client waiting = client_connect(), unseen = client_connect(), idle = client_connect();
    client_send(&waiting, "DELETE", durable_changes[_i]);
    expect_silence(&waiting);
    client_send(&unseen, "GET", "/api/vhosts");
    usleep(20000); /* in the inbox now, most likely */
    manage_close(&manage);
    client_expect(&waiting, "HTTP/1.1 503");
    client_expect(&unseen, "HTTP/1.1 503");
    ck_assert(client_await(&idle, "nothing") && idle.at_end);
    client_close(&waiting);
    client_close(&unseen);
    client_close(&idle);
    peer_free(&peer);
}
END_TEST

START_TEST(close_does_not_wait_for_clients_that_do_not_read)
{
    struct client client = client_connect();
    const int size = 1;
    setsockopt(client.fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    for (int i = 0; i < 2000; i++) {
        static const char text[] = "GET /api/exchanges HTTP/1.1\r\n\r\n";
        if (send(client.fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        loop_turn(&harness.loop, 0);
    }
    settle();
    const uint64_t begin_ns = clock_monotonic_ns();
    manage_close(&manage);
    ck_assert_uint_lt((clock_monotonic_ns() - begin_ns) / 1000000, 4 * MANAGE_STOP_MS);
    client_close(&client);
}
END_TEST

/* ---- many at once ---- */

static void *hammer(void *context)
{
    struct client client = client_connect();
    const unsigned *number = context;

    for (int i = 0; i < 50; i++) {
        client_send(&client, "GET", i % 2 == 0 ? "/api/overview" : "/api/control/status");
        if (*number % 2 == 0 && i % 5 == 0) { /* goes without its answer */
            client_close(&client);
            client = client_connect();
            continue;
        }
        for (struct pollfd ready = {.fd = client.fd, .events = POLLIN};
             poll(&ready, 1, 1000) > 0;) {
            char bytes[4096];
            const ssize_t size = recv(client.fd, bytes, sizeof(bytes), 0);
            if (size <= 0 || (size >= 2 && memcmp(bytes + size - 2, "]}", 2) == 0) ||
                memchr(bytes, '}', (size_t)size) != NULL)
                break;
        }
    }
    client_close(&client);
    return NULL;
}

START_TEST(many_clients_and_a_close_among_them)
{
    pthread_t threads[4];
    unsigned numbers[4];

    for (unsigned i = 0; i < countof(threads); i++) {
        numbers[i] = i;
        ck_assert_int_eq(0, pthread_create(&threads[i], NULL, hammer, &numbers[i]));
    }
    const uint64_t end_ns = clock_monotonic_ns() + 2000 * UINT64_C(1000000);
    while (clock_monotonic_ns() < end_ns)
        loop_turn(&harness.loop, 1);
    for (size_t i = 0; i < countof(threads); i++)
        pthread_join(threads[i], NULL);
}
END_TEST

/* ---- the socket ---- */

START_TEST(the_socket_is_ours_alone) /* CVE-2024-51988 */
{
    struct stat status;
    ck_assert_int_eq(0, stat(socket_path, &status));
    ck_assert_uint_eq(S_IFSOCK | 0600, status.st_mode);
}
END_TEST

START_TEST(other_users_are_refused) /* CVE-2024-51988 */
{
    if (geteuid() != 0)
        return;
    ck_assert_int_eq(0, chmod(socket_path, 0666));
    ck_assert_int_eq(0, chmod(directory, 0755));
    int ends[2];
    ck_assert_int_eq(0, pipe(ends));
    const pid_t child = fork();
    if (child == 0) {
        struct client client = {0};
        if (setuid(NOBODY) == 0)
            client = client_connect();
        client_send(&client, "POST", "/api/control/stop");
        char bytes[16] = "";
        const ssize_t size = recv(client.fd, bytes, 12, MSG_WAITALL);
        _exit(size == 12 && write(ends[1], bytes, 12) == 12 ? 0 : 1);
    }
    int status;
    char bytes[13] = "";
    ck_assert_int_eq(child, waitpid(child, &status, 0));
    ck_assert_int_eq(0, status);
    ck_assert_int_eq(12, (int)read(ends[0], bytes, 12));
    ck_assert_str_eq("HTTP/1.1 403", bytes);
    settle();
    ck_assert_uint_eq(0, stops);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(a_live_socket_is_left_alone)
{
    char error[MANAGE_ERROR_SIZE];
    struct manage *second = NULL;
    ck_assert_int_eq(-EADDRINUSE, try_open(&second, error));
    ck_assert_ptr_nonnull(strstr(error, socket_path));
    struct client client = client_connect();
    client_send(&client, "GET", "/api/control/ping");
    client_expect(&client, "HTTP/1.1 204");
    client_close(&client);
}
END_TEST

START_TEST(a_stale_socket_is_replaced)
{
    char error[MANAGE_ERROR_SIZE];
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    manage_close(&manage);
    strcpy(address.sun_path, socket_path);
    const int stale = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(0, bind(stale, (struct sockaddr *)&address, sizeof(address)));
    close(stale);
    ck_assert_int_eq(0, try_open(&manage, error));
}
END_TEST

START_TEST(what_is_no_socket_is_left_alone)
{
    char error[MANAGE_ERROR_SIZE];

    manage_close(&manage);
    FILE *file = fopen(socket_path, "w");
    fclose(file);
    ck_assert_int_eq(-EADDRINUSE, try_open(&manage, error));
    ck_assert_int_eq(0, unlink(socket_path));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http");
    TCase *tests = tcase_create("http");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, answers, 0, countof(requests));
    tcase_add_test(tests, one_connection_many_requests);
    tcase_add_test(tests, preconditions_are_bad_requests);
    tcase_add_loop_test(tests, r17_1_policies, 0, countof(policies));
    tcase_add_test(tests, r17_1_policies_of_both_kinds);
    tcase_add_loop_test(tests, limits, 0, countof(too_large));
    tcase_add_loop_test(tests, bodies_without_an_end, 0, countof(without_an_end));
    tcase_add_loop_test(tests, texts_are_no_formats, 0, countof(texts));
    tcase_add_test(tests, stop_reaches_the_server);
    tcase_add_loop_test(tests, durable_changes_are_answered_when_durable, 0,
                        countof(durable_changes));
    tcase_add_test(tests, policies_are_answered_when_durable);
    tcase_add_loop_test(tests, client_goes_while_it_waits, 0, countof(durable_changes));
    tcase_add_loop_test(tests, close_answers_what_waits, 0, countof(durable_changes));
    tcase_add_test(tests, close_does_not_wait_for_clients_that_do_not_read);
    tcase_add_test(tests, many_clients_and_a_close_among_them);
    tcase_add_test(tests, the_socket_is_ours_alone);
    tcase_add_test(tests, other_users_are_refused);
    tcase_add_test(tests, a_live_socket_is_left_alone);
    tcase_add_test(tests, a_stale_socket_is_replaced);
    tcase_add_test(tests, what_is_no_socket_is_left_alone);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
