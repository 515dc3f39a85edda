#include "core/binding.h"

#include "amqp/table.h"
#include "base/alloc.h"

void binding_write_identity(struct buf *out, bool to_exchange, struct slice destination,
                            struct slice key, struct slice arguments)
{
    amqp_write_u8(out, to_exchange ? 'x' : 'q');
    amqp_write_shortstr(out, destination);
    amqp_write_shortstr(out, key);
    amqp_table_sort(out, arguments);
}

struct binding *binding_new(struct slice identity)
{
    struct binding *binding = xmalloc(size_add(sizeof(*binding), identity.size));
    uint8_t *copy = (uint8_t *)(binding + 1);

    memcpy(copy, identity.data, identity.size);
    *binding = (struct binding){.by_identity.key = slice_of(copy, identity.size)};

    struct amqp_reader reader = amqp_reader_of(binding->by_identity.key);
    amqp_read_u8(&reader);
    amqp_read_shortstr(&reader);
    binding->key = amqp_read_shortstr(&reader);
    binding->arguments = amqp_read_bytes(&reader, amqp_reader_left(&reader));
    assert(!reader.bad);
    return binding;
}
