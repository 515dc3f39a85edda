/* x-consistent-hash: one binding by the hash of the routing key, of a header or of a property, each
 * as often as its weight, the binding key, says (7.17).
 *
 * Every binding draws a number from the hash of the message and of its own destination, and the
 * best draw wins (rendezvous hashing): when a binding comes or goes only the messages that it
 * wins or loses change their way, a restart changes nothing, and a weight, which is anyone's
 * number, costs no memory. u being the draw, evenly between 0 and 1, the best is the least
 * -ln(u) / weight; where all weights are equal, as most often, that is the greatest u, and no
 * logarithm is needed. Elsewhere few are: -ln(u) is at least 1 - u, which rules most draws out.
 *
 * All bindings draw for each message, a step each, some nanoseconds. A ring of points would find
 * its place in fewer, but needs so many points for each unit of weight, in memory and to share
 * evenly, and weights are anyone's. */
#include <math.h>

#include "amqp/properties.h"
#include "amqp/table.h"
#include "base/alloc.h"
#include "core/argument.h"
#include "core/exchange.h"
#include "core/queue.h"

enum { WEIGHT_MAX = 1000000 };

struct candidate {
    uint64_t seed;
    double weight;
    struct binding *binding; /* whose of_type is the candidate's index */
};

struct candidates { /* exchange->of_type */
    struct candidate *items;
    size_t count, capacity;
    bool weights_differ; /* or did before */
    /* the one that counts, inside the exchange's arguments; data is NULL for none */
    struct slice header;
    enum amqp_property property; /* likewise; 0: none */
};

/* ---- arguments ---- */

static const struct {
    const char *name;
    enum amqp_property property;
} properties[] = {
    {"correlation_id", AMQP_PROPERTY_CORRELATION_ID},
    {"message_id", AMQP_PROPERTY_MESSAGE_ID},
    {"timestamp", AMQP_PROPERTY_TIMESTAMP},
};

/* 0: messages cannot be told apart by it. */
static enum amqp_property find_property(struct slice name)
{
    for (size_t i = 0; i < countof(properties); i++)
        if (slice_equal(name, slice_of_string(properties[i].name)))
            return properties[i].property;
    return 0;
}

/* A string among the arguments; data is NULL when it is absent or something else. */
static struct slice find_string(struct slice arguments, struct slice name)
{
    struct amqp_value value;

    if (amqp_table_find(arguments, name, &value) && value.type == AMQP_STRING)
        return value.bytes;
    return (struct slice){0};
}

static bool check_string(struct slice arguments, struct slice name, struct amqp_error *error)
{
    struct amqp_value value;

    return !amqp_table_find(arguments, name, &value) || value.type == AMQP_STRING ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED, "invalid type '%s' for arg '%.*s'",
                     argument_type_name(&value), SLICE_ARG(name));
}

static bool consistent_hash_check_arguments(struct slice arguments, struct amqp_error *error)
{
    if (!check_string(arguments, SLICE("hash-header"), error) ||
        !check_string(arguments, SLICE("hash-property"), error))
        return false;
    const struct slice property = find_string(arguments, SLICE("hash-property"));
    if (property.data == NULL)
        return true;
    if (find_string(arguments, SLICE("hash-header")).data != NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "hash-header and hash-property are mutually exclusive");
    return find_property(property) != 0 ||
           amqp_fail(error, AMQP_PRECONDITION_FAILED, "Unsupported property: %.*s",
                     SLICE_ARG(property));
}

/* ---- weights ---- */

/* The digits of a decimal integer without its sign; data is NULL when it is none. */
static struct slice digits_of(struct slice key)
{
    const bool has_sign = key.size > 0 && (key.data[0] == '+' || key.data[0] == '-');
    const struct slice digits = slice_of(key.data + has_sign, key.size - has_sign);

    for (size_t i = 0; i < digits.size; i++)
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return (struct slice){0};
    return digits.size > 0 ? digits : (struct slice){0};
}

static bool consistent_hash_check_binding(const struct exchange *exchange,
                                          const struct queue *queue, struct slice key,
                                          struct slice arguments, struct amqp_error *error)
{
    const struct slice digits = digits_of(key);
    uint64_t weight;
    (void)exchange, (void)queue, (void)arguments;

    if (digits.data == NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         key.size == 0 ? "The binding key must be an integer: <<%.*s>>"
                                       : "The binding key must be an integer: <<\"%.*s\">>",
                         SLICE_ARG(key));
    const bool fits = slice_to_u64(digits, WEIGHT_MAX, &weight);
    if (key.data[0] == '-' || (fits && weight == 0))
        return amqp_fail(error, AMQP_PRECONDITION_FAILED, "The binding key must be greater than 0");
    return fits || amqp_fail(error, AMQP_PRECONDITION_FAILED, "The binding key must be at most %d",
                             WEIGHT_MAX);
}

static double weight_of(const struct binding *binding)
{
    uint64_t weight;

    return slice_to_u64(digits_of(binding->key), WEIGHT_MAX, &weight) && weight > 0 ? (double)weight
                                                                                    : 1;
}

/* ---- bindings ---- */

static struct slice destination_of(const struct binding *binding)
{
    return binding->queue != NULL ? binding->queue->name : binding->exchange->name;
}

static struct candidates *candidates_new(const struct exchange *exchange)
{
    struct candidates *candidates = xcalloc(1, sizeof(*candidates));

    candidates->header = find_string(exchange->arguments, SLICE("hash-header"));
    candidates->property = find_property(find_string(exchange->arguments, SLICE("hash-property")));
    return candidates;
}

static void consistent_hash_add(struct exchange *exchange, struct binding *binding)
{
    if (exchange->of_type == NULL)
        exchange->of_type = candidates_new(exchange);
    struct candidates *candidates = exchange->of_type;

    if (candidates->count == candidates->capacity) {
        candidates->capacity = max_of(8, 2 * candidates->capacity);
        candidates->items =
            xrealloc(candidates->items, candidates->capacity, sizeof(*candidates->items));
    }
    const struct candidate candidate = {
        slice_hash_stable(destination_of(binding)) + (binding->queue == NULL),
        weight_of(binding),
        binding,
    };
    candidates->weights_differ =
        candidates->count > 0 &&
        (candidates->weights_differ || candidates->items[0].weight != candidate.weight);
    binding->of_type = (void *)candidates->count;
    candidates->items[candidates->count++] = candidate;
}

static void consistent_hash_remove(struct exchange *exchange, struct binding *binding)
{
    struct candidates *candidates = exchange->of_type;
    const size_t index = (size_t)binding->of_type;

    assert(index < candidates->count && candidates->items[index].binding == binding);
    candidates->items[index] = candidates->items[--candidates->count];
    if (index < candidates->count)
        candidates->items[index].binding->of_type = (void *)index;
}

/* ---- messages ---- */

/* Strings, tables and arrays by their octets, whole numbers by value, what is left by its type
 * alone. */
static uint64_t hash_of_value(const struct amqp_value *value)
{
    struct slice string;
    int64_t integer;

    if (amqp_value_string(value, &string))
        return slice_hash_stable(string);
    if (value->type == AMQP_TABLE || value->type == AMQP_ARRAY)
        return slice_hash_stable(value->bytes);
    if (value->type == AMQP_TIMESTAMP)
        integer = (int64_t)value->timestamp_s;
    else if (!amqp_value_integer(value, &integer))
        integer = value->type;
    return slice_hash_stable(slice_of(&integer, sizeof(integer)));
}

/* What is absent hashes like what is empty: such messages keep together. */
static uint64_t hash_of_message(const struct candidates *candidates, const struct routing *routing)
{
    struct amqp_value value;

    if (candidates->property != 0)
        return slice_hash_stable(amqp_properties_find(routing->properties, candidates->property));
    if (candidates->header.data == NULL)
        return slice_hash_stable(routing->keys[0]);
    const struct slice headers = amqp_properties_find(routing->properties, AMQP_PROPERTY_HEADERS);
    return amqp_table_find(headers, candidates->header, &value) ? hash_of_value(&value)
                                                                : slice_hash_stable(SLICE(""));
}

/* splitmix64 of both. */
static uint64_t draw(uint64_t hash, uint64_t seed)
{
    uint64_t z = hash + seed * 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static const struct candidate *pick_by_draw(const struct candidates *candidates, uint64_t hash)
{
    const struct candidate *best = NULL;
    uint64_t best_draw = 0;

    for (const struct candidate *next = candidates->items;
         next < candidates->items + candidates->count; next++) {
        const uint64_t drawn = draw(hash, next->seed);
        if (best == NULL || drawn > best_draw) {
            best = next;
            best_draw = drawn;
        }
    }
    return best;
}

static const struct candidate *pick_by_weight(const struct candidates *candidates, uint64_t hash)
{
    const struct candidate *best = NULL;
    double best_score = 0;

    for (const struct candidate *next = candidates->items;
         next < candidates->items + candidates->count; next++) {
        const double u = ((double)(draw(hash, next->seed) >> 11) + 0.5) * 0x1p-53;
        if (best != NULL && 1 - u >= best_score * next->weight)
            continue;
        const double score = -log(u) / next->weight;
        if (best == NULL || score < best_score) {
            best = next;
            best_score = score;
        }
    }
    return best;
}

static void consistent_hash_route(struct exchange *exchange, const struct routing *routing,
                                  struct route *route)
{
    const struct candidates *candidates = exchange->of_type;

    if (candidates == NULL || candidates->count == 0 || !route_spend(route, candidates->count))
        return;
    const uint64_t hash = hash_of_message(candidates, routing);
    const struct candidate *best = candidates->weights_differ ? pick_by_weight(candidates, hash)
                                                              : pick_by_draw(candidates, hash);
    route_add(route, best->binding);
}

static void consistent_hash_release(struct exchange *exchange)
{
    struct candidates *candidates = exchange->of_type;

    exchange->of_type = NULL;
    if (candidates != NULL)
        free(candidates->items);
    free(candidates);
}

const struct exchange_type exchange_type_consistent_hash = {
    .name = "x-consistent-hash",
    .check_arguments = consistent_hash_check_arguments,
    .check_binding = consistent_hash_check_binding,
    .add = consistent_hash_add,
    .remove = consistent_hash_remove,
    .route = consistent_hash_route,
    .release = consistent_hash_release,
};
