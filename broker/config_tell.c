/* Telling the configuration: each key as a file would say it, so that a file made of what is told
 * configures the same broker, but for the secrets. */
#include "config.h"

#include "base/alloc.h"
#include "config_keys.h"

/* Who is told. */
struct audience {
    void (*take)(void *to, const char *key, const char *value);
    void *to;
};

/* The key, with name in place of a family's star. */
static void tell_value(const struct audience *who, const struct key *key, const char *name,
                       const char *value)
{
    const char *star = strchr(key->name, '*');
    char *full = star == NULL
                     ? xstrdup(key->name)
                     : xasprintf("%.*s%s%s", (int)(star - key->name), key->name, name, star + 1);

    who->take(who->to, full, value);
    free(full);
}

static void tell_number(const struct audience *who, const struct key *key, const char *name,
                        int64_t number)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRId64, number);
    tell_value(who, key, name, key->infinity && number == 0 ? "infinity" : text);
}

static void tell_ratio(const struct audience *who, const struct key *key, double ratio)
{
    char text[32];

    snprintf(text, sizeof(text), "%.10g", ratio);
    tell_value(who, key, "", text);
}

static uint64_t load_number(const void *place, size_t size)
{
    uint16_t narrow;
    uint32_t middle;
    uint64_t wide;

    switch (size) {
    case sizeof(narrow):
        memcpy(&narrow, place, size);
        return narrow;
    case sizeof(middle):
        memcpy(&middle, place, size);
        return middle;
    default:
        assert(size == sizeof(wide));
        memcpy(&wide, place, size);
        return wide;
    }
}

static void tell_listeners(const struct audience *who, const struct key *key,
                           const struct config_listeners *listeners)
{
    const struct config_listener *listener;

    TAILQ_FOREACH (listener, &listeners->list, link) {
        const bool is_v6 = listener->host != NULL && strchr(listener->host, ':') != NULL;
        char *value =
            xasprintf("%s%s%s%s%u", is_v6 ? "[" : "", listener->host == NULL ? "" : listener->host,
                      is_v6 ? "]" : "", listener->host == NULL ? "" : ":", listener->port);
        tell_value(who, key, listener->name, value);
        free(value);
    }
}

static void tell_vhost_limits(const struct audience *who, const struct key *key,
                              const struct config_vhost_limits *limits)
{
    if (key->kind == KEY_VHOST_PATTERN)
        tell_value(who, key, limits->name, limits->pattern);
    else
        tell_number(who, key, limits->name,
                    key->kind == KEY_VHOST_QUEUES ? limits->queue_max : limits->connection_max);
}

/* A family: one key for each that there is. */
static void tell_family(const struct audience *who, const struct key *key, const void *place)
{
    const struct config_property *property;
    const struct config_name *name;
    const struct config_vhost_limits *limits;

    switch (key->kind) {
    case KEY_LISTENER:
        tell_listeners(who, key, place);
        break;
    case KEY_NAME:
        TAILQ_FOREACH (name, (const struct config_names *)place, link)
            tell_value(who, key, name->name, name->on ? "true" : "false");
        break;
    case KEY_VHOST_PATTERN:
    case KEY_VHOST_CONNECTIONS:
    case KEY_VHOST_QUEUES:
        TAILQ_FOREACH (limits, (const struct config_vhost_limits_list *)place, link)
            tell_vhost_limits(who, key, limits);
        break;
    default:
        TAILQ_FOREACH (property, (const struct config_properties *)place, link)
            tell_value(who, key, property->key, property->value);
    }
}

static void tell_key(const struct config *config, const struct audience *who, const struct key *key)
{
    const void *place = (const char *)config + key->offset;
    double ratio;

    switch (key->kind) {
    case KEY_SECRET:
        break;
    case KEY_STRING:
    case KEY_PATTERN:
        tell_value(who, key, "", *(char *const *)place);
        break;
    case KEY_BOOL:
        tell_value(who, key, "", *(const bool *)place ? "true" : "false");
        break;
    case KEY_NUMBER:
    case KEY_SIZE:
        if (key->initial != NULL) /* else it is another key's second name */
            tell_number(who, key, "", (int64_t)load_number(place, key->size));
        break;
    case KEY_RATIO:
        memcpy(&ratio, place, sizeof(ratio));
        tell_ratio(who, key, ratio);
        break;
    case KEY_LEVEL:
        tell_value(who, key, "", log_level_name(*(const enum log_level *)place));
        break;
    case KEY_VERIFY:
    case KEY_LOGIN_FROM:
    case KEY_SAN_TYPE:
        tell_value(who, key, "", config_words[key->kind][load_number(place, key->size)]);
        break;
    case KEY_NO_LISTENERS:
        if (TAILQ_EMPTY(&((const struct config_listeners *)place)->list))
            tell_value(who, key, "", "none");
        break;
    case KEY_NO_LOOPBACK_USERS:
        if (config_find_name(&config->loopback_users, "guest") == NULL)
            tell_value(who, key, "", "none");
        break;
    default:
        tell_family(who, key, place);
    }
}

void config_each(const struct config *config,
                 void (*take)(void *to, const char *key, const char *value), void *to)
{
    const struct audience who = {take, to};

    for (size_t i = 0; i < config_key_count; i++)
        tell_key(config, &who, &config_keys[i]);
}
