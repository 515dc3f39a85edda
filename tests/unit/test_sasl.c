/* SASL responses, good and not. */
#include "amqp/sasl.h"

#include "tests/lib/unit.h"

typedef bool decode_function(struct slice response, struct slice *user, struct slice *password,
                             struct amqp_error *error);

#define BYTES(literal)                                                                             \
    {                                                                                              \
        (const uint8_t *)(literal), sizeof(literal) - 1                                            \
    }
#define LOGIN    "\5LOGINS\0\0\0\5guest"
#define PASSWORD "\x08PASSWORDS\0\0\0\6secret"

static const struct {
    decode_function *decode;
    struct slice response;
    const char *user, *password; /* NULL: refused */
} cases[] = {
    /* 4.2.2 */
    {amqp_sasl_plain, BYTES("\0guest\0secret"), "guest", "secret"},
    {amqp_sasl_plain, BYTES("\0guest\0"), "guest", ""},
    {amqp_sasl_plain, BYTES("\0\0"), "", ""},
    {amqp_sasl_plain, BYTES(""), NULL, NULL},
    {amqp_sasl_plain, BYTES("\0"), NULL, NULL},
    {amqp_sasl_plain, BYTES("\0guest"), NULL, NULL},
    {amqp_sasl_plain, BYTES("guest\0secret"), NULL, NULL},
    {amqp_sasl_plain, BYTES("admin\0guest\0secret"), NULL, NULL},
    {amqp_sasl_plain, BYTES("\0guest\0sec\0ret"), NULL, NULL},
    {amqp_sasl_plain, BYTES("\0guest\0secret\0"), NULL, NULL},
    /* 4.2.3 */
    {amqp_sasl_amqplain, BYTES(LOGIN PASSWORD), "guest", "secret"},
    {amqp_sasl_amqplain, BYTES(PASSWORD LOGIN), "guest", "secret"},
    {amqp_sasl_amqplain, BYTES("\1xV" LOGIN "\1yt\1" PASSWORD), "guest", "secret"},
    {amqp_sasl_amqplain, BYTES(LOGIN), NULL, NULL},
    {amqp_sasl_amqplain, BYTES(PASSWORD), NULL, NULL},
    {amqp_sasl_amqplain, BYTES(""), NULL, NULL},
    {amqp_sasl_amqplain, BYTES("\5LOGINx\0\0\0\5guest" PASSWORD), NULL, NULL},
    {amqp_sasl_amqplain, BYTES("\5LOGINI\0\0\0\5" PASSWORD), NULL, NULL},
    {amqp_sasl_amqplain, BYTES(LOGIN PASSWORD "\1"), NULL, NULL},
    {amqp_sasl_amqplain, BYTES("\0\0\0\x24" LOGIN PASSWORD), NULL, NULL},
};

START_TEST(responses) /* 4.2.2, 4.2.3, CVE-2016-9877, CVE-2025-50200 */
{
    struct slice user, password;
    struct amqp_error error;

    bool ok = cases[_i].decode(cases[_i].response, &user, &password, &error);
    ck_assert(ok == (cases[_i].user != NULL));
    if (ok) {
        ck_assert(slice_equal(user, slice_of_string(cases[_i].user)));
        ck_assert(slice_equal(password, slice_of_string(cases[_i].password)));
    } else {
        ck_assert_uint_eq(error.code, AMQP_SYNTAX_ERROR);
        ck_assert_ptr_null(strstr(error.text, "guest"));
        ck_assert_ptr_null(strstr(error.text, "sec"));
    }
}
END_TEST

/* Only PLAIN can be cut and still be whole: what is lost then is password. */
START_TEST(cut_responses)
{
    if (cases[_i].user == NULL)
        return;
    for (size_t size = 0; size < cases[_i].response.size; size++) {
        struct slice user, password;
        struct amqp_error error;
        uint8_t *bytes = malloc(size > 0 ? size : 1);
        memcpy(bytes, cases[_i].response.data, size);
        bool ok = cases[_i].decode(slice_of(bytes, size), &user, &password, &error);
        ck_assert(!ok || cases[_i].decode == amqp_sasl_plain);
        if (ok)
            ck_assert(user.data + user.size < bytes + size);
        free(bytes);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sasl");
    TCase *tests = tcase_create("sasl");
    tcase_add_loop_test(tests, responses, 0, countof(cases));
    tcase_add_loop_test(tests, cut_responses, 0, countof(cases));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
