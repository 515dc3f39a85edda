/* Listeners: addresses, shares, and running out of descriptors. */
#include "net/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/lib/unit.h"

static struct clock test_clock;
static struct loop loop;
static struct listener listener;

enum { ACCEPTED_MAX = 300 };
static int accepted[ACCEPTED_MAX];
static size_t accepted_count;
static struct endpoint last_local, last_peer;
static bool close_when_accepted;

static void on_accept(struct listener *from, int fd, const struct endpoint *local,
                      const struct endpoint *peer)
{
    ck_assert_ptr_eq(from, &listener);
    ck_assert_uint_lt(accepted_count, ACCEPTED_MAX);
    accepted[accepted_count++] = fd;
    last_local = *local;
    last_peer = *peer;
    if (close_when_accepted)
        listener_close(from);
}

static void setup(void)
{
    test_clock = (struct clock){.now_ms = 1000, .wall_ms = 1000000, .fake = true};
    ck_assert_int_eq(loop_init(&loop, &test_clock), 0);
    listener = (struct listener){.source.fd = -1, .on_accept = on_accept};
}

static void teardown(void)
{
    listener_close(&listener);
    while (accepted_count > 0)
        close(accepted[--accepted_count]);
    loop_release(&loop);
}

/* A blocking connect over the loopback of the family. */
static int connect_to(int family, uint16_t port)
{
    const struct sockaddr_in ipv4 = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const struct sockaddr_in6 ipv6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    const int result = family == AF_INET
                           ? connect(fd, (const struct sockaddr *)&ipv4, sizeof(ipv4))
                           : connect(fd, (const struct sockaddr *)&ipv6, sizeof(ipv6));
    ck_assert_int_eq(result, 0);
    return fd;
}

static bool has_ipv6(void)
{
    const struct sockaddr_in6 loopback = {.sin6_family = AF_INET6,
                                          .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool has = fd >= 0 && bind(fd, (const struct sockaddr *)&loopback, sizeof(loopback)) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

START_TEST(accepts_ready_made_sockets)
{
    ck_assert_int_eq(listener_open(&listener, &loop, "127.0.0.1", 0, 16), 0);
    ck_assert_str_eq(listener.local.host, "127.0.0.1");
    ck_assert_uint_ne(listener.local.port, 0);
    const int fd = connect_to(AF_INET, listener.local.port);
    loop_turn(&loop, 1000);

    ck_assert_uint_eq(accepted_count, 1);
    ck_assert_str_eq(last_peer.host, "127.0.0.1");
    ck_assert(last_peer.loopback);
    struct endpoint local;
    endpoint_local(&local, fd);
    ck_assert_uint_eq(local.port, last_peer.port);
    endpoint_local(&local, accepted[0]);
    ck_assert_uint_eq(local.port, listener.local.port);

    ck_assert(fcntl(accepted[0], F_GETFL) & O_NONBLOCK);
    ck_assert(fcntl(accepted[0], F_GETFD) & FD_CLOEXEC);
    int no_delay = 0;
    socklen_t size = sizeof(no_delay);
    ck_assert_int_eq(getsockopt(accepted[0], IPPROTO_TCP, TCP_NODELAY, &no_delay, &size), 0);
    ck_assert_int_ne(no_delay, 0);
    close(fd);
}
END_TEST

START_TEST(without_a_host_both_families_reach_it)
{
    ck_assert_int_eq(listener_open(&listener, &loop, NULL, 0, 16), 0);
    int fd = connect_to(AF_INET, listener.local.port);
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(accepted_count, 1);
    ck_assert_str_eq(last_peer.host, "127.0.0.1");
    ck_assert(last_peer.loopback);
    close(fd);
    if (!has_ipv6())
        return;
    ck_assert_str_eq(listener.local.host, "::");
    fd = connect_to(AF_INET6, listener.local.port);
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(accepted_count, 2);
    ck_assert_str_eq(last_peer.host, "::1");
    ck_assert(last_peer.loopback);
    close(fd);
}
END_TEST

START_TEST(an_address_is_taken_once)
{
    ck_assert_int_eq(listener_open(&listener, &loop, "127.0.0.1", 0, 16), 0);
    struct listener second = {.on_accept = on_accept};
    ck_assert_int_eq(listener_open(&second, &loop, "127.0.0.1", listener.local.port, 16),
                     -EADDRINUSE);
    listener_close(&second);

    const uint16_t port = listener.local.port;
    const int fd = connect_to(AF_INET, port);
    loop_turn(&loop, 1000);
    listener_close(&listener);
    listener_close(&listener);
    close(accepted[--accepted_count]); /* in TIME_WAIT on our side */
    ck_assert_int_eq(listener_open(&listener, &loop, "127.0.0.1", port, 16), 0);
    close(fd);
}
END_TEST

START_TEST(bad_addresses_are_errors)
{
    static const char *const hosts[] = {"", "rabbit", "127.0.0.256", "203.0.113.7", "::1::"};
    for (size_t i = 0; i < countof(hosts); i++)
        ck_assert_int_eq(listener_open(&listener, &loop, hosts[i], 0, 16), -EADDRNOTAVAIL);
}
END_TEST

START_TEST(a_turn_has_its_share)
{
    int fds[100];
    ck_assert_int_eq(listener_open(&listener, &loop, "127.0.0.1", 0, 128), 0);
    for (size_t i = 0; i < countof(fds); i++)
        fds[i] = connect_to(AF_INET, listener.local.port);
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(accepted_count, 64);
    loop_turn(&loop, 0);
    ck_assert_uint_eq(accepted_count, 100);
    loop_turn(&loop, 0);
    ck_assert(!listener.task.queued);
    for (size_t i = 0; i < countof(fds); i++)
        close(fds[i]);
}
END_TEST

START_TEST(closing_from_within_on_accept)
{
    ck_assert_int_eq(listener_open(&listener, &loop, "127.0.0.1", 0, 16), 0);
    const int first = connect_to(AF_INET, listener.local.port);
    const int second = connect_to(AF_INET, listener.local.port);
    close_when_accepted = true;
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(accepted_count, 1);
    ck_assert_int_eq(listener.source.fd, -1);
    close(first);
    close(second);
}
END_TEST

/* The peer's end: true when the broker has closed it. */
static bool is_turned_away(int fd)
{
    char octet;
    return recv(fd, &octet, 1, MSG_DONTWAIT) == 0;
}

/* ---- behind a proxy ---- */

static size_t proxied_count;

static int connect_through(const char *octets)
{
    listener.proxy_timeout_ms = 1000;
    listener.proxied_count = &proxied_count;
    if (listener.source.fd < 0)
        ck_assert_int_eq(listener_open(&listener, &loop, "127.0.0.1", 0, 16), 0);
    const int fd = connect_to(AF_INET, listener.local.port);
    ck_assert_int_eq(send(fd, octets, strlen(octets), 0), (ssize_t)strlen(octets));
    for (int i = 0; i < 3; i++)
        loop_turn(&loop, 20);
    return fd;
}

START_TEST(a_proxy_says_whose_it_is) /* 1.1 */
{
    const int fd = connect_through("PROXY TCP4 192.0.2.1 198.51.100.7 51234 5672\r\nAMQP");
    char octets[8];

    ck_assert_uint_eq(accepted_count, 1);
    ck_assert_str_eq(last_peer.host, "192.0.2.1");
    ck_assert_uint_eq(last_peer.port, 51234);
    ck_assert(!last_peer.loopback);
    ck_assert_str_eq(last_local.host, "198.51.100.7");
    ck_assert_uint_eq(last_local.port, 5672);
    ck_assert_int_eq(recv(accepted[0], octets, sizeof(octets), 0), 4); /* and no more */
    ck_assert_int_eq(memcmp(octets, "AMQP", 4), 0);
    ck_assert(TAILQ_EMPTY(&listener.proxied));
    ck_assert_uint_eq(proxied_count, 0);
    close(fd);
}
END_TEST

START_TEST(a_header_may_come_in_pieces) /* 1.1 */
{
    const int fd = connect_through("PRO");

    ck_assert_uint_eq(accepted_count, 0);
    ck_assert_int_eq(send(fd, "XY TCP4 127.0.0.1 127.0.0.1 1", 29, 0), 29);
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(accepted_count, 0);
    ck_assert_int_eq(send(fd, " 2\r\n", 4, 0), 4);
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(accepted_count, 1);
    ck_assert_uint_eq(last_peer.port, 1);
    ck_assert(last_peer.loopback); /* the proxy is on this machine, too */
    close(fd);
}
END_TEST

START_TEST(a_proxy_may_come_for_itself) /* 1.1 */
{
    const int fd = connect_through("PROXY UNKNOWN\r\n");
    struct endpoint own;

    endpoint_local(&own, fd);
    ck_assert_uint_eq(accepted_count, 1);
    ck_assert_uint_eq(last_peer.port, own.port);
    ck_assert(last_peer.loopback);
    ck_assert_uint_eq(last_local.port, listener.local.port);
    close(fd);
}
END_TEST

/* With what it said unread. */
static bool has_ended(int fd)
{
    char octet;
    const ssize_t size = recv(fd, &octet, 1, MSG_DONTWAIT);
    return size == 0 || (size < 0 && errno == ECONNRESET);
}

START_TEST(who_says_nothing_or_something_else_is_turned_away) /* 1.1 */
{
    const int other = connect_through("AMQP"), silent = connect_through("PROXY ");

    ck_assert(has_ended(other));
    ck_assert(!has_ended(silent));
    clock_advance(&test_clock, 999);
    loop_turn(&loop, 0);
    ck_assert(!has_ended(silent));
    clock_advance(&test_clock, 1);
    loop_turn(&loop, 0);
    ck_assert(has_ended(silent));
    const int gone = connect_through("PROXY ");
    ck_assert_uint_eq(proxied_count, 1);
    close(gone);
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(proxied_count, 0); /* before its time */
    const int waiting = connect_through("PROXY TCP4");
    listener_close(&listener);
    ck_assert(has_ended(waiting));
    ck_assert_uint_eq(accepted_count, 0);
    close(other);
    close(silent);
    close(waiting);
}
END_TEST

static void limit_descriptors(rlim_t limit)
{
    struct rlimit limits;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limits), 0);
    limits.rlim_cur = limit;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limits), 0);
}

START_TEST(without_descriptors_it_pauses_and_resumes)
{
    int fds[4];
    ck_assert_int_eq(listener_open(&listener, &loop, "127.0.0.1", 0, 16), 0);
    for (size_t i = 0; i < countof(fds); i++)
        fds[i] = connect_to(AF_INET, listener.local.port);

    const int lowest = dup(0); /* none below it is free */
    close(lowest);
    limit_descriptors((rlim_t)lowest);
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(accepted_count, 0);
    ck_assert(is_turned_away(fds[0]));
    ck_assert(!is_turned_away(fds[1]));
    ck_assert(timer_is_set(&listener.retry));

    /* paused: no turn finds anything to do until the time has come */
    loop_turn(&loop, 0);
    ck_assert(!listener.task.queued);
    ck_assert(!is_turned_away(fds[1]));
    clock_advance(&test_clock, 100);
    loop_turn(&loop, 0);
    ck_assert(is_turned_away(fds[1]));
    ck_assert(!is_turned_away(fds[2]));

    limit_descriptors((rlim_t)lowest + 10);
    clock_advance(&test_clock, 100);
    loop_turn(&loop, 0);
    ck_assert_uint_eq(accepted_count, 2);
    ck_assert(!timer_is_set(&listener.retry));
    ck_assert(!listener.starved);
    for (size_t i = 0; i < countof(fds); i++)
        close(fds[i]);
}
END_TEST

static size_t room;

static bool has_room(struct listener *from)
{
    ck_assert_ptr_eq(from, &listener);
    return accepted_count < room;
}

static size_t made_way;

static bool make_way(struct listener *from)
{
    made_way++;
    return listener_drop_proxied(from);
}

/* Though there are descriptors enough. */
START_TEST(without_room_it_pauses_and_resumes)
{
    int fds[4];

    listener.has_room = has_room;
    listener.make_way = make_way;
    room = 2;
    ck_assert_int_eq(listener_open(&listener, &loop, "127.0.0.1", 0, 16), 0);
    for (size_t i = 0; i < countof(fds); i++)
        fds[i] = connect_to(AF_INET, listener.local.port);
    loop_turn(&loop, 1000);
    ck_assert_uint_eq(accepted_count, 2);
    ck_assert(is_turned_away(fds[2]));
    ck_assert(!is_turned_away(fds[3]));
    ck_assert(timer_is_set(&listener.retry));
    loop_turn(&loop, 0);
    ck_assert(!is_turned_away(fds[3]));

    room = 3;
    clock_advance(&test_clock, 100);
    loop_turn(&loop, 0);
    ck_assert_uint_eq(accepted_count, 3);
    ck_assert(!is_turned_away(fds[3]));
    ck_assert(!timer_is_set(&listener.retry)); /* it is full, and nobody waits */
    ck_assert_uint_eq(made_way, 1);
    for (size_t i = 0; i < countof(fds); i++)
        close(fds[i]);
}
END_TEST

static bool has_proxied_room(struct listener *from)
{
    return accepted_count + *from->proxied_count < room;
}

START_TEST(who_says_nothing_makes_way) /* 1.1 */
{
    static const char header[] = "PROXY TCP4 192.0.2.1 198.51.100.7 51234 5672\r\n";
    int silent[4];

    listener.has_room = has_proxied_room;
    listener.make_way = make_way;
    room = 3;
    for (size_t i = 0; i < countof(silent); i++)
        silent[i] = connect_through("PROXY ");
    ck_assert(has_ended(silent[0]));
    const int honest = connect_through(header);
    ck_assert_uint_eq(accepted_count, 1);
    ck_assert(has_ended(silent[1]));
    ck_assert(!has_ended(silent[2]));
    ck_assert(!has_ended(silent[3]));
    ck_assert_uint_eq(made_way, 2);
    for (size_t i = 0; i < countof(silent); i++)
        close(silent[i]);
    close(honest);
}
END_TEST

START_TEST(endpoints_in_print) /* CVE-2026-57216 */
{
    static const struct {
        int family;
        const char *address, *host;
        bool loopback;
    } cases[] = {
        {AF_INET, "127.0.0.1", "127.0.0.1", true},
        {AF_INET, "127.255.255.254", "127.255.255.254", true},
        {AF_INET, "126.0.0.1", "126.0.0.1", false},
        {AF_INET, "0.0.0.0", "0.0.0.0", false},
        {AF_INET6, "::1", "::1", true},
        {AF_INET6, "::", "::", false},
        {AF_INET6, "2001:db8::7", "2001:db8::7", false},
        {AF_INET6, "::ffff:127.0.0.1", "127.0.0.1", true},
        {AF_INET6, "::ffff:192.0.2.1", "192.0.2.1", false},
        {AF_INET6, "::127.0.0.1", "::127.0.0.1", false},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(5672)};
        struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons(5672)};
        void *address = cases[i].family == AF_INET ? (void *)&ipv4.sin_addr : &ipv6.sin6_addr;
        ck_assert_int_eq(inet_pton(cases[i].family, cases[i].address, address), 1);
        struct endpoint endpoint;
        endpoint_of(&endpoint, cases[i].family == AF_INET ? (const struct sockaddr *)&ipv4
                                                          : (const struct sockaddr *)&ipv6);
        ck_assert_str_eq(endpoint.host, cases[i].host);
        ck_assert_uint_eq(endpoint.port, 5672);
        ck_assert_int_eq(endpoint.loopback, cases[i].loopback);
    }
    struct endpoint endpoint;
    endpoint_of(&endpoint, &(struct sockaddr){.sa_family = AF_UNIX});
    ck_assert_str_eq(endpoint.host, "?");
    ck_assert(!endpoint.loopback);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("listener");
    TCase *tests = tcase_create("listener");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, accepts_ready_made_sockets);
    tcase_add_test(tests, without_a_host_both_families_reach_it);
    tcase_add_test(tests, an_address_is_taken_once);
    tcase_add_test(tests, bad_addresses_are_errors);
    tcase_add_test(tests, a_turn_has_its_share);
    tcase_add_test(tests, closing_from_within_on_accept);
    tcase_add_test(tests, without_descriptors_it_pauses_and_resumes);
    tcase_add_test(tests, a_proxy_says_whose_it_is);
    tcase_add_test(tests, a_header_may_come_in_pieces);
    tcase_add_test(tests, a_proxy_may_come_for_itself);
    tcase_add_test(tests, who_says_nothing_or_something_else_is_turned_away);
    tcase_add_test(tests, without_room_it_pauses_and_resumes);
    tcase_add_test(tests, who_says_nothing_makes_way);
    tcase_add_test(tests, endpoints_in_print);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
