/* See verify.h. One row after another of one database after another; a queue's row brings a walk
 * over its segments with it, a live row one over its blob's holders and bodies.
 *
 * What counts as needing a blob is what has not been taken from its counter yet: an entry above its
 * queue's head and not gone, and in ranges still to be trimmed every one that is not gone. */
#include "store/verify.h"

#include <stdarg.h>

#include "base/clock.h"
#include "store/body.h"
#include "store/scan.h"

static void found(struct verify *verify, const char *format, ...) printf_like(2, 3);

static void found(struct verify *verify, const char *format, ...)
{
    char text[256];
    va_list arguments;

    verify->findings++;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (verify->on_finding != NULL)
        verify->on_finding(verify->context, text);
}

/* What the last finding is about. */
static void tell(struct verify *verify, enum damage_kind kind, uint64_t id, uint64_t position)
{
    const struct damage damage = {.kind = kind, .id = id, .position = position};

    if (verify->on_damage != NULL)
        verify->on_damage(verify->context, &damage);
}

/* A row by its key; false: it is not there. */
static bool look_up(struct verify *verify, enum database_id id, struct key wanted,
                    struct slice *value)
{
    MDB_val key = val_of(key_slice(&wanted)), v;

    const int rc = mdb_get(verify->txn, verify->database->dbi[id], &key, &v);
    if (rc != 0 && rc != MDB_NOTFOUND)
        verify->rc = rc;
    *value = slice_of_val(v);
    return rc == 0;
}

static MDB_cursor *open_cursor(struct verify *verify, enum database_id id)
{
    MDB_cursor *cursor = NULL;

    if (verify->rc == 0)
        verify->rc = mdb_cursor_open(verify->txn, verify->database->dbi[id], &cursor);
    return cursor;
}

/* Of the ranges of the queue to be trimmed, the one in which the segment lies. */
static bool find_trim(struct verify *verify, const struct segment *segment, uint64_t *from)
{
    MDB_cursor *cursor = open_cursor(verify, DB_TRIM);
    struct slice key, value;
    uint64_t end = 0;

    if (cursor == NULL)
        return false;
    const bool any =
        database_get_below(cursor, segment->queue_id, segment->last, &key, &value) == 0 &&
        number_decode(key, value, &end);
    if (any)
        *from = get_u64(key.data + 8);
    mdb_cursor_close(cursor);
    return any && end > segment->first;
}

/* ---- one row of each kind -------------------------------------------------------------------- */

/* Its key as hexadecimal digits, since it need not be text. */
static void found_record(struct verify *verify, struct slice key, const char *what)
{
    char digits[65] = "";

    for (size_t i = 0; i < key.size && i < 32; i++)
        snprintf(digits + 2 * i, 3, "%02x", key.data[i]);
    found(verify, "record %s: %s", digits, what);
}

static void check_record(struct verify *verify, struct slice key, struct slice value)
{
    verify->records++;
    if (!record_check(key, value)) {
        struct damage damage = {.kind = DAMAGE_RECORD, .key_size = key.size};
        memcpy(damage.key, key.data, key.size);
        found_record(verify, key, "its checksum does not hold");
        if (verify->on_damage != NULL)
            verify->on_damage(verify->context, &damage);
    } else if (verify->is_sound != NULL &&
               !verify->is_sound(key, slice_of(value.data + HEADER_SIZE, value.size - HEADER_SIZE)))
        found_record(verify, key, "it cannot be understood");
}

static void check_counters(struct verify *verify, uint64_t id, const struct queue_row *row)
{
    struct scan scan = {0};
    const uint64_t before = verify->findings;
    uint64_t count = 0, bytes = 0, first = 0, end = 0;
    bool deadlines = false;

    scan_begin(&scan, verify->database, verify->txn, id, 0, UINT64_MAX);
    scan.first = row->head;
    while (scan_next(&scan)) {
        first = count++ == 0 ? scan.entry.position : first;
        end = scan.entry.position + 1;
        bytes += scan.entry.weight;
        deadlines = deadlines || scan.entry.expires_ms != 0;
    }
    if (scan.damaged > 0)
        found(verify, "queue %" PRIu64 ": %u rows of its index cannot be read", id, scan.damaged);
    if (count != row->count || bytes != row->bytes)
        found(verify,
              "queue %" PRIu64 ": its row counts %" PRIu64 " entries, %" PRIu64
              " bytes; the index has %" PRIu64 " and %" PRIu64,
              id, row->count, row->bytes, count, bytes);
    if (end > row->tail || (count > 0 && row->head > first))
        found(verify,
              "queue %" PRIu64 ": entries from %" PRIu64 " to %" PRIu64 " outside of %" PRIu64
              " to %" PRIu64,
              id, first, end, row->head, row->tail);
    if (deadlines && !row->deadlines)
        found(verify, "queue %" PRIu64 ": entries expire, its row knows of none", id);
    if (verify->findings > before)
        tell(verify, DAMAGE_QUEUE, id, 0);
    verify->entries += count;
    verify->rc = verify->rc != 0 ? verify->rc : scan.rc;
    scan_end(&scan);
}

static void check_queue(struct verify *verify, struct slice key, struct slice value)
{
    const uint64_t id = key.size == 8 ? get_u64(key.data) : 0;
    struct queue_row row;

    verify->queues++;
    if (queue_row_decode(key, value, &row)) {
        check_counters(verify, id, &row);
        return;
    }
    found(verify, "queue %" PRIu64 ": its row cannot be read", id);
    tell(verify, DAMAGE_QUEUE, id, 0);
}

static void check_segment(struct verify *verify, struct slice key, struct slice value)
{
    struct segment segment;
    struct slice row;
    uint64_t from;

    verify->segments++;
    if (!segment_decode(key, value, &segment)) {
        found(verify, "segment %" PRIu64 "/%" PRIu64 ": it cannot be read",
              key.size == 16 ? get_u64(key.data) : 0, key.size == 16 ? get_u64(key.data + 8) : 0);
        if (key.size == 16)
            tell(verify, DAMAGE_QUEUE, get_u64(key.data), 0);
        return;
    }
    if (!look_up(verify, DB_LIVE, key_u64(segment.blob), &row)) {
        found(verify, "segment %" PRIu64 "/%" PRIu64 ": blob %" PRIu64 " is not there",
              segment.queue_id, segment.first, segment.blob);
        tell(verify, DAMAGE_BLOB, segment.blob, 0);
    }
    if (!look_up(verify, DB_QUEUE, key_u64(segment.queue_id), &row) &&
        !find_trim(verify, &segment, &from))
        found(verify, "segment %" PRIu64 "/%" PRIu64 ": it belongs to no queue", segment.queue_id,
              segment.first);
}

static void check_gone(struct verify *verify, struct slice key, struct slice value)
{
    const uint64_t before = verify->findings;
    struct segment segment;
    struct slice row;
    struct gone gone;

    if (key.size != 16 ||
        !look_up(verify, DB_INDEX, key_pair(get_u64(key.data), get_u64(key.data + 8)), &row))
        found(verify, "gone row %" PRIu64 "/%" PRIu64 ": there is no such segment",
              key.size == 16 ? get_u64(key.data) : 0, key.size == 16 ? get_u64(key.data + 8) : 0);
    else if (segment_decode(key, row, &segment) && !gone_decode(key, value, segment.count, &gone))
        found(verify, "gone row %" PRIu64 "/%" PRIu64 ": it cannot be read", segment.queue_id,
              segment.first);
    if (verify->findings > before && key.size == 16)
        tell(verify, DAMAGE_QUEUE, get_u64(key.data), 0);
}

static void check_trim(struct verify *verify, struct slice key, struct slice value)
{
    uint64_t end;

    if (key.size == 16 && number_decode(key, value, &end) && end > get_u64(key.data + 8))
        return;
    const uint64_t id = key.size == 16 ? get_u64(key.data) : 0;
    found(verify, "trim row of queue %" PRIu64 ": it cannot be read", id);
    tell(verify, DAMAGE_QUEUE, id, 0);
}

static void check_sparse(struct verify *verify, struct slice key, struct slice value)
{
    const uint64_t blob = key.size == 16 ? get_u64(key.data + 8) : 0;
    struct slice row_value;
    struct live_row row;
    const struct key name = key_u64(blob);

    if (key.size != 16 || !record_check(key, value) ||
        !look_up(verify, DB_LIVE, name, &row_value) ||
        !live_decode(key_slice(&name), row_value, &row) || row.since != get_u64(key.data)) {
        found(verify, "sparse row of blob %" PRIu64 ": it does not agree with the live row", blob);
        tell(verify, DAMAGE_BLOB, blob, key.size == 16 ? get_u64(key.data) : 0);
    }
}

/* ---- a blob ---------------------------------------------------------------------------------- */

struct blob_check {
    uint64_t blob, entries, alive;
    bool counts; /* and does nothing else */
    struct body_reader bodies;
};

/* What in the segment still counts; and the bodies of what lives. */
static void count_segment(struct verify *verify, struct blob_check *check,
                          const struct segment *segment, const struct gone *gone)
{
    struct slice value;
    struct queue_row row = {0};
    const struct key name = key_u64(segment->queue_id);
    uint64_t from = 0;
    const bool trimmed = find_trim(verify, segment, &from);
    struct segment_reader reader;
    bool damaged;

    if (!trimmed && look_up(verify, DB_QUEUE, name, &value) &&
        queue_row_decode(key_slice(&name), value, &row))
        from = row.head;
    segment_read(&reader, segment);
    while (segment_next(&reader, &damaged)) {
        const struct segment_entry *entry = &reader.entry;
        if (entry->position < from || gone_has(gone, reader.index - 1))
            continue;
        check->entries++;
        check->alive += blob_cost(entry->place.size);
        if (!check->counts && !trimmed && !body_read(&check->bodies, check->blob, entry, NULL)) {
            found(verify, "entry %" PRIu64 "/%" PRIu64 ": its body in blob %" PRIu64 " is damaged",
                  segment->queue_id, entry->position, check->blob);
            tell(verify, DAMAGE_BODY, segment->queue_id, entry->position);
        }
        verify->body_bytes += entry->place.size;
    }
    if (damaged)
        found(verify, "segment %" PRIu64 "/%" PRIu64 ": its entries cannot be read",
              segment->queue_id, segment->first);
}

static void check_holder(struct verify *verify, struct blob_check *check,
                         const struct holder *holder)
{
    const struct key name = key_pair(holder->queue_id, holder->first);
    struct slice value;
    struct segment segment;
    struct gone gone = {0};

    if (!look_up(verify, DB_INDEX, name, &value) ||
        !segment_decode(key_slice(&name), value, &segment) || segment.blob != check->blob)
        return; /* emptied, or what is wrong with it has been said */
    struct slice row;
    if (look_up(verify, DB_GONE, name, &row) &&
        !gone_decode(key_slice(&name), row, segment.count, &gone))
        gone = (struct gone){0};
    count_segment(verify, check, &segment, &gone);
}

/* false: it has no holders that can be read. */
static bool check_holders(struct verify *verify, struct blob_check *check)
{
    const struct key name = key_part(check->blob, PART_HOLDERS);
    struct slice value;
    struct holder holder = {0};
    size_t offset = HEADER_SIZE;
    bool damaged;

    if (!look_up(verify, DB_BLOB, name, &value) || !record_check(key_slice(&name), value))
        return false;
    while (holder_next(value, &offset, &holder, &damaged))
        check_holder(verify, check, &holder);
    return !damaged;
}

bool verify_count_blob(const struct database *database, MDB_txn *txn, uint64_t blob,
                       uint64_t *entries, uint64_t *alive)
{
    struct blob_check check = {.blob = blob, .counts = true};
    struct verify verify;

    verify_begin(&verify, database, NULL, NULL);
    verify.txn = txn;
    const bool known = check_holders(&verify, &check) && verify.rc == 0;
    *entries = check.entries;
    *alive = check.alive;
    return known;
}

static void check_live(struct verify *verify, struct slice key, struct slice value)
{
    struct blob_check check = {.blob = key.size == 8 ? get_u64(key.data) : 0};
    struct live_row row;

    verify->blobs++;
    if (!live_decode(key, value, &row)) {
        found(verify, "blob %" PRIu64 ": its live row cannot be read", check.blob);
        tell(verify, DAMAGE_BLOB, check.blob, 0);
        return;
    }
    verify->size += row.size;
    verify->sparse += row.since != 0 ? row.size : 0;
    body_reader_begin(&check.bodies, verify->database, verify->txn);
    const bool known = check_holders(verify, &check);
    if (row.entries == LIVE_PINNED)
        return;
    /* What lives of a single body is not told by `alive`, which is cut off at 32 bits: blob.c. */
    const bool alive_counts = row.sparse_at != 0;
    if (!known)
        found(verify, "blob %" PRIu64 ": its holders cannot be read", check.blob);
    else if (check.entries != row.entries || (alive_counts && check.alive != row.alive))
        found(verify,
              "blob %" PRIu64 ": its row counts %u entries that take %u; the index has %" PRIu64
              " and %" PRIu64,
              check.blob, row.entries, row.alive, check.entries, check.alive);
    else
        return;
    tell(verify, DAMAGE_BLOB, check.blob, 0);
}

/* Its first row or its last: one look-up for all between. */
static bool is_end_of_blob(uint32_t part)
{
    return part == 0 || part == PART_HOLDERS;
}

static void check_blob(struct verify *verify, struct slice key, struct slice value)
{
    struct slice row;

    (void)value;
    if (key.size != 12)
        found(verify, "a part of no blob");
    else if (is_end_of_blob(get_u32(key.data + 8)) &&
             !look_up(verify, DB_LIVE, key_u64(get_u64(key.data)), &row)) {
        found(verify, "blob %" PRIu64 ": it has no live row", get_u64(key.data));
        tell(verify, DAMAGE_BLOB, get_u64(key.data), 0);
    }
}

static void check_meta(struct verify *verify, struct slice key, struct slice value)
{
    struct state_row state;

    if (!record_check(key, value) ||
        (slice_equal(key, database_state_key()) && !state_decode(key, value, &state))) {
        found(verify, "row \"%.*s\": it cannot be read", SLICE_ARG(key));
        return;
    }
    if (slice_equal(key, database_state_key()) && verify->one_snapshot &&
        (state.size != verify->size || state.sparse != verify->sparse))
        found(verify,
              "the state counts %" PRIu64 " bytes in blobs, %" PRIu64
              " in sparse ones; they have %" PRIu64 " and %" PRIu64,
              state.size, state.sparse, verify->size, verify->sparse);
}

/* ---- the walk -------------------------------------------------------------------------------- */

static const struct {
    enum database_id id;
    void (*check)(struct verify *verify, struct slice key, struct slice value);
} phases[] = {
    {DB_RECORD, check_record}, {DB_QUEUE, check_queue}, {DB_INDEX, check_segment},
    {DB_GONE, check_gone},     {DB_TRIM, check_trim},   {DB_LIVE, check_live},
    {DB_SPARSE, check_sparse}, {DB_BLOB, check_blob},   {DB_META, check_meta},
};

void verify_begin(struct verify *verify, const struct database *database,
                  void (*on_finding)(void *context, const char *text), void *context)
{
    *verify = (struct verify){.database = database, .on_finding = on_finding, .context = context};
}

/* The first row after the one looked at last. */
static int find_next(struct verify *verify, MDB_cursor *cursor, struct slice *key,
                     struct slice *value)
{
    const struct slice last = slice_of(verify->last, verify->last_size);

    if (verify->last_size == 0)
        return database_get(cursor, MDB_FIRST, key, value);
    *key = last;
    int rc = database_get(cursor, MDB_SET_RANGE, key, value);
    if (rc == 0 && slice_equal(*key, last))
        rc = database_get(cursor, MDB_NEXT, key, value);
    return rc;
}

/* Rows of one database. true: time is up before its end. */
static bool check_rows(struct verify *verify, uint64_t until_ns)
{
    MDB_cursor *cursor = open_cursor(verify, phases[verify->phase].id);
    struct slice key, value;
    bool late = false;

    if (cursor == NULL)
        return false;
    int rc = find_next(verify, cursor, &key, &value);
    while (rc == 0 && verify->rc == 0 && !late) {
        phases[verify->phase].check(verify, key, value);
        verify->last_size = min_of(key.size, sizeof verify->last);
        memcpy(verify->last, key.data, verify->last_size);
        late = clock_monotonic_ns() > until_ns;
        if (!late)
            rc = database_get(cursor, MDB_NEXT, &key, &value);
    }
    if (rc != 0 && rc != MDB_NOTFOUND)
        verify->rc = rc;
    mdb_cursor_close(cursor);
    return late;
}

bool verify_step(struct verify *verify, MDB_txn *txn, uint64_t duration_ns)
{
    const uint64_t until_ns = clock_monotonic_ns() + duration_ns;

    verify->txn = txn;
    while (verify->phase < countof(phases) && verify->rc == 0) {
        if (check_rows(verify, until_ns))
            return true;
        verify->phase++;
        verify->last_size = 0;
    }
    return false;
}
