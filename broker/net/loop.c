/* The event loop. See loop.h for the picture of a turn.
 *
 * A phase runs until the mark that was put behind its last task: what is queued meanwhile stands
 * behind the mark and waits for the next turn, and any task may be taken out of the list at any
 * time, by itself or by another.
 *
 * Events are fetched into the loop and delivered one by one, each a source that has become ready.
 * Unwatching a source strikes its events off those that are still to come, so that a handler may
 * close any source, and free what holds it, without another handler being called for a ghost.
 *
 * Everything here belongs to one thread. What can fail is making the epoll descriptor and adding to
 * it; the rest is an assert. */
#include "net/loop.h"

#include <limits.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/alloc.h"

int loop_init(struct loop *loop, struct clock *clock)
{
    const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        return -errno;

    *loop = (struct loop){.clock = clock, .epoll_fd = epoll_fd, .output_max = LOOP_OUTPUT_MAX};
    for (int phase = 0; phase < LOOP_PHASES; phase++)
        TAILQ_INIT(&loop->phases[phase]);
    clock_update(clock);
    wheel_init(&loop->timers, clock->now_ms);
    loop->scratch = xmalloc(LOOP_SCRATCH_SIZE);
    return 0;
}

void loop_release(struct loop *loop)
{
    for (int phase = 0; phase < LOOP_PHASES; phase++)
        assert(TAILQ_EMPTY(&loop->phases[phase]));
    while (loop->buffer_count > 0)
        free(loop->buffers[--loop->buffer_count]);
    buf_release(&loop->sink);
    free(loop->scratch);
    close(loop->epoll_fd);
    *loop = (struct loop){.epoll_fd = -1};
}

void loop_queue(struct loop *loop, enum loop_phase phase, struct task *task)
{
    if (task->queued)
        return;
    task->queued = true;
    task->phase = (uint8_t)phase;
    TAILQ_INSERT_TAIL(&loop->phases[phase], task, link);
}

void loop_unqueue(struct loop *loop, struct task *task)
{
    if (!task->queued)
        return;
    TAILQ_REMOVE(&loop->phases[task->phase], task, link);
    task->queued = false;
}

int loop_watch(struct loop *loop, struct source *source)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = source};
    if (source->wants_output)
        event.events |= EPOLLOUT;
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) == 0 ? 0 : -errno;
}

void loop_unwatch(struct loop *loop, struct source *source)
{
    const int result = epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    assert(result == 0);
    (void)result;
    for (int i = loop->event_next; i < loop->event_count; i++) {
        if (loop->events[i].data.ptr == source)
            loop->events[i].data.ptr = NULL;
    }
}

/* For epoll_wait: milliseconds, -1 for ever. */
static int poll_timeout(const struct loop *loop, uint64_t wait_ms)
{
    for (int phase = 0; phase < LOOP_PHASES; phase++) {
        if (!TAILQ_EMPTY(&loop->phases[phase]))
            return 0;
    }
    if (wait_ms > 0)
        wait_ms = min_of(wait_ms, wheel_wait_ms(&loop->timers));
    return wait_ms == UINT64_MAX ? -1 : (int)min_of(wait_ms, (uint64_t)INT_MAX);
}

static void fetch_events(struct loop *loop, uint64_t wait_ms)
{
    const int count =
        epoll_wait(loop->epoll_fd, loop->events, LOOP_EVENTS_MAX, poll_timeout(loop, wait_ms));
    assert(count >= 0 || errno == EINTR);
    loop->event_next = 0;
    loop->event_count = max_of(count, 0);
}

static void deliver_events(struct loop *loop)
{
    while (loop->event_next < loop->event_count) {
        const struct epoll_event *event = &loop->events[loop->event_next++];
        struct source *source = event->data.ptr;
        if (source != NULL)
            source->on_ready(source, event->events);
    }
}

static void run_phase(struct loop *loop, enum loop_phase phase)
{
    struct task_list *tasks = &loop->phases[phase];
    if (TAILQ_EMPTY(tasks))
        return;

    struct task mark = {.phase = (uint8_t)phase, .queued = true};
    TAILQ_INSERT_TAIL(tasks, &mark, link);
    for (struct task *task; (task = TAILQ_FIRST(tasks)) != &mark;) {
        TAILQ_REMOVE(tasks, task, link);
        task->queued = false;
        task->run(task);
    }
    TAILQ_REMOVE(tasks, &mark, link);
}

void loop_turn(struct loop *loop, uint64_t wait_ms)
{
    fetch_events(loop, wait_ms);
    clock_update(loop->clock);
    deliver_events(loop);
    run_phase(loop, LOOP_INPUT);
    wheel_advance(&loop->timers, loop->clock->now_ms);
    for (int phase = LOOP_DEFERRED; phase < LOOP_PHASES; phase++)
        run_phase(loop, (enum loop_phase)phase);
    loop->turns++;
}

void loop_run(struct loop *loop)
{
    while (!loop->stopping)
        loop_turn(loop, UINT64_MAX);
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}

struct buf loop_take_buffer(struct loop *loop)
{
    uint8_t *data =
        loop->buffer_count > 0 ? loop->buffers[--loop->buffer_count] : xmalloc(LOOP_BUFFER_SIZE);
    return (struct buf){.data = data, .capacity = LOOP_BUFFER_SIZE};
}

/* One that has grown is freed: rest costs what the limits above say and no more. */
void loop_give_buffer(struct loop *loop, struct buf *buf)
{
    if (buf->capacity == LOOP_BUFFER_SIZE && loop->buffer_count < LOOP_BUFFERS_MAX)
        loop->buffers[loop->buffer_count++] = buf->data;
    else
        buf_release(buf);
    *buf = BUF_EMPTY;
}
