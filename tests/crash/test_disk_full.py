#!/usr/bin/python3
"""A disk that is full: publishers are blocked, consumers are served, nothing that was confirmed is lost, and the broker
goes on by itself when there is room again.

A cycle fills the disk by publishing until connection.blocked comes, drains the queue at 0 octets free, and sees the publisher
unblocked and all its messages confirmed. In every third cycle the broker is killed while the disk is full. The disk is

    tmpfs        8 MiB, in a mount namespace of the test's own
    ext4         32 MiB in a file, likewise; that file's own disk is not full
    file size    RLIMIT_FSIZE, which needs no rights

TEST_DISK_FULL_CYCLES sets the cycles on each of them.
"""

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

import broker
import tap
import wire

CYCLES = int(os.environ.get('TEST_DISK_FULL_CYCLES', 3))
BLOCKED, UNBLOCKED = (10, 60), (10, 61)
QUEUE = 'full'
NO_LIMIT = ('disk_free_limit.absolute=0',)  # the wall itself is met, not the line before it
IN_NAMESPACE = 'TEST_DISK_FULL_NAMESPACE'


def make_body(key, size):
    """A body that tells its key and whether it is whole."""
    body = struct.pack('>QQ', *key) + b'%d,' % key[1] * (size // 4)
    return body + struct.pack('>I', zlib.crc32(body))


def read_body(body):
    assert struct.unpack('>I', body[-4:])[0] == zlib.crc32(body[:-4]), 'a body that nobody published'
    return struct.unpack_from('>QQ', body)


class Book:
    """What one publisher sent, and what was confirmed."""

    def __init__(self):
        self.published = []
        self.confirmed = set()

    def check(self, found):
        """What is wrong with what was found, (key, redelivered) in order."""
        new = [key for key, redelivered in found if not redelivered]
        keys = [key for key, _ in found]
        wrong = []
        if lost := sorted(self.confirmed.difference(keys)):
            wrong.append('confirmed and lost: %s' % lost[:5])
        if strange := sorted(set(keys).difference(self.published)):
            wrong.append('never published: %s' % strange[:5])
        if new != sorted(set(new)):
            wrong.append('out of order, or twice')
        return wrong


def enter_namespace():
    """Mounts that nobody else sees, if they are allowed."""
    if os.environ.get(IN_NAMESPACE) or os.geteuid() != 0:
        return
    if subprocess.run(['unshare', '--mount', 'true'], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        os.environ[IN_NAMESPACE] = '1'
        os.execvp('unshare', ['unshare', '--mount', '--propagation', 'private', sys.executable] + sys.argv)


class LimitedBroker(broker.Broker):
    prefix = ()

    def command(self):
        return [*self.prefix, *super().command()]


class Publisher:
    def __init__(self, own, number, book):
        self.wire = wire.Wire(own.host, own.port)
        self.wire.handshake(capabilities={'connection.blocked': True}).open_channel()
        self.wire.send(wire.queue_declare(1, QUEUE, durable=True))
        self.wire.expect(wire.QUEUE_DECLARE_OK)
        self.wire.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'))
        self.wire.expect(wire.CONFIRM_SELECT_OK)
        self.number = number
        self.book = book
        self.sent = []          # keys, by confirm number - 1
        self.open = set()       # confirm numbers
        self.blocked = False
        self.reason = None

    def publish(self, size):
        key = (self.number, len(self.sent))
        self.sent.append(key)
        self.open.add(len(self.sent))
        self.book.published.append(key)
        self.wire.send(wire.publish(1, '', QUEUE, make_body(key, size)))

    def take(self, timeout):
        """The next thing that the broker says."""
        got = self.wire.read_method(timeout)
        if got.id == BLOCKED:
            self.blocked = True
            self.reason = wire.read_short(got.arguments, 0)[0]
        elif got.id == UNBLOCKED:
            self.blocked = False
        else:
            assert got.id == wire.ACK, got
            tag, multiple = int.from_bytes(got.arguments[:8], 'big'), got.arguments[8] & 1
            numbers = [n for n in self.open if n == tag or (multiple and n <= tag)]
            self.open.difference_update(numbers)
            self.book.confirmed.update(self.sent[n - 1] for n in numbers)

    def fill(self):
        """Publishes until it is blocked; a few at a time, so that a socket's buffers are not the wall."""
        for count in range(1, 100000):
            self.publish((count * 7919) % 9000)
            while len(self.open) > 20 and not self.blocked:
                self.take(10)
            if self.blocked:
                return
        raise AssertionError('the disk does not fill')

    def await_all(self):
        """Unblocked, and every message confirmed; how long the first took."""
        begin = time.monotonic()
        while self.blocked:
            self.take(10)
        unblocked = time.monotonic() - begin
        while self.open:
            self.take(10)
        return unblocked


@broker.needs_own_broker
class DiskFull(unittest.TestCase):
    def mount(self, *words):
        if not os.environ.get(IN_NAMESPACE):
            self.skipTest('mounting a small file system is not allowed here')
        directory = tempfile.mkdtemp(prefix='disk-')
        done = subprocess.run(['mount', *words, directory], stderr=subprocess.PIPE, encoding='utf-8', check=False)
        if done.returncode != 0:
            self.skipTest('cannot mount: ' + done.stderr.strip())
        self.addCleanup(subprocess.run, ['umount', '--lazy', directory], check=False)
        return directory

    def start(self, directory=None, prefix=()):
        self.broker = LimitedBroker(NO_LIMIT, data_dir=directory and os.path.join(directory, 'data'))
        self.broker.prefix = prefix
        self.broker.start()
        self.addCleanup(self.broker.__exit__, None, None, None)
        self.book = Book()

    def drain(self, found=()):
        """Takes everything, in pieces; each must be acked before more comes. Adds it to what was found before."""
        found = list(found)
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as consumer:
            consumer.send(wire.qos(1, 50), wire.consume(1, QUEUE))
            consumer.expect(wire.QOS_OK)
            consumer.expect(wire.CONSUME_OK)
            while True:
                try:
                    got, body = consumer.read_message(0.5 if self.is_complete(found) else 20)
                except wire.Silent:
                    break
                _, tag, redelivered = wire.delivery(got.arguments)
                found.append((read_body(body), redelivered))
                consumer.send(wire.ack(1, tag))
            consumer.close()
        return found

    def is_complete(self, found):
        return self.book.confirmed <= {key for key, _ in found}

    def cycle(self, number):
        self.book = Book()
        publisher = Publisher(self.broker, number, self.book)
        publisher.fill()
        self.assertEqual(publisher.reason, 'low on disk')
        if number % 3 == 2:
            self.broker.kill()
            self.broker.start()
        found = self.drain()
        self.assertEqual(self.book.check(found), [])
        if number % 3 != 2:
            self.assertLess(publisher.await_all(), 5)
            publisher.wire.close()
            self.assertEqual(self.book.check(self.drain(found)), [])

    def check_cycles(self):
        for number in range(CYCLES):
            self.cycle(number)
        self.broker.stop()
        self.broker.check_quiet(('disk resource limit alarm set', 'broker forced'))

    def test_tmpfs(self):
        self.start(self.mount('-t', 'tmpfs', '-o', 'size=8m', 'none'))
        self.check_cycles()

    def test_ext4(self):
        descriptor, image = tempfile.mkstemp(prefix='disk-', suffix='.ext4')
        self.addCleanup(os.unlink, image)
        with open(descriptor, 'wb') as file:
            file.truncate(32 << 20)
        made = subprocess.run(['mkfs.ext4', '-q', '-m', '0', image], stderr=subprocess.PIPE, check=False)
        if made.returncode != 0:
            self.skipTest('cannot make an ext4 file system')
        self.start(self.mount('-o', 'loop', image))
        self.check_cycles()

    def test_file_size(self):
        self.start(prefix=('prlimit', '--fsize=%d' % (8 << 20)))
        self.check_cycles()

    def test_room_comes_back_from_outside(self):
        disk = self.mount('-t', 'tmpfs', '-o', 'size=32m', 'none')
        filler = os.path.join(disk, 'filler')
        with open(filler, 'wb') as file:
            file.write(bytes(24 << 20))
        self.start(disk)
        publisher = Publisher(self.broker, 0, self.book)
        publisher.fill()
        os.unlink(filler)
        self.assertLess(publisher.await_all(), 1.5)
        publisher.wire.close()
        self.assertEqual(self.book.check(self.drain()), [])
        self.broker.stop()

    def test_a_store_alone_on_a_full_disk(self):
        """It is not damaged: lock.mdb has no room, and nobody may call that a damage."""
        disk = self.mount('-t', 'tmpfs', '-o', 'size=8m', 'none')
        self.start(disk)
        data = self.broker.data_dir
        publisher = Publisher(self.broker, 0, self.book)
        publisher.publish(100)
        publisher.await_all()
        publisher.wire.close()
        self.broker.stop()
        for name in os.listdir(data):
            if name != 'data.mdb':
                os.unlink(os.path.join(data, name))
        filler = os.path.join(disk, 'filler')
        with open(filler, 'wb', buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

        def run(*words):
            return subprocess.run([str(broker.BUILD / words[0]), *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  encoding='utf-8', timeout=30, check=False)

        verified = run('stoatctl', 'verify', data)
        self.assertEqual((verified.returncode, verified.stderr), (0, ''))
        dumped = run('stoatdump', data)
        started = subprocess.run(self.broker.command(), stderr=subprocess.PIPE, encoding='utf-8', timeout=30, check=False)
        for done in (dumped, started):
            self.assertEqual(done.returncode, 74, done)
            self.assertIn('%s: the disk is full: there is no room for lock.mdb' % data, done.stderr)
        self.assertNotIn('salvage', os.listdir(data))
        os.unlink(filler)
        self.broker.start()
        self.assertNotIn('salvage', self.broker.log())
        self.assertEqual(self.book.check(self.drain()), [])
        self.broker.stop()

    def test_salvage_without_room(self):
        """Each start says what is missing; with room for it nothing is lost."""
        disk = self.mount('-t', 'tmpfs', '-o', 'size=24m', 'none')
        self.start(disk)
        data = self.broker.data_dir
        publisher = Publisher(self.broker, 0, self.book)
        for _ in range(600):
            publisher.publish(9000)
        publisher.await_all()
        publisher.wire.close()
        self.broker.stop()
        left = os.statvfs(data)
        kept = left.f_bavail * left.f_frsize // (1 << 20) - 2  # MiB
        self.assertGreater(kept, 0)
        with open(os.path.join(data, 'data.mdb.damaged-20260101T000000Z'), 'wb') as old:
            old.write(bytes(kept << 20))
        with open(os.path.join(data, 'salvage'), 'wb'):
            pass  # the note of a broker that met damage
        takes = os.stat(os.path.join(data, 'data.mdb')).st_blocks * 512 / (1 << 20)
        for _ in range(2):
            done = subprocess.run(self.broker.command(), stderr=subprocess.PIPE, encoding='utf-8', timeout=30, check=False)
            free = os.statvfs(data)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn('cannot salvage the store in %s: the disk is full. data.mdb takes %.1f MiB' % (data, takes), done.stderr)
            self.assertIn('%.1f MiB are free' % (free.f_bavail * free.f_frsize / (1 << 20)), done.stderr)
            self.assertIn('data.mdb.damaged-* there, 1 of earlier salvages with %d.0 MiB, may be removed' % kept, done.stderr)
            self.assertNotIn('salvage.new', os.listdir(data))
        subprocess.run(['mount', '-o', 'remount,size=48m', disk], check=True)
        self.broker.start()
        self.assertEqual(self.book.check(self.drain()), [])
        self.broker.stop()


if __name__ == '__main__':
    enter_namespace()
    tap.main()
