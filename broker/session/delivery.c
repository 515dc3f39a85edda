#include "session/delivery.h"

#include "base/alloc.h"
#include "core/queue.h"

static struct delivery *record_at(const struct deliveries *deliveries, size_t index)
{
    return &deliveries->ring[(deliveries->begin + index) & (deliveries->capacity - 1)];
}

static size_t index_of(const struct deliveries *deliveries, const struct delivery *delivery)
{
    return ((size_t)(delivery - deliveries->ring) - deliveries->begin) & (deliveries->capacity - 1);
}

void deliveries_init(struct deliveries *deliveries)
{
    *deliveries = (struct deliveries){.next_tag = 1};
}

void deliveries_release(struct deliveries *deliveries)
{
    assert(deliveries->count == 0);
    free(deliveries->ring);
    deliveries_init(deliveries);
}

/* Moves the records that are not holes to the front of a ring of this capacity. */
static void rebuild(struct deliveries *deliveries, size_t capacity)
{
    struct delivery *ring = xcalloc(capacity, sizeof(*ring));
    size_t used = 0;

    for (size_t i = 0; i < deliveries->used; i++)
        if (record_at(deliveries, i)->queue != NULL)
            ring[used++] = *record_at(deliveries, i);
    free(deliveries->ring);
    deliveries->ring = ring;
    deliveries->capacity = capacity;
    deliveries->begin = 0;
    deliveries->used = used;
}

/* Full: where half of it is holes they are squeezed out, else it doubles. */
static void make_room(struct deliveries *deliveries)
{
    if (deliveries->capacity == 0)
        rebuild(deliveries, 16);
    else if (deliveries->count <= deliveries->capacity / 2)
        rebuild(deliveries, deliveries->capacity);
    else
        rebuild(deliveries, size_mul(deliveries->capacity, 2));
}

uint64_t deliveries_add(struct deliveries *deliveries, struct queue *queue, struct place place,
                        struct consumer *consumer)
{
    if (deliveries->used == deliveries->capacity)
        make_room(deliveries);
    queue_ref(queue);
    *record_at(deliveries, deliveries->used++) = (struct delivery){
        .tag = deliveries->next_tag,
        .queue = queue,
        .place = place,
        .consumer = consumer,
    };
    deliveries->count++;
    return deliveries->next_tag++;
}

/* The index of the first record, or hole, with this tag or above. */
static size_t seek(const struct deliveries *deliveries, uint64_t tag)
{
    size_t low = 0, high = deliveries->used;

    if (high > 0 && record_at(deliveries, 0)->tag >= tag)
        return 0; /* most often it is the oldest */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (record_at(deliveries, middle)->tag < tag)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first from there on that is no hole, or NULL. */
static struct delivery *record_from(const struct deliveries *deliveries, size_t index)
{
    for (; index < deliveries->used; index++)
        if (record_at(deliveries, index)->queue != NULL)
            return record_at(deliveries, index);
    return NULL;
}

struct delivery *deliveries_find(struct deliveries *deliveries, uint64_t tag)
{
    size_t index = seek(deliveries, tag);
    struct delivery *delivery = index < deliveries->used ? record_at(deliveries, index) : NULL;

    return delivery != NULL && delivery->tag == tag && delivery->queue != NULL ? delivery : NULL;
}

struct delivery *deliveries_oldest(struct deliveries *deliveries)
{
    return deliveries->count == 0 ? NULL : record_at(deliveries, 0);
}

struct delivery *deliveries_youngest(struct deliveries *deliveries)
{
    return deliveries->count == 0 ? NULL : record_at(deliveries, deliveries->used - 1);
}

struct delivery *deliveries_after(struct deliveries *deliveries, uint64_t tag)
{
    return tag == UINT64_MAX ? NULL : record_from(deliveries, seek(deliveries, tag + 1));
}

struct delivery *deliveries_next(struct deliveries *deliveries, struct delivery *delivery)
{
    return record_from(deliveries, index_of(deliveries, delivery) + 1);
}

struct delivery deliveries_take(struct deliveries *deliveries, struct delivery *delivery)
{
    struct delivery taken = *delivery;

    assert(taken.queue != NULL && deliveries->count > 0);
    delivery->queue = NULL;
    if (--deliveries->count == 0) {
        deliveries->used = 0;
        return taken;
    }
    /* Neither end is ever a hole. */
    while (record_at(deliveries, 0)->queue == NULL) {
        deliveries->begin = (deliveries->begin + 1) & (deliveries->capacity - 1);
        deliveries->used--;
    }
    while (record_at(deliveries, deliveries->used - 1)->queue == NULL)
        deliveries->used--;
    return taken;
}
