#include "tests/model/command.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct field {
    const char *name;
    size_t offset;
    int simplest, low, high;
    unsigned percent; /* how often it is not the simplest but between low and high */
};

#define FIELD(name, simplest, low, high, percent)                                                  \
    {                                                                                              \
#name, offsetof(struct command, name), simplest, low, high, percent                        \
    }
#define CHANNEL FIELD(channel, 0, 0, MODEL_CHANNELS - 1, 100)
#define QUEUE   FIELD(queue, 0, 0, MODEL_QUEUES - 1, 100)
#define SETTLED FIELD(which, 0, 0, 9, 70), FIELD(unknown, 0, 1, 1, 1)

enum { FIELDS_MAX = 20 };

static const struct kind {
    const char *name;
    unsigned weight;
    struct field fields[FIELDS_MAX];
} kinds[COMMAND_KINDS] = {
    [COMMAND_DECLARE] = {"declare",
                         12,
                         {CHANNEL, QUEUE, FIELD(durable, 0, 1, 1, 70), FIELD(exclusive, 0, 1, 1, 8),
                          FIELD(auto_delete, 0, 1, 1, 8), FIELD(quorum, 0, 1, 1, 20),
                          FIELD(single, 0, 1, 1, 15), FIELD(ttl, MODEL_NONE, 0, 200, 20),
                          FIELD(expires, MODEL_NONE, 1, 2000, 8),
                          FIELD(length, MODEL_NONE, 0, 5, 25), FIELD(bytes, MODEL_NONE, 0, 60, 12),
                          FIELD(overflow, 0, 0, 2, 50), FIELD(priorities, 0, 1, 5, 20),
                          FIELD(dlx, MODEL_NONE, 0, MODEL_EXCHANGES - 1, 65),
                          FIELD(dlk, MODEL_NONE, 0, MODEL_QUEUES - 1, 75),
                          FIELD(limit, MODEL_NONE, 0, 3, 60)}},
    [COMMAND_DELETE] = {"delete", 8, {CHANNEL, QUEUE}},
    [COMMAND_PURGE] = {"purge", 8, {CHANNEL, QUEUE}},
    [COMMAND_BIND] = {"bind",
                      12,
                      {CHANNEL, QUEUE, FIELD(exchange, 1, 1, 2, 100),
                       FIELD(key, 0, 0, MODEL_QUEUES - 1, 80)}},
    [COMMAND_UNBIND] = {"unbind",
                        4,
                        {CHANNEL, QUEUE, FIELD(exchange, 1, 1, 2, 100),
                         FIELD(key, 0, 0, MODEL_QUEUES - 1, 80)}},
    [COMMAND_PUBLISH] = {"publish",
                         250,
                         {CHANNEL, FIELD(exchange, 0, 0, 2, 40),
                          FIELD(key, 0, 0, MODEL_QUEUES - 1, 95), FIELD(persistent, 0, 1, 1, 75),
                          FIELD(priority, MODEL_NONE, 0, 7, 40),
                          FIELD(expiration, MODEL_NONE, 0, 200, 20), FIELD(size, 4, 4, 40, 50),
                          FIELD(mandatory, 0, 1, 1, 10), FIELD(count, 1, 2, 4, 30)}},
    [COMMAND_GET] = {"get", 90, {CHANNEL, QUEUE, FIELD(no_ack, 0, 1, 1, 30)}},
    [COMMAND_CONSUME] = {"consume",
                         45,
                         {CHANNEL, QUEUE, FIELD(no_ack, 0, 1, 1, 20), FIELD(exclusive, 0, 1, 1, 4),
                          FIELD(rank, 0, -2, 2, 40)}},
    [COMMAND_CANCEL] = {"cancel", 25, {CHANNEL, QUEUE}},
    [COMMAND_ACK] = {"ack", 90, {CHANNEL, SETTLED, FIELD(multiple, 0, 1, 1, 25)}},
    [COMMAND_NACK] =
        {"nack", 45, {CHANNEL, SETTLED, FIELD(multiple, 0, 1, 1, 25), FIELD(requeue, 0, 1, 1, 50)}},
    [COMMAND_REJECT] = {"reject", 60, {CHANNEL, SETTLED, FIELD(requeue, 0, 1, 1, 50)}},
    [COMMAND_RECOVER] = {"recover", 12, {CHANNEL}},
    [COMMAND_QOS] = {"qos",
                     20,
                     {CHANNEL, FIELD(prefetch, 0, 1, 4, 85), FIELD(global, 0, 1, 1, 20)}},
    [COMMAND_CONFIRM] = {"confirm", 12, {CHANNEL}},
    [COMMAND_TX] = {"tx", 10, {CHANNEL}},
    [COMMAND_COMMIT] = {"commit", 40, {CHANNEL}},
    [COMMAND_ROLLBACK] = {"rollback", 10, {CHANNEL}},
    [COMMAND_CLOSE] = {"close", 12, {CHANNEL}},
    [COMMAND_BREAK] = {"break", 6, {FIELD(connection, 0, 0, MODEL_CONNECTIONS - 1, 100)}},
    [COMMAND_ADVANCE] = {"advance", 60, {FIELD(ms, 1, 1, 250, 100)}},
    [COMMAND_MEMORY] = {"memory", 5, {FIELD(kilobytes, 0, 1, 20, 30), FIELD(ample, 0, 1, 1, 20)}},
    [COMMAND_HOLD] = {"hold", 8, {{0}}},
    [COMMAND_SYNC] = {"sync", 12, {FIELD(all, 0, 1, 1, 20)}},
    [COMMAND_RESTART] = {"restart", 4, {{0}}},
    [COMMAND_KILL] = {"kill", 5, {{0}}},
};

static int *value_of(const struct command *command, const struct field *field)
{
    return (int *)(void *)((uintptr_t)command + field->offset);
}

#define each_field(field, command)                                                                 \
    const struct field *field = kinds[(command)->kind].fields;                                     \
    field < kinds[(command)->kind].fields + FIELDS_MAX && field->name != NULL;                     \
    field++

/* Fields that the kind does not have are 0. */
static struct command simplest(enum command_kind kind)
{
    struct command command = {.kind = kind};

    for (each_field(field, &command))
        *value_of(&command, field) = field->simplest;
    return command;
}

/* ---- generating ---- */

static struct command generate(struct random *random, enum command_kind kind)
{
    struct command command = simplest(kind);

    for (each_field(field, &command))
        if (random_below(random, 100) < field->percent)
            *value_of(&command, field) =
                field->low + (int)random_below(random, (uint64_t)(field->high - field->low + 1));
    return command;
}

static enum command_kind pick_kind(struct random *random)
{
    unsigned sum = 0, kind = 0;

    for (unsigned i = 0; i < COMMAND_KINDS; i++)
        sum += kinds[i].weight;
    for (uint64_t left = random_below(random, sum); left >= kinds[kind].weight; kind++)
        left -= kinds[kind].weight;
    return (enum command_kind)kind;
}

struct sequence sequence_generate(uint64_t seed)
{
    enum { COUNT_MIN = 50, COUNT_MAX = 500, BINDINGS = 4 };
    struct random random;
    struct sequence sequence = {0};

    random_init_seeded(&random, seed);
    /* Short ones find most, and shrink fast: three of four are. */
    const uint64_t most = random_below(&random, 4) == 0 ? COUNT_MAX : COUNT_MAX / 4;
    sequence.count = COUNT_MIN + random_below(&random, most - COUNT_MIN + 1);
    sequence.commands = xcalloc(sequence.count, sizeof(struct command));
    for (size_t i = 0; i < sequence.count; i++) {
        struct command *command = &sequence.commands[i];
        if (i < MODEL_QUEUES + BINDINGS) {
            *command = generate(&random, i < MODEL_QUEUES ? COMMAND_DECLARE : COMMAND_BIND);
            command->queue = (int)i % MODEL_QUEUES;
        } else {
            *command = generate(&random, pick_kind(&random));
        }
    }
    return sequence;
}

void command_normalise(struct command *command)
{
    if (command->kind != COMMAND_DECLARE)
        return;
    if (command->quorum) {
        command->durable = 1;
        command->exclusive = command->auto_delete = command->priorities = 0;
        if (command->overflow == 2)
            command->overflow = 1;
    } else {
        command->limit = MODEL_NONE;
    }
    if (command->exclusive)
        command->durable = 0;
    if (command->dlx == MODEL_NONE)
        command->dlk = MODEL_NONE;
}

void command_body(uint32_t origin, int size, char *out)
{
    char number[16];

    snprintf(number, sizeof(number), "%04u", origin % 10000);
    memset(out, '.', (size_t)size);
    memcpy(out, number, 4);
    out[size] = '\0';
}

/* ---- text ---- */

void command_print(FILE *out, const struct command *command)
{
    fprintf(out, "%s", kinds[command->kind].name);
    for (each_field(field, command))
        if (*value_of(command, field) != field->simplest)
            fprintf(out, " %s=%d", field->name, *value_of(command, field));
    fprintf(out, "\n");
}

void sequence_print(FILE *out, const struct sequence *sequence)
{
    for (size_t i = 0; i < sequence->count; i++)
        command_print(out, &sequence->commands[i]);
}

static bool parse_field(struct command *command, const char *text)
{
    const char *equals = strchr(text, '=');

    for (each_field(field, command)) {
        const size_t size = strlen(field->name);
        if (equals == text + size && strncmp(text, field->name, size) == 0) {
            *value_of(command, field) =
                max_of(min_of(atoi(equals + 1), field->high),
                       min_of(field->simplest, field->low)); /* no index beyond an array */
            return true;
        }
    }
    return false;
}

static bool parse(char *line, struct command *command)
{
    char *word = strsep(&line, " ");
    unsigned kind = 0;

    while (kind < COMMAND_KINDS && strcmp(kinds[kind].name, word) != 0)
        kind++;
    if (kind == COMMAND_KINDS)
        return false;
    *command = simplest((enum command_kind)kind);
    while ((word = strsep(&line, " ")) != NULL)
        if (!parse_field(command, word))
            return false;
    return true;
}

bool sequence_parse(FILE *in, struct sequence *sequence)
{
    char line[512], copy[512];

    *sequence = (struct sequence){0};
    while (fgets(line, sizeof(line), in) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        sequence->commands =
            xrealloc(sequence->commands, sequence->count + 1, sizeof(struct command));
        memcpy(copy, line, sizeof(copy));
        if (!parse(copy, &sequence->commands[sequence->count++])) {
            fprintf(stderr, "model: not a command: %s\n", line);
            return false;
        }
    }
    return true;
}

/* ---- shrinking ---- */

bool command_simplify(struct command *command, unsigned n)
{
    for (each_field(field, command)) {
        int *value = value_of(command, field);
        const int nearer = *value - (*value > field->simplest) + (*value < field->simplest);
        const int candidates[] = {field->simplest, field->simplest + (*value - field->simplest) / 2,
                                  nearer};
        for (size_t i = 0; i < countof(candidates); i++) {
            const int candidate = candidates[i];
            if (candidate == *value || (i > 0 && candidate == candidates[i - 1]))
                continue;
            if (candidate != field->simplest && (candidate < field->low || candidate > field->high))
                continue;
            if (n-- == 0) {
                *value = candidate;
                return true;
            }
        }
    }
    return false;
}
