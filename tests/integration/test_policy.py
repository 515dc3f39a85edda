#!/usr/bin/python3
"""Policies and operators' policies (section 17): what clients notice of them, at once and after a restart; and stoatctl's commands for them.

Names of tests begin with the rule."""

import json
import subprocess
import unittest

import pika

import broker
import tap
from client import PERSISTENT, ClientTest

STOATCTL = str(broker.BUILD / 'stoatctl')
USAGE, DATA = 64, 65


def stoatctl(at, *words):
    return subprocess.run([STOATCTL, '--data-dir', at.data_dir, *words], timeout=30, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8')


@broker.needs_own_broker
@broker.departs('its tool is another')
class PolicyTest(ClientTest):
    def done(self, *words):
        result = stoatctl(self.broker, *words)
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        return result.stdout

    def fails(self, status, text, *words):
        result = stoatctl(self.broker, *words)
        self.assertEqual(result.returncode, status, result)
        self.assertIn(text, result.stderr)

    def policy(self, name, pattern, *options, kind='policy', **definition):
        """Sets a policy that is cleared when the test ends."""
        definition = {key.replace('_', '-'): value for key, value in definition.items()}
        self.done('-q', 'set_' + kind, *options, name, pattern, json.dumps(definition))
        self.addCleanup(stoatctl, self.broker, '-q', 'clear_' + kind, name)

    def clear(self, name, kind='policy'):
        self.done('-q', 'clear_' + kind, name)

    def applied(self, queue):
        rows = json.loads(self.done('--formatter', 'json', 'list_queues', 'name', 'policy', 'operator_policy',
                                    'effective_policy_definition'))
        row, = [row for row in rows if row.pop('name') == queue]
        return tuple(row.values())


class Queues(PolicyTest):
    def test_17_1_the_highest_priority_alone(self):
        queue = self.queue()
        self.assertEqual(self.applied(queue), (None, None, {}))
        self.policy('low', '^' + queue, max_length=5, expires=60000)
        self.policy('high', '^' + queue, '--priority', '1', max_length=6)
        self.policy('other', '^no' + queue, '--priority', '2', max_length=7)
        self.policy('over', '^' + queue, kind='operator_policy', max_length=5)
        self.assertEqual(self.applied(queue), ('high', 'over', {'max-length': 5}))
        self.clear('high')
        self.assertEqual(self.applied(queue), ('low', 'over', {'expires': 60000, 'max-length': 5}))
        self.clear('over', kind='operator_policy')
        self.assertEqual(self.applied(queue), ('low', None, {'max-length': 5, 'expires': 60000}))

    def test_17_1_apply_to(self):
        classic, quorum = self.queue(), self.queue(durable=True, arguments={'x-queue-type': 'quorum'})
        exchange = self.name()
        self.channel.exchange_declare(exchange)
        for scope, expected in (('all', 'pp'), ('queues', 'pp'), ('classic_queues', 'p-'), ('quorum_queues', '-p'),
                                ('streams', '--'), ('exchanges', '--')):
            with self.subTest(scope=scope):
                self.policy('p', '^test-', '--apply-to', scope, max_length=5)
                self.assertEqual(''.join(self.applied(queue)[0] or '-' for queue in (classic, quorum)), expected)
                rows = dict(self.broker.rows('list_exchanges', 'name', 'policy'))
                self.assertEqual(rows[exchange], 'p' if scope in ('all', 'exchanges') else '')
                self.clear('p')

    def test_17_4_a_key_that_the_type_does_not_have(self):
        classic, quorum = self.queue(), self.queue(durable=True, arguments={'x-queue-type': 'quorum'})
        self.policy('p', '^test-', max_length=5, delivery_limit=3)
        self.assertEqual(self.applied(classic), (None, None, {}))
        self.assertEqual(self.applied(quorum), ('p', None, {'max-length': 5, 'delivery-limit': 3}))

    def test_17_5_a_shorter_queue(self):
        queue = self.queue()
        self.publish(queue, *(str(number) for number in range(10)))
        self.expect_count(queue, 10)
        self.policy('p', '^' + queue, max_length=4)
        self.assertEqual(self.get_all(queue), ['6', '7', '8', '9'])

    def test_17_5_a_redeclare_is_not_about_policies(self):
        self.policy('p', '^test-', max_length=4, message_ttl=60000)
        queue = self.queue()
        self.channel.queue_declare(queue)
        queue = self.queue(arguments={'x-max-length': 3})
        self.channel.queue_declare(queue, arguments={'x-max-length': 3})

    def test_17_5_overflow(self):
        queue = self.queue()
        self.channel.confirm_delivery()
        self.policy('p', '^' + queue, max_length=1, overflow='reject-publish')
        self.publish(queue, 'kept')
        with self.assertRaises(pika.exceptions.NackError):
            self.publish(queue, 'refused')
        self.clear('p')
        self.publish(queue, 'more')
        self.assertEqual(self.get_all(queue), ['kept', 'more'])

    def test_11_1_a_deadline_is_fixed_when_a_message_comes(self):
        queue = self.queue()
        self.publish(queue, 'early')
        self.expect_count(queue, 1)
        self.policy('p', '^' + queue, message_ttl=1)
        self.publish(queue, 'late')
        self.eventually(lambda: self.count(queue) == 1, 'it does not expire')
        self.assertEqual(self.get_all(queue), ['early'])

    def test_17_5_a_queue_that_expires(self):
        queue = self.queue()
        self.policy('p', '^' + queue, expires=1)
        self.eventually(lambda: queue not in dict(self.broker.rows('list_queues')), 'it does not expire')

    def test_17_5_dead_letters(self):
        dead, queue = self.queue(suffix='dead'), self.queue()
        self.policy('p', '^' + queue, dead_letter_exchange='', dead_letter_routing_key=dead)
        self.publish(queue, 'body')
        self.expect_count(queue, 1)
        method, _, _ = self.channel.basic_get(queue)
        self.channel.basic_reject(method.delivery_tag, requeue=False)
        self.expect_count(dead, 1)
        self.policy('p', '^' + queue, max_length=9)
        self.publish(queue, 'body')
        self.expect_count(queue, 1)
        method, _, _ = self.channel.basic_get(queue)
        self.channel.basic_reject(method.delivery_tag, requeue=False)
        self.expect_count(queue, 0)
        self.assertEqual(self.count(dead), 1)

    def test_7_10_an_alternate_exchange(self):
        queue, exchange = self.queue(), self.name()
        self.channel.exchange_declare(exchange, 'fanout')
        self.channel.confirm_delivery()
        self.policy('p', '^' + exchange, alternate_exchange='')
        self.channel.basic_publish(exchange, queue, 'body', mandatory=True)
        self.assertEqual(self.get_all(queue), ['body'])
        self.clear('p')
        with self.assertRaises(pika.exceptions.UnroutableError):
            self.channel.basic_publish(exchange, queue, 'body', mandatory=True)


class Tool(PolicyTest):
    def test_set_list_clear(self):
        said = self.done('set_policy', '--apply-to', 'queues', '--priority', '-7', 'p', '^q', '{"max-length": 5}')
        self.addCleanup(stoatctl, self.broker, 'clear_policy', 'p')
        self.assertEqual(said, 'Setting policy "p" for pattern "^q" to "{"max-length": 5}" with priority "-7" for '
                               'vhost "/" ...\n')
        self.assertEqual(self.done('list_policies').splitlines(), [
            'Listing policies for vhost "/" ...', 'vhost\tname\tpattern\tapply-to\tdefinition\tpriority',
            '/\tp\t^q\tqueues\t{"max-length":5}\t-7'])
        self.assertEqual(json.loads(self.done('--formatter', 'json', 'list_policies')), [
            {'vhost': '/', 'name': 'p', 'pattern': '^q', 'apply-to': 'queues', 'definition': '{"max-length":5}',
             'priority': -7}])
        self.assertEqual(self.done('-s', 'list_operator_policies'), '')
        self.assertEqual(self.done('clear_policy', 'p'), 'Clearing policy "p" on vhost "/" ...\n')
        self.assertEqual(self.done('-s', 'list_policies'), '')

    def test_operator_policies(self):
        self.assertIn('Setting operator policy override "o" for pattern ""',
                      self.done('set_operator_policy', 'o', '', '{"expires":1000000}'))
        self.addCleanup(stoatctl, self.broker, 'clear_operator_policy', 'o')
        self.assertEqual(self.done('list_operator_policies').splitlines()[::2], [
            'Listing operator policy overrides for vhost "/" ...', '/\to\t\tall\t{"expires":1000000}\t0'])
        self.assertEqual(self.done('-s', 'list_policies'), '')
        self.assertEqual(self.done('clear_operator_policy', 'o'), 'Clearing operator policy "o" on vhost "/" ...\n')

    def test_mistakes(self):
        good = '{"max-length":5}'
        for status, text, words in (
                (DATA, 'missing closing parenthesis at offset 2', ('p', '^(', good)),
                (DATA, '-1 is not a valid message TTL', ('p', '^q', '{"message-ttl":-1}')),
                (DATA, 'not recognised policy settings', ('p', '^q', '{"nosuch":1}')),
                (DATA, 'no policy provided', ('p', '^q', '{}')),
                (DATA, 'JSON decoding error', ('p', '^q', '{"nosuch":')),
                (DATA, "apply-to 'nosuch' unrecognised", ('--apply-to', 'nosuch', 'p', '^q', good)),
                (DATA, "virtual host 'nosuch' does not exist", ('-p', 'nosuch', 'p', '^q', good)),
                (USAGE, 'not enough arguments', ('p', '^q')),
                (USAGE, "'x' is not a priority", ('--priority', 'x', 'p', '^q', good)),
                (USAGE, 'is not a priority', ('--priority', '9999999999', 'p', '^q', good))):
            with self.subTest(words=words):
                self.fails(status, text, 'set_policy', *words)
        self.fails(DATA, 'not recognised policy settings', 'set_operator_policy', 'p', '', '{"queue-mode":"lazy"}')
        self.fails(DATA, "policy 'p' in vhost '/' does not exist", 'clear_policy', 'p')
        self.fails(DATA, "policy 'p' in vhost '/' does not exist", 'clear_operator_policy', 'p')
        self.fails(DATA, "virtual host 'nosuch' does not exist", '-p', 'nosuch', 'clear_policy', 'p')
        self.fails(DATA, "virtual host 'nosuch' does not exist", '-p', 'nosuch', 'list_policies')

    def test_a_bomb(self):
        queue = self.queue(suffix='a' * 200 + '!')
        self.fails(DATA, "steps to match the queue '%s'" % queue, 'set_policy', 'p', '(a+)+$', '{"max-length":5}')


@broker.needs_own_broker
@broker.departs('its tool is another')
class Restart(unittest.TestCase):
    def test_what_was_answered_lasts(self):
        own = broker.Broker().start()
        try:
            with pika.BlockingConnection(own.parameters()) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                for name in ('q', 'short', 'gone'):
                    channel.queue_declare(name, durable=True)
                own.ctl('set_policy', 'ttl', '^q', '{"message-ttl":1500}')
                for _ in range(5):
                    channel.basic_publish('', 'q', b'body', PERSISTENT)
                own.ctl('set_policy', 'gone', '^gone', '{"expires":1}', '--priority', '5')
                own.ctl('set_policy', 'gone', '^nosuch', '{"expires":1}')
                own.ctl('set_policy', 'short', '^short', '{"max-length":3}')
                own.ctl('set_operator_policy', 'short', '^short', '{"max-length":2}')
                own.ctl('clear_policy', 'short')
            own.kill()
            own.start()
            self.assertEqual(own.rows('list_policies', 'name', 'pattern', 'definition', 'priority'),
                             [['gone', '^nosuch', '{"expires":1}', '0'], ['ttl', '^q', '{"message-ttl":1500}', '0']])
            rows = {row[0]: row[1:] for row in own.rows('list_queues', 'name', 'policy', 'operator_policy')}
            self.assertEqual((rows['q'], rows['short']), (['ttl', ''], ['', 'short']))
            with pika.BlockingConnection(own.parameters()) as connection:
                channel = connection.channel()
                for _ in range(5):
                    channel.basic_publish('', 'short', b'body', PERSISTENT)
                self.assertEqual(channel.queue_declare('short', passive=True).method.message_count, 2)
                for _ in range(100):  # deadlines of the policy's are on disk, and count after the restart
                    if channel.queue_declare('q', passive=True).method.message_count == 0:
                        break
                    connection.sleep(0.1)
                self.assertEqual(channel.queue_declare('q', passive=True).method.message_count, 0)
        finally:
            own.stop()


if __name__ == '__main__':
    tap.main()
