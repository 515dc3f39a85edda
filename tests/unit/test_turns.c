/* turns: the lines take turns, within a line the oldest is first, and a long line is in nobody's
 * way but its own. */
#include "base/turns.h"

#include "tests/lib/unit.h"

enum { LINES = 4, MANY = 1000 };

struct waiter {
    struct turn turn;
    char name;
};

static struct turns turns;
static struct turn_line lines[LINES];
static struct waiter waiters[MANY];
static size_t waiter_count;

static void set_up(void)
{
    turns_init(&turns);
    waiter_count = 0;
    memset(waiters, 0, sizeof(waiters));
    for (size_t i = 0; i < LINES; i++)
        turn_line_init(&lines[i]);
}

static struct waiter *come(size_t line, char name)
{
    struct waiter *waiter = &waiters[waiter_count++];

    waiter->name = name;
    turn_wait(&turns, &lines[line], &waiter->turn);
    return waiter;
}

/* Those of a line, oldest first. */
static void come_all(size_t line, const char *names)
{
    for (; *names != '\0'; names++)
        come(line, *names);
}

static char take(void)
{
    struct turn *turn = turns_take(&turns);

    if (turn == NULL)
        return '.';
    ck_assert_ptr_null(turn->line);
    return container_of(turn, struct waiter, turn)->name;
}

static void expect(const char *names)
{
    for (; *names != '\0'; names++)
        ck_assert_int_eq(take(), *names);
}

START_TEST(lines_take_turns)
{
    come_all(0, "abcd");
    come_all(1, "AB");
    come_all(2, "1");
    expect("aA1bBcd..");
}
END_TEST

START_TEST(who_comes_alone_waits_for_one_of_each_line)
{
    for (size_t i = 0; i < MANY - 2; i++)
        come(i % 3, (char)('a' + i % 3));
    expect("abcab");
    come(3, 'X');
    expect("cabXcabc");
    come(3, 'Y');
    expect("abcYab");
}
END_TEST

START_TEST(one_that_goes_first_is_first_in_its_own_line_alone)
{
    come_all(0, "ab");
    come_all(1, "AB");
    struct waiter *urgent = &waiters[waiter_count++];
    urgent->name = '!';
    turn_wait_first(&turns, &lines[1], &urgent->turn);
    expect("a!bAB.");
}
END_TEST

START_TEST(who_goes_away_has_no_turn)
{
    come_all(0, "a");
    struct waiter *middle = come(0, 'b');
    come_all(0, "c");
    struct waiter *alone = come(1, 'A');
    come_all(2, "1");
    turn_cancel(&turns, &middle->turn);
    turn_cancel(&turns, &alone->turn);
    ck_assert_ptr_null(alone->turn.line);
    ck_assert_uint_eq(lines[0].count, 2);
    ck_assert_uint_eq(lines[1].count, 0);
    expect("a1c.");
    turn_wait(&turns, &lines[1], &alone->turn);
    expect("A.");
}
END_TEST

START_TEST(a_line_that_is_held_is_passed_over)
{
    come_all(0, "ab");
    come_all(1, "AB");
    turn_line_hold(&turns, &lines[0]);
    turn_line_hold(&turns, &lines[2]); /* where nobody waits yet */
    struct waiter *gone = come(2, '1');
    come_all(2, "2");
    expect("A");
    turn_cancel(&turns, &gone->turn);
    turn_line_let_go(&turns, &lines[2]);
    turn_line_let_go(&turns, &lines[0]);
    expect("B2ab.");
    turn_line_hold(&turns, &lines[0]);
    turn_line_let_go(&turns, &lines[0]);
    expect(".");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("turns");
    TCase *tests = tcase_create("turns");
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, lines_take_turns);
    tcase_add_test(tests, who_comes_alone_waits_for_one_of_each_line);
    tcase_add_test(tests, one_that_goes_first_is_first_in_its_own_line_alone);
    tcase_add_test(tests, who_goes_away_has_no_turn);
    tcase_add_test(tests, a_line_that_is_held_is_passed_over);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
