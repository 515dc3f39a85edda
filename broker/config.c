/* Reading the configuration, by the table of keys in config_keys.c.
 *
 *     # comment
 *     listeners.tcp.local = 127.0.0.1:5672      # a comment again, after a space
 *     default_pass        = $(SECRET)           the environment's; in 'quotes' everything stands for itself
 *     max_message_size    = 64MiB
 *
 * Whatever the source, an assignment ends in assign(), with `where` for the sentence about what is
 * wrong with it. Secrets never appear in such a sentence: values of strings are not shown. Where
 * each key was given last is kept, for the sentences about the whole. */
#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdarg.h>
#include <strings.h>

#include "access/permission.h"
#include "access/user.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/distance.h"
#include "config_keys.h"

#define ENVIRONMENT_PREFIX "STOATMQ_"

enum { NAME_SIZE = DISTANCE_WORD_SIZE, LIST_SIZE = 256 };

printf_like(2, 3) static bool fail(char error[CONFIG_ERROR_SIZE], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, CONFIG_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- values -------------------------------------------------------------------------------- */

static void replace_string(char **place, const char *value)
{
    free(*place);
    *place = xstrdup(value);
}

static bool parse_bool(const char *value, bool *result)
{
    static const struct {
        const char *word;
        bool meaning;
    } words[] = {{"true", true},   {"yes", true}, {"on", true},
                 {"false", false}, {"no", false}, {"off", false}};
    for (size_t i = 0; i < countof(words); i++) {
        if (strcasecmp(value, words[i].word) == 0) {
            *result = words[i].meaning;
            return true;
        }
    }
    return false;
}

/* k, kiB, M, MiB ... are powers of 1024; kB, MB, GB, TB of 1000; in any case of the letters. */
static bool parse_unit(const char *unit, uint64_t *factor)
{
    static const char letters[] = "kmgt";
    *factor = 1;
    if (*unit == '\0')
        return true;
    const char *letter = strchr(letters, tolower((unsigned char)*unit));
    if (letter == NULL)
        return false;
    const bool decimal = strcasecmp(unit + 1, "B") == 0;
    if (!decimal && unit[1] != '\0' && strcasecmp(unit + 1, "iB") != 0)
        return false;
    for (long i = 0; i <= letter - letters; i++)
        *factor *= decimal ? 1000 : 1024;
    return true;
}

/* What has no limit is called infinity: 0 would be read as none at all. */
static uint64_t lowest(const struct key *key)
{
    return key->infinity ? max_of(key->min, UINT64_C(1)) : key->min;
}

static bool parse_number(const struct key *key, const char *value, uint64_t *number)
{
    if (key->infinity && strcmp(value, "infinity") == 0) {
        *number = 0;
        return true;
    }
    const size_t digits = strspn(value, "0123456789");
    uint64_t factor = 1;
    if (key->kind == KEY_SIZE ? !parse_unit(value + digits, &factor) : value[digits] != '\0')
        return false;
    if (!slice_to_u64(slice_of(value, digits), UINT64_MAX / factor, number))
        return false;
    *number *= factor;
    return *number >= lowest(key) && *number <= key->max;
}

/* Digits, with a point among them or none. */
static bool parse_ratio(const struct key *key, const char *value, double *ratio)
{
    char *end;
    const size_t length = strspn(value, "0123456789.");

    *ratio = strtod(value, &end);
    return length > 0 && value[length] == '\0' && *end == '\0' &&
           *ratio * 1000 >= (double)key->min && *ratio * 1000 <= (double)key->max;
}

static void store_number(void *place, size_t size, uint64_t number)
{
    const uint16_t narrow = (uint16_t)number;
    const uint32_t middle = (uint32_t)number;
    switch (size) {
    case sizeof(uint16_t):
        memcpy(place, &narrow, size);
        break;
    case sizeof(uint32_t):
        memcpy(place, &middle, size);
        break;
    default:
        assert(size == sizeof(number));
        memcpy(place, &number, size);
    }
}

/* ---- listeners and properties -------------------------------------------------------------- */

static void remove_listener(struct config_listeners *listeners, struct config_listener *listener)
{
    TAILQ_REMOVE(&listeners->list, listener, link);
    free(listener->name);
    free(listener->host);
    free(listener);
}

static void remove_listeners(struct config_listeners *listeners)
{
    while (!TAILQ_EMPTY(&listeners->list))
        remove_listener(listeners, TAILQ_FIRST(&listeners->list));
}

static void add_listener(struct config_listeners *listeners, const char *name, const char *host,
                         uint16_t port)
{
    struct config_listener *old, *next;
    TAILQ_FOREACH_SAFE (old, &listeners->list, link, next) {
        if (strcmp(old->name, name) == 0)
            remove_listener(listeners, old);
    }
    struct config_listener *listener = xcalloc(1, sizeof(*listener));
    listener->name = xstrdup(name);
    listener->host = host == NULL ? NULL : xstrdup(host);
    listener->port = port;
    TAILQ_INSERT_TAIL(&listeners->list, listener, link);
}

/* "5672", "127.0.0.1:5672", "[::1]:5672", and "::1:5672" as RabbitMQ has it. host is empty where
 * none was given. */
static bool parse_listener(const char *value, char host[INET6_ADDRSTRLEN], uint16_t *port)
{
    const char *colon = strrchr(value, ':');
    uint64_t number;
    if (!slice_to_u64(slice_of_string(colon == NULL ? value : colon + 1), UINT16_MAX, &number))
        return false;
    *port = (uint16_t)number;
    *host = '\0';
    if (colon == NULL)
        return true;

    const char *end = colon;
    if (*value == '[' && colon > value && colon[-1] == ']')
        value++, end--;
    const size_t size = (size_t)(end - value);
    if (size == 0 || size >= INET6_ADDRSTRLEN)
        return false;
    memcpy(host, value, size);
    host[size] = '\0';
    struct in6_addr address;
    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static bool set_listener(struct config_listeners *listeners, const char *name, const char *value)
{
    char host[INET6_ADDRSTRLEN];
    uint16_t port;
    if (!parse_listener(value, host, &port))
        return false;
    if (!listeners->given)
        remove_listeners(listeners);
    listeners->given = true;
    add_listener(listeners, name, *host == '\0' ? NULL : host, port);
    return true;
}

static void remove_property(struct config_properties *properties, struct config_property *property)
{
    TAILQ_REMOVE(properties, property, link);
    free(property->key);
    free(property->value);
    free(property);
}

static void remove_properties(struct config_properties *properties)
{
    while (!TAILQ_EMPTY(properties))
        remove_property(properties, TAILQ_FIRST(properties));
}

static void set_property(struct config_properties *properties, const char *name, const char *value)
{
    struct config_property *old, *next;
    TAILQ_FOREACH_SAFE (old, properties, link, next) {
        if (strcmp(old->key, name) == 0)
            remove_property(properties, old);
    }
    struct config_property *property = xcalloc(1, sizeof(*property));
    property->key = xstrdup(name);
    property->value = xstrdup(value);
    TAILQ_INSERT_TAIL(properties, property, link);
}

/* The number of the value among the words of the key's kind; false: it is none of them. */
static bool find_word(const struct key *key, const char *value, uint64_t *number)
{
    for (*number = 0; config_words[key->kind][*number] != NULL; ++*number)
        if (strcmp(config_words[key->kind][*number], value) == 0)
            return true;
    return false;
}

static void remove_names(struct config_names *names)
{
    struct config_name *name;

    while ((name = TAILQ_FIRST(names)) != NULL) {
        TAILQ_REMOVE(names, name, link);
        free(name->name);
        free(name);
    }
}

struct config_name *config_find_name(const struct config_names *names, const char *text)
{
    struct config_name *name;

    TAILQ_FOREACH (name, names, link)
        if (strcmp(name->name, text) == 0)
            break;
    return name;
}

static void set_name(struct config_names *names, const char *text, bool on)
{
    struct config_name *name = config_find_name(names, text);

    if (name == NULL) {
        name = xcalloc(1, sizeof(*name));
        name->name = xstrdup(text);
        TAILQ_INSERT_TAIL(names, name, link);
    }
    name->on = on;
}

static void remove_vhost_limits(struct config_vhost_limits_list *list)
{
    struct config_vhost_limits *limits;

    while ((limits = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, limits, link);
        free(limits->name);
        free(limits->pattern);
        free(limits);
    }
}

/* The rule of that name, made where there is none, in the order of names: 2 before 10. */
static struct config_vhost_limits *vhost_limits_of(struct config_vhost_limits_list *list,
                                                   const char *name)
{
    struct config_vhost_limits *next, *limits;

    TAILQ_FOREACH (next, list, link)
        if (strverscmp(next->name, name) >= 0)
            break;
    if (next != NULL && strcmp(next->name, name) == 0)
        return next;
    limits = xmalloc(sizeof(*limits));
    *limits = (struct config_vhost_limits){
        .name = xstrdup(name), .pattern = xstrdup(".*"), .connection_max = -1, .queue_max = -1};
    if (next == NULL)
        TAILQ_INSERT_TAIL(list, limits, link);
    else
        TAILQ_INSERT_BEFORE(next, limits, link);
    return limits;
}

/* A limit that may be none, said as RabbitMQ says it. */
static bool parse_limit(const struct key *key, const char *value, int64_t *limit)
{
    uint64_t number;

    *limit = -1;
    if (strcmp(value, "-1") == 0 || strcmp(value, "infinity") == 0)
        return true;
    if (!parse_number(key, value, &number))
        return false;
    *limit = (int64_t)number;
    return true;
}

static bool is_pattern(const char *text, char reason[PATTERN_ERROR_SIZE])
{
    struct pattern *pattern = pattern_new(slice_of_string(text), reason);

    if (pattern == NULL)
        return false;
    pattern_free(&pattern);
    return true;
}

static bool is_pattern_of(const struct key *key, const char *value)
{
    char reason[PATTERN_ERROR_SIZE];

    return strlen(value) <= key->max && is_pattern(value, reason);
}

static bool set_vhost_limits(struct config_vhost_limits_list *list, const struct key *key,
                             const char *name, const char *value)
{
    int64_t limit = -1;

    if (key->kind == KEY_VHOST_PATTERN ? !is_pattern_of(key, value)
                                       : !parse_limit(key, value, &limit))
        return false;
    struct config_vhost_limits *limits = vhost_limits_of(list, name);
    if (key->kind == KEY_VHOST_PATTERN)
        replace_string(&limits->pattern, value);
    else if (key->kind == KEY_VHOST_CONNECTIONS)
        limits->connection_max = limit;
    else
        limits->queue_max = limit;
    return true;
}

/* ---- one assignment ------------------------------------------------------------------------ */

/* Puts the value in its place; false when it is not of the key's kind or out of bounds. name is
 * what stands for a family's star. */
static bool set_value(struct config *config, const struct key *key, const char *name,
                      const char *value)
{
    void *place = (char *)config + key->offset;
    const size_t length = strlen(value);
    const bool is_none = strcmp(value, "none") == 0;
    uint64_t number;
    double ratio;
    bool on;
    switch (key->kind) {
    case KEY_STRING:
    case KEY_SECRET:
        if (length < key->min || length > key->max)
            return false;
        replace_string(place, value);
        return true;
    case KEY_PATTERN:
        if (!is_pattern_of(key, value))
            return false;
        replace_string(place, value);
        return true;
    case KEY_BOOL:
        return parse_bool(value, place);
    case KEY_NUMBER:
    case KEY_SIZE:
        if (!parse_number(key, value, &number))
            return false;
        store_number(place, key->size, number);
        return true;
    case KEY_RATIO:
        if (!parse_ratio(key, value, &ratio))
            return false;
        memcpy(place, &ratio, sizeof(ratio));
        return true;
    case KEY_LEVEL:
        return log_level_parse(value, place);
    case KEY_VERIFY:
    case KEY_LOGIN_FROM:
    case KEY_SAN_TYPE:
        if (!find_word(key, value, &number))
            return false;
        store_number(place, key->size, number);
        return true;
    case KEY_LISTENER:
        return set_listener(place, name, value);
    case KEY_PROPERTY:
        if (length < key->min || length > key->max)
            return false;
        set_property(place, name, value);
        return true;
    case KEY_TLS_VERSION:
    case KEY_MECHANISM:
        if (!find_word(key, value, &number))
            return false;
        set_property(place, name, value);
        return true;
    case KEY_NO_LISTENERS:
        if (is_none) {
            remove_listeners(place);
            ((struct config_listeners *)place)->given = true;
        }
        return is_none;
    case KEY_NAME:
        if (!parse_bool(value, &on))
            return false;
        set_name(place, name, on);
        return true;
    case KEY_VHOST_PATTERN:
    case KEY_VHOST_CONNECTIONS:
    case KEY_VHOST_QUEUES:
        return set_vhost_limits(place, key, name, value);
    case KEY_NO_LOOPBACK_USERS:
        if (is_none)
            remove_names(&config->loopback_users);
        return is_none;
    }
    return false;
}

static bool fail_word(const struct key *key, const char *full_name, const char *value,
                      const char *where, char error[CONFIG_ERROR_SIZE])
{
    const char *const *known = config_words[key->kind];
    char list[200] = "";
    size_t size = 0;
    for (size_t i = 0; known[i] != NULL && size < sizeof(list); i++) {
        const char *between = i == 0 ? "" : known[i + 1] == NULL ? " or " : ", ";
        size += (size_t)snprintf(list + size, sizeof(list) - size, "%s%s", between, known[i]);
    }
    return fail(error, "bad value '%.80s' for '%s' in %s: %s is expected", value, full_name, where,
                list);
}

static bool fail_text(const struct key *key, const char *full_name, const char *value,
                      const char *where, char error[CONFIG_ERROR_SIZE])
{
    const bool is_text = key->kind != KEY_PATTERN && key->kind != KEY_VHOST_PATTERN;
    char reason[PATTERN_ERROR_SIZE];

    if (is_text || strlen(value) > key->max)
        return fail(error,
                    "bad value for '%s' in %s: a text of %" PRIu64 " to %" PRIu64
                    " bytes is expected",
                    full_name, where, key->min, key->max);
    is_pattern(value, reason);
    return fail(error, "bad value for '%s' in %s: it is no regular expression: %s", full_name,
                where, reason);
}

static bool fail_value(const struct key *key, const char *full_name, const char *value,
                       const char *where, char error[CONFIG_ERROR_SIZE])
{
    static const char *const wanted[] = {
        [KEY_BOOL] = "true or false is expected",
        [KEY_NAME] = "true or false is expected",
        [KEY_LEVEL] = "debug, info, notice, warning, error, critical or none is expected",
        [KEY_LISTENER] =
            "[ADDRESS:]PORT is expected, for example 5672, 127.0.0.1:5672 or [::1]:5672",
        [KEY_NO_LISTENERS] =
            "none is all it may be; listeners are given with a name, as listeners.tcp.NAME",
        [KEY_NO_LOOPBACK_USERS] = "none is all it may be; users are given as loopback_users.NAME",
    };
    switch (key->kind) {
    case KEY_VERIFY:
    case KEY_LOGIN_FROM:
    case KEY_SAN_TYPE:
    case KEY_TLS_VERSION:
    case KEY_MECHANISM:
        return fail_word(key, full_name, value, where, error);
    case KEY_STRING:
    case KEY_SECRET:
    case KEY_PROPERTY:
    case KEY_PATTERN:
    case KEY_VHOST_PATTERN:
        return fail_text(key, full_name, value, where, error);
    case KEY_NUMBER:
    case KEY_SIZE:
        return fail(error,
                    "bad value '%.80s' for '%s' in %s: a %s from %" PRIu64 " to %" PRIu64
                    "%s is expected",
                    value, full_name, where, key->kind == KEY_SIZE ? "size" : "number", lowest(key),
                    key->max, key->infinity ? ", or infinity," : "");
    case KEY_RATIO:
        return fail(error, "bad value '%.80s' for '%s' in %s: a number from %g to %g is expected",
                    value, full_name, where, (double)key->min / 1000, (double)key->max / 1000);
    case KEY_VHOST_CONNECTIONS:
    case KEY_VHOST_QUEUES:
        return fail(error,
                    "bad value '%.80s' for '%s' in %s: a number from 0 to %" PRIu64
                    ", or -1 for no limit, is expected",
                    value, full_name, where, key->max);
    default:
        return fail(error, "bad value '%.80s' for '%s' in %s: %s", value, full_name, where,
                    wanted[key->kind]);
    }
}

/* ---- names --------------------------------------------------------------------------------- */

/* How names are spelled: as in a file, or as in the environment. */
enum spelling { SPELLED_PLAIN, SPELLED_ENVIRONMENT };

static void spell(enum spelling spelling, const char *name, char spelled[NAME_SIZE])
{
    if (spelling == SPELLED_PLAIN) {
        snprintf(spelled, NAME_SIZE, "%s", name);
        return;
    }
    snprintf(spelled, NAME_SIZE, ENVIRONMENT_PREFIX "%s", name);
    for (char *c = spelled; *c != '\0'; c++)
        *c = *c == '.' ? '_' : (char)toupper((unsigned char)*c);
}

/* Whether the name is the spelled one, or one of that family. What stands for the star goes to
 * name: short enough for the name of a field on the wire. */
static bool is_named(const char *spelled, const char *full_name, char name[NAME_SIZE])
{
    const char *star = strchr(spelled, '*');
    const size_t length = strlen(full_name);

    *name = '\0';
    if (star == NULL)
        return strcmp(full_name, spelled) == 0;
    const size_t before = (size_t)(star - spelled), after = strlen(star + 1);
    if (length <= before + after || length - before - after >= NAME_SIZE ||
        strncmp(full_name, spelled, before) != 0 ||
        strcmp(full_name + length - after, star + 1) != 0)
        return false;
    snprintf(name, NAME_SIZE, "%.*s", (int)(length - before - after), full_name + before);
    return true;
}

/* The row for a full name; what stands for a family's star goes to name, as written. */
static const struct key *find_key(enum spelling spelling, const char *full_name,
                                  char name[NAME_SIZE])
{
    for (size_t i = 0; i < config_key_count; i++) {
        char spelled[NAME_SIZE];
        spell(spelling, config_keys[i].name, spelled);
        if (is_named(spelled, full_name, name))
            return &config_keys[i];
    }
    return NULL;
}

/* Whether the star of the family's name is the last of it. */
static bool is_open_ended(const char *name)
{
    return name[strlen(name) - 1] == '*';
}

/* The known name that is nearest; empty when none is near. Of a family whose star comes last, the
 * one with the same ending. */
static void find_nearest(enum spelling spelling, const char *wrong, char nearest[NAME_SIZE])
{
    *nearest = '\0';
    if (strlen(wrong) >= NAME_SIZE)
        return;
    const char *dot = strrchr(wrong, spelling == SPELLED_PLAIN ? '.' : '_');
    const char *ending = dot == NULL ? "" : dot + 1;
    size_t best = distance_of_others(wrong);
    for (size_t i = 0; i < config_key_count; i++) {
        const bool takes_ending = is_open_ended(config_keys[i].name);
        if (takes_ending && *ending == '\0')
            continue;
        char known[NAME_SIZE];
        spell(spelling, config_keys[i].name, known);
        const size_t length = strlen(known) - 1;
        if (takes_ending)
            snprintf(known + length, NAME_SIZE - length, "%s", ending);
        const size_t distance = edit_distance(wrong, known);
        if (distance < best) {
            best = distance;
            memcpy(nearest, known, NAME_SIZE);
        }
    }
}

/* RabbitMQ's, of what is not here; a name that ends in a dot stands for all that begin so. */
static const struct {
    const char *name, *advice;
} foreign_keys[] = {
    {"management.", "management is not served on a port yet; stoatctl needs none"},
    {"prometheus.", "metrics are not served on a port yet"},
    {"log.file", "the log goes to stderr, from where a service manager takes it"},
    {"log.file.", "the log goes to stderr, from where a service manager takes it"},
    {"log.dir", "the log goes to stderr, from where a service manager takes it"},
    {"log.syslog", "the log goes to stderr, from where a service manager takes it"},
    {"log.syslog.", "the log goes to stderr, from where a service manager takes it"},
    {"log.journald", "the log goes to stderr, from where a service manager takes it"},
    {"log.level", "its name here is log.console.level"},
    {"load_definitions", "definitions cannot be imported yet"},
    {"definitions.", "definitions cannot be imported yet"},
    {"cluster_formation.", "a broker is one node"},
    {"cluster_partition_handling", "a broker is one node"},
    {"cluster_name", "clients are told it by server_properties.cluster_name"},
    {"auth_backends.", "users are the broker's own"},
    {"auth_ldap.", "users are the broker's own"},
    {"auth_oauth2.", "users are the broker's own"},
    {"mqtt.", "AMQP 0-9-1 is all it speaks"},
    {"stomp.", "AMQP 0-9-1 is all it speaks"},
    {"stream.", "there are no streams yet"},
    {"collect_statistics_interval",
     "there is nothing to set: statistics are counted as they happen"},
    {"vm_memory_high_watermark_paging_ratio",
     "there is nothing to set: messages leave memory beyond message_memory_limit"},
    {"queue_index_embed_msgs_below", "there is nothing to set"},
};

static const char *find_advice(enum spelling spelling, const char *wrong)
{
    for (size_t i = 0; i < countof(foreign_keys); i++) {
        const char *name = foreign_keys[i].name;
        char spelled[NAME_SIZE];
        spell(spelling, name, spelled);
        const size_t length = strlen(spelled);
        if (name[strlen(name) - 1] == '.' ? strncmp(wrong, spelled, length) == 0
                                          : strcmp(wrong, spelled) == 0)
            return foreign_keys[i].advice;
    }
    return NULL;
}

/* The known names that go on where the wrong one ends, as 'a', 'b' or 'c'; empty: none does. */
static void list_longer(enum spelling spelling, const char *wrong, char list[LIST_SIZE])
{
    const size_t length = strlen(wrong);
    char last[NAME_SIZE] = "";
    size_t size = 0;

    *list = '\0';
    for (size_t i = 0; i < config_key_count; i++) {
        char known[NAME_SIZE];
        spell(spelling, config_keys[i].name, known);
        if (strncmp(known, wrong, length) != 0 ||
            known[length] != (spelling == SPELLED_PLAIN ? '.' : '_') ||
            strcmp(known + length + 1, "*") == 0)
            continue;
        if (*last != '\0' && size < LIST_SIZE)
            size += (size_t)snprintf(list + size, LIST_SIZE - size, "%s'%s'", size == 0 ? "" : ", ",
                                     last);
        memcpy(last, known, NAME_SIZE);
    }
    if (*last != '\0' && size < LIST_SIZE)
        snprintf(list + size, LIST_SIZE - size, "%s'%s'", size == 0 ? "" : " or ", last);
}

static bool fail_name(enum spelling spelling, const char *full_name, const char *where,
                      char error[CONFIG_ERROR_SIZE])
{
    const char *const advice = find_advice(spelling, full_name);
    if (advice != NULL)
        return fail(error, "unknown key '%.120s' in %s: %s", full_name, where, advice);
    char list[LIST_SIZE];
    list_longer(spelling, full_name, list);
    if (*list != '\0')
        return fail(error, "unknown key '%.120s' in %s; did you mean %s?", full_name, where, list);
    char nearest[NAME_SIZE];
    find_nearest(spelling, full_name, nearest);
    if (*nearest == '\0')
        return fail(error, "unknown key '%.120s' in %s", full_name, where);
    return fail(error, "unknown key '%.120s' in %s; did you mean '%s'?", full_name, where, nearest);
}

/* name: what stands for a family's star. */
static void set_origin(struct config *config, const struct key *key, const char *name,
                       const char *where)
{
    const char *star = strchr(key->name, '*');
    char *full_name =
        star == NULL ? xstrdup(key->name)
                     : xasprintf("%.*s%s%s", (int)(star - key->name), key->name, name, star + 1);
    char *origin = xasprintf(" in %s", where);

    set_property(&config->origins, full_name, origin);
    free(origin);
    free(full_name);
}

/* written: the key as the operator has it. */
static bool give(struct config *config, const struct key *key, const char *name,
                 const char *written, const char *value, const char *where,
                 char error[CONFIG_ERROR_SIZE])
{
    if (!set_value(config, key, name, value))
        return fail_value(key, written, value, where, error);
    set_origin(config, key, name, where);
    return true;
}

static bool assign(struct config *config, const char *full_name, const char *value,
                   const char *where, char error[CONFIG_ERROR_SIZE])
{
    char name[NAME_SIZE];
    const struct key *key = find_key(SPELLED_PLAIN, full_name, name);
    if (key == NULL)
        return fail_name(SPELLED_PLAIN, full_name, where, error);
    return give(config, key, name, full_name, value, where, error);
}

/* ---- lines --------------------------------------------------------------------------------- */

/* Cuts white space off both ends, in place. */
static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = '\0';
    return text;
}

/* Splits "key = value" in place; false without a '=' or a key. */
static bool split(char *text, char **name, char **value)
{
    char *equals = strchr(text, '=');
    if (equals == NULL)
        return false;
    *equals = '\0';
    *name = trim(text);
    *value = trim(equals + 1);
    return **name != '\0';
}

/* A comment begins with the line or after white space, so that a password may hold a '#'. */
static void cut_comment(char *text)
{
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '#' && (c == text || isspace((unsigned char)c[-1]))) {
            *c = '\0';
            return;
        }
    }
}

/* 'text', and nothing but a comment behind it: cuts the quotes off, in place; NULL when it is not
 * so. */
static char *unquote(char *text)
{
    assert(*text == '\'');
    char *end = strchr(text + 1, '\'');
    if (end == NULL)
        return NULL;
    *end = '\0';
    const char *rest = end + 1 + strspn(end + 1, " \t");
    return *rest == '\0' || *rest == '#' ? text + 1 : NULL;
}

/* Appends the value with $(NAME) as the environment has it; false, with the name in error, when it
 * has not. */
static bool interpolate(const char *value, const char *where, struct buf *result,
                        char error[CONFIG_ERROR_SIZE])
{
    while (*value != '\0') {
        const char *open = strstr(value, "$(");
        const char *close = open == NULL ? NULL : strchr(open, ')');
        if (close == NULL)
            break;
        char name[NAME_SIZE];
        snprintf(name, sizeof(name), "%.*s", (int)min_of(close - open - 2, NAME_SIZE), open + 2);
        const char *meaning = getenv(name);
        if (meaning == NULL)
            return fail(error, "no variable '%s' in the environment, asked for in %s", name, where);
        buf_append(result, slice_of(value, (size_t)(open - value)));
        buf_append(result, slice_of_string(meaning));
        value = close + 1;
    }
    buf_append(result, slice_of(value, strlen(value) + 1));
    return true;
}

static bool read_line(struct config *config, char *line, const char *where,
                      char error[CONFIG_ERROR_SIZE])
{
    char *name, *value;
    line = trim(line);
    if (*line == '\0' || *line == '#')
        return true;
    if (!split(line, &name, &value))
        return fail(error, "no 'key = value' in %s", where);
    if (*value == '\'') {
        value = unquote(value);
        return value == NULL ? fail(error, "quotes are not closed in %s", where)
                             : assign(config, name, value, where, error);
    }
    cut_comment(value);
    struct buf meaning = BUF_EMPTY;
    const bool ok = interpolate(trim(value), where, &meaning, error) &&
                    assign(config, name, (const char *)meaning.data, where, error);
    buf_release(&meaning);
    return ok;
}

/* ---- files --------------------------------------------------------------------------------- */

/* Whether more is read after a mistake. */
static bool goes_on(const struct config *config)
{
    return config->on_mistake != NULL;
}

static bool tell(const struct config *config, const char *error)
{
    if (config->on_mistake != NULL)
        config->on_mistake(error);
    return false;
}

static bool fail_file(const struct config *config, const char *path, int reason,
                      char error[CONFIG_ERROR_SIZE])
{
    fail(error, "cannot read %s: %s", path, strerror(reason));
    return tell(config, error);
}

static bool read_lines(struct config *config, FILE *file, const char *path,
                       char error[CONFIG_ERROR_SIZE])
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    bool ok = true;
    for (unsigned number = 1;
         (ok || goes_on(config)) && (length = getline(&line, &capacity, file)) >= 0; number++) {
        char where[PATH_MAX + 16];
        snprintf(where, sizeof(where), "%s:%u", path, number);
        if (!(strlen(line) == (size_t)length ? read_line(config, line, where, error)
                                             : fail(error, "a NUL byte in %s", where)))
            ok = tell(config, error);
    }
    if (ferror(file))
        ok = fail_file(config, path, errno, error);
    free(line);
    return ok;
}

static bool read_one(struct config *config, const char *path, bool must_exist,
                     char error[CONFIG_ERROR_SIZE])
{
    FILE *file = fopen(path, "re");
    if (file == NULL && errno == ENOENT && !must_exist)
        return true;
    if (file == NULL)
        return fail_file(config, path, errno, error);
    const bool ok = read_lines(config, file, path, error);
    fclose(file);
    return ok;
}

static int is_fragment(const struct dirent *entry)
{
    const char *ending = strrchr(entry->d_name, '.');
    return entry->d_name[0] != '.' && ending != NULL && strcmp(ending, ".conf") == 0;
}

/* conf.d beside the file, in the order of the bytes of the names. */
static bool read_fragments(struct config *config, const char *path, char error[CONFIG_ERROR_SIZE])
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash == NULL ? xstrdup("conf.d") : xasprintf("%.*s/conf.d", (int)(slash - path), path);
    struct dirent **entries;
    const int count = scandir(folder, &entries, is_fragment, alphasort);
    bool ok = count >= 0 || errno == ENOENT || errno == ENOTDIR ||
              fail_file(config, folder, errno, error);
    for (int i = 0; i < count; i++) {
        char *fragment = xasprintf("%s/%s", folder, entries[i]->d_name);
        if ((ok || goes_on(config)) && !read_one(config, fragment, true, error))
            ok = false;
        free(fragment);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    free(folder);
    return ok;
}

bool config_read_file(struct config *config, const char *path, char error[CONFIG_ERROR_SIZE])
{
    const char *file = path == NULL ? CONFIG_FILE : path;
    const bool ok = read_one(config, file, path != NULL, error);
    return (ok || goes_on(config)) && read_fragments(config, file, error) && ok;
}

/* ---- the environment and --set ------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* What Kubernetes and Docker set in every container beside a service named stoatmq, or
 * stoatmq-WORD: ..._SERVICE_HOST, ..._SERVICE_PORT[_NAME], ..._PORT=tcp://ADDRESS:5672,
 * ..._PORT_5672_TCP[_WORD]. */
static bool is_of_service(const char *name, const char *value)
{
    const char *port = strstr(name, "_PORT_");
    const char *end = port == NULL ? "" : port + 6 + strspn(port + 6, "0123456789");

    return ends_with(name, "_SERVICE_HOST") || ends_with(name, "_SERVICE_PORT") ||
           strstr(name, "_SERVICE_PORT_") != NULL ||
           (ends_with(name, "_PORT") && strstr(value, "://") != NULL) ||
           strncmp(end, "_TCP", 4) == 0 || strncmp(end, "_UDP", 4) == 0;
}

/* The plain name of an alias, or NULL. */
static const char *find_alias(const char *name)
{
    static const char *const aliases[][2] = {{"RABBITMQ_DEFAULT_USER", "default_user"},
                                             {"RABBITMQ_DEFAULT_PASS", "default_pass"},
                                             {"RABBITMQ_DEFAULT_VHOST", "default_vhost"}};
    for (size_t i = 0; i < countof(aliases); i++) {
        if (strcmp(name, aliases[i][0]) == 0)
            return aliases[i][1];
    }
    return NULL;
}

/* Names of a family lose their case in the environment and are in lower case here. */
static bool assign_variable(struct config *config, const char *variable, const char *value,
                            char error[CONFIG_ERROR_SIZE])
{
    static const char where[] = "the environment";
    const char *alias = find_alias(variable);
    if (alias != NULL)
        return assign(config, alias, value, where, error);
    if (strncmp(variable, ENVIRONMENT_PREFIX, strlen(ENVIRONMENT_PREFIX)) != 0 ||
        strcmp(variable, "STOATMQ_CONFIG_FILE") == 0) /* --config's value */
        return true;

    char name[NAME_SIZE];
    const struct key *key = find_key(SPELLED_ENVIRONMENT, variable, name);
    if (key == NULL)
        return is_of_service(variable, value) ||
               fail_name(SPELLED_ENVIRONMENT, variable, where, error);
    for (char *c = name; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
    return give(config, key, name, variable, value, where, error);
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In the order of names: the aliases before our own, listeners.tcp before its family. */
bool config_read_environment(struct config *config, char **environment,
                             char error[CONFIG_ERROR_SIZE])
{
    size_t count = 0;
    while (environment[count] != NULL)
        count++;
    char **sorted = xmalloc(size_mul(count + 1, sizeof(*sorted)));
    memcpy(sorted, environment, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_strings);

    bool ok = true;
    for (size_t i = 0; (ok || goes_on(config)) && i < count; i++) {
        const char *equals = strchr(sorted[i], '=');
        if (equals == NULL)
            continue;
        char *variable = slice_to_string(slice_of(sorted[i], (size_t)(equals - sorted[i])));
        if (!assign_variable(config, variable, equals + 1, error))
            ok = tell(config, error);
        free(variable);
    }
    free(sorted);
    return ok;
}

bool config_set(struct config *config, const char *assignment, char error[CONFIG_ERROR_SIZE])
{
    char *text = xstrdup(assignment), *name, *value;
    const bool ok =
        split(text, &name, &value)
            ? assign(config, name, value, "--set", error)
            : fail(error, "KEY=VALUE is expected after --set, not '%.120s'", assignment);
    free(text);
    return ok || tell(config, error);
}

/* ---- the whole ----------------------------------------------------------------------------- */

void config_init(struct config *config)
{
    *config = (struct config){0};
    TAILQ_INIT(&config->tcp.list);
    TAILQ_INIT(&config->ssl.list);
    TAILQ_INIT(&config->ssl_options.versions);
    TAILQ_INIT(&config->ssl_options.ciphers);
    TAILQ_INIT(&config->mechanisms);
    TAILQ_INIT(&config->server_properties);
    TAILQ_INIT(&config->origins);
    TAILQ_INIT(&config->default_tags);
    TAILQ_INIT(&config->loopback_users);
    TAILQ_INIT(&config->vhost_limits);
    for (size_t i = 0; i < config_key_count; i++) {
        if (config_keys[i].initial == NULL)
            continue;
        const bool ok = set_value(config, &config_keys[i], NULL, config_keys[i].initial);
        assert(ok);
        (void)ok;
    }
    add_listener(&config->tcp, "default", NULL, 5672);
    set_name(&config->default_tags, "administrator", true);
    set_name(&config->loopback_users, "guest", true);
}

void config_release(struct config *config)
{
    for (size_t i = 0; i < config_key_count; i++) {
        char **place = (char **)(void *)((char *)config + config_keys[i].offset);
        const enum key_kind kind = config_keys[i].kind;
        if (kind == KEY_STRING || kind == KEY_SECRET || kind == KEY_PATTERN) {
            free(*place);
            *place = NULL;
        }
    }
    remove_listeners(&config->tcp);
    remove_listeners(&config->ssl);
    remove_properties(&config->ssl_options.versions);
    remove_properties(&config->ssl_options.ciphers);
    remove_properties(&config->mechanisms);
    remove_properties(&config->server_properties);
    remove_properties(&config->origins);
    remove_names(&config->default_tags);
    remove_names(&config->loopback_users);
    remove_vhost_limits(&config->vhost_limits);
}

static bool may_clash(const struct config_listener *a, const struct config_listener *b)
{
    return a != b && a->port == b->port && a->port != 0 &&
           (a->host == NULL || b->host == NULL || strcmp(a->host, b->host) == 0);
}

const char *config_origin(const struct config *config, const char *key)
{
    const struct config_property *origin;

    TAILQ_FOREACH (origin, &config->origins, link)
        if (strcmp(origin->key, key) == 0)
            return origin->value;
    return "";
}

/* Of FAMILY.NAME. */
static const char *origin_in(const struct config *config, const char *family, const char *name)
{
    char *key = xasprintf("%s.%s", family, name);
    const char *origin = config_origin(config, key);

    free(key);
    return origin;
}

void config_write_tags(const struct config *config, struct buf *out)
{
    const struct config_name *tag;

    TAILQ_FOREACH (tag, &config->default_tags, link)
        if (tag->on)
            buf_printf(out, "%s%s", buf_size(out) == 0 ? "" : ",", tag->name);
}

static bool check_tags(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    const struct config_name *tag;
    struct buf tags = BUF_EMPTY;

    TAILQ_FOREACH (tag, &config->default_tags, link)
        if (tag->on && !user_tags_are_valid(slice_of_string(tag->name)))
            return fail(error,
                        "default_user_tags.%s%s: tags have printable ASCII characters but quotes, "
                        "backslashes, brackets and spaces",
                        tag->name, origin_in(config, "default_user_tags", tag->name));
    config_write_tags(config, &tags);
    const bool ok = user_tags_are_valid(buf_slice(&tags));
    buf_release(&tags);
    return ok ||
           fail(error, "default_user_tags: tags have %d characters in all", USER_TAGS_SIZE_MAX);
}

static bool check_publish_memory(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    const uint64_t memory = config->service_limits.publish_size_max;
    const uint64_t message = config->service_limits.message_size_max;

    return memory == 0 || memory >= message ||
           fail(error,
                "publish_memory_limit (%" PRIu64 ")%s is smaller than max_message_size (%" PRIu64
                ")%s: no message of that size could come",
                memory, config_origin(config, "publish_memory_limit"), message,
                config_origin(config, "max_message_size"));
}

static bool check_frames(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    const uint32_t initial = config->service_limits.initial_frame_size_max;
    const uint32_t largest = config->service_limits.frame_size_max;

    return initial <= largest ||
           fail(error, "initial_frame_max (%" PRIu32 ")%s is larger than frame_max (%" PRIu32 ")%s",
                initial, config_origin(config, "initial_frame_max"), largest,
                config_origin(config, "frame_max"));
}

/* Whether a listener of the first family cannot be beside one of the second. */
static bool check_clash(const struct config *config, const char *family,
                        const struct config_listeners *listeners, const char *other_family,
                        const struct config_listeners *others, char error[CONFIG_ERROR_SIZE])
{
    const struct config_listener *a, *b;
    TAILQ_FOREACH (a, &listeners->list, link)
        TAILQ_FOREACH (b, &others->list, link)
            if (may_clash(a, b))
                return fail(error, "%s.%s%s and %s.%s%s are both on port %u", family, a->name,
                            origin_in(config, family, a->name), other_family, b->name,
                            origin_in(config, other_family, b->name), a->port);
    return true;
}

static bool check_tcp(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    return check_clash(config, "listeners.tcp", &config->tcp, "listeners.tcp", &config->tcp, error);
}

static bool check_ssl(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    return check_clash(config, "listeners.ssl", &config->ssl, "listeners.ssl", &config->ssl, error);
}

static bool check_both(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    return check_clash(config, "listeners.tcp", &config->tcp, "listeners.ssl", &config->ssl, error);
}

static bool check_certificate(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    const struct config_listener *listener = TAILQ_FIRST(&config->ssl.list);

    return listener == NULL || *config->ssl_options.certfile != '\0' ||
           fail(error,
                "listeners.ssl.%s%s needs a certificate: set ssl_options.certfile and "
                "ssl_options.keyfile",
                listener->name, origin_in(config, "listeners.ssl", listener->name));
}

static bool check_verify(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    const struct config_ssl *ssl = &config->ssl_options;

    return ssl->verify != VERIFY_PEER || *ssl->cacertfile != '\0' ||
           fail(error,
                "ssl_options.verify = verify_peer%s needs ssl_options.cacertfile: the certificates "
                "of who may sign those of clients",
                config_origin(config, "ssl_options.verify"));
}

static bool check_required(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    const struct config_ssl *ssl = &config->ssl_options;

    return !ssl->fail_if_no_peer_cert || ssl->verify == VERIFY_PEER ||
           fail(error, "ssl_options.fail_if_no_peer_cert%s needs ssl_options.verify = verify_peer",
                config_origin(config, "ssl_options.fail_if_no_peer_cert"));
}

bool config_check(const struct config *config, char error[CONFIG_ERROR_SIZE])
{
    static bool (*const checks[])(const struct config *, char *) = {
        check_tags, check_publish_memory, check_frames, check_tcp,     check_ssl,
        check_both, check_certificate,    check_verify, check_required};
    bool ok = true;

    for (size_t i = 0; (ok || goes_on(config)) && i < countof(checks); i++)
        if (!checks[i](config, error))
            ok = tell(config, error);
    return ok;
}
