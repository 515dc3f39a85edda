#include "tests/sim/model.h"

#include "amqp/wire.h"
#include "base/alloc.h"
#include "tests/sim/trace.h"

/* ---- lives ---- */

static uint64_t open_lsn(const struct model *model)
{
    return store_open_lsn(model->broker->store);
}

static struct model_life begin_life(const struct model *model, bool durable)
{
    return (struct model_life){.durable = durable, .made_lsn = durable ? open_lsn(model) : 0};
}

static void end_life(struct model_life *life, uint64_t lsn)
{
    assert(!life->ended);
    life->ended = true;
    life->ended_lsn = lsn;
}

static bool survives(const struct model_life *life, uint64_t durable)
{
    return life->durable && life->made_lsn <= durable &&
           !(life->ended && life->ended_lsn <= durable);
}

static void await(uint64_t *lsn, uint64_t needed)
{
    *lsn = max_of(*lsn, needed);
}

/* ---- beginning and end ---- */

static struct model_exchange *add_exchange(struct model *model, const char *name,
                                           enum model_type type)
{
    struct model_exchange *exchange = xcalloc(1, sizeof(*exchange));
    snprintf(exchange->name, sizeof(exchange->name), "%s", name);
    exchange->type = type;
    TAILQ_INSERT_TAIL(&model->exchanges, exchange, link);
    return exchange;
}

void model_init(struct model *model, struct broker *broker)
{
    *model = (struct model){.broker = broker};
    TAILQ_INIT(&model->queues);
    TAILQ_INIT(&model->exchanges);
    TAILQ_INIT(&model->bindings);
    add_exchange(model, "amq.direct", MODEL_DIRECT)->life.durable = true;
    add_exchange(model, "amq.fanout", MODEL_FANOUT)->life.durable = true;
    add_exchange(model, "amq.topic", MODEL_TOPIC)->life.durable = true;
}

void model_release(struct model *model)
{
    struct model_queue *queue;
    struct model_exchange *exchange;
    struct model_binding *binding;

    while ((queue = TAILQ_FIRST(&model->queues)) != NULL) {
        TAILQ_REMOVE(&model->queues, queue, link);
        free(queue->entries);
        free(queue);
    }
    while ((exchange = TAILQ_FIRST(&model->exchanges)) != NULL) {
        TAILQ_REMOVE(&model->exchanges, exchange, link);
        free(exchange);
    }
    while ((binding = TAILQ_FIRST(&model->bindings)) != NULL) {
        TAILQ_REMOVE(&model->bindings, binding, link);
        free(binding);
    }
    free(model->messages);
}

/* ---- messages ---- */

struct model_message *model_add_message(struct model *model)
{
    enum { PIECE = 1024 };
    if (model->message_count % PIECE == 0)
        model->messages =
            xrealloc(model->messages, model->message_count + PIECE + 1, sizeof(*model->messages));
    struct model_message *message = &model->messages[++model->message_count];
    *message = (struct model_message){.id = model->message_count};
    return message;
}

void model_write_body(const struct model_message *message, uint8_t *out)
{
    assert(message->size >= MODEL_BODY_MIN);
    amqp_put_u32(out, message->id);
    for (uint32_t i = MODEL_BODY_MIN; i < message->size; i++)
        out[i] = (uint8_t)(message->id * 7 + i);
}

/* ---- finding ---- */

struct model_queue *model_find_queue(struct model *model, const char *name)
{
    struct model_queue *queue;
    TAILQ_FOREACH (queue, &model->queues, link)
        if (!queue->life.ended && strcmp(queue->name, name) == 0)
            return queue;
    return NULL;
}

struct model_exchange *model_find_exchange(struct model *model, const char *name)
{
    struct model_exchange *exchange;
    TAILQ_FOREACH (exchange, &model->exchanges, link)
        if (!exchange->life.ended && strcmp(exchange->name, name) == 0)
            return exchange;
    return NULL;
}

static struct model_binding *find_binding(struct model *model,
                                          const struct model_exchange *exchange,
                                          const struct model_queue *queue, const char *key)
{
    struct model_binding *binding;
    TAILQ_FOREACH (binding, &model->bindings, link)
        if (!binding->life.ended && binding->exchange == exchange && binding->queue == queue &&
            strcmp(binding->key, key) == 0)
            return binding;
    return NULL;
}

struct model_entry *model_find_entry(struct model_queue *queue, uint32_t id)
{
    for (size_t i = 0; i < queue->count; i++)
        if (queue->entries[i].id == id)
            return &queue->entries[i];
    return NULL;
}

static bool may_use(const struct model_queue *queue, const void *asking)
{
    return queue != NULL && (!queue->exclusive || queue->owner == asking);
}

/* ---- queues ---- */

bool model_declare_queue(struct model *model, const struct model_queue *wanted, uint64_t *lsn)
{
    const bool durable = wanted->life.durable && !wanted->exclusive;
    struct model_queue *queue = model_find_queue(model, wanted->name);

    if (queue == NULL) {
        queue = xcalloc(1, sizeof(*queue));
        *queue = *wanted;
        queue->life = begin_life(model, durable);
        TAILQ_INSERT_TAIL(&model->queues, queue, link);
    } else if (queue->exclusive != wanted->exclusive || queue->owner != wanted->owner ||
               queue->life.durable != durable || queue->auto_delete != wanted->auto_delete) {
        return false;
    }
    await(lsn, queue->life.made_lsn);
    return true;
}

static void end_exchange(struct model *model, struct model_exchange *exchange);

static void end_binding(struct model *model, struct model_binding *binding)
{
    struct model_exchange *exchange = binding->exchange;
    struct model_binding *other;

    end_life(&binding->life, open_lsn(model));
    if (!exchange->auto_delete || exchange->life.ended)
        return;
    TAILQ_FOREACH (other, &model->bindings, link)
        if (!other->life.ended && other->exchange == exchange)
            return;
    end_exchange(model, exchange);
}

static void end_exchange(struct model *model, struct model_exchange *exchange)
{
    struct model_binding *binding;

    end_life(&exchange->life, open_lsn(model));
    TAILQ_FOREACH (binding, &model->bindings, link)
        if (!binding->life.ended && binding->exchange == exchange)
            end_binding(model, binding);
}

static void end_queue(struct model *model, struct model_queue *queue)
{
    struct model_binding *binding;

    end_life(&queue->life, open_lsn(model));
    TAILQ_FOREACH (binding, &model->bindings, link)
        if (!binding->life.ended && binding->queue == queue)
            end_binding(model, binding);
    model->on_queue_deleted(queue);
    queue->consumers = queue->no_ack_takers = 0;
}

bool model_delete_queue(struct model *model, const char *name, const void *asking, uint64_t *lsn)
{
    struct model_queue *queue = model_find_queue(model, name);

    if (queue != NULL && !may_use(queue, asking))
        return false;
    if (queue != NULL)
        end_queue(model, queue);
    TAILQ_FOREACH (queue, &model->queues, link) /* also when somebody else has deleted it */
        if (queue->life.ended && queue->life.durable && strcmp(queue->name, name) == 0)
            await(lsn, queue->life.ended_lsn);
    return true;
}

/* The LSN of an end that an answer must wait for: none when nothing of it was ever handed to the
 * store. */
static void end_entry(const struct model *model, struct model_entry *entry, uint64_t *lsn)
{
    const uint64_t now = open_lsn(model);

    end_life(&entry->life, now);
    if (entry->life.durable && !store_lsn_is_open(model->broker->store, entry->life.made_lsn))
        await(lsn, now);
}

static struct queue *broker_queue(const struct model *model, const char *name)
{
    struct vhost *vhost = vhost_find(model->broker, SLICE("/"));
    struct map_link *link = map_find(&vhost->queues, slice_of_string(name));

    return link == NULL ? NULL : container_of(link, struct queue, by_name);
}

static uint32_t id_of(const struct message *message)
{
    assert(message->body_size >= MODEL_BODY_MIN);
    return amqp_get_u32(message_body(message).data);
}

static bool is_loaded(const struct queue *queue, uint32_t id)
{
    const struct segment *segment;

    TAILQ_FOREACH (segment, &queue->window.segments, link)
        for (uint64_t i = 0; segment->capacity > 0 && i < segment->end - segment->first; i++)
            if (segment->entries[i].message != NULL && id_of(segment->entries[i].message) == id)
                return true;
    return false;
}

/* Nothing ready is left: what is still there is unacked, and in memory. */
bool model_purge_queue(struct model *model, const char *name, const void *asking, uint32_t *count,
                       uint64_t *lsn)
{
    struct model_queue *queue = model_find_queue(model, name);

    if (!may_use(queue, asking))
        return false;
    const struct queue *real = broker_queue(model, name);
    check(real->window.ready_count == 0, "queue %s has ready entries after a purge", name);
    for (size_t i = 0; i < queue->count; i++) {
        struct model_entry *entry = &queue->entries[i];
        if (entry->life.ended || is_loaded(real, entry->id))
            continue;
        end_entry(model, entry, lsn);
        ++*count;
    }
    return true;
}

/* ---- exchanges and bindings ---- */

bool model_declare_exchange(struct model *model, const struct model_exchange *wanted, uint64_t *lsn)
{
    struct model_exchange *exchange = model_find_exchange(model, wanted->name);

    if (exchange == NULL) {
        exchange = add_exchange(model, wanted->name, wanted->type);
        exchange->auto_delete = wanted->auto_delete;
        exchange->life = begin_life(model, wanted->life.durable);
    } else if (exchange->type != wanted->type || exchange->life.durable != wanted->life.durable ||
               exchange->auto_delete != wanted->auto_delete) {
        return false;
    }
    await(lsn, exchange->life.made_lsn);
    return true;
}

void model_delete_exchange(struct model *model, const char *name, uint64_t *lsn)
{
    struct model_exchange *exchange = model_find_exchange(model, name);

    if (exchange != NULL)
        end_exchange(model, exchange);
    TAILQ_FOREACH (exchange, &model->exchanges, link)
        if (exchange->life.ended && exchange->life.durable && strcmp(exchange->name, name) == 0)
            await(lsn, exchange->life.ended_lsn);
}

bool model_bind(struct model *model, const char *exchange_name, const char *queue_name,
                const char *key, const void *asking, uint64_t *lsn)
{
    struct model_exchange *exchange = model_find_exchange(model, exchange_name);
    struct model_queue *queue = model_find_queue(model, queue_name);

    if (exchange == NULL || !may_use(queue, asking))
        return false;
    struct model_binding *binding = find_binding(model, exchange, queue, key);
    if (binding == NULL) {
        binding = xcalloc(1, sizeof(*binding));
        *binding = (struct model_binding){.exchange = exchange, .queue = queue};
        snprintf(binding->key, sizeof(binding->key), "%s", key);
        binding->life = begin_life(model, exchange->life.durable && queue->life.durable);
        TAILQ_INSERT_TAIL(&model->bindings, binding, link);
    }
    await(lsn, binding->life.made_lsn);
    return true;
}

bool model_unbind(struct model *model, const char *exchange_name, const char *queue_name,
                  const char *key, const void *asking, uint64_t *lsn)
{
    struct model_exchange *exchange = model_find_exchange(model, exchange_name);
    struct model_queue *queue = model_find_queue(model, queue_name);

    if (queue != NULL && !may_use(queue, asking))
        return false;
    if (exchange == NULL || queue == NULL)
        return true;
    struct model_binding *binding = find_binding(model, exchange, queue, key);
    if (binding != NULL)
        end_binding(model, binding);
    TAILQ_FOREACH (binding, &model->bindings, link)
        if (binding->life.ended && binding->life.durable && binding->exchange == exchange &&
            binding->queue == queue && strcmp(binding->key, key) == 0)
            await(lsn, binding->life.ended_lsn);
    return true;
}

/* ---- messages through it ---- */

static const char *word_end(const char *word)
{
    return word + strcspn(word, ".");
}

static const char *next_word(const char *word)
{
    const char *end = word_end(word);
    return *end == '.' ? end + 1 : NULL;
}

/* NULL stands for no more words. */
static bool topic_matches(const char *pattern, const char *key)
{
    if (pattern == NULL)
        return key == NULL;
    const size_t size = (size_t)(word_end(pattern) - pattern);
    if (size == 1 && *pattern == '#')
        return topic_matches(next_word(pattern), key) ||
               (key != NULL && topic_matches(pattern, next_word(key)));
    if (key == NULL)
        return false;
    const size_t key_size = (size_t)(word_end(key) - key);
    const bool same =
        (size == 1 && *pattern == '*') || (size == key_size && memcmp(pattern, key, size) == 0);
    return same && topic_matches(next_word(pattern), next_word(key));
}

static bool leads_to(struct model *model, const struct model_message *message,
                     const struct model_queue *queue)
{
    const struct model_binding *binding;

    if (message->exchange[0] == '\0')
        return strcmp(message->key, queue->name) == 0;
    TAILQ_FOREACH (binding, &model->bindings, link) {
        if (binding->life.ended || binding->queue != queue ||
            strcmp(binding->exchange->name, message->exchange) != 0)
            continue;
        if (binding->exchange->type == MODEL_FANOUT ||
            (binding->exchange->type == MODEL_DIRECT && strcmp(binding->key, message->key) == 0) ||
            (binding->exchange->type == MODEL_TOPIC && topic_matches(binding->key, message->key)))
            return true;
    }
    return false;
}

/* Forgets entries whose end nothing can undo any more. */
static void compact(struct model *model, struct model_queue *queue)
{
    const uint64_t durable = store_durable_entries(model->broker->store);
    size_t kept = 0;

    for (size_t i = 0; i < queue->count; i++) {
        const struct model_entry *entry = &queue->entries[i];
        if (!entry->life.ended || entry->in_flight ||
            (entry->life.durable && entry->life.ended_lsn > durable))
            queue->entries[kept++] = *entry;
    }
    queue->count = kept;
}

static void append(struct model *model, struct model_queue *queue,
                   const struct model_message *message)
{
    if (queue->count == queue->capacity) {
        compact(model, queue);
        if (queue->count >= queue->capacity / 2) {
            queue->capacity = queue->capacity == 0 ? 16 : 2 * queue->capacity;
            queue->entries = xrealloc(queue->entries, queue->capacity, sizeof(*queue->entries));
        }
    }
    struct model_entry *entry = &queue->entries[queue->count++];
    *entry = (struct model_entry){
        .id = message->id,
        .number = queue->next_number++,
        .position = MODEL_NOWHERE,
        .life = begin_life(model, message->persistent && queue->life.durable),
    };
}

void model_route(struct model *model, uint32_t id)
{
    struct model_message *message = &model->messages[id];
    struct model_queue *queue;

    assert(!message->routed);
    message->routed = message->unwanted = true;
    TAILQ_FOREACH (queue, &model->queues, link)
        if (!queue->life.ended && leads_to(model, message, queue)) {
            append(model, queue, message);
            message->unwanted = false;
        }
}

void model_settle(struct model *model, struct model_queue *queue, uint32_t id, bool tied,
                  uint64_t *lsn)
{
    if (queue->life.ended)
        return;
    struct model_entry *entry = model_find_entry(queue, id);
    check(entry != NULL && !entry->life.ended, "message %u of %s was lost while unacked", id,
          queue->name);
    end_entry(model, entry, lsn);
    entry->life.tied = tied;
}

void model_remove_consumer(struct model *model, struct model_queue *queue, bool exclusive,
                           bool no_ack)
{
    assert(queue->consumers > 0);
    queue->consumers--;
    if (exclusive)
        queue->exclusive_consumer = false;
    if (no_ack)
        queue->no_ack_takers--;
    if (queue->auto_delete && queue->consumers == 0)
        end_queue(model, queue);
}

void model_drop_exclusive(struct model *model, const void *owner)
{
    struct model_queue *queue;

    TAILQ_FOREACH (queue, &model->queues, link)
        if (!queue->life.ended && queue->exclusive && queue->owner == owner)
            end_queue(model, queue);
}

/* ---- looking at the broker ---- */

/* The walk through one queue, in the broker and in the model at once. */
struct walk {
    struct model *model;
    struct model_queue *queue;
    size_t next; /* entry of the model */
};

static struct model_entry *current(struct walk *walk)
{
    while (walk->next < walk->queue->count && walk->queue->entries[walk->next].life.ended)
        walk->next++;
    return walk->next < walk->queue->count ? &walk->queue->entries[walk->next] : NULL;
}

/* The broker does not have it any more. */
static void miss(struct walk *walk, struct model_entry *entry)
{
    check(walk->queue->no_ack_takers > 0, "message %u has vanished from queue %s", entry->id,
          walk->queue->name);
    end_life(&entry->life, walk->model->batch_lsn);
    entry->in_flight = true;
}

static void meet(struct walk *walk, uint32_t id, uint64_t position)
{
    struct model_entry *entry;

    while ((entry = current(walk)) != NULL && entry->id != id)
        miss(walk, entry);
    check(entry != NULL, "queue %s has message %u, which should not be there, or not there",
          walk->queue->name, id);
    check(entry->position == MODEL_NOWHERE || entry->position == position,
          "message %u of queue %s stood at %" PRIu64 " and stands at %" PRIu64, id,
          walk->queue->name, entry->position, position);
    entry->position = position;
    walk->next++;
}

/* Whether what stood at this position may be in the part: of a range, which tells no more than how
 * many it has, what the store cannot have is not. */
static bool may_hold(const struct segment *part, const struct model_entry *entry)
{
    if (entry->position < part->first || entry->position >= part->end)
        return false;
    return part->is_stub ? segment_is_ready(part, (uint32_t)(entry->position - part->first))
                         : entry->life.durable;
}

/* A part on disk: what stands there was seen in memory before, so that it is known by its place. */
static void meet_on_disk(struct walk *walk, const struct segment *part)
{
    size_t end = walk->next;
    uint64_t met = 0;

    for (size_t i = walk->next; i < walk->queue->count; i++)
        if (!walk->queue->entries[i].life.ended && walk->queue->entries[i].position < part->end)
            end = i + 1;
    for (; walk->next < end; walk->next++) {
        struct model_entry *entry = &walk->queue->entries[walk->next];
        if (entry->life.ended)
            continue;
        if (may_hold(part, entry))
            met++;
        else
            miss(walk, entry);
    }
    check(met == part->count, "queue %s has %" PRIu64 " entries on disk and should have %" PRIu64,
          walk->queue->name, part->count, met);
}

static void observe_queue(struct model *model, struct model_queue *queue)
{
    const struct queue *real = broker_queue(model, queue->name);
    struct walk walk = {model, queue, 0};
    const struct segment *segment;
    uint64_t alive = 0;

    check(real != NULL, "queue %s has vanished", queue->name);
    check(window_check(&real->window), "the window of queue %s contradicts itself", queue->name);
    TAILQ_FOREACH (segment, &real->window.segments, link) {
        alive += segment->count;
        if (segment_is_on_disk(segment))
            meet_on_disk(&walk, segment);
        for (uint64_t i = 0; segment->capacity > 0 && i < segment->end - segment->first; i++)
            if (segment->entries[i].message != NULL)
                meet(&walk, id_of(segment->entries[i].message), segment->first + i);
    }
    struct model_entry *entry;
    while ((entry = current(&walk)) != NULL)
        miss(&walk, entry);
    check(real->window.ready_count + real->window.unacked_count == alive,
          "queue %s counts %" PRIu64 " ready and %" PRIu64 " unacked but has %" PRIu64 " entries",
          queue->name, real->window.ready_count, real->window.unacked_count, alive);
    check(real->consumer_count == queue->consumers, "queue %s counts %u consumers of %u",
          queue->name, real->consumer_count, queue->consumers);
}

void model_observe(struct model *model)
{
    struct model_queue *queue;
    size_t count = 0;

    TAILQ_FOREACH (queue, &model->queues, link)
        if (!queue->life.ended) {
            observe_queue(model, queue);
            count++;
        }
    const struct vhost *vhost = vhost_find(model->broker, SLICE("/"));
    check(vhost->queues.count == count, "there are %zu queues and should be %zu",
          vhost->queues.count, count);
}

static size_t count_bindings(const struct model *model, const struct model_exchange *exchange)
{
    const struct model_binding *binding;
    size_t count = 0;

    TAILQ_FOREACH (binding, &model->bindings, link)
        count += !binding->life.ended && binding->exchange == exchange;
    return count;
}

void model_compare(struct model *model)
{
    enum { NOT_MODELLED = 4 }; /* default, headers, match, trace */
    struct vhost *vhost = vhost_find(model->broker, SLICE("/"));
    const struct model_exchange *exchange;
    size_t count = NOT_MODELLED;

    model_observe(model);
    TAILQ_FOREACH (exchange, &model->exchanges, link) {
        if (exchange->life.ended)
            continue;
        const struct exchange *real =
            vhost_find_exchange(vhost, slice_of_string(exchange->name), &(struct amqp_error){0});
        check(real != NULL, "exchange %s has vanished", exchange->name);
        check(real->binding_count == count_bindings(model, exchange),
              "exchange %s has %zu bindings and should have %zu", exchange->name,
              real->binding_count, count_bindings(model, exchange));
        count++;
    }
    check(vhost->exchanges.count == count, "there are %zu exchanges and should be %zu",
          vhost->exchanges.count, count);
}

void model_check_stored(struct model *model, uint32_t id)
{
    const uint64_t durable = store_durable_entries(model->broker->store);
    struct model_queue *queue;

    TAILQ_FOREACH (queue, &model->queues, link) {
        const struct model_entry *entry = queue->life.ended ? NULL : model_find_entry(queue, id);
        check(entry == NULL || entry->life.ended || entry->life.made_lsn <= durable,
              "message %u is promised; in queue %s it belongs to batch %" PRIu64 ", and %" PRIu64
              " is durable",
              id, queue->name, entry->life.made_lsn, durable);
    }
}

/* ---- after a crash ---- */

/* What has survived is as old as the disk; the rest is over for good. */
static void judge_as(struct model_life *life, bool alive)
{
    *life = alive ? (struct model_life){.durable = true}
                  : (struct model_life){.durable = false, .ended = true};
}

static void judge(struct model_life *life, uint64_t durable)
{
    judge_as(life, survives(life, durable));
}

static void on_looked(struct store_fetch *fetch)
{
    fetch->queue_id = 0; /* done */
}

static bool store_has(const struct model *model, const struct model_queue *queue, uint64_t position)
{
    struct store *store = model->broker->store;
    struct store_fetch look = {.queue_id = broker_queue(model, queue->name)->id,
                               .first = position,
                               .end = position + 1,
                               .count_max = 1,
                               .index_only = true,
                               .on_done = on_looked};

    store_fetch(store, &look);
    while (look.queue_id != 0)
        store_process(store);
    const bool found = look.count > 0;
    store_fetch_release(&look);
    return found;
}

static bool entry_survives(const struct model *model, const struct model_queue *queue,
                           const struct model_entry *entry, const struct model_durable *durable)
{
    const struct model_life *life = &entry->life;

    if (!life->durable || life->made_lsn > durable->entries)
        return false;
    if (!life->ended || life->ended_lsn > durable->any)
        return true;
    if (life->tied)
        return life->ended_lsn > durable->entries;
    return life->ended_lsn > durable->all && store_has(model, queue, entry->position);
}

static void recover_queue(struct model *model, struct model_queue *queue,
                          const struct model_durable *durable)
{
    size_t kept = 0;

    judge(&queue->life, durable->all);
    for (size_t i = 0; i < queue->count && !queue->life.ended; i++) {
        struct model_entry *entry = &queue->entries[i];
        judge_as(&entry->life, entry_survives(model, queue, entry, durable));
        entry->in_flight = false;
        if (!entry->life.ended)
            queue->entries[kept++] = *entry;
    }
    queue->count = kept;
    queue->owner = NULL;
    queue->consumers = queue->no_ack_takers = 0;
    queue->exclusive_consumer = false;
}

void model_recover(struct model *model, const struct model_durable *durable)
{
    struct model_queue *queue;
    struct model_exchange *exchange;
    struct model_binding *binding;

    model->empty_lsn = 0;
    TAILQ_FOREACH (queue, &model->queues, link)
        recover_queue(model, queue, durable);
    TAILQ_FOREACH (exchange, &model->exchanges, link)
        judge(&exchange->life, durable->all);
    TAILQ_FOREACH (binding, &model->bindings, link)
        judge(&binding->life, durable->all);
    model_compare(model);
}
