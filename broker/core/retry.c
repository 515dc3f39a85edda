#include "core/retry.h"

#include "base/alloc.h"

struct retry {
    uint64_t due_ms, number;
    struct place place;
};

struct retries *retries_new(struct queue *queue, struct wheel *wheel,
                            void (*on_due)(struct timer *timer))
{
    struct retries *retries = xmalloc(sizeof(*retries));

    *retries = (struct retries){.queue = queue, .wheel = wheel, .timer.on_expire = on_due};
    return retries;
}

void retries_free(struct retries **retries)
{
    struct retries *gone = *retries;

    *retries = NULL;
    if (gone == NULL)
        return;
    timer_cancel(&gone->timer);
    free(gone->heap);
    free(gone);
}

static bool is_earlier(const struct retry *a, const struct retry *b)
{
    return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->number < b->number;
}

static void set_timer(struct retries *retries)
{
    if (retries->count == 0)
        timer_cancel(&retries->timer);
    else
        timer_set(retries->wheel, &retries->timer, retries->heap[0].due_ms);
}

void retries_add(struct retries *retries, struct place place, uint64_t due_ms)
{
    const struct retry retry = {due_ms, ++retries->last_number, place};
    size_t index = retries->count++;

    if (index == retries->capacity) {
        retries->capacity = max_of(4, 2 * retries->capacity);
        retries->heap = xrealloc(retries->heap, retries->capacity, sizeof(*retries->heap));
    }
    for (; index > 0 && is_earlier(&retry, &retries->heap[(index - 1) / 2]);
         index = (index - 1) / 2)
        retries->heap[index] = retries->heap[(index - 1) / 2];
    retries->heap[index] = retry;
    if (index == 0)
        set_timer(retries);
}

/* The last one takes the first one's place, and sinks to where it belongs. */
static void remove_first(struct retries *retries)
{
    const size_t count = --retries->count;
    const struct retry last = retries->heap[count];
    size_t index = 0;

    for (size_t child; (child = 2 * index + 1) < count; index = child) {
        if (child + 1 < count && is_earlier(&retries->heap[child + 1], &retries->heap[child]))
            child++;
        if (!is_earlier(&retries->heap[child], &last))
            break;
        retries->heap[index] = retries->heap[child];
    }
    retries->heap[index] = last;
}

bool retries_take(struct retries *retries, uint64_t now_ms, struct place *place)
{
    if (retries->count == 0 || retries->heap[0].due_ms > now_ms) {
        set_timer(retries);
        return false;
    }
    *place = retries->heap[0].place;
    remove_first(retries);
    return true;
}
