/* Rows that are damaged, or do not agree with each other, are put right in a transaction of their
 * own, so that they are met once and not at every start:
 *
 *     a row whose checksum does not hold    one bit of it is wrong: it is turned back; else the row
 *                                           goes, with what it said:
 *         segment       its entries are lost, and leave the queue's counts
 *         gone, trim    what they called dead is alive again
 *         queue         made anew from its segments
 *         live          made anew from the segments of its holders
 *         holders       the blob stays for good
 *         record        stays as it is, for whoever looks
 *     counts        made anew, from what there is
 *     sums          over all blobs: made anew once, by whatever is mended first of a blob. That takes
 *                   a walk over all live rows; what is mended later changes them by the difference
 *
 * The checksum finds the bit by itself: of all values that differ from a damaged one in one bit, at
 * most one has it right. That a value which differs in more is taken for another than it was has a
 * chance of 1 in 100,000 at 4 KB. So it is done for rows, which lead to bodies that have checksums
 * of their own, and never for a body.
 *
 * Who finds damage waits for it to be mended, and the reader begins anew then: so no fetch passes
 * over a row that could have been repaired, and the owner hears what a queue has lost before it
 * gets anything of what stands behind. */
#ifndef STORE_MEND_H
#define STORE_MEND_H

#include "store/apply.h"
#include "store/damage.h"

struct mend {
    struct damage damage; /* any but of a body */

    /* results */
    int error;                      /* 0, APPLY_NO_ROOM or -errno: nothing was done */
    uint32_t repaired, removed;     /* rows */
    uint64_t walked;                /* rows of all blobs, to sum them up */
    int64_t lost_count, lost_bytes; /* of the queue; below 0: came back */
};

/* Within apply's transaction. */
void mend_rows(struct apply *apply, struct mend *mend);

#endif
