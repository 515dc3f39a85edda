#include "core/queue_read.h"

#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/page.h"
#include "core/queue_parts.h"
#include "core/queue_store.h"
#include "core/vhost.h"

enum {
    READ_AHEAD_SEGMENTS = 16, /* with something ready, left before a part on disk */
    LEARN_COUNT = 4096,       /* deadlines in one read */
    READ_RETRY_MS = 1000,     /* after a read that failed */
    SCRATCH_TRIES = 30,       /* then what the disk fails to read of scratch is taken for damaged */
};

/* ---- taking in what was read ---- */

/* Of what a fetch brought: NULL if it is not what was stored. */
static struct message *message_of(const struct store_fetched *fetched)
{
    return fetched->damaged ? NULL : message_from_record(fetched->bytes);
}

/* It is not: out of the queue, and into the quarantine. false: it is out already. */
static bool set_aside(struct queue *queue, const struct window *window,
                      const struct store_fetched *fetched)
{
    if (!quarantine_take(&queue->broker->quarantine, queue, queue_store_id(queue, window), fetched))
        return false;
    log_error("queue '%.*s' in vhost '%.*s': the message at position %" PRIu64
              " is damaged on disk and was set aside",
              SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), fetched->position);
    queue->broker->counters.set_aside++;
    return true;
}

/* It is in memory again, as the store has it. */
static void note_loaded(struct queue *queue, struct place place)
{
    struct entry *entry = place_entry(place);

    entry->lsn = store_durable_entries(queue->broker->store);
    entry->redelivered = place_position(place) < place.segment->window->delivered;
}

static void add_loaded(struct queue *queue, struct segment *range,
                       const struct store_fetched *fetched, size_t more)
{
    struct message *message = message_of(fetched);

    if (message == NULL) {
        if (set_aside(queue, range->window, fetched))
            window_drop_from_range(range->window, range, fetched->weight);
        return;
    }
    struct place place = window_add_loaded(range->window, range, fetched->position, message, more);
    note_loaded(queue, place);
    if (fetched->expires_ms != 0)
        expiry_add(&queue->expiry, place.segment, place.slot,
                   clock_from_wall_ms(queue->broker->clock, fetched->expires_ms));
    message_unref(&message);
}

/* Each of these takes in the entries from *i on that lie in the part, and moves *i behind them. */
static void take_in_range(struct queue *queue, struct segment *range,
                          const struct store_fetch *fetch, size_t *i)
{
    const uint64_t next = min_of(range->end, fetch->next);

    for (; *i < fetch->count && fetch->entries[*i].position < next; ++*i)
        add_loaded(queue, range, &fetch->entries[*i], fetch->count - *i - 1);
    window_shorten_range(range->window, range, next);
}

static void take_in_stub(struct queue *queue, struct segment *stub, const struct store_fetch *fetch,
                         size_t *i)
{
    struct message *messages[SEGMENT_LARGE] = {NULL};

    for (; *i < fetch->count && fetch->entries[*i].position < stub->end; ++*i) {
        const uint32_t slot = (uint32_t)(fetch->entries[*i].position - stub->first);
        if (!segment_is_ready(stub, slot))
            continue;
        messages[slot] = message_of(&fetch->entries[*i]);
        if (messages[slot] == NULL)
            set_aside(queue, stub->window, &fetch->entries[*i]);
    }
    struct segment *segment = window_load_stub(stub->window, stub, messages);
    for (uint32_t slot = 0; segment != NULL && slot < segment->end - segment->first; slot++)
        if (segment->entries[slot].message != NULL)
            note_loaded(queue, (struct place){segment, slot});
}

/* The part on disk behind this one, if nothing in memory stands between them. */
static struct segment *next_part(struct segment *segment)
{
    struct segment *next = TAILQ_NEXT(segment, link);

    return next != NULL && segment_is_on_disk(next) ? next : NULL;
}

static void take_in_entries(struct queue *queue, struct segment *part,
                            const struct store_fetch *fetch)
{
    struct segment *next;
    size_t i = 0;

    for (; part != NULL && part->first < fetch->next && part->place.file == NULL; part = next) {
        next = next_part(part);
        while (i < fetch->count && fetch->entries[i].position < part->first)
            i++; /* of a part that went meanwhile */
        if (!part->is_stub)
            take_in_range(queue, part, fetch, &i);
        else if (part->end <= fetch->next)
            take_in_stub(queue, part, fetch, &i);
    }
}

static void take_in_deadlines(struct queue *queue, struct segment *range,
                              const struct store_fetch *fetch)
{
    const struct clock *clock = queue->broker->clock;
    struct window_learnt *learnt = xcalloc(max_of(fetch->count, (size_t)1), sizeof(*learnt));
    size_t count = 0;

    for (size_t i = 0; i < fetch->count; i++) {
        const struct store_fetched *fetched = &fetch->entries[i];
        if (quarantine_has(&queue->broker->quarantine, fetch->queue_id, fetched->position))
            continue;
        learnt[count++] = (struct window_learnt){
            .position = fetched->position,
            .deadline_ms = fetched->expires_ms == 0
                               ? DEADLINE_NONE
                               : clock_from_wall_ms(clock, fetched->expires_ms),
            .weight = fetched->weight,
        };
    }
    window_learn(range->window, range, learnt, count, fetch->next);
    free(learnt);
}

static void take_in(struct queue *queue, struct segment *part, const struct store_fetch *fetch)
{
    /* A purge, a delete or a deadline may have taken it away meanwhile, or given it a new front. */
    if (part == NULL || part->first != fetch->first)
        return;
    if (fetch->index_only)
        take_in_deadlines(queue, part, fetch);
    else
        take_in_entries(queue, part, fetch);
}

/* ---- what cannot be read ---- */

/* It is damaged: what the part has stays on disk, set aside. */
static void give_up_part(struct queue *queue, struct segment *part)
{
    log_error("queue '%.*s' in vhost '%.*s': %" PRIu64
              " messages are damaged on disk, cannot be read and were set aside",
              SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), part->count);
    queue->broker->counters.set_aside += part->count;
    window_remove_on_disk(part->window, part);
}

/* Whether what was to be read has come. If not, the part that begins there is given up, or read
 * later. */
static bool has_come(struct queue *queue, struct segment *part, uint64_t first, int error)
{
    if (queue->deleted)
        return false;
    if (error == -EBADMSG) {
        if (part != NULL && part->first == first)
            give_up_part(queue, part);
        return false;
    }
    if (error != 0 && !queue->read_failed)
        log_error("queue '%.*s' in vhost '%.*s': messages cannot be read from disk, which is tried "
                  "again every second: %s",
                  SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), strerror(-error));
    if (error == 0 && queue->read_failed)
        log_info("queue '%.*s' in vhost '%.*s': messages can be read from disk again",
                 SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name));
    queue->read_failed = error != 0;
    if (error != 0)
        timer_set(&queue->broker->loop->timers, &queue->read_timer,
                  queue->broker->clock->now_ms + READ_RETRY_MS);
    return error == 0;
}

/* ---- reading ---- */

static void learn_deadlines(struct queue *queue);

static bool may_read(const struct queue *queue)
{
    return queue->fetching == NULL && !queue->broker->is_ending &&
           !timer_is_set(&queue->read_timer);
}

/* Answers what was being read; NULL: it went meanwhile. */
static struct segment *end_read(struct queue *queue)
{
    struct segment *part = queue->fetching->reading;

    queue->fetching->reading = NULL;
    queue->fetching = NULL;
    queue->broker->fetches--;
    paging_end_read(&queue->broker->paging, queue->fetch_reserved);
    return queue->deleted ? NULL : part;
}

static void begin_read(struct queue *queue, struct segment *segment, size_t bytes)
{
    queue->fetching = segment->window;
    segment->window->reading = segment;
    queue->fetch_reserved = bytes;
    queue->broker->fetches++;
    queue_ref(queue);
}

/* A read is over, and so is the reference that it held. */
static void go_on(struct queue *queue)
{
    if (!queue->deleted) {
        learn_deadlines(queue);
        queue_on_loaded(queue);
    }
    queue_unref(&queue);
}

void queue_on_read_timer(struct timer *timer)
{
    struct queue *queue = container_of(timer, struct queue, read_timer);

    queue_ref(queue);
    go_on(queue);
}

static void on_fetched(struct store_fetch *fetch)
{
    struct queue *queue = container_of(fetch, struct queue, fetch);
    struct window *window = queue->fetching;
    struct segment *part = end_read(queue);

    if (!queue->deleted && (fetch->lost_count != 0 || fetch->lost_bytes != 0))
        window_recount(window, fetch->lost_count, fetch->lost_bytes);
    if (has_come(queue, part, fetch->first, fetch->error))
        take_in(queue, part, fetch);
    store_fetch_release(fetch);
    fault_point(FAULT_RANGE_READ);

    if (!queue->deleted) {
        if (!fetch->index_only)
            learn_deadlines(queue); /* first, so that no consumer can keep it from its turn */
        queue_on_loaded(queue);
        learn_deadlines(queue);
    }
    queue_unref(&queue);
}

/* ---- what the store's check found ---- */

/* One entry is read by itself, to see what is left of it. */
struct probe {
    struct store_fetch fetch;
    struct queue *queue;
    struct window *window;
};

/* Something of the range was lost: whether anything is left of one that counts no more than it must
 * shows when it is read. */
static void make_sure(struct queue *queue, struct segment *range)
{
    if (range->count == 1)
        queue_read(queue, range);
}

/* The store counts again what the window is to it, and says once by how much that differs. */
static void recount(struct queue *queue, struct window *window, int64_t count, int64_t bytes)
{
    struct segment *part;

    if (count == 0 && bytes == 0)
        return;
    window_recount(window, count, bytes);
    TAILQ_FOREACH (part, &window->on_disk, disk_link)
        if (!part->is_stub)
            make_sure(queue, part);
}

/* Where it stands in memory it is better than on disk, and in scratch as good as ever. */
static void take_in_damaged(struct queue *queue, struct window *window,
                            const struct store_fetched *fetched)
{
    struct segment *part = window_find_on_disk(window, fetched->position);

    if (part == NULL || part->place.file != NULL)
        return;
    const uint32_t slot = (uint32_t)(fetched->position - part->first);
    if ((part->is_stub && !segment_is_ready(part, slot)) || !set_aside(queue, window, fetched))
        return;
    if (part->is_stub) {
        window_remove_from_stub(window, part, slot);
        return;
    }
    window_drop_from_range(window, part, fetched->weight);
    make_sure(queue, part);
}

static void on_probed(struct store_fetch *fetch)
{
    struct probe *probe = container_of(fetch, struct probe, fetch);
    struct queue *queue = probe->queue;

    queue->broker->fetches--;
    if (!queue->deleted) {
        recount(queue, probe->window, fetch->lost_count, fetch->lost_bytes);
        if (fetch->count == 1 && message_of(&fetch->entries[0]) == NULL)
            take_in_damaged(queue, probe->window, &fetch->entries[0]);
    }
    store_fetch_release(fetch);
    free(probe);
    queue_unref(&queue);
}

static void probe_entry(struct queue *queue, struct window *window, uint64_t position)
{
    struct probe *probe = xmalloc(sizeof(*probe));

    queue_ref(queue);
    queue->broker->fetches++;
    *probe = (struct probe){.queue = queue,
                            .window = window,
                            .fetch = {.queue_id = queue_store_id(queue, window),
                                      .first = position,
                                      .end = position + 1,
                                      .count_max = 1,
                                      .bytes_max = SIZE_MAX,
                                      .on_done = on_probed}};
    store_fetch(queue->broker->store, &probe->fetch);
}

void queue_on_finding(struct queue *queue, const struct store_finding *finding)
{
    struct window *window = queue_store_window(queue, finding->queue_id);

    if (window == NULL || queue->broker->is_ending)
        return;
    if (finding->is_entry)
        probe_entry(queue, window, finding->position);
    else
        recount(queue, window, finding->lost_count, finding->lost_bytes);
}

/* ---- reading scratch ---- */

struct page_read {
    struct scratch_job job;
    struct store_fetch fetch; /* of what is damaged there and the store has, too */
    struct queue *queue;
    struct iovec iov;
    uint8_t bytes[];
};

/* What was read of a stub, by slot. */
struct page {
    uint64_t loaded, stored, set_aside; /* how many have come; of these, the store has; see there */
    struct message *messages[SEGMENT_LARGE];
    struct page_head heads[SEGMENT_LARGE];
};

static void add_to_page(struct page *page, const struct page_head *head, struct message *message)
{
    if (message == NULL)
        return;
    page->heads[head->slot] = *head;
    page->messages[head->slot] = message;
    page->loaded++;
    page->stored += head->is_stored;
}

/* What is sound of it in scratch. */
static void read_page(const struct segment *stub, const uint8_t *bytes, struct page *page)
{
    struct slice left = slice_of(bytes, stub->place.size), record;
    struct page_head head;

    while (page_next(&left, (uint32_t)(stub->end - stub->first), &head, &record))
        if (segment_is_ready(stub, head.slot) && page->messages[head.slot] == NULL &&
            head.crc == page_crc(&head, record))
            add_to_page(page, &head, message_from_record(record));
}

/* And of what is not, in the store. */
static void fill_page(struct queue *queue, const struct segment *stub,
                      const struct store_fetch *fetch, struct page *page)
{
    for (size_t i = 0; i < fetch->count; i++) {
        const struct store_fetched *fetched = &fetch->entries[i];
        if (fetched->position < stub->first || fetched->position >= stub->end)
            continue;
        const uint32_t slot = (uint32_t)(fetched->position - stub->first);
        if (!segment_is_ready(stub, slot) || page->messages[slot] != NULL)
            continue;
        struct message *message = message_of(fetched);
        if (message == NULL)
            page->set_aside += set_aside(queue, stub->window, fetched);
        add_to_page(page, &(struct page_head){.slot = slot, .is_stored = true}, message);
    }
}

static void note_damage(struct queue *queue, const struct segment *stub, const struct page *page)
{
    const uint64_t lost = stub->count - page->loaded - page->set_aside;

    if (lost == 0)
        return;
    log_error("queue '%.*s' in vhost '%.*s': %" PRIu64
              " messages of its backlog are damaged on disk and were set aside",
              SLICE_ARG(queue->name), SLICE_ARG(queue->vhost->name), lost);
    queue->broker->counters.set_aside += lost;
}

/* fetch NULL: the store was not asked. false: it should be, and nothing was done. */
static bool load_page(struct queue *queue, struct segment *stub, const uint8_t *bytes,
                      const struct store_fetch *fetch)
{
    struct page page = {0};

    read_page(stub, bytes, &page);
    if (page.stored < stub->stored_count && fetch == NULL) {
        for (uint32_t slot = 0; slot < SEGMENT_LARGE; slot++)
            if (page.messages[slot] != NULL)
                message_unref(&page.messages[slot]);
        return false;
    }
    if (page.stored < stub->stored_count)
        fill_page(queue, stub, fetch, &page);
    note_damage(queue, stub, &page);
    struct segment *segment = window_load_stub(stub->window, stub, page.messages);
    for (uint32_t slot = 0; segment != NULL && slot < segment->end - segment->first; slot++) {
        struct entry *entry = &segment->entries[slot];
        if (entry->message == NULL)
            continue;
        note_loaded(queue, (struct place){segment, slot});
        if (!page.heads[slot].is_stored)
            entry->lsn = 0;
        entry->delivery_count = page.heads[slot].delivery_count;
        entry->acquired_count = page.heads[slot].acquired_count;
    }
    return true;
}

static bool is_within(const struct segment *part, const struct scratch_place *place)
{
    return part->is_stub && part->place.file == place->file &&
           part->place.offset >= place->offset && part->place.offset - place->offset < place->size;
}

/* All that was read, from this part on. Answers the first of which the store has what is damaged;
 * NULL: there is none, or it was asked. */
static struct segment *load_pages(struct page_read *read, struct segment *part,
                                  const struct store_fetch *fetch)
{
    const struct scratch_place *place = &read->job.place;
    struct segment *next;

    for (; part != NULL && is_within(part, place); part = next) {
        next = next_part(part);
        if (!load_page(read->queue, part, read->bytes + (part->place.offset - place->offset),
                       fetch))
            return part;
    }
    return NULL;
}

/* Damaged there, too: what is sound in scratch is all there is. */
static void on_store_asked(struct store_fetch *fetch)
{
    struct page_read *read = container_of(fetch, struct page_read, fetch);
    struct queue *queue = read->queue;
    struct window *window = queue->fetching;
    struct segment *part = end_read(queue);

    if (!queue->deleted && (fetch->lost_count != 0 || fetch->lost_bytes != 0))
        window_recount(window, fetch->lost_count, fetch->lost_bytes);
    if (has_come(queue, part, fetch->first, fetch->error == -EBADMSG ? 0 : fetch->error))
        load_pages(read, part, fetch);
    store_fetch_release(fetch);
    free(read);
    go_on(queue);
}

static void ask_store(struct page_read *read, struct segment *part)
{
    uint64_t end = part->end;

    for (struct segment *next = next_part(part); next != NULL && is_within(next, &read->job.place);
         next = next_part(next))
        end = next->end;
    begin_read(read->queue, part, 0);
    read->fetch = (struct store_fetch){.queue_id = queue_store_id(read->queue, part->window),
                                       .first = part->first,
                                       .end = end,
                                       .count_max = UINT32_MAX,
                                       .bytes_max = SIZE_MAX,
                                       .on_done = on_store_asked};
    store_fetch(read->queue->broker->store, &read->fetch);
}

/* Whether a read of scratch that failed found damage, and would do so for ever. A sector that is
 * broken fails as a disk does that is away for a moment. */
static bool is_damage(struct queue *queue, int error)
{
    queue->scratch_tries = error == -EIO ? queue->scratch_tries + 1 : 0;
    if (queue->scratch_tries < SCRATCH_TRIES)
        return error == -EBADMSG;
    queue->scratch_tries = 0;
    return true;
}

static void on_page_read(struct scratch_job *job)
{
    struct page_read *read = container_of(job, struct page_read, job);
    struct queue *queue = read->queue;
    struct segment *part = end_read(queue);
    int error = job->error;

    if (is_damage(queue, error)) {
        memset(read->iov.iov_base, 0, read->iov.iov_len); /* in which no entry is found */
        error = 0;
    }
    part = error == 0 ? load_pages(read, part, NULL) : NULL;
    if (part != NULL) {
        ask_store(read, part);
    } else {
        has_come(queue, NULL, 0, error);
        free(read);
    }
    go_on(queue);
}

/* Stubs that were written one behind the other are read so, too; one alone when the last read has
 * failed, so that what is sound is not given up with what is not. */
static void read_pages(struct queue *queue, struct segment *stub, size_t bytes)
{
    struct scratch_place place = stub->place;

    begin_read(queue, stub, bytes);
    for (const struct segment *part = next_part(stub);
         queue->scratch_tries == 0 && part != NULL && part->is_stub &&
         part->place.file == place.file && part->place.offset == place.offset + place.size &&
         place.size + part->place.size <= bytes;
         part = next_part((struct segment *)(uintptr_t)part))
        place.size += part->place.size;
    struct page_read *read = xmalloc(size_add(sizeof(*read), place.size));
    read->queue = queue;
    read->iov = (struct iovec){read->bytes, place.size};
    read->job = (struct scratch_job){
        .place = place, .iov = &read->iov, .iov_count = 1, .on_done = on_page_read};
    scratch_read(queue->broker->scratch, &read->job);
}

/* ---- reading the store ---- */

static void fetch(struct queue *queue, struct segment *segment, size_t bytes,
                  const struct store_fetch *wanted)
{
    begin_read(queue, segment, bytes);
    queue->fetch = *wanted;
    queue->fetch.queue_id = queue_store_id(queue, segment->window);
    queue->fetch.first = segment->first;
    queue->fetch.on_done = on_fetched;
    store_fetch(queue->broker->store, &queue->fetch);
}

/* Stubs are read whole: how far those reach that so much memory holds, one at least. */
static uint64_t end_of_stubs(struct segment *stub, size_t bytes)
{
    uint64_t end = stub->end, sum = 0;

    for (; stub != NULL && stub->is_stub && stub->place.file == NULL; stub = next_part(stub)) {
        sum += stub->bytes + stub->count * PAGING_ENTRY_SIZE;
        if (sum > bytes)
            break;
        end = stub->end;
    }
    return end;
}

void queue_read(struct queue *queue, struct segment *segment)
{
    if (!may_read(queue))
        return;
    const size_t bytes = paging_begin_read(&queue->broker->paging);
    if (segment->place.file != NULL) {
        read_pages(queue, segment, bytes);
        return;
    }
    struct store_fetch wanted = {
        .end = segment->end,
        .count_max = (uint32_t)max_of(bytes / PAGING_ENTRY_SIZE, (size_t)1),
        .bytes_max = bytes,
    };
    if (segment->is_stub)
        wanted = (struct store_fetch){
            .end = end_of_stubs(segment, bytes), .count_max = UINT32_MAX, .bytes_max = SIZE_MAX};
    fetch(queue, segment, bytes, &wanted);
}

/* A level at a time, for none of them is read before the one above it is served. */
void queue_read_ahead(struct queue *queue)
{
    for (unsigned level = queue->level_max + 1; level > 0; level--) {
        struct window *window = queue_window(queue, level - 1);
        if (window->ready_count == 0)
            continue;
        if (window->disk_count > 0 && window_runs_dry(window, READ_AHEAD_SEGMENTS))
            queue_read(queue, window_first_on_disk(window));
        return;
    }
}

static void learn_deadlines(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->level_max; level++) {
        struct segment *range = queue_window(queue, level)->unlearnt;
        if (range == NULL || !may_read(queue))
            continue;
        fetch(
            queue, range, 0,
            &(struct store_fetch){.end = range->end, .count_max = LEARN_COUNT, .index_only = true});
    }
}

void queue_recover_entries(struct queue *queue, const struct store_queue_state *state)
{
    const unsigned plain = queue->settings.priority_plain;
    const unsigned number = (unsigned)(state->queue_id - queue->id);

    if (number > 0)
        queue_use_levels(queue, number <= plain ? number - 1 : number);
    struct window *window = queue_store_window(queue, state->queue_id);
    window_recover(window, &(struct window_recovery){.head = state->head,
                                                     .tail = state->tail,
                                                     .count = state->count,
                                                     .bytes = state->bytes,
                                                     .deadlines = state->deadlines});
    window->delivered = state->delivered;
    learn_deadlines(queue);
    /* What was unacked is ready again. Nothing goes before it has been read, and all levels are
     * back before that. */
    queue_drop_overflow(queue);
}
