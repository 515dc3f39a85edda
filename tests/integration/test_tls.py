#!/usr/bin/python3
"""AMQP over TLS: versions, keys, chains, client certificates, reloading, resumption, and peers that do not keep to it."""

import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest

import pika

import broker
import tap
from certificates import Certificates

HANDSHAKE_TIMEOUT_MS = 1500
TRIES = 30

WORDY = ('/C=DE/ST=HE/L=FD/O=A, B/OU=1/OU="x"; <y> = a~b+SN=Stoat/GN=Jane/initials=J/generationQualifier=IV/title=Dr/serialNumber=7'
         '/pseudonym=p/DC=example/DC=org/emailAddress=m@x.de/street=S/UID=u1/postalCode=3/description=#d/CN=app')
# What RabbitMQ 3.10.8 says of it (rabbit_cert_info:subject).
WORDY_NAME = ('CN=app,2.5.4.13=\\#d,2.5.4.17=3,UID=u1,2.5.4.9=S,EMAILADDRESS=m@x.de,DC=org,DC=example,PSEUDONYM=p,SERIALNUMBER=7,TITLE=Dr,'
              'GENERATIONQUALIFIER=IV,INITIALS=J,GIVENNAME=Jane,SN=Stoat+OU=\\"x\\"\\; \\<y\\> = a\\7Eb,OU=1,O=A\\, B,L=FD,ST=HE,C=DE')


class Made:
    """The certificates of all tests here, made once."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix='certificates-')
        made = self.all = Certificates(self.directory)
        made.authority('root')
        made.authority('middle', signer='root')
        made.authority('stranger')
        made.leaf('server', 'middle', names='DNS:localhost,IP:127.0.0.1')
        made.leaf('other', 'middle', names='DNS:localhost,IP:127.0.0.1')
        made.leaf('rsa', 'root', kind='rsa', names='DNS:localhost')
        made.leaf('locked', 'root', names='DNS:localhost', password='open sesame')
        made.leaf('client', 'middle', subject='/O=StoatMQ tests/CN=app', names='DNS:app.example')
        made.leaf('double', 'middle', subject='/O=StoatMQ tests/CN=app/CN=guest')
        made.leaf('wordy', 'middle', subject=WORDY)
        made.leaf('forged', 'stranger', subject='/O=StoatMQ tests/CN=app')
        made.authority('twin', subject='/O=StoatMQ tests/CN=middle')
        made.leaf('impostor', 'twin', subject='/O=StoatMQ tests/CN=app', serial=made.serials['client'])
        made.leaf('expired', 'root', subject='/O=StoatMQ tests/CN=app', days=0)


made = None


def setUpModule():
    global made
    made = Made()


class TlsTest(unittest.TestCase):
    def start(self, certificate='server', *settings, key=None):
        self.port = broker.free_port()
        self.broker = broker.Broker((
            'listeners.ssl.default=127.0.0.1:%d' % self.port,
            'ssl_options.certfile=' + made.all.path(certificate),
            'ssl_options.keyfile=' + (key or made.all.key(certificate)),
            'handshake_timeout=%d' % HANDSHAKE_TIMEOUT_MS, *settings)).start()
        self.addCleanup(self.broker.__exit__, None, None, None)

    def context(self, client=None, version=None):
        context = ssl.create_default_context(cafile=made.all.path('root'))
        if client is not None:
            context.load_cert_chain(made.all.path(client), made.all.key(client))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    def connect(self, context=None):
        options = pika.SSLOptions(context or self.context(), 'localhost')
        connection = pika.BlockingConnection(pika.ConnectionParameters(
            '127.0.0.1', self.port, ssl_options=options, socket_timeout=10, stack_timeout=10))
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection

    def work(self, connection):
        """Messages of many sizes there and back, with confirms and acknowledgements."""
        bodies = [bytes([i % 256]) * (i * i * 37 % 300000) for i in range(60)] + [os.urandom(3000000)]
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare('work', durable=True)
        for body in bodies:
            channel.basic_publish('', 'work', body, pika.BasicProperties(delivery_mode=2))
        for body in bodies:
            method, _, got = channel.basic_get('work')
            self.assertEqual(got, body)
            channel.basic_ack(method.delivery_tag)

    def raw(self, context=None):
        """A TLS stream of its own, and what the broker's certificate says."""
        plain = socket.create_connection(('127.0.0.1', self.port), timeout=10)
        stream = (context or self.context()).wrap_socket(plain, server_hostname='localhost')
        self.addCleanup(stream.close)
        return stream

    def openssl(self, *words):
        """What openssl s_client says of a connection on which it then talks nonsense."""
        return subprocess.run(['openssl', 's_client', '-connect', '127.0.0.1:%d' % self.port, '-ign_eof', *words],
                              input=b'hello, who is there?', timeout=20, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL).stdout.decode(errors='replace')

    def refused(self, context):
        """The handshake fails, or, as TLS 1.3 has it, the first read after it."""
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            stream = self.raw(context)
            stream.sendall(b'AMQP\0\0\x09\x01')
            if stream.recv(1) == b'':
                raise ConnectionError('closed')


@broker.needs_own_broker
class Serving(TlsTest):
    def test_both_versions_do_the_work(self):
        self.start()
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            with self.subTest(version=version):
                self.work(self.connect(self.context(version=version)))

    def test_an_rsa_key(self):
        self.start('rsa')
        self.work(self.connect())

    def test_a_key_with_a_password(self):
        self.start('locked', 'ssl_options.password=open sesame')
        self.connect()

    def test_a_chain_is_sent_whole(self):
        self.start()
        self.assertEqual(self.raw().getpeercert()['subject'][-1], (('commonName', 'server'),))

    def test_one_version_only(self):
        self.start('server', 'ssl_options.versions.1=tlsv1.3')
        self.connect(self.context(version=ssl.TLSVersion.TLSv1_3))
        self.refused(self.context(version=ssl.TLSVersion.TLSv1_2))

    def test_stoatperf(self):
        self.start()
        def perf(host, *trust, messages=100, **environment):
            return subprocess.run(
                [broker.BUILD / 'stoatperf', '--uri', 'amqps://%s:%d' % (host, self.port), *trust, '--messages', str(messages),
                 '--size', '1000', '--persistent', '--confirm', '1000', '--ack', '10', '--verify'],
                capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
        for host in ('localhost', '127.0.0.1'):
            self.assertEqual(perf(host, '--cacert', made.all.path('root'), messages=30000).returncode, 0)
        self.assertEqual(perf('localhost', SSL_CERT_FILE=made.all.path('root')).returncode, 0)  # the system's store
        self.assertEqual(perf('localhost', '--insecure').returncode, 0)
        for trust in ((), ('--cacert', made.all.path('stranger'))):
            stranger = perf('localhost', *trust)
            self.assertEqual(stranger.returncode, 69)
            self.assertIn('unable to get local issuer certificate; --cacert names the certificates to trust', stranger.stderr)
        self.assertEqual(perf('localhost', '--insecure', '--cacert', made.all.path('root')).returncode, 64)

    def test_stoatperf_outlives_the_broker(self):
        """A write to a socket that was reset is an error like others, with TLS, too."""
        self.start()
        perf = subprocess.Popen(
            [broker.BUILD / 'stoatperf', '--uri', 'amqps://localhost:%d' % self.port, '--cacert', made.all.path('root'),
             '--producers', '4', '--time', '60', '--interval', '0.1'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for line in perf.stdout:
            if ' s  published' in line:
                break
        self.broker.kill()
        _, told = perf.communicate(timeout=60)
        self.assertGreater(perf.returncode, 0)
        self.assertIn('stoatperf: ', told)

    def test_ciphers_that_are_named(self):
        self.start('server', 'ssl_options.ciphers.1=ECDHE-ECDSA-AES128-GCM-SHA256',
                   'ssl_options.ciphers.2=TLS_AES_128_GCM_SHA256')
        for version, cipher in ((ssl.TLSVersion.TLSv1_3, 'TLS_AES_128_GCM_SHA256'),
                                (ssl.TLSVersion.TLSv1_2, 'ECDHE-ECDSA-AES128-GCM-SHA256')):
            self.assertEqual(self.raw(self.context(version=version)).cipher()[0], cipher)

    def test_weak_ciphers_that_are_named_are_warned_of(self):
        self.start('rsa', 'ssl_options.ciphers.1=ECDHE-RSA-AES128-GCM-SHA256', 'ssl_options.ciphers.2=AES128-GCM-SHA256')
        self.assertIn('cipher AES128-GCM-SHA256 has no forward secrecy', self.broker.log())

    def test_weak_ciphers_are_not_spoken(self):
        self.start()
        self.broker.check_quiet()
        for cipher in ('ECDHE-ECDSA-AES128-SHA256', 'ECDHE-ECDSA-AES256-SHA', 'AES128-GCM-SHA256'):
            context = self.context(version=ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(cipher)
            self.refused(context)

    def test_sessions_are_resumed(self):
        self.start()
        context = self.context(version=ssl.TLSVersion.TLSv1_2)
        first = self.raw(context)
        plain = socket.create_connection(('127.0.0.1', self.port), timeout=10)
        with context.wrap_socket(plain, server_hostname='localhost', session=first.session) as second:
            self.assertTrue(second.session_reused)

    def test_tickets_of_1_3_are_taken(self):
        self.start()
        with tempfile.TemporaryDirectory() as directory:
            session = os.path.join(directory, 'session')
            self.assertIn('New, ', self.openssl('-tls1_3', '-sess_out', session))
            self.assertIn('Reused, ', self.openssl('-tls1_3', '-sess_in', session))

    def test_limits_hold_here_too(self):  # CVE-2026-66067
        self.start('server', 'max_message_size=1000', 'connection_max=2')
        plain = pika.BlockingConnection(self.broker.parameters())
        self.addCleanup(plain.close)
        for connection in (plain, self.connect()):
            with self.assertRaisesRegex(pika.exceptions.ChannelClosedByBroker, 'larger than configured max size 1000'):
                channel = connection.channel()
                channel.confirm_delivery()
                channel.basic_publish('', 'q', b'x' * 1001)
        for connect in (self.connect, lambda: pika.BlockingConnection(self.broker.parameters())):
            with self.assertRaisesRegex(pika.exceptions.AMQPConnectionError, r'connection limit \(2\) is reached'):
                connect()
        stream = self.raw()
        stream.sendall(b'AMQP\0\0\x09\x01' + b'\1\0\0\0\0\x4e\x20')
        said = b''
        while b'FRAME_ERROR' not in said:
            piece = stream.recv(65536)
            self.assertTrue(piece, said)
            said += piece

    def test_what_is_on_the_plain_port_stays_there(self):
        self.start()
        with pika.BlockingConnection(self.broker.parameters()) as connection:
            self.work(connection)


@broker.needs_own_broker
class ClientCertificates(TlsTest):
    def start_strict(self, *settings):
        self.start('server', 'ssl_options.cacertfile=' + made.all.path('root'), 'ssl_options.verify=verify_peer',
                   'ssl_options.fail_if_no_peer_cert=true', *settings)

    def test_a_good_one_is_let_in(self):
        self.start_strict()
        connection = self.connect(self.context('client', ssl.TLSVersion.TLSv1_3))
        self.assertEqual(self.broker.rows('list_connections', 'ssl', 'ssl_protocol', 'ssl_cipher', 'peer_cert_subject', 'ssl_hash'),
                         [['true', 'TLSv1.3', 'TLS_AES_128_GCM_SHA256', 'CN=app,O=StoatMQ tests', '']])
        self.work(connection)

    def test_it_is_looked_at_each_time(self):
        """No session is resumed: a certificate may have expired since it began."""
        self.start_strict()
        mine = '-cert', made.all.path('client'), '-key', made.all.key('client'), '-cert_chain', made.all.path('middle')
        for version in ('-tls1_2', '-tls1_3'):
            with tempfile.TemporaryDirectory() as directory:
                session = os.path.join(directory, 'session')
                self.assertIn('New, ', self.openssl(version, *mine, '-sess_out', session))
                again = ['-sess_in', session] if os.path.exists(session) else []
                self.assertIn('New, ', self.openssl(version, *mine, *again))

    def test_none_is_refused(self):  # CVE-2026-67231
        self.start_strict()
        self.refused(self.context())
        self.broker.await_log('peer did not return a certificate')

    def test_who_is_refused_learns_why(self):
        """TLS 1.3 lets a client go on before it has been judged; what it has sent does not cost it the alert."""
        self.start_strict()
        for client, why in ((None, 'certificate required'), ('forged', 'unknown ca')):
            context = self.context(client, ssl.TLSVersion.TLSv1_3)
            for pause in [0] * TRIES + [0.02] * 3:
                stream = self.raw(context)
                with self.assertRaisesRegex(ssl.SSLError, why):
                    for octet in b'AMQP\0\0\x09\x01':
                        stream.sendall(bytes([octet]))
                        time.sleep(pause)
                    stream.recv(500)
                stream.close()

    def test_who_is_refused_does_not_stay(self):
        self.start_strict()
        stream = self.raw(self.context(None, ssl.TLSVersion.TLSv1_3))
        stream = socket.socket(fileno=stream.detach())
        stream.settimeout(10)
        while stream.recv(65536):
            pass
        began = time.monotonic()
        with self.assertRaises(OSError):
            while time.monotonic() < began + 10:
                stream.sendall(b'x' * 1000)
                time.sleep(0.01)
        stream.close()
        self.broker.await_log('handshake timeout')

    def test_bad_ones_are_refused(self):  # CVE-2026-67231
        self.start_strict()
        for client in ('forged', 'expired'):
            self.refused(self.context(client))
        self.broker.await_log('certificate verify failed')

    def test_a_name_and_a_number_are_not_enough(self):  # CVE-2026-67231
        """An authority of the same name as ours has given out the same subject under the same number, to another key."""
        with open(made.all.path('impostor'), 'a') as chain, open(made.all.path('middle')) as middle:
            chain.write(middle.read())
        self.start_strict()
        self.refused(self.context('impostor'))
        self.broker.await_log('certificate verify failed')

    def test_too_deep_a_chain_is_refused(self):
        self.start_strict('ssl_options.depth=0')
        self.refused(self.context('client'))

    def test_one_that_may_but_need_not_be_shown(self):
        self.start('server', 'ssl_options.cacertfile=' + made.all.path('root'), 'ssl_options.verify=verify_peer')
        self.connect()
        self.connect(self.context('client'))
        self.refused(self.context('forged'))


@broker.needs_own_broker
class External(TlsTest):
    """EXTERNAL: who the client is says its certificate (4.2.1)."""

    def start_with_user(self, name, *settings):
        self.start('server', 'ssl_options.cacertfile=' + made.all.path('root'), 'ssl_options.verify=verify_peer', *settings)
        self.broker.ctl('add_user', name, 'never used')
        self.broker.ctl('set_permissions', name, '.*', '.*', '.*')

    def log_in(self, client='client'):
        options = pika.SSLOptions(self.context(client), 'localhost')
        connection = pika.BlockingConnection(pika.ConnectionParameters(
            '127.0.0.1', self.port, ssl_options=options, credentials=pika.credentials.ExternalCredentials()))
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection

    def user(self, client='client'):
        self.log_in(client)
        return {row[0] for row in self.broker.rows('list_connections', 'user')}

    def test_4_2_1_by_distinguished_name(self):
        self.start_with_user('CN=app,O=StoatMQ tests')
        self.assertEqual(self.user(), {'CN=app,O=StoatMQ tests'})

    def test_4_2_1_by_distinguished_name_as_rabbitmq_writes_it(self):
        self.start_with_user(WORDY_NAME)
        self.assertEqual(self.user('wordy'), {WORDY_NAME})

    def test_4_2_1_by_common_name(self):
        self.start_with_user('app', 'ssl_cert_login_from=common_name')
        self.assertEqual(self.user(), {'app'})

    def test_4_2_1_two_common_names_are_none(self):
        self.start_with_user('app', 'ssl_cert_login_from=common_name')
        with self.assertRaises(pika.exceptions.AMQPConnectionError):
            self.log_in('double')
        self.broker.await_log("EXTERNAL login refused: user '' - the certificate has several common names")

    def test_4_2_1_by_alternative_name(self):
        for word in 'subject_alternative_name', 'subject_alt_name':
            self.start_with_user('app.example', 'ssl_cert_login_from=' + word)
            self.assertEqual(self.user(), {'app.example'})

    def test_4_2_1_a_user_who_does_not_exist(self):
        self.start_with_user('somebody else')
        with self.assertRaises(pika.exceptions.AMQPConnectionError):
            self.log_in()
        self.broker.await_log("EXTERNAL login refused: user 'CN=app,O=StoatMQ tests' - there is no such user")

    def test_4_2_1_a_name_that_the_certificate_has_not(self):  # CVE-2026-67231
        self.start_with_user('app', 'ssl_cert_login_from=subject_alternative_name', 'ssl_cert_login_san_type=email')
        with self.assertRaises(pika.exceptions.AMQPConnectionError):
            self.log_in()
        self.broker.await_log('the certificate has no such name')

    def test_4_2_1_is_offered_to_who_has_shown_a_certificate(self):
        self.start_with_user('app')
        for client, offered in (('client', True), (None, False)):
            stream = self.raw(self.context(client))
            stream.sendall(b'AMQP\0\0\x09\x01')
            self.assertEqual(b'EXTERNAL' in stream.recv(8192), offered)


@broker.needs_own_broker
class Mechanisms(unittest.TestCase):
    def offered(self, *settings):
        with broker.Broker(settings) as plain:
            with socket.create_connection(('127.0.0.1', plain.port), timeout=10) as client:
                client.sendall(b'AMQP\0\0\x09\x01')
                said = client.recv(8192)
        return [name for name in (b'AMQPLAIN', b' PLAIN', b'EXTERNAL', b'ANONYMOUS') if name in b' ' + said]

    def test_4_2_1_those_that_are_named(self):
        self.assertNotIn(b'ANONYMOUS', self.offered())
        self.assertEqual(self.offered('auth_mechanisms.1=AMQPLAIN', 'auth_mechanisms.2=ANONYMOUS'),
                         [b'AMQPLAIN', b'ANONYMOUS'])

    def test_4_2_1_anonymous(self):
        class Anonymous(pika.credentials.ExternalCredentials):
            TYPE = 'ANONYMOUS'

            def response_for(self, _):
                return self.TYPE, b''

        with broker.Broker(('auth_mechanisms.1=ANONYMOUS',)) as anonymous:
            pika.credentials.VALID_TYPES.append(Anonymous)
            self.addCleanup(pika.credentials.VALID_TYPES.remove, Anonymous)
            with pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', anonymous.port, credentials=Anonymous())):
                self.assertEqual(anonymous.rows('list_connections', 'user'), [['guest']])


@broker.needs_own_broker
class Reloading(TlsTest):
    def start_copy(self):
        self.copy = tempfile.mkdtemp(prefix='certificate-')
        for end in ('.pem', '.key'):
            shutil.copy(os.path.join(made.directory, 'server' + end), os.path.join(self.copy, 'used' + end))
        self.start('server', 'ssl_options.certfile=' + os.path.join(self.copy, 'used.pem'),
                   'ssl_options.keyfile=' + os.path.join(self.copy, 'used.key'))

    def replace(self, certificate, key):
        shutil.copy(certificate, os.path.join(self.copy, 'used.pem'))
        shutil.copy(key, os.path.join(self.copy, 'used.key'))
        if os.geteuid() == 0:  # which reads keys whosever they are
            os.chown(os.path.join(self.copy, 'used.key'), pwd.getpwnam('nobody').pw_uid, 0)
            os.chmod(os.path.join(self.copy, 'used.key'), 0o400)
        self.broker.process.send_signal(signal.SIGHUP)

    def subject(self):
        return self.raw().getpeercert()['subject'][-1][0][1]

    def test_new_connections_get_the_new_one_and_nobody_is_dropped(self):
        self.start_copy()
        old = self.connect()
        self.assertEqual(self.subject(), 'server')
        self.replace(made.all.path('other'), made.all.key('other'))
        self.broker.await_log('the certificate has been read again')
        self.assertEqual(self.subject(), 'other')
        self.work(old)

    def test_links_to_another_directory_are_followed(self):
        """As certbot keeps them: what is renewed is the link, and where it leads is not where it stands."""
        archive, live = tempfile.mkdtemp(prefix='archive-'), tempfile.mkdtemp(prefix='live-')
        def link(certificate):
            for end in ('.pem', '.key'):
                shutil.copy(os.path.join(made.directory, certificate + end), archive)
                new = os.path.join(live, 'new')
                os.symlink(os.path.join(archive, certificate + end), new)
                os.rename(new, os.path.join(live, 'used' + end))
        link('server')
        self.start('server', 'ssl_options.certfile=' + os.path.join(live, 'used.pem'),
                   'ssl_options.keyfile=' + os.path.join(live, 'used.key'))
        self.assertEqual(self.subject(), 'server')
        link('other')
        self.broker.process.send_signal(signal.SIGHUP)
        self.broker.await_log('the certificate has been read again')
        self.assertEqual(self.subject(), 'other')

    def test_what_cannot_be_used_changes_nothing(self):  # CVE-2018-12550
        for key in made.all.key('server'), made.all.key('rsa'):  # of the certificate's kind, and of another
            with self.subTest(key=key):
                self.start_copy()
                self.replace(made.all.path('other'), key)
                self.broker.await_log('does not belong to the certificate')
                self.broker.await_log('the certificate in use stays')
                self.assertEqual(self.subject(), 'server')


@broker.needs_own_broker
class Strangers(TlsTest):
    def plain(self):
        stranger = socket.create_connection(('127.0.0.1', self.port), timeout=10)
        self.addCleanup(stranger.close)
        return stranger

    def ends(self, stranger):
        """The broker ends it, in its own time."""
        try:
            while stranger.recv(65536) != b'':
                pass
        except ConnectionResetError:
            pass

    def test_plain_amqp(self):
        self.start()
        stranger = self.plain()
        stranger.sendall(b'AMQP\0\0\x09\x01')
        self.ends(stranger)
        self.broker.await_log('a client without TLS on a TLS port?')
        self.connect()

    def test_http(self):
        self.start()
        stranger = self.plain()
        stranger.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
        self.ends(stranger)
        self.broker.await_log('an HTTP client on a TLS port?')

    def test_noise(self):
        self.start()
        for noise in (b'\x16\x03\x01\xff\xff' + os.urandom(70000), os.urandom(4096), b'\x16\x03\x01\0\x05\x01\0\0\x01\0',
                      b'\x15\x03\x01\0\x02\x02\x28'):
            stranger = self.plain()
            try:
                stranger.sendall(noise)
                stranger.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError, OSError):
                pass
            self.ends(stranger)
        self.connect()

    def test_silence_ends_with_the_handshake_timeout(self):  # CVE-2026-57220
        self.start()
        silent, dribbling = self.plain(), self.plain()
        dribbling.sendall(b'\x16\x03\x01\0\xf4\x01')
        began = time.monotonic()
        self.ends(silent)
        self.ends(dribbling)
        self.assertGreater(time.monotonic() - began, HANDSHAKE_TIMEOUT_MS / 1000 - 0.5)
        self.connect()

    def test_a_handshake_a_byte_at_a_time(self):
        self.start()
        context = self.context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname='localhost')
        stranger = self.plain()
        stranger.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def exchange(step):
            while True:
                try:
                    result = step()
                    for byte in outgoing.read():
                        stranger.sendall(bytes([byte]))
                    return result
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        stranger.sendall(bytes([byte]))
                    incoming.write(stranger.recv(1))

        exchange(tls.do_handshake)
        exchange(lambda: tls.write(b'AMQP\0\0\x09\x01'))
        self.assertEqual(exchange(lambda: tls.read(1)), b'\x01')

    def test_one_that_goes_away_in_its_handshake(self):
        self.start()
        for _ in range(200):
            stranger = socket.create_connection(('127.0.0.1', self.port), timeout=10)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = self.context().wrap_bio(incoming, outgoing, server_hostname='localhost')
            with self.assertRaises(ssl.SSLWantReadError):
                tls.do_handshake()
            stranger.sendall(outgoing.read())
            stranger.close()
        self.work(self.connect())

    def test_a_look_at_the_port_is_no_error(self):
        self.start('server', 'log.console.level=debug')
        for words in (b'', b'\x16\x03', b'\x16\x03\x01\0\xf4\x01'):
            stranger = self.plain()
            name = stranger.getsockname()
            stranger.sendall(words)
            stranger.close()
            self.broker.await_log('[debug] TLS handshake with %s:%d failed: it has ended before' % name)
        self.assertNotIn('[error]', self.broker.log())

    def test_renegotiation_is_refused(self):
        self.start()
        said = subprocess.run(['openssl', 's_client', '-connect', '127.0.0.1:%d' % self.port, '-tls1_2'], input=b'R\n',
                              timeout=20, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        self.assertIn(b'no renegotiation', said)


@broker.needs_own_broker
class Configuration(unittest.TestCase):
    def refused(self, status, *settings):
        words = [str(broker.BUILD / 'stoatmq'), '--data-dir', tempfile.mkdtemp(prefix='data-'),
                 '--set', 'listeners.tcp=none']
        for setting in settings:
            words += ['--set', setting]
        ended = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               encoding='utf-8', timeout=30, check=False)
        self.assertEqual(ended.returncode, status, ended.stdout)
        return ended.stdout

    def test_a_listener_without_a_certificate(self):
        self.assertIn('set ssl_options.certfile', self.refused(78, 'listeners.ssl.default=0'))

    def test_files_that_cannot_be_used(self):
        server, key = made.all.path('server'), made.all.key('server')
        for text, settings in (
                ('No such file or directory', ('ssl_options.certfile=/nowhere/at/all.pem',)),
                ('cannot use the private key', ('ssl_options.certfile=' + server,)),
                ('does not belong to the certificate', ('ssl_options.certfile=' + server,
                                                        'ssl_options.keyfile=' + made.all.key('other'))),
                ('the private key in %s does not belong to the certificate in %s' % (made.all.key('rsa'), server),
                 ('ssl_options.certfile=' + server, 'ssl_options.keyfile=' + made.all.key('rsa'))),
                ('does not belong to the certificate', ('ssl_options.certfile=' + made.all.path('rsa'),
                                                        'ssl_options.keyfile=' + key)),
                ('is encrypted: set ssl_options.password', ('ssl_options.certfile=' + made.all.path('locked'),
                                                            'ssl_options.keyfile=' + made.all.key('locked'))),
                ('cannot use the private key', ('ssl_options.certfile=' + made.all.path('locked'),
                                                'ssl_options.keyfile=' + made.all.key('locked'),
                                                'ssl_options.password=close sesame')),
                ('cannot use the certificates in /nowhere', ('ssl_options.certfile=' + server, 'ssl_options.keyfile=' + key,
                                                             'ssl_options.cacertfile=/nowhere')),
                ('no cipher of TLS 1.2', ('ssl_options.certfile=' + server, 'ssl_options.keyfile=' + key,
                                          'ssl_options.ciphers.1=ROT13'))):
            with self.subTest(text=text):
                self.assertIn(text, self.refused(78, 'listeners.ssl.default=0', *settings))

    def test_words_that_are_not_known(self):  # CVE-2026-67231
        self.assertIn('verify_none or verify_peer is expected', self.refused(78, 'ssl_options.verify=verify'))
        self.assertIn('tlsv1.2 or tlsv1.3 is expected', self.refused(78, 'ssl_options.versions.1=tlsv1'))
        self.assertIn('needs ssl_options.cacertfile', self.refused(78, 'ssl_options.verify=verify_peer'))


if __name__ == '__main__':
    tap.main()
