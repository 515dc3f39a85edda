/* Users, what they may do, and what happens to those who are connected when that changes: sections
 * 4.2, 4.4, 4.7, 9.3, 16 and 17.6, in the whole broker. */
#include "amqp/client.h"
#include "core/account.h"
#include "store/memory.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

#define LOGIN_REFUSED                                                                              \
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see "    \
    "the broker logfile."

static struct harness harness;
static struct user *user;
static uint64_t lsn;

static void set_up(void)
{
    harness_init(&harness, NULL);
    user = harness_add_user(&harness, "stoat", "secret");
    harness_permit(&harness, "stoat", "/", ".*", ".*", ".*");
}

static void tear_down(void)
{
    harness_release(&harness);
}

static struct user *find(const char *name)
{
    return users_find(&harness.broker.users, slice_of_string(name));
}

static void expect_refused(const char *name, const char *password, bool remote)
{
    struct peer *peer = peer_log_in(&harness, name, password, "/", remote);

    peer_expect_close(peer, 0, 403, LOGIN_REFUSED);
    peer_free(&peer);
}

static void expect_let_in(const char *name, const char *password)
{
    struct peer *peer = peer_open_as(&harness, name, password, "/");

    peer_free(&peer);
}

static struct peer *open_as(const char *name, const char *password)
{
    struct peer *peer = peer_open_as(&harness, name, password, "/");

    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
    return peer;
}

static struct peer *open_stoat(void)
{
    return open_as("stoat", "secret");
}

/* ---- logging in ---- */

START_TEST(the_right_password_lets_in) /* 4.2.5 */
{
    expect_let_in("stoat", "secret");
    expect_let_in("stoat", "secret"); /* by proof, this time */
    expect_refused("stoat", "secrets", false);
    expect_refused("stoat", "", false);
    expect_refused("nobody", "secret", false);
    expect_let_in("stoat", "secret");
}
END_TEST

START_TEST(restricted_users_come_from_here) /* 4.2.6 */
{
    expect_refused("guest", "guest", true);
    ck_assert_uint_eq(1, harness_logged(&harness, "user can only connect via localhost"));
    struct peer *peer = peer_log_in(&harness, "stoat", "secret", "/", true);
    peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
    users_restrict_to_loopback(&harness.broker.users, SLICE("stoat"));
    expect_refused("stoat", "secret", true);
    expect_let_in("stoat", "secret");
}
END_TEST

START_TEST(a_new_password_is_the_only_one) /* 4.2.5 */
{
    const uint8_t salt[PASSWORD_SALT_SIZE] = "other";
    struct password password;

    expect_let_in("stoat", "secret");
    password_make(&password, salt, HARNESS_PASSWORD_COST, SLICE("new"));
    account_set_password(&harness.broker, user, &password, &lsn);
    expect_refused("stoat", "secret", false);
    expect_let_in("stoat", "new");
}
END_TEST

START_TEST(who_has_no_password_stays_out)
{
    account_set_password(&harness.broker, user, &(struct password){.scheme = PASSWORD_NONE}, &lsn);
    expect_refused("stoat", "secret", false);
    expect_refused("stoat", "", false);
}
END_TEST

START_TEST(an_imported_hash_becomes_ours)
{
    struct password password;

    ck_assert(password_from_text(&password, SLICE("rabbit_password_hashing_sha256"),
                                 SLICE("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")));
    account_set_password(&harness.broker, user, &password, &lsn);
    expect_refused("stoat", "test1", false);
    ck_assert_uint_eq(PASSWORD_SHA256, user->password.scheme);
    expect_let_in("stoat", "test12");
    ck_assert_uint_eq(PASSWORD_SCRYPT, user->password.scheme);
    expect_let_in("stoat", "test12");
    harness_restart(&harness, true);
    ck_assert_uint_eq(PASSWORD_SCRYPT, find("stoat")->password.scheme);
    expect_let_in("stoat", "test12");
}
END_TEST

/* The user that the answer is about need not be there any more, or be the same. */
static const char *const meanwhile[] = {"the client goes", "the user goes", "a new password",
                                        "the user goes and comes"};

START_TEST(much_can_happen_while_a_password_is_verified)
{
    const uint8_t salt[PASSWORD_SALT_SIZE] = "other";
    struct peer *peer = peer_new(&harness, false);
    struct buf out = BUF_EMPTY;
    struct password password;

    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, SLICE("stoat"), SLICE("secret"), SLICE("test"));
    memory_transport_send(&peer->memory, buf_slice(&out));
    buf_release(&out);
    while (peer->connection->attempt == NULL)
        loop_turn(&harness.loop, 0);
    ck_assert_str_eq("starting", connection_state_name(peer->connection));
    password_make(&password, salt, HARNESS_PASSWORD_COST, SLICE("new"));
    if (_i == 0)
        connection_drop(peer->connection, meanwhile[_i]);
    if (_i == 1 || _i == 3)
        account_delete(&harness.broker, user, &lsn);
    if (_i == 2)
        account_set_password(&harness.broker, user, &password, &lsn);
    if (_i == 3)
        account_create(&harness.broker, SLICE("stoat"), &password, &lsn);
    harness_run(&harness);
    if (_i == 0) {
        ck_assert(peer->memory.closed);
        return;
    }
    peer_expect(peer, 0, AMQP_CONNECTION_START);
    peer_expect_close(peer, 0, 403, LOGIN_REFUSED);
}
END_TEST

START_TEST(no_password_is_logged)
{
    expect_refused("stoat", "pa55word-canary", false);
    expect_let_in("stoat", "secret");
    ck_assert_uint_eq(0, harness_logged(&harness, "canary"));
    ck_assert_uint_eq(0, harness_logged(&harness, "secret"));
}
END_TEST

/* ---- the first start ---- */

START_TEST(the_defaults_are_given_once)
{
    struct user *guest = find("guest");

    ck_assert(slice_equal(SLICE("administrator"), guest->tags));
    harness_restart(&harness, true); /* nothing was synced by a clean stop */
    expect_let_in("guest", "guest");
    account_delete(&harness.broker, find("guest"), &lsn);
    account_delete(&harness.broker, find("stoat"), &lsn);
    harness_restart(&harness, false);
    ck_assert_uint_eq(0, harness.broker.users.by_name.count);
}
END_TEST

START_TEST(all_of_it_survives) /* 16.1, 16.3, 16.5, 17.6 */
{
    char error[PATTERN_ERROR_SIZE];
    struct vhost *vhost = vhost_find(&harness.broker, SLICE("/"));

    harness_permit(&harness, "stoat", "/", "c", "", "^r$");
    ck_assert(account_set_tags(&harness.broker, user, SLICE("monitoring,impersonator"), &lsn));
    account_set_limits(&harness.broker, user, &(struct user_limits){7, LIMIT_NONE}, &lsn);
    ck_assert(account_set_topic(&harness.broker, user, vhost, SLICE("amq.topic"),
                                SLICE("^{username}"), SLICE(""), &lsn, error));
    vhost->limits = (struct vhost_limits){LIMIT_NONE, 3};
    vhost_describe(vhost, SLICE("where stoats live"), SLICE("a,b"));
    vhost_save(vhost, &lsn);
    harness_run(&harness);
    harness_restart(&harness, _i == 1);

    user = find("stoat");
    vhost = vhost_find(&harness.broker, SLICE("/"));
    const struct grant *grant = user_open_grant(user, SLICE("/"));
    ck_assert(slice_equal(SLICE("c"), grant->rules[ACCESS_CONFIGURE].text));
    ck_assert(slice_equal(SLICE(""), grant->rules[ACCESS_WRITE].text));
    ck_assert(slice_equal(SLICE("^r$"), grant->rules[ACCESS_READ].text));
    ck_assert(slice_equal(SLICE("monitoring,impersonator"), user->tags) && user->impersonator);
    ck_assert_int_eq(7, user->limits.connection_max);
    ck_assert_int_eq(LIMIT_NONE, user->limits.channel_max);
    const struct topic_rule *topic = permission_topic(grant, SLICE("amq.topic"));
    ck_assert(slice_equal(SLICE("^{username}"), topic->write.text));
    ck_assert_int_eq(3, vhost->limits.queue_max);
    ck_assert_int_eq(LIMIT_NONE, vhost->limits.connection_max);
    ck_assert(slice_equal(SLICE("where stoats live"), vhost->description));
    ck_assert(slice_equal(SLICE("a,b"), vhost->tags));
}
END_TEST

/* ---- into a vhost ---- */

START_TEST(who_has_no_permissions_stays_out_of_the_vhost) /* 4.4.1 */
{
    static const struct {
        const char *vhost, *text;
    } cases[] = {{"/", "NOT_ALLOWED - access to vhost '/' refused for user 'weasel'"},
                 {"warren", "NOT_ALLOWED - vhost warren not found"}};

    harness_add_user(&harness, "weasel", "x");
    for (size_t i = 0; i < countof(cases); i++) {
        struct peer *peer = peer_log_in(&harness, "weasel", "x", cases[i].vhost, false);
        peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
        peer_expect_close(peer, 0, 530, cases[i].text);
    }
}
END_TEST

static void expect_not_let_in(const char *text)
{
    struct peer *peer = peer_log_in(&harness, "stoat", "secret", "/", false);

    peer_expect(peer, 0, AMQP_CONNECTION_TUNE);
    peer_expect_close(peer, 0, 530, text);
    peer_free(&peer);
}

START_TEST(connections_of_a_user_are_limited) /* 4.4.1, 17.6 */
{
    account_set_limits(&harness.broker, user, &(struct user_limits){0, LIMIT_NONE}, &lsn);
    expect_not_let_in("NOT_ALLOWED - connection refused for user 'stoat': user connection limit "
                      "(0) is reached");
    account_set_limits(&harness.broker, user, &(struct user_limits){1, LIMIT_NONE}, &lsn);
    struct peer *peer = open_stoat();
    expect_not_let_in("NOT_ALLOWED - connection refused for user 'stoat': user connection limit "
                      "(1) is reached");
    peer_free(&peer);
    peer = open_stoat();
    account_set_limits(&harness.broker, user, &(struct user_limits){LIMIT_NONE, LIMIT_NONE}, &lsn);
    open_stoat();
}
END_TEST

START_TEST(connections_to_a_vhost_are_limited) /* 4.4.1, 17.6 */
{
    struct vhost *vhost = vhost_find(&harness.broker, SLICE("/"));

    struct peer *peer = peer_open(&harness); /* somebody else's counts */
    vhost->limits.connection_max = 1;
    expect_not_let_in(
        "NOT_ALLOWED - access to vhost '/' refused for user 'stoat': connection limit "
        "(1) is reached");
    peer_free(&peer);
    open_stoat();
}
END_TEST

START_TEST(channels_of_a_user_are_limited) /* 6.1, 17.6 */
{
    account_set_limits(&harness.broker, user, &(struct user_limits){LIMIT_NONE, 2}, &lsn);
    struct peer *one = open_stoat(), *two = open_stoat();
    close_channel(one);
    peer_call(one, 9, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN}, AMQP_CHANNEL_OPEN_OK);
    peer_send(two, 2, &(struct amqp_method){.id = AMQP_CHANNEL_OPEN});
    peer_expect_close(two, 0, 530,
                      "NOT_ALLOWED - number of channels opened for user 'stoat' has reached the "
                      "maximum allowed user limit of 2");
}
END_TEST

START_TEST(queues_of_a_vhost_are_limited) /* 8.8, 17.6 */
{
    struct peer *peer = open_stoat();

    vhost_find(&harness.broker, SLICE("/"))->limits.queue_max = 1;
    declare_queue(peer, "one", true, NULL);
    declare_queue(peer, "one", true, NULL); /* that is no new one */
    peer_send(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE, .queue_declare.queue = SLICE("two")});
    peer_expect_close(peer, 1, 406,
                      "PRECONDITION_FAILED - cannot declare queue 'two': queue limit in vhost '/' "
                      "(1) is reached");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("access");
    TCase *login = tcase_create("login");
    tcase_add_checked_fixture(login, set_up, tear_down);
    tcase_set_timeout(login, 30);
    tcase_add_test(login, the_right_password_lets_in);
    tcase_add_test(login, restricted_users_come_from_here);
    tcase_add_test(login, a_new_password_is_the_only_one);
    tcase_add_test(login, who_has_no_password_stays_out);
    tcase_add_test(login, an_imported_hash_becomes_ours);
    tcase_add_loop_test(login, much_can_happen_while_a_password_is_verified, 0, countof(meanwhile));
    tcase_add_test(login, no_password_is_logged);
    tcase_add_test(login, the_defaults_are_given_once);
    tcase_add_loop_test(login, all_of_it_survives, 0, 2);
    suite_add_tcase(suite, login);

    TCase *limits = tcase_create("limits");
    tcase_add_checked_fixture(limits, set_up, tear_down);
    tcase_set_timeout(limits, 30);
    tcase_add_test(limits, who_has_no_permissions_stays_out_of_the_vhost);
    tcase_add_test(limits, connections_of_a_user_are_limited);
    tcase_add_test(limits, connections_to_a_vhost_are_limited);
    tcase_add_test(limits, channels_of_a_user_are_limited);
    tcase_add_test(limits, queues_of_a_vhost_are_limited);
    suite_add_tcase(suite, limits);
    return unit_main(suite);
}
