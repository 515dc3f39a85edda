/* Is a salvage due? A child looks (child.h), because a look can be the end of who looks: first as
 * pages.h reads, so that no tree leads astray or in circles, then as LMDB does.
 *
 * Due is what shows damage: the child dies of a fault, or is told that the file is not what it
 * should be. Whatever else keeps it from looking (memory, rights, a slow disk) is no reason: the
 * start goes on, and says itself what it cannot do. */
#include "store/salvage.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "store/child.h"
#include "store/pages.h"

enum {
    CHECK_MS = 5000, /* of pages: what a start has time for, if its disk is slow */
    CHECK_MS_OF_ALL = INT_MAX,
    TREE_KINDS = MDB_REVERSEKEY | MDB_DUPSORT | MDB_INTEGERKEY | MDB_DUPFIXED | MDB_INTEGERDUP |
                 MDB_REVERSEDUP,
};

/* ---- are the trees whole? -------------------------------------------------------------------- */

struct check {
    struct pages pages;
    uint64_t last; /* page in use */
    uint64_t until_ns;
    bool late; /* not all was looked at */

    struct buf key; /* the one before, in the same tree; empty before the first, and no key is */
};

/* A page has one use. */
static bool claim(struct check *check, uint64_t number)
{
    if (number < 2 || number > check->last || number >= check->pages.count ||
        pages_was_seen(&check->pages, number))
        return false;
    pages_see(&check->pages, number);
    return true;
}

typedef bool node_checker(struct check *check, const struct page_node *node);

static bool check_run(struct check *check, const struct page_node *node)
{
    uint64_t first, count;

    if (!node->is_big)
        return true;
    bool sound = pages_get_run(&check->pages, node, &first, &count);
    for (uint64_t i = 0; i < count && sound; i++)
        sound = claim(check, first + i);
    return sound;
}

/* Upwards: LMDB finds nothing behind one that is not, and two rows may say the same. */
static bool check_order(struct check *check, const struct page_node *node)
{
    const bool sound = slice_compare(buf_slice(&check->key), node->key) < 0;

    buf_clear(&check->key);
    buf_append(&check->key, node->key);
    return sound;
}

static bool check_node(struct check *check, const struct page_node *node)
{
    return check_order(check, node) && check_run(check, node);
}

/* Every page is where it should be, and leads to such pages; values are not read. */
static bool check_tree(struct check *check, uint64_t number, unsigned depth,
                       node_checker *check_leaf_node)
{
    uint8_t page[PAGE_SIZE_MAX];
    struct page_node node;

    check->late = check->late || clock_monotonic_ns() > check->until_ns;
    if (check->late)
        return true;
    if (depth == 0 || depth > PAGE_DEPTH_MAX || !claim(check, number) ||
        !pages_read(&check->pages, number, page) ||
        !(depth == 1 ? page_is_leaf(page) : page_is_branch(page)) ||
        !pages_is_packed(&check->pages, page))
        return false;
    const unsigned count = pages_node_count(&check->pages, page);
    for (unsigned i = 0; i < count; i++)
        if (!pages_get_node(&check->pages, page, i, &node) ||
            !(depth == 1 ? check_leaf_node(check, &node)
                         : check_tree(check, node.child, depth - 1, check_leaf_node)))
            return false;
    return count > 0;
}

static bool check_root(struct check *check, const struct page_tree *tree,
                       node_checker *check_leaf_node)
{
    return tree->root == PAGE_NONE || check_tree(check, tree->root, tree->depth, check_leaf_node);
}

static bool check_database(struct check *check, const struct page_node *node)
{
    struct page_tree tree;

    if (!check_order(check, node) || !page_get_tree(node, &tree) || tree.flags != 0)
        return false;
    struct buf name = check->key;
    check->key = BUF_EMPTY;
    const bool sound = check_root(check, &tree, check_node);
    buf_release(&check->key);
    check->key = name;
    return sound;
}

/* LMDB writes over the pages that are listed as free: none may be in use. Those at the end may
 * never have been written. Their keys, numbers in the machine's order of octets, are in an order of
 * LMDB's own. */
static bool check_free(struct check *check, const struct page_node *node)
{
    struct slice value;
    uint64_t count;

    if (!check_run(check, node) || !pages_get_value(&check->pages, node, &value) ||
        !page_get_free(value, &count))
        return false;
    bool sound = true;
    for (uint64_t i = 0; i < count && sound; i++) {
        const uint64_t number = page_free_number(value, i);
        sound = number <= check->last && (number >= check->pages.count || claim(check, number));
    }
    return sound;
}

/* Transaction n is in page n % 2, and n + 1 in the other. */
static bool check_metas(const struct page_meta metas[2])
{
    const uint64_t even = metas[0].transaction, odd = metas[1].transaction;

    return (even == 0 && odd == 0) || (even % 2 == 0 && (even + 1 == odd || even == odd + 1));
}

/* LMDB keeps flags of the whole file with those of its tree of free pages, which has numbers. */
static bool check_kinds(const struct page_meta *meta)
{
    return meta->databases.flags == 0 && (meta->free.flags & TREE_KINDS) == MDB_INTEGERKEY;
}

static bool is_whole(const char *directory, uint64_t check_ms)
{
    struct check check = {.until_ns = clock_monotonic_ns() + UINT64_C(1000000) * check_ms};
    struct page_meta metas[2];
    bool whole = pages_open(&check.pages, directory) == 0 &&
                 pages_read_meta(&check.pages, 0, &metas[0]) &&
                 pages_read_meta(&check.pages, 1, &metas[1]) && check_metas(metas);

    if (whole) {
        const struct page_meta *meta = &metas[metas[1].transaction > metas[0].transaction];
        check.last = meta->last;
        whole = check_kinds(meta) && check_root(&check, &meta->databases, check_database) &&
                check_root(&check, &meta->free, check_free);
    }
    pages_release(&check.pages);
    buf_release(&check.key);
    return whole;
}

/* ---- as LMDB reads --------------------------------------------------------------------------- */

static uint64_t touched; /* so that no read is optimised away */

static void touch(MDB_val val)
{
    const uint8_t *bytes = val.mv_data;

    for (size_t i = 0; i < val.mv_size; i += 64)
        touched += bytes[i];
}

/* All of it, or its two ends. */
static int look_at_tree(MDB_txn *txn, MDB_dbi dbi, bool all)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, dbi, &cursor);

    if (rc == 0)
        rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    while (rc == 0 && all) {
        touch(key);
        touch(value);
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Whoever opens the store will say so. */
static bool is_of_other_version(MDB_txn *txn)
{
    const uint32_t format = database_format(txn);

    return format != 0 && format != FORMAT_VERSION;
}

/* What a start reads: the free pages, the definitions, the queues; and where every tree begins and
 * ends. */
static int look_at_trees(struct child *child, MDB_txn *txn)
{
    MDB_dbi dbi[DATABASE_COUNT];

    child->stage = "its list of free pages";
    int rc = look_at_tree(txn, 0, true);
    child->stage = "its list of databases";
    if (rc == 0)
        rc = database_find_all(txn, dbi);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc == MDB_CORRUPTED && is_of_other_version(txn))
        return 0;
    for (enum database_id id = 0; id < DATABASE_COUNT && rc == 0; id++) {
        child->stage = database_name(id);
        rc = look_at_tree(txn, dbi[id], id == DB_QUEUE || id == DB_RECORD);
    }
    return rc;
}

struct look {
    const struct store_options *options;
    uint64_t check_ms;
};

/* Answers LMDB's code. */
static int look_at_file(void *context, struct child *child)
{
    const struct look *look = context;
    const struct store_options *options = look->options;
    MDB_env *env;
    MDB_txn *txn;

    child->stage = "its head";
    int rc = database_open_environment(&env, options->directory, options->map_size,
                                       MDB_RDONLY | MDB_NOLOCK);
    if (rc == 0)
        rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return rc;
    child->stage = "its pages";
    return is_whole(options->directory, look->check_ms) ? look_at_trees(child, txn) : MDB_CORRUPTED;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

/* What the child's end says. */
static int judge(const struct child *child, char why[STORE_ERROR_SIZE])
{
    char end[64];

    if (child->signal == 0 && child->result == 0)
        return 0;
    if (child->signal == 0 && database_is_damage(child->result)) {
        snprintf(why, STORE_ERROR_SIZE, "the data file is not what it should be: %s", child->stage);
        return -EBADMSG;
    }
    if (child->signal == 0) {
        snprintf(why, STORE_ERROR_SIZE, "%s", mdb_strerror(child->result));
        return database_errno(child->result);
    }
    child_describe(child, end, sizeof end);
    snprintf(why, STORE_ERROR_SIZE, "who looked at the data file died of %s", end);
    return child_has_faulted(child) ? -EBADMSG : -ECHILD;
}

static int have_child_look(const struct store_options *options, uint64_t check_ms,
                           char why[STORE_ERROR_SIZE])
{
    struct look look = {options, check_ms};
    struct child child;
    const int result = child_run(look_at_file, &look, &options->waiting, &child);

    if (result < 0)
        snprintf(why, STORE_ERROR_SIZE, "a process to look at it: %s", strerror(-result));
    return result < 0 ? result : judge(&child, why);
}

static bool file_exists(const char *directory, const char *name, off_t *size)
{
    char *path = xasprintf("%s/%s", directory, name);
    struct stat file;
    const bool exists = stat(path, &file) == 0;

    *size = exists ? file.st_size : 0;
    free(path);
    return exists;
}

static int look_at_store(const struct store_options *options, uint64_t check_ms,
                         char why[STORE_ERROR_SIZE])
{
    off_t size, note_size;

    if (!file_exists(options->directory, "data.mdb", &size) ||
        pages_are_of_other_version(options->directory)) /* who opens it will say so */
        return 0;
    if (file_exists(options->directory, SALVAGE_NOTE, &note_size))
        snprintf(why, STORE_ERROR_SIZE, "the last run died of it");
    else if (size == 0)
        snprintf(why, STORE_ERROR_SIZE, "the data file is empty");
    else
        return have_child_look(options, check_ms, why);
    return -EBADMSG;
}

bool salvage_is_due(const struct store_options *options)
{
    char why[STORE_ERROR_SIZE];
    const int result = look_at_store(options, CHECK_MS, why);

    if (result == -EBADMSG)
        log_error("the store is damaged: %s", why);
    else if (result < 0 && result != -ECANCELED && result != -EACCES)
        log_warning("whether the store is damaged could not be seen: %s", why);
    return result == -EBADMSG;
}

int salvage_look(const struct store_options *options, char why[STORE_ERROR_SIZE])
{
    return look_at_store(options, CHECK_MS_OF_ALL, why);
}
