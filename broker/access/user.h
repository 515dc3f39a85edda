/* Users: who may log in, and from where. In this first form there is the one default user of the
 * configuration; the store will keep others. */
#ifndef ACCESS_USER_H
#define ACCESS_USER_H

#include "base/map.h"

struct user {
    struct map_link by_name;
    char *name, *password;
    bool loopback_only; /* may log in from a loopback peer only (4.2.6) */
};

struct users {
    struct map by_name;
};

void users_init(struct users *users);
void users_release(struct users *users);
void users_add(struct users *users, const char *name, const char *password, bool loopback_only);

/* The user, or NULL: unknown, wrong or empty password, or not from here. *reason is for the log
 * alone. Compares in constant time. */
const struct user *users_authenticate(const struct users *users, struct slice name,
                                      struct slice password, bool from_loopback,
                                      const char **reason);

#endif
