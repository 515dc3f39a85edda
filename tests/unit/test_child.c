/* A child that ends by itself, and one that does not. */
#include "store/child.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/lib/unit.h"

static const struct store_waiting patient;

static int answer(void *context, struct child *child)
{
    child->stage = "answering";
    snprintf(child->error, sizeof child->error, "so it is");
    return *(const int *)context;
}

START_TEST(its_answer_comes_back)
{
    static const int answers[] = {0, -EBADMSG, 77, 1 << 30};
    struct child child;

    for (size_t i = 0; i < countof(answers); i++) {
        int number = answers[i];
        ck_assert_int_eq(child_run(answer, &number, &patient, &child), 0);
        ck_assert_int_eq(child.result, answers[i]);
        ck_assert_int_eq(child.signal, 0);
        ck_assert(!child_has_faulted(&child));
        ck_assert_str_eq(child.error, "so it is");
        ck_assert_str_eq(child.stage, "answering");
    }
}
END_TEST

static int read_behind_the_end(void *context, struct child *child)
{
    const long size = sysconf(_SC_PAGESIZE);
    FILE *file = tmpfile();
    (void)context;

    ck_assert_int_eq(ftruncate(fileno(file), size), 0);
    const volatile uint8_t *octets =
        mmap(NULL, (size_t)size * 2, PROT_READ, MAP_SHARED, fileno(file), 0);
    child->stage = "behind the end";
    return octets[size];
}

static int read_what_is_forbidden(void *context, struct child *child)
{
    const volatile uint8_t *octets =
        mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)context;

    child->stage = "where it may not";
    return octets[0];
}

static int end_itself(void *context, struct child *child)
{
    (void)context;
    child->stage = "giving up";
    child_note_damage();
    abort();
}

START_TEST(a_fault_is_one)
{
    static const struct {
        child_work *work;
        const char *end;
    } ends[] = {{read_behind_the_end, "SIGBUS: behind the end"},
                {read_what_is_forbidden, "SIGSEGV: where it may not"},
                {end_itself, "SIGABRT: giving up"}};
    struct child child;
    char text[64];

    for (size_t i = 0; i < countof(ends); i++) {
        ck_assert_int_eq(child_run(ends[i].work, NULL, &patient, &child), 0);
        ck_assert(child_has_faulted(&child));
        child_describe(&child, text, sizeof text);
        ck_assert_str_eq(text, ends[i].end);
    }
}
END_TEST

static int be_killed(void *context, struct child *child)
{
    (void)context, (void)child;
    return raise(SIGKILL);
}

static int run_out_of_memory(void *context, struct child *child)
{
    (void)context, (void)child;
    alloc_fail_at(1, NULL);
    free(xmalloc(1));
    return 0;
}

START_TEST(what_the_system_does_is_none)
{
    static const struct {
        child_work *work;
        int signal;
    } ends[] = {{be_killed, SIGKILL}, {run_out_of_memory, SIGABRT}};
    struct child child;

    for (size_t i = 0; i < countof(ends); i++) {
        ck_assert_int_eq(child_run(ends[i].work, NULL, &patient, &child), 0);
        ck_assert_int_eq(child.signal, ends[i].signal);
        ck_assert(!child_has_faulted(&child));
    }
}
END_TEST

static int leave(void *context, struct child *child)
{
    (void)context, (void)child;
    _exit(0);
}

START_TEST(no_answer_is_none)
{
    struct child child;

    ck_assert_int_eq(child_run(leave, NULL, &patient, &child), -ECHILD);
}
END_TEST

static int say_and_fault(void *context, struct child *child)
{
    (void)context;
    puts("said");
    return read_what_is_forbidden(NULL, child);
}

/* And no more than once, whoever printed it. */
START_TEST(what_it_printed_is_not_lost)
{
    char path[] = "/tmp/stoatmq-child-XXXXXX", text[64];
    const int output = mkstemp(path), before = dup(STDOUT_FILENO);
    struct child child;

    unlink(path);
    fflush(stdout);
    dup2(output, STDOUT_FILENO);
    setvbuf(stdout, NULL, _IOFBF, 0);
    fputs("before\n", stdout);
    const int result = child_run(say_and_fault, NULL, &patient, &child);
    fflush(stdout);
    dup2(before, STDOUT_FILENO);
    const ssize_t size = pread(output, text, sizeof text, 0);
    ck_assert_int_eq(result, 0);
    ck_assert_int_eq(child.signal, SIGSEGV);
    ck_assert_int_eq(size, 12);
    ck_assert_mem_eq(text, "before\nsaid\n", 12);
}
END_TEST

static int wait_for_ever(void *context, struct child *child)
{
    (void)context, (void)child;
    while (pause() == -1)
        ;
    return 0;
}

static bool goes_on_twice(void *context)
{
    return (*(int *)context)++ < 2;
}

START_TEST(who_waits_may_go)
{
    int asked = 0;
    const struct store_waiting waiting = {.goes_on = goes_on_twice, .context = &asked};
    struct child child;

    ck_assert_int_eq(child_run(wait_for_ever, NULL, &waiting, &child), -ECANCELED);
    ck_assert_int_eq(asked, 3);
    ck_assert_int_eq(child.signal, SIGKILL); /* it is gone */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("child");
    TCase *tests = tcase_create("child");

    tcase_add_test(tests, its_answer_comes_back);
    tcase_add_test(tests, a_fault_is_one);
    tcase_add_test(tests, what_the_system_does_is_none);
    tcase_add_test(tests, no_answer_is_none);
    tcase_add_test(tests, what_it_printed_is_not_lost);
    tcase_add_test(tests, who_waits_may_go);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
