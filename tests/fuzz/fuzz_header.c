/* The payload of a content header frame: what can be decoded is written again octet by octet, and
 * each shortcut of the publishing path agrees with the whole. */
#include "amqp/properties.h"
#include "tests/fuzz/fuzz.h"

static void check_shortcuts(struct slice bytes, const struct amqp_properties *properties)
{
#define SAME(NAME, name, bit)                                                                      \
    must(slice_equal(amqp_properties_find(bytes, AMQP_PROPERTY_##NAME), properties->name));
#define IGNORED(NAME, name, bit)
    AMQP_PROPERTY_LIST(SAME, SAME, IGNORED, IGNORED)
#undef SAME
#undef IGNORED
    must(amqp_properties_flags(bytes) == properties->flags);
    must(amqp_properties_delivery_mode(bytes) == properties->delivery_mode);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct amqp_content_header header;
    struct amqp_properties properties;
    struct amqp_error error = {0};
    struct buf out = BUF_EMPTY;

    if (!amqp_content_header_decode(slice_of(data, size), &header, &error)) {
        must(error.code == AMQP_FRAME_ERROR);
        return 0;
    }
    must(amqp_properties_decode(header.properties, &properties));
    check_shortcuts(header.properties, &properties);
    amqp_properties_encode(&out, &properties);
    must(slice_equal(buf_slice(&out), header.properties));
    buf_release(&out);
    return 0;
}
