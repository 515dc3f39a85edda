#include "tests/model/reference.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WALL_S 1700000000 /* when a sequence begins */

enum { LEVELS_MAX = 7 };

/* ---- messages ---- */

static struct {
    struct model_message *list;
    uint32_t count, capacity;
} messages;

void messages_reset(void)
{
    messages.count = 0;
}

const struct model_message *message_at(uint32_t index)
{
    return &messages.list[index];
}

/* Equal ones are one, so that worlds can be compared. */
static uint32_t message_add(const struct model_message *message)
{
    for (uint32_t i = messages.count; i > 0; i--)
        if (memcmp(&messages.list[i - 1], message, sizeof(*message)) == 0)
            return i - 1;
    if (messages.count == messages.capacity) {
        messages.capacity = messages.capacity == 0 ? 1024 : 2 * messages.capacity;
        messages.list = realloc(messages.list, messages.capacity * sizeof(*message));
        if (messages.list == NULL)
            abort();
    }
    messages.list[messages.count] = *message;
    return messages.count++;
}

static const char *const reasons[] = {"rejected", "expired", "maxlen", "delivery_limit"};
static const char *const exchanges[MODEL_EXCHANGES] = {"", "x1", "x2"};

struct text {
    char *out;
    size_t size, used;
};

static void put(struct text *text, const char *format, ...) printf_like(2, 3);
static void put(struct text *text, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text->used +=
        (size_t)vsnprintf(text->out + text->used, text->size - text->used, format, arguments);
    va_end(arguments);
    assert(text->used < text->size);
}

/* 13.4 */
static void put_death(struct text *text, const struct model_death *death)
{
    put(text, "{count=l%u reason=S%s queue=Sq%u time=T%u exchange=S%s routing-keys=[Sq%u]",
        death->count, reasons[death->reason], death->queue, death->time_s,
        exchanges[death->exchange], death->key);
    if (death->expiration != MODEL_NONE)
        put(text, " original-expiration=S%d", death->expiration);
    put(text, "}");
}

static void put_end(struct text *text, const char *which, const struct model_death *death)
{
    put(text, " x-%s-death-exchange=S%s x-%s-death-queue=Sq%u x-%s-death-reason=S%s", which,
        exchanges[death->exchange], which, death->queue, which, reasons[death->reason]);
}

void message_headers(const struct model_message *message, unsigned acquired, unsigned failed,
                     char *out, size_t size)
{
    struct text text = {out, size, 0};

    out[0] = '\0';
    if (acquired > 0)
        put(&text, " x-acquired-count=l%u", acquired);
    if (message->death_count > 0) {
        put(&text, " x-death=[");
        for (unsigned i = 0; i < message->death_count; i++) {
            put(&text, i == 0 ? "" : ",");
            put_death(&text, &message->deaths[i]);
        }
        put(&text, "]");
    }
    if (failed > 0)
        put(&text, " x-delivery-count=l%u", failed);
    if (message->death_count > 0) {
        put_end(&text, "first", &message->first);
        /* It says where the message was published last, the entry where at the first time. */
        struct model_death last = message->deaths[0];
        last.exchange = message->last_exchange;
        put_end(&text, "last", &last);
    }
    if (out[0] == ' ')
        memmove(out, out + 1, strlen(out));
}

/* ---- choosing ---- */

static struct choices *choosing;

static unsigned choose(unsigned options)
{
    struct choices *choices = choosing;

    if (options < 2 || choices->count == CHOICES_MAX)
        return 0;
    const unsigned at = choices->count++;
    choices->options[at] = (uint8_t)options;
    return choices->answers[at];
}

bool choices_next(struct choices *choices)
{
    while (choices->count > 0) {
        const unsigned last = choices->count - 1;
        if (++choices->answers[last] < choices->options[last])
            break;
        choices->answers[last] = 0;
        choices->count--;
    }
    const bool more = choices->count > 0;
    choices->count = 0;
    return more;
}

/* The rest of a command is one of these. */
static struct {
    struct events *events;
    struct letter {
        uint32_t message;
        uint8_t queue, reason;
        bool awaited;
        bool taken;             /* by a transaction */
        struct command options; /* of that queue */
    } letters[LETTERS_MAX];
    size_t letter_count;
    uint32_t buried, last_buried[MODEL_QUEUES]; /* when the last one died in each, by counting */
    bool takes_letters;                         /* a transaction settles */
    bool batch_leaves; /* at the end of the turn, if there is anything in it */
    struct model_queue *overfull[MODEL_QUEUES]; /* something went back there, over the limit */
    size_t overfull_count;
} doing;

static struct event *tell(struct event event)
{
    assert(doing.events->count < EVENTS_MAX);
    doing.events->list[doing.events->count] = event;
    return &doing.events->list[doing.events->count++];
}

/* ---- queues ---- */

static int connection_of(int channel)
{
    return channel / 2;
}

static bool is_ready(const struct model_entry *entry)
{
    return !entry->unacked;
}

uint32_t model_count_ready(const struct model_queue *queue)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < queue->count; i++)
        count += is_ready(&queue->entries[i]);
    return count;
}

static int count_bytes(const struct model_queue *queue)
{
    int bytes = 0;

    for (uint32_t i = 0; i < queue->count; i++)
        if (is_ready(&queue->entries[i]))
            bytes += message_at(queue->entries[i].message)->size;
    return bytes;
}

static struct model_entry *find_entry(struct model_queue *queue, uint32_t position)
{
    for (uint32_t i = 0; i < queue->count; i++)
        if (queue->entries[i].position == position)
            return &queue->entries[i];
    return NULL;
}

/* 11.5: ready messages and body octets only. */
static bool is_over(const struct model_queue *queue, uint32_t more, int more_bytes)
{
    const struct command *options = &queue->options;

    return (options->length != MODEL_NONE &&
            model_count_ready(queue) + more > (uint32_t)options->length) ||
           (options->bytes != MODEL_NONE && count_bytes(queue) + more_bytes > options->bytes);
}

/* 11.7 */
static bool has_levels(const struct model_queue *queue)
{
    return queue->options.quorum || queue->options.priorities > 0;
}

static unsigned level_of(const struct model_queue *queue, const struct model_message *message)
{
    if (queue->options.quorum)
        return message->priority == MODEL_NONE ? 4 : (unsigned)message->priority; /* 11.7 */
    if (queue->options.priorities == 0 || message->priority == MODEL_NONE)
        return 0;
    return (unsigned)min_of(message->priority, queue->options.priorities); /* 11.7 */
}

/* The first message of a priority other than the plain one makes room for all up to its own, in the
 * store too, whatever becomes of the message. */
static void need_level(struct reference *r, struct model_queue *queue, unsigned level)
{
    if (!queue->options.quorum || (queue->levels == 0 ? level == 4 : level < queue->levels))
        return;
    queue->levels = (uint8_t)max_of(level + 1, 5u);
    r->dirty = true;
}

static void remove_entry(struct reference *r, struct model_queue *queue, struct model_entry *entry)
{
    r->dirty |= entry->stored && entry->batch < r->batch;
    memmove(entry, entry + 1,
            (size_t)(&queue->entries[queue->count] - (entry + 1)) * sizeof(*entry));
    queue->count--;
    memset(&queue->entries[queue->count], 0, sizeof(*entry));
}

/* It leaves, and becomes a dead letter where the queue says so (13.1). */
static void bury(struct reference *r, struct model_queue *queue, struct model_entry *entry,
                 enum reason reason)
{
    if (queue->options.dlx != MODEL_NONE) {
        if (doing.letter_count == LETTERS_MAX) {
            r->full = true;
            return;
        }
        doing.letters[doing.letter_count].message = entry->message;
        doing.letters[doing.letter_count].queue = (uint8_t)(queue - r->queues);
        doing.letters[doing.letter_count].reason = (uint8_t)reason;
        /* What is on its way to the disk stays there until the dead letter is, too. */
        doing.letters[doing.letter_count].awaited = entry->awaited && entry->batch == r->batch;
        doing.letters[doing.letter_count].taken = doing.takes_letters;
        doing.last_buried[queue - r->queues] = ++doing.buried;
        doing.letters[doing.letter_count++].options = queue->options;
    }
    remove_entry(r, queue, entry);
}

static bool is_before(const struct model_entry *a, const struct model_entry *b)
{
    if ((a->acquired > 0) != (b->acquired > 0))
        return a->acquired > 0;
    return a->level > b->level;
}

/* Who is delivered next: what has come back to a quorum queue, then the highest level, and the
 * oldest of it. */
static struct model_entry *first_ready(struct model_queue *queue)
{
    struct model_entry *first = NULL;

    for (uint32_t i = 0; i < queue->count; i++) {
        struct model_entry *entry = &queue->entries[i];
        if (is_ready(entry) && (first == NULL || is_before(entry, first)))
            first = entry;
    }
    return first;
}

/* Who goes first when there are too many: the lowest level, and the oldest of it. */
static struct model_entry *first_to_drop(struct model_queue *queue)
{
    struct model_entry *first = NULL;

    for (uint32_t i = 0; i < queue->count; i++) {
        struct model_entry *entry = &queue->entries[i];
        if (is_ready(entry) && (first == NULL || entry->level < first->level))
            first = entry;
    }
    return first;
}

static struct model_entry *first_due_of(const struct reference *r, struct model_queue *queue,
                                        unsigned level)
{
    struct model_entry *first = NULL;

    for (uint32_t i = 0; i < queue->count; i++) {
        struct model_entry *entry = &queue->entries[i];
        if (is_ready(entry) && entry->level == level && entry->deadline <= r->now &&
            (first == NULL || entry->deadline < first->deadline))
            first = entry;
    }
    return first;
}

/* Of those due at once each level has an order, the levels have none. */
static struct model_entry *first_due(const struct reference *r, struct model_queue *queue)
{
    struct model_entry *candidates[LEVELS_MAX + 1] = {NULL};
    unsigned equals = 0;

    for (unsigned level = 0; level <= LEVELS_MAX; level++) {
        struct model_entry *entry = first_due_of(r, queue, level);
        if (entry == NULL || (equals > 0 && entry->deadline > candidates[0]->deadline))
            continue;
        if (equals > 0 && entry->deadline < candidates[0]->deadline)
            equals = 0;
        candidates[equals++] = entry;
    }
    return equals == 0 ? NULL : candidates[queue->options.dlx == MODEL_NONE ? 0 : choose(equals)];
}

/* A message leaves at its own deadline, wherever it stands. */
static void expire(struct reference *r, struct model_queue *queue)
{
    struct model_entry *entry;

    while ((entry = first_due(r, queue)) != NULL)
        bury(r, queue, entry, EXPIRED);
}

/* So many of those that are due, and no fewer are. */
static void expire_some(struct reference *r, struct model_queue *queue, unsigned count)
{
    for (; count > 0; count--)
        bury(r, queue, first_due(r, queue), EXPIRED);
}

/* All that is due of one level; false: nothing is. */
static bool expire_level(struct reference *r, struct model_queue *queue)
{
    struct model_entry *entry = first_due(r, queue);

    if (entry == NULL)
        return false;
    for (const unsigned level = entry->level; entry != NULL; entry = first_due_of(r, queue, level))
        bury(r, queue, entry, EXPIRED);
    return true;
}

/* What it holds of this level is in memory: it comes in one piece, unless memory is short. */
static void warm(const struct reference *r, struct model_queue *queue, unsigned level)
{
    if (!r->scarce)
        queue->cold &= (uint8_t) ~(1u << level);
}

/* It may have to be read. */
static bool is_cold(const struct model_queue *queue, const struct model_entry *entry)
{
    return (queue->cold >> entry->level & 1) != 0;
}

static void chill(struct model_queue *queue)
{
    queue->cold = 0;
    for (uint32_t i = 0; i < queue->count; i++)
        if (is_ready(&queue->entries[i]))
            queue->cold |= (uint8_t)(1u << queue->entries[i].level);
}

/* Whether it shows when what is too much goes: to those who get its dead letters, because consumers
 * may be handed it meanwhile, because one that is too large alone takes those of lower levels with
 * it that are there by then, or after a kill because of the batch that it goes with. */
static bool shows_when_it_drops(const struct reference *r, const struct model_queue *queue)
{
    return r->held || queue->options.dlx != MODEL_NONE || model_count_consumers(queue) > 0 ||
           (queue->options.bytes != MODEL_NONE && has_levels(queue));
}

/* What is due does not count: it goes first, and not for want of room. */
static void drop_overflow_now(struct reference *r, struct model_queue *queue)
{
    struct model_entry *entry;
    bool any = false;

    queue->late = false;
    if (queue->options.overflow != 0 || !is_over(queue, 0, 0))
        return;
    expire(r, queue);
    while (is_over(queue, 0, 0) && (entry = first_to_drop(queue)) != NULL) {
        if (any && is_cold(queue, entry) && shows_when_it_drops(r, queue) && choose(2) == 1) {
            queue->late = true; /* it has to be read first */
            return;
        }
        warm(r, queue, entry->level);
        bury(r, queue, entry, MAXLEN);
        any = true;
    }
}

static void drop_overflow(struct reference *r, struct model_queue *queue)
{
    if (queue->options.overflow != 0 || !is_over(queue, 0, 0))
        return;
    if (queue->cold && shows_when_it_drops(r, queue) && choose(2) == 1)
        queue->late = true;
    else
        drop_overflow_now(r, queue);
}

/* ---- consumers ---- */

static void join(struct model_queue *queue, struct model_consumer *consumer, enum turn turn)
{
    consumer->turn = (uint8_t)turn;
    consumer->place = ++queue->next_place;
}

/* Of one state: the highest rank, then whoever stands there longest. by_rank false: that alone. */
static struct model_consumer *first_of(struct model_queue *queue, enum turn turn, bool by_rank)
{
    struct model_consumer *first = NULL;

    for (int i = 0; i < MODEL_CHANNELS; i++) {
        struct model_consumer *consumer = &queue->consumers[i];
        if (consumer->turn != turn)
            continue;
        if (first == NULL || (by_rank && consumer->rank > first->rank) ||
            ((!by_rank || consumer->rank == first->rank) && consumer->place < first->place))
            first = consumer;
    }
    return first;
}

unsigned model_count_consumers(const struct model_queue *queue)
{
    unsigned count = 0;

    for (int i = 0; i < MODEL_CHANNELS; i++)
        count += queue->consumers[i].turn != ABSENT;
    return count;
}

static bool has_room(const struct reference *r, const struct model_queue *queue,
                     const struct model_consumer *consumer)
{
    const struct model_channel *channel = &r->channels[consumer - queue->consumers];

    return consumer->no_ack ||
           ((consumer->prefetch == 0 || consumer->unacked < consumer->prefetch) &&
            (channel->global_prefetch == 0 || channel->global_unacked < channel->global_prefetch));
}

/* 10.11: who waits for the place of the single active consumer, first. */
static struct model_consumer *next_active(struct model_queue *queue)
{
    return first_of(queue, WAITING, queue->options.quorum);
}

static void fill_place(struct model_queue *queue)
{
    struct model_consumer *next = next_active(queue);

    queue->active = next == NULL ? MODEL_NONE : (int)(next - queue->consumers);
    if (next != NULL)
        join(queue, next, IN_TURN);
}

/* 10.11: on a quorum queue who is outranked gets nothing more, and hands over once it has nothing
 * unacked. */
static bool is_outranked(struct model_queue *queue)
{
    const struct model_consumer *next = next_active(queue);

    return queue->options.quorum && queue->active != MODEL_NONE && next != NULL &&
           next->rank > queue->consumers[queue->active].rank;
}

static void step_down(struct model_queue *queue)
{
    struct model_consumer *active = &queue->consumers[queue->active];

    if (active->unacked > 0) {
        join(queue, active, IDLE);
        return;
    }
    active->turn = ABSENT;
    fill_place(queue);
    join(queue, active, WAITING);
}

/* It may have room again. */
static void wake(struct model_queue *queue, struct model_consumer *consumer)
{
    if (consumer->turn != IDLE)
        return;
    if (is_outranked(queue))
        step_down(queue);
    else
        join(queue, consumer, IN_TURN);
}

static void wake_channel(struct reference *r, int channel)
{
    for (int i = 0; i < MODEL_QUEUES; i++)
        if (r->queues[i].exists)
            wake(&r->queues[i], &r->queues[i].consumers[channel]);
}

static void hand_out(struct reference *r, struct model_queue *queue, struct model_entry *entry,
                     int channel, bool no_ack, bool by_consumer)
{
    struct model_channel *to = &r->channels[channel];

    warm(r, queue, entry->level);
    entry->unacked = true;
    if (no_ack) {
        remove_entry(r, queue, entry);
        return;
    }
    if (to->count == DELIVERIES_MAX) {
        r->full = true;
        return;
    }
    to->deliveries[to->count++] = (struct model_delivery){
        .queue = (uint8_t)(queue - r->queues),
        .position = entry->position,
        .by_consumer = by_consumer,
        .credits = by_consumer,
    };
    if (by_consumer) {
        queue->consumers[channel].unacked++;
        to->global_unacked++;
    }
}

static bool has_puts(const struct reference *r)
{
    for (int i = 0; i < MODEL_QUEUES; i++)
        for (uint32_t n = 0; n < r->queues[i].count; n++)
            if (r->queues[i].entries[n].stored && r->queues[i].entries[n].batch == r->batch)
                return true;
    return false;
}

/* While something is read, a dead letter that is under way may come before it, or a batch leave
 * without it. */
static bool may_miss_turn(const struct reference *r)
{
    return doing.letter_count > 0 || (doing.batch_leaves && r->held && (r->dirty || has_puts(r)));
}

/* Equals take turns, one message each (10.7); who has no room loses its turn until it has. */
static bool deliver(struct reference *r, struct model_queue *queue)
{
    struct model_consumer *consumer;
    struct model_entry *entry;
    bool any = false;

    while ((entry = first_ready(queue)) != NULL &&
           (consumer = first_of(queue, IN_TURN, true)) != NULL) {
        if (!has_room(r, queue, consumer)) {
            join(queue, consumer, IDLE);
            continue;
        }
        if (entry->deadline < r->now) {
            bury(r, queue, entry, EXPIRED);
            continue;
        }
        if (is_cold(queue, entry) && may_miss_turn(r) && choose(2) == 1)
            return true;
        const int channel = (int)(consumer - queue->consumers);
        tell((struct event){.kind = DELIVERED,
                            .channel = channel,
                            .queue = (int)(queue - r->queues),
                            .message = entry->message,
                            .redelivered = entry->redelivered,
                            .acknowledges = !consumer->no_ack,
                            .acquired = entry->acquired,
                            .failed = entry->failed,
                            .position = entry->position});
        consumer->place = ++queue->next_place;
        hand_out(r, queue, entry, channel, consumer->no_ack, true);
        any = true;
    }
    return any;
}

/* ---- publishing ---- */

static uint64_t deadline_of(const struct reference *r, const struct model_queue *queue,
                            const struct model_message *message)
{
    uint64_t deadline = NEVER;

    if (queue->options.ttl != MODEL_NONE) /* 11.1 */
        deadline = r->now + (uint64_t)queue->options.ttl;
    if (message->expiration != MODEL_NONE)
        deadline = min_of(deadline, r->now + (uint64_t)message->expiration);
    return deadline;
}

static void letter_refused(struct reference *r, struct model_queue *queue, uint32_t message)
{
    struct model_entry never = {.message = message};

    if (queue->count == ENTRIES_MAX) {
        r->full = true;
        return;
    }
    queue->entries[queue->count] = never;
    bury(r, queue, &queue->entries[queue->count++], MAXLEN);
}

/* awaited: by its publisher, if it is to be stored. false: it is full and refuses. */
static bool push(struct reference *r, struct model_queue *queue, uint32_t index, bool awaited)
{
    const struct model_message *message = message_at(index);

    if (queue->options.overflow != 0 && is_over(queue, 1, message->size)) {
        deliver(r, queue);
        if (is_over(queue, 1, message->size)) {
            if (queue->options.overflow == 2 && queue->options.dlx != MODEL_NONE)
                letter_refused(r, queue, index);
            return false;
        }
    }
    if (queue->count == ENTRIES_MAX) {
        r->full = true;
        return true;
    }
    struct model_entry *entry = &queue->entries[queue->count++];
    *entry = (struct model_entry){
        .message = index,
        .position = queue->next_position++,
        .deadline = deadline_of(r, queue, message),
        .level = (uint8_t)level_of(queue, message),
        .stored = queue->options.durable && (message->persistent || queue->options.quorum), /* 12 */
        .batch = r->batch,
    };
    need_level(r, queue, entry->level);
    entry->awaited = awaited && entry->stored;
    /* 11.3, 11.5: what can be handed out at once is neither late nor too much. */
    const bool due = entry->deadline <= r->now;
    if (due || is_over(queue, 0, 0)) {
        deliver(r, queue);
        if (due)
            expire(r, queue);
        drop_overflow(r, queue);
    }
    return true;
}

static size_t route(const struct reference *r, unsigned exchange, unsigned key,
                    uint8_t targets[MODEL_QUEUES])
{
    bool is_target[MODEL_QUEUES] = {false};
    size_t count = 0;

    if (exchange == 0)
        is_target[key] = r->queues[key].exists;
    for (uint32_t i = 0; i < r->binding_count; i++) {
        const struct model_binding *binding = &r->bindings[i];
        if (binding->exchange == exchange && (exchange == 1 || binding->key == key))
            is_target[binding->queue] = true; /* 7.15: once */
    }
    for (uint8_t i = 0; i < MODEL_QUEUES; i++)
        if (is_target[i])
            targets[count++] = i;
    return count;
}

/* Whether one more message makes this queue bury something. */
static bool would_bury(const struct reference *r, const struct model_queue *queue,
                       const struct model_message *message)
{
    return queue->options.dlx != MODEL_NONE &&
           (is_over(queue, 1, message->size) || deadline_of(r, queue, message) <= r->now);
}

/* In which order queues get a message shows only where several bury something. The order is the
 * broker's own, but the same for all messages of a key while no binding comes or goes. */
static void arrange(struct reference *r, const struct model_message *message, uint8_t *targets,
                    size_t count)
{
    struct model_order *order =
        &r->orders[message->exchange][message->exchange == 1 ? 0 : message->key];
    size_t burying = 0, next = 0;
    uint8_t given[MODEL_QUEUES];
    bool ordered[MODEL_QUEUES] = {false};

    for (size_t i = 0; i < count; i++)
        burying += would_bury(r, &r->queues[targets[i]], message);
    if (burying < 2)
        return;
    memcpy(given, targets, count);
    for (size_t i = 0; i < count; i++) {
        if (!would_bury(r, &r->queues[given[i]], message) ||
            memchr(order->queues, given[i], order->count) != NULL)
            continue;
        const size_t place = choose(order->count + 1u);
        memmove(&order->queues[place + 1], &order->queues[place], order->count - place);
        order->queues[place] = given[i];
        order->count++;
    }
    for (size_t n = 0; n < order->count; n++)
        if (memchr(given, order->queues[n], count) != NULL) {
            targets[next++] = order->queues[n];
            ordered[order->queues[n]] = true;
        }
    for (size_t i = 0; i < count; i++)
        if (!ordered[given[i]])
            targets[next++] = given[i];
}

/* false: a queue refused. */
static bool publish(struct reference *r, int channel, uint32_t index, bool mandatory)
{
    const struct model_message *message = message_at(index);
    uint8_t targets[MODEL_QUEUES];
    const size_t count = route(r, message->exchange, message->key, targets);
    bool taken = true;

    arrange(r, message, targets, count);
    for (size_t i = 0; i < count; i++)
        taken &= push(r, &r->queues[targets[i]], index, true);
    if (count == 0 && mandatory)
        tell((struct event){.kind = RETURNED, .channel = channel, .message = index}); /* 9.5 */
    return taken;
}

/* ---- dead letters ---- */

/* 13.4, 13.5 */
static uint32_t die(const struct reference *r, uint32_t index, unsigned queue, enum reason reason,
                    const struct command *options)
{
    const struct model_message *message = message_at(index);
    struct model_message made = *message;
    struct model_death death = {
        .queue = (uint8_t)queue,
        .reason = (uint8_t)reason,
        .exchange = message->exchange,
        .key = message->key,
        .count = 1,
        .expiration = message->expiration,
        .time_s = WALL_S + (uint32_t)(r->now / 1000),
    };
    unsigned kept = 1;

    memset(made.deaths, 0, sizeof(made.deaths));
    if (message->death_count == 0)
        made.first = death;
    for (unsigned i = 0; i < message->death_count; i++) {
        if (message->deaths[i].queue == queue && message->deaths[i].reason == reason) {
            death = message->deaths[i];
            death.count++;
        } else {
            made.deaths[kept++] = message->deaths[i];
        }
    }
    made.deaths[0] = death;
    made.death_count = (uint8_t)kept;
    made.last_exchange = message->exchange;
    made.expiration = MODEL_NONE;
    made.exchange = (uint8_t)options->dlx;
    made.key = options->dlk == MODEL_NONE ? message->key : (uint8_t)options->dlk; /* 13.2 */
    return message_add(&made);
}

/* 13.7: it was there before, and nobody has rejected it since. */
static bool is_cycle(const struct model_message *letter, unsigned queue)
{
    for (unsigned i = 0; i < letter->death_count; i++) {
        if (letter->deaths[i].reason == REJECTED)
            return false;
        if (letter->deaths[i].queue == queue)
            return true;
    }
    return false;
}

/* Those that a transaction has taken are first, as it took them. Of others the queue in which one
 * died last is first, for one letter; of a queue the oldest. */
static size_t first_letter(void)
{
    size_t first = 0;

    for (size_t i = 0; i < doing.letter_count; i++) {
        if (doing.letters[i].taken)
            return i;
        if (doing.last_buried[doing.letters[i].queue] >
            doing.last_buried[doing.letters[first].queue])
            first = i;
    }
    return first;
}

static void publish_letter(struct reference *r, const struct letter *letter)
{
    uint8_t targets[MODEL_QUEUES];
    const uint32_t index =
        die(r, letter->message, letter->queue, (enum reason)letter->reason, &letter->options);
    const size_t count = route(r, message_at(index)->exchange, message_at(index)->key, targets);

    arrange(r, message_at(index), targets, count);
    for (size_t n = 0; n < count && !r->full; n++)
        if (!is_cycle(message_at(index), targets[n]))
            push(r, &r->queues[targets[n]], index, letter->awaited);
}

static bool run_letters(struct reference *r, bool all)
{
    const bool any = doing.letter_count > 0;

    while (doing.letter_count > 0 && !r->full) {
        const size_t first = first_letter();
        const struct letter letter = doing.letters[first];
        if (!letter.taken && !all)
            break;
        memmove(&doing.letters[first], &doing.letters[first + 1],
                (--doing.letter_count - first) * sizeof(letter));
        publish_letter(r, &letter);
    }
    return any;
}

/* ---- the ends of queues ---- */

/* x-expires counts from now (8.14). */
static void use(struct reference *r, struct model_queue *queue)
{
    if (queue->options.expires != MODEL_NONE && model_count_consumers(queue) == 0)
        queue->unused_deadline = r->now + (uint64_t)queue->options.expires;
}

static void unbind_queue(struct reference *r, int queue)
{
    uint32_t kept = 0;

    memset(r->orders, 0, sizeof(r->orders));

    for (uint32_t i = 0; i < r->binding_count; i++)
        if (r->bindings[i].queue != queue)
            r->bindings[kept++] = r->bindings[i];
    memset(&r->bindings[kept], 0, (r->binding_count - kept) * sizeof(r->bindings[0]));
    r->binding_count = kept;
}

/* 10.10: those who are told are its consumers. No dead letters (13.1). */
static void delete_queue(struct reference *r, struct model_queue *queue)
{
    const int number = (int)(queue - r->queues);

    for (int i = 0; i < MODEL_CHANNELS; i++) {
        struct model_channel *channel = &r->channels[i];
        if (queue->consumers[i].turn != ABSENT)
            tell((struct event){.kind = CANCELLED, .channel = i, .queue = number});
        for (uint32_t n = 0; n < channel->count; n++)
            if (channel->deliveries[n].queue == number) {
                channel->deliveries[n].gone = true;
                channel->deliveries[n].credits = false;
            }
    }
    r->dirty |= queue->options.durable;
    unbind_queue(r, number);
    memset(queue, 0, sizeof(*queue));
}

/* A consumer goes; what it has unacked stays with its channel (10.9). */
static void detach(struct reference *r, struct model_queue *queue, int channel)
{
    struct model_consumer *consumer = &queue->consumers[channel];
    struct model_channel *of = &r->channels[channel];

    for (uint32_t i = 0; i < of->count; i++)
        if (of->deliveries[i].queue == queue - r->queues)
            of->deliveries[i].credits = false;
    memset(consumer, 0, sizeof(*consumer));
    if (queue->active == channel)
        fill_place(queue);
    else if (queue->active != MODEL_NONE)
        wake(queue, &queue->consumers[queue->active]);
    use(r, queue);
    if (queue->options.auto_delete && model_count_consumers(queue) == 0)
        delete_queue(r, queue);
}

/* ---- settling ---- */

/* One that refuses what is too much drops nothing, but if it is quorum it serves who waits as one
 * that drops. */
static void note_overflow(struct model_queue *queue)
{
    if ((queue->options.overflow != 0 && !queue->options.quorum) || !is_over(queue, 0, 0))
        return;
    for (size_t i = 0; i < doing.overfull_count; i++)
        if (doing.overfull[i] == queue)
            return;
    doing.overfull[doing.overfull_count++] = queue;
}

/* When all that goes back at once is there. */
static void drop_overflows(struct reference *r)
{
    for (size_t i = 0; i < doing.overfull_count; i++) {
        if (doing.overfull[i]->options.quorum)
            deliver(r, doing.overfull[i]);
        drop_overflow(r, doing.overfull[i]);
    }
    doing.overfull_count = 0;
}

/* Back to where it stood (10.17). */
static void requeue(struct reference *r, struct model_queue *queue, struct model_entry *entry,
                    bool failed)
{
    if (queue->options.quorum) {
        entry->acquired++;
        entry->failed = (uint16_t)(entry->failed + failed);
        const int limit = queue->options.limit == MODEL_NONE ? 20 : queue->options.limit;
        if (entry->failed > limit) {
            bury(r, queue, entry, DELIVERY_LIMIT);
            return;
        }
    }
    entry->unacked = false;
    entry->redelivered = true;
    note_overflow(queue);
}

static void settle(struct reference *r, int number, uint32_t index, enum model_settlement how)
{
    struct model_channel *channel = &r->channels[number];
    const struct model_delivery delivery = channel->deliveries[index];
    struct model_queue *queue = &r->queues[delivery.queue];

    memmove(&channel->deliveries[index], &channel->deliveries[index + 1],
            (channel->count - index - 1) * sizeof(delivery));
    channel->count--;
    memset(&channel->deliveries[channel->count], 0, sizeof(delivery));
    channel->global_unacked -= delivery.by_consumer;
    if (delivery.gone)
        return;
    struct model_entry *entry = find_entry(queue, delivery.position);
    assert(entry != NULL && entry->unacked);
    if (how == ACK)
        remove_entry(r, queue, entry);
    else if (how == REJECT)
        bury(r, queue, entry, REJECTED);
    else
        requeue(r, queue, entry, how == RETURN);
    if (delivery.credits) {
        queue->consumers[number].unacked--;
        wake(queue, &queue->consumers[number]);
    }
}

static void settle_or_hold(struct reference *r, int number, uint32_t index,
                           enum model_settlement how)
{
    struct model_channel *channel = &r->channels[number];

    if (channel->mode == TX) {
        channel->deliveries[index].held = (uint8_t)how;
        channel->deliveries[index].held_place = ++channel->next_held_place;
    } else {
        settle(r, number, index, how);
    }
}

/* ---- the ends of channels ---- */

static void close_channel(struct reference *r, int number)
{
    struct model_channel *channel = &r->channels[number];

    if (!channel->open)
        return;
    for (int i = 0; i < MODEL_QUEUES; i++)
        if (r->queues[i].exists && r->queues[i].consumers[number].turn != ABSENT)
            detach(r, &r->queues[i], number);
    while (channel->count >
           0) /* 6.5; a queue that went with its last consumer took its own along */
        settle(r, number, 0, RETURN);
    drop_overflows(r);
    memset(channel, 0, sizeof(*channel));
}

static void refuse(struct reference *r, int channel, uint32_t code)
{
    close_channel(r, channel);
    tell((struct event){.kind = CLOSED, .channel = channel, .number = code});
}

static unsigned count_due(const struct reference *r, const struct model_queue *queue)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < queue->count; i++)
        count += is_ready(&queue->entries[i]) && queue->entries[i].deadline <= r->now;
    return count;
}

/* All that is due of one that its owner leaves, before it goes: what is on disk then is not waited
 * for. */
static void expire_owned(struct reference *r, struct model_queue *queue)
{
    if (!queue->cold || choose(2) == 0) {
        expire(r, queue);
        return;
    }
    expire_some(r, queue, choose(count_due(r, queue) + 1));
}

static void delete_owned(struct reference *r, int connection)
{
    for (;;) {
        struct model_queue *owned[MODEL_QUEUES];
        unsigned count = 0, due = 0;

        for (int i = 0; i < MODEL_QUEUES; i++) {
            struct model_queue *queue = &r->queues[i];
            if (!queue->exists || !queue->options.exclusive || queue->owner != connection)
                continue;
            owned[count++] = queue;
            due += count_due(r, queue);
        }
        if (count == 0)
            return;
        struct model_queue *queue = owned[due > 0 ? choose(count) : 0];
        expire_owned(r, queue);
        delete_queue(r, queue);
    }
}

/* A channel may be served what another of its connection gives back: nobody reads that any more. */
static void forget_events(int connection)
{
    struct events *events = doing.events;
    size_t kept = 0;

    for (size_t i = 0; i < events->count; i++)
        if (connection_of(events->list[i].channel) != connection)
            events->list[kept++] = events->list[i];
    events->count = kept;
}

static void end_connection(struct reference *r, int connection)
{
    const struct model_channel *one = &r->channels[2 * connection], *other = one + 1;
    const bool differs = one->open && other->open && one->count + other->count > 0;
    const int first = 2 * connection + (int)choose(differs ? 2 : 1);

    close_channel(r, first);
    close_channel(r, first ^ 1);
    forget_events(connection);
    delete_owned(r, connection);
}

/* ---- turns ---- */

static uint64_t next_due(const struct model_queue *queue)
{
    uint64_t due = NEVER;

    for (uint32_t i = 0; i < queue->count; i++)
        if (is_ready(&queue->entries[i]))
            due = min_of(due, queue->entries[i].deadline);
    return due;
}

/* What is due of a queue comes back from the disk part by part: after a start level by level, else
 * as it was given up. */
static void expire_part(struct reference *r, struct model_queue *queue)
{
    if (!r->scarce) {
        expire_level(r, queue);
        return;
    }
    expire_some(r, queue, 1 + choose(count_due(r, queue)));
}

/* Whatever time has brought about. What is due in several queues comes in any order. */
static bool run_timers(struct reference *r)
{
    bool any = false;

    for (;;) {
        struct model_queue *burying[MODEL_QUEUES];
        unsigned count = 0;
        for (int i = 0; i < MODEL_QUEUES; i++) {
            struct model_queue *queue = &r->queues[i];
            if (!queue->exists || (queue->unused_deadline > r->now && next_due(queue) > r->now))
                continue;
            any = true;
            if (next_due(queue) > r->now)
                delete_queue(r, queue);
            else if (queue->options.dlx == MODEL_NONE && !queue->cold)
                expire(r, queue);
            else
                burying[count++] = queue;
        }
        if (count == 0)
            return any;
        struct model_queue *queue = burying[choose(count)];
        if (queue->cold && may_miss_turn(r) && choose(2) == 1)
            return true; /* what others brought about goes out while it is read */
        if (queue->cold && choose(2) == 1) {
            expire_part(r, queue);
            continue;
        }
        if (queue->unused_deadline <= r->now && choose(2) == 0) /* either comes first */
            delete_queue(r, queue);
        else
            expire(r, queue);
    }
}

/* The end of a turn: what has changed goes to the disk, one batch at a time. */
static void submit(struct world *world)
{
    struct reference *r = &world->now;

    if (r->held && world->has_under_way)
        return;
    if (!r->dirty && !has_puts(r))
        return;
    r->dirty = false;
    if (r->held) {
        world->under_way = *r;
        world->has_under_way = true;
    } else {
        r->durable = r->batch;
    }
    r->batch++;
}

/* What had to be read first has been, at the latest when nothing else goes on. */
static bool drop_late(struct reference *r, bool others)
{
    bool any = false;

    for (int i = 0; i < MODEL_QUEUES; i++) {
        struct model_queue *queue = &r->queues[i];
        if (!queue->late || (others && choose(2) == 1))
            continue;
        drop_overflow_now(r, queue);
        any = true;
    }
    return any;
}

static void run(struct world *world)
{
    struct reference *r = &world->now;
    bool again;

    do {
        doing.batch_leaves = !world->has_under_way;
        again = run_timers(r);
        for (int i = 0; i < MODEL_QUEUES && !r->full; i++)
            again |= r->queues[i].exists && deliver(r, &r->queues[i]);
        again |= run_letters(r, true);
        submit(world);
        again |= drop_late(r, again);
        for (int i = 0; i < MODEL_QUEUES && r->scarce; i++)
            chill(&r->queues[i]);
    } while (again && !r->full);
}

/* ---- starting again ---- */

static void recover_queue(struct reference *r, struct model_queue *queue, bool clean)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < queue->count; i++) {
        struct model_entry entry = queue->entries[i];
        if (!entry.stored)
            continue;
        entry.redelivered = !clean || entry.redelivered || entry.unacked;
        entry.unacked = false;
        entry.acquired = entry.failed = 0;
        if (entry.deadline < r->now)
            entry.deadline = r->now;
        queue->entries[kept++] = entry;
    }
    memset(&queue->entries[kept], 0, (queue->count - kept) * sizeof(queue->entries[0]));
    queue->count = kept;
    chill(queue);
    queue->late = false;
    memset(queue->consumers, 0, sizeof(queue->consumers));
    queue->active = MODEL_NONE;
    queue->unused_deadline = NEVER;
    use(r, queue);
}

/* What is due comes back from the disk level by level, or all at once. */
static void expire_recovered(struct reference *r, struct model_queue *queue)
{
    if (count_due(r, queue) > 0 && choose(2) == 1)
        while (expire_level(r, queue))
            ;
}

/* What was unacked is ready again, and may be too much. In which order queues come to that is not
 * said. */
static void drop_recovered(struct reference *r)
{
    for (;;) {
        struct model_queue *over[MODEL_QUEUES];
        unsigned count = 0;
        for (int i = 0; i < MODEL_QUEUES; i++)
            if (r->queues[i].exists && r->queues[i].options.overflow == 0 && !r->queues[i].late &&
                is_over(&r->queues[i], 0, 0))
                over[count++] = &r->queues[i];
        if (count == 0)
            return;
        struct model_queue *queue = over[choose(count)];
        if (has_levels(queue))
            expire_recovered(r, queue);
        drop_overflow(r, queue);
    }
}

/* Only what is durable is left (12). */
static void recover(struct reference *r, bool clean)
{
    memset(r->channels, 0, sizeof(r->channels));
    memset(r->orders, 0, sizeof(r->orders));
    for (int i = 0; i < MODEL_QUEUES; i++) {
        struct model_queue *queue = &r->queues[i];
        if (!queue->exists)
            continue;
        if (queue->options.durable) {
            recover_queue(r, queue, clean);
        } else {
            unbind_queue(r, i);
            memset(queue, 0, sizeof(*queue));
        }
    }
    r->held = r->dirty = false;
    r->durable = r->batch++;
    drop_recovered(r);
}

static void crash(struct world *world)
{
    const uint64_t now = world->now.now;
    const bool scarce = world->now.scarce;

    if (world->now.held)
        world->now = world->durable;
    world->now.now = now;
    world->now.scarce = scarce;
    world->has_under_way = false;
    recover(&world->now, false);
}

static void restart(struct world *world)
{
    const int first = (int)choose(MODEL_CONNECTIONS);

    world->now.held = world->has_under_way = false;
    end_connection(&world->now, first);
    end_connection(&world->now, first ^ 1);
    run(world);              /* what came back may be too old or too much */
    doing.events->count = 0; /* nobody is there to see */
    recover(&world->now, world->now.clean_restarts);
}

/* ---- commands ---- */

/* The queue, if this channel may use it; else the channel is closed. */
static struct model_queue *use_queue(struct reference *r, const struct command *command)
{
    struct model_queue *queue = &r->queues[command->queue];

    if (queue->exists &&
        (!queue->options.exclusive || queue->owner == connection_of(command->channel)))
        return queue;
    refuse(r, command->channel, queue->exists ? 405 : 404);
    return NULL;
}

static bool agrees(const struct command *a, const struct command *b)
{
    return a->durable == b->durable && a->auto_delete == b->auto_delete && a->quorum == b->quorum &&
           a->single == b->single && a->ttl == b->ttl && a->expires == b->expires &&
           a->length == b->length && a->bytes == b->bytes && a->overflow == b->overflow &&
           a->priorities == b->priorities && a->dlx == b->dlx && a->dlk == b->dlk &&
           a->limit == b->limit;
}

static void declare(struct reference *r, const struct command *command)
{
    struct model_queue *queue = &r->queues[command->queue];

    if (!queue->exists) {
        *queue = (struct model_queue){.exists = true,
                                      .options = *command,
                                      .owner = connection_of(command->channel),
                                      .active = MODEL_NONE,
                                      .unused_deadline = NEVER};
        r->dirty |= command->durable;
        use(r, queue);
        return;
    }
    if (queue->options.exclusive != command->exclusive ||
        (queue->options.exclusive && queue->owner != connection_of(command->channel)))
        refuse(r, command->channel, 405); /* 8.7.1 */
    else if (!agrees(&queue->options, command))
        refuse(r, command->channel, 406); /* 8.7.2, 8.7.3 */
    else
        use(r, queue);
}

static void do_delete(struct reference *r, const struct command *command)
{
    if (!r->queues[command->queue].exists)
        return;
    struct model_queue *queue = use_queue(r, command);
    if (queue != NULL)
        delete_queue(r, queue);
}

static void purge(struct reference *r, const struct command *command)
{
    struct model_queue *queue = use_queue(r, command);
    struct model_entry *entry;

    while (queue != NULL && (entry = first_ready(queue)) != NULL)
        remove_entry(r, queue, entry);
}

static int find_binding(const struct reference *r, const struct command *command)
{
    for (uint32_t i = 0; i < r->binding_count; i++)
        if (r->bindings[i].exchange == command->exchange &&
            r->bindings[i].queue == command->queue && r->bindings[i].key == command->key)
            return (int)i;
    return MODEL_NONE;
}

static void bind(struct reference *r, const struct command *command)
{
    const struct model_queue *queue = use_queue(r, command);

    if (queue == NULL || find_binding(r, command) != MODEL_NONE)
        return;
    if (r->binding_count == BINDINGS_MAX) {
        r->full = true;
        return;
    }
    memset(r->orders, 0, sizeof(r->orders));
    r->bindings[r->binding_count++] = (struct model_binding){
        (uint8_t)command->exchange, (uint8_t)command->queue, (uint8_t)command->key};
    r->dirty |= queue->options.durable;
}

static void unbind(struct reference *r, const struct command *command)
{
    const int index = find_binding(r, command);

    if (index == MODEL_NONE) /* 7.18: it is well */
        return;
    const struct model_queue *queue = use_queue(r, command);
    if (queue == NULL)
        return;
    memset(r->orders, 0, sizeof(r->orders));
    memmove(&r->bindings[index], &r->bindings[index + 1],
            (r->binding_count - (uint32_t)index - 1) * sizeof(r->bindings[0]));
    r->binding_count--;
    memset(&r->bindings[r->binding_count], 0, sizeof(r->bindings[0]));
    r->dirty |= queue->options.durable;
}

static void do_publish(struct reference *r, const struct command *command)
{
    struct model_channel *channel = &r->channels[command->channel];

    for (int i = 0; i < command->count && !r->full; i++) {
        struct model_message message;
        memset(&message, 0, sizeof(message));
        message.origin = command->origin + (uint32_t)i;
        message.size = command->size;
        message.priority = command->priority;
        message.expiration = command->expiration;
        message.exchange = (uint8_t)command->exchange;
        message.key = (uint8_t)command->key;
        message.persistent = (uint8_t)command->persistent;
        const uint32_t index = message_add(&message);
        if (channel->mode == TX) {
            channel->held[channel->held_count++] =
                (struct model_publish){index, command->mandatory != 0};
            continue;
        }
        channel->publishes++;
        if (!publish(r, command->channel, index, command->mandatory) && channel->mode == CONFIRM)
            tell((struct event){.kind = REFUSED,
                                .channel = command->channel,
                                .number = channel->publishes}); /* 9.11 */
    }
}

static void get(struct reference *r, const struct command *command)
{
    struct model_queue *queue = use_queue(r, command);

    if (queue == NULL)
        return;
    if (queue->options.quorum && queue->options.single) {
        refuse(r, command->channel, 405); /* 10.11 */
        return;
    }
    use(r, queue);
    struct model_entry *entry = first_ready(queue);
    if (entry == NULL) {
        tell((struct event){.kind = GOT_NOTHING, .channel = command->channel});
        return;
    }
    tell((struct event){.kind = GOT,
                        .channel = command->channel,
                        .queue = command->queue,
                        .message = entry->message,
                        .redelivered = entry->redelivered,
                        .acknowledges = !command->no_ack,
                        .acquired = entry->acquired,
                        .failed = entry->failed,
                        .number = model_count_ready(queue) - 1,
                        .position = entry->position});
    hand_out(r, queue, entry, command->channel, command->no_ack, false);
}

static void consume(struct reference *r, const struct command *command)
{
    struct model_queue *queue = use_queue(r, command);
    bool taken = false;

    if (queue == NULL)
        return;
    const bool exclusive = command->exclusive && !queue->options.quorum; /* 10.6 */
    for (int i = 0; i < MODEL_CHANNELS; i++)
        taken |= queue->consumers[i].turn != ABSENT && queue->consumers[i].exclusive;
    if (taken || (exclusive && (model_count_consumers(queue) > 0 || queue->options.single))) {
        refuse(r, command->channel, 403); /* 10.5, 10.11 */
        return;
    }
    struct model_consumer *consumer = &queue->consumers[command->channel];
    *consumer = (struct model_consumer){.no_ack = command->no_ack,
                                        .exclusive = exclusive,
                                        .rank = command->rank,
                                        .prefetch = r->channels[command->channel].prefetch};
    queue->unused_deadline = NEVER;
    if (queue->active != MODEL_NONE) {
        join(queue, consumer, WAITING);
        if (is_outranked(queue))
            step_down(queue);
        return;
    }
    if (queue->options.single)
        queue->active = command->channel;
    join(queue, consumer, IN_TURN);
}

static uint32_t find_tag(const struct model_channel *channel, uint64_t tag)
{
    uint32_t i = 0;

    while (i < channel->count && channel->deliveries[i].tag != tag)
        i++;
    return i;
}

/* 10.16, 10.17 */
static void do_settle(struct reference *r, const struct command *command, enum model_settlement how)
{
    struct model_channel *channel = &r->channels[command->channel];
    const bool limited = channel->global_prefetch > 0;

    if (command->unknown) {
        refuse(r, command->channel, 406);
        return;
    }
    uint32_t index = find_tag(channel, command->tag);
    assert(index < channel->count);
    if (!command->multiple) {
        settle_or_hold(r, command->channel, index, how);
    } else {
        for (uint32_t i = 0; i < channel->count && channel->deliveries[i].tag <= command->tag;) {
            const uint32_t before = channel->count;
            if (channel->deliveries[i].held == NOT_HELD)
                settle_or_hold(r, command->channel, i, how);
            i += channel->count == before;
        }
    }
    if (limited)
        wake_channel(r, command->channel);
    drop_overflows(r);
}

/* 10.18; what a transaction holds is settled already. */
static void do_recover(struct reference *r, const struct command *command)
{
    struct model_channel *channel = &r->channels[command->channel];

    for (uint32_t i = 0; i < channel->count;)
        if (channel->deliveries[i].held == NOT_HELD)
            settle(r, command->channel, i, RETURN);
        else
            i++;
    wake_channel(r, command->channel);
    drop_overflows(r);
}

/* 9.16: one refusal refuses all. */
static bool would_be_taken(const struct reference *r, const struct model_channel *channel)
{
    uint32_t counts[MODEL_QUEUES] = {0};
    int bytes[MODEL_QUEUES] = {0};

    for (uint32_t i = 0; i < channel->held_count; i++) {
        const struct model_message *message = message_at(channel->held[i].message);
        uint8_t targets[MODEL_QUEUES];
        const size_t count = route(r, message->exchange, message->key, targets);
        for (size_t n = 0; n < count; n++) {
            counts[targets[n]]++;
            bytes[targets[n]] += message->size;
            if (r->queues[targets[n]].options.overflow != 0 &&
                is_over(&r->queues[targets[n]], counts[targets[n]], bytes[targets[n]]))
                return false;
        }
    }
    return true;
}

static void settle_held(struct reference *r, int number)
{
    struct model_channel *channel = &r->channels[number];

    for (;;) { /* in the order in which they were said */
        uint32_t first = channel->count;
        for (uint32_t i = 0; i < channel->count; i++)
            if (channel->deliveries[i].held != NOT_HELD &&
                (first == channel->count ||
                 channel->deliveries[i].held_place < channel->deliveries[first].held_place))
                first = i;
        if (first == channel->count)
            break;
        settle(r, number, first, (enum model_settlement)channel->deliveries[first].held);
    }
    drop_overflows(r);
}

static void commit(struct reference *r, const struct command *command)
{
    struct model_channel *channel = &r->channels[command->channel];

    if (!would_be_taken(r, channel)) {
        refuse(r, command->channel, 406);
        return;
    }
    for (uint32_t i = 0; i < channel->held_count && !r->full; i++)
        publish(r, command->channel, channel->held[i].message, channel->held[i].mandatory);
    memset(channel->held, 0, sizeof(channel->held));
    channel->held_count = 0;
    doing.takes_letters = true;
    settle_held(r, command->channel); /* 9.15: publishes first */
    doing.takes_letters = false;
    run_letters(r, false);
    if (channel->global_prefetch > 0)
        wake_channel(r, command->channel);
}

static void rollback(struct reference *r, const struct command *command)
{
    struct model_channel *channel = &r->channels[command->channel];

    memset(channel->held, 0, sizeof(channel->held));
    channel->held_count = 0;
    for (uint32_t i = 0; i < channel->count; i++)
        channel->deliveries[i].held = NOT_HELD; /* 9.17 */
}

static void set_qos(struct reference *r, const struct command *command)
{
    struct model_channel *channel = &r->channels[command->channel];

    if (!command->global) {
        channel->prefetch = command->prefetch; /* 10.2 */
        return;
    }
    channel->global_prefetch = command->prefetch;
    wake_channel(r, command->channel);
}

static void sync_all(struct world *world)
{
    world->now.held = world->has_under_way = false;
    world->now.durable = world->now.batch++;
    world->now.dirty = false;
}

static void sync_batch(struct world *world)
{
    if (!world->now.held || !world->has_under_way)
        return;
    world->durable = world->under_way;
    world->now.durable = world->under_way.batch;
    world->has_under_way = false;
}

static void act(struct world *world, const struct command *command)
{
    struct reference *r = &world->now;
    const int channel = command->channel;

    switch (command->kind) {
    case COMMAND_DECLARE:
        declare(r, command);
        return;
    case COMMAND_DELETE:
        do_delete(r, command);
        return;
    case COMMAND_PURGE:
        purge(r, command);
        return;
    case COMMAND_BIND:
        bind(r, command);
        return;
    case COMMAND_UNBIND:
        unbind(r, command);
        return;
    case COMMAND_PUBLISH:
        do_publish(r, command);
        return;
    case COMMAND_GET:
        get(r, command);
        return;
    case COMMAND_CONSUME:
        consume(r, command);
        return;
    case COMMAND_CANCEL:
        detach(r, &r->queues[command->queue], channel);
        return;
    case COMMAND_ACK:
        do_settle(r, command, ACK);
        return;
    case COMMAND_NACK:
        do_settle(r, command, command->requeue ? REQUEUE : REJECT);
        return;
    case COMMAND_REJECT:
        do_settle(r, command, command->requeue ? RETURN : REJECT);
        return;
    case COMMAND_RECOVER:
        do_recover(r, command);
        return;
    case COMMAND_QOS:
        set_qos(r, command);
        return;
    case COMMAND_CONFIRM:
        r->channels[channel].mode = CONFIRM;
        r->channels[channel].publishes = 0;
        return;
    case COMMAND_TX:
        r->channels[channel].mode = TX;
        return;
    case COMMAND_COMMIT:
        commit(r, command);
        return;
    case COMMAND_ROLLBACK:
        rollback(r, command);
        return;
    case COMMAND_CLOSE:
        close_channel(r, channel);
        return;
    case COMMAND_BREAK:
        end_connection(r, command->connection);
        return;
    case COMMAND_MEMORY:
        r->scarce = !command->ample;
        return;
    case COMMAND_HOLD:
        world->durable = *r;
        r->held = true;
        return;
    case COMMAND_SYNC:
        if (command->all)
            sync_all(world);
        else
            sync_batch(world);
        return;
    case COMMAND_RESTART:
        restart(world);
        return;
    case COMMAND_KILL:
        crash(world);
        return;
    case COMMAND_ADVANCE:
    case COMMAND_KINDS:
        break;
    }
    abort();
}

static bool uses_channel(enum command_kind kind)
{
    return kind < COMMAND_BREAK;
}

void world_do(struct world *world, const struct command *command, struct choices *choices,
              struct events *events)
{
    choosing = choices;
    doing.events = events;
    doing.letter_count = 0;
    doing.batch_leaves = false;
    events->count = 0;
    if (uses_channel(command->kind))
        world->now.channels[command->channel].open = true;
    act(world, command);
    run(world);
}

void world_advance(struct world *world, uint64_t now, struct choices *choices,
                   struct events *events)
{
    choosing = choices;
    doing.events = events;
    doing.letter_count = 0;
    doing.batch_leaves = false;
    events->count = 0;
    world->now.now = now;
    run(world);
}

void world_copy(struct world *to, const struct world *from)
{
    to->now = from->now;
    to->has_under_way = from->has_under_way;
    if (from->now.held)
        to->durable = from->durable;
    if (from->has_under_way)
        to->under_way = from->under_way;
}

bool world_equals(const struct world *a, const struct world *b)
{
    return memcmp(&a->now, &b->now, sizeof(a->now)) == 0 && a->has_under_way == b->has_under_way &&
           (!a->now.held || memcmp(&a->durable, &b->durable, sizeof(a->durable)) == 0) &&
           (!a->has_under_way || memcmp(&a->under_way, &b->under_way, sizeof(a->under_way)) == 0);
}

uint64_t world_next_deadline(const struct world *world)
{
    uint64_t next = NEVER;

    for (int i = 0; i < MODEL_QUEUES; i++) {
        const struct model_queue *queue = &world->now.queues[i];
        if (queue->exists)
            next = min_of(next, min_of(queue->unused_deadline, next_due(queue)));
    }
    return next;
}

void world_init(struct world *world, bool clean_restarts)
{
    memset(world, 0, sizeof(*world));
    world->now.clean_restarts = clean_restarts;
    world->now.batch = 1;
}

static uint32_t count_entries(const struct reference *r)
{
    uint32_t count = 0;

    for (int i = 0; i < MODEL_QUEUES; i++)
        count += r->queues[i].count;
    return count;
}

/* The n-th delivery that its client may settle. */
static bool pick_tag(const struct model_channel *channel, struct command *command)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < channel->count; i++)
        count += channel->deliveries[i].held == NOT_HELD;
    if (command->unknown || count == 0)
        return command->unknown;
    uint32_t left = (uint32_t)command->which % count;
    for (uint32_t i = 0; i < channel->count; i++)
        if (channel->deliveries[i].held == NOT_HELD && left-- == 0)
            command->tag = channel->deliveries[i].tag;
    return true;
}

static unsigned count_consumers_of(const struct reference *r, int channel)
{
    unsigned count = 0;

    for (int i = 0; i < MODEL_QUEUES; i++)
        count += r->queues[i].consumers[channel].turn != ABSENT;
    return count;
}

bool world_resolve(const struct world *world, struct command *command)
{
    const struct reference *r = &world->now;
    const struct model_channel *channel = &r->channels[command->channel];
    const bool has = r->queues[command->queue].consumers[command->channel].turn != ABSENT;

    switch (command->kind) {
    case COMMAND_PUBLISH:
        return count_entries(r) < ENTRIES_MAX - 24 && channel->held_count < HELD_MAX - 4;
    case COMMAND_CONSUME:
        /* A limit shared by several consumers has no order of queues. */
        return !has &&
               (channel->global_prefetch == 0 || count_consumers_of(r, command->channel) == 0);
    case COMMAND_CANCEL:
        return has;
    case COMMAND_QOS:
        return !command->global || count_consumers_of(r, command->channel) < 2;
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_REJECT:
        return pick_tag(channel, command);
    case COMMAND_CONFIRM:
        return channel->mode == PLAIN;
    case COMMAND_TX:
        return channel->mode == PLAIN;
    case COMMAND_COMMIT:
    case COMMAND_ROLLBACK:
        return channel->mode == TX;
    case COMMAND_HOLD:
        return !r->held;
    case COMMAND_SYNC:
        return r->held;
    default:
        return true;
    }
}

void world_set_tag(struct world *world, const struct event *event, uint64_t tag)
{
    struct model_channel *channel = &world->now.channels[event->channel];
    uint32_t index = 0;

    while (index < channel->count && !(channel->deliveries[index].tag == 0 &&
                                       channel->deliveries[index].queue == event->queue &&
                                       channel->deliveries[index].position == event->position))
        index++;
    if (index == channel->count)
        return;
    struct model_delivery delivery = channel->deliveries[index];
    delivery.tag = tag;
    /* Those without a tag yet stand behind those that have one, which are in order. */
    for (; index > 0 &&
           (channel->deliveries[index - 1].tag == 0 || channel->deliveries[index - 1].tag > tag);
         index--)
        channel->deliveries[index] = channel->deliveries[index - 1];
    channel->deliveries[index] = delivery;
}

bool world_may_confirm(const struct world *world, uint32_t origin)
{
    const struct reference *r = &world->now;

    for (int i = 0; i < MODEL_QUEUES; i++)
        for (uint32_t n = 0; n < r->queues[i].count; n++) {
            const struct model_entry *entry = &r->queues[i].entries[n];
            if (entry->awaited && entry->batch > r->durable &&
                message_at(entry->message)->origin == origin)
                return false;
        }
    return true;
}
