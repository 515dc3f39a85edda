/* A store that meets the end of its disk, or of what it may have of it: it is filled, emptied and
 * filled again there, over and over, and nothing that was durable is lost. */
#include "store/room.h"

#include <dlfcn.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/lib/unit.h"

enum { LIMIT = 8 << 20, BODY = 1000, BATCH = 100, MESSAGES_MAX = 1 << 20 };

enum wall { WALL_MAP, WALL_FILE_SIZE, WALLS };

/* Each wall is met with pages of 4 KiB, and as kernels with larger ones have them. */
enum { ROUNDS = 2 * WALLS };

static long page_size = 4096;

long sysconf(int name)
{
    static long (*next)(int name);

    if (next == NULL)
        next = (long (*)(int))(uintptr_t)dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_PAGESIZE ? page_size : next(name);
}

static char directory[64];
static struct store *store;
static enum wall wall;
static bool definitions_wait;
static uint64_t recovered_count, recovered_head;

static void open_store(void)
{
    const struct store_options options = {.directory = directory,
                                          .map_size = wall == WALL_MAP ? LIMIT : (size_t)4 << 30};
    char error[STORE_ERROR_SIZE];

    ck_assert_msg(store_open(&options, &store, error) == 0, "%s", error);
}

static void begin(int round)
{
    log_level = LOG_NONE;
    wall = (enum wall)(round % WALLS);
    page_size = round < WALLS ? 4096 : 16384;
    if (wall == WALL_FILE_SIZE) {
        signal(SIGXFSZ, SIG_IGN);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){LIMIT, LIMIT}), 0);
    }
    strcpy(directory,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/test_room.XXXXXX" : "/tmp/test_room.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    open_store();
}

static int unlink_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void end(void)
{
    ck_assert_int_eq(store_close(&store), 0);
    nftw(directory, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void wait_until_idle(void)
{
    while (store_is_busy(store)) {
        struct pollfd ready = {.fd = store_fd(store), .events = POLLIN};
        ck_assert_int_eq(poll(&ready, 1, 30000), 1);
        ck_assert_int_eq(store_process(store), 0);
    }
}

/* All that may go now. */
static void commit(void)
{
    while (store_may_submit(store)) {
        store_submit(store);
        wait_until_idle();
    }
}

/* Deletes go at once, or when no reader's snapshot keeps the pages that were freed. */
static void commit_deletes(uint64_t lsn, bool told)
{
    commit();
    for (int i = 0; i < 500 && (told ? store_durable(store) < lsn : store_open_lsn(store) <= lsn);
         i++) {
        usleep(10000);
        store_ask_for_room(store);
        commit();
    }
    ck_assert_uint_gt(store_open_lsn(store), lsn);
    if (told)
        ck_assert_uint_ge(store_durable(store), lsn);
}

static uint64_t put(uint64_t from, uint64_t count)
{
    static uint8_t body[BODY];

    for (uint64_t i = from; i < from + count; i++)
        store_put_entry(store, &(struct store_entry){.queue_id = 1, .position = i, .weight = BODY},
                        store_add_body(store, slice_of(body, sizeof body), NULL));
    return from + count;
}

/* Puts until the disk is full; answers where the durable ones end. */
static uint64_t fill(uint64_t from)
{
    uint64_t durable = from;

    while (!store_is_full(store)) {
        ck_assert_uint_lt(from, MESSAGES_MAX);
        from = put(from, BATCH);
        commit();
        if (store_durable_entries(store) == store_open_lsn(store) - 1)
            durable = from;
    }
    ck_assert(!store_open_is_empty(store));
    return durable;
}

static void on_record(void *context, struct slice key, struct slice value)
{
    (void)context, (void)key, (void)value;
}

static void on_queue(void *context, const struct store_queue_state *queue)
{
    (void)context;
    recovered_count = queue->count;
    recovered_head = queue->head;
}

static void recover(void)
{
    struct store_recovery recovery = {.on_record = on_record, .on_queue = on_queue};

    recovered_count = 0;
    ck_assert_int_eq(store_recover(store, &recovery), 0);
}

/* Deletes [first, end), by hand and a few at a time: each of it is durable at once. */
static void drain(uint64_t first, uint64_t end)
{
    for (uint64_t i = first; i < end; i++) {
        store_delete_entry(store, 1, i, BODY);
        if (i % 10 != 9 && i + 1 < end)
            continue;
        const uint64_t lsn = store_open_lsn(store);
        commit_deletes(lsn, !definitions_wait);
    }
}

START_TEST(a_full_store_is_emptied_and_filled_again)
{
    uint64_t first = 0, next;
    struct store_stats stats;

    begin(_i);
    store_create_queue(store, 1);
    commit();
    for (int cycle = 0; cycle < 12; cycle++) {
        next = fill(first);
        ck_assert_uint_gt(next - first, 1500);
        recover();
        ck_assert_uint_eq(recovered_count, next - first);
        drain(first, next);
        store_ask_for_room(store);
        commit();
        ck_assert_msg(!store_is_full(store), "cycle %d", cycle);
        recover();
        ck_assert_uint_eq(recovered_count, BATCH); /* what had waited */
        first = recovered_head;
        drain(first, first + BATCH);
        first += BATCH;
    }
    store_get_stats(store, &stats);
    ck_assert_uint_eq(stats.damaged, 0);
    end();
}
END_TEST

/* What the last transaction freed is of use after another one, for which there is no other reason:
 * what waits is too much for what is usable. */
START_TEST(what_is_emptied_at_once_is_room_again)
{
    enum { WAITING = 10 * BATCH };

    begin(_i);
    store_create_queue(store, 1);
    commit();
    const uint64_t durable = fill(0);
    put(durable + BATCH, WAITING - BATCH);
    for (uint64_t i = 0; i < durable; i++)
        store_delete_entry(store, 1, i, BODY);
    const uint64_t lsn = store_open_lsn(store);
    commit();
    ck_assert_uint_ge(store_durable(store), lsn);
    for (int asked = 0; asked < 2 && store_is_full(store); asked++) {
        store_ask_for_room(store);
        commit();
    }
    ck_assert(!store_is_full(store));
    recover();
    ck_assert_uint_eq(recovered_count, WAITING);
    end();
}
END_TEST

START_TEST(what_waits_is_given_up_at_the_end_and_the_rest_is_there)
{
    begin(_i);
    store_create_queue(store, 1);
    commit();
    const uint64_t durable = fill(0);
    store_delete_entry(store, 1, 0, BODY);
    ck_assert_int_eq(store_close(&store), 0);
    open_store();
    recover();
    ck_assert_uint_eq(recovered_count, durable - 1);
    drain(1, durable);
    end();
}
END_TEST

enum { QUEUES = 500, SMALL_BODY = 1 };

static uint32_t put_small(uint64_t queue, uint64_t position)
{
    static const uint8_t body[SMALL_BODY];
    const struct store_entry entry = {
        .queue_id = queue, .position = position, .weight = SMALL_BODY};

    return store_put_entry(store, &entry, store_add_body(store, slice_of(body, SMALL_BODY), NULL));
}

/* A batch of one entry a queue. Whether it found room; else it is taken back. */
static bool put_round(uint64_t position)
{
    uint32_t numbers[QUEUES];

    for (uint64_t i = 0; i < QUEUES; i++)
        numbers[i] = put_small(i + 1, position);
    commit();
    if (!store_is_full(store))
        return true;
    for (uint64_t i = 0; i < QUEUES; i++)
        store_take_back(store, numbers[i]);
    return false;
}

/* To the last page, with single entries. Answers where they end. */
static uint64_t put_singly(uint64_t position)
{
    for (;; position++) {
        const uint32_t number = put_small(1, position);
        store_ask_for_room(store);
        commit();
        if (!store_open_is_empty(store)) {
            store_take_back(store, number);
            return position;
        }
    }
}

/* A large transaction of deletes, scattered over the whole, is what the reserve is for. */
START_TEST(deletes_find_room_all_at_once)
{
    uint64_t rounds = 0;

    begin(_i);
    for (uint64_t queue = 1; queue <= QUEUES; queue++)
        store_create_queue(store, queue);
    commit();
    while (put_round(rounds))
        rounds++;
    ck_assert_uint_gt(rounds, 10);
    const uint64_t end_of_first = put_singly(rounds);
    for (uint64_t queue = 1; queue <= QUEUES; queue++)
        for (uint64_t i = 0; i < (queue == 1 ? end_of_first : rounds); i++)
            store_delete_entry(store, queue, i, SMALL_BODY);
    const uint64_t lsn = store_open_lsn(store);
    commit_deletes(lsn, true);
    store_ask_for_room(store);
    commit();
    ck_assert(!store_is_full(store));
    end();
}
END_TEST

START_TEST(definitions_find_room_until_half_of_it_is_gone)
{
    static const uint8_t value[20000];
    uint64_t records = 0;

    begin(_i);
    store_create_queue(store, 1);
    commit();
    const uint64_t durable = fill(0);
    for (uint64_t lsn = 0;; records++) {
        char key[32];
        snprintf(key, sizeof key, "record %" PRIu64, records);
        store_put_record(store, slice_of_string(key), slice_of(value, sizeof value));
        lsn = store_open_lsn(store);
        commit();
        if (store_durable(store) < lsn)
            break;
    }
    ck_assert_uint_gt(records, 5);
    ck_assert_uint_lt(records, 200);
    definitions_wait = true;
    drain(0, durable);
    store_ask_for_room(store);
    commit();
    ck_assert_uint_eq(store_durable_entries(store), store_open_lsn(store) - 1);
    end();
}
END_TEST

/* In a process of its own, as stoatdump is: a snapshot, until it is killed. */
static pid_t begin_reader(void)
{
    int ready[2];
    char said;

    ck_assert_int_eq(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        struct database database;
        char error[STORE_ERROR_SIZE];
        MDB_txn *txn;
        if (database_open_read_only(&database, directory, DATABASE_SHARED, error) != 0 ||
            mdb_txn_begin(database.env, NULL, MDB_RDONLY, &txn) != 0)
            _exit(1);
        if (write(ready[1], "", 1) == 1)
            pause();
        _exit(1);
    }
    close(ready[1]);
    ck_assert_int_eq(read(ready[0], &said, 1), 1);
    close(ready[0]);
    return child;
}

/* What is freed under the reader's eyes is no room. */
static uint64_t churn_until_full(uint64_t next)
{
    for (;;) {
        const uint64_t first = next;
        ck_assert_uint_lt(next, MESSAGES_MAX);
        next = put(next, BATCH);
        commit();
        if (store_is_full(store))
            return first;
        for (uint64_t i = first; i < next; i++)
            store_delete_entry(store, 1, i, BODY);
        commit();
    }
}

START_TEST(deletes_find_room_beside_a_reader)
{
    enum { BACKLOG = 300 };

    begin(_i);
    store_create_queue(store, 1);
    put(0, BACKLOG);
    commit();
    const pid_t reader = begin_reader();
    const uint64_t waiting = churn_until_full(BACKLOG);
    for (uint64_t i = 0; i < BACKLOG; i++) {
        store_delete_entry(store, 1, i, BODY);
        if (i % 30 == 29)
            commit_deletes(store_open_lsn(store), true);
    }
    ck_assert(store_is_full(store));
    ck_assert_int_eq(kill(reader, SIGKILL), 0);
    ck_assert_int_eq(waitpid(reader, NULL, 0), reader);
    const uint64_t lsn = store_open_lsn(store);
    commit_deletes(lsn, true);
    recover();
    ck_assert_uint_eq(recovered_count, BATCH);
    ck_assert_uint_eq(recovered_head, waiting);
    end();
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("room");
    Suite *suite = suite_create("room");

    tcase_add_loop_test(tcase, a_full_store_is_emptied_and_filled_again, 0, ROUNDS);
    tcase_add_loop_test(tcase, what_is_emptied_at_once_is_room_again, 0, ROUNDS);
    tcase_add_loop_test(tcase, what_waits_is_given_up_at_the_end_and_the_rest_is_there, 0, ROUNDS);
    tcase_add_loop_test(tcase, deletes_find_room_all_at_once, 0, ROUNDS);
    tcase_add_loop_test(tcase, definitions_find_room_until_half_of_it_is_gone, 0, ROUNDS);
    tcase_add_loop_test(tcase, deletes_find_room_beside_a_reader, 0, ROUNDS);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
