/* The broker as a whole: owns the loop, listeners, store, vhosts and connections; starts, drains
 * and stops them in order. */
#ifndef BROKER_SERVER_H
#define BROKER_SERVER_H

#include "config.h"
#include "base/random.h"
#include "net/loop.h"

struct server;
struct store;

enum { SERVER_ERROR_SIZE = 512 };

/* Whether the certificates and keys that the configuration names can be used, where TLS is spoken.
 * False with a sentence. */
bool server_check_files(const struct config *config, char error[SERVER_ERROR_SIZE]);

/* Everything but the listeners: vhosts and queues as the store has them. The store becomes the
 * server's. config must outlive it. NULL with a sentence in error. */
struct server *server_new(const struct config *config, struct clock *clock, struct random *random,
                          struct store **store, char error[SERVER_ERROR_SIZE]);

/* Opens every configured listener, and management; then, when nothing can fail any more, gives a
 * new store its defaults. 0; or with a sentence in error the exit status of the process: EX_CONFIG
 * when a certificate cannot be used, EX_UNAVAILABLE for an address. */
int server_listen(struct server *server, char error[SERVER_ERROR_SIZE]);

struct loop *server_loop(struct server *server);

/* Reads the files that the configuration names again: certificates and keys. What cannot be used is
 * said in the log, and what was in use stays so. */
void server_reload(struct server *server);

/* Begins to stop: no new connections, clients told 320 and given a moment to answer, what is parked
 * is synced, then the loop stops. Harmless again. */
void server_stop(struct server *server);

/* The same without the moment: clients are dropped. */
void server_abort(struct server *server);

/* After the loop has stopped: closes the store. Returns the exit status of the process: 0, or
 * EX_IOERR when the store failed. */
int server_free(struct server **server);

#endif
