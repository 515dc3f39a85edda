/* The store's side of a turn. Whatever changes something durable calls broker_touch_store; in the
 * STORE phase the open batch is handed over if the one before has come back, else as soon as it
 * does: the store's eventfd wakes the loop, which first releases what waited for that LSN and then,
 * in the same turn, submits what has gathered meanwhile.
 *
 * While the store is full what it has no room for stays in the open batch, and publishers are
 * blocked (access/alarm). It is asked for room every ROOM_MS; consumers go on, and their acks take
 * entries back that wait, or join what goes. */
#include "core/broker.h"

#include <poll.h>

#include "amqp/wire.h"
#include "base/fault.h"
#include "base/log.h"
#include "core/account.h"
#include "core/definition.h"
#include "core/vhost.h"

enum { OPEN_BATCH_SIZE_MAX = 8 * 1024 * 1024, ROOM_MS = 200 };

/* The records of the broker's own: the highest queue id ever given out; and that the defaults have
 * been there, so that a user or vhost that was deleted does not come back. Definitions begin with
 * their kind, never with 0. */
static const struct slice queue_id_key = {(const uint8_t *)"\0queue-id", 9};
static const struct slice defaults_key = {(const uint8_t *)"\0defaults", 9};

static void on_body_done(void *owner)
{
    struct message *message = owner;

    if (message->publisher != NULL)
        publisher_unref(&message->publisher);
    message_unref(&message);
}

static void release_replies(struct broker *broker)
{
    uint64_t durable = store_durable(broker->store), entries = store_durable_entries(broker->store);

    if (fault_bug(FAULT_CONFIRM_BEFORE_COMMIT))
        durable = entries = store_open_lsn(broker->store) - 1;
    parking_release(&broker->parking, durable, entries);
}

static void submit(struct task *task)
{
    struct broker *broker = container_of(task, struct broker, store_task);

    if (!fault_bug(FAULT_SPLIT_DEAD_LETTER))
        dead_letters_run(broker);
    if (broker->store_error != 0 || store_is_busy(broker->store))
        return;
    /* Empty: all that was added has been taken back again, and replies may wait for it
     * (tx.commit-ok). */
    if (store_open_is_empty(broker->store))
        parking_release_empty(&broker->parking, store_open_lsn(broker->store));
    if (store_may_submit(broker->store))
        store_submit(broker->store);
    fault_point(FAULT_BATCH_SUBMITTED);
    if (fault_bug(FAULT_CONFIRM_BEFORE_COMMIT))
        release_replies(broker);
    if (fault_bug(FAULT_SPLIT_DEAD_LETTER))
        dead_letters_run(broker);
}

/* ---- room ---- */

static void on_room_timer(struct timer *timer)
{
    struct broker *broker = container_of(timer, struct broker, room_timer);

    if (!store_is_full(broker->store))
        return;
    store_ask_for_room(broker->store);
    timer_set(&broker->loop->timers, timer, broker->clock->now_ms + ROOM_MS);
    broker_touch_store(broker);
}

static void watch_room(struct broker *broker)
{
    const bool full = store_is_full(broker->store);

    if (full == broker->was_full)
        return;
    broker->was_full = full;
    if (full)
        timer_set(&broker->loop->timers, &broker->room_timer, broker->clock->now_ms + ROOM_MS);
    else
        timer_cancel(&broker->room_timer);
    if (broker->on_store_full != NULL)
        broker->on_store_full(broker);
}

static void on_store_ready(struct source *source, uint32_t events)
{
    struct broker *broker = container_of(source, struct broker, store_source);
    (void)events;

    int error = store_process(broker->store);
    if (broker->store_error != 0)
        return;
    fault_point(FAULT_BATCH_BACK);
    release_replies(broker);
    fault_point(FAULT_REPLIES_RELEASED);
    paging_on_progress(&broker->paging);
    watch_room(broker);
    broker_touch_store(broker);
    if (error != 0) {
        broker->store_error = error;
        log_critical("the store has failed: %s; nothing more can be made durable",
                     strerror(-error));
        broker->on_store_failure(broker);
    }
}

bool broker_store_is_full(const struct broker *broker)
{
    return store_open_bytes(broker->store) > OPEN_BATCH_SIZE_MAX;
}

bool broker_lacks_room(const struct broker *broker)
{
    return store_is_full(broker->store) && broker_store_is_full(broker);
}

void broker_spend(struct broker *broker, size_t steps)
{
    if (broker->steps_turn != broker->loop->turns)
        broker->steps = 0;
    broker->steps_turn = broker->loop->turns;
    broker->steps += steps;
    broker->overspent = broker->steps > TURN_STEPS_MAX;
}

void broker_renew_steps(struct broker *broker)
{
    broker->steps = 0;
}

uint64_t broker_new_queue_ids(struct broker *broker, uint64_t count)
{
    uint64_t first = broker->next_queue_id, last = first + count - 1;
    uint8_t value[8];

    broker->next_queue_id += count;
    amqp_put_u64(value, last);
    store_put_record(broker->store, queue_id_key, slice_of(value, sizeof(value)));
    broker_touch_store(broker);
    return first;
}

/* ---- recovery ---- */

struct recovery {
    struct broker *broker;
    size_t records, queues, skipped;
    uint64_t messages;
    bool has_defaults;
};

/* An id that the store has seen is not given out again, even if the record that says so is lost. */
static void keep_queue_id(struct broker *broker, uint64_t id)
{
    broker->next_queue_id = max_of(broker->next_queue_id, id + 1);
}

static void on_record(void *context, struct slice key, struct slice value)
{
    struct recovery *recovery = context;

    recovery->records++;
    if (slice_equal(key, defaults_key)) {
        recovery->has_defaults = true;
        return;
    }
    if (quarantine_recover_record(&recovery->broker->quarantine, key, value))
        return;
    if (!slice_equal(key, queue_id_key)) {
        if (!definition_recover(recovery->broker, key, value))
            recovery->skipped++;
        return;
    }
    struct amqp_reader reader = amqp_reader_of(value);
    keep_queue_id(recovery->broker, amqp_read_u64(&reader));
}

/* A queue with priorities has an id for each, upwards from its own. */
static struct queue *find_queue(const struct broker *broker, uint64_t id)
{
    for (unsigned level = 0; level <= UINT8_MAX && level < id; level++) {
        struct map_link *link = map_find_id(&broker->queues, id - level);
        if (link == NULL)
            continue;
        struct queue *queue = container_of(link, struct queue, by_id);
        return level <= queue->settings.priority_max ? queue : NULL;
    }
    return NULL;
}

static void on_finding(void *context, const struct store_finding *finding)
{
    struct queue *queue = find_queue(context, finding->queue_id);

    if (queue != NULL)
        queue_on_finding(queue, finding);
}

static void on_queue(void *context, const struct store_queue_state *state)
{
    struct recovery *recovery = context;
    struct queue *queue = find_queue(recovery->broker, state->queue_id);

    keep_queue_id(recovery->broker, state->queue_id);
    if (quarantine_recover_queue(&recovery->broker->quarantine, state))
        return;
    if (queue == NULL) {
        log_warning("the store holds %" PRIu64 " messages of a queue (%" PRIu64
                    ") whose definition cannot be read; they are left alone",
                    state->count, state->queue_id);
        recovery->skipped++;
        return;
    }
    recovery->queues += state->queue_id == queue->id;
    keep_queue_id(recovery->broker, queue->id + queue->settings.priority_max);
    queue_recover_entries(queue, state);
    recovery->messages += state->count;
}

static bool has_lost(const struct store *store)
{
    struct store_stats stats;

    store_get_stats(store, &stats);
    return stats.damaged > 0 || store_get_salvage(store)->ever;
}

static int recover(struct broker *broker)
{
    struct recovery recovery = {.broker = broker};
    struct store_recovery walk = {
        .context = &recovery, .on_record = on_record, .on_queue = on_queue};

    int error = store_recover(broker->store, &walk);
    if (error != 0) {
        if (error != -ECANCELED)
            log_error("cannot read the store: %s", strerror(-error));
        return error;
    }
    if (recovery.records > 0)
        log_info("recovered %zu definitions and %" PRIu64 " messages in %zu queues after %s stop",
                 recovery.records, recovery.messages, recovery.queues,
                 walk.was_clean ? "a clean" : "an unclean");
    if (recovery.skipped > 0)
        log_error("%zu records of the store could not be understood and were skipped",
                  recovery.skipped);
    broker->has_defaults = recovery.has_defaults;
    broker->has_lost = has_lost(broker->store);
    return 0;
}

/* ---- the first start ---- */

static void create_default_user(struct broker *broker, const struct broker_defaults *defaults)
{
    struct password password;
    uint8_t salt[PASSWORD_SALT_SIZE];
    char error[PATTERN_ERROR_SIZE];
    uint64_t lsn;

    random_bytes(broker->random, salt, sizeof(salt));
    password_make(&password, salt, defaults->password_cost, defaults->password);
    struct user *user = account_create(broker, defaults->user, &password, &lsn);
    account_set_tags(broker, user, defaults->tags, &lsn);
    map_each (&broker->vhosts, link) {
        const struct vhost *vhost = container_of(link, struct vhost, by_name);
        if (!account_set_grant(broker, user, vhost, defaults->permissions, &lsn, error))
            log_error("the default permissions cannot be given: %s", error);
    }
}

/* A store of an earlier version has vhosts, and no users. */
bool broker_give_defaults(struct broker *broker, const struct broker_defaults *defaults)
{
    if (broker->has_defaults)
        return false;
    broker->has_defaults = true;
    if (broker->vhosts.count == 0)
        vhost_new(broker, defaults->vhost, false);
    if (broker->users.by_name.count == 0 && !broker->has_lost && defaults->user.size > 0)
        create_default_user(broker, defaults);
    store_put_record(broker->store, defaults_key, slice_of("\1", 1));
    broker_touch_store(broker);
    return true;
}

int broker_init(struct broker *broker, struct loop *loop, struct clock *clock,
                struct random *random, struct store *store)
{
    *broker = (struct broker){
        .loop = loop,
        .clock = clock,
        .random = random,
        .store = store,
        .next_queue_id = 1,
        .store_task.run = submit,
        .room_timer.on_expire = on_room_timer,
        .store_source = {.fd = store_fd(store), .on_ready = on_store_ready},
    };
    STAILQ_INIT(&broker->overfull);
    users_init(&broker->users);
    paging_init(&broker->paging, loop, &broker->remains);
    remains_init(&broker->remains, loop);
    dead_letters_init(broker);
    quarantine_init(&broker->quarantine, broker);
    store_on_body_done(store, on_body_done);
    store_on_finding(store, on_finding, broker);
    int error = loop_watch(loop, &broker->store_source);
    if (error != 0)
        return error;
    error = recover(broker);
    if (error != 0) {
        broker_release(broker);
        return error;
    }
    parking_init(&broker->parking, store_durable(store));
    late_confirms_init(broker);
    if (broker->has_defaults || broker->has_lost)
        account_report_losses(broker);
    if (broker->restored)
        account_save_all(broker);
    return 0;
}

static void on_scratch_ready(struct source *source, uint32_t events)
{
    struct broker *broker = container_of(source, struct broker, scratch_source);
    (void)events;

    scratch_process(broker->scratch);
}

int broker_set_scratch(struct broker *broker, struct scratch *scratch)
{
    broker->scratch_source =
        (struct source){.fd = scratch_fd(scratch), .on_ready = on_scratch_ready};
    const int error = loop_watch(broker->loop, &broker->scratch_source);
    if (error == 0)
        broker->scratch = scratch;
    return error;
}

/* The threads still write to the fetches under way. */
static void wait_for_fetches(struct broker *broker)
{
    struct pollfd ready[] = {{.fd = broker->store_source.fd, .events = POLLIN},
                             {.fd = broker->scratch_source.fd, .events = POLLIN}};

    while (broker->fetches > 0) {
        poll(ready, broker->scratch != NULL ? 2 : 1, -1);
        store_process(broker->store);
        if (broker->scratch != NULL)
            scratch_process(broker->scratch);
    }
}

void broker_release(struct broker *broker)
{
    struct map_link *link;

    broker->is_ending = true;
    wait_for_fetches(broker);
    dead_letters_run(broker); /* of the last turn, as far as it may */
    dead_letters_end(broker);
    late_confirms_release(broker);

    timer_cancel(&broker->room_timer);
    loop_unqueue(broker->loop, &broker->store_task);
    loop_unwatch(broker->loop, &broker->store_source);
    while ((link = map_next(&broker->vhosts, NULL)) != NULL) {
        struct vhost *vhost = container_of(link, struct vhost, by_name);
        vhost_free(&vhost);
    }
    map_release(&broker->vhosts);
    map_release(&broker->queues);
    users_release(&broker->users);
    paging_release(&broker->paging);
    remains_release(&broker->remains);
    quarantine_release(&broker->quarantine);
    if (broker->scratch != NULL) {
        loop_unwatch(broker->loop, &broker->scratch_source);
        scratch_close(&broker->scratch);
    }
}
