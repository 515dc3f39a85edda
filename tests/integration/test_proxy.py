#!/usr/bin/python3
"""Clients that come through a proxy, with and without TLS (1.1); more in unit/test_proxy_header and unit/test_listener."""

import shutil
import socket
import ssl
import struct
import tempfile
import time
import unittest

import broker
import tap
import wire
from certificates import Certificates


def line(source):
    return ('PROXY TCP4 %s 198.51.100.7 51234 5672\r\n' % source).encode()


def binary(source):
    return (b'\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c' + socket.inet_aton(source) + socket.inet_aton('198.51.100.7') +
            struct.pack('>HH', 51234, 5672))


class Proxied(unittest.TestCase):
    settings = ()

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix='certificates-')
        made = Certificates(cls.directory)
        made.authority('root')
        made.leaf('server', 'root', names='IP:127.0.0.1')
        cls.context = ssl.create_default_context(cafile=made.path('root'))
        cls.tls_port = broker.free_port()
        cls.broker = broker.Broker(('proxy_protocol=true', *cls.settings,
                                    'listeners.ssl.default=127.0.0.1:%d' % cls.tls_port,
                                    'ssl_options.certfile=' + made.path('server'),
                                    'ssl_options.keyfile=' + made.key('server'))).start()

    @classmethod
    def tearDownClass(cls):
        cls.broker.__exit__(None, None, None)
        shutil.rmtree(cls.directory)

    def connect(self, begin, tls=False):
        connection = wire.Wire('127.0.0.1', self.tls_port if tls else self.broker.port)
        self.addCleanup(lambda: connection.socket.close())
        connection.send(begin)
        if tls:
            connection.socket = self.context.wrap_socket(connection.socket, server_hostname='127.0.0.1')
        return connection

    def login(self, connection):
        """What the broker says to guest: tune, or close with its code."""
        connection.send(wire.PROTOCOL_HEADER)
        connection.expect(wire.START)
        connection.send(wire.start_ok(capabilities={'authentication_failure_close': True}))
        got = connection.read_method()
        return got.id if got.id == wire.TUNE else wire.close_reason(got.arguments)[0]


@broker.needs_own_broker
class Headers(Proxied):
    settings = ('handshake_timeout=3000',)

    def test_1_1_guest_is_who_comes_from_here_by_the_header(self):  # CVE-2026-57216
        for tls, header in ((False, line), (False, binary), (True, line), (True, binary)):
            with self.subTest(tls=tls, header=header.__name__):
                self.assertEqual(self.login(self.connect(header('127.0.0.1'), tls)), wire.TUNE)
        self.assertEqual(self.login(self.connect(line('192.0.2.1'))), 403)
        self.assertEqual(self.login(self.connect(binary('192.0.2.1'), tls=True)), 403)

    def test_1_1_the_proxy_itself(self):
        for header in (b'PROXY UNKNOWN\r\n', b'\r\n\r\n\0\r\nQUIT\n\x20\0\0\0'):
            self.assertEqual(self.login(self.connect(header)), wire.TUNE)

    def test_1_1_without_a_header_nobody_is_let_in(self):  # CVE-2026-57216
        for begin in (wire.PROTOCOL_HEADER, b'PROXY TCP4 nowhere nowhere 1 2\r\n' + wire.PROTOCOL_HEADER, b'PROXY TCP4 '):
            with self.subTest(begin=begin), self.assertRaises(wire.Closed):
                self.connect(begin).read_frame()
        self.broker.await_log('does not begin with a PROXY protocol header')
        self.broker.await_log('no PROXY protocol header came in time')


@broker.needs_own_broker
class Gone(Proxied):
    """Each kind has a broker, and so a log, of its own: LOG_BURST lines a second are written there, and no more."""
    tls = False

    def ends(self, why=''):
        return sum('closing AMQP connection 192.0.2.1:' in line and why in line for line in self.broker.log().splitlines())

    def test_4_2_5_who_hangs_up_has_no_turn(self):
        for guess in range(30):
            connection = self.connect(binary('192.0.2.1'), self.tls)
            connection.send(wire.PROTOCOL_HEADER)
            connection.expect(wire.START)
            connection.send(wire.start_ok(password='wrong %d' % guess))
            connection.socket.close()
        deadline = time.monotonic() + 10
        while self.ends() < 30 and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(self.ends(), 30)
        self.assertGreater(self.ends('client unexpectedly closed TCP connection'), 20)


@broker.needs_own_broker
class GoneOverTls(Gone):
    tls = True


if __name__ == '__main__':
    tap.main()
