/* Enumerated crash states: what a power cut can leave of the store, at every moment and in every
 * way.
 *
 *     crash_states [--count N] [--seed S] [--jobs N] [--bug NAME] [--keep DIR]
 *
 * A round drives the store (store.h, on LMDB) with a random workload (workload.h) and logs what it
 * says to the kernel (recorder.h). Then the log is walked. Before each call that makes something
 * durable, the disk (disk.h) is what was durable, and of what was still pending anything:
 *
 *     every subset       where a moment has up to SUBSETS_MAX pending writes, in some of the
 *                        moments, if that leaves states for others
 *     prefixes, suffixes, random subsets, torn writes      a few in each
 *
 * Each such state is made a directory and given, in a process of its own, to the real store: it
 * must open by itself, its last LSN must be one that was submitted and not below what was said to
 * be durable, and all it holds must be exactly what the model holds at that LSN (model.h). In some
 * of the states the store must go on working: some more batches, a clean end, and once more all of
 * it is read. Now and then what it does while it recovers and goes on is logged as well, and
 * crashed in the same way: a second power cut.
 *
 * The child by which each start looks at the file first (salvage.h) costs more than all the rest of
 * a state. So most states have none: a store that cannot be read then ends the state's process,
 * which is complained of as well. Where there is one, it must never find a salvage due: a power cut
 * is no damage.
 *
 * Each of the jobs is a process of its own that takes the next round until all have come to the
 * count.
 *
 * A seed repeats the workload and what is chosen. When the store tidies up between two batches is
 * its thread's own decision, so that a state which fails is kept (--keep) rather than made again:
 * then all is done below that directory, which should be in memory.
 *
 * Bugs are those of base/fault.def that live in the store; confirm-before-commit and drop-ack,
 * which are the owner's, are played by this program. The status is 0 when there was nothing to
 * complain about. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "store/salvage.h"
#include "tests/states/disk.h"
#include "tests/states/workload.h"

enum {
    BATCHES = 30,       /* in a round */
    BATCHES_AFTER = 3,  /* of a store that has recovered ... */
    AFTER_SHARE = 3,    /* ... in one of so many states */
    PATIENCE = 3,       /* commits that a blob is left sparse: what reclaims is to be seen */
    REST_SHARE = 12,    /* one in so many batches of a round is followed by a rest, ... */
    REST_US = 130000,   /* ... long enough for the store to tidy up */
    REOPEN_SHARE = 12,  /* one in so many batches is followed by a clean end and a new start */
    SUBSETS_MAX = 12,   /* so many pending writes have all their subsets tried ... */
    SUBSETS_SHARE = 24, /* ... in one of so many moments */
    STATES_A_MOMENT = 10,
    TWICE_SHARE = 16,    /* one in so many states is crashed in once more ... */
    STATES_TWICE = 5,    /* ... in about so many ways */
    COMPLAINTS_MAX = 5,  /* then it is enough */
    STATE_SECONDS = 600, /* to open, read and go on: by far, for a machine may be busy */
    LOOK_SHARE = 8,      /* one in so many starts looks at the file first */
    PROGRESS = 1000,     /* states */
    JOBS_MAX = 64,
};

static const size_t map_size = (size_t)256 << 20;

static struct {
    uint64_t count, seed, jobs;
    const char *keep;
    bool bugs[FAULT_BUG_COUNT];
} options = {.count = 20000, .seed = 1, .jobs = 1};

/* What the processes tell each other. */
static struct shared {
    _Atomic uint64_t rounds, starts, states, twice, writes, complaints, passes[FAULT_POINT_COUNT];
    struct shared_state {
        uint64_t number; /* being tried */
        char complaint[1024];
    } state[JOBS_MAX][2]; /* by depth */
} * shared;

static uint64_t complaints; /* of this process */
static uint64_t job;
static char top[64]; /* the directory of all others */
static time_t begin_time;

/* ---- in place of tests/faults ---------------------------------------------------------------- */

void fault_point(enum fault_point point)
{
    shared->passes[point]++;
}

bool fault_bug(enum fault_bug bug)
{
    return options.bugs[bug];
}

/* Time goes by in large steps, so that trimming and reclaiming have slices of a few rows. */
int clock_gettime(clockid_t id, struct timespec *now)
{
    static _Atomic uint64_t fake_ms;
    const int error = (int)syscall(SYS_clock_gettime, id, now);

    if (id == CLOCK_MONOTONIC)
        now->tv_sec += (time_t)(++fake_ms / 1000);
    if (id == CLOCK_MONOTONIC)
        now->tv_nsec = (long)(fake_ms % 1000 * 1000000);
    return error;
}

/* In front of the store's own (the Makefile wraps it). */
bool __real_salvage_is_due(const struct store_options *open);
bool __wrap_salvage_is_due(const struct store_options *open);

static bool salvage_was_due;

bool __wrap_salvage_is_due(const struct store_options *open)
{
    salvage_was_due = shared->starts++ % LOOK_SHARE == 0 && __real_salvage_is_due(open);
    return salvage_was_due;
}

/* ---- directories ----------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void make_directory(char path[96], const char *name, int depth)
{
    snprintf(path, 96, "%s/%s-%" PRIu64 "-%d", top, name, job, depth);
    remove_tree(path);
    if (mkdir(path, 0700) != 0) {
        perror(path);
        exit(2);
    }
}

/* ---- driving --------------------------------------------------------------------------------- */

/* A store that is being driven; models[lsn - first_lsn] is what it holds at that LSN. */
struct drive {
    const char *directory;
    struct workload workload;
    ARRAY_OF(struct model *) models;
    uint64_t first_lsn;
};

static void remember(struct drive *drive)
{
    struct model *model = model_copy(drive->workload.model);

    if (drive->models.count == 0)
        drive->first_lsn = model->lsn;
    assert(model->lsn == drive->first_lsn + drive->models.count);
    *array_add(&drive->models) = model;
}

static const struct model *model_at(const struct drive *drive, uint64_t lsn)
{
    assert(lsn >= drive->first_lsn && lsn < drive->first_lsn + drive->models.count);
    return drive->models.items[lsn - drive->first_lsn];
}

static void drive_release(struct drive *drive)
{
    for (uint32_t i = 0; i < drive->models.count; i++)
        model_free(&drive->models.items[i]);
    array_release(&drive->models);
    model_free(&drive->workload.model);
}

static bool drive_open(struct drive *drive, struct buf *wrong)
{
    char error[STORE_ERROR_SIZE] = "";
    const struct store_options open = {
        .directory = drive->directory, .map_size = map_size, .reclaim_patience = PATIENCE};
    const int rc = store_open(&open, &drive->workload.store, error);

    if (rc != 0) {
        buf_printf(wrong, "it does not open: %d: %s; ", rc, error);
        return false;
    }
    if (salvage_was_due)
        buf_printf(wrong, "a salvage was due; ");
    store_on_body_done(drive->workload.store, workload_on_body_done);
    return true;
}

static bool submit(struct drive *drive, struct buf *wrong)
{
    const uint64_t lsn = drive->workload.model->lsn;

    recorder_mark(CALL_SUBMITTED, lsn);
    store_submit(drive->workload.store);
    if (fault_bug(FAULT_CONFIRM_BEFORE_COMMIT))
        recorder_mark(CALL_DURABLE, lsn);
    const int error = settle_store(drive->workload.store);
    if (error != 0)
        buf_printf(wrong, "batch %" PRIu64 " fails with %d; ", lsn, error);
    recorder_mark(CALL_DURABLE, store_durable(drive->workload.store));
    return error == 0;
}

static bool drive_close(struct drive *drive, struct buf *wrong)
{
    struct model *model = drive->workload.model;

    model->lsn = store_open_lsn(drive->workload.store);
    model->closing = true;
    remember(drive);
    recorder_mark(CALL_SUBMITTED, model->lsn);
    const int error = store_close(&drive->workload.store);
    if (error != 0)
        buf_printf(wrong, "it does not close: %d; ", error);
    recorder_mark(CALL_DURABLE, model->lsn);
    return error == 0;
}

/* Reads all of the store, which has just been opened, and compares. */
static void look(struct drive *drive, const struct model *model, struct buf *wrong)
{
    struct observed observed;

    observe(drive->workload.store, &observed);
    if (observed.lsn != model->lsn)
        buf_printf(wrong, "after LSN %" PRIu64 " it opens at %" PRIu64 "; ", model->lsn,
                   observed.lsn);
    compare(&observed, model, wrong);
    observed_release(&observed);
}

/* Batches on an open store, then a clean end and a look at it. What is wrong is said. */
static void drive_on(struct drive *drive, int batches, struct buf *wrong)
{
    struct workload *workload = &drive->workload;

    for (int i = 0; i < batches; i++) {
        workload_fill(workload);
        remember(drive);
        if (!submit(drive, wrong))
            return;
        if (batches == BATCHES && random_below(workload->random, REST_SHARE) == 0)
            usleep(REST_US);
        if (i + 1 < batches && random_below(workload->random, REOPEN_SHARE) == 0 &&
            (!drive_close(drive, wrong) || !drive_open(drive, wrong)))
            return;
    }
    if (!drive_close(drive, wrong) || !drive_open(drive, wrong))
        return;
    look(drive, workload->model, wrong);
    drive_close(drive, wrong);
}

static void complain(const char *directory, const struct buf *text)
{
    complaints++;
    printf("%.*s\n", SLICE_ARG(buf_slice(text)));
    if (options.keep != NULL) {
        char kept[192];
        snprintf(kept, sizeof kept, "%s/%ld-%" PRIu64, options.keep, (long)getpid(), complaints);
        const int error = syscall(SYS_rename, directory, kept) == 0 ? 0 : errno;
        printf("kept in %s: %s\n", kept, strerror(error));
    }
    fflush(stdout);
}

/* ---- the states of a moment ---------------------------------------------------------------- */

/* States have numbers, so that one can be made again: after its process died, to say what it
 * was. */
struct moment {
    struct disk *disk;
    const struct drive *drive; /* that was under way */
    uint32_t at;               /* in the log */
    int depth;                 /* 0: the first crash */
    uint64_t seed;
    uint64_t subsets; /* the first so many states are every subset */
    uint64_t count;   /* of states in all */
};

/* The writes that have a fate of their own: the n-th by bit n of the mask. */
static void set_fates(struct disk *disk, uint64_t mask)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < disk->pending.count; i++)
        if (!disk->pending.items[i].forced)
            disk->pending.items[i].fate = mask >> (n++ % 64) & 1 ? FATE_WRITTEN : FATE_LOST;
}

/* Those before, or from, a random place. */
static void set_cut(struct disk *disk, bool prefix, struct random *random)
{
    const uint64_t cut = random_below(random, disk->pending.count + 1U);

    for (uint32_t i = 0; i < disk->pending.count; i++)
        disk->pending.items[i].fate = (i < cut) == prefix ? FATE_WRITTEN : FATE_LOST;
}

static void set_torn(struct disk *disk, struct random *random)
{
    set_fates(disk, random_u64(random) | random_u64(random));
    if (disk->pending.count > 0)
        disk->pending.items[random_below(random, disk->pending.count)].fate = FATE_TORN;
}

/* Sets the fates of a state; answers how many of the pending namings happened. What else is random
 * about the state comes from random, too. */
static uint32_t choose_state(const struct moment *moment, uint64_t number, struct random *random)
{
    struct disk *disk = moment->disk;

    random_init_seeded(random, moment->seed + number);
    if (number < moment->subsets)
        set_fates(disk, number);
    else if (number - moment->subsets < 2)
        set_fates(disk, number == moment->subsets ? 0 : UINT64_MAX);
    else if (random_below(random, 2) == 0)
        set_cut(disk, random_below(random, 2) == 0, random);
    else if (random_below(random, 2) == 0)
        set_torn(disk, random);
    else
        set_fates(disk, random_u64(random));
    return random_below(random, 2) == 0 ? disk->naming.count
                                        : (uint32_t)random_below(random, disk->naming.count + 1U);
}

/* ---- one state ------------------------------------------------------------------------------- */

static void explore(const struct call_log *log, uint32_t first, const struct drive *drive,
                    int depth, struct random *random);

/* What the store, open after a crash, holds; and what it does from here. Answers whether it may be
 * crashed again. */
static bool go_on(const struct moment *moment, struct drive *drive, int batches, struct buf *wrong)
{
    const uint64_t lsn = store_open_lsn(drive->workload.store) - 1;
    const uint64_t durable = moment->disk->durable, submitted = moment->disk->submitted;

    if (lsn < durable || lsn > submitted) {
        buf_printf(wrong, "it opens at LSN %" PRIu64 ", which is %s; ", lsn,
                   lsn < durable ? "below what was durable" : "above what was submitted");
        return false;
    }
    drive->workload.model = model_copy(model_at(moment->drive, lsn));
    remember(drive);
    look(drive, drive->workload.model, wrong);
    if (buf_size(wrong) > 0)
        return false;
    if (batches > 0)
        drive_on(drive, batches, wrong);
    else
        drive_close(drive, wrong);
    return buf_size(wrong) == 0;
}

static void try_state(const struct moment *moment, uint64_t number, struct buf *wrong)
{
    char directory[96];
    struct random random;
    struct drive drive = {.directory = directory, .workload = {.random = &random}};
    struct call_log log = {0};

    make_directory(directory, "state", moment->depth);
    disk_write_state(moment->disk, choose_state(moment, number, &random), &random, directory);
    const bool twice = moment->depth == 0 && random_below(&random, TWICE_SHARE) == 0;
    const int batches = twice || random_below(&random, AFTER_SHARE) == 0 ? BATCHES_AFTER : 0;
    if (twice)
        recorder_begin(directory, &log);
    const uint32_t first = log.calls.count;
    const bool went_on = drive_open(&drive, wrong) && go_on(moment, &drive, batches, wrong);
    recorder_end();
    if (!went_on)
        return;
    if (twice)
        explore(&log, first, &drive, moment->depth + 1, &random);
    call_log_release(&log);
    drive_release(&drive);
}

static void say_progress(uint64_t states)
{
    if (states % PROGRESS == 0) {
        printf("%" PRIu64 " crash states in %ld s\n", states, (long)(time(NULL) - begin_time));
        fflush(stdout);
    }
}

/* A process that tries states until one fails, which it leaves as shared->state. */
static void try_states(const struct moment *moment, uint64_t from)
{
    struct buf wrong = BUF_EMPTY;

    for (uint64_t number = from; number < moment->count; number++) {
        struct shared_state *state = &shared->state[job][moment->depth];
        const uint64_t before = complaints;
        state->number = number;
        state->complaint[0] = '\0';
        alarm(STATE_SECONDS);
        try_state(moment, number, &wrong);
        say_progress(++shared->states);
        shared->twice += (uint64_t)moment->depth;
        if (complaints > before)
            buf_printf(&wrong, "what went on from here did not survive");
        if (buf_size(&wrong) > 0) {
            snprintf(state->complaint, sizeof state->complaint, "%.*s",
                     SLICE_ARG(buf_slice(&wrong)));
            _exit(1);
        }
    }
    _exit(0);
}

/* What is said of a state: when, what was promised, the fate of each pending write ('-' lost, '+'
 * written, '~' torn, '!' written through), what is wrong. */
static void complain_of(const struct moment *moment, int status)
{
    const struct shared_state *state = &shared->state[job][moment->depth];
    const struct disk *disk = moment->disk;
    struct random random;
    char directory[96];
    struct buf text = BUF_EMPTY;
    const uint32_t names = choose_state(moment, state->number, &random);

    buf_printf(
        &text, "%s at call %" PRIu32 ", LSN %" PRIu64 " durable, %" PRIu64 " submitted, writes ",
        moment->depth == 0 ? "crash" : "second crash", moment->at, disk->durable, disk->submitted);
    for (uint32_t i = 0; i < disk->pending.count; i++)
        buf_printf(&text, "%c",
                   disk->pending.items[i].forced ? '!' : "-+~"[disk->pending.items[i].fate]);
    if (disk->naming.count > 0)
        buf_printf(&text, ", %" PRIu32 " of %" PRIu32 " namings", names, disk->naming.count);
    if (WIFSIGNALED(status))
        buf_printf(&text, ": ended by signal %d", WTERMSIG(status));
    else
        buf_printf(&text, ": %s", state->complaint);
    make_directory(directory, "state", moment->depth); /* as it was before it was tried */
    disk_write_state(disk, names, &random, directory);
    complain(directory, &text);
    buf_release(&text);
}

static bool is_enough(void)
{
    return complaints >= COMPLAINTS_MAX || shared->complaints >= COMPLAINTS_MAX ||
           shared->states >= options.count;
}

static void check_moment(const struct moment *moment)
{
    uint64_t next = 0;
    int status;

    while (next < moment->count && complaints < COMPLAINTS_MAX) {
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0)
            try_states(moment, next);
        if (child < 0 || waitpid(child, &status, 0) != child) {
            perror("a process for a state");
            exit(2);
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            return;
        complain_of(moment, status);
        next = shared->state[job][moment->depth].number + 1;
    }
}

/* ---- all moments ----------------------------------------------------------------------------- */

static void explore_moment(struct moment *moment, struct random *random)
{
    const uint32_t choices = disk_choices(moment->disk);

    moment->seed = random_u64(random);
    if (moment->depth > 0) {
        moment->count = 1 + random_below(random, 3);
    } else {
        if (choices <= SUBSETS_MAX && UINT64_C(1) << choices <= options.count / 4 &&
            random_below(random, SUBSETS_SHARE) == 0)
            moment->subsets = UINT64_C(1) << choices;
        moment->count = min_of(moment->subsets + (choices == 0 ? 1 : STATES_A_MOMENT),
                               options.count - min_of(shared->states, options.count - 1));
    }
    check_moment(moment);
}

/* Before it returns, what was pending is at its most. */
static bool is_moment(enum call_kind kind)
{
    return kind == CALL_SYNC || kind == CALL_THROUGH || kind == CALL_SYNC_NAMES;
}

/* Crashes in the log from call first on; what stands before it is how the directory was found. */
static void explore(const struct call_log *log, uint32_t first, const struct drive *drive,
                    int depth, struct random *random)
{
    struct disk disk;
    int left = STATES_TWICE;

    disk_init(&disk, log);
    disk.durable = disk.submitted = drive->first_lsn;
    for (uint32_t i = 0; i < log->calls.count && (depth > 0 ? left > 0 : !is_enough()); i++) {
        const struct call *call = &log->calls.items[i];
        const bool chosen = depth == 0 || random_below(random, 4) == 0;
        if (i >= first && is_moment(call->kind) && chosen) {
            struct moment moment = {.disk = &disk, .drive = drive, .at = i, .depth = depth};
            explore_moment(&moment, random);
            left -= (int)moment.count;
        }
        shared->writes += depth == 0 && call->kind == CALL_WRITE;
        disk_apply(&disk, call);
    }
    disk_release(&disk);
}

/* ---- rounds ---------------------------------------------------------------------------------- */

static void run_round(uint64_t seed)
{
    char directory[96];
    struct random random;
    struct call_log log = {0};
    struct buf wrong = BUF_EMPTY;
    struct drive drive = {.directory = directory,
                          .workload = {.random = &random, .model = model_new()}};

    random_init_seeded(&random, seed);
    make_directory(directory, "drive", 0);
    recorder_begin(directory, &log);
    remember(&drive); /* of LSN 0 */
    if (drive_open(&drive, &wrong))
        drive_on(&drive, BATCHES, &wrong);
    recorder_end();
    if (buf_size(&wrong) > 0)
        complain(directory, &wrong); /* without any crash */
    else
        explore(&log, 0, &drive, 0, &random);
    drive_release(&drive);
    call_log_release(&log);
    buf_release(&wrong);
}

static void usage(void)
{
    fprintf(stderr,
            "usage: crash_states [--count N] [--seed S] [--jobs N] [--bug NAME] [--keep DIR]\n");
    exit(2);
}

static void set_bug(const char *name)
{
    static const char *const names[] = {
#define BUG(NAME, name, text) [FAULT_##NAME] = name,
#include "base/fault.def"
    };

    for (size_t i = 0; i < countof(names); i++)
        if (strcmp(names[i], name) == 0) {
            options.bugs[i] = true;
            return;
        }
    fprintf(stderr, "crash_states: there is no bug called %s\n", name);
    exit(2);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            usage();
        else if (strcmp(argv[i], "--count") == 0)
            options.count = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--seed") == 0)
            options.seed = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--jobs") == 0)
            options.jobs = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--bug") == 0)
            set_bug(argv[i + 1]);
        else if (strcmp(argv[i], "--keep") == 0)
            options.keep = argv[i + 1];
        else
            usage();
    }
    if (options.jobs == 0 || options.jobs > JOBS_MAX)
        usage();
}

/* What was seen of the store, in what was driven and in what went on after a crash. */
static void print_passes(void)
{
    static const char *const names[] = {
#define POINT(NAME, name, text) [FAULT_##NAME] = name,
#include "base/fault.def"
    };
    const char *separator = "passed";

    for (size_t i = 0; i < countof(names); i++) {
        if (shared->passes[i] > 0) {
            printf("%s %s %" PRIu64, separator, names[i], shared->passes[i]);
            separator = ",";
        }
    }
    printf("\n");
}

static void run_rounds(void)
{
    while (!is_enough())
        run_round(options.seed + shared->rounds++);
    shared->complaints += complaints;
}

/* Whether all of them came to their end. */
static bool run_jobs(void)
{
    bool good = true;
    int status;

    for (job = 0; job < options.jobs; job++) {
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            run_rounds();
            fflush(stdout);
            _exit(0);
        }
        good = good && child > 0;
    }
    while (wait(&status) > 0)
        good = good && status == 0;
    return good;
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    const char *temporary = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    snprintf(top, sizeof top, "%s/crash-states.XXXXXX",
             options.keep != NULL            ? options.keep
             : access("/dev/shm", W_OK) == 0 ? "/dev/shm"
                                             : temporary);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mkdtemp(top) == NULL || shared == MAP_FAILED) {
        perror(top);
        return 2;
    }
    log_level = LOG_NONE;
    mallopt(M_MMAP_THRESHOLD,
            1 << 17); /* or LMDB's lists, megabytes each, are cleared and copied */
    begin_time = time(NULL);
    const bool good = run_jobs();
    remove_tree(top);
    printf("%" PRIu64 " crash states of %" PRIu64 " writes in %" PRIu64 " rounds from seed %" PRIu64
           ", %" PRIu64 " of them second crashes, in %ld s: %" PRIu64 " complaints\n",
           shared->states, shared->writes, shared->rounds, options.seed, shared->twice,
           (long)(time(NULL) - begin_time), shared->complaints);
    print_passes();
    return !good ? 2 : shared->complaints == 0 ? 0 : 1;
}
