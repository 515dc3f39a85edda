/* log: one event, one line, whatever it holds; and no more of them than allowed. */
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/unit.h"

enum { PREFIX = sizeof "2026-01-02 10:44:33.654321+00:00 " - 1 };

static int file;
static char content[1 << 20];

static void set_up(void)
{
    file = memfd_create("log", 0);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(fcntl(file, F_SETFL, O_APPEND), 0);
    log_to(file);
}

static void tear_down(void)
{
    log_look_for_journal(NULL);
    log_to(STDERR_FILENO);
    close(file);
}

/* All that was logged since the last call. */
static const char *logged(void)
{
    const ssize_t size = pread(file, content, sizeof content - 1, 0);
    ck_assert_int_ge(size, 0);
    content[size] = '\0';
    ck_assert_int_eq(ftruncate(file, 0), 0);
    return content;
}

static size_t count_of(const char *text, const char *what)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        count++;
    return count;
}

START_TEST(writes_time_level_and_text)
{
    const time_t before = time(NULL);
    log_info("accepting %s %d -> %d", "connection", 52771, 5672);
    const char *line = logged();
    ck_assert_str_eq(line + PREFIX, "[info] accepting connection 52771 -> 5672\n");

    struct tm utc = {0};
    int microseconds = 0, end = 0;
    ck_assert_int_eq(sscanf(line, "%4d-%2d-%2d %2d:%2d:%2d.%6d+00:00 %n", &utc.tm_year, &utc.tm_mon,
                            &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &microseconds,
                            &end),
                     7);
    ck_assert_int_eq(end, PREFIX);
    utc.tm_year -= 1900;
    utc.tm_mon -= 1;
    const time_t at = timegm(&utc);
    ck_assert(at >= before && at <= time(NULL));
}
END_TEST

START_TEST(obeys_the_level)
{
    log_debug("unseen");
    ck_assert_str_eq(logged(), "");
    log_level = LOG_DEBUG;
    log_debug("a");
    log_notice("b");
    log_warning("c");
    log_error("d");
    log_critical("e");
    const char *all = logged();
    static const char *const expected[] = {"[debug] a\n", "[notice] b\n", "[warning] c\n",
                                           "[error] d\n", "[critical] e\n"};
    for (size_t i = 0; i < countof(expected); i++)
        ck_assert_ptr_nonnull(strstr(all, expected[i]));
    log_level = LOG_NONE;
    log_critical("unseen");
    ck_assert_str_eq(logged(), "");
    log_level = LOG_INFO;
}
END_TEST

START_TEST(the_journal_gets_priorities)
{
    static const char *const expected[] = {"<7>", "<6>", "<5>", "<4>", "<3>", "<2>"};
    struct stat status;
    char stream[64];

    ck_assert_int_eq(fstat(file, &status), 0);
    snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    log_look_for_journal(stream);
    log_level = LOG_DEBUG;
    log_debug("m");
    log_info("m");
    log_notice("m");
    log_warning("m");
    log_error("m");
    log_critical("m");
    log_level = LOG_INFO;
    const char *line = logged();
    for (size_t i = 0; i < countof(expected); i++, line = strchr(line, '\n') + 1) {
        ck_assert_int_eq(strncmp(line, expected[i], 3), 0);
        ck_assert_str_eq(log_priority((enum log_level)i), expected[i]);
        ck_assert_int_eq(line[3 + PREFIX], '[');
    }
}
END_TEST

START_TEST(what_is_not_the_journal_gets_none)
{
    struct stat status;
    char other_inode[64], other_device[64];

    ck_assert_int_eq(fstat(file, &status), 0);
    snprintf(other_inode, sizeof other_inode, "%ju:%ju", (uintmax_t)status.st_dev,
             (uintmax_t)status.st_ino + 1);
    snprintf(other_device, sizeof other_device, "%ju:%ju", (uintmax_t)status.st_dev + 1,
             (uintmax_t)status.st_ino);
    const char *const streams[] = {NULL, "", ":", "7", "7:", "a:b", other_inode, other_device};
    for (size_t i = 0; i < countof(streams); i++) {
        log_look_for_journal(streams[i]);
        log_error("m");
        ck_assert_str_eq(logged() + PREFIX, "[error] m\n");
        ck_assert_str_eq(log_priority(LOG_ERROR), "");
    }
}
END_TEST

START_TEST(parses_levels)
{
    static const char *const names[] = {"debug", "info",     "notice", "warning",
                                        "error", "critical", "none"};
    enum log_level level;
    for (size_t i = 0; i < countof(names); i++) {
        ck_assert(log_level_parse(names[i], &level));
        ck_assert_int_eq((int)level, (int)i);
    }
    ck_assert(!log_level_parse("", &level));
    ck_assert(!log_level_parse("Info", &level));
    ck_assert(!log_level_parse("warn", &level));
}
END_TEST

START_TEST(escapes) /* CVE-2015-8786 */
{
    static const struct {
        const char *text, *line;
    } cases[] = {
        {"plain ~ \\ text", "plain ~ \\ text"},
        {"a\r\nb", "a\\x0d\\x0ab"},
        {"\x1b[31mred\x07\t", "\\x1b[31mred\\x07\\x09"},
        {"\x7f", "\\x7f"},
        {"gr\xc3\xbc\xc3\x9f, \xe2\x82\xac, \xf0\x9f\x90\x87",
         "gr\xc3\xbc\xc3\x9f, \xe2\x82\xac, \xf0\x9f\x90\x87"},
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},     /* the last character */
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* beyond it */
        {"\xff\xfe", "\\xff\\xfe"},
        {"\x80\xbf", "\\x80\\xbf"}, /* continuations alone */
        {"\xc0\xaf", "\\xc0\\xaf"}, /* longer than need be */
        {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},
        {"\xf0\x80\x80\xaf", "\\xf0\\x80\\x80\\xaf"},
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* a surrogate */
        {"\xc2\x9b"
         "31m",
         "\\xc2\\x9b"
         "31m"}, /* a control of Latin 1 */
        {"\xc2\xa0", "\xc2\xa0"},
        {"\xe2\x82", "\\xe2\\x82"}, /* cut short */
        {"\xe2\x82x", "\\xe2\\x82x"},
        {"\xf0\x9f\x90", "\\xf0\\x9f\\x90"},
        {"\xc3", "\\xc3"},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        char expected[256];
        log_info("%s", cases[i].text);
        snprintf(expected, sizeof expected, "[info] %s\n", cases[i].line);
        ck_assert_str_eq(logged() + PREFIX, expected);
    }
}
END_TEST

/* Around the limit, with bytes that take one, four, and a character of two or three. */
START_TEST(cuts_long_lines)
{
    static const char *const units[] = {"x", "\n", "\xc3\xbc", "\xe2\x82\xac"};
    static char text[3 * 6000 + 1];
    for (size_t unit = 0; unit < countof(units); unit++) {
        for (size_t count = 980; count < 6000; count += count < 1060 || count > 4020 ? 7 : 40) {
            text[0] = '\0';
            char *end = text;
            for (size_t i = 0; i < count; i++)
                end = stpcpy(end, units[unit]);
            struct log_site site = {0};
            log_write(&site, LOG_INFO, "%s", text);

            const char *line = logged();
            const size_t size = strlen(line);
            ck_assert_uint_le(size, 4096);
            ck_assert_uint_eq(count_of(line, "\n"), 1);
            ck_assert_int_eq(line[size - 1], '\n');
            const size_t escaped = units[unit][0] == '\n' ? 4 : strlen(units[unit]);
            const bool cut = size >= 4 && strcmp(line + size - 4, "...\n") == 0;
            ck_assert_int_eq(cut, PREFIX + 7 + count * escaped + 4 > 4096);
            if (cut) {
                ck_assert_uint_gt(size, 4096 - 4);
                ck_assert_uint_eq((size - PREFIX - 7 - 4) % escaped, 0);
            }
        }
    }
}
END_TEST

static void log_from_one_place(int number)
{
    log_warning("flood %d", number);
}

static void wait_for_the_next_second(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    nanosleep(&(struct timespec){.tv_nsec = 1000000000 - now.tv_nsec - 1}, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

START_TEST(mutes_a_flood)
{
    wait_for_the_next_second();
    for (int i = 0; i < 500; i++)
        log_from_one_place(i);
    log_info("another place");
    const char *all = logged();
    ck_assert_uint_eq(count_of(all, "flood"), LOG_BURST);
    ck_assert_ptr_nonnull(strstr(all, "flood 49\n"));
    ck_assert_uint_eq(count_of(all, "another place"), 1);

    wait_for_the_next_second();
    log_from_one_place(1000);
    log_from_one_place(1001);
    all = logged();
    ck_assert_str_eq(strchr(all, '['), strstr(all, "[warning] 450 lines like the next one"));
    ck_assert_uint_eq(count_of(all, "\n"), 3);
    ck_assert_uint_eq(count_of(all, "flood 1000\n"), 1);
    ck_assert_uint_eq(count_of(all, "flood 1001\n"), 1);
}
END_TEST

static void *flood(void *argument)
{
    for (int i = 0; i < 1000; i++)
        log_from_one_place(i);
    return argument;
}

START_TEST(threads_share_the_limit)
{
    pthread_t threads[4];
    wait_for_the_next_second();
    for (size_t i = 0; i < countof(threads); i++)
        pthread_create(&threads[i], NULL, flood, NULL);
    for (size_t i = 0; i < countof(threads); i++)
        pthread_join(threads[i], NULL);
    const char *all = logged();
    const size_t lines = count_of(all, "\n");
    ck_assert_uint_eq(count_of(all, "[warning] flood "), lines); /* none torn */
    ck_assert_uint_eq(lines, LOG_BURST);
}
END_TEST

START_TEST(leaves_errno_alone)
{
    errno = ENOSPC;
    log_error("cannot write: %m");
    ck_assert_int_eq(errno, ENOSPC);
    ck_assert_str_eq(logged() + PREFIX, "[error] cannot write: No space left on device\n");
    log_to(-1);
    errno = ENOENT;
    log_error("nowhere to go");
    ck_assert_int_eq(errno, ENOENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *tests = tcase_create("log");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, writes_time_level_and_text);
    tcase_add_test(tests, obeys_the_level);
    tcase_add_test(tests, the_journal_gets_priorities);
    tcase_add_test(tests, what_is_not_the_journal_gets_none);
    tcase_add_test(tests, parses_levels);
    tcase_add_test(tests, escapes);
    tcase_add_test(tests, cuts_long_lines);
    tcase_add_test(tests, mutes_a_flood);
    tcase_add_test(tests, threads_share_the_limit);
    tcase_add_test(tests, leaves_errno_alone);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
