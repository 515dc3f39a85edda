/* A page: the entries of one stub in scratch, whole, and their messages with them.
 *
 *     ┌───────────┬────────┬───────────┬────────┬──
 *     │ page_head │ record │ page_head │ record │ ...     record: message_record
 *     └───────────┴────────┴───────────┴────────┴──
 *
 * It is written as memory has it, for the file dies with the process. A disk may give back something
 * else, and each entry has a checksum of its own: what is damaged takes no other with it, unless its
 * size cannot be believed, for then the next one is not found.
 *
 * queue_page_out.c writes them, queue_read.c reads them. */
#ifndef CORE_PAGE_H
#define CORE_PAGE_H

#include "base/slice.h"

struct page_head {
    uint32_t slot; /* of the stub */
    uint32_t size; /* of the record */
    uint32_t is_stored : 1, delivery_count : 15, acquired_count : 16;
    uint32_t crc; /* of head and record; of the head as if it were 0 */
};

uint32_t page_crc(const struct page_head *head, struct slice record);

/* The next entry in what was read, which goes on behind it. Returns whether it has a place in a stub
 * of so many slots: one that has none is the last that can be found. Its checksum is the caller's to
 * compare. */
bool page_next(struct slice *page, uint32_t slots, struct page_head *head, struct slice *record);

#endif
