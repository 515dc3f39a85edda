"""The ledger of a crash test: what was published, confirmed and acknowledged, and what must be there afterwards.

A message is known by its key (publisher, number); a publisher counts its messages, whatever queues they go to. For
each queue a key passes through

    published  ->  confirmed  ->  acked  ->  settled

and after a crash the queue must hold, in the order of each publisher and none of them twice:

    confirmed, not acked            exactly those
    published, not confirmed        perhaps
    acked, not settled              perhaps, and then marked as redelivered
    settled                         never again

An ack is settled when a persistent message that was published after it on the same channel is confirmed. Several
threads write at once: each key is written by one of them, into sets, and judged when they have all ended.
"""

import struct
import zlib

HEAD = struct.Struct('>HQI')  # publisher, number, size of the filling
SUM = struct.Struct('>I')


class Damaged(Exception):
    """A body that nobody published."""


def make_body(publisher, number, size):
    """A body that tells its key and whether it is whole."""
    filling = (b'%d.%d,' % (publisher, number)) * (size // 4 + 1)
    body = HEAD.pack(publisher, number, size) + filling[:size]
    return body + SUM.pack(zlib.crc32(body))


def read_body(body):
    """The key in a body."""
    if len(body) < HEAD.size + SUM.size or SUM.unpack(body[-4:])[0] != zlib.crc32(body[:-4]):
        raise Damaged('a body of %d octets has a wrong checksum' % len(body))
    publisher, number, size = HEAD.unpack_from(body)
    if len(body) != HEAD.size + size + SUM.size:
        raise Damaged('the body of %d.%d has a wrong size' % (publisher, number))
    return publisher, number


class Ledger:
    def __init__(self, queues):
        self.published = {queue: {} for queue in queues}  # key -> None, in the order of publishing
        self.confirmed = set()                            # keys
        self.acked = {queue: set() for queue in queues}   # keys
        self.settled = {queue: set() for queue in queues}

    def publish(self, queues, key):
        for queue in queues:
            self.published[queue][key] = None

    def check(self, queue, found):
        """What is wrong with the found messages of the queue, as sentences; each is (key, redelivered), in order."""
        return (self._check_each(queue, found) + self._check_order(queue, found) + self._check_lost(queue, found))

    def _check_each(self, queue, found):
        wrong = []
        seen = set()
        for key, redelivered in found:
            if key in seen:
                wrong.append('%s: %d.%d is there twice' % (queue, *key))
            elif key not in self.published[queue]:
                wrong.append('%s: %d.%d was not published, or was gone' % (queue, *key))
            elif key in self.settled[queue]:
                wrong.append('%s: %d.%d came back after its ack was settled' % (queue, *key))
            elif key in self.acked[queue] and not redelivered:
                wrong.append('%s: %d.%d was acked and came back as new' % (queue, *key))
            seen.add(key)
        return wrong

    @staticmethod
    def _check_order(queue, found):
        wrong = []
        last = {}
        for (publisher, number), _ in found:
            if number < last.get(publisher, -1):
                wrong.append('%s: %d.%d stands behind %d.%d' % (queue, publisher, number, publisher, last[publisher]))
            last[publisher] = max(number, last.get(publisher, -1))
        return wrong

    def _check_lost(self, queue, found):
        keys = {key for key, _ in found}
        return ['%s: %d.%d was confirmed and is lost' % (queue, *key) for key in self.published[queue]
                if key in self.confirmed and key not in keys and key not in self.acked[queue]]

    def adopt(self, found):
        """Takes what was found in each queue as what is there: it must survive whatever comes next."""
        self.confirmed = {key for rows in found.values() for key, _ in rows}
        for queue, rows in found.items():
            self.published[queue] = dict.fromkeys(key for key, _ in rows)
            self.acked[queue] = set()
            self.settled[queue] = set()
