#include "access/authenticator.h"

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#include "base/alloc.h"

enum { QUESTIONS_MAX = 64 }; /* of an address, that wait */

struct question {
    struct turn turn;           /* in its line ... */
    TAILQ_ENTRY(question) link; /* ... then in authenticator->done */
    struct authenticator *authenticator;
    struct address *address; /* where its line is: a reference; NULL: none, or an operator's */
    struct login_line *line; /* NULL: it needs no turn */
    struct attempt_list attempts;
    bool is_login, from_loopback;

    struct user *user; /* a login's answer */
    const char *why;

    /* the worker's, while it has it */
    struct job job;
    struct password stored; /* to compare with */
    struct password made;   /* of what is offered */
    bool wants_made, matches;

    uint8_t proof[32]; /* of what is offered */
    size_t name_size, offered_size;
    uint8_t bytes[]; /* name, then what is offered: cleansed when it is freed */
};

static struct slice name_of(const struct question *question)
{
    return slice_of(question->bytes, question->name_size);
}

static struct slice offered_of(const struct question *question)
{
    return slice_of(question->bytes + question->name_size, question->offered_size);
}

static void question_free(struct question *question)
{
    assert(TAILQ_EMPTY(&question->attempts));
    if (question->address != NULL)
        address_unref(&question->address);
    OPENSSL_cleanse(question, sizeof(*question) + question->name_size + question->offered_size);
    free(question);
}

/* ---- proofs ---- */

static void prove(const struct authenticator *authenticator, struct slice password,
                  uint8_t proof[32])
{
    const uint8_t *const made = HMAC(EVP_sha256(), authenticator->key, AUTHENTICATOR_KEY_SIZE,
                                     password.data, password.size, proof, NULL);
    assert(made != NULL);
}

static bool is_proven(const struct question *question, const struct user *user)
{
    return user != NULL && user->verified &&
           CRYPTO_memcmp(question->proof, user->proof, sizeof(user->proof)) == 0;
}

/* 4.2.6 */
static bool is_too_far(const struct question *question, const struct user *user)
{
    return !question->from_loopback &&
           users_is_restricted(question->authenticator->users, user->name);
}

/* Who is refused in any case does not hear from how soon whether the password was right. */
static bool needs_no_hash(const struct question *question)
{
    const struct user *user = users_find(question->authenticator->users, name_of(question));

    return question->is_login && is_proven(question, user) && !is_too_far(question, user);
}

/* ---- the slow part: the worker, or the task ---- */

static void compute(struct question *question)
{
    const struct slice offered = offered_of(question);

    if (question->stored.scheme != PASSWORD_NONE)
        question->matches = password_matches(&question->stored, offered);
    if (question->wants_made) {
        uint8_t salt[PASSWORD_SALT_SIZE];
        memcpy(salt, question->made.salt, sizeof(salt));
        password_make(&question->made, salt, question->made.log2_n, offered);
    }
}

static void run(struct job *job)
{
    compute(container_of(job, struct question, job));
}

/* ---- turns ---- */

static struct question *question_of(struct turn *turn)
{
    return container_of(turn, struct question, turn);
}

/* A line, none of which is in hand, may have the next turn; if its time has not come, then. */
static void line_enter(struct authenticator *authenticator, struct login_line *line)
{
    struct loop *loop = authenticator->loop;
    const uint64_t from_ms =
        line->address == NULL ? 0 : address_login_ms(line->address, authenticator->delay_max_ms);

    assert(line->line.is_held && !timer_is_set(&line->pause));
    if (line->line.count > 0 && from_ms > loop->clock->now_ms)
        timer_set(&loop->timers, &line->pause, from_ms);
    else
        turn_line_let_go(&authenticator->turns, &line->line);
}

static struct question *take_next(struct authenticator *authenticator)
{
    struct turn *turn = turns_take(&authenticator->turns);

    if (turn == NULL)
        return NULL;
    struct question *question = question_of(turn);
    turn_line_hold(&authenticator->turns, &question->line->line);
    return question;
}

static void finish_later(struct question *question)
{
    struct authenticator *authenticator = question->authenticator;

    TAILQ_INSERT_TAIL(&authenticator->done, question, link);
    loop_queue(authenticator->loop, LOOP_INPUT, &authenticator->task);
}

static void on_computed(struct job *job);

/* Hands the worker what is next, or does without one. */
static void start_next(struct authenticator *authenticator)
{
    struct question *question;

    while (!authenticator->is_busy && (question = take_next(authenticator)) != NULL) {
        if (needs_no_hash(question)) {
            finish_later(question);
        } else if (authenticator->threaded) {
            authenticator->is_busy = true;
            question->job = (struct job){.run = run, .done = on_computed};
            worker_post(&authenticator->worker, &question->job);
        } else {
            compute(question);
            finish_later(question);
        }
    }
}

static void on_pause_over(struct timer *timer)
{
    struct login_line *line = container_of(timer, struct login_line, pause);
    struct authenticator *authenticator =
        question_of(TAILQ_FIRST(&line->line.waiting))->authenticator;

    line_enter(authenticator, line);
    start_next(authenticator);
}

/* ---- what the answer is: the loop thread ---- */

/* The user may have gone, or changed its password, since the question was asked; or another login
 * has proven the same password meanwhile, and had it kept in our own way. */
static void judge(struct question *question)
{
    struct authenticator *authenticator = question->authenticator;
    struct user *user = users_find(authenticator->users, name_of(question));
    const bool matches =
        question->matches && user != NULL && password_equal(&user->password, &question->stored);

    question->why = "invalid credentials";
    if (!matches && !is_proven(question, user))
        return;
    question->why = "user can only connect via localhost";
    if (is_too_far(question, user))
        return;
    question->why = NULL;
    question->user = user;
    if (matches && question->wants_made)
        authenticator->on_rehash(authenticator, user, &question->made);
    memcpy(user->proof, question->proof, sizeof(user->proof));
    user->verified = true;
}

/* Who has not waited for the answer has had a guess nevertheless. */
static void note_login(const struct question *question)
{
    if (question->user != NULL)
        address_login_succeeded(question->address, question->user->name);
    else
        address_login_failed(question->address);
}

static void tell(struct question *question)
{
    struct attempt *attempt;

    while ((attempt = TAILQ_FIRST(&question->attempts)) != NULL) {
        TAILQ_REMOVE(&question->attempts, attempt, link);
        attempt->user = question->user;
        attempt->why = question->why;
        attempt->made = &question->made;
        attempt->on_done(attempt);
        free(attempt);
    }
}

static void finish(struct question *question)
{
    struct authenticator *authenticator = question->authenticator;
    struct login_line *line = question->line;

    if (question->is_login && !TAILQ_EMPTY(&question->attempts))
        judge(question);
    if (question->address != NULL)
        note_login(question);
    if (line != NULL)
        line_enter(authenticator, line);
    tell(question);
    question_free(question);
}

static void on_task(struct task *task)
{
    struct authenticator *authenticator = container_of(task, struct authenticator, task);
    struct question_list done = TAILQ_HEAD_INITIALIZER(done);
    struct question *question;

    TAILQ_CONCAT(&done, &authenticator->done, link);
    while ((question = TAILQ_FIRST(&done)) != NULL) {
        TAILQ_REMOVE(&done, question, link);
        finish(question);
    }
    start_next(authenticator);
}

static void on_computed(struct job *job)
{
    struct question *question = container_of(job, struct question, job);
    struct authenticator *authenticator = question->authenticator;

    authenticator->is_busy = false;
    finish(question);
    start_next(authenticator);
}

static void on_worker_ready(struct source *source, uint32_t events)
{
    (void)events;
    worker_process(&container_of(source, struct authenticator, source)->worker);
}

/* ---- attempts ---- */

static struct question *question_new(struct authenticator *authenticator, struct slice name,
                                     struct slice offered)
{
    struct question *question = xcalloc(1, sizeof(*question) + name.size + offered.size);

    question->authenticator = authenticator;
    TAILQ_INIT(&question->attempts);
    question->name_size = name.size;
    question->offered_size = offered.size;
    amqp_put_bytes(amqp_put_bytes(question->bytes, name), offered);
    prove(authenticator, offered, question->proof);
    return question;
}

static void want_made(struct question *question)
{
    struct authenticator *authenticator = question->authenticator;

    question->wants_made = true;
    question->made.log2_n = (uint8_t)authenticator->cost;
    random_bytes(authenticator->random, question->made.salt, PASSWORD_SALT_SIZE);
}

static struct attempt *attempt_new(struct question *question, attempt_done *on_done, void *context)
{
    struct attempt *attempt = xcalloc(1, sizeof(*attempt));

    *attempt = (struct attempt){.question = question, .on_done = on_done, .context = context};
    TAILQ_INSERT_TAIL(&question->attempts, attempt, link);
    return attempt;
}

static void ask(struct question *question, struct login_line *line)
{
    struct authenticator *authenticator = question->authenticator;

    question->line = line;
    if (line->address != NULL)
        question->address = address_ref(line->address);
    line->pause.on_expire = on_pause_over;
    turn_wait(&authenticator->turns, &line->line, &question->turn);
    if (!line->line.is_held) {
        turn_line_hold(&authenticator->turns, &line->line);
        line_enter(authenticator, line);
    }
    start_next(authenticator);
}

static bool is_same(const struct question *a, const struct question *b)
{
    return a->is_login == b->is_login && a->from_loopback == b->from_loopback &&
           slice_equal(name_of(a), name_of(b)) && password_equal(&a->stored, &b->stored) &&
           CRYPTO_memcmp(a->proof, b->proof, sizeof(a->proof)) == 0;
}

/* The one that waits already, or NULL. */
static struct question *find_same(const struct login_line *line, const struct question *question)
{
    struct turn *turn;

    TAILQ_FOREACH (turn, &line->line.waiting, link)
        if (is_same(question_of(turn), question))
            return question_of(turn);
    return NULL;
}

/* The question goes into the line, unless one that is the same is there, or too many are. */
static struct attempt *ask_in_turn(struct question *question, struct address *address,
                                   attempt_done *on_done, void *context)
{
    struct question *same = find_same(&address->logins, question);

    if (same == NULL && address->logins.line.count < QUESTIONS_MAX) {
        struct attempt *attempt = attempt_new(question, on_done, context);
        ask(question, &address->logins);
        return attempt;
    }
    question_free(question);
    return same == NULL ? NULL : attempt_new(same, on_done, context);
}

struct attempt *authenticator_login(struct authenticator *authenticator, struct slice name,
                                    struct slice password, struct address *address,
                                    bool from_loopback, attempt_done *on_done, void *context)
{
    const struct user *user = users_find(authenticator->users, name);
    struct question *question = question_new(authenticator, name, password);

    question->is_login = true;
    question->from_loopback = from_loopback;
    if (user != NULL)
        question->stored = user->password;
    if (address != NULL && address_is_regular(address, name, is_proven(question, user))) {
        struct attempt *attempt = attempt_new(question, on_done, context);
        finish_later(question);
        return attempt;
    }
    if (question->stored.scheme != PASSWORD_SCRYPT)
        want_made(question);
    if (address != NULL)
        return ask_in_turn(question, address, on_done, context);
    struct attempt *attempt = attempt_new(question, on_done, context);
    ask(question, &authenticator->operators);
    return attempt;
}

struct attempt *authenticator_make(struct authenticator *authenticator, struct slice password,
                                   attempt_done *on_done, void *context)
{
    struct question *question = question_new(authenticator, (struct slice){0}, password);
    struct attempt *attempt = attempt_new(question, on_done, context);

    want_made(question);
    ask(question, &authenticator->operators);
    return attempt;
}

/* A pause is for somebody. */
static void leave_line(struct question *question)
{
    struct login_line *line = question->line;

    turn_cancel(&question->authenticator->turns, &question->turn);
    if (line->line.count > 0 || !timer_is_set(&line->pause))
        return;
    timer_cancel(&line->pause);
    turn_line_let_go(&question->authenticator->turns, &line->line);
}

/* A question that has its turn, or needs none, is answered to nobody. */
void authenticator_cancel(struct attempt **attempt)
{
    struct attempt *gone = *attempt;

    *attempt = NULL;
    if (gone == NULL)
        return;
    struct question *question = gone->question;
    TAILQ_REMOVE(&question->attempts, gone, link);
    free(gone);
    if (question->turn.line != NULL && TAILQ_EMPTY(&question->attempts)) {
        leave_line(question);
        question_free(question);
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
    turns_init(&authenticator->turns);
    turn_line_init(&authenticator->operators.line);
    TAILQ_INIT(&authenticator->done);
    random_bytes(random, authenticator->key, sizeof(authenticator->key));
    return threaded ? open_worker(authenticator) : 0;
}

void authenticator_close(struct authenticator *authenticator)
{
    struct question *question;

    assert(TAILQ_EMPTY(&authenticator->turns.lines) && authenticator->operators.line.count == 0);
    if (authenticator->threaded) {
        loop_unwatch(authenticator->loop, &authenticator->source);
        worker_close(&authenticator->worker);
    }
    loop_unqueue(authenticator->loop, &authenticator->task);
    while ((question = TAILQ_FIRST(&authenticator->done)) != NULL) {
        TAILQ_REMOVE(&authenticator->done, question, link);
        question_free(question);
    }
    OPENSSL_cleanse(authenticator->key, sizeof(authenticator->key));
}
