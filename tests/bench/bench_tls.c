/* What TLS costs a thread, and of what: 256 KiB at a time from one end of a loopback connection to
 * the other, over net/tls_records and over the bare socket, and the cipher by itself. One line
 * each: what, CPU time for a KiB.
 *
 * A round takes a millisecond, so that most of them meet no other work of the machine; what is told
 * is the round that a quarter of all beat. (make bench-tls measures the whole, at the load's mercy.)
 *
 * Neither end waits for the other: it is one thread, and the socket holds a round. */
#include "net/tls_records.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    PART_SIZE = 64 * 1024, /* as a transport's sealed buffers */
    PARTS = 4,
    ROUND_SIZE = PARTS * PART_SIZE,
    ROUNDS = 2000,
    SOCKET_SIZE = 4 * ROUND_SIZE,
};

enum { SERVER, CLIENT, SIDES };
enum { TLS_WRITE, TLS_READ, PLAIN_WRITE, PLAIN_READ, CIPHER, MEASURES };

static const char *const names[MEASURES] = {"write over TLS", "read over TLS",
                                            "write to the socket", "read from the socket",
                                            "AES-128-GCM alone"};

static uint8_t data[PARTS][PART_SIZE], got[ROUND_SIZE];
static double samples[MEASURES][ROUNDS]; /* ns */
static int ends[SIDES];
static struct tls_scratch scratch;
static struct tls_records records[SIDES];

static double cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* ---- the connection ---- */

static void open_ends(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    const int listening = socket(AF_INET, SOCK_STREAM, 0);
    int failed = bind(listening, (struct sockaddr *)&address, size) | listen(listening, 1) |
                 getsockname(listening, (struct sockaddr *)&address, &size);

    ends[CLIENT] = socket(AF_INET, SOCK_STREAM, 0);
    failed |= connect(ends[CLIENT], (struct sockaddr *)&address, size);
    ends[SERVER] = accept(listening, NULL, NULL);
    assert(failed == 0 && ends[SERVER] >= 0);
    close(listening);
    for (int side = 0; side < SIDES; side++) {
        setsockopt(ends[side], SOL_SOCKET, SO_SNDBUF, &(int){SOCKET_SIZE}, sizeof(int));
        setsockopt(ends[side], SOL_SOCKET, SO_RCVBUF, &(int){SOCKET_SIZE}, sizeof(int));
        setsockopt(ends[side], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        fcntl(ends[side], F_SETFL, O_NONBLOCK);
    }
}

static void use_certificate(SSL *ssl)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();

    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_sign(certificate, key, EVP_sha256());
    SSL_use_certificate(ssl, certificate);
    SSL_use_PrivateKey(ssl, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void shake_hands(void)
{
    SSL *ssl[SIDES];
    bool done[SIDES] = {false};

    for (int side = 0; side < SIDES; side++) {
        SSL_CTX *context = SSL_CTX_new(side == SERVER ? TLS_server_method() : TLS_client_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
        ssl[side] = SSL_new(context);
        SSL_CTX_free(context);
        SSL_set_fd(ssl[side], ends[side]);
    }
    use_certificate(ssl[SERVER]);
    while (!done[SERVER] || !done[CLIENT]) {
        done[SERVER] = SSL_accept(ssl[SERVER]) == 1;
        done[CLIENT] = SSL_connect(ssl[CLIENT]) == 1;
    }
    for (int side = 0; side < SIDES; side++) {
        const bool opened = tls_records_open(&records[side], ssl[side], ends[side], &scratch);
        assert(opened);
        (void)opened;
    }
}

/* ---- a round ---- */

static ssize_t write_some(bool tls, struct iovec *parts)
{
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = PARTS};

    return tls ? tls_records_write(&records[SERVER], parts, PARTS)
               : sendmsg(ends[SERVER], &message, MSG_NOSIGNAL);
}

static ssize_t read_some(bool tls)
{
    return tls ? tls_records_read(&records[CLIENT], got, sizeof(got))
               : recv(ends[CLIENT], got, sizeof(got), 0);
}

static void carry(bool tls, double *write_ns, double *read_ns)
{
    struct iovec parts[PARTS];

    for (size_t i = 0; i < PARTS; i++)
        parts[i] = (struct iovec){.iov_base = data[i], .iov_len = PART_SIZE};
    double begin = cpu_ns();
    const ssize_t written = write_some(tls, parts);
    *write_ns = cpu_ns() - begin;
    assert(written == ROUND_SIZE);

    *read_ns = 0;
    for (ssize_t total = 0; total < written;) {
        begin = cpu_ns();
        const ssize_t some = read_some(tls);
        if (some > 0) { /* a look in vain is the network's */
            *read_ns += cpu_ns() - begin;
            total += some;
        }
    }
}

/* What a writer's records cost at least. */
static double encrypt(EVP_CIPHER_CTX *cipher)
{
    static const uint8_t nonce[12], head[5];
    static uint8_t out[TLS_RECORD_SIZE], tag[16];
    int size;

    const double begin = cpu_ns();
    for (size_t at = 0; at < ROUND_SIZE; at += TLS_RECORD_SIZE) {
        EVP_EncryptInit_ex(cipher, NULL, NULL, NULL, nonce);
        EVP_EncryptUpdate(cipher, NULL, &size, head, sizeof(head));
        EVP_EncryptUpdate(cipher, out, &size, data[at / PART_SIZE] + at % PART_SIZE,
                          TLS_RECORD_SIZE);
        EVP_EncryptFinal_ex(cipher, out, &size);
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, sizeof(tag), tag);
    }
    return cpu_ns() - begin;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(void)
{
    static const uint8_t key[16];
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();

    EVP_EncryptInit_ex(cipher, EVP_aes_128_gcm(), NULL, key, NULL);
    open_ends();
    shake_hands();
    for (size_t i = 0; i < ROUNDS; i++) {
        carry(true, &samples[TLS_WRITE][i], &samples[TLS_READ][i]);
        carry(false, &samples[PLAIN_WRITE][i], &samples[PLAIN_READ][i]);
        samples[CIPHER][i] = encrypt(cipher);
    }
    for (size_t i = 0; i < MEASURES; i++) {
        qsort(samples[i], ROUNDS, sizeof(samples[i][0]), compare);
        printf("tls %-21s %5.0f ns a KiB\n", names[i],
               samples[i][ROUNDS / 4] / (ROUND_SIZE / 1024));
    }
    for (int side = 0; side < SIDES; side++) {
        tls_records_release(&records[side]);
        SSL_free(records[side].ssl);
        close(ends[side]);
    }
    EVP_CIPHER_CTX_free(cipher);
    return 0;
}
