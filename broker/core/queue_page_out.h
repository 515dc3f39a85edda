/* Giving up what a window has in memory, when memory is short: paging.h says who and how much, this
 * how. A segment is given up from its end, as far as all of it is ready:
 *
 *     the store has it, as it is ──▶ at once: a part on disk, which the store is read for
 *     it does not ──▶ written to scratch as a page; that done, and the entries still as they were, a stub whose
 *                     bodies are there. The segment stays usable meanwhile.
 *
 * An entry that was deleted may be read back while its delete is not durable: so a segment is not
 * given up to the store before the deletes of its entries are (deleted_lsn). */
#ifndef CORE_QUEUE_PAGE_OUT_H
#define CORE_QUEUE_PAGE_OUT_H

#include "core/queue.h"

/* Gives up what the window has in memory beyond the first `keep` octets or so that are ready: the
 * newest first, at most so many segments. Answers how many, those included that are being written.
 * For paging.c. */
unsigned queue_page_out(struct window *window, uint64_t keep, unsigned segments_max);

#endif
