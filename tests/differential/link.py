"""Connections to a broker as frames that come in: what the player of scripts waits for, kept per channel.

    Poll      the sockets of a thread
    Link      one connection: takes in frames, sorts them to its channels, opens itself again by a coroutine
    Channel   what has come and is not written down yet, and what must be known to understand the rest

Nothing here blocks but connect and send. A coroutine yields a Wait: what it waits for, and for how many seconds at most.
"""

import collections
import contextlib
import select
import socket
import struct

import protocol
import wire

WAIT = 20           # seconds for an answer; a broker that needs longer is silent
HANDSHAKE_WAIT = 60 # the brokers are given as long
INSPECTOR = 8       # the channel of a connection that asks after queues

FLOW = protocol.method('channel.flow', {'active': True})
FLOW_OK = protocol.method('channel.flow-ok', {'active': True})
CHANNEL_OPEN = protocol.method('channel.open', {})
CHANNEL_CLOSE_OK = protocol.method('channel.close-ok', {})
CONNECTION_CLOSE_OK = wire.method(0, wire.CLOSE_OK)
HEAD = struct.Struct('>BHI')
FRAME_MAX = 131072

CHANNELS = {'A': [1, 2], 'B': [1, 2]}
CAPABILITIES = {'A': {'consumer_cancel_notify': True, 'publisher_confirms': True, 'basic__nack': True}, 'B': {}}

Wait = collections.namedtuple('Wait', 'until deadline')


def frame(kind, number, payload):
    return HEAD.pack(kind, number, len(payload)) + payload + wire.FRAME_END


class Channel:
    """What the player knows of a channel since it was opened."""

    def __init__(self, number):
        self.number = number
        self.events = []            # (method, fields, content) not yet in the transcript
        self.flows = 0              # flow-ok awaited
        self.open = False
        self.closed = False         # by the broker, and not answered yet
        self.close_ok = False       # our close was answered
        self.confirming = False
        self.ended_tx = False
        self.published = 0
        self.unconfirmed = set()
        self.tags = []              # the broker's delivery tag of each delivery, in our order
        self.groups = []            # how many there were after each step
        self.unsettled = []         # places in tags, from 1
        self.queue_of = {}          # by place: the name of the queue, '' when it is not known
        self.consuming = False      # it has or had a consumer
        self.consumers = {}         # by tag: (queue, no_ack)
        self.last_get = self.last_consume = ('', False)
        self.content = None         # being assembled: [method, fields, properties, size, body]

    def settled(self, tag, multiple):
        self.unconfirmed -= {number for number in self.unconfirmed if number == tag or multiple and (number <= tag or not tag)}

    def idle(self):
        return self.closed or self.flows == 0 and not self.unconfirmed


class Link:
    """One connection: its socket, its channels, and the frames that come in."""

    def __init__(self, lane, letter):
        self.lane = lane
        self.letter = letter
        self.socket = None
        self.channels = {}
        self.dead = True
        self.events = []

    def numbers(self):
        return CHANNELS[self.letter] + [INSPECTOR]

    def connect(self):
        """A coroutine: from nothing to open channels."""
        broker = self.lane.broker
        self.socket = socket.create_connection((broker.host, broker.port), WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b''
        self.dead = self.eof = self.closed = False
        self.greeting = None
        self.channels = {}
        self.lane.register(self)
        self.send(wire.PROTOCOL_HEADER)
        yield from self.await_greeting('connection.start')
        self.send(wire.start_ok(capabilities=CAPABILITIES[self.letter]))
        yield from self.await_greeting('connection.tune')
        self.send(wire.tune_ok(frame_max=FRAME_MAX), wire.open_vhost(self.lane.vhost),
                  *[frame(1, self.add(number).number, CHANNEL_OPEN) for number in self.numbers()])
        yield from self.await_greeting('connection.open-ok')
        yield Wait(lambda: all(channel.open for channel in self.channels.values()), HANDSHAKE_WAIT)

    def await_greeting(self, method):
        answered = yield Wait(lambda: self.greeting == method or self.dead, HANDSHAKE_WAIT)
        if not answered or self.dead:
            raise wire.WireError('no %s' % method)

    def add(self, number):
        self.channels[number] = Channel(number)
        return self.channels[number]

    def send(self, *frames):
        try:
            self.socket.sendall(b''.join(frames))
        except OSError:
            self.end()

    def end(self):
        if not self.dead:
            self.dead = True
            self.lane.unregister(self)
            self.socket.close()

    def on_readable(self):
        try:
            data = self.socket.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self.eof = True
            return self.end()
        data = self.rest + data
        at, size = 0, len(data)
        while size - at >= 8:
            kind, number, length = HEAD.unpack_from(data, at)
            end = at + 8 + length
            if end > size:
                break
            payload = data[at + 7:end - 1]
            at = end
            channel = self.channels.get(number)
            if channel is None:
                if kind == 1 and number == 0:
                    self.on_connection_method(payload)
            elif payload == FLOW_OK and kind == 1:
                channel.flows -= 1
            else:
                self.on_channel_frame(kind, channel, payload)
        self.rest = data[at:]

    def on_connection_method(self, payload):
        name, fields = protocol.fields(payload)
        if name in ('connection.start', 'connection.tune', 'connection.open-ok'):
            self.greeting = name
            return
        self.events.append((name, fields, None))
        if name == 'connection.close':
            self.closed = True
            self.send(CONNECTION_CLOSE_OK)
        elif name == 'connection.close-ok':
            self.end()

    def on_channel_frame(self, kind, channel, payload):
        if kind == 1:
            name, fields = protocol.fields(payload)
            if protocol.BY_NAME[name].has_content:
                channel.content = [name, fields, None, None, b'']
            else:
                self.on_method(channel, name, fields)
            return
        content = channel.content
        if content is None:
            channel.events.append(('a frame of type %d' % kind, {}, None))
            return
        if kind == 2:
            content[3] = struct.unpack_from('>Q', payload, 4)[0]
            content[2] = payload[12:]
        else:
            content[4] += payload
        if content[3] == len(content[4]):
            channel.content = None
            channel.events.append((content[0], content[1], (content[2], content[4])))

    def on_method(self, channel, name, fields):
        if name == 'channel.open-ok':
            channel.open = True
            return
        if name == 'channel.close':
            channel.closed = True
        elif name == 'channel.close-ok':
            channel.close_ok = True
        elif name in ('basic.ack', 'basic.nack'):
            before = set(channel.unconfirmed)
            channel.settled(fields['delivery_tag'], fields['multiple'])
            covered = sorted(before - channel.unconfirmed)
            fields = {'covers': covered} if covered else dict(fields, unexpected=True)
            name = 'confirmed by ' + name
        elif name == 'tx.commit-ok':
            channel.ended_tx = True
        elif name == 'confirm.select-ok':
            channel.confirming = True
        elif name == 'basic.consume-ok':
            channel.consumers[fields['consumer_tag']] = channel.last_consume
        channel.events.append((name, fields, None))


class Poll:
    """The sockets of all lanes of one thread."""

    def __init__(self):
        self.epoll = select.epoll()
        self.links = {}

    def register(self, link):
        self.links[link.socket.fileno()] = link
        self.epoll.register(link.socket.fileno(), select.EPOLLIN)

    def unregister(self, link):
        self.ignore(link)
        del self.links[link.socket.fileno()]

    def ignore(self, link):
        """Of a link at its end there is nothing to take in any more."""
        with contextlib.suppress(FileNotFoundError):
            self.epoll.unregister(link.socket.fileno())

    def wait(self, timeout):
        """Takes in what has come; returns the lanes concerned."""
        lanes = []
        for fd, _ in self.epoll.poll(timeout):
            link = self.links.get(fd)
            if link is not None:
                link.on_readable()
                lanes.append(link.lane)
        return lanes
