#include "base/heap.h"

/* Two trees, of which either may be NULL, become one: the lower goes below the higher. */
static struct heap_link *join(struct heap_link *higher, struct heap_link *lower)
{
    if (lower == NULL)
        return higher;
    if (higher == NULL)
        return lower;
    if (lower->key > higher->key) {
        struct heap_link *other = lower;
        lower = higher;
        higher = other;
    }
    lower->next = higher->child;
    if (lower->next != NULL)
        lower->next->back = lower;
    lower->back = higher;
    higher->child = lower;
    return higher;
}

/* A list of trees becomes one: two by two, and then what came of them, the last first. In pairs, so
 * that the next removal has about half as many to look at. */
static struct heap_link *join_all(struct heap_link *list)
{
    struct heap_link *pairs = NULL, *all = NULL;

    while (list != NULL) {
        struct heap_link *first = list, *second = list->next;
        list = second == NULL ? NULL : second->next;
        struct heap_link *pair = join(first, second);
        pair->next = pairs;
        pairs = pair;
    }
    while (pairs != NULL) {
        struct heap_link *pair = pairs;
        pairs = pair->next;
        pair->next = NULL;
        all = join(all, pair);
    }
    return all;
}

void heap_insert(struct heap *heap, struct heap_link *link, int64_t key)
{
    *link = (struct heap_link){.key = key};
    heap->top = join(heap->top, link);
}

void heap_remove(struct heap *heap, struct heap_link *link)
{
    struct heap_link *children = join_all(link->child);

    if (heap->top == link) {
        heap->top = children;
        return;
    }
    if (link->back->child == link)
        link->back->child = link->next;
    else
        link->back->next = link->next;
    if (link->next != NULL)
        link->next->back = link->back;
    heap->top = join(heap->top, children);
}
