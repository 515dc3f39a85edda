"""A connection that tries something: one step of a script, from the protocol header to the broker's verdict.

    trial.of(lane, fields)      a coroutine; returns the lines of the transcript

What each trial sends is in the step's fields (see Writer.trial of script.py): header, mechanism, response, tune-ok, virtual host,
channels to open, and the name of one of OCTETS, which are sent behind them on channel 1. It goes on until the broker ends or
answers everything, and is then closed.
"""

import socket
import struct

import protocol
import wire
from link import FLOW, FRAME_MAX, HEAD, WAIT, Wait, frame

PUBLISH = protocol.method('basic.publish', {'routing_key': 'nobody'})
DECLARE = protocol.method('queue.declare', {'queue': 'q1', 'exclusive': True})


def published(*frames):
    """A publish on channel 1 and what comes after it."""
    return frame(1, 1, PUBLISH) + b''.join(frames)


def header(size, **how):
    return wire.content_header(1, size, **how)


# What is wrong with it, or not: the octets.
OCTETS = {
    'another end octet': frame(1, 1, FLOW)[:-1] + b'\0',
    'unknown frame type': frame(7, 1, b'x'),
    'heartbeat': frame(8, 0, b''),
    'heartbeat on a channel': frame(8, 1, b''),
    'heartbeat with a payload': frame(8, 0, b'x'),
    'header without a method': header(0),
    'body without a method': frame(3, 1, b'x'),
    'method for a header': published(frame(1, 1, FLOW)),
    'body for a header': published(frame(3, 1, b'x')),
    'header of another class': published(header(0, class_id=50)),
    'method for a body': published(header(5), frame(1, 1, FLOW)),
    'header for a body': published(header(5), header(5)),
    'body too long': published(header(2), frame(3, 1, b'abc')),
    'body in pieces': published(header(2), *[frame(3, 1, piece) for piece in (b'', b'a', b'', b'b')]),
    'weight': published(header(0, weight=1)),
    'properties cut off': published(header(0, flags=0x8000, properties=b'\x05ab')),
    'frame as long as may be': published(header(FRAME_MAX - 8), frame(3, 1, bytes(FRAME_MAX - 8))),
    'frame too long': published(header(FRAME_MAX + 1), HEAD.pack(3, 1, FRAME_MAX + 1)),
    'arguments cut off': frame(1, 1, DECLARE[:-6]),
    'table too long': frame(1, 1, DECLARE[:-4] + struct.pack('>I', 100)),
    'table of nonsense': frame(1, 1, DECLARE[:-4] + struct.pack('>I', 3) + b'\x01a?'),
    'connection.open again': wire.open_vhost('/'),
    'tune-ok again': wire.tune_ok(),
    'start-ok again': wire.start_ok(),
    'queue.declare on channel 0': frame(1, 0, DECLARE),
    'connection.close on a channel': frame(1, 1, protocol.method('connection.close', {'reply_code': 200})),
    'connection.open-ok': frame(1, 0, protocol.method('connection.open-ok', {})),
    'update-secret': frame(1, 0, protocol.method('connection.update-secret', {'new_secret': 'guest', 'reason': 'r'})),
}


def of(lane, fields):
    trial = Trial(lane)
    try:
        yield from trial.converse(fields)
    finally:
        trial.close()
    return trial.lines


class Trial:
    def __init__(self, lane):
        self.lane = lane
        self.lines = []
        self.data = b''
        self.eof = False
        self.socket = socket.create_connection((lane.broker.host, lane.broker.port), WAIT)
        lane.register(self)

    def close(self):
        self.lane.unregister(self)
        self.socket.close()

    def on_readable(self):
        try:
            piece = self.socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b''
        self.data += piece
        if not piece and not self.eof:
            self.eof = True
            self.lane.poll.ignore(self)

    def send(self, octets):
        try:
            self.socket.sendall(octets)
        except OSError:
            pass                # what the broker said before is still to be read

    def is_whole(self):
        return len(self.data) >= 8 and (self.data[:4] == b'AMQP' or len(self.data) >= 8 + HEAD.unpack_from(self.data)[2])

    def answer(self):
        """The next method's name, written down; None at the end."""
        while True:
            answered = yield Wait(lambda: self.is_whole() or self.eof, WAIT)
            if not self.is_whole() or self.data[:4] == b'AMQP':
                self.lines.append('C0 ' + ('%r, and ' % self.data if self.data else '') + ('the end' if answered else 'silence'))
                return None
            kind, number, size = HEAD.unpack_from(self.data)
            payload, self.data = self.data[7:7 + size], self.data[8 + size:]
            if kind != 8:
                break
        if kind != 1:
            self.lines.append('C%d a frame of type %d' % (number, kind))
            return 'something'
        name, fields = protocol.fields(payload)
        if name == 'connection.start':      # who the broker is
            del fields['server_properties']
            fields['mechanisms'] = sorted(fields['mechanisms'].split())
        self.lines.append(self.lane.line('C%d' % number, name, fields, None))
        return name

    def converse(self, fields):
        self.send(fields['header'].encode('latin-1'))
        if (yield from self.answer()) != 'connection.start':
            return
        self.send(wire.start_ok(mechanism=fields.get('mechanism', ''), response=fields.get('response', '').encode('latin-1'),
                                capabilities={'authentication_failure_close': fields.get('is_told', False)}))
        if (yield from self.answer()) != 'connection.tune':
            return
        self.send(wire.tune_ok(fields.get('channel_max', 0), fields.get('frame_max', 0), fields.get('heartbeat', 0)) +
                  wire.open_vhost(fields.get('vhost', self.lane.vhost)))
        if (yield from self.answer()) != 'connection.open-ok':
            return
        for number in fields.get('channels', ()):
            self.send(wire.channel_open(number))
            if (yield from self.answer()) != 'channel.open-ok':
                return
        if 'octets' in fields:
            self.send(OCTETS[fields['octets']] + frame(1, 1, FLOW))
            name = ''
            while name != 'channel.flow-ok':
                name = yield from self.answer()
                if name in (None, 'channel.close', 'connection.close', 'connection.close-ok'):
                    return
        self.send(frame(1, 0, protocol.method('connection.close', {'reply_code': 200})))
        yield from self.answer()
