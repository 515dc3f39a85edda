"""Rounds of the kill tests. Each is

    start, load, death, (in every tenth: start, death on the way,) start, check, stop or SIGKILL

A round's death comes at a random moment, or where a named point is passed for the k-th time (base/fault.h). What the
check finds is what the next round begins with, from disk: some queues were emptied, the others put back.

A rig counts and never fails: `complaints` holds what the broker did wrong, as sentences.
"""

import collections
import random
import re
import struct
import time
import traceback

import broker
import faults
import ledger
import load
import wire

SETTLED_AT_MOST = 4000      # messages of a line; more are taken off
ABOUT_ACKS = ('was settled', 'came back as new', 'or was gone')  # what RabbitMQ does not promise

# Passes up to which a point is waited for: what happens with every commit, and what is rare.
PASSES = collections.defaultdict(lambda: 60, {
    'range-deleted': 1, 'queue-erased': 4, 'trim-step': 6, 'trim-done': 1, 'range-read': 12, 'queue-deleted': 4,
    'queue-purged': 4, 'letter-taken': 200, 'letter-routed': 200, 'close-begins': 1, 'close-marked': 1})
ALARMING = re.compile(r'\[(error|critical)\]|Assertion')
AT_START = ('store-opened', 'records-recovered', 'queues-recovered', 'sync-begins', 'sync-ended')
AT_STOP = ('close-begins', 'close-marked')
AT_WORK = tuple(point for point in faults.POINTS if point not in AT_START[:3])
OF_TX = ('tx-published', 'tx-whole', 'batch-submitted', 'commit-taken', 'commit-applied', 'sync-begins', 'sync-ended',
         'commit-done', 'batch-back', 'replies-released')


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
        return struct.unpack_from('>I', got.arguments, 1 + got.arguments[0])[0]

    def read_all(self, queue):
        """Every message as (key, redelivered), none of them acked, until the queue says that it has no more."""
        found = []
        self.wire.send(wire.consume(1, queue, queue))
        self.wire.expect(wire.CONSUME_OK)
        left = None
        while left != 0:
            self.wire.send(wire.queue_declare(1, queue, passive=True))
            left = self._read_some(found)
        return found

    def _read_some(self, found):
        """What comes before the answer to a declare: how many are left."""
        while True:
            got = self.wire.read_method()
            if got.id == wire.QUEUE_DECLARE_OK:
                return struct.unpack_from('>I', got.arguments, 1 + got.arguments[0])[0]
            assert got.id == wire.DELIVER, got
            properties, body = self.wire.read_body()
            key = ledger.read_message(wire.read_message_id(properties), body)
            found.append((key, wire.delivery(got.arguments)[2]))

    def put_back(self):
        """Closes the channel: all it holds goes back to its place."""
        self.wire.send(wire.method(1, wire.CHANNEL_CLOSE, struct.pack('>H', 200) + wire.short('') + b'\0\0\0\0'))
        self.wire.expect(wire.CHANNEL_CLOSE_OK)
        self.wire.open_channel()

    def ack_all(self):
        """Acks all that was read, and returns when that is on disk."""
        self.wire.send(wire.ack(1, 0, multiple=True), wire.method(1, wire.CONFIRM_SELECT, b'\0'),
                       wire.publish(1, '', load.MARKS, b'mark'))
        self.wire.expect(wire.CONFIRM_SELECT_OK)
        self.wire.expect(wire.ACK)
        self.put_back()

    def is_bound(self, name):
        """What is not routed comes back before the reply to what was sent behind it."""
        self.wire.send(wire.publish_method(1, load.DIRECT, name, mandatory=True), wire.content_header(1, 0),
                       wire.queue_declare(1, name, passive=True))
        bound = self.wire.read_message()[0].id == wire.QUEUE_DECLARE_OK
        if not bound:
            self.wire.expect(wire.QUEUE_DECLARE_OK)
        return bound

    def delete(self, queue):
        self.wire.send(wire.queue_delete(1, queue))
        self.wire.expect(wire.QUEUE_DELETE_OK)

    def purge(self, queue):
        self.wire.send(wire.queue_purge(1, queue))
        self.wire.expect(wire.QUEUE_PURGE_OK)


class Rig:
    """loads: 'all' kinds of clients, or only those of 'tx'; points: where named deaths happen, in turn."""

    def __init__(self, seed, loads='all', points=AT_WORK, bugs=(), settings=(), seconds=(0.05, 0.7)):
        self.random = random.Random(seed)
        self.loads = loads
        self.seconds = seconds
        self.bugs = list(bugs)
        self.broker = faults.FaultyBroker(bugs=bugs, settings=settings)
        self.ledger = ledger.Ledger(load.LINES)
        self.numbers = collections.Counter()    # the next one of each publisher
        self.points = list(points)
        self.coming = []                        # points, in the order of the rounds to come
        self.rounds = self.kills = self.confirmed = self.settled = self.committed = 0
        self.died_at = collections.Counter()    # by point
        self.complaints = []
        self.slowest_start = 0.0
        self.logs_checked = 0

    def start(self, kill=None):
        """Whether it is ready, and has not died on the way at the point where it is to be killed. Only who is told so, or
        has a bug, is not the released program."""
        self.broker.kill_at = kill
        self.broker.released = not kill and not self.bugs
        started = time.monotonic()
        try:
            self.broker.start()
        except broker.BrokerError:
            if kill is None or not self.broker.has_killed_itself():
                raise
            return False
        self.slowest_start = max(self.slowest_start, time.monotonic() - started)
        return True

    def run(self, rounds, until=None, wanted=''):
        """Rounds, until there is a complaint with the text that is wanted, or a time has come; may be called again."""
        if self.rounds == 0:
            self.start()
            load.define(self.broker)
            self.broker.kill()
        try:
            for _ in range(rounds):
                try:
                    self.round()
                    self.check_logs()
                except Exception:
                    self.complain('%s\n%s' % (traceback.format_exc(), self.broker.log_tail()))
                    if self.broker.running():
                        self.broker.kill()
                if any(wanted in sentence for sentence in self.complaints) or (until and time.monotonic() > until):
                    break
        finally:
            if self.broker.running():
                self.broker.kill()

    # One round

    def round(self):
        self.rounds += 1
        point = self.next_point() if self.random.random() < 0.5 else None
        passes = point and self.random.randrange(1, PASSES[point] + 1)
        before = len(self.ledger.confirmed)
        clients = self.connect() if self.start(kill=point and '%s:%d' % (point, passes)) else []
        for client in clients:
            client.start()
        self.die(point)
        self.await_end(clients)
        self.confirmed += len(self.ledger.confirmed) - before
        self.settled += sum(len(line.settled) + len(line.left) for line in self.ledger.lines.values())
        if self.rounds % 10 == 0:
            self.die_while_starting()
        self.start()
        self.check(clients)
        self.end_quietly()

    def next_point(self):
        if not self.coming:
            self.coming = self.random.sample(self.points, len(self.points))
        return self.coming.pop()

    def connect(self):
        """The clients; fewer when the broker dies before all are connected."""
        def seed():
            return self.random.random()

        made = []
        if self.loads == 'tx':
            kinds = [lambda: load.Publisher(self.broker, self.ledger, seed(), 0, self.numbers, load.TX_ROUTES),
                     lambda: load.TxWorker(self.broker, self.ledger, seed()),
                     lambda: load.TxWorker(self.broker, self.ledger, seed())]
        else:
            kinds = [lambda: load.Purger(self.broker, self.ledger, seed(), self.numbers, self.rounds % 4 == 0),
                     lambda: load.TxWorker(self.broker, self.ledger, seed()),
                     lambda: load.Publisher(self.broker, self.ledger, seed(), 0, self.numbers),
                     lambda: load.Publisher(self.broker, self.ledger, seed(), 10, self.numbers),
                     lambda: load.Drip(self.broker, self.ledger, seed(), 20, self.numbers),
                     lambda: load.Consumer(self.broker, self.ledger, seed()),
                     lambda: load.Definer(self.broker, self.ledger, seed(), self.rounds, self.numbers)]
        try:
            for kind in kinds:
                made.append(kind())
        except (wire.Closed, OSError):
            pass
        return made

    def die(self, point):
        """At the point, or where it is not reached in time at a random moment like the others."""
        end = time.monotonic() + self.random.uniform(*self.seconds)
        if point is not None and point not in AT_STOP:
            end += self.seconds[1]
            while self.broker.running() and time.monotonic() < end:
                time.sleep(0.005)
        else:
            time.sleep(end - time.monotonic())
        if point in AT_STOP:
            self.broker.terminate()
            self.broker.process.wait(30)
        self.kills += 1
        if self.broker.has_killed_itself():
            self.died_at[point] += 1
            self.broker.collect()
        elif self.broker.running():
            self.broker.kill()
        else:
            self.complain('the broker has ended by itself: status %s\n%s' % (
                self.broker.process.poll(), self.broker.log_tail()))
            self.broker.collect()

    def await_end(self, clients):
        for client in clients:
            client.join(20)
            if client.is_alive():
                self.complain('%s did not notice the end' % type(client).__name__)
            elif client.failure:
                self.complain('%s: %r' % (type(client).__name__, client.failure))
        self.committed += sum(getattr(client, 'committed', 0) for client in clients)

    def die_while_starting(self):
        point = self.random.choice(AT_START) if self.random.random() < 0.5 else None
        self.broker.kill_at = point
        self.broker.released = not point and not self.bugs
        self.broker.launch()
        if point is None:
            time.sleep(self.random.uniform(0, 0.04))
            self.broker.kill()
        else:
            self.broker.wait_ready()
            self.died_at['%s again' % point] += self.broker.has_killed_itself()
            self.broker.kill()
        self.kills += 1

    def end_quietly(self):
        if self.random.random() < 0.5:
            self.broker.kill()
        else:
            self.broker.stop()

    # The check

    def complain(self, *sentences):
        if broker.REFERENCE:
            sentences = [sentence for sentence in sentences if not sentence.endswith(ABOUT_ACKS)]
        self.complaints += ['round %d: %s' % (self.rounds, sentence) for sentence in sentences]

    def check(self, clients):
        reader = Reader(self.broker)
        found = {}
        for names in self.clusters():
            self.check_cluster(reader, names, found)
        self.ledger.adopt(found)
        for client in clients:
            if isinstance(client, load.Definer):
                self.check_definitions(reader, client)
        reader.purge(load.MARKS)
        reader.wire.close()

    @staticmethod
    def clusters():
        """Lines with a queue in common."""
        clusters = collections.defaultdict(list)
        for name, line in load.LINES.items():
            clusters[line['queue']].append(name)
        return clusters.values()

    def check_cluster(self, reader, names, found):
        """A queue is read before that behind it, and held: what moves meanwhile is seen where it goes."""
        rows = {}
        for name in names:
            line = self.ledger.lines[name]
            for queue in (line.queue, line.behind):
                if queue is not None and queue not in rows:
                    rows[queue] = reader.read_all(queue)
            found[name] = rows[line.queue], rows.get(line.behind, [])
            self.complain(*self.ledger.check(name, *found[name]))
        if names[0].startswith('tx'):
            waiting, behind = ({key for name in names for key, _ in found[name][at]} for at in (0, 1))
            self.complain(*self.ledger.check_transactions(waiting, behind))
        if sum(map(len, rows.values())) > SETTLED_AT_MOST or self.random.random() < self.emptied(names):
            reader.ack_all()
            for name in names:
                found[name] = [], []
        else:
            reader.put_back()

    @staticmethod
    def emptied(names):
        """How likely a line is emptied: some are to grow deep."""
        return {'drip': 0, 'purged': 0.1}.get(names[0], 0.4)

    def check_definitions(self, reader, definer):
        if reader.count('kill-transient') is not None:
            self.complain('kill-transient is still there')
        for name in list(definer.present) + sorted(definer.absent | definer.unsure):
            count = reader.count(name)
            if name in definer.present and count is None:
                self.complain('%s was declared and is lost' % name)
            elif name in definer.absent and count is not None:
                self.complain('%s was deleted and is back' % name)
            if count is not None:
                self.check_defined(reader, definer, name)
                reader.delete(name)

    def check_defined(self, reader, definer, name):
        keys = [key for key, _ in reader.read_all(name)]
        reader.put_back()
        lost = definer.present.get(name, set()) - set(keys)
        if lost:
            self.complain('%s: %d messages were confirmed and are lost' % (name, len(lost)))
        if len(set(keys)) < len(keys):
            self.complain('%s: messages are there twice' % name)
        if not definer.sent[name].issuperset(keys) and name not in definer.unsure:
            self.complain('%s: messages of a queue that was deleted are back' % name)
        if name in definer.present and not reader.is_bound(name):
            self.complain('%s: its binding is lost' % name)

    def check_logs(self):
        """Since the last round the broker has logged nothing that an operator would have to look into."""
        for path in self.broker.log_paths[self.logs_checked:]:
            with open(path, errors='replace') as log:
                self.complain(*('%s: %s' % (path, line.rstrip()) for line in log
                                if ALARMING.search(line) and 'exception' not in line))
        self.logs_checked = len(self.broker.log_paths)

    # The account

    def summary(self):
        return '%d kills in %d rounds, %d messages confirmed, %d settled, %d transactions committed' % (
            self.kills, self.rounds, self.confirmed, self.settled, self.committed)

    def points_summary(self):
        return ', '.join('%s %d' % pair for pair in sorted(self.died_at.items()))
