/* The memory carrier: two buffers and the rules of a stream socket. Wakes are edges, as a socket's
 * are: sending, ending and breaking make it readable, room makes it writable; a full or empty
 * carrier says EAGAIN. The test owns the struct, which must outlive the transport's close. */
#include "tests/lib/memory_transport.h"

static ssize_t memory_read(struct transport *transport, void *bytes, size_t size)
{
    struct memory_transport *memory = transport->carrier;
    memory->read_count++;
    if (memory->error != 0)
        return -memory->error;
    const size_t given = min_of(min_of(size, memory->give_max), buf_size(&memory->sent));
    if (given == 0)
        return memory->ended ? 0 : -EAGAIN;
    memcpy(bytes, buf_slice(&memory->sent).data, given);
    buf_consume(&memory->sent, given);
    return (ssize_t)given;
}

static ssize_t memory_write(struct transport *transport, struct iovec *parts, int count)
{
    struct memory_transport *memory = transport->carrier;
    memory->write_count++;
    if (memory->error != 0)
        return -memory->error;
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        const size_t taken = min_of(parts[i].iov_len, memory->take_left);
        buf_append(&memory->received, slice_of(parts[i].iov_base, taken));
        if (memory->take_left != SIZE_MAX)
            memory->take_left -= taken;
        total += taken;
    }
    return total > 0 ? (ssize_t)total : -EAGAIN;
}

static void memory_close(struct transport *transport)
{
    struct memory_transport *memory = transport->carrier;
    assert(!memory->closed);
    memory->closed = true;
    memory->transport = NULL;
}

static size_t memory_untaken_size(const struct transport *transport)
{
    return ((const struct memory_transport *)transport->carrier)->untaken;
}

const struct transport_ops memory_transport_ops = {.read = memory_read,
                                                   .write = memory_write,
                                                   .close = memory_close,
                                                   .untaken_size = memory_untaken_size};

void memory_transport_attach(struct memory_transport *memory, struct transport *transport)
{
    *memory = (struct memory_transport){
        .transport = transport, .give_max = SIZE_MAX, .take_left = SIZE_MAX};
    transport->carrier = memory;
}

void memory_transport_release(struct memory_transport *memory)
{
    assert(memory->transport == NULL);
    buf_release(&memory->sent);
    buf_release(&memory->received);
}

static void wake(struct memory_transport *memory, bool readable, bool writable)
{
    if (memory->transport != NULL)
        transport_wake(memory->transport, readable, writable);
}

static void hang_up(struct memory_transport *memory)
{
    if (memory->transport != NULL)
        memory->transport->hung_up = true;
}

void memory_transport_send(struct memory_transport *memory, struct slice bytes)
{
    assert(!memory->ended);
    buf_append(&memory->sent, bytes);
    wake(memory, true, false);
}

void memory_transport_end(struct memory_transport *memory)
{
    memory->ended = true;
    hang_up(memory);
    wake(memory, true, false);
}

void memory_transport_break(struct memory_transport *memory, int error)
{
    memory->error = error;
    hang_up(memory);
    wake(memory, true, true);
}

void memory_transport_take(struct memory_transport *memory, size_t size)
{
    memory->take_left = size;
    wake(memory, false, size > 0);
}
