/* A queue between threads.
 *
 *     poster                               owner
 *     lock; append; if it was empty,       epoll sees fd readable
 *     write 1 to fd; unlock                lock; take the whole list, read fd; unlock
 *
 * The eventfd is written and read under the lock, so its invariant is exact: it is readable if and
 * only if letters wait. A burst of letters costs one write and one read, and a woken owner always
 * finds something. The lock is held for a few instructions and at most one system call that cannot
 * block. */
#include "base/mailbox.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mailbox_open(struct mailbox *mailbox)
{
    mailbox->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mailbox->fd < 0)
        return -errno;
    const int error = pthread_mutex_init(&mailbox->lock, NULL);
    if (error != 0) {
        close(mailbox->fd);
        return -error;
    }
    STAILQ_INIT(&mailbox->letters);
    return 0;
}

void mailbox_close(struct mailbox *mailbox)
{
    assert(STAILQ_EMPTY(&mailbox->letters));
    pthread_mutex_destroy(&mailbox->lock);
    close(mailbox->fd);
    mailbox->fd = -1;
}

void mailbox_post(struct mailbox *mailbox, struct letter *letter)
{
    pthread_mutex_lock(&mailbox->lock);
    const bool was_empty = STAILQ_EMPTY(&mailbox->letters);
    STAILQ_INSERT_TAIL(&mailbox->letters, letter, link);
    if (was_empty) {
        const int error = eventfd_write(mailbox->fd, 1);
        assert(error == 0);
    }
    pthread_mutex_unlock(&mailbox->lock);
}

bool mailbox_take(struct mailbox *mailbox, struct letter_list *letters)
{
    pthread_mutex_lock(&mailbox->lock);
    const bool any = !STAILQ_EMPTY(&mailbox->letters);
    if (any) {
        eventfd_t posted;
        const int error = eventfd_read(mailbox->fd, &posted);
        assert(error == 0 && posted == 1);
        STAILQ_CONCAT(letters, &mailbox->letters);
    }
    pthread_mutex_unlock(&mailbox->lock);
    return any;
}

void mailbox_wait(struct mailbox *mailbox)
{
    struct pollfd wanted = {.fd = mailbox->fd, .events = POLLIN};
    while (poll(&wanted, 1, -1) < 0)
        assert(errno == EINTR);
}

bool mailbox_wait_ms(struct mailbox *mailbox, int timeout_ms)
{
    struct pollfd wanted = {.fd = mailbox->fd, .events = POLLIN};

    return poll(&wanted, 1, timeout_ms) > 0;
}
