#include "core/expiry.h"

#include "base/alloc.h"
#include "core/window.h"

/* ---- the heap ---- */

static void place_at(struct expiry *expiry, size_t index, struct segment *segment)
{
    expiry->heap[index] = segment;
    segment->deadlines.heap_index = (uint32_t)index;
}

/* Of equal ones, the highest priority's, and of those the segment that was filled first. No two are
 * equal in all: what takes the place of the first, when that has been read, is the first. */
static bool is_earlier(const struct segment *a, const struct segment *b)
{
    if (a->deadlines.earliest != b->deadlines.earliest)
        return a->deadlines.earliest < b->deadlines.earliest;
    return a->window != b->window ? a->window->level > b->window->level : a->first < b->first;
}

static void sift_up(struct expiry *expiry, struct segment *segment)
{
    size_t index = segment->deadlines.heap_index;

    while (index > 0 && is_earlier(segment, expiry->heap[(index - 1) / 2])) {
        place_at(expiry, index, expiry->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    place_at(expiry, index, segment);
}

static void sift_down(struct expiry *expiry, struct segment *segment)
{
    size_t index = segment->deadlines.heap_index;

    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= expiry->count)
            break;
        if (child + 1 < expiry->count && is_earlier(expiry->heap[child + 1], expiry->heap[child]))
            child++;
        if (!is_earlier(expiry->heap[child], segment))
            break;
        place_at(expiry, index, expiry->heap[child]);
        index = child;
    }
    place_at(expiry, index, segment);
}

static void heap_insert(struct expiry *expiry, struct segment *segment)
{
    if (expiry->count == expiry->capacity) {
        expiry->capacity = max_of(4, 2 * expiry->capacity);
        expiry->heap = xrealloc(expiry->heap, expiry->capacity, sizeof(struct segment *));
    }
    place_at(expiry, expiry->count++, segment);
    segment->deadlines.queued = true;
    sift_up(expiry, segment);
}

static void heap_remove(struct expiry *expiry, struct segment *segment)
{
    struct segment *last = expiry->heap[--expiry->count];

    segment->deadlines.queued = false;
    if (last == segment)
        return;
    place_at(expiry, segment->deadlines.heap_index, last);
    sift_up(expiry, last);
    sift_down(expiry, last);
}

/* ---- the timer ---- */

static void set_timer(struct expiry *expiry)
{
    if (expiry->count == 0)
        timer_cancel(&expiry->timer);
    else
        timer_set(expiry->wheel, &expiry->timer, expiry->heap[0]->deadlines.earliest);
}

void expiry_init(struct expiry *expiry, struct wheel *wheel, void (*on_due)(struct timer *timer))
{
    *expiry = (struct expiry){.wheel = wheel, .timer.on_expire = on_due};
}

void expiry_release(struct expiry *expiry)
{
    assert(expiry->count == 0);
    timer_cancel(&expiry->timer);
    free(expiry->heap);
    expiry->heap = NULL;
    expiry->capacity = 0;
}

/* ---- deadlines ---- */

uint64_t expiry_deadline_of(const struct segment *segment, uint32_t slot)
{
    return segment->deadlines.slots == NULL ? DEADLINE_NONE : segment->deadlines.slots[slot];
}

/* A ready entry of the segment is due then. */
static void note(struct expiry *expiry, struct segment *segment, uint64_t deadline_ms)
{
    struct deadlines *deadlines = &segment->deadlines;

    if (deadlines->queued && deadlines->earliest <= deadline_ms)
        return;
    deadlines->earliest = deadline_ms;
    if (deadlines->queued)
        sift_up(expiry, segment);
    else
        heap_insert(expiry, segment);
    if (expiry->heap[0] == segment)
        set_timer(expiry);
}

void expiry_add(struct expiry *expiry, struct segment *segment, uint32_t slot, uint64_t deadline_ms)
{
    struct deadlines *deadlines = &segment->deadlines;

    const size_t slots =
        segment_is_on_disk(segment) ? segment->end - segment->first : segment->capacity;

    assert(slot < slots);
    if (deadlines->slots == NULL) {
        deadlines->slots = xmalloc(size_mul(slots, sizeof(uint64_t)));
        memset(deadlines->slots, 0xFF, slots * sizeof(uint64_t)); /* DEADLINE_NONE */
    }
    deadlines->slots[slot] = deadline_ms;
    note(expiry, segment, deadline_ms);
}

void expiry_resume(struct expiry *expiry, struct segment *segment, uint32_t slot)
{
    uint64_t deadline_ms = expiry_deadline_of(segment, slot);

    if (deadline_ms != DEADLINE_NONE)
        note(expiry, segment, deadline_ms);
}

bool expiry_has_deadlines(const struct segment *segment, uint32_t slot)
{
    const uint64_t *slots = segment->deadlines.slots;

    for (; slots != NULL && slot < segment->end - segment->first; slot++)
        if (slots[slot] != DEADLINE_NONE && segment_is_ready(segment, slot))
            return true;
    return false;
}

void expiry_move(struct expiry *expiry, struct segment *from, uint32_t slot, struct segment *to)
{
    uint64_t *slots = from->deadlines.slots;
    const uint32_t end = (uint32_t)(from->end - from->first);

    for (uint32_t i = slot; slots != NULL && i < end; i++) {
        if (slots[i] != DEADLINE_NONE && segment_is_ready(to, i - slot))
            expiry_add(expiry, to, i - slot, slots[i]);
        slots[i] = DEADLINE_NONE;
    }
}

void expiry_forget(struct expiry *expiry, struct segment *segment)
{
    struct deadlines *deadlines = &segment->deadlines;

    if (deadlines->queued) {
        bool was_first = expiry->heap[0] == segment;
        heap_remove(expiry, segment);
        if (was_first)
            set_timer(expiry);
    }
    free(deadlines->slots);
    deadlines->slots = NULL;
}

struct segment *expiry_first(struct expiry *expiry, uint64_t now_ms)
{
    if (expiry->count > 0 && expiry->heap[0]->deadlines.earliest <= now_ms)
        return expiry->heap[0];
    set_timer(expiry);
    return NULL;
}

void expiry_review(struct expiry *expiry, struct segment *segment)
{
    struct deadlines *deadlines = &segment->deadlines;
    uint64_t earliest = DEADLINE_NONE;

    for (uint32_t slot = 0; slot < segment->end - segment->first; slot++)
        if (segment_is_ready(segment, slot))
            earliest = min_of(earliest, deadlines->slots[slot]);
    if (earliest == DEADLINE_NONE) {
        heap_remove(expiry, segment);
        return;
    }
    deadlines->earliest = earliest;
    sift_down(expiry, segment);
}
