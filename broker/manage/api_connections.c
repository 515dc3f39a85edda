/* GET /api/connections: those in their handshake, too; and closing some of them. */
#include "manage/api.h"

#include "session/service.h"

json_t *api_connection_details(const struct connection *connection)
{
    json_t *object = json_object();

    json_put_string(object, "name", connection->name);
    json_put_string(object, "peer_host", connection->peer.host);
    json_put_number(object, "peer_port", connection->peer.port);
    return object;
}

static void put_who(json_t *object, const struct connection *connection)
{
    json_put_string(object, "name", connection->name);
    json_put_string(object, "user", connection->user_name);
    json_put_string(object, "user_who_performed_action", connection->user_name);
    if (connection->vhost != NULL)
        json_put_slice(object, "vhost", connection->vhost->name);
    json_put_string(object, "host", connection->local.host);
    json_put_number(object, "port", connection->local.port);
    json_put_string(object, "peer_host", connection->peer.host);
    json_put_number(object, "peer_port", connection->peer.port);
    json_put(object, "client_properties",
             json_from_table(buf_slice(&connection->client_properties)));
}

static void put_tls(json_t *object, const struct transport *transport)
{
    struct buf subject = BUF_EMPTY;
    struct tls_facts facts;
    const bool tls = tls_transport_facts(transport, &facts);

    json_put_bool(object, "ssl", tls);
    if (!tls)
        return;
    json_put_string(object, "ssl_protocol", facts.version);
    json_put_string(object, "ssl_cipher", facts.cipher);
    if (tls_transport_name(transport, TLS_DISTINGUISHED_NAME, 0, &subject) == NULL)
        json_put_slice(object, "peer_cert_subject", buf_slice(&subject));
    buf_release(&subject);
}

static void put_agreed(json_t *object, const struct connection *connection)
{
    json_put_string(object, "protocol", "AMQP 0-9-1");
    json_put_string(object, "auth_mechanism", connection->mechanism);
    put_tls(object, &connection->transport);
    json_put_string(object, "state", connection_state_name(connection));
    json_put_number(object, "channels", connection->channel_count);
    json_put_number(object, "channel_max", connection->channel_max);
    json_put_number(object, "frame_max", connection->frame_size_max);
    json_put_number(object, "timeout", connection->heartbeat_s);
    json_put_number(object, "connected_at", connection->connected_wall_ms);
}

static void put_figures(json_t *object, const struct connection *connection)
{
    json_put_number(object, "recv_oct", connection->transport.octets_in);
    json_put_number(object, "send_oct", connection->transport.octets_out);
    json_put_number(object, "recv_cnt", connection->frames_in);
    json_put_number(object, "send_cnt", connection->frames_out);
    json_put_number(object, "send_pend", transport_output_size(&connection->transport));
}

void api_connections(struct manage_request *request)
{
    const struct manage *manage = request->manage;
    const struct connection *connection;
    json_t *list = json_array();

    TAILQ_FOREACH (connection, &manage->options.service->connections, link) {
        if (connection->state == CONNECTION_CLOSED)
            continue;
        json_t *object = json_object();
        put_who(object, connection);
        put_agreed(object, connection);
        put_figures(object, connection);
        json_put_string(object, "node", manage->node);
        json_array_append_new(list, object);
    }
    manage_answer(request, HTTP_OK, list, 0);
}

/* The body's `name`, `user` or `vhost`, whichever it has: that of the connection. */
static bool is_meant(const struct connection *connection, const json_t *input)
{
    const json_t *name = json_object_get(input, "name"), *user = json_object_get(input, "user"),
                 *vhost = json_object_get(input, "vhost");

    if (connection->state >= CONNECTION_AWAIT_CLOSE_OK)
        return false;
    if (json_is_string(name))
        return strcmp(json_string_value(name), connection->name) == 0;
    if (json_is_string(user))
        return connection->user != NULL && slice_equal(json_to_slice(user), connection->user->name);
    return json_is_string(vhost) && connection->vhost != NULL &&
           slice_equal(json_to_slice(vhost), connection->vhost->name);
}

/* 4.5.3; answers how many. */
void api_control_close_connections(struct manage_request *request)
{
    const json_t *reason = json_object_get(request->input, "reason");
    struct connection *connection, *next;
    json_t *object = json_object();
    uint64_t closed = 0;

    TAILQ_FOREACH_SAFE (connection, &request->manage->options.service->connections, link, next)
        if (is_meant(connection, request->input)) {
            connection_force_close(connection,
                                   json_is_string(reason) ? json_string_value(reason) : "");
            closed++;
        }
    json_put_number(object, "closed", closed);
    manage_answer(request, HTTP_OK, object, 0);
}
