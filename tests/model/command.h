/* A sequence as data: what the test does to the broker, one command after another, each a kind and
 * a few small numbers. A command means something in any state (a name that is not there is an error
 * to be predicted, "the n-th unacked delivery" counts round), so that any of them can be left out
 * or made simpler: that is what shrinking does.
 *
 *     declare queue=2 durable=1 length=3 dlx=1 dlk=4
 *     publish key=2 priority=3 count=2
 *     advance ms=20
 *
 * is a sequence as text; what is not said has its simplest value. The table in command.c has the
 * fields of each kind, their simplest values, and how often something else is chosen. */
#ifndef MODEL_COMMAND_H
#define MODEL_COMMAND_H

#include "base/random.h"

enum {
    MODEL_QUEUES = 5,      /* q0 ... */
    MODEL_CONNECTIONS = 2, /* with two channels each */
    MODEL_CHANNELS = 2 * MODEL_CONNECTIONS,
    MODEL_EXCHANGES = 3, /* the default one, x1: fanout, x2: direct */
    MODEL_NONE = -1,
};

enum command_kind {
    COMMAND_DECLARE,
    COMMAND_DELETE,
    COMMAND_PURGE,
    COMMAND_BIND,
    COMMAND_UNBIND,
    COMMAND_PUBLISH,
    COMMAND_GET,
    COMMAND_CONSUME,
    COMMAND_CANCEL,
    COMMAND_ACK,
    COMMAND_NACK,
    COMMAND_REJECT,
    COMMAND_RECOVER,
    COMMAND_QOS,
    COMMAND_CONFIRM,
    COMMAND_TX,
    COMMAND_COMMIT,
    COMMAND_ROLLBACK,
    COMMAND_CLOSE,   /* the channel */
    COMMAND_BREAK,   /* the connection */
    COMMAND_ADVANCE, /* the clock */
    COMMAND_MEMORY,  /* for messages is so short that they page out; ample=1: is not short */
    COMMAND_HOLD,    /* the disk: batches wait */
    COMMAND_SYNC,    /* the batch under way becomes durable; all=1: everything, and the hold ends */
    COMMAND_RESTART, /* in order */
    COMMAND_KILL,
    COMMAND_KINDS
};

struct command {
    enum command_kind kind;
    int channel;    /* 0 ...; of connection channel / 2 */
    int connection; /* break */
    int queue, exchange, key;
    /* declare; MODEL_NONE: not given */
    int durable, exclusive, auto_delete, quorum, single;
    int ttl, expires, length, bytes, overflow, priorities, dlx, dlk, limit;
    /* publish */
    int persistent, priority, expiration, size, mandatory, count;
    /* consume, get, qos */
    int no_ack, rank, prefetch, global;
    /* ack, nack, reject */
    int which, multiple, requeue, unknown;
    int ms, all;
    int kilobytes, ample; /* memory */
    /* set when it is played */
    uint64_t tag;    /* of `which` */
    uint32_t origin; /* number of the first publish */
};

/* What clients see of it, beside plain replies. */
enum event_kind { DELIVERED, CANCELLED, GOT, GOT_NOTHING, RETURNED, CLOSED, REFUSED };

struct sequence {
    struct command *commands;
    size_t count;
};

/* The same for the same seed. Ends the program when memory runs out; free the commands. */
struct sequence sequence_generate(uint64_t seed);

/* Everything that queue arguments rule out or imply is settled: what is declared is what is
 * left. */
void command_normalise(struct command *command);

void sequence_print(FILE *out, const struct sequence *sequence);
void command_print(FILE *out, const struct command *command);
/* false: a line is not a command; it is printed. */
bool sequence_parse(FILE *in, struct sequence *sequence);

/* The body of a publish: its number, and dots up to its size. out has room for a NUL more. */
void command_body(uint32_t origin, int size, char *out);

/* The n-th way to make this command simpler; false: there are not that many. */
bool command_simplify(struct command *command, unsigned n);

#endif
