/* See pages.h. */
#include "store/pages.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

enum {
    PAGE_SIZE_MIN = 512,
    PAGE_HEADER = 16,
    NODE_HEADER = 8,
    FLAG_BRANCH = 1,
    FLAG_LEAF = 2,
    FLAG_OVERFLOW = 4,
    FLAG_META = 8,
    NODE_BIG = 1,
    NODE_DATABASE = 2,
    TREE_SIZE = 48,
    META_SIZE = 24 + 2 * TREE_SIZE + 16,
    VALUE_MAX = 64 << 20,
};

#define META_MAGIC   0xBEEFC0DEu
#define META_VERSION 1

/* ---- numbers --------------------------------------------------------------------------------- */

static uint16_t le16(const uint8_t *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint32_t le32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint64_t le64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint16_t flags_of(const uint8_t *page)
{
    return le16(page + 10);
}

/* ---- the file -------------------------------------------------------------------------------- */

static bool read_at(const struct pages *pages, uint64_t offset, void *to, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(pages->fd, (uint8_t *)to + done, size - done, (off_t)(offset + done));
        if (n <= 0 && !(n < 0 && errno == EINTR))
            return false;
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* The version of LMDB's format by a meta page of a file with pages of that size that stands there;
 * 0: none does. */
static uint32_t version_at(const struct pages *pages, uint64_t offset, uint32_t size)
{
    uint8_t page[PAGE_HEADER + META_SIZE];
    const uint8_t *meta = page + PAGE_HEADER;
    const bool is_meta = read_at(pages, offset, page, sizeof page) && flags_of(page) & FLAG_META &&
                         le32(meta) == META_MAGIC && le32(meta + 24) == size;

    return is_meta ? le32(meta + 4) : 0;
}

static bool is_meta_at(const struct pages *pages, uint64_t offset, uint32_t size)
{
    return version_at(pages, offset, size) == META_VERSION;
}

/* When no meta page tells, what LMDB would take for a new file. */
static uint32_t find_size(const struct pages *pages)
{
    for (uint32_t size = PAGE_SIZE_MIN; size <= PAGE_SIZE_MAX; size *= 2)
        if (is_meta_at(pages, 0, size) || is_meta_at(pages, size, size))
            return size;
    return (uint32_t)min_of(sysconf(_SC_PAGESIZE), (long)PAGE_SIZE_MAX);
}

static int open_file(const char *directory)
{
    char *path = xasprintf("%s/data.mdb", directory);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    free(path);
    return fd;
}

bool pages_are_of_other_version(const char *directory)
{
    const struct pages pages = {.fd = open_file(directory)};
    bool other = false;

    for (uint32_t size = PAGE_SIZE_MIN; size <= PAGE_SIZE_MAX && pages.fd >= 0; size *= 2) {
        const uint32_t version = version_at(&pages, 0, size);
        other |=
            version != 0 && version != META_VERSION && version == version_at(&pages, size, size);
    }
    if (pages.fd >= 0)
        close(pages.fd);
    return other;
}

int pages_open(struct pages *pages, const char *directory)
{
    struct stat file;

    *pages = (struct pages){.fd = open_file(directory)};
    if (pages->fd < 0 || fstat(pages->fd, &file) < 0)
        return -errno;
    pages->size = find_size(pages);
    pages->count = (uint64_t)file.st_size / pages->size;
    pages->seen = xcalloc(pages->count / 8 + 1, 1);
    return 0;
}

void pages_release(struct pages *pages)
{
    if (pages->fd >= 0)
        close(pages->fd);
    free(pages->seen);
    buf_release(&pages->value);
}

bool pages_read(const struct pages *pages, uint64_t number, uint8_t page[PAGE_SIZE_MAX])
{
    return number < pages->count && read_at(pages, number * pages->size, page, pages->size) &&
           le64(page) == number;
}

bool pages_was_seen(const struct pages *pages, uint64_t number)
{
    return pages->seen[number / 8] >> number % 8 & 1;
}

void pages_see(struct pages *pages, uint64_t number)
{
    if (number < pages->count)
        pages->seen[number / 8] |= (uint8_t)(1 << number % 8);
}

/* ---- trees ----------------------------------------------------------------------------------- */

static struct page_tree tree_at(const uint8_t *from)
{
    return (struct page_tree){
        .flags = le16(from + 4), .depth = le16(from + 6), .root = le64(from + 40)};
}

bool pages_read_meta(const struct pages *pages, unsigned number, struct page_meta *meta)
{
    uint8_t page[PAGE_HEADER + META_SIZE];
    const uint8_t *from = page + PAGE_HEADER + 24;

    *meta = (struct page_meta){.free.root = PAGE_NONE, .databases.root = PAGE_NONE};
    if (!is_meta_at(pages, (uint64_t)number * pages->size, pages->size) ||
        !read_at(pages, (uint64_t)number * pages->size, page, sizeof page))
        return false;
    *meta = (struct page_meta){.free = tree_at(from),
                               .databases = tree_at(from + TREE_SIZE),
                               .last = le64(from + 2 * TREE_SIZE),
                               .transaction = le64(from + 2 * TREE_SIZE + 8)};
    return true;
}

bool page_get_tree(const struct page_node *node, struct page_tree *tree)
{
    if (!node->is_database || node->is_big || node->data.size != TREE_SIZE)
        return false;
    *tree = tree_at(node->data.data);
    return true;
}

bool page_is_branch(const uint8_t *page)
{
    return (flags_of(page) & (FLAG_BRANCH | FLAG_LEAF)) == FLAG_BRANCH;
}

bool page_is_leaf(const uint8_t *page)
{
    return (flags_of(page) & (FLAG_BRANCH | FLAG_LEAF)) == FLAG_LEAF;
}

uint64_t page_run(const uint8_t *page)
{
    return flags_of(page) & FLAG_OVERFLOW ? max_of(le32(page + 12), 1U) : 1;
}

/* ---- nodes ----------------------------------------------------------------------------------- */

unsigned pages_node_count(const struct pages *pages, const uint8_t *page)
{
    const unsigned lower = le16(page + 12);

    return lower < PAGE_HEADER || lower > pages->size ? 0 : (lower - PAGE_HEADER) / 2;
}

bool pages_get_node(const struct pages *pages, const uint8_t *page, unsigned index,
                    struct page_node *node)
{
    const size_t offset = le16(page + PAGE_HEADER + 2 * index);

    if (offset < PAGE_HEADER || offset > pages->size - NODE_HEADER)
        return false;
    const uint8_t *at = page + offset;
    const size_t left = pages->size - offset - NODE_HEADER, key_size = le16(at + 6);
    const uint16_t flags = le16(at + 4);
    *node = (struct page_node){.is_big = flags & NODE_BIG,
                               .is_database = flags & NODE_DATABASE,
                               .size = le16(at) | (uint32_t)le16(at + 2) << 16};
    node->child = node->size | (uint64_t)flags << 32;
    if (key_size > left)
        return false;
    node->key = slice_of(at + NODE_HEADER, key_size);
    const size_t data_size = page_is_branch(page) ? 0 : node->is_big ? 8 : node->size;
    if (data_size > left - key_size)
        return false;
    node->data = slice_of(at + NODE_HEADER + key_size, data_size);
    return true;
}

/* What it takes of a leaf or branch, overflow pages apart. */
static size_t node_room(const struct page_node *node)
{
    return NODE_HEADER + (node->key.size + node->data.size + 1) / 2 * 2;
}

bool pages_is_packed(const struct pages *pages, const uint8_t *page)
{
    const unsigned count = pages_node_count(pages, page), upper = le16(page + 14);
    struct page_node node;
    size_t room = 0;

    for (unsigned i = 0; i < count; i++) {
        const unsigned offset = le16(page + PAGE_HEADER + 2 * i);
        if (offset < upper || !pages_get_node(pages, page, i, &node) ||
            (page_is_leaf(page) && (le16(page + offset + 4) & ~(NODE_BIG | NODE_DATABASE)) != 0))
            return false;
        room += node_room(&node);
    }
    return upper >= PAGE_HEADER + 2 * count && upper + room == pages->size;
}

static bool is_in_tree(const uint8_t *page, uint64_t number)
{
    return le64(page) == number && (page_is_branch(page) || page_is_leaf(page));
}

static bool is_sound(const struct pages *pages, const uint8_t *page, uint64_t number)
{
    return is_in_tree(page, number) && pages_is_packed(pages, page);
}

/* Of a sound one: each node ends where another begins, or with the page. */
static bool is_tiled(const struct pages *pages, const uint8_t *page)
{
    const unsigned count = pages_node_count(pages, page);
    uint8_t begins[PAGE_SIZE_MAX / 8 + 1] = {0};
    struct page_node node;

    begins[pages->size / 8] = 1;
    for (unsigned i = 0; i < count; i++) {
        const unsigned offset = le16(page + PAGE_HEADER + 2 * i);
        begins[offset / 8] |= (uint8_t)(1 << offset % 8);
    }
    for (unsigned i = 0; i < count; i++) {
        pages_get_node(pages, page, i, &node);
        const size_t end = le16(page + PAGE_HEADER + 2 * i) + node_room(&node);
        if (end > pages->size || !(begins[end / 8] >> end % 8 & 1))
            return false;
    }
    return true;
}

/* How nodes are packed tells of the bits in their heads and places. */
static bool mend(const struct pages *pages, uint8_t *page, uint64_t number)
{
    for (uint32_t bit = 0; bit < pages->size * 8; bit++) {
        page[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (is_sound(pages, page, number) && is_tiled(pages, page))
            return true;
        page[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    return false;
}

bool pages_read_mended(const struct pages *pages, uint64_t number, uint8_t page[PAGE_SIZE_MAX],
                       unsigned *tries)
{
    if (number >= pages->count || !read_at(pages, number * pages->size, page, pages->size))
        return false;
    if (is_sound(pages, page, number))
        return true;
    if (*tries > 0) {
        --*tries;
        if (mend(pages, page, number))
            return true;
    }
    return is_in_tree(page, number);
}

bool pages_get_run(const struct pages *pages, const struct page_node *node, uint64_t *first,
                   uint64_t *count)
{
    *first = le64(node->data.data);
    *count = (node->size + PAGE_HEADER - 1U) / pages->size + 1;
    return node->size <= VALUE_MAX && *first >= 2 && *first < pages->count &&
           *count <= pages->count - *first;
}

bool pages_get_value(struct pages *pages, const struct page_node *node, struct slice *value)
{
    uint8_t header[PAGE_HEADER];
    uint64_t first, count;

    *value = node->data;
    if (!node->is_big)
        return true;
    if (!pages_get_run(pages, node, &first, &count) ||
        !read_at(pages, first * pages->size, header, sizeof header) || le64(header) != first)
        return false;
    for (uint64_t i = 0; i < count; i++)
        pages_see(pages, first + i);
    buf_clear(&pages->value);
    uint8_t *to = buf_reserve(&pages->value, node->size);
    *value = slice_of(to, node->size);
    return read_at(pages, first * pages->size + PAGE_HEADER, to, node->size);
}

/* ---- free pages ------------------------------------------------------------------------------ */

bool page_get_free(struct slice value, uint64_t *count)
{
    if (value.size < 8)
        return false;
    *count = le64(value.data);
    return *count <= value.size / 8 - 1;
}

uint64_t page_free_number(struct slice value, uint64_t index)
{
    return le64(value.data + 8 + 8 * index);
}
