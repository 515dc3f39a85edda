/* The log: one event, one line, to stderr unless configured otherwise.
 *
 *     2026-01-02 10:44:33.654321+00:00 [info] accepting AMQP connection 127.0.0.1:52771 -> 127.0.0.1:5672
 *
 * Whatever bytes an argument holds, the line stays one line: control characters and bytes that are
 * not UTF-8 are written as \xNN. A call site that is reached more than LOG_BURST times in a second
 * is muted until the second is over, then says how many lines it swallowed: no peer can fill the
 * disk. Any thread may log.
 *
 * Where stderr is systemd's journal, each line begins with its priority, "<6>", which the journal
 * takes off: `journalctl -p warning` finds warnings. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>

#include "base/base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_NOTICE, LOG_WARNING, LOG_ERROR, LOG_CRITICAL, LOG_NONE };

enum { LOG_BURST = 50 };

struct log_site { /* one per call, in static storage */
    _Atomic uint64_t second;
    _Atomic uint32_t count, muted;
};

extern _Atomic int log_level; /* lines below it are not written; LOG_INFO at first */

bool log_level_parse(const char *name, enum log_level *level);
const char *log_level_name(enum log_level level);

/* Appends to the file descriptor given, which stays the caller's; 2 at first. */
void log_to(int fd);

/* Whether the log's descriptor is the journal, by its device and inode as systemd puts them into
 * JOURNAL_STREAM ("8:1234"; NULL: there is none). To be called before the first thread. */
void log_look_for_journal(const char *stream);

/* What a line of this level begins with: "<6>" and the like in the journal, else "". */
const char *log_priority(enum log_level level);

void log_write(struct log_site *site, enum log_level level, const char *format, ...)
    printf_like(3, 4);

#define log_at(level, ...)                                                                         \
    do {                                                                                           \
        static struct log_site log_site_;                                                          \
        if ((int)(level) >= atomic_load_explicit(&log_level, memory_order_relaxed))                \
            log_write(&log_site_, (level), __VA_ARGS__);                                           \
    } while (0)

#define log_debug(...)    log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)     log_at(LOG_INFO, __VA_ARGS__)
#define log_notice(...)   log_at(LOG_NOTICE, __VA_ARGS__)
#define log_warning(...)  log_at(LOG_WARNING, __VA_ARGS__)
#define log_error(...)    log_at(LOG_ERROR, __VA_ARGS__)
#define log_critical(...) log_at(LOG_CRITICAL, __VA_ARGS__)

#endif
