/* Who is it: the same work whatever is wrong, turns by address, which come late after failures, and
 * answers that nobody wants any more; with the worker thread, but where it is not the point. */
#include "access/authenticator.h"

#include "tests/lib/unit.h"

enum { COST = 4 };

static struct clock now = {.fake = true, .now_ms = 1000};
static struct loop loop;
static struct random source;
static struct users users;
static struct authenticator authenticator;
static struct addresses addresses;
static struct visitor visitors[32]; /* whoever has been asked for, by address */
static size_t visitor_count;
static char order[32]; /* who was told, in what order */
static bool right;     /* what the last one was told */
static size_t count_right, count_rehashed;

static void on_rehash(struct authenticator *asked, struct user *user,
                      const struct password *password)
{
    (void)asked;
    user_set_password(user, password);
    count_rehashed++;
}

static void add_user(const char *name, const char *clear)
{
    const uint8_t salt[PASSWORD_SALT_SIZE] = "salt";
    struct password password;

    password_make(&password, salt, COST, slice_of_string(clear));
    user_set_password(user_new(&users, slice_of_string(name)), &password);
}

static void import_user(const char *name) /* with RabbitMQ's hash of "test12" */
{
    struct password imported;

    ck_assert(password_from_text(&imported, SLICE("rabbit_password_hashing_sha256"),
                                 SLICE("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")));
    user_set_password(user_new(&users, slice_of_string(name)), &imported);
}

static void open_it(bool threaded)
{
    random_init_seeded(&source, 1);
    ck_assert_int_eq(0, loop_init(&loop, &now));
    users_init(&users);
    addresses_init(&addresses, &now);
    ck_assert_int_eq(0, authenticator_open(&authenticator, &users, &loop, &source, COST, threaded));
    authenticator.on_rehash = on_rehash;
    add_user("stoat", "secret");
    order[0] = '\0';
}

static void set_up(void)
{
    open_it(true);
}

static void leave(void)
{
    while (visitor_count > 0)
        visitor_leave(&visitors[--visitor_count]);
}

static void tear_down(void)
{
    leave();
    authenticator_close(&authenticator);
    addresses_release(&addresses);
    users_release(&users);
    loop_release(&loop);
}

static void on_done(struct attempt *attempt)
{
    const size_t size = strlen(order);

    order[size] = *(const char *)attempt->context;
    order[size + 1] = '\0';
    right = attempt->user != NULL;
    count_right += right;
}

static struct address *address_of(const char *host)
{
    struct endpoint peer = {.loopback = true};

    for (size_t i = 0; i < visitor_count; i++)
        if (strcmp(visitors[i].address->key, host) == 0)
            return visitors[i].address;
    ck_assert_uint_lt(visitor_count, countof(visitors));
    snprintf(peer.host, sizeof(peer.host), "%s", host);
    visitor_enter(&visitors[visitor_count], &addresses, &peer);
    return visitors[visitor_count++].address;
}

static struct attempt *begin(const char *name, const char *password, const char *host,
                             const char *label)
{
    return authenticator_login(&authenticator, slice_of_string(name), slice_of_string(password),
                               address_of(host), true, on_done, (void *)(uintptr_t)label);
}

static void wait_for(size_t count)
{
    while (strlen(order) < count)
        loop_turn(&loop, 1000);
}

static bool log_in(const char *name, const char *password)
{
    order[0] = '\0';
    begin(name, password, "a", "x");
    wait_for(1);
    return right;
}

START_TEST(answers)
{
    ck_assert(log_in("stoat", "secret"));
    ck_assert(log_in("stoat", "secret"));
    ck_assert(!log_in("stoat", "secrets"));
    ck_assert(!log_in("weasel", "secret"));
    ck_assert(!log_in("stoat", ""));
}
END_TEST

/* A user without a password, with RabbitMQ's hash, with ours, and none at all. */
START_TEST(the_work_is_the_same_whatever_is_wrong)
{
    user_new(&users, SLICE("none"));
    import_user("imported");
    for (size_t i = 0; i < 20; i++) {
        static const char *const names[] = {"none", "imported", "stoat", "nobody", ""};
        static const char *const passwords[] = {"wrong", "", "secret\1", "a longer one than that"};
        const char *name = names[i % countof(names)], *password = passwords[i / countof(names)];
        const uint64_t before = password_work();
        ck_assert(!log_in(name, password));
        ck_assert_msg(password_work() - before == (UINT64_C(1) << COST) * 8,
                      "'%s' with '%s' costs %" PRIu64, name, password, password_work() - before);
    }
    const uint64_t before = password_work();
    ck_assert(log_in("stoat", "secret")); /* and so does the right one, the first time */
    ck_assert_uint_eq(password_work() - before, (UINT64_C(1) << COST) * 8);
}
END_TEST

START_TEST(a_proof_spares_the_slow_function)
{
    ck_assert(log_in("stoat", "secret"));
    struct user *user = users_find(&users, SLICE("stoat"));
    ck_assert(user->verified);
    user->password.hash[0] ^= 1; /* would not match any more */
    ck_assert(log_in("stoat", "secret"));
    user_set_password(user, &user->password);
    ck_assert(!log_in("stoat", "secret"));
}
END_TEST

/* 4.2.6: nobody is to tell a right password from a wrong one by a refusal that comes sooner. */
START_TEST(a_proof_spares_nothing_from_afar)
{
    static const char *const passwords[] = {"secret", "wrong"};

    users_restrict_to_loopback(&users, SLICE("stoat"));
    ck_assert(log_in("stoat", "secret"));
    for (size_t i = 0; i < countof(passwords); i++) {
        const uint64_t before = password_work();
        order[0] = '\0';
        authenticator_login(&authenticator, SLICE("stoat"), slice_of_string(passwords[i]),
                            address_of("far"), false, on_done, (void *)(uintptr_t) "x");
        wait_for(1);
        ck_assert(!right);
        ck_assert_uint_eq(password_work() - before, (UINT64_C(1) << COST) * 8);
    }
}
END_TEST

/* The first has the password kept in our own way: the others are neither refused for that, nor made
 * to wait for the slow function. */
START_TEST(logins_of_one_user_at_once_are_all_right)
{
    tear_down();
    open_it(_i == 0);
    import_user("imported");
    count_right = count_rehashed = 0;
    for (size_t i = 0; i < 20; i++)
        begin("imported", "test12", "a", "x");
    begin("imported", "wrong", "a", "y");
    wait_for(21);
    ck_assert_uint_eq(count_right, 20);
    ck_assert_uint_eq(count_rehashed, 1);
}
END_TEST

/* In which order those who come from there, one after another, have their answers. */
static void expect_order(const char *expected, const char *const *hosts)
{
    static const char digits[] = "12345";

    for (size_t i = 0; i < strlen(expected); i++)
        begin("stoat", digits + i, hosts[i], digits + i);
    wait_for(strlen(expected));
    ck_assert_str_eq(expected, order);
}

START_TEST(addresses_take_turns)
{
    expect_order("14253", (const char *[]){"a", "a", "a", "b", "b"});
}
END_TEST

/* What has 64 bits in common is one. */
START_TEST(sites_take_turns)
{
    expect_order("14523", (const char *[]){"2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1",
                                           "2001:db8:0:1::1"});
}
END_TEST

/* Whoever has a turn has one question in hand, and the others of its address stand behind those who
 * came meanwhile. Nor does a crowd hold up one who comes after it. */
START_TEST(a_crowd_waits_behind_its_own)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz";

    for (size_t i = 0; i < 26; i++)
        begin("stoat", alphabet + i, "a", alphabet + i);
    begin("stoat", "secret", "b", "!");
    wait_for(27);
    ck_assert_str_eq("a!bcdefghijklmnopqrstuvwxyz", order);
}
END_TEST

START_TEST(who_asks_the_same_gets_the_same_answer)
{
    static const struct {
        const char *name, *password, *host;
        bool same;
    } rows[] = {
        {"stoat", "wrong", "b", false},  {"stoat", "wrong", "b", true},
        {"stoat", "wrong", "c", false},  {"stoat", "wrong2", "b", false},
        {"weasel", "wrong", "b", false}, {"weasel", "wrong", "b", true},
    };
    size_t different = 1;

    begin("stoat", "first", "a", "x"); /* keeps the worker */
    const uint64_t before = password_work();
    for (size_t i = 0; i < countof(rows); i++) {
        begin(rows[i].name, rows[i].password, rows[i].host, "x");
        different += !rows[i].same;
    }
    wait_for(1 + countof(rows));
    ck_assert_uint_le(password_work() - before, different * (UINT64_C(1) << COST) * 8);
    ck_assert_uint_ge(password_work() - before, (different - 1) * (UINT64_C(1) << COST) * 8);
}
END_TEST

START_TEST(so_many_of_an_address_may_wait)
{
    char password[16];
    struct attempt *attempts[66], *far;

    for (int i = 0; i < 66; i++) {
        snprintf(password, sizeof(password), "%d", i);
        attempts[i] = begin("stoat", password, "a", "x");
        ck_assert_msg((attempts[i] != NULL) == (i < 65), "%d", i); /* the first has its turn */
    }
    far = begin("stoat", "x", "b", "x");
    ck_assert_ptr_nonnull(far);
    authenticator_cancel(&far);
    for (int i = 1; i < 65; i++)
        authenticator_cancel(&attempts[i]);
    ck_assert_ptr_nonnull(begin("stoat", "secret", "a", "x"));
    wait_for(2);
    ck_assert(right);
}
END_TEST

/* ---- after failures ---- */

static void turn_until_quiet(void)
{
    for (int i = 0; i < 10; i++)
        loop_turn(&loop, 0);
}

static void open_with_delays(void)
{
    tear_down();
    open_it(false);
    authenticator.delay_max_ms = 3000;
}

static void on_guessed(struct attempt *attempt)
{
    *(struct attempt **)attempt->context = NULL;
}

static void guess(struct attempt **pending, const char *name, const char *password)
{
    *pending = authenticator_login(&authenticator, slice_of_string(name), slice_of_string(password),
                                   address_of("a"), true, on_guessed, pending);
    ck_assert_ptr_nonnull(*pending);
}

/* Awaiting each answer, or those of many at once, or giving each up before it comes; as the same
 * visitor or always another. */
START_TEST(guesses_are_few)
{
    static const struct {
        size_t at_once;
        bool gives_up, leaves;
    } rows[] = {{1, false, false}, {20, false, false}, {1, true, false}, {20, true, true}};
    struct attempt *pending[20] = {NULL};
    const uint64_t before = password_work(), until_ms = now.now_ms + 600000;
    char password[16];
    int next = 0;

    open_with_delays();
    while (now.now_ms < until_ms) {
        for (size_t i = 0; i < rows[_i].at_once; i++) {
            if (rows[_i].leaves && i == 0)
                leave();
            snprintf(password, sizeof(password), "%d", next);
            if (pending[i] == NULL && ++next > 0)
                guess(&pending[i], "stoat", password);
            if (rows[_i].gives_up)
                authenticator_cancel(&pending[i]);
        }
        turn_until_quiet();
        now.now_ms += 20;
    }
    for (size_t i = 0; i < countof(pending); i++)
        authenticator_cancel(&pending[i]);
    const uint64_t guesses = (password_work() - before) / ((UINT64_C(1) << COST) * 8);
    ck_assert_msg(guesses >= 190 && guesses <= 210, "%" PRIu64 " guesses in 10 minutes", guesses);
}
END_TEST

static void fail_often(const char *name, int count)
{
    char password[16];

    for (int i = 0; i < count; i++) {
        struct attempt *pending;
        snprintf(password, sizeof(password), "%d", i);
        guess(&pending, name, password);
        while (pending != NULL) {
            turn_until_quiet();
            now.now_ms += 100;
        }
    }
}

static bool is_in_at_once(const char *name, const char *password, const char *host)
{
    struct attempt *attempt;

    order[0] = '\0';
    right = false;
    attempt = begin(name, password, host, "x");
    turn_until_quiet();
    if (order[0] == '\0')
        authenticator_cancel(&attempt);
    return right;
}

START_TEST(a_login_waits_after_failures)
{
    open_with_delays();
    fail_often("stoat", 5); /* the next turn is 1.6 s after the last, of which one tenth is over */
    ck_assert(is_in_at_once("stoat", "secret", "b"));
    ck_assert(!is_in_at_once("stoat", "secret", "a"));
    now.now_ms += 1400;
    ck_assert(!is_in_at_once("stoat", "secret", "a"));
    now.now_ms += 100;
    ck_assert(is_in_at_once("stoat", "secret", "a"));
    fail_often("stoat", 1);
    leave();
    ck_assert(!is_in_at_once("weasel", "secret", "a"));
    now.now_ms += 60000; /* all is forgotten */
    fail_often("stoat", 1);
    add_user("weasel", "secret");
    now.now_ms += 100;
    ck_assert(is_in_at_once("weasel", "secret", "a"));
}
END_TEST

START_TEST(regulars_do_not_wait)
{
    open_with_delays();
    add_user("weasel", "secret");
    ck_assert(is_in_at_once("stoat", "secret", "a"));
    leave();
    fail_often("weasel", 20);
    ck_assert(is_in_at_once("stoat", "secret", "a"));
    ck_assert(!is_in_at_once("weasel", "secret", "a")); /* has not been here */
    fail_often("stoat", 9);
    ck_assert(is_in_at_once("stoat", "secret", "a"));
    fail_often("stoat", 1);
    ck_assert(!is_in_at_once("stoat", "secret", "a"));
    now.now_ms += 3000;
    ck_assert(is_in_at_once("stoat", "secret", "a")); /* in turn */
    fail_often("weasel", 1);
    ck_assert(is_in_at_once("stoat", "secret", "a"));
    user_set_password(users_find(&users, SLICE("stoat")),
                      &users_find(&users, SLICE("weasel"))->password);
    ck_assert(!is_in_at_once("stoat", "secret", "a"));
}
END_TEST

START_TEST(who_cancels_is_not_told)
{
    struct attempt *running = begin("stoat", "secret", "a", "1"),
                   *waiting = begin("stoat", "secret", "a", "2"), *none = NULL;

    begin("stoat", "secret", "a", "3");
    authenticator_cancel(&running);
    authenticator_cancel(&waiting);
    authenticator_cancel(&none);
    ck_assert_ptr_null(running);
    wait_for(1);
    ck_assert_str_eq("3", order);
}
END_TEST

/* Nothing leaks, and nobody is told: checked by the sanitizers and by tear_down. */
START_TEST(it_may_be_closed_at_any_time)
{
    struct attempt *attempts[3];

    for (int i = 0; i < 3; i++)
        attempts[i] = begin("stoat", i == 2 && _i == 1 ? "secret" : "x", "a", "x");
    for (int i = 0; i < 3; i++)
        authenticator_cancel(&attempts[i]);
}
END_TEST

START_TEST(without_a_thread_it_answers_in_another_turn)
{
    tear_down();
    open_it(false);
    begin("stoat", "secret", "a", "x");
    ck_assert_str_eq("", order);
    loop_turn(&loop, 0);
    ck_assert_str_eq("x", order);
    ck_assert(right);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("authenticator");
    TCase *tests = tcase_create("authenticator");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, answers);
    tcase_add_test(tests, the_work_is_the_same_whatever_is_wrong);
    tcase_add_test(tests, a_proof_spares_the_slow_function);
    tcase_add_test(tests, a_proof_spares_nothing_from_afar);
    tcase_add_loop_test(tests, logins_of_one_user_at_once_are_all_right, 0, 2);
    tcase_add_test(tests, addresses_take_turns);
    tcase_add_test(tests, sites_take_turns);
    tcase_add_test(tests, a_crowd_waits_behind_its_own);
    tcase_add_test(tests, who_asks_the_same_gets_the_same_answer);
    tcase_add_test(tests, so_many_of_an_address_may_wait);
    tcase_add_loop_test(tests, guesses_are_few, 0, 4);
    tcase_add_test(tests, a_login_waits_after_failures);
    tcase_add_test(tests, regulars_do_not_wait);
    tcase_add_test(tests, who_cancels_is_not_told);
    tcase_add_loop_test(tests, it_may_be_closed_at_any_time, 0, 2);
    tcase_add_test(tests, without_a_thread_it_answers_in_another_turn);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
