#include "net/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>

enum { LINE_SIZE_MAX = 107, FIXED_SIZE = 16 };

static const uint8_t signature[12] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                      '\n', 'Q',  'U',  'I',  'T', '\n'};
static const char word[6] = {'P', 'R', 'O', 'X', 'Y', ' '};

static bool may_begin_with(struct slice bytes, const void *begin, size_t size)
{
    return bytes.size == 0 || memcmp(bytes.data, begin, min_of(bytes.size, size)) == 0;
}

/* ---- version 1 ---- */

/* What comes before the next space, or is left; both are gone from the line. false: nothing is. */
static bool next_word(struct slice *line, char *out, size_t size)
{
    const char *const space = line->size == 0 ? NULL : memchr(line->data, ' ', line->size);
    const size_t length = space == NULL ? line->size : (size_t)(space - (const char *)line->data);

    if (length == 0 || length >= size || memchr(line->data, '\0', length) != NULL ||
        (space != NULL && length + 1 == line->size))
        return false;
    memcpy(out, line->data, length);
    out[length] = '\0';
    const size_t gone = space == NULL ? length : length + 1;
    *line = slice_of(line->data + gone, line->size - gone);
    return true;
}

static bool read_port(const char *text, in_port_t *port)
{
    uint64_t number;

    if (!slice_to_u64(slice_of(text, strlen(text)), UINT16_MAX, &number) ||
        (text[0] == '0' && text[1] != '\0'))
        return false;
    *port = htons((uint16_t)number);
    return true;
}

static bool make_endpoint(struct endpoint *endpoint, bool is_ipv6, const char *host,
                          const char *port)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};
    in_port_t number;

    if (!read_port(port, &number))
        return false;
    ipv4.sin_port = ipv6.sin6_port = number;
    if (inet_pton(is_ipv6 ? AF_INET6 : AF_INET, host,
                  is_ipv6 ? (void *)&ipv6.sin6_addr : (void *)&ipv4.sin_addr) != 1)
        return false;
    endpoint_of(endpoint,
                is_ipv6 ? (const struct sockaddr *)&ipv6 : (const struct sockaddr *)&ipv4);
    return true;
}

/* The line without its word and its end. */
static bool read_line(struct slice line, struct proxy_header *header)
{
    char family[8], source[48], destination[48], source_port[6], destination_port[6];

    if (slice_equal(line, SLICE("UNKNOWN")) || slice_starts_with(line, SLICE("UNKNOWN ")))
        return true;
    if (!next_word(&line, family, sizeof(family)) || !next_word(&line, source, sizeof(source)) ||
        !next_word(&line, destination, sizeof(destination)) ||
        !next_word(&line, source_port, sizeof(source_port)) ||
        !next_word(&line, destination_port, sizeof(destination_port)) || line.size > 0)
        return false;
    const bool is_ipv6 = strcmp(family, "TCP6") == 0;
    header->has_addresses = true;
    return (is_ipv6 || strcmp(family, "TCP4") == 0) &&
           make_endpoint(&header->source, is_ipv6, source, source_port) &&
           make_endpoint(&header->destination, is_ipv6, destination, destination_port);
}

static enum proxy_parse parse_line(struct slice bytes, struct proxy_header *header)
{
    const size_t size = min_of(bytes.size, (size_t)LINE_SIZE_MAX);
    const uint8_t *const end = memmem(bytes.data, size, "\r\n", 2);

    if (end == NULL)
        return size < LINE_SIZE_MAX ? PROXY_MORE : PROXY_BAD;
    const struct slice line =
        slice_of(bytes.data + sizeof(word), (size_t)(end - bytes.data) - sizeof(word));
    header->size = (size_t)(end - bytes.data) + 2;
    return read_line(line, header) ? PROXY_OK : PROXY_BAD;
}

/* ---- version 2 ---- */

enum { COMMAND_LOCAL = 0x20, COMMAND_PROXY = 0x21 };

enum family { UNSPECIFIED = 0x00, TCP4 = 0x11, TCP6 = 0x21, UNIX_STREAM = 0x31 };

static unsigned read_u16(const uint8_t *bytes)
{
    return (unsigned)bytes[0] << 8 | bytes[1];
}

static bool tlvs_fit(struct slice bytes)
{
    enum { HEAD_SIZE = 3 };

    while (bytes.size > 0) {
        if (bytes.size < HEAD_SIZE || read_u16(bytes.data + 1) > bytes.size - HEAD_SIZE)
            return false;
        const size_t size = HEAD_SIZE + read_u16(bytes.data + 1);
        bytes = slice_of(bytes.data + size, bytes.size - size);
    }
    return true;
}

static void read_ipv4(struct endpoint *endpoint, const uint8_t *address, const uint8_t *port)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET};

    memcpy(&ipv4.sin_addr, address, sizeof(ipv4.sin_addr));
    memcpy(&ipv4.sin_port, port, sizeof(ipv4.sin_port));
    endpoint_of(endpoint, (const struct sockaddr *)&ipv4);
}

static void read_ipv6(struct endpoint *endpoint, const uint8_t *address, const uint8_t *port)
{
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};

    memcpy(&ipv6.sin6_addr, address, sizeof(ipv6.sin6_addr));
    memcpy(&ipv6.sin6_port, port, sizeof(ipv6.sin6_port));
    endpoint_of(endpoint, (const struct sockaddr *)&ipv6);
}

/* What follows the fixed part: of a family that we know, and no datagrams. */
static bool read_addresses(enum family family, struct slice bytes, struct proxy_header *header)
{
    enum { IPV4 = 4, IPV6 = 16, PORT = 2, PATHS = 216 };
    const size_t size = family == TCP4          ? 2 * (IPV4 + PORT)
                        : family == TCP6        ? 2 * (IPV6 + PORT)
                        : family == UNIX_STREAM ? PATHS
                                                : 0;

    if (family == UNSPECIFIED)
        return true;
    if (size == 0 || bytes.size < size || !tlvs_fit(slice_of(bytes.data + size, bytes.size - size)))
        return false;
    header->has_addresses = family != UNIX_STREAM;
    if (family == TCP4) {
        read_ipv4(&header->source, bytes.data, bytes.data + 2 * IPV4);
        read_ipv4(&header->destination, bytes.data + IPV4, bytes.data + 2 * IPV4 + PORT);
    } else if (family == TCP6) {
        read_ipv6(&header->source, bytes.data, bytes.data + 2 * IPV6);
        read_ipv6(&header->destination, bytes.data + IPV6, bytes.data + 2 * IPV6 + PORT);
    }
    return true;
}

static enum proxy_parse parse_binary(struct slice bytes, struct proxy_header *header)
{
    if (bytes.size < FIXED_SIZE)
        return PROXY_MORE;
    const uint8_t command = bytes.data[12];
    const size_t size = read_u16(bytes.data + 14);
    if ((command != COMMAND_LOCAL && command != COMMAND_PROXY) ||
        size > PROXY_HEADER_SIZE_MAX - FIXED_SIZE)
        return PROXY_BAD;
    if (bytes.size < FIXED_SIZE + size)
        return PROXY_MORE;
    header->size = FIXED_SIZE + size;
    return command == COMMAND_LOCAL ||
                   read_addresses((enum family)bytes.data[13],
                                  slice_of(bytes.data + FIXED_SIZE, size), header)
               ? PROXY_OK
               : PROXY_BAD;
}

enum proxy_parse proxy_header_parse(struct slice bytes, struct proxy_header *header)
{
    *header = (struct proxy_header){0};
    if (may_begin_with(bytes, word, sizeof(word)))
        return bytes.size < sizeof(word) ? PROXY_MORE : parse_line(bytes, header);
    if (may_begin_with(bytes, signature, sizeof(signature)))
        return parse_binary(bytes, header);
    return PROXY_BAD;
}
