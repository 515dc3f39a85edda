"""Scripts: a seed becomes a sequence of steps, most of which mean something and some of which are wrong on purpose.

A step is one method on one of four channels, A1 A2 of connection A and B1 B2 of connection B. What only a broker can
know stands in it as a reference, which the player resolves:

    ('delivery', n)   a delivery tag: the n-th of the unsettled deliveries of the channel, counted round and round
    ('queue', n)      the n-th name that the broker made for a queue in this script
    ('tag', n)        the n-th consumer tag that the broker made

To keep steps meaningful the writer follows, roughly, what the script has declared so far: names and their flags, bindings, modes of
channels, consumers. It need not be right, for a wrong guess is a test of an error.

What 3.10 does by accident is not generated, where no single answer would show it:
  - a change of routes, queues or consumers while a transaction holds publishes: 3.10 routes when they are published (9.15);
  - a consumer without acknowledgements, or a get, on a channel with a limit of its own: 3.10 holds back the one and sometimes counts
    the other (10.4);
  - a second consumer on such a channel: 3.10 serves them in random order;
  - what such a channel gives back, which 3.10 hands out before the channel has room again;
  - a limit for consumers after one for the channel: 3.10 then drops the latter (10.3);
  - two arguments of one name: 3.10 compares them pair by pair.

  - the default exchange as an alternate exchange: 3.10 finds no bindings there and drops the message;
  - of quorum queues: x-expires, which 3.10 looks at every five seconds; length limits, which it applies after it has served the
    consumers and publishers learn late; limits of channels, which it refuses now and ignores then; basic.nack with requeue, which
    it counts like a reject (10.19); priorities of consumers one of which is active, where it goes by age alone (10.11);
    no delivery limit, where what is given back goes to the end (10.17);
    limits of consumers where a delivery limit may be reached, at which 3.10 gives the consumer credit for two; a second consumer where
    they have limits: in 3.10 who has had no credit goes to the end of the line (10.7); length limits where there are dead letters,
    of which some overtake what is routed there directly;
  - of messages where there are quorum queues, priorities other than 4: those of 3.10 have none (11.7);
  - a millisecond in a queue that dead letters come to: whether it has passed before a consumer gets them is chance;
  - dead letters of what several consumers got and reject at once, which 3.10 takes consumer by consumer;
  - a reply to a direct address in a transaction: 3.10 sends it at once (9.15, 14.3);
  - drop-head on queues with priorities: 3.10 drops the highest priority (11.5);
  - a second destination of an exchange that chooses one of them, by chance or by a hash of its own; a second binding to the same
    one, of which 3.10 forgets both when one goes;
  - an exchange bound to one that remembers messages, of which 3.10 dies; transactions beside such an exchange, which remembers in 3.10
    what was rolled back (9.15);
  - a length limit by policy over messages that are there: 3.10 drops some of them whatever the overflow behaviour;
  - a short expiration of a single message where there are length limits: 3.10 counts what has expired until it comes to the head (11.2);
    no time at all in a queue that may be too short for one message, which dies there of both: 3.10 says of its length;
  - a queue whose name nobody learns, but for a moment: nobody would delete it in the end.

Each kind of step has a weight. The base uses what every broker of the family has; each of FEATURES adds kinds of steps, queue
arguments or message properties of its own, and is given by name. Where several are given a script plays some of them: all at once
would make most declares wrong, and one feature would hide another.
"""

import collections
import random

import trial

CHANNELS = ('A1', 'A2', 'B1', 'B2')
LENGTH_MIN, LENGTH_MAX = 20, 200

QUEUES = ('q1', 'q2', 'q3', 'q4', 'q5')
EXCHANGES = ('e1', 'e2', 'e3', 'e4')
SYSTEM_EXCHANGES = {'amq.direct': 'direct', 'amq.fanout': 'fanout', 'amq.topic': 'topic', 'amq.headers': 'headers',
                    'amq.match': 'headers'}
TYPES = ('direct', 'fanout', 'topic', 'headers')
CHANCE_TYPES = ('x-consistent-hash', 'x-random', 'x-modulus-hash')     # which choose one of their destinations
PLUGIN_TYPES = CHANCE_TYPES + ('x-recent-history',) * 3
UMLAUT = 'ä'.encode().decode('latin-1')     # strings are octets: see tests/lib/protocol.py
KEYS = ('a', 'b', 'a.b', 'a.b.c', '', 'a..b', '.', 'q1', 'q2', 'A', 'a.b.c.d', UMLAUT)
PATTERNS = ('#', '*', 'a.#', '#.c', 'a.*', '*.b', 'a.*.c', '#.b.#', '*.*', 'a.#.b', '', '*.', 'a#')
SHORT_TIMES = ('1', '30')
TAGS = ('c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7', 'c8')

POLICIES = ({'max-length': 2}, {'message-ttl': 3600000}, {'dead-letter-exchange': 'e1'}, {'alternate-exchange': 'amq.fanout'},
            {'max-length': 1, 'overflow': 'reject-publish'}, {'dead-letter-exchange': '', 'dead-letter-routing-key': 'q2'},
            {'max-length-bytes': 30, 'dead-letter-exchange': 'amq.fanout'}, {'delivery-limit': 1}, {'nonsense': 1},
            {'max-length': -1}, {'message-ttl': '1'})

FEATURES = {
    'ttl': 'message-ttl of queues, expiration of messages, x-expires; with waits',
    'length': 'length limits and their overflow behaviours',
    'dead-letter': 'dead-letter exchanges and keys, x-death',
    'priority': 'queues with priorities, consumers with priorities',
    'cc': 'CC and BCC headers',
    'alternate': 'alternate exchanges',
    'reply-to': 'direct reply-to',
    'single-active': 'single active consumers',
    'quorum': 'queues of type quorum',
    'policy': 'policies, set and cleared over HTTP',
    'exchange-types': 'exchanges of the types that plugins bring',
    'trial': 'connections that log in otherwise, negotiate, or break the rules of framing',
}

FEATURE_CHANCE = 0.35       # that a script plays one of several

Step = collections.namedtuple('Step', 'at method fields content')
Step.__new__.__defaults__ = (None,)

Script = collections.namedtuple('Script', 'seed features steps')


def text(step):
    """The step as one line."""
    said = ' '.join('%s=%r' % item for item in step.fields.items())
    if step.content is not None:
        properties, body = step.content
        said += ' %r %r' % (properties, body if len(body) < 60 else '%s... (%d octets)' % (body[:20], len(body)))
    return ('%s %s %s' % (step.at, step.method, said)).rstrip()


def has_short_time(name, flags):
    return any(argument[0] == name and argument[2] in (1, 30) for argument in flags['arguments'])


def takes_nothing(arguments):
    """Whether a queue may be too short for a single message."""
    return any(name in arguments and arguments[name][2] <= most for name, most in (('x-max-length', 0), ('x-max-length-bytes', 100)))


def limits_length(definition):
    return any(key.startswith('max-length') for key in definition)


def write(seed, features=()):
    """The script of a seed, which plays some of the features."""
    draw = random.Random('%s of %s' % (seed, ' '.join(sorted(features))))
    played = frozenset(name for name in sorted(features) if len(features) == 1 or draw.random() < FEATURE_CHANCE)
    return Script(seed, played, Writer(seed, played).write())


class Mode:
    """What a channel is thought to be like."""

    def __init__(self):
        self.kind = None        # 'confirm', 'tx'
        self.tags = set()       # of its consumers
        self.limited = False    # as a whole: basic.qos with global
        self.consumers = 0      # it has or had
        self.selected = False   # tx.select may have been taken, at some time
        self.free = False       # it has or had what no such limit should count
        self.holds = False      # publishes of a transaction


class Writer:
    def __init__(self, seed, features):
        self.random = random.Random('%s %s' % (seed, ' '.join(sorted(features))))
        self.features = frozenset(features)
        self.steps = []
        self.limits_consumers = 'quorum' not in self.features or self.chance(0.5)   # otherwise deliveries
        self.consumed = set()                   # queues, where each may have one consumer
        self.flags = {name: self._queue_flags() for name in QUEUES}     # with which each is declared
        self.deadly = ('q1',)                   # where messages die more than once: each sends them to the next, the last to the first
        if self.has('dead-letter', 0.7):
            self.flags['q1'] = self._deadly_flags()
            if self.chance(0.4):
                self.deadly = ('q1', 'q2')
                for name, following in (('q1', 'q2'), ('q2', 'q1')):
                    self.flags[name] = self._deadly_flags(('x-dead-letter-routing-key', 'S', following))
        self.types = {name: self.random.choice(PLUGIN_TYPES if self.has('exchange-types', 0.6) else TYPES) for name in EXCHANGES}
        self.only = {name: self.random.choice(QUEUES) for name in EXCHANGES}    # destination of an exchange that chooses one
        self.durable = {name: self.chance(0.5) for name in EXCHANGES}
        self.exchange_arguments = {name: self._exchange_arguments() for name in EXCHANGES}
        self.type_arguments = {name: self._type_arguments(self.types[name]) for name in EXCHANGES}
        self.hasty = any(has_short_time('x-message-ttl', flags) for flags in self.flags.values())   # a message must be left to its queue
        self.queues, self.exchanges = [], []    # declared so far
        self.bindings = []                      # fields of queue.bind
        self.exchange_bindings = []
        self.modes = {at: Mode() for at in CHANNELS}
        self.generated = 0
        self.messages = 0
        self.kinds, self.weights = self._kinds()
        self.steady = {self.basic_publish, self.basic_get, self.basic_ack, self.basic_nack, self.basic_reject, self.basic_qos,
                       self.basic_recover, self.queue_purge, self.confirm_select, self.tx_select, self.tx_end, self.wait, self.trial, self.die}

    def write(self):
        length = int(LENGTH_MIN * (LENGTH_MAX / LENGTH_MIN) ** self.random.random())
        for _ in range(self.random.randint(2, 5)):
            self.queue_declare(self.channel())
        for _ in range(self.random.randint(0, 3)):
            self.exchange_declare(self.channel())
            self.queue_bind(self.channel())
        while len(self.steps) < length:
            kind = self.random.choices(self.kinds, self.weights)[0]
            if kind not in self.steady:
                self.end_transactions()
            kind(self.channel())
        return self.steps

    def _kinds(self):
        kinds = {
            self.queue_declare: 8, self.exchange_declare: 4, self.queue_bind: 7, self.queue_unbind: 2,
            self.exchange_bind: 3, self.exchange_unbind: 1, self.queue_purge: 1.2, self.queue_delete: 1.8,
            self.exchange_delete: 1.2, self.basic_publish: 30, self.basic_get: 7, self.basic_consume: 6,
            self.basic_cancel: 2.5, self.basic_ack: 9, self.basic_nack: 4, self.basic_reject: 3.5,
            self.basic_recover: 1.5, self.basic_qos: 2.5, self.confirm_select: 1.2, self.tx_select: 0.8,
            self.tx_end: 3, self.channel_flow: 0.3, self.channel_close: 0.6, self.connection_close: 0.25, self.fatal: 0.35,
        }
        extra = {
            'dead-letter': {self.die: 1.5},
            'ttl': {self.wait: 2}, 'reply-to': {self.reply_to: 6, self.reply: 4}, 'policy': {self.policy: 4}, 'trial': {self.trial: 8},
        }
        for feature in sorted(self.features & set(extra)):
            kinds.update(extra[feature])
        return list(kinds), list(kinds.values())

    # Choices

    def chance(self, probability):
        return self.random.random() < probability

    def has(self, feature, probability):
        return feature in self.features and self.chance(probability)

    def one(self, *choices):
        return self.random.choice(choices)

    def channel(self):
        return self.random.choices(CHANNELS, (5, 3, 3, 1))[0]

    def add(self, at, method, content=None, **fields):
        self.steps.append(Step(at, method, {key: what for key, what in fields.items() if what}, content))

    def queue(self):
        """The name of a queue, mostly of one that was declared."""
        if self.generated and self.chance(0.15):
            return ('queue', self.random.randrange(self.generated))
        if self.chance(0.025):
            return self.one('', 'absent', 'amq.absent')
        if self.queues and self.chance(0.95):
            return self.random.choice(self.queues)
        return self.random.choice(QUEUES)

    def exchange(self):
        if self.chance(0.015):
            return 'absent'
        if self.exchanges and self.chance(0.7):
            return self.random.choice(self.exchanges)
        return self.random.choice(tuple(SYSTEM_EXCHANGES))

    def type_of(self, exchange):
        return SYSTEM_EXCHANGES.get(exchange) or self.types.get(exchange, 'direct')

    def binding_key(self, exchange):
        if self.type_of(exchange) == 'x-consistent-hash':
            return self.one('1') if self.chance(0.8) else self.one('0', '-1', 'a', '', '1.5', ' 1')
        return self.random.choice(PATTERNS + KEYS if self.type_of(exchange) == 'topic' else KEYS)

    # Class queue

    def _queue_flags(self):
        flags = {'durable': self.chance(0.45), 'exclusive': self.chance(0.15) and self.may_exclude(), 'auto_delete': self.chance(0.15)}
        if self.has('quorum', 0.5):
            flags = {'durable': True, 'exclusive': False, 'auto_delete': False}
        return dict(flags, arguments=self._queue_arguments(**flags))

    def _deadly_flags(self, *arguments):
        return {'durable': self.chance(0.5), 'exclusive': False, 'auto_delete': False,
                'arguments': [('x-dead-letter-exchange', 'S', ''), *arguments]}

    def may_exclude(self):
        """Not where policies are: before one is set every queue must be empty, so that anybody must be able to purge it."""
        return 'policy' not in self.features

    def _queue_arguments(self, durable, exclusive, auto_delete):
        """Arguments that are valid and, without features, have no effect within a script."""
        arguments = []
        if self.chance(0.12):
            arguments.append(self.one(('x-message-ttl', 'I', 3600000), ('x-expires', 'l', 3600000), ('unknown', 'S', 'x'),
                                      ('x-max-length', 'I', 100000), ('x-max-length-bytes', 'l', 1 << 30)))
        if self.has('ttl', 0.25):
            arguments.append(('x-message-ttl', 'I', self.one(0, 0, 30, 30 if 'dead-letter' in self.features else 1)))
        quorum = durable and not exclusive and not auto_delete and self.has('quorum', 0.6)
        if self.has('ttl', 0.1) and not quorum:
            arguments.append(('x-expires', 'I', self.one(1, 30)))
        priority = not quorum and self.has('priority', 0.6)
        if self.has('length', 0.7) and not quorum and not self.features >= {'quorum', 'dead-letter'}:
            arguments.append(self.one(('x-max-length', 'I', self.random.randrange(4)),
                                      ('x-max-length-bytes', 'I', self.one(0, 10, 100))))
            overflows = ('reject-publish', 'reject-publish-dlx') + (() if priority else ('drop-head',))
            if priority or self.chance(0.6):
                arguments.append(('x-overflow', 'S', self.one(*overflows)))
        if self.has('dead-letter', 0.7):
            arguments.append(('x-dead-letter-exchange', 'S', self.one('', '', '', 'e1', 'e2', 'amq.fanout', 'amq.topic', 'absent')))
            if self.chance(0.4):
                arguments.append(('x-dead-letter-routing-key', 'S', self.one('a.b', 'q1', 'q2', 'q3')))
        if priority:
            arguments.append(('x-max-priority', 'I', self.one(1, 3, 10)))
        if self.has('single-active', 0.6):
            arguments.append(('x-single-active-consumer', 't', self.chance(0.9)))
        if quorum:
            arguments.append(('x-queue-type', 'S', 'quorum'))
            arguments.append(('x-delivery-limit', 'I', 50 if self.limits_consumers else self.one(0, 1, 2, 50)))
        elif self.has('quorum', 0.2):
            arguments.append(self.one(('x-queue-type', 'S', 'classic'), ('x-delivery-limit', 'I', 1)))
        found = {key: (key, tag, what) for key, tag, what in arguments}
        if found.get('x-message-ttl', (0, 0, 1))[2] == 0 and takes_nothing(found):
            del found['x-message-ttl']
        return list(found.values())

    def _invalid_argument(self):
        return self.one(('x-message-ttl', 'I', -1), ('x-message-ttl', 'S', '60000'), ('x-expires', 'I', 0),
                         ('x-expires', 'd', 1.5), ('x-max-length', 'I', -5), ('x-max-length', 'S', 'many'),
                         ('x-overflow', 'S', 'spill'), ('x-overflow', 'I', 1), ('x-dead-letter-exchange', 'I', 1),
                         ('x-dead-letter-routing-key', 'S', 'alone'), ('x-max-priority', 'I', -1),
                         ('x-max-priority', 'I', 300), ('x-single-active-consumer', 'I', 1), ('x-queue-type', 'S', 'round'),
                         ('x-queue-type', 'I', 1), ('x-queue-mode', 'S', 'fast'), ('x-message-ttl', 'l', 1 << 50),
                         ('x-max-length-bytes', 't', True), ('x-queue-mode', 'I', 3))

    def queue_declare(self, at):
        draw = self.random.random()
        no_wait = self.chance(0.07)
        if draw < 0.08:
            self.declare(at, '', no_wait, self._queue_flags())
            if no_wait:
                self.add(at, 'queue.delete')
            else:
                self.generated += 1
            return
        if draw < 0.20:
            return self.add(at, 'queue.declare', queue=self.queue(), passive=True, no_wait=no_wait,
                            **self.one({}, {'durable': True}, {'exclusive': True}))
        if draw < 0.24:
            name = self.one('amq.mine', 'amq.', 'q\r\n1', 'q' * 255, UMLAUT, 'AMQ.x', ' ', 'amq')
            return self.add(at, 'queue.declare', queue=name, durable=self.chance(0.5), no_wait=no_wait)
        name = self.random.choice(QUEUES)
        flags = dict(self.flags[name])
        if self.chance(0.1):
            flag = self.one('durable', 'auto_delete', *['exclusive'] * self.may_exclude())
            flags[flag] = not flags[flag]
        if self.chance(0.06):
            flags['arguments'] = self._queue_arguments(flags['durable'], flags['exclusive'], flags['auto_delete'])
        if self.chance(0.03):
            wrong = self._invalid_argument()
            flags['arguments'] = [given for given in flags['arguments'] if given[0] != wrong[0]] + [wrong]
        self.declare(at, name, no_wait, flags)
        if name not in self.queues:
            self.queues.append(name)

    def declare(self, at, name, no_wait, flags):
        """A queue that has little time is left alone until it is gone."""
        self.add(at, 'queue.declare', queue=name, no_wait=no_wait, **flags)
        self.hasty |= has_short_time('x-message-ttl', flags)
        if has_short_time('x-expires', flags):
            self.wait(at, 300)      # the reference needs a while to delete one

    def queue_bind(self, at):
        exchange = '' if self.chance(0.01) else self.exchange()
        queue = self.only[exchange] if self.type_of(exchange) in CHANCE_TYPES else self.queue()
        fields = {'queue': queue, 'exchange': exchange, 'routing_key': self.binding_key(exchange),
                  'arguments': self.binding_arguments(exchange)}
        self.bindings.append(fields)
        self.add(at, 'queue.bind', no_wait=self.chance(0.07), **fields)

    def queue_unbind(self, at):
        if self.bindings and self.chance(0.85):
            return self.add(at, 'queue.unbind', **self.random.choice(self.bindings))
        exchange = '' if self.chance(0.1) else self.exchange()
        self.add(at, 'queue.unbind', queue=self.queue(), exchange=exchange, routing_key=self.binding_key(exchange))

    def binding_arguments(self, exchange):
        if self.type_of(exchange) in CHANCE_TYPES:
            return []
        if self.type_of(exchange) != 'headers':
            return [('note', 'S', self.one('x', 'y'))] if self.chance(0.08) else []
        arguments = []
        if self.chance(0.85):
            match = ('x-match', 'S', self.random.choices(('all', 'any', 'all-with-x', 'any-with-x'), (4, 4, 1, 1))[0])
            arguments.append(self.one(('x-match', 'S', 'none'), ('x-match', 'I', 1)) if self.chance(0.04) else match)
        for _ in range(self.random.choices((0, 1, 2, 3), (1, 4, 3, 1))[0]):
            arguments.append(self.matchable())
        return list({argument[0]: argument for argument in arguments}.values())

    def matchable(self):
        """A header that messages and bindings have in common: values that are equal and types that are not."""
        key = self.one('h1', 'h2', 'h3', 'x-h')
        return (key,) + self.one(('S', 'v'), ('S', 'w'), ('I', 1), ('l', 1), ('s', 1), ('t', True), ('V', None), ('d', 1.0),
                                 ('S', ''), ('I', 2), ('T', 1), ('t', False), ('x', 'v'))

    def queue_purge(self, at):
        self.add(at, 'queue.purge', queue=self.queue(), no_wait=self.chance(0.1))

    def queue_delete(self, at):
        self.add(at, 'queue.delete', queue=self.queue(), if_unused=self.chance(0.25), if_empty=self.chance(0.25),
                 no_wait=self.chance(0.1))

    # Class exchange

    def _exchange_arguments(self):
        if self.has('alternate', 0.7):
            return [('alternate-exchange', 'S', self.one('e1', 'e2', 'e3', 'amq.fanout', 'amq.direct', 'absent'))]
        return [('unknown', 'I', 1)] if self.chance(0.05) else []

    def _type_arguments(self, kind):
        if kind == 'x-recent-history' and self.chance(0.8):
            wrong = self.chance(0.1)
            return [self.one(('x-recent-history-length', 'I', 0), ('x-recent-history-length', 'S', '2')) if wrong else
                    ('x-recent-history-length', 'I', self.one(1, 2, 3))]
        if kind == 'x-consistent-hash' and self.chance(0.5):
            return [self.one(('hash-header', 'S', 'h1'), ('hash-property', 'S', 'message_id'), ('hash-property', 'S', 'timestamp'),
                             ('hash-property', 'S', 'correlation_id'), ('hash-property', 'S', 'app_id'))]
        return []

    def exchange_declare(self, at):
        no_wait = self.chance(0.07)
        draw = self.random.random()
        if draw < 0.1:
            return self.add(at, 'exchange.declare', exchange=self.exchange(), type=self.one('direct', 'nonsense', ''),
                            passive=True, no_wait=no_wait)
        if draw < 0.14:
            name = self.random.choice(tuple(SYSTEM_EXCHANGES))
            return self.add(at, 'exchange.declare', exchange=name, type=SYSTEM_EXCHANGES[name], no_wait=no_wait,
                            durable=self.chance(0.7))
        if draw < 0.17:
            name = self.one('', 'amq.mine', 'amq.', 'e\n5', 'e' * 255)
            return self.add(at, 'exchange.declare', exchange=name, type='direct', no_wait=no_wait)
        name = self.random.choice(EXCHANGES)
        fields = {'type': self.types[name], 'durable': self.durable[name], 'auto_delete': name == 'e3',
                  'internal': name == 'e4', 'arguments': self.exchange_arguments[name] + self.type_arguments[name]}
        if self.chance(0.08):
            what = self.one('type', 'durable', 'auto_delete', 'internal', 'arguments')
            fields[what] = (self.random.choice(TYPES) if what == 'type' else
                            self._exchange_arguments() + self._type_arguments(self.types[name]) if what == 'arguments' else not fields[what])
        self.add(at, 'exchange.declare', exchange=name, no_wait=no_wait, **fields)
        if name not in self.exchanges:
            self.exchanges.append(name)

    def exchange_delete(self, at):
        name = self.random.choices((self.exchange(), self.random.choice(EXCHANGES), ''), (2, 8, 0.2))[0]
        self.add(at, 'exchange.delete', exchange=name, if_unused=self.chance(0.4), no_wait=self.chance(0.1))

    def exchange_bind(self, at):
        """Never from one system exchange to another: that would outlive the script."""
        destination = self.random.choice(self.exchanges or EXCHANGES)
        source = '' if self.chance(0.02) else self.exchange()
        if self.chance(0.2) and source not in SYSTEM_EXCHANGES:
            destination = self.one('amq.fanout', 'amq.direct', 'absent', '')
        fields = {'destination': destination, 'source': source, 'routing_key': self.binding_key(source),
                  'arguments': self.binding_arguments(source)}
        if self.type_of(source) in PLUGIN_TYPES:
            return
        self.exchange_bindings.append(fields)
        self.add(at, 'exchange.bind', no_wait=self.chance(0.07), **fields)

    def exchange_unbind(self, at):
        if self.exchange_bindings and self.chance(0.9):
            return self.add(at, 'exchange.unbind', no_wait=self.chance(0.07), **self.random.choice(self.exchange_bindings))
        self.add(at, 'exchange.unbind', destination=self.exchange(), source=self.exchange(), routing_key='a')

    # Class basic: publishing

    def basic_publish(self, at):
        mandatory = self.chance(0.25)
        if self.chance(0.5):
            exchange, key = '', self.queue()
        else:
            exchange = 'absent' if self.chance(0.01) else self.exchange()
            key = self.random.choice(KEYS)
        self.publish(at, exchange, key, mandatory)

    def publish(self, at, exchange, key, mandatory=False, **properties):
        content = (dict(self.properties(), **properties), self.body())
        self.add(at, 'basic.publish', content, exchange=exchange, routing_key=key, mandatory=mandatory)
        self.modes[at].holds = self.modes[at].kind == 'tx'
        if self.hasty or content[0].get('expiration') in SHORT_TIMES:
            self.wait(at)

    def body(self):
        self.messages += 1
        size = self.random.choices((0, 1, 20, 5000, 140000), (4, 2, 90, 3, 0.15))[0]
        return ('m%d ' % self.messages * (size // 3 + 1))[:size]

    def priorities(self, *choices):
        return (4,) if 'quorum' in self.features else choices

    def properties(self):
        found = {}
        if self.chance(0.5):
            found['delivery_mode'] = self.random.choices((2, 1, 0, 3), (10, 5, 0.1, 0.1))[0]
        if self.chance(0.35):
            found['headers'] = self.headers()
        if self.has('priority', 0.7):
            found['priority'] = self.random.choice(self.priorities(0, 1, 2, 3, 5, 200))
        if self.has('ttl', 0.3):
            found['expiration'] = self.one('60000', *(() if 'length' in self.features else ('0', *SHORT_TIMES)))
        if self.chance(0.12):
            self._uncommon_properties(found)
        return found

    def _uncommon_properties(self, found):
        for field, choices in (('content_type', ('text/plain', '')), ('content_encoding', ('gzip',)), ('priority', self.priorities(0, 4, 255)),
                               ('correlation_id', ('1', UMLAUT)), ('reply_to', ('q1', '')), ('message_id', ('x' * 255,)),
                               ('timestamp', (0, 1700000000, (1 << 64) - 1)), ('type', ('t',)), ('app_id', ('app',)),
                               ('cluster_id', ('c',))):
            if self.chance(0.3):
                found[field] = self.random.choice(choices)
        if self.chance(0.15):
            found['expiration'] = self.random.choices(('60000000', 'soon', '-1', '', '1.5', '99999999999999'), (8, 1, 1, 1, 1, 1))[0]
        if self.chance(0.15):
            found['user_id'] = self.random.choices(('guest', 'somebody', ''), (8, 1, 1))[0]

    def headers(self):
        entries = [self.matchable() for _ in range(self.random.randint(0, 3))]
        if self.chance(0.1):
            entries += self.every_type()
        if self.has('exchange-types', 0.2):
            entries.append(('x-recent-history-no-store', 't', self.chance(0.8)))
        if self.has('cc', 0.8):
            entries.append((self.one('CC', 'BCC'),) + self.random.choices(
                (('A', [('S', self.random.choice(KEYS + QUEUES)) for _ in range(self.random.randint(0, 3))]),
                 ('S', 'q1'), ('A', [('I', 1)])), (20, 1, 1))[0])
        return entries if self.chance(0.1) and not self.features else list({entry[0]: entry for entry in entries}.values())

    def every_type(self):
        return [('bool', 't', True), ('int8', 'b', -1), ('uint8', 'B', 200), ('int16', 's', -2), ('uint16', 'u', 60000),
                ('int32', 'I', -3), ('uint32', 'i', 4000000000), ('int64', 'l', -4), ('float', 'f', 0.5), ('double', 'd', -2.5),
                ('decimal', 'D', (2, 314)), ('string', 'S', '\x00ä'), ('bytes', 'x', '\x00\xff'), ('time', 'T', 1 << 40),
                ('void', 'V', None), ('array', 'A', [('I', 1), ('S', 'x'), ('A', []), ('F', [])]),
                ('table', 'F', [('k', 'F', [('l', 't', False)])]), ('', 'S', 'no name')]

    # Class basic: consuming

    def basic_qos(self, at):
        if not self.limits_consumers:
            return
        mode = self.modes[at]
        may_limit = not mode.free and mode.consumers < 2 and 'quorum' not in self.features
        mode.limited = mode.limited or may_limit and self.chance(0.15)
        self.add(at, 'basic.qos', prefetch_count=self.one(0, 1, 1, 2, 3, 10), **{'global': mode.limited})

    def basic_consume(self, at):
        queue = self.queue()
        if self.modes[at].limited and self.modes[at].consumers or queue in self.consumed:
            return
        if 'quorum' in self.features and self.limits_consumers:
            if queue == '':     # which may be any
                return
            self.consumed.add(queue)
        self.modes[at].consumers += 1
        tags = self.modes[at].tags
        no_ack = self.chance(0.3) and not self.modes[at].limited
        self.modes[at].free |= no_ack
        tag = ''
        if self.chance(0.8):
            tag = self.one(*(sorted(set(TAGS) - tags) or TAGS)) if self.chance(0.995) else self.one(*(sorted(tags) or TAGS))
            tags.add(tag)
        arguments = []
        if self.has('priority', 0.5) and not self.features >= {'quorum', 'single-active'}:
            arguments.append(('x-priority', 'I', self.one(-1, 0, 1, 5)))
        no_wait = bool(tag) and self.chance(0.07)
        self.add(at, 'basic.consume', queue=queue, consumer_tag=tag, no_ack=no_ack, no_local=self.chance(0.05),
                 exclusive=self.chance(0.07), no_wait=no_wait, arguments=arguments)

    def basic_cancel(self, at):
        tags = sorted(self.modes[at].tags)
        tag = self.random.choice(tags) if tags and self.chance(0.85) else self.one('c1', 'absent', '', ('tag', 0), ('tag', 1))
        self.modes[at].tags.discard(tag)
        self.add(at, 'basic.cancel', consumer_tag=tag, no_wait=self.chance(0.1))

    def basic_get(self, at):
        self.modes[at].free = True
        if self.modes[at].limited:
            return
        self.add(at, 'basic.get', queue=self.queue(), no_ack=self.chance(0.3))

    def delivery(self):
        """A delivery tag, mostly one that is unsettled."""
        if self.chance(0.02):
            return self.one(0, 1, 7, 1 << 40, (1 << 64) - 1)
        return ('delivery', self.random.randrange(12))

    def settle(self, at, method, may_be_multiple=True, **fields):
        fields['multiple'] = self.chance(0.25) and may_be_multiple
        tag = 0 if fields['multiple'] and self.chance(0.3) else self.delivery()
        self.add(at, method, delivery_tag=tag, **fields)

    def gives_back(self, at):
        """Seldom where there are dead letters: some are to die more than once."""
        return not self.modes[at].limited and self.chance(0.2 if 'dead-letter' in self.features else 0.65)

    def basic_ack(self, at):
        self.settle(at, 'basic.ack')

    def basic_nack(self, at):
        requeue = 'quorum' not in self.features and self.gives_back(at)
        one_source = self.modes[at].consumers + self.modes[at].free < 2
        self.settle(at, 'basic.nack', requeue or one_source or not self.features & {'dead-letter', 'policy'}, requeue=requeue)

    def basic_reject(self, at):
        self.add(at, 'basic.reject', delivery_tag=self.delivery(), requeue=self.gives_back(at))

    def basic_recover(self, at):
        if not self.modes[at].limited:
            self.add(at, self.one('basic.recover', 'basic.recover', 'basic.recover-async'), requeue=True)

    # Modes and ends

    def confirm_select(self, at):
        self.modes[at].kind = self.modes[at].kind or 'confirm'
        self.add(at, 'confirm.select', no_wait=self.chance(0.1))

    def tx_select(self, at):
        if 'exchange-types' in self.features:
            return
        self.modes[at].kind = self.modes[at].kind or 'tx'
        self.modes[at].selected = True
        self.add(at, 'tx.select')

    def tx_end(self, at):
        """Commits or rolls back where there is something to end; elsewhere only seldom."""
        for candidate in CHANNELS:
            if self.modes[candidate].kind == 'tx':
                return self.end_transaction(candidate)
        if self.chance(0.05):
            self.end_transaction(at)

    def end_transaction(self, at):
        self.modes[at].holds = False
        self.add(at, self.one('tx.commit', 'tx.commit', 'tx.rollback'))
        if 'ttl' in self.features:      # it is now that the messages get to their queues
            self.wait(at)

    def end_transactions(self):
        for at in CHANNELS:
            if self.modes[at].holds:
                self.end_transaction(at)

    def channel_flow(self, at):
        self.add(at, 'channel.flow', active=True)

    def channel_close(self, at):
        self.modes[at] = Mode()
        self.add(at, 'channel.close', reply_code=200)

    def connection_close(self, at):
        for other in CHANNELS:
            if other[0] == at[0]:
                self.modes[other] = Mode()
        self.add(at, 'connection.close', reply_code=200)

    def fatal(self, at):
        """What ends the connection."""
        draw = self.random.randrange(9)
        if draw == 0:
            self.add(at, 'basic.publish', ({}, 'now'), exchange='', routing_key='q1', immediate=True)
        elif draw == 1:
            self.add(at, 'basic.qos', prefetch_size=1)
        elif draw == 2:
            self.add(at, self.one('basic.recover', 'basic.recover-async'), requeue=False)
        elif draw == 3:
            self.add(at, 'channel.flow', active=False)
        elif draw == 4:
            self.add(at, 'channel.open')
        elif draw == 5:
            self.add(at[0] + '7', self.one('queue.declare', 'basic.qos', 'tx.select', 'basic.ack'))
        elif draw == 6:
            self.add(at, self.one('basic.get-empty', 'queue.declare-ok', 'tx.commit-ok', 'confirm.select-ok'))
        elif draw == 7:
            self.add(at, 'exchange.declare', exchange='e1', type=self.one('nonsense', ''))
        else:
            self.add(at, 'basic.consume', queue=self.queue(), consumer_tag='c1')
            self.add(at, 'basic.consume', queue=self.queue(), consumer_tag='c1')

    # Features

    def wait(self, at, ms=120):
        self.add(at, 'wait', ms=ms)

    def die(self, at):
        """A message that mostly comes back to its queue when it is rejected, rejected some times."""
        if self.modes[at].limited:
            return
        self.modes[at].free = True
        for name in self.deadly:
            if name not in self.queues:
                self.end_transactions()
                self.declare(at, name, False, self.flags[name])
                self.queues.append(name)
        self.publish(at, '', 'q1')
        for n in range(self.random.randint(1, 3)):
            self.add(at, 'basic.get', queue=self.deadly[n % len(self.deadly)])
            self.add(at, 'basic.reject', delivery_tag=('delivery', -1))
        self.add(at, 'basic.get', queue=self.deadly[(n + 1) % len(self.deadly)])

    def trial(self, _):
        """A connection that does one thing otherwise than clients do, or nothing."""
        fields = {'header': 'AMQP\0\0\x09\x01', 'mechanism': 'PLAIN', 'response': '\0guest\0guest', 'is_told': self.chance(0.9),
                  'channel_max': 2047, 'frame_max': 131072, 'heartbeat': self.one(0, 1, 60, 600, 65535), 'channels': (1,)}
        fields.update(self.one(
            {}, {'octets': self.random.choice(tuple(trial.OCTETS))}, {'octets': self.random.choice(tuple(trial.OCTETS))},
            {'octets': self.random.choice(tuple(trial.OCTETS))},
            {'header': self.one('AMQP\1\1\0\x09', 'AMQP\0\0\x09\0', 'AMQP\0\0\x0a\0', 'GET / HT', 'nonsense')},
            {'mechanism': 'AMQPLAIN', 'response': self.one('\5LOGINS\0\0\0\5guest\x08PASSWORDS\0\0\0\5' + self.one('guest', 'wrong'),
                                                           '', '\5LOGINS\0\0\0\5guest', '\0guest\0guest')},
            {'mechanism': self.one('EXTERNAL', 'nonsense', '', 'plain')},
            {'response': self.one('\0guest\0wrong', '\0nobody\0guest', '\0guest\0', 'guest', 'guest\0guest\0guest', '\0guest', '')},
            {'channel_max': self.one(0, 1, 2, 2048, 65535), 'channels': self.one((), (1, 2), (1, 2, 3), (2, 1), (7,))},
            {'frame_max': self.one(0, 1, 4095, 4096, 8192, 131071, 131073, (1 << 32) - 1)},
            {'channels': self.one((), (3, 9), (65535,), (1, 1), (2047, 2048))},
            {'vhost': self.one('absent', '/absent', '')}))
        self.add('C0', 'trial', **fields)

    def reply_to(self, at):
        if self.chance(0.4):
            return self.add(at, 'basic.consume', queue='amq.rabbitmq.reply-to', consumer_tag=self.one('r1', 'r2', 'c1'),
                            no_ack=self.chance(0.95))
        self.publish(at, '', self.queue(), reply_to='amq.rabbitmq.reply-to')

    def reply(self, at):
        """To the address in the last request that the script has seen; also what else one may try with it."""
        if self.modes[at].selected:
            return
        draw = self.random.random()
        if draw < 0.8:
            self.publish(at, '', ('reply-to', 0), mandatory=self.chance(0.5))
        else:
            self.add(at, 'queue.declare', queue=('reply-to', 0), passive=True)

    def policy(self, at):
        """Set or cleared when all queues are empty. A purge that fails gives back what its channel holds, so that it is done twice.
        No two have the same priority: chance would choose."""
        for name in self.queues * 2:
            self.add(at, 'queue.purge', queue=name)
        name = self.one('p1', 'p2')
        if self.chance(0.3):
            return self.add(at, 'policy.clear', name=name)
        may_limit = not self.features & {'ttl', 'quorum'}
        definition = self.one(*(each for each in POLICIES if may_limit or not limits_length(each)))
        if 'quorum' in self.features and self.limits_consumers and 'delivery-limit' in definition:
            definition = {'nonsense': 1}
        pattern = self.one('q1', '^q', 'e', '.*')
        if limits_length(definition):
            if 'priority' in self.features:
                definition = dict(definition, overflow='reject-publish')
            pattern = self.one('^q1$', '^q')        # no name that the broker makes
        self.add(at, 'policy.set', name=name, pattern=pattern, definition=definition,
                 priority=2 * self.one(0, 1, 5) + (name == 'p2'), apply_to=self.one('all', 'queues', 'exchanges'))
