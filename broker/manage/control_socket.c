/* Who may connect is decided twice: by the mode of the socket, and by the kernel's word on the
 * peer, which also holds where modes of sockets are ignored or someone changed them. */
#include "manage/control_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 16 };

static int new_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* Whether a process listens there. */
static bool is_answered(const struct sockaddr_un *address)
{
    const int fd = new_socket();
    if (fd < 0)
        return true;
    const bool refused = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
                         errno == ECONNREFUSED;
    close(fd);
    return !refused;
}

/* 0 or -errno. */
static int remove_stale(const struct sockaddr_un *address)
{
    struct stat status;

    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(status.st_mode) || is_answered(address))
        return -EADDRINUSE;
    return unlink(address->sun_path) == 0 ? 0 : -errno;
}

int control_socket_open(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);

    int result = remove_stale(&address);
    if (result < 0)
        return result;
    const int fd = new_socket();
    if (fd < 0)
        return -errno;
    /* Linux gives the name the mode that the socket has when it is bound. */
    if (fchmod(fd, S_IRUSR | S_IWUSR) < 0 ||
        bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, BACKLOG) < 0) {
        result = -errno;
        close(fd);
        return result;
    }
    return fd;
}

bool control_socket_admits(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return false;
    return peer.uid == 0 || peer.uid == geteuid();
}
