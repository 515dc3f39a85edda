"""Plays scripts on a broker and writes down what it says, in words that do not depend on chance.

A lane is a virtual host with two connections, A and B, of two channels each; many lanes are played at once by one thread, each script by a
coroutine that yields what it waits for. A step goes

    1  the step's method, then channel.flow(active), on the step's channel; wait for flow-ok, for the confirm if one is due,
       or for the close that the step has earned
    2  what was closed is opened again: only then has the reference let go of all that it held
    3  a passive declare of the durable queues that may have consumers, on a channel of its own: the reference writes
       to its files elsewhere than where it takes turns; where messages go from queue to queue, of all queues
    4  channel.flow on every channel that may have consumers, for nothing else can come unasked; wait for all of them
    5  what has come on each channel is the step's part of the transcript

so that nothing of a step is still under way when the next begins. 3 and 4 are left out after a step that moves no message.

The transcript is a list with a list of lines for each step. In it
  - names and tags that the broker made stand as <queue 0>, <tag 1>, <reply-to>: numbered as they came;
  - the deliveries of one step on one channel are ordered by consumer, and delivery tags count in that order: several queues
    deliver to a channel in no fixed order. A settlement with `multiple` is rounded up to the last delivery of its step,
    where both countings agree again;
  - a consumer that the broker cancels is told of in no fixed order: that comes after the rest;
  - where features are played that make brokers add headers, headers are ordered, and those that came after 3.10 left out;
  - of the deaths in x-death the newest stands first and the others are ordered: 3.10 turns these round with every death (13.4);
  - the virtual host is called '/', confirms are expanded to the numbers they cover, the times in x-death are left out.
"""

import collections
import contextlib
import hashlib
import http.client
import json
import re
import socket
import struct
import time
import urllib.parse

import protocol
import script
import trial
import wire
from link import CHANNEL_CLOSE_OK, CHANNEL_OPEN, FLOW, FRAME_MAX, INSPECTOR, WAIT, Channel, Link, Poll, Wait, frame

JANITOR = 9         # the channel that deletes what a script has left
# Seconds after a step of which nothing tells when the reference is done with it: one that moves messages of quorum queues, or a bind
# that brings several at once, which the reference counts one by one.
PAUSE = 0.03

HOPS = {'dead-letter', 'quorum', 'policy'}   # features by which a message goes from queue to queue

# Steps after which no message, credit or consumer can be under way.
QUIET = {'queue.declare', 'exchange.declare', 'queue.bind', 'queue.unbind', 'exchange.bind', 'exchange.unbind',
         'exchange.delete', 'queue.purge', 'confirm.select', 'tx.select', 'basic.get', 'channel.flow', 'trial'}
ACTIVE_BINDS = {'queue.bind', 'exchange.bind'}     # where an exchange remembers messages for whoever is bound

AUTHORIZATION = {'Authorization': 'Basic Z3Vlc3Q6Z3Vlc3Q='}     # guest, guest

Broker = collections.namedtuple('Broker', 'host port management')     # management: a port, or the path of a socket


_described = {}     # (properties as bytes, whether brokers add headers): as text


def describe(properties, with_added):
    """The text of packed properties; says so when they are packed otherwise than we would."""
    found = _described.get((properties, with_added))
    if found is None:
        if len(_described) > 20000:
            _described.clear()
        read = protocol.read_properties(properties)
        packed = protocol.properties(read)
        if with_added and 'headers' in read:
            read['headers'] = sorted((in_order(header) for header in read['headers'] if not since_3_10(header)), key=repr)
            if not read['headers']:
                del read['headers']
        found = re.sub(r"\('time', 'T', \d+\)", "('time', 'T', ...)", repr(read))
        if packed != properties:
            found += ' packed as ' + properties.hex()
        _described[properties, with_added] = found
    return found


def in_order(header):
    """A header; x-death with its tables in the order of keys, and all but the newest in one of their own."""
    if header[:2] != ('x-death', 'A'):
        return header
    deaths = [(tag, sorted(death, key=repr) if tag == 'F' else death) for tag, death in header[2]]
    return (*header[:2], deaths[:1] + sorted(deaths[1:], key=repr))


def since_3_10(header):
    """Whether only one of the brokers would add this header: 13.5, 10.19."""
    return header[0].startswith('x-last-death-') or header[0] == 'x-acquired-count' or header == ('x-delivery-count', 'l', 0)


def stripped(name):
    """A name as brokers keep it: 8.1."""
    return name.translate({10: None, 13: None})


def describe_body(body):
    if len(body) <= 60:
        return repr(body.decode('latin-1'))
    return '%d octets %s' % (len(body), hashlib.md5(body).hexdigest()[:8])


class Lane:
    """A virtual host of a broker with its two connections; plays one script at a time."""

    def __init__(self, broker, vhost, poll):
        self.broker = broker
        self.vhost = vhost
        self.poll = poll            # a Poll
        self.links = {letter: Link(self, letter) for letter in 'AB'}
        self.with_features = False  # the script has some
        self.pauses = False         # after each step
        self.quiet = QUIET
        self.with_hops = False      # messages go from queue to queue
        self.deadly = False         # they may do so when they are given back
        self.coroutine = None
        self.waiting = None         # Wait, with an absolute deadline
        self.transcript = None

    def register(self, link):
        self.poll.register(link)

    def unregister(self, link):
        self.poll.unregister(link)

    # The coroutine

    def start(self, played):
        self.transcript = []
        self.with_features = bool(played.features)
        self.with_hops = bool(played.features & HOPS)
        self.deadly = bool(played.features & {'dead-letter', 'policy'}) and bool(played.features & {'ttl', 'quorum', 'length'})
        self.pauses = 'quorum' in played.features
        self.quiet = QUIET - ACTIVE_BINDS if 'exchange-types' in played.features else QUIET
        self.coroutine = self.play(played.steps)
        self.advance(None)

    def advance(self, answered):
        """Runs to the next wait; false at the end of the script."""
        while True:
            try:
                wait = self.coroutine.send(answered)
            except StopIteration:
                self.coroutine = self.waiting = None
                return
            except (wire.WireError, OSError) as error:
                self.transcript.append(['gave up: %s' % error])
                self.reset()
                return
            if not wait.until():
                self.waiting = Wait(wait.until, time.monotonic() + wait.deadline)
                return
            answered = True

    def reset(self):
        for link in self.links.values():
            link.end()
            link.events = []
        self.coroutine = self.waiting = None

    def on_event(self, now):
        """Goes on when what it waits for has come or will not come."""
        if self.waiting is None:
            return
        if self.waiting.until():
            self.advance(True)
        elif now >= self.waiting.deadline:
            self.advance(False)

    def play(self, steps):
        self.queues, self.tags, self.reply_tos = [], [], []
        self.over = False       # the script ends after this step
        self.asked = {}         # queues thought to exist that are asked after each step: letter of the connection that may see them
        self.passing = set()    # queues that may have been deleted
        self.consumed = set()   # queues that may have a consumer
        for link in self.links.values():
            if link.dead:
                yield from link.connect()
        for step in steps:
            lines = []
            if self.is_ambiguous(step):
                break
            if step.method == 'queue.declare':      # the reference counts messages before it has taken in those on their way
                yield from self.inspect(list(self.asked))
            if step.method == 'wait':
                yield Wait(lambda: False, step.fields['ms'] / 1000)
            elif step.method == 'trial':
                lines += yield from trial.of(self, step.fields)
            elif step.method.startswith('policy.'):
                lines.append(self.administer(step))
                yield Wait(lambda: False, 0.1)
            else:
                answered = yield from self.take_step(step)
                if not answered:
                    lines.append('silence')
            mended = yield from self.mend(lines)
            if mended or step.method not in self.quiet:
                if self.pauses or step.method in ACTIVE_BINDS:
                    yield Wait(lambda: False, PAUSE)
                yield from self.inspect(self.asked if self.with_hops or '' in self.consumed else self.consumed)
                for _ in range(2 if self.with_hops else 1):
                    yield from self.settle_all()
                yield from self.mend(lines)
            self.collect(lines)
            refusal = [line for line in lines if step.method == 'tx.commit' and 'partial tx completion' in line]
            if refusal:     # the reference has done a part of it, and nothing tells which
                lines, self.over = refusal, True
            self.transcript.append(sorted(lines, key=lambda line: line.split(' ', 1)[0]))
            if 'silence' in lines or self.over:
                break
        yield from self.clean_up(steps)

    def is_ambiguous(self, step):
        """Whether a queue may get the name of one that is gone, of which there are unsettled deliveries. The reference would take their
        settlement for that of others: such a script ends here."""
        name = step.fields.get('queue')
        return step.method == 'queue.declare' and name in self.passing and any(
            channel.queue_of[place] in (name, '')
            for link in self.links.values() for channel in link.channels.values() for place in channel.unsettled)

    # One step

    def take_step(self, step):
        link, number = self.links[step.at[0]], int(step.at[1:])
        channel = link.channels.get(number) or link.add(number)
        fields = self.resolve(step, channel)
        if fields is None:
            return True
        if step.method == 'connection.close':
            link.send(frame(1, 0, protocol.method(step.method, fields)))
            return (yield Wait(lambda: link.dead, WAIT))
        packed = frame(1, number, protocol.method(step.method, fields))
        if step.method == 'channel.close':
            link.send(packed)
            return (yield Wait(lambda: channel.close_ok or link.closed or link.dead, WAIT))
        if step.content is not None:
            packed += self.content(step, number)
        self.note(step, fields, channel)
        if step.method == 'tx.commit':      # nothing may follow it before it is done
            link.send(packed)
            yield Wait(lambda: channel.ended_tx or channel.closed or link.closed or link.dead, WAIT)
            channel.ended_tx = False
            packed = b''
        channel.flows += 2 if step.method == 'channel.flow' else 1
        link.send(packed, frame(1, number, FLOW))
        answered = yield Wait(lambda: channel.idle() or link.closed or link.dead, WAIT)
        if answered and fields.get('no_wait') and step.method == 'confirm.select' and not channel.closed:
            channel.confirming = True
        return answered

    def note(self, step, fields, channel):
        """What the player must know of the step to understand the answers."""
        if step.method == 'basic.publish' and channel.confirming:
            channel.published += 1
            channel.unconfirmed.add(channel.published)
        elif step.method == 'basic.get':
            channel.last_get = (fields.get('queue', ''), fields.get('no_ack', False))
        elif step.method == 'basic.consume':
            channel.last_consume = (fields.get('queue', ''), fields.get('no_ack', False))
            channel.consuming = True
            self.consumed.add(fields.get('queue', ''))
            if fields.get('no_wait'):
                channel.consumers[fields.get('consumer_tag')] = channel.last_consume
        elif step.method in ('basic.recover', 'basic.recover-async') and fields.get('requeue'):     # without, it ends the connection
            channel.unsettled.clear()
        elif step.method == 'queue.declare' and fields.get('queue') and not fields.get('passive') and (fields.get('durable') or self.with_hops):
            self.asked[stripped(fields['queue'])] = step.at[0]
        if step.method == 'queue.delete' or step.method == 'queue.declare' and (fields.get('auto_delete') or
                                                                                fields.get('exclusive')):
            self.passing.add(fields.get('queue'))
            if step.method == 'queue.delete' and not fields.get('if_unused') and not fields.get('if_empty'):
                self.asked.pop(fields.get('queue'), None)

    @staticmethod
    def content(step, number):
        properties, body = step.content
        body = body.encode('latin-1')
        piece = FRAME_MAX - 8
        return (frame(2, number, struct.pack('>HHQ', 60, 0, len(body)) + protocol.properties(properties)) +
                b''.join(frame(3, number, body[at:at + piece]) for at in range(0, len(body), piece)))

    def resolve(self, step, channel):
        """The fields with references replaced; None when the step is about a delivery and there is none."""
        fields = step.fields
        if 'delivery_tag' in fields:
            tag = self.delivery_tag(channel, fields['delivery_tag'], fields.get('multiple'))
            return None if tag is None else dict(fields, delivery_tag=tag)
        if step.method in ('basic.ack', 'basic.nack') and fields.get('multiple'):
            channel.unsettled.clear()
        for name, what in fields.items():
            if isinstance(what, tuple):
                fields = dict(fields, **{name: self.made(*what)})
        return fields

    def made(self, kind, n):
        made = {'queue': self.queues, 'tag': self.tags, 'reply-to': self.reply_tos[-1:]}[kind]
        return made[n % len(made)] if made else 'none was made'

    @staticmethod
    def delivery_tag(channel, what, multiple):
        """The broker's tag for a number in our counting or a reference; settles it in our books."""
        if isinstance(what, tuple):
            if not channel.unsettled:
                return None
            what = channel.unsettled[what[1] % len(channel.unsettled)]
        if not 0 < what <= len(channel.tags):
            return what
        if not multiple:
            if what in channel.unsettled:
                channel.unsettled.remove(what)
            return channel.tags[what - 1]
        start, end = 0, 0
        for end in channel.groups:
            if end >= what:
                break
            start = end
        channel.unsettled = [place for place in channel.unsettled if place > end]
        return max(channel.tags[start:end])

    # After a step

    def inspect(self, wanted):
        """Waits until those of the wanted queues that may be asked have done what was asked of them. Those that are not there any more are
        forgotten."""
        for letter, link in self.links.items():
            names = [name for name, owner in self.asked.items() if owner == letter and name in wanted]
            while names and not link.dead and not link.closed:
                channel = link.channels[INSPECTOR]
                channel.events = []
                asked = [frame(1, INSPECTOR, protocol.method('queue.declare', {'queue': name, 'passive': True})) for name in names]
                channel.flows += 1
                link.send(*asked, frame(1, INSPECTOR, FLOW))
                yield Wait(lambda at=channel, of=link: at.idle() or of.closed or of.dead, WAIT)
                if not channel.closed:
                    break
                name = names[len(channel.events) - 1]     # the last event is the close
                del self.asked[name]
                names = names[len(channel.events):]
                yield from self.reopen(link, [channel])

    def settle_all(self):
        links = [link for link in self.links.values() if not link.dead and not link.closed]
        waiting = []
        for link in links:
            frames = []
            for channel in link.channels.values():
                if channel.consuming and not channel.closed and not channel.close_ok:
                    channel.flows += 1
                    frames.append(frame(1, channel.number, FLOW))
                    waiting.append((link, channel))
            if frames:
                link.send(*frames)
        yield Wait(lambda: all(channel.idle() or link.closed or link.dead for link, channel in waiting), WAIT)

    def mend(self, lines):
        """Opens again what was closed, after noting what it had to say; true when there was something."""
        mended = False
        for link in self.links.values():
            if link.closed or link.dead:
                yield Wait(lambda at=link: at.dead, WAIT)   # the broker ends the socket when it is done with the connection
                link.end()
                self.collect_link(link, list(link.channels), lines)
                lines.append(link.letter + ' is connected again')
                self.over |= self.gave_to_itself(link)
                yield from link.connect()
                mended = True
                continue
            gone = [channel for channel in link.channels.values() if channel.closed or channel.close_ok]
            if gone:
                self.collect_link(link, [channel.number for channel in gone], lines)
                self.over |= self.deadly and any(map(self.died_to_itself, gone))
                yield from self.reopen(link, gone)
                mended = True
        return mended

    @staticmethod
    def gave_to_itself(link):
        """Whether a connection that has ended may have got from one channel what another gave back: in the reference they end one by one.
        What is left in the queues is anybody's guess then."""
        return any(channel.unsettled and any(other.consuming for other in link.channels.values() if other is not channel)
                   for channel in link.channels.values())

    @staticmethod
    def died_to_itself(channel):
        """Whether what died when a channel that has ended gave it back may have come to a consumer of that channel, and back once more: the
        reference tells its queues one by one of the end. What is left in them is anybody's guess then."""
        queues = {queue for queue, _ in channel.consumers.values()} - {'amq.rabbitmq.reply-to'}
        return any(queues - {channel.queue_of[place]} for place in channel.unsettled)

    @staticmethod
    def reopen(link, gone):
        frames = []
        for channel in gone:
            if channel.closed:
                frames.append(frame(1, channel.number, CHANNEL_CLOSE_OK))
            frames.append(frame(1, channel.number, CHANNEL_OPEN))
        fresh = [link.add(channel.number) for channel in gone]
        link.send(*frames)
        yield Wait(lambda: all(channel.open for channel in fresh) or link.dead, WAIT)

    def administer(self, step):
        """Policies go over HTTP, as an operator's do."""
        path = '/api/policies/%s/%s' % (urllib.parse.quote(self.vhost, ''), step.fields['name'])
        body = {key.replace('_', '-'): what for key, what in step.fields.items() if key != 'name'}
        with contextlib.closing(http.client.HTTPConnection(self.broker.host, self.broker.management, timeout=WAIT)) as client:
            if isinstance(self.broker.management, str):
                client.sock = socket.socket(socket.AF_UNIX)
                client.sock.connect(self.broker.management)
            if step.method == 'policy.clear':
                client.request('DELETE', path, headers=AUTHORIZATION)
            else:
                client.request('PUT', path, json.dumps(body), dict(AUTHORIZATION, **{'Content-Type': 'application/json'}))
            return 'HTTP %d' % client.getresponse().status

    # The transcript

    def collect(self, lines):
        for link in self.links.values():
            self.collect_link(link, list(link.channels), lines)

    def collect_link(self, link, numbers, lines):
        for event in link.events:
            lines.append(self.line(link.letter, *event))
        link.events = []
        for number in numbers:
            channel = link.channels[number]
            if number == INSPECTOR:
                channel.events = []
            elif channel.events:
                self.collect_channel('%s%d' % (link.letter, number), channel, lines)

    def collect_channel(self, at, channel, lines):
        tagged, cancelled = [], []
        for name, fields, content in channel.events:
            self.learn(at, name, fields, content)
            if 'delivery_tag' in fields and content is not None:
                tagged.append((self.translate(fields.get('consumer_tag', '')), name, fields, content))
            elif name == 'basic.cancel':
                cancelled.append(self.line(at, name, fields, content))
            else:
                lines.append(self.line(at, name, fields, content))
        lines += sorted(cancelled)
        channel.events = []
        if tagged:
            self.collect_deliveries(at, channel, tagged, lines)

    def collect_deliveries(self, at, channel, tagged, lines):
        tagged.sort(key=lambda entry: entry[0])
        real = sorted(fields['delivery_tag'] for _, _, fields, _ in tagged)
        first = len(channel.tags) + 1
        if real != list(range(first, first + len(real))):
            lines.append('%s delivery tags %s, expected from %d on' % (at, real, first))
        for _, name, fields, content in tagged:
            channel.tags.append(fields['delivery_tag'])
            place = len(channel.tags)
            queue, no_ack = (channel.consumers.get(fields['consumer_tag'], ('', False)) if name == 'basic.deliver' else
                             channel.last_get)
            if not no_ack:
                channel.unsettled.append(place)
                channel.queue_of[place] = queue
            lines.append(self.line(at, name, dict(fields, delivery_tag=place), content))
        channel.groups.append(len(channel.tags))

    def learn(self, at, name, fields, content):
        """Notes what the broker has made up."""
        if name == 'queue.declare-ok' and fields['queue'].startswith('amq.gen-') and fields['queue'] not in self.queues:
            self.queues.append(fields['queue'])
            self.asked[fields['queue']] = at[0]
        elif name == 'basic.consume-ok' and fields['consumer_tag'].startswith('amq.ctag-'):
            self.tags.append(fields['consumer_tag'])
        elif content is not None and b'amq.rabbitmq.reply-to.' in content[0]:
            address = protocol.read_properties(content[0]).get('reply_to')
            if address not in self.reply_tos:
                self.reply_tos.append(address)

    def line(self, at, name, fields, content):
        if 'reply_text' in fields:
            fields = dict(fields, reply_text=fields['reply_text'].replace("vhost '%s'" % self.vhost, "vhost '/'"))
        said = ' '.join('%s=%s' % (key, what if type(what) is int else repr(what)) for key, what in fields.items())
        if content is not None:
            said = '%s %s %s' % (said, describe(content[0], self.with_features), describe_body(content[1]))
        return self.translate('%s %s %s' % (at, name, said)).rstrip()

    def translate(self, said):
        for kind, made in (('queue', self.queues), ('tag', self.tags)):
            for n, name in enumerate(made):
                said = said.replace(name, '<%s %d>' % (kind, n))
        for address in self.reply_tos:
            said = said.replace(address, '<reply-to>')
        return re.sub(r'amq\.gen-[\w-]{22}', '<a queue>', said) if 'amq.gen-' in said else said

    # The end of a script

    def clean_up(self, steps):
        """Channels end, so that nobody holds anything; then every name of the script is deleted, by whoever may."""
        for link in self.links.values():
            used = list(link.channels.values())
            link.send(*[frame(1, channel.number, protocol.method('channel.close', {'reply_code': 200})) for channel in used])
            yield Wait(lambda at=link, all_of=used: all(c.close_ok or c.closed for c in all_of) or at.dead, WAIT)
            link.channels = {}
        queues = {step.fields['queue'] for step in steps if step.method == 'queue.declare' and 'queue' in step.fields}
        queues = sorted(stripped(name) for name in queues if isinstance(name, str)) + self.queues
        exchanges = {step.fields['exchange'] for step in steps if step.method == 'exchange.declare' and 'exchange' in step.fields}
        deletes = [('queue.delete', {'queue': name, 'no_wait': True}) for name in queues]
        deletes += [('exchange.delete', {'exchange': stripped(name), 'no_wait': True})
                    for name in sorted(exchanges - set(script.SYSTEM_EXCHANGES))]
        names = {step.fields['name'] for step in steps if step.method == 'policy.set'}
        for name in sorted(names):
            self.administer(script.Step('', 'policy.clear', {'name': name}))
        refused = yield from self.delete(self.links['A'], deletes)
        yield from self.delete(self.links['B'], refused)
        for link in self.links.values():
            if not link.dead:
                yield from self.reopen(link, [Channel(number) for number in link.numbers()])

    def delete(self, link, deletes):
        """Deletes on a channel of its own, again after each refusal; returns what was refused."""
        refused = []
        while deletes and not link.dead:
            janitor = link.add(JANITOR)
            janitor.flows = 1
            link.send(frame(1, JANITOR, CHANNEL_OPEN), *[frame(1, JANITOR, protocol.method(*delete)) for delete in deletes],
                      frame(1, JANITOR, FLOW))
            yield Wait(lambda: janitor.closed or not janitor.flows or link.dead, WAIT)
            if not janitor.closed:
                break
            refusal = janitor.events[-1][1]['reply_text']
            at = next((n for n, (_, given) in enumerate(deletes)
                       if "'%s'" % given.get('queue', given.get('exchange')) in refusal), 0)
            refused.append(deletes[at])
            deletes = deletes[at + 1:]
            link.send(frame(1, JANITOR, CHANNEL_CLOSE_OK))
        if not link.dead and JANITOR in link.channels and not link.channels[JANITOR].closed:
            last = link.channels[JANITOR]
            link.send(frame(1, JANITOR, protocol.method('channel.close', {'reply_code': 200})))
            yield Wait(lambda: last.close_ok or link.dead, WAIT)
        link.channels.pop(JANITOR, None)
        return refused


class Player:
    """Plays many scripts on many lanes of one broker or several, in one thread."""

    def __init__(self, lanes):
        """lanes: (Broker, vhost) pairs."""
        self.poll = Poll()
        self.lanes = [Lane(broker, vhost, self.poll) for broker, vhost in lanes]

    def play(self, scripts):
        """Takes scripts from an iterator; yields (script, transcript) as they end."""
        scripts = iter(scripts)
        busy = {}
        while True:
            for lane in self.lanes:
                while lane.coroutine is None:
                    if lane in busy:
                        yield busy.pop(lane), lane.transcript
                    played = next(scripts, None)
                    if played is None:
                        break
                    busy[lane] = played
                    lane.start(played)
            if not busy:
                return
            self._turn(busy)

    def _turn(self, busy):
        now = time.monotonic()
        deadline = min((lane.waiting.deadline for lane in busy if lane.waiting), default=now)
        for lane in self.poll.wait(max(0.0, min(deadline - now, 1.0)) + 0.0005):
            lane.on_event(0)
        now = time.monotonic()
        for lane in busy:
            if lane.waiting and now >= lane.waiting.deadline:
                lane.on_event(now)

    def close(self):
        for lane in self.lanes:
            lane.reset()
