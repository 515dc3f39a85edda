/* Rows of the store: whatever is on the disk is read or said to be damaged. So that more than the
 * checksum is tried, the row is sealed first when the first octet says so. */
#include "base/alloc.h"
#include "store/record.h"
#include "tests/fuzz/fuzz.h"

static void read_segment(struct slice key, struct slice value)
{
    struct segment segment;
    struct segment_reader reader;
    struct gone gone;
    uint64_t last = 0;
    uint16_t count = 0;
    bool broken = false;

    if (!segment_decode(key, value, &segment))
        return;
    must(segment.count > 0 && segment.count <= SEGMENT_ENTRIES_MAX);
    must(segment_seek(&segment, segment.first) == 0);
    must(segment_seek(&segment, segment.last) == segment.count - 1);
    segment_read(&reader, &segment);
    while (segment_next(&reader, &broken)) {
        must(count == 0 || reader.entry.position > last);
        must(reader.entry.position >= segment.first && reader.entry.position <= segment.last);
        must(segment_position(&segment, count) == reader.entry.position);
        last = reader.entry.position;
        count++;
    }
    must(broken || count == segment.count);
    gone_decode(key, value, segment.count, &gone);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct key pair = key_pair(7, 100), single = key_u64(7);
    struct queue_row row;
    uint64_t number;
    struct live_row live;
    struct state_row state;
    struct gone gone;

    if (size < 2)
        return 0;
    const size_t value_size = size - 1;
    uint8_t *value = xmalloc(value_size);
    memcpy(value, data + 1, value_size);
    for (int i = 0; i < 2; i++) {
        const struct slice key = key_slice(i == 0 ? &pair : &single);
        const struct slice bytes = slice_of(value, value_size);
        if (data[0] % 2 == 0 && value_size >= HEADER_SIZE)
            record_seal(key, value, value_size, data[1], (uint16_t)(value[6] << 8 | value[7]));
        record_check(key, bytes);
        queue_row_decode(key, bytes, &row);
        live_decode(key, bytes, &live);
        number_decode(key, bytes, &number);
        state_decode(key, bytes, &state);
        gone_decode(key, bytes, data[0] * 2 + 1, &gone);
        part_check(bytes);
        read_segment(key, bytes);
    }
    free(value);
    return 0;
}
