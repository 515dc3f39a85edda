/* Logging in: which mechanisms a client may use, and what becomes of its start-ok (4.2). */
#ifndef SESSION_LOGIN_H
#define SESSION_LOGIN_H

#include "session/connection.h"

enum login_mechanism {
    LOGIN_PLAIN,
    LOGIN_AMQPLAIN,
    LOGIN_EXTERNAL,  /* who the client is says its certificate: offered to who has shown one */
    LOGIN_ANONYMOUS, /* everybody is the anonymous user: offered where it is asked for by name */
    LOGIN_MECHANISMS
};

enum { LOGIN_NAMES_SIZE = 64 };

/* The operator's word on it; service.h has one. */
struct login_rules {
    bool allowed[LOGIN_MECHANISMS];
    enum tls_name certificate_name; /* which of a certificate's names is the user's */
    unsigned certificate_index;
    const char *anonymous_user; /* outlives the service */
};

extern const struct login_rules login_rules_default; /* all but ANONYMOUS */

/* Those that this client is offered, in connection.start's way. */
void login_offer(const struct connection *connection, char names[LOGIN_NAMES_SIZE]);

/* Begins with what start-ok says. False with error filled when there is no such mechanism, the
 * response has not its shape, or too many wait already. Else done follows, at once or later, unless
 * the login is refused or the client goes: connection->user is who it is. */
bool login_begin(struct connection *connection, struct slice mechanism, struct slice response,
                 void (*done)(struct connection *connection), struct amqp_error *error);

/* Compares a password on the worker; the connection is held meanwhile. on_done begins with
 * login_resume. False with error filled: too many wait already. */
bool login_verify(struct connection *connection, struct slice name, struct slice password,
                  attempt_done *on_done, struct amqp_error *error);
struct connection *login_resume(struct attempt *attempt);

#endif
