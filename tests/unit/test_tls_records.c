/* tls_records: what one side writes the other reads, whatever the network between them does; what
 * is kept meanwhile is bounded; and every end is told. Two connections shake hands over socket
 * pairs, and the test is the network. */
#include "net/tls_records.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/unit.h"

enum { SERVER, CLIENT, SIDES, ALL = 1 << 30, LONG = 300000 };

static SSL_CTX *contexts[SIDES];
static SSL *ssl[SIDES];
static int ends[SIDES][2]; /* its socket, and ours */
static struct tls_records records[SIDES];
static struct tls_scratch scratch;
static uint8_t plain[LONG], received[LONG];

/* ---- the network ---- */

static void open_ends(int side)
{
    ck_assert_int_eq(
        0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends[side]));
    for (int i = 0; i < 2; i++)
        setsockopt(ends[side][i], SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
}

/* Carries up to so many octets from one side to the other; how many it were. */
static size_t carry(int from, size_t size)
{
    static uint8_t bytes[64 * 1024];
    const ssize_t taken = recv(ends[from][1], bytes, min_of(size, sizeof(bytes)), MSG_PEEK);

    if (taken <= 0)
        return 0;
    const ssize_t given = send(ends[!from][1], bytes, (size_t)taken, MSG_NOSIGNAL);
    return given <= 0 ? 0 : (size_t)recv(ends[from][1], bytes, (size_t)given, 0);
}

static void hang_up(int side)
{
    close(ends[!side][1]);
    ends[!side][1] = -1;
}

/* ---- two connections ---- */

static void use_certificate(SSL_CTX *context)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();

    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
    ck_assert_int_eq(1, SSL_CTX_use_certificate(context, certificate));
    ck_assert_int_eq(1, SSL_CTX_use_PrivateKey(context, key));
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void shake_hands(void)
{
    bool done[SIDES] = {false};

    SSL_set_accept_state(ssl[SERVER]);
    SSL_set_connect_state(ssl[CLIENT]);
    for (int round = 0; round < 100 && !(done[SERVER] && done[CLIENT]); round++) {
        for (int side = 0; side < SIDES; side++) {
            done[side] = SSL_do_handshake(ssl[side]) == 1;
            while (carry(side, ALL) > 0)
                ;
        }
    }
    ck_assert(done[SERVER] && done[CLIENT]);
}

static void connect_sides(int version, const char *cipher)
{
    for (int side = 0; side < SIDES; side++) {
        contexts[side] = SSL_CTX_new(side == SERVER ? TLS_server_method() : TLS_client_method());
        SSL_CTX_set_mode(contexts[side], SSL_MODE_ENABLE_PARTIAL_WRITE |
                                             SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                             SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_max_proto_version(contexts[side], version);
        ck_assert_int_eq(1, SSL_CTX_set_cipher_list(contexts[side], cipher));
        if (side == SERVER)
            use_certificate(contexts[side]);
        ssl[side] = SSL_new(contexts[side]);
        open_ends(side);
        SSL_set_fd(ssl[side], ends[side][0]);
    }
    shake_hands();
    for (int side = 0; side < SIDES; side++)
        ck_assert(tls_records_open(&records[side], ssl[side], ends[side][0], &scratch));
}

static void set_up(void)
{
    for (size_t i = 0; i < LONG; i++)
        plain[i] = (uint8_t)(i * 2654435761u >> 24);
    memset(received, 0, sizeof(received));
    connect_sides(TLS1_3_VERSION, "DEFAULT");
}

static void tear_down(void)
{
    for (int side = 0; side < SIDES; side++) {
        tls_records_release(&records[side]);
        SSL_free(ssl[side]);
        SSL_CTX_free(contexts[side]);
        close(ends[side][0]);
        close(ends[side][1]);
    }
}

static ssize_t write_plain(int side, size_t from, size_t size)
{
    const struct iovec part = {.iov_base = plain + from, .iov_len = size};
    return tls_records_write(&records[side], &part, 1);
}

static bool keeps_nothing(void)
{
    bool nothing = true;

    for (int side = 0; side < SIDES; side++)
        nothing &= records[side].out.data == NULL && records[side].unread.data == NULL &&
                   records[side].owed == 0;
    return nothing;
}

static bool keeps_little(const struct tls_records *some)
{
    return some->in.size == 0 && buf_size(&some->out) <= TLS_OUTPUT_SIZE &&
           buf_size(&some->unread) <= 2 * TLS_RECORD_SIZE &&
           (some->owed > 0) == (buf_size(&some->out) > 0);
}

/* ---- what is written arrives ---- */

/* Parts of many sizes, from octet `from` on: some long, many short. */
static int make_parts(struct iovec parts[16], size_t from, size_t size)
{
    static const size_t sizes[] = {1, 7, 900, 1, 1, 20000, 16384, 3, 5000, 40000};
    int count = 0;

    for (size_t at = from; at < size && count < 16; count++) {
        const size_t part = min_of(sizes[(at + (size_t)count) % countof(sizes)], size - at);
        parts[count] = (struct iovec){.iov_base = plain + at, .iov_len = part};
        at += part;
    }
    return count;
}

struct passage {
    size_t total, carried, read; /* all of it; at a time: by the network, by the reader */
};

/* Writes, carries and reads in turn until all is there. False when something was lost or kept. */
static bool passes(int from, const struct passage *passage)
{
    size_t written = 0, came = 0;
    bool fine = true;

    for (unsigned idle = 0; came < passage->total && idle < 100; idle++) {
        struct iovec parts[16];
        const int count = make_parts(parts, written, passage->total);
        const ssize_t wrote =
            count == 0 ? -EAGAIN : tls_records_write(&records[from], parts, count);
        written += wrote > 0 ? (size_t)wrote : 0;
        const size_t carried = carry(from, passage->carried);
        const ssize_t result = tls_records_read(&records[!from], received + came,
                                                min_of(passage->read, passage->total - came));
        came += result > 0 ? (size_t)result : 0;
        fine &= wrote > 0 || wrote == -EAGAIN;
        fine &= result > 0 || result == -EAGAIN;
        fine &= keeps_little(&records[SERVER]) && keeps_little(&records[CLIENT]);
        if (wrote > 0 || result > 0 || carried > 0)
            idle = 0;
    }
    return fine && written == passage->total && came == passage->total &&
           memcmp(plain, received, passage->total) == 0 && keeps_nothing();
}

START_TEST(what_is_written_is_read_however_it_is_cut)
{
    static const struct passage passages[] = {
        {3000, 1, LONG},    {3000, 1, 1},       {60000, 5, 100},     {60000, 23, 16384},
        {LONG, 1000, LONG}, {LONG, 4096, 1000}, {LONG, ALL, 100},    {LONG, ALL, 16383},
        {LONG, ALL, 16385}, {LONG, ALL, 40000}, {LONG, 20000, LONG}, {LONG, ALL, LONG},
    };
    static const struct {
        int version;
        const char *cipher;
    } kinds[] = {
        {TLS1_3_VERSION, "DEFAULT"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-AES256-SHA384"}, /* the one with the longest padding */
    };

    for (size_t k = 0; k < countof(kinds); k++) {
        tear_down();
        connect_sides(kinds[k].version, kinds[k].cipher);
        for (size_t i = 0; i < countof(passages); i++)
            for (int from = 0; from < SIDES; from++)
                ck_assert_msg(passes(from, &passages[i]), "%s, passage %zu, side %d",
                              kinds[k].cipher, i, from);
    }
}
END_TEST

static int waiting_octets(int side)
{
    int size = 0;

    ck_assert_int_eq(0, ioctl(ends[side][1], FIONREAD, &size));
    return size;
}

static void widen(int side)
{
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(0, setsockopt(ends[side][i], SOL_SOCKET, SO_SNDBUFFORCE,
                                       &(int){4 * 1024 * 1024}, sizeof(int)));
}

START_TEST(small_parts_share_a_record)
{
    struct iovec parts[100];

    for (size_t i = 0; i < countof(parts); i++)
        parts[i] = (struct iovec){.iov_base = plain + 10 * i, .iov_len = 10};
    ck_assert_int_eq(1000, tls_records_write(&records[SERVER], parts, (int)countof(parts)));
    ck_assert_int_eq(1000 + 22, waiting_octets(SERVER));
}
END_TEST

/* The end of one read is in the middle of a record, and of what was received. */
START_TEST(one_read_takes_many_records)
{
    widen(SERVER);
    widen(CLIENT);
    ck_assert_int_eq(LONG, write_plain(CLIENT, 0, LONG));
    while (carry(CLIENT, ALL) > 0)
        ;
    const ssize_t first = tls_records_read(&records[SERVER], received, 200000);
    ck_assert_int_gt(first, 150000);
    ck_assert(records[SERVER].has_more);
    const ssize_t second = tls_records_read(&records[SERVER], received + first, LONG);
    ck_assert_int_eq(LONG, first + second);
    ck_assert(!records[SERVER].has_more);
    ck_assert_int_eq(0, memcmp(plain, received, LONG));
}
END_TEST

START_TEST(what_was_received_and_not_read_is_more)
{
    widen(SERVER);
    widen(CLIENT);
    ck_assert_int_eq(50000, write_plain(CLIENT, 0, 50000));
    while (carry(CLIENT, ALL) > 0)
        ;
    size_t total = 0;
    do {
        const ssize_t result = tls_records_read(&records[SERVER], received + total, 1000);
        ck_assert_int_gt(result, 0);
        total += (size_t)result;
    } while (records[SERVER].has_more);
    ck_assert_uint_eq(50000, total);
    ck_assert(keeps_nothing());
}
END_TEST

/* ---- a peer that does not read ---- */

START_TEST(a_full_socket_has_one_batch_waiting)
{
    struct tls_records *const writer = &records[SERVER];
    ssize_t result;
    size_t done = 0;

    for (unsigned i = 0; i < 100; i++) {
        if ((result = write_plain(SERVER, done, LONG - done)) > 0)
            done += (size_t)result;
    }
    ck_assert_int_eq(-EAGAIN, result);
    ck_assert_uint_lt(done, LONG - TLS_OUTPUT_SIZE);
    ck_assert_uint_gt(writer->owed, 0);
    ck_assert_uint_gt(buf_size(&writer->out), 0);
    ck_assert_uint_le(buf_size(&writer->out), TLS_OUTPUT_SIZE);
    ck_assert_uint_le(writer->out.capacity, TLS_OUTPUT_SIZE);
    ck_assert_int_ge(waiting_octets(SERVER), (int)done);
}
END_TEST

/* The writer hears of an octet when one has left, so that a peer that takes little is not taken for
 * one that takes nothing. */
START_TEST(what_leaves_is_reported_at_once)
{
    size_t done = 0;
    unsigned reports = 0;

    while (done < 60000) {
        const ssize_t result = write_plain(SERVER, done, 60000 - done);
        ck_assert(result > 0 || result == -EAGAIN);
        done += result > 0 ? (size_t)result : 0;
        reports += result > 0;
        ck_assert(done < 60000 || buf_size(&records[SERVER].out) == 0);
        carry(SERVER, 3000);
        tls_records_read(&records[CLIENT], received, LONG);
    }
    ck_assert_uint_gt(reports, 5);
}
END_TEST

/* ---- ends ---- */

START_TEST(a_farewell_ends_the_stream_behind_the_rest)
{
    write_plain(CLIENT, 0, 100);
    tls_records_shut_down(&records[CLIENT]);
    carry(CLIENT, ALL);
    ck_assert_int_eq(100, tls_records_read(&records[SERVER], received, LONG));
    ck_assert(records[SERVER].has_more);
    ck_assert_int_eq(0, tls_records_read(&records[SERVER], received, LONG));
    ck_assert_int_eq(0, tls_records_read(&records[SERVER], received, LONG));
}
END_TEST

START_TEST(a_hang_up_ends_the_stream_amid_a_record)
{
    write_plain(CLIENT, 0, 100);
    carry(CLIENT, 60);
    ck_assert_int_eq(-EAGAIN, tls_records_read(&records[SERVER], received, LONG));
    hang_up(CLIENT);
    ck_assert_int_eq(0, tls_records_read(&records[SERVER], received, LONG));
}
END_TEST

START_TEST(a_write_to_who_has_hung_up_fails)
{
    hang_up(CLIENT);
    ck_assert_int_eq(-EPIPE, write_plain(SERVER, 0, 100));
    ck_assert(keeps_little(&records[SERVER]));
}
END_TEST

START_TEST(what_is_no_record_breaks_the_protocol)
{
    write_plain(CLIENT, 0, 1000);
    carry(CLIENT, ALL);
    ck_assert_int_eq(100, write(ends[SERVER][1], plain, 100));
    ck_assert_int_eq(1000, tls_records_read(&records[SERVER], received, LONG));
    ck_assert(records[SERVER].has_more);
    ck_assert_int_eq(-EPROTO, tls_records_read(&records[SERVER], received, LONG));
    const int reason =
        ERR_GET_REASON(records[SERVER].reason); /* which one depends on OpenSSL's version */
    ck_assert(reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_BAD_RECORD_TYPE);
    ck_assert_int_lt(write_plain(SERVER, 0, 100), 0);
}
END_TEST

/* ---- what OpenSSL says on its own account ---- */

START_TEST(keys_are_updated_under_way)
{
    ck_assert_int_eq(1, SSL_key_update(ssl[CLIENT], SSL_KEY_UPDATE_REQUESTED));
    ck_assert(passes(CLIENT, &(struct passage){LONG, ALL, LONG}));
    ck_assert(passes(SERVER, &(struct passage){LONG, ALL, LONG}));
    ck_assert(passes(CLIENT, &(struct passage){LONG, 1000, 1000}));
}
END_TEST

/* One handshake in the other is refused by an alert. */
static void renegotiate(void)
{
    tear_down();
    connect_sides(TLS1_2_VERSION, "DEFAULT");
    SSL_set_options(ssl[SERVER], SSL_OP_NO_RENEGOTIATION);
    SSL_renegotiate(ssl[CLIENT]);
    SSL_do_handshake(ssl[CLIENT]);
    tls_records_read(&records[CLIENT], received, LONG);
    ck_assert_int_gt(carry(CLIENT, ALL), 0);
}

START_TEST(what_the_reader_has_to_say_leaves_at_once)
{
    renegotiate();
    ck_assert_int_eq(-EAGAIN, tls_records_read(&records[SERVER], received, LONG));
    ck_assert(!records[SERVER].wants_room);
    ck_assert_int_gt(waiting_octets(SERVER), 0);
    ck_assert(keeps_nothing());
}
END_TEST

static size_t fill_socket(void)
{
    size_t total = 0;
    ssize_t sent;

    while ((sent = send(ends[SERVER][0], plain, 1000, 0)) > 0)
        total += (size_t)sent;
    return total;
}

START_TEST(what_the_reader_has_to_say_waits_for_room)
{
    struct tls_records *const server = &records[SERVER];

    renegotiate();
    size_t junk = fill_socket();
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(-EAGAIN, tls_records_read(server, received, LONG));
        ck_assert(server->wants_room);
    }
    while (junk > 0)
        junk -= (size_t)recv(ends[SERVER][1], received, junk, 0);
    ck_assert_int_eq(-EAGAIN, tls_records_read(server, received, LONG));
    ck_assert(!server->wants_room);
    ck_assert_int_gt(waiting_octets(SERVER), 0);
}
END_TEST

/* However much a peer makes OpenSSL say that it does not take. */
START_TEST(what_waits_is_bounded)
{
    struct tls_records *const server = &records[SERVER];
    BIO *bio = SSL_get_wbio(ssl[SERVER]);
    size_t total = 0;
    int taken;

    while ((taken = BIO_write(bio, plain, 1000)) > 0)
        total += (size_t)taken;
    ck_assert(BIO_should_write(bio));
    ck_assert_uint_eq(TLS_OUTPUT_SIZE, total);
    ck_assert_uint_eq(TLS_OUTPUT_SIZE, buf_size(&server->out));
}
END_TEST

/* ---- records that bring nothing ---- */

static void widen_sockets(void)
{
    for (int side = 0; side < SIDES; side++)
        for (int i = 0; i < 2; i++)
            setsockopt(ends[side][i], SOL_SOCKET, SO_SNDBUF, &(int){1 << 20}, sizeof(int));
}

static void update_keys(int count, int kind)
{
    for (int i = 0; i < count; i++) {
        ck_assert_int_eq(1, SSL_key_update(ssl[CLIENT], kind));
        ck_assert_int_eq(1, SSL_do_handshake(ssl[CLIENT]));
    }
}

/* What OpenSSL has said leaves with it. */
static void write_octet(size_t which)
{
    ck_assert_int_eq(1, write_plain(CLIENT, which, 1));
    while (carry(CLIENT, ALL) > 0)
        ;
}

START_TEST(records_that_bring_nothing_are_few) /* CVE-2011-1473 */
{
    struct tls_records *const server = &records[SERVER];

    widen_sockets();
    for (size_t i = 0; i < 3; i++) {
        update_keys(32, SSL_KEY_UPDATE_NOT_REQUESTED);
        write_octet(i);
        ck_assert_int_eq(1, tls_records_read(server, received, LONG));
    }
    update_keys(34, SSL_KEY_UPDATE_NOT_REQUESTED);
    write_octet(3);
    ck_assert_int_eq(-EPROTO, tls_records_read(server, received, LONG));
    ck_assert_str_eq("too many key updates", ERR_reason_error_string(server->reason));
    ck_assert_int_eq(-EPROTO, tls_records_read(server, received, LONG));
}
END_TEST

/* And it does not matter how little others bring between them. */
START_TEST(a_read_takes_so_many_records) /* CVE-2011-1473 */
{
    enum { ROUNDS = 100, EACH = 31 };
    struct tls_records *const server = &records[SERVER];
    size_t came = 0;
    unsigned calls = 0;

    widen_sockets();
    for (size_t i = 0; i < ROUNDS; i++) {
        update_keys(EACH, SSL_KEY_UPDATE_NOT_REQUESTED);
        write_octet(i);
    }
    for (; came < ROUNDS && calls < ROUNDS; calls++) {
        const ssize_t result = tls_records_read(server, received + came, LONG - came);
        ck_assert_int_gt(result, 0);
        ck_assert(server->has_more || came + (size_t)result == ROUNDS);
        came += (size_t)result;
    }
    ck_assert_uint_eq(ROUNDS, came);
    ck_assert_mem_eq(plain, received, ROUNDS);
    ck_assert_uint_ge(calls, ROUNDS * EACH / 256);
    ck_assert_int_eq(-EAGAIN, tls_records_read(server, received, LONG));
}
END_TEST

/* All had left by the end of the read: no room will be announced that was there all the time. */
START_TEST(what_the_reader_had_no_room_for_goes_on)
{
    struct tls_records *const server = &records[SERVER];

    widen_sockets();
    update_keys(2, SSL_KEY_UPDATE_REQUESTED); /* the second makes the answer to the first due */
    write_octet(0);
    while (BIO_write(SSL_get_wbio(ssl[SERVER]), plain, 1000) > 0)
        ;
    ck_assert_int_eq(-EINTR, tls_records_read(server, received, LONG));
    ck_assert(!server->wants_room);
    ck_assert_int_eq(1, tls_records_read(server, received, LONG));
    ck_assert_int_eq(plain[0], received[0]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tls_records");
    TCase *tests = tcase_create("tls_records");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, what_is_written_is_read_however_it_is_cut);
    tcase_add_test(tests, small_parts_share_a_record);
    tcase_add_test(tests, one_read_takes_many_records);
    tcase_add_test(tests, what_was_received_and_not_read_is_more);
    tcase_add_test(tests, a_full_socket_has_one_batch_waiting);
    tcase_add_test(tests, what_leaves_is_reported_at_once);
    tcase_add_test(tests, a_farewell_ends_the_stream_behind_the_rest);
    tcase_add_test(tests, a_hang_up_ends_the_stream_amid_a_record);
    tcase_add_test(tests, a_write_to_who_has_hung_up_fails);
    tcase_add_test(tests, what_is_no_record_breaks_the_protocol);
    tcase_add_test(tests, keys_are_updated_under_way);
    tcase_add_test(tests, what_the_reader_has_to_say_leaves_at_once);
    tcase_add_test(tests, what_the_reader_has_to_say_waits_for_room);
    tcase_add_test(tests, what_waits_is_bounded);
    tcase_add_test(tests, records_that_bring_nothing_are_few);
    tcase_add_test(tests, a_read_takes_so_many_records);
    tcase_add_test(tests, what_the_reader_had_no_room_for_goes_on);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
