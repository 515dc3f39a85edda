#include "access/authenticator.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>

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

static void run(struct job *job)
{
    compute(container_of(job, struct attempt, job));
}

/* ---- what the answer is: the loop thread ---- */

/* The user may have gone, or changed its password, since the attempt began; or another login has
 * proven the same password meanwhile, and had it kept in our own way. */
static void judge(struct attempt *attempt)
{
    struct authenticator *authenticator = attempt->authenticator;
    struct user *user = users_find(authenticator->users, name_of(attempt));
    const bool proven = is_proven(authenticator, user, offered_of(attempt));
    const bool matches =
        attempt->matches && user != NULL && password_equal(&user->password, &attempt->stored);

    attempt->why = "invalid credentials";
    if (!matches && !proven)
        return;
    attempt->why = "user can only connect via localhost"; /* 4.2.6 */
    if (!attempt->from_loopback && users_is_restricted(authenticator->users, user->name))
        return;
    attempt->why = NULL;
    attempt->user = user;
    if (matches && attempt->wants_made)
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
        authenticator->turn = attempt->turn;
        memcpy(authenticator->served, attempt->from, sizeof(attempt->from));
    }
    return attempt;
}

static void on_computed(struct job *job);

/* Whether the slow function is not needed, since another login has proven the same password. */
static bool needs_no_hash(const struct attempt *attempt)
{
    const struct authenticator *authenticator = attempt->authenticator;

    return attempt->is_login &&
           is_proven(authenticator, users_find(authenticator->users, name_of(attempt)),
                     offered_of(attempt));
}

/* Hands the worker what is next, or does without one. */
static void start_next(struct authenticator *authenticator)
{
    struct attempt *attempt;

    while (authenticator->running == NULL && (attempt = take_waiting(authenticator)) != NULL) {
        if (needs_no_hash(attempt)) {
            finish_later(attempt);
        } else if (authenticator->threaded) {
            authenticator->running = attempt;
            attempt->job = (struct job){.run = run, .done = on_computed};
            worker_post(&authenticator->worker, &attempt->job);
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

static void on_computed(struct job *job)
{
    struct attempt *attempt = container_of(job, struct attempt, job);
    struct authenticator *authenticator = attempt->authenticator;

    authenticator->running = NULL;
    finish(attempt);
    start_next(authenticator);
}

static void on_worker_ready(struct source *source, uint32_t events)
{
    (void)events;
    worker_process(&container_of(source, struct authenticator, source)->worker);
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

/* One turn after the last of its address, and behind those who have the same turn. */
static void wait(struct attempt *attempt)
{
    struct authenticator *authenticator = attempt->authenticator;
    struct attempt *other;

    attempt->turn = authenticator->turn;
    if (strcmp(attempt->from, authenticator->served) == 0)
        attempt->turn++;
    TAILQ_FOREACH (other, &authenticator->waiting, link)
        if (strcmp(attempt->from, other->from) == 0)
            attempt->turn = max_of(attempt->turn, other->turn + 1);
    TAILQ_FOREACH (other, &authenticator->waiting, link)
        if (other->turn > attempt->turn)
            break;
    if (other != NULL)
        TAILQ_INSERT_BEFORE(other, attempt, link);
    else
        TAILQ_INSERT_TAIL(&authenticator->waiting, attempt, link);
    attempt->is_waiting = true;
    start_next(authenticator);
}

struct attempt *authenticator_login(struct authenticator *authenticator, struct slice name,
                                    struct slice password, const struct endpoint *peer,
                                    attempt_done *on_done, void *context)
{
    const struct user *user = users_find(authenticator->users, name);
    struct attempt *attempt = attempt_new(authenticator, name, password, on_done, context);

    attempt->is_login = true;
    attempt->from_loopback = peer->loopback;
    memcpy(attempt->from, peer->host, sizeof(attempt->from));
    if (user != NULL)
        attempt->stored = user->password;
    if (needs_no_hash(attempt)) {
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

static int open_worker(struct authenticator *authenticator)
{
    int result = worker_open(&authenticator->worker);

    if (result < 0)
        return result;
    authenticator->source =
        (struct source){.fd = worker_fd(&authenticator->worker), .on_ready = on_worker_ready};
    result = loop_watch(authenticator->loop, &authenticator->source);
    if (result < 0)
        worker_close(&authenticator->worker);
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

void authenticator_close(struct authenticator *authenticator)
{
    struct attempt *attempt;

    assert(TAILQ_EMPTY(&authenticator->waiting));
    if (authenticator->threaded) {
        loop_unwatch(authenticator->loop, &authenticator->source);
        worker_close(&authenticator->worker);
    }
    loop_unqueue(authenticator->loop, &authenticator->task);
    while ((attempt = TAILQ_FIRST(&authenticator->done)) != NULL) {
        TAILQ_REMOVE(&authenticator->done, attempt, link);
        attempt_free(attempt);
    }
    OPENSSL_cleanse(authenticator->key, sizeof(authenticator->key));
}
