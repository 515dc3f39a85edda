/* Passwords as they are kept: ours, RabbitMQ's, and those that are none. */
#include "access/password.h"

#include "amqp/wire.h"
#include "tests/lib/unit.h"

enum { COST = 1 };

static const uint8_t salt[PASSWORD_SALT_SIZE] = "0123456789abcdef";

static struct password made_of(const char *clear)
{
    struct password password;

    password_make(&password, salt, COST, slice_of_string(clear));
    return password;
}

START_TEST(scrypt_is_the_published_function)
{
    /* RFC 7914, section 12: N 1024, r 8, p 16, "password", "NaCl" */
    static const uint8_t expected[] = {0xfd, 0xba, 0xbe, 0x1c, 0x9d, 0x34, 0x72, 0x00,
                                       0x78, 0x56, 0xe7, 0x19, 0x0d, 0x01, 0xe9, 0xfe,
                                       0x7c, 0x6a, 0xd7, 0xcb, 0xc8, 0x23, 0x78, 0x30,
                                       0xe7, 0x73, 0x76, 0x63, 0x4b, 0x37, 0x31, 0x62};
    struct password password = {.scheme = PASSWORD_SCRYPT,
                                .log2_n = 10,
                                .r = 8,
                                .p = 16,
                                .salt_size = 4,
                                .salt = "NaCl",
                                .hash_size = sizeof(expected)};

    memcpy(password.hash, expected, sizeof(expected));
    ck_assert(password_matches(&password, SLICE("password")));
    password.hash[31] ^= 1;
    ck_assert(!password_matches(&password, SLICE("password")));
}
END_TEST

START_TEST(only_the_same_password_matches)
{
    static const char *const others[] = {"secre", "secrets", "Secret", "", "secreu"};
    const struct password password = made_of("secret");

    ck_assert(password_matches(&password, SLICE("secret")));
    ck_assert(!password_matches(&password, SLICE("secret\0")));
    for (size_t i = 0; i < countof(others); i++)
        ck_assert(!password_matches(&password, slice_of_string(others[i])));
}
END_TEST

START_TEST(an_empty_password_never_matches) /* CVE-2016-9877 */
{
    const struct password empty = made_of(""), none = {.scheme = PASSWORD_NONE};

    ck_assert(!password_matches(&empty, SLICE("")));
    ck_assert(!password_matches(&none, SLICE("")));
    ck_assert(!password_matches(&none, SLICE("x")));
}
END_TEST

START_TEST(the_salt_counts)
{
    uint8_t other_salt[PASSWORD_SALT_SIZE];
    struct password one = made_of("secret"), other;

    memcpy(other_salt, salt, sizeof(salt));
    other_salt[15] ^= 1;
    password_make(&other, other_salt, COST, SLICE("secret"));
    ck_assert(!password_equal(&one, &other));
    ck_assert(memcmp(one.hash, other.hash, one.hash_size) != 0);
    ck_assert(password_matches(&other, SLICE("secret")));
}
END_TEST

/* ---- RabbitMQ's ---- */

/* Of "test12", with salt 90 8D C6 0A, as its documentation has it. */
static const struct {
    const char *algorithm, *text;
} imported[] = {
    {"rabbit_password_hashing_sha256", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"},
    {"rabbit_password_hashing_sha512",
     "kI3GChuNuIYf8lRbCCxZjgjKwsY19ns6+uFO0zcXRBGA/XGJPYD8OWMy7EB8"
     "TaOmAzjP2azv84GbINYwX2cDWb4DHnc="},
};

START_TEST(hashes_of_rabbitmq_are_accepted)
{
    struct password password;

    ck_assert(password_from_text(&password, slice_of_string(imported[_i].algorithm),
                                 slice_of_string(imported[_i].text)));
    ck_assert(password_matches(&password, SLICE("test12")));
    ck_assert(!password_matches(&password, SLICE("test1")));
    ck_assert(!password_matches(&password, SLICE("")));

    struct password unnamed;
    ck_assert(password_from_text(&unnamed, SLICE(""), slice_of_string(imported[_i].text)));
    ck_assert(password_equal(&unnamed, &password));
}
END_TEST

static const struct {
    const char *algorithm, *text;
} not_hashes[] = {
    {"rabbit_password_hashing_sha256", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2PO"},
    {"rabbit_password_hashing_sha256", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2P=="},
    {"rabbit_password_hashing_sha256", "!!!!"},
    {"rabbit_password_hashing_sha256", "===="},
    {"rabbit_password_hashing_sha256", "AAAA"},
    {"rabbit_password_hashing_sha512", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"},
    {"rabbit_password_hashing_md5", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"},
    {"", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2PO="},
    {"", "AAAA"},
    {"", "!!!!"},
    {"stoatmq_password_hashing_scrypt", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"},
};

START_TEST(what_is_no_hash_is_refused) /* CVE-2018-12550 */
{
    struct password password;

    ck_assert(!password_from_text(&password, slice_of_string(not_hashes[_i].algorithm),
                                  slice_of_string(not_hashes[_i].text)));
}
END_TEST

START_TEST(an_empty_hash_is_no_password) /* CVE-2018-12550 */
{
    struct password password;

    ck_assert(password_from_text(&password, SLICE("rabbit_password_hashing_sha256"), SLICE("")));
    ck_assert_uint_eq(PASSWORD_NONE, password.scheme);
}
END_TEST

/* ---- as octets, as text ---- */

static bool read_whole(struct slice octets, struct password *password)
{
    struct amqp_reader reader = amqp_reader_of(octets);

    return password_read(&reader, password) && amqp_reader_left(&reader) == 0;
}

START_TEST(written_and_read_back)
{
    struct password passwords[] = {made_of("secret"), {.scheme = PASSWORD_NONE}, {0}, {0}};
    struct password read;
    struct buf octets = BUF_EMPTY, text = BUF_EMPTY;

    for (size_t i = 0; i < countof(imported); i++)
        ck_assert(password_from_text(&passwords[2 + i], slice_of_string(imported[i].algorithm),
                                     slice_of_string(imported[i].text)));
    password_write(&octets, &passwords[_i]);
    ck_assert(read_whole(buf_slice(&octets), &read));
    ck_assert(password_equal(&read, &passwords[_i]));
    for (size_t size = 0; size < buf_size(&octets); size++)
        ck_assert(!read_whole(slice_of(octets.data + octets.begin, size), &read));

    password_to_text(&passwords[_i], &text);
    ck_assert(password_from_text(&read, slice_of_string(password_algorithm(&passwords[_i])),
                                 buf_slice(&text)));
    ck_assert(password_equal(&read, &passwords[_i]));
    buf_release(&octets);
    buf_release(&text);
}
END_TEST

/* Somebody else's definitions must not make us compute for hours, or without end of memory. */
static const struct {
    uint8_t log2_n, r, p;
    bool granted;
} costs[] = {
    {14, 8, 1, true},   {15, 8, 2, true},  {16, 8, 1, true},       {17, 8, 1, false},
    {0, 8, 1, false},   {14, 0, 1, false}, {14, 8, 0, false},      {14, 8, 255, false},
    {10, 255, 1, true}, {63, 8, 1, false}, {255, 255, 255, false}, {15, 1, 1, true},
    {16, 1, 1, false}, /* the library refuses N of 2 ^ 16 where r is 1 */
};

START_TEST(costs_are_bounded)
{
    struct password password = made_of("x"), read;
    struct buf octets = BUF_EMPTY;

    password.log2_n = costs[_i].log2_n;
    password.r = costs[_i].r;
    password.p = costs[_i].p;
    password_write(&octets, &password);
    ck_assert(read_whole(buf_slice(&octets), &read) == costs[_i].granted);
    buf_release(&octets);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("password");
    TCase *tests = tcase_create("password");
    tcase_add_test(tests, scrypt_is_the_published_function);
    tcase_add_test(tests, only_the_same_password_matches);
    tcase_add_test(tests, an_empty_password_never_matches);
    tcase_add_test(tests, the_salt_counts);
    tcase_add_loop_test(tests, hashes_of_rabbitmq_are_accepted, 0, countof(imported));
    tcase_add_loop_test(tests, what_is_no_hash_is_refused, 0, countof(not_hashes));
    tcase_add_test(tests, an_empty_hash_is_no_password);
    tcase_add_loop_test(tests, written_and_read_back, 0, 4);
    tcase_add_loop_test(tests, costs_are_bounded, 0, countof(costs));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
