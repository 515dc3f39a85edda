/* From method to handler: one row per method that a client may send on a channel other than 0.
 * Whether it may come now (the channel is open, the mode fits) stands in the row, apart from what
 * it does. */
#ifndef SESSION_DISPATCH_H
#define SESSION_DISPATCH_H

#include "session/channel.h"

/* Finds the row and runs it. false with error filled: 503 for methods that clients do not send or
 * we do not serve. */
bool dispatch_method(struct channel *channel, const struct amqp_method *method,
                     struct amqp_error *error);

/* The handlers, by class file. */
channel_handler on_channel_flow, on_access_request; /* class_channel.c */
channel_handler on_exchange_declare, on_exchange_delete, on_exchange_bind,
    on_exchange_unbind; /* class_exchange.c */
channel_handler on_queue_declare, on_queue_bind, on_queue_unbind, on_queue_purge,
    on_queue_delete; /* class_queue.c */
channel_handler on_basic_qos, on_basic_consume, on_basic_cancel, on_basic_cancel_ok,
    on_basic_publish, on_basic_get, on_basic_ack, on_basic_nack, on_basic_reject, on_basic_recover,
    on_basic_recover_async;                                 /* class_basic.c */
channel_handler on_confirm_select;                          /* class_confirm.c */
channel_handler on_tx_select, on_tx_commit, on_tx_rollback; /* class_tx.c */

#endif
