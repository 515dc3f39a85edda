/* Starting: loop, store's contents, service, and only then listeners and management, so that no
 * client sees half of it; the first user last, so that a start which fails leaves none. Stopping is
 * the reverse: listeners close, clients are told and given STOP_GRACE_MS to answer, the loop stops
 * when the last is gone, then management ends and the store takes in what is left and closes. When
 * the store fails there is no grace: nobody may get another positive answer. */
#include "server.h"

#include <sysexits.h>

#include "access/resources.h"
#include "base/alloc.h"
#include "base/log.h"
#include "manage/http.h"
#include "net/tls.h"
#include "session/service.h"
#include "store/store.h"

enum { STOP_GRACE_MS = 1000, DESCRIPTOR_RESERVE = 64, MIB = 1024 * 1024 };

static_assert((int)MANAGE_ERROR_SIZE <= (int)SERVER_ERROR_SIZE, "a sentence for the operator");

static_assert((int)TLS_ERROR_SIZE <= (int)SERVER_ERROR_SIZE, "a sentence for the operator");

/* What clients speak on a port. */
struct protocol {
    const char *name; /* for the operator */
    const char *family, *title;
    bool tls;
};
static const struct protocol protocol_amqp = {"amqp", "listeners.tcp", "TCP", false},
                             protocol_amqps = {"amqp/ssl", "listeners.ssl", "TLS", true};

struct server_listener {
    TAILQ_ENTRY(server_listener) link;
    struct listener listener;
    const struct protocol *protocol;
};

struct server {
    const struct config *config;
    struct loop loop;
    struct broker broker;
    struct service service;
    TAILQ_HEAD(, server_listener) listeners;
    size_t listener_count;
    struct tls tls;                  /* open while there is a context */
    struct tls_context *tls_context; /* NULL: there are no TLS listeners */
    struct vhost_rule *vhost_rules;  /* as many as the broker knows of */
    char *control_path;
    struct manage *manage; /* NULL until it is open */
    struct timer grace;    /* while stopping */
};

static void on_idle(struct service *service)
{
    struct server *server = service->context;

    loop_stop(&server->loop);
}

static void on_store_failure(struct broker *broker)
{
    struct server *server = container_of(broker, struct server, broker);

    server_abort(server);
}

static void on_store_full(struct broker *broker)
{
    service_on_store_full(&container_of(broker, struct server, broker)->service);
}

static void on_grace_over(struct timer *timer)
{
    server_abort(container_of(timer, struct server, grace));
}

/* ---- alarms ---- */

static struct alarm_readings read_resources(void *context)
{
    const struct server *server = context;

    return (struct alarm_readings){
        .memory_used = resources_memory_used(),
        .disk_free = resources_disk_free(server->config->data_dir),
        .store_full = store_is_full(server->broker.store),
    };
}

static void release_memory(void *context)
{
    (void)context;
    resources_release();
}

static void start_alarm(struct server *server)
{
    const struct config *config = server->config;
    const uint64_t total =
        config->memory_total != 0 ? config->memory_total : resources_memory_total();
    const uint64_t memory_max = config->memory_absolute != 0
                                    ? config->memory_absolute
                                    : (uint64_t)(config->memory_relative * (double)total);
    const struct alarm_limits limits = {
        .memory_max = memory_max,
        .memory_critical = memory_max + (total > memory_max ? (total - memory_max) / 2 : 0),
        .disk_free_min = config->disk_free_relative != 0
                             ? (uint64_t)(config->disk_free_relative * (double)total)
                             : config->disk_free_absolute,
    };
    const struct alarm_source source = {
        .read = read_resources, .release = release_memory, .context = server};

    log_info("Memory high watermark set to %.1f MiB (of %.1f MiB), disk free limit to %.1f MiB",
             (double)limits.memory_max / MIB, (double)total / MIB,
             (double)limits.disk_free_min / MIB);
    alarm_start(&server->service.alarm, &server->loop.timers, server->loop.clock, &limits, &source);
}

/* ---- start ---- */

/* Whether a family of the configuration has this word. */
static bool names(const struct config_properties *family, const char *word)
{
    const struct config_property *property;

    TAILQ_FOREACH (property, family, link)
        if (strcmp(property->value, word) == 0)
            return true;
    return false;
}

static enum tls_name name_of_certificate(const struct config_ssl *ssl)
{
    static const enum tls_name alternatives[] = {[SAN_DNS] = TLS_ALTERNATIVE_DNS,
                                                 [SAN_EMAIL] = TLS_ALTERNATIVE_EMAIL,
                                                 [SAN_URI] = TLS_ALTERNATIVE_URI,
                                                 [SAN_IP] = TLS_ALTERNATIVE_IP};

    if (ssl->login_from == LOGIN_FROM_SAN || ssl->login_from == LOGIN_FROM_SAN_SHORT)
        return alternatives[ssl->login_san_type];
    return ssl->login_from == LOGIN_FROM_CN ? TLS_COMMON_NAME : TLS_DISTINGUISHED_NAME;
}

static void set_logins(const struct config *config, struct login_rules *rules)
{
    const struct config_properties *given = &config->mechanisms;

    rules->certificate_name = name_of_certificate(&config->ssl_options);
    rules->certificate_index = config->ssl_options.login_san_index;
    rules->anonymous_user = config->anonymous_user;
    if (TAILQ_EMPTY(given))
        return;
    rules->allowed[LOGIN_PLAIN] = names(given, "PLAIN");
    rules->allowed[LOGIN_AMQPLAIN] = names(given, "AMQPLAIN");
    rules->allowed[LOGIN_EXTERNAL] = names(given, "EXTERNAL");
    rules->allowed[LOGIN_ANONYMOUS] = names(given, "ANONYMOUS");
}

static int start_service(struct server *server)
{
    const struct config *config = server->config;
    const struct config_property *property;
    size_t count = 0;

    TAILQ_FOREACH (property, &config->server_properties, link)
        count++;
    struct service_property *properties = xcalloc(count + 1, sizeof(*properties));
    count = 0;
    TAILQ_FOREACH (property, &config->server_properties, link)
        properties[count++] = (struct service_property){property->key, property->value};
    const int result = service_init(&server->service, &server->broker, &config->service_limits,
                                    properties, count, PASSWORD_COST, true);
    free(properties);
    set_logins(config, &server->service.logins);
    server->service.on_idle = on_idle;
    server->service.context = server;
    return result;
}

static void restrict_users(struct server *server)
{
    const struct config_name *user;

    TAILQ_FOREACH (user, &server->config->loopback_users, link)
        if (user->on)
            users_restrict_to_loopback(&server->broker.users, slice_of_string(user->name));
}

/* Or says that a user is not there whom the operator may look for. */
static void give_defaults(struct server *server)
{
    const struct config *config = server->config;
    struct buf tags = BUF_EMPTY;

    config_write_tags(config, &tags);
    const struct broker_defaults defaults = {
        .vhost = slice_of_string(config->default_vhost),
        .user = slice_of_string(config->default_user),
        .password = slice_of_string(config->default_pass),
        .tags = buf_slice(&tags),
        .permissions = {[ACCESS_CONFIGURE] = slice_of_string(config->default_configure),
                        [ACCESS_WRITE] = slice_of_string(config->default_write),
                        [ACCESS_READ] = slice_of_string(config->default_read)},
        .password_cost = PASSWORD_COST,
    };

    if (!broker_give_defaults(&server->broker, &defaults) &&
        strcmp(config->default_user, CONFIG_DEFAULT_USER) != 0 &&
        users_find(&server->broker.users, defaults.user) == NULL)
        log_warning(
            "there is no user '%s' (default_user): that key counts at the first start with a "
            "data directory, which this one has had; 'stoatctl add_user' makes users",
            config->default_user);
    buf_release(&tags);
}

static void make_vhost_rules(struct server *server)
{
    const struct config_vhost_limits *limits;
    char error[PATTERN_ERROR_SIZE];
    size_t count = 0;

    TAILQ_FOREACH (limits, &server->config->vhost_limits, link)
        count++;
    struct vhost_rule *rule = server->vhost_rules = xcalloc(count, sizeof(*rule));
    TAILQ_FOREACH (limits, &server->config->vhost_limits, link) {
        rule->pattern = pattern_new(slice_of_string(limits->pattern), error);
        assert(rule->pattern != NULL); /* config_check has seen it */
        rule++->limits = (struct vhost_limits){limits->connection_max, limits->queue_max};
    }
    server->broker.vhost_rules = server->vhost_rules;
    server->broker.vhost_rule_count = count;
}

static void free_vhost_rules(struct server *server)
{
    for (size_t i = 0; i < server->broker.vhost_rule_count; i++)
        pattern_free(&server->vhost_rules[i].pattern);
    free(server->vhost_rules);
}

/* Without it what the store does not have stays in memory. */
static void open_scratch(struct server *server)
{
    struct scratch *scratch;
    char error[SCRATCH_ERROR_SIZE];

    if (scratch_open(server->config->data_dir, &scratch, error) != 0) {
        log_error("messages that are not persistent stay in memory: %s", error);
    } else if (broker_set_scratch(&server->broker, scratch) != 0) {
        log_error("messages that are not persistent stay in memory: too few descriptors");
        scratch_close(&scratch);
    }
}

static int start_broker(struct server *server, struct clock *clock, struct random *random,
                        struct store *store)
{
    const struct config *config = server->config;
    const int failed = broker_init(&server->broker, &server->loop, clock, random, store);

    if (failed != 0)
        return failed;
    server->broker.on_store_failure = on_store_failure;
    server->broker.on_store_full = on_store_full;
    server->broker.limits = config->broker_limits;
    paging_set_limit(&server->broker.paging, config->message_memory_max);
    open_scratch(server);
    restrict_users(server);
    return 0;
}

struct server *server_new(const struct config *config, struct clock *clock, struct random *random,
                          struct store **store, char error[SERVER_ERROR_SIZE])
{
    struct server *server = xcalloc(1, sizeof(*server));

    server->config = config;
    server->grace.on_expire = on_grace_over;
    TAILQ_INIT(&server->listeners);
    int failed = loop_init(&server->loop, clock);
    if (failed != 0) {
        snprintf(error, SERVER_ERROR_SIZE, "cannot set up the event loop: %s", strerror(-failed));
        goto no_loop;
    }
    failed = start_broker(server, clock, random, *store);
    if (failed != 0) {
        snprintf(error, SERVER_ERROR_SIZE, "cannot read the store in %s: %s", config->data_dir,
                 strerror(-failed));
        goto no_broker;
    }
    failed = start_service(server);
    if (failed != 0) {
        snprintf(error, SERVER_ERROR_SIZE, "cannot start the thread that verifies passwords: %s",
                 strerror(-failed));
        goto no_service;
    }
    *store = NULL; /* the broker's */
    make_vhost_rules(server);
    start_alarm(server);
    return server;

no_service:
    broker_release(&server->broker);
no_broker:
    loop_release(&server->loop);
no_loop:
    free(server);
    return NULL;
}

/* ---- TLS ---- */

/* Names of the configuration's family with a colon between them; those of TLS 1.3 begin with
 * "TLS_". NULL when there is none. */
static char *join_ciphers(const struct config_properties *ciphers, bool of_1_3)
{
    const struct config_property *cipher;
    struct buf names = BUF_EMPTY;

    TAILQ_FOREACH (cipher, ciphers, link)
        if ((strncmp(cipher->value, "TLS_", 4) == 0) == of_1_3)
            buf_printf(&names, "%s%s", buf_size(&names) > 0 ? ":" : "", cipher->value);
    char *joined = buf_size(&names) > 0 ? slice_to_string(buf_slice(&names)) : NULL;
    buf_release(&names);
    return joined;
}

static const char *file_or_none(const char *path)
{
    return *path == '\0' ? NULL : path;
}

static struct tls_context *read_certificates(const struct config *config, struct tls *tls,
                                             char error[SERVER_ERROR_SIZE])
{
    const struct config_ssl *ssl = &config->ssl_options;
    char *ciphers = join_ciphers(&ssl->ciphers, false);
    char *ciphersuites = join_ciphers(&ssl->ciphers, true);
    const struct tls_options options = {
        .certificate_file = ssl->certfile,
        .key_file = file_or_none(ssl->keyfile),
        .password = file_or_none(ssl->password),
        .ca_file = file_or_none(ssl->cacertfile),
        .ciphers = ciphers,
        .ciphersuites = ciphersuites,
        .verify_peer = ssl->verify == VERIFY_PEER,
        .require_peer = ssl->fail_if_no_peer_cert,
        .depth = ssl->depth,
        .tls_1_2 = TAILQ_EMPTY(&ssl->versions) || names(&ssl->versions, "tlsv1.2"),
        .tls_1_3 = TAILQ_EMPTY(&ssl->versions) || names(&ssl->versions, "tlsv1.3"),
        .client_order = !ssl->honor_cipher_order,
    };
    struct tls_context *context = tls_context_new(tls, &options, error);

    free(ciphers);
    free(ciphersuites);
    return context;
}

bool server_check_files(const struct config *config, char error[SERVER_ERROR_SIZE])
{
    if (TAILQ_EMPTY(&config->ssl.list) || *config->ssl_options.certfile == '\0')
        return true;
    struct tls_context *context = read_certificates(config, NULL, error);
    const bool ok = context != NULL;
    tls_context_free(&context);
    return ok;
}

static bool open_tls(struct server *server, char error[SERVER_ERROR_SIZE])
{
    if (TAILQ_EMPTY(&server->config->ssl.list))
        return true;
    const struct tls_limits limits = {.begun = server->config->ssl_handshake_max,
                                      .waiting = server->config->ssl_handshake_max_per_address};
    const int failed = tls_open(&server->tls, &server->loop, &limits);
    if (failed != 0) {
        snprintf(error, SERVER_ERROR_SIZE, "cannot start the thread for TLS: %s",
                 strerror(-failed));
        return false;
    }
    server->tls_context = read_certificates(server->config, &server->tls, error);
    if (server->tls_context == NULL) {
        tls_close(&server->tls);
        return false;
    }
    const char *weak = tls_context_weak_cipher(server->tls_context);
    if (weak != NULL)
        log_warning("cipher %s has no forward secrecy or no authenticated encryption "
                    "(ssl_options.ciphers): who records what is sent may read it one day",
                    weak);
    return true;
}

static void close_tls(struct server *server)
{
    if (server->tls_context == NULL)
        return;
    tls_context_free(&server->tls_context);
    tls_close(&server->tls);
}

void server_reload(struct server *server)
{
    char error[SERVER_ERROR_SIZE];

    if (server->tls_context == NULL) {
        log_info("there are no certificates to read again");
        return;
    }
    struct tls_context *context = read_certificates(server->config, &server->tls, error);
    if (context == NULL) {
        log_error("%s; the certificate in use stays%s", error,
                  server->config->sandbox ? ". What may be read was settled at the start: files of "
                                            "other directories need another one"
                                          : "");
        return;
    }
    tls_context_free(&server->tls_context);
    server->tls_context = context;
    log_info("the certificate has been read again; new connections get it");
}

/* ---- listeners ---- */

static void on_accept(struct listener *listener, int fd, const struct endpoint *local,
                      const struct endpoint *peer)
{
    const struct server_listener *opened = container_of(listener, struct server_listener, listener);
    struct server *server = listener->context;

    service_accept(&server->service, fd, opened->protocol->tls ? server->tls_context : NULL, local,
                   peer);
}

static bool has_room(struct listener *listener)
{
    struct server *server = listener->context;

    return service_has_room(&server->service);
}

/* A proxy says at once whose a connection is: who has not is none. */
static bool make_way(struct listener *listener)
{
    struct server *server = listener->context;
    struct server_listener *opened;

    TAILQ_FOREACH (opened, &server->listeners, link)
        if (listener_drop_proxied(&opened->listener))
            return true;
    return service_make_way(&server->service);
}

/* Of the descriptors that the process may have, all that are not in use yet but a reserve: for the
 * control socket and management, for files that are read or written now and then. */
static void count_room(struct server *server)
{
    const uint64_t limit = resources_descriptors_max(), used = resources_descriptors_used();
    const uint64_t left = limit > used ? limit - used : 0;
    const uint64_t reserve = min_of(left / 4, (uint64_t)DESCRIPTOR_RESERVE);

    server->service.connection_room = (size_t)max_of(left - reserve, (uint64_t)1);
    log_info("Limiting to approx %zu connections (of %" PRIu64 " file descriptors, %" PRIu64
             " are kept)",
             server->service.connection_room, limit, used + reserve);
}

static bool open_listeners(struct server *server, const struct protocol *protocol,
                           const struct config_listeners *listeners, char error[SERVER_ERROR_SIZE])
{
    const struct config_listener *wanted;

    TAILQ_FOREACH (wanted, &listeners->list, link) {
        struct server_listener *opened = xcalloc(1, sizeof(*opened));
        int failed = listener_open(&opened->listener, &server->loop, wanted->host, wanted->port,
                                   (int)server->config->backlog);
        if (failed != 0) {
            snprintf(error, SERVER_ERROR_SIZE, "cannot listen on %s port %u (%s.%s): %s",
                     wanted->host == NULL ? "any address," : wanted->host, wanted->port,
                     protocol->family, wanted->name, strerror(-failed));
            free(opened);
            return false;
        }
        opened->protocol = protocol;
        if (server->config->proxy_protocol)
            opened->listener.proxy_timeout_ms = server->config->service_limits.handshake_timeout_ms;
        opened->listener.proxied_count = &server->service.proxied_count;
        opened->listener.context = server;
        opened->listener.on_accept = on_accept;
        opened->listener.has_room = has_room;
        opened->listener.make_way = make_way;
        TAILQ_INSERT_TAIL(&server->listeners, opened, link);
        server->listener_count++;
        log_info("started %s listener on %s:%u", protocol->title, opened->listener.local.host,
                 opened->listener.local.port);
    }
    return true;
}

static void on_operator_stop(void *context)
{
    log_info("an operator asks for it - shutting down");
    server_stop(context);
}

static void each_setting(void *context, void (*take)(void *to, const char *key, const char *value),
                         void *to)
{
    config_each(((struct server *)context)->config, take, to);
}

static bool open_management(struct server *server, char error[SERVER_ERROR_SIZE])
{
    struct manage_listener *listeners = xcalloc(server->listener_count + 1, sizeof(*listeners));
    const struct server_listener *opened;
    size_t count = 0;

    TAILQ_FOREACH (opened, &server->listeners, link)
        listeners[count++] =
            (struct manage_listener){opened->protocol->name, opened->listener.local};
    server->control_path = xasprintf("%s/control.sock", server->config->data_dir);
    const struct manage_options options = {
        .service = &server->service,
        .broker = &server->broker,
        .data_dir = server->config->data_dir,
        .socket_path = server->control_path,
        .listeners = listeners,
        .listener_count = count,
        .on_stop = on_operator_stop,
        .each_setting = each_setting,
        .context = server,
    };
    const int result = manage_open(&options, &server->manage, error);
    free(listeners);
    return result == 0;
}

int server_listen(struct server *server, char error[SERVER_ERROR_SIZE])
{
    if (!open_tls(server, error))
        return EX_CONFIG;
    if (!open_listeners(server, &protocol_amqp, &server->config->tcp, error) ||
        !open_listeners(server, &protocol_amqps, &server->config->ssl, error) ||
        !open_management(server, error))
        return EX_UNAVAILABLE;
    count_room(server);
    give_defaults(server);
    return 0;
}

struct loop *server_loop(struct server *server)
{
    return &server->loop;
}

static void close_listeners(struct server *server)
{
    struct server_listener *opened;

    while ((opened = TAILQ_FIRST(&server->listeners)) != NULL) {
        TAILQ_REMOVE(&server->listeners, opened, link);
        listener_close(&opened->listener);
        free(opened);
    }
}

static const char shutdown_reason[] = "broker forced connection closure with reason 'shutdown'";

void server_stop(struct server *server)
{
    close_listeners(server);
    if (!timer_is_set(&server->grace))
        timer_set(&server->loop.timers, &server->grace, server->loop.clock->now_ms + STOP_GRACE_MS);
    service_stop(&server->service, shutdown_reason);
}

void server_abort(struct server *server)
{
    close_listeners(server);
    service_abort(&server->service, shutdown_reason);
}

int server_free(struct server **server)
{
    struct server *gone = *server;
    struct store *store = gone->broker.store;
    int failed = gone->broker.store_error;

    *server = NULL;
    timer_cancel(&gone->grace);
    close_listeners(gone);
    if (gone->manage != NULL)
        manage_close(&gone->manage);
    free(gone->control_path);
    service_release(&gone->service);
    close_tls(gone);
    free_vhost_rules(gone);
    broker_release(&gone->broker);
    int closed = store_close(&store);
    if (closed != 0 && failed == 0)
        log_critical("cannot close the store: %s", strerror(-closed));
    loop_release(&gone->loop);
    free(gone);
    return failed != 0 || closed != 0 ? EX_IOERR : EXIT_SUCCESS;
}
