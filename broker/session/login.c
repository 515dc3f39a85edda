#include "session/login.h"

#include "amqp/sasl.h"
#include "session/service.h"

const struct login_rules login_rules_default = {
    .allowed = {[LOGIN_PLAIN] = true, [LOGIN_AMQPLAIN] = true, [LOGIN_EXTERNAL] = true},
    .certificate_name = TLS_DISTINGUISHED_NAME,
    .anonymous_user = "guest",
};

/* 4.2.5: who cannot understand the answer gets none. The wire never tells what was wrong. */
static void refuse(struct connection *connection, const char *why)
{
    struct amqp_error error = {0}; /* it is not start-ok that failed */
    char reason[512];

    connection->broker->counters.logins_refused++;
    snprintf(reason, sizeof(reason), "%s login refused: user '%s' - %s", connection->mechanism,
             connection->user_name, why);
    if (connection->can_authentication_failure_close) {
        amqp_fail(&error, AMQP_ACCESS_REFUSED,
                  "Login was refused using authentication mechanism %s. For details see the broker "
                  "logfile.",
                  connection->mechanism);
        connection_fail(connection, &error, reason);
    } else {
        connection_wind_up(connection, LOG_ERROR, reason);
        connection_linger(connection);
    }
}

static void accept_as(struct connection *connection, struct user *user)
{
    connection->broker->counters.logins++;
    connection->user = user;
    connection->on_login(connection);
}

/* For the log, and then the user's: cut at NUL, and where it is longer than a name may be. */
static void keep_name(struct connection *connection, struct slice name)
{
    snprintf(connection->user_name, sizeof(connection->user_name), "%.*s", SLICE_ARG(name));
}

/* ---- with a password ---- */

struct connection *login_resume(struct attempt *attempt)
{
    struct connection *connection = attempt->context;

    connection->attempt = NULL;
    connection_unhold(connection);
    return connection;
}

/* The client may go, and the handshake time out, meanwhile. */
bool login_verify(struct connection *connection, struct slice name, struct slice password,
                  attempt_done *on_done, struct amqp_error *error)
{
    connection->attempt = authenticator_login(&connection->service->authenticator, name, password,
                                              connection->visitor.address,
                                              connection->peer.loopback, on_done, connection);
    if (connection->attempt == NULL)
        return amqp_fail(error, AMQP_RESOURCE_ERROR,
                         "too many other logins from this address wait for their turn");
    connection_hold(connection);
    return true;
}

static void on_verified(struct attempt *attempt)
{
    struct connection *connection = login_resume(attempt);

    if (attempt->user == NULL)
        refuse(connection, attempt->why);
    else
        accept_as(connection, attempt->user);
}

typedef bool decode_response(struct slice response, struct slice *name, struct slice *password,
                             struct amqp_error *error);

static bool log_in_by(decode_response *decode, struct connection *connection, struct slice response,
                      struct amqp_error *error)
{
    struct slice name, password;

    if (!decode(response, &name, &password, error))
        return false;
    keep_name(connection, name);
    return login_verify(connection, name, password, on_verified, error);
}

static bool log_in_plain(struct connection *connection, struct slice response,
                         struct amqp_error *error)
{
    return log_in_by(amqp_sasl_plain, connection, response, error);
}

static bool log_in_amqplain(struct connection *connection, struct slice response,
                            struct amqp_error *error)
{
    return log_in_by(amqp_sasl_amqplain, connection, response, error);
}

/* ---- without ---- */

/* A user who is known by other means than a password. */
static void log_in_as(struct connection *connection, struct slice name)
{
    struct users *users = &connection->broker->users;
    struct user *user = users_find(users, name);

    keep_name(connection, name);
    if (user == NULL)
        refuse(connection, "there is no such user");
    else if (!connection->peer.loopback && users_is_restricted(users, name)) /* 4.2.6 */
        refuse(connection, "user can only connect via localhost");
    else
        accept_as(connection, user);
}

static bool log_in_external(struct connection *connection, struct slice response,
                            struct amqp_error *error)
{
    const struct login_rules *rules = &connection->service->logins;
    struct buf name = BUF_EMPTY;
    (void)response, (void)error;
    const char *why_not = tls_transport_name(&connection->transport, rules->certificate_name,
                                             rules->certificate_index, &name);

    if (why_not == NULL)
        log_in_as(connection, buf_slice(&name));
    else
        refuse(connection, why_not);
    buf_release(&name);
    return true;
}

static bool log_in_anonymous(struct connection *connection, struct slice response,
                             struct amqp_error *error)
{
    (void)response, (void)error;
    log_in_as(connection, slice_of_string(connection->service->logins.anonymous_user));
    return true;
}

/* ---- mechanisms ---- */

static const struct mechanism {
    const char *name;
    bool (*log_in)(struct connection *connection, struct slice response, struct amqp_error *error);
} mechanisms[LOGIN_MECHANISMS] = {
    [LOGIN_PLAIN] = {"PLAIN", log_in_plain},
    [LOGIN_AMQPLAIN] = {"AMQPLAIN", log_in_amqplain},
    [LOGIN_EXTERNAL] = {"EXTERNAL", log_in_external},
    [LOGIN_ANONYMOUS] = {"ANONYMOUS", log_in_anonymous},
};

static bool is_offered(const struct connection *connection, enum login_mechanism mechanism)
{
    struct tls_facts facts;

    return connection->service->logins.allowed[mechanism] &&
           (mechanism != LOGIN_EXTERNAL ||
            (tls_transport_facts(&connection->transport, &facts) && facts.has_certificate));
}

void login_offer(const struct connection *connection, char names[LOGIN_NAMES_SIZE])
{
    size_t size = 0;

    names[0] = '\0';
    for (int i = 0; i < LOGIN_MECHANISMS; i++)
        if (is_offered(connection, (enum login_mechanism)i))
            size += (size_t)snprintf(names + size, LOGIN_NAMES_SIZE - size, "%s%s",
                                     size > 0 ? " " : "", mechanisms[i].name);
}

bool login_begin(struct connection *connection, struct slice name, struct slice response,
                 void (*done)(struct connection *connection), struct amqp_error *error)
{
    for (int i = 0; i < LOGIN_MECHANISMS; i++) {
        if (!slice_equal(name, slice_of_string(mechanisms[i].name)) ||
            !is_offered(connection, (enum login_mechanism)i))
            continue;
        snprintf(connection->mechanism, sizeof(connection->mechanism), "%s", mechanisms[i].name);
        connection->on_login = done;
        return mechanisms[i].log_in(connection, response, error);
    }
    return amqp_fail(error, AMQP_COMMAND_INVALID, "unknown authentication mechanism '%.*s'",
                     SLICE_ARG(name)); /* 4.2.4 */
}
