/* mailbox: what is posted arrives, once, in each poster's order; the descriptor is readable just
 * while letters wait. */
#include "base/mailbox.h"

#include <poll.h>

#include "base/alloc.h"
#include "tests/lib/unit.h"

enum { POSTERS = 4, LETTERS = 20000 };

struct note {
    struct letter letter;
    unsigned poster;
    uint64_t number, check;
};

static struct mailbox inbox;            /* the owner's */
static struct mailbox returns[POSTERS]; /* where each poster gets its notes back */

static bool readable(const struct mailbox *mailbox)
{
    struct pollfd fd = {.fd = mailbox->fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static struct note *take_first(struct letter_list *letters)
{
    struct letter *letter = STAILQ_FIRST(letters);
    STAILQ_REMOVE_HEAD(letters, link);
    return container_of(letter, struct note, letter);
}

START_TEST(keeps_order_and_its_descriptor)
{
    struct note notes[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    ck_assert_int_eq(mailbox_open(&inbox), 0);
    ck_assert(!readable(&inbox));
    ck_assert(!mailbox_take(&inbox, &letters));

    mailbox_post(&inbox, &notes[0].letter);
    mailbox_post(&inbox, &notes[1].letter);
    mailbox_wait(&inbox);
    ck_assert(readable(&inbox));
    ck_assert(mailbox_take(&inbox, &letters));
    ck_assert(!readable(&inbox));
    ck_assert(!mailbox_take(&inbox, &letters));

    mailbox_post(&inbox, &notes[2].letter); /* joins the end of what the caller still has */
    ck_assert(mailbox_take(&inbox, &letters));
    for (uint64_t i = 0; i < 3; i++)
        ck_assert_uint_eq(take_first(&letters)->number, i);
    ck_assert(STAILQ_EMPTY(&letters));
    mailbox_close(&inbox);
}
END_TEST

/* Posts notes, each written before and not touched after, and counts those that come back with the
 * owner's mark. */
static void *post_all(void *argument)
{
    const unsigned poster = (unsigned)(uintptr_t)argument;
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    uint64_t back = 0;
    for (uint64_t number = 0; number < LETTERS || back < LETTERS;) {
        if (number < LETTERS) {
            struct note *note = xmalloc(sizeof *note);
            *note = (struct note){.poster = poster, .number = number, .check = ~number};
            mailbox_post(&inbox, &note->letter);
            number++;
        } else {
            mailbox_wait(&returns[poster]);
        }
        if (number % 64 == 0 || number == LETTERS)
            mailbox_take(&returns[poster], &letters);
        while (!STAILQ_EMPTY(&letters)) {
            struct note *note = take_first(&letters);
            if (note->number != back || note->check != note->number)
                return NULL;
            back++;
            free(note);
        }
    }
    return &returns[poster];
}

START_TEST(four_threads_at_once)
{
    pthread_t threads[POSTERS];
    uint64_t next[POSTERS] = {0};
    struct letter_list letters = STAILQ_HEAD_INITIALIZER(letters);
    ck_assert_int_eq(mailbox_open(&inbox), 0);
    for (unsigned i = 0; i < POSTERS; i++)
        ck_assert_int_eq(mailbox_open(&returns[i]), 0);
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_create(&threads[i], NULL, post_all, (void *)(uintptr_t)i);

    for (uint64_t taken = 0; taken < POSTERS * LETTERS;) {
        mailbox_wait(&inbox);
        ck_assert(mailbox_take(&inbox, &letters)); /* woken for something */
        while (!STAILQ_EMPTY(&letters)) {
            struct note *note = take_first(&letters);
            ck_assert_uint_eq(note->number, next[note->poster]++);
            ck_assert_uint_eq(note->check, ~note->number);
            note->check = note->number;
            mailbox_post(&returns[note->poster], &note->letter);
            taken++;
        }
    }
    for (unsigned i = 0; i < POSTERS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        ck_assert_ptr_nonnull(result);
        mailbox_close(&returns[i]);
    }
    mailbox_close(&inbox);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mailbox");
    TCase *tests = tcase_create("mailbox");
    tcase_add_test(tests, keeps_order_and_its_descriptor);
    tcase_add_test(tests, four_threads_at_once);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
