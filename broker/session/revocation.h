/* What changes for those who are connected when somebody may do less, or is no more.
 *
 *     user deleted                    ─▶ its connections, those in their handshake too: 320
 *     vhost deleted                   ─▶ its connections: 320
 *     permissions taken away          ─▶ the user's connections to that vhost: 320
 *     permissions others than before  ─▶ consumers whose queue may not be read any more: cancelled
 *
 * Publishes and all other methods ask at each (access/permission.h), so there is nothing to do
 * about them. All of this happens before the operator has an answer. */
#ifndef SESSION_REVOCATION_H
#define SESSION_REVOCATION_H

#include "core/account.h"

/* For service_init: fills in the service's watcher. */
void revocation_init(struct access_watcher *watcher);

#endif
