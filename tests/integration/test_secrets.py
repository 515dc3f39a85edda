#!/usr/bin/python3
"""Canaries: every secret that a broker is given is a word of its own, and none of them is found in what it tells."""

import base64
import os
import re
import socket
import subprocess
import tempfile
import unittest

import pika

import broker
import tap
import wire
from certificates import Certificates

UPDATE_SECRET = (10, 70)
BASIC = base64.b64encode(b'first:CANARY-basic')

LISTS = (
    ('status',), ('environment',), ('list_channels',), ('list_users',), ('list_vhosts',), ('list_permissions',), ('list_topic_permissions',), ('list_user_limits',),
    ('list_vhost_limits',), ('list_connections',), ('list_queues',), ('list_exchanges',), ('list_bindings',), ('list_consumers',),
    ('list_policies',), ('list_operator_policies',), ('list_quarantine',), ('list_user_permissions', 'app'),
    ('list_user_topic_permissions', 'app'),
)
MISTAKES = (
    ('add_user', 'app', 'CANARY-said-twice'), ('authenticate_user', 'app', 'CANARY-tried'),
    ('change_password', 'nobody', 'CANARY-for-nobody'), ('add_user', 'app', 'CANARY-one', 'CANARY-too-many'),
)


@broker.needs_own_broker
class Secrets(unittest.TestCase):
    def ctl(self, *words, status=None):
        """All that stoatctl prints."""
        done = subprocess.run([str(broker.BUILD / 'stoatctl'), '--data-dir', self.broker.data_dir, *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', errors='replace', timeout=30)
        if status is not None:
            self.assertEqual(done.returncode, status, done.stdout)
        return done.stdout

    def hashes(self):
        """Those of all users, which the control socket gives to root and the broker's own user; asked with a password as well."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(20)
            control.connect(os.path.join(self.broker.data_dir, 'control.sock'))
            control.sendall(b'GET /api/users HTTP/1.1\r\nConnection: close\r\nAuthorization: Basic %s\r\n\r\n' % BASIC)
            answer = b''.join(iter(lambda: control.recv(65536), b''))
        self.assertNotIn(BASIC, answer)
        return re.findall(r'"password_hash":\s*"([^"]{40,})"', answer.decode())

    def raw(self, *said):
        """What the broker says to somebody who says this."""
        with wire.Wire('127.0.0.1', self.broker.port) as connection:
            connection.send(wire.PROTOCOL_HEADER)
            connection.expect(wire.START)
            connection.send(*said)
            got = connection.read_method(timeout=20)
            self.assertEqual(got.id, wire.CLOSE)
            return got.arguments.decode(errors='replace')

    def start(self):
        made = Certificates(tempfile.mkdtemp(prefix='certificates-'))
        made.authority('root')
        made.leaf('server', 'root', names='DNS:localhost', password='CANARY-of-the-key')
        self.broker = broker.Broker((
            'log.console.level=debug', 'default_user=first', 'default_pass=CANARY-default', 'listeners.ssl.default=127.0.0.1:0',
            'ssl_options.certfile=' + made.path('server'), 'ssl_options.keyfile=' + made.key('server'),
            'ssl_options.password=CANARY-of-the-key', 'login_delay_max=100')).start()
        self.addCleanup(self.broker.__exit__, None, None, None)

    def refusals(self):
        """Logins that are refused, each in its own way, and an AMQP error while logged in."""
        understands = {'authentication_failure_close': True}
        yield self.raw(wire.start_ok('first', 'CANARY-wrong', capabilities=understands))
        yield self.raw(wire.start_ok('nobody', 'CANARY-unknown', capabilities=understands))
        for response in (b'CANARY-shapeless', b'x\0first\0CANARY-impersonated', b'\0first\0CANARY\0-cut'):
            yield self.raw(wire.start_ok(response=response, capabilities=understands))
        amqplain = wire.table(LOGIN='first', PASSWORD='CANARY-amqplain')[4:]
        yield self.raw(wire.start_ok(mechanism='AMQPLAIN', response=amqplain, capabilities=understands))
        yield self.raw(wire.start_ok(mechanism='AMQPLAIN', response=amqplain[:-3], capabilities=understands))
        yield self.raw(wire.start_ok(mechanism='BASIC', response=BASIC, capabilities=understands))
        yield self.raw(wire.start_ok(response=b'\0first\0CANARY-long' + b'y' * 5000, capabilities=understands))
        with wire.Wire('127.0.0.1', self.broker.port) as connection:
            connection.send(wire.PROTOCOL_HEADER, wire.start_ok('first', 'CANARY-default'), wire.tune_ok(), wire.open_vhost())
            for method in (wire.START, wire.TUNE, wire.OPEN_OK):
                connection.expect(method)
            connection.send(wire.method(0, UPDATE_SECRET, wire.long('CANARY-new') + wire.short('because')))
            yield connection.expect(wire.CLOSE).arguments.decode(errors='replace')

    def test_none_is_told(self):  # CVE-2025-50200
        self.start()
        self.ctl('add_user', 'app', 'CANARY-app', status=0)
        self.ctl('set_permissions', 'app', '.*', '.*', '.*', status=0)
        self.ctl('change_password', 'app', 'CANARY-changed', status=0)
        told = ['\n'.join(self.refusals())]
        self.assertIn('invalid credentials', self.broker.log())
        with pika.BlockingConnection(self.broker.parameters('app', 'CANARY-changed')) as connection:
            connection.channel().queue_declare('q', exclusive=True)
            told += [self.ctl('--formatter', formatter, *words, status=0) for words in LISTS for formatter in ('table', 'json')]
            told += [self.ctl(*words) for words in MISTAKES]
        hashes = self.hashes()
        self.assertEqual(len(hashes), 2)
        socket.create_connection(('127.0.0.1', self.broker.port)).close()  # which only those hear of who debug
        self.broker.await_log('[debug] closing')
        self.broker.stop()
        for name, text in [('the log', self.broker.log())] + [('an answer', text) for text in told]:
            for secret in ['CANARY', BASIC.decode(), *hashes]:
                self.assertNotIn(secret, text, name)


if __name__ == '__main__':
    tap.main()
