/* Plays a sequence to a broker (subject.h) and to the reference, and compares what each does after
 * every command: what clients read, frame by frame and header by header; how many messages and
 * consumers each queue has; which publishes are confirmed, and none too early. At the end every
 * queue is emptied, so that what is left in it is compared too.
 *
 * Where the broker is free the player keeps every world that agrees with what it has seen so far;
 * none left is a failure. */
#ifndef MODEL_PLAYER_H
#define MODEL_PLAYER_H

#include "tests/model/command.h"

struct play_options {
    const char *lmdb; /* a directory for the store; NULL: the memory store */
    bool trace;       /* say each command and what came of it, on stderr */
};

struct play_figures {
    uint64_t commands, deliveries, letters, refused, confirmed, closed, restarts, kills;
    uint64_t cut_short; /* sequences that ended because the reference's arrays were full */
    uint64_t worlds_max;
};

enum { FAILURE_SIZE = 16 * 1024 };

/* false: the broker did what it should not, and failure says what. Adds to the figures. */
bool play(const struct sequence *sequence, const struct play_options *options,
          struct play_figures *figures, char failure[FAILURE_SIZE]);

#endif
