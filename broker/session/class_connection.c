/* Class connection, all of it on channel 0: login, tuning, opening a vhost, closing.
 *
 *     client                                   broker
 *     protocol header ────────────────────────▶
 *             ◀──────────────────────────────── start       (connection.c)
 *     start-ok ───────────────────────────────▶ who is it? (held while the password is verified)
 *             ◀──────────────────────────────── tune
 *     tune-ok ────────────────────────────────▶ limits agreed?
 *     open ───────────────────────────────────▶ may it use the vhost?
 *             ◀──────────────────────────────── open-ok
 *     ...
 *     update-secret ──────────────────────────▶ still the same user? (likewise)
 *             ◀──────────────────────────────── update-secret-ok
 *     ...
 *     close ──────────────────────────────────▶
 *             ◀──────────────────────────────── close-ok
 *
 * A row says in which state a method may come; what comes in another state is 504 (4.4.4). */
#include "amqp/table.h"
#include "base/alloc.h"
#include "core/vhost.h"
#include "session/connection.h"
#include "session/login.h"
#include "session/service.h"

typedef bool connection_handler(struct connection *connection, const struct amqp_method *method,
                                struct amqp_error *error);

/* ---- start-ok ---- */

static bool client_can(struct slice capabilities, const char *name)
{
    struct amqp_value value;
    return amqp_table_find(capabilities, slice_of_string(name), &value) &&
           value.type == AMQP_BOOL && value.boolean;
}

/* 4.1.4, 4.1.5 */
static void keep_client_properties(struct connection *connection, struct slice properties)
{
    struct amqp_value value;
    struct slice name;

    buf_append(&connection->client_properties, properties);
    if (amqp_table_find(properties, SLICE("connection_name"), &value) &&
        amqp_value_string(&value, &name))
        connection->client_name = slice_to_string(name);
    if (!amqp_table_find(properties, SLICE("capabilities"), &value) || value.type != AMQP_TABLE)
        return;
    const struct slice capabilities = value.bytes;
    connection->can_consumer_cancel_notify = client_can(capabilities, "consumer_cancel_notify");
    connection->can_blocked = client_can(capabilities, "connection.blocked");
    connection->can_authentication_failure_close =
        client_can(capabilities, "authentication_failure_close");
}

static void send_tune(struct connection *connection)
{
    const struct service_limits *limits = &connection->service->limits;
    connection_send(
        connection, 0,
        &(struct amqp_method){.id = AMQP_CONNECTION_TUNE,
                              .connection_tune = {.channel_max = limits->channel_max,
                                                  .frame_max = limits->frame_size_max,
                                                  .heartbeat = (uint16_t)limits->heartbeat_s}});
}

static void on_login(struct connection *connection)
{
    send_tune(connection);
    connection_move(connection, CONNECTION_AWAIT_TUNE_OK);
}

static bool on_start_ok(struct connection *connection, const struct amqp_method *method,
                        struct amqp_error *error)
{
    const struct amqp_connection_start_ok *start_ok = &method->connection_start_ok;

    keep_client_properties(connection, start_ok->client_properties);
    return login_begin(connection, start_ok->mechanism, start_ok->response, on_login, error);
}

/* ---- tune-ok ---- */

/* 4.3.2, for one of the two limits; 0 means none. */
static bool check_limit(const char *name, uint32_t theirs, uint32_t least, uint32_t ours,
                        struct amqp_error *error)
{
    if (theirs != 0 && theirs < least)
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "negotiated %s = %u is lower than the minimum allowed value (%u)", name,
                         theirs, least);
    if (ours != 0 && (theirs == 0 || theirs > ours))
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "negotiated %s = %u%s is higher than the maximum allowed value (%u)", name,
                         theirs, theirs == 0 ? " (no limit)" : "", ours);
    return true;
}

static bool on_tune_ok(struct connection *connection, const struct amqp_method *method,
                       struct amqp_error *error)
{
    const struct amqp_connection_tune_ok *tune_ok = &method->connection_tune_ok;
    const struct service_limits *limits = &connection->service->limits;

    if (!check_limit("frame_max", tune_ok->frame_max, AMQP_FRAME_MAX_LEAST, limits->frame_size_max,
                     error) ||
        !check_limit("channel_max", tune_ok->channel_max, 1, limits->channel_max, error))
        return false;

    connection->frame_size_max = tune_ok->frame_max;
    connection->channel_max = tune_ok->channel_max;
    connection->heartbeat_s = tune_ok->heartbeat; /* 4.3.3: as the client says */
    connection_start_heartbeats(connection);
    connection_move(connection, CONNECTION_AWAIT_OPEN);
    return true;
}

/* ---- open ---- */

static bool is_reached(int64_t max, uint32_t count)
{
    return max != LIMIT_NONE && count >= max;
}

/* 4.4.1, in this order. */
static bool check_open(const struct connection *connection, const struct vhost *vhost,
                       struct slice name, struct amqp_error *error)
{
    const struct service *service = connection->service;
    const uint32_t node_max = service->limits.connection_max;
    const uint32_t address_max = service->limits.connection_max_per_address;
    const struct user *user = connection->user;

    if (node_max != 0 && service->open_count >= node_max)
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "connection refused: node connection limit (%u) is reached", node_max);
    if (address_max != 0 && connection->visitor.address->open_count >= address_max)
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "connection refused: limit of connections from one address (%u) is "
                         "reached (connection_max_per_address)",
                         address_max);
    if (vhost != NULL && is_reached(vhost->limits.connection_max, vhost->connection_count))
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "access to vhost '%.*s' refused for user '%s': connection limit (%" PRId64
                         ") is reached",
                         SLICE_ARG(name), connection->user_name, vhost->limits.connection_max);
    if (is_reached(user->limits.connection_max, user->connection_count))
        return amqp_fail(error, AMQP_NOT_ALLOWED,
                         "connection refused for user '%s': user connection limit (%" PRId64
                         ") is reached",
                         connection->user_name, user->limits.connection_max);
    if (vhost == NULL)
        return amqp_fail(error, AMQP_NOT_ALLOWED, "vhost %.*s not found", SLICE_ARG(name));
    return user_open_grant(user, name) != NULL ||
           amqp_fail(error, AMQP_NOT_ALLOWED, "access to vhost '%.*s' refused for user '%s'",
                     SLICE_ARG(name), connection->user_name);
}

/* One more that will have to end (see access/address.h). */
static void enter(struct connection *connection)
{
    const struct address *address = connection->visitor.address;

    connection->user->connection_count++;
    connection->vhost->connection_count++;
    connection->service->open_count++;
    visitor_open(&connection->visitor);
    if (address->ending_count >= ADDRESS_ENDINGS_MAX)
        connection_drop(container_of(TAILQ_FIRST(&address->endings), struct connection, visitor),
                        NULL);
    service_look_at_room(connection->service);
}

static bool on_open(struct connection *connection, const struct amqp_method *method,
                    struct amqp_error *error)
{
    const struct slice name = method->connection_open.virtual_host;
    struct vhost *vhost = vhost_find(connection->broker, name);

    if (!check_open(connection, vhost, name, error))
        return false;
    char label[CONNECTION_LABEL_SIZE];
    log_info("connection %s: user '%s' authenticated and granted access to vhost '%.*s'",
             connection_label(connection, label), connection->user_name, SLICE_ARG(name));
    connection->vhost = vhost_ref(vhost);
    connection->asker.grant = user_open_grant(connection->user, name);
    enter(connection);
    timer_cancel(&connection->timer);
    transport_set_share(&connection->transport, LOOP_SCRATCH_SIZE);
    connection_move(connection, CONNECTION_OPEN);
    connection_send(connection, 0, &(struct amqp_method){.id = AMQP_CONNECTION_OPEN_OK});
    return true;
}

/* ---- update-secret ---- */

/* What the user may do is known at any time, not at login: nothing else changes (4.7.3). */
static void on_new_secret(struct attempt *attempt)
{
    struct connection *connection = login_resume(attempt);
    struct amqp_error error = {.class_id = amqp_class_of(AMQP_CONNECTION_UPDATE_SECRET),
                               .method_id = amqp_method_of(AMQP_CONNECTION_UPDATE_SECRET)};
    char label[CONNECTION_LABEL_SIZE];

    if (attempt->user == NULL) {
        log_error("connection %s: a new secret was refused: %s",
                  connection_label(connection, label), attempt->why);
        amqp_fail(&error, AMQP_NOT_ALLOWED, "New secret was refused by one of the backends");
        connection_fail(connection, &error, NULL);
        return;
    }
    assert(attempt->user == connection->user);
    connection_send(connection, 0, &(struct amqp_method){.id = AMQP_CONNECTION_UPDATE_SECRET_OK});
}

/* 4.7: a new password for the same user, who has to be one still. */
static bool on_update_secret(struct connection *connection, const struct amqp_method *method,
                             struct amqp_error *error)
{
    return login_verify(connection, connection->user->name,
                        method->connection_update_secret.new_secret, on_new_secret, error);
}

/* ---- close ---- */

static bool on_close(struct connection *connection, const struct amqp_method *method,
                     struct amqp_error *error)
{
    (void)method, (void)error;
    connection_wind_up(connection, LOG_INFO, NULL);
    connection_send_last(connection, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE_OK});
    connection_linger(connection);
    return true;
}

#define IN(state) (1u << CONNECTION_##state)
enum { IN_ANY = IN(AWAIT_START_OK) | IN(AWAIT_TUNE_OK) | IN(AWAIT_OPEN) | IN(OPEN) };

static const struct row {
    uint32_t id, states;
    connection_handler *run;
} rows[] = {
    {AMQP_CONNECTION_START_OK, IN(AWAIT_START_OK), on_start_ok},
    {AMQP_CONNECTION_TUNE_OK, IN(AWAIT_TUNE_OK), on_tune_ok},
    {AMQP_CONNECTION_OPEN, IN(AWAIT_OPEN), on_open},
    {AMQP_CONNECTION_UPDATE_SECRET, IN(OPEN), on_update_secret},
    {AMQP_CONNECTION_CLOSE, IN_ANY, on_close},
};

/* As RabbitMQ names them in this error. */
static const char *const state_names[] = {
    [CONNECTION_AWAIT_START_OK] = "starting",
    [CONNECTION_AWAIT_TUNE_OK] = "tuning",
    [CONNECTION_AWAIT_OPEN] = "opening",
    [CONNECTION_OPEN] = "running",
};

bool connection_on_method(struct connection *connection, const struct amqp_method *method,
                          struct amqp_error *error)
{
    for (size_t i = 0; i < countof(rows); i++)
        if (rows[i].id == method->id && (rows[i].states & (1u << connection->state)))
            return rows[i].run(connection, method, error);

    return amqp_fail(error, AMQP_CHANNEL_ERROR, "unexpected method in connection state %s",
                     state_names[connection->state]);
}
