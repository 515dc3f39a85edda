/* Segments come in two sizes: the first of a queue is small, so that a hundred thousand queues of
 * one message stay cheap; once a queue has filled a segment the next is large. A segment takes
 * positions until it is full; a new one begins wherever the tail is.
 *
 * The cursor never stands behind a segment with something ready: it moves forward in
 * window_first_ready, over segments that have nothing ready, and back in window_requeue and
 * window_recover. */
#include "core/window.h"

#include "base/alloc.h"

static bool is_range(const struct segment *segment)
{
    return segment->capacity == 0;
}

static struct segment *segment_new(struct window *window, uint64_t first, uint16_t capacity)
{
    struct segment *segment =
        xmalloc(size_add(sizeof(*segment), size_mul(capacity, sizeof(struct entry))));

    memset(segment, 0, sizeof(*segment));
    segment->window = window;
    segment->first = segment->end = first;
    segment->capacity = capacity;
    return segment;
}

/* Takes the segment out; the cursor goes on with the one behind it. */
static void segment_free(struct window *window, struct segment *segment)
{
    if (window->cursor == segment)
        window->cursor = TAILQ_NEXT(segment, link);
    TAILQ_REMOVE(&window->segments, segment, link);
    expiry_forget(window->expiry, segment);
    free(segment);
}

static void set_ready(struct segment *segment, uint32_t slot)
{
    segment->ready[slot / 64] |= UINT64_C(1) << (slot % 64);
    segment->ready_count++;
}

static void clear_ready(struct segment *segment, uint32_t slot)
{
    assert(segment_is_ready(segment, slot));
    segment->ready[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    segment->ready_count--;
}

static uint32_t first_ready_slot(const struct segment *segment)
{
    for (uint32_t word = 0; word < countof(segment->ready); word++)
        if (segment->ready[word] != 0)
            return word * 64 + (uint32_t)__builtin_ctzll(segment->ready[word]);
    assert(!"a segment that counts ready entries has one");
    return 0;
}

void window_init(struct window *window, struct expiry *expiry)
{
    *window = (struct window){.expiry = expiry};
    TAILQ_INIT(&window->segments);
}

void window_release(struct window *window)
{
    struct segment *segment, *next;

    TAILQ_FOREACH_SAFE (segment, &window->segments, link, next) {
        for (uint32_t slot = 0; !is_range(segment) && slot < segment->end - segment->first; slot++)
            if (segment->entries[slot].message != NULL)
                message_unref(&segment->entries[slot].message);
        expiry_forget(window->expiry, segment);
        free(segment);
    }
    window_init(window, window->expiry);
}

/* The segment that takes the position at the tail. */
static struct segment *tail_segment(struct window *window)
{
    struct segment *last = TAILQ_LAST(&window->segments, segment_list);

    if (last != NULL && !is_range(last) && last->end == window->tail &&
        last->end - last->first < last->capacity)
        return last;
    struct segment *segment =
        segment_new(window, window->tail, last == NULL ? SEGMENT_SMALL : SEGMENT_LARGE);
    TAILQ_INSERT_TAIL(&window->segments, segment, link);
    return segment;
}

/* Puts a ready entry into the segment's next slot. */
static struct place append_entry(struct window *window, struct segment *segment,
                                 struct message *message)
{
    uint32_t slot = (uint32_t)(segment->end - segment->first);

    segment->entries[slot] = (struct entry){.message = message_ref(message)};
    segment->end++;
    segment->count++;
    set_ready(segment, slot);
    if (window->cursor == NULL || segment->first < window->cursor->first)
        window->cursor = segment;
    return (struct place){segment, slot};
}

struct place window_push(struct window *window, struct message *message)
{
    struct place place = append_entry(window, tail_segment(window), message);

    window->tail++;
    window->ready_count++;
    window->ready_bytes += message->body_size;
    return place;
}

void window_recover(struct window *window, uint64_t head, uint64_t tail, uint64_t count,
                    uint64_t bytes)
{
    assert(TAILQ_EMPTY(&window->segments) && head <= tail && count <= tail - head);

    window->tail = tail;
    if (count == 0)
        return;
    struct segment *range = segment_new(window, head, 0);
    range->end = tail;
    range->count = count;
    range->bytes = bytes;
    TAILQ_INSERT_TAIL(&window->segments, range, link);
    window->cursor = range;
    window->ready_count = count;
    window->ready_bytes = bytes;
}

enum window_next window_first_ready(struct window *window, struct place *place)
{
    if (window->ready_count == 0)
        return WINDOW_NOTHING;
    while (window->cursor != NULL && !is_range(window->cursor) && window->cursor->ready_count == 0)
        window->cursor = TAILQ_NEXT(window->cursor, link);
    assert(window->cursor != NULL);
    if (is_range(window->cursor))
        return WINDOW_ON_DISK;
    *place = (struct place){window->cursor, first_ready_slot(window->cursor)};
    return WINDOW_READY;
}

void window_take(struct window *window, struct place place)
{
    uint64_t size = place_entry(place)->message->body_size;

    clear_ready(place.segment, place.slot);
    window->delivered = max_of(window->delivered, place_position(place) + 1);
    window->ready_count--;
    window->ready_bytes -= size;
    window->unacked_count++;
    window->unacked_bytes += size;
}

void window_requeue(struct window *window, struct place place)
{
    struct entry *entry = place_entry(place);

    assert(!segment_is_ready(place.segment, place.slot) && entry->message != NULL);
    set_ready(place.segment, place.slot);
    entry->redelivered = true;
    window->unacked_count--;
    window->unacked_bytes -= entry->message->body_size;
    window->ready_count++;
    window->ready_bytes += entry->message->body_size;
    if (window->cursor == NULL || place.segment->first < window->cursor->first)
        window->cursor = place.segment;
}

void window_remove(struct window *window, struct place place)
{
    struct segment *segment = place.segment;
    struct entry *entry = place_entry(place);
    uint64_t size = entry->message->body_size;

    if (segment_is_ready(segment, place.slot)) {
        clear_ready(segment, place.slot);
        window->ready_count--;
        window->ready_bytes -= size;
    } else {
        window->unacked_count--;
        window->unacked_bytes -= size;
    }
    message_unref(&entry->message);
    if (--segment->count > 0)
        return;
    /* Empty: gone, unless it is the one that takes the next push, which starts over in it. */
    if (TAILQ_NEXT(segment, link) != NULL || segment->end != window->tail) {
        segment_free(window, segment);
    } else {
        expiry_forget(window->expiry, segment);
        segment->first = segment->end = window->tail;
    }
}

struct segment *window_first_range(struct window *window)
{
    struct segment *segment;

    TAILQ_FOREACH (segment, &window->segments, link)
        if (is_range(segment))
            return segment;
    return NULL;
}

void window_remove_range(struct window *window, struct segment *range)
{
    assert(is_range(range));
    window->ready_count -= range->count;
    window->ready_bytes -= range->bytes;
    segment_free(window, range);
}

struct place window_add_loaded(struct window *window, struct segment *range, uint64_t position,
                               struct message *message)
{
    assert(is_range(range) && position >= range->first && position < range->end);

    /* Positions that are gone already stay as empty slots. */
    struct segment *segment = TAILQ_PREV(range, segment_list, link);
    if (segment == NULL || is_range(segment) || position - segment->first >= segment->capacity) {
        segment = segment_new(window, position, SEGMENT_LARGE);
        TAILQ_INSERT_BEFORE(range, segment, link);
    }
    while (segment->end < position)
        segment->entries[segment->end++ - segment->first] = (struct entry){0};
    range->first = position + 1;
    if (range->count > 0) {
        range->count--;
        range->bytes -= min_of(range->bytes, message->body_size);
    } else { /* more than were counted: damage on disk brought back what was gone */
        window->ready_count++;
        window->ready_bytes += message->body_size;
    }
    return append_entry(window, segment, message);
}

void window_shorten_range(struct window *window, struct segment *range, uint64_t next)
{
    assert(is_range(range) && next >= range->first && next <= range->end);

    range->first = next; /* a count of 0 is no end: damage may have brought back what was gone */
    if (next == range->end)
        window_remove_range(window, range);
}

void window_drop_from_range(struct window *window, struct segment *range, uint64_t bytes)
{
    if (range->count == 0)
        return; /* it was never counted */
    bytes = min_of(bytes, range->bytes);
    range->count--;
    range->bytes -= bytes;
    window->ready_count--;
    window->ready_bytes -= bytes;
}
