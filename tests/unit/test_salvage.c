/* A data file read without LMDB: sound, and injured in one place at a time.
 *
 * The template is what a SIGKILL leaves behind: records, many small queues, gone rows of small
 * segments and of large ones, bodies that queues share, entries that expire, a large body, and
 * ranges of a purged and of a deleted queue that wait to be trimmed. To have these wait, the clock
 * leaps, so that a slice of trimming is one step, and the sync of the next slice is held up while
 * the file is copied. */
#include "store/salvage.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "store/array.h"
#include "store/crc32c.h"
#include "store/datasync.h"
#include "store/offline.h"
#include "store/pages.h"
#include "tests/lib/unit.h"

/* ---- syncs that wait, a clock that leaps ----------------------------------------------------- */

static atomic_int syncs_allowed = INT_MAX, syncs_waiting;
static atomic_bool clock_leaps;

int datasync_disk(int fd)
{
    atomic_fetch_add(&syncs_waiting, 1);
    while (atomic_load(&syncs_allowed) == 0)
        usleep(1000);
    atomic_fetch_sub(&syncs_waiting, 1);
    atomic_fetch_sub(&syncs_allowed, 1);
    return (int)syscall(SYS_fdatasync, fd);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    static atomic_int leaps;
    const int result = (int)syscall(SYS_clock_gettime, id, now);

    if (atomic_load(&clock_leaps))
        now->tv_sec += atomic_fetch_add(&leaps, 1);
    return result;
}

/* ---- another kernel's pages, and less address space ------------------------------------------ */

static long page_size = 4096;
static size_t mapping_max = SIZE_MAX;
static pid_t only_mapper; /* any other process stays in mmap, and says so there; 0: none does */
static int stays_to;
static uint64_t fails_at; /* of another process's allocations after an mmap; 0: none does */
static pid_t own;

long sysconf(int name)
{
    static long (*next)(int name);

    if (next == NULL)
        next = (long (*)(int))(uintptr_t)dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_PAGESIZE ? page_size : next(name);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (size > mapping_max) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    if (only_mapper != 0 && only_mapper != getpid() && write(stays_to, "", 1) == 1)
        for (;;)
            pause();
    if (fails_at != 0 && own != getpid() && fd >= 0)
        alloc_fail_at(fails_at, NULL);
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}

/* ---- a store --------------------------------------------------------------------------------- */

struct rig {
    char directory[64];
    struct store *store;
};

static int open_store(struct rig *rig)
{
    const struct store_options options = {.directory = rig->directory};
    char error[STORE_ERROR_SIZE] = "";

    return store_open(&options, &rig->store, error);
}

static void rig_begin(struct rig *rig)
{
    log_level = LOG_NONE;
    *rig = (struct rig){0};
    snprintf(rig->directory, sizeof rig->directory, "%s/test_salvage.XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(rig->directory));
}

static int unlink_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void rig_end(struct rig *rig)
{
    if (rig->store != NULL)
        ck_assert_int_eq(store_close(&rig->store), 0);
    nftw(rig->directory, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void wait_once(struct rig *rig)
{
    struct pollfd poll_fd = {.fd = store_fd(rig->store), .events = POLLIN};

    ck_assert_int_eq(poll(&poll_fd, 1, 30000), 1);
    ck_assert_int_eq(store_process(rig->store), 0);
}

static void commit(struct rig *rig)
{
    store_submit(rig->store);
    while (store_is_busy(rig->store))
        wait_once(rig);
}

static void on_body_done(void *body_owner)
{
    free(body_owner);
}

static uint32_t add_body(struct rig *rig, uint64_t number, size_t size)
{
    uint8_t *bytes = xmalloc(size);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(number * 31 + i * 7);
    return store_add_body(rig->store, slice_of(bytes, size), bytes);
}

static void put_entry(struct rig *rig, uint64_t queue_id, uint64_t position, uint32_t body)
{
    const struct store_entry entry = {.queue_id = queue_id,
                                      .position = position,
                                      .weight = 8,
                                      .expires_ms = queue_id == 6 ? 5000 + position : 0,
                                      .flags = position % 3 == 0};

    store_put_entry(rig->store, &entry, body);
}

static void put_many(struct rig *rig, uint64_t queue_id, uint64_t first, uint64_t end)
{
    for (uint64_t position = first; position < end; position++)
        put_entry(rig, queue_id, position, add_body(rig, position, 10 + position % 30));
}

static void delete_many(struct rig *rig, uint64_t queue_id, uint64_t first, uint64_t end,
                        uint64_t step)
{
    for (uint64_t position = first; position < end; position += step)
        store_delete_entry(rig->store, queue_id, position, 8);
}

/* ---- what a store holds, as text ------------------------------------------------------------- */

struct listing {
    FILE *text;
    ARRAY_OF(struct store_queue_state) queues;
};

static void on_record(void *context, struct slice key, struct slice value)
{
    struct listing *listing = context;

    fprintf(listing->text, "record %u/%" PRIu64 " %.*s\n", key.data[0], get_u64(key.data + 1),
            SLICE_ARG(value));
}

static void on_queue(void *context, const struct store_queue_state *state)
{
    struct listing *listing = context;

    *array_add(&listing->queues) = *state;
}

static bool fetched;

static void on_fetched(struct store_fetch *fetch)
{
    (void)fetch;
    fetched = true;
}

static void list_queue(struct rig *rig, struct listing *listing,
                       const struct store_queue_state *state)
{
    struct store_fetch fetch = {.queue_id = state->queue_id,
                                .end = STORE_POSITION_END,
                                .count_max = 10000,
                                .bytes_max = 1 << 24,
                                .on_done = on_fetched};

    fprintf(listing->text, "queue %" PRIu64 " to %" PRIu64 ": %" PRIu64 " of %" PRIu64 "%s\n",
            state->queue_id, state->tail, state->count, state->bytes,
            state->deadlines ? ", some expire" : "");
    fetched = false;
    store_fetch(rig->store, &fetch);
    while (!fetched)
        wait_once(rig);
    for (size_t i = 0; i < fetch.count; i++) {
        const struct store_fetched *entry = &fetch.entries[i];
        fprintf(listing->text, "%" PRIu64 " %" PRIu64 " %u %u %s%zu/%08x\n", entry->position,
                entry->expires_ms, entry->weight, entry->flags, entry->damaged ? "damaged " : "",
                entry->bytes.size, crc32c(0, entry->bytes.data, entry->bytes.size));
    }
    store_fetch_release(&fetch);
}

/* The caller frees. */
static char *list_store(struct rig *rig)
{
    struct listing listing = {0};
    struct store_recovery recovery = {
        .context = &listing, .on_record = on_record, .on_queue = on_queue};
    char *text;
    size_t size;

    listing.text = open_memstream(&text, &size);
    ck_assert_int_eq(store_recover(rig->store, &recovery), 0);
    for (uint32_t i = 0; i < listing.queues.count; i++)
        list_queue(rig, &listing, &listing.queues.items[i]);
    fclose(listing.text);
    array_release(&listing.queues);
    return text;
}

static void check_same(const char *expected, const char *got)
{
    size_t at = 0;

    while (expected[at] == got[at] && expected[at] != '\0')
        at++;
    ck_assert_msg(expected[at] == got[at], "expected ...%.60s, got ...%.60s", expected + at,
                  got + at);
}

static void check_holds(struct rig *rig, const char *expected)
{
    char *got = list_store(rig);

    check_same(expected, got);
    free(got);
}

static uint64_t damage_count(const struct rig *rig)
{
    struct store_stats stats;

    store_get_stats(rig->store, &stats);
    return stats.damaged;
}

/* ---- the template ---------------------------------------------------------------------------- */

enum { RECORDS = 300, QUEUE_FEW = 10, QUEUE_END = 210, SHARED = 300 };

struct template
{
    uint8_t *data;
    size_t size;
    char *listing; /* what it holds */
};

static void build_records(struct rig *rig)
{
    uint8_t key[9] = {3};
    char value[120];

    for (uint64_t i = 0; i < RECORDS; i++) {
        put_u64(key + 1, i);
        snprintf(value, sizeof value, "definition %" PRIu64 "%*s", i, (int)(i % 90), "");
        store_put_record(rig->store, slice_of(key, sizeof key), slice_of_string(value));
    }
}

static void build_entries(struct rig *rig)
{
    put_many(rig, 1, 0, 10);
    commit(rig);
    for (uint64_t first = 0; first < 200; first += 50) {
        put_many(rig, 2, first, first + 50);
        commit(rig);
    }
    for (uint64_t position = 0; position < SHARED; position++) {
        const uint32_t body = add_body(rig, position, 100);
        for (uint64_t queue_id = 3; queue_id <= 5; queue_id++)
            put_entry(rig, queue_id, position, body);
        if (position % 50 == 49)
            commit(rig);
    }
    put_many(rig, 6, 0, 1500);
    put_entry(rig, 6, 1500, add_body(rig, 1500, 150000));
    commit(rig);
    put_many(rig, 7, 0, 100);
    commit(rig);
    for (uint64_t queue_id = QUEUE_FEW; queue_id < QUEUE_END; queue_id++)
        put_many(rig, queue_id, 0, 3);
    commit(rig);
}

static void build_gone(struct rig *rig)
{
    delete_many(rig, 2, 0, 5, 1);
    for (uint64_t first = 0; first < 200; first += 50)
        delete_many(rig, 2, first + 20, first + 35, 1);
    delete_many(rig, 3, 3, SHARED, 7);
    delete_many(rig, 5, 0, 20, 1);
    delete_many(rig, 6, 5, 1500, 10);
    commit(rig);
}

/* Ranges in queues 1, 4 and 5; the one step of trimming that rides along takes that in queue 1.
 * While the others wait nothing is moved: what is left of queue 7 stays in its blob. */
static void build_trims(struct rig *rig)
{
    atomic_store(&syncs_allowed, 1);
    atomic_store(&clock_leaps, true);
    store_delete_range(rig->store, 1, 0, 10, 10, 80);
    store_delete_range(rig->store, 4, 0, SHARED, SHARED, 8 * SHARED);
    store_delete_queue(rig->store, 5);
    delete_many(rig, 7, 10, 90, 1);
    commit(rig);
    while (atomic_load(&syncs_waiting) == 0)
        usleep(1000);
}

static void read_file(const char *path, struct template *template)
{
    FILE *file = fopen(path, "rb");
    struct stat status;

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fstat(fileno(file), &status), 0);
    template->size = (size_t)status.st_size;
    template->data = xmalloc(template->size);
    ck_assert_uint_eq(fread(template->data, 1, template->size, file), template->size);
    fclose(file);
}

static void template_begin(struct template *template)
{
    struct rig rig;
    char path[128];

    rig_begin(&rig);
    ck_assert_int_eq(open_store(&rig), 0);
    store_on_body_done(rig.store, on_body_done);
    build_records(&rig);
    for (uint64_t queue_id = 1; queue_id < QUEUE_END; queue_id++)
        if (queue_id < 9 || queue_id >= QUEUE_FEW)
            store_create_queue(rig.store, queue_id);
    commit(&rig);
    build_entries(&rig);
    build_gone(&rig);
    build_trims(&rig);
    snprintf(path, sizeof path, "%s/data.mdb", rig.directory);
    read_file(path, template);
    template->listing = list_store(&rig);
    atomic_store(&clock_leaps, false);
    atomic_store(&syncs_allowed, INT_MAX);
    rig_end(&rig);
}

static void template_end(struct template *template)
{
    free(template->data);
    free(template->listing);
}

/* ---- a copy of it, opened -------------------------------------------------------------------- */

static void leave_note(const struct rig *rig)
{
    char path[128];

    snprintf(path, sizeof path, "%s/salvage", rig->directory);
    close(open(path, O_WRONLY | O_CREAT, 0600));
}

static bool has_file(const struct rig *rig, const char *prefix)
{
    DIR *directory = opendir(rig->directory);
    bool found = false;

    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        found = found || strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(directory);
    return found;
}

static bool was_salvaged(const struct rig *rig)
{
    return has_file(rig, "data.mdb.damaged-");
}

static void place(struct rig *rig, const struct template *template)
{
    char path[128];

    rig_begin(rig);
    snprintf(path, sizeof path, "%s/data.mdb", rig->directory);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(template->data, 1, template->size, file), template->size);
    fclose(file);
}

static void open_again(struct rig *rig)
{
    ck_assert_int_eq(open_store(rig), 0);
    store_on_body_done(rig->store, on_body_done);
}

static void close_store(struct rig *rig)
{
    ck_assert_int_eq(store_close(&rig->store), 0);
}

/* Small commits, until trimming must be over. */
static void let_trim(struct rig *rig)
{
    const uint8_t key[9] = {4};

    for (int i = 0; i < 20; i++) {
        store_put_record(rig->store, slice_of(key, sizeof key), SLICE("x"));
        commit(rig);
    }
    store_delete_record(rig->store, slice_of(key, sizeof key));
    commit(rig);
}

static void print_finding(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "# %s\n", text);
}

/* What does not add up in the closed store. */
static uint64_t count_findings(const struct rig *rig)
{
    char error[STORE_ERROR_SIZE] = "";
    struct database database;
    struct verify verify;

    ck_assert_msg(database_open_read_only(&database, rig->directory, DATABASE_ALONE, error) == 0,
                  "%s", error);
    verify_begin(&verify, &database, print_finding, NULL);
    ck_assert_msg(offline_verify(&verify, error) == 0, "%s", error);
    database_close(&database);
    return verify.findings;
}

static size_t count_rows(const struct rig *rig, enum database_id id)
{
    char error[STORE_ERROR_SIZE] = "";
    struct database database;
    MDB_txn *txn;
    MDB_stat stat;

    ck_assert_msg(database_open_read_only(&database, rig->directory, DATABASE_ALONE, error) == 0,
                  "%s", error);
    ck_assert_int_eq(mdb_txn_begin(database.env, NULL, MDB_RDONLY, &txn), 0);
    ck_assert_int_eq(mdb_stat(txn, database.dbi[id], &stat), 0);
    mdb_txn_abort(txn);
    database_close(&database);
    return stat.ms_entries;
}

/* Deletes every queue. What was counted right leaves nothing behind; the store is closed. */
static void check_empties(struct rig *rig)
{
    for (uint64_t queue_id = 1; queue_id < QUEUE_END; queue_id++)
        store_delete_queue(rig->store, queue_id);
    commit(rig);
    let_trim(rig);
    close_store(rig);
    for (enum database_id id = 0; id < DATABASE_COUNT; id++)
        if (id != DB_RECORD && id != DB_META)
            ck_assert_msg(count_rows(rig, id) == 0, "%s is not empty", database_name(id));
}

/* The copy holds all that the template does, and goes on as it would. */
static void check_whole(struct rig *rig, const struct template *template)
{
    check_holds(rig, template->listing);
    close_store(rig);
    ck_assert_uint_eq(count_findings(rig), 0);
    open_again(rig);
    let_trim(rig);
    check_holds(rig, template->listing);
    ck_assert_uint_eq(damage_count(rig), 0);
    check_empties(rig);
}

/* ---- a sound file ---------------------------------------------------------------------------- */

static const long page_sizes[] = {4096, 16384};

START_TEST(a_sound_file_is_left_alone)
{
    struct template template;
    struct rig rig;

    page_size = page_sizes[_i];
    template_begin(&template);
    place(&rig, &template);
    for (enum database_id id = 0; id < DATABASE_COUNT; id++)
        ck_assert_msg(count_rows(&rig, id) > 0, "no row of %s is tested", database_name(id));
    ck_assert_uint_eq(count_rows(&rig, DB_TRIM), 2);
    ck_assert_uint_eq(count_findings(&rig), 0);
    open_again(&rig);
    ck_assert(!was_salvaged(&rig));
    check_whole(&rig, &template);
    rig_end(&rig);
    template_end(&template);
}
END_TEST

START_TEST(a_sound_file_is_salvaged_whole)
{
    struct template template;
    struct rig rig;

    page_size = page_sizes[_i];
    template_begin(&template);
    place(&rig, &template);
    leave_note(&rig);
    open_again(&rig);
    ck_assert(was_salvaged(&rig));
    ck_assert(!has_file(&rig, "salvage"));
    const struct store_salvage *saved = store_get_salvage(rig.store);
    ck_assert(saved->ever && saved->when_ms > 0 && saved->messages > 0 && saved->queues > 0);
    ck_assert_uint_eq(saved->lost, 0);
    ck_assert_int_eq(access(saved->kept, R_OK), 0);
    check_holds(&rig, template.listing);
    close_store(&rig);
    open_again(&rig);
    saved = store_get_salvage(rig.store);
    ck_assert(saved->ever && saved->when_ms == 0);
    check_whole(&rig, &template);
    ck_assert(!has_file(&rig, "salvage"));
    rig_end(&rig);
    template_end(&template);
}
END_TEST

static bool would_rather_go(void *context)
{
    (void)context;
    return false;
}

START_TEST(a_salvage_may_be_given_up)
{
    struct template template;
    struct rig rig;
    char error[STORE_ERROR_SIZE];

    template_begin(&template);
    place(&rig, &template);
    leave_note(&rig);
    const struct store_options options = {.directory = rig.directory,
                                          .waiting.goes_on = would_rather_go};
    ck_assert_int_eq(store_open(&options, &rig.store, error), -ECANCELED);
    ck_assert(!was_salvaged(&rig));
    ck_assert(!has_file(&rig, "salvage.new"));
    open_again(&rig);
    ck_assert(was_salvaged(&rig));
    check_whole(&rig, &template);
    rig_end(&rig);
    template_end(&template);
}
END_TEST

/* As under `ulimit -v`. */
START_TEST(little_address_space_is_no_damage)
{
    struct template template;
    struct rig rig;

    template_begin(&template);
    place(&rig, &template);
    mapping_max = (size_t)8 << 30;
    open_again(&rig);
    ck_assert(!was_salvaged(&rig));
    check_holds(&rig, template.listing);
    rig_end(&rig);
    template_end(&template);
}
END_TEST

/* Of the child that looks: what it then has not seen, it does not claim. */
START_TEST(little_memory_is_no_damage)
{
    struct template template;
    struct rig rig;
    char why[STORE_ERROR_SIZE];

    template_begin(&template);
    place(&rig, &template);
    own = getpid();
    fails_at = (uint64_t)_i + 1;
    const struct store_options options = {.directory = rig.directory};
    ck_assert_int_eq(salvage_look(&options, why), -ECHILD);
    ck_assert_str_eq(why, "who looked at the data file died of SIGABRT: its pages");
    open_again(&rig);
    ck_assert(!was_salvaged(&rig));
    check_holds(&rig, template.listing);
    rig_end(&rig);
    template_end(&template);
}
END_TEST

/* The version that LMDB says it has in its first meta pages. */
static void set_lmdb_version(struct rig *rig, unsigned metas, uint32_t version)
{
    const uint32_t size = (uint32_t)sysconf(_SC_PAGESIZE);
    char path[300];

    snprintf(path, sizeof path, "%s/data.mdb", rig->directory);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    for (unsigned i = 0; i < metas; i++)
        ck_assert_int_eq(pwrite(fd, &version, sizeof version, (off_t)(i * size + 16 + 4)),
                         sizeof version);
    close(fd);
}

static void check_refused(struct rig *rig, const char *why)
{
    const struct store_options options = {.directory = rig->directory};
    char error[STORE_ERROR_SIZE] = "";

    ck_assert_int_eq(store_open(&options, &rig->store, error), -EPROTONOSUPPORT);
    ck_assert_ptr_nonnull(strstr(error, why));
    ck_assert(!was_salvaged(rig));
}

START_TEST(another_version_of_lmdb_is_left_alone)
{
    struct template template;
    struct rig rig;

    template_begin(&template);
    place(&rig, &template);
    set_lmdb_version(&rig, 2, 2);
    if (_i == 1)
        leave_note(&rig);
    check_refused(&rig, "another version of LMDB");
    set_lmdb_version(&rig, 2, 1); /* nothing else was done to it */
    open_again(&rig);
    close_store(&rig);
    rig_end(&rig);
    template_end(&template);
}
END_TEST

START_TEST(one_other_version_is_damage)
{
    struct template template;
    struct rig rig;

    template_begin(&template);
    place(&rig, &template);
    set_lmdb_version(&rig, 1, 3);
    open_again(&rig);
    ck_assert(was_salvaged(&rig));
    close_store(&rig);
    rig_end(&rig);
    template_end(&template);
}
END_TEST

/* It has a database less and another format, and a note beside it on top. */
START_TEST(another_version_is_left_alone)
{
    uint8_t row[FORMAT_ROW_SIZE];
    MDB_val key = val_of(SLICE("format")), value = {sizeof row, row};
    struct template template;
    struct rig rig;
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi[DATABASE_COUNT];

    template_begin(&template);
    place(&rig, &template);
    ck_assert_int_eq(database_open_environment(&env, rig.directory, 0, 0), 0);
    ck_assert_int_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    ck_assert_int_eq(database_find_all(txn, dbi), 0);
    put_u32(row + HEADER_SIZE, FORMAT_VERSION + 1);
    record_seal(SLICE("format"), row, sizeof row, 0, 0);
    ck_assert_int_eq(mdb_put(txn, dbi[DB_META], &key, &value, 0), 0);
    ck_assert_int_eq(mdb_drop(txn, dbi[DB_SPARSE], 1), 0);
    ck_assert_int_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    if (_i == 1)
        leave_note(&rig);
    check_refused(&rig, "newer version");
    rig_end(&rig);
    template_end(&template);
}
END_TEST

/* ---- where in the file ----------------------------------------------------------------------- */

/* The template, as pages.h reads it. */
struct map {
    struct rig rig;
    struct pages pages;
    struct page_meta newer;
    unsigned older; /* page */
    uint8_t page[PAGE_SIZE_MAX];
};

static void map_begin(struct map *map, const struct template *template)
{
    struct page_meta metas[2];

    place(&map->rig, template);
    ck_assert_int_eq(pages_open(&map->pages, map->rig.directory), 0);
    ck_assert(pages_read_meta(&map->pages, 0, &metas[0]));
    ck_assert(pages_read_meta(&map->pages, 1, &metas[1]));
    map->older = metas[0].transaction > metas[1].transaction;
    map->newer = metas[!map->older];
}

static void map_end(struct map *map)
{
    pages_release(&map->pages);
    rig_end(&map->rig);
}

/* Where in the file the byte of map->page is that stands there. */
static size_t offset_of(const struct map *map, const uint8_t *at)
{
    uint64_t number;

    memcpy(&number, map->page, sizeof number);
    return number * map->pages.size + (size_t)(at - map->page);
}

/* The node of the database in the list of all, which is one leaf; map->page is that leaf then. */
static struct page_node find_database(struct map *map, enum database_id id)
{
    struct page_node node;

    ck_assert_uint_eq(map->newer.databases.depth, 1);
    ck_assert(pages_read(&map->pages, map->newer.databases.root, map->page));
    for (unsigned i = 0; i < pages_node_count(&map->pages, map->page); i++)
        if (pages_get_node(&map->pages, map->page, i, &node) &&
            slice_equal(node.key, slice_of_string(database_name(id))))
            return node;
    ck_abort();
}

static struct page_tree find_tree(struct map *map, enum database_id id)
{
    const struct page_node node = find_database(map, id);
    struct page_tree tree;

    ck_assert(page_get_tree(&node, &tree));
    return tree;
}

struct numbers {
    ARRAY_OF(uint64_t) list;
};

/* Branches and leaves, in key order: the leaf at the end is the last. */
static void list_pages(struct map *map, uint64_t number, unsigned depth, struct numbers *numbers)
{
    uint8_t page[PAGE_SIZE_MAX];
    struct page_node node;

    if (depth == 0)
        return;
    *array_add(&numbers->list) = number;
    ck_assert(pages_read(&map->pages, number, page));
    for (unsigned i = 0; depth > 1 && i < pages_node_count(&map->pages, page); i++) {
        ck_assert(pages_get_node(&map->pages, page, i, &node));
        list_pages(map, node.child, depth - 1, numbers);
    }
}

static void list_tree(struct map *map, enum database_id id, struct numbers *numbers)
{
    const struct page_tree tree = find_tree(map, id);

    array_clear(&numbers->list);
    list_pages(map, tree.root, tree.depth, numbers);
}

/* ---- what costs nothing ---------------------------------------------------------------------- */

/* Nobody says that the file is damaged: it shows. */
static void check_costs_nothing(const struct template *template)
{
    struct rig rig;

    place(&rig, template);
    open_again(&rig);
    ck_assert(was_salvaged(&rig));
    check_whole(&rig, template);
    rig_end(&rig);
}

START_TEST(a_damaged_name_costs_nothing)
{
    struct template template;
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    const struct page_node node = find_database(&map, (enum database_id)_i);
    template.data[offset_of(&map, node.key.data)] ^= 1;
    check_costs_nothing(&template);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* Two rows of one queue, and none of another, if it were believed. */
START_TEST(a_damaged_key_of_a_queue_costs_nothing)
{
    struct template template;
    struct page_node first, second;
    struct numbers numbers = {0};
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    list_tree(&map, DB_QUEUE, &numbers);
    ck_assert(pages_read(&map.pages, numbers.list.items[numbers.list.count - 1], map.page));
    ck_assert(pages_get_node(&map.pages, map.page, 0, &first));
    ck_assert(pages_get_node(&map.pages, map.page, 1, &second));
    memcpy(template.data + offset_of(&map, _i == 0 ? first.key.data : second.key.data),
           _i == 0 ? second.key.data : first.key.data, first.key.size);
    check_costs_nothing(&template);
    array_release(&numbers.list);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* What LMDB reads, and trips over when it moves the node. */
START_TEST(a_damaged_head_of_a_node_is_noticed)
{
    static const struct {
        uint8_t octet, bits;
    } heads[] = {{0, 2}, {0, 4}, {1, 1}, {2, 1}, {4, 4}, {4, 8}, {5, 1}, {6, 2}};
    struct numbers numbers = {0};
    struct template template;
    struct page_node node;
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    list_tree(&map, (enum database_id)_i, &numbers);
    ck_assert_uint_gt(numbers.list.count, 0);
    ck_assert(
        pages_read(&map.pages, numbers.list.items[numbers.list.count - 1], map.page)); /* a leaf */
    ck_assert(pages_get_node(&map.pages, map.page, 0, &node));
    for (size_t i = 0; i < countof(heads); i++) {
        struct rig rig;
        uint8_t *head = template.data + offset_of(&map, node.key.data) - 8 + heads[i].octet;

        *head ^= heads[i].bits;
        place(&rig, &template);
        open_again(&rig);
        ck_assert_msg(was_salvaged(&rig), "octet %u, bits %u", heads[i].octet, heads[i].bits);
        rig_end(&rig);
        *head ^= heads[i].bits;
    }
    array_release(&numbers.list);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* The number, the kind, or the places of the nodes: a bit that has turned is known by the rest. */
START_TEST(a_turned_bit_of_a_page_costs_nothing)
{
    static const struct {
        uint8_t octet, bit;
    } bits[] = {{0, 0},  {0, 7},  {3, 4},  {7, 7},  {10, 0}, {10, 1}, {12, 1},
                {12, 3}, {13, 1}, {14, 0}, {15, 2}, {16, 1}, {17, 3}, {19, 0}};
    static const enum database_id databases[] = {DB_RECORD, DB_QUEUE, DB_INDEX, DB_LIVE};
    struct numbers numbers = {0};
    struct template template;
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    list_tree(&map, databases[_i], &numbers);
    const uint64_t last = numbers.list.items[numbers.list.count - 1]; /* a leaf */
    for (size_t i = 0; i < countof(bits); i++) {
        uint8_t *octet = &template.data[last * map.pages.size + bits[i].octet];
        *octet ^= (uint8_t)(1 << bits[i].bit);
        check_costs_nothing(&template);
        *octet ^= (uint8_t)(1 << bits[i].bit);
    }
    array_release(&numbers.list);
    map_end(&map);
    template_end(&template);
}
END_TEST

START_TEST(a_damaged_root_costs_nothing)
{
    enum { ROOT = 40 };
    struct template template;
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    const struct page_node node = find_database(&map, (enum database_id)_i);
    template.data[offset_of(&map, node.data.data) + ROOT + 4] ^= 1;
    check_costs_nothing(&template);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* LMDB would take it for a tree of another kind, or for none, and not before the walk over it. */
START_TEST(a_damaged_kind_of_tree_costs_nothing)
{
    enum { FLAGS = 4 };
    static const uint16_t bits[] = {0x04, 0x08, 0x8000}; /* DUPSORT, INTEGERKEY, one of its own */
    struct template template;
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    const struct page_node node = find_database(&map, (enum database_id)_i);
    uint8_t *flags = template.data + offset_of(&map, node.data.data) + FLAGS;
    for (size_t i = 0; i < countof(bits); i++) {
        flags[0] = (uint8_t)bits[i];
        flags[1] = (uint8_t)(bits[i] >> 8);
        check_costs_nothing(&template);
    }
    map_end(&map);
    template_end(&template);
}
END_TEST

/* The same of the two trees that the file itself has: of free pages, and of all others' names. */
START_TEST(a_damaged_kind_of_the_first_trees_costs_nothing)
{
    enum { TREES = 16 + 24, TREE = 48, FLAGS = 4 };
    struct template template;
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    uint8_t *flags = template.data + !map.older * map.pages.size + TREES + _i * TREE + FLAGS;
    for (uint8_t bit = 0x02; bit <= 0x40; bit = (uint8_t)(bit << 1)) {
        *flags ^= bit;
        check_costs_nothing(&template);
        *flags ^= bit;
    }
    map_end(&map);
    template_end(&template);
}
END_TEST

/* The last transaction would be lost without a word. */
START_TEST(a_damaged_transaction_number_is_noticed)
{
    enum { TRANSACTION = 16 + 24 + 2 * 48 + 8 };
    struct template template;
    struct map map;
    struct rig rig;

    template_begin(&template);
    map_begin(&map, &template);
    template.data[map.older * map.pages.size + TRANSACTION + 3] ^= 1;
    place(&rig, &template);
    open_again(&rig);
    ck_assert(was_salvaged(&rig));
    rig_end(&rig);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* LMDB would write over it. */
START_TEST(a_page_in_use_that_is_listed_as_free_costs_nothing)
{
    struct template template;
    struct map map;
    struct page_node node;
    const uint64_t number = 2;

    template_begin(&template);
    map_begin(&map, &template);
    ck_assert_uint_eq(map.newer.free.depth, 1);
    ck_assert(pages_read(&map.pages, map.newer.free.root, map.page));
    ck_assert(pages_get_node(&map.pages, map.page, 0, &node));
    ck_assert(!node.is_big && page_free_number(node.data, 0) > number);
    const uint64_t used = find_tree(&map, DB_INDEX).root;
    ck_assert(pages_read(&map.pages, map.newer.free.root, map.page));
    memcpy(template.data + offset_of(&map, node.data.data) + 8, &used, sizeof used);
    check_costs_nothing(&template);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* ---- what costs what it hits ----------------------------------------------------------------- */

/* Lines of one listing that the other does not have, but for those that begin so or hold so. */
static size_t count_missing(const char *of, const char *in)
{
    size_t missing = 0;

    for (const char *line = of, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        char *copy = xasprintf("\n%.*s\n", (int)(end - line), line);
        missing += strstr(in, copy) == NULL && strncmp(in, copy + 1, strlen(copy + 1)) != 0;
        free(copy);
    }
    return missing;
}

/* What was lost is lost; but the store goes on, and nothing that was counted is left at the end. */
static void check_goes_on(const struct template *template, enum database_id id)
{
    struct rig rig;

    place(&rig, template);
    open_again(&rig);
    char *got = list_store(&rig);
    if (id == DB_LIVE || id == DB_SPARSE)
        check_same(template->listing, got);
    if (id == DB_GONE || id == DB_TRIM || id == DB_META)
        ck_assert_uint_le(count_missing(template->listing, got), was_salvaged(&rig) ? 5 : 0);
    for (uint64_t queue_id = 1; queue_id < QUEUE_END; queue_id++) {
        store_create_queue(rig.store, queue_id);
        put_many(&rig, queue_id, 5000, 5003);
    }
    commit(&rig);
    put_many(&rig, 2, 5003, 5010);
    commit(&rig);
    check_empties(&rig);
    free(got);
    rig_end(&rig);
}

START_TEST(a_lost_page_costs_what_was_in_it)
{
    const enum database_id id = (enum database_id)_i;
    struct numbers numbers = {0};
    struct template template;
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    list_tree(&map, id, &numbers);
    for (uint32_t i = 0; i < numbers.list.count; i++) {
        uint8_t *page = template.data + numbers.list.items[i] * map.pages.size;
        ck_assert(pages_read(&map.pages, numbers.list.items[i], map.page));
        memset(page, 0, map.pages.size);
        check_goes_on(&template, id);
        memcpy(page, map.page, map.pages.size);
    }
    array_release(&numbers.list);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* A leaf with one record, as a publisher could make it up. */
static void forge_leaf(uint8_t *page, uint64_t number)
{
    enum { AT = 2000, LEAF = 2 };
    const uint8_t key[9] = {9, 9, 9};
    uint8_t value[HEADER_SIZE + 4] = {0};
    const uint16_t flags = LEAF, lower = 18, at = AT, value_size = sizeof value, key_size = 9;

    record_seal(slice_of(key, sizeof key), value, sizeof value, 0, 0);
    memset(page, 0, 4096);
    memcpy(page, &number, sizeof number);
    memcpy(page + 10, &flags, sizeof flags);
    memcpy(page + 12, &lower, sizeof lower);
    memcpy(page + 16, &at, sizeof at);
    memcpy(page + AT, &value_size, sizeof value_size);
    memcpy(page + AT + 6, &key_size, sizeof key_size);
    memcpy(page + AT + 8, key, sizeof key);
    memcpy(page + AT + 8 + sizeof key, value, sizeof value);
}

/* Of a body whose index is lost, so that its pages are looked at one by one. */
START_TEST(bodies_are_not_taken_for_pages)
{
    struct numbers numbers = {0};
    struct template template;
    struct page_node node;
    struct map map;
    struct rig rig;
    uint64_t first = 0, count = 0;

    template_begin(&template);
    map_begin(&map, &template);
    list_tree(&map, DB_BLOB, &numbers);
    for (uint32_t i = 0; i < numbers.list.count && count < 2; i++) {
        ck_assert(pages_read(&map.pages, numbers.list.items[i], map.page));
        for (unsigned n = 0;
             page_is_leaf(map.page) && count < 2 && n < pages_node_count(&map.pages, map.page); n++)
            if (pages_get_node(&map.pages, map.page, n, &node) && node.is_big)
                ck_assert(pages_get_run(&map.pages, &node, &first, &count));
        if (count >= 2)
            memset(template.data + numbers.list.items[i] * map.pages.size, 0, map.pages.size);
    }
    ck_assert_uint_ge(count, 2);
    forge_leaf(template.data + (first + 1) * map.pages.size, first + 1);
    place(&rig, &template);
    open_again(&rig);
    ck_assert(was_salvaged(&rig));
    char *got = list_store(&rig);
    ck_assert_ptr_null(strstr(got, "record 9/"));
    free(got);
    rig_end(&rig);
    array_release(&numbers.list);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* Written behind the last page in use, by a batch that never was. */
START_TEST(what_was_not_committed_stays_away)
{
    struct numbers numbers = {0};
    struct template template;
    struct map map;
    struct rig rig;

    template_begin(&template);
    map_begin(&map, &template);
    list_tree(&map, DB_LIVE, &numbers);
    memset(template.data + numbers.list.items[0] * map.pages.size, 0, map.pages.size);
    const uint64_t number = map.pages.count;
    ck_assert_uint_gt(number, map.newer.last);
    template.data = realloc(template.data, template.size + map.pages.size);
    ck_assert_ptr_nonnull(template.data);
    forge_leaf(template.data + template.size, number);
    template.size += map.pages.size;
    place(&rig, &template);
    open_again(&rig);
    ck_assert(was_salvaged(&rig));
    check_holds(&rig, template.listing);
    rig_end(&rig);
    array_release(&numbers.list);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* Segments lead to blobs that nobody else knows of any more: new ones are numbered above. */
START_TEST(lost_numbers_are_not_given_again)
{
    struct numbers numbers = {0};
    struct template template;
    struct map map;

    template_begin(&template);
    map_begin(&map, &template);
    list_tree(&map, DB_BLOB, &numbers);
    ck_assert_uint_gt(numbers.list.count, 1);
    const uint64_t last = numbers.list.items[numbers.list.count - 1];
    memset(template.data + last * map.pages.size, 0, map.pages.size);
    list_tree(&map, DB_META, &numbers);
    memset(template.data + numbers.list.items[0] * map.pages.size, 0, map.pages.size);
    check_goes_on(&template, DB_BLOB);
    array_release(&numbers.list);
    map_end(&map);
    template_end(&template);
}
END_TEST

/* ---- faults ---------------------------------------------------------------------------------- */

static void read_some(struct rig *rig)
{
    struct listing listing = {.text = fopen("/dev/null", "w")};

    list_queue(rig, &listing, &(struct store_queue_state){.queue_id = 2});
}

static void write_some(struct rig *rig)
{
    put_many(rig, 2, 1000, 2000);
    commit(rig);
}

static void let_verify(struct rig *rig)
{
    struct store_check check = {0};

    while (!check.is_done) {
        wait_once(rig);
        store_get_check(rig->store, &check);
    }
}

/* Whoever reads the data file from now on faults. */
static void forbid_reading(const struct rig *rig)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    uintptr_t begin, end;
    char line[512];

    while (fgets(line, sizeof line, maps) != NULL)
        if (strstr(line, rig->directory) != NULL && strstr(line, "/data.mdb") != NULL &&
            sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) == 2)
            mprotect((void *)begin, end - begin, PROT_NONE);
    fclose(maps);
}

/* The child. */
static void fault(struct rig *rig, void (*touch)(struct rig *rig))
{
    signal(SIGSEGV, SIG_DFL); /* a sanitizer's would stay */
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
    open_again(rig);
    forbid_reading(rig);
    touch(rig);
    _exit(0);
}

START_TEST(a_fault_of_a_store_thread_leaves_a_note)
{
    static void (*const touches[])(struct rig * rig) = {read_some, write_some, let_verify};
    struct template template;
    struct rig rig;
    int status;

    template_begin(&template);
    place(&rig, &template);
    const pid_t child = fork();
    if (child == 0)
        fault(&rig, touches[_i]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    ck_assert(has_file(&rig, "salvage"));
    rig_end(&rig);
    template_end(&template);
}
END_TEST

/* Or it would keep the directory's lock, and no broker could start there. */
START_TEST(the_child_that_looks_ends_with_its_broker)
{
    struct template template;
    struct rig rig;
    char octet;
    int ends[2];

    template_begin(&template);
    place(&rig, &template);
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t broker = fork();
    if (broker == 0) {
        only_mapper = getpid();
        stays_to = ends[1];
        salvage_is_due(&(struct store_options){.directory = rig.directory});
        _exit(0);
    }
    close(ends[1]);
    ck_assert_int_eq(read(ends[0], &octet, 1), 1); /* it looks */
    ck_assert_int_eq(kill(broker, SIGKILL), 0);
    ck_assert_int_eq(waitpid(broker, NULL, 0), broker);
    ck_assert_int_eq(read(ends[0], &octet, 1), 0); /* nobody has the other end */
    close(ends[0]);
    rig_end(&rig);
    template_end(&template);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("salvage");
    TCase *sound = tcase_create("sound");

    tcase_add_loop_test(sound, a_sound_file_is_left_alone, 0, countof(page_sizes));
    tcase_add_loop_test(sound, a_sound_file_is_salvaged_whole, 0, countof(page_sizes));
    tcase_add_test(sound, little_address_space_is_no_damage);
    tcase_add_loop_test(sound, little_memory_is_no_damage, 0, 2);
    tcase_add_loop_test(sound, another_version_is_left_alone, 0, 2);
    tcase_add_loop_test(sound, another_version_of_lmdb_is_left_alone, 0, 2);
    tcase_add_test(sound, one_other_version_is_damage);
    tcase_add_test(sound, a_salvage_may_be_given_up);
    suite_add_tcase(suite, sound);

    TCase *injured = tcase_create("injured");
    tcase_add_loop_test(injured, a_damaged_name_costs_nothing, 0, DATABASE_COUNT);
    tcase_add_loop_test(injured, a_damaged_key_of_a_queue_costs_nothing, 0, 2);
    tcase_add_loop_test(injured, a_damaged_head_of_a_node_is_noticed, 0, DATABASE_COUNT);
    tcase_add_loop_test(injured, a_turned_bit_of_a_page_costs_nothing, 0, 4);
    tcase_add_loop_test(injured, a_damaged_root_costs_nothing, 0, DATABASE_COUNT);
    tcase_add_loop_test(injured, a_damaged_kind_of_tree_costs_nothing, 0, DATABASE_COUNT);
    tcase_add_loop_test(injured, a_damaged_kind_of_the_first_trees_costs_nothing, 0, 2);
    tcase_add_test(injured, a_damaged_transaction_number_is_noticed);
    tcase_add_test(injured, a_page_in_use_that_is_listed_as_free_costs_nothing);
    tcase_add_loop_test(injured, a_lost_page_costs_what_was_in_it, 0, DATABASE_COUNT);
    tcase_add_test(injured, bodies_are_not_taken_for_pages);
    tcase_add_test(injured, what_was_not_committed_stays_away);
    tcase_add_test(injured, lost_numbers_are_not_given_again);
    suite_add_tcase(suite, injured);

    TCase *faults = tcase_create("faults");
    tcase_add_loop_test(faults, a_fault_of_a_store_thread_leaves_a_note, 0, 3);
    tcase_add_test(faults, the_child_that_looks_ends_with_its_broker);
    suite_add_tcase(suite, faults);
    return unit_main(suite);
}
