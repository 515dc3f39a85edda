"""stoatctl: users, virtual hosts, permissions and limits, and what becomes of those who are connected."""

import base64
import hashlib
import json
import subprocess

import pika

import broker
import tap
from client import ClientTest

DATA, NO_USER, USAGE = 65, 67, 64


@broker.needs_own_broker
@broker.departs('its tool is another')
class Access(ClientTest):
    def run_ctl(self, *words, typed=None):
        return subprocess.run([str(broker.BUILD / 'stoatctl'), '--data-dir', self.broker.data_dir, *words], input=typed or '',
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8', timeout=30)

    def fails(self, status, message, *words, typed=None):
        done = self.run_ctl(*words, typed=typed)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn(message, done.stderr)

    def user(self, *tags):
        """A new user, who goes when the test ends."""
        name = self.name()
        self.broker.ctl('add_user', name, 'secret')
        self.addCleanup(self.run_ctl, 'delete_user', name)
        if tags:
            self.broker.ctl('set_user_tags', name, *tags)
        return name

    def vhost(self):
        name = self.name()
        self.broker.ctl('add_vhost', name)
        self.addCleanup(self.run_ctl, 'delete_vhost', name)
        return name

    def open(self, user, password='secret', vhost='/'):
        connection = pika.BlockingConnection(self.broker.parameters(user, password, virtual_host=vhost))
        self.addCleanup(self.leave, connection)
        return connection

    @staticmethod
    def leave(connection):
        try:
            connection.close()
        except pika.exceptions.AMQPError:  # it was closed by the broker, as the test wanted
            pass

    def refused(self, user, password='secret', vhost='/'):
        with self.assertRaises((pika.exceptions.ProbableAuthenticationError, pika.exceptions.ProbableAccessDeniedError,
                                pika.exceptions.ConnectionClosedByBroker)) as raised:
            self.open(user, password, vhost)
        return str(raised.exception)

    def test_a_user_from_beginning_to_end(self):  # 4.2.5, 16.5
        name = self.name()
        done = self.run_ctl('add_user', name, 'secret')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout.startswith('Adding user "%s" ...\nDone. Don\'t forget' % name), done.stdout)
        self.fails(DATA, 'user "%s" already exists' % name, 'add_user', name, 'x')
        self.assertIn([name, '[]'], self.broker.rows('list_users'))
        self.broker.ctl('set_user_tags', name, 'monitoring', 'impersonator')
        self.assertIn([name, '[monitoring, impersonator]'], self.broker.rows('list_users'))
        self.broker.ctl('authenticate_user', name, 'secret')
        self.fails(DATA, 'failed to authenticate user "%s"' % name, 'authenticate_user', name, 'other')
        self.refused(name)
        self.broker.ctl('set_permissions', name, '.*', '.*', '.*')
        self.open(name).close()
        self.broker.ctl('change_password', name, 'new')
        self.refused(name)
        connection = self.open(name, 'new')
        self.broker.ctl('delete_user', name)
        with self.assertRaisesRegex(pika.exceptions.ConnectionClosedByBroker, "user '%s' is deleted" % name):
            while True:
                connection.process_data_events(1)
        self.refused(name, 'new')
        for words in (('delete_user', name), ('change_password', name, 'x'), ('set_user_tags', name),
                      ('set_permissions', name, '', '', ''), ('list_user_permissions', name)):
            self.fails(NO_USER, 'user "%s" does not exist' % name, *words)

    def test_passwords_come_from_standard_input(self):
        name = self.name()
        self.assertEqual(self.run_ctl('add_user', name, typed='typed\n').returncode, 0)
        self.addCleanup(self.run_ctl, 'delete_user', name)
        self.assertEqual(self.run_ctl('authenticate_user', name, typed='typed\n').returncode, 0)
        self.fails(USAGE, 'a password is expected', 'change_password', name)

    def test_passwords_may_be_hashed_before(self):
        for words, typed in ((['secret'], None), ([], 'secret\n')):
            done = self.run_ctl('--quiet', 'hash_password', *words, typed=typed)
            self.assertEqual(done.returncode, 0, done.stderr)
            octets = base64.b64decode(done.stdout, validate=False)
            self.assertEqual(octets[4:], hashlib.sha256(octets[:4] + b'secret').digest())
        another = self.run_ctl('--quiet', '--data-dir', '/nonexistent', 'hash_password', 'secret')
        self.assertNotEqual(another.stdout, done.stdout)  # no broker is asked, and the salt is another
        name = self.name()
        self.broker.ctl('add_user', name, done.stdout.strip(), '--pre-hashed-password')
        self.addCleanup(self.run_ctl, 'delete_user', name)
        for _ in range(2):  # kept as ours from the first time on
            self.broker.ctl('authenticate_user', name, 'secret')
        self.fails(DATA, 'failed to authenticate', 'authenticate_user', name, done.stdout.strip())
        self.fails(DATA, 'already exists', 'add_user', '--pre-hashed-password', name, done.stdout.strip())
        for hashed in 'secret', base64.b64encode(bytes(4 + 33)).decode():
            self.fails(DATA, 'password_hash is no base64 of 4 octets of salt and a SHA-256 or SHA-512', 'add_user',
                       '--pre-hashed-password', name + '2', hashed)
        self.fails(USAGE, 'a password is expected', 'hash_password')

    def test_hashes_may_be_sha_512(self):
        name, salt = self.name(), b'salt'
        hashed = base64.b64encode(salt + hashlib.sha512(salt + b'secret').digest()).decode()
        self.broker.ctl('add_user', name, hashed, '--pre-hashed-password')
        self.addCleanup(self.run_ctl, 'delete_user', name)
        self.fails(DATA, 'failed to authenticate', 'authenticate_user', name, 'other')
        for _ in range(2):
            self.broker.ctl('authenticate_user', name, 'secret')

    def test_permissions_everywhere(self):
        name, vhosts = self.user(), [self.vhost(), self.vhost()]
        self.broker.ctl('set_permissions_globally', name, '^c', '^w', '^r')
        allowed = self.broker.rows('list_user_permissions', name)
        for vhost in ['/', *vhosts]:
            self.assertIn([vhost, '^c', '^w', '^r'], allowed)
        self.assertEqual(len(allowed), len(self.broker.rows('list_vhosts')))
        self.fails(DATA, 'no regular expression', 'set_permissions_globally', name, '(', '', '')
        self.fails(NO_USER, 'user "nobody" does not exist', 'set_permissions_globally', 'nobody', '', '', '')

    def test_permissions(self):  # 16.1, 16.2
        name, vhost = self.user(), self.vhost()
        self.broker.ctl('set_permissions', '-p', vhost, name, '^c', '^w', '^r')
        self.assertEqual(self.broker.rows('list_permissions', '-p', vhost), [[name, '^c', '^w', '^r']])
        self.assertEqual(self.broker.rows('list_user_permissions', name), [[vhost, '^c', '^w', '^r']])
        channel = self.open(name, vhost=vhost).channel()
        channel.queue_declare('crw')
        with self.assertRaisesRegex(pika.exceptions.ChannelClosedByBroker,
                                    "configure access to queue 'x' in vhost '%s' refused for user '%s'" % (vhost, name)):
            channel.queue_declare('x')
        self.fails(DATA, 'no regular expression', 'set_permissions', name, '(', '', '')
        self.fails(DATA, "virtual host 'nowhere' does not exist", 'set_permissions', '-p', 'nowhere', name, '', '', '')
        self.broker.ctl('clear_permissions', '-p', vhost, name)
        self.assertEqual(self.broker.rows('list_permissions', '-p', vhost), [])
        self.broker.ctl('clear_permissions', '-p', vhost, name)
        self.refused(name, vhost=vhost)

    def test_topic_permissions(self):  # 16.3
        name = self.user()
        self.broker.ctl('set_permissions', name, '.*', '.*', '.*')
        self.broker.ctl('set_topic_permissions', name, 'amq.topic', '^{username}', '.*')
        self.assertIn([name, 'amq.topic', '^{username}', '.*'], self.broker.rows('list_topic_permissions'))
        self.assertEqual(self.broker.rows('list_user_topic_permissions', name), [['/', 'amq.topic', '^{username}', '.*']])
        channel = self.open(name).channel()
        channel.confirm_delivery()
        channel.basic_publish('amq.topic', name, b'')
        with self.assertRaisesRegex(pika.exceptions.ChannelClosedByBroker, "write access to topic 'k' in exchange 'amq.topic'"):
            channel.basic_publish('amq.topic', 'k', b'')
        self.broker.ctl('clear_topic_permissions', name, 'amq.topic')
        self.assertEqual(self.broker.rows('list_user_topic_permissions', name), [])

    def test_consumers_lose_what_they_may_not_read(self):  # 4.7.3, 10.10, 16.4, CVE-2026-57218
        name, queue = self.user(), self.queue()
        self.broker.ctl('set_permissions', name, '.*', '.*', '.*')
        channel = self.open(name).channel()
        cancelled, got = [], []
        channel.add_on_cancel_callback(cancelled.append)
        channel.basic_consume(queue, lambda *delivery: got.append(delivery), auto_ack=True)
        self.broker.ctl('set_permissions', name, '.*', '.*', '^nothing$')
        self.publish(queue, 'late')
        channel.connection.process_data_events(0.5)
        self.assertEqual((len(cancelled), got), (1, []))
        self.expect_count(queue, 1)

    def test_vhosts(self):
        name = self.name()
        self.broker.ctl('add_vhost', name, '--description', 'a burrow', '--tags', 'a,b')
        self.assertIn([name, 'a burrow', '[a, b]'], self.broker.rows('list_vhosts', 'name', 'description', 'tags'))
        self.broker.ctl('update_vhost_metadata', name, '--tags', 'c')
        self.assertIn([name, 'a burrow', '[c]'], self.broker.rows('list_vhosts', 'name', 'description', 'tags'))
        self.fails(DATA, "virtual host 'nosuch' does not exist", 'update_vhost_metadata', 'nosuch', '--tags', 'c')
        self.assertEqual(self.run_ctl('add_vhost', name).returncode, 0)
        self.refused('guest', 'guest', name)
        self.broker.ctl('set_permissions', '-p', name, 'guest', '.*', '.*', '.*')
        connection = self.open('guest', 'guest', name)
        channel = connection.channel()
        channel.queue_declare('q', durable=True)
        channel.basic_publish('', 'q', b'm', pika.BasicProperties(delivery_mode=2))
        self.assertEqual([row[0] for row in self.broker.rows('list_queues', '-p', name)], ['q'])
        self.assertNotIn('q', [row[0] for row in self.broker.rows('list_queues')])
        self.broker.ctl('delete_vhost', name)
        with self.assertRaisesRegex(pika.exceptions.ConnectionClosedByBroker, "vhost '%s' is deleted" % name):
            while True:
                connection.process_data_events(1)
        self.assertNotIn([name], self.broker.rows('list_vhosts'))
        self.fails(DATA, "virtual host '%s' does not exist" % name, 'delete_vhost', name)
        self.broker.ctl('add_vhost', name)
        self.addCleanup(self.run_ctl, 'delete_vhost', name)
        self.assertEqual(self.broker.rows('list_queues', '-p', name), [])
        self.assertEqual(self.broker.rows('list_permissions', '-p', name), [])

    def test_limits(self):  # 17.6
        name, vhost = self.user(), self.vhost()
        self.broker.ctl('set_permissions', '-p', vhost, name, '.*', '.*', '.*')
        self.broker.ctl('set_user_limits', name, '{"max-connections": 1, "max-channels": 2}')
        rows = self.broker.rows('list_user_limits', '--user', name)
        self.assertEqual((rows[0][0], json.loads(rows[0][1])), (name, {'max-connections': 1, 'max-channels': 2}))
        connection = self.open(name, vhost=vhost)
        self.assertIn('user connection limit (1) is reached', self.refused(name, vhost=vhost))
        self.broker.ctl('clear_user_limits', name, 'all')
        self.assertEqual(self.broker.rows('list_user_limits', '--user', name), [])
        self.broker.ctl('set_vhost_limits', '-p', vhost, '{"max-queues": 0}')
        self.assertEqual(self.broker.rows('list_vhost_limits', '-p', vhost), [[vhost, '{"max-queues":0}']])
        with self.assertRaisesRegex(pika.exceptions.ChannelClosedByBroker, 'queue limit in vhost'):
            connection.channel().queue_declare('q')
        self.broker.ctl('clear_vhost_limits', '-p', vhost)
        connection.channel().queue_declare('q')
        self.fails(DATA, "there is no limit 'max-rabbits': max-connections and max-queues are", 'set_vhost_limits', '{"max-rabbits": 3}')
        self.fails(DATA, 'a JSON object is expected', 'set_user_limits', name, '3')

    def test_first_limits_of_vhosts(self):  # 17.6
        rules = 'default_limits.vhosts.'
        settings = [rules + '10.max_queues=5', rules + '2.pattern=^te', rules + '2.max_connections=1', rules + '2.max_queues=-1']
        with broker.Broker(settings) as own:
            def limits():
                return {name: json.loads(text) for name, text in own.rows('list_vhost_limits', '--global')}
            own.ctl('add_vhost', 'test')
            own.ctl('add_vhost', 'latest')  # not at its start
            self.assertEqual(limits(), {'/': {'max-queues': 5}, 'test': {'max-connections': 1}, 'latest': {'max-queues': 5}})
            own.ctl('clear_vhost_limits', '-p', 'latest')
            own.ctl('set_vhost_limits', '-p', 'test', '{"max-queues": 0}')
            own.restart()  # they are the vhost's from the start on
            changed = {'/': {'max-queues': 5}, 'test': {'max-connections': 1, 'max-queues': 0}}
            self.assertEqual(limits(), changed)
            own.settings = ()
            own.restart()
            own.ctl('add_vhost', 'test2')
            self.assertEqual(limits(), changed)

    def test_closing_connections(self):  # 4.5.3
        name, vhost = self.user(), self.vhost()
        self.broker.ctl('set_permissions', '-p', vhost, name, '.*', '.*', '.*')
        for words in (lambda: ('close_connection', self.pid_of(name)), lambda: ('close_all_connections', '-p', vhost),
                      lambda: ('close_all_user_connections', name)):
            connection = self.open(name, vhost=vhost)
            self.broker.ctl(*words(), 'go away')
            with self.assertRaisesRegex(pika.exceptions.ConnectionClosedByBroker, 'CONNECTION_FORCED - go away'):
                while True:
                    connection.process_data_events(1)
        self.fails(DATA, 'there is no connection "nobody"', 'close_connection', 'nobody', 'go')
        self.fails(NO_USER, 'user "nobody" does not exist', 'close_all_user_connections', 'nobody', 'go')
        self.fails(DATA, "virtual host 'nowhere' does not exist", 'close_all_connections', '-p', 'nowhere', 'go')
        self.broker.ctl('close_all_user_connections', name, 'go')  # it has none: nothing to do

    def pid_of(self, user):
        return next(row[0] for row in self.broker.rows('list_connections', 'pid', 'user') if row[1] == user)

    def test_everything_survives_a_kill(self):
        with broker.Broker() as own:
            own.ctl('add_user', 'stoat', 'secret')
            own.ctl('set_permissions', 'stoat', '^a', '^b', '^c')
            own.ctl('add_vhost', 'burrow')
            own.ctl('delete_user', 'guest')
            own.kill()
            own.start()
            self.assertEqual(own.rows('list_users'), [['stoat', '[]']])
            self.assertEqual(own.rows('list_permissions'), [['stoat', '^a', '^b', '^c']])
            self.assertEqual(sorted(own.rows('list_vhosts')), [['/'], ['burrow']])
            self.assertNotIn('secret', own.log())


if __name__ == '__main__':
    tap.main()
