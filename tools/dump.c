/* stoatdump: what stands in a store, row by row, for those who look for a fault. It reads the data
 * file as it is, of a broker at rest or of a backup put into a directory; nothing is changed. */
#include <getopt.h>
#include <inttypes.h>
#include <sysexits.h>

#include "base/alloc.h"
#include "base/log.h"
#include "store/body.h"
#include "store/offline.h"

static bool with_entries, with_bodies;
static struct database database;
static MDB_txn *txn;
static uint64_t damaged; /* rows, entries and bodies that were called so */

/* Bytes as text, one line whatever they are. */
static void print_bytes(struct slice bytes)
{
    for (size_t i = 0; i < bytes.size; i++)
        if (bytes.data[i] >= ' ' && bytes.data[i] < 0x7f && bytes.data[i] != '\\')
            putchar(bytes.data[i]);
        else
            printf("\\x%02x", bytes.data[i]);
}

/* What ends a line about it. */
static const char *soundness(bool sound)
{
    damaged += !sound;
    return sound ? "" : " DAMAGED";
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void dump_meta(struct slice key, struct slice value)
{
    struct state_row state;

    printf("meta %.*s", SLICE_ARG(key));
    if (state_decode(key, value, &state))
        printf(" lsn %" PRIu64 " blob %" PRIu64 " size %" PRIu64 " sparse %" PRIu64 "%s%s\n",
               state.lsn, state.blob, state.size, state.sparse, state.clean ? " clean" : "",
               state.salvaged ? " salvaged" : "");
    else if (value.size == FORMAT_ROW_SIZE && record_check(key, value))
        printf(" %" PRIu32 "\n", get_u32(value.data + HEADER_SIZE));
    else
        printf("%s\n", soundness(false));
}

static void dump_record(struct slice key, struct slice value)
{
    const bool sound = record_check(key, value);

    printf("record ");
    print_bytes(key);
    printf(" = ");
    if (sound)
        print_bytes(slice_of(value.data + HEADER_SIZE, value.size - HEADER_SIZE));
    printf("%s\n", soundness(sound));
}

static void dump_queue(struct slice key, struct slice value)
{
    struct queue_row row;

    printf("queue %" PRIu64, key.size == 8 ? get_u64(key.data) : 0);
    if (queue_row_decode(key, value, &row))
        printf(" head %" PRIu64 " tail %" PRIu64 " count %" PRIu64 " bytes %" PRIu64
               " delivered %" PRIu64 "%s\n",
               row.head, row.tail, row.count, row.bytes, row.delivered,
               row.deadlines ? " deadlines" : "");
    else
        printf("%s\n", soundness(false));
}

static struct gone gone_of(const struct segment *segment)
{
    const struct key name = key_pair(segment->queue_id, segment->first);
    MDB_val key = val_of(key_slice(&name)), value;
    struct gone gone = {0};

    if (mdb_get(txn, database.dbi[DB_GONE], &key, &value) == 0 &&
        !gone_decode(key_slice(&name), slice_of_val(value), segment->count, &gone))
        gone = (struct gone){0};
    return gone;
}

static void dump_body(struct body_reader *bodies, uint64_t blob, const struct segment_entry *entry)
{
    uint8_t *bytes = xmalloc(max_of(entry->place.size, 1U));

    printf("    ");
    const bool sound = body_read(bodies, blob, entry, bytes);
    if (sound)
        print_bytes(slice_of(bytes, entry->place.size));
    printf("%s\n", soundness(sound));
    free(bytes);
}

static void dump_entries(const struct segment *segment, const struct gone *gone)
{
    struct segment_reader reader;
    struct body_reader bodies;
    bool cut;

    segment_read(&reader, segment);
    body_reader_begin(&bodies, &database, txn);
    while (segment_next(&reader, &cut)) {
        const struct segment_entry *entry = &reader.entry;
        const bool is_gone = gone_has(gone, reader.index - 1);
        printf("  entry %" PRIu64 " part %" PRIu32 " offset %" PRIu32 " size %" PRIu32
               " weight %" PRIu32 " expires %" PRIu64 " flags %u%s\n",
               entry->position, entry->place.part, entry->place.offset, entry->place.size,
               entry->weight, entry->expires_ms, entry->flags, is_gone ? " gone" : "");
        if (with_bodies && !is_gone)
            dump_body(&bodies, segment->blob, entry);
    }
    if (cut)
        printf(" %s\n", soundness(false));
}

static void dump_segment(struct slice key, struct slice value)
{
    struct segment segment;

    if (!segment_decode(key, value, &segment)) {
        printf("segment ");
        print_bytes(key);
        printf("%s\n", soundness(false));
        return;
    }
    const struct gone gone = gone_of(&segment);
    printf("segment %" PRIu64 "/%" PRIu64 " to %" PRIu64 " blob %" PRIu64 " entries %u gone %u\n",
           segment.queue_id, segment.first, segment.last, segment.blob, segment.count,
           gone_count(&gone));
    if (with_entries)
        dump_entries(&segment, &gone);
}

static void dump_trim(struct slice key, struct slice value)
{
    uint64_t end = 0;
    const bool sound = key.size == 16 && number_decode(key, value, &end);

    printf("trim %" PRIu64 " from %" PRIu64 " to %" PRIu64 "%s\n",
           key.size == 16 ? get_u64(key.data) : 0, key.size == 16 ? get_u64(key.data + 8) : 0, end,
           soundness(sound));
}

static void dump_live(struct slice key, struct slice value)
{
    struct live_row row;

    printf("blob %" PRIu64, key.size == 8 ? get_u64(key.data) : 0);
    if (!live_decode(key, value, &row))
        printf("%s\n", soundness(false));
    else if (row.entries == LIVE_PINNED)
        printf(" pinned\n");
    else
        printf(" entries %" PRIu32 " size %" PRIu32 " alive %" PRIu32 " sparse at %" PRIu32
               " since %" PRIu64 "\n",
               row.entries, row.size, row.alive, row.sparse_at, row.since);
}

static int dump_all(enum database_id id, void (*dump)(struct slice key, struct slice value))
{
    MDB_cursor *cursor;
    struct slice key = {0}, value;
    int rc = mdb_cursor_open(txn, database.dbi[id], &cursor);

    if (rc != 0)
        return rc;
    for (rc = database_get(cursor, MDB_FIRST, &key, &value); rc == 0;
         rc = database_get(cursor, MDB_NEXT, &key, &value))
        dump(key, value);
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- the command ----------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum database_id id;
    void (*dump)(struct slice key, struct slice value);
} kinds[] = {
    {"meta", DB_META, dump_meta},         {"records", DB_RECORD, dump_record},
    {"queues", DB_QUEUE, dump_queue},     {"trims", DB_TRIM, dump_trim},
    {"segments", DB_INDEX, dump_segment}, {"blobs", DB_LIVE, dump_live},
};

static const char help[] =
    "Usage: stoatdump [OPTION]... DIR [KIND]...\n"
    "Prints what the store in the data directory DIR holds, one row a line.\n\n"
    "KIND is meta, records, queues, trims, segments or blobs; all of them when none is given.\n"
    "Records have the users' password hashes, and --bodies has messages: look before you show "
    "them.\n\n"
    "Options:\n"
    "  -e, --entries     with each segment its entries\n"
    "  -b, --bodies      with each entry its message\n"
    "      --help        print this help and exit\n"
    "      --version     print the version and exit\n\n"
    "Exit status: 0 when all was read, 64 for a mistake in the command line, 65 when the store is\n"
    "damaged, 66 when there is none, 77 when there is no access to it, 74 when something else\n"
    "kept it from being read.\n";

static bool is_wanted(const char *name, int count, char **words)
{
    for (int i = 0; i < count; i++)
        if (strcmp(words[i], name) == 0)
            return true;
    return count == 0;
}

static int usage_error(const char *text, const char *word)
{
    fprintf(stderr, "stoatdump: %s%s\nTry 'stoatdump --help'.\n", text, word);
    return EX_USAGE;
}

/* The first that is none; NULL: all are. */
static const char *find_no_kind(int count, char **words)
{
    for (int i = 0; i < count; i++) {
        bool known = false;
        for (size_t j = 0; j < countof(kinds); j++)
            known = known || strcmp(words[i], kinds[j].name) == 0;
        if (!known)
            return words[i];
    }
    return NULL;
}

struct wanted {
    const char *directory;
    int count;
    char **words;
};

/* What came of it, with a sentence. */
static int settle(int rc, const char *directory, struct child *child)
{
    const int result = offline_errno(rc);

    if (result == -EBADMSG)
        snprintf(child->error, sizeof child->error, "the store in %s is damaged: %s: %s", directory,
                 child->stage, mdb_strerror(rc));
    else if (result < 0)
        snprintf(child->error, sizeof child->error, "%s: %s: %s", directory, child->stage,
                 mdb_strerror(rc));
    else if (damaged > 0)
        snprintf(child->error, sizeof child->error,
                 "the store in %s is damaged: %" PRIu64 " damaged rows", directory, damaged);
    return result == 0 && damaged > 0 ? -EBADMSG : result;
}

static int dump_as_child(void *context, struct child *child)
{
    const struct wanted *wanted = context;
    const int result =
        database_open_read_only(&database, wanted->directory, DATABASE_SHARED, child->error);

    if (result < 0)
        return result;
    int rc = mdb_txn_begin(database.env, NULL, MDB_RDONLY, &txn);
    for (size_t i = 0; i < countof(kinds) && rc == 0; i++)
        if (is_wanted(kinds[i].name, wanted->count, wanted->words)) {
            child->stage = kinds[i].name;
            rc = dump_all(kinds[i].id, kinds[i].dump);
        }
    if (txn != NULL)
        mdb_txn_abort(txn);
    database_close(&database);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        snprintf(child->error, sizeof child->error, "cannot write: %s", strerror(errno));
        return -EIO;
    }
    return settle(rc, wanted->directory, child);
}

/* In a child, as a broker would look; but without a look before, as the store may be in use. */
static int dump(struct wanted *wanted)
{
    char error[STORE_ERROR_SIZE];
    int result = offline_begin(wanted->directory, error);

    log_level = LOG_NONE;
    if (result == 0)
        result = offline_run(dump_as_child, wanted, wanted->directory, error);
    if (result < 0)
        fprintf(stderr, "stoatdump: %s\n", error);
    return offline_exit_status(result);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"entries", no_argument, NULL, 'e'},
        {"bodies", no_argument, NULL, 'b'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };

    for (int option; (option = getopt_long(argc, argv, "eb", options, NULL)) != -1;) {
        if (option == 'h' || option == 'v') {
            fputs(option == 'h' ? help : "stoatdump " STOATMQ_VERSION "\n", stdout);
            return EX_OK;
        }
        if (option == '?') {
            fputs("Try 'stoatdump --help'.\n", stderr);
            return EX_USAGE;
        }
        with_entries = true;
        with_bodies = with_bodies || option == 'b';
    }
    if (optind == argc)
        return usage_error("which data directory?", "");
    struct wanted wanted = {argv[optind], argc - optind - 1, argv + optind + 1};
    const char *no_kind = find_no_kind(wanted.count, wanted.words);
    return no_kind == NULL ? dump(&wanted) : usage_error("there is no kind: ", no_kind);
}
