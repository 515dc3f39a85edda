"""What the tests with pika have in common: connections that are closed again, and what a channel was closed with."""

import itertools
import time
import unittest
import warnings

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

import broker

PERSISTENT = pika.BasicProperties(delivery_mode=2)
TRANSIENT = pika.BasicProperties(delivery_mode=1)

# pika 1.2 calls what Python has since renamed.
warnings.simplefilter('ignore', DeprecationWarning)


class ClientTest(unittest.TestCase):
    """A test with connections to the program's shared broker; self.channel is a fresh channel of a fresh one."""

    numbers = itertools.count(1)

    def setUp(self):
        self.broker = broker.shared()
        self.connection = self.connect()
        self.channel = self.connection.channel()
        self.used = []

    def connect(self, at=None, **settings):
        """A blocking connection that is closed when the test ends."""
        connection = pika.BlockingConnection((at or broker.shared()).parameters(**settings))
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection

    def name(self, suffix='it'):
        """A name of this test's own; queues and exchanges called so are deleted when the test ends."""
        name = 'test-%d-%s' % (next(self.numbers), suffix)
        if not self.used:
            self.addCleanup(self._delete_used)
        self.used.append(name)
        return name

    def _delete_used(self):
        connection = pika.BlockingConnection(broker.shared().parameters())
        for name in self.used:
            for delete in ('queue_delete', 'exchange_delete'):
                channel = connection.channel()
                try:
                    getattr(channel, delete)(name)
                    channel.close()
                except ChannelClosedByBroker:
                    pass
        connection.close()

    def queue(self, channel=None, suffix='it', **flags):
        """A queue of this test's own, declared; returns its name."""
        return (channel or self.channel).queue_declare(self.name(suffix), **flags).method.queue

    def publish(self, queue, *bodies, properties=None):
        for body in bodies:
            self.channel.basic_publish('', queue, body, properties)

    def get_all(self, queue, channel=None):
        """The bodies of all ready messages, taken off."""
        bodies = []
        while True:
            method, _, body = (channel or self.channel).basic_get(queue, auto_ack=True)
            if method is None:
                return bodies
            bodies.append(body.decode())

    def count(self, queue):
        return self.channel.queue_declare(queue, passive=True).method.message_count

    def expect_count(self, queue, count):
        """Waits until the queue has so many ready messages: acks and publishes of others have no reply."""
        self.eventually(lambda: self.count(queue) == count, lambda: '%d ready, not %d' % (self.count(queue), count))

    def eventually(self, holds, what='what was awaited', timeout=10):
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                self.fail(what() if callable(what) else what)
            self.connection.process_data_events(0.01)

    def consume(self, queue, channel=None, **how):
        """Starts a consumer that only collects; returns the list of (method, properties, body) and its tag."""
        got = []
        tag = (channel or self.channel).basic_consume(
            queue, lambda _, method, properties, body: got.append((method, properties, body)), **how)
        return got, tag

    def wait_for(self, got, count, connection=None, timeout=10):
        """Serves the connection until so many deliveries have come."""
        deadline = time.monotonic() + timeout
        while len(got) < count:
            self.assertLess(time.monotonic(), deadline, 'only %d of %d deliveries came' % (len(got), count))
            (connection or self.connection).process_data_events(0.05)
        return [body.decode() for _, _, body in got]

    def nothing_more(self, got, count, connection=None):
        """What had to come has come; a little later there is still nothing more."""
        (connection or self.connection).process_data_events(0.1)
        self.assertEqual(len(got), count)

    def refused(self, code, text, act, *words, **flags):
        """The broker must close the channel with this code and a text that holds this one."""
        with self.assertRaises(ChannelClosedByBroker) as caught:
            act(*words, **flags)
        self.assertEqual(caught.exception.reply_code, code, caught.exception.reply_text)
        self.assertIn(text, caught.exception.reply_text)

    def cut_off(self, code, text, act, *words, **flags):
        """The broker must close the connection with this code and a text that holds this one."""
        with self.assertRaises(ConnectionClosedByBroker) as caught:
            act(*words, **flags)
        self.assertEqual(caught.exception.reply_code, code, caught.exception.reply_text)
        self.assertIn(text, caught.exception.reply_text)

    def closed_with(self, code, text):
        """Waits for the broker to close the channel after something that has no reply."""
        self.eventually(lambda: self.channel.is_closed, 'the channel is still open')
        reason = self.channel._closing_reason
        self.assertEqual(reason.reply_code, code, reason.reply_text)
        self.assertIn(text, reason.reply_text)

    def connection_closed_with(self, code, text):
        """The same with the whole connection."""
        with self.assertRaises(ConnectionClosedByBroker) as caught:
            self.eventually(lambda: False, 'the connection is still open')
        self.assertEqual(caught.exception.reply_code, code, caught.exception.reply_text)
        self.assertIn(text, caught.exception.reply_text)


class RestartTest(unittest.TestCase):
    """A test with a broker of its own, that it ends and starts again; self.channel is a channel of what runs now."""

    def setUp(self):
        self.broker = broker.Broker().start()
        self.addCleanup(self.broker.__exit__, None, None, None)
        self.channel = self.connect()

    def connect(self):
        return pika.BlockingConnection(self.broker.parameters()).channel()

    def end_and_start(self, how):
        """Ends the broker while its clients are connected, and starts it again."""
        if how == 'SIGKILL':
            self.broker.kill()
            self.broker.start()
        else:
            self.broker.restart()
        self.channel = self.connect()

    def drain(self, queue):
        got = []
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return got
            got.append((body.decode(), method.redelivered, properties))
