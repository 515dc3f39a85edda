/* See crc32c.h. The instruction takes eight bytes in three cycles, but could start one each cycle:
 * a long run is cut into three lanes that go side by side, and their results are joined by
 * advancing the earlier ones over the zeros that the later ones would have seen. Advancing over a
 * fixed distance is linear in the bits of the checksum, hence four table lookups.
 *
 *     |-- lane 0: LANE bytes --|-- lane 1 --|-- lane 2 --|  crc = advance(advance(c0) ^ c1) ^ c2
 *
 * The tables are made before main runs; nothing writes to them afterwards. */
#include "store/crc32c.h"

#define POLYNOMIAL 0x82f63b78U /* Castagnoli's, bits reversed */
#define LANE       256

static uint32_t byte_table[256];
static uint32_t lane_table[4][256];

static uint32_t portable(uint32_t state, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        state = byte_table[(state ^ data[i]) & 0xff] ^ state >> 8;
    return state;
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size)
{
    return ~portable(~crc, data, size);
}

static void make_byte_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t state = i;
        for (int bit = 0; bit < 8; bit++)
            state = state & 1 ? state >> 1 ^ POLYNOMIAL : state >> 1;
        byte_table[i] = state;
    }
}

static void make_lane_table(void)
{
    static const uint8_t zeros[LANE];

    for (int byte = 0; byte < 4; byte++)
        for (uint32_t i = 0; i < 256; i++)
            lane_table[byte][i] = portable(i << 8 * byte, zeros, LANE);
}

#if defined(__x86_64__)
#include <nmmintrin.h>

static bool has_instruction;

static uint64_t word(const uint8_t *data)
{
    uint64_t value;

    memcpy(&value, data, sizeof value);
    return value;
}

static uint64_t advance(uint64_t state)
{
    return lane_table[0][state & 0xff] ^ lane_table[1][state >> 8 & 0xff] ^
           lane_table[2][state >> 16 & 0xff] ^ lane_table[3][state >> 24 & 0xff];
}

__attribute__((target("sse4.2"))) static uint64_t three_lanes(uint64_t state, const uint8_t *data)
{
    uint64_t one = 0, two = 0;

    for (size_t i = 0; i < LANE; i += 8) {
        state = _mm_crc32_u64(state, word(data + i));
        one = _mm_crc32_u64(one, word(data + LANE + i));
        two = _mm_crc32_u64(two, word(data + 2 * LANE + i));
    }
    return advance(advance(state) ^ one) ^ two;
}

__attribute__((target("sse4.2"))) static uint32_t accelerated(uint32_t crc, const uint8_t *data,
                                                              size_t size)
{
    uint64_t state = ~crc;

    for (; size >= (size_t)3 * LANE; data += (size_t)3 * LANE, size -= (size_t)3 * LANE)
        state = three_lanes(state, data);
    for (; size >= 8; data += 8, size -= 8)
        state = _mm_crc32_u64(state, word(data));
    for (; size > 0; data++, size--)
        state = _mm_crc32_u8((uint32_t)state, *data);
    return ~(uint32_t)state;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    return likely(has_instruction) ? accelerated(crc, data, size)
                                   : crc32c_portable(crc, data, size);
}

__attribute__((constructor)) static void make_tables(void)
{
    make_byte_table();
    make_lane_table();
    has_instruction = __builtin_cpu_supports("sse4.2");
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    return crc32c_portable(crc, data, size);
}

__attribute__((constructor)) static void make_tables(void)
{
    make_byte_table();
    make_lane_table();
}
#endif
