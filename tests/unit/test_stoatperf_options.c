/* URIs; the rest of the command line is getopt's. */
#include <unistd.h>

#include "tests/lib/unit.h"
#include "tools/stoatperf_options.h"

static const struct {
    const char *text, *user, *password, *host, *port, *vhost;
    bool tls;
} uris[] = {
    {"amqp://", "guest", "guest", "localhost", "5672", "/", false},
    {"amqp:///", "guest", "guest", "localhost", "5672", "/", false},
    {"amqp://broker", "guest", "guest", "broker", "5672", "/", false},
    {"amqp://broker:1234", "guest", "guest", "broker", "1234", "/", false},
    {"amqp://broker:", "guest", "guest", "broker", "5672", "/", false},
    {"amqp://me:secret@broker:1234/one", "me", "secret", "broker", "1234", "one", false},
    {"amqp://me:@broker", "me", "", "broker", "5672", "/", false},
    {"amqp://me@broker", "me", "guest", "broker", "5672", "/", false},
    {"amqp://a%40b:c%3Ad%2f@h/%2f", "a@b", "c:d/", "h", "5672", "/", false},
    {"amqp://h/a%2Fb", "guest", "guest", "h", "5672", "a/b", false},
    {"amqp://[::1]", "guest", "guest", "::1", "5672", "/", false},
    {"amqp://[::1]:99/v", "guest", "guest", "::1", "99", "v", false},
    {"amqp://h/v?heartbeat=0", "guest", "guest", "h", "5672", "v", false},
    {"amqps://", "guest", "guest", "localhost", "5671", "/", true},
    {"amqps://me:secret@broker:1234/one", "me", "secret", "broker", "1234", "one", true},
};

START_TEST(takes_a_uri_apart)
{
    struct uri uri;
    ck_assert_ptr_null(uri_parse(&uri, uris[_i].text));
    ck_assert_str_eq(uri.user, uris[_i].user);
    ck_assert_str_eq(uri.password, uris[_i].password);
    ck_assert_str_eq(uri.host, uris[_i].host);
    ck_assert_str_eq(uri.port, uris[_i].port);
    ck_assert_str_eq(uri.vhost, uris[_i].vhost);
    ck_assert_int_eq(uri.tls, uris[_i].tls);
    uri_release(&uri);
}
END_TEST

static const char *const bad_uris[] = {
    "",
    "localhost",
    "amqpss://h",
    "http://h",
    "amqp://h:x",
    "amqp://h:70000",
    "amqp://[::1",
    "amqp://[::1]x",
    "amqp://u:p@h/%",
    "amqp://u:p@h/%2",
    "amqp://u:p@h/%zz",
    "amqp://u%00:p@h",
};

START_TEST(refuses_what_is_no_uri)
{
    struct uri uri;
    ck_assert_ptr_nonnull(uri_parse(&uri, bad_uris[_i]));
    ck_assert_ptr_null(uri.host);
}
END_TEST

/* The words of line as a command line; options borrow from it. */
static void parse(struct options *options, char *line)
{
    char *words[32];
    int count = 0;
    for (char *word = strtok(line, " "); word != NULL; word = strtok(NULL, " "))
        words[count++] = word;
    words[count] = NULL;
    optind = 0; /* getopt begins anew */
    options_parse(options, count, words);
}

START_TEST(reads_the_command_line)
{
    char line[] = "stoatperf -x 2 -y3 --queues=4 -s 100 --persistent -c 10 -A 5 -C 7 -f mandatory";
    struct options options;
    parse(&options, line);
    ck_assert_uint_eq(options.publishers, 2);
    ck_assert_uint_eq(options.consumers, 3);
    ck_assert_uint_eq(options.queues, 4);
    ck_assert_uint_eq(options.body_size, 100);
    ck_assert_uint_eq(options.confirm_window, 10);
    ck_assert_uint_eq(options.ack_batch, 5);
    ck_assert_uint_eq(options.messages, 14);
    ck_assert(options.persistent && options.durable && options.mandatory);
    options_release(&options);

    snprintf(line, sizeof(line), "stoatperf -z 2.5 --pid %ld", (long)getpid());
    parse(&options, line);
    ck_assert_double_eq(options.time_s, 2.5);
    ck_assert_int_eq(options.pid, getpid());
    options_release(&options);
}
END_TEST

static const char *const bad_lines[] = {
    "stoatperf -x 0",
    "stoatperf -x -1",
    "stoatperf -x 99999",
    "stoatperf -z x",
    "stoatperf --nonsense",
    "stoatperf word",
    "stoatperf --flag loud",
    "stoatperf -s8 --verify",
    "stoatperf -A10 --prefetch=5",
    "stoatperf --backlog 5 -y0",
    "stoatperf -z 1 --messages 5",
    "stoatperf -C 5 --time 1",
    "stoatperf -z 1 --backlog 5",
    "stoatperf --pid 2147483647",
    "stoatperf --queue-args a=",
    "stoatperf --queue-args a=1,b",
    "stoatperf --queue-args a=1,",
};

START_TEST(refuses_bad_usage)
{
    char line[128];
    struct options options;
    snprintf(line, sizeof(line), "%s", bad_lines[_i]);
    parse(&options, line);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stoatperf_options");
    TCase *tests = tcase_create("stoatperf_options");
    tcase_add_loop_test(tests, takes_a_uri_apart, 0, (int)countof(uris));
    tcase_add_loop_test(tests, refuses_what_is_no_uri, 0, (int)countof(bad_uris));
    tcase_add_test(tests, reads_the_command_line);
    tcase_add_loop_exit_test(tests, refuses_bad_usage, 64, 0, (int)countof(bad_lines));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
