/* Priorities (11.7), and how they meet limits, deadlines, dead letters and restarts. */
#include "tests/lib/one_peer.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

/* "a1 b3 c-": bodies and their priorities, - for none. */
static void publish_each(const char *queue, const char *words)
{
    for (; *words != '\0'; words += words[2] == ' ' ? 3 : 2)
        publish_with(peer, queue, (char[]){words[0], '\0'},
                     &(struct sent){.persistent = true,
                                    .has_priority = words[1] != '-',
                                    .priority = (uint8_t)(words[1] - '0')});
}

static void get_each(const char *queue, const char *bodies)
{
    for (; *bodies != '\0'; bodies++)
        get_one(peer, queue, (char[]){*bodies, '\0'});
    get_nothing(peer, queue);
}

static const struct {
    const char *arguments, *published, *order;
} order_cases[] = {
    {"x-max-priority=I5", "a1 b3 c2 d3 e1", "bdcae"},
    {"x-max-priority=I5", "a- b0 c1 d-", "cabd"},     /* none is 0 */
    {"x-max-priority=I5", "a5 b9 c7 d6 e4", "abcde"}, /* above the highest is the highest */
    {"x-max-priority=I255", "a1 b3 c2", "bca"},
    {"x-max-priority=I0", "a1 b3 c2", "abc"},
    {NULL, "a1 b3 c2", "abc"},
    {"x-queue-type=Squorum", "a1 b3 c2 d3 e5", "ebdca"},
    {"x-queue-type=Squorum", "a3 b- c4 d5 e-", "dbcea"}, /* none is 4 */
    {"x-queue-type=Squorum", "aO bZ cN dO e-", "abdce"}, /* 31, above it, 30 */
    {"x-queue-type=Squorum", "a- b- c4", "abc"},
};

START_TEST(the_highest_comes_first) /* 11.7 */
{
    declare_queue(peer, "q", true, order_cases[_i].arguments);
    publish_each("q", order_cases[_i].published);
    ck_assert_uint_eq(strlen(order_cases[_i].order), count_ready(peer, "q"));
    get_each("q", order_cases[_i].order);
}
END_TEST

START_TEST(consumers_get_them_in_order) /* 11.7 */
{
    struct peer *other = peer_open_channel(&harness);

    declare_queue(peer, "q", true, order_cases[_i].arguments);
    publish_each("q", order_cases[_i].published);
    set_prefetch(other, 1);
    consume(other, "q", "c", false, NULL);
    for (const char *body = order_cases[_i].order; *body != '\0'; body++)
        ack(other, expect_delivery(other, (char[]){*body, '\0'}));
    peer_expect_nothing(other);
}
END_TEST

START_TEST(priorities_survive_a_restart) /* 11.7, 12 */
{
    declare_queue(peer, "q", true, order_cases[_i / 2].arguments);
    publish_each("q", order_cases[_i / 2].published);
    restart(_i % 2 == 1);
    ck_assert_uint_eq(strlen(order_cases[_i / 2].order), count_ready(peer, "q"));
    get_each("q", order_cases[_i / 2].order);
    restart(_i % 2 == 1);
    get_nothing(peer, "q");
}
END_TEST

/* Some are on disk and some fresh. */
START_TEST(old_and_new_ones_mix) /* 11.7 */
{
    declare_queue(peer, "q", true, "x-max-priority=I5");
    publish_each("q", "a1 b3 c2");
    restart(true);
    publish_each("q", "d1 e3 f5");
    get_each("q", "fbecad");
}
END_TEST

/* What a quorum queue had before it needed priorities, and after. */
START_TEST(a_quorum_queue_gets_levels_when_it_needs_them) /* 11.7, 12 */
{
    declare_queue(peer, "q", true, "x-queue-type=Squorum");
    declare_queue(peer, "next", true, "x-max-priority=I5"); /* its ids follow */
    publish_each("q", "a- b4");
    restart(_i == 1);
    publish_each("next", "x1 y5");
    publish_each("q", "c3 d- e0");
    restart(_i == 1);
    publish_each("q", "f8 g9 hO");
    restart(_i == 1);
    declare_queue(peer, "other", true, NULL);
    publish_each("other", "z-");
    restart(_i == 1);
    ck_assert_uint_eq(8, count_ready(peer, "q"));
    get_each("q", "hgfabdce");
    get_each("next", "yx");
    get_each("other", "z");
}
END_TEST

START_TEST(what_comes_back_to_a_quorum_queue_is_first) /* 11.5, 11.7, 10.17 */
{
    declare_queue(peer, "q", true, "x-queue-type=Squorum");
    publish_each("q", "a1 b3 c3");
    const uint64_t b = get_unacked(peer, "q", "b"), c = get_unacked(peer, "q", "c");
    nack(peer, get_unacked(peer, "q", "a"), true);
    publish_each("q", "d5");
    nack(peer, c, true);
    nack(peer, b, true);
    get_each("q", "bcad");
}
END_TEST

START_TEST(a_requeued_message_goes_to_its_place) /* 11.7, 10.17 */
{
    declare_queue(peer, "q", true, "x-max-priority=I5");
    publish_each("q", "a1 b3 c3");
    nack(peer, get_unacked(peer, "q", "b"), true);
    publish_each("q", "d5");
    get_each("q", "dbca");
}
END_TEST

START_TEST(the_lowest_priority_overflows_first) /* 11.5, 11.7 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true,
                  "x-max-priority=I5,x-max-length=I3,"
                  "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    publish_each("q", "a3 b1 c1 d5");
    get_one(peer, "dead", "b");
    publish_each("q", "e0"); /* itself */
    get_one(peer, "dead", "e");
    publish_each("q", "f2");
    get_one(peer, "dead", "c");
    get_each("q", "daf");
}
END_TEST

START_TEST(limits_count_all_priorities) /* 11.5, 11.7 */
{
    declare_queue(peer, "q", true, "x-max-priority=I5,x-max-length=I2,x-overflow=Sreject-publish");
    publish_each("q", "a0 b5 c5");
    get_each("q", "ba");
}
END_TEST

START_TEST(the_lowest_may_be_on_disk) /* 11.5, 11.7 */
{
    declare_queue(peer, "q", true, "x-max-priority=I5,x-max-length=I3");
    publish_each("q", "a3 b1 c2");
    restart(true);
    publish_each("q", "d4");
    harness_run(&harness);
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    get_each("q", "dac");
}
END_TEST

/* What was unacked is ready again, and too much. */
static const struct {
    const char *arguments;
    bool crash;
} overflow_cases[] = {
    {"x-max-priority=I5,x-max-length=I3", false},
    {"x-max-priority=I5,x-max-length=I3", true},
    {"x-queue-type=Squorum,x-max-length=I3", false},
    {"x-queue-type=Squorum,x-max-length=I3", true},
};

START_TEST(the_lowest_overflows_first_after_a_restart) /* 11.5, 11.7, 12 */
{
    char arguments[160];

    declare_queue(peer, "dead", true, NULL);
    snprintf(arguments, sizeof(arguments),
             "%s,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead",
             overflow_cases[_i].arguments);
    declare_queue(peer, "q", true, arguments);
    publish_each("q", "a5 b4 c1");
    get_unacked(peer, "q", "a");
    get_unacked(peer, "q", "b");
    publish_each("q", "d2 e0");
    restart(overflow_cases[_i].crash);
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    get_each("dead", "ec");
    get_each("q", "abd");
}
END_TEST

static void publish_for(const char *body, uint8_t priority, const char *expiration)
{
    publish_with(peer, "q", body,
                 &(struct sent){.persistent = true,
                                .has_priority = true,
                                .priority = priority,
                                .expiration = expiration});
}

/* What is due makes room for the others, whatever its priority. */
START_TEST(what_is_due_does_not_overflow_after_a_restart) /* 11.5, 11.7, 12 */
{
    declare_queue(peer, "q", true, "x-max-priority=I5,x-max-length=I2");
    publish_for("a", 0, "100000");
    get_unacked(peer, "q", "a");
    publish_for("b", 0, "100000");
    publish_for("c", 5, "1000");
    harness.clock.wall_ms += 2000;
    restart(true);
    get_each("q", "ab");
}
END_TEST

START_TEST(deadlines_hold_in_every_priority) /* 11.1, 11.2, 11.7 */
{
    declare_queue(peer, "q", true, "x-max-priority=I5");
    for (uint8_t priority = 0; priority <= 5; priority++)
        publish_with(peer, "q", "m",
                     &(struct sent){.persistent = true,
                                    .has_priority = true,
                                    .priority = priority,
                                    .expiration = priority % 2 == 0 ? "1000" : "3000"});
    harness_advance(&harness, 1100);
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    restart(true);
    harness_advance(&harness, 1000);
    ck_assert_uint_eq(3, count_ready(peer, "q"));
    harness_advance(&harness, 1000);
    ck_assert_uint_eq(0, count_ready(peer, "q"));
}
END_TEST

static const char *const due_cases[] = {
    "x-queue-type=Squorum,x-message-ttl=I1000,"
    "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead",
    "x-max-priority=I5,x-message-ttl=I1000,"
    "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead",
};

/* Of those due at once the higher priorities go first, whatever of them must be read before. */
START_TEST(what_is_due_at_once_goes_by_priority) /* 11.1, 11.7 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, due_cases[_i]);
    publish_each("q", "a2 b3");
    restart(true);
    publish_each("q", "c2 d5");
    harness_advance(&harness, 1100);
    get_each("dead", "dbac");
}
END_TEST

/* What was read must go before it is given up again for the next to be read. */
START_TEST(what_is_due_goes_when_memory_is_short) /* 11.1, 11.7, 13.1 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, due_cases[_i]);
    paging_set_limit(&harness.broker.paging, 0);
    publish_each("q", "a4 b0 c4 d0 e4 f4");
    harness_advance(&harness, 100);
    publish_each("q", "g4");
    harness_advance(&harness, 900);
    ck_assert_uint_eq(1, count_ready(peer, "q"));
    get_each("dead", "acefbd");
}
END_TEST

START_TEST(a_dead_letter_keeps_its_priority) /* 11.7, 13.5 */
{
    declare_queue(peer, "dead", true, "x-max-priority=I5");
    declare_queue(peer, "q", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead");
    publish_each("q", "a1 b4 c2");
    for (const char *body = "abc"; *body != '\0'; body++)
        reject(peer, get_unacked(peer, "q", (char[]){*body, '\0'}), false);
    get_each("dead", "bca");
}
END_TEST

START_TEST(purge_and_delete_take_all_priorities) /* 8.12, 8.13, 11.7 */
{
    const struct amqp_method purge = {.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")};
    const struct amqp_method delete = {.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")};

    declare_queue(peer, "q", true, "x-max-priority=I5");
    publish_each("q", "a1 b3 c2");
    ck_assert_uint_eq(3,
                      peer_call(peer, 1, &purge, AMQP_QUEUE_PURGE_OK).queue_purge_ok.message_count);
    publish_each("q", "d1 e3");
    ck_assert_uint_eq(
        2, peer_call(peer, 1, &delete, AMQP_QUEUE_DELETE_OK).queue_delete_ok.message_count);
    declare_queue(peer, "q", true, "x-max-priority=I5");
    publish_each("q", "f1");
    restart(true);
    get_each("q", "f");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("priority");
    TCase *tests = tcase_create("priority");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_loop_test(tests, the_highest_comes_first, 0, countof(order_cases));
    tcase_add_loop_test(tests, consumers_get_them_in_order, 0, countof(order_cases));
    tcase_add_loop_test(tests, priorities_survive_a_restart, 0, 2 * countof(order_cases));
    tcase_add_test(tests, old_and_new_ones_mix);
    tcase_add_loop_test(tests, a_quorum_queue_gets_levels_when_it_needs_them, 0, 2);
    tcase_add_test(tests, what_comes_back_to_a_quorum_queue_is_first);
    tcase_add_test(tests, a_requeued_message_goes_to_its_place);
    tcase_add_test(tests, the_lowest_priority_overflows_first);
    tcase_add_test(tests, limits_count_all_priorities);
    tcase_add_test(tests, the_lowest_may_be_on_disk);
    tcase_add_loop_test(tests, the_lowest_overflows_first_after_a_restart, 0,
                        countof(overflow_cases));
    tcase_add_test(tests, what_is_due_does_not_overflow_after_a_restart);
    tcase_add_test(tests, deadlines_hold_in_every_priority);
    tcase_add_loop_test(tests, what_is_due_at_once_goes_by_priority, 0, countof(due_cases));
    tcase_add_loop_test(tests, what_is_due_goes_when_memory_is_short, 0, countof(due_cases));
    tcase_add_test(tests, a_dead_letter_keeps_its_priority);
    tcase_add_test(tests, purge_and_delete_take_all_priorities);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
