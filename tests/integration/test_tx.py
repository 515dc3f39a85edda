#!/usr/bin/python3
"""The tx class: what is published and settled between commits happens at the commit, or not at all."""

import struct

import broker
import tap
import wire
from client import PERSISTENT, ClientTest


class Tx(ClientTest):
    def test_9_14_on_a_confirm_channel_is_406(self):
        self.channel.confirm_delivery()
        self.refused(406, 'cannot switch from confirm to tx mode', self.channel.tx_select)

    def test_9_14_without_select_is_406(self):
        for act in ('tx_commit', 'tx_rollback'):
            with self.subTest(act=act):
                self.refused(406, 'channel is not transactional', self.raw_tx, act)

    def raw_tx(self, act):
        channel = self.connection.channel()
        channel._tx_mode = True
        getattr(channel, act)()

    def test_9_15_publishes_wait_for_the_commit(self):
        queue = self.queue(durable=True)
        self.channel.tx_select()
        self.publish(queue, 'a', 'b', properties=PERSISTENT)
        self.assertEqual(self.count(queue), 0)
        self.channel.tx_commit()
        self.assertEqual(self.count(queue), 2)
        self.assertEqual(self.get_all(queue, self.connection.channel()), ['a', 'b'])

    @broker.departs('it routes at the publish')
    def test_9_15_routing_is_done_at_the_commit(self):
        """What a transaction does happens at one moment."""
        queue = self.queue()
        self.channel.tx_select()
        self.channel.basic_publish('amq.direct', queue, 'm')
        self.channel.queue_bind(queue, 'amq.direct', queue)
        self.channel.tx_commit()
        self.assertEqual(self.count(queue), 1)

    def test_9_15_an_exchange_that_has_gone_leads_nowhere(self):
        """Whoever deletes it does not undo the transaction of another."""
        queue, returned = self.queue(), []
        self.channel.exchange_declare('gone')
        self.channel.add_on_return_callback(lambda *got: returned.append(got[3]))
        self.channel.tx_select()
        self.channel.basic_publish('', queue, 'kept')
        self.channel.basic_publish('gone', 'key', 'dropped')
        self.channel.basic_publish('gone', 'key', 'returned', mandatory=True)
        other = self.connection.channel()
        other.exchange_delete('gone')
        self.channel.tx_commit()
        self.assertEqual(self.get_all(queue, other), ['kept'])
        self.connection.process_data_events(0)
        self.assertEqual(returned, [b'returned'])

    def test_9_15_recover_leaves_what_the_transaction_has_settled(self):
        queue = self.queue()
        self.publish(queue, *'abc')
        channel = self.connection.channel()
        channel.tx_select()
        for _ in range(3):
            channel.basic_get(queue)
        channel.basic_ack(2)
        channel.basic_recover(requeue=True)
        self.assertEqual(self.count(queue), 2)
        channel.tx_commit()
        channel.close()
        self.assertEqual(self.get_all(queue), ['a', 'c'])

    def test_9_15_acks_wait_for_the_commit(self):
        queue = self.queue()
        self.publish(queue, *'abcd')
        channel = self.connection.channel()
        channel.tx_select()
        for _ in range(4):
            channel.basic_get(queue)
        channel.basic_ack(1)
        channel.tx_commit()
        channel.basic_ack(2)
        channel.basic_nack(3, requeue=True)
        channel.basic_reject(4, requeue=False)
        self.assertEqual(self.count(queue), 0)
        channel.close()
        self.expect_count(queue, 3)
        self.assertEqual(self.get_all(queue), ['b', 'c', 'd'])

    def test_9_15_rejects_at_the_commit(self):
        queue = self.queue()
        self.publish(queue, *'ab')
        self.channel.tx_select()
        for _ in range(2):
            self.channel.basic_get(queue)
        self.channel.basic_reject(1, requeue=True)
        self.channel.basic_reject(2, requeue=False)
        self.assertEqual(self.count(queue), 0)
        self.channel.tx_commit()
        self.expect_count(queue, 1)
        self.channel.close()
        self.assertEqual(self.get_all(queue, self.connection.channel()), ['a'])

    def test_9_15_returns_come_before_commit_ok(self):
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.method(1, (90, 10)))
            raw.expect((90, 11))
            raw.send(wire.publish_method(1, '', 'nobody', mandatory=True), wire.content_header(1, 0),
                     wire.method(1, (90, 20)))
            self.assertEqual(struct.unpack_from('>H', raw.expect(wire.RETURN).arguments)[0], 312)
            raw.read_body()
            raw.expect((90, 21))

    def test_9_17_rollback_drops_publishes(self):
        queue = self.queue()
        self.channel.tx_select()
        self.publish(queue, 'a', 'b')
        self.channel.tx_rollback()
        self.channel.tx_commit()
        self.assertEqual(self.count(queue), 0)

    def test_9_17_rollback_forgets_acks(self):
        queue = self.queue()
        self.publish(queue, 'a')
        channel = self.connection.channel()
        channel.tx_select()
        channel.basic_get(queue)
        channel.basic_ack(1)
        channel.tx_rollback()
        self.assertEqual(self.count(queue), 0)
        channel.basic_ack(1)
        channel.tx_commit()
        channel.close()
        self.assertEqual(self.count(queue), 0)

    def test_6_5_closing_the_channel_is_a_rollback(self):
        queue = self.queue()
        channel = self.connection.channel()
        channel.tx_select()
        channel.basic_publish('', queue, 'm')
        channel.close()
        self.assertEqual(self.count(queue), 0)

    def test_many_queues_in_one_commit(self):
        queues = [self.queue(suffix=str(number), durable=True) for number in range(20)]
        self.channel.tx_select()
        for number in range(200):
            self.publish(queues[number % 20], str(number), properties=PERSISTENT)
        self.channel.tx_commit()
        for number, queue in enumerate(queues):
            self.assertEqual(self.get_all(queue, self.connection.channel()), [str(number + 20 * k) for k in range(10)])


if __name__ == '__main__':
    tap.main()
