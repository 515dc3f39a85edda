/* worker: jobs run one after another on another thread, in order, and come back, whatever the owner
 * does meanwhile. */
#include "base/worker.h"

#include <poll.h>

#include "tests/lib/unit.h"

enum { JOBS = 1000 };

struct task {
    struct job job;
    pthread_t ran_on;
    uint64_t number, ran_as, done_as;
    unsigned posts_left; /* done posts it again */
};

static struct worker worker;
static struct task tasks[JOBS];
static uint64_t ran_count, done_count; /* the worker's; the owner's */

static void on_run(struct job *job)
{
    struct task *task = container_of(job, struct task, job);

    task->ran_on = pthread_self();
    task->ran_as = ran_count++;
}

static void on_done(struct job *job)
{
    struct task *task = container_of(job, struct task, job);

    task->done_as = done_count++;
    if (task->posts_left > 0) {
        task->posts_left--;
        worker_post(&worker, job);
    }
}

static void start(unsigned posts)
{
    ran_count = done_count = 0;
    ck_assert_int_eq(0, worker_open(&worker));
    for (uint64_t i = 0; i < JOBS; i++) {
        tasks[i] = (struct task){
            .job = {.run = on_run, .done = on_done}, .number = i, .posts_left = posts - 1};
        worker_post(&worker, &tasks[i].job);
    }
}

static void wait_for(uint64_t count)
{
    struct pollfd ready = {.fd = worker_fd(&worker), .events = POLLIN};

    while (done_count < count) {
        ck_assert_int_eq(1, poll(&ready, 1, 10000));
        worker_process(&worker);
    }
}

START_TEST(jobs_run_elsewhere_in_order)
{
    unsigned wrong = 0;

    start(1);
    wait_for(JOBS);
    for (uint64_t i = 0; i < JOBS; i++)
        wrong += tasks[i].ran_as != i || tasks[i].done_as != i ||
                 pthread_equal(tasks[i].ran_on, pthread_self());
    ck_assert_uint_eq(0, wrong);
    ck_assert_uint_eq(0, worker.under_way);
    worker_close(&worker);
}
END_TEST

START_TEST(a_job_may_be_posted_again_when_it_is_done)
{
    start(3);
    wait_for(3 * JOBS);
    ck_assert_uint_eq(3 * JOBS, ran_count);
    worker_close(&worker);
}
END_TEST

START_TEST(closing_waits_for_every_job)
{
    start(2);
    worker_close(&worker);
    ck_assert_uint_eq(2 * JOBS, done_count);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("worker");
    TCase *tests = tcase_create("worker");
    tcase_add_test(tests, jobs_run_elsewhere_in_order);
    tcase_add_test(tests, a_job_may_be_posted_again_when_it_is_done);
    tcase_add_test(tests, closing_waits_for_every_job);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
