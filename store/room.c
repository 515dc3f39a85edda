#include "store/room.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { /* bytes */
       RESERVE_MIN = 1 << 20,
       RESERVE_MAX = 64 << 20,
       STEP_MIN = 1 << 20, /* by which the file grows ahead */
       STEP_MAX = 16 << 20,
       WRITE_MAX = 64 << 12, /* one writev of LMDB's */
};

enum { FREE_LIST = 0 }; /* LMDB's own tree */

static uint64_t less(uint64_t from, uint64_t what)
{
    return from - min_of(what, from);
}

/* ---- looking --------------------------------------------------------------------------------- */

static void add_stat(const MDB_stat *stat, uint64_t *trees, uint64_t *pages)
{
    *trees += stat->ms_branch_pages + stat->ms_leaf_pages;
    *pages += stat->ms_branch_pages + stat->ms_leaf_pages + stat->ms_overflow_pages;
}

static size_t number_at(const void *data)
{
    size_t number;

    memcpy(&number, data, sizeof number);
    return number;
}

/* A line of mdb_reader_list's ends with the transaction that is read, or a dash. */
static int on_reader(const char *line, void *context)
{
    const char *last = strrchr(line, ' ');
    uint64_t *oldest = context;
    char *end;

    if (last == NULL)
        return 0;
    const uint64_t read = strtoull(last + 1, &end, 10);
    if (end > last + 1)
        *oldest = min_of(*oldest, read);
    return 0;
}

/* The oldest transaction that somebody reads; UINT64_MAX: nobody does. A process that was killed
 * reads no more. */
static uint64_t find_oldest(const struct room *room)
{
    uint64_t oldest = UINT64_MAX;
    int dead;

    mdb_reader_check(room->database->env, &dead);
    mdb_reader_list(room->database->env, on_reader, &oldest);
    return oldest;
}

/* Rows of the free list: transaction -> count, page numbers. Those from the oldest on stay as they
 * are while it is the oldest, so that only new ones are looked at. */
static int count_pinned(struct room *room, uint64_t oldest)
{
    const uint64_t last = mdb_txn_id(room->txn);
    struct room_pinned *pinned = &room->pinned;
    MDB_cursor *cursor;
    MDB_val key, value;

    if (oldest != pinned->from)
        *pinned = (struct room_pinned){.from = oldest, .end = oldest};
    int rc = mdb_cursor_open(room->txn, FREE_LIST, &cursor);
    if (rc != 0)
        return rc;
    size_t next = pinned->end;
    key = (MDB_val){sizeof next, &next};
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))
        pinned->pages += number_at(value.mv_data);
    mdb_cursor_close(cursor);
    pinned->end = last + 1;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The free list and the list of databases are LMDB's own trees, 0 and 1. */
static int count_pages(struct room *room, uint64_t *pages)
{
    MDB_stat stat;
    int rc = 0;

    room->trees = 0;
    *pages = 2; /* the meta pages */
    for (MDB_dbi dbi = 0; dbi < 2 && rc == 0; dbi++) {
        rc = mdb_stat(room->txn, dbi, &stat);
        if (rc == 0)
            add_stat(&stat, &room->trees, pages);
    }
    for (size_t i = 0; i < DATABASE_COUNT && rc == 0; i++) {
        rc = mdb_stat(room->txn, room->database->dbi[i], &stat);
        if (rc == 0)
            add_stat(&stat, &room->trees, pages);
    }
    return rc;
}

static int look(struct room *room)
{
    const uint64_t oldest = find_oldest(room); /* before this is a reader itself */
    MDB_envinfo info;
    uint64_t pages;
    int rc = mdb_txn_renew(room->txn);

    if (rc != 0)
        return rc;
    rc = count_pages(room, &pages);
    if (rc == 0)
        rc = count_pinned(room, min_of(oldest, mdb_txn_id(room->txn)));
    mdb_txn_reset(room->txn);
    if (rc == 0)
        rc = mdb_env_info(room->database->env, &info);
    if (rc != 0)
        return rc;
    room->used = info.me_last_pgno + 1;
    room->backed = max_of(room->backed, room->used);
    room->map_size = info.me_mapsize / room->page_size;
    room->usable = less(room->used, pages + room->pinned.pages);
    room->soon = room->usable + (oldest == UINT64_MAX ? room->pinned.pages : 0);
    return 0;
}

static uint64_t reserve(const struct room *room)
{
    return min_of(RESERVE_MIN / room->page_size + room->trees,
                  (uint64_t)RESERVE_MAX / room->page_size);
}

/* ---- what a batch takes ---------------------------------------------------------------------- */

static uint64_t pages_of(const struct room *room, uint64_t bytes)
{
    return bytes / room->page_size + 1;
}

struct pages {
    uint64_t single;   /* one here, one there */
    uint64_t together; /* in runs, for bodies and large records */
};

/* Pages that change are copied, each once; new rows split some, fill half-empty ones, or have pages
 * of their own. */
static struct pages wanted(const struct room *room, const struct batch *batch)
{
    const uint64_t entries = batch->live, records = batch->records.count;
    const uint64_t operations = entries + records + batch->deletes.count + batch->tied.count +
                                batch->creates.count + batch->drops.count + batch->ranges.count;
    const uint64_t copies = min_of(4 * operations, room->trees);
    const uint64_t bodies = 2 * pages_of(room, batch->body_bytes);

    return (struct pages){
        .single = entries / 16 + operations / 32 + records + copies + copies / 64 + 32,
        .together = bodies + bodies / 64 + 2 * pages_of(room, buf_size(&batch->record_bytes)),
    };
}

/* ---- making room ----------------------------------------------------------------------------- */

static bool allocate(struct room *room, uint64_t end)
{
    int rc;

    if (end > room->map_size)
        return false;
    do
        rc = posix_fallocate(room->fd, (off_t)(room->backed * room->page_size),
                             (off_t)((end - room->backed) * room->page_size));
    while (rc == EINTR);
    if (rc == 0)
        room->backed = end;
    return rc == 0;
}

/* What the file has got already, of an earlier run or an attempt that found less than it wanted. */
static void take_in_tail(struct room *room)
{
    struct stat file;

    if (fstat(room->fd, &file) == 0 && (uint64_t)file.st_size / room->page_size > room->backed)
        allocate(room, min_of((uint64_t)file.st_size / room->page_size, room->map_size));
}

/* Whether so many pages behind those in use are backed now. */
static bool back(struct room *room, uint64_t pages)
{
    const uint64_t end = room->used + pages;
    const uint64_t step = min_of(max_of(room->used / 64, (uint64_t)STEP_MIN / room->page_size),
                                 (uint64_t)STEP_MAX / room->page_size);

    if (end <= room->backed || allocate(room, min_of(end + step, max_of(end, room->map_size))) ||
        allocate(room, end))
        return true;
    take_in_tail(room);
    return end <= room->backed;
}

/* Whether so many pages may be written for sure: usable ones, and those behind. */
static enum room_found find(const struct room *room, uint64_t pages)
{
    const uint64_t behind = room->backed - room->used;

    return room->usable + behind >= pages ? ROOM_NOW
           : room->soon + behind >= pages ? ROOM_LATER
                                          : ROOM_NOT;
}

/* What is to lie behind for a batch while the disk has room: what may need runs of pages; and of
 * the rest, and the reserve after it, what free pages do not hold. */
static uint64_t behind(const struct room *room, struct pages pages, uint64_t body_bytes)
{
    const uint64_t moved = pages_of(room, BLOB_SIZE_MAX + body_bytes);
    const uint64_t now = less(pages.single, room->usable);
    const uint64_t after = less(pages.single + reserve(room), room->soon);

    return pages.together + moved + moved / 8 + max_of(now, after);
}

enum room_found room_make(struct room *room, const struct batch *batch)
{
    const enum batch_part part = batch_refused_part(batch);

    room->tight = false;
    if (look(room) != 0)
        return ROOM_NOW; /* whatever is wrong, the transaction will say so */
    const uint64_t kept = part == BATCH_ALL    ? reserve(room)
                          : part == BATCH_LEAN ? reserve(room) / 2
                                               : 0;
    const struct pages pages = wanted(room, batch);

    room->tight = !back(room, behind(room, pages, batch->body_bytes));
    return !room->tight || part == BATCH_DELETES ? ROOM_NOW
                                                 : find(room, kept + pages.single + pages.together);
}

enum room_found room_find_ample(struct room *room)
{
    if (look(room) != 0)
        return ROOM_NOT;
    const uint64_t pages = 2 * reserve(room) + STEP_MIN / room->page_size;

    return back(room, pages) ? ROOM_NOW : find(room, pages);
}

static bool is_full(int rc)
{
    return rc == ENOSPC || rc == EDQUOT || rc == EFBIG;
}

/* The file cannot grow by what LMDB writes at once. */
static bool cannot_grow(const struct database *database)
{
    struct stat file;
    int fd;

    return mdb_env_get_fd(database->env, &fd) == 0 && fstat(fd, &file) == 0 &&
           is_full(posix_fallocate(fd, file.st_size, WRITE_MAX));
}

/* LMDB calls a write that came to its end too early EIO. */
bool room_is_wanting(const struct database *database, int rc)
{
    return rc == MDB_MAP_FULL || is_full(rc) || (rc == EIO && cannot_grow(database));
}

int room_open(struct room *room, const struct database *database)
{
    MDB_stat stat;

    *room = (struct room){.database = database};
    int rc = mdb_env_stat(database->env, &stat);
    if (rc == 0)
        rc = mdb_env_get_fd(database->env, &room->fd);
    if (rc == 0)
        rc = mdb_txn_begin(database->env, NULL, MDB_RDONLY, &room->txn);
    if (rc != 0)
        return database_errno(rc);
    room->page_size = stat.ms_psize;
    mdb_txn_reset(room->txn);
    rc = look(room);
    if (rc == 0)
        take_in_tail(room);
    else
        mdb_txn_abort(room->txn);
    return database_errno(rc);
}

void room_close(struct room *room)
{
    mdb_txn_abort(room->txn);
}
