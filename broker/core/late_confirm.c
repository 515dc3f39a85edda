#include "core/late_confirm.h"

#include "core/broker.h"

enum { KEEP_SIZE = 64 * 1024 };

struct late_confirm {
    struct publisher *publisher;
    uint64_t sequence;
};

static void clear(struct late_confirms *late, bool tell)
{
    const struct slice bytes = buf_slice(&late->waiting);
    const struct late_confirm *waiting = (const void *)bytes.data;

    for (size_t i = 0; i < bytes.size / sizeof(*waiting); i++) {
        struct publisher *publisher = waiting[i].publisher;
        if (tell)
            publisher->ops->on_settled(publisher, waiting[i].sequence);
        publisher_unref(&publisher);
    }
    buf_clear(&late->waiting);
}

/* Those who are told only take note: nothing is added meanwhile. */
static void on_durable(struct parked *parked)
{
    struct late_confirms *late = container_of(parked, struct late_confirms, parked);

    clear(late, true);
    buf_shrink(&late->waiting, KEEP_SIZE);
}

void late_confirms_init(struct broker *broker)
{
    for (size_t i = 0; i < countof(broker->late_confirms); i++)
        broker->late_confirms[i].parked =
            (struct parked){.entries = true, .on_durable = on_durable};
}

void late_confirms_release(struct broker *broker)
{
    for (size_t i = 0; i < countof(broker->late_confirms); i++) {
        parking_cancel(&broker->late_confirms[i].parked);
        clear(&broker->late_confirms[i], false);
        buf_release(&broker->late_confirms[i].waiting);
    }
}

void late_confirm(struct broker *broker, struct publisher *publisher, uint64_t sequence)
{
    const uint64_t lsn = store_open_lsn(broker->store);
    struct late_confirms *late = &broker->late_confirms[lsn % countof(broker->late_confirms)];

    if (parked_waits(&late->parked) && late->parked.lsn != lsn)
        parking_cancel(&late->parked); /* its entries wait for room: all do, then */
    if (!parked_waits(&late->parked))
        parking_wait(&broker->parking, &late->parked, lsn);
    publisher_ref(publisher);
    buf_append(&late->waiting,
               slice_of(&(struct late_confirm){publisher, sequence}, sizeof(struct late_confirm)));
    broker_touch_store(broker);
}
