#!/usr/bin/python3
"""A sync that fails is never tried again: the broker says so, confirms nothing more and stops, whatever the error was called.

A library that stands before libc fails every fdatasync(2) from the moment that a file exists.
"""

import os
import subprocess
import tempfile
import unittest

import broker
import tap
import wire

QUEUE = 'sync'
EX_IOERR = 74
SOURCE = '''
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int fd)
{
    if (access(getenv("FAIL_WHEN"), F_OK) == 0) {
        errno = atoi(getenv("FAIL_WITH"));
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
'''


class FailingBroker(broker.Broker):
    library = trigger = error = None

    def environment(self):
        return dict(os.environ, LD_PRELOAD=self.library, FAIL_WHEN=self.trigger, FAIL_WITH=str(self.error))


@broker.needs_own_broker
@unittest.skipIf(broker.SANITIZED, 'a sanitizer must be loaded first')
class FailedSync(unittest.TestCase):
    def check(self, error):
        directory = tempfile.mkdtemp(prefix='sync-')
        library = os.path.join(directory, 'fail.so')
        subprocess.run(['cc', '-shared', '-fPIC', '-x', 'c', '-', '-o', library], input=SOURCE, encoding='utf-8', check=True)
        own = FailingBroker()
        own.library, own.trigger, own.error = library, os.path.join(directory, 'now'), error
        own.start()
        self.addCleanup(own.__exit__, None, None, None)
        with wire.Wire(own.host, own.port).handshake().open_channel() as client:
            client.send(wire.queue_declare(1, QUEUE, durable=True))
            client.expect(wire.QUEUE_DECLARE_OK)
            client.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'))
            client.expect(wire.CONFIRM_SELECT_OK)
            for number in range(10):
                client.send(wire.publish(1, '', QUEUE, b'before %d' % number))
                client.expect(wire.ACK)
            with open(own.trigger, 'wb'):
                pass
            client.send(wire.publish(1, '', QUEUE, b'after'))
            try:
                while True:
                    self.assertNotEqual(client.read_method().id, wire.ACK)
            except wire.Closed:
                pass
        self.assertEqual(own.wait_end(), EX_IOERR)
        self.assertIn('the store has failed', own.log())
        os.unlink(own.trigger)
        own.start()
        with wire.Wire(own.host, own.port).handshake().open_channel() as client:
            for number in range(10):
                client.send(wire.get(1, QUEUE, no_ack=True))
                self.assertEqual(client.read_message()[1], b'before %d' % number)
        own.stop()

    def test_input_output_error(self):
        self.check(5)

    def test_no_space(self):
        self.check(28)


if __name__ == '__main__':
    tap.main()
