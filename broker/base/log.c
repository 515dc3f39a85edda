/* From an event to a line, without a lock and with no memory but the stack:
 *
 *     log_write -- may this site still write in this second? -- no: count it, done
 *        |
 *     format the text (4 KiB) -> escape it behind time and level (4 KiB) -> one write(2)
 *
 * A line is at most LINE_SIZE bytes with its newline, PIPE_BUF on Linux, so lines of several
 * threads or processes that share a pipe never mix. What does not fit is cut and ends in "...".
 * errno is the caller's before and after. A line that cannot be written is lost: there is nowhere
 * to say so. */
#include "base/log.h"

#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LINE_SIZE = 4096, TAIL_SIZE = 4 /* of "...\n" */ };

_Atomic int log_level = LOG_INFO;

static _Atomic int log_fd = STDERR_FILENO;
static bool in_journal;

static const char *const level_names[] = {"debug", "info",     "notice", "warning",
                                          "error", "critical", "none"};
_Static_assert(countof(level_names) == LOG_NONE + 1, "a name per level");

/* As sd-daemon(3) has them. */
static const char *const priorities[] = {"<7>", "<6>", "<5>", "<4>", "<3>", "<2>"};
_Static_assert(countof(priorities) == LOG_NONE, "a priority per level that is written");

struct line {
    size_t size;
    char bytes[LINE_SIZE];
};

bool log_level_parse(const char *name, enum log_level *level)
{
    for (size_t i = 0; i < countof(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

void log_to(int fd)
{
    atomic_store(&log_fd, fd);
}

void log_look_for_journal(const char *stream)
{
    struct stat status;
    uintmax_t device, inode;

    in_journal = stream != NULL && sscanf(stream, "%ju:%ju", &device, &inode) == 2 &&
                 fstat(atomic_load(&log_fd), &status) == 0 && status.st_dev == device &&
                 status.st_ino == inode;
}

const char *log_priority(enum log_level level)
{
    return in_journal ? priorities[level] : "";
}

/* The size of the character at bytes, which a NUL ends, or 0 when it must be escaped: a control
 * character (those of U+0080 to U+009F included), or not the start of well-formed UTF-8. */
static size_t printable_size(const uint8_t *bytes)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t first = bytes[0];
    if (first < 0x80)
        return first >= 0x20 && first != 0x7f;

    const size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    uint32_t character = first & (0x7f >> size);
    for (size_t i = 1; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (bytes[i] & 0x3f);
    }
    const bool surrogate = character >= 0xd800 && character <= 0xdfff;
    const bool control = character < 0xa0;
    return character < smallest[size] || character > 0x10ffff || surrogate || control ? 0 : size;
}

static bool line_append(struct line *line, const void *bytes, size_t size)
{
    if (size > LINE_SIZE - TAIL_SIZE - line->size)
        return false;
    memcpy(line->bytes + line->size, bytes, size);
    line->size += size;
    return true;
}

static bool line_append_escaped(struct line *line, uint8_t byte)
{
    static const char digits[] = "0123456789abcdef";
    const char escaped[4] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    return line_append(line, escaped, sizeof escaped);
}

static void line_append_text(struct line *line, const char *text)
{
    bool fits = true;
    for (const uint8_t *next = (const uint8_t *)text; *next != '\0' && fits;) {
        const size_t size = printable_size(next);
        fits = size > 0 ? line_append(line, next, size) : line_append_escaped(line, *next);
        next += max_of(size, 1);
    }
    if (!fits) {
        memcpy(line->bytes + line->size, "...", 3);
        line->size += 3;
    }
}

static void line_begin(struct line *line, const struct timespec *now, enum log_level level)
{
    struct tm utc;
    char date[32];
    gmtime_r(&now->tv_sec, &utc);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &utc);
    line->size =
        (size_t)snprintf(line->bytes, sizeof line->bytes, "%s%s.%06ld+00:00 [%s] ",
                         log_priority(level), date, now->tv_nsec / 1000, level_names[level]);
}

static void line_write(struct line *line)
{
    line->bytes[line->size++] = '\n';
    const int fd = atomic_load_explicit(&log_fd, memory_order_relaxed);
    while (write(fd, line->bytes, line->size) < 0 && errno == EINTR)
        ;
}

/* Whether this line may still be written. The first of a new second takes over the count of those
 * swallowed before. Two threads that meet at the turn of a second may misplace a line or two
 * between the counts; none is lost from both. */
static bool site_may_write(struct log_site *site, uint64_t second, uint32_t *swallowed)
{
    uint64_t last = atomic_load_explicit(&site->second, memory_order_relaxed);
    if (last != second && atomic_compare_exchange_strong(&site->second, &last, second)) {
        atomic_store(&site->count, 0);
        *swallowed = atomic_exchange(&site->muted, 0);
    }
    if (atomic_fetch_add(&site->count, 1) < LOG_BURST)
        return true;
    atomic_fetch_add(&site->muted, 1);
    return false;
}

void log_write(struct log_site *site, enum log_level level, const char *format, ...)
{
    const int error = errno;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);

    uint32_t swallowed = 0;
    if (!site_may_write(site, (uint64_t)now.tv_sec, &swallowed))
        return;

    struct line line;
    char text[LINE_SIZE]; /* when it is too small for the text, so is the line, and says so */
    if (swallowed > 0) {
        snprintf(text, sizeof text, "%" PRIu32 " lines like the next one were left out", swallowed);
        line_begin(&line, &now, level);
        line_append_text(&line, text);
        line_write(&line);
    }

    errno = error;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    line_begin(&line, &now, level);
    line_append_text(&line, text);
    line_write(&line);
    errno = error;
}
