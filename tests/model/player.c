#include "tests/model/player.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/model/reference.h"
#include "tests/model/subject.h"

enum { WORLDS_MAX = 256, WAYS_MAX = 20000 };

static struct {
    const struct play_options *options;
    struct play_figures *figures;
    char *failure; /* room for FAILURE_SIZE */
    struct sights sights;
    struct events events;         /* of the world tried last */
    struct world *worlds, *tried; /* those that agree so far; those that agree with the next, too */
    size_t world_count;
    uint32_t published;
} player;

static void say(const char *format, ...) printf_like(1, 2);
static void say(const char *format, ...)
{
    const size_t used = strlen(player.failure);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(player.failure + used, FAILURE_SIZE - used, format, arguments);
    va_end(arguments);
}

/* ---- comparing ---- */

static const char *exchange_name(int exchange)
{
    static const char *const names[MODEL_EXCHANGES] = {"", "x1", "x2"};
    return names[exchange];
}

/* A consumer's stream is in order, and so is what else a channel gets; streams do not wait for each
 * other. */
static int stream_of(enum event_kind kind, int queue)
{
    switch (kind) {
    case DELIVERED:
    case CANCELLED:
        return queue;
    case RETURNED:
        return MODEL_QUEUES;
    case REFUSED:
        return MODEL_QUEUES + 1;
    default:
        return MODEL_QUEUES + 2;
    }
}

static bool content_agrees(const struct event *event, const struct sight *sight)
{
    const struct model_message *message = message_at(event->message);
    char text[HEADERS_MAX];

    command_body(message->origin, message->size, text);
    if (strcmp(text, sight->body) != 0 ||
        strcmp(exchange_name(message->exchange), sight->exchange) != 0 ||
        sight->key[1] != '0' + message->key || sight->delivery_mode != 2 * message->persistent ||
        sight->priority != message->priority || sight->expiration != message->expiration)
        return false;
    message_headers(message, event->acquired, event->failed, text, sizeof(text));
    return strcmp(text, sight->headers) == 0;
}

static bool event_agrees(const struct event *event, const struct sight *sight)
{
    if (event->kind != sight->kind)
        return false;
    switch (event->kind) {
    case DELIVERED:
        return event->redelivered == sight->redelivered && content_agrees(event, sight);
    case GOT:
        return event->redelivered == sight->redelivered && event->number == sight->number &&
               content_agrees(event, sight);
    case RETURNED:
        return content_agrees(event, sight);
    case CLOSED:
    case REFUSED:
        return event->number == sight->number;
    default:
        return true;
    }
}

static bool events_agree(struct world *world, const struct events *events)
{
    bool used[EVENTS_MAX] = {false};

    if (events->count != player.sights.count)
        return false;
    for (size_t i = 0; i < player.sights.count; i++) {
        const struct sight *sight = &player.sights.list[i];
        const int stream = stream_of(sight->kind, sight->queue);
        const struct event *event = events->list;
        while (event < events->list + events->count &&
               (used[event - events->list] || event->channel != sight->channel ||
                stream_of(event->kind, event->queue) != stream))
            event++;
        if (event == events->list + events->count || !event_agrees(event, sight))
            return false;
        used[event - events->list] = true;
        if (event->acknowledges)
            world_set_tag(world, event, sight->tag);
    }
    return true;
}

static bool confirms_agree(const struct world *world)
{
    for (size_t i = 0; i < player.sights.ack_count; i++)
        if (!world_may_confirm(world, player.sights.acks[i]))
            return false;
    return world->now.held || !subject_awaits_confirms();
}

static bool counts_agree(const struct world *world)
{
    for (int i = 0; i < MODEL_QUEUES; i++) {
        const struct model_queue *queue = &world->now.queues[i];
        const uint32_t ready = model_count_ready(queue);
        struct subject_counts counts;
        if (queue->exists != subject_count(i, &counts))
            return false;
        if (queue->exists && (counts.ready != ready || counts.unacked != queue->count - ready ||
                              counts.consumers != model_count_consumers(queue)))
            return false;
    }
    return true;
}

/* ---- worlds ---- */

static bool is_known(const struct world *world, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (world_equals(&player.tried[i], world))
            return true;
    return false;
}

static bool is_over(void)
{
    for (size_t i = 0; i < player.world_count; i++)
        if (player.worlds[i].now.full)
            return true;
    return false;
}

/* Each world goes on in each way that it may; command NULL: to the time `now`. */
static void follow(const struct command *command, uint64_t now)
{
    size_t count = 0, ways = 0;

    for (size_t i = 0; i < player.world_count; i++) {
        struct choices choices = {0};
        do {
            if (ways++ == WAYS_MAX || count == WORLDS_MAX - 1) { /* too free: it ends here */
                player.worlds[i].now.full = true;
                return;
            }
            struct world *world = &player.tried[count];
            world_copy(world, &player.worlds[i]);
            if (command != NULL)
                world_do(world, command, &choices, &player.events);
            else
                world_advance(world, now, &choices, &player.events);
            const bool agrees = world->now.full || (events_agree(world, &player.events) &&
                                                    confirms_agree(world) && counts_agree(world));
            if (agrees && !is_known(world, count))
                count++;
        } while (choices_next(&choices));
    }
    struct world *worlds = player.worlds;
    player.worlds = player.tried;
    player.tried = worlds;
    player.world_count = count;
    player.figures->worlds_max = max_of(player.figures->worlds_max, count);
}

/* ---- what went wrong ---- */

static const char *const kind_names[] = {"delivered", "cancelled", "got",    "got nothing",
                                         "returned",  "closed",    "refused"};

static void say_events(void)
{
    char headers[HEADERS_MAX];

    for (size_t i = 0; i < player.events.count; i++) {
        const struct event *event = &player.events.list[i];
        say("  expected on channel %d: %s", event->channel, kind_names[event->kind]);
        if (event->kind == DELIVERED || event->kind == GOT || event->kind == RETURNED) {
            const struct model_message *message = message_at(event->message);
            message_headers(message, event->acquired, event->failed, headers, sizeof(headers));
            say(" from q%d: %04u to '%s' q%u%s, %s", event->queue, message->origin,
                exchange_name(message->exchange), message->key,
                event->redelivered ? ", redelivered" : "", headers);
        }
        if (event->kind == CLOSED || event->kind == REFUSED || event->kind == GOT)
            say(" (%u)", event->number);
        say("\n");
    }
}

static void say_sights(void)
{
    for (size_t i = 0; i < player.sights.count; i++) {
        const struct sight *sight = &player.sights.list[i];
        say("  came on channel %d: %s", sight->channel, kind_names[sight->kind]);
        if (sight->kind == DELIVERED || sight->kind == GOT || sight->kind == RETURNED)
            say(" from q%d: %.4s to '%s' %s%s, %s", sight->queue, sight->body, sight->exchange,
                sight->key, sight->redelivered ? ", redelivered" : "", sight->headers);
        if (sight->kind == CLOSED || sight->kind == REFUSED || sight->kind == GOT)
            say(" (%u)", sight->number);
        say("\n");
    }
}

static void say_counts(const struct world *world)
{
    for (int i = 0; i < MODEL_QUEUES; i++) {
        const struct model_queue *queue = &world->now.queues[i];
        const uint32_t ready = model_count_ready(queue);
        struct subject_counts counts = {0};
        const bool exists = subject_count(i, &counts);
        if (!queue->exists && !exists)
            continue;
        say("  q%d: expected %s%u ready, %u unacked, %u consumers; found %s%" PRIu64
            " ready, %" PRIu64 " unacked, %" PRIu64 " consumers\n",
            i, queue->exists ? "" : "none, ", ready, queue->count - ready,
            model_count_consumers(queue), exists ? "" : "none, ", counts.ready, counts.unacked,
            counts.consumers);
    }
}

/* The first world tells, as good as any. */
static void explain(const struct command *command, uint64_t now)
{
    struct choices choices = {0};
    struct world *world = &player.tried[0];

    if (player.sights.complaint[0] != '\0')
        say("  %s\n", player.sights.complaint);
    if (command != NULL)
        world_do(world, command, &choices, &player.events);
    else
        world_advance(world, now, &choices, &player.events);
    say("  at %" PRIu64 " ms\n", world->now.now);
    if (!confirms_agree(world))
        say("  publishes are confirmed too early, or not at all\n");
    say_events();
    say_sights();
    say_counts(world);
}

/* ---- playing ---- */

static void count_figures(void)
{
    struct play_figures *figures = player.figures;

    figures->confirmed += player.sights.ack_count;
    for (size_t i = 0; i < player.sights.count; i++) {
        const struct sight *sight = &player.sights.list[i];
        figures->deliveries += sight->kind == DELIVERED || sight->kind == GOT;
        figures->letters += (sight->kind == DELIVERED || sight->kind == GOT) &&
                            strstr(sight->headers, "x-death") != NULL;
        figures->refused += sight->kind == REFUSED;
        figures->closed += sight->kind == CLOSED;
    }
}

/* The broker has done it; so does each world. */
static bool compare(const struct command *command, uint64_t now)
{
    count_figures();
    if (player.sights.complaint[0] == '\0')
        follow(command, now);
    else
        player.tried[0] = player.worlds[0], player.world_count = 0;
    if (player.options->trace && player.world_count > 0) {
        say_sights();
        say_counts(&player.worlds[0]);
        fprintf(stderr, "%s", player.failure);
        player.failure[0] = '\0';
    }
    if (player.world_count > 0)
        return true;
    /* follow has left what was there before in `tried`. */
    explain(command, now);
    return false;
}

static bool do_one(const struct command *command)
{
    subject_do(command, &player.sights);
    return compare(command, 0);
}

/* From deadline to deadline, and to the millisecond before each: nothing happens too early. */
static bool advance(uint64_t ms)
{
    const uint64_t end = player.worlds[0].now.now + ms;

    for (;;) {
        const uint64_t now = player.worlds[0].now.now;
        uint64_t next = end;
        if (now == end || is_over())
            return true;
        for (size_t i = 0; i < player.world_count; i++)
            next = min_of(next, world_next_deadline(&player.worlds[i]));
        if (next > now + 1 && next != end)
            next--;
        subject_advance(next - now, &player.sights);
        if (!compare(NULL, next))
            return false;
    }
}

static bool play_command(const struct command *command)
{
    static const struct command sync_all = {.kind = COMMAND_SYNC, .all = 1};

    player.figures->commands++;
    player.figures->restarts += command->kind == COMMAND_RESTART;
    player.figures->kills += command->kind == COMMAND_KILL;
    if (subject_needs_disk(command) && !do_one(&sync_all))
        return false;
    return command->kind == COMMAND_ADVANCE ? advance((uint64_t)command->ms) : do_one(command);
}

static bool play_if_possible(struct command command)
{
    command_normalise(&command);
    if (player.options->lmdb != NULL && command.kind == COMMAND_HOLD)
        return true; /* nobody holds that disk */
    if (!world_resolve(&player.worlds[0], &command))
        return true;
    if (command.kind == COMMAND_PUBLISH) {
        command.origin = player.published + 1;
        player.published += (uint32_t)command.count;
    }
    if (player.options->trace)
        command_print(stderr, &command);
    return play_command(&command);
}

/* Clients go, and what is left in each queue comes out in order. */
static bool empty_queues(void)
{
    struct command leave = {.kind = COMMAND_BREAK};
    struct command get = {.kind = COMMAND_GET, .no_ack = 1};
    bool good = play_if_possible((struct command){.kind = COMMAND_SYNC, .all = 1});

    for (; good && leave.connection < MODEL_CONNECTIONS; leave.connection++)
        good = play_if_possible(leave);
    for (; good && get.queue < MODEL_QUEUES; get.queue++) {
        const struct model_queue *queue = &player.worlds[0].now.queues[get.queue];
        if (queue->options.quorum && queue->options.single)
            continue;
        for (uint32_t i = queue->exists ? queue->count : 0; good && i > 0 && !is_over(); i--)
            good = play_if_possible(get);
    }
    return good;
}

bool play(const struct sequence *sequence, const struct play_options *options,
          struct play_figures *figures, char failure[FAILURE_SIZE])
{
    bool good = true;

    if (player.worlds == NULL) {
        player.worlds = xcalloc(WORLDS_MAX, sizeof(struct world));
        player.tried = xcalloc(WORLDS_MAX, sizeof(struct world));
    }
    player.options = options;
    player.figures = figures;
    player.failure = failure;
    player.failure[0] = '\0';
    player.published = 0;
    player.world_count = 1;
    messages_reset();
    world_init(&player.worlds[0], options->lmdb != NULL);
    subject_begin(options->lmdb, &player.sights);
    for (size_t i = 0; good && i < sequence->count && !is_over(); i++)
        good = play_if_possible(sequence->commands[i]);
    good = good && (is_over() || empty_queues());
    figures->cut_short += good && is_over();
    if (good)
        subject_end();
    return good;
}
