"""A broker with a store, and the programs that work on a store from outside."""

import contextlib
import os
import subprocess
import tempfile
import unittest

import pika

import broker
from client import PERSISTENT

OK, USAGE, DATA, NO_INPUT, IO_ERROR, IN_USE, NO_ACCESS = 0, 64, 65, 66, 74, 75, 77
TOOLS = (['stoatctl', 'verify'], ['stoatctl', 'compact'], ['stoatdump'])


def run(program, *words):
    return subprocess.run([str(broker.BUILD / program), *words], timeout=60, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8')


class StoreTools(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix='stoatmq-tools-')
        self.addCleanup(self.directory.cleanup)
        self.broker = broker.Broker()
        self.broker.__enter__()
        self.addCleanup(self.broker.__exit__, None, None, None)

    def connect(self, on=None):
        connection = pika.BlockingConnection((on or self.broker).parameters())
        self.addCleanup(self.end, connection)
        channel = connection.channel()
        channel.confirm_delivery()
        return channel

    @staticmethod
    def end(connection):
        with contextlib.suppress(pika.exceptions.AMQPError):  # its broker may have stopped
            connection.close()

    def fill(self, channel, queue, first, end):
        channel.queue_declare(queue, durable=True)
        for number in range(first, end):
            channel.basic_publish('', queue, b'%s %d' % (queue.encode(), number), PERSISTENT)

    def bodies(self, channel, queue):
        while True:
            method, _, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                return
            yield body.decode()

    def passes(self, program, *words):
        result = run(program, *words)
        self.assertEqual((result.returncode, result.stderr), (OK, ''), result)
        return result.stdout

    def fails(self, status, text, program, *words):
        result = run(program, *words)
        self.assertEqual(result.returncode, status, result)
        self.assertIn(text, result.stderr)

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def backup(self, path, *options):
        return self.passes('stoatctl', '--data-dir', self.broker.data_dir, 'backup', path, *options)

    def no_backup(self, status, text, path, *options):
        self.fails(status, text, 'stoatctl', '--data-dir', self.broker.data_dir, 'backup', path, *options)
