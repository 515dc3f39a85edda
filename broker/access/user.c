/* Users by name, and the one question asked of them: may this one log in with this password from
 * there?
 *
 * How long the answer takes must not tell which part was wrong: the password that the client
 * offers is always compared to the end, with the user's or, when there is no such user, with one
 * that cannot match. The users own their strings; what authenticate returns lives until
 * users_release. */
#include "access/user.h"

#include "base/alloc.h"

void users_init(struct users *users)
{
    users->by_name = MAP_EMPTY;
}

void users_release(struct users *users)
{
    struct map_link *link = map_next(&users->by_name, NULL);
    while (link != NULL) {
        struct user *user = container_of(link, struct user, by_name);
        link = map_next(&users->by_name, link);
        map_remove(&users->by_name, &user->by_name);
        free(user->name);
        free(user->password);
        free(user);
    }
    map_release(&users->by_name);
}

void users_add(struct users *users, const char *name, const char *password, bool loopback_only)
{
    struct user *user = xcalloc(1, sizeof(*user));
    user->name = xstrdup(name);
    user->password = xstrdup(password);
    user->loopback_only = loopback_only;
    map_insert(&users->by_name, &user->by_name, slice_of_string(user->name));
}

/* In a time that depends on the size of what is offered alone. An empty password never matches. */
static bool password_matches(const char *password, struct slice offered)
{
    const size_t size = strlen(password);
    size_t differs = size ^ offered.size;
    for (size_t i = 0; i < offered.size; i++)
        differs |= offered.data[i] ^ (uint8_t)password[i < size ? i : 0];
    return differs == 0 && size > 0;
}

const struct user *users_authenticate(const struct users *users, struct slice name,
                                      struct slice password, bool from_loopback,
                                      const char **reason)
{
    struct map_link *link = map_find(&users->by_name, name);
    const struct user *user = link == NULL ? NULL : container_of(link, struct user, by_name);

    const bool matches = password_matches(user == NULL ? "" : user->password, password);
    *reason = "invalid credentials";
    if (user == NULL || !matches)
        return NULL;
    *reason = "user can only connect via localhost"; /* 4.2.6 */
    if (user->loopback_only && !from_loopback)
        return NULL;
    *reason = NULL;
    return user;
}
