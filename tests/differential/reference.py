"""The reference: Debian's rabbitmq-server as a private node, nothing of which outlives the harness.

The node has its own name, cookie, port mapper, loopback ports and directories, all under one temporary directory in memory; the service
of the package is neither used nor touched. It runs with one Erlang scheduler: processes then run in turn, so that a client's
round trip lets everything finish that its last request has set in motion. That makes an asynchronous broker repeatable.

Each lane of the harness has a virtual host of its own; they, and the user guest, come from a definitions file read at start.
"""

import base64
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import broker
import wire

HOME = pathlib.Path('/usr/lib/rabbitmq/lib')
ERLANG = '/usr/bin/erl'
VERSION = '3.10.8'
START_TIMEOUT = 300
MEMORY = '/dev/shm'

CONFIG = """\
listeners.tcp.default = 127.0.0.1:%(port)d
handshake_timeout = 60000
default_user = guest
default_pass = guest
load_definitions = %(home)s/definitions.json
log.console.level = warning
log.file = false
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 4GB
management.tcp.ip = 127.0.0.1
management.tcp.port = %(management_port)d
management_agent.disable_metrics_collector = true
"""


def directory():
    """The installed server, or None."""
    found = HOME / ('rabbitmq_server-' + VERSION)
    return found if found.is_dir() and os.path.exists(ERLANG) else None


def missing():
    """Why there is no reference on this machine; None when there is one."""
    return None if directory() else 'rabbitmq-server %s is not installed; `make differential` installs it' % VERSION


def hashed(password):
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(vhosts):
    return {
        'rabbit_version': VERSION,
        'users': [{'name': 'guest', 'password_hash': hashed('guest'), 'tags': 'administrator',
                   'hashing_algorithm': 'rabbit_password_hashing_sha256'}],
        'vhosts': [{'name': name} for name in ['/', *vhosts]],
        'permissions': [{'user': 'guest', 'vhost': name, 'configure': '.*', 'write': '.*', 'read': '.*'}
                        for name in ['/', *vhosts]],
    }


def descendants(pid):
    """A process and all that it has started and that run still, itself first."""
    try:
        children = pathlib.Path('/proc/%d/task/%d/children' % (pid, pid)).read_text().split()
    except OSError:
        children = []
    return [pid] + [found for child in children for found in descendants(int(child))]


class Reference:
    host = '127.0.0.1'

    def __init__(self, vhosts, plugins=()):
        self.vhosts = list(vhosts)
        self.plugins = plugins
        self.port = broker.free_port()
        self.management_port = broker.free_port()
        self.epmd_port = broker.free_port()
        self.home = pathlib.Path(tempfile.mkdtemp(prefix='stoatmq-reference-',
                                                  dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.processes = []

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind, error, trace):
        self.stop()

    def start(self):
        self._write_files()
        environment = self._environment()
        self._launch([shutil.which('epmd'), '-port', str(self.epmd_port), '-address', self.host], environment, 'epmd.log')
        self._launch([str(directory() / 'sbin' / 'rabbitmq-server')], environment, 'node.log')
        self._await()
        return self

    def _write_files(self):
        values = {'port': self.port, 'home': self.home, 'management_port': self.management_port}
        (self.home / 'rabbitmq.conf').write_text(CONFIG % values if 'rabbitmq_management' in self.plugins else
                                                 CONFIG[:CONFIG.index('management')] % values)
        (self.home / 'definitions.json').write_text(json.dumps(definitions(self.vhosts)))
        (self.home / 'enabled_plugins').write_text('[%s].\n' % ','.join(self.plugins))

    def _environment(self):
        return dict(
            os.environ, HOME=str(self.home), SYS_PREFIX=str(self.home), LC_ALL='C.UTF-8',
            ERL_EPMD_PORT=str(self.epmd_port), ERL_EPMD_ADDRESS=self.host,
            RABBITMQ_NODENAME='stoatmq-reference-%d@localhost' % os.getpid(),
            RABBITMQ_DIST_PORT=str(broker.free_port()),
            RABBITMQ_CONFIG_FILE=str(self.home / 'rabbitmq.conf'), RABBITMQ_CONF_ENV_FILE=str(self.home / 'none'),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(self.home / 'enabled_plugins'),
            RABBITMQ_MNESIA_BASE=str(self.home / 'mnesia'), RABBITMQ_LOG_BASE=str(self.home / 'log'),
            RABBITMQ_GENERATED_CONFIG_DIR=str(self.home / 'config'), RABBITMQ_SCHEMA_DIR=str(self.home / 'schema'),
            RABBITMQ_PID_FILE=str(self.home / 'pid'), RABBITMQ_ALLOW_INPUT='', RABBITMQ_LOGS='-',
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none '
                                                '-kernel inet_dist_use_interface {127,0,0,1}')

    def _launch(self, words, environment, log_name):
        with open(self.home / log_name, 'wb') as log:
            self.processes.append(subprocess.Popen(words, env=environment, cwd=self.home, stdin=subprocess.DEVNULL,
                                                   stdout=log, stderr=subprocess.STDOUT))

    def _await(self):
        """Returns when a client can open the last of the vhosts."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if self.processes[-1].poll() is not None or time.monotonic() > deadline:
                raise broker.BrokerError('the reference did not start:\n' + self.log_tail())
            try:
                for vhost in self.vhosts:
                    wire.Wire(self.host, self.port).handshake(vhost).close()
                return
            except (OSError, wire.WireError):
                time.sleep(0.1)

    def log_tail(self, lines=40):
        log = self.home / 'node.log'
        return '\n'.join(log.read_text(errors='replace').splitlines()[-lines:]) if log.exists() else ''

    def stop(self):
        """What it stored is of no use to anybody: it is killed, its port mapper with it."""
        for process in reversed(self.processes):
            for pid in descendants(process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            process.wait()
        self.processes = []
        shutil.rmtree(self.home, ignore_errors=True)
