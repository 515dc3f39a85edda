/* The headers of a dead letter, beside those that the message had (13.4, 13.5):
 *
 *     x-death                        array, newest first: a table per (queue, reason) with count, exchange, routing-keys, time ...
 *     x-first-death-queue, -reason, -exchange    set once
 *     x-last-death-queue, -reason, -exchange     set each time
 *
 * An x-death that a client sent is a header like others and no history (13.6): only messages marked
 * as dead letters have one. A dead letter has lost its expiration property. */
#include "core/dead_letter.h"

#include "amqp/properties.h"
#include "amqp/table.h"
#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/outbox.h"
#include "core/queue_store.h"
#include "core/vhost.h"

void dead_letters_init(struct broker *broker)
{
    struct dead_letters *letters = &broker->dead_letters;

    TAILQ_INIT(&letters->owing);
    parking_init(&letters->relief, 0);
    route_init(&letters->route, broker);
}

void dead_letters_end(struct broker *broker)
{
    struct dead_letters *letters = &broker->dead_letters;

    dead_letters_run_taken(broker);
    while (!TAILQ_EMPTY(&letters->owing))
        outbox_abandon(TAILQ_FIRST(&letters->owing));
    assert(letters->owed_count == 0 && letters->owed_bytes == 0);
    free(letters->taken);
    route_release(&letters->route);
}

/* ---- the turn's budget ---- */

/* Transactions have their own. */
static size_t *spent_in_turn(struct broker *broker)
{
    struct dead_letters *letters = &broker->dead_letters;

    if (letters->spent_turn != broker->loop->turns)
        letters->spent = letters->spent_on_taken = 0;
    letters->spent_turn = broker->loop->turns;
    return broker->in_transaction ? &letters->spent_on_taken : &letters->spent;
}

bool dead_letters_may_spend(struct broker *broker, size_t kept)
{
    return *spent_in_turn(broker) < TURN_STEPS_MAX - kept;
}

static void spend(struct broker *broker, size_t steps)
{
    *spent_in_turn(broker) += steps;
}

/* One letter has been made, and routed. */
static void spend_on(struct broker *broker, const struct message *made)
{
    const struct route *route = &broker->dead_letters.route;

    spend(broker, LETTER_STEPS + message_size(made) / ROUTE_STEP_OCTETS + route_spent(route) +
                      route->count * ROUTE_QUEUE_STEPS);
}

/* ---- history ---- */

static struct slice reason_of(enum death death)
{
    switch (death) {
    case DEATH_REJECTED:
        return SLICE("rejected");
    case DEATH_EXPIRED:
        return SLICE("expired");
    case DEATH_MAXLEN:
        return SLICE("maxlen");
    case DEATH_DELIVERY_LIMIT:
        return SLICE("delivery_limit");
    }
    __builtin_unreachable();
}

struct past { /* one entry of x-death */
    struct slice queue, reason;
    int64_t count;
};

static bool read_past(const struct amqp_value *entry, struct past *past)
{
    struct amqp_value value;

    if (entry->type != AMQP_TABLE)
        return false;
    *past = (struct past){0};
    if (amqp_table_find(entry->bytes, SLICE("queue"), &value))
        amqp_value_string(&value, &past->queue);
    if (amqp_table_find(entry->bytes, SLICE("reason"), &value))
        amqp_value_string(&value, &past->reason);
    if (amqp_table_find(entry->bytes, SLICE("count"), &value))
        amqp_value_integer(&value, &past->count);
    return true;
}

/* It died there of the same before. */
static bool is_same_death(const struct dead_letter *letter, const struct past *past)
{
    return slice_equal(past->queue, letter->queue->name) &&
           slice_equal(past->reason, reason_of(letter->death));
}

/* The x-death of a dead letter, empty for any other message. */
static struct amqp_table_iter history_of(const struct message *message, struct slice headers)
{
    struct amqp_value value = {.bytes = {0}};

    if (!message->is_dead_letter || !amqp_table_find(headers, SLICE("x-death"), &value) ||
        value.type != AMQP_ARRAY)
        value.bytes = (struct slice){0};
    return amqp_table_walk(value.bytes);
}

/* 13.7: a queue in which it was before is none of its targets, if since then nobody rejected it:
 * automatic deaths alone would go round for ever. So its history is looked at once, however long it
 * is and however many targets there are: those that carry the mark of the route are its targets, and
 * those of them where it was before lose it. */
static void strike(const struct dead_letter *letter, struct slice name, const struct route *route)
{
    struct map_link *link = map_find(&letter->queue->vhost->queues, name);

    if (link == NULL)
        return;
    struct queue *queue = container_of(link, struct queue, by_name);
    if (queue->route_mark == route->mark)
        queue->route_mark = 0;
}

static void strike_cycles(const struct dead_letter *letter, const struct route *route)
{
    const struct slice headers =
        amqp_properties_find(message_properties(letter->message), AMQP_PROPERTY_HEADERS);
    struct amqp_table_iter history = history_of(letter->message, headers);
    struct amqp_value entry;
    struct past past;

    if (letter->death == DEATH_REJECTED || route->count == 0)
        return;
    strike(letter, letter->queue->name, route);
    while (amqp_array_next(&history, &entry)) {
        if (!read_past(&entry, &past))
            continue;
        if (slice_equal(past.reason, SLICE("rejected")))
            return;
        strike(letter, past.queue, route);
    }
}

static bool is_cycle(const struct route *route, const struct queue *target)
{
    return target->route_mark != route->mark;
}

/* ---- headers ---- */

/* The keys of CC, not of BCC (13.4). */
static void put_cc(struct buf *out, struct slice headers)
{
    struct amqp_value cc, key;

    if (!amqp_table_find(headers, SLICE("CC"), &cc) || cc.type != AMQP_ARRAY)
        return;
    struct amqp_table_iter iter = amqp_table_walk(cc.bytes);
    while (amqp_array_next(&iter, &key))
        if (key.type == AMQP_STRING)
            amqp_array_put(out, &key);
}

/* The first of this queue and reason. */
static void put_death(struct buf *out, const struct dead_letter *letter,
                      const struct amqp_properties *properties, uint64_t now_s)
{
    const struct message *message = letter->message;
    size_t table = amqp_array_begin_table(out);

    amqp_table_put_i64(out, SLICE("count"), 1);
    amqp_table_put_string(out, SLICE("reason"), reason_of(letter->death));
    amqp_table_put_string(out, SLICE("queue"), letter->queue->name);
    amqp_table_put_timestamp(out, SLICE("time"), now_s);
    amqp_table_put_string(out, SLICE("exchange"), message_exchange(message));
    size_t keys = amqp_table_begin_array(out, SLICE("routing-keys"));
    amqp_array_put_string(out, message_routing_key(message));
    put_cc(out, properties->headers);
    amqp_table_end(out, keys);
    if (properties->flags & AMQP_PROPERTY_EXPIRATION)
        amqp_table_put_string(out, SLICE("original-expiration"), properties->expiration);
    amqp_table_end(out, table);
}

/* As it is, with another count: it tells of the first time. */
static void put_past(struct buf *out, const struct amqp_value *entry, int64_t count)
{
    struct amqp_table_iter iter = amqp_table_walk(entry->bytes);
    struct slice key;
    struct amqp_value value;
    size_t table = amqp_array_begin_table(out);

    amqp_table_put_i64(out, SLICE("count"), count);
    while (amqp_table_next(&iter, &key, &value))
        if (!slice_equal(key, SLICE("count")))
            amqp_table_put(out, key, &value);
    amqp_table_end(out, table);
}

/* The entry of this queue and reason moves to the front, one higher; the others follow as they
 * were. */
static void put_history(struct buf *out, const struct dead_letter *letter,
                        const struct amqp_properties *properties, uint64_t now_s)
{
    struct amqp_table_iter history = history_of(letter->message, properties->headers);
    const struct amqp_table_iter start = history;
    struct amqp_value entry;
    struct past past;
    bool again = false;

    size_t array = amqp_table_begin_array(out, SLICE("x-death"));
    while (!again && amqp_array_next(&history, &entry))
        again = read_past(&entry, &past) && is_same_death(letter, &past);
    if (again)
        put_past(out, &entry, past.count + 1);
    else
        put_death(out, letter, properties, now_s);
    history = start;
    while (amqp_array_next(&history, &entry))
        if (!read_past(&entry, &past) || !is_same_death(letter, &past))
            amqp_array_put(out, &entry);
    amqp_table_end(out, array);
}

/* Headers that are written anew, or that go (13.2: CC, when a dead-letter routing key takes its
 * place). */
static bool is_dropped(const struct dead_letter *letter, struct slice key)
{
    return slice_equal(key, SLICE("x-death")) || slice_starts_with(key, SLICE("x-last-death-")) ||
           (!letter->message->is_dead_letter && slice_starts_with(key, SLICE("x-first-death-"))) ||
           (letter->queue->settings.has_dead_letter_key && slice_equal(key, SLICE("CC")));
}

static void put_headers(struct buf *out, const struct dead_letter *letter,
                        const struct amqp_properties *properties, uint64_t now_s)
{
    struct amqp_table_iter iter = amqp_table_walk(properties->headers);
    struct slice reason = reason_of(letter->death);
    struct slice queue = letter->queue->name;
    struct slice exchange = message_exchange(letter->message);
    struct slice key;
    struct amqp_value value;

    while (amqp_table_next(&iter, &key, &value))
        if (!is_dropped(letter, key))
            amqp_table_put(out, key, &value);
    put_history(out, letter, properties, now_s);
    if (!letter->message->is_dead_letter) {
        amqp_table_put_string(out, SLICE("x-first-death-exchange"), exchange);
        amqp_table_put_string(out, SLICE("x-first-death-queue"), queue);
        amqp_table_put_string(out, SLICE("x-first-death-reason"), reason);
    }
    amqp_table_put_string(out, SLICE("x-last-death-exchange"), exchange);
    amqp_table_put_string(out, SLICE("x-last-death-queue"), queue);
    amqp_table_put_string(out, SLICE("x-last-death-reason"), reason);
}

/* The message as it is published anew. */
static struct message *make_letter(const struct dead_letter *letter, uint64_t now_s)
{
    const struct message *message = letter->message;
    const struct settings *settings = &letter->queue->settings;
    struct amqp_properties properties;
    struct buf unsorted = BUF_EMPTY, headers = BUF_EMPTY, bytes = BUF_EMPTY;

    amqp_properties_decode(message_properties(message), &properties);
    put_headers(&unsorted, letter, &properties, now_s);
    amqp_table_sort(&headers, buf_slice(&unsorted)); /* 2.9 */
    properties.headers = buf_slice(&headers);
    properties.flags |= AMQP_PROPERTY_HEADERS;
    properties.flags &= (uint16_t)~AMQP_PROPERTY_EXPIRATION;
    amqp_properties_encode(&bytes, &properties);

    struct message *made = message_forward(
        message, settings->dead_letter_exchange,
        settings->has_dead_letter_key ? settings->dead_letter_key : message_routing_key(message),
        buf_slice(&bytes), !settings->has_dead_letter_key); /* 13.2 */
    buf_release(&unsorted);
    buf_release(&headers);
    buf_release(&bytes);
    return made;
}

/* ---- routing ---- */

static void deliver_letter(const struct route *route, struct message *made)
{
    for (size_t i = 0; i < route->count; i++) {
        struct queue *target = route->queues[i];
        if (!is_cycle(route, target)) {
            queue_push(target, made);
            continue;
        }
        if (!target->cycle_logged)
            log_warning(
                "queue '%.*s' in vhost '%.*s': a dead letter came round to it and was dropped",
                SLICE_ARG(target->name), SLICE_ARG(target->vhost->name));
        target->cycle_logged = true;
    }
}

/* Where the letter goes; NULL: nowhere (13.3: it is dropped without a word), as when a policy that
 * named the exchange went meanwhile. */
static struct exchange *find_exchange(const struct dead_letter *letter)
{
    const struct queue *queue = letter->queue;

    if (unlikely(queue->delayed_by != NULL))
        return queue->deleted ? NULL : queue->delayed_by;
    if (!queue->settings.dead_letters)
        return NULL;
    struct map_link *link =
        map_find(&queue->vhost->exchanges, queue->settings.dead_letter_exchange);
    return link == NULL ? NULL : container_of(link, struct exchange, by_name);
}

static struct message *route_letter(struct broker *broker, const struct dead_letter *letter,
                                    struct exchange *exchange)
{
    struct route *route = &broker->dead_letters.route;
    struct message *made;

    if (unlikely(letter->queue->delayed_by != NULL)) {
        made = exchange_make_undelayed(letter->message);
        exchange_route_message(exchange, made, route);
        spend_on(broker, made);
        route_deliver(route, made);
    } else {
        made = make_letter(letter, broker->clock->wall_ms / 1000);
        exchange_route_message(exchange, made, route);
        spend_on(broker, made);
        if (unlikely(route->is_exhausted))
            log_error("a dead letter of queue '%.*s' in vhost '%.*s' is dropped: to route it takes "
                      "more than routing_steps_max",
                      SLICE_ARG(letter->queue->name), SLICE_ARG(letter->queue->vhost->name));
        strike_cycles(letter, route);
        deliver_letter(route, made);
    }
    return made;
}

/* Whoever waited for the message waits for it in its new places; if nothing of it is to be stored
 * there, no longer. made: NULL when there is no exchange. */
static void pass_publisher(struct broker *broker, const struct dead_letter *letter,
                           struct message *made)
{
    if (made == NULL || made->unsynced == 0 || !store_lsn_is_open(broker->store, made->lsn)) {
        late_confirm(broker, letter->publisher, letter->sequence);
        return;
    }
    publisher_ref(letter->publisher);
    made->publisher = letter->publisher;
    made->sequence = letter->sequence;
}

static void publish_letter(struct broker *broker, const struct dead_letter *letter)
{
    struct exchange *exchange = find_exchange(letter);

    broker->dead_letters.is_making = true;
    struct message *made = exchange == NULL ? NULL : route_letter(broker, letter, exchange);
    broker->dead_letters.is_making = false;
    if (letter->publisher != NULL)
        pass_publisher(broker, letter, made);
    if (made != NULL)
        message_unref(&made);
    else
        spend(broker, LETTER_STEPS);
}

/* The entry is gone; what the letter needs of it is kept. */
static struct dead_letter part_with(struct queue *queue, struct place place, enum death death)
{
    struct message *message = place_entry(place)->message;
    struct publisher *publisher = queue_take_wait(queue, place);
    const struct dead_letter letter = {
        .queue = queue,
        .message = message_ref(message),
        .death = death,
        .publisher = publisher,
        .sequence = message->sequence,
    };

    queue_ref(queue);
    if (publisher != NULL)
        publisher_ref(publisher);
    queue_remove_entry(queue, place, REMOVE_MOVED);
    broker_touch_store(queue->broker);
    return letter;
}

static void finish_letter(struct broker *broker, struct dead_letter *letter)
{
    fault_point(FAULT_LETTER_TAKEN);
    if (!fault_bug_each(FAULT_LOSE_DEAD_LETTER, 16))
        publish_letter(broker, letter);
    fault_point(FAULT_LETTER_ROUTED);
    if (letter->publisher != NULL)
        publisher_unref(&letter->publisher);
    message_unref(&letter->message);
    queue_unref(&letter->queue);
}

void dead_letter_send(struct queue *queue, struct place place, enum death death)
{
    struct broker *broker = queue->broker;
    struct dead_letter letter = part_with(queue, place, death);

    finish_letter(broker, &letter);
}

/* ---- at least once ---- */

/* NULL: it has somewhere to go, and nobody refuses. Where it would go round does not count. */
static const char *find_obstacle(const struct route *route, const struct dead_letter *letter,
                                 const struct message *made)
{
    size_t count = 0;

    strike_cycles(letter, route);
    for (size_t i = 0; i < route->count; i++) {
        struct queue *target = route->queues[i];
        if (is_cycle(route, target))
            continue;
        if (!queue_has_room(target, made->body_size))
            return "a queue they go to is full";
        count++;
    }
    return count == 0 ? "their exchange leads them to no queue" : NULL;
}

const char *dead_letter_publish(struct queue *queue, struct message *message, enum death death)
{
    struct broker *broker = queue->broker;
    struct dead_letters *letters = &broker->dead_letters;
    struct route *route = &letters->route;
    const struct dead_letter letter = {.queue = queue, .message = message, .death = death};
    struct exchange *exchange = find_exchange(&letter);

    if (exchange == NULL)
        return "there is no such exchange";
    struct message *made = make_letter(&letter, broker->clock->wall_ms / 1000);
    exchange_preview(exchange, made, route);
    spend_on(broker, made);
    const char *obstacle = find_obstacle(route, &letter, made);
    if (obstacle == NULL) {
        exchange_route_message(exchange, made, route);
        spend(broker, route_spent(route));
        obstacle = find_obstacle(route, &letter, made); /* some exchanges choose at random */
    }
    if (obstacle == NULL)
        deliver_letter(route, made);
    message_unref(&made);
    return obstacle;
}

/* ---- turn by turn ---- */

bool dead_letters_are_taken(struct broker *broker)
{
    return broker->in_transaction && !broker->dead_letters.is_making &&
           *spent_in_turn(broker) < LETTERS_TAKEN_STEPS;
}

void dead_letter_take(struct queue *queue, struct place place, enum death death)
{
    struct dead_letters *letters = &queue->broker->dead_letters;

    if (letters->taken_count == letters->taken_capacity) {
        letters->taken_capacity = max_of(16, 2 * letters->taken_capacity);
        letters->taken = xrealloc(letters->taken, letters->taken_capacity, sizeof(*letters->taken));
    }
    letters->taken[letters->taken_count++] = part_with(queue, place, death);
}

void dead_letters_run_taken(struct broker *broker)
{
    struct dead_letters *letters = &broker->dead_letters;

    for (size_t i = 0; i < letters->taken_count; i++) {
        struct dead_letter letter = letters->taken[i]; /* what it sets off may move them */
        finish_letter(broker, &letter);
    }
    letters->taken_count = 0;
}

/* More letters would only wait in memory: for room on the disk, or for the batch under way. Either
 * touches the store when it is over. */
static bool must_wait(const struct broker *broker)
{
    return broker_lacks_room(broker) ||
           (broker_store_is_full(broker) && store_is_busy(broker->store));
}

void dead_letters_run(struct broker *broker)
{
    struct dead_letters *letters = &broker->dead_letters;
    const bool were_behind = letters->are_behind;
    bool may_go_on = true; /* one is made whatever the others have spent */

    dead_letters_run_taken(broker);
    for (; !TAILQ_EMPTY(&letters->owing) && !must_wait(broker) && may_go_on;
         may_go_on = dead_letters_may_spend(broker, 0))
        outbox_send_one(TAILQ_FIRST(&letters->owing));
    letters->are_behind = !TAILQ_EMPTY(&letters->owing);
    if (letters->are_behind && !must_wait(broker))
        broker_touch_store(broker);
    if (were_behind && !dead_letters_are_heavy(letters)) {
        const uint64_t next = letters->relief.durable + 1;
        parking_release(&letters->relief, next, next);
    }
}

bool dead_letters_lag(const struct broker *broker, const struct route *route)
{
    for (size_t i = 0; i < route->count; i++)
        if (outbox_lags(route->queues[i]->outbox, broker->loop->turns))
            return true;
    return false;
}

void dead_letters_await(struct broker *broker, struct parked *parked)
{
    struct parking *relief = &broker->dead_letters.relief;

    parked->entries = false;
    parking_wait(relief, parked, relief->durable + 1);
}
