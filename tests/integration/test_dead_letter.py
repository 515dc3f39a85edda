#!/usr/bin/python3
"""Dead letters as pika sees them, and over restarts; more, and crashes at every point, in unit/test_dead_letter."""

import time

import pika

import broker
import tap
from client import PERSISTENT, ClientTest, RestartTest


def to(queue, **others):
    return {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': queue,
            **{'x-' + name.replace('_', '-'): value for name, value in others.items()}}


class DeadLetter(ClientTest):
    def dead(self, queue):
        """The one message of a dead-letter queue, awaited; its properties."""
        self.expect_count(queue, 1)
        return self.channel.basic_get(queue, auto_ack=True)[1]

    def test_13_1_reasons(self):
        dead = self.queue(suffix='dead')
        table = (('rejected', {}, lambda queue: self.channel.basic_reject(self.get(queue), requeue=False)),
                 ('rejected', {}, lambda queue: self.channel.basic_nack(self.get(queue), requeue=False)),
                 ('expired', {'message_ttl': 50}, lambda queue: None),
                 ('maxlen', {'max_length': 1}, lambda queue: self.publish(queue, 'another')))
        for number, (reason, arguments, die) in enumerate(table):
            with self.subTest(reason=reason):
                queue = self.queue(suffix=str(number), arguments=to(dead, **arguments))
                self.publish(queue, 'm')
                die(queue)
                self.assertEqual(self.dead(dead).headers['x-first-death-reason'], reason)

    def test_13_1_not_with_the_last_consumer(self):
        """A channel's end deletes the queue that its consumer was the last of; what it held is not too much for it before."""
        dead = self.queue(suffix='dead')
        queue = self.queue(auto_delete=True, arguments=to(dead, max_length=0))
        channel = self.connection.channel()
        channel.basic_consume(queue, lambda *_: None)
        self.publish(queue, 'm')
        with self.assertRaises(pika.exceptions.ChannelClosedByBroker):
            channel.queue_declare('nobody-has-this-queue', passive=True)    # a close of ours would cancel the consumer first
        self.assertEqual(self.connection.channel().queue_declare(dead, passive=True).method.message_count, 0)

    def get(self, queue):
        return self.channel.basic_get(queue)[0].delivery_tag

    def test_13_4_x_death(self):
        dead = self.queue(suffix='dead')
        queue = self.queue(arguments=to(dead))
        before = int(time.time())
        self.publish(queue, 'm', properties=pika.BasicProperties(headers={'own': 1}, expiration='50'))
        headers = self.dead(dead).headers
        self.assertEqual(headers['own'], 1)
        (death,) = headers['x-death']
        self.assertLessEqual(abs(death.pop('time').timestamp() - before), 26 * 3600)  # pika takes it for local time
        self.assertEqual(death, {'count': 1, 'reason': 'expired', 'queue': queue, 'exchange': '',
                                 'routing-keys': [queue], 'original-expiration': '50'})

    def test_13_5_the_expiration_is_gone(self):
        dead = self.queue(suffix='dead')
        self.publish(self.queue(arguments=to(dead)), 'm', properties=pika.BasicProperties(expiration='50'))
        self.assertIsNone(self.dead(dead).expiration)

    def test_13_7_work_and_wait(self):
        """Retries with a delay: rejected to a queue where they expire back."""
        work, wait = self.name('work'), self.name('wait')
        self.channel.queue_declare(work, arguments=to(wait))
        self.channel.queue_declare(wait, arguments=to(work, message_ttl=20))
        self.publish(work, 'm')
        for _ in range(5):
            self.expect_count(work, 1)
            self.channel.basic_reject(self.get(work), requeue=False)
        deaths = {death['queue']: death['count'] for death in self.dead(work).headers['x-death']}
        self.assertEqual(deaths, {work: 5, wait: 5})

    def test_13_7_round_and_round_ends(self):
        one, two = self.name('one'), self.name('two')
        self.channel.queue_declare(one, arguments=to(two, message_ttl=20))
        self.channel.queue_declare(two, arguments=to(one, message_ttl=20))
        self.publish(one, 'm')
        self.eventually(lambda: self.count(one) + self.count(two) == 0)
        time.sleep(0.1)
        self.assertEqual(self.count(one) + self.count(two), 0)

    @broker.departs('a quorum queue needs a while, and 3.x has no x-acquired-count')
    def test_10_19_delivery_limit(self):
        dead = self.queue(suffix='dead')
        queue = self.queue(durable=True, arguments=to(dead, queue_type='quorum', delivery_limit=2))
        self.publish(queue, 'm', properties=PERSISTENT)
        for count in range(3):
            method, properties, _ = self.channel.basic_get(queue)
            self.assertEqual((properties.headers or {}).get('x-delivery-count', 0), count)
            self.channel.basic_reject(method.delivery_tag, requeue=True)
        headers = self.dead(dead).headers
        self.assertEqual(headers['x-first-death-reason'], 'delivery_limit')
        self.assertNotIn('x-delivery-count', headers)


@broker.needs_own_broker
class Restart(RestartTest):
    def test_13_4_history_survives(self):
        for how in ('SIGTERM', 'SIGKILL'):
            with self.subTest(ended_by=how):
                self.channel.confirm_delivery()
                self.channel.queue_declare('q', durable=True, arguments=to('q'))
                self.channel.basic_publish('', 'q', 'm', PERSISTENT)
                for number in range(3):
                    method, _, _ = self.channel.basic_get('q')
                    self.channel.basic_reject(method.delivery_tag, requeue=False)
                    self.channel.queue_declare('answered when all before it is on disk %d' % number, durable=True)
                    self.end_and_start(how)
                ((_, _, properties),) = self.drain('q')
                self.assertEqual(properties.headers['x-death'][0]['count'], 3)
                for queue in ['q'] + ['answered when all before it is on disk %d' % number for number in range(3)]:
                    self.channel.queue_delete(queue)


if __name__ == '__main__':
    tap.main()
