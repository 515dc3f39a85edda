/* The list commands. Column names are rabbitmqctl's; each is a member of the object that the API
 * answers with, of the same name unless the row says where else. A column that rabbitmqctl has and
 * the broker does not know is empty, so that scripts which ask for it go on. */
#include "base/alloc.h"
#include "base/slice.h"
#include "tools/stoatctl.h"

struct column {
    const char *name;
    /* "queue.name"; "=text": always this text; "$name": its JSON, as text; "%name": a list of
     * words, "[a, b]" but in JSON; NULL: the name */
    const char *path;
};

static const struct column queue_columns[] = {
    {"name", NULL},
    {"durable", NULL},
    {"auto_delete", NULL},
    {"arguments", NULL},
    {"policy", NULL},
    {"operator_policy", NULL},
    {"effective_policy_definition", NULL},
    {"pid", NULL},
    {"owner_pid", "owner_pid_details.name"},
    {"exclusive", NULL},
    {"exclusive_consumer_pid", NULL},
    {"exclusive_consumer_tag", NULL},
    {"messages_ready", NULL},
    {"messages_unacknowledged", NULL},
    {"messages", NULL},
    {"messages_ready_ram", NULL},
    {"messages_unacknowledged_ram", NULL},
    {"messages_ram", NULL},
    {"messages_persistent", NULL},
    {"message_bytes", NULL},
    {"message_bytes_ready", NULL},
    {"message_bytes_unacknowledged", NULL},
    {"message_bytes_ram", NULL},
    {"message_bytes_persistent", NULL},
    {"head_message_timestamp", NULL},
    {"disk_reads", NULL},
    {"disk_writes", NULL},
    {"consumers", NULL},
    {"consumer_utilisation", NULL},
    {"consumer_capacity", NULL},
    {"memory", NULL},
    {"state", NULL},
    {"type", NULL},
    {"leader", NULL},
    {"members", NULL},
    {"online", NULL},
    {"node", NULL},
    {"vhost", NULL},
};

static const struct column exchange_columns[] = {
    {"name", NULL},     {"type", NULL},      {"durable", NULL}, {"auto_delete", NULL},
    {"internal", NULL}, {"arguments", NULL}, {"policy", NULL},  {"vhost", NULL},
};

static const struct column binding_columns[] = {
    {"source_name", "source"},
    {"source_kind", "=exchange"},
    {"destination_name", "destination"},
    {"destination_kind", "destination_type"},
    {"routing_key", NULL},
    {"arguments", NULL},
    {"vhost", NULL},
};

static const struct column connection_columns[] = {
    {"pid", "name"},
    {"name", NULL},
    {"user", NULL},
    {"peer_host", NULL},
    {"peer_port", NULL},
    {"state", NULL},
    {"host", NULL},
    {"port", NULL},
    {"vhost", NULL},
    {"protocol", NULL},
    {"auth_mechanism", NULL},
    {"ssl", NULL},
    {"ssl_protocol", NULL},
    {"ssl_key_exchange", NULL},
    {"ssl_cipher", NULL},
    {"ssl_hash", NULL},
    {"peer_cert_subject", NULL},
    {"peer_cert_issuer", NULL},
    {"peer_cert_validity", NULL},
    {"channels", NULL},
    {"channel_max", NULL},
    {"frame_max", NULL},
    {"timeout", NULL},
    {"connected_at", NULL},
    {"client_properties", NULL},
    {"connection_name", "client_properties.connection_name"},
    {"user_provided_name", "client_properties.connection_name"},
    {"recv_oct", NULL},
    {"recv_cnt", NULL},
    {"send_oct", NULL},
    {"send_cnt", NULL},
    {"send_pend", NULL},
    {"node", NULL},
};

static const struct column channel_columns[] = {
    {"pid", "name"},
    {"connection", "connection_details.name"},
    {"name", NULL},
    {"number", NULL},
    {"user", NULL},
    {"vhost", NULL},
    {"transactional", NULL},
    {"confirm", NULL},
    {"consumer_count", NULL},
    {"messages_unacknowledged", NULL},
    {"messages_uncommitted", NULL},
    {"acks_uncommitted", NULL},
    {"messages_unconfirmed", NULL},
    {"prefetch_count", NULL},
    {"global_prefetch_count", NULL},
    {"state", NULL},
    {"node", NULL},
};

static const struct column consumer_columns[] = {
    {"queue_name", "queue.name"}, {"channel_pid", "channel_details.name"},
    {"consumer_tag", NULL},       {"ack_required", NULL},
    {"prefetch_count", NULL},     {"active", NULL},
    {"activity_status", NULL},    {"arguments", NULL},
    {"exclusive", NULL},
};

static const struct column vhost_columns[] = {
    {"name", NULL},     {"description", NULL},        {"tags", "%tags"},       {"tracing", NULL},
    {"messages", NULL}, {"default_queue_type", NULL}, {"cluster_state", NULL},
};

static const struct column policy_columns[] = {
    {"vhost", NULL},
    {"name", NULL},
    {"pattern", NULL},
    {"apply-to", NULL},
    {"definition", "$definition"},
    {"priority", NULL},
};

static const struct column user_columns[] = {{"user", "name"}, {"tags", "%tags"}};

static const struct column permission_columns[] = {
    {"user", NULL}, {"vhost", NULL}, {"configure", NULL}, {"write", NULL}, {"read", NULL},
};

static const struct column topic_columns[] = {
    {"user", NULL}, {"vhost", NULL}, {"exchange", NULL}, {"write", NULL}, {"read", NULL},
};

static const struct column limit_columns[] = {
    {"user", NULL},
    {"vhost", NULL},
    {"limits", "$value"},
};

static const struct column quarantine_columns[] = {
    {"vhost", NULL}, {"queue", NULL},    {"time", NULL},
    {"size", NULL},  {"queue_id", NULL}, {"position", NULL},
};

/* What a list is of: everything, one vhost (-p, unless --global), the user who is its first word,
 * or the one of --user if there is one. */
enum scope { OF_ALL, OF_VHOST, OF_USER, OF_USER_OPTION };

struct list {
    const char *what;          /* "queues": of list_queues */
    const char *where;         /* " for vhost"; NULL: the list is of all */
    const char *columns_shown; /* by default, separated by commas */
    const struct column *columns;
    size_t column_count;
    const char *title, *resource; /* what is listed, and /api/...; NULL: what */
    enum scope scope;
    const char *part; /* of the path, behind what it is of; or NULL */
    bool quoted;      /* rabbitmqctl puts some names between quotes and some not */
};

#define COLUMNS(table) .columns = table, .column_count = countof(table)
#define OF_ONE_VHOST   .scope = OF_VHOST

#define POLICY_COLUMNS "vhost,name,pattern,apply-to,definition,priority"

static const struct list lists[] = {
    {"queues", " for vhost", "name,messages", COLUMNS(queue_columns), OF_ONE_VHOST},
    {"exchanges", " for vhost", "name,type", COLUMNS(exchange_columns), OF_ONE_VHOST},
    {"bindings", " for vhost",
     "source_name,source_kind,destination_name,destination_kind,routing_key,arguments",
     COLUMNS(binding_columns), OF_ONE_VHOST},
    {"connections", NULL, "user,peer_host,peer_port,state", COLUMNS(connection_columns)},
    {"channels", NULL, "pid,user,consumer_count,messages_unacknowledged", COLUMNS(channel_columns)},
    {"consumers", " in vhost",
     "queue_name,channel_pid,consumer_tag,ack_required,prefetch_count,active,arguments",
     COLUMNS(consumer_columns), OF_ONE_VHOST},
    {"vhosts", NULL, "name", COLUMNS(vhost_columns)},
    {"policies", " for vhost", POLICY_COLUMNS, COLUMNS(policy_columns), OF_ONE_VHOST,
     .quoted = true},
    {"operator_policies", " for vhost", POLICY_COLUMNS, COLUMNS(policy_columns), OF_ONE_VHOST,
     .title = "operator policy overrides", .resource = "operator-policies", .quoted = true},
    {"users", NULL, "user,tags", COLUMNS(user_columns)},
    {"permissions", " for vhost", "user,configure,write,read", COLUMNS(permission_columns),
     OF_ONE_VHOST, .resource = "vhosts", .part = "permissions", .quoted = true},
    {"user_permissions", " for user", "vhost,configure,write,read", COLUMNS(permission_columns),
     .title = "permissions", .resource = "users", .scope = OF_USER, .part = "permissions",
     .quoted = true},
    {"topic_permissions", " for vhost", "user,exchange,write,read", COLUMNS(topic_columns),
     OF_ONE_VHOST, .title = "topic permissions", .resource = "vhosts", .part = "topic-permissions",
     .quoted = true},
    {"user_topic_permissions", " for user", "vhost,exchange,write,read", COLUMNS(topic_columns),
     .title = "topic permissions", .resource = "users", .scope = OF_USER,
     .part = "topic-permissions", .quoted = true},
    {"user_limits", " for user", "user,limits", COLUMNS(limit_columns), .title = "limits",
     .resource = "user-limits", .scope = OF_USER_OPTION, .quoted = true},
    {"vhost_limits", " for vhost", "vhost,limits", COLUMNS(limit_columns), OF_ONE_VHOST,
     .title = "limits", .resource = "vhost-limits", .quoted = true},
    {"quarantine", NULL, "vhost,queue,time,size", COLUMNS(quarantine_columns),
     .title = "damaged messages that were set aside", .resource = "control", .part = "quarantine"},
};

/* Of the command list_WHAT. */
static const struct list *find_list(const char *command)
{
    for (size_t i = 0; i < countof(lists); i++)
        if (strcmp(command + strlen("list_"), lists[i].what) == 0)
            return &lists[i];
    abort();
}

static const struct column *find_column(const struct list *list, struct slice name)
{
    for (size_t i = 0; i < list->column_count; i++)
        if (slice_equal(name, slice_of_string(list->columns[i].name)))
            return &list->columns[i];
    return NULL;
}

/* ---- which columns ---- */

struct selection {
    const struct column **columns;
    size_t count;
};

/* Adds those of one word of the command line, which may name several, separated by commas. */
static int select_columns(struct selection *selection, const struct list *list, const char *word)
{
    while (*word != '\0') {
        const size_t size = strcspn(word, ",");
        const struct column *column = find_column(list, slice_of(word, size));
        if (column == NULL && size > 0) {
            complain("%s have no column '%.*s'\nTry 'stoatctl help list_%s'.", list->what,
                     (int)size, word, list->what);
            return EX_USAGE;
        }
        if (column != NULL) {
            selection->columns =
                xrealloc(selection->columns, selection->count + 1, sizeof(*selection->columns));
            selection->columns[selection->count++] = column;
        }
        word += size;
        word += *word == ',';
    }
    return EX_OK;
}

/* ---- rows ---- */

/* "[a, b]" */
static json_t *words_of(const json_t *list)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    for (size_t i = 0; i < json_array_size(list); i++)
        fprintf(out, "%s%s", i == 0 ? "[" : ", ", json_string_value(json_array_get(list, i)));
    fputs(json_array_size(list) == 0 ? "[]" : "]", out);
    fclose(out);
    json_t *string = json_stringn(text, size);
    free(text);
    return string;
}

/* The member that a dotted path leads to; a new reference, null when there is none. */
static json_t *follow(const struct options *options, json_t *object, const char *path)
{
    if (*path == '%' && options->format != FORMAT_JSON)
        return words_of(json_object_get(object, path + 1));
    path += *path == '%';
    if (*path == '=')
        return json_string(path + 1);
    if (*path == '$') {
        char *text = json_dumps(json_object_get(object, path + 1), JSON_COMPACT | JSON_ENCODE_ANY);
        json_t *string = json_string(text);
        free(text);
        return string;
    }
    while (*path != '\0' && object != NULL) {
        const size_t size = strcspn(path, ".");
        object = json_object_getn(object, path, size);
        path += size;
        path += *path == '.';
    }
    return object == NULL ? json_null() : json_incref(object);
}

static json_t *make_rows(const struct options *options, const struct selection *selection,
                         const json_t *objects)
{
    json_t *rows = json_array();

    for (size_t at = 0; at < json_array_size(objects); at++) {
        json_t *row = json_array();
        for (size_t i = 0; i < selection->count; i++) {
            const struct column *column = selection->columns[i];
            json_array_append_new(row, follow(options, json_array_get(objects, at),
                                              column->path == NULL ? column->name : column->path));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

static void print(const struct options *options, const struct selection *selection,
                  const json_t *objects)
{
    const char **names = xcalloc(selection->count, sizeof(*names));
    json_t *rows = make_rows(options, selection, objects);

    for (size_t i = 0; i < selection->count; i++)
        names[i] = selection->columns[i]->name;
    table_print(options, names, selection->count, rows);
    json_decref(rows);
    free(names);
}

/* ---- one command ---- */

/* The vhost or user that the list is of; NULL: it is of all. */
static const char *name_of(const struct options *options, const struct list *list, char **words)
{
    switch (list->scope) {
    case OF_ALL:
        return NULL;
    case OF_VHOST:
        return options->global ? NULL : options->vhost;
    case OF_USER:
        return words[0];
    case OF_USER_OPTION:
        return options->user;
    }
    abort();
}

static int complain_of(const struct list *list, const char *name)
{
    if (list->scope == OF_VHOST)
        complain("virtual host '%s' does not exist", name);
    else
        complain("user \"%s\" does not exist", name);
    return list->scope == OF_VHOST ? EX_DATAERR : EX_NOUSER;
}

static int fetch(struct client *client, const struct list *list, const char *name,
                 struct reply *reply)
{
    const char *resource = list->resource == NULL ? list->what : list->resource;
    char *path;
    if (name != NULL || list->part == NULL)
        path = api_path((const char *[]){"api", resource, name, list->part, NULL});
    else if (list->scope == OF_ALL)
        path = api_path((const char *[]){"api", resource, list->part, NULL});
    else
        path = api_path((const char *[]){"api", list->part, NULL});
    int status = client_request(client, "GET", path, reply);
    free(path);
    if (status == EX_OK && reply->status != 200) {
        status = complain_of(list, name);
        json_decref(reply->body);
    }
    return status;
}

static void announce_list(const struct options *options, const struct list *list, const char *name)
{
    const char *title = list->title == NULL ? list->what : list->title;
    const char *quote = list->quoted ? "\"" : "";

    if (name == NULL)
        announce(options, "Listing %s ...", title);
    else
        announce(options, "Listing %s%s %s%s%s ...", title, list->where, quote, name, quote);
}

int run_list(struct client *client, const struct options *options, const char *command, int count,
             char **words)
{
    const struct list *list = find_list(command);
    const char *name = name_of(options, list, words);
    struct selection selection = {0};
    struct reply reply;
    int status = EX_OK;

    for (int i = list->scope == OF_USER; i < count && status == EX_OK; i++)
        status = select_columns(&selection, list, words[i]);
    if (status == EX_OK && selection.count == 0)
        status = select_columns(&selection, list, list->columns_shown);
    if (status == EX_OK)
        status = fetch(client, list, name, &reply);
    if (status == EX_OK) {
        announce_list(options, list, name);
        print(options, &selection, reply.body);
        json_decref(reply.body);
    }
    free(selection.columns);
    return status;
}

void describe_list(const char *command)
{
    const struct list *list = find_list(command);

    printf("\nColumns, by default %s:\n", list->columns_shown);
    for (size_t i = 0; i < list->column_count; i++)
        printf("  %s\n", list->columns[i].name);
}
