/* The responses by which a client says who it is (4.2). What is decoded points into the response;
 * none of it is ever put in an error text.
 *
 * EXTERNAL and ANONYMOUS have nothing to decode: who the client is comes from its certificate or
 * from the configuration, and the responses that clients send with these two (empty, "*", NUL "*"
 * NUL "*") mean nothing. */
#ifndef AMQP_SASL_H
#define AMQP_SASL_H

#include "amqp/reply.h"
#include "base/slice.h"

/* NUL user NUL password (4.2.2). False with SYNTAX_ERROR for any other shape. */
bool amqp_sasl_plain(struct slice response, struct slice *user, struct slice *password,
                     struct amqp_error *error);

/* The entries of a table, LOGIN and PASSWORD long strings among them (4.2.3). False with
 * SYNTAX_ERROR otherwise. */
bool amqp_sasl_amqplain(struct slice response, struct slice *user, struct slice *password,
                        struct amqp_error *error);

#endif
