#!/usr/bin/python3
"""A broker that may have few descriptors: clients cannot take those that it needs itself; accepting pauses, is told to
operators, and goes on by itself."""

import contextlib
import json
import os
import socket
import time

import pika

import broker
import tap
import wire
from client import RestartTest
from costs import cpu_seconds, descriptors

LIMIT = 90
MORE_THAN_THERE_ARE = 100
STARVED = 'cannot accept connections on the control socket for the time being'


class LimitedBroker(broker.Broker):
    def command(self):
        return ['prlimit', '--nofile=%d:%d' % (LIMIT, LIMIT), *super().command()]


@broker.needs_own_broker
class Descriptors(RestartTest):
    def setUp(self):
        self.broker = LimitedBroker(settings=('handshake_timeout=600000',)).start()
        self.addCleanup(self.broker.__exit__, None, None, None)
        self.channel = self.connect()
        self.sockets = []
        self.addCleanup(lambda: [each.close() for each in self.sockets])

    def status(self):
        return json.loads(self.broker.ctl('--formatter', 'json', 'status'))

    def eventually(self, check, what):
        deadline = time.monotonic() + 20
        while not check():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def begin(self, count, *methods):
        for _ in range(count):
            client = socket.create_connection((self.broker.host, self.broker.port))
            client.sendall(wire.PROTOCOL_HEADER + b''.join(methods))
            self.sockets.append(client)

    def take_all(self):
        self.begin(MORE_THAN_THERE_ARE, wire.start_ok(), wire.tune_ok(), wire.open_vhost())
        self.eventually(lambda: self.status()['alarms'] == ['file_descriptor_limit'], 'no alarm')

    def test_the_broker_keeps_what_it_needs(self):
        self.take_all()
        status = self.status()
        self.assertEqual(status['file_descriptors']['limit'], LIMIT)
        self.assertLess(status['file_descriptors']['used'], LIMIT - 8)
        self.assertIn('File descriptor alarm on node', self.broker.ctl('status'))
        # Those who are connected do not notice: nothing is blocked, the store works.
        self.channel.confirm_delivery()
        self.channel.queue_declare('q', durable=True)
        self.channel.basic_publish('', 'q', 'm', pika.BasicProperties(delivery_mode=2))
        self.broker.ctl('add_vhost', 'another')
        self.broker.ctl('add_user', 'somebody', 'secret')
        self.assertEqual(self.channel.queue_declare('q', passive=True).method.message_count, 1)

    def test_who_has_not_logged_in_makes_way(self):
        self.begin(3 * MORE_THAN_THERE_ARE)
        self.connect().queue_declare('q')
        self.assertEqual(self.status()['alarms'], [])
        self.assertEqual(self.channel.queue_declare('q', passive=True).method.message_count, 0)
        self.broker.await_log('there are no descriptors for others who wait, and its handshake has not ended')

    def test_accepting_goes_on_by_itself(self):
        self.take_all()
        for client in self.sockets:
            client.close()
        late = pika.BlockingConnection(self.broker.parameters(connection_attempts=20, retry_delay=0.1))
        late.channel().queue_declare('q')
        late.close()
        self.eventually(lambda: self.status()['alarms'] == [], 'the alarm stays')
        log = self.broker.log()  # those who waited and have gone are accepted, too: perhaps it was full again
        self.assertGreaterEqual(log.count('file descriptor limit alarm set'), 1)
        self.assertEqual(log.count('file descriptor limit alarm set'), log.count('file descriptor limit alarm cleared'))
        self.take_all()  # and again

    def take_all_by_the_control_socket(self):
        def connect():
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sockets.append(client)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):  # others have yet to be accepted
                client.connect(os.path.join(self.broker.data_dir, 'control.sock'))
            return descriptors(self.broker.process.pid) == LIMIT

        self.eventually(connect, 'there are descriptors left')
        self.broker.await_log(STARVED)

    def test_the_control_socket_waits_for_descriptors(self):
        for _ in range(2):
            self.take_all_by_the_control_socket()
            before, began = cpu_seconds(self.broker.process.pid), time.monotonic()
            time.sleep(1)
            self.assertLess(cpu_seconds(self.broker.process.pid) - before, (time.monotonic() - began) / 20)
            self.channel.basic_publish('', 'nowhere', 'm')  # who is connected does not notice
            self.channel.queue_declare('q', durable=True)
            for client in self.sockets:
                client.close()
            self.sockets.clear()
            self.assertEqual(self.status()['alarms'], [])
        self.assertEqual(self.broker.log().count(STARVED), 1)


if __name__ == '__main__':
    tap.main()
