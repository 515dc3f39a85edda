#include "core/queue_store.h"

#include "base/fault.h"
#include "base/alloc.h"
#include "base/log.h"
#include "core/vhost.h"
#include "store/crc32c.h"

enum {
    READ_AHEAD_SEGMENTS = 16, /* with something ready, left before a part on disk */
    LEARN_COUNT = 4096,       /* deadlines in one read */
    ENTRY_SIZE = 200,         /* of an entry and its message beside the body, about */
    READ_RETRY_MS = 1000,     /* after a read that failed */
};

static uint64_t store_id(const struct queue *queue, const struct window *window)
{
    return window == &queue->window ? queue->id
                                    : queue->id + 1 + (uint64_t)(window - queue->others);
}

/* The window that is that queue to the store; NULL: none that is in use. */
static struct window *window_of(const struct queue *queue, uint64_t id)
{
    const uint64_t number = id - queue->id;

    if (number == 0)
        return queue_window(queue, queue->settings.priority_plain);
    if (queue->others == NULL || number > queue->settings.priority_max)
        return NULL;
    struct window *window = &queue->others[number - 1];
    return window->level <= queue->level_max ? window : NULL;
}

void queue_store_create_level(struct queue *queue, unsigned level)
{
    store_create_queue(queue->broker->store, store_id(queue, queue_window(queue, level)));
}

void queue_store_create(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->level_max; level++)
        queue_store_create_level(queue, level);
    broker_touch_store(queue->broker);
}

void queue_store_mark(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->level_max; level++) {
        const struct window *window = queue_window(queue, level);
        store_mark_delivered(queue->broker->store, store_id(queue, window), window->delivered);
    }
}

/* ---- putting and taking back ---- */

/* On disk a deadline is wall-clock time: the monotonic clock begins anew with the machine. */
static uint64_t to_wall_ms(const struct clock *clock, uint64_t deadline_ms)
{
    return deadline_ms == DEADLINE_NONE ? 0 : clock->wall_ms + (deadline_ms - clock->now_ms);
}

static uint64_t from_wall_ms(const struct clock *clock, uint64_t wall_ms)
{
    return wall_ms <= clock->wall_ms ? clock->now_ms : clock->now_ms + (wall_ms - clock->wall_ms);
}

void queue_store_entry(struct queue *queue, struct place place, uint64_t deadline_ms)
{
    struct store *store = queue->broker->store;
    struct entry *entry = place_entry(place);
    struct message *message = entry->message;

    entry->lsn = store_open_lsn(store);
    /* A body whose entries were all taken back has left the batch. */
    if (!store_lsn_is_open(store, message->lsn) || message->unsynced == 0) {
        message->lsn = entry->lsn;
        message->unsynced = 0;
        message->body_number = store_add_body(store, message_record(message), message_ref(message));
    }
    message->unsynced++;
    entry->put_number =
        store_put_entry(store,
                        &(struct store_entry){
                            .queue_id = store_id(queue, place.segment->window),
                            .position = place_position(place),
                            .expires_ms = to_wall_ms(queue->broker->clock, deadline_ms),
                            .weight = message->body_size,
                        },
                        message->body_number);
    broker_touch_store(queue->broker);
}

static bool is_in_open_batch(const struct queue *queue, const struct entry *entry)
{
    return entry->lsn != 0 && store_lsn_is_open(queue->broker->store, entry->lsn);
}

/* Of an entry in the open batch: its publisher would be told if that were forgotten now. */
static bool is_last_awaited(const struct entry *entry)
{
    return entry->message->publisher != NULL && entry->message->unsynced == 1;
}

struct publisher *queue_take_wait(struct queue *queue, struct place place)
{
    struct message *message = place_entry(place)->message;

    if (!is_in_open_batch(queue, place_entry(place)) || message->publisher == NULL)
        return NULL;
    if (message->unsynced == 1)
        return message->publisher;
    late_confirm(queue->broker, message->publisher, message->sequence);
    publisher_unref(&message->publisher);
    return NULL;
}

/* The entry's put is still in the open batch. Its message stays with the window. */
static void take_back(struct queue *queue, struct entry *entry)
{
    assert(entry->message->unsynced > 0);
    entry->message->unsynced--;
    store_take_back(queue->broker->store, entry->put_number);
    entry->lsn = 0;
}

static void tell_publisher(struct queue *queue, const struct message *message, bool late)
{
    if (late)
        late_confirm(queue->broker, message->publisher, message->sequence);
    else
        message->publisher->ops->on_settled(message->publisher, message->sequence);
}

bool queue_remove_entry(struct queue *queue, struct place place, enum removal removal)
{
    struct broker *broker = queue->broker;
    struct entry *entry = place_entry(place);
    bool deletes = false;

    if (is_in_open_batch(queue, entry)) {
        if (is_last_awaited(entry) && removal != REMOVE_MOVED)
            tell_publisher(queue, entry->message,
                           removal != REMOVE_SETTLED || broker->in_transaction);
        take_back(queue, entry);
    } else if (entry->lsn != 0 && !queue->deleted && !fault_bug_each(FAULT_DROP_ACK, 64)) {
        const bool tied = removal >= REMOVE_REPLACED || broker->transaction_puts;
        (tied ? store_delete_tied
              : store_delete_entry)(broker->store, store_id(queue, place.segment->window),
                                    place_position(place), entry->message->body_size);
        place.segment->deleted_lsn = store_open_lsn(broker->store);
        broker_touch_store(broker);
        deletes = true;
    }
    window_remove(place.segment->window, place);
    return deletes;
}

void queue_forget_in_stub(struct queue *queue, struct segment *stub, uint32_t slot)
{
    if (stub_is_stored(stub, slot) && !queue->deleted) {
        store_delete_entry(queue->broker->store, store_id(queue, stub->window), stub->first + slot,
                           stub_weight(stub, slot));
        stub->deleted_lsn = store_open_lsn(queue->broker->store);
        broker_touch_store(queue->broker);
    }
    window_remove_from_stub(stub->window, stub, slot);
}

/* Only unacked entries are left. Those of the open batch need not wait for the disk any more. Those
 * of the one under way go with their queue, in that batch too if it is refused: nobody takes them
 * back. */
static void disown_unacked(struct queue *queue, struct window *window)
{
    struct segment *segment;

    TAILQ_FOREACH (segment, &window->segments, link)
        for (uint32_t slot = 0; slot < segment->end - segment->first && segment->capacity > 0;
             slot++) {
            struct entry *entry = &segment->entries[slot];
            if (entry->message == NULL)
                continue;
            if (is_in_open_batch(queue, entry)) {
                if (is_last_awaited(entry))
                    tell_publisher(queue, entry->message, true);
                take_back(queue, entry);
            }
            entry->lsn = 0;
        }
}

void queue_store_delete(struct queue *queue)
{
    for (unsigned level = 0; level <= queue->level_max; level++) {
        struct window *window = queue_window(queue, level);
        disown_unacked(queue, window);
        store_delete_queue(queue->broker->store, store_id(queue, window));
    }
    broker_touch_store(queue->broker);
}

/* ---- dropping all that is ready ---- */

/* Stored entries that go together: all that live in [first, end). */
struct run {
    uint64_t first, end, count, weight;
};

/* The open batch deletes them. Returns whether there are any. */
static bool end_run(struct queue *queue, struct window *window, struct run *run)
{
    const struct run ended = *run;

    *run = (struct run){0};
    if (ended.count == 0 || queue->deleted)
        return false;
    if (ended.count == 1 && ended.end - ended.first == 1)
        store_delete_entry(queue->broker->store, store_id(queue, window), ended.first,
                           (uint32_t)ended.weight);
    else
        store_delete_range(queue->broker->store, store_id(queue, window), ended.first, ended.end,
                           ended.count, ended.weight);
    broker_touch_store(queue->broker);
    return true;
}

/* What is stored of [first, end) goes, too. */
static void lengthen(struct run *run, uint64_t first, uint64_t end, uint64_t count, uint64_t weight)
{
    if (count == 0)
        return;
    if (run->count == 0)
        run->first = first;
    run->end = end;
    run->count += count;
    run->weight += weight;
}

static void drop_on_disk(struct queue *queue, struct segment *part, struct run *run)
{
    lengthen(run, part->first, part->end, part->is_stub ? part->stored_count : part->count,
             part->is_stub ? part->stored_bytes : part->bytes);
    window_drop_on_disk(part->window, part, &queue->broker->remains);
}

/* Those that are ready; a durable one that is not ends the run. What is not durable may yet be
 * refused, and does not belong into a run. Returns whether the open batch deletes any so far. */
static bool drop_loaded(struct queue *queue, struct segment *segment, struct run *run)
{
    struct window *window = segment->window;
    const uint64_t durable = store_durable_entries(queue->broker->store);
    const uint32_t end = (uint32_t)(segment->end - segment->first);
    bool deletes = false, gone = segment->count == 0;

    for (uint32_t slot = 0; slot < end && !gone; slot++) {
        const struct place place = {segment, slot};
        const struct entry *entry = place_entry(place);
        const bool is_durable = entry->lsn != 0 && entry->lsn <= durable;
        if (entry->message == NULL)
            continue;
        if (!segment_is_ready(segment, slot)) {
            deletes |= is_durable && end_run(queue, window, run);
            continue;
        }
        gone = segment->count == 1; /* the segment goes with its last entry */
        if (!is_durable) {
            deletes |= queue_remove_entry(queue, place, REMOVE_DROPPED);
            continue;
        }
        lengthen(run, place_position(place), place_position(place) + 1, 1,
                 entry->message->body_size);
        segment->deleted_lsn = store_open_lsn(queue->broker->store);
        window_remove(window, place);
    }
    return deletes;
}

/* Whether all that the segment has is ready, and nothing of it was ever to be stored. */
static bool is_transient(const struct segment *segment)
{
    const uint32_t end = (uint32_t)(segment->end - segment->first);

    if (segment->ready_count == 0 || segment->ready_count < segment->count)
        return false;
    for (uint32_t slot = 0; slot < end; slot++)
        if (segment->entries[slot].lsn != 0 && segment->entries[slot].message != NULL)
            return false;
    return true;
}

bool queue_drop_ready(struct queue *queue, struct window *window)
{
    struct segment *segment, *next;
    struct run run = {0};
    bool deletes = false;

    for (segment = TAILQ_FIRST(&window->segments); segment != NULL; segment = next) {
        next = TAILQ_NEXT(segment, link);
        if (segment_is_on_disk(segment))
            drop_on_disk(queue, segment, &run);
        else if (!is_transient(segment))
            deletes |= drop_loaded(queue, segment, &run);
    }
    window_drop_ready(window, &queue->broker->remains);
    return end_run(queue, window, &run) || deletes;
}

/* ---- giving up what is in memory ---- */

/* Whether the store has all that is to be known about the entry. */
static bool can_be_read_back(const struct entry *entry, uint64_t durable)
{
    return entry->lsn != 0 && entry->lsn <= durable && entry->acquired_count == 0;
}

/* The first slot from which on all can be given up: 0 when nothing else is left, all slots that are
 * in use when nothing can. */
static uint32_t first_to_give_up(const struct segment *segment, uint64_t durable)
{
    const uint32_t end = (uint32_t)(segment->end - segment->first);
    const bool makes_stub = segment->deadlines.slots != NULL;
    uint32_t from = end;
    uint64_t size = 0;

    if (segment->ready_count == 0 || segment->deleted_lsn > durable)
        return end;
    for (uint32_t slot = end; slot-- > 0;) {
        const struct entry *entry = &segment->entries[slot];
        if (entry->message == NULL)
            continue;
        if (!segment_is_ready(segment, slot) || !can_be_read_back(entry, durable))
            return from;
        size += entry->message->body_size;
        if (makes_stub && size > STUB_BYTES && from < end)
            return from;
        from = slot;
    }
    return 0;
}

static bool give_up(struct window *window, struct segment *segment, uint64_t durable)
{
    const uint32_t from = first_to_give_up(segment, durable);

    if (from == segment->end - segment->first)
        return false;
    window_page_out(window, segment, from, NULL);
    return true;
}

/* ---- to scratch ---- */

/* The entries of some slots of a segment, while they are written. On disk each is a head and its
 * record, one behind the other, as a file that dies with the process may have them. */
struct page_head {
    uint32_t slot; /* of the stub */
    uint32_t size; /* of the record */
    uint32_t is_stored : 1, delivery_count : 15, acquired_count : 16;
    uint32_t crc; /* of head and record; of the head as if it were 0 */
};
struct page_write {
    struct scratch_job job;
    struct broker *broker;
    struct segment *segment; /* NULL: it is gone */
    uint32_t from, end;      /* slots */
    size_t size;
    uint32_t count;
    struct message *messages[SEGMENT_LARGE];
    struct page_head heads[SEGMENT_LARGE];
    struct iovec iov[2 * SEGMENT_LARGE];
};

/* Whether what was written is what the segment still has, less some perhaps: what was taken and
 * came back meanwhile may count more deliveries. */
static bool is_as_written(const struct page_write *write)
{
    const struct segment *segment = write->segment;
    uint32_t ready = 0;

    if (segment->end - segment->first != write->end)
        return false;
    for (uint32_t i = 0; i < write->count; i++) {
        const struct page_head *head = &write->heads[i];
        const struct entry *entry = &segment->entries[write->from + head->slot];
        if (entry->message == NULL)
            continue;
        if (!segment_is_ready(segment, write->from + head->slot) ||
            entry->acquired_count != head->acquired_count)
            return false;
        ready++;
    }
    return ready > 0;
}

static void on_written(struct scratch_job *job)
{
    struct page_write *write = container_of(job, struct page_write, job);
    struct broker *broker = write->broker;
    struct segment *segment = write->segment;
    bool dropped = true;

    broker->fetches--;
    if (job->error != 0)
        log_error("a message backlog could not be written to disk and stays in memory: %s",
                  strerror(-job->error));
    if (segment != NULL) {
        segment->writer = NULL;
        if (job->error == 0 && is_as_written(write)) {
            window_page_out(segment->window, segment, write->from, &job->place);
            dropped = false;
        }
    }
    if (dropped)
        scratch_drop(&job->place);
    for (uint32_t i = 0; i < write->count; i++)
        message_unref(&write->messages[i]);
    paging_end_write(&broker->paging, write->size, job->error != 0);
    free(write);
}

/* From which slot on up to STUB_BYTES, or one entry, can be written. */
static uint32_t first_to_write(const struct segment *segment, uint64_t durable)
{
    const uint32_t end = (uint32_t)(segment->end - segment->first);
    uint32_t from = end;
    size_t size = 0;

    for (uint32_t slot = end; slot-- > 0;) {
        const struct entry *entry = &segment->entries[slot];
        if (entry->message == NULL)
            continue;
        if (!segment_is_ready(segment, slot) || (entry->lsn != 0 && entry->lsn > durable))
            return from;
        size += message_record(entry->message).size;
        if (size > STUB_BYTES && from < end)
            return from;
        from = slot;
    }
    return from < end ? 0 : end;
}

static uint32_t page_crc(const struct page_head *head, struct slice record)
{
    struct page_head plain = *head;

    plain.crc = 0;
    return crc32c(crc32c(0, &plain, sizeof(plain)), record.data, record.size);
}

static void add_to_write(struct page_write *write, const struct entry *entry, uint32_t slot)
{
    const struct slice record = message_record(entry->message);
    struct page_head *head = &write->heads[write->count];

    *head = (struct page_head){.slot = slot,
                               .size = (uint32_t)record.size,
                               .is_stored = entry->lsn != 0,
                               .delivery_count = entry->delivery_count,
                               .acquired_count = entry->acquired_count};
    head->crc = page_crc(head, record);
    write->messages[write->count] = message_ref(entry->message);
    write->iov[2 * write->count] = (struct iovec){head, sizeof(*head)};
    write->iov[2 * write->count + 1] = (struct iovec){(void *)(uintptr_t)record.data, record.size};
    write->count++;
    write->size += sizeof(*head) + record.size;
}

/* Begins to write the end of the segment to scratch; it is given up when that is done. */
static bool write_out(struct window *window, struct segment *segment, uint64_t durable)
{
    struct broker *broker = window->queue->broker;
    const uint32_t end = (uint32_t)(segment->end - segment->first);

    if (broker->scratch == NULL || broker->is_ending || segment->ready_count == 0 ||
        !paging_may_write(&broker->paging))
        return false;
    const uint32_t from = first_to_write(segment, durable);
    if (from == end)
        return false;
    struct page_write *write = xmalloc(sizeof(*write));
    write->broker = broker;
    write->segment = segment;
    write->from = from;
    write->end = end;
    write->size = write->count = 0;
    for (uint32_t slot = from; slot < end; slot++)
        if (segment_is_ready(segment, slot))
            add_to_write(write, &segment->entries[slot], slot - from);
    write->job = (struct scratch_job){
        .iov = write->iov, .iov_count = (int)(2 * write->count), .on_done = on_written};
    if (segment->end == window->tail)
        window_seal(window, segment);
    segment->writer = &write->segment;
    broker->fetches++;
    paging_begin_write(&broker->paging, write->size);
    scratch_write(broker->scratch, &write->job, write->size);
    return true;
}

/* One way or the other. */
static bool give_up_or_write(struct window *window, struct segment *segment, uint64_t durable)
{
    return give_up(window, segment, durable) || write_out(window, segment, durable);
}

/* The fresh tail, oldest first, as far as it is durable: the range before it grows. */
static unsigned give_up_tail(struct window *window, uint64_t durable, unsigned segments_max)
{
    struct segment *last = TAILQ_LAST(&window->on_disk, segment_list), *next;
    unsigned given_up = 0;

    if (last == NULL)
        return 0;
    for (struct segment *segment = TAILQ_NEXT(last, link);
         segment != NULL && given_up < segments_max; segment = next) {
        next = TAILQ_NEXT(segment, link);
        if (segment->writer != NULL)
            continue;
        if (!give_up_or_write(window, segment, durable))
            break;
        given_up++;
    }
    return given_up;
}

static struct segment *first_loaded(struct segment *segment)
{
    while (segment != NULL && segment_is_on_disk(segment))
        segment = TAILQ_NEXT(segment, link);
    return segment;
}

/* Everything behind the first `keep` ready entries. Parts on disk may join, and go. */
static unsigned give_up_rest(struct window *window, uint64_t keep, uint64_t durable,
                             unsigned segments_max)
{
    struct segment *segment, *next;
    unsigned given_up = 0;

    for (segment = first_loaded(window->cursor); segment != NULL && given_up < segments_max;
         segment = next) {
        next = first_loaded(TAILQ_NEXT(segment, link));
        if (keep >= segment->ready_count)
            keep -= segment->ready_count;
        else if (segment->writer == NULL && give_up_or_write(window, segment, durable))
            given_up++;
    }
    return given_up;
}

unsigned queue_page_out(struct window *window, uint64_t keep, unsigned segments_max)
{
    const uint64_t durable = store_durable_entries(window->queue->broker->store);
    const uint64_t count = window->ready_count - window->disk_count;
    const uint64_t bytes = window->ready_bytes - window->disk_bytes + count * ENTRY_SIZE;

    if (window->ready_count + window->unacked_count == 0)
        window_shrink(window);
    if (count == 0 || bytes <= keep)
        return 0;
    const unsigned given_up = give_up_tail(window, durable, segments_max);
    return given_up > 0 ? given_up
                        : give_up_rest(window, keep / (bytes / count), durable, segments_max);
}

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
    if (!quarantine_take(&queue->broker->quarantine, queue, store_id(queue, window), fetched))
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
                   from_wall_ms(queue->broker->clock, fetched->expires_ms));
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
            .deadline_ms =
                fetched->expires_ms == 0 ? DEADLINE_NONE : from_wall_ms(clock, fetched->expires_ms),
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
                            .fetch = {.queue_id = store_id(queue, window),
                                      .first = position,
                                      .end = position + 1,
                                      .count_max = 1,
                                      .bytes_max = SIZE_MAX,
                                      .on_done = on_probed}};
    store_fetch(queue->broker->store, &probe->fetch);
}

void queue_on_finding(struct queue *queue, const struct store_finding *finding)
{
    struct window *window = window_of(queue, finding->queue_id);

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

/* The next entry in what was read, which goes on behind it. Returns whether it has a place there:
 * one that has none is the last that can be found. */
static bool next_in_page(struct slice *page, uint32_t slots, struct page_head *head,
                         struct slice *record)
{
    if (page->size < sizeof(*head))
        return false;
    memcpy(head, page->data, sizeof(*head));
    *page = slice_of(page->data + sizeof(*head), page->size - sizeof(*head));
    if (head->slot >= slots || head->size > page->size)
        return false;
    *record = slice_of(page->data, head->size);
    *page = slice_of(page->data + head->size, page->size - head->size);
    return true;
}

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

    while (next_in_page(&left, (uint32_t)(stub->end - stub->first), &head, &record))
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
    if (fetch->error == -EBADMSG || has_come(queue, part, fetch->first, fetch->error))
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
    read->fetch = (struct store_fetch){.queue_id = store_id(read->queue, part->window),
                                       .first = part->first,
                                       .end = end,
                                       .count_max = UINT32_MAX,
                                       .bytes_max = SIZE_MAX,
                                       .on_done = on_store_asked};
    store_fetch(read->queue->broker->store, &read->fetch);
}

static void on_page_read(struct scratch_job *job)
{
    struct page_read *read = container_of(job, struct page_read, job);
    struct queue *queue = read->queue;
    struct segment *part = end_read(queue);

    if (has_come(queue, part, part == NULL ? 0 : part->first, job->error))
        part = load_pages(read, part, NULL);
    else
        part = NULL;
    if (part != NULL)
        ask_store(read, part);
    else
        free(read);
    go_on(queue);
}

/* Stubs that were written one behind the other are read so, too. */
static void read_pages(struct queue *queue, struct segment *stub, size_t bytes)
{
    struct scratch_place place = stub->place;

    begin_read(queue, stub, bytes);
    for (const struct segment *part = next_part(stub);
         part != NULL && part->is_stub && part->place.file == place.file &&
         part->place.offset == place.offset + place.size && place.size + part->place.size <= bytes;
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
    queue->fetch.queue_id = store_id(queue, segment->window);
    queue->fetch.first = segment->first;
    queue->fetch.on_done = on_fetched;
    store_fetch(queue->broker->store, &queue->fetch);
}

/* Stubs are read whole: how far those reach that so much memory holds, one at least. */
static uint64_t end_of_stubs(struct segment *stub, size_t bytes)
{
    uint64_t end = stub->end, sum = 0;

    for (; stub != NULL && stub->is_stub && stub->place.file == NULL; stub = next_part(stub)) {
        sum += stub->bytes + stub->count * ENTRY_SIZE;
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
        .count_max = (uint32_t)max_of(bytes / ENTRY_SIZE, (size_t)1),
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
    struct window *window = window_of(queue, state->queue_id);
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
