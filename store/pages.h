/* LMDB's file, read without LMDB: by read(2), page by page, every number checked before it is
 * followed. Version 1 of the format, 64-bit, little-endian, pages of whatever size the file was
 * made with:
 *
 *     page      number u64 | pad u16 | flags u16 | lower u16, upper u16, or pages u32 of an
 *               overflow run | ...
 *     branch,   from byte 16: offsets u16 of its nodes, as far as lower; a node:
 *     leaf          low u16 | high u16 | flags u16 | key size u16 | key | data
 *               of a leaf: low and high are the data's size; flag BIG: data is the number of its first
 *               overflow page, flag DATABASE: a struct of a tree
 *               of a branch: low, high and flags are the number of the page below
 *     meta      pages 0 and 1: magic u32 | version u32 | address u64 | size u64 | tree of free
 *               pages | tree of databases | last page u64 | transaction u64; transaction n is in
 *               page n % 2
 *     tree      pad u32 | flags u16 | depth u16 | branches, leaves, overflow pages, entries, root:
 *               u64; the pad of the tree of free pages is the page size
 *     free      rows of the tree of free pages: transaction u64 -> count u64, so many page numbers,
 *               descending */
#ifndef STORE_PAGES_H
#define STORE_PAGES_H

#include "base/buf.h"
#include "base/slice.h"

enum {
    PAGE_SIZE_MAX = 32768, /* LMDB's */
    PAGE_DEPTH_MAX = 32,
};

#define PAGE_NONE UINT64_MAX /* the root of an empty tree */

struct pages {
    int fd;
    uint32_t size;  /* of a page */
    uint64_t count; /* in the file */
    uint8_t *seen;  /* a bit each */
    struct buf value;
};

/* Whether both meta pages say that another version of LMDB wrote the file: then it is not damaged,
 * but not for us. */
bool pages_are_of_other_version(const char *directory);

/* 0 or -errno. Release it in any case. */
int pages_open(struct pages *pages, const char *directory);
void pages_release(struct pages *pages);

/* Whether the page is there and says that it has that number. */
bool pages_read(const struct pages *pages, uint64_t number, uint8_t page[PAGE_SIZE_MAX]);

/* The same, and that it is a branch or a leaf. Where one turned bit explains what is wrong with its
 * head or with the places of its nodes, that bit is turned back; *tries: for so many pages more is
 * it looked for, as that takes some ms each. */
bool pages_read_mended(const struct pages *pages, uint64_t number, uint8_t page[PAGE_SIZE_MAX],
                       unsigned *tries);

bool pages_was_seen(const struct pages *pages, uint64_t number);
void pages_see(struct pages *pages, uint64_t number); /* beyond the file's end, nothing happens */

struct page_tree {
    uint64_t root;
    uint16_t depth;
    uint16_t flags; /* how it is ordered: 0 of each of ours */
};

struct page_meta {
    struct page_tree free, databases;
    uint64_t last, transaction;
};

/* false: it is none, and as empty as can be. */
bool pages_read_meta(const struct pages *pages, unsigned number, struct page_meta *meta);

bool page_is_branch(const uint8_t *page);
bool page_is_leaf(const uint8_t *page);

/* How many pages belong to it, itself counted: those after the first of an overflow run are bytes
 * that peers chose, and may look like anything. */
uint64_t page_run(const uint8_t *page);

struct page_node {
    bool is_big, is_database;
    struct slice key, data; /* data of a leaf: as it stands in the page */
    uint32_t size;          /* of the value */
    uint64_t child;         /* of a branch */
};

unsigned pages_node_count(const struct pages *pages, const uint8_t *page);

/* false: it does not lie within its page. */
bool pages_get_node(const struct pages *pages, const uint8_t *page, unsigned index,
                    struct page_node *node);

/* Whether its nodes fill the page from upper to its end, each with flags that exist: LMDB moves
 * them by what they say of themselves, and would write over others, or beyond the page. */
bool pages_is_packed(const struct pages *pages, const uint8_t *page);

/* Of an overflow run that a leaf's node is followed by; false: it does not lie within the file. */
bool pages_get_run(const struct pages *pages, const struct page_node *node, uint64_t *first,
                   uint64_t *count);

/* The value of a leaf's node; that of an overflow run, whose pages are seen then, is valid until
 * the next call. false: it cannot be read. */
bool pages_get_value(struct pages *pages, const struct page_node *node, struct slice *value);

/* The tree of a node that is a database. */
bool page_get_tree(const struct page_node *node, struct page_tree *tree);

/* The page numbers in a row of the tree of free pages; they are in the machine's order and need not
 * be aligned. false: it is shorter than it says. */
bool page_get_free(struct slice value, uint64_t *count);
uint64_t page_free_number(struct slice value, uint64_t index);

#endif
