#include "core/queue_page_out.h"

#include "base/alloc.h"
#include "base/log.h"
#include "core/page.h"
#include "core/queue_store.h"

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

/* The entries of some slots of a segment, while they are written as a page. */
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
    const uint64_t bytes = window->ready_bytes - window->disk_bytes + count * PAGING_ENTRY_SIZE;

    if (window->ready_count + window->unacked_count == 0)
        window_shrink(window);
    if (count == 0 || bytes <= keep)
        return 0;
    const unsigned given_up = give_up_tail(window, durable, segments_max);
    return given_up > 0 ? given_up
                        : give_up_rest(window, keep / (bytes / count), durable, segments_max);
}
