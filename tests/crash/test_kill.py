#!/usr/bin/python3
"""SIGKILL while clients publish, consume and declare: what the broker promised must be there after it.

Four publishers, each with a connection and a window of unconfirmed messages, send to two exchanges:

    kill-direct  --k0..k3-->  kill-0 .. kill-3
    kill-fanout  ---------->  kill-4, kill-5

A consumer takes from some of the queues and acks a part; somebody declares and deletes queues with bindings. At a
random moment the broker is killed; in some rounds it is killed again while it starts. Then every queue is read and
held against the ledger, emptied or put back, and the next round goes on from there.

TEST_KILL_ROUNDS and TEST_KILL_SEED set the number of rounds and repeat a run's choices.
"""

import os
import random
import struct
import threading
import time
import unittest

import broker
import ledger
import tap
import wire

ROUNDS = int(os.environ.get('TEST_KILL_ROUNDS', 20))
SEED = int(os.environ.get('TEST_KILL_SEED', random.randrange(1 << 32)))
PUBLISHERS = 4
WINDOW = 500
MESSAGES_PER_ROUND = 3000  # of a publisher; it slows down afterwards
QUEUES = ['kill-%d' % number for number in range(6)]
CONSUMED = QUEUES[1:5]
MARKS = 'kill-marks'
KEPT_AT_MOST = 6000
ABOUT_ACKS = ('was settled', 'came back as new', 'or was gone')  # what RabbitMQ does not promise


class Client(threading.Thread):
    """A thread with a connection that works until the broker is gone."""

    def __init__(self, own, book, seed):
        super().__init__(daemon=True)
        self.wire = wire.Wire(own.host, own.port).handshake().open_channel()
        self.ledger = book
        self.random = random.Random(seed)
        self.failure = None

    def run(self):
        try:
            self.work()
        except (wire.Closed, OSError):
            pass
        except Exception as error:
            self.failure = error
        finally:
            self.wire.socket.close()


class Publisher(Client):
    def __init__(self, own, book, seed, number, first):
        super().__init__(own, book, seed)
        self.number = number
        self.next = first
        self.sent = []      # keys, by confirm number - 1
        self.open = 0       # how many of them are not confirmed
        self.lowest = 0     # below it all are

    def work(self):
        self.wire.send(wire.method(1, wire.CONFIRM_SELECT, b'\1'))
        while True:
            if self.open < WINDOW:
                try:
                    self.wire.send(*(self.message() for _ in range(self.random.randrange(1, 40))))
                except OSError:
                    self.take_what_came()
                    raise
                self.wire.poll()
            else:
                self.wire.fill(time.monotonic() + 30)
            self.take_confirms()
            if len(self.sent) > MESSAGES_PER_ROUND:
                time.sleep(0.002)

    def message(self):
        key = self.number, self.next
        self.next += 1
        if self.random.random() < 0.25:
            exchange, routing_key, queues = 'kill-fanout', '', QUEUES[4:]
        else:
            at = self.random.randrange(4)
            exchange, routing_key, queues = 'kill-direct', 'k%d' % at, [QUEUES[at]]
        self.ledger.publish(queues, key)
        self.sent.append(key)
        self.open += 1
        size = 200000 if self.random.random() < 0.001 else self.random.randrange(0, 600)
        return wire.publish(1, exchange, routing_key, ledger.make_body(*key, size))

    def take_what_came(self):
        """Sending failed; what the broker had confirmed before may still be read."""
        try:
            while True:
                self.wire.poll()
                self.take_confirms()
                time.sleep(0.001)
        except wire.Closed:
            self.take_confirms()

    def take_confirms(self):
        for kind, _, payload in self.wire.frames_at_hand():
            if kind != wire.METHOD:
                continue
            method_id = struct.unpack_from('>HH', payload)
            if method_id != wire.ACK:
                raise AssertionError('a publisher got %s: %r' % (method_id, payload))
            self.confirm(*struct.unpack_from('>QB', payload, 4))

    def confirm(self, tag, multiple):
        first = self.lowest if multiple else tag - 1
        for at in range(first, tag):
            key = self.sent[at]
            if key is not None:
                self.ledger.confirmed.add(key)
                self.sent[at] = None
                self.open -= 1
            elif not multiple:
                raise AssertionError('%d was confirmed twice' % tag)
        while self.lowest < len(self.sent) and self.sent[self.lowest] is None:
            self.lowest += 1


class Consumer(Client):
    """Acks most of what it gets, and publishes marks behind its acks: a mark confirmed is the acks before it settled."""

    def work(self):
        self.marks = []     # the acks that each mark in flight stands behind, oldest first
        self.since = []     # acks since the last mark
        self.marked = 0
        self.wire.send(wire.method(1, wire.CONFIRM_SELECT, b'\1'), wire.qos(1, 100),
                       *(wire.consume(1, queue, queue) for queue in CONSUMED))
        while True:
            got, body = self.wire.read_message(30)
            if got.id == wire.DELIVER:
                self.on_delivery(got, body)
            elif got.id == wire.ACK:
                self.on_confirm(*struct.unpack('>QB', got.arguments))
            elif got.id not in (wire.QOS_OK, wire.CONSUME_OK):
                raise AssertionError('the consumer got %s: %r' % (got.id, got.arguments))

    def on_delivery(self, got, body):
        queue, tag, _ = wire.delivery(got.arguments)
        key = ledger.read_body(body)
        if key not in self.ledger.published[queue]:
            raise AssertionError('%s: %d.%d was never published' % (queue, *key))
        if self.random.random() < 0.98:
            self.ledger.acked[queue].add(key)
            self.since.append((queue, key))
            self.wire.send(wire.ack(1, tag))
        if len(self.since) >= 20:
            self.marks.append(self.since)
            self.since = []
            self.wire.send(wire.publish(1, '', MARKS, b'mark'))

    def on_confirm(self, tag, multiple):
        """Marks are confirmed in any order; acks count as settled from the oldest on."""
        while self.marked < tag and self.marks and (multiple or self.marked == tag - 1):
            for queue, key in self.marks.pop(0):
                self.ledger.settled[queue].add(key)
            self.marked += 1


class Definer(Client):
    """Declares queues with a binding, and deletes some again; what was answered must hold after the kill."""

    def __init__(self, own, book, seed, turn):
        super().__init__(own, book, seed)
        self.turn = turn
        self.present, self.absent, self.unsure = set(), set(), set()

    def work(self):
        count = 0
        while True:
            name = 'kill-defined-%d-%d' % (self.turn, count)
            count += 1
            self.unsure.add(name)
            self.wire.send(wire.queue_declare(1, name, durable=True), wire.queue_bind(1, name, 'kill-direct', name))
            self.wire.expect(wire.QUEUE_DECLARE_OK)
            self.wire.expect(wire.QUEUE_BIND_OK)
            self.move(name, self.present)
            if self.random.random() < 0.3:
                name = self.random.choice(sorted(self.present))
                self.move(name, self.unsure)
                self.wire.send(wire.method(1, (50, 40), b'\0\0' + wire.short(name) + b'\0'))
                self.wire.expect((50, 41))
                self.move(name, self.absent)
            time.sleep(0.01)

    def move(self, name, to):
        for names in (self.present, self.absent, self.unsure):
            names.discard(name)
        to.add(name)


class Reader:
    """Looks at a broker that has started again."""

    def __init__(self, own):
        self.wire = wire.Wire(own.host, own.port).handshake().open_channel()

    def count(self, queue):
        """Ready messages, or None when there is no such queue."""
        self.wire.send(wire.queue_declare(1, queue, passive=True))
        got = self.wire.expect(wire.QUEUE_DECLARE_OK, wire.CHANNEL_CLOSE)
        if got.id == wire.CHANNEL_CLOSE:
            self.wire.send(wire.method(1, wire.CHANNEL_CLOSE_OK))
            self.wire.open_channel()
            return None
        _, at = wire.read_short(got.arguments, 0)
        return struct.unpack_from('>I', got.arguments, at)[0]

    def read_all(self, queue):
        """Every message as (key, redelivered), none of them acked; as many as the queue says, and no more behind them."""
        found = []
        count = self.count(queue)
        assert count is not None, '%s is lost' % queue
        self.wire.send(wire.consume(1, queue, queue))
        self.wire.expect(wire.CONSUME_OK)
        while len(found) < count:
            got, body = self.wire.read_message()
            assert got.id == wire.DELIVER, got
            found.append((ledger.read_body(body), wire.delivery(got.arguments)[2]))
        assert self.count(queue) == 0
        return found

    def put_back(self):
        """Closes the channel: all it holds goes back to its place."""
        self.wire.send(wire.method(1, wire.CHANNEL_CLOSE, struct.pack('>H', 200) + wire.short('') + b'\0\0\0\0'))
        self.wire.expect(wire.CHANNEL_CLOSE_OK)
        self.wire.open_channel()

    def ack_all(self):
        """Acks all that was read, and returns when that is on disk."""
        self.wire.send(wire.ack(1, 0, multiple=True), wire.method(1, wire.CONFIRM_SELECT, b'\1'),
                       wire.publish(1, '', MARKS, b'mark'))
        self.wire.expect(wire.ACK)
        self.put_back()

    def delete(self, queue):
        self.wire.send(wire.method(1, (50, 40), b'\0\0' + wire.short(queue) + b'\0'))
        self.wire.expect((50, 41))


@broker.needs_own_broker
class Kill(unittest.TestCase):
    def setUp(self):
        self.random = random.Random(SEED)
        self.broker = broker.Broker().start()
        self.addCleanup(self.broker.__exit__, None, None, None)
        self.ledger = ledger.Ledger(QUEUES)
        self.next = [0] * PUBLISHERS
        self.confirmed = self.acked = self.killed = 0

    def test_rounds(self):
        print('# %d rounds from seed %d' % (ROUNDS, SEED))
        self.define()
        started = time.monotonic()
        for turn in range(ROUNDS):
            try:
                self.one_round(turn)
            except Exception as error:
                raise AssertionError('in round %d from seed %d' % (turn, SEED)) from error
        print('# %d kills, %d messages confirmed, %d acked, %.1f s' % (
            self.killed, self.confirmed, self.acked, time.monotonic() - started))
        self.assertGreater(self.confirmed, ROUNDS * 20)
        self.assertGreater(self.acked, ROUNDS * 5)

    def define(self):
        reader = Reader(self.broker)
        reader.wire.send(wire.exchange_declare(1, 'kill-direct', 'direct'),
                         wire.exchange_declare(1, 'kill-fanout', 'fanout'))
        reader.wire.expect(wire.EXCHANGE_DECLARE_OK)
        reader.wire.expect(wire.EXCHANGE_DECLARE_OK)
        for queue in QUEUES + [MARKS]:
            reader.wire.send(wire.queue_declare(1, queue, durable=True))
            reader.wire.expect(wire.QUEUE_DECLARE_OK)
        for number, queue in enumerate(QUEUES):
            exchange, key = ('kill-direct', 'k%d' % number) if number < 4 else ('kill-fanout', '')
            reader.wire.send(wire.queue_bind(1, queue, exchange, key))
            reader.wire.expect(wire.QUEUE_BIND_OK)
        reader.wire.close()

    def one_round(self, turn):
        before = len(self.ledger.confirmed)
        publishers = [Publisher(self.broker, self.ledger, self.random.random(), number, self.next[number])
                      for number in range(PUBLISHERS)]
        definer = Definer(self.broker, self.ledger, self.random.random(), turn)
        clients = publishers + [Consumer(self.broker, self.ledger, self.random.random()), definer]
        for client in clients:
            client.start()
        time.sleep(self.random.uniform(0.05, 0.8))
        self.kill(turn)
        for client in clients:
            client.join(20)
            self.assertFalse(client.is_alive(), 'a client did not notice the kill')
            if client.failure:
                raise client.failure
        self.next = [publisher.next for publisher in publishers]
        self.confirmed += len(self.ledger.confirmed) - before
        self.acked += sum(map(len, self.ledger.acked.values()))
        self.broker.start()
        self.check_messages()
        self.check_definitions(definer)

    def kill(self, turn):
        """One kill; in every fourth round another while the broker starts."""
        self.broker.kill()
        self.killed += 1
        if turn % 4 == 3:
            self.broker.launch()
            time.sleep(self.random.uniform(0, 0.04))
            self.broker.kill()
            self.killed += 1

    def check_messages(self):
        reader = Reader(self.broker)
        wrong, found = [], {}
        for queue in QUEUES:
            found[queue] = reader.read_all(queue)
            wrong += self.ledger.check(queue, found[queue])
            if len(found[queue]) > KEPT_AT_MOST or self.random.random() < 0.4:
                reader.ack_all()
                found[queue] = []
            else:
                reader.put_back()
        reader.wire.close()
        self.ledger.adopt(found)
        if broker.REFERENCE:
            wrong = [sentence for sentence in wrong if not sentence.endswith(ABOUT_ACKS)]
        if wrong:
            self.fail('%d complaints:\n%s' % (len(wrong), '\n'.join(wrong[:20])))

    def check_definitions(self, definer):
        reader = Reader(self.broker)
        for name in definer.present | definer.absent | definer.unsure:
            count = reader.count(name)
            if name in definer.present:
                self.assertIsNotNone(count, '%s was declared and is lost' % name)
                self.check_binding(reader, name)
            elif name in definer.absent:
                self.assertIsNone(count, '%s was deleted and is back' % name)
            if count is not None:
                reader.delete(name)
        reader.wire.send(wire.method(1, (50, 30), b'\0\0' + wire.short(MARKS) + b'\0'))
        reader.wire.expect((50, 31))
        reader.wire.close()

    def check_binding(self, reader, name):
        """What is not routed comes back before the reply to what was sent behind it."""
        reader.wire.send(wire.publish_method(1, 'kill-direct', name, mandatory=True), wire.content_header(1, 0),
                         wire.queue_declare(1, name, passive=True))
        self.assertEqual(reader.wire.read_message()[0].id, wire.QUEUE_DECLARE_OK, 'the binding of %s is lost' % name)


class LedgerTest(unittest.TestCase):
    """A broker that lies must be caught: forged findings against a ledger that is right."""

    def setUp(self):
        self.ledger = ledger.Ledger(['q'])
        for number in range(10):
            self.ledger.publish(['q'], (1, number))
        self.ledger.confirmed.update((1, number) for number in range(8))
        self.ledger.acked['q'].update({(1, 0), (1, 1)})
        self.ledger.settled['q'].add((1, 0))
        self.found = [((1, number), False) for number in range(2, 8)]

    def complains(self, text):
        wrong = self.ledger.check('q', self.found)
        self.assertEqual(len(wrong), 1, wrong)
        self.assertIn(text, wrong[0])

    def test_honest_broker(self):
        self.assertEqual(self.ledger.check('q', self.found), [])
        self.found.insert(0, ((1, 1), True))
        self.found.append(((1, 8), False))
        self.assertEqual(self.ledger.check('q', self.found), [])

    def test_lost(self):
        del self.found[3]
        self.complains('1.5 was confirmed and is lost')

    def test_all_lost(self):
        self.found = []
        self.assertEqual(len(self.ledger.check('q', self.found)), 6)

    def test_twice(self):
        self.found.append(self.found[-1])
        self.complains('1.7 is there twice')

    def test_out_of_order(self):
        self.found[1], self.found[2] = self.found[2], self.found[1]
        self.complains('1.3 stands behind 1.4')

    def test_invented(self):
        self.found.append(((2, 0), False))
        self.complains('2.0 was not published')

    def test_settled_comes_back(self):
        self.found.insert(0, ((1, 0), True))
        self.complains('1.0 came back after its ack was settled')

    def test_acked_comes_back_as_new(self):
        self.found.insert(0, ((1, 1), False))
        self.complains('1.1 was acked and came back as new')

    def test_what_was_found_once_must_stay(self):
        self.found.append(((1, 9), False))
        self.ledger.adopt({'q': self.found})
        del self.found[-1]
        self.complains('1.9 was confirmed and is lost')

    def test_what_was_emptied_must_not_come_back(self):
        self.ledger.adopt({'q': []})
        self.assertEqual(len(self.ledger.check('q', self.found)), 6)

    def test_damaged_bodies(self):
        body = ledger.make_body(1, 2, 100)
        self.assertEqual(ledger.read_body(body), (1, 2))
        for at in range(len(body)):
            changed = bytearray(body)
            changed[at] ^= 1
            with self.assertRaises(ledger.Damaged):
                ledger.read_body(bytes(changed))
            with self.assertRaises(ledger.Damaged):
                ledger.read_body(body[:at])


if __name__ == '__main__':
    tap.main()
