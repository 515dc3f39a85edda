/* Keys and values on disk. Every number is big-endian, so that keys sort as numbers do. Names of
 * the databases are those of enum database_id in database.h.
 *
 *     database   key                             value
 *     blob       blob u64, part u32              part: version u8, flags u8, 0 u16, bodies
 *                blob u64, PART_HOLDERS          header, holders: the segments that refer to it
 *     index      queue u64, first position u64   segment: header, blob u64, places; never changed
 *     gone       queue u64, first position u64   header, a bit per entry of the segment: deleted
 *     live       blob u64                        header, entries u32 that still need the blob,
 *                                                size, alive, sparse_at u32, since u64: blob.c
 *     sparse     since u64, blob u64             header: sparse since that LSN
 *     queue      queue u64                       header (flag DEADLINES), head, tail, count, bytes,
 *                                                delivered: u64
 *     trim       queue u64, from u64             header, end u64: a deleted range to be removed
 *     record     the owner's                     header, the owner's bytes
 *     meta       "format"                        header, format u32
 *                "state"                         header (flags CLEAN, SALVAGED), last LSN u64, last blob u64,
 *                                                size of all blobs u64, of those in sparse u64
 *
 *     header     CRC32C u32 of the key and of the value after these four bytes |
 *                version u8 | flags u8 | count u16
 *
 * The bodies of a batch are *blobs*, numbered as they are written: small ones back to back, cut
 * into parts of at most PART_MAX bytes, up to about BLOB_SIZE_MAX; one that is larger than a part
 * is a blob of its own. Its entries are one or more *segments* per queue: up to SEGMENT_ENTRIES_MAX
 * entries with bodies in one blob, whose places take up to SEGMENT_MAX bytes, so that a segment is
 * a page at most and putting or acknowledging a run of entries touches one row and not hundreds.
 *
 *     places     positions: nothing when flag DENSE says that they follow each other without a
 *                           hole, else count - 1 varints: distance to the one before
 *                entries:   tag u8 | [PLACE: part varint, offset varint] | size varint |
 *                           CRC32C u32 of the body | [WEIGHT: varint] | [EXPIRES: varint] |
 *                           [FLAGS: u8]
 *
 * Without PLACE a body begins where the one before it ends; without WEIGHT an entry weighs what its
 * body has bytes; without EXPIRES it never does; without FLAGS they are those of the entry before,
 * 0 for the first.
 *
 *     holders    per segment, in key order: queue varint, distance to the one before |
 *                position varint: distance to the one before if the queue is the same
 *
 * The checksum of a body begins with its blob, part and offset: an old page that reappears is not
 * taken for a new one. Nothing here reads or writes a file; whatever bytes a decoder gets, it
 * answers or says that they are damaged. */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "base/slice.h"

enum {
    RECORD_VERSION = 1,
    FORMAT_VERSION = 2,
    HEADER_SIZE = 8,
    PART_HEADER_SIZE = 4,
    PART_MAX = 15 * 4096 - 16, /* with LMDB's page header: fifteen pages, to the byte */
    PART_BODY_MAX = PART_MAX - PART_HEADER_SIZE,
    BLOB_SIZE_MAX = 16 * PART_BODY_MAX,
    SEGMENT_MAX = 4096 - 16, /* one overflow page */
    SEGMENT_ENTRIES_MAX = 512,
    KEY_MAX = 16,
    QUEUE_ROW_SIZE = HEADER_SIZE + 40,
    LIVE_ROW_SIZE = HEADER_SIZE + 24,
    SPARSE_ROW_SIZE = HEADER_SIZE,
    STATE_ROW_SIZE = HEADER_SIZE + 32,
    NUMBER_ROW_SIZE = HEADER_SIZE + 8,
    FORMAT_ROW_SIZE = HEADER_SIZE + 4,
    GONE_ROW_MAX = HEADER_SIZE + SEGMENT_ENTRIES_MAX / 8,
};

#define PART_HOLDERS UINT32_MAX

enum record_flag {
    SEGMENT_DENSE = 1,   /* of a segment */
    QUEUE_DEADLINES = 1, /* of a queue: entries that expire were put since it was last empty */
    STATE_CLEAN = 1,     /* of "state" */
    STATE_SALVAGED = 2,  /* likewise */
};

/* ---- numbers --------------------------------------------------------------------------------- */

static inline void put_u32(uint8_t *to, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(to, &value, sizeof value);
}

static inline void put_u64(uint8_t *to, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(to, &value, sizeof value);
}

static inline uint32_t get_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap32(value);
}

static inline uint64_t get_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap64(value);
}

/* ---- keys ------------------------------------------------------------------------------------ */

struct key {
    uint8_t bytes[KEY_MAX];
    size_t size;
};

static inline struct key key_u64(uint64_t number) /* live, queue */
{
    struct key key;
    put_u64(key.bytes, number);
    key.size = 8;
    return key;
}

static inline struct key key_pair(uint64_t queue_id,
                                  uint64_t second) /* index, gone, trim, sparse */
{
    struct key key;
    put_u64(key.bytes, queue_id);
    put_u64(key.bytes + 8, second);
    key.size = 16;
    return key;
}

static inline struct key key_part(uint64_t blob, uint32_t part) /* blob */
{
    struct key key;
    put_u64(key.bytes, blob);
    put_u32(key.bytes + 8, part);
    key.size = 12;
    return key;
}

static inline struct slice key_slice(const struct key *key)
{
    return slice_of(key->bytes, key->size);
}

/* ---- header ---------------------------------------------------------------------------------- */

/* Fills in the header of a value whose bytes after it are in place. */
void record_seal(struct slice key, uint8_t *value, size_t size, uint8_t flags, uint16_t count);

/* Whether the value has a header of our version, and its checksum holds. */
bool record_check(struct slice key, struct slice value);

/* The checksum of the value does not hold. Whether it does with one bit turned round, which is done
 * then. */
bool record_repair(struct slice key, uint8_t *value, size_t size);

static inline uint8_t record_flags(struct slice value)
{
    return value.data[5];
}

static inline uint16_t record_count(struct slice value)
{
    return (uint16_t)(value.data[6] << 8 | value.data[7]);
}

/* ---- rows ------------------------------------------------------------------------------------ */

struct queue_row {
    uint64_t head, tail, count, bytes, delivered;
    bool deadlines;
};

void queue_row_encode(uint64_t queue_id, const struct queue_row *row,
                      uint8_t value[QUEUE_ROW_SIZE]);
bool queue_row_decode(struct slice key, struct slice value, struct queue_row *row);

struct live_row {
    uint32_t entries;   /* that still need the blob; LIVE_PINNED: nobody knows, it stays */
    uint32_t size;      /* of its bodies, and of a place for each of its entries at first */
    uint32_t alive;     /* of what the living entries need, bodies they share counted for each */
    uint32_t sparse_at; /* when alive falls to it, the blob is sparse; 0: never */
    uint64_t since;     /* its key in sparse; 0: it is not there */
};

#define LIVE_PINNED UINT32_MAX

void live_encode(uint64_t blob, const struct live_row *row, uint8_t value[LIVE_ROW_SIZE]);
bool live_decode(struct slice key, struct slice value, struct live_row *row);

struct state_row {
    uint64_t lsn, blob;    /* the last ones */
    uint64_t size, sparse; /* of all blobs, and of those in sparse */
    bool clean, salvaged;  /* the last close was; the file ever was */
};

void state_encode(struct slice key, const struct state_row *row, uint8_t value[STATE_ROW_SIZE]);
bool state_decode(struct slice key, struct slice value, struct state_row *row);

/* A row with one number: the ends of trim. */
void number_encode(struct slice key, uint64_t number, uint8_t flags,
                   uint8_t value[NUMBER_ROW_SIZE]);
bool number_decode(struct slice key, struct slice value, uint64_t *number);

/* ---- bodies ---------------------------------------------------------------------------------- */

struct place {
    uint32_t part, offset; /* offset counts from the end of the part's header */
    uint32_t size;
};

uint32_t body_checksum(uint64_t blob,
                       const struct place *place); /* of no bytes yet; go on with crc32c */

/* What an entry with a body of that size takes on disk: the body, and about what its place does. */
static inline uint64_t blob_cost(uint32_t body_size)
{
    return (uint64_t)body_size + 16;
}

/* How little of it lives when a blob of that size is sparse: five eighths. Of messages deleted in
 * any order a store that empties blobs when a share of a lives is up to 1 + ln(1 / a) times as large
 * as what lives, and writes a / (1 - a) octets for each that it frees. */
static inline uint32_t blob_sparse_at(uint32_t size)
{
    return size / 8 * 5;
}

void part_header_encode(uint8_t header[PART_HEADER_SIZE]);
bool part_check(struct slice part);

/* ---- holders --------------------------------------------------------------------------------- */

struct holder { /* the key of a segment */
    uint64_t queue_id, first;
};

/* Writes one after another, in key order; previous is {0} at first, and the result how many bytes
 * it took, HOLDER_MAX at most. */
enum { HOLDER_MAX = 20 };
size_t holder_encode(uint8_t *to, const struct holder *holder, const struct holder *previous);

/* The next of value, at *offset, which is HEADER_SIZE at first; *holder is {0} then and the one
 * before later. false: there is none, or *damaged. The caller has checked the row. */
bool holder_next(struct slice value, size_t *offset, struct holder *holder, bool *damaged);

/* ---- segments -------------------------------------------------------------------------------- */

struct segment_entry {
    uint64_t position, expires_ms;
    struct place place;
    uint32_t crc, weight;
    uint8_t flags;
};

struct segment_writer {
    uint64_t first, last;
    struct place previous;
    uint8_t flags;
    bool dense;
    uint16_t count;
    size_t positions_size, entries_size;
    uint8_t
        positions[SEGMENT_MAX]; /* written even while dense; left out at the end if it stayed so */
    uint8_t entries[SEGMENT_MAX];
};

void segment_begin(struct segment_writer *writer);

/* false: it is full, nothing was added. The first entry always fits. Positions ascend. */
bool segment_add(struct segment_writer *writer, const struct segment_entry *entry);

size_t segment_size(const struct segment_writer *writer);
void segment_encode(const struct segment_writer *writer, struct slice key, uint64_t blob,
                    uint8_t *value);

struct segment {
    uint64_t queue_id, first, last, blob;
    uint16_t count;
    bool dense;
    struct slice entries;                    /* inside the value it was read from */
    uint64_t positions[SEGMENT_ENTRIES_MAX]; /* unless dense */
};

/* false: damaged. Goes on borrowing from value. */
bool segment_decode(struct slice key, struct slice value, struct segment *segment);

static inline uint64_t segment_position(const struct segment *segment, uint16_t index)
{
    return segment->dense ? segment->first + index : segment->positions[index];
}

/* The first entry at position or above; count when there is none. */
uint16_t segment_seek(const struct segment *segment, uint64_t position);

struct segment_reader {
    const struct segment *segment;
    const uint8_t *next, *end;
    uint16_t index;
    struct segment_entry entry;
};

void segment_read(struct segment_reader *reader, const struct segment *segment);

/* Moves reader->entry to the next entry. false: there is none, or *damaged. */
bool segment_next(struct segment_reader *reader, bool *damaged);

/* ---- which entries of a segment are gone ----------------------------------------------------- */

struct gone {
    uint64_t words[SEGMENT_ENTRIES_MAX / 64];
};

static inline bool gone_has(const struct gone *gone, uint16_t index)
{
    return gone->words[index / 64] >> index % 64 & 1;
}

static inline void gone_add(struct gone *gone, uint16_t index)
{
    gone->words[index / 64] |= UINT64_C(1) << index % 64;
}

uint16_t gone_count(const struct gone *gone);

/* Of a segment with count entries. encode answers the size of the value. */
size_t gone_encode(struct slice key, const struct gone *gone, uint16_t count,
                   uint8_t value[GONE_ROW_MAX]);
bool gone_decode(struct slice key, struct slice value, uint16_t count, struct gone *gone);

#endif
