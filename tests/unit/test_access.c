/* Users, what they may do, and what happens to those who are connected when that changes: sections
 * 4.2, 4.4, 4.7, 9.3, 16 and 17.6, in the whole broker. */
#include "amqp/client.h"
#include "amqp/table.h"
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

/* AMQPLAIN can say names that PLAIN cannot: none of them is cut to one that is known. */
START_TEST(a_name_is_taken_as_it_is) /* 4.2.3, 4.2.5 */
{
    char longest[2 * USER_NAME_SIZE_MAX];
    const struct slice names[] = {SLICE("stoat\0"), SLICE("stoat\0x"),
                                  slice_of(longest, sizeof(longest))};

    memset(longest, 'x', sizeof(longest));
    longest[USER_NAME_SIZE_MAX] = '\0';
    harness_add_user(&harness, longest, "secret");
    harness_permit(&harness, longest, "/", "", "", "");
    expect_let_in(longest, "secret");
    longest[USER_NAME_SIZE_MAX] = 'x';
    for (size_t i = 0; i < countof(names); i++) {
        struct peer *peer = peer_new(&harness, false);
        struct buf response = BUF_EMPTY, out = BUF_EMPTY;
        amqp_table_put_string(&response, SLICE("LOGIN"), names[i]);
        amqp_table_put_string(&response, SLICE("PASSWORD"), SLICE("secret"));
        const struct amqp_method start_ok = {
            .id = AMQP_CONNECTION_START_OK,
            .connection_start_ok = {.mechanism = SLICE("AMQPLAIN"),
                                    .response = buf_slice(&response)}};
        amqp_client_protocol_header(&out);
        amqp_method_encode(&out, 0, &start_ok);
        peer_send_bytes(peer, buf_slice(&out));
        peer_expect(peer, 0, AMQP_CONNECTION_START);
        peer_expect_nothing(peer); /* refused, and left to wait: it said nothing of its abilities */
        ck_assert_uint_eq(i + 1, harness.broker.counters.logins_refused);
        buf_release(&response);
        buf_release(&out);
    }
}
END_TEST

START_TEST(logins_are_counted) /* 4.2.7 */
{
    expect_let_in("stoat", "secret");
    expect_refused("stoat", "secrets", false);
    expect_refused("nobody", "secret", false);
    ck_assert_uint_eq(1, harness.broker.counters.logins);
    ck_assert_uint_eq(2, harness.broker.counters.logins_refused);
}
END_TEST

START_TEST(restricted_users_come_from_here) /* 4.2.6, CVE-2026-57216 */
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

START_TEST(who_has_no_password_stays_out) /* CVE-2016-9877 */
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

START_TEST(no_password_is_logged) /* CVE-2025-50200 */
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

/* A vhost as the first version wrote it, and nothing of users. */
START_TEST(an_older_store_is_given_them_too)
{
    static const uint8_t key[] = {1, 0, 0, 0, 0, 0, 0, 0, 1},
                         value[] = {1, 6, 'b', 'u', 'r', 'r', 'o', 'w'};
    struct store *store = store_memory_new();

    tear_down();
    store_put_record(store, slice_of(key, sizeof(key)), slice_of(value, sizeof(value)));
    store_submit(store);
    store_process(store);
    harness_init_over(&harness, NULL, store);
    ck_assert_ptr_null(vhost_find(&harness.broker, SLICE("/")));
    struct peer *peer = peer_open_as(&harness, "guest", "guest", "burrow");
    open_channel(peer);
    declare_queue(peer, "q", true, NULL);
    user = harness_add_user(&harness, "stoat", "secret");
    harness_restart(&harness, true);
    peer_open_as(&harness, "guest", "guest", "burrow");
    ck_assert_uint_eq(0, harness_logged(&harness, "cannot be used"));
}
END_TEST

/* As a salvage leaves it that saves nothing. */
START_TEST(a_store_that_lost_its_users_is_given_none)
{
    struct store *store = store_memory_new();

    tear_down();
    store_memory_salvage(store);
    harness_init_over(&harness, NULL, store);
    for (int i = 0; i < 2; i++) {
        ck_assert_uint_eq(0, harness.broker.users.by_name.count);
        ck_assert_ptr_nonnull(vhost_find(&harness.broker, SLICE("/")));
        ck_assert_uint_eq(i + 1,
                          harness_logged(&harness, "there is no user left: nobody can log in until "
                                                   "'stoatctl add_user' makes one"));
        harness_restart(&harness, true);
    }
    user = harness_add_user(&harness, "stoat", "secret");
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

enum { KIND_USER = 6, KIND_GRANT, KIND_TOPIC };

/* A record that damage took away: no batch of the broker's own says so. */
static void lose_record(unsigned kind, uint64_t id, unsigned copies)
{
    uint8_t key[9];

    for (unsigned copy = 0; copy < copies; copy++) {
        amqp_put_u64(amqp_put_u8(key, (uint8_t)(kind | copy << 7)), id);
        store_delete_record(harness.store, slice_of(key, sizeof(key)));
    }
    broker_touch_store(&harness.broker);
    harness_run(&harness);
}

START_TEST(a_lost_topic_permission_is_shut) /* 16.3 */
{
    char error[PATTERN_ERROR_SIZE];
    const struct vhost *vhost = vhost_find(&harness.broker, SLICE("/"));
    struct amqp_error refused;

    ck_assert(account_set_topic(&harness.broker, user, vhost, SLICE("amq.topic"), SLICE("^a"),
                                SLICE("^a"), &lsn, error)); /* before it may do anything */
    harness_permit(&harness, "stoat", "/", ".*", ".*", ".*");
    ck_assert(account_set_topic(&harness.broker, user, vhost, SLICE("x"), SLICE("^x"), SLICE("^x"),
                                &lsn, error));
    ck_assert(account_set_topic(&harness.broker, user, vhost, SLICE("y"), SLICE("^y"), SLICE("^y"),
                                &lsn, error));
    struct grant *grant = user_open_grant(user, SLICE("/"));
    account_clear_topic(&harness.broker, grant,
                        (struct topic_rule *)(uintptr_t)permission_topic(grant, SLICE("y")), &lsn);
    harness_run(&harness);
    lose_record(KIND_TOPIC, permission_topic(grant, SLICE("amq.topic"))->record_id, 2);
    harness_restart(&harness, _i == 1);

    user = find("stoat");
    grant = user_open_grant(user, SLICE("/"));
    ck_assert(
        !permission_check_topic(grant, ACCESS_WRITE, SLICE("amq.topic"), SLICE("a"), &refused));
    ck_assert(
        !permission_check_topic(grant, ACCESS_READ, SLICE("amq.topic"), SLICE("a"), &refused));
    ck_assert(permission_check_topic(grant, ACCESS_WRITE, SLICE("x"), SLICE("x"), &refused));
    ck_assert(!permission_check_topic(grant, ACCESS_WRITE, SLICE("x"), SLICE("z"), &refused));
    ck_assert(permission_check_topic(grant, ACCESS_WRITE, SLICE("y"), SLICE("z"), &refused));
    ck_assert_uint_eq(1, harness_logged(&harness, "topic permission of user 'stoat' for exchange "
                                                  "'amq.topic' in vhost '/' is lost"));

    /* Whoever knows what it was sets it again, or clears it. */
    vhost = vhost_find(&harness.broker, SLICE("/"));
    if (_i == 0)
        ck_assert(account_set_topic(&harness.broker, user, vhost, SLICE("amq.topic"), SLICE("^a"),
                                    SLICE(""), &lsn, error));
    else
        account_clear_topic(
            &harness.broker, grant,
            (struct topic_rule *)(uintptr_t)permission_topic(grant, SLICE("amq.topic")), &lsn);
    harness_run(&harness);
    harness_restart(&harness, true);
    grant = user_open_grant(find("stoat"), SLICE("/"));
    ck_assert(
        permission_check_topic(grant, ACCESS_WRITE, SLICE("amq.topic"), SLICE("a"), &refused));
    ck_assert_int_eq(_i == 1, permission_check_topic(grant, ACCESS_READ, SLICE("amq.topic"),
                                                     SLICE("a"), &refused));
    ck_assert_uint_eq(1, harness_logged(&harness, "is lost")); /* not once more */
}
END_TEST

START_TEST(what_lets_in_is_there_twice)
{
    char error[PATTERN_ERROR_SIZE];

    harness_permit(&harness, "stoat", "/", "c", "w", "r");
    ck_assert(account_set_topic(&harness.broker, user, vhost_find(&harness.broker, SLICE("/")),
                                SLICE("amq.topic"), SLICE("^a"), SLICE("^b"), &lsn, error));
    for (unsigned round = 0; round < 2; round++) { /* after the first all is there twice again */
        const struct grant *grant = user_open_grant(find("stoat"), SLICE("/"));
        const struct topic_rule *topic = permission_topic(grant, SLICE("amq.topic"));
        ck_assert(slice_equal(SLICE("^a"), topic->write.text));
        ck_assert(slice_equal(SLICE("w"), grant->rules[ACCESS_WRITE].text));
        lose_record(KIND_USER, find("stoat")->record_id, 1);
        lose_record(KIND_GRANT, grant->record_id, 1);
        lose_record(KIND_TOPIC, topic->record_id, 1);
        harness_restart(&harness, _i == 1);
        ck_assert_uint_eq(3 * (round + 1), harness_logged(&harness, "is restored from its copy"));
        peer_open_as(&harness, "stoat", "secret", "/");
    }
    account_delete(&harness.broker, find("stoat"), &lsn);
    harness_run(&harness);
    harness_restart(&harness, true);
    ck_assert_ptr_null(find("stoat"));
}
END_TEST

START_TEST(nobody_left_is_said)
{
    lose_record(KIND_USER, find("stoat")->record_id, 2);
    lose_record(KIND_USER, find("guest")->record_id, 2);
    harness_restart(&harness, true);
    ck_assert_uint_eq(0,
                      harness.broker.users.by_name.count); /* damage opens no door: no new guest */
    ck_assert_uint_eq(1, harness_logged(&harness, "stoatctl add_user"));
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

/* ---- those who are connected ---- */

static struct peer *consume_as_stoat(void)
{
    struct peer *peer = open_stoat();

    declare_queue(peer, "q", true, NULL);
    consume(peer, "q", "c", false, NULL);
    return peer;
}

static void expect_cancelled(struct peer *peer)
{
    const struct amqp_method cancel = peer_expect(peer, 1, AMQP_BASIC_CANCEL);

    ck_assert(slice_equal(cancel.basic_cancel.consumer_tag, SLICE("c")));
    ck_assert(cancel.basic_cancel.no_wait);
}

START_TEST(consumers_go_with_the_right_to_read) /* 4.7.3, 10.10, 16.4, CVE-2026-57218 */
{
    struct peer *peer = consume_as_stoat(), *other = peer_open_channel(&harness);

    publish(other, "q", "first");
    const uint64_t tag = expect_delivery(peer, "first");
    peer->connection->can_consumer_cancel_notify = _i == 0;
    harness_permit(&harness, "stoat", "/", ".*", ".*", "^other$");
    publish(other, "q", "second");
    if (_i == 0)
        expect_cancelled(peer);
    peer_expect_nothing(peer);
    ack(peer, tag); /* what it has it may settle */
    ck_assert_uint_eq(1, count_ready(other, "q"));
    peer_call(peer, 0,
              &(struct amqp_method){.id = AMQP_CONNECTION_UPDATE_SECRET,
                                    .connection_update_secret.new_secret = SLICE("secret")},
              AMQP_CONNECTION_UPDATE_SECRET_OK);
    peer_send(peer, 1, &(struct amqp_method){.id = AMQP_BASIC_GET, .basic_get.queue = SLICE("q")});
    peer_expect_close(
        peer, 1, 403,
        "ACCESS_REFUSED - read access to queue 'q' in vhost '/' refused for user 'stoat'");
}
END_TEST

START_TEST(others_keep_their_consumers) /* 16.4 */
{
    struct peer *peer = consume_as_stoat(), *other = peer_open_channel(&harness);

    harness_permit(&harness, "stoat", "/", "", "", "^q$");
    harness_permit(&harness, "guest", "/", ".*", ".*", "^other$");
    publish(other, "q", "m");
    expect_delivery(peer, "m");
}
END_TEST

/* The publish before may have been kept as allowed. */
START_TEST(publishing_ends_with_the_right_to_write) /* 16.2, 16.4, CVE-2026-57218 */
{
    struct peer *peer = open_stoat();

    declare_queue(peer, "q", true, NULL);
    declare_exchange(peer, "x", "fanout");
    bind_queue(peer, "q", "x", "");
    for (int i = 0; i < 3; i++)
        peer_publish(peer, 1, "x", "", "m");
    harness_permit(&harness, "stoat", "/", ".*", _i == 0 ? "" : "^x$", ".*");
    peer_publish(peer, 1, "x", "", "m");
    if (_i == 0)
        peer_expect_close(
            peer, 1, 403,
            "ACCESS_REFUSED - write access to exchange 'x' in vhost '/' refused for user 'stoat'");
    struct peer *other = peer_open_channel(&harness);
    ck_assert_uint_eq(_i == 0 ? 3 : 4, count_ready(other, "q"));
}
END_TEST

/* Another exchange of the same name, perhaps at the same address, is another exchange. */
START_TEST(what_is_kept_ends_with_the_exchange) /* 16.4, 7.8 */
{
    struct peer *peer = open_stoat(), *other = peer_open_channel(&harness);

    declare_exchange(peer, "x", "fanout");
    peer_publish(peer, 1, "x", "", "m");
    peer_call(
        other, 1,
        &(struct amqp_method){.id = AMQP_EXCHANGE_DELETE, .exchange_delete.exchange = SLICE("x")},
        AMQP_EXCHANGE_DELETE_OK);
    peer_call(other, 1,
              &(struct amqp_method){.id = AMQP_EXCHANGE_DECLARE,
                                    .exchange_declare = {.exchange = SLICE("x"),
                                                         .type = SLICE("fanout"),
                                                         .internal = true}},
              AMQP_EXCHANGE_DECLARE_OK);
    peer_publish(peer, 1, "x", "", "m");
    peer_expect_close(peer, 1, 403, "ACCESS_REFUSED - cannot publish to internal exchange*");
}
END_TEST

/* A transaction holds what was allowed when it was published; what comes later is asked about. */
START_TEST(transactions_are_asked_at_the_publish) /* 9.15, 16.2 */
{
    struct peer *peer = open_stoat();

    declare_queue(peer, "q", true, NULL);
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    publish(peer, "q", "m");
    harness_permit(&harness, "stoat", "/", ".*", "", ".*");
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
    publish(peer, "q", "m");
    peer_expect_close(
        peer, 1, 403,
        "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused "
        "for user 'stoat'");
}
END_TEST

START_TEST(who_may_not_use_the_vhost_any_more_goes) /* 4.5.3, 16.4, CVE-2026-57218 */
{
    struct peer *peer = consume_as_stoat(), *other = peer_open_channel(&harness);

    account_clear_grant(&harness.broker, user_open_grant(user, SLICE("/")), &lsn);
    publish(other, "q", "m");
    peer_expect_close(peer, 0, 320,
                      "CONNECTION_FORCED - access to vhost '/' refused for user 'stoat'");
    ck_assert_uint_eq(1, count_ready(other, "q"));
    expect_not_let_in("NOT_ALLOWED - access to vhost '/' refused for user 'stoat'");
}
END_TEST

START_TEST(a_deleted_user_goes_at_once) /* 4.5.3, 16.4, CVE-2026-57218 */
{
    struct peer *peer = consume_as_stoat(), *half = peer_new(&harness, false);
    struct buf out = BUF_EMPTY;

    amqp_client_protocol_header(&out);
    amqp_client_start_ok(&out, SLICE("stoat"), SLICE("secret"), SLICE("test"));
    peer_send_bytes(half, buf_slice(&out));
    buf_release(&out);
    peer_expect(half, 0, AMQP_CONNECTION_START);
    peer_expect(half, 0, AMQP_CONNECTION_TUNE);
    account_delete(&harness.broker, user, &lsn);
    harness_run(&harness);
    peer_expect_close(peer, 0, 320, "CONNECTION_FORCED - user 'stoat' is deleted");
    peer_expect_close(half, 0, 320, "CONNECTION_FORCED - user 'stoat' is deleted");
    expect_refused("stoat", "secret", false);
    harness_restart(&harness, false);
    ck_assert_ptr_null(find("stoat"));
}
END_TEST

START_TEST(a_new_secret_must_be_the_users) /* 4.7.1, 4.7.2 */
{
    struct peer *peer = open_stoat();

    peer_send(peer, 0,
              &(struct amqp_method){.id = AMQP_CONNECTION_UPDATE_SECRET,
                                    .connection_update_secret.new_secret = SLICE("guest")});
    peer_expect_close(peer, 0, 530, "NOT_ALLOWED - New secret was refused by one of the backends");
}
END_TEST

START_TEST(impersonators_may_be_anyone) /* 9.3, 16.5, GHSA-6588-rqcr-59pw */
{
    struct peer *peer = open_stoat();

    declare_queue(peer, "q", true, NULL);
    ck_assert(account_set_tags(&harness.broker, user, SLICE("management,impersonator"), &lsn));
    for (int i = 0; i < 2; i++) {
        struct buf properties = BUF_EMPTY, out = BUF_EMPTY;
        amqp_write_u16(&properties, AMQP_PROPERTY_USER_ID);
        amqp_write_shortstr(&properties, SLICE("guest"));
        amqp_client_publish(&out, 1, 131072,
                            &(struct amqp_client_message){.routing_key = SLICE("q"),
                                                          .properties = buf_slice(&properties),
                                                          .body = SLICE("m")});
        peer_send_bytes(peer, buf_slice(&out));
        buf_release(&properties);
        buf_release(&out);
        if (i == 0)
            ck_assert_uint_eq(1, count_ready(peer, "q"));
        ck_assert(account_set_tags(&harness.broker, user, SLICE("management"), &lsn));
    }
    peer_expect_close(
        peer, 1, 406,
        "PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user "
        "was 'stoat'");
}
END_TEST

/* ---- vhosts ---- */

static struct vhost *make_vhost(const char *name)
{
    struct amqp_error error;
    struct vhost *vhost = vhost_create(&harness.broker, slice_of_string(name), &lsn, &error);

    ck_assert_msg(vhost != NULL, "%s", error.text);
    return vhost;
}

START_TEST(vhosts_know_nothing_of_each_other) /* 16.1 */
{
    make_vhost("burrow");
    harness_permit(&harness, "stoat", "burrow", ".*", ".*", ".*");
    struct peer *here = open_stoat(), *there = peer_open_as(&harness, "stoat", "secret", "burrow");

    open_channel(there);
    declare_queue(here, "q", true, NULL);
    declare_queue(there, "q", true, NULL);
    publish(there, "q", "there");
    get_nothing(here, "q");
    harness_permit(&harness, "stoat", "burrow", "", "", "");
    publish(here, "q", "here");
    get_one(here, "q", "here");
    publish(there, "q", "m");
    peer_expect_close(there, 1, 403,
                      "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost 'burrow' "
                      "refused for user 'stoat'");
}
END_TEST

/* With unacked deliveries, dead letters, an alternate, an exclusive queue and a policy in it. */
static void fill_vhost(struct peer *peer)
{
    open_channel(peer);
    declare_queue(peer, "q", true, "x-dead-letter-exchange=Sx,x-max-length=I2");
    declare_queue(peer, "letters", true, NULL);
    declare_exchange(peer, "x", "fanout");
    bind_queue(peer, "letters", "x", "");
    bind_queue(peer, "q", "amq.topic", "#");
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("own"), .exclusive = true}},
              AMQP_QUEUE_DECLARE_OK);
    const struct sent sent = {.persistent = true};
    for (int i = 0; i < 4; i++)
        publish_with(peer, "q", "m", &sent);
    get_unacked(peer, "q", "m");
}

START_TEST(a_vhost_goes_as_a_whole) /* 4.5.3 */
{
    char error[POLICY_ERROR_SIZE];
    struct vhost *vhost = make_vhost("burrow");

    struct buf definition = BUF_EMPTY;
    const struct policy_options options = {.name = SLICE("p"),
                                           .pattern = SLICE(".*"),
                                           .definition =
                                               arguments_of(&definition, "message-ttl=I3600000")};
    ck_assert_msg(policy_set(vhost, &options, error) != NULL, "%s", error);
    buf_release(&definition);
    harness_permit(&harness, "stoat", "burrow", ".*", ".*", ".*");
    struct peer *peer = peer_open_as(&harness, "stoat", "secret", "burrow");
    fill_vhost(peer);
    store_memory_set_auto_sync(harness.store, false);
    vhost_delete(vhost, &lsn);
    harness_run(&harness);
    peer_expect_close(peer, 0, 320, "CONNECTION_FORCED - vhost 'burrow' is deleted");
    ck_assert_ptr_null(user_grant(user, SLICE("burrow")));

    harness_restart(&harness, _i == 0); /* what was not synced is lost: then all is there again */
    user = find("stoat");
    const bool is_there = vhost_find(&harness.broker, SLICE("burrow")) != NULL;
    ck_assert(is_there == (_i == 0));
    if (is_there) {
        peer = peer_open_as(&harness, "stoat", "secret", "burrow");
        open_channel(peer);
        ck_assert_uint_eq(2, count_ready(peer, "letters"));
        return;
    }
    ck_assert_ptr_null(user_grant(user, SLICE("burrow")));
    ck_assert_uint_eq(0, harness_logged(&harness, "cannot be used"));
    ck_assert_uint_eq(0, harness_logged(&harness, "could not be understood"));
    make_vhost("burrow");
    harness_permit(&harness, "stoat", "burrow", ".*", ".*", ".*");
    peer = peer_open_as(&harness, "stoat", "secret", "burrow");
    fill_vhost(peer);
}
END_TEST

START_TEST(there_may_be_so_many_vhosts) /* 17.7 */
{
    struct amqp_error error;

    harness.broker.limits.vhost_max = 2;
    make_vhost("burrow");
    ck_assert_ptr_null(vhost_create(&harness.broker, SLICE("warren"), &lsn, &error));
    ck_assert_str_eq(
        "PRECONDITION_FAILED - cannot create vhost 'warren': vhost limit of 2 is reached",
        error.text);
    ck_assert_ptr_null(vhost_create(&harness.broker, SLICE("burrow"), &lsn, &error));
    ck_assert_ptr_null(vhost_create(&harness.broker, SLICE(""), &lsn, &error));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("access");
    TCase *login = tcase_create("login");
    tcase_add_checked_fixture(login, set_up, tear_down);
    tcase_set_timeout(login, 30);
    tcase_add_test(login, the_right_password_lets_in);
    tcase_add_test(login, a_name_is_taken_as_it_is);
    tcase_add_test(login, logins_are_counted);
    tcase_add_test(login, restricted_users_come_from_here);
    tcase_add_test(login, a_new_password_is_the_only_one);
    tcase_add_test(login, who_has_no_password_stays_out);
    tcase_add_test(login, an_imported_hash_becomes_ours);
    tcase_add_loop_test(login, much_can_happen_while_a_password_is_verified, 0, countof(meanwhile));
    tcase_add_test(login, no_password_is_logged);
    tcase_add_test(login, the_defaults_are_given_once);
    tcase_add_test(login, an_older_store_is_given_them_too);
    tcase_add_test(login, a_store_that_lost_its_users_is_given_none);
    tcase_add_loop_test(login, all_of_it_survives, 0, 2);
    tcase_add_loop_test(login, a_lost_topic_permission_is_shut, 0, 2);
    tcase_add_test(login, nobody_left_is_said);
    tcase_add_loop_test(login, what_lets_in_is_there_twice, 0, 2);
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

    TCase *live = tcase_create("live");
    tcase_add_checked_fixture(live, set_up, tear_down);
    tcase_set_timeout(live, 30);
    tcase_add_loop_test(live, consumers_go_with_the_right_to_read, 0, 2);
    tcase_add_test(live, others_keep_their_consumers);
    tcase_add_loop_test(live, publishing_ends_with_the_right_to_write, 0, 2);
    tcase_add_test(live, what_is_kept_ends_with_the_exchange);
    tcase_add_test(live, transactions_are_asked_at_the_publish);
    tcase_add_test(live, who_may_not_use_the_vhost_any_more_goes);
    tcase_add_test(live, a_deleted_user_goes_at_once);
    tcase_add_test(live, a_new_secret_must_be_the_users);
    tcase_add_test(live, impersonators_may_be_anyone);
    tcase_add_test(live, vhosts_know_nothing_of_each_other);
    tcase_add_loop_test(live, a_vhost_goes_as_a_whole, 0, 2);
    tcase_add_test(live, there_may_be_so_many_vhosts);
    suite_add_tcase(suite, live);
    return unit_main(suite);
}
