/* The window against a plain model: an array with the state of every position. Random pushes,
 * takes, requeues, removals, pages out and loads must agree with it at every step, of ranges and of
 * stubs, with deadlines and without. */
#include <check.h>

#include "base/alloc.h"
#include "base/random.h"
#include "core/window.h"
#include "tests/lib/unit.h"

enum state { GONE, ON_DISK, READY, UNACKED };

enum { POSITIONS_MAX = 20000 };

struct model {
    struct window window;
    enum state states[POSITIONS_MAX];
    uint64_t deadlines[POSITIONS_MAX]; /* DEADLINE_NONE: it has none */
    uint64_t deletes[POSITIONS_MAX];   /* the batch that deletes it from the store; 0: none does */
    struct place places[POSITIONS_MAX];
    uint64_t tail;
    uint64_t open_lsn;  /* of the batch that takes deletes; those before it are durable */
    uint64_t recovered; /* below it all is stored */
    bool all_stored;    /* else every third is not, and all that goes to disk goes to scratch */
    bool has_deadlines;
    struct wheel wheel;
    struct expiry expiry;
    struct scratch *scratch;
};

static bool is_stored(const struct model *model, uint64_t position)
{
    return model->all_stored || position < model->recovered || position % 3 != 0;
}

static uint32_t weight_of(uint64_t position)
{
    return (uint32_t)(position % 7);
}

static void on_due(struct timer *timer)
{
    (void)timer;
}

static struct message *make_message(uint32_t body_size)
{
    static const uint8_t none[2];
    struct message *message =
        message_new(SLICE(""), SLICE("q"), slice_of(none, 2), body_size, false);
    message->body_received = body_size;
    return message;
}

static struct model *model_new(void)
{
    struct model *model = xcalloc(1, sizeof(*model));
    char error[SCRATCH_ERROR_SIZE];

    wheel_init(&model->wheel, 0);
    expiry_init(&model->expiry, &model->wheel, on_due);
    ck_assert_int_eq(0, scratch_open(NULL, &model->scratch, error));
    window_init(&model->window, NULL, 0, &model->expiry, NULL);
    model->open_lsn = 1;
    return model;
}

static void model_free(struct model *model)
{
    window_release(&model->window);
    expiry_release(&model->expiry);
    scratch_close(&model->scratch);
    free(model);
}

/* It is in memory, as pushed or read. */
static void note(struct model *model, struct place place)
{
    const uint64_t at = place_position(place);

    place_entry(place)->lsn = is_stored(model, at);
    model->places[at] = place;
    model->states[at] = READY;
}

static void model_push(struct model *model, uint64_t deadline_ms)
{
    struct message *message = make_message(weight_of(model->tail));
    struct place place = window_push(&model->window, message);
    message_unref(&message);
    ck_assert_uint_eq(place_position(place), model->tail);
    model->deadlines[model->tail] = deadline_ms;
    if (deadline_ms != DEADLINE_NONE)
        expiry_add(&model->expiry, place.segment, place.slot, deadline_ms);
    note(model, place);
    model->tail++;
}

/* It goes, from the store too. Its segment may go with it. */
static void model_delete(struct model *model, struct segment *segment, uint32_t slot)
{
    const uint64_t at = segment->first + slot;

    if (is_stored(model, at))
        segment->deleted_lsn = model->deletes[at] = model->open_lsn;
    if (segment_is_on_disk(segment))
        window_remove_from_stub(&model->window, segment, slot);
    else
        window_remove(&model->window, (struct place){segment, slot});
    model->states[at] = GONE;
}

static uint64_t count_of(const struct model *model, enum state state)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < model->tail; i++)
        count += model->states[i] == state;
    return count;
}

static uint64_t first_of(const struct model *model, enum state a, enum state b)
{
    uint64_t i = 0;
    while (i < model->tail && model->states[i] != a && model->states[i] != b)
        i++;
    return i;
}

static uint64_t deadline_of(const struct model *model, uint64_t position)
{
    const struct segment *segment;

    TAILQ_FOREACH (segment, &model->window.segments, link)
        if (segment->first <= position && position < segment->end)
            return expiry_deadline_of(segment, (uint32_t)(position - segment->first));
    return DEADLINE_NONE;
}

/* Of what is ready in memory; the earliest of all is known whatever is on disk. */
static void check_deadlines(const struct model *model)
{
    uint64_t earliest = DEADLINE_NONE, wrong = 0;

    for (uint64_t at = 0; at < model->tail; at++) {
        if (model->states[at] == READY)
            wrong += expiry_deadline_of(model->places[at].segment, model->places[at].slot) !=
                     model->deadlines[at];
        if ((model->states[at] == READY || model->states[at] == ON_DISK) &&
            model->window.unlearnt == NULL && model->deadlines[at] < earliest) {
            earliest = model->deadlines[at];
            wrong += deadline_of(model, at) != earliest;
        }
    }
    ck_assert_uint_eq(0, wrong);
    if (earliest != DEADLINE_NONE) {
        ck_assert_uint_gt(model->expiry.count, 0);
        ck_assert_uint_le(model->expiry.heap[0]->deadlines.earliest, earliest);
    }
}

static void check_stubs(const struct model *model)
{
    const struct segment *stub;

    TAILQ_FOREACH (stub, &model->window.on_disk, disk_link) {
        uint64_t alive = 0, wrong = 0, stored = 0, stored_bytes = 0;
        for (uint64_t at = stub->first; stub->is_stub && at < stub->end; at++) {
            const uint32_t slot = (uint32_t)(at - stub->first);
            wrong += segment_is_ready(stub, slot) != (model->states[at] == ON_DISK);
            if (model->states[at] != ON_DISK)
                continue;
            alive++;
            stored += is_stored(model, at);
            stored_bytes += is_stored(model, at) ? weight_of(at) : 0;
            if (stub->weights != NULL)
                wrong += stub_weight(stub, slot) != weight_of(at) ||
                         stub_is_stored(stub, slot) != is_stored(model, at);
        }
        ck_assert_uint_eq(0, wrong);
        if (!stub->is_stub)
            continue;
        ck_assert_uint_eq(stub->count, alive);
        ck_assert_uint_eq(stub->stored_count, stored);
        ck_assert_uint_eq(stub->stored_bytes, stored_bytes);
    }
}

/* Who covers what a batch deletes that is not durable knows of that batch. */
static void check_deletes(const struct model *model)
{
    const struct segment *segment;
    uint64_t wrong = 0;

    TAILQ_FOREACH (segment, &model->window.segments, link)
        for (uint64_t at = segment->first; at < segment->end; at++)
            wrong +=
                model->deletes[at] == model->open_lsn && segment->deleted_lsn != model->open_lsn;
    ck_assert_uint_eq(0, wrong);
}

static void check_agrees(struct model *model)
{
    struct place place;
    uint64_t first = first_of(model, READY, ON_DISK);

    ck_assert(window_check(&model->window));
    ck_assert_uint_eq(model->window.ready_count, count_of(model, READY) + count_of(model, ON_DISK));
    ck_assert_uint_eq(model->window.unacked_count, count_of(model, UNACKED));
    check_deadlines(model);
    check_stubs(model);
    check_deletes(model);
    switch (window_first_ready(&model->window, &place)) {
    case WINDOW_NOTHING:
        ck_assert_uint_eq(first, model->tail);
        break;
    case WINDOW_READY:
        ck_assert_uint_eq(place_position(place), first);
        ck_assert_int_eq(model->states[first], READY);
        break;
    case WINDOW_ON_DISK:
        ck_assert_uint_lt(first, model->tail);
        ck_assert_int_eq(model->states[first], ON_DISK);
        break;
    }
}

/* Some position in this state, or tail. */
static uint64_t pick(const struct model *model, struct random *random, enum state state)
{
    uint64_t start = model->tail == 0 ? 0 : random_below(random, model->tail);
    for (uint64_t i = 0; i < model->tail; i++) {
        uint64_t at = (start + i) % model->tail;
        if (model->states[at] == state)
            return at;
    }
    return model->tail;
}

/* All that lives in it. */
static void load_stub(struct model *model, struct segment *stub)
{
    struct message *messages[SEGMENT_LARGE] = {NULL};
    const uint64_t first = stub->first, end = stub->end;

    for (uint64_t at = first; at < end; at++)
        if (model->states[at] == ON_DISK)
            messages[at - first] = make_message(weight_of(at));
    struct segment *segment = window_load_stub(&model->window, stub, messages);
    ck_assert_ptr_nonnull(segment);
    ck_assert_uint_eq(first, segment->first);
    for (uint64_t at = first; at < end; at++)
        if (model->states[at] == ON_DISK)
            note(model, (struct place){segment, (uint32_t)(at - first)});
}

static void load_range(struct model *model, struct random *random, struct segment *range)
{
    uint64_t end = range->end, at = range->first, left = random_below(random, 300) + 1;

    for (; at < end && left > 0; at++) {
        if (model->states[at] != ON_DISK)
            continue;
        struct message *message = make_message(weight_of(at));
        struct place place = window_add_loaded(&model->window, range, at, message, left);
        ck_assert_uint_eq(place_position(place), at);
        message_unref(&message);
        if (model->deadlines[at] != DEADLINE_NONE)
            expiry_add(&model->expiry, place.segment, place.slot, model->deadlines[at]);
        note(model, place);
        left--;
    }
    while (at < end && model->states[at] != ON_DISK)
        at++;
    window_shorten_range(&model->window, range, at);
}

static struct segment *pick_on_disk(const struct model *model, struct random *random)
{
    struct segment *segment = window_first_on_disk(&model->window);

    while (segment != NULL && TAILQ_NEXT(segment, disk_link) != NULL &&
           random_below(random, 3) == 0)
        segment = TAILQ_NEXT(segment, disk_link);
    return segment;
}

static void model_load(struct model *model, struct random *random)
{
    struct segment *segment = pick_on_disk(model, random);

    if (segment != NULL && segment->is_stub)
        load_stub(model, segment);
    else if (segment != NULL)
        load_range(model, random, segment);
}

/* Deadlines of a recovered range are read, some at a time. */
static void model_learn(struct model *model, struct random *random)
{
    struct segment *range = model->window.unlearnt;
    struct window_learnt learnt[400];
    size_t count = 0;

    if (range == NULL)
        return;
    uint64_t at = range->first;
    for (; at < range->end && count < countof(learnt) && random_below(random, 300) > 0; at++)
        if (model->states[at] == ON_DISK)
            learnt[count++] = (struct window_learnt){
                .position = at, .deadline_ms = model->deadlines[at], .weight = weight_of(at)};
    window_learn(&model->window, range, learnt, count, at);
}

/* Some entry of a stub with deadlines goes unread, or all that is left of it. */
static void model_expire(struct model *model, struct random *random)
{
    struct segment *stub = pick_on_disk(model, random);

    if (stub == NULL || stub->weights == NULL)
        return;
    const uint64_t first = stub->first, end = stub->end;
    const uint64_t one = first + random_below(random, end - first);
    const bool all = random_below(random, 4) == 0;
    for (uint64_t at = all ? first : one; at < (all ? end : one + 1); at++)
        if (model->states[at] == ON_DISK)
            model_delete(model, stub, (uint32_t)(at - first));
}

/* All of some segment in memory goes, and leaves a hole. */
static void model_empty(struct model *model, struct random *random)
{
    const uint64_t at = pick(model, random, READY);

    if (at == model->tail)
        return;
    struct segment *segment = model->places[at].segment;
    const uint64_t first = segment->first;
    const uint32_t slots = (uint32_t)(segment->end - first);
    for (uint32_t slot = 0; slot < slots; slot++)
        if (model->states[first + slot] != GONE)
            model_delete(model, segment, slot);
}

static void on_written(struct scratch_job *job)
{
    (void)job;
}

/* Some place in scratch. */
static struct scratch_place write_octet(struct model *model)
{
    uint8_t octet = 1;
    struct iovec iov = {&octet, 1};
    struct scratch_job job = {.iov = &iov, .iov_count = 1, .on_done = on_written};

    scratch_write(model->scratch, &job, 1);
    scratch_process(model->scratch);
    ck_assert_int_eq(0, job.error);
    return job.place;
}

/* Some segment, from some slot on, if all is ready from there. */
static void model_page_out(struct model *model, struct random *random)
{
    struct segment *segment;

    TAILQ_FOREACH (segment, &model->window.segments, link) {
        if (segment_is_on_disk(segment) || random_below(random, 3) > 0)
            continue;
        const uint32_t end = (uint32_t)(segment->end - segment->first);
        uint32_t from = random_below(random, 2) == 0 ? 0 : (uint32_t)random_below(random, end + 1);
        uint64_t ready = 0, unacked = 0;
        for (uint32_t slot = from; slot < end; slot++) {
            ready += model->states[segment->first + slot] == READY;
            unacked += model->states[segment->first + slot] == UNACKED;
        }
        if (ready == 0 || unacked > 0)
            continue;
        for (uint64_t at = segment->first + from; at < segment->end; at++)
            if (model->states[at] == READY)
                model->states[at] = ON_DISK;
        if (model->all_stored && segment->deleted_lsn < model->open_lsn &&
            random_below(random, 4) > 0) {
            window_page_out(&model->window, segment, from, NULL);
        } else {
            const struct scratch_place place = write_octet(model);
            window_page_out(&model->window, segment, from, &place);
        }
        return;
    }
}

static uint64_t some_deadline(const struct model *model, struct random *random)
{
    return model->has_deadlines && random_below(random, 4) == 0 ? 1000 + random_below(random, 1000)
                                                                : DEADLINE_NONE;
}

static void step(struct model *model, struct random *random)
{
    uint64_t at;

    switch (random_below(random, 13)) {
    case 0:
    case 1:
        for (uint64_t n = random_below(random, 40); n > 0 && model->tail < POSITIONS_MAX; n--)
            model_push(model, some_deadline(model, random));
        break;
    case 2:
    case 3: {
        struct place place;
        for (uint64_t n = random_below(random, 40); n > 0; n--) {
            if (window_first_ready(&model->window, &place) != WINDOW_READY)
                break;
            window_take(&model->window, place);
            model->states[place_position(place)] = UNACKED;
        }
        break;
    }
    case 4:
        if ((at = pick(model, random, UNACKED)) < model->tail) {
            window_requeue(&model->window, model->places[at]);
            expiry_resume(&model->expiry, model->places[at].segment, model->places[at].slot);
            model->states[at] = READY;
        }
        break;
    case 5:
    case 6:
        for (uint64_t n = random_below(random, 30); n > 0; n--)
            if ((at = pick(model, random, random_below(random, 4) == 0 ? READY : UNACKED)) <
                model->tail)
                model_delete(model, model->places[at].segment, model->places[at].slot);
        break;
    case 7:
        model_load(model, random);
        break;
    case 8:
        model_page_out(model, random);
        break;
    case 9:
        model_learn(model, random);
        break;
    case 10:
        model_expire(model, random);
        break;
    case 11:
        model_empty(model, random);
        break;
    case 12:
        model->open_lsn += random_below(random, 4) == 0;
        break;
    }
}

START_TEST(random_steps)
{
    struct random random;
    random_init_seeded(&random, (uint64_t)_i + 1);
    struct model *model = model_new();
    model->has_deadlines = _i / 2 % 2 == 1;
    model->all_stored = _i % 3 > 0;

    if (_i % 2 == 1) { /* a recovered queue with holes */
        uint64_t count = 0, bytes = 0;
        model->tail = model->recovered = 2000;
        for (uint64_t i = 100; i < 2000; i++)
            if (random_below(&random, 3) > 0) {
                model->states[i] = ON_DISK;
                model->deadlines[i] = some_deadline(model, &random);
                count++;
                bytes += i % 7;
            }
        window_recover(&model->window,
                       &(struct window_recovery){.head = 100,
                                                 .tail = 2000,
                                                 .count = count,
                                                 .bytes = bytes,
                                                 .deadlines = model->has_deadlines});
    }
    for (int i = 0; i < 600; i++) {
        step(model, &random);
        check_agrees(model);
    }
    model_free(model);
}
END_TEST

START_TEST(drained_window_is_empty)
{
    struct window window;
    struct place place;
    window_init(&window, NULL, 0, NULL, NULL);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 1000; i++) {
            struct message *message = make_message(3);
            window_push(&window, message);
            message_unref(&message);
        }
        while (window_first_ready(&window, &place) == WINDOW_READY) {
            window_take(&window, place);
            window_remove(&window, place);
        }
        ck_assert_uint_eq(window.ready_count + window.unacked_count, 0);
        ck_assert_uint_eq(window.ready_bytes + window.unacked_bytes, 0);
        /* One segment stays for the next push. */
        ck_assert_ptr_eq(TAILQ_FIRST(&window.segments), TAILQ_LAST(&window.segments, segment_list));
    }
    window_release(&window);
}
END_TEST

START_TEST(lone_unacked_pins_one_segment)
{
    struct window window;
    struct place place, lone;
    window_init(&window, NULL, 0, NULL, NULL);
    for (int i = 0; i < 100000; i++) {
        struct message *message = make_message(3);
        window_push(&window, message);
        message_unref(&message);
        ck_assert_int_eq(window_first_ready(&window, &place), WINDOW_READY);
        window_take(&window, place);
        if (i == 5)
            lone = place;
        else
            window_remove(&window, place);
    }
    size_t segments = 0;
    struct segment *segment;
    TAILQ_FOREACH (segment, &window.segments, link)
        segments++;
    ck_assert_uint_le(segments, 3);
    window_requeue(&window, lone);
    ck_assert_int_eq(window_first_ready(&window, &place), WINDOW_READY);
    ck_assert_uint_eq(place_position(place), 5);
    ck_assert(place_entry(place)->redelivered);
    window_release(&window);
}
END_TEST

/* What stood between two ranges may be gone here and not yet in the store: read as one, it would
 * come back. */
START_TEST(ranges_do_not_join_over_a_hole)
{
    enum { SECOND = SEGMENT_SMALL, THIRD = SECOND + 4 * SEGMENT_SMALL };
    struct model *model = model_new();

    while (model->tail <= THIRD)
        model_push(model, DEADLINE_NONE);
    window_page_out(&model->window, model->places[0].segment, 0, NULL);
    for (unsigned i = SECOND; i < THIRD; i++)
        window_remove(&model->window, model->places[i]);
    window_page_out(&model->window, model->places[THIRD].segment, 0, NULL);

    const struct segment *range = window_first_on_disk(&model->window);
    ck_assert_uint_eq(range->end, SECOND);
    ck_assert_uint_eq(TAILQ_NEXT(range, disk_link)->first, THIRD);
    ck_assert(window_check(&model->window));
    model_free(model);
}
END_TEST

/* Nor does what is read of a range join what stands in memory before it. */
START_TEST(segments_do_not_grow_over_a_hole)
{
    enum { ENTRIES = 20, HOLE = 4, BEHIND = 8 };
    const struct scratch_place place = {0};
    struct model *model = model_new();
    struct message *message = make_message(1);
    struct place read = {NULL, 0};

    model->tail = ENTRIES;
    window_recover(
        &model->window,
        &(struct window_recovery){.head = 0, .tail = ENTRIES, .count = ENTRIES, .bytes = ENTRIES});
    for (uint64_t at = 0; at < BEHIND; at++)
        read = window_add_loaded(&model->window, window_first_on_disk(&model->window), at, message,
                                 ENTRIES - at - 1);
    window_page_out(&model->window, read.segment, HOLE, &place);
    window_remove_on_disk(&model->window, window_first_on_disk(&model->window));
    read = window_add_loaded(&model->window, window_first_on_disk(&model->window), BEHIND, message,
                             ENTRIES - BEHIND - 1);

    ck_assert_uint_eq(BEHIND, read.segment->first);
    ck_assert_uint_eq(HOLE, TAILQ_FIRST(&model->window.segments)->end);
    ck_assert(window_check(&model->window));
    message_unref(&message);
    model_free(model);
}
END_TEST

/* Its deletes may not be durable while it is in scratch, nor when it is back. */
START_TEST(stubs_remember_deletes)
{
    const struct scratch_place place = {0};
    struct message *messages[SEGMENT_LARGE] = {NULL};
    struct model *model = model_new();

    model_push(model, DEADLINE_NONE);
    model_push(model, DEADLINE_NONE);
    model->places[0].segment->deleted_lsn = 7;
    window_remove(&model->window, model->places[0]);
    window_page_out(&model->window, model->places[1].segment, 0, &place);
    messages[1] = make_message(1);
    const struct segment *loaded =
        window_load_stub(&model->window, window_first_on_disk(&model->window), messages);
    ck_assert_uint_eq(loaded->deleted_lsn, 7);
    model_free(model);
}
END_TEST

START_TEST(damaged_entries_leave_the_count)
{
    struct window window;
    window_init(&window, NULL, 0, NULL, NULL);
    window_recover(&window,
                   &(struct window_recovery){.head = 0, .tail = 10, .count = 3, .bytes = 30});
    struct segment *range = window_first_on_disk(&window);
    window_drop_from_range(&window, range, 10);
    ck_assert_uint_eq(window.ready_count, 2);
    /* The store says nothing is left although two were expected: the count follows it. */
    window_shorten_range(&window, range, 10);
    ck_assert_uint_eq(window.ready_count, 0);
    ck_assert_uint_eq(window.ready_bytes, 0);
    struct place place;
    ck_assert_int_eq(window_first_ready(&window, &place), WINDOW_NOTHING);
    window_release(&window);
}
END_TEST

/* Whatever is said to be lost, a range is worth reading until that has been done: what it has may
 * be in memory, and lost from there. */
START_TEST(a_range_counts_one_at_least)
{
    struct window window;
    struct place place;

    window_init(&window, NULL, 0, NULL, NULL);
    window_recover(&window, &(struct window_recovery){
                                .head = 0, .tail = 10, .count = _i == 0 ? 0 : 3, .bytes = 0});
    struct segment *range = window_first_on_disk(&window);
    ck_assert_ptr_nonnull(range);
    if (_i == 1)
        window_recount(&window, 3, 0);
    for (int i = 0; i < 3 && _i == 2; i++)
        window_drop_from_range(&window, range, 0);
    ck_assert_uint_eq(1, window.ready_count);
    ck_assert(window_check(&window));
    ck_assert_int_eq(window_first_ready(&window, &place), WINDOW_ON_DISK);
    for (uint64_t at = 0; at < 3; at++) {
        struct message *message = make_message(7);
        window_add_loaded(&window, range, at, message, 0);
        message_unref(&message);
        window_shorten_range(&window, range, at + 1);
        ck_assert_uint_eq(at + 2, window.ready_count);
        ck_assert(window_check(&window));
    }
    window_shorten_range(&window, range, 10);
    ck_assert_uint_eq(3, window.ready_count);
    ck_assert(window_check(&window));
    window_release(&window);
}
END_TEST

/* A damaged row of marks makes the store return what was deleted, in front of what was counted. */
START_TEST(entries_that_come_back_are_counted)
{
    struct window window;
    struct place place;
    window_init(&window, NULL, 0, NULL, NULL);
    window_recover(&window,
                   &(struct window_recovery){.head = 0, .tail = 10, .count = 2, .bytes = 10});
    struct segment *range = window_first_on_disk(&window);
    for (uint64_t at = 0; at < 5; at++) {
        struct message *message = make_message(7);
        window_add_loaded(&window, range, at, message, 0);
        message_unref(&message);
    }
    window_drop_from_range(&window, range, 7);
    window_shorten_range(&window, range, 6);
    ck_assert_uint_eq(window.ready_count, 6);
    ck_assert_uint_eq(window.ready_bytes, 35);
    ck_assert_ptr_eq(window_first_on_disk(&window), range); /* what stands behind is read, too */
    window_shorten_range(&window, range, 10);
    ck_assert_ptr_null(window_first_on_disk(&window));
    ck_assert_uint_eq(window.ready_count, 5);
    ck_assert_int_eq(window_first_ready(&window, &place), WINDOW_READY);
    window_release(&window);
}
END_TEST

/* A stub is read whole: what is large gets one of its own. */
START_TEST(large_messages_share_no_stub)
{
    enum { COUNT = 100 };
    static const uint32_t weights[] = {STUB_BYTES / 4, STUB_BYTES / 2 + 1, 2 * STUB_BYTES};
    static const uint64_t together[] = {4, 1, 1};
    struct model *model = model_new();
    struct window_learnt learnt[COUNT];
    const struct segment *segment;
    uint64_t count = 0;

    window_recover(&model->window, &(struct window_recovery){.tail = COUNT,
                                                             .count = COUNT,
                                                             .bytes = (uint64_t)COUNT * weights[_i],
                                                             .deadlines = true});
    for (uint64_t i = 0; i < COUNT; i++)
        learnt[i] =
            (struct window_learnt){.position = i, .deadline_ms = 1000 + i, .weight = weights[_i]};
    window_learn(&model->window, window_first_on_disk(&model->window), learnt, COUNT, COUNT);
    ck_assert(window_check(&model->window));
    TAILQ_FOREACH (segment, &model->window.segments, link) {
        ck_assert_uint_eq(together[_i], segment->count);
        count += segment->count;
    }
    ck_assert_uint_eq(COUNT, count);
    model_free(model);
}
END_TEST

START_TEST(records_round_trip)
{
    struct message *message =
        message_new(SLICE("exchange"), SLICE("key"), SLICE("\x10\x00\x02"), 5, true);
    message_append_body(message, SLICE("bo"));
    message_append_body(message, SLICE("dy!"));
    struct slice record = message_record(message);
    struct message *back = message_from_record(record);
    ck_assert_ptr_nonnull(back);
    ck_assert(slice_equal(message_exchange(back), SLICE("exchange")));
    ck_assert(slice_equal(message_routing_key(back), SLICE("key")));
    ck_assert(slice_equal(message_properties(back), SLICE("\x10\x00\x02")));
    ck_assert(slice_equal(message_body(back), SLICE("body!")));
    ck_assert(back->persistent);
    message_unref(&back);
    /* Cut anywhere before the body it is no record. */
    for (size_t size = 0; size < record.size - 5; size++)
        ck_assert_ptr_null(message_from_record(slice_of(record.data, size)));
    message_unref(&message);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("window");
    TCase *tcase = tcase_create("window");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, random_steps, 0, 100);
    tcase_add_test(tcase, drained_window_is_empty);
    tcase_add_test(tcase, lone_unacked_pins_one_segment);
    tcase_add_test(tcase, ranges_do_not_join_over_a_hole);
    tcase_add_test(tcase, segments_do_not_grow_over_a_hole);
    tcase_add_test(tcase, stubs_remember_deletes);
    tcase_add_test(tcase, damaged_entries_leave_the_count);
    tcase_add_loop_test(tcase, a_range_counts_one_at_least, 0, 3);
    tcase_add_test(tcase, entries_that_come_back_are_counted);
    tcase_add_loop_test(tcase, large_messages_share_no_stub, 0, 3);
    tcase_add_test(tcase, records_round_trip);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
