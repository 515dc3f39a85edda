/* Who is it: the same work whatever is wrong, turns by address, and answers that nobody wants any
 * more; with the worker thread, but where it is not the point. */
#include "access/authenticator.h"

#include "tests/lib/unit.h"

enum { COST = 4 };

static struct clock now = {.fake = true, .now_ms = 1000};
static struct loop loop;
static struct random source;
static struct users users;
static struct authenticator authenticator;
static char order[32]; /* who was told, in what order */
static bool right;     /* what the last one was told */
static bool computed;  /* the slow function was run for it, whatever it was compared with */
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
    ck_assert_int_eq(0, authenticator_open(&authenticator, &users, &loop, &source, COST, threaded));
    authenticator.on_rehash = on_rehash;
    add_user("stoat", "secret");
    order[0] = '\0';
}

static void set_up(void)
{
    open_it(true);
}

static void tear_down(void)
{
    authenticator_close(&authenticator);
    users_release(&users);
    loop_release(&loop);
}

static void on_done(struct attempt *attempt)
{
    const size_t size = strlen(order);

    order[size] = *(const char *)attempt->context;
    order[size + 1] = '\0';
    right = attempt->user != NULL;
    computed = attempt->stored.scheme == PASSWORD_SCRYPT || attempt->made.hash_size > 0;
    count_right += right;
}

static struct attempt *begin(const char *name, const char *password, const char *host,
                             const char *label)
{
    struct endpoint peer = {.loopback = true};

    snprintf(peer.host, sizeof(peer.host), "%s", host);
    return authenticator_login(&authenticator, slice_of_string(name), slice_of_string(password),
                               &peer, on_done, (void *)(uintptr_t)label);
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

START_TEST(addresses_take_turns)
{
    begin("stoat", "1", "a", "1");
    begin("stoat", "2", "a", "2");
    begin("stoat", "3", "a", "3");
    begin("stoat", "4", "b", "4");
    begin("stoat", "5", "b", "5");
    wait_for(5);
    ck_assert_str_eq("14253", order);
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
    tcase_add_loop_test(tests, logins_of_one_user_at_once_are_all_right, 0, 2);
    tcase_add_test(tests, addresses_take_turns);
    tcase_add_test(tests, who_cancels_is_not_told);
    tcase_add_loop_test(tests, it_may_be_closed_at_any_time, 0, 2);
    tcase_add_test(tests, without_a_thread_it_answers_in_another_turn);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
