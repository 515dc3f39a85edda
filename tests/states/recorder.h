/* What the store says to the kernel about its files, in order: a log to crash in afterwards.
 *
 * The C library's write, pwrite, writev, ftruncate, fdatasync, fsync, renameat and unlinkat are
 * defined here, in front of it, so that liblmdb's calls are seen as well. Between recorder_begin
 * and recorder_end the calls about files below one directory are logged with their bytes; others,
 * and all at other times, only pass. LMDB's lock file is not part of it: it is written through a
 * map, and nothing in it survives a restart by design.
 *
 * The owner of the store adds marks of its own: what it handed over and what it was told.
 *
 * A write is logged before it is made, a sync and the end of a write through O_DSYNC when it has
 * been: a crash between the two finds it under way. Any thread may call. */
#ifndef TESTS_STATES_RECORDER_H
#define TESTS_STATES_RECORDER_H

#include "store/array.h"

enum call_kind {
    CALL_CREATE,     /* file appears under name */
    CALL_WRITE,      /* bytes at offset of file */
    CALL_THROUGH,    /* the write logged at index offset is durable */
    CALL_TRUNCATE,   /* file has offset bytes */
    CALL_SYNC,       /* what was written to file is durable */
    CALL_RENAME,     /* file, called name, is called to */
    CALL_UNLINK,     /* name is gone */
    CALL_SYNC_NAMES, /* what was created, renamed and unlinked is durable */
    CALL_SUBMITTED,  /* mark: the store was given the LSN in offset */
    CALL_DURABLE,    /* mark: the store said that the LSN in offset is durable */
};

enum { CALL_NAME_SIZE = 40 };

struct call {
    enum call_kind kind;
    uint32_t file; /* numbered in order of appearance */
    uint64_t offset;
    uint8_t *bytes;
    size_t size;
    char name[CALL_NAME_SIZE], to[CALL_NAME_SIZE]; /* below the directory */
};

struct call_log {
    ARRAY_OF(struct call) calls;
};

/* What the directory holds already is logged as created, written and synced. */
void recorder_begin(const char *directory, struct call_log *log);
void recorder_end(void);
void recorder_mark(enum call_kind kind, uint64_t lsn);

void call_log_release(struct call_log *log);

#endif
