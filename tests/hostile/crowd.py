"""Many sockets to one broker, what they cost it, and an honest client beside them.

    with Crowd(own, 10000, opening=b'AMQP') as crowd:
        crowd.gather()                        all are connected, and have sent that
        crowd.attend(until, drip=b'...')      reads what comes, lets drops fall, until until() holds

The sockets come from addresses of the loopback network, PER_ADDRESS each, so that neither ports nor what one address may
do are what is measured. They never block. When one was ended by the broker is kept: `lives` are the seconds from its
connect to that.

A crowd of the size that the issue is about (10,000) is `make hostile`; `make test` has a smaller one, and judges counts and
octets alone.

Environment:
    TEST_HOSTILE_COUNT  how many, for those that are given in thousands
    TEST_HOSTILE_TIMED  set: times are judged, too
"""

import multiprocessing
import os
import select
import socket
import ssl
import time

import broker
import wire
from certificates import Certificates
from costs import descriptors

COUNT = int(os.environ.get('TEST_HOSTILE_COUNT', 600))
TIMED = bool(os.environ.get('TEST_HOSTILE_TIMED'))
PER_ADDRESS = 200
PATIENCE = 60

WHOLE_HANDSHAKE = wire.PROTOCOL_HEADER + wire.start_ok() + wire.tune_ok(heartbeat=60) + wire.open_vhost()
IP_BIND_ADDRESS_NO_PORT = 24


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def eventually(holds, what, timeout=PATIENCE):
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.02)


def source_of(number):
    place = number // PER_ADDRESS
    return '127.1.%d.%d' % (place // 250, place % 250 + 1)


def connect_from(number, host, port, receive_octets=None):
    client = socket.socket()
    client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_octets:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_octets)
    client.bind((source_of(number), 0))
    client.settimeout(PATIENCE)
    client.connect((host, port))
    return client


def await_octets(client, octets):
    heard = b''
    while octets not in heard:
        more = client.recv(65536)
        assert more, heard
        heard += more


def client_hello():
    """What a TLS client says first: one record."""
    output = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), output, server_hostname='localhost')
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return output.read()


class EncryptedBroker(broker.Broker):
    """With and without TLS."""

    def __init__(self, settings=(), kind='ec'):
        super().__init__()
        certificates = Certificates(self.temp)
        self.root = certificates.authority('root')
        chain = certificates.leaf('server', 'root', kind, names='DNS:localhost')
        self.tls_port = broker.free_port()
        self.settings = (*settings, 'listeners.ssl.default=127.0.0.1:%d' % self.tls_port, 'ssl_options.certfile=' + chain,
                         'ssl_options.keyfile=' + certificates.key('server'))
        self.context = ssl.create_default_context(cafile=self.root)

    def start(self):
        super().start()
        self.descriptors = descriptors(self.process.pid)    # with nobody there
        return self

    def encrypt(self, client):
        return self.context.wrap_socket(client, server_hostname='localhost')

    def connect(self, number):
        return connect_from(number, self.host, self.port)

    def connect_encrypted(self, number):
        return self.encrypt(connect_from(number, self.host, self.tls_port))

    def await_empty(self):
        eventually(lambda: descriptors(self.process.pid) <= self.descriptors, 'descriptors are left')


class Crowd:
    def __init__(self, own, count, opening=b'', port=None):
        self.broker = own
        self.port = port or own.port
        self.opening = opening
        self.count = count
        self.members = {}       # by descriptor
        self.since = {}
        self.dripped = 0
        self.answered = set()
        self.lives = []
        self.poll = select.epoll()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for member in self.members.values():
            member.close()
        self.members.clear()
        self.poll.close()

    def gather(self):
        for number in range(self.count):
            self.add(connect_from(number, self.broker.host, self.port))

    def add(self, member, opening=None):
        member.setblocking(False)
        self.members[member.fileno()] = member
        self.since[member.fileno()] = time.monotonic()
        self.poll.register(member, select.EPOLLIN | select.EPOLLRDHUP)
        self.say(member, self.opening if opening is None else opening)

    @staticmethod
    def say(member, octets):
        try:
            member.send(octets, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it has ended: the poll tells

    def attend(self, until, drip=b'', every=1.0, timeout=PATIENCE):
        """An octet of `drip` for each member every so many seconds."""
        deadline = time.monotonic() + timeout
        due = time.monotonic() + every
        while not until():
            now = time.monotonic()
            assert now < deadline, '%d of %d are still there' % (len(self.members), self.count)
            if drip and now >= due and self.dripped < len(drip):
                due += every
                for member in self.members.values():
                    self.say(member, drip[self.dripped:self.dripped + 1])
                self.dripped += 1
            for descriptor, _ in self.poll.poll(0.02, 1000):
                self.listen(descriptor)

    def listen(self, descriptor):
        try:
            if self.members[descriptor].recv(65536):
                self.answered.add(descriptor)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.members.pop(descriptor).close()
        self.lives.append(time.monotonic() - self.since.pop(descriptor))


class Neighbour:
    """An honest client: a process that connects and opens its vhost again and again, and keeps how long each took."""

    def __init__(self, own, pause=0.01, **user):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self._run, args=(theirs, own.host, own.port, pause, user))
        self.process.start()
        theirs.close()
        self.listen()   # the first connect

    def listen(self):
        answer = self.ours.recv()
        assert not isinstance(answer, str), 'an honest client could not connect: ' + answer
        return answer

    @staticmethod
    def _run(theirs, host, port, pause, user):
        taken = []
        try:
            while not theirs.poll():
                began = time.monotonic()
                client = wire.Wire(host, port).handshake(**user)
                taken.append(time.monotonic() - began)
                if len(taken) == 1:
                    theirs.send(taken)
                client.close()
                time.sleep(pause)
        except (wire.WireError, OSError) as error:
            theirs.send(repr(error))
            return
        theirs.send(taken)

    def end(self):
        """The seconds of every connect; fails when one did not succeed."""
        if self.process.is_alive():
            self.ours.send('enough')
        answer = self.listen()
        self.process.join()
        return answer
