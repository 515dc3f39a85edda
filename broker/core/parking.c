/* Nearly every reply waits for the open batch, whose LSN is the highest: it goes to the end. One
 * that waits for the batch under way (something that was declared in the turn before) passes those
 * of the open batch on its way from there. */
#include "core/parking.h"

void parking_init(struct parking *parking, uint64_t durable)
{
    TAILQ_INIT(&parking->waiting);
    parking->durable = durable;
}

void parking_wait(struct parking *parking, struct parked *parked, uint64_t lsn)
{
    assert(!parked->waiting && lsn > parking->durable);
    parked->waiting = true;
    parked->lsn = lsn;

    struct parked *before = TAILQ_LAST(&parking->waiting, parked_list);
    while (before != NULL && before->lsn > lsn)
        before = TAILQ_PREV(before, parked_list, link);
    if (before == NULL)
        TAILQ_INSERT_HEAD(&parking->waiting, parked, link);
    else
        TAILQ_INSERT_AFTER(&parking->waiting, before, parked, link);
}

void parking_cancel(struct parking *parking, struct parked *parked)
{
    if (!parked->waiting)
        return;
    TAILQ_REMOVE(&parking->waiting, parked, link);
    parked->waiting = false;
}

/* on_durable may park again, but not on an LSN that is released here. */
static void release(struct parking *parking, uint64_t lsn)
{
    struct parked *parked;

    while ((parked = TAILQ_FIRST(&parking->waiting)) != NULL && parked->lsn <= lsn) {
        parking_cancel(parking, parked);
        parked->on_durable(parked);
    }
}

void parking_release(struct parking *parking, uint64_t durable)
{
    assert(durable >= parking->durable);
    parking->durable = durable;
    release(parking, durable);
}

void parking_release_empty(struct parking *parking, uint64_t lsn)
{
    assert(lsn == parking->durable + 1);
    release(parking, lsn);
}
