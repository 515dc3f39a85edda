#!/usr/bin/python3
"""Queues with priorities, and over restarts; more in unit/test_priority."""

import pika

import broker
import tap
from client import ClientTest, RestartTest


def with_priority(priority):
    return pika.BasicProperties(delivery_mode=2, priority=priority)


class Priority(ClientTest):
    def publish_each(self, queue, **priorities):
        for body, priority in priorities.items():
            self.publish(queue, body, properties=with_priority(priority))

    def test_11_7_the_highest_first(self):
        queue = self.queue(arguments={'x-max-priority': 10})
        self.publish_each(queue, a=1, b=10, c=None, d=5, e=200, f=5, g=0)
        self.assertEqual(self.get_all(queue), list('bedfacg'))

    def test_11_7_a_consumer_that_comes_later(self):
        queue = self.queue(arguments={'x-max-priority': 3})
        self.publish_each(queue, a=1, b=2, c=3, d=1, e=2, f=3)
        got, _ = self.consume(queue, auto_ack=True)
        self.assertEqual(self.wait_for(got, 6), list('cfbead'))

    @broker.departs('quorum queues have none')
    def test_11_7_quorum_queues_have_them_always(self):
        queue = self.queue(durable=True, arguments={'x-queue-type': 'quorum'})
        self.publish_each(queue, a=1, b=31, c=None, d=5, e=200, f=4, g=0)
        self.assertEqual(self.get_all(queue), list('bedcfag'))

    @broker.departs('drops the highest first')
    def test_11_5_the_lowest_overflows_first(self):
        queue = self.queue(arguments={'x-max-priority': 3, 'x-max-length': 2})
        self.publish_each(queue, a=1, b=3, c=2, d=1)
        self.assertEqual(self.get_all(queue), ['b', 'c'])


@broker.needs_own_broker
class Restart(RestartTest):
    def test_11_7_priorities_survive(self):
        kinds = {'classic': {'x-max-priority': 5}, 'quorum': {'x-queue-type': 'quorum'}}
        expected = [str(number) for priority in (5, 4, 3, 2, 1, 0) for number in range(priority, 60, 6)]
        for how in ('SIGTERM', 'SIGKILL'):
            with self.subTest(ended_by=how):
                self.channel.confirm_delivery()
                for queue, arguments in kinds.items():
                    self.channel.queue_declare(queue, durable=True, arguments=arguments)
                    for number in range(60):
                        self.channel.basic_publish('', queue, str(number), with_priority(number % 6))
                self.end_and_start(how)
                for queue in kinds:
                    self.assertEqual([body for body, _, _ in self.drain(queue)], expected)


if __name__ == '__main__':
    tap.main()
