/* The control socket: a unix socket in the data directory, for the operator's tools. */
#ifndef MANAGE_CONTROL_SOCKET_H
#define MANAGE_CONTROL_SOCKET_H

#include "base/base.h"

/* Listens on path, mode 0600 from its first moment; what a broker that is gone left there is
 * replaced. The descriptor, non-blocking; or -errno, -EADDRINUSE when someone still answers there
 * or it is no socket. */
int control_socket_open(const char *path);

/* Whether the peer of a connected unix socket may administer the broker: root and the user we run
 * as may. */
bool control_socket_admits(int fd);

#endif
