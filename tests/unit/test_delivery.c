/* The deliveries of a channel against a plain array, by random steps; and that holes do not pile
 * up. */
#include <check.h>

#include "base/alloc.h"
#include "base/random.h"
#include "core/queue.h"
#include "session/delivery.h"
#include "tests/lib/unit.h"

enum { TAGS_MAX = 5000 };

static struct delivery take(struct deliveries *deliveries, struct delivery *delivery)
{
    struct delivery taken = deliveries_take(deliveries, delivery);
    taken.queue->refs--;
    return taken;
}

static uint64_t first_of(const bool unacked[TAGS_MAX])
{
    uint64_t tag = 0;
    while (!unacked[tag])
        tag++;
    return tag;
}

static uint64_t last_of(const bool unacked[TAGS_MAX])
{
    uint64_t tag = TAGS_MAX - 1;
    while (!unacked[tag])
        tag--;
    return tag;
}

START_TEST(random_steps)
{
    struct random random;
    struct deliveries deliveries;
    struct queue queue = {.refs = 1};
    bool unacked[TAGS_MAX] = {false};
    size_t count = 0;

    random_init_seeded(&random, (uint64_t)_i + 1);
    deliveries_init(&deliveries);
    while (deliveries.next_tag < TAGS_MAX) {
        uint64_t tag = random_below(&random, deliveries.next_tag + 2);
        struct delivery *delivery;
        switch (random_below(&random, 6)) {
        case 0:
            deliveries_skip(&deliveries);
            break;
        case 1:
        case 2:
            tag = deliveries_add(&deliveries, &queue,
                                 (struct place){NULL, (uint32_t)deliveries.next_tag}, NULL);
            unacked[tag] = true;
            count++;
            break;
        case 3:
            delivery = deliveries_find(&deliveries, tag);
            ck_assert_int_eq(delivery != NULL, tag < TAGS_MAX && unacked[tag]);
            if (delivery != NULL) {
                ck_assert_uint_eq(delivery->place.slot, tag);
                take(&deliveries, delivery);
                unacked[tag] = false;
                count--;
            }
            break;
        case 4:
            delivery = deliveries_oldest(&deliveries);
            ck_assert_int_eq(delivery != NULL, count > 0);
            if (delivery != NULL) {
                ck_assert_uint_eq(delivery->tag, first_of(unacked));
                unacked[take(&deliveries, delivery).tag] = false;
                count--;
            }
            break;
        case 5:
            delivery = deliveries_youngest(&deliveries);
            if (delivery != NULL) {
                ck_assert_uint_eq(delivery->tag, last_of(unacked));
                unacked[take(&deliveries, delivery).tag] = false;
                count--;
            }
            break;
        }
        if (deliveries.count != count) /* an assertion that holds costs a system call */
            ck_abort_msg("%zu are counted, %zu are there", deliveries.count, count);
    }
    for (uint64_t tag = 0; tag < TAGS_MAX; tag += 97) {
        uint64_t next = tag + 1;
        while (next < TAGS_MAX && !unacked[next])
            next++;
        const struct delivery *after = deliveries_after(&deliveries, tag);
        ck_assert_uint_eq(after == NULL ? TAGS_MAX : after->tag, next);
    }
    size_t walked = 0;
    for (struct delivery *d = deliveries_oldest(&deliveries); d != NULL;
         d = deliveries_next(&deliveries, d)) {
        ck_assert(unacked[d->tag]);
        walked++;
    }
    ck_assert_uint_eq(walked, count);
    while (deliveries.count > 0)
        take(&deliveries, deliveries_oldest(&deliveries));
    ck_assert_uint_eq(queue.refs, 1);
    deliveries_release(&deliveries);
}
END_TEST

START_TEST(a_stuck_delivery_pins_only_itself)
{
    struct deliveries deliveries;
    struct queue queue = {.refs = 1};

    deliveries_init(&deliveries);
    uint64_t stuck = deliveries_add(&deliveries, &queue, (struct place){0}, NULL);
    for (int i = 0; i < 1000000; i++) {
        uint64_t tag = deliveries_add(&deliveries, &queue, (struct place){0}, NULL);
        /* Two at a time, so that the settled one is behind another. */
        uint64_t other = deliveries_add(&deliveries, &queue, (struct place){0}, NULL);
        take(&deliveries, deliveries_find(&deliveries, tag));
        take(&deliveries, deliveries_find(&deliveries, other));
    }
    ck_assert_uint_le(deliveries.capacity, 64);
    take(&deliveries, deliveries_find(&deliveries, stuck));
    deliveries_release(&deliveries);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("delivery");
    TCase *tcase = tcase_create("delivery");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, random_steps, 0, 8);
    tcase_add_test(tcase, a_stuck_delivery_pins_only_itself);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
