/* One row of the table of distances at a time, as all know it. */
#include "base/distance.h"

size_t edit_distance(const char *a, const char *b)
{
    size_t row[DISTANCE_WORD_SIZE];
    const size_t b_length = strlen(b);
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_length; j++) {
            const size_t replaced = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = min_of(replaced, 1 + min_of(row[j], row[j + 1]));
        }
    }
    return row[b_length];
}
