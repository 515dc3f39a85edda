/* headers: the message's headers match the binding's arguments (7.13).
 *
 * When a binding is made its arguments become a matcher: mode and the entries that count. When a
 * message comes its headers are put in order of name once, and every matcher looks its entries up
 * there by halving: bindings x entries x log(headers), whatever a publisher puts into a table. Each
 * entry is a step, and so are the octets that are compared, and what it takes to put the headers in
 * order. */
#include "amqp/properties.h"
#include "amqp/table.h"
#include "base/alloc.h"
#include "core/argument.h"
#include "core/exchange.h"
#include "core/vhost.h"

struct header {
    struct slice name; /* inside the message, or the binding's arguments */
    struct amqp_value value;
};

struct matcher { /* binding->of_type */
    bool any;    /* one entry is enough; else all must match */
    size_t count;
    size_t
        size; /* of all this, which totals.octets counts: an entry is ten times what it was sent as */
    struct header entries[];
};

struct headers { /* exchange->of_type: those of the message being routed, in order of name */
    struct header *items;
    size_t count, capacity;
};

/* ---- bindings ---- */

struct mode {
    const char *name;
    bool any, with_x;
};

static const struct mode modes[] = {
    {"all", false, false},
    {"any", true, false},
    {"all-with-x", false, true},
    {"any-with-x", true, true},
};

static const struct mode *find_mode(struct slice name)
{
    for (size_t i = 0; i < countof(modes); i++)
        if (slice_equal(name, slice_of_string(modes[i].name)))
            return &modes[i];
    return NULL;
}

static bool headers_check_binding(const struct exchange *exchange, const struct queue *queue,
                                  struct slice key, struct slice arguments,
                                  struct amqp_error *error)
{
    struct argument_text text;
    struct amqp_value value;
    (void)exchange, (void)queue, (void)key;

    if (!amqp_table_find(arguments, SLICE("x-match"), &value))
        return true;
    if (value.type != AMQP_STRING)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "Invalid x-match field type %s (value %s); expected longstr",
                         argument_type_name(&value), argument_print(&value, &text));
    if (find_mode(value.bytes) == NULL)
        return amqp_fail(error, AMQP_PRECONDITION_FAILED,
                         "Invalid x-match field value <<\"%.*s\">>; "
                         "expected all, any, all-with-x, or any-with-x",
                         SLICE_ARG(value.bytes));
    return true;
}

/* What the binding says; all when it says nothing. */
static const struct mode *mode_of(struct slice arguments)
{
    struct amqp_value value;
    const struct mode *mode = NULL;

    if (amqp_table_find(arguments, SLICE("x-match"), &value) && value.type == AMQP_STRING)
        mode = find_mode(value.bytes);
    return mode != NULL ? mode : &modes[0];
}

static bool entry_counts(struct slice name, const struct mode *mode)
{
    if (slice_equal(name, SLICE("x-match")))
        return false;
    return mode->with_x || !slice_starts_with(name, SLICE("x-"));
}

static size_t count_entries(struct slice table)
{
    struct amqp_table_iter iter = amqp_table_walk(table);
    struct header header;
    size_t count = 0;

    while (amqp_table_next(&iter, &header.name, &header.value))
        count++;
    return count;
}

static void headers_add(struct exchange *exchange, struct binding *binding)
{
    const struct mode *mode = mode_of(binding->arguments);
    const size_t most = count_entries(binding->arguments);
    const size_t size = sizeof(struct matcher) + size_mul(most, sizeof(struct header));
    struct matcher *matcher = xmalloc(size);
    struct amqp_table_iter iter = amqp_table_walk(binding->arguments);
    struct header header;

    matcher->any = mode->any;
    matcher->count = 0;
    matcher->size = size;
    exchange->vhost->broker->totals.octets += size;
    while (amqp_table_next(&iter, &header.name, &header.value))
        if (entry_counts(header.name, mode))
            matcher->entries[matcher->count++] = header;
    binding->of_type = matcher;
}

static void headers_remove(struct exchange *exchange, struct binding *binding)
{
    struct matcher *matcher = binding->of_type;

    exchange->vhost->broker->totals.octets -= matcher->size;
    binding->of_type = NULL;
    free(matcher);
}

/* ---- messages ---- */

/* By name; of equal names the one that came first (2.9). */
static int compare_headers(const void *a, const void *b)
{
    const struct header *left = a, *right = b;
    const int order = slice_compare(left->name, right->name);

    return order != 0 ? order
                      : (left->name.data > right->name.data) - (left->name.data < right->name.data);
}

static void read_headers(struct headers *headers, struct slice properties)
{
    struct amqp_properties decoded;
    struct header header;

    headers->count = 0;
    if (!amqp_properties_decode(properties, &decoded))
        return;
    struct amqp_table_iter iter = amqp_table_walk(decoded.headers);
    while (amqp_table_next(&iter, &header.name, &header.value)) {
        if (headers->count == headers->capacity) {
            headers->capacity = max_of(16, 2 * headers->capacity);
            headers->items = xrealloc(headers->items, headers->capacity, sizeof(header));
        }
        headers->items[headers->count++] = header;
    }
    if (headers->count > 1)
        qsort(headers->items, headers->count, sizeof(header), compare_headers);
}

/* The first of that name, or NULL. */
static const struct header *find_header(const struct headers *headers, struct slice name)
{
    size_t low = 0, high = headers->count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (slice_compare(headers->items[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < headers->count && slice_equal(headers->items[low].name, name)
               ? &headers->items[low]
               : NULL;
}

/* A void value asks for presence alone. */
static bool entry_matches(const struct header *entry, const struct headers *headers)
{
    const struct header *header = find_header(headers, entry->name);

    return header != NULL &&
           (entry->value.type == AMQP_VOID || amqp_value_equal(&entry->value, &header->value));
}

static size_t steps_of(const struct amqp_value *value)
{
    struct slice string;
    size_t size = 0;

    if (amqp_value_string(value, &string))
        size = string.size;
    else if (value->type == AMQP_TABLE || value->type == AMQP_ARRAY)
        size = value->bytes.size;
    return 1 + size / (4 * ROUTE_STEP_OCTETS);
}

/* Without entries: all matches, any does not. *steps grows by what was looked at. */
static bool matcher_matches(const struct matcher *matcher, const struct headers *headers,
                            size_t *steps)
{
    for (size_t i = 0; i < matcher->count; i++) {
        *steps += steps_of(&matcher->entries[i].value);
        if (entry_matches(&matcher->entries[i], headers) == matcher->any)
            return matcher->any;
    }
    return !matcher->any;
}

/* Of halving so many, to find one of them. */
static size_t halvings(size_t count)
{
    size_t steps = 0;

    for (; count > 1; count /= 2)
        steps++;
    return steps;
}

static void headers_route(struct exchange *exchange, const struct routing *routing,
                          struct route *route)
{
    const struct binding *binding;
    size_t steps = 0;

    if (exchange->of_type == NULL)
        exchange->of_type = xcalloc(1, sizeof(struct headers));
    struct headers *headers = exchange->of_type;
    read_headers(headers, routing->properties);
    if (!route_spend(route, headers->count * halvings(headers->count)))
        return;
    const size_t budget = route_budget(route);
    TAILQ_FOREACH (binding, &exchange->bindings, by_source) {
        if (matcher_matches(binding->of_type, headers, &steps))
            route_add(route, binding);
        if (++steps > budget)
            break;
    }
    route_spend(route, steps);
}

static void headers_release(struct exchange *exchange)
{
    struct headers *headers = exchange->of_type;

    if (headers != NULL)
        free(headers->items);
    free(headers);
    exchange->of_type = NULL;
}

const struct exchange_type exchange_type_headers = {
    .name = "headers",
    .check_binding = headers_check_binding,
    .add = headers_add,
    .remove = headers_remove,
    .route = headers_route,
    .release = headers_release,
};
