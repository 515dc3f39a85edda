/* Delayed retry of quorum queues (11.8): who waits, for how long, and what ends the wait; and the
 * heap of those that wait. */
#include "core/policy.h"
#include "core/retry.h"
#include "core/vhost.h"
#include "tests/lib/one_peer.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

#define RETRY "x-queue-type=Squorum,x-delayed-retry-type=Sall,x-delayed-retry-min=I1000"

/* Nothing is there until so long from now, then the message. */
static uint64_t expect_after(const char *body, uint64_t wait_ms)
{
    if (wait_ms > 0) {
        harness_advance(&harness, wait_ms - 100);
        get_nothing(peer, "q");
        harness_advance(&harness, 200);
    }
    return get_unacked(peer, "q", body);
}

static void lose_channel(uint64_t tag)
{
    (void)tag;
    close_channel(peer);
    open_channel(peer);
}

static void reject_it(uint64_t tag)
{
    reject(peer, tag, true);
}

static void nack_it(uint64_t tag)
{
    nack(peer, tag, true);
}

static const struct {
    const char *arguments;
    void (*give_back)(uint64_t tag);
    uint64_t waits_ms[4]; /* each time */
} wait_cases[] = {
    {RETRY, reject_it, {1000, 2000, 3000, 4000}},
    {RETRY, lose_channel, {1000, 2000, 3000, 4000}},
    {RETRY, nack_it, {1000, 1000, 1000, 1000}}, /* has not failed */
    {RETRY ",x-delayed-retry-max=I2500", reject_it, {1000, 2000, 2500, 2500}},
    {RETRY ",x-delayed-retry-max=I500", reject_it, {500, 500, 500, 500}},
    {RETRY ",x-delayed-retry-max=I0", reject_it, {0}},
    {"x-queue-type=Squorum,x-delayed-retry-type=Sfailed,x-delayed-retry-min=I1000",
     reject_it,
     {1000, 2000, 3000, 4000}},
    {"x-queue-type=Squorum,x-delayed-retry-type=Sfailed,x-delayed-retry-min=I1000", nack_it, {0}},
    {"x-queue-type=Squorum,x-delayed-retry-type=Sreturned,x-delayed-retry-min=I1000",
     reject_it,
     {0}},
    {"x-queue-type=Squorum,x-delayed-retry-type=Sreturned,x-delayed-retry-min=I1000",
     nack_it,
     {1000, 1000, 1000, 1000}},
    {"x-queue-type=Squorum,x-delayed-retry-type=Sdisabled,x-delayed-retry-min=I1000",
     reject_it,
     {0}},
    {"x-queue-type=Squorum,x-delayed-retry-min=I1000", reject_it, {0}},
    {"x-queue-type=Squorum,x-delayed-retry-type=Sall", reject_it, {0}},
    {"x-queue-type=Squorum", reject_it, {0}},
};

START_TEST(what_comes_back_waits) /* 11.8, 10.19 */
{
    declare_queue(peer, "q", true, wait_cases[_i].arguments);
    publish(peer, "q", "m");
    uint64_t tag = get_unacked(peer, "q", "m");
    for (size_t i = 0; i < countof(wait_cases[_i].waits_ms); i++) {
        wait_cases[_i].give_back(tag);
        tag = expect_after("m", wait_cases[_i].waits_ms[i]);
    }
    ack(peer, tag);
}
END_TEST

/* As long as a wait can be. */
START_TEST(waits_do_not_wrap) /* 11.8, 8.11 */
{
    declare_queue(peer, "q", true,
                  "x-queue-type=Squorum,x-delivery-limit=I-1,x-delayed-retry-type=Sall,"
                  "x-delayed-retry-min=l315360000000,x-delayed-retry-max=l315360000000");
    publish(peer, "q", "m");
    reject(peer, get_unacked(peer, "q", "m"), true);
    harness_advance(&harness, 100000);
    get_nothing(peer, "q");
}
END_TEST

START_TEST(others_pass_meanwhile) /* 11.8 */
{
    struct peer *other = peer_open_channel(&harness);

    declare_queue(peer, "q", true, RETRY);
    publish(peer, "q", "a");
    publish(peer, "q", "b");
    consume(other, "q", "c", false, NULL);
    reject(other, expect_delivery(other, "a"), true);
    ack(other, expect_delivery(other, "b"));
    publish(peer, "q", "c");
    ack(other, expect_delivery(other, "c"));
    harness_advance(&harness, 900);
    peer_expect_nothing(other);
    harness_advance(&harness, 200);
    ack(other, expect_delivery(other, "a"));
    ck_assert_str_eq(headers_of(other), "x-acquired-count=l1 x-delivery-count=l1");
}
END_TEST

/* Two whose wait is over at once are one too many, but for whom they go to. */
START_TEST(what_has_waited_is_handed_out_before_it_is_dropped) /* 11.8, 11.5 */
{
    struct peer *other = peer_open_channel(&harness);

    declare_queue(peer, "q", true, RETRY ",x-max-length=I1");
    publish(peer, "q", "a");
    const uint64_t a = get_unacked(peer, "q", "a");
    publish(peer, "q", "b");
    const uint64_t b = get_unacked(peer, "q", "b");
    consume(other, "q", "c", false, NULL);
    reject(peer, a, true);
    reject(peer, b, true);
    harness_advance(&harness, 1100);
    expect_delivery(other, "a");
    expect_delivery(other, "b");
}
END_TEST

/* Those that stood before others do so again. */
START_TEST(places_are_kept) /* 11.8, 10.17 */
{
    declare_queue(peer, "q", true, RETRY);
    publish(peer, "q", "a");
    publish(peer, "q", "b");
    publish(peer, "q", "c");
    const uint64_t a = get_unacked(peer, "q", "a"), b = get_unacked(peer, "q", "b");
    reject(peer, b, true);
    harness_advance(&harness, 500);
    reject(peer, a, true);
    harness_advance(&harness, 600);
    get_one(peer, "q", "b");
    harness_advance(&harness, 500);
    get_one(peer, "q", "a");
    get_one(peer, "q", "c");
}
END_TEST

START_TEST(the_delivery_limit_holds) /* 11.8, 10.19 */
{
    declare_queue(peer, "q", true, RETRY ",x-delivery-limit=I1");
    publish(peer, "q", "m");
    reject(peer, get_unacked(peer, "q", "m"), true);
    reject(peer, expect_after("m", 1000), true);
    harness_advance(&harness, 10000);
    get_nothing(peer, "q");
}
END_TEST

START_TEST(a_deadline_ends_the_wait) /* 11.8, 11.1, 13.1 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true,
                  "x-queue-type=Squorum,x-delayed-retry-type=Sall,x-delayed-retry-min=I100000,"
                  "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    publish_with(peer, "q", "m", &(struct sent){.persistent = true, .expiration = "5000"});
    reject(peer, get_unacked(peer, "q", "m"), true);
    harness_advance(&harness, 4900);
    ck_assert_uint_eq(0, count_ready(peer, "dead"));
    harness_advance(&harness, 300);
    get_one(peer, "dead", "m");
    ck_assert_str_eq(header_of(peer, "x-first-death-reason"), "Sexpired");
}
END_TEST

START_TEST(a_restart_ends_the_wait) /* 11.8, 12 */
{
    declare_queue(peer, "q", true, RETRY);
    publish(peer, "q", "m");
    reject(peer, get_unacked(peer, "q", "m"), true);
    restart(_i == 1);
    get_one(peer, "q", "m");
    restart(_i == 1);
    get_nothing(peer, "q");
}
END_TEST

START_TEST(purge_leaves_and_delete_takes_what_waits) /* 11.8, 8.12, 8.13 */
{
    const struct amqp_method purge = {.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")};
    const struct amqp_method delete = {.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")};

    declare_queue(peer, "q", true, RETRY);
    publish(peer, "q", "m");
    reject(peer, get_unacked(peer, "q", "m"), true);
    ck_assert_uint_eq(0,
                      peer_call(peer, 1, &purge, AMQP_QUEUE_PURGE_OK).queue_purge_ok.message_count);
    reject(peer, expect_after("m", 1000), true);
    peer_call(peer, 1, &delete, AMQP_QUEUE_DELETE_OK);
    harness_advance(&harness, 5000);
    declare_queue(peer, "q", true, RETRY);
    get_nothing(peer, "q");
}
END_TEST

static void set_policy(const char *definition)
{
    struct buf table = BUF_EMPTY;
    char error[POLICY_ERROR_SIZE] = "";
    struct map_link *link = map_next(&harness.broker.vhosts, NULL);

    const struct policy *policy =
        policy_set(container_of(link, struct vhost, by_name),
                   &(struct policy_options){.apply_to = POLICY_QUEUES,
                                            .name = SLICE("retry"),
                                            .pattern = SLICE(""),
                                            .definition = arguments_of(&table, definition)},
                   error);
    ck_assert_msg(policy != NULL, "%s", error);
    buf_release(&table);
    harness_run(&harness);
}

START_TEST(a_policy_says_so_too) /* 11.8, 17.3 */
{
    declare_queue(peer, "q", true, "x-queue-type=Squorum,x-delayed-retry-max=I2000");
    set_policy("delayed-retry-type=Sall,delayed-retry-min=I1500,delayed-retry-max=I1000");
    publish(peer, "q", "m");
    reject(peer, get_unacked(peer, "q", "m"), true);
    reject(peer, expect_after("m", 1500), true);
    reject(peer, expect_after("m", 2000), true); /* the argument's */
    get_nothing(peer, "q");
    set_policy("delayed-retry-type=Sdisabled");
    get_one(peer, "q", "m");
}
END_TEST

/* ---- the heap ---- */

static void on_due(struct timer *timer)
{
    (void)timer;
}

START_TEST(the_earliest_comes_first)
{
    enum { COUNT = 1000 };
    struct wheel wheel;
    struct place place;
    uint64_t last_ms = 0, last = 0;

    wheel_init(&wheel, 0);
    struct retries *retries = retries_new(NULL, &wheel, on_due);
    for (uint32_t i = 0; i < COUNT; i++) /* each time ten of them */
        retries_add(retries, (struct place){NULL, i}, 1 + i * 7 % (COUNT / 10));
    ck_assert(!retries_take(retries, 0, &place));
    ck_assert(timer_is_set(&retries->timer) && retries->timer.deadline_ms == 1);
    for (uint32_t i = 0; i < COUNT; i++) {
        ck_assert(retries_take(retries, COUNT, &place));
        const uint64_t due_ms = 1 + place.slot * 7 % (COUNT / 10);
        ck_assert(due_ms > last_ms || (due_ms == last_ms && place.slot > last));
        last_ms = due_ms;
        last = place.slot;
    }
    ck_assert(!retries_take(retries, COUNT, &place) && !timer_is_set(&retries->timer));
    retries_free(&retries);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("retry");
    TCase *tests = tcase_create("retry");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, what_comes_back_waits, 0, countof(wait_cases));
    tcase_add_test(tests, waits_do_not_wrap);
    tcase_add_test(tests, others_pass_meanwhile);
    tcase_add_test(tests, what_has_waited_is_handed_out_before_it_is_dropped);
    tcase_add_test(tests, places_are_kept);
    tcase_add_test(tests, the_delivery_limit_holds);
    tcase_add_test(tests, a_deadline_ends_the_wait);
    tcase_add_loop_test(tests, a_restart_ends_the_wait, 0, 2);
    tcase_add_test(tests, purge_leaves_and_delete_takes_what_waits);
    tcase_add_test(tests, a_policy_says_so_too);
    tcase_add_test(tests, the_earliest_comes_first);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
