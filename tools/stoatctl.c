/* stoatctl: the operator's tool. It speaks the management API over the control socket in the
 * broker's data directory, which admits root and the broker's own user. Commands, columns, output
 * and exit statuses are rabbitmqctl's where the meaning is the same. */
#include "tools/stoatctl.h"

#include <getopt.h>
#include <locale.h>
#include <poll.h>
#include <stdarg.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/distance.h"
#include "base/slice.h"

#define DATA_DIR "/var/lib/stoatmq"

static const char options_help[] =
    "Options:\n"
    "      --data-dir DIR        the broker's data directory, where its control socket is "
    "(default\n"
    "                            $STOATMQ_DATA_DIR, else " DATA_DIR ", else ./data)\n"
    "      --socket PATH         the control socket itself\n"
    "  -p, --vhost VHOST         the virtual host (default /)\n"
    "  -n, --node NODE           accepted for scripts, and not looked at: there is one\n"
    "  -q, --quiet               do not say what is being done\n"
    "  -s, --silent              neither that, nor table headers\n"
    "      --formatter FORMAT    table, pretty_table, json or csv (default table)\n"
    "      --no-table-headers    rows alone\n"
    "  -t, --timeout SECONDS     how long to wait for the broker (default 60)\n"
    "      --help                print this help, or that of the command, and exit\n"
    "      --version             print the version and exit\n";

static const char status_help[] =
    "Exit status: 0 when done, 64 for a mistake in the command line, 65 when the broker refuses "
    "what it\n"
    "was given, or what the command names does not exist, is there already or is damaged, 67 when "
    "a "
    "user\n"
    "does not exist, 69 when there is no broker or no access to it, or an alarm is on "
    "(check_alarms), 70\n"
    "when something went wrong inside, 75 when time ran out. verify and compact, which need no "
    "broker,\n"
    "have their own: see 'stoatctl help verify'.\n";

void complain(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("stoatctl: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

void announce(const struct options *options, const char *format, ...)
{
    va_list arguments;

    if (options->quiet || options->format == FORMAT_JSON || options->format == FORMAT_CSV)
        return;
    va_start(arguments, format);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
    va_end(arguments);
}

/* ---- queues ---- */

/* A DELETE about one queue. */
static int delete_at(struct client *client, const struct options *options, const char *path,
                     const char *queue)
{
    struct reply reply;
    int status = client_request(client, "DELETE", path, &reply);
    if (status != EX_OK)
        return status;

    const char *reason = json_string_value(json_object_get(reply.body, "reason"));
    if (reply.status == 404) {
        complain("queue '%s' in vhost '%s' does not exist", queue, options->vhost);
        status = EX_DATAERR;
    } else if (reply.status == 400) {
        complain("%s", reason == NULL ? "the broker refuses" : reason);
        status = EX_DATAERR;
    }
    json_decref(reply.body);
    return status;
}

static int run_purge_queue(struct client *client, const struct options *options,
                           const char *command, int count, char **words)
{
    char *path =
        api_path((const char *[]){"api", "queues", options->vhost, words[0], "contents", NULL});
    (void)command;
    (void)count;

    announce(options, "Purging queue '%s' in vhost '%s' ...", words[0], options->vhost);
    const int status = delete_at(client, options, path, words[0]);
    free(path);
    return status;
}

static int run_delete_queue(struct client *client, const struct options *options,
                            const char *command, int count, char **words)
{
    char *path = api_path((const char *[]){"api", "queues", options->vhost, words[0], NULL});
    char *whole =
        xasprintf("%s?if-empty=%s&if-unused=%s", path, options->if_empty ? "true" : "false",
                  options->if_unused ? "true" : "false");
    (void)command;
    (void)count;

    announce(options, "Deleting queue '%s' on vhost '%s' %s%s%s...", words[0], options->vhost,
             options->if_empty ? "if queue is empty " : "",
             options->if_empty && options->if_unused ? "and " : "",
             options->if_unused ? "if queue is unused " : "");
    const int status = delete_at(client, options, whole, words[0]);
    if (status == EX_OK)
        announce(options, "Queue was successfully deleted");
    free(path);
    free(whole);
    return status;
}

/* ---- the broker ---- */

static json_int_t number_at(json_t *object, const char *section, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(object, section), name));
}

static const char *text_at(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text == NULL ? "" : text;
}

static double megabytes_at(json_t *status, const char *name)
{
    return (double)json_integer_value(json_object_get(status, name)) / 1e6;
}

static const char *alarm_title(const char *name)
{
    if (strcmp(name, "disk") == 0)
        return "Free disk space";
    return strcmp(name, "file_descriptor_limit") == 0 ? "File descriptor" : "Memory";
}

static void print_alarms(json_t *status)
{
    json_t *alarms = json_object_get(status, "alarms");

    printf("Used memory: %.1f MB, limit: %.1f MB\n",
           (double)number_at(status, "memory", "used") / 1e6,
           megabytes_at(status, "vm_memory_high_watermark_limit"));
    printf("\nFree Disk Space\n\n");
    printf("Free: %.1f MB, low watermark: %.1f MB\n", megabytes_at(status, "disk_free"),
           megabytes_at(status, "disk_free_limit"));
    printf("\nAlarms\n\n");
    if (json_array_size(alarms) == 0)
        printf("(none)\n");
    for (size_t i = 0; i < json_array_size(alarms); i++)
        printf("%s alarm on node %s\n", alarm_title(json_string_value(json_array_get(alarms, i))),
               text_at(status, "node"));
}

static void print_runtime(json_t *status)
{
    const json_int_t uptime_ms = json_integer_value(json_object_get(status, "uptime_ms"));

    printf("Runtime\n\n");
    printf("OS PID: %" JSON_INTEGER_FORMAT "\n",
           json_integer_value(json_object_get(status, "pid")));
    printf("Uptime (seconds): %" JSON_INTEGER_FORMAT "\n", uptime_ms / 1000);
    printf("%s version: %s\n", text_at(status, "product_name"), text_at(status, "product_version"));
    printf("RabbitMQ version: %s\n", text_at(status, "rabbitmq_version"));
    printf("Node name: %s\n", text_at(status, "node"));
    printf("Data directory: %s\n", text_at(status, "data_directory"));
    printf("\nMemory\n\n");
    printf("Resident memory: %.1f MB\n", (double)number_at(status, "memory", "rss") / 1e6);
    print_alarms(status);
    printf("\nFile Descriptors\n\n");
    printf("Total: %" JSON_INTEGER_FORMAT ", limit: %" JSON_INTEGER_FORMAT "\n",
           number_at(status, "file_descriptors", "used"),
           number_at(status, "file_descriptors", "limit"));
}

static void print_verification(json_t *verification)
{
    if (!json_is_true(json_object_get(verification, "done")))
        printf("Verification: under way\n");
    else
        printf("Verification: %" JSON_INTEGER_FORMAT " messages, %" JSON_INTEGER_FORMAT
               " findings\n",
               json_integer_value(json_object_get(verification, "messages")),
               json_integer_value(json_object_get(verification, "findings")));
}

static void print_salvage(json_t *salvage)
{
    if (!json_is_object(salvage))
        return;
    printf("Salvaged at this start: %s\n", text_at(salvage, "time"));
    printf("  saved: %" JSON_INTEGER_FORMAT " messages in %" JSON_INTEGER_FORMAT " queues\n",
           json_integer_value(json_object_get(salvage, "messages")),
           json_integer_value(json_object_get(salvage, "queues")));
    printf("  could not be read: %" JSON_INTEGER_FORMAT " pages or rows\n",
           json_integer_value(json_object_get(salvage, "unreadable")));
    printf("  damaged file: %s\n", text_at(salvage, "damaged_file"));
}

static void print_figures(json_t *status)
{
    static const char *const totals[][2] = {
        {"Connection", "connections"}, {"Channel", "channels"}, {"Consumer", "consumers"},
        {"Exchange", "exchanges"},     {"Queue", "queues"},
    };

    printf("\nTotals\n\n");
    for (size_t i = 0; i < countof(totals); i++)
        printf("%s count: %" JSON_INTEGER_FORMAT "\n", totals[i][0],
               number_at(status, "totals", totals[i][1]));
    printf("Logins: %" JSON_INTEGER_FORMAT ", refused: %" JSON_INTEGER_FORMAT "\n",
           json_integer_value(json_object_get(status, "logins")),
           json_integer_value(json_object_get(status, "logins_refused")));
    printf("\nStore\n\n");
    printf("State: %s\n", json_is_true(json_object_get(json_object_get(status, "store"), "failed"))
                              ? "failed"
                              : "running");
    print_salvage(json_object_get(json_object_get(status, "store"), "salvage"));
    printf("Commits: %" JSON_INTEGER_FORMAT "\n", number_at(status, "store", "commits"));
    printf("Bytes written: %" JSON_INTEGER_FORMAT "\n",
           number_at(status, "store", "bytes_written"));
    printf("Damaged records: %" JSON_INTEGER_FORMAT "\n", number_at(status, "store", "damaged"));
    printf("Quarantined messages: %" JSON_INTEGER_FORMAT "\n",
           number_at(status, "store", "quarantined"));
    print_verification(json_object_get(json_object_get(status, "store"), "verification"));
    printf("Last commit: %.2f ms, longest: %.2f ms\n",
           (double)number_at(status, "store", "commit_ns_last") / 1e6,
           (double)number_at(status, "store", "commit_ns_max") / 1e6);
}

static void print_listeners(json_t *status)
{
    json_t *listeners = json_object_get(status, "listeners");

    printf("\nListeners\n\n");
    for (size_t i = 0; i < json_array_size(listeners); i++) {
        json_t *listener = json_array_get(listeners, i);
        printf("Interface: %s, port: %" JSON_INTEGER_FORMAT ", protocol: %s\n",
               text_at(listener, "ip_address"),
               json_integer_value(json_object_get(listener, "port")),
               text_at(listener, "protocol"));
    }
}

static int run_status(struct client *client, const struct options *options, const char *command,
                      int count, char **words)
{
    struct reply reply;
    (void)command;
    (void)count;
    (void)words;

    const int status = client_request(client, "GET", "/api/control/status", &reply);
    if (status != EX_OK)
        return status;
    if (options->format == FORMAT_JSON) {
        json_dumpf(reply.body, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        announce(options, "Status of node %s ...", text_at(reply.body, "node"));
        print_runtime(reply.body);
        print_figures(reply.body);
        print_listeners(reply.body);
    }
    json_decref(reply.body);
    return EX_OK;
}

/* As a file says it, the announcement a comment in it: what a file would read otherwise stands in quotes. */
static void print_setting(const char *key, const char *value)
{
    const size_t size = strlen(value);
    const bool is_plain = size == 0 || (strpbrk(value, "#$") == NULL && value[0] != ' ' &&
                                        value[size - 1] != ' ' && value[0] != '\'');
    const char *quote = is_plain || strchr(value, '\'') != NULL ? "" : "'";

    printf("%s =%s%s%s%s\n", key, size == 0 ? "" : " ", quote, value, quote);
}

static int run_environment(struct client *client, const struct options *options,
                           const char *command, int count, char **words)
{
    struct reply reply;
    const char *key;
    json_t *value;
    (void)command;
    (void)count;
    (void)words;

    const int status = client_request(client, "GET", "/api/control/environment", &reply);
    if (status != EX_OK)
        return status;
    announce(options, "# Application environment of the broker at %s ...", options->socket_path);
    if (options->format == FORMAT_JSON) {
        json_dumpf(reply.body, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        json_object_foreach(reply.body, key, value)
        {
            print_setting(key, json_string_value(value));
        }
    }
    json_decref(reply.body);
    return EX_OK;
}

static int run_clear_quarantine(struct client *client, const struct options *options,
                                const char *command, int count, char **words)
{
    struct reply reply;
    (void)command;
    (void)count;
    (void)words;

    announce(options, "Clearing the quarantine ...");
    const int status = client_request(client, "DELETE", "/api/control/quarantine", &reply);
    if (status == EX_OK)
        json_decref(reply.body);
    return status;
}

static int wait_for_end(const struct options *options, int process)
{
    struct pollfd ended = {.fd = process, .events = POLLIN};

    if (poll(&ended, 1, (int)options->timeout_s * 1000) > 0)
        return EX_OK;
    complain("the broker is still stopping after %" PRIu32 " seconds", options->timeout_s);
    return EX_TEMPFAIL;
}

/* Done when the process is gone: only then are its data directory and ports free. The process is
 * taken hold of before it is asked to stop, so that no other can be mistaken for it. */
static int run_stop(struct client *client, const struct options *options, const char *command,
                    int count, char **words)
{
    struct reply reply;
    (void)command;
    (void)count;
    (void)words;

    int status = client_ping(client);
    if (status != EX_OK)
        return status;
    const int process = client_open_process(client);
    const int error = errno;

    announce(options, "Stopping the broker at %s ...", options->socket_path);
    status = client_request(client, "POST", "/api/control/stop", &reply);
    if (status == EX_OK)
        json_decref(reply.body);
    if (status == EX_OK && process < 0) {
        complain("the broker is stopping, but its process cannot be seen from here: %s",
                 strerror(error));
        status = EX_SOFTWARE;
    } else if (status == EX_OK) {
        status = wait_for_end(options, process);
    }
    if (process >= 0)
        close(process);
    return status;
}

/* ---- the table of commands ---- */

enum { ANY = 1000 };

static const char backup_details[] = "Clients are served meanwhile. The broker makes the copy in "
                                     "its data directory, which must have\n"
                                     "room for a whole one, wherever FILE is; and FILE is there "
                                     "only when it is complete and on disk.\n"
                                     "One that is there already is replaced only with --force.\n\n"
                                     "To restore, put it as data.mdb into an empty data directory, "
                                     "both of them the broker's user's,\n"
                                     "and start the broker:\n\n"
                                     "  install -d -m 0700 -o USER -g GROUP DIR && install -m 0600 "
                                     "-o USER -g GROUP FILE DIR/data.mdb\n";

static const char verify_details[] =
    "DIR is a data directory, and no broker may be running on it. Counters are compared with what\n"
    "they count, the checksums of all records and messages with their bytes; definitions are read\n"
    "as the broker would. Nothing is changed. A running broker does most of this by itself after\n"
    "it has started: see 'stoatctl status'.\n\n"
    "Exit status: 0 when the store is sound, 65 when it is damaged. Else it was not looked at: 66 "
    "when\n"
    "there is none, 75 while a broker uses it, 77 when there is no access to it, 74 when "
    "something\n"
    "else kept it from being read.\n";

static const char compact_details[] =
    "DIR is a data directory, and no broker may be running on it. The data file is written anew\n"
    "beside the old one, which needs as much room as the messages take, and replaces it once it "
    "is\n"
    "complete and on disk. Whatever happens meanwhile, one of the two is there.\n\n"
    "A file so damaged that a broker would salvage it is left as it is: start the broker for "
    "that.\n"
    "Exit status: as of verify.\n";

static const char ping_details[] =
    "Exit status: 0 when a broker answers, 69 when none does or there is no access to it, 75 when\n"
    "it takes longer than --timeout.\n";

static const char alarms_details[] =
    "Exit status: 0 when no alarm is on, 69 when one is, or when no broker answers. stderr says\n"
    "which.\n";

static const char permissions_details[] =
    "CONFIGURE, WRITE and READ are regular expressions. The user may make and delete, write to, "
    "and\n"
    "read from what has a name in which the expression is found. '' allows nothing. What the user "
    "might\n"
    "do there before is replaced.\n\n"
    "  stoatctl set_permissions -p burrow bob '^bob-' '^bob-' '.*'\n\n"
    "--vhost VHOST is the same as -p VHOST; the default is /.\n";

static const char user_limits_details[] =
    "JSON is an object with one or both of the limits; -1 is no limit, 0 allows none.\n\n"
    "  stoatctl set_user_limits bob '{\"max-connections\": 10, \"max-channels\": 100}'\n";

static const char vhost_limits_details[] =
    "JSON is an object with one or both of the limits; -1 is no limit, 0 allows none.\n\n"
    "  stoatctl set_vhost_limits -p burrow '{\"max-connections\": 10, \"max-queues\": 100}'\n";

static const char policy_details[] =
    "NAME is the policy's own. PATTERN is a regular expression: the policy is for what has a name "
    "in\n"
    "which it is found. DEFINITION is a JSON object of settings, named as the arguments without "
    "x-.\n"
    "Of several policies for one name that with the highest priority counts.\n\n"
    "  stoatctl set_policy -p burrow --apply-to queues --priority 1 short '^bob-' "
    "'{\"max-length\": 1000}'\n\n"
    "  -p, --vhost VHOST      the virtual host (default /)\n"
    "      --priority NUMBER  may be negative (default 0)\n"
    "      --apply-to WHAT    all, queues, classic_queues, quorum_queues, streams or exchanges "
    "(default\n"
    "                         all)\n";

static const char hash_details[] =
    "The hash is RabbitMQ's, one salted SHA-256: to be given to add_user --pre-hashed-password, "
    "which\n"
    "takes RabbitMQ's salted SHA-512, too. The broker keeps a slow one in its place once the user "
    "has\n"
    "logged in. Without a password it is read from stdin. No broker needs to run.\n";

#define POLICY_USAGE "[-p VHOST] [--priority NUMBER] [--apply-to WHAT] NAME PATTERN DEFINITION"

static const struct command {
    const char *name, *usage, *summary;
    int count_min, count_max; /* of the words that follow */
    command_run *run;         /* NULL: answered without a broker */
} commands[] = {
    {"help", "[COMMAND]", "tell about a command, or all of them", 0, 1, NULL},
    {"version", "", "print the version of stoatctl", 0, 0, NULL},
    {"ping", "", "succeed if the broker answers", 0, 0, run_ping},
    {"await_startup", "[--timeout SECONDS]", "wait until the broker answers", 0, 0,
     run_await_startup},
    {"check_running", "", "the same as ping", 0, 0, run_check_running},
    {"check_local_alarms", "", "succeed if no alarm is on", 0, 0, run_check_alarms},
    {"check_alarms", "", "the same: there is one node", 0, 0, run_check_alarms},
    {"status", "", "tell how the broker is", 0, 0, run_status},
    {"environment", "", "tell how the broker is configured, but for its secrets", 0, 0,
     run_environment},
    {"stop", "", "stop the broker and wait until it has ended", 0, 0, run_stop},
    {"add_user", "NAME [PASSWORD] [--pre-hashed-password]",
     "make a user; without a password it is read from stdin", 1, 2, run_add_user},
    {"delete_user", "NAME", "delete a user, and close its connections", 1, 1, run_delete_user},
    {"change_password", "NAME [PASSWORD]", "give a user another password", 1, 2,
     run_change_password},
    {"clear_password", "NAME", "let a user log in by no password", 1, 1, run_clear_password},
    {"authenticate_user", "NAME [PASSWORD]", "succeed if this is the user's password", 1, 2,
     run_authenticate_user},
    {"hash_password", "[PASSWORD]", "print a hash of it, for add_user --pre-hashed-password", 0, 1,
     run_hash_password},
    {"set_user_tags", "NAME [TAG]...", "give a user these tags, and no others", 1, ANY,
     run_set_user_tags},
    {"list_users", "[COLUMN]...", "list users", 0, ANY, run_list},
    {"set_permissions", "[-p VHOST] USER CONFIGURE WRITE READ",
     "say what a user may do in a virtual host, by patterns of names", 4, 4, run_set_permissions},
    {"set_permissions_globally", "USER CONFIGURE WRITE READ",
     "the same in every virtual host that there is", 4, 4, run_set_permissions_globally},
    {"clear_permissions", "[-p VHOST] USER", "shut a user out of a virtual host", 1, 1,
     run_clear_permissions},
    {"list_permissions", "[COLUMN]...", "list who may do what in a virtual host", 0, ANY, run_list},
    {"list_user_permissions", "USER", "list what a user may do in every virtual host", 1, 1,
     run_list},
    {"set_topic_permissions", "[-p VHOST] USER EXCHANGE WRITE READ",
     "limit a user to routing keys of a topic exchange, by patterns", 4, 4,
     run_set_topic_permissions},
    {"clear_topic_permissions", "[-p VHOST] USER [EXCHANGE]", "take such limits away", 1, 2,
     run_clear_topic_permissions},
    {"list_topic_permissions", "[COLUMN]...", "list such limits of a virtual host", 0, ANY,
     run_list},
    {"list_user_topic_permissions", "USER", "list such limits of a user", 1, 1, run_list},
    {"set_user_limits", "USER JSON", "limit max-connections and max-channels of a user", 2, 2,
     run_set_user_limits},
    {"clear_user_limits", "USER LIMIT|all", "take such limits away", 2, 2, run_clear_user_limits},
    {"list_user_limits", "[--user USER]", "list such limits", 0, 0, run_list},
    {"add_vhost", "NAME [--description TEXT] [--tags TAG,...]", "make a virtual host", 1, 1,
     run_add_vhost},
    {"update_vhost_metadata", "NAME [--description TEXT] [--tags TAG,...]",
     "describe a virtual host anew", 1, 1, run_update_vhost_metadata},
    {"delete_vhost", "NAME", "delete a virtual host with all that is in it", 1, 1,
     run_delete_vhost},
    {"set_vhost_limits", "[-p VHOST] JSON",
     "limit max-connections and max-queues of a virtual host", 1, 1, run_set_vhost_limits},
    {"clear_vhost_limits", "[-p VHOST]", "take such limits away", 0, 0, run_clear_vhost_limits},
    {"list_vhost_limits", "[--global]", "list such limits", 0, 0, run_list},
    {"close_connection", "CONNECTION REASON",
     "close a connection, named as list_connections pid does", 2, 2, run_close_connection},
    {"close_all_connections", "[-p VHOST] REASON", "close all connections to a virtual host", 1, 1,
     run_close_all_connections},
    {"close_all_user_connections", "USER REASON", "close all connections of a user", 2, 2,
     run_close_all_user_connections},
    {"list_vhosts", "[COLUMN]...", "list virtual hosts", 0, ANY, run_list},
    {"list_connections", "[COLUMN]...", "list connections", 0, ANY, run_list},
    {"list_channels", "[COLUMN]...", "list channels", 0, ANY, run_list},
    {"list_queues", "[COLUMN]...", "list the queues of a virtual host", 0, ANY, run_list},
    {"list_exchanges", "[COLUMN]...", "list the exchanges of a virtual host", 0, ANY, run_list},
    {"list_bindings", "[COLUMN]...", "list the bindings of a virtual host", 0, ANY, run_list},
    {"list_consumers", "[COLUMN]...", "list the consumers of a virtual host", 0, ANY, run_list},
    {"list_policies", "[COLUMN]...", "list the policies of a virtual host", 0, ANY, run_list},
    {"list_operator_policies", "[COLUMN]...", "list the operators' policies of a virtual host", 0,
     ANY, run_list},
    {"set_policy", POLICY_USAGE, "give settings to queues and exchanges by name", 3, 3,
     run_set_policy},
    {"clear_policy", "[-p VHOST] NAME", "take a policy away", 1, 1, run_clear_policy},
    {"set_operator_policy", POLICY_USAGE, "the same, over what other policies say", 3, 3,
     run_set_policy},
    {"clear_operator_policy", "[-p VHOST] NAME", "take an operators' policy away", 1, 1,
     run_clear_policy},
    {"purge_queue", "[-p VHOST] QUEUE", "drop the messages of a queue that are ready", 1, 1,
     run_purge_queue},
    {"delete_queue", "[-p VHOST] QUEUE [-e|--if-empty] [-u|--if-unused]", "delete a queue", 1, 1,
     run_delete_queue},
    {"list_quarantine", "[COLUMN]...", "list the messages that were damaged on disk and set aside",
     0, ANY, run_list},
    {"clear_quarantine", "", "forget what is left of them", 0, 0, run_clear_quarantine},
    {"backup", "[--force] FILE", "write a consistent copy of the running broker's store", 1, 1,
     run_backup},
    {"verify", "DIR", "check every row and message of a store at rest", 1, 1, run_verify},
    {"compact", "DIR", "make the data file of a store at rest as small as it can be", 1, 1,
     run_compact},
};

/* More for help. */
static const struct {
    command_run *run;
    const char *text;
} details[] = {{run_ping, ping_details},
               {run_check_running, ping_details},
               {run_check_alarms, alarms_details},
               {run_set_permissions, permissions_details},
               {run_set_user_limits, user_limits_details},
               {run_set_vhost_limits, vhost_limits_details},
               {run_set_policy, policy_details},
               {run_hash_password, hash_details},
               {run_backup, backup_details},
               {run_verify, verify_details},
               {run_compact, compact_details}};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < countof(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void print_help(void)
{
    printf("Usage: stoatctl [OPTION]... COMMAND [WORD]...\n"
           "Administers a StoatMQ broker on this machine, over its control socket.\n\n"
           "Commands:\n");
    for (size_t i = 0; i < countof(commands); i++)
        printf("  %-29s%s\n", commands[i].name, commands[i].summary);
    printf("\n%s\n%s", options_help, status_help);
}

static int usage_error(const char *format, ...) printf_like(1, 2);

static int usage_error(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("stoatctl: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\nTry 'stoatctl --help'.\n", stderr);
    va_end(arguments);
    return EX_USAGE;
}

/* The name of the command that is nearest; NULL: none is near. */
static const char *nearest_command(const char *wrong)
{
    const char *nearest = NULL;

    if (strlen(wrong) >= DISTANCE_WORD_SIZE)
        return NULL;
    size_t best = distance_of_others(wrong);
    for (size_t i = 0; i < countof(commands); i++) {
        const size_t distance = edit_distance(wrong, commands[i].name);
        if (distance < best) {
            best = distance;
            nearest = commands[i].name;
        }
    }
    return nearest;
}

static int unknown_command(const char *name)
{
    const char *nearest = nearest_command(name);

    return nearest == NULL
               ? usage_error("there is no command '%s'", name)
               : usage_error("there is no command '%s'; did you mean '%s'?", name, nearest);
}

static int wrong_count(const struct command *command, const char *what)
{
    return usage_error("%s: %s arguments\nUsage: stoatctl [OPTION]... %s%s%s", command->name, what,
                       command->name, *command->usage == '\0' ? "" : " ", command->usage);
}

static int help(const char *name)
{
    if (name == NULL) {
        print_help();
        return EX_OK;
    }
    const struct command *command = find_command(name);
    if (command == NULL)
        return unknown_command(name);
    printf("Usage: stoatctl [OPTION]... %s %s\n%c%s.\n", command->name, command->usage,
           command->summary[0] - 'a' + 'A', command->summary + 1);
    for (size_t i = 0; i < countof(details); i++)
        if (details[i].run == command->run)
            printf("\n%s", details[i].text);
    if (command->run == run_list)
        describe_list(command->name);
    return EX_OK;
}

static int run(const struct options *options, int count, char **words)
{
    const struct command *command = find_command(words[0]);
    if (command == NULL)
        return unknown_command(words[0]);
    if (count - 1 < command->count_min)
        return wrong_count(command, "not enough");
    if (count - 1 > command->count_max)
        return wrong_count(command, "too many");
    if (command->run == NULL && strcmp(command->name, "help") == 0)
        return help(words[1]);
    if (command->run == NULL) {
        puts(STOATMQ_VERSION);
        return EX_OK;
    }
    struct client *client = client_new(options);
    const int status = command->run(client, options, command->name, count - 1, words + 1);
    client_free(&client);
    return status;
}

/* ---- options ---- */

static bool parse_format(const char *name, enum format *format)
{
    static const char *const names[] = {[FORMAT_TABLE] = "table",
                                        [FORMAT_PRETTY_TABLE] = "pretty_table",
                                        [FORMAT_JSON] = "json",
                                        [FORMAT_CSV] = "csv"};

    for (size_t i = 0; i < countof(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *format = (enum format)i;
            return true;
        }
    return false;
}

static bool parse_priority(const char *text, int32_t *priority)
{
    const bool is_negative = *text == '-';
    uint64_t number;

    if (!slice_to_u64(slice_of_string(text + is_negative), INT32_MAX, &number))
        return false;
    *priority = is_negative ? -(int32_t)number : (int32_t)number;
    return true;
}

static void set_socket(struct options *options, char *path)
{
    free(options->socket_path);
    options->socket_path = path;
}

/* Where a broker usually is: installed, or run from a checkout. */
static void default_socket(struct options *options)
{
    const char *data_dir = getenv("STOATMQ_DATA_DIR");

    if (data_dir != NULL && *data_dir != '\0')
        set_socket(options, xasprintf("%s/control.sock", data_dir));
    else if (access(DATA_DIR "/control.sock", F_OK) != 0 && access("data/control.sock", F_OK) == 0)
        set_socket(options, xstrdup("./data/control.sock"));
    else
        set_socket(options, xstrdup(DATA_DIR "/control.sock"));
}

enum {
    DATA_DIR_OPTION = 256,
    SOCKET,
    FORMATTER,
    NO_TABLE_HEADERS,
    PRIORITY,
    APPLY_TO,
    DESCRIPTION,
    TAGS,
    USER,
    GLOBAL,
    PRE_HASHED,
    FORCE,
    VERSION,
    HELP
};

static const char letters[] = "n:p:qst:eu";

static const struct option long_options[] = {
    {"data-dir", required_argument, NULL, DATA_DIR_OPTION},
    {"socket", required_argument, NULL, SOCKET},
    {"vhost", required_argument, NULL, 'p'},
    {"node", required_argument, NULL, 'n'},
    {"quiet", no_argument, NULL, 'q'},
    {"silent", no_argument, NULL, 's'},
    {"formatter", required_argument, NULL, FORMATTER},
    {"no-table-headers", no_argument, NULL, NO_TABLE_HEADERS},
    {"timeout", required_argument, NULL, 't'},
    {"if-empty", no_argument, NULL, 'e'},
    {"if_empty", no_argument, NULL, 'e'},
    {"if-unused", no_argument, NULL, 'u'},
    {"if_unused", no_argument, NULL, 'u'},
    {"priority", required_argument, NULL, PRIORITY},
    {"apply-to", required_argument, NULL, APPLY_TO},
    {"description", required_argument, NULL, DESCRIPTION},
    {"tags", required_argument, NULL, TAGS},
    {"user", required_argument, NULL, USER},
    {"global", no_argument, NULL, GLOBAL},
    {"pre-hashed-password", no_argument, NULL, PRE_HASHED},
    {"force", no_argument, NULL, FORCE},
    {"version", no_argument, NULL, VERSION},
    {"help", no_argument, NULL, HELP},
    {NULL, 0, NULL, 0},
};

/* One option with a value. EX_OK, or the exit status. */
static int take_value(struct options *options, int option, const char *value)
{
    uint64_t seconds;

    switch (option) {
    case DATA_DIR_OPTION:
        set_socket(options, xasprintf("%s/control.sock", value));
        break;
    case SOCKET:
        set_socket(options, xstrdup(value));
        break;
    case 'p':
        options->vhost = value;
        break;
    case PRIORITY:
        if (!parse_priority(value, &options->priority))
            return usage_error("'%s' is not a priority", value);
        break;
    case APPLY_TO:
        options->apply_to = value;
        break;
    case DESCRIPTION:
        options->description = value;
        break;
    case TAGS:
        options->tags = value;
        break;
    case USER:
        options->user = value;
        break;
    case FORMATTER:
        if (!parse_format(value, &options->format))
            return usage_error("there is no formatter '%s'", value);
        break;
    case 't':
        if (!slice_to_u64(slice_of_string(value), 1000000, &seconds) || seconds == 0)
            return usage_error("'%s' is not a number of seconds", value);
        options->timeout_s = (uint32_t)seconds;
        break;
    }
    return EX_OK;
}

/* EX_OK: go on; else the exit status. *done: there is nothing to go on with. */
static int parse(struct options *options, int argc, char **argv, bool *done)
{
    int status = EX_OK;

    *options = (struct options){.vhost = "/", .timeout_s = 60, .apply_to = "all"};
    for (int option; status == EX_OK && !*done;) {
        option = getopt_long(argc, argv, letters, long_options, NULL);
        if (option == -1)
            break;
        if (option == '?')
            return usage_error("the command line is not understood");
        if (option == 'e')
            options->if_empty = true;
        else if (option == 'u')
            options->if_unused = true;
        else if (option == 'q')
            options->quiet = true;
        else if (option == 's')
            options->quiet = options->no_headers = true;
        else if (option == NO_TABLE_HEADERS)
            options->no_headers = true;
        else if (option == GLOBAL)
            options->global = true;
        else if (option == PRE_HASHED)
            options->pre_hashed = true;
        else if (option == FORCE)
            options->force = true;
        else if (option == HELP)
            options->help = true;
        else if (option == VERSION)
            *done = true;
        else
            status = take_value(options, option, optarg);
        if (option == VERSION)
            puts("stoatctl " STOATMQ_VERSION);
    }
    return status;
}

int main(int argc, char **argv)
{
    struct options options;
    bool done = false;

    setlocale(LC_CTYPE, "C.UTF-8");
    json_set_alloc_funcs(xmalloc, free);
    int status = parse(&options, argc, argv, &done);
    if (status == EX_OK && !done && options.help) {
        status = help(argv[optind]);
        done = true;
    }
    if (status == EX_OK && !done && optind == argc)
        status = usage_error("no command given");
    if (status == EX_OK && !done) {
        if (options.socket_path == NULL)
            default_socket(&options);
        status = run(&options, argc - optind, argv + optind);
    }
    free(options.socket_path);
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == EX_OK) {
        complain("cannot write the output: %s", strerror(errno));
        status = EX_SOFTWARE;
    }
    return status;
}
