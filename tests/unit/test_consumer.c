/* consumer: whose turn it is, by priority (10.7) and with a single active consumer (10.11). */
#include "core/consumer.h"

#include "amqp/table.h"
#include "base/random.h"
#include "tests/lib/memory_broker.h"
#include "tests/lib/unit.h"

/* A consumer that writes its name into the journal for each message, and keeps the places until it
 * acknowledges. */
struct taker {
    struct consumer consumer;
    char name;
    struct place places[64];
    size_t count;
    bool is_full, is_gone;
};

static struct memory_broker memory;
static struct queue *queue;
static char journal[256];
static struct taker takers[8];

static bool may_take(struct consumer *consumer)
{
    return !container_of(consumer, struct taker, consumer)->is_full;
}

static void on_deliver(struct consumer *consumer, struct place place)
{
    struct taker *taker = container_of(consumer, struct taker, consumer);

    journal[strlen(journal)] = taker->name;
    if (!consumer->no_ack)
        taker->places[taker->count++] = place;
}

static void on_queue_deleted(struct consumer *consumer)
{
    struct taker *taker = container_of(consumer, struct taker, consumer);

    journal[strlen(journal)] = (char)(taker->name - 'a' + 'A');
}

static void on_gone(struct consumer *consumer)
{
    struct taker *taker = container_of(consumer, struct taker, consumer);

    ck_assert(!taker->is_gone);
    taker->is_gone = true;
}

static const struct consumer_ops ops = {may_take, on_deliver, on_queue_deleted, on_gone};

static void set_up(void)
{
    memory_broker_start(&memory);
    memset(takers, 0, sizeof(takers));
    memset(journal, 0, sizeof(journal));
}

static void tear_down(void)
{
    memory_broker_stop(&memory);
}

static void declare(bool single_active, const char *type)
{
    struct buf arguments = BUF_EMPTY;
    struct amqp_error error;
    uint64_t lsn;

    amqp_table_put_bool(&arguments, SLICE("x-single-active-consumer"), single_active);
    amqp_table_put_string(&arguments, SLICE("x-queue-type"), slice_of_string(type));
    queue = vhost_declare_queue(memory.vhost,
                                &(struct queue_options){.name = SLICE("q"),
                                                        .durable = true,
                                                        .arguments = buf_slice(&arguments)},
                                NULL, &lsn, &error);
    ck_assert_ptr_nonnull(queue);
    buf_release(&arguments);
}

static struct taker *attach(char name, int64_t priority, uint16_t prefetch)
{
    struct taker *taker = &takers[name - 'a'];

    *taker = (struct taker){.consumer = {.ops = &ops, .priority = priority, .prefetch = prefetch},
                            .name = name};
    queue_attach(queue, &taker->consumer);
    return taker;
}

static void detach(struct taker *taker)
{
    queue_detach(queue, &taker->consumer);
}

static void publish(int count)
{
    for (int i = 0; i < count; i++) {
        struct message *message = message_new(SLICE(""), SLICE("q"), SLICE("\0\0"), 0, false);
        queue_push(queue, message);
        message_unref(&message);
    }
    loop_turn(&memory.loop, 0);
}

static void acknowledge(struct taker *taker)
{
    for (size_t i = 0; i < taker->count; i++)
        queue_ack(queue, taker->places[i], &taker->consumer);
    taker->count = 0;
    loop_turn(&memory.loop, 0);
}

static void acknowledge_all(void)
{
    for (size_t i = 0; i < countof(takers); i++)
        acknowledge(&takers[i]);
}

static void expect(const char *deliveries)
{
    ck_assert_str_eq(journal, deliveries);
    memset(journal, 0, sizeof(journal));
}

static void delete_queue(void)
{
    queue_delete(queue);
    loop_turn(&memory.loop, 0);
}

/* ---- priorities ---- */

START_TEST(equals_take_turns) /* 10.7 */
{
    declare(false, "classic");
    attach('a', 3, 0);
    attach('b', 3, 0);
    attach('c', 3, 0);
    publish(7);
    expect("abcabca");
    publish(2);
    expect("bc");
    acknowledge_all();
    delete_queue();
    expect("ABC");
}
END_TEST

START_TEST(the_highest_priority_is_served_while_it_has_credit) /* 10.7 */
{
    declare(false, "classic");
    attach('a', 0, 0);
    struct taker *b = attach('b', 5, 2);
    attach('c', -7, 0);
    attach('d', 5, 1);
    publish(6);
    expect("bdbaaa");
    acknowledge(b);
    publish(3);
    expect("bba");
    acknowledge_all();
    publish(1);
    ck_assert(journal[0] == 'b' || journal[0] == 'd');
    expect(journal);
    acknowledge_all();
    delete_queue();
}
END_TEST

START_TEST(the_lowest_comes_when_the_others_are_full) /* 10.7 */
{
    declare(false, "classic");
    struct taker *low = attach('a', INT64_MIN, 0);
    struct taker *middle = attach('b', 0, 0);
    struct taker *high = attach('c', INT64_MAX, 0);
    high->is_full = true;
    publish(2);
    expect("bb");
    middle->is_full = true;
    publish(1);
    expect("a");
    high->is_full = middle->is_full = false;
    consumer_wake(&middle->consumer);
    consumer_wake(&high->consumer);
    publish(1);
    expect("c");
    detach(high);
    publish(1);
    expect("b");
    acknowledge_all();
    detach(low);
    detach(middle);
    delete_queue();
}
END_TEST

/* Who comes in turn, by a plain list. */
static struct taker *order[countof(takers)];
static size_t in_order, backlog;

static void order_enter(struct taker *taker)
{
    size_t at = 0;

    while (at < in_order && order[at]->consumer.priority >= taker->consumer.priority)
        at++;
    memmove(&order[at + 1], &order[at], (in_order - at) * sizeof(order[0]));
    order[at] = taker;
    in_order++;
}

static void order_leave(const struct taker *taker)
{
    size_t at = 0;

    while (at < in_order && order[at] != taker)
        at++;
    if (at == in_order)
        return;
    in_order--;
    memmove(&order[at], &order[at + 1], (in_order - at) * sizeof(order[0]));
}

/* held: how many each has. */
static void order_deliver(char *expected, size_t held[])
{
    while (backlog > 0 && in_order > 0) {
        struct taker *taker = order[0];
        const size_t number = (size_t)(taker - takers);
        order_leave(taker);
        if (held[number] == taker->consumer.prefetch)
            continue;
        order_enter(taker);
        held[number]++;
        backlog--;
        *expected++ = taker->name;
    }
    *expected = '\0';
}

START_TEST(turns_are_as_in_a_plain_list) /* 10.7 */
{
    struct random random;
    size_t held[countof(takers)] = {0};
    bool attached[countof(takers)] = {false};
    char expected[sizeof(journal)];

    random_init_seeded(&random, (uint64_t)_i + 1);
    declare(false, "classic");
    in_order = backlog = 0;
    for (int step = 0; step < 400; step++) {
        const size_t number = random_below(&random, countof(takers));
        struct taker *taker = &takers[number];
        int published = 0;
        if (random_below(&random, 2) == 0) {
            published = (int)random_below(&random, 4);
            backlog += (size_t)published;
        } else if (!attached[number]) {
            attach((char)('a' + number), (int64_t)random_below(&random, 4) - 2,
                   (uint16_t)(1 + random_below(&random, 3)));
            attached[number] = true;
            order_enter(taker);
        } else if (random_below(&random, 3) > 0) {
            if (held[number] > 0 && taker->consumer.state == CONSUMER_IDLE)
                order_enter(taker);
            held[number] = 0;
            order_deliver(expected, held);
            acknowledge(taker);
            expect(expected);
        } else if (held[number] == 0) {
            detach(taker);
            attached[number] = false;
            order_leave(taker);
        }
        publish(published);
        order_deliver(expected, held);
        expect(expected);
    }
    acknowledge_all();
    delete_queue();
}
END_TEST

/* ---- single active consumer ---- */

START_TEST(one_alone_is_served) /* 10.11 */
{
    declare(true, "classic");
    struct taker *a = attach('a', 0, 0);
    struct taker *b = attach('b', 9, 0);
    struct taker *c = attach('c', 9, 0);
    publish(3);
    expect("aaa");
    ck_assert_uint_eq(queue->consumer_count, 3);
    ck_assert_ptr_eq(queue->consumers.active, &a->consumer);
    ck_assert_int_eq(b->consumer.state, CONSUMER_WAITING);

    detach(a); /* the next in order of subscription, whatever it has not acknowledged */
    publish(2);
    expect("bb");
    detach(c); /* who waits may go */
    detach(b);
    ck_assert_ptr_null(queue->consumers.active);
    publish(1);
    expect("");
    attach('d', 0, 0);
    publish(0);
    expect("d");
    acknowledge_all();
    delete_queue();
    expect("D");
}
END_TEST

START_TEST(one_without_credit_stays_active) /* 10.11 */
{
    declare(true, "classic");
    struct taker *a = attach('a', 0, 1);
    attach('b', 0, 0);
    publish(3);
    expect("a");
    acknowledge(a);
    expect("a");
    detach(a);
    publish(0);
    expect("b");
    acknowledge_all();
    delete_queue();
    expect("B");
}
END_TEST

START_TEST(on_quorum_queues_the_highest_is_active) /* 10.11 */
{
    declare(true, "quorum");
    struct taker *a = attach('a', 1, 0);
    attach('b', 1, 0);
    publish(2);
    expect("aa");
    struct taker *c = attach('c', 2, 0);
    struct taker *d = attach('d', 3, 0);
    publish(2); /* a gets nothing more, and holds two */
    expect("");
    acknowledge(a);
    expect("dd");
    ck_assert_int_eq(a->consumer.state, CONSUMER_WAITING);
    acknowledge(d);
    detach(d);
    publish(1);
    expect("c");
    acknowledge(c);
    detach(c);
    publish(1);
    expect("b"); /* before a, which came back behind it */
    acknowledge_all();
    delete_queue();
}
END_TEST

START_TEST(who_outranks_may_go_again) /* 10.11 */
{
    declare(true, "quorum");
    attach('a', 1, 0);
    publish(1);
    expect("a");
    struct taker *b = attach('b', 2, 0);
    publish(1);
    expect("");
    detach(b);
    publish(1);
    expect("aa");
    acknowledge_all();
    attach('b', 2, 0); /* nothing is held: at once */
    ck_assert_ptr_eq(queue->consumers.active, &b->consumer);
    delete_queue();
}
END_TEST

/* ---- the end ---- */

START_TEST(who_holds_something_stays_until_it_is_settled) /* 10.9 */
{
    declare(false, "classic");
    struct taker *a = attach('a', 0, 1), *b = attach('b', 0, 0), *c = attach('c', 0, 0);
    publish(3);
    expect("abc");
    acknowledge(c);
    detach(c);
    ck_assert(c->is_gone);
    detach(a); /* without room */
    detach(b);
    publish(1);
    ck_assert(!a->is_gone && !b->is_gone);
    acknowledge(a);
    ck_assert(a->is_gone && !b->is_gone);
    queue_requeue(queue, b->places[0], &b->consumer, true);
    ck_assert(b->is_gone);
    expect("");

    struct taker *d = attach('d', 0, 1);
    publish(0);
    expect("d");
    queue_ref(queue);
    queue_delete(queue);
    expect("D");
    ck_assert(!d->is_gone);
    acknowledge(d);
    ck_assert(d->is_gone);
    queue_unref(&queue);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("consumer");
    TCase *tests = tcase_create("consumer");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, equals_take_turns);
    tcase_add_test(tests, the_highest_priority_is_served_while_it_has_credit);
    tcase_add_test(tests, the_lowest_comes_when_the_others_are_full);
    tcase_add_loop_test(tests, turns_are_as_in_a_plain_list, 0, 8);
    tcase_add_test(tests, one_alone_is_served);
    tcase_add_test(tests, one_without_credit_stays_active);
    tcase_add_test(tests, on_quorum_queues_the_highest_is_active);
    tcase_add_test(tests, who_outranks_may_go_again);
    tcase_add_test(tests, who_holds_something_stays_until_it_is_settled);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
