/* Definitions as bytes, for the store: vhosts, exchanges, queues and bindings as named records. A key starts with the kind, then the names, each
 * with its length, so that a vhost's records stand together and kinds come in the order in which recovery needs them: vhost, exchange, queue,
 * binding. A value starts with the format version. */
#ifndef CORE_DEFINITION_H
#define CORE_DEFINITION_H

#include "core/exchange.h"
#include "core/queue.h"
#include "core/vhost.h"

void definition_put_vhost(const struct vhost *vhost);
void definition_put_exchange(const struct exchange *exchange);
void definition_put_queue(const struct queue *queue);
void definition_put_binding(const struct binding *binding);
void definition_delete_exchange(const struct exchange *exchange);
void definition_delete_queue(const struct queue *queue);
void definition_delete_binding(const struct binding *binding);

/* One record of the store into memory: makes the vhost, exchange, queue or binding. False when it cannot be understood (logged; the caller
 * goes on with the next). */
bool definition_recover(struct broker *broker, struct slice key, struct slice value);

#endif
