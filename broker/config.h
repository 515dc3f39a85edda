/* The configuration, checked, as a struct; every limit has its default here.
 *
 * Sources, the last word wins: defaults, the file, the files of conf.d beside it in name order, the
 * environment (STOATMQ_ and the key in upper case with dots as underscores), --set. Keys are
 * RabbitMQ's where the meaning is the same. An unknown key or a bad value refuses to start, with
 * source, line and the nearest known key. One table, in config_keys.c, holds every key: name, kind,
 * range, default, place. */
#ifndef BROKER_CONFIG_H
#define BROKER_CONFIG_H

#include "base/log.h"
#include "base/slice.h"
#include "core/broker.h"
#include "session/service.h"

struct config_listener {
    TAILQ_ENTRY(config_listener) link;
    char *name; /* "default", or NAME of listeners.tcp.NAME */
    char *host; /* NULL: every address */
    uint16_t port;
};
struct config_listeners { /* of one protocol */
    TAILQ_HEAD(, config_listener) list;
    bool given; /* the default one has been replaced */
};

struct config_property { /* FAMILY.KEY = VALUE */
    TAILQ_ENTRY(config_property) link;
    char *key, *value;
};
TAILQ_HEAD(config_properties, config_property);

enum config_verify { VERIFY_NONE, VERIFY_PEER };
enum config_login_from {
    LOGIN_FROM_DN,
    LOGIN_FROM_CN,
    LOGIN_FROM_SAN,
    LOGIN_FROM_SAN_SHORT, /* the same by another word: RabbitMQ takes both (rabbit_ssl.erl) */
};
enum config_san_type { SAN_DNS, SAN_EMAIL, SAN_URI, SAN_IP };

struct config_ssl {
    char *certfile, *keyfile, *cacertfile; /* ssl_options.*; empty: none */
    char *password;                        /* ssl_options.password, of the key */
    uint32_t verify;                       /* ssl_options.verify (verify_none): config_verify */
    bool fail_if_no_peer_cert;             /* ssl_options.fail_if_no_peer_cert (false) */
    uint32_t depth;                        /* ssl_options.depth (10) */
    bool honor_cipher_order;               /* ssl_options.honor_cipher_order (true) */
    struct config_properties versions; /* ssl_options.versions.*: tlsv1.2, tlsv1.3; none: both */
    struct config_properties ciphers;  /* ssl_options.ciphers.*; none: the good ones */
    uint32_t login_from;      /* ssl_cert_login_from (distinguished_name): config_login_from */
    uint32_t login_san_type;  /* ssl_cert_login_san_type (dns): config_san_type */
    uint32_t login_san_index; /* ssl_cert_login_san_index (0) */
};

struct config_name { /* PREFIX.NAME = true or false */
    TAILQ_ENTRY(config_name) link;
    char *name;
    bool on;
};
TAILQ_HEAD(config_names, config_name);

struct config_name *config_find_name(const struct config_names *names, const char *text);

struct config_vhost_limits { /* default_limits.vhosts.NAME.* */
    TAILQ_ENTRY(config_vhost_limits) link;
    char *name;
    char *pattern;                     /* .pattern (.*) */
    int64_t connection_max, queue_max; /* .max_connections, .max_queues (-1: no limit) */
};
TAILQ_HEAD(config_vhost_limits_list, config_vhost_limits);

struct config {
    char *data_dir;              /* --data-dir, data_dir */
    struct config_listeners tcp; /* listeners.tcp.*; listeners.tcp = none empties it */
    struct config_listeners ssl; /* listeners.ssl.*; there is no default one */
    struct config_ssl ssl_options;
    struct config_properties mechanisms; /* auth_mechanisms.*; none: all but ANONYMOUS */
    char *anonymous_user;                /* anonymous_login_user (guest) */
    char *default_vhost;                 /* default_vhost (/) */
    char *default_user, *default_pass;   /* default_user, default_pass (guest) */
    struct config_names default_tags;    /* default_user_tags.TAG (administrator) */
    char *default_configure, *default_write, *default_read; /* default_permissions.* (.*) */
    /* loopback_users.NAME (guest): from loopback peers only; loopback_users = none empties it */
    struct config_names loopback_users;
    struct service_limits service_limits;   /* heartbeat, max_message_size ...: see config_keys.c */
    struct broker_limits broker_limits;     /* cluster_queue_limit ...: likewise */
    bool proxy_protocol;                    /* proxy_protocol (false): see net/proxied.h */
    uint64_t message_memory_max;            /* message_memory_limit (48MiB) */
    uint32_t ssl_handshake_max;             /* ssl_handshake_max (1000) */
    uint32_t ssl_handshake_max_per_address; /* ssl_handshake_max_per_address (5000) */
    /* default_limits.vhosts.*: of a new vhost, by the first whose pattern its name matches; in the
     * order of their names, numbers by value */
    struct config_vhost_limits_list vhost_limits;
    double memory_relative;      /* vm_memory_high_watermark.relative (0.6) */
    uint64_t memory_absolute;    /* vm_memory_high_watermark.absolute (0: the relative one) */
    uint64_t memory_total;       /* total_memory_available_override_value (0: as found) */
    double disk_free_relative;   /* disk_free_limit.relative (0: the absolute one) */
    uint64_t disk_free_absolute; /* disk_free_limit.absolute (50MB) */
    uint32_t backlog;            /* tcp_listen_options.backlog (1024) */
    char *user;                  /* user (empty: whoever starts it): see privileges.h */
    bool sandbox;                /* sandbox (true): see sandbox.h */
    bool log_console;            /* log.console (true): there is a log, on stderr */
    enum log_level log_level;    /* log.console.level (info) */
    struct config_properties server_properties;

    struct config_properties origins; /* of keys that were given, as config_origin tells them */

    /* Told each mistake as it is found, and reading goes on; NULL: the first one ends it. */
    void (*on_mistake)(const char *sentence);
};

#define CONFIG_FILE         "/etc/stoatmq/stoatmq.conf"
#define CONFIG_DEFAULT_USER "guest"

enum { CONFIG_ERROR_SIZE = 512 };

void config_init(struct config *config); /* the defaults */
void config_release(struct config *config);

/* Each fills error with a sentence for the operator and returns false on a bad key or value; what
 * was read before it is set then. */

/* The file, and conf.d beside it. path NULL: CONFIG_FILE, where neither need be. */
bool config_read_file(struct config *config, const char *path, char error[CONFIG_ERROR_SIZE]);

/* STOATMQ_<KEY>, and RABBITMQ_DEFAULT_USER, _PASS and _VHOST, over which the former win.
 * environment is as main has it. */
bool config_read_environment(struct config *config, char **environment,
                             char error[CONFIG_ERROR_SIZE]);

/* "key = value" of --set. */
bool config_set(struct config *config, const char *assignment, char error[CONFIG_ERROR_SIZE]);

/* Tells of each key that has a value, defaults included, as a file would say it; secrets are left
 * out. The strings live as long as the call. */
void config_each(const struct config *config,
                 void (*take)(void *to, const char *key, const char *value), void *to);

/* default_user_tags.TAG as the user has them: in one text, separated by commas. */
void config_write_tags(const struct config *config, struct buf *out);

/* Where the key was given last: " in /etc/stoatmq/stoatmq.conf:7", " in --set"; empty: it was not.
 * Lives as long as it is not given again. */
const char *config_origin(const struct config *config, const char *key);

/* What only the whole can tell. */
bool config_check(const struct config *config, char error[CONFIG_ERROR_SIZE]);

#endif
