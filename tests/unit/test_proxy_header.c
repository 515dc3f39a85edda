/* Headers of the PROXY protocol: whole, cut at every octet, and wrong (1.1). */
#include "net/proxy_header.h"

#include "tests/lib/unit.h"

#define BYTES(literal)                                                                             \
    {                                                                                              \
        (const uint8_t *)(literal), sizeof(literal) - 1                                            \
    }
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define IPV4                                                                                       \
    "\xc0\0\2\1"                                                                                   \
    "\xc6\x33\x64\7"                                                                               \
    "\xc8\x22"                                                                                     \
    "\x16\x28"
#define IPV6_1 "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
#define IPV6_2 "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2"
#define PATH   "/run/stoatmq/a-path-of-36-octets\0\0\0\0"
#define PATHS  PATH PATH PATH PATH PATH PATH

static const struct {
    struct slice bytes;
    const char *source, *destination; /* NULL: it has none */
    uint16_t source_port, destination_port;
    bool loopback; /* of the source */
} good[] = {
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.7 51234 5672\r\n"), "192.0.2.1", "198.51.100.7", 51234,
     5672, false},
    {BYTES("PROXY TCP4 127.0.0.1 127.0.0.1 0 65535\r\n"), "127.0.0.1", "127.0.0.1", 0, 65535, true},
    {BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), "255.255.255.255",
     "255.255.255.255", 65535, 65535, false},
    {BYTES("PROXY TCP6 2001:db8::1 2001:db8::2 51234 5672\r\n"), "2001:db8::1", "2001:db8::2",
     51234, 5672, false},
    {BYTES("PROXY TCP6 ::1 ::1 1 2\r\n"), "::1", "::1", 1, 2, true},
    {BYTES("PROXY TCP6 ::ffff:127.0.0.1 ::1 1 2\r\n"), "127.0.0.1", "::1", 1, 2, true},
    {BYTES("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
           "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
     "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535,
     65535, false},
    {BYTES("PROXY UNKNOWN\r\n"), NULL, NULL, 0, 0, false},
    {BYTES("PROXY UNKNOWN ffff::1 what ever\r\n"), NULL, NULL, 0, 0, false},
    {BYTES(SIGNATURE "\x21\x11\0\x0c" IPV4), "192.0.2.1", "198.51.100.7", 51234, 5672, false},
    {BYTES(SIGNATURE "\x21\x11\0\x13" IPV4 "\4\0\4\0\0\0\0"), "192.0.2.1", "198.51.100.7", 51234,
     5672, false},
    {BYTES(SIGNATURE "\x21\x11\0\x12" IPV4 "\xea\0\0\xeb\0\0"), "192.0.2.1", "198.51.100.7", 51234,
     5672, false},
    {BYTES(SIGNATURE "\x21\x21\0\x24" IPV6_1 IPV6_2 "\xc8\x22\x16\x28"), "2001:db8::1",
     "2001:db8::2", 51234, 5672, false},
    {BYTES(SIGNATURE "\x21\x31\0\xd8" PATHS), NULL, NULL, 0, 0, false},
    {BYTES(SIGNATURE "\x20\0\0\0"), NULL, NULL, 0, 0, false},
    {BYTES(SIGNATURE "\x20\x11\0\x0c" IPV4), NULL, NULL, 0, 0, false}, /* its own check */
    {BYTES(SIGNATURE "\x21\0\0\3abc"), NULL, NULL, 0, 0, false},
};

START_TEST(good_ones_are_read)
{
    struct proxy_header header;
    const struct slice bytes = good[_i].bytes;
    uint8_t more[512];

    ck_assert_int_eq(proxy_header_parse(bytes, &header), PROXY_OK);
    ck_assert_uint_eq(header.size, bytes.size);
    ck_assert_int_eq(header.has_addresses, good[_i].source != NULL);
    if (header.has_addresses) {
        ck_assert_str_eq(header.source.host, good[_i].source);
        ck_assert_str_eq(header.destination.host, good[_i].destination);
        ck_assert_uint_eq(header.source.port, good[_i].source_port);
        ck_assert_uint_eq(header.destination.port, good[_i].destination_port);
        ck_assert_int_eq(header.source.loopback, good[_i].loopback);
    }
    /* What follows is not its own. */
    memcpy(mempcpy(more, bytes.data, bytes.size), "AMQP\0\0\x9\1\r\n", 10);
    ck_assert_int_eq(proxy_header_parse(slice_of(more, bytes.size + 10), &header), PROXY_OK);
    ck_assert_uint_eq(header.size, bytes.size);
    for (size_t size = 0; size < bytes.size; size++)
        ck_assert_int_eq(proxy_header_parse(slice_of(bytes.data, size), &header), PROXY_MORE);
}
END_TEST

static const struct slice bad[] = {
    BYTES("AMQP\0\0\x9\1"),
    BYTES("\x16\3\1\2\0\1"),
    BYTES("PROXy "),
    BYTES("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n"),
    BYTES("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n"),
    BYTES("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n"),
    BYTES("PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n"),
    BYTES("PROXY TCP4 ::1 ::1 1 2\r\n"),
    BYTES("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n"),
    BYTES("PROXY TCP6 fe80::1%lo ::1 1 2\r\n"),
    BYTES("PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n"),
    BYTES("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"),
    BYTES("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n"),
    BYTES("PROXY UNKNOWNS\r\n"),
    BYTES("PROXY \r\n"),
    BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n"),
    BYTES("PROXY UNKNOWN 3456789012345678901234567890123456789012345678901234567890"
          "12345678901234567890123456789012345678901"), /* 107 without an end */
    BYTES("PROXY UNKNOWN 3456789012345678901234567890123456789012345678901234567890"
          "12345678901234567890123456789012345678901\r\n"),
    BYTES(SIGNATURE "\x11\x11\0\x0c" IPV4), /* version 1 */
    BYTES(SIGNATURE "\x22\x11\0\x0c" IPV4), /* an unknown command */
    BYTES(SIGNATURE "\x21\x12\0\x0c" IPV4), /* datagrams */
    BYTES(SIGNATURE "\x21\x41\0\x0c" IPV4), /* an unknown family */
    BYTES(SIGNATURE "\x21\x11\0\x0b" IPV4), /* too short */
    BYTES(SIGNATURE "\x21\x21\0\x0c" IPV4),
    BYTES(SIGNATURE "\x21\x11\0\x0e" IPV4 "\4\0"),     /* half a TLV */
    BYTES(SIGNATURE "\x21\x11\0\x10" IPV4 "\4\0\2\0"), /* one that goes beyond */
    BYTES(SIGNATURE "\x21\x11\x10\0"),                 /* too long */
    BYTES("\r\n\r\n\0\r\nQUIT\r"),
};

START_TEST(bad_ones_are_refused)
{
    struct proxy_header header;
    struct slice bytes = bad[_i];
    enum proxy_parse last = PROXY_MORE;

    ck_assert_int_eq(proxy_header_parse(bytes, &header), PROXY_BAD);
    /* However they come, and for good. */
    for (size_t size = 0; size <= bytes.size; size++) {
        const enum proxy_parse found = proxy_header_parse(slice_of(bytes.data, size), &header);
        ck_assert_int_ne(found, PROXY_OK);
        ck_assert(last == PROXY_MORE || found == PROXY_BAD);
        last = found;
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("proxy_header");
    TCase *tests = tcase_create("proxy_header");
    tcase_add_loop_test(tests, good_ones_are_read, 0, countof(good));
    tcase_add_loop_test(tests, bad_ones_are_refused, 0, countof(bad));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
