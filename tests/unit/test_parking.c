/* parking: who waits for which LSN, and who is released when. */
#include "core/parking.h"

#include "tests/lib/unit.h"

struct waiter {
    struct parked parked;
    char name;
    uint64_t then; /* parks again on this LSN when released; 0: not */
};

static struct parking parking;
static char order[64]; /* names, as they were released */

static void on_durable(struct parked *parked)
{
    struct waiter *waiter = container_of(parked, struct waiter, parked);
    const uint64_t then = waiter->then;

    ck_assert(!parked_waits(parked));
    const size_t count = strlen(order);
    order[count] = waiter->name;
    order[count + 1] = '\0';
    waiter->then = 0;
    if (then != 0)
        parking_wait(&parking, parked, then);
}

static void start(struct waiter *waiters, size_t count)
{
    parking_init(&parking, 3);
    order[0] = '\0';
    for (size_t i = 0; i < count; i++)
        waiters[i] = (struct waiter){.parked.on_durable = on_durable, .name = (char)('a' + i)};
}

START_TEST(releases_by_lsn_and_then_by_arrival)
{
    struct waiter w[5];
    start(w, countof(w));
    parking_wait(&parking, &w[0].parked, 5);
    parking_wait(&parking, &w[1].parked, 4);
    parking_wait(&parking, &w[2].parked, 5);
    parking_wait(&parking, &w[3].parked, 4);
    parking_wait(&parking, &w[4].parked, 6);

    parking_release(&parking, 3, 3);
    ck_assert_str_eq(order, "");
    parking_release(&parking, 4, 4);
    ck_assert_str_eq(order, "bd");
    parking_release(&parking, 6, 6);
    ck_assert_str_eq(order, "bdace");
    ck_assert(TAILQ_EMPTY(&parking.waiting));
}
END_TEST

START_TEST(may_park_again)
{
    struct waiter w[2];
    start(w, countof(w));
    w[0].then = 5;
    parking_wait(&parking, &w[0].parked, 4);
    parking_wait(&parking, &w[1].parked, 5);
    parking_release(&parking, 4, 4);
    ck_assert_str_eq(order, "a");
    ck_assert(parked_waits(&w[0].parked));
    parking_release(&parking, 5, 5);
    ck_assert_str_eq(order, "aba");
}
END_TEST

START_TEST(an_empty_batch_releases_and_is_not_durable)
{
    struct waiter w[2];
    start(w, countof(w));
    parking_wait(&parking, &w[0].parked, 4);
    parking_wait(&parking, &w[1].parked, 5);
    parking_release_empty(&parking, 4);
    ck_assert_str_eq(order, "a");
    ck_assert_uint_eq(3, parking.durable);
    parking_wait(&parking, &w[0].parked, 4); /* for what is added to the batch now */
    parking_release(&parking, 5, 5);
    ck_assert_str_eq(order, "aab");
    parking_wait(&parking, &w[0].parked, 6); /* refused, and open again with what came later */
    parking_wait(&parking, &w[1].parked, 7);
    parking_release_empty(&parking, 7);
    ck_assert_str_eq(order, "aabab");
    ck_assert_uint_eq(5, parking.durable);
}
END_TEST

START_TEST(forgets_who_cancels)
{
    struct waiter w[3];
    start(w, countof(w));
    for (size_t i = 0; i < countof(w); i++)
        parking_wait(&parking, &w[i].parked, 4);
    parking_cancel(&w[1].parked);
    parking_cancel(&w[1].parked);
    parking_release(&parking, 9, 9);
    ck_assert_str_eq(order, "ac");
    ck_assert_uint_eq(parking.durable, 9);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("parking");
    TCase *tests = tcase_create("parking");
    tcase_add_test(tests, releases_by_lsn_and_then_by_arrival);
    tcase_add_test(tests, may_park_again);
    tcase_add_test(tests, an_empty_batch_releases_and_is_not_durable);
    tcase_add_test(tests, forgets_who_cancels);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
