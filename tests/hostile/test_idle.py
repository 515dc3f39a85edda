#!/usr/bin/python3
"""Connections that are open and say nothing: what each of them costs."""

import unittest

import broker
import costs
import crowd
import tap
import wire
from crowd import COUNT, WHOLE_HANDSHAKE

PLAIN_OCTETS, TLS_OCTETS = 6 * 1024, 40 * 1024
KEPT = 1024 * 1024
CROWD = 1000            # whose memory the broker may keep for the next


@broker.needs_own_broker
class Idle(unittest.TestCase):
    def setUp(self):
        self.broker = crowd.EncryptedBroker().start()
        self.addCleanup(self.broker.__exit__, None, None, None)
        # The first of each kind pay for what all have in common.
        for connect in self.broker.connect, self.broker.connect_encrypted:
            self.converse(connect(0), True).close()

    @staticmethod
    def converse(client, with_channel):
        """All at once: the broker takes it in order. Returns the client when it has heard the end."""
        client.sendall(WHOLE_HANDSHAKE + (wire.channel_open(1) if with_channel else b''))
        last = wire.method(1, wire.CHANNEL_OPEN_OK) if with_channel else wire.method(0, wire.OPEN_OK)
        crowd.await_octets(client, last[7:11])
        return client

    def measure(self, name, connect, with_channel, limit):
        pid = self.broker.process.pid
        before, busy_before = costs.anonymous_octets(pid), costs.cpu_seconds(pid)
        clients = []
        try:
            for number in range(COUNT):
                clients.append(self.converse(connect(number), with_channel))
            each = (costs.anonymous_octets(pid) - before) / COUNT
            print('# %s: %d octets each, %d us of CPU to connect' % (
                name, each, (costs.cpu_seconds(pid) - busy_before) / COUNT * 1e6), flush=True)
            self.assertLessEqual(each, limit, name)
            self.assertGreaterEqual(costs.descriptors(pid), COUNT)
        finally:
            for client in clients:
                client.close()
        self.broker.await_empty()
        kept = costs.anonymous_octets(pid) - before
        print('# %s: %d KiB when they have gone' % (name, kept / 1024), flush=True)
        self.assertLessEqual(kept, KEPT + min(COUNT, CROWD) * limit, name)

    def test_a_connection(self):
        self.measure('plain', self.broker.connect, False, PLAIN_OCTETS)

    def test_a_connection_with_a_channel(self):
        self.measure('plain, one channel', self.broker.connect, True, PLAIN_OCTETS)

    def test_a_connection_over_tls(self):
        self.measure('TLS, one channel', self.broker.connect_encrypted, True, TLS_OCTETS)


if __name__ == '__main__':
    tap.main()
