#!/usr/bin/python3
"""x-delayed-message with a real client and a real clock (7.2): in time, over an end of the broker, and out of sight."""

import time
import unittest

import pika

import broker
import tap


@broker.departs('the type is a plugin there')
class Delayed(unittest.TestCase):
    def setUp(self):
        self.broker = broker.Broker().start()
        self.addCleanup(self.broker.__exit__, None, None, None)
        self.open()
        self.channel.exchange_declare('later', 'x-delayed-message', durable=True,
                                      arguments={'x-delayed-type': 'topic'})
        self.channel.queue_declare('q', durable=True)
        self.channel.queue_bind('q', 'later', 'key.#')

    def open(self):
        self.channel = pika.BlockingConnection(self.broker.parameters()).channel()
        self.channel.confirm_delivery()

    def publish(self, body, delay_ms):
        """Returns the moment before, which is never later than its arrival."""
        began = time.monotonic()
        self.channel.basic_publish('later', 'key.one', body, mandatory=True, properties=pika.BasicProperties(
            headers={'x-delay': delay_ms}, delivery_mode=2))
        return began

    def consume(self, count):
        """So many deliveries: body, header and moment of each."""
        got = []
        for method, properties, body in self.channel.consume('q', auto_ack=True, inactivity_timeout=20):
            self.assertIsNotNone(method, 'only %d of %d came' % (len(got), count))
            got.append((body.decode(), properties.headers['x-delay'], time.monotonic()))
            if len(got) == count:
                self.channel.cancel()
                return got

    def test_7_2_in_time(self):
        for how in (None, 'SIGTERM', 'SIGKILL'):
            with self.subTest(ended_by=how):
                began = self.publish('late', 1600)
                self.publish('early', 800)
                self.publish('far', 2 ** 32 + 1)
                if how:
                    self.broker.kill() if how == 'SIGKILL' else self.broker.stop()
                    self.broker.start()
                    self.open()
                early, late = self.consume(2)
                self.assertEqual((early[:2], late[:2]), (('early', -800), ('late', -1600)))
                self.assertGreaterEqual(late[2] - began, 1.59)
                if not how:
                    self.assertLess(early[2] - began, 1.5)
                self.assertEqual(self.channel.queue_declare('q', passive=True).method.message_count, 0)

    def test_7_2_out_of_sight(self):
        self.publish('m', 60000)
        self.assertEqual(self.broker.rows('list_queues', 'name', 'messages'), [['q', '0']])
        self.assertIn(['later', 'x-delayed-message'], self.broker.rows('list_exchanges', 'name', 'type'))


if __name__ == '__main__':
    tap.main()
