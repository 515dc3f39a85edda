/* Owned growing bytes, written at one end and read at the other. A pointer into it lives until the
 * next call that writes. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/slice.h"

struct buf {
    uint8_t *data; /* NULL until something is written */
    size_t begin;  /* first byte not yet consumed */
    size_t end;    /* one past the last byte written */
    size_t capacity;
};

#define BUF_EMPTY ((struct buf){0})

void buf_release(struct buf *buf); /* frees the bytes; the buf is empty and usable again */

static inline size_t buf_size(const struct buf *buf)
{
    return buf->end - buf->begin;
}

static inline struct slice buf_slice(const struct buf *buf)
{
    return (struct slice){buf->data == NULL ? NULL : buf->data + buf->begin, buf_size(buf)};
}

void buf_grow(struct buf *buf, size_t size);

/* Room for size bytes at the end; written bytes count once buf_commit is called. */
static inline uint8_t *buf_reserve(struct buf *buf, size_t size)
{
    if (unlikely(size > buf->capacity - buf->end || buf->data == NULL))
        buf_grow(buf, size);
    return buf->data + buf->end;
}

static inline void buf_commit(struct buf *buf, size_t size)
{
    assert(size <= buf->capacity - buf->end);
    buf->end += size;
}

static inline void buf_append(struct buf *buf, struct slice bytes)
{
    if (bytes.size > 0) {
        memcpy(buf_reserve(buf, bytes.size), bytes.data, bytes.size);
        buf->end += bytes.size;
    }
}

void buf_printf(struct buf *buf, const char *format, ...) printf_like(2, 3);

/* Drops size bytes from the front. */
static inline void buf_consume(struct buf *buf, size_t size)
{
    assert(size <= buf->end - buf->begin);
    buf->begin += size;
    if (buf->begin == buf->end)
        buf->begin = buf->end = 0;
}

static inline void buf_clear(struct buf *buf)
{
    buf->begin = buf->end = 0;
}

/* Gives back memory beyond keep bytes when the buffer is empty. */
void buf_shrink(struct buf *buf, size_t keep);

#endif
