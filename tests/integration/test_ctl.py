#!/usr/bin/python3
"""stoatctl against a broker of its own: what it prints, its exit statuses, and that its changes last."""

import csv
import json
import os
import signal
import subprocess
import unittest

import pika

import broker
import tap
import wire
from client import ClientTest

STOATCTL = str(broker.BUILD / 'stoatctl')
USAGE, DATA, UNAVAILABLE, TEMPORARY = 64, 65, 69, 75


def stoatctl(*words, cwd=None, environment=None):
    return subprocess.run([STOATCTL, *words], timeout=30, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding='utf-8', cwd=cwd, env=environment)


@broker.needs_own_broker
@broker.departs('its tool is another')
class CtlTest(ClientTest):
    def ctl(self, *words):
        return stoatctl('--data-dir', self.broker.data_dir, *words)

    def done(self, *words):
        result = self.ctl(*words)
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        return result.stdout

    def fails(self, status, text, *words):
        result = self.ctl(*words)
        self.assertEqual(result.returncode, status, result)
        self.assertIn(text, result.stderr)

    def listed(self, command, *columns, **where):
        rows = json.loads(self.done('--formatter', 'json', command, *columns))
        return [row for row in rows if all(row[key] == value for key, value in where.items())]


class Lists(CtlTest):
    def test_queues(self):
        name = self.queue(durable=True, arguments={'x-max-length': 9})
        self.channel.confirm_delivery()
        for _ in range(3):
            self.channel.basic_publish('', name, b'body', pika.BasicProperties(delivery_mode=2))
        self.channel.basic_get(name)
        row, = self.listed('list_queues', 'name', 'durable', 'exclusive', 'auto_delete', 'arguments', 'messages',
                           'messages_ready', 'messages_unacknowledged', 'message_bytes', 'consumers', 'state', 'type',
                           'memory', name=name)
        self.assertEqual(row, dict(name=name, durable=True, exclusive=False, auto_delete=False,
                                   arguments={'x-max-length': 9}, messages=3, messages_ready=2,
                                   messages_unacknowledged=1, message_bytes=12, consumers=0, state='running',
                                   type='classic', memory=None))

    def test_exclusive_queue_names_its_owner(self):
        name = self.queue(exclusive=True)
        row, = self.listed('list_queues', 'name', 'exclusive', 'owner_pid', name=name)
        self.assertTrue(row['exclusive'])
        self.assertRegex(row['owner_pid'], r'^127\.0\.0\.1:\d+ -> 127\.0\.0\.1:%d$' % self.broker.port)

    def test_exchanges(self):
        name = self.queue() + '-x'
        self.channel.exchange_declare(name, 'topic', auto_delete=True)
        self.assertEqual(self.listed('list_exchanges', 'name', 'type', 'durable', 'auto_delete', 'internal', name=name),
                         [dict(name=name, type='topic', durable=False, auto_delete=True, internal=False)])
        self.assertIn(['', 'direct'], self.broker.rows('list_exchanges'))
        self.channel.exchange_delete(name)

    def test_bindings(self):
        name = self.queue()
        self.channel.queue_bind(name, 'amq.topic', 'a.#', arguments={'k': 'v'})
        rows = self.listed('list_bindings', destination_name=name)
        self.assertEqual(sorted(rows, key=lambda row: row['source_name']), [
            dict(source_name='', source_kind='exchange', destination_name=name, destination_kind='queue',
                 routing_key=name, arguments={}),
            dict(source_name='amq.topic', source_kind='exchange', destination_name=name, destination_kind='queue',
                 routing_key='a.#', arguments={'k': 'v'})])

    def test_connections(self):  # 4.1.5
        before = len(self.listed('list_connections'))
        other = self.connect()
        rows = self.listed('list_connections', 'user', 'vhost', 'state', 'channels', 'protocol', 'client_properties')
        self.assertEqual(len(rows), before + 1)
        self.assertIn('guest', [row['user'] for row in rows])
        self.assertTrue(all(row['state'] == 'running' and row['vhost'] == '/' and row['protocol'] == 'AMQP 0-9-1'
                            for row in rows))
        self.assertIn('product', rows[0]['client_properties'])
        other.close()
        self.eventually(lambda: len(self.listed('list_connections')) == before, 'it is still listed')

    def test_channels(self):
        name = self.queue()
        self.channel.basic_qos(prefetch_count=7)
        self.channel.basic_consume(name, lambda *_: None)
        self.channel.basic_qos(prefetch_count=9, global_qos=True)
        self.channel.basic_publish('', name, b'body')
        self.connection.process_data_events(0.1)
        other = self.connection.channel()
        other.confirm_delivery()
        other.tx = self.connection.channel()
        other.tx.tx_select()
        pid, = {row['pid'] for row in self.listed('list_connections', 'pid', 'peer_port')
                if row['peer_port'] == self.connection._impl._transport._sock.getsockname()[1]}
        common = dict(connection=pid, user='guest', vhost='/', state='running', messages_unconfirmed=0, confirm=False,
                      transactional=False, consumer_count=0, prefetch_count=0, global_prefetch_count=0, messages_unacknowledged=0)
        wanted = [dict(common, number=self.channel.channel_number, consumer_count=1, prefetch_count=7, global_prefetch_count=9,
                       messages_unacknowledged=1),
                  dict(common, number=other.channel_number, confirm=True),
                  dict(common, number=other.tx.channel_number, transactional=True)]
        for row in wanted:
            row['name'] = '%s (%d)' % (pid, row['number'])
        self.eventually(lambda: sorted(self.listed('list_channels', *wanted[0], connection=pid), key=lambda row: row['number']) == wanted,
                        'the channels are not as wanted')
        self.assertIn('%s (%d)\tguest\t1\t1\n' % (pid, self.channel.channel_number), self.done('-q', 'list_channels'))

    def test_consumers(self):
        name = self.queue()
        self.channel.basic_qos(prefetch_count=5)
        self.channel.basic_consume(name, lambda *_: None, consumer_tag='tag', exclusive=True)
        row, = self.listed('list_consumers', queue_name=name)
        self.assertRegex(row.pop('channel_pid'), r' -> .* \(\d+\)$')
        self.assertEqual(row, dict(queue_name=name, consumer_tag='tag', ack_required=True, prefetch_count=5,
                                   active=True, arguments={}))
        self.assertEqual(self.listed('list_queues', 'name', 'exclusive_consumer_tag', name=name),
                         [dict(name=name, exclusive_consumer_tag='tag')])

    def test_vhosts(self):
        self.assertEqual(self.broker.rows('list_vhosts'), [['/']])


class Output(CtlTest):
    AWKWARD = b'tab\tquote"comma,esc\x1b[31m\xff\xfe\xc2\x9b back\\slash \xe2\x82\xac'

    def awkward(self):
        """A queue whose name holds what no name should."""
        name = self.queue().encode() + self.AWKWARD
        peer = wire.Wire(self.broker.host, self.broker.port).handshake().open_channel()
        peer.send(wire.queue_declare(1, name, exclusive=True))
        peer.expect(wire.QUEUE_DECLARE_OK)
        self.addCleanup(peer.reset)
        return name

    def test_table(self):
        name = self.queue()
        lines = self.done('list_queues').splitlines()
        self.assertEqual(lines[:2], ['Listing queues for vhost / ...', 'name\tmessages'])
        self.assertIn('%s\t0' % name, lines)
        self.assertEqual(self.done('-q', 'list_queues').splitlines()[0], 'name\tmessages')
        self.assertEqual(self.done('list_queues', '--no-table-headers').splitlines()[0],
                         'Listing queues for vhost / ...')
        self.assertEqual(self.done('-s', 'list_queues'), '\n'.join(lines[2:]) + '\n')
        self.assertEqual(lines[2:], sorted(lines[2:]))

    def test_columns_in_the_order_asked_for(self):
        name = self.queue(durable=True)
        lines = self.done('-q', 'list_queues', 'messages,durable', 'name', 'arguments').splitlines()
        self.assertEqual(lines[0], 'messages\tdurable\tname\targuments')
        self.assertIn('0\ttrue\t%s\t[]' % name, lines)

    def test_any_name_keeps_the_table_whole(self):  # CVE-2026-67224
        self.awkward()
        escaped = 'tab\\tquote"comma,esc\\x1b[31m\\xff\\xfe\\x9b back\\slash \u20ac'
        rows = [row for row in self.broker.rows('list_queues') if row[0].endswith(escaped)]
        self.assertEqual([row[1:] for row in rows], [['0']])
        self.assertIn(escaped, self.done('--formatter', 'pretty_table', 'list_queues'))

    def test_any_name_is_valid_json_and_csv(self):
        self.awkward()
        text = 'tab\tquote"comma,esc\x1b[31m\\xff\\xfe\x9b back\\slash \u20ac'
        self.assertTrue([row for row in self.listed('list_queues') if row['name'].endswith(text)])
        lines = self.done('--formatter', 'csv', 'list_queues').split('\n')
        self.assertEqual(lines[0], 'name,messages')
        self.assertTrue([row for row in csv.reader(lines) if row and row[0].endswith(text)])

    def test_pretty_table(self):
        self.queue(suffix='-\u20ac\u4e16')
        lines = self.done('-q', '--formatter', 'pretty_table', 'list_queues').splitlines()
        self.assertRegex(lines[0], '^┌─+┬─+┐$')
        self.assertRegex(lines[1], '^│ name +│ messages │$')
        self.assertRegex(lines[-1], '^└─+┴─+┘$')

    def test_help_and_version(self):
        self.assertIn('Usage: stoatctl', self.done('--help'))
        self.assertIn('list_queues', self.done('help'))
        self.assertIn('messages_ready', self.done('help', 'list_queues'))
        for command, told in (('set_policy', 'classic_queues'), ('set_operator_policy', '--vhost'), ('set_permissions', '-p VHOST'),
                              ('set_user_limits', '{"max-connections": 10, "max-channels": 100}'), ('check_local_alarms', '69'),
                              ('set_vhost_limits', '"max-queues"'), ('ping', '75'), ('hash_password', 'SHA-512')):
            self.assertIn(told, self.done('help', command))
        self.assertRegex(self.done('--version'), r'^stoatctl \d+\.\d+\.\d+\n$')
        self.assertRegex(self.done('version'), r'^\d+\.\d+\.\d+\n$')

    def test_output_that_cannot_be_written_is_a_failure(self):
        with open('/dev/full', 'w') as full:
            result = subprocess.run([STOATCTL, '--data-dir', self.broker.data_dir, 'list_exchanges'], stdout=full,
                                    stderr=subprocess.PIPE, timeout=20)
        self.assertEqual(result.returncode, 70)


class Status(CtlTest):
    def test_ping(self):
        self.assertIn('Ping succeeded', self.done('ping'))
        self.assertEqual(self.done('-q', 'ping'), '')

    def test_status(self):
        text = self.done('status')
        self.assertIn('OS PID: %d\n' % self.broker.process.pid, text)
        self.assertIn('Interface: 127.0.0.1, port: %d, protocol: amqp\n' % self.broker.port, text)
        status = json.loads(self.done('--formatter', 'json', 'status'))
        self.assertEqual(status['pid'], self.broker.process.pid)
        self.assertEqual(status['data_directory'], self.broker.data_dir)
        self.assertGreater(status['memory']['rss'], 1000000)
        self.assertGreater(status['file_descriptors']['used'], 5)
        self.assertFalse(status['store']['failed'])


class Mistakes(CtlTest):
    def test_usage(self):
        for words in ((), ('nosuch',), ('--nosuch',), ('list_queues', 'nosuch'), ('purge_queue',),
                      ('purge_queue', 'a', 'b'), ('ping', 'a'), ('-t', 'soon', 'ping'), ('-t', '0', 'ping'),
                      ('--formatter', 'xml', 'list_queues'), ('help', 'nosuch')):
            with self.subTest(words=words):
                self.fails(USAGE, "Try 'stoatctl", *words)

    def test_habits_from_rabbitmqctl(self):
        self.done('-n', 'rabbit@here', '--node=rabbit', 'ping')
        self.done('check_running')
        self.done('check_alarms')
        self.fails(USAGE, "there is no command 'list_queue'; did you mean 'list_queues'?", 'list_queue')
        self.fails(USAGE, 'purge_queue: not enough arguments\nUsage: stoatctl [OPTION]... purge_queue [-p VHOST] QUEUE\n',
                   'purge_queue')
        for words in ('purge_queue', '--help'), ('--help', 'purge_queue'), ('help', 'purge_queue'):
            self.assertIn('Usage: stoatctl [OPTION]... purge_queue [-p VHOST] QUEUE\nDrop the messages', self.done(*words))
        self.assertIn('Commands:\n', self.done('--help'))

    def test_what_is_larger_than_the_broker_takes(self):
        self.fails(DATA, 'the broker refuses a request of this size', 'set_policy', 'large', '^none$',
                   '{"dead-letter-routing-key": "%s"}' % ('x' * 70000))

    def test_what_does_not_exist(self):
        self.fails(DATA, "virtual host 'nosuch' does not exist", '-p', 'nosuch', 'list_queues')
        self.fails(DATA, "queue 'nosuch' in vhost '/' does not exist", 'purge_queue', 'nosuch')
        self.fails(DATA, "queue '../..' in vhost '/' does not exist", 'delete_queue', '../..')

    def test_no_broker(self):
        result = stoatctl('--data-dir', '/nonexistent', 'ping')
        self.assertEqual(result.returncode, UNAVAILABLE)
        self.assertIn('/nonexistent/control.sock', result.stderr)
        self.assertIn('--data-dir', result.stderr)

    def test_a_broker_that_hangs(self):
        self.broker.process.send_signal(signal.SIGSTOP)
        try:
            self.fails(TEMPORARY, 'no answer within 1 seconds', '-t', '1', 'ping')
        finally:
            self.broker.process.send_signal(signal.SIGCONT)
        self.done('ping')


@broker.needs_own_broker
@broker.departs('its tool is another')
class Startup(unittest.TestCase):
    def test_awaited(self):
        own = broker.Broker()
        with subprocess.Popen([STOATCTL, '--data-dir', own.data_dir, '-t', '60', 'await_startup'], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as waiting:
            self.assertTrue(waiting.stdout.readline().startswith(b'Waiting for the broker'))
            with own:
                self.assertEqual(waiting.wait(60), 0)
                self.assertIn(' ready', own.log())
            self.assertEqual(waiting.stdout.read(), b'It has started\n')

    def test_in_vain(self):
        result = stoatctl('--data-dir', '/nonexistent', '-t', '1', 'await_startup')
        self.assertEqual((result.returncode, result.stderr),
                         (TEMPORARY, 'stoatctl: no broker has come to /nonexistent/control.sock within 1 seconds\n'))


class Environment(CtlTest):
    SETTINGS = {'server_properties.motto': "a #b", 'default_limits.vhosts.1.max_queues': '-1', 'log.console.level': 'debug',
                'consumer_timeout': 'infinity', 'frame_max': '8192', 'ssl_options.versions.1': 'tlsv1.3', 'loopback_users': 'none',
                'default_pass': "CANARY", 'vm_memory_high_watermark.relative': '0.25', 'listeners.tcp.other': '[::1]:0'}

    def test_what_it_tells_is_what_it_was_told(self):
        with broker.Broker(['%s=%s' % setting for setting in self.SETTINGS.items()]) as own:
            told = json.loads(own.ctl('--formatter', 'json', 'environment'))
            self.assertNotIn('CANARY', str(told))
            self.assertNotIn('loopback_users.guest', told)
            self.assertEqual({key: told.get(key) for key in self.SETTINGS if key != 'default_pass'},
                             {key: value for key, value in self.SETTINGS.items() if key != 'default_pass'})
            text = own.ctl('environment')
            self.assertEqual(own.ctl('-s', 'environment'), text.partition('\n')[2])
            self.assertIn("server_properties.motto = 'a #b'\n", text)
            file = os.path.join(own.temp, 'told.conf')
            with open(file, 'w', encoding='utf-8') as out:
                out.write(text)
            checked = subprocess.run([broker.BUILD / 'stoatmq', '--check-config', '--config', file], stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, encoding='utf-8', timeout=30)
            self.assertEqual(checked.returncode, 0, checked.stdout)


class Actions(CtlTest):
    def filled(self, **options):
        name = self.queue(**options)
        for _ in range(3):
            self.channel.basic_publish('', name, b'body', pika.BasicProperties(delivery_mode=2))
        self.eventually(lambda: self.count(name) == 3, 'they have not come')
        return name

    def count(self, name):
        return self.channel.queue_declare(name, passive=True).method.message_count

    def exists(self, name):
        return bool(self.listed('list_queues', name=name))

    def test_purge(self):
        name = self.filled(durable=True)
        self.assertEqual(self.done('purge_queue', name), "Purging queue '%s' in vhost '/' ...\n" % name)
        self.assertEqual(self.count(name), 0)

    def test_delete(self):
        name = self.filled(durable=True)
        self.fails(DATA, 'not empty', 'delete_queue', name, '--if-empty')
        self.done('purge_queue', name)
        self.channel.basic_consume(name, lambda *_: None, consumer_tag='tag')
        self.fails(DATA, 'in use', 'delete_queue', '-u', name)
        self.channel.basic_cancel('tag')
        self.assertIn('Queue was successfully deleted', self.done('delete_queue', '--if-unused', '-e', name))
        self.assertFalse(self.exists(name))

    def test_exclusive_queues_too(self):
        name = self.filled(exclusive=True)
        self.done('purge_queue', name)
        self.assertEqual(self.count(name), 0)
        self.done('delete_queue', name)
        self.assertFalse(self.exists(name))

    def test_any_name_can_be_meant(self):  # CVE-2026-67224
        name = self.queue(suffix='/%2F?a=b#c .. \u20ac')
        self.done('purge_queue', name)
        self.done('delete_queue', name)
        self.assertFalse(self.exists(name))


@broker.needs_own_broker
@broker.departs('its tool is another')
class OwnBroker(unittest.TestCase):
    def test_what_was_answered_lasts(self):
        own = broker.Broker().start()
        try:
            with pika.BlockingConnection(own.parameters()) as connection:
                channel = connection.channel()
                channel.confirm_delivery()
                for name in ('purged', 'deleted'):
                    channel.queue_declare(name, durable=True)
                    channel.basic_publish('', name, b'body', pika.BasicProperties(delivery_mode=2))
            own.ctl('purge_queue', 'purged')
            own.ctl('delete_queue', 'deleted')
            own.kill()
            own.start()
            self.assertEqual(own.rows('list_queues'), [['purged', '0']])
        finally:
            own.stop()

    def test_stop_waits_for_the_end(self):
        own = broker.Broker().start()
        with pika.BlockingConnection(own.parameters()) as connection:
            channel = connection.channel()
            channel.queue_declare('q', durable=True)
            self.assertIn('Stopping', own.ctl('stop'))
            self.assertEqual(own.process.wait(0.5), 0)
            self.assertRaisesRegex(pika.exceptions.AMQPError, 'shutdown', channel.queue_declare, 'q', passive=True)
            connection.close = lambda: None
        self.assertFalse(os.path.exists(os.path.join(own.data_dir, 'control.sock')))
        result = stoatctl('--data-dir', own.data_dir, 'stop')
        self.assertEqual(result.returncode, UNAVAILABLE)
        own.check_log()

    def test_default_places(self):
        own = broker.Broker().start()
        try:
            top = os.path.dirname(own.data_dir)
            if not os.path.exists('/var/lib/stoatmq/control.sock') and os.path.basename(own.data_dir) == 'data':
                self.assertEqual(stoatctl('-q', 'ping', cwd=top).returncode, 0)
            environment = dict(os.environ, STOATMQ_DATA_DIR=own.data_dir)
            self.assertEqual(stoatctl('-q', 'ping', environment=environment).returncode, 0)
            path = os.path.join(own.data_dir, 'control.sock')
            self.assertEqual(stoatctl('--socket', path, '-q', 'ping').returncode, 0)
        finally:
            own.stop()

    def test_socket_left_by_a_crash(self):
        own = broker.Broker().start()
        own.kill()
        path = os.path.join(own.data_dir, 'control.sock')
        self.assertTrue(os.path.exists(path))
        self.assertEqual(stoatctl('--data-dir', own.data_dir, 'ping').returncode, UNAVAILABLE)
        own.start()
        self.assertIn('Ping succeeded', own.ctl('ping'))
        own.stop()
        self.assertFalse(os.path.exists(path))


if __name__ == '__main__':
    tap.main()
