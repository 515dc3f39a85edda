"""A broker of a test's own: the real program, on a free loopback port, with a data directory under $TMPDIR.

    with Broker() as broker:
        connection = pika.BlockingConnection(broker.parameters())

What is started here is waited for by its log line `ready`, never by time, and is ended by its process id. The log
goes to <TMPDIR>/broker-PID-N.log, where tests/run finds it when a test has failed. A broker that ends with another
status than 0 after SIGTERM, or whose log holds a sanitizer's report, fails its test.

Environment:
    TEST_BUILD      the directory of the programs; `build` at the top of the tree if unset
    TEST_EXTERNAL   host:port of a broker that is already running: nothing is started, tests that stop, kill or
                    administer theirs are skipped
    TEST_REFERENCE  set when the broker is a RabbitMQ, to try the tests themselves: where StoatMQ departs from it
                    on purpose, the test is skipped (see `departs`)
"""

import fcntl
import itertools
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import tap

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('TEST_BUILD', TOP / 'build')).resolve()
EXTERNAL = os.environ.get('TEST_EXTERNAL')
REFERENCE = bool(EXTERNAL or os.environ.get('TEST_REFERENCE'))
SANITIZED = BUILD.name in ('asan', 'tsan')

CACHE = TOP / 'build' / 'cache'  # what set-up fetches or compiles once, for every kind of build

SETTINGS = ()
READY_TIMEOUT = 60
STOP_TIMEOUT = 30

COMPLAINT = re.compile(r'\[(warning|error|critical)\]')
SANITIZER_REPORT = re.compile(r'ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|: runtime error: ')


class BrokerError(Exception):
    """The broker did not start, or did not stop as it should."""


def departs(why):
    """Marks a test of something that StoatMQ does unlike RabbitMQ, or unlike older ones."""
    return unittest.skipIf(REFERENCE, 'not so in RabbitMQ: ' + why)


def not_yet(what):
    """Marks a test of a rule that StoatMQ does not keep yet; it runs where the tests themselves are tried."""
    return unittest.skipIf(not REFERENCE, 'not served yet: ' + what)


def needs_own_broker(test):
    return unittest.skipIf(EXTERNAL, 'an external broker is neither stopped nor administered')(test)


def free_port():
    """A port nobody listens on, below those that the kernel gives to outgoing connections."""
    for port in random.sample(range(20000, 30000), 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(('127.0.0.1', port))
                return port
            except OSError:
                continue
    raise BrokerError('no free port')


class Broker:
    _numbers = itertools.count(1)

    def __init__(self, settings=(), port=None, data_dir=None):
        self.host = '127.0.0.1'
        self.fixed_port = port
        self.port = port
        self.settings = tuple(settings)
        self.temp = tempfile.mkdtemp(prefix='broker-')
        self.data_dir = data_dir or os.path.join(self.temp, 'data')
        self.process = None
        self.started = False    # by us, and not yet ended by us
        self.log_path = None
        self.log_paths = []     # one for each start
        self._ready = None
        self._reader = None
        if EXTERNAL:
            self.host, port = EXTERNAL.rsplit(':', 1)
            self.port = int(port)

    def __enter__(self):
        return self if self.running() else self.start()

    def __exit__(self, kind, error, trace):
        if self.started:
            self.stop()

    # Starting

    def command(self):
        words = [str(BUILD / 'stoatmq'), '--data-dir', self.data_dir]
        for setting in ('listeners.tcp.default=127.0.0.1:%d' % self.port,) + SETTINGS + self.settings:
            words += ['--set', setting]
        return words

    def environment(self):
        """The program's, or None for the test's own."""
        return None

    def start(self):
        """Starts the broker and returns when it is ready; tries another port when the one chosen was taken."""
        if EXTERNAL:
            return self
        for _ in range(10):
            self.port = self.fixed_port or self.port or free_port()
            self.launch()
            if self.wait_ready():
                return self
            if self.fixed_port or 'address already in use' not in self.log().lower():
                break
            self.port = None
        raise BrokerError('the broker did not start: status %s\n%s' % (self.process.poll(), self.log_tail()))

    def launch(self):
        """Starts the program without waiting for anything."""
        assert not self.running()
        if self.port is None:
            self.port = free_port()
        self.log_path = os.path.join(tempfile.gettempdir(), 'broker-%d-%d.log' % (os.getpid(), next(self._numbers)))
        self.log_paths.append(self.log_path)
        self._ready = threading.Event()
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=self.environment())
        self._reader = threading.Thread(target=self._read_log, args=(self.process, self._ready), daemon=True)
        self._reader.start()
        self.started = True

    def wait_ready(self):
        """True when the broker said that it is ready, false when it ended before."""
        if not self._ready.wait(READY_TIMEOUT):
            self.kill()
            raise BrokerError('not ready after %d s\n%s' % (READY_TIMEOUT, self.log_tail()))
        return self.running()

    def _read_log(self, process, ready):
        with open(self.log_path, 'wb') as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                if re.search(rb'\bready\b', line):
                    ready.set()
        process.wait()
        ready.set()

    # Ending

    def running(self):
        return self.process is not None and self.process.poll() is None

    def wait_end(self, timeout=STOP_TIMEOUT):
        """The status with which the broker ended by itself."""
        self.started = False
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerError('still running after %d s\n%s' % (timeout, self.log_tail())) from None
        self._reader.join(5)
        return status

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """SIGTERM, which a broker answers with status 0."""
        if EXTERNAL:
            return
        if not self.running():
            self.started = False
            raise BrokerError('ended before it was stopped: status %s\n%s' % (self.process.poll(), self.log_tail()))
        self.terminate()
        status = self.wait_end()
        if status != 0:
            raise BrokerError('stopped with status %d\n%s' % (status, self.log_tail()))
        self.check_log()

    def collect(self):
        """It has ended by itself, as the test wanted."""
        self.started = False
        self.process.wait()
        self._reader.join(5)
        self.check_log()

    def kill(self):
        """SIGKILL at this very moment."""
        if EXTERNAL:
            raise unittest.SkipTest('an external broker is not killed')
        self.process.kill()
        self.collect()

    def restart(self):
        if EXTERNAL:
            raise unittest.SkipTest('an external broker is not restarted')
        self.stop()
        return self.start()

    # Looking

    def log(self):
        with open(self.log_path, errors='replace') as log:
            return log.read()

    def await_log(self, text, timeout=10):
        """What the broker says reaches the log a moment later than what it does reaches a client."""
        deadline = time.monotonic() + timeout
        while text not in self.log():
            if time.monotonic() > deadline:
                raise AssertionError('not logged: %s\n%s' % (text, self.log_tail()))
            time.sleep(0.02)

    def log_tail(self, lines=40):
        return '\n'.join(self.log().splitlines()[-lines:])

    def check_log(self):
        if SANITIZER_REPORT.search(self.log()):
            raise BrokerError('a sanitizer has spoken, see %s' % self.log_path)

    def check_quiet(self, expected=()):
        """Since its first start the broker has logged no warning, and nothing worse, without a text that is expected:
        that it ends connections when it is stopped always is."""
        if REFERENCE:
            return
        expected = (*expected, "broker forced connection closure with reason 'shutdown'", 'running as root')
        for path in self.log_paths:
            with open(path, errors='replace') as log:
                for line in log:
                    if COMPLAINT.search(line) and not any(text in line for text in expected):
                        raise BrokerError('%s: %s' % (os.path.basename(path), line.rstrip()))

    def ctl(self, *words):
        """What `stoatctl` prints; fails unless its status is 0."""
        if EXTERNAL or REFERENCE:
            raise unittest.SkipTest('an external broker is not administered')
        return subprocess.run([str(BUILD / 'stoatctl'), '--data-dir', self.data_dir, *words], check=True, timeout=20,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding='utf-8').stdout

    def rows(self, *words):
        """The rows of a list command without its header, each a list of columns."""
        return [line.split('\t') for line in self.ctl('-s', *words).splitlines()]

    def url(self):
        return 'amqp://guest:guest@%s:%d' % (self.host, self.port)

    def parameters(self, user='guest', password='guest', **others):
        import pika
        settings = dict(credentials=pika.PlainCredentials(user, password), blocked_connection_timeout=30,
                        socket_timeout=10, stack_timeout=10)
        settings.update(others)
        return pika.ConnectionParameters(self.host, self.port, **settings)


_shared = None


def shared():
    """The broker that all tests of a program have in common: started at first use, stopped and checked at the end."""
    global _shared
    if _shared is None:
        _shared = Broker()
        if not EXTERNAL:
            tap.at_end('the broker stops with status 0 and a clean log', _shared.stop)
        _shared.start()
    return _shared


def on_default_port(settings=()):
    """A broker on 5672, one program of a test run at a time; raises BrokerError when something else is there."""
    BUILD.mkdir(parents=True, exist_ok=True)
    lock = open(BUILD / 'port-5672.lock', 'w')
    fcntl.flock(lock, fcntl.LOCK_EX)
    broker = Broker(settings, port=5672)
    broker.lock = lock
    try:
        return broker.start()
    except BrokerError:
        lock.close()
        raise
