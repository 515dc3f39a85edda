#include "core/paging.h"

#include "core/queue_page_out.h"
#include "core/remains.h"

enum {
    SEGMENTS_PER_TURN = 64,
    WINDOWS_PER_TURN = 1024,
    READ_BYTES_MIN = 4 * 1024,
    READ_BYTES_MAX = 2 * 1024 * 1024,
    RETRY_MS = 10,
    RETRY_MS_MAX = 1000,
    WRITE_RETRY_MS = 1000,
};

static uint64_t used(const struct paging *paging)
{
    const uint64_t messages = message_memory(), remains = remains_memory(paging->remains);

    return messages - min_of(messages, remains) + paging->segment_bytes + paging->reading_bytes;
}

static uint64_t low_mark(const struct paging *paging)
{
    return paging->limit / 8 * 7;
}

bool paging_is_short(const struct paging *paging)
{
    return used(paging) > paging->limit;
}

bool paging_is_far_above(const struct paging *paging)
{
    return used(paging) > paging->limit + paging->limit / 2;
}

/* ---- rounds ---- */

/* In the phase after everything that hands out: what was read is offered before it can go again. */
static void begin_round(struct paging *paging)
{
    paging->hand = TAILQ_FIRST(&paging->windows);
    paging->gave_up_some = false;
    if (paging->hand != NULL)
        loop_queue(paging->loop, LOOP_REAP, &paging->task);
}

/* All windows have been asked. */
static void end_round(struct paging *paging)
{
    if (paging->gave_up_some) {
        paging->retry_ms = RETRY_MS;
        begin_round(paging);
        return;
    }
    paging->share /= 2;
    timer_set(&paging->loop->timers, &paging->retry,
              paging->loop->clock->now_ms + paging->retry_ms);
    paging->retry_ms = min_of(2 * paging->retry_ms, (uint64_t)RETRY_MS_MAX);
}

static void on_retry(struct timer *timer)
{
    paging_review(container_of(timer, struct paging, retry));
}

static void go_on(struct task *task)
{
    struct paging *paging = container_of(task, struct paging, task);
    unsigned segments = SEGMENTS_PER_TURN;

    for (unsigned i = 0; i < WINDOWS_PER_TURN && paging->hand != NULL; i++) {
        struct window *window = paging->hand;
        if (used(paging) <= low_mark(paging) + paging->writing_bytes) {
            paging->hand = NULL;
            paging->share = UINT64_MAX;
            return;
        }
        const unsigned before = segments;
        segments -= queue_page_out(window, paging->share, segments);
        paging->gave_up_some |= segments < before;
        if (segments == 0)
            break;
        if (paging->hand == window)
            paging->hand = TAILQ_NEXT(window, paging_link);
    }
    if (paging->hand != NULL)
        loop_queue(paging->loop, LOOP_REAP, &paging->task);
    else
        end_round(paging);
}

void paging_review(struct paging *paging)
{
    if (likely(used(paging) <= paging->limit) || paging->hand != NULL ||
        timer_is_set(&paging->retry))
        return;
    const uint64_t count = max_of(paging->window_count, 1U);
    const uint64_t most = low_mark(paging) / count, least = paging->limit / 64 / count;
    paging->share = max_of(min_of(paging->share, most), least);
    begin_round(paging);
}

void paging_on_progress(struct paging *paging)
{
    timer_cancel(&paging->retry);
    paging->retry_ms = RETRY_MS;
    paging_review(paging);
}

/* ---- windows ---- */

static void unlist(struct paging *paging, struct window *window)
{
    if (paging->hand == window)
        paging->hand = TAILQ_NEXT(window, paging_link);
    TAILQ_REMOVE(&paging->windows, window, paging_link);
    paging->window_count--;
}

void paging_grow(struct window *window, size_t bytes, bool has_slots)
{
    struct paging *paging = window->paging;

    if (paging == NULL)
        return;
    paging->segment_bytes += bytes;
    if (!has_slots)
        return;
    if (window->listed)
        unlist(paging, window);
    window->listed = true;
    TAILQ_INSERT_HEAD(&paging->windows, window, paging_link);
    paging->window_count++;
    paging_review(paging);
}

void paging_shrink(struct window *window, size_t bytes)
{
    struct paging *paging = window->paging;

    if (paging == NULL)
        return;
    paging->segment_bytes -= bytes;
    if (window->listed && window->loaded_count == 0) {
        unlist(paging, window);
        window->listed = false;
    }
}

bool paging_check(const struct window *window)
{
    return window->paging == NULL || window->listed == (window->loaded_count > 0);
}

/* ---- reading ---- */

size_t paging_begin_read(struct paging *paging)
{
    const uint64_t now = used(paging), room = now < paging->limit ? paging->limit - now : 0;
    const size_t bytes = (size_t)min_of(max_of(room / 4, READ_BYTES_MIN), READ_BYTES_MAX);

    paging->reading_bytes += bytes;
    return bytes;
}

void paging_end_read(struct paging *paging, size_t bytes)
{
    assert(paging->reading_bytes >= bytes);
    paging->reading_bytes -= bytes;
}

/* ---- writing ---- */

bool paging_may_write(const struct paging *paging)
{
    return paging->writing_bytes < PAGING_WRITING_MAX &&
           paging->loop->clock->now_ms >= paging->write_ms;
}

void paging_begin_write(struct paging *paging, size_t bytes)
{
    paging->writing_bytes += bytes;
}

void paging_end_write(struct paging *paging, size_t bytes, bool failed)
{
    assert(paging->writing_bytes >= bytes);
    paging->writing_bytes -= bytes;
    if (failed)
        paging->write_ms = paging->loop->clock->now_ms + WRITE_RETRY_MS;
    paging_on_progress(paging);
    if (paging->writing_bytes > 0 && paging_is_far_above(paging))
        return;
    const uint64_t times = paging->writes.durable + 1;
    parking_release(&paging->writes, times, times);
}

void paging_await_write(struct paging *paging, struct parked *parked)
{
    parked->entries = false;
    parking_wait(&paging->writes, parked, paging->writes.durable + 1);
}

/* ---- life ---- */

void paging_init(struct paging *paging, struct loop *loop, const struct remains *remains)
{
    *paging = (struct paging){
        .loop = loop,
        .remains = remains,
        .limit = PAGING_LIMIT_DEFAULT,
        .share = UINT64_MAX,
        .retry_ms = RETRY_MS,
        .retry.on_expire = on_retry,
        .task.run = go_on,
    };
    TAILQ_INIT(&paging->windows);
    parking_init(&paging->writes, 0);
}

void paging_release(struct paging *paging)
{
    assert(TAILQ_EMPTY(&paging->windows) && paging->segment_bytes == 0);
    loop_unqueue(paging->loop, &paging->task);
    timer_cancel(&paging->retry);
}

void paging_set_limit(struct paging *paging, uint64_t limit)
{
    paging->limit = limit;
    paging_review(paging);
}
