#include "access/password.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>

#include "base/log.h"

enum {
    SCRYPT_R = 8,
    SCRYPT_P = 1,
    SCRYPT_HASH_SIZE = 32,
    RABBITMQ_SALT_SIZE = 4,
    MEMORY_MAX = 64 << 20, /* of one hash, whoever made it */
    WORK_MAX = 1 << 20,    /* N * r * p: eight times that of our own */
    TEXT_SIZE_MAX = 256,
};

static const struct {
    const char *name;
    uint8_t hash_size;
} schemes[] = {
    [PASSWORD_NONE] = {"", 0},
    [PASSWORD_SCRYPT] = {"stoatmq_password_hashing_scrypt", SCRYPT_HASH_SIZE},
    [PASSWORD_SHA256] = {"rabbit_password_hashing_sha256", 32},
    [PASSWORD_SHA512] = {"rabbit_password_hashing_sha512", 64},
};

/* The library fails for want of memory alone: is_affordable looks at parameters where they come
 * from. */
static void must(bool done)
{
    if (!done) {
        log_critical("out of memory while hashing a password");
        abort();
    }
}

static atomic_uint_fast64_t work;

uint64_t password_work(void)
{
    return atomic_load(&work);
}

static void scrypt(const struct password *like, struct slice clear, uint8_t *hash)
{
    atomic_fetch_add(&work, (UINT64_C(1) << like->log2_n) * like->r * like->p);
    must(EVP_PBE_scrypt((const char *)clear.data, clear.size, like->salt, like->salt_size,
                        UINT64_C(1) << like->log2_n, like->r, like->p, (uint64_t)MEMORY_MAX * 2,
                        hash, like->hash_size) == 1);
}

static void digest(const struct password *like, struct slice clear, uint8_t *hash)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    must(context != NULL &&
         EVP_DigestInit_ex(context, like->scheme == PASSWORD_SHA256 ? EVP_sha256() : EVP_sha512(),
                           NULL) == 1 &&
         EVP_DigestUpdate(context, like->salt, like->salt_size) == 1 &&
         EVP_DigestUpdate(context, clear.data, clear.size) == 1 &&
         EVP_DigestFinal_ex(context, hash, NULL) == 1);
    EVP_MD_CTX_free(context);
}

static void derive(const struct password *like, struct slice clear, uint8_t *hash)
{
    if (like->scheme == PASSWORD_SCRYPT)
        scrypt(like, clear, hash);
    else
        digest(like, clear, hash);
}

void password_make(struct password *password, const uint8_t salt[PASSWORD_SALT_SIZE],
                   unsigned log2_n, struct slice clear)
{
    *password = (struct password){
        .scheme = PASSWORD_SCRYPT,
        .log2_n = (uint8_t)log2_n,
        .r = SCRYPT_R,
        .p = SCRYPT_P,
        .salt_size = PASSWORD_SALT_SIZE,
        .hash_size = SCRYPT_HASH_SIZE,
    };
    memcpy(password->salt, salt, PASSWORD_SALT_SIZE);
    derive(password, clear, password->hash);
}

void password_make_rabbitmq(struct password *password,
                            const uint8_t salt[PASSWORD_RABBITMQ_SALT_SIZE], struct slice clear)
{
    *password = (struct password){
        .scheme = PASSWORD_SHA256, .salt_size = PASSWORD_RABBITMQ_SALT_SIZE, .hash_size = 32};
    memcpy(password->salt, salt, PASSWORD_RABBITMQ_SALT_SIZE);
    derive(password, clear, password->hash);
}

bool password_matches(const struct password *password, struct slice clear)
{
    uint8_t hash[PASSWORD_HASH_SIZE_MAX];

    if (password->scheme == PASSWORD_NONE)
        return false;
    derive(password, clear, hash);
    const bool equal = CRYPTO_memcmp(hash, password->hash, password->hash_size) == 0;
    OPENSSL_cleanse(hash, sizeof(hash));
    /* The HMAC inside scrypt cannot tell "a" from "a\0". */
    return equal && clear.size > 0 && clear.data[clear.size - 1] != '\0';
}

bool password_equal(const struct password *a, const struct password *b)
{
    return CRYPTO_memcmp(a, b, sizeof(*a)) == 0;
}

/* ---- as octets ---- */

void password_write(struct buf *out, const struct password *password)
{
    amqp_write_u8(out, password->scheme);
    amqp_write_u8(out, password->log2_n);
    amqp_write_u8(out, password->r);
    amqp_write_u8(out, password->p);
    amqp_write_shortstr(out, slice_of(password->salt, password->salt_size));
    amqp_write_shortstr(out, slice_of(password->hash, password->hash_size));
}

static bool is_affordable(const struct password *password)
{
    if (password->scheme != PASSWORD_SCRYPT)
        return password->log2_n == 0 && password->r == 0 && password->p == 0;
    if (password->log2_n == 0 || password->log2_n > 24 || password->r == 0 || password->p == 0)
        return false;
    if (password->log2_n >= 16 * password->r) /* N < 2^(128 * r / 8), RFC 7914 section 6 */
        return false;
    const uint64_t blocks = (UINT64_C(1) << password->log2_n) * password->r;
    return blocks * 128 <= MEMORY_MAX && blocks * password->p <= WORK_MAX;
}

bool password_read(struct amqp_reader *reader, struct password *password)
{
    *password = (struct password){.scheme = amqp_read_u8(reader)};
    password->log2_n = amqp_read_u8(reader);
    password->r = amqp_read_u8(reader);
    password->p = amqp_read_u8(reader);
    const struct slice salt = amqp_read_shortstr(reader);
    const struct slice hash = amqp_read_shortstr(reader);

    if (reader->bad || password->scheme >= countof(schemes) || salt.size > sizeof(password->salt) ||
        hash.size != schemes[password->scheme].hash_size || !is_affordable(password))
        return false;
    password->salt_size = (uint8_t)salt.size;
    password->hash_size = (uint8_t)hash.size;
    amqp_put_bytes(password->salt, salt);
    amqp_put_bytes(password->hash, hash);
    return true;
}

/* ---- as text ---- */

/* Strict: no other octets, padded. The size, or -1. */
static int decode_base64(uint8_t room[TEXT_SIZE_MAX], struct slice text)
{
    int padding = 0;

    if (text.size == 0 || text.size > TEXT_SIZE_MAX || text.size % 4 != 0)
        return -1;
    while (padding < 2 && text.data[text.size - 1 - (size_t)padding] == '=')
        padding++;
    const int size = EVP_DecodeBlock(room, text.data, (int)text.size);
    return size < 0 ? -1 : size - padding;
}

static bool read_rabbitmq(struct password *password, enum password_scheme scheme,
                          struct slice octets)
{
    const uint8_t hash_size = schemes[scheme].hash_size;

    if (octets.size != (size_t)RABBITMQ_SALT_SIZE + hash_size)
        return false;
    *password = (struct password){
        .scheme = (uint8_t)scheme, .salt_size = RABBITMQ_SALT_SIZE, .hash_size = hash_size};
    memcpy(password->salt, octets.data, RABBITMQ_SALT_SIZE);
    memcpy(password->hash, octets.data + RABBITMQ_SALT_SIZE, hash_size);
    return true;
}

/* PASSWORD_NONE: it is none of them. */
static enum password_scheme scheme_named(struct slice algorithm)
{
    for (enum password_scheme scheme = PASSWORD_SCRYPT; scheme < countof(schemes); scheme++)
        if (slice_equal(algorithm, slice_of_string(schemes[scheme].name)))
            return scheme;
    return PASSWORD_NONE;
}

/* Of RabbitMQ's, by the size of salt and hash; likewise. */
static enum password_scheme scheme_sized(size_t size)
{
    for (enum password_scheme scheme = PASSWORD_SHA256; scheme <= PASSWORD_SHA512; scheme++)
        if (size == (size_t)RABBITMQ_SALT_SIZE + schemes[scheme].hash_size)
            return scheme;
    return PASSWORD_NONE;
}

bool password_from_text(struct password *password, struct slice algorithm, struct slice text)
{
    uint8_t octets[TEXT_SIZE_MAX];

    *password = (struct password){.scheme = PASSWORD_NONE};
    if (text.size == 0)
        return true;
    const int size = decode_base64(octets, text);
    if (size < 0)
        return false;
    const enum password_scheme scheme =
        algorithm.size > 0 ? scheme_named(algorithm) : scheme_sized((size_t)size);
    if (scheme == PASSWORD_NONE)
        return false;
    if (scheme != PASSWORD_SCRYPT)
        return read_rabbitmq(password, scheme, slice_of(octets, (size_t)size));
    struct amqp_reader reader = amqp_reader_of(slice_of(octets, (size_t)size));
    return password_read(&reader, password) && amqp_reader_left(&reader) == 0 &&
           password->scheme == PASSWORD_SCRYPT;
}

static void append_base64(struct buf *out, struct slice octets)
{
    const size_t size = (octets.size + 2) / 3 * 4;

    EVP_EncodeBlock(buf_reserve(out, size + 1), octets.data, (int)octets.size);
    buf_commit(out, size);
}

void password_to_text(const struct password *password, struct buf *out)
{
    struct buf octets = BUF_EMPTY;

    if (password->scheme == PASSWORD_NONE)
        return;
    if (password->scheme == PASSWORD_SCRYPT) {
        password_write(&octets, password);
    } else {
        buf_append(&octets, slice_of(password->salt, password->salt_size));
        buf_append(&octets, slice_of(password->hash, password->hash_size));
    }
    append_base64(out, buf_slice(&octets));
    buf_release(&octets);
}

const char *password_algorithm(const struct password *password)
{
    return schemes[password->scheme].name;
}
