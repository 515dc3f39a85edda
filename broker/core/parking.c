/* Nearly every reply waits for the open batch, whose LSN is the highest: it goes to the end. One that waits for the batch under way (something that
 * was declared in the turn before) passes those of the open batch on its way from there. */
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

void parking_release(struct parking *parking, uint64_t durable)
{
    struct parked *parked;

    assert(durable >= parking->durable);
    parking->durable = durable;
    while ((parked = TAILQ_FIRST(&parking->waiting)) != NULL && parked->lsn <= durable) {
        parking_cancel(parking, parked);
        parked->on_durable(parked);
    }
}
