/* Keys, values and checksums on disk: what is written is read back, and whatever else is read is
 * called damaged. */
#include "store/record.h"

#include "base/alloc.h"
#include "base/random.h"
#include "store/crc32c.h"
#include "store/sort.h"
#include "tests/lib/unit.h"

/* ---- crc32c ---------------------------------------------------------------------------------- */

START_TEST(knows_published_checksums)
{
    uint8_t zeros[32] = {0}, ones[32], ascending[32];

    memset(ones, 0xff, sizeof ones);
    for (uint8_t i = 0; i < sizeof ascending; i++)
        ascending[i] = i;
    const struct { /* RFC 3720, B.4 */
        const void *data;
        size_t size;
        uint32_t crc;
    } cases[] = {
        {"", 0, 0},
        {"123456789", 9, 0xe3069283},
        {zeros, 32, 0x8a9136aa},
        {ones, 32, 0x62a8ab43},
        {ascending, 32, 0x46dd794e},
    };
    for (size_t i = 0; i < countof(cases); i++) {
        ck_assert_uint_eq(crc32c(0, cases[i].data, cases[i].size), cases[i].crc);
        ck_assert_uint_eq(crc32c_portable(0, cases[i].data, cases[i].size), cases[i].crc);
    }
}
END_TEST

START_TEST(instruction_and_table_agree)
{
    struct random random;
    uint8_t data[4000];

    random_init_seeded(&random, 1);
    random_bytes(&random, data, sizeof data);
    for (size_t size = 0; size < sizeof data; size += 1 + size / 7) {
        const size_t cut = random_below(&random, size + 1);
        const uint32_t whole = crc32c(0, data, size);
        ck_assert_uint_eq(whole, crc32c_portable(0, data, size));
        ck_assert_uint_eq(whole, crc32c(crc32c(0, data, cut), data + cut, size - cut));
    }
}
END_TEST

/* ---- small rows ------------------------------------------------------------------------------ */

START_TEST(keys_sort_as_numbers_do)
{
    const uint64_t numbers[] = {0, 1, 255, 256, UINT32_MAX, (uint64_t)UINT32_MAX + 1, UINT64_MAX};

    for (size_t i = 0; i + 1 < countof(numbers); i++) {
        const struct key low = key_u64(numbers[i]), high = key_u64(numbers[i + 1]);
        ck_assert_int_lt(slice_compare(key_slice(&low), key_slice(&high)), 0);
        const struct key below = key_pair(numbers[i], UINT64_MAX),
                         above = key_pair(numbers[i + 1], 0);
        ck_assert_int_lt(slice_compare(key_slice(&below), key_slice(&above)), 0);
        const struct key old = key_part(numbers[i], UINT32_MAX), new = key_part(numbers[i + 1], 0);
        ck_assert_int_lt(slice_compare(key_slice(&old), key_slice(&new)), 0);
    }
}
END_TEST

START_TEST(queue_row_comes_back_or_is_damaged)
{
    const struct queue_row row = {1, 4, 3, 4, 5, .deadlines = true};
    const struct key key = key_u64(7), other = key_u64(8);
    struct queue_row back;
    uint8_t value[QUEUE_ROW_SIZE];

    queue_row_encode(7, &row, value);
    ck_assert(queue_row_decode(key_slice(&key), slice_of(value, sizeof value), &back));
    ck_assert_mem_eq(&back, &row, offsetof(struct queue_row, deadlines));
    ck_assert(back.deadlines);
    ck_assert(!queue_row_decode(key_slice(&other), slice_of(value, sizeof value), &back));
    for (size_t size = 0; size < sizeof value; size++)
        ck_assert(!queue_row_decode(key_slice(&key), slice_of(value, size), &back));
    for (size_t bit = 0; bit < 8 * sizeof value; bit++) {
        value[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(!queue_row_decode(key_slice(&key), slice_of(value, sizeof value), &back));
        value[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}
END_TEST

/* Whichever bit it is; of two, one is never taken for the whole of it. */
START_TEST(a_bit_is_turned_back)
{
    enum { SIZE = 300 };
    const struct key key = key_pair(7, 8), other = key_pair(7, 9);
    uint8_t value[SIZE], whole[SIZE];

    for (size_t i = 0; i < SIZE; i++)
        value[i] = (uint8_t)(i * i);
    record_seal(key_slice(&key), value, SIZE, 3, 77);
    memcpy(whole, value, SIZE);
    for (size_t bit = 0; bit < (size_t)8 * SIZE; bit++) {
        const size_t second = (bit + 1 + bit * 7 % (8 * SIZE - 1)) % (8 * SIZE);
        value[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(record_repair(key_slice(&key), value, SIZE));
        ck_assert_mem_eq(value, whole, SIZE);
        value[bit / 8] ^= (uint8_t)(1 << bit % 8);
        value[second / 8] ^= (uint8_t)(1 << second % 8);
        ck_assert(!record_repair(key_slice(&key), value, SIZE));
        memcpy(value, whole, SIZE);
    }
    ck_assert(!record_repair(key_slice(&other), value, SIZE));
    for (size_t size = 0; size < SIZE; size++)
        ck_assert(!record_repair(key_slice(&key), value, size));
}
END_TEST

/* Whoever wrote it was wrong, and its entries must be counted again. */
START_TEST(a_queue_row_that_cannot_be_is_damaged)
{
    static const struct queue_row rows[] = {{.head = 5, .tail = 4},
                                            {.head = 4, .tail = 7, .count = 4},
                                            {.head = 7, .tail = 7, .count = 1}};
    const struct key key = key_u64(7);
    struct queue_row back;
    uint8_t value[QUEUE_ROW_SIZE];

    queue_row_encode(7, &rows[_i], value);
    ck_assert(!queue_row_decode(key_slice(&key), slice_of(value, sizeof value), &back));
}
END_TEST

START_TEST(small_rows_come_back)
{
    const struct key key = key_u64(9);
    const struct live_row row = {1234, 5678, 91011, UINT32_MAX, UINT64_MAX};
    const struct state_row counted = {UINT64_MAX, 2, 3, UINT64_MAX - 1, true, false},
                           salvaged = {.salvaged = true};
    uint8_t live_row[LIVE_ROW_SIZE], number_row[NUMBER_ROW_SIZE], state_row[STATE_ROW_SIZE];
    struct live_row live;
    struct state_row state;
    uint64_t number;

    live_encode(9, &row, live_row);
    ck_assert(live_decode(key_slice(&key), slice_of(live_row, sizeof live_row), &live));
    ck_assert_uint_eq(live.entries, row.entries);
    ck_assert_uint_eq(live.size, row.size);
    ck_assert_uint_eq(live.alive, row.alive);
    ck_assert_uint_eq(live.sparse_at, row.sparse_at);
    ck_assert_uint_eq(live.since, row.since);
    state_encode(key_slice(&key), &counted, state_row);
    ck_assert(state_decode(key_slice(&key), slice_of(state_row, sizeof state_row), &state));
    ck_assert_uint_eq(state.lsn, counted.lsn);
    ck_assert_uint_eq(state.blob, counted.blob);
    ck_assert_uint_eq(state.size, counted.size);
    ck_assert_uint_eq(state.sparse, counted.sparse);
    ck_assert(state.clean && !state.salvaged);
    state_encode(key_slice(&key), &salvaged, state_row);
    ck_assert(state_decode(key_slice(&key), slice_of(state_row, sizeof state_row), &state));
    ck_assert(!state.clean && state.salvaged);
    ck_assert(!state_decode(key_slice(&key), slice_of(live_row, sizeof live_row), &state));
    ck_assert(!live_decode(key_slice(&key), slice_of(live_row, sizeof live_row - 1), &live));
    number_encode(key_slice(&key), UINT64_MAX, 3, number_row);
    ck_assert(number_decode(key_slice(&key), slice_of(number_row, sizeof number_row), &number));
    ck_assert_uint_eq(number, UINT64_MAX);
    ck_assert_uint_eq(record_flags(slice_of(number_row, sizeof number_row)), 3);
    ck_assert(!number_decode(key_slice(&key), slice_of(live_row, sizeof live_row), &number));
}
END_TEST

START_TEST(holders_come_back)
{
    static const struct holder holders[] = {
        {0, 0}, {0, 7}, {1, 0}, {1, UINT64_MAX}, {2, 5}, {UINT64_MAX, 1}, {UINT64_MAX, 2}};
    uint8_t row[HEADER_SIZE + countof(holders) * HOLDER_MAX];
    struct holder previous = {0}, holder = {0};
    size_t size = HEADER_SIZE, offset = HEADER_SIZE;
    bool damaged;

    for (size_t i = 0; i < countof(holders); i++) {
        const size_t more = holder_encode(row + size, &holders[i], &previous);
        ck_assert_uint_le(more, HOLDER_MAX);
        size += more;
        previous = holders[i];
    }
    for (size_t i = 0; i < countof(holders); i++) {
        ck_assert(holder_next(slice_of(row, size), &offset, &holder, &damaged));
        ck_assert_uint_eq(holder.queue_id, holders[i].queue_id);
        ck_assert_uint_eq(holder.first, holders[i].first);
    }
    ck_assert(!holder_next(slice_of(row, size), &offset, &holder, &damaged));
    ck_assert(!damaged);
    for (size_t cut = HEADER_SIZE + 1; cut < size; cut++) {
        offset = HEADER_SIZE;
        holder = (struct holder){0};
        while (holder_next(slice_of(row, cut), &offset, &holder, &damaged))
            ck_assert_uint_le(offset, cut);
    }
    ck_assert(damaged);
}
END_TEST

START_TEST(gone_rows_come_back)
{
    const struct key key = key_pair(1, 2);
    const uint16_t counts[] = {1, 63, 64, 65, 511, SEGMENT_ENTRIES_MAX};
    uint8_t value[GONE_ROW_MAX];

    for (size_t i = 0; i < countof(counts); i++) {
        struct gone gone = {0}, back;
        gone_add(&gone, 0);
        gone_add(&gone, counts[i] - 1);
        const size_t size = gone_encode(key_slice(&key), &gone, counts[i], value);
        ck_assert(gone_decode(key_slice(&key), slice_of(value, size), counts[i], &back));
        ck_assert_mem_eq(&gone, &back, sizeof gone);
        ck_assert(!gone_decode(key_slice(&key), slice_of(value, size), counts[i] + 1, &back));
        ck_assert(!gone_decode(key_slice(&key), slice_of(value, size - 1), counts[i], &back));
    }
}
END_TEST

/* ---- segments -------------------------------------------------------------------------------- */

struct written {
    struct segment_entry entries[SEGMENT_ENTRIES_MAX];
    uint16_t count;
    uint8_t value[SEGMENT_MAX];
    size_t size;
    struct key key;
};

static void finish(struct written *written, struct segment_writer *writer)
{
    written->count = writer->count;
    written->key = key_pair(5, writer->first);
    written->size = segment_size(writer);
    ck_assert_uint_le(written->size, SEGMENT_MAX);
    segment_encode(writer, key_slice(&written->key), 77, written->value);
}

/* Entries until the segment is full, of the kinds that the mask allows. */
static void write_random(struct written *written, struct random *random, unsigned kinds,
                         uint16_t count_max)
{
    static struct segment_writer writer;
    struct segment_entry entry = {.position = random_below(random, 1000)};
    uint16_t count = 0;

    segment_begin(&writer);
    for (; count < count_max; count++) {
        entry.place.offset += entry.place.size;
        if (kinds & 1 && random_below(random, 3) == 0)
            entry.place =
                (struct place){(uint32_t)random_u64(random), (uint32_t)random_u64(random) / 2, 0};
        entry.place.size = (uint32_t)random_below(random, kinds & 1 ? UINT32_MAX / 2 : 70000);
        entry.crc = (uint32_t)random_u64(random);
        entry.weight = kinds & 2 ? (uint32_t)random_u64(random) : entry.place.size;
        entry.expires_ms = kinds & 4 && random_below(random, 2) ? random_u64(random) : 0;
        entry.flags = kinds & 8 ? (uint8_t)random_u64(random) : 0;
        if (!segment_add(&writer, &entry))
            break;
        written->entries[count] = entry;
        entry.position +=
            kinds & 16 && random_below(random, 4) == 0 ? 1 + random_below(random, 1000000) : 1;
    }
    ck_assert_uint_gt(count, 0);
    finish(written, &writer);
    ck_assert_uint_eq(written->count, count);
}

static void check_read(const struct written *written)
{
    static struct segment segment;
    struct segment_reader reader;
    bool damaged;

    ck_assert(segment_decode(key_slice(&written->key), slice_of(written->value, written->size),
                             &segment));
    ck_assert_uint_eq(segment.count, written->count);
    ck_assert_uint_eq(segment.blob, 77);
    ck_assert_uint_eq(segment.queue_id, 5);
    ck_assert_uint_eq(segment.last, written->entries[written->count - 1].position);
    segment_read(&reader, &segment);
    for (uint16_t i = 0; i < written->count; i++) {
        const struct segment_entry *entry = &written->entries[i];
        ck_assert(segment_next(&reader, &damaged));
        ck_assert_uint_eq(reader.entry.position, entry->position);
        ck_assert_uint_eq(reader.entry.expires_ms, entry->expires_ms);
        ck_assert_uint_eq(reader.entry.place.part, entry->place.part);
        ck_assert_uint_eq(reader.entry.place.offset, entry->place.offset);
        ck_assert_uint_eq(reader.entry.place.size, entry->place.size);
        ck_assert_uint_eq(reader.entry.crc, entry->crc);
        ck_assert_uint_eq(reader.entry.weight, entry->weight);
        ck_assert_uint_eq(reader.entry.flags, entry->flags);
        ck_assert_uint_eq(segment_seek(&segment, entry->position), i);
        ck_assert_uint_eq(segment_seek(&segment, entry->position + 1), i + 1);
    }
    ck_assert(!segment_next(&reader, &damaged) && !damaged);
}

START_TEST(segments_come_back)
{
    static struct written written;
    struct random random;

    random_init_seeded(&random, 2);
    for (unsigned kinds = 0; kinds < 32; kinds++)
        for (int round = 0; round < 20; round++) {
            write_random(&written, &random, kinds, round == 0 ? 1 : SEGMENT_ENTRIES_MAX);
            check_read(&written);
        }
}
END_TEST

START_TEST(plain_segments_are_small_and_full)
{
    static struct written written;
    struct random random;

    random_init_seeded(&random, 3);
    write_random(&written, &random, 0, SEGMENT_ENTRIES_MAX);
    ck_assert_uint_gt(written.count, 400);
}
END_TEST

/* Seals what was broken, so that the decoder itself has to notice. Whatever it answers, it stays
 * inside the bytes. */
static void read_broken(const struct key *key, const uint8_t *bytes, size_t size, uint8_t flags,
                        uint16_t count)
{
    static struct segment segment;
    struct segment_reader reader;
    uint8_t *value = xmalloc(size); /* its own, for the sanitizer to guard */
    bool damaged;

    memcpy(value, bytes, size);
    if (size >= HEADER_SIZE)
        record_seal(key_slice(key), value, size, flags, count);
    if (segment_decode(key_slice(key), slice_of(value, size), &segment)) {
        segment_read(&reader, &segment);
        uint16_t read = 0;
        while (segment_next(&reader, &damaged))
            read++;
        ck_assert(damaged || read == segment.count);
    }
    free(value);
}

START_TEST(broken_segments_are_damaged)
{
    static struct written written;
    static struct segment segment;
    struct random random;

    random_init_seeded(&random, 4);
    write_random(&written, &random, 31, 40);
    const uint8_t flags = record_flags(slice_of(written.value, written.size));
    for (size_t size = 0; size < written.size; size++) {
        ck_assert(
            !segment_decode(key_slice(&written.key), slice_of(written.value, size), &segment));
        read_broken(&written.key, written.value, size, flags, written.count);
    }
    for (size_t bit = 0; bit < 8 * written.size; bit++) {
        written.value[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(!segment_decode(key_slice(&written.key), slice_of(written.value, written.size),
                                  &segment));
        read_broken(&written.key, written.value, written.size, flags, written.count);
        written.value[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    read_broken(&written.key, written.value, written.size, flags, UINT16_MAX);
    read_broken(&written.key, written.value, written.size, flags, 0);
    const struct key end = key_pair(5, UINT64_MAX);
    read_broken(&end, written.value, written.size, flags | SEGMENT_DENSE, written.count);
    read_broken(&end, written.value, written.size, 0, written.count);
}
END_TEST

/* ---- sorting --------------------------------------------------------------------------------- */

START_TEST(sorts_by_major_then_minor_and_keeps_order)
{
    const struct {
        uint32_t count;
        uint64_t majors, minors;
    } cases[] = {{0, 1, 1},    {1, 1, 1},       {2, 2, 2},
                 {48, 5, 5},   {49, 5, 5},      {1000, 3, 1},
                 {1000, 1, 3}, {5000, 1000, 2}, {5000, UINT64_MAX, UINT64_MAX}};
    struct sort_list sort = {0};
    struct random random;

    random_init_seeded(&random, 5);
    for (size_t i = 0; i < countof(cases); i++) {
        array_clear(&sort.list);
        for (uint32_t n = 0; n < cases[i].count; n++)
            sort_add(&sort, random_below(&random, cases[i].majors),
                     random_below(&random, cases[i].minors), n);
        sort_run(&sort);
        ck_assert_uint_eq(sort.list.count, cases[i].count);
        for (uint32_t n = 1; n < cases[i].count; n++) {
            const struct sort_item *a = &sort.list.items[n - 1], *b = &sort.list.items[n];
            ck_assert(a->major < b->major ||
                      (a->major == b->major &&
                       (a->minor < b->minor || (a->minor == b->minor && a->value < b->value))));
        }
    }
    sort_release(&sort);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("record");
    TCase *tests = tcase_create("record");

    tcase_add_test(tests, knows_published_checksums);
    tcase_add_test(tests, instruction_and_table_agree);
    tcase_add_test(tests, keys_sort_as_numbers_do);
    tcase_add_test(tests, queue_row_comes_back_or_is_damaged);
    tcase_add_test(tests, a_bit_is_turned_back);
    tcase_add_loop_test(tests, a_queue_row_that_cannot_be_is_damaged, 0, 3);
    tcase_add_test(tests, small_rows_come_back);
    tcase_add_test(tests, holders_come_back);
    tcase_add_test(tests, gone_rows_come_back);
    tcase_add_test(tests, segments_come_back);
    tcase_add_test(tests, plain_segments_are_small_and_full);
    tcase_add_test(tests, broken_segments_are_damaged);
    tcase_add_test(tests, sorts_by_major_then_minor_and_keeps_order);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
