/* Headers of the PROXY protocol: whole or an octet at a time, the same is found, in what has
 * come. */
#include "net/proxy_header.h"
#include "tests/fuzz/fuzz.h"

static void check_endpoint(const struct endpoint *endpoint)
{
    must(memchr(endpoint->host, '\0', sizeof(endpoint->host)) != NULL);
    must(endpoint->host[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header whole, part;
    const enum proxy_parse found = proxy_header_parse(slice_of(data, size), &whole);
    enum proxy_parse last = PROXY_MORE;
    size_t shown = 0;

    while (last == PROXY_MORE && shown <= size)
        last = proxy_header_parse(slice_of(data, shown++), &part);
    must(last == found);
    must(found != PROXY_MORE || size < PROXY_HEADER_SIZE_MAX);
    if (found != PROXY_OK)
        return 0;
    must(whole.size == shown - 1 && whole.size == part.size && whole.size <= PROXY_HEADER_SIZE_MAX);
    must(whole.has_addresses == part.has_addresses);
    if (!whole.has_addresses)
        return 0;
    check_endpoint(&whole.source);
    check_endpoint(&whole.destination);
    must(whole.source.port == part.source.port && strcmp(whole.source.host, part.source.host) == 0);
    return 0;
}
