#!/usr/bin/python3
"""Queues on disk: a broker that may keep next to no message in memory behaves like any other. The rules in detail are in
unit/test_window and in the simulator, most of whose runs are short of memory."""

import itertools
import time

import pika

import broker
import tap
from client import RestartTest

COUNT = 2000


class Paging(RestartTest):
    fences = itertools.count(1)

    def setUp(self):
        self.broker = broker.Broker(settings=('message_memory_limit=0',)).start()
        self.addCleanup(self.broker.__exit__, None, None, None)
        self.channel = self.connect()

    def fill(self, queue, persistent=lambda number: True, **properties):
        for number in range(COUNT):
            self.channel.basic_publish('', queue, str(number), pika.BasicProperties(
                delivery_mode=2 if persistent(number) else 1, **properties))
        self.channel.queue_declare('fence %d' % next(self.fences), durable=True)  # answered when all that is on disk

    def bodies(self, queue):
        return [int(body) for body, _, _ in self.drain(queue)]

    def count(self, queue):
        return self.channel.queue_declare(queue, passive=True).method.message_count

    def expect_count(self, queue, count):
        deadline = time.monotonic() + 20
        while self.count(queue) != count:
            self.assertLess(time.monotonic(), deadline, '%d ready, not %d' % (self.count(queue), count))
            time.sleep(0.02)

    def test_order_whatever_the_kind(self):
        for durable in True, False:
            for persistent in lambda number: True, lambda number: False, lambda number: number % 3 == 0:
                self.channel.queue_declare('q', durable=durable)
                self.fill('q', persistent)
                self.assertEqual(self.count('q'), COUNT)
                self.assertEqual(self.bodies('q'), list(range(COUNT)))
                self.channel.queue_delete('q')

    def test_requeued_where_it_stood(self):
        self.channel.queue_declare('q', durable=True)
        self.fill('q', lambda number: number % 2 == 0)
        other = self.connect()
        for _ in range(700):
            other.basic_get('q')
        other.connection.close()
        self.expect_count('q', COUNT)
        got = self.drain('q')
        self.assertEqual([int(body) for body, _, _ in got], list(range(COUNT)))
        self.assertEqual([redelivered for _, redelivered, _ in got], [number < 700 for number in range(COUNT)])

    def test_purged(self):
        self.channel.queue_declare('q', durable=True)
        self.fill('q', lambda number: number % 2 == 0)
        self.assertEqual(self.channel.queue_purge('q').method.message_count, COUNT)
        self.fill('q', lambda number: number % 2 == 0)
        self.end_and_start('SIGKILL')
        self.assertEqual(self.bodies('q'), list(range(0, COUNT, 2)))

    def test_dead_lettered_at_its_time(self):
        self.channel.queue_declare('dead', durable=True)
        self.channel.queue_declare('q', durable=True, arguments={
            'x-message-ttl': 3000, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead'})
        self.fill('q', lambda number: number % 2 == 0)
        self.expect_count('dead', COUNT)
        self.assertEqual(self.bodies('dead'), list(range(COUNT)))
        self.assertEqual(self.count('q'), 0)

    def test_gone_at_its_time_after_a_restart(self):
        self.channel.queue_declare('q', durable=True)
        self.fill('q', expiration='3000')
        self.end_and_start('SIGKILL')
        self.expect_count('q', 0)


if __name__ == '__main__':
    tap.main()
