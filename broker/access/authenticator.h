/* Who is it? Passwords are compared and made on a thread of their own, one after another, so that
 * the loop never waits for the slow function that this takes (access/password.h).
 *
 *     loop thread                                                       worker
 *                    ┌▶ line of its address ─┐
 *     attempt ─▶ question                    ├─▶ turns ──────────▶ inbox ─▶ scrypt ─▶ outbox ─┐
 *                    ├▶ line of another ─────┘                                               │
 *                    └─ a regular is right ────▶ done ◀──────────────────────────────────────┘
 *                                                  └──(INPUT)──▶ on_done of each of its attempts
 *
 * The answer always comes later, in the INPUT phase of another turn. Whoever no longer wants it
 * cancels.
 *
 * Turns. Whoever asks waits in the line of the address that he comes from (access/address.h); the
 * lines that have somebody take turns (base/turns.h), and a line has one in hand at a time. So who
 * floods us waits behind its own. After failed logins an address has its next turn only when
 * its time has come. A regular who is right does not wait at all.
 *
 *     empty ──ask──▶ next ──turn──▶ served ──answer──▶ empty, next or paused
 *              └───▶ paused ──its time──▶ next
 *
 * Questions. Those who ask the same while it waits, the same name and password from the same
 * address, are one question, and all get its answer: a fleet that comes back at once costs one. A
 * line has room for QUESTIONS_MAX different ones, and operators for any number.
 *
 * A question costs the same whatever is wrong with it: for a user who does not exist, or has no
 * password or one of another scheme, the same slow hash is computed over what was offered.
 *
 * A password that was right is right the next time without the slow function: its user keeps a
 * *proof*, an HMAC of it under a key that lives as long as the process. A new password drops it.
 * That is looked at in turn, too, since how soon the answer comes tells what it is. */
#ifndef ACCESS_AUTHENTICATOR_H
#define ACCESS_AUTHENTICATOR_H

#include "access/address.h"
#include "access/user.h"
#include "base/random.h"
#include "base/worker.h"
#include "net/loop.h"

enum { AUTHENTICATOR_KEY_SIZE = 32 };

TAILQ_HEAD(attempt_list, attempt);
TAILQ_HEAD(question_list, question);

struct authenticator {
    struct users *users;
    struct loop *loop;
    struct random *random;
    unsigned cost;         /* of new passwords, see PASSWORD_COST */
    uint64_t delay_max_ms; /* after failed logins; 0 unless its owner sets it: none waits */
    /* A user's password was right, and is to be kept in our own way from now on. */
    void (*on_rehash)(struct authenticator *authenticator, struct user *user,
                      const struct password *password);
    uint8_t key[AUTHENTICATOR_KEY_SIZE];

    struct turns turns; /* of questions */
    struct login_line operators;
    struct question_list done; /* to be told by the task */
    bool is_busy;              /* the worker has a question */
    struct task task;          /* tells those that are done, in INPUT */
    struct source source;      /* of the worker */

    bool threaded; /* else passwords are computed by the task: for tests, whose cost is low */
    struct worker worker;
};

struct attempt;
typedef void attempt_done(struct attempt *attempt);

/* Somebody who wants to know. */
struct attempt {
    TAILQ_ENTRY(attempt) link; /* in question->attempts */
    struct question *question;
    attempt_done *on_done;
    void *context; /* the caller's */

    /* what became of it: valid inside on_done */
    struct user *user;           /* a login's: who it is, or NULL */
    const char *why;             /* not, for the log */
    const struct password *made; /* authenticator_make's */
};

/* 0, or -errno. threaded false: for tests. */
int authenticator_open(struct authenticator *authenticator, struct users *users, struct loop *loop,
                       struct random *random, unsigned cost, bool threaded);
void authenticator_close(struct authenticator *authenticator); /* no attempts may be left */

/* Does this user have this password, and may it log in from there? address NULL: an operator asks.
 * NULL: too many others from this address wait for their turn. */
struct attempt *authenticator_login(struct authenticator *authenticator, struct slice name,
                                    struct slice password, struct address *address,
                                    bool from_loopback, attempt_done *on_done, void *context);

/* What is to be kept of a password: in attempt->made. */
struct attempt *authenticator_make(struct authenticator *authenticator, struct slice password,
                                   attempt_done *on_done, void *context);

void authenticator_cancel(struct attempt **attempt); /* on_done is not called */

#endif
