/* A byte stream with buffers on both sides. See transport.h for the contract.
 *
 * Input is level-triggered made of edges: `readable` stays true until the carrier has said EAGAIN,
 * and as long as it is true the input task queues itself for the next turn. The plain socket saves
 * that last read: one that brings less than asked has emptied the socket, and what comes later
 * makes a new edge. Only the peer's end might hide behind a short read; it is announced by the
 * event that says so (hung_up).
 *
 * Output is a list of chunks and, behind it, the tail:
 *
 *     chunks ─▶ [sealed buffer] ─▶ [copied] ─▶ [shared] ─▶ [copied] ─▶ [shared]     tail: [ bytes ...    room ]
 *
 *     sealed   a tail that had become long, with its buffer
 *     copied   the short tail before shared bytes: cheaper to copy than to leave a buffer behind
 *              nearly empty
 *     shared   the owner's bytes; done(owner) when they are gone
 *
 * Invariants. A chunk is never empty. chunks_size is their sum. The output task is queued only
 * while the transport is neither broken nor closed, so that transport_output may take it for both.
 * The tail's buffer goes back to the loop as soon as it is empty after a write.
 *
 * A callback may close the transport, so after each one its state is looked at again, and nothing
 * is touched that transport_close frees. Failures of the carrier end in on_broken; this file logs
 * nothing. */
#include "net/transport.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"

enum {
    PARTS_MAX = 64,            /* in one write */
    COPY_MAX = 4096,           /* a tail no longer than this is copied when shared bytes follow */
    DISCARD_SIZE = 1024 * 1024 /* of unread input, when a socket is closed */
};

struct transport_chunk {
    STAILQ_ENTRY(transport_chunk) link;
    struct slice bytes;        /* what has not been written yet */
    struct buf buffer;         /* of a sealed chunk; else empty */
    void (*done)(void *owner); /* of a shared chunk; else NULL */
    void *owner;
    uint8_t copy[]; /* of a copied chunk */
};

/* ---- the plain socket ---------------------------------------------------------------------- */

static ssize_t socket_read(struct transport *transport, void *bytes, size_t size)
{
    const ssize_t result = recv(transport->source.fd, bytes, size, 0);
    if (result < 0)
        return -errno;
    if ((size_t)result < size && !transport->hung_up)
        transport->readable = false;
    return result;
}

static ssize_t socket_write(struct transport *transport, struct iovec *parts, int count)
{
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    const ssize_t result = sendmsg(transport->source.fd, &message, MSG_NOSIGNAL);
    return result < 0 ? -errno : result;
}

/* Unread input would turn the close into a reset, which destroys what was just written before the
 * peer has read it. */
static void socket_close(struct transport *transport)
{
    loop_unwatch(transport->loop, &transport->source);
    if (!transport->broken)
        recv(transport->source.fd, NULL, DISCARD_SIZE, MSG_TRUNC | MSG_DONTWAIT);
    close(transport->source.fd);
    transport->source.fd = -1;
}

size_t transport_untaken_by_socket(const struct transport *transport)
{
    int size = 0;

    return ioctl(transport->source.fd, SIOCOUTQ, &size) == 0 ? (size_t)size : 0;
}

static const struct transport_ops socket_ops = {.read = socket_read,
                                                .write = socket_write,
                                                .close = socket_close,
                                                .untaken_size = transport_untaken_by_socket};

static void on_socket_ready(struct source *source, uint32_t events)
{
    struct transport *transport = container_of(source, struct transport, source);
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        transport->hung_up = true;
    transport_wake(transport, events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR),
                   events & (EPOLLOUT | EPOLLHUP | EPOLLERR));
}

/* ---- chunks -------------------------------------------------------------------------------- */

static void add_chunk(struct transport *transport, struct transport_chunk *chunk)
{
    assert(chunk->bytes.size > 0);
    STAILQ_INSERT_TAIL(&transport->chunks, chunk, link);
    transport->chunks_size += chunk->bytes.size;
}

static void drop_first_chunk(struct transport *transport)
{
    struct transport_chunk *chunk = STAILQ_FIRST(&transport->chunks);
    STAILQ_REMOVE_HEAD(&transport->chunks, link);
    transport->chunks_size -= chunk->bytes.size;
    if (chunk->done != NULL)
        chunk->done(chunk->owner);
    else if (chunk->buffer.data != NULL)
        loop_give_buffer(transport->loop, &chunk->buffer);
    free(chunk);
}

static struct transport_chunk *new_chunk(size_t copy_size)
{
    struct transport_chunk *chunk = xmalloc(size_add(sizeof(*chunk), copy_size));
    *chunk = (struct transport_chunk){0};
    return chunk;
}

/* The tail with its buffer becomes a chunk. */
static void seal_tail(struct transport *transport)
{
    struct transport_chunk *chunk = new_chunk(0);
    chunk->buffer = transport->tail;
    chunk->bytes = buf_slice(&transport->tail);
    transport->tail = BUF_EMPTY;
    add_chunk(transport, chunk);
}

/* The bytes of the tail become a chunk, its buffer stays. */
static void copy_tail(struct transport *transport)
{
    const struct slice bytes = buf_slice(&transport->tail);
    struct transport_chunk *chunk = new_chunk(bytes.size);
    memcpy(chunk->copy, bytes.data, bytes.size);
    chunk->bytes = slice_of(chunk->copy, bytes.size);
    buf_clear(&transport->tail);
    add_chunk(transport, chunk);
}

static void drop_output(struct transport *transport)
{
    while (!STAILQ_EMPTY(&transport->chunks))
        drop_first_chunk(transport);
    if (transport->tail.data != NULL)
        loop_give_buffer(transport->loop, &transport->tail);
}

/* ---- ending -------------------------------------------------------------------------------- */

static void break_off(struct transport *transport, int error)
{
    assert(!transport->broken && !transport->closed);
    transport->broken = true;
    loop_unqueue(transport->loop, &transport->input_task);
    loop_unqueue(transport->loop, &transport->output_task);
    drop_output(transport);
    transport->events->on_broken(transport, error);
}

/* ---- input --------------------------------------------------------------------------------- */

static bool is_reading(const struct transport *transport)
{
    return !transport->paused && !transport->broken && !transport->closed;
}

/* Shows bytes to the owner; returns how many it took. */
static size_t show(struct transport *transport, struct slice bytes)
{
    transport->showing = true;
    const size_t taken = transport->events->on_input(transport, bytes);
    transport->showing = false;
    assert(taken <= bytes.size);
    return taken;
}

static void show_leftovers(struct transport *transport)
{
    const size_t taken = show(transport, buf_slice(&transport->input));
    buf_consume(&transport->input, taken);
    if (transport->closed || buf_size(&transport->input) == 0)
        buf_release(&transport->input);
}

/* Judges what a read brought: true if bytes. */
static bool has_read(struct transport *transport, ssize_t result)
{
    if (result > 0) {
        transport->octets_in += (uint64_t)result;
        transport->read_ms = transport->loop->clock->now_ms;
        return true;
    }
    if (result == -EAGAIN)
        transport->readable = false;
    else if (result != -EINTR)
        break_off(transport, (int)-result);
    return false;
}

/* What is left over, and no more than the share: the buffer that it grows into need not be
 * larger. */
static void keep(struct transport *transport, struct slice bytes)
{
    struct buf *input = &transport->input;

    if (bytes.size > input->capacity) {
        const size_t capacity = max_of(bytes.size, 2 * input->capacity);
        buf_release(input);
        buf_reserve(input, min_of(capacity, transport->share));
    }
    buf_append(input, bytes);
}

/* The usual way: leftovers, then what comes, in the scratch buffer; what is left over again is
 * kept. */
static void read_into_scratch(struct transport *transport)
{
    uint8_t *scratch = transport->loop->scratch;
    const size_t old = buf_size(&transport->input);
    assert(old < transport->share);
    if (old > 0)
        memcpy(scratch, buf_slice(&transport->input).data, old);

    const ssize_t result = transport->ops->read(transport, scratch + old, transport->share - old);
    if (!has_read(transport, result))
        return;

    buf_clear(&transport->input);
    const size_t size = old + (size_t)result;
    const size_t taken = show(transport, slice_of(scratch, size));
    if (transport->closed || taken == size)
        buf_release(&transport->input);
    else
        keep(transport, slice_of(scratch + taken, size - taken));
}

/* The rare one, for frames so large that the scratch buffer would not do: the leftovers grow where
 * they are. */
static void read_into_leftovers(struct transport *transport)
{
    const size_t size = LOOP_SCRATCH_SIZE / 2;
    const ssize_t result =
        transport->ops->read(transport, buf_reserve(&transport->input, size), size);
    if (!has_read(transport, result))
        return;
    buf_commit(&transport->input, (size_t)result);
    show_leftovers(transport);
}

/* A pause that nobody will end for this peer. */
static bool is_lost(const struct transport *transport)
{
    return transport->paused && transport->forsaken && transport->hung_up;
}

static void run_input(struct task *task)
{
    struct transport *transport = container_of(task, struct transport, input_task);
    if (is_lost(transport)) {
        break_off(transport, 0);
        return;
    }
    if (transport->resumed) {
        transport->resumed = false;
        if (buf_size(&transport->input) > 0)
            show_leftovers(transport);
    }
    if (!is_reading(transport) || !transport->readable)
        return;
    if (buf_size(&transport->input) <= LOOP_SCRATCH_SIZE / 2)
        read_into_scratch(transport);
    else
        read_into_leftovers(transport);
    if (is_reading(transport) && transport->readable)
        loop_queue(transport->loop, LOOP_INPUT, &transport->input_task);
}

void transport_pause(struct transport *transport, bool forsake)
{
    transport->paused = true;
    transport->forsaken = forsake;
    if (is_lost(transport) && !transport->broken && !transport->closed)
        loop_queue(transport->loop, LOOP_INPUT, &transport->input_task);
    else
        loop_unqueue(transport->loop, &transport->input_task);
}

void transport_resume(struct transport *transport)
{
    if (!transport->paused)
        return;
    transport->paused = false;
    transport->resumed = true;
    if (is_reading(transport))
        loop_queue(transport->loop, LOOP_INPUT, &transport->input_task);
}

void transport_hurry(struct transport *transport)
{
    struct task *task = &transport->input_task;

    if (!task->queued)
        return;
    loop_unqueue(transport->loop, task);
    task->run(task);
}

/* ---- output -------------------------------------------------------------------------------- */

struct buf *transport_output_slow(struct transport *transport)
{
    if (transport->broken || transport->closed) {
        buf_clear(&transport->loop->sink);
        return &transport->loop->sink;
    }
    loop_queue(transport->loop, LOOP_OUTPUT, &transport->output_task);
    struct buf *tail = &transport->tail;
    if (tail->data != NULL && tail->capacity - tail->end < TRANSPORT_TAIL_ROOM)
        seal_tail(transport);
    if (tail->data == NULL)
        *tail = loop_take_buffer(transport->loop);
    return tail;
}

void transport_output_shared(struct transport *transport, struct slice bytes,
                             void (*done)(void *owner), void *owner)
{
    if (transport->broken || transport->closed || bytes.size == 0) {
        done(owner);
        return;
    }
    loop_queue(transport->loop, LOOP_OUTPUT, &transport->output_task);
    const size_t tail_size = buf_size(&transport->tail);
    if (tail_size > COPY_MAX)
        seal_tail(transport);
    else if (tail_size > 0)
        copy_tail(transport);

    struct transport_chunk *chunk = new_chunk(0);
    chunk->bytes = bytes;
    chunk->done = done;
    chunk->owner = owner;
    add_chunk(transport, chunk);
}

static struct iovec part_of(struct slice bytes)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)bytes.data, .iov_len = bytes.size};
}

/* The first bytes to leave, in at most PARTS_MAX parts; returns how many parts, and their size. */
static int gather(const struct transport *transport, struct iovec parts[PARTS_MAX], size_t *size)
{
    int count = 0;
    *size = 0;
    const struct transport_chunk *chunk;
    STAILQ_FOREACH (chunk, &transport->chunks, link) {
        if (count == PARTS_MAX)
            return count;
        parts[count++] = part_of(chunk->bytes);
        *size += chunk->bytes.size;
    }
    const struct slice tail = buf_slice(&transport->tail);
    if (tail.size > 0 && count < PARTS_MAX) {
        parts[count++] = part_of(tail);
        *size += tail.size;
    }
    return count;
}

/* size bytes have left. */
static void consume_output(struct transport *transport, size_t size)
{
    struct transport_chunk *chunk;
    while (size > 0 && (chunk = STAILQ_FIRST(&transport->chunks)) != NULL) {
        if (size < chunk->bytes.size) {
            chunk->bytes.data += size;
            chunk->bytes.size -= size;
            transport->chunks_size -= size;
            return;
        }
        size -= chunk->bytes.size;
        drop_first_chunk(transport);
    }
    buf_consume(&transport->tail, size);
}

/* Writes until everything has left or the carrier is full; 0 or -errno. */
static int flush(struct transport *transport)
{
    while (transport->writable && transport_output_size(transport) > 0) {
        struct iovec parts[PARTS_MAX];
        size_t offered;
        const int count = gather(transport, parts, &offered);
        const ssize_t written = transport->ops->write(transport, parts, count);
        if (written < 0 && written != -EAGAIN)
            return (int)written;
        if (written > 0) {
            transport->octets_out += (uint64_t)written;
            transport->write_ms = transport->loop->clock->now_ms;
            consume_output(transport, (size_t)written);
        }
        transport->writable = written > 0 && (size_t)written == offered;
    }
    if (transport->tail.data != NULL && buf_size(&transport->tail) == 0)
        loop_give_buffer(transport->loop, &transport->tail);
    return 0;
}

static void run_output(struct task *task)
{
    struct transport *transport = container_of(task, struct transport, output_task);
    transport->congested = transport_is_congested(transport);
    const int result = flush(transport);
    if (result < 0) {
        break_off(transport, -result);
        return;
    }
    if (transport->congested &&
        transport_output_size(transport) <= transport->loop->output_max / 4) {
        transport->congested = false;
        transport->events->on_drained(transport);
    }
}

/* Copies pieces from the start of the output until there are as many octets as the carrier wants to
 * see again. Whether a piece has begun to leave is not known: the first one always stays. */
static struct buf copy_first_pieces(const struct transport *transport)
{
    struct buf copy = loop_take_buffer(transport->loop);
    const struct transport_chunk *chunk, *next;

    for (chunk = STAILQ_FIRST(&transport->chunks); chunk != NULL; chunk = next) {
        next = STAILQ_NEXT(chunk, link);
        buf_append(&copy, chunk->bytes);
        const bool enough = buf_size(&copy) >= transport->begun;
        const struct slice after = next == NULL ? buf_slice(&transport->tail) : next->bytes;
        if (chunk->done == NULL && enough && (next == NULL || next->done == NULL))
            return copy;
        if (chunk->done != NULL && enough) {
            buf_append(&copy, slice_of(after.data, 1));
            return copy;
        }
    }
    buf_append(&copy, buf_slice(&transport->tail));
    return copy;
}

void transport_cut_output(struct transport *transport)
{
    if (transport->broken || transport->closed)
        return;
    (void)flush(transport); /* whose failure the next flush tells */
    if (STAILQ_EMPTY(&transport->chunks))
        return;
    struct buf pieces = copy_first_pieces(transport);
    drop_output(transport);
    transport->tail = pieces;
}

/* ---- opening and closing ------------------------------------------------------------------- */

void transport_open(struct transport *transport, struct loop *loop,
                    const struct transport_events *events, const struct transport_ops *ops)
{
    const uint64_t now_ms = loop->clock->now_ms;
    *transport = (struct transport){
        .ops = ops,
        .events = events,
        .loop = loop,
        .source = {.fd = -1},
        .share = LOOP_SCRATCH_SIZE,
        .input_task = {.run = run_input},
        .output_task = {.run = run_output},
        .writable = true,
        .read_ms = now_ms,
        .write_ms = now_ms,
    };
    STAILQ_INIT(&transport->chunks);
}

int transport_open_socket(struct transport *transport, struct loop *loop,
                          const struct transport_events *events, int fd)
{
    transport_open(transport, loop, events, &socket_ops);
    transport->source =
        (struct source){.fd = fd, .wants_output = true, .on_ready = on_socket_ready};
    const int result = loop_watch(loop, &transport->source);
    if (result < 0) {
        close(fd);
        transport->source.fd = -1;
        transport->closed = true;
    }
    return result;
}

void transport_wake(struct transport *transport, bool readable, bool writable)
{
    if (transport->broken || transport->closed)
        return;
    transport->readable |= readable;
    transport->writable |= writable;
    if (transport->readable && (!transport->paused || is_lost(transport)))
        loop_queue(transport->loop, LOOP_INPUT, &transport->input_task);
    if (transport->writable && transport_output_size(transport) > 0)
        loop_queue(transport->loop, LOOP_OUTPUT, &transport->output_task);
}

void transport_close(struct transport *transport)
{
    if (transport->closed)
        return;
    if (!transport->broken)
        (void)flush(transport);
    transport->closed = true;
    loop_unqueue(transport->loop, &transport->input_task);
    loop_unqueue(transport->loop, &transport->output_task);
    drop_output(transport);
    if (!transport->showing)
        buf_release(&transport->input);
    transport->ops->close(transport);
}
