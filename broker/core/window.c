/* Segments grow with the queue: the first has SEGMENT_SMALL slots, so that a hundred thousand
 * queues of one message stay cheap; each further one four times those of the one before, up to
 * SEGMENT_LARGE. A segment takes positions until it is full; a new one begins wherever the tail is.
 *
 * The cursor never stands behind a segment with something ready: it moves forward in
 * window_first_ready, over segments that have nothing ready, and back in window_requeue and
 * wherever something ready takes a place before it. */
#include "core/window.h"

#include "base/alloc.h"
#include "core/paging.h"
#include "core/remains.h"

static size_t size_of_segment(uint16_t capacity)
{
    return size_add(sizeof(struct segment), size_mul(capacity, sizeof(struct entry)));
}

/* ---- the list ---- */

/* capacity 0: on disk. The caller puts it into its place with insert_before or insert_after. */
static struct segment *segment_new(struct window *window, uint64_t first, uint64_t end,
                                   uint16_t capacity)
{
    struct segment *segment = xmalloc(size_of_segment(capacity));

    memset(segment, 0, sizeof(*segment));
    segment->window = window;
    segment->first = first;
    segment->end = end;
    segment->capacity = capacity;
    window->loaded_count += capacity > 0;
    paging_grow(window, size_of_segment(capacity), capacity > 0);
    return segment;
}

/* Where it belongs among those on disk: next to the nearest on either side. */
static void list_on_disk(struct window *window, struct segment *segment)
{
    struct segment *before = TAILQ_PREV(segment, segment_list, link);
    struct segment *behind = TAILQ_NEXT(segment, link);

    while (before != NULL && !segment_is_on_disk(before) && behind != NULL &&
           !segment_is_on_disk(behind)) {
        before = TAILQ_PREV(before, segment_list, link);
        behind = TAILQ_NEXT(behind, link);
    }
    if (before == NULL)
        TAILQ_INSERT_HEAD(&window->on_disk, segment, disk_link);
    else if (behind == NULL)
        TAILQ_INSERT_TAIL(&window->on_disk, segment, disk_link);
    else if (segment_is_on_disk(before))
        TAILQ_INSERT_AFTER(&window->on_disk, before, segment, disk_link);
    else
        TAILQ_INSERT_BEFORE(behind, segment, disk_link);
}

static void enlist(struct window *window, struct segment *segment)
{
    if (segment_is_on_disk(segment))
        list_on_disk(window, segment);
}

static void insert_before(struct window *window, struct segment *next, struct segment *segment)
{
    if (next == NULL)
        TAILQ_INSERT_TAIL(&window->segments, segment, link);
    else
        TAILQ_INSERT_BEFORE(next, segment, link);
    enlist(window, segment);
}

/* What is being written of it is not what it has any more. */
static void forget_writer(struct segment *segment)
{
    if (segment->writer != NULL)
        *segment->writer = NULL;
    segment->writer = NULL;
}

/* Takes the segment out; the cursor goes on with the one behind it. */
static void segment_take_out(struct window *window, struct segment *segment)
{
    if (window->cursor == segment)
        window->cursor = TAILQ_NEXT(segment, link);
    if (window->reading == segment)
        window->reading = NULL;
    if (window->unlearnt == segment)
        window->unlearnt = NULL;
    TAILQ_REMOVE(&window->segments, segment, link);
    if (segment_is_on_disk(segment))
        TAILQ_REMOVE(&window->on_disk, segment, disk_link);
    expiry_forget(window->expiry, segment);
    forget_writer(segment);
    if (segment->place.file != NULL)
        scratch_drop(&segment->place);
    window->loaded_count -= !segment_is_on_disk(segment);
    paging_shrink(window, size_of_segment(segment->capacity));
}

static void segment_free(struct window *window, struct segment *segment)
{
    segment_take_out(window, segment);
    free(segment->weights);
    free(segment);
}

/* ---- slots ---- */

static inline void set_ready(struct segment *segment, uint32_t slot)
{
    segment->ready[slot / 64] |= UINT64_C(1) << (slot % 64);
    segment->ready_count++;
}

static inline void clear_ready(struct segment *segment, uint32_t slot)
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

static uint32_t slots_used(const struct segment *segment)
{
    return (uint32_t)(segment->end - segment->first);
}

/* ---- the whole ---- */

void window_init(struct window *window, struct queue *queue, unsigned level, struct expiry *expiry,
                 struct paging *paging)
{
    *window = (struct window){
        .queue = queue, .level = (uint8_t)level, .expiry = expiry, .paging = paging};
    TAILQ_INIT(&window->segments);
    TAILQ_INIT(&window->on_disk);
}

void window_release(struct window *window)
{
    struct segment *segment;

    while ((segment = TAILQ_FIRST(&window->segments)) != NULL) {
        for (uint32_t slot = 0; !segment_is_on_disk(segment) && slot < slots_used(segment); slot++)
            if (segment->entries[slot].message != NULL)
                message_unref(&segment->entries[slot].message);
        segment_free(window, segment);
    }
    window_init(window, window->queue, window->level, window->expiry, window->paging);
}

/* The segment that takes the position at the tail. */
static struct segment *tail_segment(struct window *window)
{
    struct segment *last = TAILQ_LAST(&window->segments, segment_list);

    if (likely(last != NULL && last->end == window->tail &&
               last->end - last->first < last->capacity))
        return last;
    uint16_t capacity = SEGMENT_SMALL;
    if (last != NULL)
        capacity = segment_is_on_disk(last) ? SEGMENT_LARGE
                                            : (uint16_t)min_of(4 * last->capacity, SEGMENT_LARGE);
    struct segment *segment = segment_new(window, window->tail, window->tail, capacity);
    insert_before(window, NULL, segment);
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

enum window_next window_first_ready(struct window *window, struct place *place)
{
    if (window->ready_count == 0)
        return WINDOW_NOTHING;
    while (window->cursor != NULL && !segment_is_on_disk(window->cursor) &&
           window->cursor->ready_count == 0)
        window->cursor = TAILQ_NEXT(window->cursor, link);
    assert(window->cursor != NULL);
    if (segment_is_on_disk(window->cursor))
        return WINDOW_ON_DISK;
    *place = (struct place){window->cursor, first_ready_slot(window->cursor)};
    return WINDOW_READY;
}

void window_set_aside(struct window *window, struct place place)
{
    uint64_t size = place_entry(place)->message->body_size;

    clear_ready(place.segment, place.slot);
    window->ready_count--;
    window->ready_bytes -= size;
    window->unacked_count++;
    window->unacked_bytes += size;
}

void window_take(struct window *window, struct place place)
{
    window->delivered = max_of(window->delivered, place_position(place) + 1);
    window_set_aside(window, place);
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
        forget_writer(segment);
        segment->first = segment->end = window->tail;
    }
}

void window_drop_ready(struct window *window, struct remains *remains)
{
    struct segment *segment, *next;

    for (segment = TAILQ_FIRST(&window->segments); segment != NULL; segment = next) {
        next = TAILQ_NEXT(segment, link);
        if (segment->ready_count == 0)
            continue;
        assert(!segment_is_on_disk(segment) && segment->ready_count == segment->count);
        window->ready_count -= segment->ready_count;
        segment_take_out(window, segment);
        remains_add(remains, segment);
    }
    assert(window->ready_count == 0);
    remains_add_bytes(remains, window->ready_bytes); /* nobody has looked how many each had */
    window->ready_bytes = 0;
}

/* ---- what is on disk ---- */

/* The part on disk counts so many entries more, or less when that is what is said. */
static void count_on_disk(struct window *window, struct segment *segment, uint64_t count,
                          uint64_t bytes)
{
    segment->count += count;
    segment->bytes += bytes;
    window->disk_count += count;
    window->disk_bytes += bytes;
}

static void uncount_on_disk(struct window *window, struct segment *segment, uint64_t count,
                            uint64_t bytes)
{
    assert(count <= segment->count && bytes <= segment->bytes);
    segment->count -= count;
    segment->bytes -= bytes;
    window->disk_count -= count;
    window->disk_bytes -= bytes;
}

/* Entries of it are gone: ready no more. */
static void lose_from_disk(struct window *window, struct segment *segment, uint64_t count,
                           uint64_t bytes)
{
    uncount_on_disk(window, segment, count, bytes);
    window->ready_count -= count;
    window->ready_bytes -= bytes;
}

/* The range is not at its end: whatever was counted, something may stand there. */
static void keep_one(struct window *window, struct segment *range)
{
    if (range->count > 0)
        return;
    count_on_disk(window, range, 1, 0);
    window->ready_count++;
}

void window_recover(struct window *window, const struct window_recovery *recovery)
{
    assert(TAILQ_EMPTY(&window->segments) && recovery->head <= recovery->tail &&
           recovery->count <= recovery->tail - recovery->head);

    window->tail = recovery->tail;
    if (recovery->head == recovery->tail)
        return;
    struct segment *range = segment_new(window, recovery->head, recovery->tail, 0);
    range->has_unread_deadlines = recovery->deadlines;
    window->unlearnt = recovery->deadlines ? range : NULL;
    insert_before(window, NULL, range);
    count_on_disk(window, range, recovery->count, recovery->bytes);
    window->cursor = range;
    window->ready_count = recovery->count;
    window->ready_bytes = recovery->bytes;
    keep_one(window, range);
}

bool window_runs_dry(const struct window *window, unsigned segments)
{
    const struct segment *segment = window->cursor;

    for (; segment != NULL && !segment_is_on_disk(segment); segment = TAILQ_NEXT(segment, link))
        if (segment->ready_count > 0 && segments-- == 0)
            return false;
    return segment != NULL;
}

void window_remove_on_disk(struct window *window, struct segment *segment)
{
    assert(segment_is_on_disk(segment));
    lose_from_disk(window, segment, segment->count, segment->bytes);
    segment_free(window, segment);
}

void window_drop_on_disk(struct window *window, struct segment *segment, struct remains *remains)
{
    assert(segment_is_on_disk(segment));
    lose_from_disk(window, segment, segment->count, segment->bytes);
    segment_take_out(window, segment);
    remains_add(remains, segment);
}

/* ---- paging out ---- */

static bool may_grow(const struct segment *range)
{
    return range != NULL && segment_is_on_disk(range) && !range->is_stub &&
           !range->has_unread_deadlines;
}

/* A range over [first, end), which lies between these two, alone or as part of one or both. It
 * never joins over a hole (window.h): until the deletes of what stood there are durable, the store
 * would read it back. */
static struct segment *make_range(struct window *window, struct segment *before,
                                  struct segment *next, uint64_t first, uint64_t end)
{
    const bool joins_next = may_grow(next) && next->first == end;
    struct segment *range;

    if (may_grow(before) && before->end == first) {
        range = before;
        range->end = end;
    } else if (joins_next) {
        next->first = first;
        return next;
    } else {
        range = segment_new(window, first, end, 0);
        insert_before(window, next, range);
    }
    if (!joins_next)
        return range;
    range->end = next->end;
    range->count += next->count;
    range->bytes += next->bytes;
    if (window->cursor == next)
        window->cursor = range;
    segment_free(window, next);
    return range;
}

/* A stub for the slots from `from` on, before `next`. */
static struct segment *make_stub(struct window *window, struct segment *segment, uint32_t from,
                                 struct segment *next, const struct scratch_place *place)
{
    const bool has_deadlines = expiry_has_deadlines(segment, from);
    const uint32_t end = slots_used(segment);
    struct segment *stub = segment_new(window, segment->first + from, segment->end, 0);

    stub->is_stub = true;
    stub->deleted_lsn = segment->deleted_lsn;
    stub->weights = has_deadlines ? xcalloc(end - from, sizeof(uint32_t)) : NULL;
    stub->place = place == NULL ? (struct scratch_place){0} : *place;
    insert_before(window, next, stub);
    for (uint32_t slot = from; slot < end; slot++) {
        const struct entry *entry = &segment->entries[slot];
        const bool is_stored = entry->lsn != 0;
        if (!segment_is_ready(segment, slot))
            continue;
        set_ready(stub, slot - from);
        stub->has_come_back |= entry->acquired_count > 0;
        stub->stored_count += is_stored;
        stub->stored_bytes += is_stored ? entry->message->body_size : 0;
        if (has_deadlines)
            stub->weights[slot - from] = entry->message->body_size | (is_stored ? STUB_STORED : 0);
    }
    expiry_move(window->expiry, segment, from, stub);
    return stub;
}

/* Drops the messages of the slots from `from` on; they are on disk, and ready as before. */
static void give_up(struct segment *segment, uint32_t from)
{
    for (uint32_t slot = from, end = slots_used(segment); slot < end; slot++)
        if (segment_is_ready(segment, slot)) {
            clear_ready(segment, slot);
            message_unref(&segment->entries[slot].message);
            segment->count--;
        }
    segment->end = segment->first + from;
}

void window_page_out(struct window *window, struct segment *segment, uint32_t from,
                     const struct scratch_place *place)
{
    uint64_t count = 0, bytes = 0;

    assert(!segment_is_on_disk(segment));
    for (uint32_t slot = from, end = slots_used(segment); slot < end; slot++) {
        if (!segment_is_ready(segment, slot)) {
            assert(segment->entries[slot].message == NULL);
            continue;
        }
        bytes += segment->entries[slot].message->body_size;
        count++;
    }
    assert(count > 0);
    struct segment *next = TAILQ_NEXT(segment, link);
    struct segment *before = from > 0 ? segment : TAILQ_PREV(segment, segment_list, link);
    struct segment *moved =
        place != NULL || expiry_has_deadlines(segment, from)
            ? make_stub(window, segment, from, next, place)
            : make_range(window, before, next, segment->first + from, segment->end);
    give_up(segment, from);
    count_on_disk(window, moved, count, bytes);
    if (window->cursor == NULL || moved->first < window->cursor->first ||
        (from == 0 && window->cursor == segment))
        window->cursor = moved;
    if (segment->count == 0)
        segment_free(window, segment);
}

void window_seal(struct window *window, struct segment *segment)
{
    const uint16_t capacity = (uint16_t)slots_used(segment);

    assert(capacity > 0);
    paging_shrink(window, size_of_segment(segment->capacity) - size_of_segment(capacity));
    segment->capacity = capacity;
}

void window_shrink(struct window *window)
{
    struct segment *segment = TAILQ_FIRST(&window->segments);

    if (segment != NULL && segment->count == 0 && segment->capacity > SEGMENT_SMALL)
        segment_free(window, segment);
}

/* ---- reading ranges ---- */

struct place window_add_loaded(struct window *window, struct segment *range, uint64_t position,
                               struct message *message, size_t more)
{
    assert(segment_is_on_disk(range) && !range->is_stub && position >= range->first &&
           position < range->end);

    /* What the range has no entry for stays as an empty slot. A hole before it does not: its
     * deletes may not be durable, and the segment would not know. */
    struct segment *segment = TAILQ_PREV(range, segment_list, link);
    if (segment == NULL || segment_is_on_disk(segment) || segment->end != range->first ||
        position - segment->first >= segment->capacity) {
        const size_t capacity =
            min_of(max_of(more + 1, (size_t)SEGMENT_SMALL), (size_t)SEGMENT_LARGE);
        segment = segment_new(window, position, position, (uint16_t)capacity);
        insert_before(window, range, segment);
    }
    while (segment->end < position)
        segment->entries[segment->end++ - segment->first] = (struct entry){0};
    /* The store may have counted wrongly, if it was damaged. */
    const uint64_t counted = min_of(1, range->count);
    const uint64_t weighed = min_of(range->bytes, message->body_size);
    range->first = position + 1;
    uncount_on_disk(window, range, counted, weighed);
    window->ready_count += 1 - counted;
    window->ready_bytes += message->body_size - weighed;
    return append_entry(window, segment, message);
}

void window_shorten_range(struct window *window, struct segment *range, uint64_t next)
{
    assert(segment_is_on_disk(range) && !range->is_stub && next >= range->first &&
           next <= range->end);

    range->first = next;
    if (next == range->end)
        window_remove_on_disk(window, range);
    else
        keep_one(window, range);
}

void window_drop_from_range(struct window *window, struct segment *range, uint64_t bytes)
{
    assert(!range->is_stub);
    lose_from_disk(window, range, min_of(1, range->count), min_of(bytes, range->bytes));
    keep_one(window, range);
}

struct segment *window_find_on_disk(const struct window *window, uint64_t position)
{
    struct segment *segment;

    TAILQ_FOREACH (segment, &window->on_disk, disk_link)
        if (position >= segment->first && position < segment->end)
            return segment;
    return NULL;
}

void window_recount(struct window *window, int64_t count, int64_t bytes)
{
    struct segment *segment;

    TAILQ_FOREACH (segment, &window->on_disk, disk_link) {
        if (segment->is_stub)
            continue;
        if (count < 0 || bytes < 0) { /* any range will do: its end puts it right */
            const uint64_t back = (uint64_t)max_of(-count, (int64_t)0);
            const uint64_t back_bytes = (uint64_t)max_of(-bytes, (int64_t)0);
            count_on_disk(window, segment, back, back_bytes);
            window->ready_count += back;
            window->ready_bytes += back_bytes;
            return;
        }
        const uint64_t lost = min_of((uint64_t)count, segment->count);
        const uint64_t lost_bytes = min_of((uint64_t)bytes, segment->bytes);
        lose_from_disk(window, segment, lost, lost_bytes);
        keep_one(window, segment);
        count -= (int64_t)lost;
        bytes -= (int64_t)lost_bytes;
    }
}

/* ---- deadlines of ranges, and stubs ---- */

/* These entries, which fit into a segment, leave the range for a part on disk of their own, or for
 * the range before it if none of them has a deadline. */
static void learn(struct window *window, struct segment *range, const struct window_learnt *entries,
                  size_t count, bool has_deadlines)
{
    const uint64_t first = has_deadlines ? entries[0].position : range->first;
    const uint64_t end = entries[count - 1].position + 1;
    struct segment *moved;
    uint64_t bytes = 0;

    range->first = end; /* or what is moved would be listed behind it */
    if (has_deadlines) {
        moved = segment_new(window, first, end, 0);
        moved->is_stub = true;
        moved->weights = xcalloc(end - first, sizeof(uint32_t));
        insert_before(window, range, moved);
    } else {
        moved = make_range(window, TAILQ_PREV(range, segment_list, link), range, first, end);
    }
    for (size_t i = 0; i < count; i++) {
        const uint32_t slot = (uint32_t)(entries[i].position - first);
        bytes += entries[i].weight;
        if (!has_deadlines)
            continue;
        set_ready(moved, slot);
        moved->stored_count++;
        moved->stored_bytes += entries[i].weight;
        moved->weights[slot] = entries[i].weight | STUB_STORED;
        if (entries[i].deadline_ms != DEADLINE_NONE)
            expiry_add(window->expiry, moved, slot, entries[i].deadline_ms);
    }
    /* What the store had counted wrongly shows at the end of the range. */
    const uint64_t counted = min_of(count, range->count), weighed = min_of(bytes, range->bytes);
    uncount_on_disk(window, range, counted, weighed);
    window->ready_count += count - counted;
    window->ready_bytes += bytes - weighed;
    count_on_disk(window, moved, count, bytes);
    range->first = end;
    if (window->cursor == range)
        window->cursor = moved;
}

void window_learn(struct window *window, struct segment *range, const struct window_learnt *entries,
                  size_t count, uint64_t next)
{
    assert(range->has_unread_deadlines);
    for (size_t i = 0; i < count;) {
        bool has_deadlines = false;
        uint64_t bytes = 0;
        size_t n = 0;
        for (; i + n < count && entries[i + n].position - entries[i].position < SEGMENT_LARGE;
             n++) {
            bytes += entries[i + n].weight;
            if (n > 0 && bytes > STUB_BYTES)
                break;
            has_deadlines |= entries[i + n].deadline_ms != DEADLINE_NONE;
        }
        learn(window, range, entries + i, n, has_deadlines);
        i += n;
    }
    window_shorten_range(window, range, next);
}

struct segment *window_load_stub(struct window *window, struct segment *stub,
                                 struct message *messages[SEGMENT_LARGE])
{
    const uint32_t slots = slots_used(stub);
    const uint16_t capacity = (uint16_t)max_of(slots, (uint32_t)SEGMENT_SMALL);
    struct segment *segment = segment_new(window, stub->first, stub->end, capacity);

    assert(stub->is_stub && slots <= SEGMENT_LARGE);
    insert_before(window, stub, segment);
    segment->deleted_lsn = stub->deleted_lsn;
    window->ready_count -= stub->count;
    window->ready_bytes -= stub->bytes;
    uncount_on_disk(window, stub, stub->count, stub->bytes);
    for (uint32_t slot = 0; slot < slots; slot++) {
        segment->entries[slot] = (struct entry){.message = messages[slot]};
        if (messages[slot] == NULL)
            continue;
        assert(segment_is_ready(stub, slot));
        set_ready(segment, slot);
        segment->count++;
        window->ready_count++;
        window->ready_bytes += messages[slot]->body_size;
    }
    expiry_move(window->expiry, stub, 0, segment);
    if (window->cursor == stub)
        window->cursor = segment;
    segment_free(window, stub);
    if (segment->count > 0)
        return segment;
    segment_free(window, segment);
    return NULL;
}

void window_remove_from_stub(struct window *window, struct segment *stub, uint32_t slot)
{
    assert(stub->is_stub && stub->weights != NULL);
    const uint32_t weight = stub_weight(stub, slot);

    clear_ready(stub, slot);
    stub->stored_count -= stub_is_stored(stub, slot);
    stub->stored_bytes -= stub_is_stored(stub, slot) ? weight : 0;
    lose_from_disk(window, stub, 1, weight);
    if (stub->count == 0)
        segment_free(window, stub);
}

/* ---- the invariants ---- */

static bool segment_check(const struct segment *segment)
{
    uint64_t alive = 0, ready = 0;

    if (segment_is_on_disk(segment) && !segment->is_stub)
        return segment->ready_count == 0 && segment->count > 0;
    for (uint32_t slot = 0; slot < slots_used(segment); slot++) {
        const bool is_ready = segment_is_ready(segment, slot);
        ready += is_ready;
        if (segment->is_stub)
            alive += is_ready;
        else if (segment->entries[slot].message != NULL)
            alive++;
        else if (is_ready)
            return false;
    }
    return alive == segment->count && ready == segment->ready_count;
}

bool window_check(const struct window *window)
{
    struct window sum = {0};
    const struct segment *segment, *disk = TAILQ_FIRST(&window->on_disk);
    uint64_t end = 0, first_ready = UINT64_MAX;

    TAILQ_FOREACH (segment, &window->segments, link) {
        if (segment->first < end || segment->end < segment->first || !segment_check(segment))
            return false;
        end = segment->end;
        if (segment_is_on_disk(segment)) {
            if (disk != segment)
                return false;
            disk = TAILQ_NEXT(disk, disk_link);
            sum.ready_count += segment->count;
            sum.ready_bytes += segment->bytes;
            sum.disk_count += segment->count;
            sum.disk_bytes += segment->bytes;
            if (segment->count > 0)
                first_ready = min_of(first_ready, segment->first);
            continue;
        }
        sum.loaded_count++;
        if (segment->ready_count > 0)
            first_ready = min_of(first_ready, segment->first);
        for (uint32_t slot = 0; slot < slots_used(segment); slot++) {
            const struct message *message = segment->entries[slot].message;
            const bool is_ready = segment_is_ready(segment, slot);
            if (message == NULL)
                continue;
            *(is_ready ? &sum.ready_count : &sum.unacked_count) += 1;
            *(is_ready ? &sum.ready_bytes : &sum.unacked_bytes) += message->body_size;
        }
    }
    return disk == NULL && end <= window->tail && sum.ready_count == window->ready_count &&
           sum.ready_bytes == window->ready_bytes && sum.unacked_count == window->unacked_count &&
           sum.unacked_bytes == window->unacked_bytes && sum.disk_count == window->disk_count &&
           sum.disk_bytes == window->disk_bytes && sum.loaded_count == window->loaded_count &&
           (first_ready == UINT64_MAX ||
            (window->cursor != NULL && window->cursor->first <= first_ready)) &&
           paging_check(window);
}
