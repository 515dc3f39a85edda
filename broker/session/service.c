/* The AMQP service: takes in clients, says who the broker is, and asks them to leave when it stops.
 *
 * The server-properties of connection.start (4.1.2) are the same for every client, so they are
 * encoded once. A connection is in the list from connection_new until it is freed in the REAP
 * phase. */
#include "session/service.h"

#include <unistd.h>

#include "amqp/table.h"
#include "base/log.h"
#include "session/revocation.h"

enum {
    LOW_MEMORY_PART = 64, /* of what a connection may hold up otherwise */
    CRITICAL_PART = 4,    /* of the memory that is critical: what one connection may hold up */
    SMALL_BODY_SIZE =
        4096,     /* so many octets in each channel of a connection are not worth counting */
    CROWD = 1000, /* connections whose memory is worth giving back */
};

/* What clients may rely on (4.1.3): what is implemented, and nothing else. */
static const char *const capabilities[] = {
    "publisher_confirms",     "exchange_exchange_bindings", "basic.nack",
    "consumer_cancel_notify", "per_consumer_qos",           "authentication_failure_close",
    "direct_reply_to",        "consumer_priorities",        "connection.blocked",
};

static void put_capabilities(struct buf *out)
{
    const size_t table = amqp_table_begin_table(out, SLICE("capabilities"));
    for (size_t i = 0; i < countof(capabilities); i++)
        amqp_table_put_bool(out, slice_of_string(capabilities[i]), true);
    amqp_table_end(out, table);
}

static bool is_overridden(const char *key, const struct service_property *properties, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(properties[i].key, key) == 0)
            return true;
    return false;
}

/* Clients switch behaviour on product and version: these are the ones that they expect. platform
 * and stoatmq_version say who we are. */
static void put_server_properties(struct service *service,
                                  const struct service_property *properties, size_t count)
{
    struct buf *out = &service->server_properties;
    const struct service_property defaults[] = {
        {"cluster_name", service->node},
        {"copyright", "Copyright (c) the StoatMQ authors"},
        {"information", "Licensed under the Apache License 2.0"},
        {"platform", "StoatMQ"},
        {"product", "RabbitMQ"},
        {"version", "3.13.7"},
        {"stoatmq_version", STOATMQ_VERSION},
    };
    put_capabilities(out);
    for (size_t i = 0; i < countof(defaults); i++)
        if (!is_overridden(defaults[i].key, properties, count))
            amqp_table_put_string(out, slice_of_string(defaults[i].key),
                                  slice_of_string(defaults[i].value));
    for (size_t i = 0; i < count; i++)
        amqp_table_put_string(out, slice_of_string(properties[i].key),
                              slice_of_string(properties[i].value));
}

static void name_node(struct service *service)
{
    char host[256] = "localhost";

    gethostname(host, sizeof(host) - 1);
    snprintf(service->node, sizeof(service->node), "stoatmq@%s", host);
}

static uint64_t unacked_size_at_most(const struct service *service)
{
    const uint64_t configured = service->limits.unacked_size_max;

    return configured == 0
               ? UINT64_MAX
               : min_of(configured, service->alarm.limits.memory_critical / CRITICAL_PART);
}

static uint64_t low_memory_part(uint64_t size)
{
    return size == UINT64_MAX ? size : max_of(size / LOW_MEMORY_PART, (uint64_t)1);
}

/* What one connection may leave unacknowledged, or unread: less while memory is low. But who has
 * said how many messages it takes may wait for the last of them before it acknowledges the first,
 * and memory is low until it does: that it gets as long as memory is not critical. */
static void set_consumer_limits(struct service *service)
{
    const struct alarm *alarm = &service->alarm;
    const uint64_t whole = unacked_size_at_most(service), part = low_memory_part(whole);
    const uint64_t output = service->limits.output_size_max;

    service->unacked_size_max = alarm->critical ? part : whole;
    service->unacked_size_bare = alarm->memory ? part : whole;
    service->broker->loop->output_max = alarm->memory ? output / LOW_MEMORY_PART : output;
}

/* Who was held up goes on, as far as it may. Nothing else happens when an alarm is raised: who
 * publishes finds out then (4.6.1). */
static void on_alarm_change(struct alarm *alarm)
{
    struct service *service = container_of(alarm, struct service, alarm);
    struct connection *connection;

    set_consumer_limits(service);
    TAILQ_FOREACH (connection, &service->connections, link) {
        connection_on_limits(connection);
        if (!alarm_is_on(alarm))
            connection_unblock(connection);
    }
}

void service_on_store_full(struct service *service)
{
    struct connection *connection;

    alarm_look(&service->alarm);
    if (!alarm_is_on(&service->alarm))
        return;
    TAILQ_FOREACH (connection, &service->connections, link)
        if (!connection->blocked && connection_awaits_confirms(connection))
            connection_block(connection);
}

static void on_rehash(struct authenticator *authenticator, struct user *user,
                      const struct password *password)
{
    struct service *service = container_of(authenticator, struct service, authenticator);
    uint64_t lsn;

    account_set_password(service->broker, user, password, &lsn);
}

int service_init(struct service *service, struct broker *broker,
                 const struct service_limits *limits, const struct service_property *properties,
                 size_t property_count, unsigned password_cost, bool threaded)
{
    *service = (struct service){
        .broker = broker,
        .limits = *limits,
        .logins = login_rules_default,
        .reserved_size_min = (uint32_t)min_of(limits->message_size_max, (uint64_t)SMALL_BODY_SIZE),
    };
    const int result = authenticator_open(&service->authenticator, &broker->users, broker->loop,
                                          broker->random, password_cost, threaded);
    if (result < 0)
        return result;
    service->authenticator.on_rehash = on_rehash;
    service->authenticator.delay_max_ms = limits->login_delay_max_ms;
    returns_init(&service->returns, broker);
    spenders_init(&service->spenders, broker);
    revocation_init(&service->watcher);
    broker->watcher = &service->watcher;
    route_init(&service->route, broker);
    TAILQ_INIT(&service->connections);
    addresses_init(&service->addresses, broker->clock);
    alarm_init(&service->alarm, on_alarm_change);
    if (service->limits.output_size_max == 0)
        service->limits.output_size_max = LOOP_OUTPUT_MAX;
    set_consumer_limits(service);
    name_node(service);
    put_server_properties(service, properties, property_count);
    return 0;
}

void service_release(struct service *service)
{
    assert(service->connection_count == 0);
    returns_release(&service->returns);
    spenders_release(&service->spenders);
    alarm_stop(&service->alarm);
    service->broker->watcher = NULL;
    authenticator_close(&service->authenticator);
    route_release(&service->route);
    addresses_release(&service->addresses);
    buf_release(&service->server_properties);
}

static size_t count_sockets(const struct service *service)
{
    return service->connection_count - service->closed_count;
}

bool service_has_room(struct service *service)
{
    return service->connection_room == 0 ||
           count_sockets(service) + service->proxied_count < service->connection_room;
}

bool service_make_way(struct service *service)
{
    struct visitor *oldest = addresses_oldest(&service->addresses);

    if (oldest == NULL)
        return false;
    connection_drop(container_of(oldest, struct connection, visitor),
                    "there are no descriptors for others who wait, and its handshake has not "
                    "ended");
    return true;
}

/* The alarm ends when an eighth is free again, not with each one that leaves. */
void service_look_at_room(struct service *service)
{
    const size_t room = service->connection_room;
    const size_t settled = count_sockets(service) - service->addresses.yielding_count;

    if (room == 0)
        return;
    if (settled >= room)
        alarm_set_descriptors(&service->alarm, true, room);
    else if (settled <= room - room / 8)
        alarm_set_descriptors(&service->alarm, false, room);
}

void service_on_gone(struct service *service)
{
    service->connection_count--;
    service->closed_count--;
    if (service->connection_count + CROWD <= service->connection_most) {
        service->connection_most = service->connection_count;
        alarm_release_memory(&service->alarm);
    }
    if (service->stopping && service->connection_count == 0 && service->on_idle != NULL)
        service->on_idle(service);
}

void service_accept(struct service *service, int fd, struct tls_context *tls,
                    const struct endpoint *local, const struct endpoint *peer)
{
    if (service->stopping) {
        close(fd);
        return;
    }
    struct connection *connection = connection_new(service, local, peer);
    const int result = connection_open_socket(connection, fd, tls);
    if (result < 0)
        log_error("cannot serve a connection from %s:%u: %s", peer->host, peer->port,
                  strerror(-result));
}

static void report_idle(struct service *service)
{
    if (service->connection_count == 0 && service->on_idle != NULL)
        service->on_idle(service);
}

void service_stop(struct service *service, const char *reason)
{
    struct connection *connection, *next;

    if (service->stopping)
        return;
    service->stopping = true;
    TAILQ_FOREACH_SAFE (connection, &service->connections, link, next)
        connection_force_close(connection, reason);
    report_idle(service);
}

void service_abort(struct service *service, const char *reason)
{
    struct connection *connection, *next;

    service->stopping = true;
    TAILQ_FOREACH_SAFE (connection, &service->connections, link, next)
        connection_drop(connection, reason);
    report_idle(service);
}
