/* amqp/methods.def against the published list of methods, methods-0-9-1.txt beside this file: every
 * line of one must be a line of the other. */
#include "base/base.h"

#include "amqp/method.h"
#include "tests/lib/unit.h"

/* methods.def in the words of the list, but for '_' where the list has '-'. */
static const char *const defined[] = {
#define OCTET(name)    " " #name ":octet"
#define SHORT(name)    " " #name ":short"
#define LONG(name)     " " #name ":long"
#define LONGLONG(name) " " #name ":longlong"
#define BIT(name)      " " #name ":bit"
#define SHORTSTR(name) " " #name ":shortstr"
#define LONGSTR(name)  " " #name ":longstr"
#define TABLE(name)    " " #name ":table"
#define TICKET(name)   " " #name ":short"
#define METHOD(NAME, name, text, class, method, senders, traits, arguments)                        \
#class " " #method " " text arguments,
#include "amqp/methods.def"
};

enum { LINES_MAX = 200, LINE_SIZE = 256 };

static char published[LINES_MAX][LINE_SIZE];
static size_t published_count;

static void read_published(void)
{
    char path[4096]; /* the runner says where the sources are; else it was started among them */
    const char *top = getenv("TEST_TOP");
    snprintf(path, sizeof(path), "%s/tests/unit/methods-0-9-1.txt", top == NULL ? "." : top);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (published_count < LINES_MAX &&
           fgets(published[published_count], LINE_SIZE, file) != NULL) {
        char *line = published[published_count];
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '#' && line[0] != '\0')
            published_count++;
    }
    ck_assert(feof(file));
    fclose(file);
}

static bool same_line(const char *ours, const char *theirs)
{
    for (; *ours != '\0' && *theirs != '\0'; ours++, theirs++)
        if (*ours != *theirs && !(*ours == '_' && *theirs == '-'))
            return false;
    return *ours == *theirs;
}

START_TEST(what_is_defined_is_published)
{
    read_published();
    for (size_t i = 0; i < countof(defined); i++) {
        size_t at = 0;
        while (at < published_count && !same_line(defined[i], published[at]))
            at++;
        ck_assert_msg(at < published_count, "not published: %s", defined[i]);
    }
}
END_TEST

START_TEST(what_is_published_is_defined)
{
    read_published();
    for (size_t i = 0; i < published_count; i++) {
        size_t at = 0;
        while (at < countof(defined) && !same_line(defined[at], published[i]))
            at++;
        ck_assert_msg(at < countof(defined), "not defined: %s", published[i]);
    }
    ck_assert_uint_eq(published_count, countof(defined));
}
END_TEST

static const struct {
    uint32_t id;
    uint16_t class_id, method_id;
    const char *name;
} methods[] = {
#define METHOD(NAME, name, text, class, method, ...) {AMQP_##NAME, class, method, text},
#include "amqp/methods.def"
};

/* Whether there is a method "x-ok" for "x"; it stands close behind. */
static bool has_reply(size_t at)
{
    char reply[64];
    snprintf(reply, sizeof(reply), "%s-ok", methods[at].name);
    for (size_t i = at + 1; i < countof(methods) && i < at + 3; i++)
        if (strcmp(methods[i].name, reply) == 0)
            return true;
    return false;
}

/* What the list does not say, against itself. */
START_TEST(traits_agree)
{
    for (size_t i = 0; i < countof(methods); i++) {
        const struct amqp_method_info *info = amqp_method_info(methods[i].id);
        ck_assert_str_eq(info->name, methods[i].name);
        ck_assert_msg(info->synchronous == has_reply(i), "%s", info->name);
        ck_assert_uint_eq(amqp_class_of(methods[i].id), methods[i].class_id);
        ck_assert_uint_eq(amqp_method_of(methods[i].id), methods[i].method_id);
    }
    ck_assert_ptr_null(amqp_method_info(0));
    ck_assert_ptr_null(amqp_method_info(40 << 16 | 41)); /* unbind-ok is 40,51 */
    ck_assert_int_eq(amqp_method_info(AMQP_BASIC_PUBLISH)->senders, AMQP_FROM_CLIENT);
    ck_assert_int_eq(amqp_method_info(AMQP_BASIC_DELIVER)->senders, AMQP_FROM_SERVER);
    ck_assert_int_eq(amqp_method_info(AMQP_BASIC_CANCEL)->senders, AMQP_FROM_BOTH);
    ck_assert(amqp_method_info(AMQP_BASIC_PUBLISH)->has_content);
    ck_assert(!amqp_method_info(AMQP_BASIC_GET)->has_content);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("speccheck");
    TCase *tests = tcase_create("speccheck");
    tcase_add_test(tests, what_is_defined_is_published);
    tcase_add_test(tests, what_is_published_is_defined);
    tcase_add_test(tests, traits_agree);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
