/* A pattern and a name, the first part and the rest: compiled or refused, matched or too costly,
 * always soon. */
#include "access/pattern.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = slice_of(data, size), text;
    char error[PATTERN_ERROR_SIZE] = "";

    if (!fuzz_part(&input, &text))
        return 0;
    struct pattern *pattern = pattern_new(text, error);
    if (pattern == NULL) {
        must(error[0] != '\0');
        return 0;
    }
    pattern_match(pattern, slice_of(input.data, min_of(input.size, (size_t)255)));
    pattern_free(&pattern);
    return 0;
}
