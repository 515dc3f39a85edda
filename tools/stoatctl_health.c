/* Is there a broker, and is it well: what scripts and probes ask. */
#include "tools/stoatctl.h"

int run_ping(struct client *client, const struct options *options, const char *command, int count,
             char **words)
{
    (void)command;
    (void)count;
    (void)words;

    announce(options, "Will ping the broker at %s ...", options->socket_path);
    const int status = client_ping(client);
    if (status == EX_OK)
        announce(options, "Ping succeeded");
    return status;
}

/* The control socket answers only once clients are served. */
int run_await_startup(struct client *client, const struct options *options, const char *command,
                      int count, char **words)
{
    (void)command;
    (void)count;
    (void)words;

    announce(options, "Waiting for the broker at %s to start ...", options->socket_path);
    const int status = client_await(client);
    if (status == EX_OK)
        announce(options, "It has started");
    return status;
}

int run_check_running(struct client *client, const struct options *options, const char *command,
                      int count, char **words)
{
    (void)command;
    (void)count;
    (void)words;

    announce(options, "Checking if the broker at %s is running ...", options->socket_path);
    const int status = client_ping(client);
    if (status == EX_OK)
        announce(options, "It is running");
    return status;
}

/* EX_UNAVAILABLE when one is on, with their names. */
int run_check_alarms(struct client *client, const struct options *options, const char *command,
                     int count, char **words)
{
    struct reply reply;
    json_t *name;
    size_t index;
    (void)command;
    (void)count;
    (void)words;

    announce(options, "Asking the broker at %s for its alarms ...", options->socket_path);
    int status = client_request(client, "GET", "/api/control/status", &reply);
    if (status != EX_OK)
        return status;
    const json_t *alarms = json_object_get(reply.body, "alarms");
    json_array_foreach(alarms, index, name)
    {
        complain("an alarm is on: %s", json_string_value(name));
        status = EX_UNAVAILABLE;
    }
    if (status == EX_OK)
        announce(options, "No alarm is on");
    json_decref(reply.body);
    return status;
}
