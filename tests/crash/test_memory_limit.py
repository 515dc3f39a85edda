#!/usr/bin/python3
"""A broker in a control group that may have little memory, and queues that nobody reads: publishers are blocked in time, the
kernel never has to kill it, and what was confirmed is there after a kill.

The group is one of the test's own, below the one that it runs in: where the kernel has version 1 of the memory controller
or version 2, and where one may be made. TEST_MEMORY_LIMIT_OCTETS: how much is published (make memory-limit: 10 GB)."""

import contextlib
import os
import re
import select
import socket
import struct
import time
import unittest

import broker
import tap
import wire

GROUP_LIMIT = 256 << 20
OCTETS = int(float(os.environ.get('TEST_MEMORY_LIMIT_OCTETS', 300e6)))
LARGE, SMALL = 60000, 64
WINDOW = 400
PATIENCE = 20   # seconds in which a blocked publisher hears that it may go on, or we stop
BLOCKED, UNBLOCKED = (10, 60), (10, 61)


class Group:
    """A control group with a limit of memory; raises SkipTest where there can be none."""

    def __init__(self):
        self.path = None
        with open('/proc/self/cgroup') as lines:
            for line in lines:
                _, controllers, path = line.rstrip('\n').split(':', 2)
                if 'memory' in controllers.split(','):
                    self.make('/sys/fs/cgroup/memory', path, 'memory.limit_in_bytes', 'memory.max_usage_in_bytes',
                              'memory.oom_control')
                elif controllers == '' and self.path is None:
                    self.make('/sys/fs/cgroup', path, 'memory.max', 'memory.peak', 'memory.events')
        if self.path is None:
            raise unittest.SkipTest('no control group with a limit of memory can be made here')

    def make(self, root, path, limit, peak, events):
        for parent in (root + path, root):
            group = os.path.join(parent, 'stoatmq-test-%d' % os.getpid())
            try:
                os.mkdir(group)
            except OSError:
                continue
            try:
                with open(os.path.join(group, limit), 'w') as file:
                    file.write(str(GROUP_LIMIT))
            except OSError:
                os.rmdir(group)
                continue
            self.path, self.peak, self.events = group, peak, events
            return

    def read(self, name):
        with contextlib.suppress(OSError), open(os.path.join(self.path, name)) as file:
            return file.read()
        return ''

    def kills(self):
        found = re.search(r'^oom_kill (\d+)', self.read(self.events), re.M)
        return int(found[1]) if found else 0

    def remove(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # the last process may be on its way out
            with contextlib.suppress(OSError):
                os.rmdir(self.path)
                return
            time.sleep(0.05)


class GroupedBroker(broker.Broker):
    group = None

    def command(self):
        return ['sh', '-c', 'echo $$ > "$0" && exec "$@"', os.path.join(self.group.path, 'cgroup.procs'),
                *super().command()]


class Publisher:
    """Publishes to its queue, which nobody reads; bodies begin with their number."""

    def __init__(self, own, queue, durable):
        self.queue = queue
        self.durable = durable
        self.sent = self.confirmed = self.octets = 0
        self.blocked_since = None
        self.times_blocked = 0
        self.wire = wire.Wire(own.host, own.port)
        self.wire.handshake(capabilities={'connection.blocked': True}).open_channel()
        self.wire.send(wire.queue_declare(1, queue, durable=durable))
        self.wire.expect(wire.QUEUE_DECLARE_OK)
        self.wire.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'))
        self.wire.expect(wire.CONFIRM_SELECT_OK)

    def write(self, count):
        """The frames of the next messages."""
        frames = []
        for _ in range(count):
            size = LARGE if self.sent % 4 else SMALL
            frames.append(wire.publish(1, '', self.queue, struct.pack('>Q', self.sent) + bytes(size - 8),
                                       persistent=self.durable))
            self.sent += 1
            self.octets += size
        return memoryview(b''.join(frames))

    def take(self, payload):
        method, arguments = struct.unpack_from('>HH', payload), payload[4:]
        if method == BLOCKED:
            self.blocked_since = time.monotonic()
            self.times_blocked += 1
        elif method == UNBLOCKED:
            self.blocked_since = None
        else:
            assert method == wire.ACK, method
            tag, multiple = struct.unpack('>QB', arguments)
            assert multiple or tag == self.confirmed + 1, 'one publisher, one queue: in order'
            self.confirmed = tag

    def is_held(self):
        return self.blocked_since is not None and time.monotonic() - self.blocked_since > PATIENCE

    def run(self, octets):
        """Until so much is confirmed, or it is blocked for good."""
        output = memoryview(b'')
        progress = time.monotonic()
        while not self.is_held() and (self.octets < octets or self.confirmed < self.sent):
            if not output and self.octets < octets and self.sent - self.confirmed < WINDOW:
                output = self.write(20)
            readable, writable, _ = select.select([self.wire.socket], [self.wire.socket] if output else [], [], 1)
            if writable:
                output = output[self.wire.socket.send(output, socket.MSG_DONTWAIT):]
            if readable:
                self.wire.poll()
                for _, _, payload in self.wire.frames_at_hand():
                    self.take(payload)
            if readable or writable or self.blocked_since is not None:
                progress = time.monotonic()
            assert time.monotonic() - progress < 60, 'nothing moves, and nobody is blocked'


@broker.needs_own_broker
class MemoryLimit(unittest.TestCase):
    def setUp(self):
        if broker.SANITIZED:
            self.skipTest('a sanitizer has a memory of its own')
        self.group = Group()
        self.addCleanup(self.group.remove)
        self.broker = GroupedBroker()
        self.broker.group = self.group
        self.broker.start()
        self.addCleanup(self.broker.__exit__, None, None, None)

    def check_messages(self, publisher):
        """All that was confirmed is in the queue, once and in order."""
        reader = Publisher(self.broker, publisher.queue, True)
        reader.wire.send(wire.consume(1, publisher.queue, no_ack=True))
        expected = 0
        while expected < publisher.confirmed:
            kind, _, payload = reader.wire.read_frame(60)
            if kind == 3 and len(payload) >= 8:
                self.assertEqual(struct.unpack_from('>Q', payload)[0], expected)
                expected += 1
        reader.wire.socket.close()

    def test_consumers_that_do_not_acknowledge(self):
        """They have said how much they take; that it is more than memory has does not end the broker."""
        publisher = Publisher(self.broker, 'unacked', True)
        publisher.run(2 * GROUP_LIMIT)
        consumers = []
        for _ in range(8):
            consumer = Publisher(self.broker, publisher.queue, True).wire
            consumer.send(wire.qos(1, 60000))
            consumer.expect(wire.QOS_OK)
            consumer.send(wire.consume(1, publisher.queue))
            consumers.append(consumer)
        octets = 0
        while True:  # until none is given any more
            readable, _, _ = select.select([consumer.socket for consumer in consumers], [], [], 5)
            if not readable:
                break
            for each in readable:
                given = each.recv(1 << 20)
                self.assertTrue(given, 'it has ended, killed %d times' % self.group.kills())
                octets += len(given)
        self.assertTrue(self.broker.running(), 'it has ended')
        self.assertEqual(self.group.kills(), 0)
        self.assertIn('memory is critical', self.broker.log())
        print('# %d MB given to eight that never acknowledge, at most %d MiB of %d' % (
            octets / 1e6, int(self.group.read(self.group.peak) or 0) >> 20, GROUP_LIMIT >> 20), flush=True)
        for consumer in consumers:
            consumer.reset()
        self.check_messages(publisher)

    def test_queues_that_nobody_reads(self):
        limit = self.broker.log()
        self.assertRegex(limit, r'Memory high watermark set to 153.6 MiB \(of 256.0 MiB\)')
        for durable in (True, False):
            publisher = Publisher(self.broker, 'durable' if durable else 'transient', durable)
            publisher.run(OCTETS)
            self.assertTrue(self.broker.running(), 'it has ended')
            self.assertEqual(self.group.kills(), 0)
            self.assertGreater(publisher.confirmed, 1000)
            print('# %s: %d MB published, %d of %d messages confirmed, blocked %d times, at most %d MiB of %d' % (
                publisher.queue, publisher.octets / 1e6, publisher.confirmed, publisher.sent, publisher.times_blocked,
                int(self.group.read(self.group.peak) or 0) >> 20, GROUP_LIMIT >> 20), flush=True)
            publisher.wire.reset()
            if durable:
                kept = publisher
        self.broker.kill()
        self.broker.start()
        self.check_messages(kept)
        self.assertEqual(self.group.kills(), 0)


if __name__ == '__main__':
    tap.main()
