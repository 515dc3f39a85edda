#!/usr/bin/python3
"""ClientHellos as fast as one address can send them: each the same octets again, and a signature for who has to answer.

What is judged is the order in which the broker has answered: the kernel notes when each answer came (SO_TIMESTAMPNS), however
late anybody looks. In make hostile times are judged, too."""

import multiprocessing
import socket
import ssl
import struct
import time
import unittest

import broker
import crowd
import tap
import wire

FLOODER, HONEST = '127.0.0.2', '127.0.0.1'
SO_TIMESTAMPNS = 35
BURST = 400
IN_BETWEEN = 40     # an honest peer's turn comes after a handful; with one line for all it would be the last
ROUNDS, ATTEMPTS = 3, 20
SECONDS = 10
SLOWEST = 1.0


def connect(source, port):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    client.settimeout(crowd.PATIENCE)
    client.bind((source, 0))
    client.connect(('127.0.0.1', port))
    return client


def now():
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def receive(client):
    """What has come, and when the last of it came."""
    octets, notes, _, _ = client.recvmsg(65536, 256)
    for level, kind, value in notes:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, rest = struct.unpack('qq', value)
            return octets, seconds * 10**9 + rest
    return octets, None


class Honest:
    """Shakes hands, and asks for a login."""

    def __init__(self, own):
        self.client = connect(HONEST, own.tls_port)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = own.context.wrap_bio(self.incoming, self.outgoing, server_hostname='localhost')
        self.asked = self.answered = None

    def _send(self):
        octets = self.outgoing.read()
        if octets:
            self.client.sendall(octets)

    def _exchange(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._send()
                octets, at = receive(self.client)
                assert octets, 'it was ended'
                self.answered = self.answered or at
                self.incoming.write(octets)

    def connect(self):
        self.asked = now()
        self._exchange(self.tls.do_handshake)
        self.tls.write(wire.PROTOCOL_HEADER)
        self._send()
        assert self._exchange(lambda: self.tls.read(1)) == b'\x01'
        self.client.close()
        return self


class Flood:
    """A process that begins handshakes and never goes on."""

    def __init__(self, own, members):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self._run, args=(theirs, own.tls_port, crowd.client_hello(), members))
        self.process.start()
        theirs.close()

    @staticmethod
    def _run(theirs, port, hello, members):
        clients, count = [], 0
        while not theirs.poll():
            try:
                clients.append(connect(FLOODER, port))
                clients[-1].sendall(hello)
                count += 1
            except OSError:
                pass
            if len(clients) > members:
                clients.pop(0).close()
        theirs.send(count)

    def end(self):
        self.ours.send('enough')
        count = self.ours.recv()
        self.process.join()
        return count


@broker.needs_own_broker
class TlsFlood(unittest.TestCase):
    def start(self, *settings):
        own = crowd.EncryptedBroker(settings, kind='rsa').start()
        self.addCleanup(own.__exit__, None, None, None)
        return own

    def burst(self, own, count):
        """All have connected, and say the same at once."""
        hello = crowd.client_hello()
        clients = [connect(FLOODER, own.tls_port) for _ in range(count)]
        for client in clients:
            self.addCleanup(client.close)
        for client in clients:
            client.sendall(hello)
        return clients

    def test_addresses_take_turns(self):
        own = self.start('ssl_handshake_max=%d' % (ATTEMPTS * BURST))
        judged = 0
        for _ in range(ATTEMPTS):
            flood = self.burst(own, BURST)
            honest = Honest(own).connect()
            answers = [receive(client)[1] for client in flood]
            waiting = sum(honest.asked < at for at in answers)
            before = sum(honest.asked < at < honest.answered for at in answers)
            print('# %d of the flood were waiting, and %d were answered before' % (waiting, before), flush=True)
            self.assertLessEqual(before, IN_BETWEEN)
            judged += waiting > 2 * IN_BETWEEN      # else we were too slow to be a flood
            if judged == ROUNDS:
                return
        self.fail('there was no flood')

    def test_a_line_has_an_end(self):
        own = self.start('ssl_handshake_max_per_address=50')
        ended = 0
        for client in self.burst(own, BURST):
            try:
                ended += receive(client)[0] == b''
            except ConnectionResetError:
                ended += 1
        self.assertGreater(ended, 0)
        self.assertLess(ended, BURST)
        own.await_log('too many others from its address wait for theirs (ssl_handshake_max_per_address)')
        Honest(own).connect()

    @unittest.skipUnless(crowd.TIMED, 'times are for make hostile')
    def test_honest_handshakes_stay_quick(self):
        own = self.start()
        flood = Flood(own, 9000)
        time.sleep(1)
        taken = []
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            began = time.monotonic()
            Honest(own).connect()
            taken.append(time.monotonic() - began)
        count = flood.end()
        print('# %d handshakes of a flood in %d s; %d honest ones: median %.1f ms, p99 %.1f ms, at most %.1f ms' % (
            count, SECONDS + 1, len(taken), crowd.percentile(taken, 0.5) * 1e3, crowd.percentile(taken, 0.99) * 1e3,
            max(taken) * 1e3), flush=True)
        self.assertLess(max(taken), SLOWEST)


if __name__ == '__main__':
    tap.main()
