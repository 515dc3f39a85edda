/* The life of a request, by who has it:
 *
 *     AT HOME ──route found: inbox──▶ OUT ──outbox──▶ AT HOME: being sent ──last byte written──▶ freed
 *        └──────────refused at once──────────────────────▲
 *
 * Out, a request may wait for a password to be hashed, or be answered and wait for the store. When
 * the client goes away while its request is out, the request stays out without it and is freed when
 * it is back; in any other state it goes at once.
 *
 * Stopping: the loop thread answers what is parked with 503 and posts `stop` behind all answers.
 * From then on it looks at the inbox no more, so the management thread takes back what it has
 * posted there, answers that and everything new 503, and ends when nothing is left to send. Then
 * one thread is left, and frees the rest.
 *
 * Out of descriptors, who waits to be accepted would keep the thread awake for nothing, so that
 * accepting pauses for RETRY_MS after each failure. One line says so, until none has failed for
 * STARVED_MS.
 *
 * jansson and libevent allocate as everyone here does: running out of memory stops the process. */
#include "manage/http.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/thread.h"
#include "core/broker.h"
#include "manage/api.h"
#include "manage/control_socket.h"
#include "manage/json.h"

enum {
    HEADERS_SIZE_MAX = 16 * 1024,
    BODY_SIZE_MAX = 64 * 1024,
    IDLE_TIMEOUT_S = 30, /* of a connection that neither sends nor takes anything */
    RETRY_MS = 100,      /* to the next attempt to accept, after one has failed */
    STARVED_MS = 10000,  /* a failure this long after the one before is news */
    METHODS = EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT |
              EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH,
};

static const struct {
    enum evhttp_cmd_type method;
    const char *name;
} method_names[] = {
    {EVHTTP_REQ_GET, "GET, HEAD"},
    {EVHTTP_REQ_PUT, "PUT"},
    {EVHTTP_REQ_POST, "POST"},
    {EVHTTP_REQ_DELETE, "DELETE"},
};

/* ---- answering: the management thread ---- */

static int append_to_buffer(const char *bytes, size_t size, void *buffer)
{
    return evbuffer_add(buffer, bytes, size);
}

static void request_free(struct manage_request *request)
{
    struct manage *manage = request->manage;

    if (request->http != NULL) {
        evhttp_connection_set_closecb(evhttp_request_get_connection(request->http), NULL, NULL);
        evhttp_request_set_on_complete_cb(request->http, NULL, NULL);
    }
    json_decref(request->body);
    json_decref(request->input);
    evhttp_clear_headers(&request->query);
    http_path_release(&request->path);
    free(request);
    if (--manage->open_count == 0 && manage->stopping)
        event_base_loopbreak(manage->base);
}

static void on_sent(struct evhttp_request *http, void *context)
{
    (void)http;
    request_free(context);
}

static void on_client_gone(struct evhttp_connection *connection, void *context)
{
    struct manage_request *request = context;
    (void)connection;

    /* Unanswered requests of a broken connection are handed to us; all others go with it. */
    if (evhttp_request_get_connection(request->http) == NULL)
        evhttp_request_free(request->http);
    request->http = NULL;
    if (!request->is_out)
        request_free(request);
}

/* The answer to HEAD: evhttp would send the body. */
static void keep_length_alone(struct evkeyvalq *headers, struct evbuffer *out)
{
    char size[24];

    snprintf(size, sizeof(size), "%zu", evbuffer_get_length(out));
    evhttp_add_header(headers, "Content-Length", size);
    evbuffer_drain(out, evbuffer_get_length(out));
}

static void send_answer(struct manage_request *request)
{
    if (request->http == NULL) {
        request_free(request);
        return;
    }
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request->http);
    struct evbuffer *out = evhttp_request_get_output_buffer(request->http);
    if (request->body != NULL) {
        evhttp_add_header(headers, "Content-Type", "application/json");
        json_dump_callback(request->body, append_to_buffer, out,
                           JSON_COMPACT | JSON_REAL_PRECISION(15));
    }
    if (evhttp_request_get_command(request->http) == EVHTTP_REQ_HEAD)
        keep_length_alone(headers, out);
    evhttp_add_header(headers, "Cache-Control", "no-cache");
    if (request->manage->stopping)
        evhttp_add_header(headers, "Connection", "close");
    evhttp_send_reply(request->http, request->status, NULL, NULL);
}

static void set_error(struct manage_request *request, int status, const char *error,
                      const char *reason)
{
    request->status = status;
    request->body = json_object();
    json_put_string(request->body, "error", error);
    json_put_string(request->body, "reason", reason);
}

static void set_stopping(struct manage_request *request)
{
    json_decref(request->body);
    set_error(request, HTTP_SERVUNAVAIL, "service_unavailable", "the broker is stopping");
}

static void refuse_method(struct manage_request *request, unsigned methods)
{
    char allowed[64] = "";

    for (size_t i = 0; i < countof(method_names); i++)
        if ((methods & method_names[i].method) != 0) {
            strcat(allowed, *allowed == '\0' ? "" : ", ");
            strcat(allowed, method_names[i].name);
        }
    evhttp_add_header(evhttp_request_get_output_headers(request->http), "Allow", allowed);
    set_error(request, HTTP_BADMETHOD, "Method Not Allowed", "Method Not Allowed");
}

/* ---- taking requests in: the management thread ---- */

static bool is_admitted(const struct manage_request *request)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request->http);

    return control_socket_admits(bufferevent_getfd(evhttp_connection_get_bufferevent(connection)));
}

/* Finds the route and its arguments. False: the request is answered with an error instead. */
static bool find_route(struct manage_request *request)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request->http);
    const char *text = uri == NULL ? NULL : evhttp_uri_get_path(uri);
    const char *query = uri == NULL ? NULL : evhttp_uri_get_query(uri);

    if (text == NULL || !http_path_parse(&request->path, text) ||
        (query != NULL && evhttp_parse_query_str(query, &request->query) < 0)) {
        set_error(request, HTTP_BADREQUEST, "bad_request", "malformed path or query");
        return false;
    }
    struct http_match match = http_route_find(
        api_routes, api_route_count, evhttp_request_get_command(request->http), &request->path);
    if (match.route == NULL && match.methods == 0)
        set_error(request, HTTP_NOTFOUND, "Object Not Found", "Not Found");
    else if (match.route == NULL)
        refuse_method(request, match.methods);
    request->route = match.route;
    request->argument_count = match.argument_count;
    memcpy(request->arguments, match.arguments, sizeof(match.arguments));
    return match.route != NULL;
}

/* Parsed here, so that the loop thread need not. False: the request is answered with an error
 * instead. */
static bool read_input(struct manage_request *request)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(request->http);
    const size_t size = evbuffer_get_length(in);

    if ((request->route->method & (EVHTTP_REQ_PUT | EVHTTP_REQ_POST)) == 0 || size == 0)
        return true;
    request->input = json_loadb((const char *)evbuffer_pullup(in, -1), size, JSON_DECODE_ANY, NULL);
    if (request->input == NULL)
        set_error(request, HTTP_BADREQUEST, "bad_request", "not_json");
    return request->input != NULL;
}

static void on_request(struct evhttp_request *http, void *context)
{
    struct manage *manage = context;
    struct manage_request *request = xcalloc(1, sizeof(*request));

    request->manage = manage;
    request->http = http;
    TAILQ_INIT(&request->query);
    manage->open_count++;
    evhttp_request_set_on_complete_cb(http, on_sent, request);
    evhttp_connection_set_closecb(evhttp_request_get_connection(http), on_client_gone, request);

    if (manage->stopping) {
        set_stopping(request);
    } else if (!is_admitted(request)) {
        set_error(request, 403, "not_authorised",
                  "only root and the broker's own user may do this");
    } else if (find_route(request) && read_input(request)) {
        request->is_out = true;
        mailbox_post(&manage->inbox, &request->letter);
        return;
    }
    send_answer(request);
}

/* ---- accepting: the management thread ---- */

/* Its own: the error callback of evhttp's listener is called without a context of ours. */
static _Thread_local struct manage *thread_manage;

static void on_retry(evutil_socket_t fd, short events, void *context)
{
    struct manage *manage = context;
    (void)fd;
    (void)events;

    evconnlistener_enable(manage->listener);
}

static void on_accept_failed(struct evconnlistener *listener, void *http)
{
    const int error = errno;
    const struct timeval wait = {.tv_usec = RETRY_MS * 1000};
    struct manage *manage = thread_manage;
    const uint64_t now_ms = clock_monotonic_ns() / 1000000;
    (void)http;

    if (manage->starved_ms == 0 || now_ms - manage->starved_ms > STARVED_MS)
        log_warning("cannot accept connections on the control socket for the time being: %s",
                    strerror(error));
    manage->starved_ms = now_ms;
    evconnlistener_disable(listener);
    evtimer_add(manage->retry, &wait);
}

/* ---- the thread ---- */

static void on_deadline(evutil_socket_t fd, short events, void *context)
{
    struct manage *manage = context;
    (void)fd;
    (void)events;

    event_base_loopbreak(manage->base);
}

static void begin_stop(struct manage *manage)
{
    const struct timeval wait = {.tv_usec = MANAGE_STOP_MS * 1000};
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    struct letter *letter;

    manage->stopping = true;
    evtimer_add(manage->deadline, &wait);
    mailbox_take(&manage->inbox, &letters);
    while ((letter = STAILQ_FIRST(&letters)) != NULL) {
        STAILQ_REMOVE_HEAD(&letters, link);
        struct manage_request *request = container_of(letter, struct manage_request, letter);
        request->is_out = false;
        set_stopping(request);
        send_answer(request);
    }
    if (manage->open_count == 0)
        event_base_loopbreak(manage->base);
}

static void on_outbox(evutil_socket_t fd, short events, void *context)
{
    struct manage *manage = context;
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    struct letter *letter;
    (void)fd;
    (void)events;

    mailbox_take(&manage->outbox, &letters);
    while ((letter = STAILQ_FIRST(&letters)) != NULL) {
        STAILQ_REMOVE_HEAD(&letters, link);
        if (letter == &manage->stop) {
            begin_stop(manage);
            return;
        }
        struct manage_request *request = container_of(letter, struct manage_request, letter);
        request->is_out = false;
        send_answer(request);
    }
}

static void *run(void *context)
{
    struct manage *manage = context;

    thread_manage = manage;
    event_base_dispatch(manage->base);
    return NULL;
}

/* ---- the loop thread ---- */

static void on_inbox(struct source *source, uint32_t events)
{
    struct manage *manage = container_of(source, struct manage, source);
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    struct letter *letter;
    (void)events;

    mailbox_take(&manage->inbox, &letters);
    while ((letter = STAILQ_FIRST(&letters)) != NULL) {
        STAILQ_REMOVE_HEAD(&letters, link);
        struct manage_request *request = container_of(letter, struct manage_request, letter);
        request->route->handler(request);
    }
}

bool manage_flag(const struct manage_request *request, const char *name)
{
    const char *value = evhttp_find_header(&request->query, name);

    return value != NULL && strcmp(value, "true") == 0;
}

static void send_back(struct manage_request *request)
{
    struct manage *manage = request->manage;

    if (request->is_parked)
        TAILQ_REMOVE(&manage->parked, request, by_parked);
    request->is_parked = false;
    mailbox_post(&manage->outbox, &request->letter);
}

static void on_durable(struct parked *parked)
{
    send_back(container_of(parked, struct manage_request, parked));
}

void manage_answer(struct manage_request *request, int status, json_t *body, uint64_t lsn)
{
    struct parking *parking = &request->manage->options.broker->parking;

    request->status = status;
    request->body = body;
    if (lsn <= parking->durable) {
        send_back(request);
        return;
    }
    request->is_parked = true;
    TAILQ_INSERT_TAIL(&request->manage->parked, request, by_parked);
    request->parked.on_durable = on_durable;
    parking_wait(parking, &request->parked, lsn);
}

void manage_await(struct manage_request *request, struct attempt *attempt)
{
    request->attempt = attempt;
    TAILQ_INSERT_TAIL(&request->manage->hashing, request, by_hashing);
}

struct manage_request *manage_resume(struct attempt *attempt)
{
    struct manage_request *request = attempt->context;

    request->attempt = NULL;
    TAILQ_REMOVE(&request->manage->hashing, request, by_hashing);
    return request;
}

void manage_refuse(struct manage_request *request, int status, const char *error,
                   const char *reason)
{
    set_error(request, status, error, reason);
    send_back(request);
}

void manage_refuse_absent(struct manage_request *request)
{
    manage_refuse(request, HTTP_NOTFOUND, "Object Not Found", "Not Found");
}

/* ---- opening and closing: the loop thread ---- */

static void *reallocate(void *old, size_t size)
{
    return xrealloc(old, 1, size);
}

static void on_library_log(int severity, const char *text)
{
    log_at(severity == EVENT_LOG_ERR ? LOG_ERROR : LOG_WARNING, "management: %s", text);
}

/* Once in a process, before any other call into them. */
static void adopt_libraries(void)
{
    static bool adopted;

    if (adopted)
        return;
    adopted = true;
    json_set_alloc_funcs(xmalloc, free);
    json_object_seed(0);
    event_set_mem_functions(xmalloc, reallocate, free);
    event_set_log_callback(on_library_log);
}

/* 0 or -errno. Without memory the libraries do not return; what may be missing is a descriptor. */
static int open_http(struct manage *manage)
{
    manage->base = event_base_new();
    if (manage->base == NULL)
        return -EMFILE;
    manage->http = evhttp_new(manage->base);
    evhttp_set_max_headers_size(manage->http, HEADERS_SIZE_MAX);
    evhttp_set_max_body_size(manage->http, BODY_SIZE_MAX);
    evhttp_set_timeout(manage->http, IDLE_TIMEOUT_S);
    evhttp_set_allowed_methods(manage->http, METHODS);
    evhttp_set_default_content_type(manage->http, NULL);
    evhttp_set_gencb(manage->http, on_request, manage);
    manage->deadline = evtimer_new(manage->base, on_deadline, manage);
    manage->retry = evtimer_new(manage->base, on_retry, manage);
    manage->outbox_event =
        event_new(manage->base, manage->outbox.fd, EV_READ | EV_PERSIST, on_outbox, manage);
    event_add(manage->outbox_event, NULL);
    return 0;
}

static void name_node(struct manage *manage)
{
    char host[MANAGE_NODE_SIZE - 16] = "localhost";

    gethostname(host, sizeof(host) - 1);
    snprintf(manage->node, sizeof(manage->node), "stoatmq@%s", host);
}

/* The thread does not run: not yet, or not any more. Some of it may never have been opened. */
static void release(struct manage *manage)
{
    if (manage->base != NULL) {
        event_free(manage->outbox_event);
        event_free(manage->deadline);
        event_free(manage->retry);
        evhttp_free(manage->http);
        event_base_free(manage->base);
    }
    assert(manage->open_count == 0);
    if (manage->inbox.fd >= 0)
        mailbox_close(&manage->inbox);
    if (manage->outbox.fd >= 0)
        mailbox_close(&manage->outbox);
    free(manage->listeners);
    free(manage);
}

static int open_mailboxes(struct manage *manage)
{
    manage->inbox.fd = manage->outbox.fd = -1;
    const int result = mailbox_open(&manage->inbox);
    return result < 0 ? result : mailbox_open(&manage->outbox);
}

/* What needs no thread. 0 or -errno. */
static int prepare(struct manage *manage, const struct manage_options *options)
{
    const size_t size = options->listener_count * sizeof(*options->listeners);

    manage->options = *options;
    manage->listeners = xmalloc(size + 1);
    if (size > 0)
        memcpy(manage->listeners, options->listeners, size);
    manage->options.listeners = manage->listeners;
    manage->started_ms = options->broker->clock->now_ms;
    manage->source = (struct source){.fd = -1, .on_ready = on_inbox};
    TAILQ_INIT(&manage->parked);
    TAILQ_INIT(&manage->hashing);
    name_node(manage);
    int result = open_mailboxes(manage);
    if (result == 0)
        result = open_http(manage);
    return result;
}

static int listen_and_start(struct manage *manage)
{
    struct loop *loop = manage->options.broker->loop;
    const int fd = control_socket_open(manage->options.socket_path);
    if (fd < 0)
        return fd;
    struct evhttp_bound_socket *bound = evhttp_accept_socket_with_handle(manage->http, fd);
    if (bound == NULL) {
        close(fd);
        unlink(manage->options.socket_path);
        return -ENOMEM;
    }
    manage->listener = evhttp_bound_socket_get_listener(bound);
    evconnlistener_set_error_cb(manage->listener, on_accept_failed);
    manage->source.fd = manage->inbox.fd;
    int result = loop_watch(loop, &manage->source);
    if (result == 0) {
        result = thread_start(&manage->thread, run, manage);
        if (result < 0)
            loop_unwatch(loop, &manage->source);
    }
    if (result < 0)
        unlink(manage->options.socket_path);
    return result;
}

int manage_open(const struct manage_options *options, struct manage **manage,
                char error[MANAGE_ERROR_SIZE])
{
    struct manage *opened = xcalloc(1, sizeof(*opened));

    adopt_libraries();
    api_control_begin(options);
    int result = prepare(opened, options);
    if (result == 0)
        result = listen_and_start(opened);
    if (result < 0) {
        snprintf(error, MANAGE_ERROR_SIZE, "cannot open the control socket %s: %s",
                 options->socket_path, strerror(-result));
        release(opened);
        return result;
    }
    *manage = opened;
    return 0;
}

void manage_close(struct manage **manage)
{
    struct manage *gone = *manage;
    struct manage_request *request;

    *manage = NULL;
    loop_unwatch(gone->options.broker->loop, &gone->source);
    while ((request = TAILQ_FIRST(&gone->parked)) != NULL) {
        parking_cancel(&request->parked);
        set_stopping(request);
        send_back(request);
    }
    while ((request = TAILQ_FIRST(&gone->hashing)) != NULL) {
        TAILQ_REMOVE(&gone->hashing, request, by_hashing);
        authenticator_cancel(&request->attempt);
        set_stopping(request);
        send_back(request);
    }
    mailbox_post(&gone->outbox, &gone->stop);
    pthread_join(gone->thread, NULL);
    unlink(gone->options.socket_path);
    release(gone);
}
