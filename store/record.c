/* See record.h: it draws the bytes. */
#include "store/record.h"

#include "store/crc32c.h"

enum entry_tag { TAG_PLACE = 1, TAG_WEIGHT = 2, TAG_EXPIRES = 4, TAG_FLAGS = 8, TAG_ALL = 15 };

enum {
    CHECKSUM_SIZE = 4,
    SEGMENT_HEADER_SIZE = HEADER_SIZE + 8,
    VARINT_MAX = 10,
    ENTRY_MAX = 1 + 5 + 5 + 5 + 4 + 5 + VARINT_MAX + 1,
};

/* ---- numbers --------------------------------------------------------------------------------- */

static uint8_t *put_varint(uint8_t *to, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *to++ = (uint8_t)(value | 0x80);
    *to++ = (uint8_t)value;
    return to;
}

/* NULL: it does not end before `end`, or not within 64 bits. */
static const uint8_t *get_varint(const uint8_t *from, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; from < end && shift < 64; shift += 7) {
        const uint8_t byte = *from++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return from;
    }
    return NULL;
}

static const uint8_t *get_varint32(const uint8_t *from, const uint8_t *end, uint32_t *value)
{
    uint64_t wide;

    from = get_varint(from, end, &wide);
    *value = (uint32_t)wide;
    return wide > UINT32_MAX ? NULL : from;
}

/* ---- header ---------------------------------------------------------------------------------- */

static uint32_t checksum(struct slice key, const uint8_t *value, size_t size)
{
    return crc32c(crc32c(0, key.data, key.size), value + CHECKSUM_SIZE, size - CHECKSUM_SIZE);
}

void record_seal(struct slice key, uint8_t *value, size_t size, uint8_t flags, uint16_t count)
{
    assert(size >= HEADER_SIZE);
    value[4] = RECORD_VERSION;
    value[5] = flags;
    value[6] = (uint8_t)(count >> 8);
    value[7] = (uint8_t)count;
    put_u32(value, checksum(key, value, size));
}

bool record_check(struct slice key, struct slice value)
{
    return value.size >= HEADER_SIZE && value.data[4] == RECORD_VERSION &&
           get_u32(value.data) == checksum(key, value.data, value.size);
}

/* What turning bits of a value round does to its checksum depends on which they are, not on the
 * value: CRC32C is linear. So the difference between what it is and what it should be names the
 * bit, and each bit's is that of the bit eight places on, with one zero octet more behind it. */
static uint32_t followed_by(uint32_t difference, uint8_t octet)
{
    return ~crc32c(~difference, &octet, 1);
}

bool record_repair(struct slice key, uint8_t *value, size_t size)
{
    uint32_t differences[8];

    if (size < HEADER_SIZE)
        return false;
    const uint32_t wanted = get_u32(value) ^ checksum(key, value, size);
    if (__builtin_popcount(wanted) == 1) { /* of the checksum itself */
        put_u32(value, get_u32(value) ^ wanted);
        return record_check(key, slice_of(value, size));
    }
    for (unsigned bit = 0; bit < 8; bit++)
        differences[bit] = followed_by(0, (uint8_t)(1 << bit));
    for (size_t at = size; at-- > CHECKSUM_SIZE;)
        for (unsigned bit = 0; bit < 8; bit++) {
            if (differences[bit] == wanted) {
                value[at] ^= (uint8_t)(1 << bit);
                return record_check(key, slice_of(value, size));
            }
            differences[bit] = followed_by(differences[bit], 0);
        }
    return false;
}

/* ---- rows ------------------------------------------------------------------------------------ */

void queue_row_encode(uint64_t queue_id, const struct queue_row *row, uint8_t value[QUEUE_ROW_SIZE])
{
    const struct key key = key_u64(queue_id);

    put_u64(value + HEADER_SIZE, row->head);
    put_u64(value + HEADER_SIZE + 8, row->tail);
    put_u64(value + HEADER_SIZE + 16, row->count);
    put_u64(value + HEADER_SIZE + 24, row->bytes);
    put_u64(value + HEADER_SIZE + 32, row->delivered);
    record_seal(key_slice(&key), value, QUEUE_ROW_SIZE, row->deadlines ? QUEUE_DEADLINES : 0, 0);
}

bool queue_row_decode(struct slice key, struct slice value, struct queue_row *row)
{
    if (key.size != 8 || value.size != QUEUE_ROW_SIZE || !record_check(key, value))
        return false;
    row->head = get_u64(value.data + HEADER_SIZE);
    row->tail = get_u64(value.data + HEADER_SIZE + 8);
    row->count = get_u64(value.data + HEADER_SIZE + 16);
    row->bytes = get_u64(value.data + HEADER_SIZE + 24);
    row->delivered = get_u64(value.data + HEADER_SIZE + 32);
    row->deadlines = (record_flags(value) & QUEUE_DEADLINES) != 0;
    return row->head <= row->tail && row->count <= row->tail - row->head;
}

void live_encode(uint64_t blob, const struct live_row *row, uint8_t value[LIVE_ROW_SIZE])
{
    const struct key key = key_u64(blob);

    put_u32(value + HEADER_SIZE, row->entries);
    put_u32(value + HEADER_SIZE + 4, row->size);
    put_u32(value + HEADER_SIZE + 8, row->alive);
    put_u32(value + HEADER_SIZE + 12, row->sparse_at);
    put_u64(value + HEADER_SIZE + 16, row->since);
    record_seal(key_slice(&key), value, LIVE_ROW_SIZE, 0, 0);
}

bool live_decode(struct slice key, struct slice value, struct live_row *row)
{
    if (key.size != 8 || value.size != LIVE_ROW_SIZE || !record_check(key, value))
        return false;
    row->entries = get_u32(value.data + HEADER_SIZE);
    row->size = get_u32(value.data + HEADER_SIZE + 4);
    row->alive = get_u32(value.data + HEADER_SIZE + 8);
    row->sparse_at = get_u32(value.data + HEADER_SIZE + 12);
    row->since = get_u64(value.data + HEADER_SIZE + 16);
    return true;
}

void state_encode(struct slice key, const struct state_row *row, uint8_t value[STATE_ROW_SIZE])
{
    put_u64(value + HEADER_SIZE, row->lsn);
    put_u64(value + HEADER_SIZE + 8, row->blob);
    put_u64(value + HEADER_SIZE + 16, row->size);
    put_u64(value + HEADER_SIZE + 24, row->sparse);
    record_seal(key, value, STATE_ROW_SIZE,
                (uint8_t)((row->clean ? STATE_CLEAN : 0) | (row->salvaged ? STATE_SALVAGED : 0)),
                0);
}

bool state_decode(struct slice key, struct slice value, struct state_row *row)
{
    if (value.size != STATE_ROW_SIZE || !record_check(key, value))
        return false;
    row->lsn = get_u64(value.data + HEADER_SIZE);
    row->blob = get_u64(value.data + HEADER_SIZE + 8);
    row->size = get_u64(value.data + HEADER_SIZE + 16);
    row->sparse = get_u64(value.data + HEADER_SIZE + 24);
    row->clean = (record_flags(value) & STATE_CLEAN) != 0;
    row->salvaged = (record_flags(value) & STATE_SALVAGED) != 0;
    return true;
}

void number_encode(struct slice key, uint64_t number, uint8_t flags, uint8_t value[NUMBER_ROW_SIZE])
{
    put_u64(value + HEADER_SIZE, number);
    record_seal(key, value, NUMBER_ROW_SIZE, flags, 0);
}

bool number_decode(struct slice key, struct slice value, uint64_t *number)
{
    if (value.size != NUMBER_ROW_SIZE || !record_check(key, value) || record_count(value) != 0)
        return false;
    *number = get_u64(value.data + HEADER_SIZE);
    return true;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

uint32_t body_checksum(uint64_t blob, const struct place *place)
{
    uint8_t bytes[16];

    put_u64(bytes, blob);
    put_u32(bytes + 8, place->part);
    put_u32(bytes + 12, place->offset);
    return crc32c(0, bytes, sizeof bytes);
}

void part_header_encode(uint8_t header[PART_HEADER_SIZE])
{
    memset(header, 0, PART_HEADER_SIZE);
    header[0] = RECORD_VERSION;
}

bool part_check(struct slice part)
{
    return part.size >= PART_HEADER_SIZE && part.data[0] == RECORD_VERSION;
}

/* ---- holders --------------------------------------------------------------------------------- */

size_t holder_encode(uint8_t *to, const struct holder *holder, const struct holder *previous)
{
    const bool same = holder->queue_id == previous->queue_id;
    uint8_t *end = put_varint(to, holder->queue_id - previous->queue_id);

    end = put_varint(end, same ? holder->first - previous->first : holder->first);
    return (size_t)(end - to);
}

bool holder_next(struct slice value, size_t *offset, struct holder *holder, bool *damaged)
{
    const uint8_t *const end = value.data + value.size, *next = value.data + *offset;
    uint64_t queue_distance, first;

    *damaged = false;
    if (next == end)
        return false;
    next = get_varint(next, end, &queue_distance);
    if (next != NULL)
        next = get_varint(next, end, &first);
    if (next == NULL) {
        *damaged = true;
        return false;
    }
    *offset = (size_t)(next - value.data);
    holder->first = queue_distance == 0 ? holder->first + first : first;
    holder->queue_id += queue_distance;
    return true;
}

/* ---- segments -------------------------------------------------------------------------------- */

void segment_begin(struct segment_writer *writer)
{
    writer->count = 0;
    writer->positions_size = writer->entries_size = 0;
    writer->dense = true;
    writer->flags = 0;
    writer->previous = (struct place){0};
}

static bool follows(const struct place *place, const struct place *previous)
{
    return place->part == previous->part && place->offset == previous->offset + previous->size;
}

static uint8_t *put_entry(uint8_t *to, const struct segment_entry *entry,
                          const struct segment_writer *writer)
{
    const bool placed = writer->count == 0 || !follows(&entry->place, &writer->previous);
    const bool weighed = entry->weight != entry->place.size;
    const bool flagged = entry->flags != writer->flags;

    *to++ = (uint8_t)((placed ? TAG_PLACE : 0) | (weighed ? TAG_WEIGHT : 0) |
                      (entry->expires_ms != 0 ? TAG_EXPIRES : 0) | (flagged ? TAG_FLAGS : 0));
    if (placed) {
        to = put_varint(to, entry->place.part);
        to = put_varint(to, entry->place.offset);
    }
    to = put_varint(to, entry->place.size);
    put_u32(to, entry->crc);
    to += 4;
    if (weighed)
        to = put_varint(to, entry->weight);
    if (entry->expires_ms != 0)
        to = put_varint(to, entry->expires_ms);
    if (flagged)
        *to++ = entry->flags;
    return to;
}

bool segment_add(struct segment_writer *writer, const struct segment_entry *entry)
{
    if (writer->count == SEGMENT_ENTRIES_MAX || SEGMENT_HEADER_SIZE + writer->positions_size +
                                                        writer->entries_size + VARINT_MAX +
                                                        ENTRY_MAX >
                                                    SEGMENT_MAX)
        return false;
    if (writer->count == 0) {
        writer->first = entry->position;
    } else {
        assert(entry->position > writer->last);
        const uint64_t distance = entry->position - writer->last;
        uint8_t *positions = writer->positions + writer->positions_size;
        writer->positions_size += (size_t)(put_varint(positions, distance) - positions);
        writer->dense = writer->dense && distance == 1;
    }
    uint8_t *entries = writer->entries + writer->entries_size;
    writer->entries_size += (size_t)(put_entry(entries, entry, writer) - entries);
    writer->last = entry->position;
    writer->previous = entry->place;
    writer->flags = entry->flags;
    writer->count++;
    return true;
}

size_t segment_size(const struct segment_writer *writer)
{
    return SEGMENT_HEADER_SIZE + (writer->dense ? 0 : writer->positions_size) +
           writer->entries_size;
}

void segment_encode(const struct segment_writer *writer, struct slice key, uint64_t blob,
                    uint8_t *value)
{
    const size_t positions_size = writer->dense ? 0 : writer->positions_size;

    put_u64(value + HEADER_SIZE, blob);
    memcpy(value + SEGMENT_HEADER_SIZE, writer->positions, positions_size);
    memcpy(value + SEGMENT_HEADER_SIZE + positions_size, writer->entries, writer->entries_size);
    record_seal(key, value, segment_size(writer), writer->dense ? SEGMENT_DENSE : 0, writer->count);
}

/* NULL: damaged. */
static const uint8_t *decode_positions(struct segment *segment, const uint8_t *next,
                                       const uint8_t *end)
{
    segment->positions[0] = segment->first;
    for (uint16_t i = 1; i < segment->count; i++) {
        uint64_t distance;
        next = get_varint(next, end, &distance);
        if (next == NULL || distance == 0 || distance > UINT64_MAX - segment->positions[i - 1])
            return NULL;
        segment->positions[i] = segment->positions[i - 1] + distance;
    }
    return next;
}

bool segment_decode(struct slice key, struct slice value, struct segment *segment)
{
    if (key.size != 16 || value.size < SEGMENT_HEADER_SIZE || !record_check(key, value))
        return false;
    segment->queue_id = get_u64(key.data);
    segment->first = get_u64(key.data + 8);
    segment->blob = get_u64(value.data + HEADER_SIZE);
    segment->count = record_count(value);
    segment->dense = record_flags(value) & SEGMENT_DENSE;
    if (segment->count == 0 || segment->count > SEGMENT_ENTRIES_MAX ||
        segment->count - 1U > UINT64_MAX - segment->first)
        return false;

    const uint8_t *next = value.data + SEGMENT_HEADER_SIZE, *end = value.data + value.size;
    if (!segment->dense)
        next = decode_positions(segment, next, end);
    if (next == NULL)
        return false;
    segment->last = segment_position(segment, segment->count - 1);
    segment->entries = slice_of(next, (size_t)(end - next));
    return true;
}

uint16_t segment_seek(const struct segment *segment, uint64_t position)
{
    if (position <= segment->first)
        return 0;
    if (position > segment->last)
        return segment->count;
    if (segment->dense)
        return (uint16_t)(position - segment->first);
    uint16_t low = 0, high = segment->count;
    while (low < high) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (segment->positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void segment_read(struct segment_reader *reader, const struct segment *segment)
{
    *reader = (struct segment_reader){.segment = segment,
                                      .next = segment->entries.data,
                                      .end = segment->entries.data + segment->entries.size};
}

/* NULL: damaged. reader->entry is the entry before. */
static const uint8_t *get_entry(struct segment_reader *reader)
{
    struct segment_entry *entry = &reader->entry;
    const uint8_t *next = reader->next, *const end = reader->end;

    if (next == end || *next > TAG_ALL)
        return NULL;
    const uint8_t tag = *next++;
    if (tag & TAG_PLACE) {
        next = get_varint32(next, end, &entry->place.part);
        next = next == NULL ? NULL : get_varint32(next, end, &entry->place.offset);
    } else {
        entry->place.offset += entry->place.size;
    }
    next = next == NULL ? NULL : get_varint32(next, end, &entry->place.size);
    if (next == NULL || end - next < 4)
        return NULL;
    entry->crc = get_u32(next);
    next += 4;
    entry->weight = entry->place.size;
    if (tag & TAG_WEIGHT)
        next = get_varint32(next, end, &entry->weight);
    entry->expires_ms = 0;
    if (tag & TAG_EXPIRES && next != NULL)
        next = get_varint(next, end, &entry->expires_ms);
    if (tag & TAG_FLAGS && next != NULL) {
        if (next == end)
            return NULL;
        entry->flags = *next++;
    }
    return next;
}

bool segment_next(struct segment_reader *reader, bool *damaged)
{
    *damaged = false;
    if (reader->index == reader->segment->count)
        return false;
    const uint8_t *next = get_entry(reader);
    if (next == NULL) {
        *damaged = true;
        return false;
    }
    reader->next = next;
    reader->entry.position = segment_position(reader->segment, reader->index++);
    return true;
}

/* ---- which entries of a segment are gone ----------------------------------------------------- */

uint16_t gone_count(const struct gone *gone)
{
    int count = 0;

    for (size_t i = 0; i < countof(gone->words); i++)
        count += __builtin_popcountll(gone->words[i]);
    return (uint16_t)count;
}

size_t gone_encode(struct slice key, const struct gone *gone, uint16_t count,
                   uint8_t value[GONE_ROW_MAX])
{
    const size_t words = (count + 63U) / 64;

    for (size_t i = 0; i < words; i++)
        put_u64(value + HEADER_SIZE + 8 * i, gone->words[i]);
    record_seal(key, value, HEADER_SIZE + 8 * words, 0, count);
    return HEADER_SIZE + 8 * words;
}

bool gone_decode(struct slice key, struct slice value, uint16_t count, struct gone *gone)
{
    const size_t words = (count + 63U) / 64;

    if (count == 0 || count > SEGMENT_ENTRIES_MAX || value.size != HEADER_SIZE + 8 * words ||
        !record_check(key, value) || record_count(value) != count)
        return false;
    *gone = (struct gone){0};
    for (size_t i = 0; i < words; i++)
        gone->words[i] = get_u64(value.data + HEADER_SIZE + 8 * i);
    return true;
}
