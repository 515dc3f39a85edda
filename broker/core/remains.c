#include "core/remains.h"

static uint64_t count_of(const struct segment *segment)
{
    return segment_is_on_disk(segment) ? 1 : segment->count;
}

/* Messages of the first segment, as far as `left` goes, and the segment after the last of them.
 * Answers what of `left` is left. */
static int64_t free_some(struct remains *remains, int64_t left)
{
    struct segment *segment = TAILQ_FIRST(&remains->segments);
    const bool on_disk = segment_is_on_disk(segment);
    const uint32_t end = on_disk ? 0 : (uint32_t)(segment->end - segment->first);

    for (; left > 0 && remains->slot < end; remains->slot++) {
        struct message **message = &segment->entries[remains->slot].message;
        if (*message == NULL)
            continue;
        left -= 1 + (int64_t)(message_size(*message) / REMAINS_SLICE_OCTETS);
        remains->bytes -= (*message)->body_size;
        message_unref(message);
        remains->count--;
    }
    if (remains->slot < end)
        return left;
    TAILQ_REMOVE(&remains->segments, segment, link);
    remains->slot = 0;
    remains->count -= on_disk;
    free(segment->weights);
    free(segment);
    return left - on_disk;
}

static void free_slice(struct task *task)
{
    struct remains *remains = container_of(task, struct remains, task);
    int64_t left = max_of((int64_t)(remains->count / REMAINS_SLICE_PART), (int64_t)REMAINS_SLICE);

    while (left > 0 && !TAILQ_EMPTY(&remains->segments))
        left = free_some(remains, left);
    if (!TAILQ_EMPTY(&remains->segments))
        loop_queue(remains->loop, LOOP_REAP, task);
}

void remains_init(struct remains *remains, struct loop *loop)
{
    *remains = (struct remains){.loop = loop, .task.run = free_slice};
    TAILQ_INIT(&remains->segments);
}

void remains_release(struct remains *remains)
{
    loop_unqueue(remains->loop, &remains->task);
    while (!TAILQ_EMPTY(&remains->segments))
        free_some(remains, INT64_MAX);
}

void remains_add(struct remains *remains, struct segment *segment)
{
    TAILQ_INSERT_TAIL(&remains->segments, segment, link);
    remains->count += count_of(segment);
    loop_queue(remains->loop, LOOP_REAP, &remains->task);
}

void remains_add_bytes(struct remains *remains, uint64_t bytes)
{
    remains->bytes += bytes;
}

uint64_t remains_memory(const struct remains *remains)
{
    return remains->bytes + remains->count * sizeof(struct message);
}
