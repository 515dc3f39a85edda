/* x-arguments of exchanges and queues: which exist, what values they may have, and when a declare
 * agrees with what is there. */
#ifndef CORE_ARGUMENT_H
#define CORE_ARGUMENT_H

#include "amqp/reply.h"
#include "amqp/table.h"

/* What carries the arguments, for the texts: "queue 'q' in vhost 'v'" (5.2). */
struct argument_owner {
    const char *kind; /* "exchange" or "queue" */
    struct slice name, vhost;
};

enum queue_type { QUEUE_CLASSIC, QUEUE_QUORUM }; /* 8.10 */

/* Of a queue that exists, by its arguments. */
enum queue_type argument_queue_type(struct slice arguments);

/* What is known of the queue to be, apart from its arguments. */
struct argument_queue {
    struct argument_owner owner;
    bool durable, exclusive, auto_delete;
};

/* Whether a new queue may have these arguments (8.8, 8.10, 8.11); false: 406. */
bool argument_check_queue(const struct argument_queue *queue, struct slice arguments,
                          struct amqp_error *error);

/* Whether a new consumer of a queue may (10.7); false: 406. */
bool argument_check_consumer(const struct argument_owner *queue, struct slice arguments,
                             struct amqp_error *error);

/* What arguments that were checked say: x-priority (0 without it), and whether this one is true. */
int64_t argument_priority(struct slice arguments);
bool argument_is_true(struct slice arguments, const char *name);

/* Whether a new exchange may (7.3). */
bool argument_check_exchange(const struct argument_owner *exchange, struct slice arguments,
                             struct amqp_error *error);

/* A key of policies that is an argument without its x- (17.2): the types of queues that know it, a
 * bit 1 << enum queue_type each, 0 when none does; whether one of them may have this value; whether
 * this version acts upon it. */
unsigned argument_types_of_key(struct slice key);
bool argument_check_key(struct slice key, const struct amqp_value *value);
bool argument_honours_key(struct slice key);

/* Logs the arguments of a new queue or exchange that nobody knows, and those that are kept but not
 * honoured by this version. */
void argument_warn(const struct argument_owner *owner, struct slice arguments);

/* Whether a declare with arguments `received` agrees with an owner that has `current`, in the one
 * argument that counts for exchanges (7.4), in all that have a meaning for the queue's type
 * (8.7.3). */
bool argument_agree_exchange(const struct argument_owner *exchange, struct slice received,
                             struct slice current, struct amqp_error *error);
bool argument_agree_queue(const struct argument_owner *queue, struct slice received,
                          struct slice current, struct amqp_error *error);

/* For texts: "signedint", "longstr"; and the value itself, shortened when it is long. Both as
 * RabbitMQ's clients know them. */
const char *argument_type_name(const struct amqp_value *value);
struct argument_text {
    char bytes[288];
};
const char *argument_print(const struct amqp_value *value, struct argument_text *text);

#endif
