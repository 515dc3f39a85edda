/* The parts of stoatctl.
 *
 *     stoatctl.c          options, the table of commands, those that are not lists
 *     stoatctl_health.c   is there a broker, and is it well
 *     stoatctl_list.c     the list_... commands: which columns there are, and where in the answer
 *                         they stand
 *     stoatctl_policy.c   policies: set, clear
 *     stoatctl_access.c   users, virtual hosts, permissions, limits: all but their lists
 *     stoatctl_store.c    the store: back up a running broker's; verify and compact one at rest
 *     stoatctl_definitions.c  for that: can the broker read them?
 *     stoatctl_table.c    rows and columns as text: four formats
 *     stoatctl_client.c   one request over the control socket
 *
 * A function that can fail has told the user why, on stderr, and returns the exit status; 0 is
 * success. */
#ifndef TOOLS_STOATCTL_H
#define TOOLS_STOATCTL_H

#include <jansson.h>
#include <sysexits.h>

#include "base/slice.h"

/* ---- what the command line says ---- */

enum format { FORMAT_TABLE, FORMAT_PRETTY_TABLE, FORMAT_JSON, FORMAT_CSV };

struct options {
    char *socket_path;
    const char *vhost;
    enum format format;
    bool quiet;      /* no banner */
    bool no_headers; /* of tables */
    uint32_t timeout_s;
    bool if_empty, if_unused;
    bool force;                     /* of backup: replace a file */
    int32_t priority;               /* of a policy */
    const char *apply_to;           /* likewise */
    const char *description, *tags; /* of a virtual host; NULL: not given */
    const char *user;               /* of list_user_limits; NULL: not given */
    bool pre_hashed;                /* a password given is a hash */
    bool help;                      /* of the command, if there is one, rather than to run it */
    bool global;                    /* of all, where a list is of one vhost */
};

void complain(const char *format, ...) printf_like(1, 2);

/* What is about to happen, for people: not when quiet, nor in formats for programs. */
void announce(const struct options *options, const char *format, ...) printf_like(2, 3);

/* ---- the broker ---- */

struct client;

struct client *client_new(const struct options *options);
void client_free(struct client **client);

struct reply {
    long status;  /* of HTTP */
    json_t *body; /* or NULL */
};

/* Sends the request, waits for the answer. Statuses that are not the command's business (no broker,
 * no answer in time, a broker that is stopping) are failures; 400, 401, 404 and 409 are not. The
 * body is to be released with json_decref. */
int client_request(struct client *client, const char *method, const char *path,
                   struct reply *reply);

/* The same with a body, which stays the caller's. */
int client_send(struct client *client, const char *method, const char *path, const json_t *body,
                struct reply *reply);

/* EX_OK: a broker answers. */
int client_ping(struct client *client);

/* Waits until a broker answers. EX_TEMPFAIL: none has until time ran out. */
int client_await(struct client *client);

/* The process that answered the last request, as a pidfd; -1 with errno when it cannot be had. */
int client_open_process(struct client *client);

/* "/api/queues/%2F/name" from its segments, which end with NULL. To be freed. */
char *api_path(const char *const *segments);

/* ---- tables ---- */

/* rows is an array of arrays, one value for each column; sorts it. */
void table_print(const struct options *options, const char *const *columns, size_t column_count,
                 json_t *rows);

/* ---- definitions in a store ---- */

bool definitions_begin(void); /* false: there is no memory or descriptor for it */
bool definitions_are_sound(struct slice key, struct slice value);
uint64_t definitions_quarantine(void); /* the queue in the store, from them; 0: there is none */
void definitions_end(void);

/* ---- commands ---- */

typedef int command_run(struct client *client, const struct options *options, const char *command,
                        int count, char **words);

command_run run_ping, run_await_startup, run_check_running, run_check_alarms;
command_run run_list;
command_run run_backup, run_verify, run_compact;
command_run run_set_policy, run_clear_policy; /* and the same for operators' policies */
command_run run_add_user, run_delete_user, run_change_password, run_clear_password,
    run_authenticate_user, run_hash_password, run_set_user_tags;
command_run run_add_vhost, run_update_vhost_metadata, run_delete_vhost;
command_run run_set_permissions, run_set_permissions_globally, run_clear_permissions,
    run_set_topic_permissions, run_clear_topic_permissions;
command_run run_set_user_limits, run_clear_user_limits, run_set_vhost_limits,
    run_clear_vhost_limits;
command_run run_close_connection, run_close_all_connections, run_close_all_user_connections;

/* Its columns, for help. */
void describe_list(const char *command);

#endif
