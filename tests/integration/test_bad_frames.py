#!/usr/bin/python3
"""Bytes that no honest client sends: each gets its reply, the socket ends in bounded time, the broker goes on.

After connection.close the broker waits for close-ok, or some seconds; it may also end at once. So a test reads until
connection.close and answers it as a real client would; that all the sockets ended is asked once, after all tests, so
that the broker's waits overlap.
"""

import contextlib
import random
import struct

import pika

import broker
import tap
import wire
from client import ClientTest

END_WITHIN = 6

FRAME_ERROR, SYNTAX_ERROR, COMMAND_INVALID, CHANNEL_ERROR, UNEXPECTED_FRAME = 501, 502, 503, 504, 505


def bare_frame(kind, channel, payload, size=None, end=0xCE):
    """A frame whose size and end octet may be wrong."""
    return struct.pack('>BHI', kind, channel, len(payload) if size is None else size) + payload + bytes([end])


def declare_with_table(table):
    return wire.method(1, wire.QUEUE_DECLARE, b'\0\0' + wire.short('bad') + b'\0' + table)


PUBLISH = wire.publish_method(1, '', 'nobody')
HEADER_OF_4 = wire.content_header(1, 4)

# Older RabbitMQ brokers end some of these without a word, or with another one of the connection errors.
ANY = (FRAME_ERROR, SYNTAX_ERROR, COMMAND_INVALID, UNEXPECTED_FRAME, 541, None)

# name, what is sent on a connection whose channel 1 is open, reply code, part of the text, codes of the reference
AFTER_OPEN = (
    ('2.3 payload over the limit', bare_frame(wire.METHOD, 1, b'x' * 100, size=131073), FRAME_ERROR, '', ANY),
    ('2.3 size of 4 GiB', bare_frame(wire.METHOD, 1, b'x' * 100, size=0xffffffff), FRAME_ERROR, '', ANY),
    ('2.3 end octet', bare_frame(wire.HEARTBEAT, 0, b'', end=0), FRAME_ERROR, '', ANY),
    ('2.3 end octet of a body', PUBLISH + HEADER_OF_4 + bare_frame(wire.BODY, 1, b'abcd', end=0xCD), FRAME_ERROR, '',
     ANY),
    ('2.3 unknown frame type', bare_frame(7, 1, b'1234'), FRAME_ERROR, '', ANY),
    ('2.3 frame type 0', bare_frame(0, 0, b''), FRAME_ERROR, '', ANY),
    ('2.3 heartbeat with payload', bare_frame(wire.HEARTBEAT, 0, b'x'), FRAME_ERROR, '', ANY),
    ('2.3 heartbeat on a channel', bare_frame(wire.HEARTBEAT, 1, b''), UNEXPECTED_FRAME, '', ANY),
    ('2.3 header when a method is due', HEADER_OF_4, UNEXPECTED_FRAME,
     'expected method frame, got non method frame instead', None),
    ('2.3 body when a method is due', wire.frame(wire.BODY, 1, b'abcd'), UNEXPECTED_FRAME,
     'expected method frame, got non method frame instead', None),
    ('2.3 method when a header is due', PUBLISH + wire.get(1, 'q'), UNEXPECTED_FRAME,
     'expected content header for class 60, got non content header frame instead', None),
    ('2.3 body when a header is due', PUBLISH + wire.frame(wire.BODY, 1, b'abcd'), UNEXPECTED_FRAME,
     'expected content header for class 60, got non content header frame instead', None),
    ('2.3 header of another class', PUBLISH + wire.content_header(1, 4, class_id=50), UNEXPECTED_FRAME,
     'expected content header for class 60, got one for class 50 instead', None),
    ('2.3 second header when a body is due', PUBLISH + HEADER_OF_4 + HEADER_OF_4, UNEXPECTED_FRAME,
     'expected content body, got non content body frame instead', None),
    ('2.3 method when a body is due', PUBLISH + HEADER_OF_4 + wire.get(1, 'q'), UNEXPECTED_FRAME,
     'expected content body, got non content body frame instead', None),
    ('2.3 body longer than declared', PUBLISH + HEADER_OF_4 + wire.frame(wire.BODY, 1, b'abcde'), FRAME_ERROR,
     'content body frame exceeds remaining content size', ANY),
    ('2.3 body larger than any', PUBLISH + wire.content_header(1, 536870913), FRAME_ERROR,
     'content body size 536870913 exceeds maximum allowed size 536870912', ()),
    ('2.3 body of 2^64-1 octets', PUBLISH + wire.content_header(1, 0xffffffffffffffff), FRAME_ERROR,
     'content body size', ()),
    ('2.3 weight', PUBLISH + wire.content_header(1, 4, weight=1), FRAME_ERROR, '', ANY),
    ('2.3 property list that ends early', PUBLISH + wire.content_header(1, 4, flags=0x8000), FRAME_ERROR, '', ANY),
    ('2.3 property string longer than the frame', PUBLISH + wire.content_header(1, 4, 0x8000, b'\xffabc'),
     FRAME_ERROR, '', ANY),
    ('2.3 header shorter than its fields', PUBLISH + wire.frame(wire.HEADER, 1, b'\0\x3c\0\0'), FRAME_ERROR, '', ANY),
    ('2.3 property flags that never end', PUBLISH + wire.content_header(1, 4, 0x0001, b'\0\1' * 50), FRAME_ERROR, '',
     ANY),
    ('2.3 headers table longer than the frame', PUBLISH + wire.content_header(1, 4, 0x2000, b'\0\1\0\0abc'),
     FRAME_ERROR, '', ANY),
    ('2.3 empty method frame', wire.frame(wire.METHOD, 1, b''), FRAME_ERROR, '', ANY),
    ('2.3 method frame of two octets', wire.frame(wire.METHOD, 1, b'\0\x32'), FRAME_ERROR, '', ANY),
    ('2.3 method without its fields', wire.method(1, wire.QUEUE_DECLARE), FRAME_ERROR, '', ANY),
    ('2.3 short string past the end', wire.method(1, wire.QUEUE_DECLARE, b'\0\0\xffabc'), FRAME_ERROR, '', ANY),
    ('2.3 table past the end', declare_with_table(b'\0\0\0\x10\x01k'), FRAME_ERROR, '', ANY),
    ('2.3 table with an unknown tag', declare_with_table(wire.long(wire.short('k') + b'?abcd')), FRAME_ERROR, '', ANY),
    ('2.3 table string past the table', declare_with_table(wire.long(wire.short('k') + b'S\0\0\0\xffab')),
     FRAME_ERROR, '', ANY),
    ('2.3 table key without a value', declare_with_table(wire.long(wire.short('k'))), FRAME_ERROR, '', ANY),
    ('2.3 array past its table', declare_with_table(wire.long(wire.short('k') + b'A\0\0\1\0t\1')), FRAME_ERROR, '', ANY),
    ('2.3 unknown class', wire.method(1, (99, 10)), COMMAND_INVALID, '', ANY),
    ('2.3 unknown method', wire.method(1, (50, 99)), COMMAND_INVALID, '', ANY),
    ('2.3 method that only a server sends', wire.method(1, wire.DELIVER, wire.short('t') + b'\0' * 9 + wire.short('')
                                                        + wire.short('')), COMMAND_INVALID, '', ANY),
    ('2.3 declare-ok from a client', wire.method(1, wire.QUEUE_DECLARE_OK, wire.short('q') + b'\0' * 8),
     COMMAND_INVALID, '', ANY),
    ('4.4.4 start-ok again', wire.start_ok(), CHANNEL_ERROR, '', ANY + (CHANNEL_ERROR,)),
    ('4.4.4 open again', wire.open_vhost(), CHANNEL_ERROR, '', ANY + (CHANNEL_ERROR,)),
    ('4.4.4 basic method on channel 0', wire.get(0, 'q'), None, '', ANY + (CHANNEL_ERROR,)),
    ('4.4.4 connection method on a channel', wire.method(1, wire.TUNE_OK, b'\0' * 8), None, '', ANY + (CHANNEL_ERROR,)),
    ('6.2 channel never opened', wire.get(7, 'q'), CHANNEL_ERROR, "expected 'channel.open'", None),
    ('6.2 channel 65535', wire.get(65535, 'q'), CHANNEL_ERROR, "expected 'channel.open'", None),
    ('6.2 open twice', wire.channel_open(1), CHANNEL_ERROR, "second 'channel.open' seen", None),
)

# name, what is sent instead of the right protocol header, what must come back before the end
HEADERS = (
    ('garbage', b'\x00\x01\x02\x03\x04\x05\x06\x07', True),
    ('0-8', b'AMQP\x01\x01\x08\x00', True),
    ('1.0', b'AMQP\x00\x01\x00\x00', True),
    ('0-9-2', b'AMQP\x00\x00\x09\x02', True),
    ('an HTTP client', b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n', True),
    ('a TLS client', b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(64), True),
    ('seven octets and the end', b'AMQP\x00\x00\x09', False),
)

# name, what is sent after connection.start, the allowed reply codes; None is an end without a word
BEFORE_OPEN = (
    ('1.5 frame above the limit', bare_frame(wire.METHOD, 0, b'x' * 100, size=20000), FRAME_ERROR),
    ('2.3 method on a channel', wire.channel_open(1), UNEXPECTED_FRAME),
    ('4.4.4 tune-ok before start-ok', wire.tune_ok(), CHANNEL_ERROR),
    ('4.4.4 open before start-ok', wire.open_vhost(), CHANNEL_ERROR),
    ('2.3 start-ok without its fields', wire.method(0, wire.START_OK), FRAME_ERROR),
    ('2.3 start-ok with a broken table', wire.method(0, wire.START_OK, b'\0\0\xff\xff' + b'x' * 20), FRAME_ERROR),
    ('2.3 body frame', wire.frame(wire.BODY, 0, b'x'), None),
    ('2.3 end octet', bare_frame(wire.METHOD, 0, b'\0\x0a\0\x0b', end=1), FRAME_ERROR),
)


class BadFrames(ClientTest):
    @contextlib.contextmanager
    def raw(self):
        connection = wire.Wire(self.broker.host, self.broker.port)
        try:
            yield connection
        finally:
            connection.socket.close()

    def reply(self, connection):
        """(code, text) of the connection.close that must come, None when the socket ends without one."""
        try:
            while True:
                kind, _, payload = connection.read_frame(END_WITHIN)
                if kind == wire.METHOD and struct.unpack_from('>HH', payload) == wire.CLOSE:
                    return wire.close_reason(payload[4:])[:2]
        except wire.Closed:
            return None
        except wire.Silent:
            if broker.REFERENCE:
                return None
            raise

    def check_end(self, connection, answer):
        """The socket ends: after close-ok, and without one not much later."""
        if broker.REFERENCE and not answer:
            return
        with contextlib.suppress(OSError):
            if answer:
                connection.send(wire.method(0, wire.CLOSE_OK))
        connection.read_end(END_WITHIN)

    def check_reply(self, reply, code, text, others):
        if broker.REFERENCE and others is not None:
            self.assertIn(reply and reply[0], others or ANY + (406,), reply)
            return
        self.assertIsNotNone(reply, 'the socket ended without a reply')
        if code is not None:
            self.assertEqual(reply[0], code, reply)
        self.assertIn(text, reply[1])

    def check_still_serving(self):
        queue = self.channel.queue_declare('', exclusive=True).method.queue
        self.publish(queue, 'm')
        self.assertEqual(self.get_all(queue), ['m'])

    def test_1_2_protocol_headers(self):
        for name, sent, answered in HEADERS:
            if broker.REFERENCE and name == '0-8':
                continue
            with self.subTest(name), self.raw() as connection:
                connection.send(sent)
                if not answered:
                    connection.socket.shutdown(1)
                received = connection.read_end(END_WITHIN)
                self.assertEqual(received, wire.PROTOCOL_HEADER if answered else b'')
        self.check_still_serving()

    def test_1_2_header_of_0_9_is_served(self):
        with self.raw() as connection:
            connection.send(b'AMQP\x01\x01\x00\x09')
            self.assertEqual(connection.expect(wire.START).arguments[:2], b'\0\x09')

    def test_before_open(self):  # 1.5, 2.3, CVE-2026-57220
        for name, sent, code in BEFORE_OPEN:
            with self.subTest(name), self.raw() as connection:
                connection.send(wire.PROTOCOL_HEADER)
                connection.expect(wire.START)
                connection.send(sent)
                if broker.REFERENCE:
                    continue
                reply = self.reply(connection)
                self.check_reply(reply, code, '', None)
                self.check_end(connection, bool(reply))
        self.check_still_serving()

    @broker.departs('waits for a close-ok for longer')
    def test_2_3_socket_ends_without_close_ok(self):
        with self.raw() as connection:
            connection.handshake().open_channel()
            connection.send(bare_frame(7, 1, b'1234'))
            self.assertEqual(self.reply(connection)[0], FRAME_ERROR)
            self.check_end(connection, False)

    def test_2_5_broken_input_after_close_changes_nothing(self):
        with self.raw() as connection:
            connection.handshake().open_channel()
            connection.send(wire.get(7, 'q'), wire.get(7, 'q'), wire.channel_open(2), wire.get(2, 'q'))
            self.assertEqual(self.reply(connection)[0], CHANNEL_ERROR)
            connection.send(wire.channel_open(3))
            self.check_end(connection, True)
        self.check_still_serving()

    def test_cut_at_every_octet(self):
        """A whole conversation, cut off by RST or FIN after each octet."""
        conversation = (wire.PROTOCOL_HEADER + wire.start_ok() + wire.tune_ok() + wire.open_vhost() +
                        wire.channel_open(1) + wire.queue_declare(1, 'cut', exclusive=True) +
                        wire.publish(1, '', 'cut', b'body') + wire.consume(1, 'cut', 't'))
        for size in range(0, len(conversation), 7 if broker.SANITIZED or broker.REFERENCE else 1):
            connection = wire.Wire(self.broker.host, self.broker.port)
            connection.send(conversation[:size])
            if size % 2:
                connection.reset()
            else:
                connection.socket.close()
        self.check_still_serving()
        self.eventually(self.cut_is_free, 'the exclusive queue of a peer that vanished is still there')

    def cut_is_free(self):
        try:
            self.connection.channel().queue_declare('cut', passive=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            return error.reply_code == 404
        return False

    def test_random_octets(self):
        """Valid conversations with some octets changed: any reply, any end, but the broker goes on."""
        seed = random.randrange(1 << 32)
        print('# random octets from seed %d' % seed)
        source = random.Random(seed)
        conversation = (wire.channel_open(1) + wire.exchange_declare(1, 'amq.direct') +
                        wire.queue_declare(1, '', exclusive=True) + wire.queue_bind(1, '', 'amq.direct', 'k') +
                        wire.qos(1, 10) + wire.consume(1, '', 't') + wire.publish(1, '', 'nobody', b'body' * 50) +
                        wire.get(1, '') + wire.ack(1, 1) + wire.method(1, wire.CONFIRM_SELECT, b'\0'))
        for _ in range(30 if broker.REFERENCE else 150):
            changed = bytearray(conversation)
            for _ in range(source.randrange(1, 4)):
                changed[source.randrange(len(changed))] = source.randrange(256)
            with self.raw() as connection:
                connection.handshake()
                with contextlib.suppress(OSError):
                    connection.send(changed)
        self.check_still_serving()


to_end = []  # connections that the broker has to close, with what was sent on them


def check_all_ended():
    for name, connection in to_end:
        with connection:
            try:
                connection.read_end(END_WITHIN)
            except wire.Silent:
                if not broker.REFERENCE:
                    raise AssertionError('the socket is still open after: ' + name) from None


def add_tests_of(table):
    """A test for each row, so that each is named where it fails."""
    for name, sent, code, text, others in table:
        def test(self, name=name, sent=sent, code=code, text=text, others=others):
            if broker.REFERENCE and others == ():
                self.skipTest('not so in RabbitMQ: older ones have another limit')
            connection = wire.Wire(self.broker.host, self.broker.port)
            to_end.append((name, connection))
            connection.handshake().open_channel()
            connection.send(sent)
            self.check_reply(self.reply(connection), code, text, others)
            with contextlib.suppress(OSError):
                connection.send(wire.method(0, wire.CLOSE_OK))
            self.check_still_serving()
        setattr(BadFrames, 'test_' + name.replace('.', '_').replace(' ', '_'), test)


add_tests_of(AFTER_OPEN)
tap.at_end('every socket was closed by the broker', check_all_ended)

if __name__ == '__main__':
    tap.main()
