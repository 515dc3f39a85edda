/* Nearly every reply waits for the open batch, whose LSN is the highest: it goes to the end. One
 * that waits for the batch under way (something that was declared in the turn before) passes those
 * of the open batch on its way from there. */
#include "core/parking.h"

void parking_init(struct parking *parking, uint64_t durable)
{
    TAILQ_INIT(&parking->waiting);
    TAILQ_INIT(&parking->for_entries);
    parking->durable = parking->durable_entries = durable;
}

void parking_wait(struct parking *parking, struct parked *parked, uint64_t lsn)
{
    struct parked_list *list = parked->entries ? &parking->for_entries : &parking->waiting;

    assert(!parked_waits(parked) &&
           lsn > (parked->entries ? parking->durable_entries : parking->durable));
    parked->list = list;
    parked->lsn = lsn;

    struct parked *before = TAILQ_LAST(list, parked_list);
    while (before != NULL && before->lsn > lsn)
        before = TAILQ_PREV(before, parked_list, link);
    if (before == NULL)
        TAILQ_INSERT_HEAD(list, parked, link);
    else
        TAILQ_INSERT_AFTER(list, before, parked, link);
}

void parking_cancel(struct parked *parked)
{
    if (!parked_waits(parked))
        return;
    TAILQ_REMOVE(parked->list, parked, link);
    parked->list = NULL;
}

/* on_durable may park again, but not on an LSN that is released here. */
static void release(struct parked_list *list, uint64_t lsn)
{
    struct parked *parked;

    while ((parked = TAILQ_FIRST(list)) != NULL && parked->lsn <= lsn) {
        parking_cancel(parked);
        parked->on_durable(parked);
    }
}

void parking_release(struct parking *parking, uint64_t durable, uint64_t durable_entries)
{
    assert(durable >= parking->durable && durable_entries <= durable);
    assert(durable_entries >= parking->durable_entries);
    parking->durable = durable;
    parking->durable_entries = durable_entries;
    release(&parking->waiting, durable);
    release(&parking->for_entries, durable_entries);
}

void parking_release_empty(struct parking *parking, uint64_t lsn)
{
    assert(lsn > parking->durable);
    release(&parking->waiting, lsn);
    release(&parking->for_entries, lsn);
}
