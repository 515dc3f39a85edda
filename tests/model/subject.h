/* The broker that a sequence is played to, and its clients: says commands in frames, and reads what
 * comes. It judges nothing but what is wrong whatever the reference may say: frames that nobody
 * asked for, tags that do not count up.
 *
 * The broker is the whole one, in this process, behind memory transports (tests/lib/harness.h), on
 * the memory store or LMDB, its clock in our hands. After each command it gets the turns it wants,
 * until nothing moves: a command is done before the next begins. There is one at a time. */
#ifndef MODEL_SUBJECT_H
#define MODEL_SUBJECT_H

#include "tests/model/command.h"

enum { BODY_MAX = 64, HEADERS_MAX = 3072, SIGHTS_MAX = 512, ACKS_MAX = 1024 };

/* What a client has read. */
struct sight {
    enum event_kind kind;
    int channel;
    int queue;       /* delivered, cancelled: the consumer's */
    uint32_t number; /* got: messages left; closed: reply code; refused: which publish */
    /* of content */
    bool redelivered;
    uint64_t tag;
    char body[BODY_MAX], headers[HEADERS_MAX]; /* headers as headers_of prints them */
    char exchange[8], key[8];
    uint8_t delivery_mode;
    int priority, expiration; /* MODEL_NONE: it has none */
};

struct sights {
    char complaint[256]; /* what cannot be right; empty: nothing */
    unsigned replies;    /* to the command */
    size_t ack_count;
    uint32_t acks[ACKS_MAX]; /* publishes confirmed, by origin */
    size_t count;
    struct sight list[SIGHTS_MAX];
};

/* lmdb: a directory for the store; NULL: the memory store. */
void subject_begin(const char *lmdb, struct sights *sights);
void subject_end(void);

/* Does what the command says, which world_resolve has filled in; sights has what came of it. */
void subject_do(const struct command *command, struct sights *sights);
/* Time passes. */
void subject_advance(uint64_t ms, struct sights *sights);

/* Before this command can be done the disk must go on: it waits for an answer about something
 * durable. */
bool subject_needs_disk(const struct command *command);

/* Something that was published on a channel in confirm mode has no answer yet. */
bool subject_awaits_confirms(void);

struct subject_counts {
    uint64_t ready, unacked, consumers;
};
/* false: there is no such queue. */
bool subject_count(int queue, struct subject_counts *counts);

#endif
