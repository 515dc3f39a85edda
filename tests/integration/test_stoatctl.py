#!/usr/bin/python3
"""stoatctl against a broker: what it lists is what clients did, and its output and status are what scripts expect."""

import subprocess
import unittest

import pika

import broker
import tap
from client import ClientTest

UNAVAILABLE = 69
USAGE = 64


@broker.needs_own_broker
@broker.departs('its tool is another')
class Stoatctl(ClientTest):
    def run_ctl(self, *words, data_dir=None):
        return subprocess.run([str(broker.BUILD / 'stoatctl'), '--data-dir', data_dir or self.broker.data_dir, *words],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              encoding='utf-8', timeout=20)

    def row(self, command, first, *columns):
        """The row of a list that begins with this name; None if there is none."""
        rows = [row for row in self.broker.rows(command, *columns) if row[0] == first]
        self.assertLessEqual(len(rows), 1)
        return rows[0] if rows else None

    def test_status(self):
        self.assertIn('StoatMQ', self.broker.ctl('status'))

    def test_list_queues(self):
        queue = self.queue(durable=True)
        self.publish(queue, 'a', 'b', 'c')
        self.channel.basic_get(queue)
        self.expect_count(queue, 2)
        self.eventually(lambda: self.row('list_queues', queue) == [queue, '3'],
                        lambda: str(self.row('list_queues', queue)), timeout=3)
        self.assertEqual(self.row('list_queues', queue, 'name', 'durable', 'messages_ready', 'messages_unacknowledged'),
                         [queue, 'true', '2', '1'])

    def test_list_has_a_header_unless_silent(self):
        queue = self.queue()
        lines = self.broker.ctl('-q', 'list_queues').splitlines()
        self.assertEqual(lines[0].split('\t'), ['name', 'messages'])
        self.assertIn([queue, '0'], [line.split('\t') for line in lines[1:]])

    def test_list_exchanges(self):
        exchange = self.name()
        self.channel.exchange_declare(exchange, 'topic')
        self.assertEqual(self.row('list_exchanges', exchange), [exchange, 'topic'])
        self.assertEqual(self.row('list_exchanges', 'amq.fanout'), ['amq.fanout', 'fanout'])

    def test_list_bindings(self):
        queue = self.queue()
        self.channel.queue_bind(queue, 'amq.topic', 'a.*.c')
        rows = self.broker.rows('list_bindings')
        self.assertIn(['amq.topic', 'exchange', queue, 'queue', 'a.*.c'], [row[:5] for row in rows])
        self.assertIn(['', 'exchange', queue, 'queue', queue], [row[:5] for row in rows])

    def test_list_connections(self):
        before = len(self.broker.rows('list_connections'))
        other = self.connect()
        rows = self.broker.rows('list_connections')
        self.assertEqual(len(rows), before + 1)
        self.assertTrue(all(row[0] == 'guest' and row[3] == 'running' for row in rows), rows)
        other.close()
        self.eventually(lambda: len(self.broker.rows('list_connections')) == before, 'a closed connection is listed')

    def test_list_consumers(self):
        queue = self.queue()
        self.channel.basic_qos(prefetch_count=7)
        _, tag = self.consume(queue)
        row = self.row('list_consumers', queue)
        self.assertEqual((row[2], row[3], row[4]), (tag, 'true', '7'))
        self.channel.basic_cancel(tag)
        self.assertIsNone(self.row('list_consumers', queue))

    def test_purge_and_delete(self):
        queue = self.queue()
        self.publish(queue, 'a', 'b')
        self.expect_count(queue, 2)
        self.broker.ctl('purge_queue', queue)
        self.assertEqual(self.count(queue), 0)
        self.broker.ctl('delete_queue', queue)
        self.refused(404, 'no queue', self.channel.queue_declare, queue, passive=True)

    def test_what_is_not_there_fails_and_is_named(self):
        for command in ('purge_queue', 'delete_queue'):
            run = self.run_ctl(command, 'absent')
            self.assertNotEqual(run.returncode, 0)
            self.assertIn('not', run.stderr)

    def test_wrong_usage_is_64(self):
        for words in (('no_such_command',), ('purge_queue',), ('list_queues', 'no_such_column')):
            with self.subTest(words=words):
                run = self.run_ctl(*words)
                self.assertEqual(run.returncode, USAGE, run.stderr)
                self.assertNotEqual(run.stderr, '')


@broker.needs_own_broker
@broker.departs('its tool is another')
class Stop(unittest.TestCase):
    def test_stop_ends_the_broker_and_then_it_is_unavailable(self):
        with broker.Broker() as own:
            pika.BlockingConnection(own.parameters()).close()
            own.ctl('stop')
            self.assertEqual(own.wait_end(), 0)
            run = subprocess.run([str(broker.BUILD / 'stoatctl'), '--data-dir', own.data_dir, 'status'],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
            self.assertEqual(run.returncode, UNAVAILABLE)
            self.assertNotEqual(run.stderr, b'')


if __name__ == '__main__':
    tap.main()
