#!/usr/bin/python3
"""Clients that come and go, politely or not: descriptors and memory are afterwards what they were."""

import struct
import socket
import unittest

import broker
import costs
import crowd
import tap
import wire
from crowd import COUNT, WHOLE_HANDSHAKE

# In the long form 100,000 in all.
PLAIN, ENCRYPTED = COUNT * 4, COUNT // 2
AT_ONCE = 50
GROWTH = 1024 * 1024
MESSAGES = 40   # so that what keeps account of them had to grow
RESET = struct.pack('ii', 1, 0)


@broker.needs_own_broker
class Churn(unittest.TestCase):
    def setUp(self):
        self.broker = crowd.EncryptedBroker().start()
        self.addCleanup(self.broker.__exit__, None, None, None)

    # How one of them comes, and how it goes

    def half_encrypted(self, number):
        client = crowd.connect_from(number, self.broker.host, self.broker.tls_port)
        client.sendall(crowd.client_hello())
        return client

    @staticmethod
    def say_all(client):
        queue = 'of-%s-%d' % client.getsockname()
        client.sendall(WHOLE_HANDSHAKE + wire.channel_open(1) + wire.queue_declare(1, queue, exclusive=True) +
                       wire.publish(1, '', queue, b'one of many') * (MESSAGES - 1) + wire.publish(1, '', queue, b'the last') +
                       wire.consume(1, queue))

    @staticmethod
    def await_messages(client):
        crowd.await_octets(client, b'the last')

    @staticmethod
    def ack_all(client):
        client.sendall(wire.ack(1, 0, multiple=True))

    @staticmethod
    def take_leave(client):
        client.sendall(wire.method(0, wire.CLOSE, struct.pack('>H', 200) + wire.short('') + b'\0\0\0\0'))
        crowd.await_octets(client, wire.method(0, wire.CLOSE_OK)[7:11])

    @staticmethod
    def reset(client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def churn(self, count, connect, *steps):
        """AT_ONCE of them at a time; every step of all before the next."""
        for at in range(0, count, AT_ONCE):
            clients = [connect(number) for number in range(at, min(at + AT_ONCE, count))]
            for step in steps:
                for client in clients:
                    step(client)
            for client in clients:
                client.close()

    def growth(self, name, count, connect, *steps):
        pid = self.broker.process.pid
        before, busy = costs.anonymous_octets(pid), costs.cpu_seconds(pid)
        self.churn(count, connect, *steps)
        self.broker.await_empty()
        growth = costs.anonymous_octets(pid) - before
        print('# %d %s: %+d KiB, %d us of CPU each' % (
            count, name, growth // 1024, (costs.cpu_seconds(pid) - busy) / count * 1e6), flush=True)
        return growth

    def check(self, name, *clients):
        self.churn(*clients)     # what peaks, peaks
        self.broker.await_empty()
        # A higher peak, of threads that met otherwise, shows once; a leak each time.
        if self.growth(name, *clients) > GROWTH:
            self.assertLessEqual(self.growth(name, *clients), GROWTH, name)
        self.assertEqual(self.broker.rows('list_connections', 'name'), [])
        self.assertEqual(self.broker.rows('list_queues', 'name'), [])

    def test_no_word(self):
        self.check('connects and closes', PLAIN, self.broker.connect)

    def test_a_protocol_header_and_a_reset(self):
        self.check('resets after a protocol header', PLAIN, self.broker.connect,
                   lambda client: client.sendall(wire.PROTOCOL_HEADER), self.reset)

    def test_a_whole_conversation(self):
        self.check('polite clients', COUNT, self.broker.connect, self.say_all, self.await_messages, self.ack_all,
                   self.take_leave)

    def test_a_reset_in_the_middle(self):
        self.check('resets with messages unacknowledged', COUNT, self.broker.connect, self.say_all, self.await_messages, self.reset)

    def test_a_tls_handshake_that_is_left(self):
        self.check('half TLS handshakes', ENCRYPTED, self.half_encrypted)

    def test_tls(self):
        self.check('TLS clients', ENCRYPTED, self.broker.connect_encrypted, self.say_all, self.await_messages, self.ack_all,
                   self.take_leave)

    def test_a_reset_over_tls(self):
        self.check('resets over TLS', ENCRYPTED, self.broker.connect_encrypted, self.say_all, self.await_messages, self.reset)


if __name__ == '__main__':
    tap.main()
