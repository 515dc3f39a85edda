#!/usr/bin/python3
"""Time-to-live of messages and queues, by the clock on the wall; what can be tried with a clock of our own is in unit/test_expiry."""

import time
import unittest

import pika

import broker
import tap
from client import ClientTest, RestartTest


def expiring(milliseconds, **others):
    return pika.BasicProperties(expiration=str(milliseconds), **others)


class Ttl(ClientTest):
    def test_11_1_of_the_queue(self):
        queue = self.queue(arguments={'x-message-ttl': 300})
        self.publish(queue, 'a', 'b')
        self.assertEqual(self.count(queue), 2)
        self.expect_count(queue, 0)

    def test_11_1_of_the_message(self):
        queue = self.queue()
        self.publish(queue, 'stays')
        self.publish(queue, 'goes', properties=expiring(200))
        time.sleep(0.4)
        self.assertEqual(self.get_all(queue), ['stays'])

    def test_11_1_the_smaller_of_both(self):
        queue = self.queue(arguments={'x-message-ttl': 60000})
        self.publish(queue, 'm', properties=expiring(100))
        self.expect_count(queue, 0)

    def test_11_1_not_before_its_time(self):
        queue = self.queue(arguments={'x-message-ttl': 1000})
        started = time.monotonic()
        self.publish(queue, 'm')
        self.expect_count(queue, 0)
        self.assertGreater(time.monotonic() - started, 0.95)

    @broker.departs('expires at the head only')
    def test_11_2_wherever_it_stands(self):
        queue = self.queue()
        self.publish(queue, 'first')
        self.publish(queue, 'goes', properties=expiring(100))
        self.publish(queue, 'last')
        self.expect_count(queue, 2)
        self.assertEqual(self.get_all(queue), ['first', 'last'])

    def test_11_3_at_once_or_never(self):
        queue = self.queue(arguments={'x-message-ttl': 0})
        self.publish(queue, 'nobody is there')
        self.assertEqual(self.get_all(queue), [])
        got, _ = self.consume(queue, auto_ack=True)
        self.publish(queue, 'now somebody is')
        self.assertEqual(self.wait_for(got, 1), ['now somebody is'])

    def test_11_4_requeue_keeps_the_deadline(self):
        queue = self.queue(arguments={'x-message-ttl': 500})
        self.publish(queue, 'm')
        for _ in range(10):
            method, _, _ = self.channel.basic_get(queue)
            if method is None:
                break
            time.sleep(0.1)
            self.channel.basic_nack(method.delivery_tag, requeue=True)
        self.assertIsNone(method)

    def test_9_2_bad_expirations(self):
        for expiration in ('abc', '-1', '1.5', '', '315360000001', '99999999999999999999'):
            with self.subTest(expiration=expiration):
                self.channel = self.connection.channel()
                self.channel.basic_publish('', 'q', 'm', pika.BasicProperties(expiration=expiration))
                self.closed_with(406, 'invalid expiration')

    def test_8_14_an_unused_queue_goes(self):
        queue = self.queue(arguments={'x-expires': 300})
        time.sleep(0.6)
        self.refused(404, 'no queue', self.channel.queue_declare, queue, passive=True)

    def test_8_14_a_consumer_keeps_it(self):
        queue = self.queue(arguments={'x-expires': 300})
        _, tag = self.consume(queue)
        time.sleep(0.6)
        self.assertEqual(self.count(queue), 0)
        self.channel.basic_cancel(tag)
        time.sleep(0.6)
        self.refused(404, 'no queue', self.channel.queue_declare, queue, passive=True)


@broker.needs_own_broker
class Restart(RestartTest):
    def test_11_1_time_goes_on(self):
        for how in ('SIGTERM', 'SIGKILL'):
            for arguments in ({}, {'x-message-ttl': 60000}):
                with self.subTest(ended_by=how, arguments=arguments):
                    self.channel.confirm_delivery()
                    self.channel.queue_declare('q', durable=True, arguments=arguments)
                    self.channel.basic_publish('', 'q', 'soon', expiring(500, delivery_mode=2))
                    self.channel.basic_publish('', 'q', 'later', expiring(30000, delivery_mode=2))
                    self.end_and_start(how)
                    time.sleep(0.7)
                    self.assertEqual([body for body, _, _ in self.drain('q')], ['later'])
                    self.channel.queue_delete('q')

    @unittest.skipIf(broker.REFERENCE, 'expires at the head only')
    def test_11_2_behind_others(self):
        self.channel.queue_declare('q', durable=True)
        for number in range(3000):
            self.channel.basic_publish('', 'q', str(number),
                                       pika.BasicProperties(delivery_mode=2) if number % 3
                                       else expiring(1000, delivery_mode=2))
        self.channel.queue_declare('answered when all before it is on disk', durable=True)
        self.end_and_start('SIGKILL')
        deadline = time.monotonic() + 10
        while self.channel.queue_declare('q', passive=True).method.message_count != 2000:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)


if __name__ == '__main__':
    tap.main()
