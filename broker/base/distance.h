/* How far a word is from another, for who has misspelled one. */
#ifndef BASE_DISTANCE_H
#define BASE_DISTANCE_H

#include "base/base.h"

enum { DISTANCE_WORD_SIZE = 128 }; /* with its NUL */

/* Insertions, deletions and replacements from a to b, both shorter than DISTANCE_WORD_SIZE. */
size_t edit_distance(const char *a, const char *b);

/* Words at this distance from the word or beyond are others, and nearer ones it may be misspelled
 * for. */
static inline size_t distance_of_others(const char *word)
{
    return max_of(strlen(word) / 4, (size_t)2) + 1;
}

#endif
