/* Passwords as they are kept: never themselves, but what a slow function makes of them.
 *
 *     octets     scheme (1) | log2 N (1) | r (1) | p (1) | salt size (1) | salt | hash size (1) |
 *                hash
 *
 * Ours is scrypt, with its parameters beside each hash, so that they can grow with the years. Those
 * of RabbitMQ's users, which come with their definitions, are one salted SHA-256 or SHA-512; they
 * are accepted, and replaced when the user next logs in. A user may have none, and cannot log in by
 * password then. */
#ifndef ACCESS_PASSWORD_H
#define ACCESS_PASSWORD_H

#include "amqp/wire.h"
#include "base/buf.h"
#include "base/slice.h"

enum password_scheme { PASSWORD_NONE, PASSWORD_SCRYPT, PASSWORD_SHA256, PASSWORD_SHA512 };

enum {
    PASSWORD_SALT_SIZE = 16, /* of ours */
    PASSWORD_HASH_SIZE_MAX = 64,
    PASSWORD_COST = 14, /* log2 N: with r = 8 16 MiB and some 40 ms */
};

struct password {
    uint8_t scheme; /* of enum password_scheme; all else is 0 when it is none */
    uint8_t log2_n, r, p;
    uint8_t salt_size, hash_size;
    uint8_t salt[PASSWORD_SALT_SIZE];
    uint8_t hash[PASSWORD_HASH_SIZE_MAX];
};

/* By scrypt with N = 2 ^ log2_n: takes its time. */
void password_make(struct password *password, const uint8_t salt[PASSWORD_SALT_SIZE],
                   unsigned log2_n, struct slice clear);

/* As RabbitMQ makes them, by SHA-256: to be handed to whoever expects that. We keep none. */
enum { PASSWORD_RABBITMQ_SALT_SIZE = 4 };
void password_make_rabbitmq(struct password *password,
                            const uint8_t salt[PASSWORD_RABBITMQ_SALT_SIZE], struct slice clear);

/* Takes as long as the scheme does, whatever is offered; never true of an empty one, or
 * of one that ends in NUL. */
bool password_matches(const struct password *password, struct slice clear);

/* What scrypt has cost this process so far, of any thread: N * r * p of each hash. It is how tests
 * see that two logins cost the same, without a clock. */
uint64_t password_work(void);

bool password_equal(const struct password *a, const struct password *b);

void password_write(struct buf *out, const struct password *password);
/* False: it is none, or one that would take more time or memory than we grant. */
bool password_read(struct amqp_reader *reader, struct password *password);

/* As in definitions: the algorithm's name and base64. Those of RabbitMQ are salt[4] and hash; ours
 * the octets above. An empty text is no password; an empty algorithm is the one of RabbitMQ's whose
 * hash has this size. */
bool password_from_text(struct password *password, struct slice algorithm, struct slice text);
void password_to_text(const struct password *password, struct buf *out); /* appends */
const char *password_algorithm(const struct password *password);

#endif
