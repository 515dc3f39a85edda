/* PCRE2, its interpreter. Each pattern has its own room for a match, made when the pattern is, so
 * that matching one name after another does not allocate. Compiling is bounded by the library: the
 * compiled form of a pattern has at most 64 KiB, nested repeats included. */
#include "access/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/alloc.h"

enum { DEPTH_MAX = 1000, HEAP_MAX_KIB = 1024 };

struct pattern {
    pcre2_code *code;
    pcre2_match_context *limits;
    pcre2_match_data *match;
};

static void *allocate(size_t size, void *context)
{
    (void)context;
    return xmalloc(size);
}

static void release(void *memory, void *context)
{
    (void)context;
    free(memory);
}

struct pattern *pattern_new(struct slice text, char error[PATTERN_ERROR_SIZE])
{
    if (text.size > PATTERN_SIZE_MAX) {
        snprintf(error, PATTERN_ERROR_SIZE, "it has %zu octets, and may have %d", text.size,
                 PATTERN_SIZE_MAX);
        return NULL;
    }
    pcre2_general_context *memory = pcre2_general_context_create(allocate, release, NULL);
    pcre2_compile_context *options = pcre2_compile_context_create(memory);
    struct pattern *pattern = xcalloc(1, sizeof(*pattern));
    int code;
    size_t at;

    pattern->code = pcre2_compile(text.size == 0 ? (PCRE2_SPTR) "" : text.data, text.size,
                                  PCRE2_NEVER_UTF | PCRE2_NEVER_UCP, &code, &at, options);
    if (pattern->code != NULL) {
        pattern->limits = pcre2_match_context_create(memory);
        pcre2_set_match_limit(pattern->limits, PATTERN_STEPS_MAX);
        pcre2_set_depth_limit(pattern->limits, DEPTH_MAX);
        pcre2_set_heap_limit(pattern->limits, HEAP_MAX_KIB);
        pattern->match = pcre2_match_data_create(1, memory);
    } else {
        char reason[PATTERN_ERROR_SIZE - 32];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof(reason));
        snprintf(error, PATTERN_ERROR_SIZE, "%s at offset %zu", reason, at);
        pattern_free(&pattern);
    }
    pcre2_compile_context_free(options);
    pcre2_general_context_free(memory);
    return pattern;
}

void pattern_free(struct pattern **pattern)
{
    struct pattern *gone = *pattern;

    *pattern = NULL;
    pcre2_match_data_free(gone->match);
    pcre2_match_context_free(gone->limits);
    pcre2_code_free(gone->code);
    free(gone);
}

/* Whatever else may go wrong in a match of octets is one of its limits. */
enum pattern_result pattern_match(const struct pattern *pattern, struct slice name)
{
    const int result = pcre2_match(pattern->code, name.size == 0 ? (PCRE2_SPTR) "" : name.data,
                                   name.size, 0, 0, pattern->match, pattern->limits);

    if (result == PCRE2_ERROR_NOMATCH)
        return PATTERN_DIFFERS;
    return result >= 0 ? PATTERN_MATCHES : PATTERN_TOO_COSTLY;
}
