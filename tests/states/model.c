/* See model.h. */
#include "tests/states/model.h"

#include <poll.h>

#include "store/crc32c.h"

enum { WAIT_MS = 100, WAITS_MAX = 300 };

/* ---- the model ------------------------------------------------------------------------------- */

struct model *model_new(void)
{
    struct model *model = xcalloc(1, sizeof *model);

    model->next_queue_id = 1;
    model->closing = true; /* nothing was delivered yet */
    return model;
}

#define copy_array(to, from)                                                                       \
    do {                                                                                           \
        (to)->items = NULL;                                                                        \
        (to)->count = (to)->capacity = 0;                                                          \
        for (uint32_t at = 0; at < (from)->count; at++)                                            \
            *array_add(to) = (from)->items[at];                                                    \
    } while (0)

struct model *model_copy(const struct model *model)
{
    struct model *copy = xmalloc(sizeof *copy);

    *copy = *model;
    copy_array(&copy->records, &model->records);
    copy_array(&copy->queues, &model->queues);
    for (uint32_t i = 0; i < copy->queues.count; i++)
        copy_array(&copy->queues.items[i].entries, &model->queues.items[i].entries);
    return copy;
}

void model_free(struct model **model)
{
    for (uint32_t i = 0; i < (*model)->queues.count; i++)
        array_release(&(*model)->queues.items[i].entries);
    array_release(&(*model)->queues);
    array_release(&(*model)->records);
    free(*model);
    *model = NULL;
}

struct model_queue *model_add_queue(struct model *model, uint64_t id)
{
    struct model_queue *queue = array_add(&model->queues);

    *queue = (struct model_queue){.id = id};
    return queue;
}

void model_remove_queue(struct model *model, uint32_t index)
{
    array_release(&model->queues.items[index].entries);
    memmove(&model->queues.items[index], &model->queues.items[index + 1],
            (--model->queues.count - index) * sizeof model->queues.items[0]);
}

struct model_entry *model_add_entry(struct model_queue *queue, const struct model_entry *entry)
{
    struct model_entry *added = array_add(&queue->entries);

    *added = *entry;
    queue->next = entry->position + 1;
    return added;
}

void model_remove_entries(struct model_queue *queue, uint32_t first, uint32_t count)
{
    queue->entries.count -= count;
    memmove(&queue->entries.items[first], &queue->entries.items[first + count],
            (queue->entries.count - first) * sizeof queue->entries.items[0]);
}

/* Where the key is, or would be. */
static uint32_t find_record(const struct model *model, const char *key)
{
    uint32_t at = 0;

    while (at < model->records.count && strcmp(model->records.items[at].key, key) < 0)
        at++;
    return at;
}

static bool is_record(const struct model *model, uint32_t at, const char *key)
{
    return at < model->records.count && strcmp(model->records.items[at].key, key) == 0;
}

void model_set_record(struct model *model, const char *key, uint32_t size, uint32_t crc)
{
    const uint32_t at = find_record(model, key);

    if (!is_record(model, at, key)) {
        (void)array_add(&model->records);
        memmove(&model->records.items[at + 1], &model->records.items[at],
                (model->records.count - 1 - at) * sizeof model->records.items[0]);
    }
    struct model_record *record = &model->records.items[at];
    *record = (struct model_record){.size = size, .crc = crc};
    assert(strlen(key) < sizeof record->key);
    strcpy(record->key, key);
}

bool model_remove_record(struct model *model, const char *key)
{
    const uint32_t at = find_record(model, key);

    if (!is_record(model, at, key))
        return false;
    memmove(&model->records.items[at], &model->records.items[at + 1],
            (--model->records.count - at) * sizeof model->records.items[0]);
    return true;
}

uint64_t model_bytes(const struct model *model)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < model->queues.count; i++)
        for (uint32_t j = 0; j < model->queues.items[i].entries.count; j++)
            bytes += model->queues.items[i].entries.items[j].size;
    return bytes;
}

/* ---- text ------------------------------------------------------------------------------------ */

static void dump_record(struct buf *out, struct slice key, uint32_t size, uint32_t crc)
{
    buf_printf(out, "record %.*s %" PRIu32 " %08" PRIx32 "\n", SLICE_ARG(key), size, crc);
}

static void dump_queue(struct buf *out, const struct store_queue_state *queue)
{
    buf_printf(out,
               "queue %" PRIu64 " tail %" PRIu64 " delivered %" PRIu64 " count %" PRIu64
               " bytes %" PRIu64 "\n",
               queue->queue_id, queue->tail, queue->delivered, queue->count, queue->bytes);
}

static void dump_entry(struct buf *out, const struct model_entry *entry)
{
    buf_printf(out,
               "entry %" PRIu64 " expires %" PRIu64 " weight %" PRIu32 " flags %u size %" PRIu32
               " crc %08" PRIx32 "\n",
               entry->position, entry->expires_ms, entry->weight, entry->flags, entry->size,
               entry->crc);
}

void model_dump(const struct model *model, bool clean, struct buf *out)
{
    for (uint32_t i = 0; i < model->records.count; i++) {
        const struct model_record *record = &model->records.items[i];
        dump_record(out, slice_of_string(record->key), record->size, record->crc);
    }
    for (uint32_t i = 0; i < model->queues.count; i++) {
        const struct model_queue *queue = &model->queues.items[i];
        uint64_t bytes = 0;
        for (uint32_t j = 0; j < queue->entries.count; j++)
            bytes += queue->entries.items[j].weight;
        dump_queue(out,
                   &(struct store_queue_state){
                       .queue_id = queue->id,
                       .tail = queue->tail,
                       .count = queue->entries.count,
                       .bytes = bytes,
                       .delivered = clean ? min_of(queue->delivered, queue->tail) : queue->tail});
        for (uint32_t j = 0; j < queue->entries.count; j++)
            dump_entry(out, &queue->entries.items[j]);
    }
}

/* ---- the store ------------------------------------------------------------------------------- */

struct observation {
    struct observed *observed;
    ARRAY_OF(struct store_queue_state) queues;
};

static void on_record(void *context, struct slice key, struct slice value)
{
    struct observation *observation = context;

    dump_record(&observation->observed->dump, key, (uint32_t)value.size,
                crc32c(0, value.data, value.size));
}

static void on_queue(void *context, const struct store_queue_state *queue)
{
    struct observation *observation = context;

    *array_add(&observation->queues) = *queue;
}

static void on_fetched(struct store_fetch *fetch)
{
    (void)fetch;
}

/* In many small waits: a process that is stopped for a while, with all its threads, loses one of
 * them and not its patience. */
static int wait_for(struct store *store)
{
    struct pollfd poll_fd = {.fd = store_fd(store), .events = POLLIN};

    for (int waits = 0; waits < WAITS_MAX; waits++)
        if (poll(&poll_fd, 1, WAIT_MS) == 1)
            return store_process(store);
    return -ETIMEDOUT;
}

int settle_store(struct store *store)
{
    int error = 0;

    while (error == 0 && store_is_busy(store))
        error = wait_for(store);
    return error;
}

/* Answers whether the entry is allowed to be there at all, beside what the model says. */
static void dump_fetched(struct observed *observed, const struct store_queue_state *queue,
                         const struct store_fetched *fetched)
{
    dump_entry(&observed->dump,
               &(struct model_entry){.position = fetched->position,
                                     .expires_ms = fetched->expires_ms,
                                     .weight = fetched->weight,
                                     .flags = fetched->flags,
                                     .size = (uint32_t)fetched->bytes.size,
                                     .crc = crc32c(0, fetched->bytes.data, fetched->bytes.size)});
    if (fetched->damaged)
        buf_printf(&observed->wrong, "entry %" PRIu64 "/%" PRIu64 " is damaged; ", queue->queue_id,
                   fetched->position);
    if (fetched->expires_ms != 0 && !queue->deadlines)
        buf_printf(&observed->wrong, "queue %" PRIu64 " does not know of deadlines; ",
                   queue->queue_id);
    if (fetched->position < queue->head || fetched->position >= queue->tail)
        buf_printf(&observed->wrong, "entry %" PRIu64 "/%" PRIu64 " is outside of its queue; ",
                   queue->queue_id, fetched->position);
}

/* In pieces of random-looking, but always the same, sizes. */
static void read_queue(struct store *store, struct observed *observed,
                       const struct store_queue_state *queue)
{
    struct store_fetch fetch = {.queue_id = queue->queue_id,
                                .end = STORE_POSITION_END,
                                .count_max = 1 + queue->count % 97,
                                .bytes_max = 1 << 18,
                                .on_done = on_fetched};

    while (fetch.first < fetch.end) {
        fetch.next = 0;
        store_fetch(store, &fetch);
        int error = wait_for(store);
        if (error == 0)
            error = fetch.error;
        if (error != 0 || fetch.damaged > 0) {
            buf_printf(&observed->wrong, "queue %" PRIu64 ": error %d, %" PRIu32 " damaged; ",
                       queue->queue_id, error, fetch.damaged);
            store_fetch_release(&fetch);
            return;
        }
        for (size_t i = 0; i < fetch.count; i++)
            dump_fetched(observed, queue, &fetch.entries[i]);
        fetch.first = fetch.next;
        store_fetch_release(&fetch);
    }
}

void observe(struct store *store, struct observed *observed)
{
    struct observation observation = {.observed = observed};
    struct store_recovery recovery = {&observation, on_record, on_queue, false};
    struct store_stats stats;

    *observed = (struct observed){.lsn = store_open_lsn(store) - 1};
    const int error = store_recover(store, &recovery);
    if (error != 0)
        buf_printf(&observed->wrong, "recovery failed with %d; ", error);
    observed->was_clean = recovery.was_clean;
    for (uint32_t i = 0; i < observation.queues.count; i++) {
        const struct store_queue_state *queue = &observation.queues.items[i];
        dump_queue(&observed->dump, queue);
        read_queue(store, observed, queue);
    }
    array_release(&observation.queues);
    store_get_stats(store, &stats);
    if (stats.damaged > 0)
        buf_printf(&observed->wrong, "%" PRIu64 " counted as damaged; ", stats.damaged);
}

void observed_release(struct observed *observed)
{
    buf_release(&observed->dump);
    buf_release(&observed->wrong);
}

/* ---- comparing ------------------------------------------------------------------------------- */

static struct slice take_line(struct slice *text)
{
    const uint8_t *end = text->size > 0 ? memchr(text->data, '\n', text->size) : NULL;

    if (end == NULL)
        return SLICE("the end");
    const struct slice line = slice_of(text->data, (size_t)(end - text->data));
    *text = slice_of(end + 1, text->size - line.size - 1);
    return line;
}

/* The first lines that differ, and under which queue they stand. */
static void say_difference(struct slice found, struct slice expected, struct buf *out)
{
    struct slice queue = SLICE("records"), is, should_be;

    do {
        is = take_line(&found);
        should_be = take_line(&expected);
        if (slice_equal(is, should_be) && slice_starts_with(is, SLICE("queue")))
            queue = is;
    } while (slice_equal(is, should_be));
    buf_printf(out, "under \"%.*s\" stands \"%.*s\", and should \"%.*s\"; ", SLICE_ARG(queue),
               SLICE_ARG(is), SLICE_ARG(should_be));
}

void compare(const struct observed *observed, const struct model *model, struct buf *out)
{
    struct buf expected = BUF_EMPTY;

    buf_append(out, buf_slice(&observed->wrong));
    if (observed->was_clean && !model->closing)
        buf_printf(out, "it says that it was closed; ");
    model_dump(model, observed->was_clean, &expected);
    if (!slice_equal(buf_slice(&observed->dump), buf_slice(&expected)))
        say_difference(buf_slice(&observed->dump), buf_slice(&expected), out);
    buf_release(&expected);
}
