#!/usr/bin/python3
"""The confirm class: every publish is acked once, whatever became of it, and the tx class is kept apart."""

import struct

from pika.exceptions import UnroutableError

import tap
import wire
from client import PERSISTENT, TRANSIENT, ClientTest


class Confirm(ClientTest):
    def test_9_9_select_twice_is_one(self):
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            for _ in range(2):
                raw.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'))
                raw.expect(wire.CONFIRM_SELECT_OK)
            raw.send(wire.publish(1, '', 'nobody', b''))
            self.assertEqual(self.confirmed(raw, 1), {1})

    def test_9_9_select_nowait_has_no_answer(self):
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.method(1, wire.CONFIRM_SELECT, b'\1'), wire.publish(1, '', 'nobody', b''))
            self.assertEqual(self.confirmed(raw, 1), {1})

    def confirmed(self, raw, count):
        """The numbers that are acked until there are so many; each at most once."""
        seen = set()
        while len(seen) < count:
            tag, multiple = struct.unpack('>QB', raw.expect(wire.ACK).arguments)
            tags = set(range(1, tag + 1)) - seen if multiple else {tag}
            self.assertFalse(tags & seen, 'confirmed twice: %s' % (tags & seen))
            seen |= tags
        return seen

    def test_9_9_numbers_start_at_select(self):
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.publish(1, '', 'nobody', b''), wire.method(1, wire.CONFIRM_SELECT, b'\0'))
            raw.expect(wire.CONFIRM_SELECT_OK)
            raw.send(wire.publish(1, '', 'nobody', b''), wire.publish(1, '', 'nobody', b''))
            self.assertEqual(self.confirmed(raw, 2), {1, 2})

    def test_9_10_each_kind_of_queue_and_message(self):
        self.channel.confirm_delivery()
        for durable in (False, True):
            for properties in (None, TRANSIENT, PERSISTENT):
                with self.subTest(durable=durable, properties=properties):
                    queue = self.queue(suffix=str(durable), durable=durable)
                    self.channel.basic_publish('', queue, 'm', properties)
                    self.assertEqual(self.get_all(queue), ['m'])

    def test_9_10_unroutable_is_acked(self):
        self.channel.confirm_delivery()
        self.channel.basic_publish('amq.fanout', '', 'nowhere', PERSISTENT)

    def test_9_10_unroutable_and_mandatory_is_returned_first(self):
        self.channel.confirm_delivery()
        with self.assertRaises(UnroutableError) as caught:
            self.channel.basic_publish('amq.fanout', '', 'back', PERSISTENT, mandatory=True)
        self.assertEqual(caught.exception.messages[0].body, b'back')

    def test_9_12_a_thousand_under_way(self):
        queues = [self.queue(suffix=str(number), durable=True) for number in range(3)]
        for queue in queues:
            self.channel.queue_bind(queue, 'amq.topic', 'many.#')
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.method(1, wire.CONFIRM_SELECT, b'\1'))
            raw.send(*(wire.publish(1, 'amq.topic', 'many.%d' % number, b'%d' % number, persistent=number % 2 == 0)
                       for number in range(1000)))
            self.assertEqual(self.confirmed(raw, 1000), set(range(1, 1001)))
        for queue in queues:
            self.assertEqual(self.count(queue), 1000)

    def test_9_10_delivered_and_acked_counts_as_well(self):
        queue = self.queue(durable=True)
        got, _ = self.consume(queue, self.connect().channel(), auto_ack=True)
        self.assertEqual(got, [])
        self.channel.confirm_delivery()
        for _ in range(10):
            self.channel.basic_publish('', queue, 'm', PERSISTENT)

    def test_8_12_deleting_the_queue_confirms(self):
        queue = self.queue(durable=True)
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            delete = wire.method(1, (50, 40), b'\0\0' + wire.short(queue) + b'\4')
            raw.send(wire.method(1, wire.CONFIRM_SELECT, b'\1'),
                     *(wire.publish(1, '', queue, b'm') for _ in range(50)), delete)
            self.assertEqual(self.confirmed(raw, 50), set(range(1, 51)))

    def test_9_9_in_a_tx_channel_is_406(self):
        self.channel.tx_select()
        self.refused(406, 'cannot switch from tx to confirm mode', self.channel.confirm_delivery)


if __name__ == '__main__':
    tap.main()
