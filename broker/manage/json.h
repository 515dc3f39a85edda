/* From AMQP's values to JSON's, and back. Names and strings of AMQP are bytes, those of JSON are
 * UTF-8: what is not UTF-8 appears as \xNN, as in the log, so that whatever a client puts into a
 * name, the answer is valid JSON. */
#ifndef MANAGE_JSON_H
#define MANAGE_JSON_H

#include <jansson.h>

#include "base/buf.h"

json_t *json_from_slice(struct slice bytes);

/* Of a checked field table: an object. Timestamps become seconds since 1970, decimals and floats
 * numbers, what is no number in JSON (NaN, infinity) null. */
json_t *json_from_table(struct slice table);

/* Appends a JSON object as a field table: integers of 64 bits, reals as doubles, null as void.
 * False, with some of it appended, when it is deeper than a table may be or a key longer. */
bool json_to_table(json_t *object, struct buf *out);

/* The bytes of a string, which it keeps. */
struct slice json_to_slice(const json_t *string);

/* Takes over value. */
void json_put(json_t *object, const char *key, json_t *value);
void json_put_string(json_t *object, const char *key, const char *value); /* UTF-8 of our own */
void json_put_slice(json_t *object, const char *key, struct slice value);
void json_put_bool(json_t *object, const char *key, bool value);
void json_put_number(json_t *object, const char *key, uint64_t value);

#endif
