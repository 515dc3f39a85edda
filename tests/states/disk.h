/* A disk that loses power: what a log of calls (recorder.h) has made durable so far, and what is
 * still on its way.
 *
 *     durable bytes of each file ── + any of the pending writes, whole or torn ──┐
 *     durable names ── + the first of the pending creations, renames, unlinks ───┴─▶ a crash state
 *
 * What the kernel promises is taken at its word and no more than that: fdatasync makes a file's
 * bytes and size durable, not its name; a write through O_DSYNC only itself; fsync of the directory
 * the names. Until then each pending write is on disk or not, in no order, and of one under way any
 * of its sectors of 512 bytes; a file may have grown without the bytes that made it. Names change
 * in order, as a journal keeps them. */
#ifndef TESTS_STATES_DISK_H
#define TESTS_STATES_DISK_H

#include "base/random.h"
#include "tests/states/recorder.h"

enum { DISK_FILES_MAX = 64, DISK_NAMES_MAX = 16 };

struct disk_file {
    uint8_t *bytes;
    size_t size, capacity;
};

struct disk_name {
    char name[CALL_NAME_SIZE]; /* empty: unused */
    uint32_t file;
};

enum fate { FATE_LOST, FATE_WRITTEN, FATE_TORN };

struct disk_pending {
    const struct call *call;
    bool forced;    /* written through, behind others that are pending still */
    enum fate fate; /* the chooser's; of one that is forced without effect */
};

struct disk {
    const struct call_log *log;
    struct disk_file files[DISK_FILES_MAX];
    struct disk_name names[DISK_NAMES_MAX];
    ARRAY_OF(struct disk_pending) pending;
    ARRAY_OF(const struct call *) naming; /* pending as well */
    uint64_t submitted, durable;          /* marks so far */
};

void disk_init(struct disk *disk, const struct call_log *log);
void disk_release(struct disk *disk);

/* Goes on by one call of the log. */
void disk_apply(struct disk *disk, const struct call *call);

/* How many pending writes have a fate. */
uint32_t disk_choices(const struct disk *disk);

/* Makes the directory, which exists and is empty, what a crash at this moment leaves, by the fates;
 * names: how many of the pending namings happened. */
void disk_write_state(const struct disk *disk, uint32_t names, struct random *random,
                      const char *directory);

#endif
