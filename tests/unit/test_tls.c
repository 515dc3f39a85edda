/* tls: whose handshake goes on when there are many. The streams of an address are in one line; one
 * in the other line comes after or before them, over socket pairs, with the worker thread. And what
 * it tells the transport about its output. */
#include "net/tls.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/lib/unit.h"

enum { MANY = 40, AWAY = 8 }; /* AWAY: the worker has so many at most */

struct peer {
    struct transport transport;
    int fd; /* its end of the socket pair */
};

static struct clock now = {.fake = true, .now_ms = 1000};
static struct loop loop;
static struct tls tls;
static struct tls_context *context;
static struct tls_line crowd, other;
static struct peer peers[MANY + 1];
static size_t peer_count;
static struct {
    const struct peer *peer;
    int error;
} ended[MANY + 1]; /* in the order in which they were told */
static size_t ended_count;
static uint8_t hello[1024];
static size_t hello_size;

/* ---- a server ---- */

static void write_certificate(const char *path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    FILE *file = fopen(path, "w");

    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
    ck_assert_int_eq(1, PEM_write_X509(file, certificate));
    ck_assert_int_eq(1, PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL));
    fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static struct tls_context *make_context(void)
{
    char path[] = "/tmp/certificate-XXXXXX", error[TLS_ERROR_SIZE];
    const struct tls_options options = {
        .certificate_file = path, .tls_1_2 = true, .tls_1_3 = true, .depth = 1};
    const int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    close(fd);
    write_certificate(path);
    struct tls_context *made = tls_context_new(&tls, &options, error);
    unlink(path);
    ck_assert_msg(made != NULL, "%s", error);
    return made;
}

/* What a client says first: as it is said again and again by one that floods us. */
static void make_hello(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    BIO *out = BIO_new(BIO_s_mem());

    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);
    SSL_connect(ssl);
    hello_size = (size_t)BIO_read(out, hello, sizeof(hello));
    ck_assert_uint_lt(hello_size, sizeof(hello));
    SSL_free(ssl);
    SSL_CTX_free(ctx);
}

static void start(uint32_t begun, uint32_t waiting)
{
    const struct tls_limits limits = {.begun = begun, .waiting = waiting};

    log_level = LOG_NONE;
    signal(SIGPIPE, SIG_IGN);
    ck_assert_int_eq(0, loop_init(&loop, &now));
    ck_assert_int_eq(0, tls_open(&tls, &loop, &limits));
    tls_line_init(&crowd);
    tls_line_init(&other);
    context = make_context();
    make_hello();
    peer_count = ended_count = 0;
}

static void stop(void)
{
    for (size_t i = 0; i < peer_count; i++) {
        transport_close(&peers[i].transport);
        close(peers[i].fd);
    }
    ck_assert_uint_eq(crowd.waiting.count + other.waiting.count, 0);
    ck_assert_uint_eq(crowd.begun_count + other.begun_count, 0);
    tls_context_free(&context);
    tls_close(&tls);
    loop_release(&loop);
}

/* ---- its peers ---- */

static size_t on_input(struct transport *transport, struct slice bytes)
{
    (void)transport;
    return bytes.size;
}

static void on_drained(struct transport *transport)
{
    (void)transport;
}

static void on_broken(struct transport *transport, int error)
{
    ended[ended_count].peer = container_of(transport, struct peer, transport);
    ended[ended_count++].error = error;
    transport_close(transport);
}

static const struct transport_events events = {
    .on_input = on_input, .on_drained = on_drained, .on_broken = on_broken};

/* One more, who has said this. */
static struct peer *come(struct tls_line *line, const void *words, size_t size)
{
    const struct endpoint endpoint = {.host = "192.0.2.1"};
    struct peer *peer = &peers[peer_count++];
    int ends[2];

    ck_assert_int_eq(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends));
    peer->fd = ends[1];
    ck_assert_int_eq((ssize_t)size, write(peer->fd, words, size));
    ck_assert_int_eq(
        0, tls_transport_open(&peer->transport, context, &events, ends[0], &endpoint, line));
    return peer;
}

/* It says what is no TLS, and is refused when its turn has come. */
static struct peer *come_to_be_refused(struct tls_line *line)
{
    struct peer *peer = come(line, "hello", 5);

    shutdown(peer->fd, SHUT_WR);
    return peer;
}

/* It begins a handshake, and does not go on. */
static struct peer *come_to_begin(struct tls_line *line)
{
    struct peer *peer = come(line, hello, hello_size);
    const uint32_t begun_before = tls.begun_count;
    const size_t ended_before = ended_count;

    while (tls.begun_count == begun_before && ended_count == ended_before)
        loop_turn(&loop, 1000);
    return peer;
}

static size_t place_of(const struct peer *peer)
{
    for (size_t i = 0; i < ended_count; i++)
        if (ended[i].peer == peer)
            return i;
    return SIZE_MAX;
}

static void wait_for(size_t count)
{
    while (ended_count < count)
        loop_turn(&loop, 1000);
}

/* ---- tests ---- */

START_TEST(a_crowd_waits_in_its_own_line)
{
    start(MANY, MANY);
    for (size_t i = 0; i < MANY; i++)
        come_to_be_refused(&crowd);
    const struct peer *alone = come_to_be_refused(&other);
    wait_for(MANY + 1);
    ck_assert_uint_le(place_of(alone), AWAY + 1);
    for (size_t i = 1; i < MANY; i++)
        ck_assert_uint_lt(place_of(&peers[i - 1]), place_of(&peers[i]));
    stop();
}
END_TEST

START_TEST(a_line_has_an_end)
{
    enum { WAITING = 3 };

    start(MANY, WAITING);
    for (size_t i = 0; i < MANY; i++)
        come_to_be_refused(&crowd);
    const struct peer *alone = come_to_be_refused(&other);
    wait_for(MANY + 1);
    for (size_t i = 0; i < ended_count; i++) {
        const size_t number = (size_t)(ended[i].peer - peers);
        const bool is_newer = ended[i].peer != alone && number >= AWAY + WAITING;
        ck_assert_int_eq(ended[i].error == EBUSY, is_newer);
    }
    stop();
}
END_TEST

/* However fast the others begin, one that has begun may take its time. */
START_TEST(who_is_slow_to_go_on_is_not_pushed_out)
{
    enum { BEGUN = 4 };

    start(BEGUN, MANY);
    const struct peer *slow = come_to_begin(&other);
    for (size_t i = 0; i < MANY; i++)
        come_to_begin(&crowd);
    wait_for(MANY + 1 - BEGUN);
    ck_assert_uint_eq(place_of(slow), SIZE_MAX);
    for (size_t i = 0; i < ended_count; i++) {
        ck_assert_int_eq(ended[i].error, ETIMEDOUT);
        ck_assert_ptr_eq(ended[i].peer, &peers[i + 1]); /* the oldest of their own */
    }
    stop();
}
END_TEST

/* More lines than there may be of all: each may have one, and the oldest of all goes. */
START_TEST(many_lines_push_out_the_oldest)
{
    enum { BEGUN = 2 };
    static struct tls_line lines[3 * BEGUN];

    start(BEGUN, MANY);
    for (size_t i = 0; i < countof(lines); i++) {
        tls_line_init(&lines[i]);
        come_to_begin(&lines[i]);
    }
    wait_for(countof(lines) - BEGUN);
    for (size_t i = 0; i < ended_count; i++)
        ck_assert_ptr_eq(ended[i].peer, &peers[i]);
    stop();
}
END_TEST

START_TEST(who_has_few_pushes_out_the_oldest)
{
    enum { BEGUN = 4 };

    start(BEGUN, MANY);
    for (size_t i = 0; i < BEGUN; i++)
        come_to_begin(&crowd);
    const struct peer *late = come_to_begin(&other);
    wait_for(1);
    ck_assert_ptr_eq(ended[0].peer, &peers[0]);
    ck_assert_uint_eq(place_of(late), SIZE_MAX);
    stop();
}
END_TEST

/* ---- after the handshake ---- */

static SSL *client_ssl;

static struct peer *come_to_stay(struct tls_line *line)
{
    struct peer *peer = come(line, "", 0);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    client_ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    ck_assert_int_eq(1, SSL_set_fd(client_ssl, peer->fd));
    while (SSL_connect(client_ssl) != 1)
        loop_turn(&loop, 10);
    return peer;
}

/* What comes until it ends like this. */
static struct buf receive_until(struct slice end)
{
    struct buf received = BUF_EMPTY;
    size_t size;

    for (int barren = 0; barren < 100; barren++) {
        while (SSL_read_ex(client_ssl, buf_reserve(&received, 16384), 16384, &size) == 1) {
            buf_commit(&received, size);
            barren = 0;
        }
        const struct slice all = buf_slice(&received);
        if (all.size >= end.size &&
            slice_equal(slice_of(all.data + all.size - end.size, end.size), end))
            break;
        loop_turn(&loop, 10);
    }
    return received;
}

/* A record that is encrypted and waits for the socket cannot be taken back. */
START_TEST(output_is_cut_behind_what_is_encrypted)
{
    enum { LINES = 200000, LINE_SIZE = 8 };
    const int room = 4096;
    char line[LINE_SIZE + 1];

    start(MANY, MANY);
    struct peer *peer = come_to_stay(&crowd);
    buf_append(transport_output(&peer->transport), SLICE("hello"));
    struct buf received = receive_until(SLICE("hello"));
    buf_release(&received);
    setsockopt(peer->transport.source.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    for (int i = 0; i < LINES; i++) {
        snprintf(line, sizeof(line), "%07d\n", i);
        buf_append(transport_output(&peer->transport), slice_of(line, LINE_SIZE));
    }
    loop_turn(&loop, 0);
    transport_cut_output(&peer->transport);
    buf_append(transport_output(&peer->transport), SLICE("the end"));
    received = receive_until(SLICE("the end"));
    const struct slice got = buf_slice(&received);
    ck_assert_uint_lt(got.size, LINES * LINE_SIZE / 2);
    ck_assert_uint_eq(got.size % LINE_SIZE, sizeof("the end") - 1);
    for (size_t i = 0; i < got.size / LINE_SIZE; i++) {
        snprintf(line, sizeof(line), "%07zu\n", i);
        ck_assert(
            slice_equal(slice_of(got.data + i * LINE_SIZE, LINE_SIZE), slice_of(line, LINE_SIZE)));
    }
    ck_assert(
        slice_equal(slice_of(got.data + got.size / LINE_SIZE * LINE_SIZE, 7), SLICE("the end")));
    buf_release(&received);
    SSL_free(client_ssl);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tls");
    TCase *tests = tcase_create("tls");
    tcase_add_test(tests, a_crowd_waits_in_its_own_line);
    tcase_add_test(tests, a_line_has_an_end);
    tcase_add_test(tests, who_is_slow_to_go_on_is_not_pushed_out);
    tcase_add_test(tests, many_lines_push_out_the_oldest);
    tcase_add_test(tests, who_has_few_pushes_out_the_oldest);
    tcase_add_test(tests, output_is_cut_behind_what_is_encrypted);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
