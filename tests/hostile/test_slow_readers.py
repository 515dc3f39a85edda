#!/usr/bin/python3
"""Consumers with much to take who take a few octets now and then, or none: others do not notice.

Two brokers are measured in turn with the same load, one of which has the slow readers: what else the machine does meets
both."""

import json
import statistics
import subprocess
import threading
import unittest

import broker
import costs
import crowd
import tap
import wire
from crowd import COUNT, TIMED

READERS = COUNT // 10
SIP = 16
BODY = bytes(16384)
MESSAGES = 512                      # 8 MiB: more than a connection and its socket have in hand
OCTETS_EACH = 1024 * 1024 + 128 * 1024
RECEIVE_OCTETS = 4096
ROUNDS = 9 if TIMED else 1
SLOWEST = 0.95


class SlowReaders:
    """Each with a queue of its own; half of them acknowledge nothing, the others need not. Every second one sips."""

    def __init__(self, own):
        self.own = own
        self.feeder = wire.Wire(own.host, own.port).handshake().open_channel()
        self.feeder.send(wire.exchange_declare(1, 'slow', 'fanout', durable=False))
        self.feeder.expect(wire.EXCHANGE_DECLARE_OK)
        self.readers = [self.reader(number) for number in range(READERS)]
        self.enough = threading.Event()
        self.sipping = threading.Thread(target=self.sip)

    def reader(self, number):
        queue = 'slow-%d' % number
        self.feeder.send(wire.queue_declare(1, queue), wire.queue_bind(1, queue, 'slow', ''))
        self.feeder.expect(wire.QUEUE_DECLARE_OK)
        self.feeder.read_method()
        client = crowd.connect_from(number, self.own.host, self.own.port, RECEIVE_OCTETS)
        client.sendall(crowd.WHOLE_HANDSHAKE + wire.channel_open(1) + wire.consume(1, queue, no_ack=number % 4 < 2))
        return client

    def feed(self):
        self.feeder.send(wire.method(1, wire.CONFIRM_SELECT, b'\0'))
        self.feeder.expect(wire.CONFIRM_SELECT_OK)
        message = wire.publish(1, 'slow', '', BODY, persistent=False)
        confirmed = sent = 0
        while confirmed < MESSAGES:
            while sent < min(MESSAGES, confirmed + 16):
                self.feeder.send(message)
                sent += 1
            confirmed = int.from_bytes(self.feeder.expect(wire.ACK).arguments[:8], 'big')
        self.sipping.start()

    def sip(self):
        while not self.enough.is_set():
            for at in range(0, READERS, 2):
                self.readers[at].recv(SIP)
                if at % 20 == 0 and self.enough.wait(0.02):
                    return

    def end(self):
        self.enough.set()
        self.sipping.join()
        for reader in self.readers:
            reader.close()
        self.feeder.socket.close()


def measure(own):
    """Messages a second of a fast publisher and a fast consumer, and the broker's CPU time for each."""
    words = [str(broker.BUILD / 'stoatperf'), '-h', own.url() + '/', '--json', '--verify', '-s', '64', '--pid', str(own.process.pid)]
    words += ['-z', '2', '--warm-up', '0.5'] if TIMED else ['--messages', '200000']
    result = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, timeout=60).stdout)
    assert result['void'] is None, result['void']
    phase = result['phases'][0]
    return phase['rates']['consumed'], phase['broker_process']['cpu_us_per_message']


@broker.needs_own_broker
class Slow(unittest.TestCase):
    def start(self):
        own = broker.Broker().start()
        self.addCleanup(own.__exit__, None, None, None)
        measure(own)
        return own

    def test_slow_readers_do_not_slow_a_fast_one(self):
        beset, quiet = self.start(), self.start()
        pid = beset.process.pid
        readers = SlowReaders(beset)
        before = costs.anonymous_octets(pid)
        readers.feed()
        self.addCleanup(readers.end)
        each = (costs.anonymous_octets(pid) - before) / READERS
        print('# %d slow readers: %d octets each' % (READERS, each), flush=True)
        self.assertLessEqual(each, OCTETS_EACH)
        left = [int(row[1]) for row in beset.rows('list_queues', 'name', 'messages_ready') if row[0].startswith('slow-')]
        self.assertEqual(len(left), READERS)
        self.assertGreater(min(left), MESSAGES // 4, 'what is to be taken stays in the queue')

        pairs = [(measure(beset), measure(quiet)) for _ in range(ROUNDS)]
        self.assertLessEqual((costs.anonymous_octets(pid) - before) / READERS, OCTETS_EACH)
        rates = statistics.median(with_them[0] / without[0] for with_them, without in pairs)
        seconds = statistics.median(with_them[1] for with_them, _ in pairs), statistics.median(without[1] for _, without in pairs)
        print('# rate beside them / without, median of %d rounds: %.3f; %.3f and %.3f us of CPU a message' % (
            ROUNDS, rates, *seconds), flush=True)
        if TIMED:
            self.assertGreaterEqual(rates, SLOWEST)


if __name__ == '__main__':
    tap.main()
