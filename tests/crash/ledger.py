"""The ledger of a crash test: what was published, confirmed and settled, and what must be there afterwards.

A message is known by its key (publisher, number); a publisher counts its messages, whatever queues they go to. It
carries its key, its size and a checksum of both and its body as its message id, so that a body may have any size.

A line is a queue and, if it has one, the queue into which messages leave it: dead letters, or what a transaction
published in their place. In each line a key passes through

    published  ->  confirmed  ->  left (rejected, or replaced by a transaction)  ->  acked  ->  settled

and after a crash the line must hold, in the order of each publisher and none of them twice:

    confirmed, not acked            exactly those, in the queue or in the one behind it, never in both
    published, not confirmed        perhaps
    left                            in the queue behind it, and nowhere else
    acked, not settled              perhaps, and then marked as redelivered where it was acked
    settled                         never again
    loose (a purge was under way)   perhaps

An ack or reject is settled when a persistent message that was published after it on the same channel is confirmed. A
queue with a maximum length and none behind it loses what is oldest, and only when it is full. Of a transaction all
messages are replaced or none is.

Several threads write at once: each key is written by one of them, into sets, and judged when they have all ended.
"""

import zlib

FILLING = b''.join(b'%06x' % (at * 40503 % (1 << 24)) for at in range(200000))
STARTS = 100000  # where in the filling a body may begin


class Damaged(Exception):
    """A message that nobody published."""


def make_message(publisher, number, size):
    """The message id and the body of a key."""
    start = (publisher * 7919 + number * 31) % STARTS
    body = FILLING[start:start + size]
    head = b'%d.%d.%d' % (publisher, number, size)
    return b'%s.%08x' % (head, zlib.crc32(body, zlib.crc32(head))), body


def read_message(message_id, body):
    """The key of a message, if it is whole."""
    head, _, checksum = message_id.rpartition(b'.')
    if checksum != b'%08x' % zlib.crc32(body, zlib.crc32(head)):
        raise Damaged('%r and a body of %d octets do not have its checksum' % (message_id, len(body)))
    publisher, number, size = map(int, head.split(b'.'))
    if size != len(body):
        raise Damaged('the body of %d.%d has %d octets' % (publisher, number, len(body)))
    return publisher, number


class Line:
    def __init__(self, queue, behind=None, limit=None, priorities=1):
        self.queue = queue
        self.behind = behind            # name of the queue into which messages leave, or None
        self.limit = limit              # x-max-length, or None
        self.priorities = priorities    # a key's is its number modulo these
        self.published = {}             # key -> None, in the order of publishing
        self.left, self.acked, self.settled, self.loose = set(), set(), set(), set()

    def check(self, confirmed, found, behind=()):
        """What is wrong, as sentences; found and behind are (key, redelivered), in order, of the two queues."""
        return (self._check_each(self.queue, found) + self._check_each(self.behind, behind) +
                self._check_both(found, behind) + self._check_order(found) + self._check_limit(confirmed, found) +
                self._check_lost(confirmed, found, behind))

    def _check_each(self, queue, found):
        wrong = []
        seen = set()
        for key, redelivered in found:
            if key in seen:
                wrong.append('%s: %d.%d is there twice' % (queue, *key))
            elif key not in self.published:
                wrong.append('%s: %d.%d was not published, or was gone' % (queue, *key))
            elif key in self.settled:
                wrong.append('%s: %d.%d came back after its ack was settled' % (queue, *key))
            elif key in self.acked and queue == self.queue and not redelivered:
                wrong.append('%s: %d.%d was acked and came back as new' % (queue, *key))
            elif key in self.left and queue == self.queue:
                wrong.append('%s: %d.%d came back after it had left' % (queue, *key))
            seen.add(key)
        return wrong

    def _check_both(self, found, behind):
        both = {key for key, _ in found} & {key for key, _ in behind}
        return ['%s: %d.%d is there and in %s' % (self.queue, *key, self.behind) for key in sorted(both)]

    def _check_order(self, found):
        wrong = []
        last = {}
        lowest = self.priorities
        for (publisher, number), _ in found:
            priority = number % self.priorities
            if priority > lowest:
                wrong.append('%s: %d.%d of priority %d stands behind one of %d' % (
                    self.queue, publisher, number, priority, lowest))
            lowest = min(lowest, priority)
            before = last.get((publisher, priority), -1)
            if number < before:
                wrong.append('%s: %d.%d stands behind %d.%d' % (self.queue, publisher, number, publisher, before))
            last[publisher, priority] = max(number, before)
        return wrong

    def _check_limit(self, confirmed, found):
        if self.limit is None:
            return []
        if len(found) > self.limit:
            return ['%s: holds %d messages, its limit is %d' % (self.queue, len(found), self.limit)]
        if self.behind is None and len(found) < self.limit and any(
                key in confirmed for key in self.published.keys() - {key for key, _ in found}):
            return ['%s: has dropped messages and is not full: %d' % (self.queue, len(found))]
        return []

    def _check_lost(self, confirmed, found, behind):
        keys = {key for key, _ in found}.union(key for key, _ in behind)
        oldest = {}
        for publisher, number in keys:
            oldest[publisher] = min(number, oldest.get(publisher, number))

        def may_be_gone(key):
            return (key in keys or key in self.acked or key in self.loose or
                    (self.limit is not None and self.behind is None and
                     key[1] < oldest.get(key[0], float('inf'))))

        return ['%s: %d.%d was %s and is lost' % (self.queue, *key, 'confirmed' if key in confirmed else 'moved on')
                for key in self.published if (key in confirmed or key in self.left) and not may_be_gone(key)]

    def purge_begins(self, confirmed):
        """Remembers what a purge that is sent now must take."""
        return [key for key in list(self.published) if key in confirmed]

    def purge_ends(self, certain, after=()):
        """The purge was answered: certain is gone, of what was published since then the purge may have taken some, but
        for what came after it on its channel."""
        self.loose.update(list(self.published))
        self.loose.difference_update(after)
        self.settled.update(certain)
        self.acked.update(certain)

    def adopt(self, found, behind=()):
        """Takes what was found as what is there: it must survive whatever comes next."""
        self.published = dict.fromkeys([key for key, _ in behind] + [key for key, _ in found])
        for keys in (self.left, self.acked, self.settled, self.loose):
            keys.clear()


class Transaction:
    def __init__(self, keys):
        self.keys = set(keys)
        self.committed = False  # the broker has said so


class Ledger:
    def __init__(self, lines):
        self.lines = {name: Line(**line) for name, line in lines.items()}
        self.confirmed = set()
        self.transient = set()          # keys that must not survive
        self.transactions = []

    def publish(self, names, key):
        for name in names:
            self.lines[name].published[key] = None

    def check(self, name, found, behind=()):
        return self.lines[name].check(self.confirmed, found, behind)

    def check_transactions(self, found, behind):
        """found: the keys that wait for their transaction; behind: those of which it published something. A key that is
        in neither is its line's business."""
        wrong = []
        for transaction in self.transactions:
            waiting = transaction.keys & found
            if transaction.committed and waiting:
                wrong.append('a transaction was committed, and of its %d messages %d wait for it again: %s' % (
                    len(transaction.keys), len(waiting), sorted(waiting)))
            elif waiting and transaction.keys & behind:
                wrong.append('half a transaction: of its %d messages %d wait for it again, %d do not: %s' % (
                    len(transaction.keys), len(waiting), len(transaction.keys & behind), sorted(waiting)))
        return wrong

    def adopt(self, found):
        """found: line -> (found, behind), of every line."""
        self.confirmed = {key for rows in found.values() for queue in rows for key, _ in queue}
        self.transient.clear()
        self.transactions.clear()
        for name, rows in found.items():
            self.lines[name].adopt(*rows)
