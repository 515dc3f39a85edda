#!/usr/bin/python3
"""Sockets that never become connections: each costs little, is gone in time, and is in nobody's way."""

import unittest

import broker
import costs
import crowd
import tap
import wire
from crowd import COUNT, TIMED, Crowd, Neighbour

OCTETS_EACH = 16 * 1024
INITIAL_FRAME = 8192
CONNECT_P99 = 0.020
TIMEOUT = 10.0 if TIMED else 2.0

HEADER = wire.PROTOCOL_HEADER
START_OK = wire.start_ok()
# With as large a payload as there may be before the login, and never whole; the buffer of one that drips has had to grow.
LARGE_START_OK = wire.start_ok(response=b'x' * (INITIAL_FRAME + len(wire.frame(1, 0, b'')) - len(wire.start_ok(response=b''))))[:-1]

HELLO = crowd.client_hello()

# By name: what is said at once, and then octet by octet.
PLAIN = {
    'nothing': (b'', b''),
    'half a protocol header': (HEADER[:4], b''),
    'a protocol header by octets': (b'', HEADER + START_OK),
    'a protocol header, then nothing': (HEADER, b''),
    'start-ok by octets': (HEADER, START_OK),
    'nearly all of the largest start-ok': (HEADER + LARGE_START_OK, b''),
    'the end of the largest start-ok by octets': (HEADER + LARGE_START_OK[:INITIAL_FRAME - 1], LARGE_START_OK[INITIAL_FRAME - 1:]),
    'a login, then nothing': (HEADER + START_OK, b''),
}
TLS = {
    'nothing, with TLS': (b'', b''),
    'half a client hello': (HELLO[:len(HELLO) // 2], b''),
    'a client hello by octets': (HELLO[:7], HELLO[7:]),
}
UNANSWERED = 'a client hello, then nothing'
HANDSHAKES = 1000 if TIMED else COUNT // 10


@broker.needs_own_broker
class HalfOpen(unittest.TestCase):
    def start(self, timeout):
        own = crowd.EncryptedBroker(['handshake_timeout=%d' % (timeout * 1000), 'ssl_handshake_max=%d' % HANDSHAKES]).start()
        self.addCleanup(own.__exit__, None, None, None)
        wire.Wire(own.host, own.port).handshake().close()
        own.await_empty()
        return own

    def measure(self, own, name, port, opening, drip):
        pid = own.process.pid
        before = costs.anonymous_octets(pid)
        with Crowd(own, COUNT, opening, port) as peers:
            peers.gather()
            crowd.eventually(lambda: costs.descriptors(pid) >= own.descriptors + COUNT, 'not all are accepted')
            for _ in range(min(len(drip), 3)):
                dripped = peers.dripped
                peers.attend(lambda: peers.dripped > dripped, drip, every=0.1)
            if opening.startswith(HEADER):
                peers.attend(lambda: len(peers.answered) == COUNT)
            wire.Wire(own.host, own.port).handshake().close()  # what came before it has been looked at
            each = (costs.anonymous_octets(pid) - before) / COUNT
            print('# %s: %d octets each' % (name, each), flush=True)
            self.assertEqual(len(peers.members), COUNT, name + ': some have been sent away')
            self.assertLessEqual(each, OCTETS_EACH, name)
        own.await_empty()

    def test_each_costs_little(self):
        for kinds in PLAIN, TLS:
            for name, (opening, drip) in kinds.items():
                own = self.start(600)
                self.measure(own, name, own.port if kinds is PLAIN else own.tls_port, opening, drip)
                own.stop()

    def test_handshakes_that_do_not_go_on_have_a_limit(self):
        own = self.start(600)
        pid = own.process.pid
        before = costs.anonymous_octets(pid)
        with Crowd(own, COUNT, HELLO, own.tls_port) as peers:
            peers.gather()
            peers.attend(lambda: len(peers.members) <= HANDSHAKES)
            each = (costs.anonymous_octets(pid) - before) / COUNT
            print('# %s: %d octets each, at most %d of them at a time' % (UNANSWERED, each, HANDSHAKES), flush=True)
            self.assertEqual(len(peers.members), HANDSHAKES)
            self.assertLessEqual(each, OCTETS_EACH)
            own.await_log('it has not gone on, and others have begun (ssl_handshake_max)')
            own.connect_encrypted(0).close()
        own.await_empty()

    def test_all_are_gone_in_time_and_in_nobodys_way(self):
        own = self.start(TIMEOUT)
        neighbour = Neighbour(own)
        kinds = [(own.tls_port, HELLO, b'')] + [(port, *how) for port, those in ((own.port, PLAIN), (own.tls_port, TLS)) for how in those.values()]
        crowds = [Crowd(own, COUNT // len(kinds), opening, port) for port, opening, _ in kinds]
        for peers in crowds:
            self.addCleanup(peers.__exit__, None, None, None)
            peers.gather()
        while any(peers.members for peers in crowds):
            for peers, (_, _, drip) in zip(crowds, kinds):
                turns = iter((False, True))
                peers.attend(lambda: next(turns), drip)
        connects = neighbour.end()
        lives = [life for peers in crowds for life in peers.lives]
        own.await_empty()
        self.assertGreater(min(crowds[1].lives), TIMEOUT * 0.9)
        if not TIMED:
            return
        slowest = crowd.percentile(connects, 0.99)
        print('# %d sockets: gone after %.2f to %.2f s; %d honest connects: median %.1f ms, p99 %.1f ms, at most %.1f ms' % (
            len(lives), min(lives), max(lives), len(connects), crowd.percentile(connects, 0.5) * 1e3, slowest * 1e3,
            max(connects) * 1e3), flush=True)
        self.assertLess(max(lives), TIMEOUT + 1)
        self.assertLessEqual(slowest, CONNECT_P99)


if __name__ == '__main__':
    tap.main()
