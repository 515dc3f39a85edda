"""A small AMQP 0-9-1 client over a plain socket: whole frames in and out, nothing hidden.

It is for tests that must send what no client library would send, or more than one could: a frame is

    type(1) channel(2) size(4) payload(size) 0xCE

and what the broker sends is handed over as (type, channel, payload) or, for methods, as Method with the arguments
still packed. Every wait has a deadline; a broker that stays silent is a test that fails, not one that hangs.
"""

import collections
import functools
import socket
import struct
import time

PROTOCOL_HEADER = b'AMQP\x00\x00\x09\x01'
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b'\xce'
TIMEOUT = 10

START, START_OK, TUNE, TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
OPEN, OPEN_OK, CLOSE, CLOSE_OK = (10, 40), (10, 41), (10, 50), (10, 51)
CHANNEL_OPEN, CHANNEL_OPEN_OK, FLOW = (20, 10), (20, 11), (20, 20)
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = (20, 40), (20, 41)
EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK = (40, 10), (40, 11)
QUEUE_DECLARE, QUEUE_DECLARE_OK = (50, 10), (50, 11)
QUEUE_BIND, QUEUE_BIND_OK = (50, 20), (50, 21)
QOS, QOS_OK, CONSUME, CONSUME_OK = (60, 10), (60, 11), (60, 20), (60, 21)
PUBLISH, RETURN, DELIVER, GET, GET_OK, GET_EMPTY = (60, 40), (60, 50), (60, 60), (60, 70), (60, 71), (60, 72)
CANCEL, CANCEL_OK = (60, 30), (60, 31)
ACK, REJECT, NACK = (60, 80), (60, 90), (60, 120)
QUEUE_PURGE, QUEUE_PURGE_OK, QUEUE_DELETE, QUEUE_DELETE_OK = (50, 30), (50, 31), (50, 40), (50, 41)
TX_SELECT, TX_SELECT_OK, TX_COMMIT, TX_COMMIT_OK = (90, 10), (90, 11), (90, 20), (90, 21)
TX_ROLLBACK, TX_ROLLBACK_OK = (90, 30), (90, 31)
CONFIRM_SELECT, CONFIRM_SELECT_OK = (85, 10), (85, 11)

# Properties, by their flag; what stands before the message id: sizes of one octet, of four, or a plain octet.
MESSAGE_ID, DELIVERY_MODE, PRIORITY = 0x0080, 0x1000, 0x0800
BEFORE_MESSAGE_ID = ((0x8000, 1), (0x4000, 1), (0x2000, 4), (DELIVERY_MODE, 0), (PRIORITY, 0), (0x0400, 1), (0x0200, 1),
                     (0x0100, 1))

Method = collections.namedtuple('Method', 'channel id arguments')


class WireError(Exception):
    """The broker sent something else than what the test is about."""


class Closed(WireError):
    """The socket ended."""


class Silent(WireError):
    """Nothing came in time."""


def frame(kind, channel, payload):
    return struct.pack('>BHI', kind, channel, len(payload)) + payload + FRAME_END


def method(channel, method_id, arguments=b''):
    return frame(METHOD, channel, struct.pack('>HH', *method_id) + arguments)


def short(text):
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack('>B', len(text)) + text


def long(text):
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack('>I', len(text)) + text


def table(**fields):
    """A field table of strings, booleans, integers and tables."""
    packed = b''
    for key, value in fields.items():
        packed += short(key.replace('__', '.'))
        if isinstance(value, bool):
            packed += b't' + struct.pack('>B', value)
        elif isinstance(value, int):
            packed += b'l' + struct.pack('>q', value)
        elif isinstance(value, dict):
            packed += b'F' + table(**value)
        else:
            packed += b'S' + long(value)
    return long(packed)


def start_ok(user='guest', password='guest', mechanism='PLAIN', response=None, capabilities=None):
    if response is None:
        response = b'\0%s\0%s' % (user.encode(), password.encode())
    properties = table(product='raw', capabilities=capabilities or {})
    return method(0, START_OK, properties + short(mechanism) + long(response) + short('en_US'))


def tune_ok(channel_max=2047, frame_max=131072, heartbeat=0):
    return method(0, TUNE_OK, struct.pack('>HIH', channel_max, frame_max, heartbeat))


def open_vhost(vhost='/'):
    return method(0, OPEN, short(vhost) + short('') + b'\0')


def channel_open(channel):
    return method(channel, CHANNEL_OPEN, short(''))


def exchange_declare(channel, name, kind='direct', durable=True):
    return method(channel, EXCHANGE_DECLARE,
                  b'\0\0' + short(name) + short(kind) + struct.pack('>B', durable << 1) + table())


def queue_declare(channel, name, passive=False, durable=False, exclusive=False, **arguments):
    return method(channel, QUEUE_DECLARE,
                  b'\0\0' + short(name) + struct.pack('>B', passive | durable << 1 | exclusive << 2) + table(**arguments))


def queue_purge(channel, name):
    return method(channel, QUEUE_PURGE, b'\0\0' + short(name) + b'\0')


def queue_delete(channel, name):
    return method(channel, QUEUE_DELETE, b'\0\0' + short(name) + b'\0')


def queue_bind(channel, queue, exchange, key):
    return method(channel, QUEUE_BIND, b'\0\0' + short(queue) + short(exchange) + short(key) + b'\0' + table())


@functools.lru_cache(1000)
def publish_method(channel, exchange, key, mandatory=False, immediate=False):
    return method(channel, PUBLISH,
                  b'\0\0' + short(exchange) + short(key) + struct.pack('>B', mandatory | immediate << 1))


def content_header(channel, size, flags=0, properties=b'', class_id=60, weight=0):
    return frame(HEADER, channel, struct.pack('>HHQH', class_id, weight, size, flags) + properties)


def publish(channel, exchange, key, body, persistent=True, frame_max=131072, priority=None, message_id=None):
    """The frames of one message, as they go into one send."""
    flags = DELIVERY_MODE
    properties = b'\2' if persistent else b'\1'
    if priority is not None:
        flags |= PRIORITY
        properties += struct.pack('>B', priority)
    if message_id is not None:
        flags |= MESSAGE_ID
        properties += short(message_id)
    packed = publish_method(channel, exchange, key)
    packed += content_header(channel, len(body), flags, properties)
    piece = frame_max - 8
    for at in range(0, len(body), piece):
        packed += frame(BODY, channel, body[at:at + piece])
    return packed


def consume(channel, queue, tag='', no_ack=False):
    return method(channel, CONSUME, b'\0\0' + short(queue) + short(tag) + struct.pack('>B', no_ack << 1) + table())


def qos(channel, count):
    return method(channel, QOS, struct.pack('>IHB', 0, count, 0))


def get(channel, queue, no_ack=False):
    return method(channel, GET, b'\0\0' + short(queue) + struct.pack('>B', no_ack))


def ack(channel, tag, multiple=False):
    return method(channel, ACK, struct.pack('>QB', tag, multiple))


def nack(channel, tag, multiple=False, requeue=True):
    return method(channel, NACK, struct.pack('>QB', tag, multiple | requeue << 1))


def reject(channel, tag, requeue=False):
    return method(channel, REJECT, struct.pack('>QB', tag, requeue))


def cancel(channel, tag):
    return method(channel, CANCEL, short(tag) + b'\0')


def close_reason(arguments):
    """(code, text, class, method) of connection.close or channel.close."""
    code, size = struct.unpack_from('>HB', arguments)
    class_id, method_id = struct.unpack_from('>HH', arguments, 3 + size)
    return code, arguments[3:3 + size].decode(), class_id, method_id


def delivery(arguments):
    """(consumer tag, delivery tag, redelivered) of basic.deliver."""
    consumer_tag, at = read_short(arguments, 0)
    tag, redelivered = struct.unpack_from('>QB', arguments, at)
    return consumer_tag, tag, bool(redelivered & 1)


def read_message_id(properties):
    """The message id among the properties of a content header, or None."""
    flags, = struct.unpack_from('>H', properties)
    if not flags & MESSAGE_ID:
        return None
    at = 2
    for flag, size_octets in BEFORE_MESSAGE_ID:
        if flags & flag:
            at += size_octets + int.from_bytes(properties[at:at + size_octets], 'big') if size_octets else 1
    return properties[at + 1:at + 1 + properties[at]]


def read_short(data, at):
    size = data[at]
    return data[at + 1:at + 1 + size].decode(), at + 1 + size


class Wire:
    """One connection. Owns its socket; `input` is what has come and has not been taken yet."""

    def __init__(self, host, port, timeout=TIMEOUT):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout
        self.input = bytearray()
        self.taken = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.socket.close()

    def send(self, *frames):
        self.socket.sendall(b''.join(frames))

    def reset(self):
        """Ends the connection as a peer that vanishes: RST, nothing said."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.socket.close()

    # Reading

    def fill(self, deadline):
        """Waits for more input."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Silent('nothing came in time')
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(262144)
        except socket.timeout:
            raise Silent('nothing came in time') from None
        except ConnectionError as error:
            raise Closed(str(error)) from None
        finally:
            self.socket.settimeout(self.timeout)
        if not data:
            raise Closed('the broker closed the socket')
        self._take_in(data)

    def _take_in(self, data):
        if self.taken:
            del self.input[:self.taken]
            self.taken = 0
        self.input += data

    def read(self, size, deadline):
        while len(self.input) - self.taken < size:
            self.fill(deadline)
        data = bytes(self.input[self.taken:self.taken + size])
        self.taken += size
        return data

    def read_frame(self, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        kind, channel, size = struct.unpack('>BHI', self.read(7, deadline))
        payload = self.read(size + 1, deadline)
        if payload[-1:] != FRAME_END:
            raise WireError('a frame of the broker has no end octet')
        return kind, channel, payload[:-1]

    def poll(self):
        """Takes in what has already come, without waiting."""
        try:
            data = self.socket.recv(262144, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise Closed(str(error)) from None
        if not data:
            raise Closed('the broker closed the socket')
        self._take_in(data)

    def frames_at_hand(self):
        """The whole frames that have already been received."""
        while len(self.input) - self.taken >= 8:
            kind, channel, size = struct.unpack_from('>BHI', self.input, self.taken)
            if len(self.input) - self.taken < size + 8:
                return
            payload = bytes(self.input[self.taken + 7:self.taken + 7 + size])
            self.taken += size + 8
            yield kind, channel, payload

    def read_method(self, timeout=None):
        """The next method; heartbeats are passed over."""
        while True:
            kind, channel, payload = self.read_frame(timeout)
            if kind == HEARTBEAT:
                continue
            if kind != METHOD:
                raise WireError('frame of type %d where a method was due' % kind)
            return Method(channel, struct.unpack_from('>HH', payload), payload[4:])

    def expect(self, *method_ids):
        got = self.read_method()
        if got.id not in method_ids:
            text = close_reason(got.arguments) if got.id in (CLOSE, CHANNEL_CLOSE) else ''
            raise WireError('got method %s %s, expected %s' % (got.id, text, method_ids))
        return got

    def read_message(self, timeout=None):
        """The next method and, where it has content, the body; for connections with one channel in use."""
        got = self.read_method(timeout)
        body = self.read_body()[1] if got.id in (DELIVER, GET_OK, RETURN) else None
        return got, body

    def read_body(self):
        """Header and body frames of the content whose method was just read: (properties, body)."""
        kind, _, payload = self.read_frame()
        if kind != HEADER:
            raise WireError('no content header')
        size = struct.unpack_from('>Q', payload, 4)[0]
        body = b''
        while len(body) < size:
            kind, _, piece = self.read_frame()
            if kind != BODY:
                raise WireError('no content body')
            body += piece
        return payload[12:], body

    def read_end(self, timeout):
        """Everything up to the end of the socket, which must come in time."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                self.fill(deadline)
        except Closed:
            data = bytes(self.input[self.taken:])
            self.taken = len(self.input)
            return data

    # Conversations

    def handshake(self, vhost='/', capabilities=None, user='guest', password='guest', **tuning):
        self.send(PROTOCOL_HEADER)
        self.expect(START)
        self.send(start_ok(user, password, capabilities=capabilities))
        self.expect(TUNE)
        self.send(tune_ok(**tuning), open_vhost(vhost))
        self.expect(OPEN_OK)
        return self

    def open_channel(self, channel=1):
        self.send(channel_open(channel))
        self.expect(CHANNEL_OPEN_OK)
        return self

    def close(self):
        self.send(method(0, CLOSE, struct.pack('>H', 200) + short('') + b'\0\0\0\0'))
        while self.read_method().id != CLOSE_OK:
            pass
        self.socket.close()
