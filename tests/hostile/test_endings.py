#!/usr/bin/python3
"""Connections that end and whose client stays, reading or not: they are few, hold little, and are in nobody's way.

A user who may have one connection ends it, by a mistake or with connection.close, keeps the socket and comes back, again and
again. Beside it an honest one of the same kind, who closes and comes back at once, is never refused."""

import random
import struct
import time
import unittest

import broker
import costs
import crowd
import tap
import wire
from crowd import COUNT, TIMED, Neighbour

ENDINGS_MAX = 100       # of an address
OTHERS = 20             # of the honest, and what the broker itself may open
RECEIVE_OCTETS = 4096
CONNECT_P99 = 0.020

GOODBYE = wire.method(0, wire.CLOSE, struct.pack('>H', 200) + wire.short('') + b'\0\0\0\0')
ENDS = {'a mistake': (wire.open_vhost(), wire.CLOSE), 'a goodbye': (GOODBYE, wire.CLOSE_OK)}

BODY = bytes(8 << 20)    # more than a socket takes
LADEN = ENDINGS_MAX + 10 if TIMED else 6
OCTETS_EACH = 256 * 1024
LIMITED = 400           # descriptors


def id_of(method_id):
    return struct.pack('>HH', *method_id)


class AskingBroker(crowd.EncryptedBroker):
    """Two users who may have one connection each."""

    def start(self):
        super().start()
        for user in 'hostile', 'honest':
            self.ctl('add_user', user, 'secret')
            self.ctl('set_permissions', user, '.*', '.*', '.*')
            self.ctl('set_user_limits', user, '{"max-connections": 1}')
            wire.Wire(self.host, self.port).handshake(user=user, password='secret').close()     # the next login is quick
        return self

    def connect_hostile(self, source, receive_octets=None, encrypted=False):
        client = crowd.connect_from(source, self.host, self.tls_port if encrypted else self.port, receive_octets)
        if encrypted:
            client = self.encrypt(client)
        client.sendall(wire.PROTOCOL_HEADER + wire.start_ok('hostile', 'secret') + wire.tune_ok() + wire.open_vhost())
        crowd.await_octets(client, id_of(wire.OPEN_OK))
        return client


class Over(wire.Wire):
    """A connection over a socket that is there already."""

    def __init__(self, client):
        self.socket = client
        self.timeout = crowd.PATIENCE
        self.input = bytearray()
        self.taken = 0


class LimitedBroker(AskingBroker):
    def command(self):
        return ['prlimit', '--nofile=%d:%d' % (LIMITED, LIMITED), *super().command()]


@broker.needs_own_broker
class Endings(unittest.TestCase):
    def start(self, kind=AskingBroker, **settings):
        own = kind(settings=['%s=%s' % each for each in settings.items()]).start()
        self.addCleanup(own.__exit__, None, None, None)
        self.clients = []
        self.addCleanup(lambda: [client.close() for client in self.clients])
        return own

    def end_one(self, own, source, end, answer):
        client = own.connect_hostile(source)     # which fails if it is refused
        self.clients.append(client)
        client.sendall(end)
        crowd.await_octets(client, id_of(answer))

    def test_they_are_few(self):
        for name, (end, answer) in ENDS.items():
            own = self.start(connection_max_per_address=2, connection_max=2)
            before = costs.descriptors(own.process.pid)
            neighbour = Neighbour(own, pause=0, user='honest', password='secret')
            most = 0
            for _ in range(COUNT):
                self.end_one(own, 0, end, answer)
                most = max(most, costs.descriptors(own.process.pid) - before)
            connects = neighbour.end()
            p99 = crowd.percentile(connects, 0.99)
            print('# %d that end with %s: at most %d sockets at a time; %d honest connects, p99 %.1f ms' % (
                COUNT, name, most, len(connects), p99 * 1e3), flush=True)
            self.assertLessEqual(most, ENDINGS_MAX + OTHERS)
            if TIMED:
                self.assertLessEqual(p99, CONNECT_P99)
            for client in self.clients:
                client.close()
            crowd.eventually(lambda: costs.descriptors(own.process.pid) <= before, 'descriptors are left')
            own.stop()

    def test_they_take_nobodys_descriptor(self):
        own = self.start(LimitedBroker)
        neighbour = Neighbour(own, user='honest', password='secret')
        for name, (end, answer) in ENDS.items():
            for number in range(2 * LIMITED):
                self.end_one(own, number, end, answer)   # from several addresses
        self.assertGreater(len(neighbour.end()), 0)
        self.assertNotIn('file descriptor limit', own.log())

    def test_they_hold_little(self):
        own = self.start()
        pid = own.process.pid
        feeder = wire.Wire(own.host, own.port).handshake().open_channel()
        feeder.send(wire.queue_declare(1, 'q'))
        feeder.expect(wire.QUEUE_DECLARE_OK)
        before = costs.anonymous_octets(pid)
        message = wire.publish(1, '', 'q', BODY, persistent=False)
        for _ in range(LADEN):
            feeder.send(message)
            client = own.connect_hostile(0, RECEIVE_OCTETS)
            self.clients.append(client)
            client.sendall(wire.channel_open(1) + wire.consume(1, 'q', no_ack=True))
            crowd.await_octets(client, id_of(wire.DELIVER))
            client.sendall(wire.open_vhost())
            crowd.eventually(lambda: own.rows('list_connections', 'user', 'state').count(['hostile', 'running']) == 0, 'it goes on')
        grown = costs.anonymous_octets(pid) - before
        print('# %d with %d MiB to read: %d KiB' % (LADEN, len(BODY) >> 20, grown >> 10), flush=True)
        self.assertLessEqual(grown, LADEN * OCTETS_EACH)

    def test_who_is_slow_is_told_why(self):
        """After a mistake, while it has much to read: the frame that it is in the middle of comes whole, and then the text."""
        own = self.start()
        body = random.Random(1).randbytes(len(BODY))
        feeder = wire.Wire(own.host, own.port).handshake().open_channel()
        feeder.send(wire.queue_declare(1, 'q'))
        feeder.expect(wire.QUEUE_DECLARE_OK)
        for encrypted in False, True:
            feeder.send(wire.publish(1, '', 'q', body, persistent=False))
            client = Over(own.connect_hostile(0, RECEIVE_OCTETS, encrypted))
            self.clients.append(client.socket)
            client.send(wire.channel_open(1), wire.consume(1, 'q', no_ack=True))
            for expected in wire.CHANNEL_OPEN_OK, wire.CONSUME_OK, wire.DELIVER:
                client.expect(expected)
            client.send(wire.open_vhost())
            time.sleep(0.2)     # it does something else: the text has to wait for it, however long this takes
            self.assertEqual(client.read_frame()[0], wire.HEADER)
            read = 0
            while True:
                kind, _, payload = client.read_frame()
                if kind == wire.METHOD:
                    break
                self.assertEqual(payload, body[read:read + len(payload)])
                read += len(payload)
            self.assertLess(read, len(body))
            self.assertIn(b'CHANNEL_ERROR - unexpected method in connection state running', payload)
            client.send(wire.method(0, wire.CLOSE_OK))
            self.assertRaises(wire.Closed, client.read_frame)


if __name__ == '__main__':
    tap.main()
