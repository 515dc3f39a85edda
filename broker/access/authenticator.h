/* Who is it? Passwords are compared and made on a thread of their own, one after another, so that
 * the loop never waits for the slow function that this takes (access/password.h).
 *
 *     loop thread                                                     worker
 *     attempt ─▶ waiting ──one at a time──▶ inbox ─▶ scrypt ─▶ outbox ─┐
 *        │                                                            │
 *        └─ proof of an earlier login fits ──────▶ done ◀─────────────┘ ──(INPUT)──▶ on_done
 *
 * The answer always comes later, in the INPUT phase of another turn. Whoever no longer wants it
 * cancels.
 *
 * Those who wait are served by the address they come from, in turn: who floods us with guesses waits
 * behind its own.
 *
 * An attempt costs the same whatever is wrong with it: for a user who does not exist, or has no
 * password or one of another scheme, the same slow hash is computed over what was offered.
 *
 * A password that was right is right the next time without the slow function: its user keeps a
 * *proof*, an HMAC of it under a key that lives as long as the process. A new password drops it. */
#ifndef ACCESS_AUTHENTICATOR_H
#define ACCESS_AUTHENTICATOR_H

#include "access/user.h"
#include "base/random.h"
#include "base/worker.h"
#include "net/listener.h"
#include "net/loop.h"

enum { AUTHENTICATOR_KEY_SIZE = 32 };

TAILQ_HEAD(attempt_list, attempt);

struct authenticator {
    struct users *users;
    struct loop *loop;
    struct random *random;
    unsigned cost; /* of new passwords, see PASSWORD_COST */
    /* A user's password was right, and is to be kept in our own way from now on. */
    void (*on_rehash)(struct authenticator *authenticator, struct user *user,
                      const struct password *password);
    uint8_t key[AUTHENTICATOR_KEY_SIZE];

    struct attempt_list waiting, done;
    uint64_t turn; /* of the one before, and where that came from */
    char served[sizeof((struct endpoint){0}.host)];
    struct attempt *running; /* the worker's, until it comes back; NULL: none */
    struct task task;        /* tells those that are done, in INPUT */
    struct source source;    /* of the worker */

    bool threaded; /* else passwords are computed by the task: for tests, whose cost is low */
    struct worker worker;
};

struct attempt;
typedef void attempt_done(struct attempt *attempt);

/* What became of it. Valid inside on_done. */
struct attempt {
    TAILQ_ENTRY(attempt) link;
    struct authenticator *authenticator;
    attempt_done *on_done; /* NULL: cancelled */
    void *context;         /* the caller's */

    struct user *user; /* a login's: who it is, or NULL */
    const char *why;   /* not, for the log */

    /* the worker's, while it has it */
    struct job job;
    struct password stored; /* to compare with */
    struct password made;   /* of what was offered */
    bool wants_made, matches;

    bool is_login, from_loopback, is_waiting;
    char from[sizeof((struct endpoint){0}.host)]; /* an address; empty: an operator */
    uint64_t turn;                                /* in order of which they wait */
    size_t name_size, offered_size;
    uint8_t bytes[]; /* name, then what is offered: cleansed when it is freed */
};

/* 0, or -errno. threaded false: for tests. */
int authenticator_open(struct authenticator *authenticator, struct users *users, struct loop *loop,
                       struct random *random, unsigned cost, bool threaded);
void authenticator_close(struct authenticator *authenticator); /* no attempts may be left */

/* Does this user have this password, and may it log in from there? Of the peer nothing is kept. */
struct attempt *authenticator_login(struct authenticator *authenticator, struct slice name,
                                    struct slice password, const struct endpoint *peer,
                                    attempt_done *on_done, void *context);

/* What is to be kept of a password: in attempt->made. */
struct attempt *authenticator_make(struct authenticator *authenticator, struct slice password,
                                   attempt_done *on_done, void *context);

void authenticator_cancel(struct attempt **attempt); /* on_done is not called */

#endif
