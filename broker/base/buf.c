/* The slow half of a buf: getting room.
 *
 *     data                begin               end                 capacity
 *      |    consumed        |      unread      |       free          |
 *
 * When the free part is too small, the unread bytes move to the front if at least as many have been
 * consumed (each byte then pays for the move of one other), else to a block of twice the capacity.
 * Either way the cost of an appended byte stays constant. begin <= end <= capacity always, and an
 * empty buf has begin == end. */
#include "base/buf.h"

#include <stdarg.h>

#include "base/alloc.h"

enum { CAPACITY_MIN = 64 };

void buf_release(struct buf *buf)
{
    free(buf->data);
    *buf = BUF_EMPTY;
}

void buf_grow(struct buf *buf, size_t size)
{
    const size_t unread = buf_size(buf);
    const size_t wanted = size_add(unread, size);

    if (buf->data != NULL && wanted <= buf->capacity && unread <= buf->begin) {
        memmove(buf->data, buf->data + buf->begin, unread);
    } else {
        const size_t capacity = max_of(max_of(wanted, CAPACITY_MIN), size_mul(buf->capacity, 2));
        uint8_t *data = xmalloc(capacity);
        if (unread > 0)
            memcpy(data, buf->data + buf->begin, unread);
        free(buf->data);
        buf->data = data;
        buf->capacity = capacity;
    }
    buf->begin = 0;
    buf->end = unread;
    assert(size <= buf->capacity - buf->end);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);

    char *room = (char *)buf_reserve(buf, 1);
    const size_t free_size = buf->capacity - buf->end;
    const int length = vsnprintf(room, free_size, format, arguments);
    assert(length >= 0);
    if ((size_t)length >= free_size) {
        room = (char *)buf_reserve(buf, (size_t)length + 1);
        vsnprintf(room, (size_t)length + 1, format, again);
    }
    buf_commit(buf, (size_t)length);

    va_end(again);
    va_end(arguments);
}

void buf_shrink(struct buf *buf, size_t keep)
{
    if (buf_size(buf) > 0 || buf->capacity <= keep)
        return;
    buf_release(buf);
    if (keep > 0)
        buf_grow(buf, keep);
}
