"""The clients of the kill tests: each a thread with a connection that works until the broker is gone.

    Publisher     several channels with confirms, to all lines; keeps a window open
    Drip          one message after the other is confirmed: a queue of many small commits
    Consumer      acks, rejects, requeues, cancels and consumes again
    TxWorker      takes, publishes the result to two queues, acks, commits, or rolls back first
    Purger        purges
    Definer       declares queues with a binding and messages, deletes some, declares some of these again

What they did they write into the ledger. LINES says what there is, `define` makes it.
"""

import random
import struct
import threading
import time

import ledger
import wire

DIRECT, FANOUT, RESULTS, TO_TTL, TO_REJECTED, TO_SHORT = (
    'kill-direct', 'kill-fanout', 'kill-results', 'kill-to-ttl', 'kill-to-rejected', 'kill-to-short')
MARKS = 'kill-marks'

LINES = {
    'plain-0': dict(queue='kill-0'),
    'plain-1': dict(queue='kill-1'),
    'plain-2': dict(queue='kill-2'),
    'fan-0': dict(queue='kill-fan-0'),
    'fan-1': dict(queue='kill-fan-1'),
    'ttl': dict(queue='kill-ttl', behind='kill-ttl-dead'),
    'rejected': dict(queue='kill-rejected', behind='kill-rejected-dead'),
    'short': dict(queue='kill-short', behind='kill-short-dead', limit=40),
    'tail': dict(queue='kill-tail', limit=60),
    'priority': dict(queue='kill-priority', priorities=4),
    'purged': dict(queue='kill-purged'),
    'drip': dict(queue='kill-drip'),
    'tx-a': dict(queue='kill-tx', behind='kill-tx-a'),
    'tx-b': dict(queue='kill-tx', behind='kill-tx-b'),
}
ARGUMENTS = {
    'kill-ttl': {'x-message-ttl': 250, 'x-dead-letter-exchange': TO_TTL},
    'kill-rejected': {'x-dead-letter-exchange': TO_REJECTED},
    'kill-short': {'x-max-length': 40, 'x-dead-letter-exchange': TO_SHORT},
    'kill-tail': {'x-max-length': 60},
    'kill-priority': {'x-max-priority': 3},
}
BINDINGS = [(FANOUT, 'kill-fan-0'), (FANOUT, 'kill-fan-1'), (RESULTS, 'kill-tx-a'), (RESULTS, 'kill-tx-b'),
            (TO_TTL, 'kill-ttl-dead'), (TO_REJECTED, 'kill-rejected-dead'), (TO_SHORT, 'kill-short-dead')]
EXCHANGES = [(DIRECT, 'direct')] + [(name, 'fanout') for name in (FANOUT, RESULTS, TO_TTL, TO_REJECTED, TO_SHORT)]

# Where publishers send: (weight, exchange, routing key, lines).
ROUTES = [(10, DIRECT, 'kill-0', ['plain-0']), (10, DIRECT, 'kill-1', ['plain-1']), (10, DIRECT, 'kill-2', ['plain-2']),
          (10, FANOUT, '', ['fan-0', 'fan-1']), (8, DIRECT, 'kill-ttl', ['ttl']), (10, DIRECT, 'kill-rejected', ['rejected']),
          (6, DIRECT, 'kill-short', ['short']), (6, DIRECT, 'kill-tail', ['tail']),
          (8, DIRECT, 'kill-priority', ['priority']), (8, DIRECT, 'kill-purged', ['purged']),
          (8, DIRECT, 'kill-tx', ['tx-a', 'tx-b'])]
TX_ROUTES = [route for route in ROUTES if route[3] == ['tx-a', 'tx-b']]

# What the consumer takes: queue -> lines, and the line's part.
CONSUMED = {'kill-1': 'plain-1', 'kill-2': 'plain-2', 'kill-fan-0': 'fan-0', 'kill-rejected': 'rejected',
            'kill-short-dead': 'short', 'kill-ttl-dead': 'ttl', 'kill-priority': 'priority'}


def queues():
    """Every queue there is, those of a line one after the other, without those for marks."""
    names = {}
    for line in LINES.values():
        names[line['queue']] = None
        if line.get('behind'):
            names[line['behind']] = None
    return list(names)


def define(own):
    with wire.Wire(own.host, own.port).handshake().open_channel() as link:
        for name, kind in EXCHANGES:
            link.send(wire.exchange_declare(1, name, kind))
            link.expect(wire.EXCHANGE_DECLARE_OK)
        for name in queues() + [MARKS]:
            link.send(wire.queue_declare(1, name, durable=True, **ARGUMENTS.get(name, {})),
                      wire.queue_bind(1, name, DIRECT, name))
            link.expect(wire.QUEUE_DECLARE_OK)
            link.expect(wire.QUEUE_BIND_OK)
        for exchange, name in BINDINGS:
            link.send(wire.queue_bind(1, name, exchange, ''))
            link.expect(wire.QUEUE_BIND_OK)
        link.close()


class Client(threading.Thread):
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

    def message(self, key, channel, exchange, routing_key, size, **how):
        message_id, body = ledger.make_message(*key, size)
        return wire.publish(channel, exchange, routing_key, body, message_id=message_id, **how)

    def expect(self, method_id):
        got = self.wire.read_method(30)
        if got.id != method_id:
            self.unexpected(got)
        return got

    def unexpected(self, got):
        text = wire.close_reason(got.arguments) if got.id in (wire.CLOSE, wire.CHANNEL_CLOSE) else ''
        if got.id == wire.CLOSE and 'shutdown' in text[1]:
            raise wire.Closed(text)     # it was told to stop
        raise AssertionError('%s got %s %s' % (type(self).__name__, got.id, text))


class Confirms:
    """A channel of a publisher: which of its keys the broker has confirmed."""

    def __init__(self, book):
        self.ledger = book
        self.sent = []      # keys, by confirm number - 1; None when confirmed
        self.open = 0       # how many are not
        self.lowest = 0     # below it all are

    def add(self, key):
        self.sent.append(key)
        self.open += 1

    def settle(self, tag, multiple):
        for at in range(self.lowest if multiple else tag - 1, tag):
            key = self.sent[at]
            if key is not None:
                if key not in self.ledger.transient:
                    self.ledger.confirmed.add(key)
                self.sent[at] = None
                self.open -= 1
            elif not multiple:
                raise AssertionError('%d was confirmed twice' % tag)
        while self.lowest < len(self.sent) and self.sent[self.lowest] is None:
            self.lowest += 1


class Publisher(Client):
    CHANNELS = 3
    WINDOW = 400            # of each channel
    AT_MOST = 3000          # of each; it slows down afterwards

    def __init__(self, own, book, seed, number, numbers, routes=None):
        """Channel c publishes as number + c, and numbers says from where on; routes: of ROUTES."""
        super().__init__(own, book, seed)
        self.number = number
        self.numbers = numbers
        self.routes = routes or ROUTES
        self.weights = [route[0] for route in self.routes]
        self.confirms = [Confirms(book) for _ in range(self.CHANNELS)]
        for channel in range(2, self.CHANNELS + 1):
            self.wire.open_channel(channel)
        for channel in range(1, self.CHANNELS + 1):
            self.wire.send(wire.method(channel, wire.CONFIRM_SELECT, b'\0'))
            self.expect(wire.CONFIRM_SELECT_OK)

    def work(self):
        while True:
            free = [at for at, channel in enumerate(self.confirms) if channel.open < self.WINDOW]
            if free:
                try:
                    self.wire.send(*self.some(self.random.choice(free)))
                except OSError:
                    self.take_what_came()
                    raise
                self.wire.poll()
            else:
                self.wire.fill(time.monotonic() + 30)
            self.take_confirms()
            if sum(len(channel.sent) for channel in self.confirms) > self.AT_MOST:
                time.sleep(0.002)

    def some(self, at):
        routes = self.random.choices(self.routes, self.weights, k=self.random.randrange(1, 40))
        return [self.one(at, *route[1:]) for route in routes]

    def one(self, at, exchange, routing_key, lines):
        publisher = self.number + at
        key = publisher, self.numbers[publisher]
        self.numbers[publisher] += 1
        chance = self.random.random()
        persistent = chance > 0.03 or 'tail' in lines or 'short' in lines or 'tx-a' in lines
        if persistent:
            self.ledger.publish(lines, key)
        else:
            self.ledger.transient.add(key)
        self.confirms[at].add(key)
        size = self.random.randrange(0, 600)
        if chance > 0.9995:
            size = 1 << 20 if chance > 0.9999 else 200000
        return self.message(key, at + 1, exchange, routing_key, size, persistent=persistent,
                            priority=key[1] % 4 if 'priority' in lines else None)

    def take_what_came(self):
        """Sending failed; what the broker had confirmed before may still be read."""
        try:
            while True:
                self.wire.poll()
                self.take_confirms()
                time.sleep(0.001)
        except (wire.Closed, OSError):
            self.take_confirms()

    def take_confirms(self):
        for kind, channel, payload in self.wire.frames_at_hand():
            if kind != wire.METHOD:
                continue
            got = wire.Method(channel, struct.unpack_from('>HH', payload), payload[4:])
            if got.id != wire.ACK:
                self.unexpected(got)
            self.confirms[channel - 1].settle(*struct.unpack('>QB', got.arguments))


class Drip(Publisher):
    CHANNELS = 1
    WINDOW = 1

    def some(self, at):
        return [self.one(at, DIRECT, 'kill-drip', ['drip'])]


class Marking(Client):
    """Publishes marks behind what it acks: a mark confirmed is the acks before it settled."""

    EVERY = 20

    def __init__(self, own, book, seed):
        super().__init__(own, book, seed)
        self.marks = []     # what each mark in flight stands behind, oldest first
        self.since = []     # since the last mark: (set, key) to enter when it is settled
        self.marked = 0
        self.wire.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'))
        self.wire.expect(wire.CONFIRM_SELECT_OK)

    def mark(self):
        if len(self.since) >= self.EVERY:
            self.marks.append(self.since)
            self.since = []
            self.wire.send(wire.publish(1, '', MARKS, b'mark'))

    def on_confirm(self, tag, multiple):
        """Marks are confirmed in any order; acks count as settled from the oldest on."""
        while self.marked < tag and self.marks and (multiple or self.marked == tag - 1):
            for keys, key in self.marks.pop(0):
                keys.add(key)
            self.marked += 1


class Consumer(Marking):
    PREFETCH = 100

    def __init__(self, own, book, seed):
        super().__init__(own, book, seed)
        self.open = {}      # delivery tag -> (queue, key), of what may be acked
        self.turn = 0       # consumer tags are `queue turn`

    def work(self):
        self.wire.send(wire.qos(1, self.PREFETCH), *(self.consume(queue) for queue in CONSUMED))
        while True:
            got = self.wire.read_method(30)
            if got.id == wire.DELIVER:
                self.on_delivery(got, *self.wire.read_body())
            elif got.id == wire.ACK:
                self.on_confirm(*struct.unpack('>QB', got.arguments))
            elif got.id == wire.CANCEL_OK:
                self.wire.send(self.consume(wire.read_short(got.arguments, 0)[0].split()[0]))
            elif got.id not in (wire.QOS_OK, wire.CONSUME_OK):
                self.unexpected(got)

    def consume(self, queue):
        self.turn += 1
        return wire.consume(1, queue, '%s %d' % (queue, self.turn))

    def on_delivery(self, got, properties, body):
        consumer, tag, _ = wire.delivery(got.arguments)
        queue = consumer.split()[0]
        line = self.ledger.lines[CONSUMED[queue]]
        key = ledger.read_message(wire.read_message_id(properties), body)
        if key in self.ledger.transient:
            self.wire.send(wire.ack(1, tag))
            return
        if key not in line.published:
            raise AssertionError('%s: %d.%d was never published' % (queue, *key))
        if key in line.acked or (key in line.left and queue == line.queue):
            raise AssertionError('%s: %d.%d was settled and is delivered again' % (queue, *key))
        self.open[tag] = line, key
        self.answer(line, queue, tag, consumer)
        self.mark()

    def answer(self, line, queue, tag, consumer):
        chance = self.random.random()
        if chance < 0.01:
            self.ack_up_to(tag)
        elif chance < 0.03:
            self.wire.send(wire.nack(1, tag) if chance < 0.02 else wire.reject(1, tag, requeue=True))
            del self.open[tag]
        elif chance < 0.04:
            pass            # it keeps this one
        elif line.behind == 'kill-rejected-dead' and chance < 0.7:
            self.reject(line, tag, chance)
        else:
            self.ack(tag)
        if chance > 0.998:
            self.wire.send(wire.cancel(1, consumer))

    def note_ack(self, tag):
        line, key = self.open.pop(tag)
        line.acked.add(key)
        self.since.append((line.settled, key))

    def ack(self, tag):
        self.note_ack(tag)
        self.wire.send(wire.ack(1, tag))

    def ack_up_to(self, last):
        for tag in [tag for tag in self.open if tag <= last]:
            self.note_ack(tag)
        self.wire.send(wire.ack(1, last, multiple=True))

    def reject(self, line, tag, chance):
        _, key = self.open.pop(tag)
        self.since.append((line.left, key))
        self.wire.send(wire.reject(1, tag) if chance < 0.4 else wire.nack(1, tag, requeue=False))


class TxWorker(Client):
    PREFETCH = 30

    def __init__(self, own, book, seed):
        super().__init__(own, book, seed)
        self.waiting = []       # (tag, key, size) delivered and not taken yet
        self.lines = [book.lines['tx-a'], book.lines['tx-b']]
        self.committed = 0

    def work(self):
        self.wire.send(wire.method(1, wire.TX_SELECT), wire.qos(1, self.PREFETCH), wire.consume(1, 'kill-tx', 'tx'))
        while True:
            self.take(wire.TX_SELECT_OK, wire.QOS_OK, wire.CONSUME_OK)
            while self.waiting:
                self.transact()

    def take(self, *expected):
        """Takes a delivery in; returns the id of any other method that is expected."""
        got = self.wire.read_method(30)
        if got.id == wire.DELIVER:
            properties, body = self.wire.read_body()
            key = ledger.read_message(wire.read_message_id(properties), body)
            if any(key in line.left for line in self.lines):
                raise AssertionError('kill-tx: %d.%d was replaced and is delivered again' % key)
            self.waiting.append((wire.delivery(got.arguments)[1], key, len(body)))
        elif got.id not in expected:
            self.unexpected(got)
        return got.id

    def finish(self, end, ended):
        self.wire.send(wire.method(1, end))
        while self.take(ended) != ended:
            pass

    def transact(self):
        count = self.random.randrange(1, 9)
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        if self.random.random() < 0.1:
            self.say(taken)
            self.finish(wire.TX_ROLLBACK, wire.TX_ROLLBACK_OK)
        transaction = ledger.Transaction(key for _, key, _ in taken)
        self.ledger.transactions.append(transaction)
        self.say(taken)
        self.finish(wire.TX_COMMIT, wire.TX_COMMIT_OK)
        transaction.committed = True
        self.committed += 1
        for line in self.lines:
            line.left.update(transaction.keys)

    def say(self, taken):
        """The publishes and acks, in any order of the two kinds."""
        frames = [self.message(key, 1, RESULTS, '', size) for _, key, size in taken]
        acks = ([wire.ack(1, tag) for tag, _, _ in taken] if self.random.random() < 0.7 else
                [wire.ack(1, max(tag for tag, _, _ in taken), multiple=True)])
        frames = frames + acks if self.random.random() < 0.5 else acks + frames
        self.wire.send(*frames)


class Link:
    """A second connection of a client that wants two things to happen in one commit: the broker reads no more from one
    that waits for the disk. Its channel confirms."""

    def __init__(self, own):
        self.wire = wire.Wire(own.host, own.port).handshake().open_channel()
        self.wire.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'))
        self.wire.expect(wire.CONFIRM_SELECT_OK)
        self.confirmed = 0

    def send_behind(self, first, frames, *others):
        """Sends frames on the connection called first, then others on this one, while the store is at work: often the
        broker reads them in this order and in the time of one commit."""
        self.wire.send(wire.publish(1, '', MARKS, b'keeps the store busy'))
        time.sleep(0.0005)
        first.send(*frames)
        time.sleep(0.0002)
        self.wire.send(*others)

    def wait(self, client, count, *expected):
        """Until so many publishes are confirmed and these methods have come; returns them."""
        missing = set(range(count))
        came = {}
        while missing or len(came) < len(expected):
            got = self.wire.read_method(30)
            if got.id == wire.ACK:
                tag, multiple = struct.unpack('>QB', got.arguments)
                missing -= set(range(tag - self.confirmed)) if multiple else {tag - self.confirmed - 1}
            elif got.id in expected:
                came[got.id] = got
            else:
                client.unexpected(got)
        self.confirmed += count
        return came


class Purger(Client):
    """Its first purge comes before anybody else publishes, when all that the queue holds is on disk only; and right
    behind it come messages that must stay."""

    PUBLISHER = 98
    QUEUES = {'kill-purged': 'purged', 'kill-drip': 'drip'}

    def __init__(self, own, book, seed, numbers, drip_too):
        super().__init__(own, book, seed)
        self.queues = list(self.QUEUES) if drip_too else ['kill-purged']
        self.link = Link(own)
        self.purging = None     # the line, while no answer has come
        self.begin('kill-purged')
        first = numbers[self.PUBLISHER]
        self.after = [(self.PUBLISHER, number) for number in range(first, first + 3)]
        self.there = len(self.purging.published)
        numbers[self.PUBLISHER] += len(self.after)
        for key in self.after:
            self.ledger.publish(['purged'], key)
        self.link.send_behind(self.wire, [wire.queue_purge(1, 'kill-purged')],
                              *(self.message(key, 1, DIRECT, 'kill-purged', 10) for key in self.after))

    def begin(self, queue):
        self.purging = self.ledger.lines[self.QUEUES[queue]]
        self.certain = self.purging.purge_begins(self.ledger.confirmed)

    def finish(self):
        got = self.expect(wire.QUEUE_PURGE_OK)
        count, = struct.unpack('>I', got.arguments)
        self.purging.purge_ends(self.certain, self.after if count == self.there else ())
        self.purging = None

    def work(self):
        self.finish()
        self.link.wait(self, 1 + len(self.after))
        self.ledger.confirmed.update(self.after)
        self.after = ()
        while True:
            time.sleep(self.random.uniform(0.05, self.random.choice([0.3, 3])))
            for queue in self.queues:
                self.begin(queue)
                self.wire.send(wire.queue_purge(1, queue))
                self.finish()

    def run(self):
        super().run()
        self.link.wire.socket.close()
        if self.purging is not None:
            self.purging.purge_ends([])


class Definer(Client):
    """Each queue has messages of its own: a name -> the keys that were confirmed there."""

    PUBLISHER = 99

    def __init__(self, own, book, seed, turn, numbers):
        super().__init__(own, book, seed)
        self.turn = turn
        self.numbers = numbers
        self.link = Link(own)
        self.present, self.absent, self.unsure = {}, set(), set()
        self.sent = {}      # name -> keys that may be there, since it was last declared

    def work(self):
        self.wire.send(wire.queue_declare(1, 'kill-transient'))
        self.expect(wire.QUEUE_DECLARE_OK)
        while True:
            name = 'kill-defined-%d-%d' % (self.turn, len(self.sent))
            self.declare(name)
            if self.random.random() < 0.3:
                self.delete(self.random.choice(sorted(self.present)))
            elif self.random.random() < 0.3:
                self.replace(self.random.choice([name, self.random.choice(sorted(self.present))]))
            time.sleep(0.01)

    def move(self, name, to):
        self.present.pop(name, None)
        self.absent.discard(name)
        self.unsure.discard(name)
        if to is not None:
            to.add(name)

    def declaration(self, name):
        return wire.queue_declare(1, name, durable=True), wire.queue_bind(1, name, DIRECT, name)

    def declare(self, name):
        self.move(name, self.unsure)
        keys = self.new_keys()
        self.sent[name] = set(keys)
        self.link.wire.send(*self.creation(name, keys))
        self.link.wait(self, len(keys), wire.QUEUE_DECLARE_OK, wire.QUEUE_BIND_OK)
        self.move(name, None)
        self.present[name] = set(keys)

    def new_keys(self):
        first = self.numbers[self.PUBLISHER]
        keys = [(self.PUBLISHER, number) for number in range(first, first + self.random.randrange(1, 5))]
        self.numbers[self.PUBLISHER] += len(keys)
        return keys

    def creation(self, name, keys):
        return [*self.declaration(name), *(self.message(key, 1, DIRECT, name, 100) for key in keys)]

    def delete(self, name):
        self.move(name, self.unsure)
        self.wire.send(wire.queue_delete(1, name))
        self.expect(wire.QUEUE_DELETE_OK)
        self.move(name, self.absent)

    def replace(self, name):
        """Deletes it and declares it again at once: of its messages none may come back. Should the two have changed places
        nothing is known of it."""
        old = self.sent[name]
        self.move(name, self.unsure)
        keys = self.new_keys()
        self.sent[name] = old.union(keys)
        self.link.send_behind(self.wire, [wire.queue_delete(1, name)], *self.creation(name, keys))
        self.expect(wire.QUEUE_DELETE_OK)
        came = self.link.wait(self, 1 + len(keys), wire.QUEUE_DECLARE_OK, wire.QUEUE_BIND_OK)
        arguments = came[wire.QUEUE_DECLARE_OK].arguments
        if struct.unpack_from('>I', arguments, 1 + arguments[0])[0] == 0:
            self.move(name, None)
            self.present[name] = self.sent[name] = set(keys)

    def run(self):
        super().run()
        self.link.wire.socket.close()
