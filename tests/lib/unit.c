/* check's own TAP output names a test by its source file and case and breaks on messages of several
 * lines. Its log, written to a file in memory, has everything needed:
 *
 *     Running suite map
 *     tests/unit/test_map.c:31:P:map:finds_what_was_inserted:0: Passed
 *     tests/unit/test_map.c:57:F:map:grows:2: the message, which may
 *     go on for more lines
 *     Results for all suites run:
 *     50%: Checks: 2, Failures: 1, Errors: 0
 *
 * P passed, F failed, E ended early; after the test's name comes the round of a loop test. */
#include "tests/lib/unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* check's four seconds are too few under a sanitizer on a busy machine. Cases read the variable
 * when they are created, which is before unit_main. */
__attribute__((constructor)) static void set_default_timeout(void)
{
    setenv("CK_DEFAULT_TIMEOUT", "60", 0);
}

struct result {
    char file[256], type[2], name[256];
    int line, round, message; /* message: where it begins in the log's line */
};

static bool parse_result(const char *line, struct result *result)
{
    result->message = 0;
    sscanf(line, "%255[^:]:%d:%1[PFE]:%*[^:]:%255[^:]:%d: %n", result->file, &result->line,
           result->type, result->name, &result->round, &result->message);
    return result->message > 0;
}

static void print_result(const char *suite, int number, const struct result *result,
                         const char *message)
{
    const bool passed = result->type[0] == 'P';
    printf("%sok %d - %s/%s", passed ? "" : "not ", number, suite, result->name);
    if (result->round > 0)
        printf("[%d]", result->round);
    printf("\n");
    if (!passed)
        printf("# %s:%d: %s", result->file, result->line, message);
}

static int print_tap(FILE *log)
{
    char suite[256] = "unit";
    char *line = NULL;
    size_t capacity = 0;
    int count = 0;
    bool failed = false; /* the last test, so that a further line belongs to its message */

    printf("TAP version 13\n");
    while (getline(&line, &capacity, log) >= 0) {
        struct result result;
        if (strncmp(line, "Results for all suites run", 26) == 0)
            break;
        if (sscanf(line, "Running suite %255[^\n]", suite) == 1)
            continue;
        if (parse_result(line, &result)) {
            print_result(suite, ++count, &result, line + result.message);
            failed = result.type[0] != 'P';
        } else if (failed) {
            printf("# %s", line);
        }
    }
    printf("1..%d\n", count);
    free(line);
    return count;
}

int unit_main(Suite *suite)
{
    char path[64];
    const int fd = memfd_create("check-log", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    FILE *log = fd < 0 ? NULL : fopen(path, "r");
    if (log == NULL) {
        perror("unit: cannot make a file for check's log");
        return 1;
    }

    SRunner *runner = srunner_create(suite);
    srunner_set_log(runner, path);
    srunner_run_all(runner, CK_SILENT);
    const int failed = srunner_ntests_failed(runner);
    const int run = srunner_ntests_run(runner);
    srunner_free(runner);

    const int reported = print_tap(log);
    fclose(log);
    close(fd);
    return failed > 0 || reported != run;
}
