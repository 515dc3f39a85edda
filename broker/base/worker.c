#include "base/worker.h"

#include "base/thread.h"

static struct job *take_first(struct letter_list *letters)
{
    struct letter *letter = STAILQ_FIRST(letters);

    if (letter == NULL)
        return NULL;
    STAILQ_REMOVE_HEAD(letters, link);
    return container_of(letter, struct job, letter);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    struct job *job;

    for (;;) {
        mailbox_wait(&worker->inbox);
        mailbox_take(&worker->inbox, &letters);
        while ((job = take_first(&letters)) != NULL) {
            if (job == &worker->last)
                return NULL;
            job->run(job);
            mailbox_post(&worker->outbox, &job->letter);
        }
    }
}

int worker_open(struct worker *worker)
{
    *worker = (struct worker){0};
    int rc = mailbox_open(&worker->inbox);
    if (rc != 0)
        return rc;
    rc = mailbox_open(&worker->outbox);
    if (rc == 0) {
        rc = thread_start(&worker->thread, work, worker);
        if (rc != 0)
            mailbox_close(&worker->outbox);
    }
    if (rc != 0)
        mailbox_close(&worker->inbox);
    return rc;
}

void worker_close(struct worker *worker)
{
    while (worker->under_way > 0) {
        mailbox_wait(&worker->outbox);
        worker_process(worker);
    }
    mailbox_post(&worker->inbox, &worker->last.letter);
    pthread_join(worker->thread, NULL);
    mailbox_close(&worker->inbox);
    mailbox_close(&worker->outbox);
}

void worker_post(struct worker *worker, struct job *job)
{
    worker->under_way++;
    mailbox_post(&worker->inbox, &job->letter);
}

void worker_process(struct worker *worker)
{
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    struct job *job;

    mailbox_take(&worker->outbox, &letters);
    while ((job = take_first(&letters)) != NULL) {
        assert(worker->under_way > 0);
        worker->under_way--;
        job->done(job);
    }
}
