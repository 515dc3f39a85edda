#!/usr/bin/python3
"""What a message to many queues costs in octets written: its body once, and little for each queue.

Counted by the kernel (wchar of /proc/PID/io), for the whole broker: data file, log and all.
"""

import unittest

import pika

import broker
import tap
from client import PERSISTENT

QUEUES, MESSAGES, BODY = 100, 500, 1024
A_QUEUE = 32        # octets that an entry of a queue may cost beside the body: its row, and pages that are written again


def written(pid):
    with open('/proc/%d/io' % pid, encoding='ascii') as counters:
        return int(dict(line.split(': ') for line in counters)['wchar'])


@broker.needs_own_broker
class FanoutBytes(unittest.TestCase):
    def written_each(self, own, channel, publish, count):
        """In one commit: each costs pages of the index beside."""
        before = written(own.process.pid)
        for number in range(count):
            publish(b'%08d' % number + b'x' * (BODY - 8))
        channel.tx_commit()
        return (written(own.process.pid) - before) / count

    def test_the_body_is_written_once(self):
        with broker.Broker() as own:
            connection = pika.BlockingConnection(own.parameters())
            channel = connection.channel()
            queues = ['fan-%d' % number for number in range(QUEUES)]
            for queue in queues:
                channel.queue_declare(queue, durable=True)
                channel.queue_bind(queue, 'amq.fanout')
            channel.tx_select()

            def fan_out(body):
                channel.basic_publish('amq.fanout', '', body, PERSISTENT)

            def send_to_each(body):
                for queue in queues:
                    channel.basic_publish('', queue, body, PERSISTENT)

            once = self.written_each(own, channel, fan_out, MESSAGES)
            each = self.written_each(own, channel, send_to_each, MESSAGES // 10)
            print('# a message of %d octets in %d queues: %d octets written; sent to each: %d' % (BODY, QUEUES, once, each))
            self.assertGreaterEqual(each, QUEUES * BODY)    # what would be counted if it were written for each queue
            self.assertGreaterEqual(once, BODY)
            self.assertLess(once, 2 * BODY + QUEUES * A_QUEUE)
            counts = [channel.queue_declare(queue, passive=True).method.message_count for queue in queues]
            self.assertEqual(counts, [MESSAGES + MESSAGES // 10] * QUEUES)
            connection.close()


if __name__ == '__main__':
    tap.main()
