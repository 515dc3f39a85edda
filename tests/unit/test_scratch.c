/* Scratch: what is written comes back, a failed write is an answer, and space comes back with the
 * last of what a file held. In memory, and in a directory with its thread. */
#include "store/scratch.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/lib/unit.h"

enum { PIECE = 1024 * 1024, PIECES_MAX = 48 };

struct rig {
    struct scratch *scratch;
    unsigned files; /* of this process, before any of scratch's */
};

struct work {
    struct scratch_job job;
    struct iovec iov[PIECES_MAX];
    bool is_done;
};

static unsigned open_files(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static void rig_begin(struct rig *rig, int in_directory)
{
    char error[SCRATCH_ERROR_SIZE];

    ck_assert_int_eq(0, scratch_open(in_directory ? P_tmpdir : NULL, &rig->scratch, error));
    rig->files = open_files();
}

static void rig_end(struct rig *rig)
{
    scratch_close(&rig->scratch);
    ck_assert_ptr_null(rig->scratch);
}

static void on_done(struct scratch_job *job)
{
    struct work *work = container_of(job, struct work, job);

    ck_assert(!work->is_done);
    work->is_done = true;
}

static void await(struct rig *rig, const struct work *work)
{
    struct pollfd ready = {.fd = scratch_fd(rig->scratch), .events = POLLIN};

    while (!work->is_done) {
        ck_assert_int_eq(1, poll(&ready, 1, 30000));
        scratch_process(rig->scratch);
    }
}

/* So many pieces, one after the other; all of a write's are the same bytes. */
static void prepare(struct work *work, uint8_t *bytes, int pieces)
{
    *work = (struct work){0};
    for (int i = 0; i < pieces; i++)
        work->iov[i] = (struct iovec){bytes, PIECE};
    work->job.iov = work->iov;
    work->job.iov_count = pieces;
    work->job.on_done = on_done;
}

/* Writes so many pieces filled with the octet. Answers 0 or -errno. */
static int write_pieces(struct rig *rig, struct scratch_place *place, uint8_t octet, int pieces)
{
    uint8_t *bytes = xmalloc(PIECE);
    struct work work;

    memset(bytes, octet, PIECE);
    prepare(&work, bytes, pieces);
    scratch_write(rig->scratch, &work.job, (size_t)pieces * PIECE);
    await(rig, &work);
    *place = work.job.place;
    ck_assert_ptr_nonnull(place->file);
    ck_assert_uint_eq((size_t)pieces * PIECE, place->size);
    free(bytes);
    return work.job.error;
}

/* The last piece of the place must be filled with the octet. */
static void expect_last(struct rig *rig, const struct scratch_place *place, uint8_t octet)
{
    uint8_t *bytes = xcalloc(1, PIECE);
    struct work work;
    size_t wrong = 0;

    prepare(&work, bytes, 1);
    work.job.place = *place;
    work.job.place.offset += place->size - PIECE;
    work.job.place.size = PIECE;
    scratch_read(rig->scratch, &work.job);
    await(rig, &work);
    ck_assert_int_eq(0, work.job.error);
    for (size_t i = 0; i < PIECE; i++)
        wrong += bytes[i] != octet;
    ck_assert_uint_eq(0, wrong);
    free(bytes);
}

/* A job is more than one system call takes, and of pieces of any size. */
START_TEST(many_pieces_come_back_as_they_were)
{
    enum { COUNT = 3000 };
    struct rig rig;
    rig_begin(&rig, _i);
    struct work work[2] = {0};
    uint8_t *bytes[2] = {xcalloc(COUNT, 40), xcalloc(COUNT, 40)};
    struct iovec *iov = xcalloc(COUNT, sizeof(*iov));
    size_t size = 0;

    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            const size_t length = i % 39;
            iov[i] = (struct iovec){bytes[round] + i * 40, length};
            if (round == 0)
                memset(iov[i].iov_base, (int)(i % 251), length);
            size += round == 0 ? length : 0;
        }
        work[round].job = (struct scratch_job){
            .place = work[0].job.place, .iov = iov, .iov_count = COUNT, .on_done = on_done};
        if (round == 0)
            scratch_write(rig.scratch, &work[round].job, size);
        else
            scratch_read(rig.scratch, &work[round].job);
        await(&rig, &work[round]);
        ck_assert_int_eq(0, work[round].job.error);
    }
    ck_assert_mem_eq(bytes[0], bytes[1], COUNT * 40);
    scratch_drop(&work[0].job.place);
    ck_assert_ptr_null(work[0].job.place.file);
    free(iov);
    free(bytes[0]);
    free(bytes[1]);
    rig_end(&rig);
}
END_TEST

/* A full file stays until the last place in it is dropped, and no longer; the current one stays. */
START_TEST(a_file_goes_with_its_last_place)
{
    struct rig rig;
    rig_begin(&rig, _i);
    struct scratch_place a, b, c, d;

    ck_assert_int_eq(0, write_pieces(&rig, &a, 'a', 20));
    ck_assert_int_eq(0, write_pieces(&rig, &b, 'b', 20));
    ck_assert_ptr_eq(a.file, b.file);
    ck_assert_uint_eq(a.size, b.offset);
    ck_assert_int_eq(0, write_pieces(&rig, &c, 'c', 40)); /* does not fit any more */
    ck_assert_ptr_ne(c.file, a.file);
    ck_assert_uint_eq(rig.files + 2, open_files());
    scratch_drop(&a);
    expect_last(&rig, &b, 'b');
    expect_last(&rig, &c, 'c');
    ck_assert_uint_eq(rig.files + 2, open_files());
    scratch_drop(&b);
    scratch_drop(&c);                                    /* the current one */
    ck_assert_int_eq(0, write_pieces(&rig, &d, 'd', 1)); /* behind whatever was to be closed */
    ck_assert_uint_eq(rig.files + 1, open_files());
    expect_last(&rig, &d, 'd');
    scratch_drop(&d);
    rig_end(&rig);
}
END_TEST

/* Nothing is left in a file that fills up after all that it held was dropped. */
START_TEST(an_empty_file_goes_when_the_next_begins)
{
    struct rig rig;
    rig_begin(&rig, _i);
    struct scratch_place place;

    for (uint8_t octet = '0'; octet < '4'; octet++) {
        ck_assert_int_eq(0, write_pieces(&rig, &place, octet, 40));
        expect_last(&rig, &place, octet);
        ck_assert_uint_eq(rig.files + 1, open_files());
        scratch_drop(&place);
    }
    rig_end(&rig);
}
END_TEST

START_TEST(a_failed_write_is_an_answer)
{
    struct rig rig;
    rig_begin(&rig, _i);
    struct scratch_place before, failed, after;

    ck_assert_int_eq(0, write_pieces(&rig, &before, 'x', 1));
    scratch_set_error(rig.scratch, SCRATCH_WRITE, ENOSPC);
    ck_assert_int_eq(-ENOSPC, write_pieces(&rig, &failed, 'y', 1));
    scratch_drop(&failed);
    expect_last(&rig, &before, 'x');
    scratch_set_error(rig.scratch, SCRATCH_WRITE, 0);
    ck_assert_int_eq(0, write_pieces(&rig, &after, 'z', 1));
    expect_last(&rig, &before, 'x');
    expect_last(&rig, &after, 'z');
    scratch_drop(&before);
    scratch_drop(&after);
    rig_end(&rig);
}
END_TEST

/* The disk's own errors arrive, too. */
START_TEST(a_directory_that_is_not_there)
{
    struct rig rig;
    char error[SCRATCH_ERROR_SIZE];
    struct scratch_place place;

    ck_assert_int_eq(0, scratch_open("/nonexistent", &rig.scratch, error));
    ck_assert_int_eq(-ENOENT, write_pieces(&rig, &place, 'x', 1));
    scratch_drop(&place);
    rig_end(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("scratch");
    TCase *tcase = tcase_create("scratch");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, many_pieces_come_back_as_they_were, 0, 2);
    tcase_add_loop_test(tcase, a_file_goes_with_its_last_place, 0, 2);
    tcase_add_loop_test(tcase, an_empty_file_goes_when_the_next_begins, 0, 2);
    tcase_add_loop_test(tcase, a_failed_write_is_an_answer, 0, 2);
    tcase_add_test(tcase, a_directory_that_is_not_there);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
