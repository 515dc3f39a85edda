/* The model test: random sequences of commands, each played to a broker and to the reference, the
 * first that they disagree on shrunk and shown.
 *
 *     model [--seed N] [--count COUNT] [--lmdb DIR]     a sequence for each seed from N on
 *     model --replay FILE [--lmdb DIR] [--trace]        one as text; "-": from standard input
 *     model --show --seed N                             a sequence's text
 *
 * Blocks of sequences run in processes of their own, so that an assertion, a sanitizer's report or
 * an endless loop is a failure like others, and can be shrunk like others. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/model/player.h"
#include "tests/model/shrink.h"

enum { BLOCK = 100, SECONDS_MAX = 60 /* of one sequence */ };

static struct {
    uint64_t seed, count;
    const char *replay;
    bool show;
    struct play_options play;
} options = {.count = 2000};

/* Shared with the child that plays. */
static struct shared {
    uint64_t seed; /* under way */
    struct play_figures figures;
    char failure[FAILURE_SIZE];
} * shared;

/* ---- one process ---- */

/* Runs `child` and waits; false: it did not end well, and shared->failure says why. */
static bool run_apart(void (*child)(const void *context), const void *context)
{
    int status = 0;

    fflush(NULL);
    shared->failure[0] = '\0';
    const pid_t pid = fork();
    if (pid < 0) {
        perror("model: fork");
        exit(2);
    }
    if (pid == 0) {
        child(context);
        fflush(NULL);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            exit(2);
    if (status == 0)
        return true;
    if (shared->failure[0] == '\0')
        snprintf(shared->failure, FAILURE_SIZE, "  the broker ended with %s %d\n",
                 WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return false;
}

static void play_or_exit(const struct sequence *sequence)
{
    alarm(SECONDS_MAX);
    if (!play(sequence, &options.play, &shared->figures, shared->failure))
        _exit(1);
}

static void play_block(const void *context)
{
    const uint64_t *end = context;

    for (; shared->seed < *end; shared->seed++) {
        struct sequence sequence = sequence_generate(shared->seed);
        play_or_exit(&sequence);
        free(sequence.commands);
    }
}

static void play_one(const void *context)
{
    play_or_exit(context);
}

/* What broker and sanitizers say on the way to a minimum would bury it. */
static void play_quietly(const void *context)
{
    if (freopen("/dev/null", "w", stderr) == NULL)
        _exit(2);
    play_or_exit(context);
}

static bool still_fails(const struct sequence *sequence)
{
    return !run_apart(play_quietly, sequence);
}

/* ---- failures ---- */

static void print_as_comment(const char *text)
{
    while (*text != '\0') {
        const size_t size = strcspn(text, "\n");
        printf("# %.*s\n", (int)size, text);
        text += size + (text[size] == '\n');
    }
}

static void print_sequence(const struct sequence *sequence)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    sequence_print(out, sequence);
    fclose(out);
    print_as_comment(text);
    free(text);
}

static void show_failure(void)
{
    struct sequence sequence = sequence_generate(shared->seed);
    const size_t count = sequence.count;

    print_as_comment(shared->failure);
    fflush(stdout);
    if (!still_fails(&sequence)) {
        printf("# seed %" PRIu64 " alone does not fail\n", shared->seed);
        return;
    }
    const size_t runs = shrink(&sequence, still_fails);
    still_fails(&sequence);
    printf("# %zu commands of %zu are left after %zu runs; replay with: model%s%s --replay - "
           "<<'END'\n",
           sequence.count, count, runs, options.play.lmdb != NULL ? " --lmdb " : "",
           options.play.lmdb != NULL ? options.play.lmdb : "");
    print_sequence(&sequence);
    printf("# END\n");
    print_as_comment(shared->failure);
    free(sequence.commands);
}

/* ---- all ---- */

static void print_figures(void)
{
    const struct play_figures *f = &shared->figures;

    printf("# %" PRIu64 " commands, %" PRIu64 " deliveries (%" PRIu64 " of dead letters), %" PRIu64
           " confirmed, %" PRIu64 " refused, %" PRIu64 " channels closed, %" PRIu64
           " restarts, %" PRIu64 " kills; %" PRIu64 " sequences cut short, at most %" PRIu64
           " worlds\n",
           f->commands, f->deliveries, f->letters, f->confirmed, f->refused, f->closed, f->restarts,
           f->kills, f->cut_short, f->worlds_max);
}

static int play_all(void)
{
    const uint64_t end = options.seed + options.count;
    const uint64_t blocks = (options.count + BLOCK - 1) / BLOCK;
    uint64_t number = 0;
    bool good = true;

    printf("TAP version 13\n");
    shared->seed = options.seed;
    while (good && number < blocks) {
        const uint64_t first = shared->seed, block_end = min_of(first + BLOCK, end);
        good = run_apart(play_block, &block_end);
        printf("%sok %" PRIu64 " - model/seeds %" PRIu64 " to %" PRIu64 "\n", good ? "" : "not ",
               ++number, first, block_end - 1);
        if (!good) {
            printf("# seed %" PRIu64 ":\n", shared->seed);
            show_failure();
        }
        fflush(stdout);
    }
    printf("1..%" PRIu64 "\n", number);
    print_figures();
    return good ? 0 : 1;
}

static int replay(void)
{
    FILE *in = strcmp(options.replay, "-") == 0 ? stdin : fopen(options.replay, "r");
    struct sequence sequence;

    if (in == NULL) {
        perror(options.replay);
        return 2;
    }
    if (!sequence_parse(in, &sequence))
        return 2;
    const bool good = run_apart(play_one, &sequence);
    printf("%s%s", good ? "the broker does as it should\n" : "it fails:\n", shared->failure);
    return good ? 0 : 1;
}

static int show(void)
{
    const struct sequence sequence = sequence_generate(options.seed);

    sequence_print(stdout, &sequence);
    return 0;
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (strcmp(argv[i], "--trace") == 0)
            options.play.trace = true;
        else if (strcmp(argv[i], "--show") == 0)
            options.show = true;
        else if (strcmp(argv[i], "--seed") == 0 && more)
            options.seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--count") == 0 && more)
            options.count = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--lmdb") == 0 && more)
            options.play.lmdb = argv[++i];
        else if (strcmp(argv[i], "--replay") == 0 && more)
            options.replay = argv[++i];
        else {
            fprintf(stderr, "usage: model [--seed N] [--count COUNT] [--lmdb DIR]\n"
                            "       model --replay FILE [--lmdb DIR] [--trace]\n"
                            "       model --show --seed N\n");
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("model: mmap");
        return 2;
    }
    if (options.show)
        return show();
    return options.replay != NULL ? replay() : play_all();
}
