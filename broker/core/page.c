#include "core/page.h"

#include "store/crc32c.h"

uint32_t page_crc(const struct page_head *head, struct slice record)
{
    struct page_head plain = *head;

    plain.crc = 0;
    return crc32c(crc32c(0, &plain, sizeof(plain)), record.data, record.size);
}

bool page_next(struct slice *page, uint32_t slots, struct page_head *head, struct slice *record)
{
    if (page->size < sizeof(*head))
        return false;
    memcpy(head, page->data, sizeof(*head));
    *page = slice_of(page->data + sizeof(*head), page->size - sizeof(*head));
    if (head->slot >= slots || head->size > page->size)
        return false;
    *record = slice_of(page->data, head->size);
    *page = slice_of(page->data + head->size, page->size - head->size);
    return true;
}
