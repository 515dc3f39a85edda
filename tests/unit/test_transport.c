/* The transport, over memory and over a socket pair. The owner here reads records of a size octet
 * and that many bytes, which is enough to leave something over at every cut. */
#include "net/transport.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/random.h"
#include "tests/lib/memory_transport.h"
#include "tests/lib/unit.h"

static struct clock test_clock;
static struct loop loop;
static struct memory_transport peer;

/* The owner of the transport. */
struct owner {
    struct transport transport;
    struct buf seen; /* the records' bytes, without their sizes */
    size_t record_count;
    size_t shown;       /* calls of on_input */
    size_t pause_after; /* records; 0: never */
    size_t close_after; /* records; 0: never */
    bool takes_nothing;
    int drained, broken, error;
    bool close_when_drained;
};
static struct owner owner;

static size_t on_input(struct transport *transport, struct slice bytes)
{
    ck_assert_ptr_eq(transport, &owner.transport);
    ck_assert(!transport->paused && !transport->closed && !transport->broken);
    owner.shown++;
    size_t taken = 0;
    while (!owner.takes_nothing && taken < bytes.size) {
        const size_t size = bytes.data[taken];
        if (bytes.size - taken < 1 + size)
            break;
        buf_append(&owner.seen, slice_of(bytes.data + taken + 1, size));
        taken += 1 + size;
        owner.record_count++;
        if (owner.record_count == owner.pause_after) {
            transport_pause(transport, false);
            break;
        }
        if (owner.record_count == owner.close_after) {
            transport_close(transport);
            break;
        }
    }
    return taken;
}

static void on_drained(struct transport *transport)
{
    owner.drained++;
    if (owner.close_when_drained)
        transport_close(transport);
}

static void on_broken(struct transport *transport, int error)
{
    owner.broken++;
    owner.error = error;
    transport_close(transport);
    transport_close(transport);
}

static const struct transport_events events = {
    .on_input = on_input, .on_drained = on_drained, .on_broken = on_broken};

static void setup_loop(void)
{
    test_clock = (struct clock){.now_ms = 1000, .wall_ms = 1000000, .fake = true};
    ck_assert_int_eq(loop_init(&loop, &test_clock), 0);
    owner = (struct owner){0};
}

static void setup(void)
{
    setup_loop();
    transport_open(&owner.transport, &loop, &events, &memory_transport_ops);
    memory_transport_attach(&peer, &owner.transport);
}

static void teardown_loop(void)
{
    transport_close(&owner.transport);
    buf_release(&owner.seen);
    loop_release(&loop);
}

static void teardown(void)
{
    teardown_loop();
    ck_assert(peer.closed);
    memory_transport_release(&peer);
}

static void turn(void)
{
    loop_turn(&loop, 0);
}

static void turn_until_quiet(void)
{
    do
        turn();
    while (owner.transport.input_task.queued || owner.transport.output_task.queued);
}

static void write_string(const char *string)
{
    buf_append(transport_output(&owner.transport), slice_of_string(string));
}

/* Bytes that tell where they are in the stream. */
static void write_pattern(size_t from, size_t size)
{
    while (size > 0) {
        const size_t piece = min_of(size, (size_t)1000);
        uint8_t *bytes = buf_reserve(transport_output(&owner.transport), piece);
        for (size_t i = 0; i < piece; i++)
            bytes[i] = (uint8_t)((from + i) * 31 >> 3);
        buf_commit(&owner.transport.tail, piece);
        from += piece;
        size -= piece;
    }
}

static void check_pattern(
    struct slice bytes) /* one assertion: each of check's is a write to a file */
{
    size_t i = 0;

    while (i < bytes.size && bytes.data[i] == (uint8_t)(i * 31 >> 3))
        i++;
    ck_assert_uint_eq(i, bytes.size);
}

static bool owns_no_buffer(void)
{
    return owner.transport.input.data == NULL && owner.transport.tail.data == NULL &&
           STAILQ_EMPTY(&owner.transport.chunks);
}

/* ---- input --------------------------------------------------------------------------------- */

START_TEST(input_comes_in_one_read_a_turn)
{
    memory_transport_send(&peer, SLICE("\x03"
                                       "abc"
                                       "\x02"
                                       "de"));
    clock_advance(&test_clock, 5);
    turn();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("abcde")));
    ck_assert_uint_eq(owner.transport.octets_in, 7);
    ck_assert_uint_eq(owner.transport.read_ms, 1005);
    ck_assert_uint_eq(owner.shown, 1);
    turn_until_quiet();
    ck_assert_uint_eq(owner.shown, 1);
    ck_assert(!owner.transport.readable);
    ck_assert(owns_no_buffer());
}
END_TEST

/* Every cut in two; and one byte at a time. */
START_TEST(leftovers_come_first)
{
    const struct slice whole = SLICE("\x03"
                                     "abc"
                                     "\x00"
                                     "\x05"
                                     "defgh"
                                     "\x01"
                                     "i");
    const struct slice wanted = SLICE("abcdefghi");
    for (size_t cut = 0; cut <= whole.size; cut++) {
        buf_clear(&owner.seen);
        memory_transport_send(&peer, slice_of(whole.data, cut));
        turn_until_quiet();
        memory_transport_send(&peer, slice_of(whole.data + cut, whole.size - cut));
        turn_until_quiet();
        ck_assert(slice_equal(buf_slice(&owner.seen), wanted));
        ck_assert(owns_no_buffer());
    }
    buf_clear(&owner.seen);
    peer.give_max = 1;
    memory_transport_send(&peer, whole);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), wanted));
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(a_turn_reads_no_more_than_the_scratch_holds)
{
    struct buf records = BUF_EMPTY;
    static const uint8_t record[100] = {99};
    for (size_t i = 0; i < 2 * LOOP_SCRATCH_SIZE / sizeof(record); i++)
        buf_append(&records, slice_of(record, sizeof(record)));
    memory_transport_send(&peer, buf_slice(&records));
    turn();
    ck_assert_uint_eq(owner.transport.octets_in, LOOP_SCRATCH_SIZE);
    turn_until_quiet();
    ck_assert_uint_eq(owner.transport.octets_in, buf_size(&records));
    ck_assert_uint_eq(owner.record_count, buf_size(&records) / sizeof(record));
    ck_assert(owns_no_buffer());
    buf_release(&records);
}
END_TEST

/* An owner that wants more than the scratch can hold gets it all the same. */
START_TEST(leftovers_may_outgrow_the_scratch)
{
    struct buf records = BUF_EMPTY;
    static const uint8_t record[100] = {99};
    while (buf_size(&records) < 3 * LOOP_SCRATCH_SIZE)
        buf_append(&records, slice_of(record, sizeof(record)));
    owner.takes_nothing = true;
    memory_transport_send(&peer, buf_slice(&records));
    turn_until_quiet();
    ck_assert_uint_eq(buf_size(&owner.transport.input), buf_size(&records));
    owner.takes_nothing = false;
    memory_transport_send(&peer, SLICE("\x03"
                                       "end"));
    turn_until_quiet();
    ck_assert_uint_eq(owner.record_count, buf_size(&records) / sizeof(record) + 1);
    ck_assert_int_eq(memcmp(owner.seen.data + owner.seen.end - 3, "end", 3), 0);
    ck_assert(owns_no_buffer());
    buf_release(&records);
}
END_TEST

START_TEST(a_paused_transport_is_not_read)
{
    transport_pause(&owner.transport, false);
    memory_transport_send(&peer, SLICE("\x01"
                                       "a"));
    memory_transport_end(&peer);
    turn_until_quiet();
    ck_assert_uint_eq(peer.read_count, 0);
    ck_assert_int_eq(owner.broken, 0);
    transport_resume(&owner.transport);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("a")));
    ck_assert_int_eq(owner.broken, 1);
    ck_assert_int_eq(owner.error, 0);
}
END_TEST

START_TEST(input_may_be_hurried)
{
    transport_pause(&owner.transport, false);
    memory_transport_send(&peer, SLICE("\x01"
                                       "a"));
    transport_hurry(&owner.transport);
    ck_assert_uint_eq(buf_size(&owner.seen), 0);
    transport_resume(&owner.transport);
    transport_hurry(&owner.transport);
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("a")));
    turn_until_quiet();
    ck_assert_uint_eq(owner.record_count, 1);
}
END_TEST

/* The peer hangs up before, between, and after two pauses; the second is the one that forsakes
 * it. */
START_TEST(who_hangs_up_is_forsaken)
{
    for (int when = 0; when < 3; when++) {
        if (when == _i)
            memory_transport_end(&peer);
        if (when < 2)
            transport_pause(&owner.transport, when == 1);
    }
    ck_assert_int_eq(owner.broken, 0); /* in the next turn */
    turn_until_quiet();
    ck_assert_uint_eq(peer.read_count, 0);
    ck_assert_int_eq(owner.broken, 1);
    ck_assert_int_eq(owner.error, 0);
}
END_TEST

START_TEST(a_pause_may_be_waited_for_again)
{
    transport_pause(&owner.transport, true);
    memory_transport_send(&peer, SLICE("\x01"
                                       "a"));
    turn_until_quiet();
    memory_transport_end(&peer);
    transport_pause(&owner.transport, false);
    turn_until_quiet();
    ck_assert_int_eq(owner.broken, 0);
    transport_resume(&owner.transport);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("a")));
    ck_assert_int_eq(owner.broken, 1);
}
END_TEST

START_TEST(pausing_from_within_keeps_the_rest_for_later)
{
    owner.pause_after = 1;
    memory_transport_send(&peer, SLICE("\x01"
                                       "a"
                                       "\x01"
                                       "b"
                                       "\x02"
                                       "c"));
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("a")));
    memory_transport_send(&peer, SLICE("d"
                                       "\x01"
                                       "e"));
    turn_until_quiet();
    ck_assert_uint_eq(owner.shown, 1);

    /* the leftovers are shown before anything is read, and may pause again */
    owner.pause_after = 2;
    const uint64_t reads = peer.read_count;
    transport_resume(&owner.transport);
    turn();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("ab")));
    ck_assert_uint_eq(peer.read_count, reads);

    owner.pause_after = 0;
    transport_resume(&owner.transport);
    transport_resume(&owner.transport);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("abcde")));
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(resuming_without_news_shows_the_leftovers_once)
{
    owner.pause_after = 1;
    memory_transport_send(&peer, SLICE("\x01"
                                       "a"
                                       "\x01"
                                       "b"));
    turn_until_quiet();
    owner.pause_after = 0;
    transport_resume(&owner.transport);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("ab")));
    ck_assert_uint_eq(owner.shown, 2);
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(closing_from_within_on_input)
{
    owner.close_after = 2;
    memory_transport_send(&peer, SLICE("\x01"
                                       "a"
                                       "\x01"
                                       "b"
                                       "\x01"
                                       "c"));
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("ab")));
    ck_assert(peer.closed);
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(closing_while_leftovers_are_shown)
{
    owner.pause_after = 1;
    memory_transport_send(&peer, SLICE("\x01"
                                       "a"
                                       "\x01"
                                       "b"
                                       "\x01"
                                       "c"));
    turn_until_quiet();
    owner.close_after = 2;
    transport_resume(&owner.transport);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("ab")));
    ck_assert(peer.closed);
    ck_assert(owns_no_buffer());
}
END_TEST

/* ---- output -------------------------------------------------------------------------------- */

START_TEST(output_leaves_in_one_write)
{
    write_string("hello ");
    write_string("world");
    ck_assert_uint_eq(transport_output_size(&owner.transport), 11);
    ck_assert_uint_eq(buf_size(&peer.received), 0);
    clock_advance(&test_clock, 7);
    turn();
    ck_assert(slice_equal(buf_slice(&peer.received), SLICE("hello world")));
    ck_assert_uint_eq(peer.write_count, 1);
    ck_assert_uint_eq(owner.transport.octets_out, 11);
    ck_assert_uint_eq(owner.transport.write_ms, 1007);
    ck_assert(owns_no_buffer());
    ck_assert_uint_eq(loop.buffer_count, 1);
}
END_TEST

START_TEST(asking_for_output_without_writing_costs_nothing)
{
    transport_output(&owner.transport);
    turn();
    ck_assert_uint_eq(peer.write_count, 0);
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(long_output_is_gathered)
{
    const size_t size = 10 * LOOP_BUFFER_SIZE;
    write_pattern(0, size);
    turn();
    ck_assert_uint_eq(peer.write_count, 1);
    ck_assert_uint_eq(buf_size(&peer.received), size);
    check_pattern(buf_slice(&peer.received));
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(more_than_one_buffer_at_once)
{
    const size_t size = 3 * LOOP_BUFFER_SIZE;
    uint8_t *bytes = buf_reserve(transport_output(&owner.transport), size);
    memset(bytes, 'x', size);
    buf_commit(&owner.transport.tail, size);
    write_string("end");
    turn();
    ck_assert_uint_eq(buf_size(&peer.received), size + 3);
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(partial_writes_go_on_where_they_stopped)
{
    static const size_t sizes[] = {1, 2, 3, 1000, 48 * 1024, 64 * 1024, 100000};
    for (size_t i = 0; i < countof(sizes); i++) {
        const size_t total = sizes[i] < 100 ? 500 : 300000;
        memory_transport_take(&peer, 0);
        write_pattern(0, total);
        turn_until_quiet();
        while (transport_output_size(&owner.transport) > 0) {
            memory_transport_take(&peer, sizes[i]);
            turn();
        }
        ck_assert_uint_eq(buf_size(&peer.received), total);
        check_pattern(buf_slice(&peer.received));
        ck_assert(owns_no_buffer());
        buf_clear(&peer.received);
        memory_transport_take(&peer, SIZE_MAX);
    }
}
END_TEST

START_TEST(a_full_carrier_is_left_alone_until_it_has_room)
{
    memory_transport_take(&peer, 3);
    write_string("abcdef");
    turn_until_quiet();
    ck_assert_uint_eq(peer.write_count, 1); /* a short write says it all */
    write_string("ghi");
    turn_until_quiet();
    ck_assert_uint_eq(peer.write_count, 1);
    memory_transport_take(&peer, SIZE_MAX);
    turn_until_quiet();
    ck_assert_uint_eq(peer.write_count, 2);
    ck_assert(slice_equal(buf_slice(&peer.received), SLICE("abcdefghi")));
}
END_TEST

static int done_count;
static size_t done_order;

static void note_done(void *shared)
{
    const size_t number = *(size_t *)shared;
    ck_assert_uint_eq(number, done_order);
    done_order++;
    done_count++;
}

/* Small and large pieces by copy and by reference, through a carrier that takes any number of
 * bytes. */
START_TEST(shared_bytes_keep_their_place)
{
    enum { PIECES = 400 };
    static size_t numbers[PIECES];
    struct random random;
    random_init_seeded(&random, 7);
    for (int round = 0; round < 20; round++) {
        struct buf wanted = BUF_EMPTY;
        uint8_t *blocks[PIECES];
        done_count = 0;
        done_order = 0;
        memory_transport_take(&peer, 0);
        for (size_t i = 0; i < PIECES; i++) {
            numbers[i] = i;
            const size_t head = random_below(&random, 8) == 0 ? 5000 : random_below(&random, 50);
            uint8_t *bytes = buf_reserve(transport_output(&owner.transport), head);
            random_bytes(&random, bytes, head);
            buf_append(&wanted, slice_of(bytes, head));
            buf_commit(&owner.transport.tail, head);

            const size_t size = random_below(&random, 3000);
            blocks[i] = xmalloc(size + 1);
            random_bytes(&random, blocks[i], size + 1);
            buf_append(&wanted, slice_of(blocks[i], size + 1));
            transport_output_shared(&owner.transport, slice_of(blocks[i], size + 1), note_done,
                                    &numbers[i]);
        }
        ck_assert_uint_eq(transport_output_size(&owner.transport), buf_size(&wanted));
        while (transport_output_size(&owner.transport) > 0) {
            memory_transport_take(&peer, 1 + random_below(&random, 100000));
            turn();
        }
        ck_assert(slice_equal(buf_slice(&peer.received), buf_slice(&wanted)));
        ck_assert_int_eq(done_count, PIECES);
        ck_assert(owns_no_buffer());
        buf_clear(&peer.received);
        buf_release(&wanted);
        for (size_t i = 0; i < PIECES; i++)
            free(blocks[i]);
    }
}
END_TEST

START_TEST(many_parts_take_several_writes_in_one_turn)
{
    static size_t numbers[200];
    done_count = 0;
    done_order = 0;
    for (size_t i = 0; i < countof(numbers); i++) {
        numbers[i] = i;
        transport_output_shared(&owner.transport, SLICE("body"), note_done, &numbers[i]);
    }
    turn();
    ck_assert_uint_eq(buf_size(&peer.received), 4 * countof(numbers));
    ck_assert_uint_eq(peer.write_count, 4);
    ck_assert_int_eq(done_count, countof(numbers));
}
END_TEST

START_TEST(shared_bytes_are_given_back_at_close)
{
    static size_t numbers[] = {0, 1, 2, 3};
    done_count = 0;
    done_order = 0;
    memory_transport_take(&peer, 6);
    transport_output_shared(&owner.transport, SLICE("body"), note_done, &numbers[0]);
    transport_output_shared(&owner.transport, SLICE("body"), note_done, &numbers[1]);
    transport_output_shared(&owner.transport, SLICE("body"), note_done, &numbers[2]);
    turn();
    ck_assert_int_eq(done_count, 1);
    transport_close(&owner.transport);
    ck_assert_int_eq(done_count, 3);
    transport_output_shared(&owner.transport, SLICE("body"), note_done, &numbers[3]);
    ck_assert_int_eq(done_count, 4);
    turn();
    ck_assert(slice_equal(buf_slice(&peer.received), SLICE("bodybo")));
}
END_TEST

/* A piece is a head, bytes by copy or by reference, and '\n'. */
static void write_piece(struct random *random, struct buf *wanted, char **blocks, size_t number,
                        size_t *shared)
{
    static size_t numbers[64];
    const size_t size = random_below(random, 20) == 0 ? 70000 : random_below(random, 3000);
    char head[32];

    snprintf(head, sizeof(head), "%zu:", number);
    blocks[number] = xmalloc(size + 1);
    memset(blocks[number], 'a' + (char)(number % 26), size + 1);
    buf_append(wanted, slice_of_string(head));
    buf_append(wanted, slice_of(blocks[number], size + 1));
    buf_append(wanted, SLICE("\n"));
    write_string(head);
    if (random_below(random, 2) == 0) {
        buf_append(&owner.transport.tail, slice_of(blocks[number], size + 1));
        buf_append(&owner.transport.tail, SLICE("\n"));
        return;
    }
    numbers[number] = (*shared)++;
    transport_output_shared(&owner.transport, slice_of(blocks[number], size + 1), note_done,
                            &numbers[number]);
    write_string("\n");
}

/* Whatever had left, the peer gets whole pieces, and what the carrier has begun with. */
START_TEST(output_is_cut_between_pieces)
{
    enum { PIECES = 60, KEPT_MAX = 2 * (64 * 1024 + 70000) };
    struct random random;

    random_init_seeded(&random, 11);
    for (int round = 0; round < 300; round++) {
        char *blocks[PIECES];
        struct buf wanted = BUF_EMPTY;
        size_t shared = 0;

        done_count = 0;
        done_order = 0;
        memory_transport_take(&peer, 0);
        for (size_t i = 0; i < PIECES; i++) {
            write_piece(&random, &wanted, blocks, i, &shared);
            if (random_below(&random, 10) == 0) {
                memory_transport_take(&peer, random_below(&random, 8000));
                turn();
            }
        }
        owner.transport.begun = round % 2 == 0 ? 0 : random_below(&random, 100000);
        const size_t begun = min_of(owner.transport.begun, transport_output_size(&owner.transport));
        transport_cut_output(&owner.transport);
        ck_assert_uint_ge(transport_output_size(&owner.transport), begun);
        ck_assert_uint_le(transport_output_size(&owner.transport), begun + KEPT_MAX);
        ck_assert_uint_eq((size_t)done_count, shared);
        for (size_t i = 0; i < PIECES; i++)
            free(blocks[i]);
        write_string("last");
        owner.transport.begun = 0;
        memory_transport_take(&peer, SIZE_MAX);
        turn();
        ck_assert(owns_no_buffer());
        const struct slice got = buf_slice(&peer.received);
        ck_assert(slice_equal(slice_of(got.data + got.size - 4, 4), SLICE("last")));
        ck_assert(got.size == 4 || got.data[got.size - 5] == '\n');
        ck_assert(
            slice_equal(slice_of(got.data, got.size - 4), slice_of(wanted.data, got.size - 4)));
        buf_clear(&peer.received);
        buf_release(&wanted);
    }
}
END_TEST

START_TEST(what_the_carrier_takes_is_not_cut)
{
    write_pattern(0, 300000);
    transport_cut_output(&owner.transport);
    ck_assert_uint_eq(buf_size(&peer.received), 300000);
    check_pattern(buf_slice(&peer.received));
    memory_transport_break(&peer, EPIPE);
    write_pattern(0, 300000);
    transport_cut_output(&owner.transport); /* which is not where a failure is told */
    ck_assert_int_eq(owner.broken, 0);
    turn();
    ck_assert_int_eq(owner.broken, 1);
    transport_cut_output(&owner.transport);
}
END_TEST

START_TEST(empty_shared_bytes_are_done_at_once)
{
    static size_t number = 0;
    done_count = 0;
    done_order = 0;
    transport_output_shared(&owner.transport, slice_of(NULL, 0), note_done, &number);
    ck_assert_int_eq(done_count, 1);
    turn();
    ck_assert_uint_eq(peer.write_count, 0);
}
END_TEST

START_TEST(congestion_ends_below_the_low_mark)
{
    memory_transport_take(&peer, 0);
    write_pattern(0, LOOP_OUTPUT_MAX);
    ck_assert(!transport_is_congested(&owner.transport));
    write_pattern(LOOP_OUTPUT_MAX, 1);
    ck_assert(transport_is_congested(&owner.transport));
    turn();

    memory_transport_take(&peer, LOOP_OUTPUT_MAX - LOOP_OUTPUT_MAX / 4);
    turn();
    ck_assert(transport_is_congested(&owner.transport));
    ck_assert_int_eq(owner.drained, 0);

    memory_transport_take(&peer, 1);
    turn();
    ck_assert(!transport_is_congested(&owner.transport));
    ck_assert_int_eq(owner.drained, 1);
    memory_transport_take(&peer, SIZE_MAX);
    turn();
    ck_assert_int_eq(owner.drained, 1);
    ck_assert_uint_eq(buf_size(&peer.received), LOOP_OUTPUT_MAX + 1);
}
END_TEST

/* Who stopped adding because of the high mark is told, even if one write took everything. */
START_TEST(congestion_within_one_turn_is_told_too)
{
    write_pattern(0, LOOP_OUTPUT_MAX + 1);
    turn();
    ck_assert_int_eq(owner.drained, 1);
}
END_TEST

START_TEST(closing_from_within_on_drained)
{
    owner.close_when_drained = true;
    write_pattern(0, LOOP_OUTPUT_MAX + 1);
    turn();
    ck_assert(peer.closed);
    turn();
}
END_TEST

/* ---- the end ------------------------------------------------------------------------------- */

START_TEST(the_peers_end_comes_after_its_bytes)
{
    memory_transport_send(&peer, SLICE("\x01"
                                       "a"
                                       "\x02"
                                       "b"));
    memory_transport_end(&peer);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("a")));
    ck_assert_int_eq(owner.broken, 1);
    ck_assert_int_eq(owner.error, 0);
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(a_failed_read_breaks)
{
    memory_transport_break(&peer, ECONNRESET);
    turn_until_quiet();
    ck_assert_int_eq(owner.broken, 1);
    ck_assert_int_eq(owner.error, ECONNRESET);
}
END_TEST

START_TEST(a_failed_write_breaks)
{
    static size_t number = 0;
    done_count = 0;
    done_order = 0;
    transport_pause(&owner.transport, false);
    write_string("abc");
    transport_output_shared(&owner.transport, SLICE("body"), note_done, &number);
    memory_transport_break(&peer, EPIPE);
    turn_until_quiet();
    ck_assert_int_eq(owner.broken, 1);
    ck_assert_int_eq(owner.error, EPIPE);
    ck_assert_int_eq(done_count, 1);
    ck_assert(owns_no_buffer());
}
END_TEST

START_TEST(output_after_the_end_goes_nowhere)
{
    transport_close(&owner.transport);
    for (int i = 0; i < 100; i++)
        write_string("abc");
    ck_assert_uint_eq(transport_output_size(&owner.transport), 0);
    transport_pause(&owner.transport, false);
    transport_resume(&owner.transport);
    transport_wake(&owner.transport, true, true);
    turn();
    ck_assert_uint_eq(peer.write_count, 0);
    ck_assert_uint_eq(buf_size(&loop.sink), 3);
}
END_TEST

START_TEST(close_writes_what_it_can)
{
    write_string("goodbye");
    transport_close(&owner.transport);
    ck_assert(slice_equal(buf_slice(&peer.received), SLICE("goodbye")));
    ck_assert(peer.closed);
}
END_TEST

/* ---- over a socket ------------------------------------------------------------------------- */

static int far_fd;

static void setup_socket(void)
{
    setup_loop();
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    far_fd = fds[1];
    ck_assert_int_eq(transport_open_socket(&owner.transport, &loop, &events, fds[0]), 0);
}

static void teardown_socket(void)
{
    teardown_loop();
    close(far_fd);
}

START_TEST(a_socket_is_read_and_written)
{
    ck_assert_int_eq(write(far_fd, "\x05hello", 6), 6);
    write_string("world");
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("hello")));
    ck_assert(!owner.transport.readable);
    char bytes[16];
    ck_assert_int_eq(read(far_fd, bytes, sizeof(bytes)), 5);
    ck_assert_int_eq(memcmp(bytes, "world", 5), 0);

    ck_assert_int_eq(write(far_fd,
                           "\x03"
                           "end",
                           4),
                     4);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("helloend")));
}
END_TEST

START_TEST(a_slow_socket_gets_everything)
{
    const size_t size = 3 * LOOP_OUTPUT_MAX;
    write_pattern(0, size);
    struct buf got = BUF_EMPTY;
    while (buf_size(&got) < size) {
        loop_turn(&loop, 1000);
        ssize_t result;
        while ((result = read(far_fd, buf_reserve(&got, 7000), 7000)) > 0)
            buf_commit(&got, (size_t)result);
    }
    ck_assert_uint_eq(buf_size(&got), size);
    check_pattern(buf_slice(&got));
    ck_assert_int_eq(owner.drained, 1);
    ck_assert(owns_no_buffer());
    buf_release(&got);
}
END_TEST

/* A connection over the loopback; returns our end, that of the others is far_fd. */
static int connect_over_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(0, bind(listener, (const struct sockaddr *)&address, size));
    ck_assert_int_eq(0, listen(listener, 1));
    ck_assert_int_eq(0, getsockname(listener, (struct sockaddr *)&address, &size));
    far_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(0, connect(far_fd, (const struct sockaddr *)&address, size));
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    close(listener);
    return fd;
}

/* Turns until nothing moves any more: what the peer's end had room for has arrived there. */
static size_t settle_untaken(void)
{
    size_t size = SIZE_MAX;

    for (int same = 0; same < 20;) {
        loop_turn(&loop, 10);
        const size_t now = transport_untaken_size(&owner.transport);
        same = now == size ? same + 1 : 0;
        size = now;
    }
    return size;
}

/* It takes a little, and nothing can be written for it. */
START_TEST(a_slow_reader_is_seen_to_take)
{
    enum { READ_SIZE = 4096 };
    char bytes[READ_SIZE];

    setup_loop();
    ck_assert_int_eq(transport_open_socket(&owner.transport, &loop, &events, connect_over_tcp()),
                     0);
    write_pattern(0, 32 * 1024 * 1024);
    size_t before = settle_untaken();
    ck_assert(!owner.transport.writable);
    ck_assert_uint_gt(before, 0);
    const uint64_t octets_out = owner.transport.octets_out;
    ck_assert_uint_eq(before, settle_untaken()); /* who does not read takes nothing */
    size_t has_read = 0;
    while (transport_untaken_size(&owner.transport) == before) {
        ck_assert_int_eq(READ_SIZE, read(far_fd, bytes, READ_SIZE));
        has_read += READ_SIZE;
        loop_turn(&loop, 1);
    }
    ck_assert_uint_lt(transport_untaken_size(&owner.transport), before);
    ck_assert_uint_eq(octets_out, owner.transport.octets_out);
    ck_assert(!owner.transport.writable);
    ck_assert_uint_lt(has_read, before / 3);
    teardown_socket();
}
END_TEST

/* The end is not lost behind a short read, whether it comes together with the bytes or later. */
START_TEST(a_sockets_end_is_seen)
{
    if (_i == 1)
        turn_until_quiet();
    ck_assert_int_eq(write(far_fd,
                           "\x01"
                           "a",
                           2),
                     2);
    if (_i == 2)
        turn_until_quiet();
    ck_assert_int_eq(shutdown(far_fd, SHUT_WR), 0);
    turn_until_quiet();
    ck_assert(slice_equal(buf_slice(&owner.seen), SLICE("a")));
    ck_assert_int_eq(owner.broken, 1);
    ck_assert_int_eq(owner.error, 0);
}
END_TEST

START_TEST(a_vanished_reader_breaks_without_a_signal)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(SIGPIPE, &action, NULL);
    transport_pause(&owner.transport, false);
    close(far_fd);
    far_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    write_string("abc");
    turn_until_quiet();
    ck_assert_int_eq(owner.broken, 1);
    ck_assert_int_eq(owner.error, EPIPE);
}
END_TEST

START_TEST(a_bad_socket_is_an_error)
{
    struct transport transport;
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* nothing that epoll takes */
    ck_assert_int_eq(transport_open_socket(&transport, &loop, &events, fd), -EPERM);
    ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
    transport_close(&transport);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("transport");

    TCase *input = tcase_create("input");
    tcase_add_checked_fixture(input, setup, teardown);
    tcase_add_test(input, input_comes_in_one_read_a_turn);
    tcase_add_test(input, leftovers_come_first);
    tcase_add_test(input, a_turn_reads_no_more_than_the_scratch_holds);
    tcase_add_test(input, leftovers_may_outgrow_the_scratch);
    tcase_add_test(input, a_paused_transport_is_not_read);
    tcase_add_test(input, input_may_be_hurried);
    tcase_add_loop_test(input, who_hangs_up_is_forsaken, 0, 3);
    tcase_add_test(input, a_pause_may_be_waited_for_again);
    tcase_add_test(input, pausing_from_within_keeps_the_rest_for_later);
    tcase_add_test(input, resuming_without_news_shows_the_leftovers_once);
    tcase_add_test(input, closing_from_within_on_input);
    tcase_add_test(input, closing_while_leftovers_are_shown);
    suite_add_tcase(suite, input);

    TCase *output = tcase_create("output");
    tcase_add_checked_fixture(output, setup, teardown);
    tcase_add_test(output, output_leaves_in_one_write);
    tcase_add_test(output, asking_for_output_without_writing_costs_nothing);
    tcase_add_test(output, long_output_is_gathered);
    tcase_add_test(output, more_than_one_buffer_at_once);
    tcase_add_test(output, partial_writes_go_on_where_they_stopped);
    tcase_add_test(output, a_full_carrier_is_left_alone_until_it_has_room);
    tcase_add_test(output, shared_bytes_keep_their_place);
    tcase_add_test(output, many_parts_take_several_writes_in_one_turn);
    tcase_add_test(output, shared_bytes_are_given_back_at_close);
    tcase_add_test(output, output_is_cut_between_pieces);
    tcase_add_test(output, what_the_carrier_takes_is_not_cut);
    tcase_add_test(output, empty_shared_bytes_are_done_at_once);
    tcase_add_test(output, congestion_ends_below_the_low_mark);
    tcase_add_test(output, congestion_within_one_turn_is_told_too);
    tcase_add_test(output, closing_from_within_on_drained);
    suite_add_tcase(suite, output);

    TCase *end = tcase_create("end");
    tcase_add_checked_fixture(end, setup, teardown);
    tcase_add_test(end, the_peers_end_comes_after_its_bytes);
    tcase_add_test(end, a_failed_read_breaks);
    tcase_add_test(end, a_failed_write_breaks);
    tcase_add_test(end, output_after_the_end_goes_nowhere);
    tcase_add_test(end, close_writes_what_it_can);
    suite_add_tcase(suite, end);

    TCase *sockets = tcase_create("socket");
    tcase_add_checked_fixture(sockets, setup_socket, teardown_socket);
    tcase_add_test(sockets, a_socket_is_read_and_written);
    tcase_add_test(sockets, a_slow_socket_gets_everything);
    tcase_add_loop_test(sockets, a_sockets_end_is_seen, 0, 3);
    tcase_add_test(sockets, a_vanished_reader_breaks_without_a_signal);
    tcase_add_test(sockets, a_bad_socket_is_an_error);
    suite_add_tcase(suite, sockets);

    TCase *tcp = tcase_create("tcp");
    tcase_add_test(tcp, a_slow_reader_is_seen_to_take);
    suite_add_tcase(suite, tcp);
    return unit_main(suite);
}
