#!/usr/bin/python3
"""What survives the end of the broker, orderly or not, and how it starts: on its directory alone, on a good configuration."""

import os
import re
import shutil
import stat
import subprocess
import tempfile
import unittest

import pika
from pika.exceptions import ChannelClosedByBroker

import broker
import tap
from client import PERSISTENT, TRANSIENT, RestartTest

STORE_FAILED, BAD_CONFIG = 74, 78


@broker.needs_own_broker
class Survive(RestartTest):
    def absent(self, declare, name):
        with self.assertRaises(ChannelClosedByBroker) as caught:
            declare(self.channel)(name, passive=True)
        self.assertEqual(caught.exception.reply_code, 404)
        self.channel = self.connect()

    def test_8_15_definitions(self):
        for how in ('SIGTERM', 'SIGKILL'):
            with self.subTest(ended_by=how):
                self.declare_everything()
                self.end_and_start(how)
                self.check_everything()

    def declare_everything(self):
        channel = self.channel
        for kind in ('direct', 'fanout', 'topic', 'headers'):
            channel.exchange_declare('kept-' + kind, kind, durable=True)
        channel.exchange_declare('lost', 'direct')
        channel.exchange_declare('kept-internal', 'fanout', durable=True, internal=True)
        channel.queue_declare('kept', durable=True, arguments={'x-of-mine': 'argument', 'x-message-ttl': 3600000})
        channel.queue_declare('lost')
        channel.queue_declare('lost-exclusive', exclusive=True)
        channel.queue_bind('kept', 'kept-direct', 'key')
        channel.queue_bind('kept', 'kept-topic', 'a.*.c')
        channel.queue_bind('kept', 'kept-headers', '', {'x-match': 'all', 'a': 1})
        channel.queue_bind('kept', 'kept-direct', 'unbound')
        channel.queue_unbind('kept', 'kept-direct', 'unbound')
        channel.exchange_bind('kept-internal', 'kept-fanout')
        channel.queue_bind('kept', 'kept-internal')
        channel.exchange_declare('deleted', 'direct', durable=True)
        channel.exchange_delete('deleted')
        channel.queue_declare('deleted', durable=True)
        channel.queue_delete('deleted')

    def check_everything(self):
        channel = self.channel
        channel.exchange_declare('kept-internal', 'fanout', durable=True, internal=True)
        channel.queue_declare('kept', durable=True, arguments={'x-message-ttl': 3600000, 'x-of-mine': 'argument'})
        for exchange, key, headers, reaches in (
                ('kept-direct', 'key', None, 1), ('kept-direct', 'unbound', None, 0), ('kept-topic', 'a.b.c', None, 1),
                ('kept-headers', '', {'a': 1}, 1), ('kept-headers', '', {'a': 2}, 0), ('kept-fanout', '', None, 1)):
            channel.basic_publish(exchange, key, 'm', pika.BasicProperties(headers=headers))
            self.assertEqual(len(self.drain('kept')), reaches, (exchange, key))
        for name in ('lost', 'lost-exclusive', 'deleted'):
            self.absent(lambda channel: channel.queue_declare, name)
        for name in ('lost', 'deleted'):
            self.absent(lambda channel: channel.exchange_declare, name)

    def test_12_messages(self):
        for how in ('SIGTERM', 'SIGKILL'):
            with self.subTest(ended_by=how):
                channel = self.channel
                channel.confirm_delivery()
                channel.queue_declare('durable', durable=True)
                for number in range(50):
                    channel.basic_publish('', 'durable', 'persistent %d' % number, pika.BasicProperties(
                        delivery_mode=2, headers={'number': number}, message_id=str(number)))
                    channel.basic_publish('', 'durable', 'transient %d' % number, TRANSIENT)
                self.end_and_start(how)
                got = self.drain('durable')
                self.assertEqual([body for body, _, _ in got], ['persistent %d' % number for number in range(50)])
                for number, (_, _, properties) in enumerate(got):
                    self.assertEqual((properties.headers, properties.message_id, properties.delivery_mode),
                                     ({'number': number}, str(number), 2))

    def test_12_bodies_of_every_size(self):
        self.channel.confirm_delivery()
        self.channel.queue_declare('sizes', durable=True)
        bodies = [os.urandom(size) for size in (0, 1, 100, 61439, 61440, 61441, 131072, 1000000, 3000000, 5)]
        for body in bodies:
            self.channel.basic_publish('', 'sizes', body, PERSISTENT)
        self.end_and_start('SIGKILL')
        for body in bodies:
            self.assertEqual(self.channel.basic_get('sizes', auto_ack=True)[2], body)

    def test_acked_stays_gone_and_unacked_comes_back(self):
        self.channel.confirm_delivery()
        self.channel.queue_declare('some', durable=True)
        for number in range(10):
            self.channel.basic_publish('', 'some', str(number), PERSISTENT)
        for _ in range(6):
            self.channel.basic_get('some')
        self.channel.basic_ack(2, multiple=True)
        self.channel.basic_nack(3, requeue=False)
        self.channel.basic_nack(4, requeue=True)
        self.channel.queue_declare('some', passive=True)  # answered behind the acks: the broker has seen them
        self.end_and_start('SIGTERM')
        self.assertEqual([body for body, _, _ in self.drain('some')], [str(number) for number in range(3, 10)])

    def test_purged_and_deleted_stay_gone(self):
        self.channel.confirm_delivery()
        for queue in ('purged', 'deleted', 'again'):
            self.channel.queue_declare(queue, durable=True)
            for _ in range(20):
                self.channel.basic_publish('', queue, 'gone', PERSISTENT)
        self.channel.queue_purge('purged')
        self.channel.queue_delete('deleted')
        self.channel.queue_delete('again')
        self.channel.queue_declare('again', durable=True)
        self.channel.basic_publish('', 'again', 'new', PERSISTENT)
        self.end_and_start('SIGKILL')
        self.assertEqual(self.drain('purged'), [])
        self.absent(lambda channel: channel.queue_declare, 'deleted')
        self.assertEqual([body for body, _, _ in self.drain('again')], ['new'])

    def test_committed_transaction_survives_and_an_open_one_does_not(self):
        self.channel.queue_declare('tx', durable=True)
        self.channel.tx_select()
        self.channel.basic_publish('', 'tx', 'committed', PERSISTENT)
        self.channel.tx_commit()
        self.channel.basic_publish('', 'tx', 'open', PERSISTENT)
        self.end_and_start('SIGKILL')
        self.assertEqual([body for body, _, _ in self.drain('tx')], ['committed'])

    def test_order_goes_on_after_each_restart(self):
        self.channel.queue_declare('long', durable=True)
        expected = []
        for turn in range(4):
            self.channel.confirm_delivery()
            for number in range(20):
                body = '%d.%d' % (turn, number)
                self.channel.basic_publish('', 'long', body, PERSISTENT)
                expected.append(body)
            for _ in range(7):
                self.assertEqual(self.channel.basic_get('long', auto_ack=True)[2].decode(), expected.pop(0))
            self.end_and_start('SIGTERM')
        self.assertEqual([body for body, _, _ in self.drain('long')], expected)

    def test_remembered_message_survives_in_each_queue(self):
        self.channel.confirm_delivery()
        self.channel.exchange_declare('remembers', 'x-recent-history', durable=True)
        for number in range(3):
            self.channel.basic_publish('remembers', '', 'x' * 10000 + str(number), PERSISTENT)
        for number in range(4):
            self.channel.queue_declare('late-%d' % number, durable=True)
            self.channel.queue_bind('late-%d' % number, 'remembers')  # each in a batch of its own
            self.channel.basic_get('late-%d' % number, auto_ack=number % 2 == 0)
            self.channel.basic_publish('remembers', '', 'more', PERSISTENT)
        self.end_and_start('SIGKILL')
        for number in range(4):
            bodies = [body for body, _, _ in self.drain('late-%d' % number)]
            expected = ['x' * 10000 + str(i) for i in range(3)] + ['more'] * 4
            self.assertEqual(bodies, expected[number % 2 == 0:])

    def test_fanned_out_message_survives_in_each_queue(self):
        self.channel.confirm_delivery()
        for number in range(5):
            self.channel.queue_declare('fan-%d' % number, durable=True)
            self.channel.queue_bind('fan-%d' % number, 'amq.fanout')
        for number in range(10):
            self.channel.basic_publish('amq.fanout', '', str(number), PERSISTENT)
        self.channel.basic_get('fan-0', auto_ack=True)
        self.end_and_start('SIGTERM')
        for number in range(5):
            self.assertEqual([body for body, _, _ in self.drain('fan-%d' % number)],
                             [str(number) for number in range(number == 0, 10)])


@broker.needs_own_broker
@broker.departs('other programs, other options')
class Start(unittest.TestCase):
    def run_broker(self, *words):
        return subprocess.run([str(broker.BUILD / 'stoatmq'), *words], stdin=subprocess.DEVNULL, encoding='utf-8',
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)

    def test_second_broker_on_the_same_directory_refuses(self):
        with broker.Broker() as first:
            second = broker.Broker(data_dir=first.data_dir)
            second.launch()
            self.assertNotEqual(second.wait_end(), 0)
            self.assertIn(first.data_dir, second.log())
            self.assertIn('a broker (pid %d) is using' % first.process.pid, second.log())
            pika.BlockingConnection(first.parameters()).close()

    def test_data_directory_is_private(self):
        with broker.Broker() as own:
            self.assertEqual(stat.S_IMODE(os.stat(own.data_dir).st_mode) & 0o007, 0)
            control = os.stat(os.path.join(own.data_dir, 'control.sock'))
            self.assertEqual(stat.S_IMODE(control.st_mode), 0o600)

    def test_port_in_use_is_said(self):
        with broker.Broker() as first:
            second = broker.Broker(port=first.port)
            second.launch()
            self.assertNotEqual(second.wait_end(), 0)
            self.assertRegex(second.log().lower(), 'address already in use')
            self.assertIn(str(first.port), second.log())

    def test_a_data_file_that_is_taken_away(self):
        """Nothing is confirmed that no next start would find, and no stop is a clean one."""
        takes = (('removed', os.unlink),
                 ('moved', lambda path: os.rename(path, path + '.aside')),
                 ('replaced', lambda path: os.rename(shutil.copy(path, path + '.copy'), path)))
        for name, take in takes:
            for publishes in (True, False):
                with self.subTest(taken=name, publishes=publishes):
                    self.check_taken_away(take, publishes)

    def check_taken_away(self, take, publishes):
        own = broker.Broker()
        own.start()
        self.addCleanup(own.__exit__, None, None, None)
        connection = pika.BlockingConnection(own.parameters())
        channel = connection.channel()
        channel.queue_declare('kept', durable=True)
        channel.confirm_delivery()
        channel.basic_publish('', 'kept', b'before', PERSISTENT)
        take(os.path.join(own.data_dir, 'data.mdb'))
        if publishes:
            with self.assertRaises(pika.exceptions.AMQPError):
                channel.basic_publish('', 'kept', b'after', PERSISTENT)
        else:
            connection.close()
            own.terminate()
        self.assertEqual(own.wait_end(), STORE_FAILED)
        self.assertIn('its data file was removed, moved or replaced while it was in use', own.log())
        self.check_next_start(own)

    def check_next_start(self, own):
        """No empty store appears where one was, until somebody says so."""
        data, lock, aside = (os.path.join(own.data_dir, name) for name in ('data.mdb', 'lock.mdb', 'data.mdb.aside'))
        queues = ['kept']
        if not os.path.exists(data):
            own.launch()
            self.assertEqual(own.wait_end(), 66)
            self.assertIn('was taken away: put it back; or remove lock.mdb, too, to begin with an empty store', own.log())
            self.assertFalse(os.path.exists(data))
            if os.path.exists(aside):
                os.rename(aside, data)
            else:
                os.unlink(lock)
                queues = []
        own.start()
        rows = own.rows('list_queues', 'name', 'messages')
        self.assertEqual([name for name, _ in rows], queues)
        self.assertTrue(all(int(messages) >= 1 for _, messages in rows))  # one more may have reached the file unconfirmed

    @unittest.skipUnless(os.geteuid() == 0, 'only root can make what others cannot open')
    def test_a_file_of_another_user(self):
        for name, status in (('data.mdb', STORE_FAILED), ('lock', 73)):
            own = broker.Broker(['user=nobody'])
            for path in (os.environ['TMPDIR'], own.temp):
                os.chmod(path, 0o711)
            own.start()
            own.stop()
            os.chown(os.path.join(own.data_dir, name), 0, 0)
            own.launch()
            self.assertEqual(own.wait_end(), status)
            self.assertRegex(own.log(), r'user (nobody|\d+) cannot use what is in the data directory %s: Permission denied; '
                             r'give it to that user, as chown -R (nobody|\d+) %s does' % (own.data_dir, own.data_dir))
            self.assertNotIn('could not be seen', own.log())

    def test_bad_configuration_ends_with_78(self):
        table = (
            (('--set', 'listeners.tpc.default=5672'), 'listeners.tcp'),
            (('--set', 'listeners.tcp.default=many'), 'listeners.tcp.default'),
            (('--set', 'heartbeat=soon'), 'heartbeat'),
            (('--set', 'frame_max=12'), 'frame_max'),
            (('--set', 'no equals sign'), 'no equals sign'),
            (('--config', '/nowhere/stoatmq.conf'), '/nowhere/stoatmq.conf'),
        )
        with tempfile.TemporaryDirectory() as data:
            for words, named in table:
                with self.subTest(words=words):
                    run = self.run_broker('--data-dir', data, '--check-config', *words)
                    self.assertEqual(run.returncode, BAD_CONFIG, run.stdout)
                    self.assertIn(named, run.stdout)

    def test_bad_line_of_a_file_is_named(self):
        with tempfile.TemporaryDirectory() as data:
            path = os.path.join(data, 'bad.conf')
            with open(path, 'w') as config:
                config.write('# a comment\nheartbeat = 60\n\nheartbeet = 60\n')
            run = self.run_broker('--data-dir', data, '--check-config', '--config', path)
            self.assertEqual(run.returncode, BAD_CONFIG, run.stdout)
            self.assertRegex(run.stdout, r'bad\.conf:4')
            self.assertRegex(run.stdout, r'heartbeat\b')

    def test_version_and_help(self):
        self.assertRegex(self.run_broker('--version').stdout, r'\d+\.\d+\.\d+')
        run = self.run_broker('--help')
        self.assertEqual(run.returncode, 0)
        self.assertIn('--data-dir', run.stdout)

    def test_one_line_says_ready_and_how_long_it_took(self):
        with broker.Broker() as own:
            ready = [line for line in own.log().splitlines() if re.search(r'\bready\b', line)]
            self.assertEqual(len(ready), 1)
            self.assertRegex(ready[0], r'\d+(\.\d+)? ?ms')
            if not broker.SANITIZED:
                print('# %s' % ready[0])

    @unittest.skipIf(broker.SANITIZED, 'a sanitized program is larger')
    def test_idle_broker_is_small(self):
        with broker.Broker() as own:
            pika.BlockingConnection(own.parameters()).close()
            with open('/proc/%d/status' % own.process.pid) as status:
                sizes = {line.split()[0]: int(line.split()[1]) for line in status if 'Rss' in line or 'VmRSS' in line}
            # What is ours alone; and with the pages of libraries, of which libcrypto's are the most, shared with all who use them.
            self.assertLessEqual(sizes['RssAnon:'], 4 * 1024, sizes)
            self.assertLessEqual(sizes['VmRSS:'], 12 * 1024, sizes)


if __name__ == '__main__':
    tap.main()
