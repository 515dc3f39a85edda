#include "access/authenticator.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <signal.h>

#include "base/alloc.h"

static struct slice name_of(const struct attempt *attempt)
{
    return slice_of(attempt->bytes, attempt->name_size);
}

static struct slice offered_of(const struct attempt *attempt)
{
    return slice_of(attempt->bytes + attempt->name_size, attempt->offered_size);
}

static void attempt_free(struct attempt *attempt)
{
    OPENSSL_cleanse(attempt, sizeof(*attempt) + attempt->name_size + attempt->offered_size);
    free(attempt);
}

/* ---- proofs ---- */

static void prove(const struct authenticator *authenticator, struct slice password,
                  uint8_t proof[32])
{
    const uint8_t *const made = HMAC(EVP_sha256(), authenticator->key, AUTHENTICATOR_KEY_SIZE,
                                     password.data, password.size, proof, NULL);
    assert(made != NULL);
}

/* Computes the proof in any case: how long it takes says nothing about the user. */
static bool is_proven(const struct authenticator *authenticator, const struct user *user,
                      struct slice password)
{
    uint8_t proof[32];

    prove(authenticator, password, proof);
    return user != NULL && user->verified && CRYPTO_memcmp(proof, user->proof, sizeof(proof)) == 0;
}

/* ---- the slow part: the worker, or the task ---- */

static void compute(struct attempt *attempt)
{
    const struct slice offered = offered_of(attempt);

    if (attempt->stored.scheme != PASSWORD_NONE)
        attempt->matches = password_matches(&attempt->stored, offered);
    if (attempt->wants_made) {
        uint8_t salt[PASSWORD_SALT_SIZE];
        memcpy(salt, attempt->made.salt, sizeof(salt));
        password_make(&attempt->made, salt, attempt->made.log2_n, offered);
    }
}

static void *work(void *context)
{
    struct authenticator *authenticator = context;
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    struct letter *letter;

    for (;;) {
        mailbox_wait(&authenticator->inbox);
        mailbox_take(&authenticator->inbox, &letters);
        while ((letter = STAILQ_FIRST(&letters)) != NULL) {
            STAILQ_REMOVE_HEAD(&letters, link);
            if (letter == &authenticator->stop)
                return NULL;
            compute(container_of(letter, struct attempt, letter));
            mailbox_post(&authenticator->outbox, letter);
        }
    }
}

/* ---- what the answer is: the loop thread ---- */

/* The user may have gone, or changed its password, since the attempt began. */
static void judge(struct attempt *attempt)
{
    struct authenticator *authenticator = attempt->authenticator;
    struct user *user = users_find(authenticator->users, name_of(attempt));

    attempt->why = "invalid credentials";
    if (!attempt->matches || user == NULL || !password_equal(&user->password, &attempt->stored))
        return;
    attempt->why = "user can only connect via localhost"; /* 4.2.6 */
    if (!attempt->from_loopback && users_is_restricted(authenticator->users, user->name))
        return;
    attempt->why = NULL;
    attempt->user = user;
    if (attempt->wants_made)
        authenticator->on_rehash(authenticator, user, &attempt->made);
    prove(authenticator, offered_of(attempt), user->proof);
    user->verified = true;
}

static void finish(struct attempt *attempt)
{
    if (attempt->on_done != NULL) {
        if (attempt->is_login)
            judge(attempt);
        attempt->on_done(attempt);
    }
    attempt_free(attempt);
}

static void finish_later(struct attempt *attempt)
{
    struct authenticator *authenticator = attempt->authenticator;

    TAILQ_INSERT_TAIL(&authenticator->done, attempt, link);
    loop_queue(authenticator->loop, LOOP_INPUT, &authenticator->task);
}

static struct attempt *take_waiting(struct authenticator *authenticator)
{
    struct attempt *attempt = TAILQ_FIRST(&authenticator->waiting);

    if (attempt != NULL) {
        TAILQ_REMOVE(&authenticator->waiting, attempt, link);
        attempt->is_waiting = false;
    }
    return attempt;
}

/* Hands the worker what is next, or does without one. */
static void start_next(struct authenticator *authenticator)
{
    struct attempt *attempt;

    while (authenticator->running == NULL && (attempt = take_waiting(authenticator)) != NULL) {
        if (authenticator->threaded) {
            authenticator->running = attempt;
            mailbox_post(&authenticator->inbox, &attempt->letter);
        } else {
            compute(attempt);
            finish_later(attempt);
        }
    }
}

static void on_task(struct task *task)
{
    struct authenticator *authenticator = container_of(task, struct authenticator, task);
    struct attempt_list done = TAILQ_HEAD_INITIALIZER(done);
    struct attempt *attempt;

    TAILQ_CONCAT(&done, &authenticator->done, link);
    while ((attempt = TAILQ_FIRST(&done)) != NULL) {
        TAILQ_REMOVE(&done, attempt, link);
        finish(attempt);
    }
}

static void on_outbox(struct source *source, uint32_t events)
{
    struct authenticator *authenticator = container_of(source, struct authenticator, source);
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    (void)events;

    if (!mailbox_take(&authenticator->outbox, &letters))
        return;
    struct attempt *attempt = authenticator->running;
    assert(STAILQ_FIRST(&letters) == &attempt->letter);
    authenticator->running = NULL;
    finish(attempt);
    start_next(authenticator);
}

/* ---- attempts ---- */

static struct attempt *attempt_new(struct authenticator *authenticator, struct slice name,
                                   struct slice offered, attempt_done *on_done, void *context)
{
    struct attempt *attempt = xcalloc(1, sizeof(*attempt) + name.size + offered.size);

    attempt->authenticator = authenticator;
    attempt->on_done = on_done;
    attempt->context = context;
    attempt->name_size = name.size;
    attempt->offered_size = offered.size;
    amqp_put_bytes(amqp_put_bytes(attempt->bytes, name), offered);
    return attempt;
}

static void want_made(struct attempt *attempt)
{
    struct authenticator *authenticator = attempt->authenticator;

    attempt->wants_made = true;
    attempt->made.log2_n = (uint8_t)authenticator->cost;
    random_bytes(authenticator->random, attempt->made.salt, PASSWORD_SALT_SIZE);
}

static void wait(struct attempt *attempt)
{
    TAILQ_INSERT_TAIL(&attempt->authenticator->waiting, attempt, link);
    attempt->is_waiting = true;
    start_next(attempt->authenticator);
}

struct attempt *authenticator_login(struct authenticator *authenticator, struct slice name,
                                    struct slice password, bool from_loopback,
                                    attempt_done *on_done, void *context)
{
    const struct user *user = users_find(authenticator->users, name);
    struct attempt *attempt = attempt_new(authenticator, name, password, on_done, context);

    attempt->is_login = true;
    attempt->from_loopback = from_loopback;
    if (user != NULL)
        attempt->stored = user->password;
    attempt->matches = is_proven(authenticator, user, password);
    if (attempt->matches) {
        finish_later(attempt);
        return attempt;
    }
    if (attempt->stored.scheme != PASSWORD_SCRYPT)
        want_made(attempt);
    wait(attempt);
    return attempt;
}

struct attempt *authenticator_make(struct authenticator *authenticator, struct slice password,
                                   attempt_done *on_done, void *context)
{
    struct attempt *attempt =
        attempt_new(authenticator, (struct slice){0}, password, on_done, context);

    want_made(attempt);
    wait(attempt);
    return attempt;
}

void authenticator_cancel(struct attempt **attempt)
{
    struct attempt *gone = *attempt;

    *attempt = NULL;
    if (gone == NULL)
        return;
    gone->on_done = NULL;
    if (gone->is_waiting) {
        TAILQ_REMOVE(&gone->authenticator->waiting, gone, link);
        attempt_free(gone);
    }
}

/* ---- opening and closing ---- */

/* Signals are the main thread's. 0 or -errno. */
static int start_worker(struct authenticator *authenticator)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&authenticator->thread, NULL, work, authenticator);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

static int open_worker(struct authenticator *authenticator)
{
    int result = mailbox_open(&authenticator->inbox);

    if (result < 0)
        return result;
    result = mailbox_open(&authenticator->outbox);
    if (result < 0)
        goto no_outbox;
    authenticator->source = (struct source){.fd = authenticator->outbox.fd, .on_ready = on_outbox};
    result = loop_watch(authenticator->loop, &authenticator->source);
    if (result < 0)
        goto no_watch;
    result = start_worker(authenticator);
    if (result == 0)
        return 0;
    loop_unwatch(authenticator->loop, &authenticator->source);
no_watch:
    mailbox_close(&authenticator->outbox);
no_outbox:
    mailbox_close(&authenticator->inbox);
    return result;
}

int authenticator_open(struct authenticator *authenticator, struct users *users, struct loop *loop,
                       struct random *random, unsigned cost, bool threaded)
{
    *authenticator = (struct authenticator){
        .users = users,
        .loop = loop,
        .random = random,
        .cost = cost,
        .threaded = threaded,
        .task.run = on_task,
    };
    TAILQ_INIT(&authenticator->waiting);
    TAILQ_INIT(&authenticator->done);
    random_bytes(random, authenticator->key, sizeof(authenticator->key));
    return threaded ? open_worker(authenticator) : 0;
}

static void close_worker(struct authenticator *authenticator)
{
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);

    mailbox_post(&authenticator->inbox, &authenticator->stop);
    pthread_join(authenticator->thread, NULL);
    loop_unwatch(authenticator->loop, &authenticator->source);
    mailbox_take(&authenticator->outbox, &letters);
    mailbox_close(&authenticator->inbox);
    mailbox_close(&authenticator->outbox);
    if (authenticator->running != NULL)
        attempt_free(authenticator->running);
}

void authenticator_close(struct authenticator *authenticator)
{
    struct attempt *attempt;

    assert(TAILQ_EMPTY(&authenticator->waiting));
    if (authenticator->threaded)
        close_worker(authenticator);
    loop_unqueue(authenticator->loop, &authenticator->task);
    while ((attempt = TAILQ_FIRST(&authenticator->done)) != NULL) {
        TAILQ_REMOVE(&authenticator->done, attempt, link);
        attempt_free(attempt);
    }
    OPENSSL_cleanse(authenticator->key, sizeof(authenticator->key));
}
