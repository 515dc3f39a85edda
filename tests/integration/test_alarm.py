#!/usr/bin/python3
"""Memory and disk alarms of a real process, with limits that any process is beyond (4.6), and the limits of a node (17.7)."""

import json
import os
import subprocess
import threading
import time
import unittest

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionBlockedTimeout, ConnectionClosedByBroker

import broker
import costs
import tap

LOW_ON_MEMORY = 'vm_memory_high_watermark.absolute=1kB'
LOW_ON_DISK = 'disk_free_limit.absolute=1000000TB'


@broker.needs_own_broker
class Alarm(unittest.TestCase):
    def start(self, *settings):
        self.broker = broker.Broker(settings).start()
        self.addCleanup(self.broker.__exit__, None, None, None)

    def connect(self, **settings):
        return pika.BlockingConnection(self.broker.parameters(**settings))

    def status(self):
        return json.loads(self.broker.ctl('--formatter', 'json', 'status'))

    def check_blocked(self, reason, alarms):
        """A publisher is blocked and told why; a consumer is not; operators see it."""
        reasons = []
        publisher = self.connect(blocked_connection_timeout=2)
        publisher.add_on_connection_blocked_callback(
            lambda _, frame: reasons.append(frame.method.reason))
        channel = publisher.channel()
        channel.queue_declare('q')
        channel.basic_publish('', 'q', 'm')
        publisher.process_data_events(0.2)
        self.assertEqual(reasons, [reason])
        consumer = self.connect().channel()
        self.assertEqual(consumer.queue_declare('q', passive=True).method.message_count, 0)
        self.assertEqual(sorted(state for state, in self.broker.rows('list_connections', 'state')),
                         ['blocked', 'blocking'])
        self.assertEqual(self.status()['alarms'], alarms)
        with self.assertRaises(ConnectionBlockedTimeout):
            publisher.process_data_events(10)

    def test_4_6_2_memory(self):
        self.start(LOW_ON_MEMORY)
        self.check_blocked('low on memory', ['memory'])
        self.assertIn('memory resource limit alarm set', self.broker.log())
        self.assertIn('Memory alarm on node', self.broker.ctl('status'))
        with self.assertRaises(subprocess.CalledProcessError) as raised:
            self.broker.ctl('check_local_alarms')
        self.assertEqual(raised.exception.returncode, 69)

    def test_4_6_2_disk(self):
        self.start(LOW_ON_DISK)
        self.check_blocked('low on disk', ['disk'])
        self.assertIn('disk resource limit alarm set', self.broker.log())

    def test_4_6_2_both(self):
        self.start(LOW_ON_MEMORY, LOW_ON_DISK)
        self.check_blocked('low on memory & disk', ['memory', 'disk'])

    @unittest.skipIf(broker.SANITIZED, 'under a sanitizer memory that is freed stays in use')
    def test_4_6_3_consumers_end_it(self):
        """A backlog raises the alarm, and draining it clears it: what is used counts, not what was."""
        limit = 150 * 1000 * 1000
        self.start('vm_memory_high_watermark.absolute=%d' % limit, 'message_memory_limit=1GB')
        self.assertEqual(self.status()['alarms'], [])
        events = []
        publisher = self.connect(blocked_connection_timeout=60)
        publisher.add_on_connection_blocked_callback(lambda *_: events.append('blocked'))
        publisher.add_on_connection_unblocked_callback(lambda *_: events.append('unblocked'))
        channel = publisher.channel()
        channel.queue_declare('q')
        deadline = time.monotonic() + 60

        def publish():
            """Until told of the alarm, which may come while a publish waits for a socket that nobody reads."""
            body = os.urandom(100 * 1000)
            while 'blocked' not in events and time.monotonic() < deadline:
                channel.basic_publish('', 'q', body)
                publisher.process_data_events(0)
            while 'unblocked' not in events and time.monotonic() < deadline:
                publisher.process_data_events(0.1)

        thread = threading.Thread(target=publish)
        thread.start()
        self.addCleanup(thread.join)
        while self.broker.rows('list_connections', 'state') != [['blocked']]:
            self.assertLess(time.monotonic(), deadline)
        consumer = self.connect().channel()
        while thread.is_alive():
            self.assertLess(time.monotonic(), deadline)
            consumer.queue_purge('q')
            thread.join(0.1)
        self.assertEqual(events, ['blocked', 'unblocked'])
        channel.queue_declare('q', passive=True)
        publisher.close()

    def test_4_6_1_can_be_turned_off(self):
        self.start('vm_memory_high_watermark.relative=1.0', 'disk_free_limit.absolute=0')
        self.assertEqual(self.status()['alarms'], [])
        self.assertEqual(self.status()['disk_free_limit'], 0)

    def test_17_7_what_is_not_acknowledged_is_limited(self):
        """A backlog on disk, and a consumer who would have it all in memory."""
        self.start('unacked_memory_limit=8MiB', 'output_memory_limit=64KiB', 'message_memory_limit=1MiB')
        connection = self.connect()
        channel = connection.channel()
        channel.queue_declare('q', durable=True)
        channel.confirm_delivery()
        for number in range(32):
            channel.basic_publish('', 'q', bytes([number]) * 1000 * 1000, pika.BasicProperties(delivery_mode=2))
        before, tags, bodies = costs.anonymous_octets(self.broker.process.pid), [], []

        def take(_, method, __, body):
            tags.append(method.delivery_tag)
            bodies.append(body[0])

        channel.basic_consume('q', take)
        deadline = time.monotonic() + 60
        while len(bodies) < 32:
            self.assertLess(time.monotonic(), deadline)
            connection.process_data_events(0.1)
            if len(tags) == 9:
                self.broker.await_log('and is given no more until it does: the maximum is 8388608 (unacked_memory_limit)')
                self.assertEqual(self.broker.rows('list_queues', 'messages_unacknowledged'), [['9']])
                self.assertLess(costs.anonymous_octets(self.broker.process.pid) - before, 20 << 20)
                channel.basic_ack(tags.pop(), multiple=True)
                tags.clear()
        self.assertEqual(bodies, list(range(32)))

    def test_17_7_limits(self):
        self.start('channel_max_per_node=2', 'cluster_queue_limit=1', 'cluster_exchange_limit=8')
        connection = self.connect()
        channel = connection.channel()
        channel.queue_declare('one')
        channel.queue_declare('one')
        channel.exchange_declare('eighth')
        for declare, text in (
                (channel.queue_declare, "PRECONDITION_FAILED - cannot declare queue 'two': queue limit in cluster (1) "
                                        "is reached"),
                (None, "PRECONDITION_FAILED - cannot declare exchange 'two' in vhost '/': exchange limit of 8 is "
                       "reached")):
            with self.assertRaises(ChannelClosedByBroker) as caught:
                (declare or channel.exchange_declare)('two')
            self.assertEqual((caught.exception.reply_code, caught.exception.reply_text), (406, text))
            channel = connection.channel()
        connection.channel()
        with self.assertRaises(ConnectionClosedByBroker) as caught:
            connection.channel()
        self.assertEqual(caught.exception.reply_code, 530)
        self.assertRegex(caught.exception.reply_text, "^NOT_ALLOWED - number of channels opened on node 'stoatmq@.*' "
                                                      'has reached the maximum allowed limit of 2$')


if __name__ == '__main__':
    tap.main()
