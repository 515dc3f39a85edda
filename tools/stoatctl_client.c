/* libcurl over a unix socket. The host in the URL means nothing; the path goes as it is, because a
 * queue may be called "..". */
#include <curl/curl.h>
#include <poll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <time.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "tools/stoatctl.h"

enum { ANSWER_SIZE_MAX = 1 << 30, AWAIT_STEP_MS = 50 };

struct client {
    const struct options *options;
    CURL *curl;
    struct buf answer;
};

static size_t on_data(char *bytes, size_t size, size_t count, void *context)
{
    struct client *client = context;

    if (buf_size(&client->answer) + size * count > ANSWER_SIZE_MAX)
        return 0;
    buf_append(&client->answer, slice_of(bytes, size * count));
    return size * count;
}

struct client *client_new(const struct options *options)
{
    struct client *client = xcalloc(1, sizeof(*client));

    curl_global_init(CURL_GLOBAL_NOTHING);
    client->options = options;
    client->curl = curl_easy_init();
    if (client->curl == NULL)
        abort();
    curl_easy_setopt(client->curl, CURLOPT_UNIX_SOCKET_PATH, options->socket_path);
    curl_easy_setopt(client->curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(client->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(client->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(client->curl, CURLOPT_TIMEOUT_MS, (long)options->timeout_s * 1000);
    curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, client);
    return client;
}

void client_free(struct client **client)
{
    struct client *gone = *client;

    *client = NULL;
    curl_easy_cleanup(gone->curl);
    curl_global_cleanup();
    buf_release(&gone->answer);
    free(gone);
}

static int explain_no_connection(const struct client *client)
{
    const char *path = client->options->socket_path;
    long error = 0;

    curl_easy_getinfo(client->curl, CURLINFO_OS_ERRNO, &error);
    if (error == EACCES || error == EPERM)
        complain("no access to the control socket %s\n"
                 "Run stoatctl as root or as the user that the broker runs as. To ask another "
                 "broker, name its\n"
                 "data directory with --data-dir.",
                 path);
    else
        complain(
            "no broker answers at %s: %s\n"
            "Is stoatmq running? If its data is elsewhere, name the directory with --data-dir.",
            path, error == 0 ? "cannot connect" : strerror((int)error));
    return EX_UNAVAILABLE;
}

static int explain(const struct client *client, CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return EX_OK;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST: /* a path too long for a socket's address */
        return explain_no_connection(client);
    case CURLE_OPERATION_TIMEDOUT:
        complain("no answer within %" PRIu32 " seconds", client->options->timeout_s);
        return EX_TEMPFAIL;
    default:
        complain("the broker did not answer: %s", curl_easy_strerror(code));
        return EX_UNAVAILABLE;
    }
}

static const char *reason_of(const struct reply *reply)
{
    const char *reason = json_string_value(json_object_get(reply->body, "reason"));

    return reason == NULL ? "it does not say why" : reason;
}

/* What the answer means whatever was asked. */
static int judge(const struct reply *reply)
{
    if (reply->status == 403 || reply->status == 503) {
        complain("the broker refuses: %s", reason_of(reply));
        return EX_UNAVAILABLE;
    }
    if (reply->status == 413) {
        complain("the broker refuses a request of this size");
        return EX_DATAERR;
    }
    const bool is_the_commands = reply->status == 400 || reply->status == 401 ||
                                 reply->status == 404 || reply->status == 409;
    if ((reply->status < 200 || reply->status > 299) && !is_the_commands) {
        complain("the broker answers %ld: %s", reply->status, reason_of(reply));
        return EX_SOFTWARE;
    }
    return EX_OK;
}

int client_send(struct client *client, const char *method, const char *path, const json_t *body,
                struct reply *reply)
{
    char *text = json_dumps(body, JSON_COMPACT);

    curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, text);
    const int status = client_request(client, method, path, reply);
    curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, NULL);
    curl_easy_setopt(client->curl, CURLOPT_HTTPGET, 1L);
    free(text);
    return status;
}

int client_request(struct client *client, const char *method, const char *path, struct reply *reply)
{
    char *url = xasprintf("http://localhost%s", path);

    buf_clear(&client->answer);
    *reply = (struct reply){0};
    curl_easy_setopt(client->curl, CURLOPT_URL, url);
    curl_easy_setopt(client->curl, CURLOPT_CUSTOMREQUEST, method);
    int status = explain(client, curl_easy_perform(client->curl));
    free(url);
    if (status != EX_OK)
        return status;

    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &reply->status);
    if (buf_size(&client->answer) > 0)
        reply->body = json_loadb((const char *)client->answer.data, buf_size(&client->answer),
                                 JSON_ALLOW_NUL, NULL);
    status = judge(reply);
    if (status == EX_OK && buf_size(&client->answer) > 0 && reply->body == NULL) {
        complain("the broker's answer is not JSON");
        status = EX_SOFTWARE;
    }
    if (status != EX_OK)
        json_decref(reply->body);
    return status;
}

int client_ping(struct client *client)
{
    struct reply reply;
    const int status = client_request(client, "GET", "/api/control/ping", &reply);

    if (status == EX_OK)
        json_decref(reply.body);
    return status;
}

/* A broker that is about to come has no socket yet, or an old one that nobody listens on, or one of
 * the broker before it, which is ending. */
static bool may_come(const struct client *client, CURLcode code)
{
    long error = 0;

    curl_easy_getinfo(client->curl, CURLINFO_OS_ERRNO, &error);
    return code == CURLE_OK || code == CURLE_GOT_NOTHING ||
           (code == CURLE_COULDNT_CONNECT && (error == ENOENT || error == ECONNREFUSED));
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int client_await(struct client *client)
{
    const uint32_t timeout_s = client->options->timeout_s;
    const uint64_t end_ms = now_ms() + timeout_s * UINT64_C(1000);

    curl_easy_setopt(client->curl, CURLOPT_URL, "http://localhost/api/control/ping");
    for (;;) {
        const CURLcode code = curl_easy_perform(client->curl);
        long answer = 0;
        curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &answer);
        if (code == CURLE_OK && answer == 204)
            return EX_OK;
        if (!may_come(client, code))
            return explain(client, code);
        if (now_ms() >= end_ms) {
            complain("no broker has come to %s within %" PRIu32 " seconds",
                     client->options->socket_path, timeout_s);
            return EX_TEMPFAIL;
        }
        poll(NULL, 0, AWAIT_STEP_MS);
    }
}

int client_open_process(struct client *client)
{
    curl_socket_t fd = CURL_SOCKET_BAD;
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (curl_easy_getinfo(client->curl, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return -1;
    return pidfd_open(peer.pid, 0);
}

char *api_path(const char *const *segments)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~";
    struct buf out = BUF_EMPTY;

    for (; *segments != NULL; segments++) {
        buf_append(&out, SLICE("/"));
        for (const char *at = *segments; *at != '\0'; at++) {
            if (strchr(plain, *at) != NULL)
                buf_append(&out, slice_of(at, 1));
            else
                buf_printf(&out, "%%%02X", (uint8_t)*at);
        }
    }
    char *path = slice_to_string(buf_slice(&out));
    buf_release(&out);
    return path;
}
