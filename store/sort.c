/* See sort.h. Least significant byte first, skipping the bytes in which no two keys differ: queue
 * ids and positions of one batch lie close together, so that two to four passes do. Few items are
 * inserted one by one instead. */
#include "store/sort.h"

enum { FEW = 48 };

void sort_release(struct sort_list *sort)
{
    array_release(&sort->list);
    free(sort->spare);
    sort->spare = NULL;
    sort->spare_capacity = 0;
}

static bool less(const struct sort_item *a, const struct sort_item *b)
{
    return a->major < b->major || (a->major == b->major && a->minor < b->minor);
}

static bool in_order(const struct sort_item *items, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        if (less(&items[i], &items[i - 1]))
            return false;
    return true;
}

static void insert_each(struct sort_item *items, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        const struct sort_item item = items[i];
        uint32_t place = i;
        for (; place > 0 && less(&item, &items[place - 1]); place--)
            items[place] = items[place - 1];
        items[place] = item;
    }
}

/* Byte 0 to 7 of minor, 8 to 15 of major. */
static unsigned byte_of(const struct sort_item *item, unsigned byte)
{
    return (byte < 8 ? item->minor >> 8 * byte : item->major >> 8 * (byte - 8)) & 0xff;
}

static void distribute(const struct sort_item *from, struct sort_item *to, uint32_t count,
                       unsigned byte)
{
    uint32_t places[257] = {0};

    for (uint32_t i = 0; i < count; i++)
        places[byte_of(&from[i], byte) + 1]++;
    for (unsigned value = 1; value < 256; value++)
        places[value] += places[value - 1];
    for (uint32_t i = 0; i < count; i++)
        to[places[byte_of(&from[i], byte)]++] = from[i];
}

static void reserve_spare(struct sort_list *sort)
{
    if (sort->spare_capacity >= sort->list.count)
        return;
    sort->spare_capacity = sort->list.capacity;
    sort->spare = xrealloc(sort->spare, sort->spare_capacity, sizeof *sort->spare);
}

/* By the bytes [begin, end) of the key in which the items differ. */
static void radix(struct sort_item *items, struct sort_item *spare, uint32_t count, unsigned begin,
                  unsigned end)
{
    struct sort_item difference = {0};
    struct sort_item *from = items, *to = spare;

    for (uint32_t i = 1; i < count; i++) {
        difference.major |= items[i].major ^ items[0].major;
        difference.minor |= items[i].minor ^ items[0].minor;
    }
    for (unsigned byte = begin; byte < end; byte++) {
        if (byte_of(&difference, byte) == 0)
            continue;
        distribute(from, to, count, byte);
        struct sort_item *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

static void sort_minors(struct sort_item *items, struct sort_item *spare, uint32_t count)
{
    if (in_order(items, count))
        return;
    if (count <= FEW)
        insert_each(items, count);
    else
        radix(items, spare, count, 0, 8);
}

void sort_run(struct sort_list *sort)
{
    struct sort_item *items = sort->list.items;
    const uint32_t count = sort->list.count;

    if (in_order(items, count))
        return;
    reserve_spare(sort);
    if (count > FEW)
        radix(items, sort->spare, count, 8, 16);
    else
        insert_each(items, count);
    for (uint32_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && items[end].major == items[begin].major; end++)
            ;
        sort_minors(items + begin, sort->spare, end - begin);
    }
}
