"""Damage at rest: what a broker makes of a data file in which something has changed while it was not running.

A template is a data directory that a broker left behind, after a clean stop or after SIGKILL: queues of small, middling
and large messages, some with two queues, some of them acknowledged. It is known to the byte what must be in each queue.

    template ──copy──▶ one injury ──▶ the broker starts ──▶ all queues are read ──▶ judged

    flip        one bit
    zero        a sector of 512 bytes
    truncate    the file ends early
    swap        two pages have changed places
    old         a page is what it was some commits earlier
    note        none: the note that asks for a salvage lies beside a sound file

Half of the injuries are anywhere in the file, the other half are spread over the kinds of pages that it has
(lib/lmdb_pages.py), so that the rare ones are hit as well.

The judgement: the broker has started by itself and goes on running; no body is other than it was published, none is there
twice or out of order. What is missing is counted by what was hit. A bit of a body costs the entries of that message, one
of an index row those of its segment, one of a count or of a mark nothing; what hits LMDB's own pages may cost more.
"""

import bisect
import collections
import os
import random
import shutil
import struct
import tempfile
import time
import zlib

import broker
import faults
import lmdb_pages
import wire

PAGE, SECTOR = lmdb_pages.PAGE, 512
SEGMENT_ENTRIES = 512       # of an index row, at most
HEAD = struct.Struct('>IIII')
KINDS = ('flip', 'zero', 'truncate', 'swap', 'old', 'note')
QUEUES = {                  # name -> (messages, smallest, largest)
    'rot-small': (1400, 20, 120), 'rot-copy': (0, 0, 0), 'rot-middle': (120, 1000, 4000),
    'rot-large': (6, 61000, 140000), 'rot-empty': (0, 0, 0), 'rot-short': (12, 10, 30),
    'rot-few': (40, 10, 30)}
BATCH = 100
SCRATCH = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
MARGIN = 0.001              # of the undamaged messages that may be missing beside what was hit


class Corrupt(Exception):
    """A body that nobody published."""


def make_body(queue, number, size):
    start = zlib.crc32(HEAD.pack(queue, number, size, 0))
    filling = b''.join(struct.pack('>I', (start + at * 2654435761) & 0xffffffff) for at in range(size // 4 + 1))[:size]
    return HEAD.pack(queue, number, size, zlib.crc32(filling, start)) + filling


def read_body(body):
    """(queue, number) of a body that is whole."""
    if len(body) < HEAD.size:
        raise Corrupt('%d octets' % len(body))
    queue, number, size, checksum = HEAD.unpack_from(body)
    start = zlib.crc32(HEAD.pack(queue, number, size, 0))
    if len(body) != HEAD.size + size or zlib.crc32(body[HEAD.size:], start) != checksum:
        raise Corrupt('%d.%d with %d octets' % (queue, number, len(body)))
    return queue, number


class Template:
    """Directory of a broker that has ended; `expected` says what each queue must hold, in order."""

    def __init__(self, clean, seed):
        self.random = random.Random(seed)
        self.clean = clean
        self.expected = {name: [] for name in QUEUES}
        own = broker.Broker().start()
        self.directory = own.data_dir
        self.fill(own)
        if clean:
            own.stop()
        else:
            own.kill()
        with open(os.path.join(self.directory, 'data.mdb'), 'rb') as file:
            self.data = file.read()
        self.kinds, self.values = lmdb_pages.classify(self.data)
        self.places = collections.defaultdict(list)     # kind of page -> pages
        for page, kind in self.kinds.items():
            self.places[kind].append(page)

    def row_at(self, begin, end):
        """The database in one of whose values all of these octets lie, or None."""
        at = bisect.bisect_right(self.values, (begin, len(self.data), '')) - 1
        return self.values[at][2] if at >= 0 and end <= self.values[at][1] else None

    def messages(self):
        return sum(map(len, self.expected.values()))

    def fill(self, own):
        client = wire.Wire(own.host, own.port).handshake().open_channel()
        client.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'), wire.exchange_declare(1, 'rot', 'fanout'))
        client.expect(wire.CONFIRM_SELECT_OK)
        client.expect(wire.EXCHANGE_DECLARE_OK)
        for queue in QUEUES:
            client.send(wire.queue_declare(1, queue, durable=True))
            client.expect(wire.QUEUE_DECLARE_OK)
        for queue in ('rot-small', 'rot-copy'):
            client.send(wire.queue_bind(1, queue, 'rot', ''))
            client.expect(wire.QUEUE_BIND_OK)
        for index, (queue, (count, smallest, largest)) in enumerate(QUEUES.items()):
            for first in range(0, count, BATCH):
                self.publish(client, index, queue, range(first, min(first + BATCH, count)), smallest, largest)
            if queue == 'rot-small':
                with open(os.path.join(self.directory, 'data.mdb'), 'rb') as file:
                    self.older = file.read()
        for queue in ('rot-small', 'rot-middle'):
            self.take_some(client, queue)
        self.take_some(client, 'rot-few', front=0, share=0.3)
        client.close()

    def publish(self, client, index, queue, numbers, smallest, largest):
        """One turn's messages, confirmed."""
        frames = []
        for number in numbers:
            body = make_body(index, number, self.random.randrange(smallest, largest))
            both = queue == 'rot-small' and number % 4 == 0
            frames.append(wire.publish(1, 'rot' if both else '', '' if both else queue, body))
            for name in ('rot-small', 'rot-copy') if both else (queue,):
                self.expected[name].append((index, number))
        client.send(*frames)
        confirmed = 0
        while confirmed < len(numbers):
            tag, multiple = struct.unpack('>QB', client.expect(wire.ACK).arguments)
            self.lowest = getattr(self, 'lowest', 0)
            confirmed += tag - self.lowest if multiple else 1
            self.lowest = tag if multiple else self.lowest
            if not multiple and tag == self.lowest + 1:
                self.lowest = tag

    def take_some(self, client, queue, front=30, share=0.05):
        """Acks a few from the front and some from the middle, and waits until that is on disk."""
        client.send(wire.consume(1, queue, queue))
        client.expect(wire.CONSUME_OK)
        kept = []
        for at, key in enumerate(self.expected[queue]):
            got, _ = client.read_message()
            if at < front or self.random.random() < share:
                client.send(wire.ack(1, wire.delivery(got.arguments)[1]))
            else:
                kept.append(key)
        self.expected[queue] = kept
        client.send(wire.queue_declare(1, 'rot-marks', durable=True), wire.publish(1, '', 'rot-marks', b''))
        client.expect(wire.QUEUE_DECLARE_OK)
        client.expect(wire.ACK)
        client.send(wire.method(1, wire.CHANNEL_CLOSE, struct.pack('>H', 200) + wire.short('') + b'\0\0\0\0'))
        client.expect(wire.CHANNEL_CLOSE_OK)
        client.open_channel()
        client.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'))
        client.expect(wire.CONFIRM_SELECT_OK)
        self.lowest = 0


class Injury:
    """`where` says what it hits: the rows of a database, or pages of LMDB's."""

    def __init__(self, template, kind, seed):
        self.template = template
        self.kind = kind
        self.seed = seed
        self.random = random.Random(seed)
        self.where = self.text = ''
        self.data = bytearray(template.data)
        getattr(self, '_' + kind)()

    def page(self):
        """Any page, or one of any kind."""
        if self.random.random() < 0.5:
            return self.random.randrange(len(self.template.data) // PAGE)
        return self.random.choice(self.template.places[self.random.choice(sorted(self.template.places))])

    def octets(self, size):
        """Where the injury begins, of so many octets."""
        page = self.page()
        at = page * PAGE + self.random.randrange(PAGE // size) * size
        row = self.template.row_at(at, at + size)
        self.where = 'row of %s' % row if row else self.name(page)
        return at

    def name(self, page):
        kind, database = self.template.kinds[page]
        return ('page: %s %s' % (kind, database)).rstrip()

    def _flip(self):
        at, bit = self.octets(1), self.random.randrange(8)
        self.data[at] ^= 1 << bit
        self.text = 'bit %d of octet %d' % (bit, at)

    def _zero(self):
        at = self.octets(SECTOR)
        self.data[at:at + SECTOR] = bytes(SECTOR)
        self.text = 'sector at %d' % at

    def _truncate(self):
        size = self.random.randrange(len(self.data))
        if self.random.random() < 0.5:
            size -= size % PAGE
        del self.data[size:]
        self.text, self.where = 'to %d octets' % size, 'end of the file'

    def _swap(self):
        one, other = self.page(), self.page()
        self.where = ' and '.join(sorted({self.name(one), self.name(other)}))
        one, other = (slice(page * PAGE, (page + 1) * PAGE) for page in (one, other))
        self.data[one], self.data[other] = self.data[other], self.data[one]
        self.text = 'pages at %d and %d' % (one.start, other.start)

    def _old(self):
        older = self.template.older
        places = [slice(at, at + PAGE) for at in range(0, len(older), PAGE)]
        place = self.random.choice([place for place in places if older[place] != self.data[place]])
        self.data[place] = older[place]
        self.where = self.name(place.start // PAGE)
        self.text = 'page at %d' % place.start

    def _note(self):
        self.text, self.where = 'a salvage is asked for', 'nothing'

    def may_cost(self):
        """How many messages what was hit may cost at most; None: it hits what LMDB or a name needs to be found."""
        if self.where in ('page: free', 'nothing'):
            return 0
        if self.where == 'row of blob':
            return 2 if self.kind == 'flip' else 2 * (SECTOR // (HEAD.size + 20) + 2)
        return {'row of index': SEGMENT_ENTRIES, 'row of gone': 0, 'row of live': 0, 'row of queue': 0, 'row of trim': 0,
                'row of meta': 0}.get(self.where)

    def __str__(self):
        return '%s (%s; %s; %s; seed %s)' % (self.kind, self.text, self.where,
                                             'clean' if self.template.clean else 'killed', self.seed)


class Outcome:
    def __init__(self):
        self.started = False    # by itself, and served all its queues to the end
        self.error = ''         # why not
        self.shut_out = False   # it runs, and lets nobody in
        self.complaints = []
        self.missing = self.back = 0


class Rig:
    """Counts what becomes of injuries. `by_place`: where -> [injuries, starts that failed, messages expected, missing]."""

    def __init__(self, seed, bugs=()):
        self.random = random.Random(seed)
        self.bugs = bugs
        self.templates = [Template(clean, self.random.random()) for clean in (True, False)]
        self.by_place = collections.defaultdict(lambda: [0, 0, 0, 0])
        self.by_kind = collections.Counter()
        self.failed = []            # (injury, error) where it did not start, or did not go on
        self.complaints = []        # sentences: corrupt bodies, and more missing than what was hit
        self.injuries = self.expected = self.missing = self.back = self.shut_out = 0

    def run(self, count, kinds=KINDS, enough=20):
        """So many injuries, or until there are enough complaints."""
        for number in range(count):
            if len(self.complaints) >= enough:
                break
            kind = kinds[number % len(kinds)]
            self.injure(Injury(self.random.choice(self.templates), kind, self.random.randrange(1 << 48)))

    def injure(self, injury):
        outcome = self.try_it(injury)
        expected = injury.template.messages()
        row = self.by_place[injury.where]
        self.injuries += 1
        self.by_kind[injury.kind] += 1
        row[0] += 1
        row[1] += not outcome.started
        row[2] += expected
        row[3] += outcome.missing
        self.back += outcome.back
        self.shut_out += outcome.shut_out
        if not outcome.started:
            self.failed.append((injury, outcome.error))
        bound = injury.may_cost()
        if bound is not None:
            self.expected += expected
            self.missing += max(0, outcome.missing - bound)
        if bound is not None and outcome.started and outcome.missing > bound + MARGIN * expected:
            outcome.complaints.append('%d messages are missing' % outcome.missing)
        if injury.kind == 'note' and outcome.started and outcome.missing + outcome.back > 0:
            outcome.complaints.append('%d messages are missing and %d came back' % (outcome.missing, outcome.back))
        self.complaints += ['%s: %s' % (injury, sentence) for sentence in outcome.complaints]

    def try_it(self, injury):
        outcome = Outcome()
        home = tempfile.mkdtemp(prefix='rot-', dir=SCRATCH)
        own = faults.FaultyBroker(bugs=self.bugs, data_dir=home) if self.bugs else broker.Broker(data_dir=home)
        with open(os.path.join(home, 'data.mdb'), 'wb') as file:
            file.write(injury.data)
        if injury.kind == 'note':
            open(os.path.join(home, 'salvage'), 'wb').close()
        try:
            try:
                self.serve(own, injury, outcome)
            except (broker.BrokerError, wire.WireError, OSError):
                if not self.has_given_up(own):
                    raise
                outcome = Outcome()
                self.serve(own, injury, outcome)
        except (broker.BrokerError, wire.WireError, OSError) as error:
            outcome.shut_out = own.running() and 'refused for user' in str(error)
            # What says who may do what is there twice, but more than a bit may take both; then nobody may.
            outcome.started = 'record' in injury.where and outcome.shut_out and injury.kind != 'flip'
            outcome.missing = injury.template.messages()
            outcome.error = '%s\n%s' % (error, own.log_tail(8))
            if own.running():
                own.kill()
        finally:
            shutil.rmtree(home)
            shutil.rmtree(own.temp, ignore_errors=True)
            if outcome.started and not outcome.complaints:
                os.remove(own.log_path)
        return outcome

    def serve(self, own, injury, outcome):
        own.start()
        outcome.started = True
        if 'there is no user left' in own.log() and injury.kind != 'flip':
            self.let_in(own)
        self.read_all(own, injury, outcome)
        own.kill()

    @staticmethod
    def let_in(own):
        """As the log says: what is lost with all users is made anew by an operator, and never by the broker."""
        if '/' not in own.ctl('list_vhosts', '--silent').split():
            own.ctl('add_vhost', '/')
        own.ctl('add_user', 'guest', 'guest')
        own.ctl('set_permissions', 'guest', '.*', '.*', '.*')

    @staticmethod
    def has_given_up(own):
        """It has met damage that it cannot go on with and stopped, to be started again by whoever looks after it: it
        is salvaged then."""
        return 'the store has failed' in own.log() and own.wait_end() == 74

    def read_all(self, own, injury, outcome):
        client = wire.Wire(own.host, own.port).handshake().open_channel()
        for queue, expected in injury.template.expected.items():
            found = self.read_queue(client, queue, outcome)
            wanted = set(expected)
            outcome.missing += len(wanted.difference(found))
            outcome.back += len(set(found) - wanted)
            kept = [key for key in found if key in wanted]
            if len(set(kept)) < len(kept):
                outcome.complaints.append('%s: messages are there twice' % queue)
            if kept != sorted(kept):
                outcome.complaints.append('%s: the order is lost' % queue)
        client.close()

    @staticmethod
    def read_queue(client, queue, outcome):
        """The keys of all messages, until the queue says that it has no more; a queue that is gone has none."""
        found = []
        left = None
        client.send(wire.queue_declare(1, queue, passive=True))
        if client.expect(wire.QUEUE_DECLARE_OK, wire.CHANNEL_CLOSE).id == wire.CHANNEL_CLOSE:
            client.send(wire.method(1, wire.CHANNEL_CLOSE_OK))
            client.open_channel()
            return found
        client.send(wire.consume(1, queue, queue, no_ack=True))
        client.expect(wire.CONSUME_OK)
        deadline = time.monotonic() + 20
        while left != 0:
            client.send(wire.queue_declare(1, queue, passive=True))
            while True:
                got, body = client.read_message()
                if got.id == wire.QUEUE_DECLARE_OK:
                    left = struct.unpack_from('>I', got.arguments, 1 + got.arguments[0])[0]
                    break
                if got.id != wire.DELIVER:
                    raise wire.WireError('got %s' % (got.id,))
                try:
                    found.append(read_body(body))
                except Corrupt as error:
                    outcome.complaints.append('%s: a corrupt body was delivered: %s' % (queue, error))
            if time.monotonic() > deadline:
                outcome.complaints.append('%s: says that it has %d messages and delivers none' % (queue, left))
                break
        return found

    def summary(self):
        lines = ['%d injuries (%s), %d starts that failed, %d that let nobody in, %d messages back' % (
            self.injuries, ', '.join('%s %d' % pair for pair in sorted(self.by_kind.items())), len(self.failed),
            self.shut_out, self.back)]
        lines.append('hits of bodies and index rows: %d messages beside what was hit, %d of them missing' % (
            self.expected, self.missing))
        for place, (count, failed, expected, missing) in sorted(self.by_place.items()):
            lines.append('  %-45s %5d injuries %5d did not start %8d of %9d messages missing' % (
                place, count, failed, missing, expected))
        return '\n'.join(lines)
