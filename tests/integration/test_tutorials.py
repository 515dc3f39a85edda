#!/usr/bin/python3
"""What somebody new to AMQP writes in the first hour: the first message, and the six classic tutorials.

Each of them is a pair of small programs in its usual words; here they run in one process, on connections of their
own. Two use pika's other adapters, as programs that must not block do.
"""

import asyncio
import subprocess
import sys
import threading
import uuid

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

import broker
import tap
from client import ClientTest

FIRST_MESSAGE = """
import pika
connection = pika.BlockingConnection(pika.ConnectionParameters('localhost'))
channel = connection.channel()
channel.queue_declare(queue='my-queue')
channel.basic_publish(exchange='', routing_key='my-queue', body='Hello')
"""


class FirstMessage(ClientTest):
    @broker.needs_own_broker
    def test_unchanged_on_the_default_port(self):  # 1.1
        """If port 5672 is taken, the program is given another one: the only thing in it that ever changes."""
        program = FIRST_MESSAGE
        try:
            own = broker.on_default_port()
        except broker.BrokerError:
            own = broker.Broker().start()
            program = program.replace("'localhost'", "'localhost', %d" % own.port)
        with own:
            subprocess.run([sys.executable, '-W', 'ignore', '-c', program], check=True, timeout=20)
            connection = self.connect(own)
            channel = connection.channel()
            self.eventually(lambda: channel.queue_declare('my-queue').method.message_count == 1, 'no message came')
            self.assertEqual(channel.basic_get('my-queue', auto_ack=True)[2], b'Hello')
            connection.close()


class Tutorials(ClientTest):
    def in_background(self, work, *words):
        """Runs work in a thread; what it raises is raised when the test ends."""
        failures = []

        def run():
            try:
                work(*words)
            except Exception as error:
                failures.append(error)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def finish():
            thread.join(20)
            self.assertFalse(thread.is_alive(), 'a background program has not ended')
            if failures:
                raise failures[0]
        return finish

    def test_1_hello_world(self):
        queue = self.name('hello')

        def receive():
            channel = self.connect().channel()
            channel.queue_declare(queue)

            def on_message(channel, method, properties, body):
                received.append(body)
                channel.stop_consuming()
            channel.basic_consume(queue, on_message, auto_ack=True)
            channel.start_consuming()

        received = []
        finish = self.in_background(receive)
        self.channel.queue_declare(queue)
        self.channel.basic_publish('', queue, 'Hello World!')
        finish()
        self.assertEqual(received, [b'Hello World!'])

    def test_2_work_queue(self):
        """A busy worker holds one task and gets no other; a worker that dies leaves its task to the others."""
        queue = self.queue(suffix='tasks', durable=True)
        for number in range(8):
            self.channel.basic_publish('', queue, 'task %d' % number, pika.BasicProperties(delivery_mode=2))

        doomed = self.connect()
        channel = doomed.channel()
        channel.basic_qos(prefetch_count=1)
        held, _ = self.consume(queue, channel)
        self.wait_for(held, 1, doomed)
        self.nothing_more(held, 1, doomed)

        done = []

        def work():
            connection = self.connect()
            channel = connection.channel()
            channel.basic_qos(prefetch_count=1)
            for method, _, body in channel.consume(queue, inactivity_timeout=1.5):
                if method is None:
                    break
                done.append((body.decode(), method.redelivered))
                channel.basic_ack(method.delivery_tag)
            connection.close()

        workers = [self.in_background(work) for _ in range(2)]
        self.eventually(lambda: len(done) == 7)
        doomed.close()
        for finish in workers:
            finish()
        self.assertEqual(sorted(done), sorted([('task %d' % number, False) for number in range(1, 8)]
                                              + [('task 0', True)]))
        self.assertEqual(self.count(queue), 0)

    def test_3_publish_subscribe(self):
        logs = self.name('logs')
        self.channel.exchange_declare(logs, 'fanout')
        self.channel.basic_publish(logs, '', 'nobody listens yet')
        listeners = []
        for _ in range(3):
            connection = self.connect()
            channel = connection.channel()
            queue = channel.queue_declare('', exclusive=True).method.queue
            channel.queue_bind(queue, logs)
            listeners.append((connection, self.consume(queue, channel, auto_ack=True)[0]))
        for line in ('one', 'two'):
            self.channel.basic_publish(logs, '', line)
        for connection, got in listeners:
            self.assertEqual(self.wait_for(got, 2, connection), ['one', 'two'])

    def test_4_routing(self):
        """With the SelectConnection adapter: one callback leads to the next."""
        logs = self.name('direct-logs')
        self.channel.exchange_declare(logs, 'direct')
        got = []
        steps = []

        def on_open(connection):
            connection.channel(on_open_callback=on_channel)

        def on_channel(channel):
            steps.append('channel')
            channel.queue_declare('', exclusive=True, callback=lambda frame: on_queue(channel, frame.method.queue))

        def on_queue(channel, queue):
            channel.queue_bind(queue, logs, 'warning')
            channel.queue_bind(queue, logs, 'error', callback=lambda _: on_bound(channel, queue))

        def on_bound(channel, queue):
            steps.append('bound')
            channel.basic_consume(queue, on_message, auto_ack=True, callback=lambda _: publish(channel))

        def publish(channel):
            for severity in ('info', 'warning', 'debug', 'error'):
                channel.basic_publish(logs, severity, 'the %s' % severity)

        def on_message(channel, method, properties, body):
            got.append((method.routing_key, body.decode()))
            if len(got) == 2:
                channel.connection.close()

        def give_up():
            connection.ioloop.stop()
            self.fail('not done in time: %s, %s' % (steps, got))

        connection = pika.SelectConnection(
            self.broker.parameters(), on_open_callback=on_open,
            on_open_error_callback=lambda connection, error: self.fail(error),
            on_close_callback=lambda connection, reason: connection.ioloop.stop())
        connection.ioloop.call_later(15, give_up)
        connection.ioloop.start()
        self.assertEqual(got, [('warning', 'the warning'), ('error', 'the error')])

    def test_5_topics(self):
        logs = self.name('topic-logs')
        self.channel.exchange_declare(logs, 'topic')
        listeners = {}
        for keys in (('#',), ('kern.*',), ('*.critical',), ('kern.*', '*.critical')):
            queue = self.channel.queue_declare('', exclusive=True).method.queue
            for key in keys:
                self.channel.queue_bind(queue, logs, key)
            listeners[keys] = self.consume(queue, auto_ack=True)[0]
        for key in ('kern.critical', 'kern.info', 'cron.critical', 'cron.info', 'kern'):
            self.channel.basic_publish(logs, key, key)
        expected = {
            ('#',): ['kern.critical', 'kern.info', 'cron.critical', 'cron.info', 'kern'],
            ('kern.*',): ['kern.critical', 'kern.info'],
            ('*.critical',): ['kern.critical', 'cron.critical'],
            ('kern.*', '*.critical'): ['kern.critical', 'kern.info', 'cron.critical'],
        }
        for keys, bodies in expected.items():
            self.assertEqual(self.wait_for(listeners[keys], len(bodies)), bodies, keys)

    def test_6_remote_procedure_call(self):
        """The server is a pika program on asyncio; the caller matches answers by correlation id."""
        queue = self.queue(suffix='rpc')
        asked = self.in_background(lambda: asyncio.run(asyncio.wait_for(self.serve_fibonacci(queue, 5), 15)))

        answers = {}
        replies = self.channel.queue_declare('', exclusive=True).method.queue
        self.channel.basic_consume(replies, lambda _, method, properties, body:
                                   answers.__setitem__(properties.correlation_id, int(body)), auto_ack=True)
        calls = {}
        for number in (1, 2, 10, 20, 30):
            calls[str(uuid.uuid4())] = number
        for correlation_id, number in calls.items():
            self.channel.basic_publish('', queue, str(number), pika.BasicProperties(
                reply_to=replies, correlation_id=correlation_id))
        self.eventually(lambda: len(answers) == len(calls), 'not all answers came')
        self.assertEqual({calls[correlation_id]: answer for correlation_id, answer in answers.items()},
                         {1: 1, 2: 1, 10: 55, 20: 6765, 30: 832040})
        asked()

    async def serve_fibonacci(self, queue, count):
        """Answers so many calls, then closes in order."""
        loop = asyncio.get_running_loop()
        closed = loop.create_future()
        served = []

        def on_open(connection):
            connection.channel(on_open_callback=on_channel)

        def on_channel(channel):
            channel.basic_qos(prefetch_count=1)
            channel.basic_consume(queue, on_request)

        def on_request(channel, method, properties, body):
            one, two = 0, 1
            for _ in range(int(body)):
                one, two = two, one + two
            channel.basic_publish('', properties.reply_to, str(one),
                                  pika.BasicProperties(correlation_id=properties.correlation_id))
            channel.basic_ack(method.delivery_tag)
            served.append(body)
            if len(served) == count:
                channel.connection.close()

        AsyncioConnection(self.broker.parameters(), on_open_callback=on_open, custom_ioloop=loop,
                          on_open_error_callback=lambda connection, error: closed.set_exception(error),
                          on_close_callback=lambda connection, reason: closed.set_result(reason))
        await closed


if __name__ == '__main__':
    tap.main()
