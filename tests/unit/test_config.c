/* The configuration: every kind of key, every source, and what is said about mistakes. */
#include "config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "tests/lib/unit.h"

static struct config config;
static char error[CONFIG_ERROR_SIZE];
static char folder[] = "/tmp/test_config.XXXXXX";
static char path[64];

static void setup(void)
{
    config_init(&config);
    error[0] = '\0';
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/stoatmq.conf", folder);
}

static void teardown(void)
{
    config_release(&config);
    char *command = xasprintf("rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
    free(command);
}

static void write_file(const char *name, struct slice text)
{
    char *full = xasprintf("%s/%s", folder, name);
    FILE *file = fopen(full, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text.data, 1, text.size, file), text.size);
    fclose(file);
    free(full);
}

static bool read_text(const char *text)
{
    write_file("stoatmq.conf", slice_of_string(text));
    return config_read_file(&config, path, error);
}

/* Those that are on, in order. */
static const char *names_on(const struct config_names *names)
{
    static char text[512];
    const struct config_name *name;

    text[0] = '\0';
    TAILQ_FOREACH (name, names, link)
        if (name->on)
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s",
                     text[0] == '\0' ? "" : " ", name->name);
    return text;
}

/* "name=host:port" of every listener, in order. */
static const char *listeners(void)
{
    static char text[512];
    size_t used = 0;
    text[0] = '\0';
    const struct config_listener *listener;
    TAILQ_FOREACH (listener, &config.tcp.list, link)
        used +=
            (size_t)snprintf(text + used, sizeof(text) - used, "%s%s=%s:%u", used ? " " : "",
                             listener->name, listener->host ? listener->host : "*", listener->port);
    return text;
}

START_TEST(defaults)
{
    ck_assert_str_eq(config.data_dir, "/var/lib/stoatmq");
    ck_assert_str_eq(listeners(), "default=*:5672");
    ck_assert_str_eq(config.default_vhost, "/");
    ck_assert_str_eq(config.default_user, "guest");
    ck_assert_str_eq(config.default_pass, "guest");
    ck_assert_str_eq(config.default_configure, ".*");
    ck_assert_str_eq(config.default_write, ".*");
    ck_assert_str_eq(config.default_read, ".*");
    ck_assert_str_eq(names_on(&config.default_tags), "administrator");
    ck_assert_str_eq(names_on(&config.loopback_users), "guest");
    ck_assert_uint_eq(config.service_limits.heartbeat_s, 60);
    ck_assert_uint_eq(config.service_limits.frame_size_max, 131072);
    ck_assert_uint_eq(config.service_limits.initial_frame_size_max, 8192);
    ck_assert_uint_eq(config.service_limits.unacked_size_max, UINT64_C(512) << 20);
    ck_assert_uint_eq(config.service_limits.output_size_max, 1 << 20);
    ck_assert_uint_eq(config.service_limits.channel_max, 2047);
    ck_assert_uint_eq(config.service_limits.handshake_timeout_ms, 10000);
    ck_assert_uint_eq(config.service_limits.message_size_max, 16777216);
    ck_assert_uint_eq(config.message_memory_max, 50331648);
    ck_assert_uint_eq(config.service_limits.consumer_max_per_channel, 100000);
    ck_assert_uint_eq(config.service_limits.consumer_max_per_node, 1000000);
    ck_assert_uint_eq(config.service_limits.unacked_max_per_channel, 100000);
    ck_assert_uint_eq(config.service_limits.publish_size_max, UINT64_C(128) << 20);
    ck_assert_uint_eq(config.service_limits.connection_max, 0);
    ck_assert_uint_eq(config.service_limits.connection_max_per_address, 0);
    ck_assert_uint_eq(config.service_limits.handshake_max_per_address, 10000);
    ck_assert_uint_eq(config.ssl_handshake_max, 1000);
    ck_assert_uint_eq(config.ssl_handshake_max_per_address, 5000);
    ck_assert_uint_eq(config.service_limits.login_delay_max_ms, 3000);
    ck_assert_uint_eq(config.service_limits.channel_max_per_node, 500000);
    ck_assert_uint_eq(config.broker_limits.queue_max, 1000000);
    ck_assert_uint_eq(config.broker_limits.exchange_max, 200000);
    ck_assert_uint_eq(config.broker_limits.binding_max, 2000000);
    ck_assert_uint_eq(config.broker_limits.binding_max_per_queue, 200000);
    ck_assert_uint_eq(config.broker_limits.binding_max_per_exchange, 200000);
    ck_assert_uint_eq(config.broker_limits.routing_steps_max, 1000000);
    ck_assert_uint_eq(config.broker_limits.definition_octets_max, UINT64_C(256) << 20);
    ck_assert_uint_eq(config.broker_limits.vhost_max, 10000);
    ck_assert_double_eq(config.memory_relative, 0.6);
    ck_assert_uint_eq(config.memory_absolute, 0);
    ck_assert_uint_eq(config.memory_total, 0);
    ck_assert_double_eq(config.disk_free_relative, 0);
    ck_assert_uint_eq(config.disk_free_absolute, 50000000);
    ck_assert_uint_eq(config.backlog, 1024);
    ck_assert(config.log_console);
    ck_assert_int_eq(config.log_level, LOG_INFO);
    ck_assert(TAILQ_EMPTY(&config.server_properties));
    ck_assert(config_check(&config, error));
}
END_TEST

START_TEST(ratios)
{
    static const struct {
        const char *value;
        double wanted;
        const char *message;
    } cases[] = {
        {"0", 0, NULL},
        {"0.4", 0.4, NULL},
        {".5", 0.5, NULL},
        {"1.0", 1, NULL},
        {"1.001", 0,
         "bad value '1.001' for 'vm_memory_high_watermark.relative' in --set: a number from 0 to 1 "
         "is expected"},
        {"", 0, "bad value ''"},
        {".", 0, "bad value"},
        {"0.4.1", 0, "bad value"},
        {"-0.4", 0, "bad value"},
        {"4e-1", 0, "bad value"},
        {"0x1", 0, "bad value"},
        {"nan", 0, "bad value"},
        {"0.4 GB", 0, "bad value"},
    };

    for (size_t i = 0; i < countof(cases); i++) {
        char assignment[80];
        snprintf(assignment, sizeof(assignment), "vm_memory_high_watermark.relative = %s",
                 cases[i].value);
        ck_assert(config_set(&config, assignment, error) == (cases[i].message == NULL));
        if (cases[i].message == NULL)
            ck_assert_double_eq(config.memory_relative, cases[i].wanted);
        else
            ck_assert_msg(strstr(error, cases[i].message) != NULL, "%s", error);
    }
    ck_assert(config_set(&config, "disk_free_limit.relative = 2.5", error));
    ck_assert_double_eq(config.disk_free_relative, 2.5);
}
END_TEST

START_TEST(values)
{
    static const struct {
        const char *assignment;
        size_t offset, size;
        uint64_t wanted; /* ignored when message is set */
        const char *message;
    } cases[] = {
#define PLACE(field) offsetof(struct config, field), sizeof(config.field)
#define BAD          0, 0, 0
        {"heartbeat = 0", PLACE(service_limits.heartbeat_s), 0, NULL},
        {"heartbeat=65535", PLACE(service_limits.heartbeat_s), 65535, NULL},
        {"  heartbeat\t=  30  ", PLACE(service_limits.heartbeat_s), 30, NULL},
        {"heartbeat = 65536", BAD,
         "bad value '65536' for 'heartbeat' in --set: a number from 0 to 65535 is expected"},
        {"heartbeat = -1", BAD, "bad value '-1'"},
        {"heartbeat = 1k", BAD, "bad value '1k'"},
        {"heartbeat = ", BAD, "bad value ''"},
        {"heartbeat = 99999999999999999999999", BAD, "bad value"},
        {"frame_max = 8192", PLACE(service_limits.frame_size_max), 8192, NULL},
        {"frame_max = 1MiB", PLACE(service_limits.frame_size_max), 1048576, NULL},
        {"frame_max = 1m", PLACE(service_limits.frame_size_max), 1048576, NULL},
        {"frame_max = 1MB", PLACE(service_limits.frame_size_max), 1000000, NULL},
        {"frame_max = 64k", PLACE(service_limits.frame_size_max), 65536, NULL},
        {"frame_max = 64kib", PLACE(service_limits.frame_size_max), 65536, NULL},
        {"frame_max = 64KB", PLACE(service_limits.frame_size_max), 64000, NULL},
        {"frame_max = 8191", BAD,
         "bad value '8191' for 'frame_max' in --set: a size from 8192 to 134217728 is expected"},
        {"frame_max = 1GiB", BAD, "a size from"},
        {"frame_max = 1x", BAD, "a size from"},
        {"frame_max = 1ki", BAD, "a size from"},
        {"frame_max = 1 k", BAD, "a size from"},
        {"frame_max = 99999999999999TB", BAD, "a size from"},
        {"frame_max = k", BAD, "a size from"},
        {"max_message_size = 128MiB", PLACE(service_limits.message_size_max), 134217728, NULL},
        {"max_message_size = 134217729", BAD, "bad value"},
        {"channel_max = 7", PLACE(service_limits.channel_max), 7, NULL},
        {"max_channels_per_connection = 65535", PLACE(service_limits.channel_max), 65535, NULL},
        {"max_channels_per_connection = 65536", BAD, "bad value"},
        {"connection_max = infinity", PLACE(service_limits.connection_max), 0, NULL},
        {"connection_max = 4294967295", PLACE(service_limits.connection_max), UINT32_MAX, NULL},
        {"heartbeat = infinity", BAD, "bad value"},
        {"channel_max_per_node = 9", PLACE(service_limits.channel_max_per_node), 9, NULL},
        {"cluster_queue_limit = 9", PLACE(broker_limits.queue_max), 9, NULL},
        {"cluster_binding_limit = 9", PLACE(broker_limits.binding_max), 9, NULL},
        {"binding_max_per_queue = 9", PLACE(broker_limits.binding_max_per_queue), 9, NULL},
        {"binding_max_per_exchange = infinity", PLACE(broker_limits.binding_max_per_exchange), 0,
         NULL},
        {"routing_steps_max = 9", PLACE(broker_limits.routing_steps_max), 9, NULL},
        {"definition_memory_limit = 1GB", PLACE(broker_limits.definition_octets_max), 1000000000,
         NULL},
        {"definition_memory_limit = infinity", PLACE(broker_limits.definition_octets_max), 0, NULL},
        {"consumer_max_per_node = 9", PLACE(service_limits.consumer_max_per_node), 9, NULL},
        {"unacked_max_per_channel = 9", PLACE(service_limits.unacked_max_per_channel), 9, NULL},
        {"publish_memory_limit = 1MiB", PLACE(service_limits.publish_size_max), 1048576, NULL},
        {"connection_max_per_address = 9", PLACE(service_limits.connection_max_per_address), 9,
         NULL},
        {"ssl_handshake_max = 7", PLACE(ssl_handshake_max), 7, NULL},
        {"ssl_handshake_max_per_address = 8", PLACE(ssl_handshake_max_per_address), 8, NULL},
        {"handshake_max_per_address = 9", PLACE(service_limits.handshake_max_per_address), 9, NULL},
        {"login_delay_max = 0", PLACE(service_limits.login_delay_max_ms), 0, NULL},
        {"login_delay_max = 60001", BAD, "bad value"},
        {"cluster_exchange_limit = infinity", PLACE(broker_limits.exchange_max), 0, NULL},
        {"vm_memory_high_watermark.absolute = 2GB", PLACE(memory_absolute), 2000000000, NULL},
        {"total_memory_available_override_value = 8GiB", PLACE(memory_total), UINT64_C(8) << 30,
         NULL},
        {"disk_free_limit.absolute = 0", PLACE(disk_free_absolute), 0, NULL},
        {"tcp_listen_options.backlog = 4096", PLACE(backlog), 4096, NULL},
        {"handshake_timeout = 500", PLACE(service_limits.handshake_timeout_ms), 500, NULL},
        {"consumer_timeout = 1800000", PLACE(service_limits.consumer_timeout_ms), 1800000, NULL},
        {"consumer_timeout = infinity", PLACE(service_limits.consumer_timeout_ms), 0, NULL},
        {"vhost_max = 7", PLACE(broker_limits.vhost_max), 7, NULL},
        {"loopback_users.guest = maybe", BAD, "true or false is expected"},
        {"loopback_users = all", BAD, "none is all it may be"},
        {"log.console = off", PLACE(log_console), 0, NULL},
        {"log.console.level = debug", PLACE(log_level), LOG_DEBUG, NULL},
        {"log.console.level = loud", BAD, "debug, info, notice"},
        {"data_dir =", BAD, "bad value for 'data_dir' in --set: a text of 1 to 94 bytes"},
        {"connection_max = 0", BAD, "a number from 1 to 4294967295, or infinity, is expected"},
        {"unacked_memory_limit = 0", BAD, "a size from 1 to "},
        {"heartbeat", BAD, "KEY=VALUE is expected after --set, not 'heartbeat'"},
        {"= 7", BAD, "KEY=VALUE is expected after --set, not '= 7'"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        const bool ok = config_set(&config, cases[i].assignment, error);
        ck_assert_msg(ok == (cases[i].message == NULL), "%s: %s", cases[i].assignment, error);
        if (!ok) {
            ck_assert_msg(strstr(error, cases[i].message) != NULL, "%s: %s", cases[i].assignment,
                          error);
            continue;
        }
        uint64_t value = 0; /* on the little-endian machines that it runs on */
        memcpy(&value, (const char *)&config + cases[i].offset, cases[i].size);
        ck_assert_msg(value == cases[i].wanted, "%s: %" PRIu64, cases[i].assignment, value);
    }
}
END_TEST

START_TEST(names)
{
    ck_assert(config_set(&config, "loopback_users.stoat = true", error));
    ck_assert_str_eq(names_on(&config.loopback_users), "guest stoat");
    ck_assert(config_set(&config, "loopback_users.guest = No", error));
    ck_assert_str_eq(names_on(&config.loopback_users), "stoat");
    ck_assert(config_set(&config, "loopback_users.guest = on", error));
    ck_assert(config_set(&config, "loopback_users = none", error));
    ck_assert_str_eq(names_on(&config.loopback_users), "");
    ck_assert(config_set(&config, "default_user_tags.administrator = false", error));
    ck_assert(config_set(&config, "default_user_tags.monitoring = true", error));
    ck_assert_str_eq(names_on(&config.default_tags), "monitoring");
    ck_assert(config_check(&config, error));
    ck_assert(config_set(&config, "default_user_tags.mon[1] = true", error));
    ck_assert(!config_check(&config, error));
    ck_assert(strstr(error, "default_user_tags.mon[1] in --set: tags have ") == error);
    ck_assert(config_set(&config, "default_user_tags.mon[1] = false", error));
    for (int i = 0; i < 20; i++) {
        char *text = xasprintf("default_user_tags.%d%0100d = true", i, 0);
        ck_assert(config_set(&config, text, error));
        free(text);
    }
    ck_assert(!config_check(&config, error));
    ck_assert(strstr(error, "default_user_tags: tags have ") == error);
}
END_TEST

START_TEST(permissions)
{
    ck_assert(config_set(&config, "default_permissions.read = ^a", error));
    ck_assert(config_set(&config, "default_permissions.write =", error));
    ck_assert(config_check(&config, error));
    ck_assert_str_eq(config.default_read, "^a");
    ck_assert_str_eq(config.default_write, "");
    ck_assert(!config_set(&config, "default_permissions.read = (a", error));
    ck_assert_ptr_nonnull(strstr(error, "bad value for 'default_permissions.read' in --set: it is "
                                        "no regular expression: "));
    ck_assert_str_eq(config.default_read, "^a");
}
END_TEST

/* By the order of their names, with what is not given as RabbitMQ has it. */
START_TEST(vhost_limits)
{
    ck_assert(read_text("default_limits.vhosts.10.max_queues = 0\n"
                        "default_limits.vhosts.2.pattern = ^a\n"
                        "default_limits.vhosts.2.max_connections = 4294967295\n"
                        "default_limits.vhosts.10.max_queues = 7\n"
                        "default_limits.vhosts.rest.max_queues = -1\n"));
    static const struct {
        const char *name, *pattern;
        int64_t connection_max, queue_max;
    } wanted[] = {{"2", "^a", UINT32_MAX, -1}, {"10", ".*", -1, 7}, {"rest", ".*", -1, -1}};
    const struct config_vhost_limits *limits = TAILQ_FIRST(&config.vhost_limits);
    for (size_t i = 0; i < countof(wanted); i++, limits = TAILQ_NEXT(limits, link)) {
        ck_assert_ptr_nonnull(limits);
        ck_assert_str_eq(limits->name, wanted[i].name);
        ck_assert_str_eq(limits->pattern, wanted[i].pattern);
        ck_assert_int_eq(limits->connection_max, wanted[i].connection_max);
        ck_assert_int_eq(limits->queue_max, wanted[i].queue_max);
    }
    ck_assert_ptr_null(limits);
    ck_assert(config_check(&config, error));

    static const char *const bad[] = {"-2", "4294967296", "many", "", "1k"};
    for (size_t i = 0; i < countof(bad); i++) {
        char *text = xasprintf("default_limits.vhosts.2.max_queues = %s", bad[i]);
        ck_assert_msg(!config_set(&config, text, error), "%s", text);
        free(text);
        char *sentence = xasprintf("bad value '%s' for 'default_limits.vhosts.2.max_queues' in "
                                   "--set: a number from 0 to 4294967295, or -1 for no limit, is "
                                   "expected",
                                   bad[i]);
        ck_assert_str_eq(error, sentence);
        free(sentence);
    }
    ck_assert(!config_set(&config, "default_limits.vhosts.2.pattern = (a", error));
    ck_assert_ptr_nonnull(strstr(error, "bad value for 'default_limits.vhosts.2.pattern' in --set: "
                                        "it is no regular expression: "));
}
END_TEST

static void append_setting(void *to, const char *key, const char *value)
{
    buf_printf(to, "%s = '%s'\n", key, value);
}

/* A file made of what is told means the same. */
START_TEST(telling)
{
    ck_assert(read_text("listeners.tcp.a = [::1]:7\nlisteners.tcp.b = 8\nlisteners.ssl = none\n"
                        "ssl_options.certfile = c\nssl_options.versions.1 = tlsv1.3\n"
                        "ssl_options.password = canary\ndefault_pass = canary\n"
                        "auth_mechanisms.1 = PLAIN\ndefault_user_tags.administrator = false\n"
                        "loopback_users = none\nloopback_users.bob = true\nheartbeat = "
                        "7\nconsumer_timeout = infinity\n"
                        "connection_max = 5\nmax_message_size = 64MiB\nproxy_protocol = yes\n"
                        "disk_free_limit.relative = 1.25\nlog.console.level = none\n"
                        "ssl_cert_login_from = common_name\nserver_properties.x = a # b\n"
                        "default_limits.vhosts.2.max_queues = -1\n"
                        "default_limits.vhosts.10.max_connections = 0\n"));
    struct buf told = BUF_EMPTY, again = BUF_EMPTY;
    config_each(&config, append_setting, &told);
    char *text = slice_to_string(buf_slice(&told));
    static const char *const lines[] = {
        "\nlisteners.tcp.a = '[::1]:7'\nlisteners.tcp.b = '8'\nlisteners.ssl = 'none'\n",
        "\nssl_options.versions.1 = 'tlsv1.3'\n",
        "\nconsumer_timeout = 'infinity'\n",
        "\nconnection_max = '5'\n",
        "\nloopback_users = 'none'\nloopback_users.bob = 'true'\n",
        "\nheartbeat = '7'\n",
        "\ndisk_free_limit.relative = '1.25'\n",
        "\ndefault_limits.vhosts.10.max_connections = '0'\n"};
    for (size_t i = 0; i < countof(lines); i++)
        ck_assert_msg(strstr(text, lines[i]) != NULL, "%s is not in\n%s", lines[i], text);
    ck_assert_ptr_null(strstr(text, "canary"));
    ck_assert_ptr_null(strstr(text, "listeners.tcp.default"));

    config_release(&config);
    config_init(&config);
    ck_assert_msg(read_text(text), "%s", error);
    config_each(&config, append_setting, &again);
    ck_assert(slice_equal(buf_slice(&told), buf_slice(&again)));
    free(text);
    buf_release(&told);
    buf_release(&again);
}
END_TEST

START_TEST(listener_values)
{
    static const struct {
        const char *value, *wanted; /* NULL: refused */
    } cases[] = {
        {"5673", "x=*:5673"},
        {"0", "x=*:0"},
        {"127.0.0.1:5673", "x=127.0.0.1:5673"},
        {"0.0.0.0:65535", "x=0.0.0.0:65535"},
        {"[::1]:5672", "x=::1:5672"},
        {"::1:5672", "x=::1:5672"},
        {"[2001:db8::1]:5672", "x=2001:db8::1:5672"},
        {"65536", NULL},
        {"", NULL},
        {":5672", NULL},
        {"[]:5672", NULL},
        {"[::1]", NULL},
        {"[::1:5672", NULL},
        {"::1]:5672", NULL},
        {"rabbit:5672", NULL},
        {"127.0.0.1:", NULL},
        {"127.0.0.1:amqp", NULL},
        {"1234:1234:1234:1234:1234:1234:1234:1234:1234:1234:5672", NULL},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        char *assignment = xasprintf("listeners.tcp.x = %s", cases[i].value);
        const bool ok = config_set(&config, assignment, error);
        ck_assert_msg(ok == (cases[i].wanted != NULL), "%s", assignment);
        if (ok)
            ck_assert_str_eq(listeners(), cases[i].wanted);
        else
            ck_assert_ptr_nonnull(strstr(error, "[ADDRESS:]PORT is expected"));
        free(assignment);
    }
}
END_TEST

START_TEST(giving_a_listener_replaces_the_default)
{
    ck_assert(read_text("listeners.tcp.a = 1\nlisteners.tcp.b = 2\n"));
    ck_assert_str_eq(listeners(), "a=*:1 b=*:2");
    ck_assert(config_set(&config, "listeners.tcp.a=3", error));
    ck_assert_str_eq(listeners(), "b=*:2 a=*:3");
    ck_assert(config_set(&config, "listeners.tcp=none", error));
    ck_assert_str_eq(listeners(), "");
    ck_assert(config_set(&config, "listeners.tcp.c=4", error));
    ck_assert_str_eq(listeners(), "c=*:4");
    ck_assert(!config_set(&config, "listeners.tcp=5672", error));
    ck_assert_ptr_nonnull(strstr(error, "listeners.tcp.NAME"));
}
END_TEST

START_TEST(no_listeners_from_the_start)
{
    ck_assert(config_set(&config, "listeners.tcp = none", error));
    ck_assert_str_eq(listeners(), "");
    ck_assert(config_set(&config, "listeners.tcp.x = 1", error));
    ck_assert_str_eq(listeners(), "x=*:1");
}
END_TEST

START_TEST(properties)
{
    ck_assert(read_text("server_properties.product = Weasel\n"
                        "server_properties.Site.Name = north\n"
                        "server_properties.product = Stoat\n"));
    const struct config_property *property = TAILQ_FIRST(&config.server_properties);
    ck_assert_str_eq(property->key, "Site.Name");
    ck_assert_str_eq(property->value, "north");
    property = TAILQ_NEXT(property, link);
    ck_assert_str_eq(property->key, "product");
    ck_assert_str_eq(property->value, "Stoat");
    ck_assert_ptr_null(TAILQ_NEXT(property, link));
}
END_TEST

START_TEST(lines) /* CVE-2018-12550 */
{
    static const struct {
        const char *text, *wanted; /* of default_pass; NULL: refused */
    } cases[] = {
        {"default_pass = a b", "a b"},
        {"default_pass=secret\r\n", "secret"},
        {"\n\n  # comment\n\tdefault_pass\t=\tsecret\t# comment\n# end", "secret"},
        {"default_pass = p#ss", "p#ss"},
        {"default_pass = a=b", "a=b"},
        {"default_pass = 'a # b'", "a # b"},
        {"default_pass = ' x ' # comment", " x "},
        {"default_pass = '$(HOME)'", "$(HOME)"},
        {"default_pass = <$(TEST_SECRET)>$(TEST_SECRET)", "<s3cret>s3cret"},
        {"default_pass = $(TEST_SECRET", "$(TEST_SECRET"},
        {"default_pass = $TEST_SECRET)", "$TEST_SECRET)"},
        {"default_pass = $(TEST_NOTHING)", NULL},
        {"default_pass = $()", NULL},
        {"default_pass = 'a", NULL},
        {"default_pass = 'a' b", NULL},
        {"default_pass =", NULL},
        {"default_pass = # nothing", NULL},
        {"default_pass", NULL},
        {"= x", NULL},
    };
    setenv("TEST_SECRET", "s3cret", 1);
    for (size_t i = 0; i < countof(cases); i++) {
        const bool ok = read_text(cases[i].text);
        ck_assert_msg(ok == (cases[i].wanted != NULL), "%s: %s", cases[i].text, error);
        if (ok)
            ck_assert_str_eq(config.default_pass, cases[i].wanted);
        else
            ck_assert_msg(strstr(error, "stoatmq.conf:1") != NULL, "%s", error);
    }
}
END_TEST

/* A file cut anywhere is either read or refused with a sentence. */
START_TEST(every_cut)
{
    static const char text[] = "# a comment\n"
                               "listeners.tcp.local = [::1]:5672\n"
                               "default_pass = 'quo#ted' # comment\n"
                               "max_message_size = 64MiB\n"
                               "default_user = $(HOME)\r\n"
                               "log.console.level = warning\n"
                               "server_properties.cluster_name = x\n";
    setenv("HOME", "/nowhere", 1);
    for (size_t cut = 0; cut < sizeof(text); cut++) {
        struct config cut_config;
        config_init(&cut_config);
        write_file("stoatmq.conf", slice_of(text, cut));
        error[0] = '\0';
        const bool ok = config_read_file(&cut_config, path, error);
        ck_assert_int_eq(ok, error[0] == '\0');
        config_release(&cut_config);
    }
    ck_assert(read_text(text));
    ck_assert_int_eq(config.log_level, LOG_WARNING);
}
END_TEST

START_TEST(unknown_keys)
{
    static const struct {
        const char *key, *nearest; /* NULL: none is near */
    } cases[] = {
        {"heartbeet", "heartbeat"},
        {"Heartbeat", "heartbeat"},
        {"frame.max", "frame_max"},
        {"default_password", "default_pass"},
        {"listener.tcp.local", "listeners.tcp.local"},
        {"listeners.tcp.", "listeners.tcp"},
        {"server_property.product", "server_properties.product"},
        {"listeners.sll.local", "listeners.ssl.local"},
        {"ssl_options.certficate", "ssl_options.certfile"},
        {"default_limits.vhosts.1.max_queue", "default_limits.vhosts.*.max_queues"},
        {"default_limits.vhosts.max_queues", "default_limits.vhosts.*.max_queues"},
        {"x", NULL},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        char *text = xasprintf("\n\n%s = 7\n", cases[i].key);
        ck_assert(!read_text(text));
        char *wanted = cases[i].nearest == NULL
                           ? xasprintf("unknown key '%s' in %s:3", cases[i].key, path)
                           : xasprintf("unknown key '%s' in %s:3; did you mean '%s'?", cases[i].key,
                                       path, cases[i].nearest);
        ck_assert_str_eq(error, wanted);
        free(wanted);
        free(text);
    }
    static const char *const others[][2] = {
        {"log.level", ": its name here is log.console.level"},
        {"management.tcp.port", ": management is not served on a port yet; stoatctl needs none"},
        {"vm_memory_high_watermark", "; did you mean 'vm_memory_high_watermark.relative' or "
                                     "'vm_memory_high_watermark.absolute'?"},
        {"disk_free_limit",
         "; did you mean 'disk_free_limit.relative' or 'disk_free_limit.absolute'?"},
    };
    for (size_t i = 0; i < countof(others); i++) {
        char *text = xasprintf("%s = 7\n", others[i][0]);
        ck_assert(!read_text(text));
        char *wanted = xasprintf("unknown key '%s' in %s:1%s", others[i][0], path, others[i][1]);
        ck_assert_str_eq(error, wanted);
        free(wanted);
        free(text);
    }
    char longest[3000];
    memset(longest, 'k', sizeof(longest));
    memcpy(longest + sizeof(longest) - 3, "=7", 3);
    ck_assert(!config_set(&config, longest, error));
    ck_assert_uint_lt(strlen(error), 300);

    /* What clients are told must have a name that the wire can carry. */
    char property[] = "server_properties.";
    memcpy(longest, property, sizeof(property) - 1);
    ck_assert(!config_set(&config, longest, error));
    memcpy(longest + sizeof(property) - 1 + 127, "=7", 3);
    ck_assert(config_set(&config, longest, error));
}
END_TEST

START_TEST(fragments_in_name_order)
{
    char *conf_d = xasprintf("%s/conf.d", folder);
    ck_assert_int_eq(mkdir(conf_d, 0700), 0);
    free(conf_d);
    write_file("conf.d/20-b.conf", SLICE("heartbeat = 20\nbacklog.no = such"));
    write_file("conf.d/10-a.conf", SLICE("heartbeat = 10\n"));
    write_file("conf.d/.hidden.conf", SLICE("heartbeat = x\n"));
    write_file("conf.d/readme", SLICE("no configuration\n"));
    ck_assert(!read_text("heartbeat = 1\n"));
    ck_assert_ptr_nonnull(strstr(error, "conf.d/20-b.conf:2"));
    ck_assert_uint_eq(config.service_limits.heartbeat_s, 20);
    write_file("conf.d/20-b.conf", SLICE(""));
    ck_assert(read_text("heartbeat = 1\n"));
    ck_assert_uint_eq(config.service_limits.heartbeat_s, 10);
}
END_TEST

START_TEST(files_that_cannot_be_read) /* CVE-2018-12550 */
{
    ck_assert(!config_read_file(&config, "/nonexistent/stoatmq.conf", error));
    ck_assert_str_eq(error, "cannot read /nonexistent/stoatmq.conf: No such file or directory");
    ck_assert(!config_read_file(&config, folder, error));
    ck_assert_ptr_nonnull(strstr(error, "Is a directory"));
    write_file("stoatmq.conf", SLICE("heartbeat = 1\0 7\n"));
    ck_assert(!config_read_file(&config, path, error));
    ck_assert_ptr_nonnull(strstr(error, "a NUL byte in "));
}
END_TEST

START_TEST(environment)
{
    char *variables[] = {
        (char *)(uintptr_t) "STOATMQ_LISTENERS_TCP_LOCAL=127.0.0.1:1",
        (char *)(uintptr_t) "STOATMQ_LISTENERS_TCP=none",
        (char *)(uintptr_t) "STOATMQ_LOG_CONSOLE_LEVEL=error",
        (char *)(uintptr_t) "STOATMQ_DEFAULT_USER=stoat",
        (char *)(uintptr_t) "RABBITMQ_DEFAULT_USER=rabbit",
        (char *)(uintptr_t) "RABBITMQ_DEFAULT_PASS=p # ss$(HOME)",
        (char *)(uintptr_t) "RABBITMQ_DEFAULT_VHOST=warren",
        (char *)(uintptr_t) "RABBITMQ_NODENAME=any",
        (char *)(uintptr_t) "STOATMQ_TCP_LISTEN_OPTIONS_BACKLOG=7",
        (char *)(uintptr_t) "STOATMQ_SERVER_PROPERTIES_PRODUCT=Stoat",
        (char *)(uintptr_t) "STOATMQ_DEFAULT_LIMITS_VHOSTS_ALL_MAX_QUEUES=3",
        (char *)(uintptr_t) "STOATMQ_CONFIG_FILE=/etc/x",
        (char *)(uintptr_t) "STOATMQ_SERVICE_HOST=10.0.0.1",
        (char *)(uintptr_t) "STOATMQ_PORT=tcp://10.0.0.1:5672",
        (char *)(uintptr_t) "STOATMQ_PORT_5672_TCP_ADDR=10.0.0.1",
        (char *)(uintptr_t) "STOATMQ_AMQP_SERVICE_HOST=10.0.0.1",
        (char *)(uintptr_t) "STOATMQ_AMQP_SERVICE_PORT=5672",
        (char *)(uintptr_t) "STOATMQ_AMQP_SERVICE_PORT_AMQP=5672",
        (char *)(uintptr_t) "STOATMQ_AMQP_PORT=tcp://10.0.0.1:5672",
        (char *)(uintptr_t) "STOATMQ_AMQP_PORT_5672_TCP=tcp://10.0.0.1:5672",
        (char *)(uintptr_t) "STOATMQ_AMQP_PORT_5672_TCP_PROTO=tcp",
        (char *)(uintptr_t) "HOME=/root",
        (char *)(uintptr_t) "without an equals sign",
        NULL,
    };
    ck_assert_msg(config_read_environment(&config, variables, error), "%s", error);
    ck_assert_str_eq(listeners(), "local=127.0.0.1:1");
    ck_assert_int_eq(config.log_level, LOG_ERROR);
    ck_assert_str_eq(config.default_user, "stoat");
    ck_assert_str_eq(config.default_pass, "p # ss$(HOME)");
    ck_assert_str_eq(config.default_vhost, "warren");
    ck_assert_uint_eq(config.backlog, 7);
    ck_assert_str_eq(TAILQ_FIRST(&config.server_properties)->key, "product");
    ck_assert_str_eq(TAILQ_FIRST(&config.vhost_limits)->name, "all");
    ck_assert_int_eq(TAILQ_FIRST(&config.vhost_limits)->queue_max, 3);
}
END_TEST

START_TEST(mistakes_in_the_environment)
{
    static const struct {
        const char *variable, *wanted;
    } cases[] = {
        {"STOATMQ_HEARTBEET=7", "unknown key 'STOATMQ_HEARTBEET' in the environment; did you mean "
                                "'STOATMQ_HEARTBEAT'?"},
        {"STOATMQ_=7", "unknown key 'STOATMQ_' in the environment"},
        {"STOATMQ_heartbeat=7", "unknown key 'STOATMQ_heartbeat' in the environment"},
        {"STOATMQ_HEARTBEAT=x",
         "bad value 'x' for 'STOATMQ_HEARTBEAT' in the environment: a number "
         "from 0 to 65535 is expected"},
        {"RABBITMQ_DEFAULT_PASS=",
         "bad value for 'default_pass' in the environment: a text of 1 to "
         "255 bytes is expected"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        char *variables[] = {(char *)(uintptr_t)cases[i].variable, NULL};
        ck_assert(!config_read_environment(&config, variables, error));
        ck_assert_str_eq(error, cases[i].wanted);
    }
}
END_TEST

START_TEST(the_whole)
{
    ck_assert(config_set(&config, "frame_max = 8192", error));
    ck_assert(config_set(&config, "initial_frame_max = 8193", error));
    ck_assert(!config_check(&config, error));
    ck_assert_str_eq(error,
                     "initial_frame_max (8193) in --set is larger than frame_max (8192) in --set");
    ck_assert(config_set(&config, "initial_frame_max = 8192", error));
    ck_assert(config_check(&config, error));

    ck_assert(config_set(&config, "listeners.tcp.a = 127.0.0.1:1", error));
    ck_assert(config_set(&config, "listeners.tcp.b = 127.0.0.2:1", error));
    ck_assert(config_set(&config, "listeners.tcp.c = 0", error));
    ck_assert(config_set(&config, "listeners.tcp.d = 0", error));
    ck_assert(config_check(&config, error));
    ck_assert(config_set(&config, "listeners.tcp.e = 1", error));
    ck_assert(!config_check(&config, error));
    ck_assert_str_eq(error,
                     "listeners.tcp.a in --set and listeners.tcp.e in --set are both on port 1");
}
END_TEST

static char *told[16];
static size_t told_count;

static void keep_told(const char *sentence)
{
    ck_assert_uint_lt(told_count, countof(told));
    told[told_count++] = xstrdup(sentence);
}

/* Those of the parts and those of the whole in one run, each with where it was said. */
START_TEST(every_mistake)
{
    static const struct {
        unsigned line; /* 0: the environment's */
        const char *said;
    } wanted[] = {
        {1, "bad value 'abc' for 'heartbeat' in "},
        {2, "bad value for 'default_permissions.read' in "},
        {3, "bad value for 'default_limits.vhosts.1.pattern' in "},
        {4, "bad value '2' for 'vm_memory_high_watermark.relative' in "},
        {0, "publish_memory_limit (7) in the environment is smaller than max_message_size ("
            "16777216): "},
        {5, "listeners.tcp.a in "},
        {7, "listeners.ssl.default in "},
        {9, "ssl_options.verify = verify_peer in "},
    };
    char *variables[] = {(char *)(uintptr_t) "STOATMQ_PUBLISH_MEMORY_LIMIT=7", NULL};

    config.on_mistake = keep_told;
    told_count = 0;
    ck_assert(!read_text("heartbeat = abc\n"
                         "default_permissions.read = (\n"
                         "default_limits.vhosts.1.pattern = [\n"
                         "vm_memory_high_watermark.relative = 2\n"
                         "listeners.tcp.a = 1\n"
                         "listeners.tcp.b = 1\n"
                         "listeners.ssl.default = 5671\n"
                         "ssl_options.verify = verify_none\n"
                         "ssl_options.verify = verify_peer\n"));
    ck_assert(config_read_environment(&config, variables, error));
    ck_assert(!config_check(&config, error));
    ck_assert_uint_eq(told_count, countof(wanted));
    for (size_t i = 0; i < told_count; i++) {
        char *begin = wanted[i].line == 0
                          ? xstrdup(wanted[i].said)
                          : xasprintf("%s%s:%u", wanted[i].said, path, wanted[i].line);
        ck_assert_msg(strncmp(told[i], begin, strlen(begin)) == 0, "%s\n%s", told[i], begin);
        free(begin);
        free(told[i]);
    }
    ck_assert_str_eq(config_origin(&config, "frame_max"), "");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tests = tcase_create("config");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, defaults);
    tcase_add_test(tests, values);
    tcase_add_test(tests, ratios);
    tcase_add_test(tests, every_mistake);
    tcase_add_test(tests, names);
    tcase_add_test(tests, permissions);
    tcase_add_test(tests, vhost_limits);
    tcase_add_test(tests, telling);
    tcase_add_test(tests, listener_values);
    tcase_add_test(tests, giving_a_listener_replaces_the_default);
    tcase_add_test(tests, no_listeners_from_the_start);
    tcase_add_test(tests, properties);
    tcase_add_test(tests, lines);
    tcase_add_test(tests, every_cut);
    tcase_add_test(tests, unknown_keys);
    tcase_add_test(tests, fragments_in_name_order);
    tcase_add_test(tests, files_that_cannot_be_read);
    tcase_add_test(tests, environment);
    tcase_add_test(tests, mistakes_in_the_environment);
    tcase_add_test(tests, the_whole);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
