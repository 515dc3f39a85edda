/* The ledger, and what is said of deliveries that are lost, come twice, out of order or from
 * nowhere. */
#include "tests/lib/unit.h"
#include "tools/stoatperf_verify.h"

static struct ledger ledger;

static void release_ledger(void)
{
    ledger_release(&ledger);
}

START_TEST(needs_no_ring_in_order)
{
    for (uint64_t i = 0; i < 5000; i++)
        ck_assert(ledger_add(&ledger, i));
    ck_assert_uint_eq(ledger.next, 5000);
    ck_assert_ptr_null(ledger.ring);
    ck_assert(!ledger_add(&ledger, 0));
    ck_assert(!ledger_add(&ledger, 4999));
}
END_TEST

START_TEST(takes_any_order_once)
{
    enum {
        COUNT = 5003,
        STEP = 1777
    }; /* no common divisor: visits every ordinal, and makes the ring grow */
    for (uint64_t i = 0; i < COUNT; i++)
        ck_assert(ledger_add(&ledger, i * STEP % COUNT));
    ck_assert_uint_eq(ledger.next, COUNT);
    ck_assert_uint_eq(ledger.ahead, 0);
    for (uint64_t i = 0; i < COUNT; i++)
        ck_assert(!ledger_add(&ledger, i));
}
END_TEST

START_TEST(waits_for_a_hole)
{
    for (uint64_t i = 1; i <= 3000; i++)
        ck_assert(ledger_add(&ledger, i));
    ck_assert_uint_eq(ledger.next, 0);
    ck_assert_uint_eq(ledger.ahead, 3000);
    ck_assert(!ledger_add(&ledger, 2000));
    ck_assert(ledger_add(&ledger, 0));
    ck_assert_uint_eq(ledger.next, 3001);
    ck_assert(ledger_add(&ledger, 3001));
}
END_TEST

enum { PUBLISHERS_MAX = 8 };

static struct options options;
static struct topology topology;
static struct publisher publishers[PUBLISHERS_MAX];
static struct verify verify;

/* So many clients, each publisher having published `each` messages. */
static void begin(uint32_t publisher_count, uint32_t queues, uint32_t consumers, bool fan_out,
                  uint64_t each)
{
    options = (struct options){.publishers = publisher_count,
                               .queues = queues,
                               .consumers = consumers,
                               .fan_out = fan_out};
    topology_init(&topology, &options);
    memset(publishers, 0, sizeof(publishers));
    for (uint32_t i = 0; i < publisher_count; i++)
        publishers[i].sequence = each;
    verify_init(&verify, &topology, publishers);
}

static void release_verify(void)
{
    verify_release(&verify);
}

static void deliver(uint32_t consumer, uint32_t queue, uint64_t publisher, uint64_t sequence)
{
    verify_delivery(
        &verify, consumer,
        &(struct delivery){.queue = queue, .id = publisher << PUBLISHER_ID_SHIFT | sequence});
}

static void assert_counts(uint64_t distinct, uint64_t lost, uint64_t duplicated, uint64_t reordered,
                          uint64_t invented)
{
    ck_assert_uint_eq(verify.distinct, distinct);
    ck_assert_uint_eq(verify_lost(&verify), lost);
    ck_assert_uint_eq(verify.duplicated, duplicated);
    ck_assert_uint_eq(verify.reordered, reordered);
    ck_assert_uint_eq(verify.invented, invented);
}

START_TEST(sees_order_loss_and_duplicates)
{
    begin(1, 1, 1, false, 4);
    deliver(0, 0, 0, 0);
    deliver(0, 0, 0, 2);
    deliver(0, 0, 0, 1);
    deliver(0, 0, 0, 2);
    assert_counts(3, 1, 1, 1, 0);
}
END_TEST

START_TEST(sees_what_was_never_published)
{
    begin(2, 2, 1, false, 4);
    deliver(0, 0, 0, 4);  /* beyond its last */
    deliver(0, 0, 2, 0);  /* no such publisher */
    deliver(0, 1, 0, 0);  /* not its queue */
    deliver(0, 20, 0, 0); /* no such queue */
    assert_counts(0, 8, 0, 0, 4);
}
END_TEST

START_TEST(follows_turns_over_queues)
{
    begin(2, 5, 2, false, 6); /* 0 takes turns over 0 2 4, 1 over 1 3 */
    const uint32_t turns[2][3] = {{0, 2, 4}, {1, 3, 1}};
    for (uint32_t publisher = 0; publisher < 2; publisher++)
        for (uint64_t sequence = 0; sequence < 6; sequence++)
            deliver(0, publisher == 0 ? turns[0][sequence % 3] : turns[1][sequence % 2], publisher,
                    sequence);
    assert_counts(12, 0, 0, 0, 0);
    deliver(0, 0, 0, 1);
    assert_counts(12, 0, 0, 0, 1);
}
END_TEST

START_TEST(lets_consumers_of_one_queue_overtake)
{
    begin(3, 2, 4, false, 4); /* queue 0 has publishers 0 and 2, consumers 0 and 2 */
    deliver(0, 0, 2, 1);
    deliver(0, 0, 2, 3);
    deliver(2, 0, 2, 0);
    deliver(2, 0, 2, 2);
    deliver(2, 0, 0, 0);
    assert_counts(5, 7, 0, 0, 0);
    deliver(0, 0, 0, 1);
    deliver(0, 0, 0, 3);
    deliver(0, 0, 0, 2);
    assert_counts(8, 4, 0, 1, 0);
}
END_TEST

START_TEST(wants_a_copy_in_every_queue)
{
    begin(2, 3, 3, true, 2);
    for (uint32_t queue = 0; queue < 3; queue++)
        for (uint32_t publisher = 0; publisher < 2; publisher++)
            for (uint64_t sequence = 0; sequence < 2; sequence++)
                deliver(queue, queue, publisher, sequence);
    assert_counts(12, 0, 0, 0, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stoatperf_verify");
    TCase *ledgers = tcase_create("ledger");
    tcase_add_checked_fixture(ledgers, NULL, release_ledger);
    tcase_add_test(ledgers, needs_no_ring_in_order);
    tcase_add_test(ledgers, takes_any_order_once);
    tcase_add_test(ledgers, waits_for_a_hole);
    suite_add_tcase(suite, ledgers);

    TCase *tests = tcase_create("verify");
    tcase_add_checked_fixture(tests, NULL, release_verify);
    tcase_add_test(tests, sees_order_loss_and_duplicates);
    tcase_add_test(tests, sees_what_was_never_published);
    tcase_add_test(tests, follows_turns_over_queues);
    tcase_add_test(tests, lets_consumers_of_one_queue_overtake);
    tcase_add_test(tests, wants_a_copy_in_every_queue);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
