#!/usr/bin/python3
"""The channel class: opening, closing, what a closed channel takes with it, and 504 for what comes out of turn."""

import struct

import broker
import tap
import wire
from client import ClientTest


class Channel(ClientTest):
    def raw(self):
        connection = wire.Wire(self.broker.host, self.broker.port).handshake()
        self.addCleanup(connection.socket.close)
        return connection

    def closed_by(self, *frames):
        connection = self.raw()
        connection.send(*frames)
        while True:
            got = connection.read_method()
            if got.id == wire.CLOSE:
                return wire.close_reason(got.arguments)

    def test_6_2_method_on_a_channel_that_is_not_open_is_504(self):
        code, text, class_id, method_id = self.closed_by(wire.queue_declare(5, 'any'))
        self.assertEqual(code, 504)
        self.assertIn("expected 'channel.open'", text)
        self.assertEqual((class_id, method_id), wire.QUEUE_DECLARE)

    def test_6_2_second_open_is_504(self):
        code, text, _, _ = self.closed_by(wire.channel_open(1), wire.channel_open(1))
        self.assertEqual(code, 504)
        self.assertIn("second 'channel.open' seen", text)

    def test_6_2_method_after_close_is_504(self):
        close = wire.method(1, wire.CHANNEL_CLOSE, struct.pack('>H', 200) + wire.short('') + b'\0\0\0\0')
        connection = self.raw().open_channel()
        connection.send(close)
        connection.expect(wire.CHANNEL_CLOSE_OK)
        connection.send(wire.queue_declare(1, 'any'))
        self.assertEqual(wire.close_reason(connection.expect(wire.CLOSE).arguments)[0], 504)

    def test_6_1_any_number_within_the_range(self):
        for number in (2, 3, 1000, 2047):
            self.assertEqual(self.connection.channel(number).channel_number, number)

    def test_6_1_more_channels_than_negotiated_are_530(self):
        raw = wire.Wire(self.broker.host, self.broker.port).handshake(channel_max=3)
        self.addCleanup(raw.socket.close)
        raw.open_channel(1).open_channel(2).open_channel(3)
        raw.send(wire.channel_open(4))
        code, text, _, _ = wire.close_reason(raw.expect(wire.CLOSE).arguments)
        self.assertEqual(code, 530)
        self.assertIn('number of channels opened (3) has reached the negotiated channel_max (3)', text)

    def test_6_3_open_ok_carries_an_empty_long_string(self):
        connection = self.raw()
        connection.send(wire.channel_open(1))
        self.assertEqual(connection.expect(wire.CHANNEL_OPEN_OK).arguments, b'\0\0\0\0')

    def test_6_4_flow_active(self):
        connection = self.raw().open_channel()
        connection.send(wire.method(1, wire.FLOW, b'\1'))
        self.assertEqual(connection.expect((20, 21)).arguments, b'\1')

    def test_6_4_flow_inactive_is_540(self):
        code, text, _, _ = self.closed_by(wire.channel_open(1), wire.method(1, wire.FLOW, b'\0'))
        self.assertEqual(code, 540)
        self.assertIn('active=false', text)

    def test_6_5_close_requeues_unacked_and_cancels_consumers(self):
        queue = self.queue()
        self.publish(queue, 'one', 'two')
        channel = self.connection.channel()
        got, _ = self.consume(queue, channel)
        self.wait_for(got, 2)
        channel.close()
        declared = self.channel.queue_declare(queue, passive=True).method
        self.assertEqual((declared.message_count, declared.consumer_count), (2, 0))

    def test_6_5_exclusive_queues_outlive_the_channel(self):
        channel = self.connection.channel()
        queue = self.queue(channel, exclusive=True)
        channel.close()
        self.channel.queue_declare(queue, passive=True)

    def test_number_is_used_again_after_close(self):
        for _ in range(50):
            channel = self.connection.channel(7)
            channel.queue_declare('', exclusive=True)
            channel.close()

    def test_5_6_number_is_used_again_after_an_error(self):
        for _ in range(20):
            channel = self.connection.channel(7)
            self.refused(404, 'no queue', channel.queue_declare, 'absent', passive=True)

    def test_5_6_closed_channel_ignores_all_but_close(self):
        connection = self.raw().open_channel()
        queue = self.name()
        connection.send(wire.queue_declare(1, 'absent', passive=True), wire.queue_declare(1, queue),
                        wire.publish(1, '', queue, b'x'))
        code, _, class_id, method_id = wire.close_reason(connection.expect(wire.CHANNEL_CLOSE).arguments)
        self.assertEqual((code, class_id, method_id), (404, *wire.QUEUE_DECLARE))
        connection.send(wire.method(1, wire.CHANNEL_CLOSE, struct.pack('>H', 200) + wire.short('') + b'\0\0\0\0'))
        connection.expect(wire.CHANNEL_CLOSE_OK)
        connection.send(wire.method(1, wire.CHANNEL_CLOSE_OK), wire.channel_open(1))
        connection.expect(wire.CHANNEL_OPEN_OK)
        self.refused(404, 'no queue', self.channel.queue_declare, queue, passive=True)

    def test_error_of_one_channel_leaves_the_others(self):  # 5.3
        other = self.connection.channel()
        self.refused(404, 'no queue', self.channel.queue_declare, 'absent', passive=True)
        other.queue_declare('', exclusive=True)

    def test_channels_interleave_their_contents(self):  # 2.6
        connection = self.raw().open_channel(1).open_channel(2)
        one, two = self.queue(suffix='one'), self.queue(suffix='two')
        connection.send(wire.publish_method(1, '', one), wire.publish_method(2, '', two),
                        wire.content_header(2, 4), wire.content_header(1, 6), wire.frame(wire.BODY, 1, b'fir'),
                        wire.frame(wire.BODY, 2, b'seco'), wire.frame(wire.BODY, 1, b'stx'))
        self.expect_count(one, 1)
        self.expect_count(two, 1)
        self.assertEqual(self.get_all(one), ['firstx'])
        self.assertEqual(self.get_all(two), ['seco'])

    def test_access_request_is_answered(self):  # 18
        connection = self.raw().open_channel()
        connection.send(wire.method(1, (30, 10), wire.short('/data') + b'\x1f'))
        self.assertEqual(connection.expect((30, 11)).arguments, b'\0\1')


if __name__ == '__main__':
    tap.main()
