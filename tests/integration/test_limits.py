#!/usr/bin/python3
"""Length limits, with confirms and transactions, and consumers that take too long."""

import time

import pika
from pika.exceptions import NackError

import broker
import tap
from client import PERSISTENT, ClientTest, RestartTest


class Limits(ClientTest):
    def limited(self, suffix='it', **arguments):
        return self.queue(suffix=suffix, durable=True, arguments={'x-' + name.replace('_', '-'): value
                                                                  for name, value in arguments.items()})

    def test_11_5_drop_head(self):
        queue = self.limited(max_length=3)
        self.publish(queue, *'abcdef')
        self.assertEqual(self.get_all(queue), ['d', 'e', 'f'])

    def test_11_5_bytes(self):
        queue = self.limited(max_length_bytes=10)
        self.publish(queue, '12345', '67890', 'x')
        self.assertEqual(self.get_all(queue), ['67890', 'x'])

    def test_11_5_reject_publish_is_silent_without_confirms(self):
        queue = self.limited(max_length=2, overflow='reject-publish')
        self.publish(queue, *'abcd')
        self.assertEqual(self.get_all(queue), ['a', 'b'])

    def test_9_11_reject_publish_is_a_nack(self):
        for overflow in ('reject-publish', 'reject-publish-dlx'):
            with self.subTest(overflow=overflow):
                queue = self.limited(suffix=overflow, max_length=2, overflow=overflow)
                channel = self.connection.channel()
                channel.confirm_delivery()
                for body in 'ab':
                    channel.basic_publish('', queue, body, PERSISTENT)
                for _ in range(3):
                    with self.assertRaises(NackError):
                        channel.basic_publish('', queue, 'c', PERSISTENT)
                self.assertEqual(self.get_all(queue), ['a', 'b'])
                channel.basic_publish('', queue, 'd', PERSISTENT)

    @broker.departs('what was taken stays there')
    def test_9_16_a_transaction_is_refused_as_a_whole(self):
        queue = self.limited(max_length=2, overflow='reject-publish')
        other = self.queue(suffix='other')
        self.channel.tx_select()
        self.publish(other, 'm')
        self.publish(queue, *'abc')
        self.refused(406, 'partial tx completion', self.channel.tx_commit)
        self.channel = self.connection.channel()
        self.assertEqual((self.count(queue), self.count(other)), (0, 0))

    def test_11_5_with_a_consumer_nothing_is_too_much(self):
        queue = self.limited(max_length=1, overflow='reject-publish')
        channel = self.connect().channel()
        got, _ = self.consume(queue, channel, auto_ack=True)
        self.publish(queue, *'abcdefgh')
        self.assertEqual(self.wait_for(got, 8, channel.connection), list('abcdefgh'))

    @broker.departs('looks once a minute')
    def test_10_20_a_slow_consumer_is_cancelled(self):
        queue = self.limited(queue_type='quorum', consumer_timeout=500)
        self.publish(queue, 'm', properties=PERSISTENT)
        cancelled = []
        self.channel.add_on_cancel_callback(cancelled.append)
        got, tag = self.consume(queue)
        self.wait_for(got, 1)
        self.eventually(lambda: cancelled, 'not cancelled')
        self.assertEqual(cancelled[0].method.consumer_tag, tag)
        self.assertEqual(self.get_all(queue), ['m'])


@broker.needs_own_broker
class Restart(RestartTest):
    def test_11_5_the_limit_holds_for_what_was_there(self):
        for how in ('SIGTERM', 'SIGKILL'):
            with self.subTest(ended_by=how):
                self.channel.confirm_delivery()
                self.channel.queue_declare('q', durable=True, arguments={'x-max-length': 3})
                for body in 'abcd':
                    self.channel.basic_publish('', 'q', body, PERSISTENT)
                self.end_and_start(how)
                self.channel.confirm_delivery()
                for body in 'ef':
                    self.channel.basic_publish('', 'q', body, PERSISTENT)
                deadline = time.monotonic() + 5
                while self.channel.queue_declare('q', passive=True).method.message_count > 3:
                    self.assertLess(time.monotonic(), deadline)
                self.assertEqual([body for body, _, _ in self.drain('q')], ['d', 'e', 'f'])

    def test_12_quorum_queues_keep_every_message(self):
        for how in ('SIGTERM', 'SIGKILL'):
            with self.subTest(ended_by=how):
                self.channel.confirm_delivery()
                self.channel.queue_declare('q', durable=True, arguments={'x-queue-type': 'quorum'})
                for mode in (1, 2):
                    self.channel.basic_publish('', 'q', str(mode), pika.BasicProperties(delivery_mode=mode))
                self.end_and_start(how)
                self.assertEqual([body for body, _, _ in self.drain('q')], ['1', '2'])


if __name__ == '__main__':
    tap.main()
