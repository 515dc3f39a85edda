/* Nearly every reply waits for the open batch, whose LSN is the highest: it goes to the end. One
 * that waits for the batch under way (something that was declared in the turn before) passes those
 * of the open batch on its way from there. */
#include "core/parking.h"

static struct parked_list *list_of(struct parking *parking, const struct parked *parked)
{
    return parked->entries ? &parking->for_entries : &parking->waiting;
}

void parking_init(struct parking *parking, uint64_t durable)
{
    TAILQ_INIT(&parking->waiting);
    TAILQ_INIT(&parking->for_entries);
    parking->durable = parking->durable_entries = durable;
}

void parking_wait(struct parking *parking, struct parked *parked, uint64_t lsn)
{
    struct parked_list *list = list_of(parking, parked);

    assert(!parked->waiting &&
           lsn > (parked->entries ? parking->durable_entries : parking->durable));
    parked->waiting = true;
    parked->lsn = lsn;

    struct parked *before = TAILQ_LAST(list, parked_list);
    while (before != NULL && before->lsn > lsn)
        before = TAILQ_PREV(before, parked_list, link);
    if (before == NULL)
        TAILQ_INSERT_HEAD(list, parked, link);
    else
        TAILQ_INSERT_AFTER(list, before, parked, link);
}

void parking_cancel(struct parking *parking, struct parked *parked)
{
    if (!parked->waiting)
        return;
    TAILQ_REMOVE(list_of(parking, parked), parked, link);
    parked->waiting = false;
}

/* on_durable may park again, but not on an LSN that is released here. */
static void release(struct parking *parking, struct parked_list *list, uint64_t lsn)
{
    struct parked *parked;

    while ((parked = TAILQ_FIRST(list)) != NULL && parked->lsn <= lsn) {
        parking_cancel(parking, parked);
        parked->on_durable(parked);
    }
}

void parking_release(struct parking *parking, uint64_t durable, uint64_t durable_entries)
{
    assert(durable >= parking->durable && durable_entries <= durable);
    assert(durable_entries >= parking->durable_entries);
    parking->durable = durable;
    parking->durable_entries = durable_entries;
    release(parking, &parking->waiting, durable);
    release(parking, &parking->for_entries, durable_entries);
}

void parking_release_empty(struct parking *parking, uint64_t lsn)
{
    assert(lsn > parking->durable);
    release(parking, &parking->waiting, lsn);
    release(parking, &parking->for_entries, lsn);
}
