/* Reply names, scope, and texts that fit a short string. */
#include "amqp/reply.h"

#include "tests/lib/unit.h"

static const struct {
    uint16_t code;
    const char *name;
    bool is_soft;
} codes[] = {
    /* 5.3, 5.4 */
    {311, "CONTENT_TOO_LARGE", true},   {312, "NO_ROUTE", true},
    {313, "NO_CONSUMERS", true},        {403, "ACCESS_REFUSED", true},
    {404, "NOT_FOUND", true},           {405, "RESOURCE_LOCKED", true},
    {406, "PRECONDITION_FAILED", true}, {200, "SUCCESS", false},
    {320, "CONNECTION_FORCED", false},  {402, "INVALID_PATH", false},
    {501, "FRAME_ERROR", false},        {502, "SYNTAX_ERROR", false},
    {503, "COMMAND_INVALID", false},    {504, "CHANNEL_ERROR", false},
    {505, "UNEXPECTED_FRAME", false},   {506, "RESOURCE_ERROR", false},
    {530, "NOT_ALLOWED", false},        {540, "NOT_IMPLEMENTED", false},
    {541, "INTERNAL_ERROR", false},     {999, "UNKNOWN", false},
};

START_TEST(names_and_scope) /* 5.3, 5.4 */
{
    ck_assert_str_eq(amqp_reply_name(codes[_i].code), codes[_i].name);
    ck_assert(amqp_reply_is_soft(codes[_i].code) == codes[_i].is_soft);
}
END_TEST

START_TEST(text_is_name_and_explanation) /* 5.1, 5.2 */
{
    struct amqp_error error = {.class_id = 50, .method_id = 10};

    ck_assert(!amqp_fail(&error, AMQP_NOT_FOUND, "no queue '%s' in vhost '%s'", "q", "/"));
    ck_assert_uint_eq(error.code, 404);
    ck_assert_uint_eq(error.class_id, 50);
    ck_assert_uint_eq(error.method_id, 10);
    ck_assert_str_eq(error.text, "NOT_FOUND - no queue 'q' in vhost '/'");
}
END_TEST

/* "NOT_FOUND - " is 12 octets: 243 are left for the explanation. */
static const struct {
    size_t fill;      /* so many 'x' first */
    const char *tail; /* then this */
    size_t size;      /* of the whole text */
} cuts[] = {
    {243, "", 255},
    {300, "", 255},
    {242, "\xc3\xa9", 254},     /* two octets, one of them fits */
    {241, "\xc3\xa9", 255},     /* both do */
    {241, "\xe2\x82\xac", 253}, /* three, two fit */
    {240, "\xe2\x82\xac", 255},
    {240, "\xf0\x9f\xa6\xa6", 252}, /* four, three fit */
    {242, "\xf0\x9f\xa6\xa6", 254},
    {239, "\xf0\x9f\xa6\xa6z", 255},
    {240, "\x80\x80\x80\x80\x80", 255}, /* no UTF-8 at all: any cut is as good */
};

START_TEST(long_texts_are_cut_between_characters) /* 5.1 */
{
    char explanation[400];
    struct amqp_error error;

    memset(explanation, 'x', cuts[_i].fill);
    strcpy(explanation + cuts[_i].fill, cuts[_i].tail);
    amqp_fail(&error, AMQP_NOT_FOUND, "%s", explanation);
    ck_assert_uint_eq(strlen(error.text), cuts[_i].size);
    ck_assert(memcmp(error.text + 12, explanation, cuts[_i].size - 12) == 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reply");
    TCase *tests = tcase_create("reply");
    tcase_add_loop_test(tests, names_and_scope, 0, countof(codes));
    tcase_add_test(tests, text_is_name_and_explanation);
    tcase_add_loop_test(tests, long_texts_are_cut_between_characters, 0, countof(cuts));
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
