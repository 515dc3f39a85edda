/* spenders: in which order and in which turns those have theirs who spend more than one has. */
#include "session/spenders.h"

#include "core/broker.h"
#include "tests/lib/unit.h"

enum { COUNT = 3, TURNS_MAX = 32 };

struct client {
    struct spender spender;
    size_t cost; /* of what it does in a turn */
};

static struct clock now = {.fake = true, .now_ms = 1000};
static struct loop loop;
static struct broker broker = {.loop = &loop};
static struct spenders spenders;
static struct client clients[COUNT];
static struct {
    const struct client *client;
    uint64_t turn;
} had[TURNS_MAX];
static size_t had_count;

static void on_turn(struct spender *spender)
{
    const struct client *client = container_of(spender, struct client, spender);

    ck_assert(!spender->rests);
    had[had_count].client = client;
    had[had_count++].turn = loop.turns;
    broker_spend(&broker, client->cost);
    if (broker_has_overspent(&broker))
        spenders_rest(&spenders, spender);
}

static void set_up(void)
{
    ck_assert_int_eq(0, loop_init(&loop, &now));
    spenders_init(&spenders, &broker);
    for (size_t i = 0; i < COUNT; i++)
        clients[i] = (struct client){.spender.on_turn = on_turn, .cost = TURN_STEPS_MAX + 1};
    had_count = 0;
}

static void tear_down(void)
{
    for (size_t i = 0; i < COUNT; i++)
        spenders_remove(&spenders, &clients[i].spender);
    spenders_release(&spenders);
    loop_release(&loop);
}

static void spend_all(struct task *task)
{
    (void)task;
    broker_spend(&broker, TURN_STEPS_MAX + 1);
}

static void all_rest(void)
{
    for (size_t i = 0; i < COUNT; i++)
        spenders_rest(&spenders, &clients[i].spender);
}

START_TEST(one_turn_each_and_again)
{
    all_rest();
    for (size_t i = 0; i < 3 * COUNT; i++) {
        loop_turn(&loop, 0);
        ck_assert_uint_eq(had_count, i + 1);
        ck_assert_ptr_eq(had[i].client, &clients[i % COUNT]);
    }
}
END_TEST

START_TEST(a_turn_is_for_as_many_as_it_has_steps)
{
    for (size_t i = 0; i < COUNT; i++)
        clients[i].cost = TURN_STEPS_MAX / 2 + 1;
    all_rest();
    loop_turn(&loop, 0);
    ck_assert_uint_eq(had_count, 2);
    ck_assert(!clients[0].spender.rests);
    ck_assert(clients[1].spender.rests);
    loop_turn(&loop, 0);
    ck_assert_uint_eq(had_count, 4);
    ck_assert(!clients[1].spender.rests);
    loop_turn(&loop, 0);
    ck_assert_uint_eq(had_count, 5);
    ck_assert_ptr_eq(had[4].client, &clients[2]);
}
END_TEST

/* Who had what another left has a whole turn next, and is behind all others then. */
START_TEST(what_is_left_is_no_turn)
{
    clients[0].cost = TURN_STEPS_MAX;
    all_rest();
    for (int i = 0; i < 5; i++)
        loop_turn(&loop, 0);
    ck_assert_uint_eq(had_count, 6);
    const size_t order[] = {0, 1, 1, 2, 1, 2};
    const uint64_t began = had[0].turn, turns[] = {0, 0, 1, 2, 3, 4};
    for (size_t i = 0; i < countof(order); i++) {
        ck_assert_ptr_eq(had[i].client, &clients[order[i]]);
        ck_assert_uint_eq(had[i].turn, began + turns[i]);
    }
}
END_TEST

/* Nobody's who rests, that is: others may have spent all of it before. */
START_TEST(what_others_spend_is_not_theirs)
{
    struct task other = {.run = spend_all};

    loop_queue(&loop, LOOP_INPUT, &other);
    all_rest();
    for (size_t i = 0; i < COUNT; i++)
        clients[i].cost = TURN_STEPS_MAX / 3;
    loop_turn(&loop, 0);
    ck_assert_uint_eq(had_count, COUNT);
}
END_TEST

START_TEST(who_has_left_has_no_turn)
{
    all_rest();
    spenders_remove(&spenders, &clients[0].spender);
    spenders_remove(&spenders, &clients[0].spender);
    loop_turn(&loop, 0);
    ck_assert_ptr_eq(had[0].client, &clients[1]);
    spenders_remove(&spenders, &clients[1].spender);
    spenders_remove(&spenders, &clients[2].spender);
    loop_turn(&loop, 0);
    loop_turn(&loop, 0);
    ck_assert_uint_eq(had_count, 1);
}
END_TEST

START_TEST(who_comes_waits_for_those_who_rest)
{
    ck_assert(!spenders_must_wait(&spenders));
    spenders_rest(&spenders, &clients[0].spender);
    ck_assert(spenders_must_wait(&spenders)); /* though this turn has steps left */
    clients[0].cost = 0;
    loop_turn(&loop, 0);
    ck_assert(!spenders_must_wait(&spenders));
}
END_TEST

START_TEST(who_comes_waits_when_the_turn_is_spent)
{
    broker_spend(&broker, TURN_STEPS_MAX);
    ck_assert(!spenders_must_wait(&spenders));
    broker_spend(&broker, 1);
    ck_assert(spenders_must_wait(&spenders)); /* though nobody rests */
    loop_turn(&loop, 0);
    ck_assert(!spenders_must_wait(&spenders));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("spenders");
    TCase *tests = tcase_create("turns");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, one_turn_each_and_again);
    tcase_add_test(tests, a_turn_is_for_as_many_as_it_has_steps);
    tcase_add_test(tests, what_is_left_is_no_turn);
    tcase_add_test(tests, what_others_spend_is_not_theirs);
    tcase_add_test(tests, who_has_left_has_no_turn);
    tcase_add_test(tests, who_comes_waits_for_those_who_rest);
    tcase_add_test(tests, who_comes_waits_when_the_turn_is_spent);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
