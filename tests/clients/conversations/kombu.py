"""kombu: messaging objects over py-amqp, as Celery and many services use them; connections that are made anew."""

import os
import socket

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.mixins import ConsumerMixin
from kombu.simple import SimpleQueue

from steps import end, restart_broker, step, until

URL = os.environ['URL'] + '//'


def connect(**options):
    return Connection(URL, transport_options=dict(confirm_publish=True), **options)


def drain(connection):
    """What a program does that waits for messages: serves the connection, for a moment at a time."""
    def pause():
        try:
            connection.drain_events(timeout=0.1)
        except socket.timeout:
            pass
    return pause


@step('500 confirmed messages through a prefetch of 20')
def confirmed_and_acked():
    work = Queue('work', Exchange('work', 'direct'), 'job', durable=True)
    with connect() as connection:
        producer = connection.Producer(serializer='json')
        for number in range(500):
            producer.publish({'number': number}, exchange=work.exchange, routing_key='job', declare=[work])
        assert work(connection).queue_declare(passive=True).message_count == 500
        got = []

        def on_message(body, message):
            got.append(body['number'])
            message.ack()
        with connection.Consumer(work, callbacks=[on_message], prefetch_count=20):
            until(lambda: len(got) == 500, '500 deliveries', drain(connection))
        assert got == list(range(500)), got
        assert work(connection).queue_declare(passive=True).message_count == 0


@step('what is rejected becomes a dead letter, what is requeued comes again')
def dead_lettered():
    exchange = Exchange('dead-letters', 'topic', durable=False, auto_delete=True)
    dead = Queue('dead', exchange, '#', exclusive=True)
    refused = Queue('refused', exclusive=True, queue_arguments={'x-dead-letter-exchange': 'dead-letters'})
    with connect() as connection:
        dead(connection).declare()
        seen = []

        def on_message(body, message):
            seen.append(message.delivery_info['redelivered'])
            message.reject(requeue=len(seen) < 3)
        with connection.Consumer(refused, callbacks=[on_message]):
            connection.Producer().publish('take it away', routing_key='refused', headers={'kind': 'test'})
            until(lambda: len(seen) == 3, 'three deliveries', drain(connection))
        letters = []
        with connection.Consumer(dead, on_message=letters.append, no_ack=True):
            until(lambda: letters, 'a dead letter', drain(connection))
        assert seen == [False, True, True], seen
        assert letters[0].payload == 'take it away'
        assert letters[0].headers['kind'] == 'test'
        assert letters[0].headers['x-death'][0]['reason'] == 'rejected', letters[0].headers


@step('priorities, expiry and length limits as a queue has them by name')
def limited():
    with connect() as connection:
        spill = Queue('spill', exclusive=True)(connection)
        spill.declare()
        queue = Queue('limited', exclusive=True, max_length=2, max_priority=5, message_ttl=0.2, expires=30,
                      queue_arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'spill'})(connection)
        queue.declare()
        producer = connection.Producer()
        for priority in (4, 1, 2):
            producer.publish(str(priority), routing_key='limited', priority=priority)
        reasons = []

        def emptied():
            message = spill.get(no_ack=True)
            if message is not None:
                reasons.append((message.headers['x-death'][0]['reason'], message.payload))
            return len(reasons) == 3
        until(emptied, 'all three in the other queue')
        assert [reason for reason, _ in reasons] == ['maxlen', 'expired', 'expired'], reasons


def call(connection, replies, reply_to):
    """Fifty calls, answered to `replies`, which the caller names `reply_to`."""
    answers = {}
    server = connection.clone()
    requests = Queue('calls', exclusive=True)

    def on_request(body, message):
        Producer(message.channel).publish(body.upper(), routing_key=message.properties['reply_to'],
                                          correlation_id=message.properties['correlation_id'])
        message.ack()

    def on_reply(body, message):
        answers[int(message.properties['correlation_id'])] = body

    with server, Consumer(server, requests, callbacks=[on_request]):
        channel = connection.channel()
        with Consumer(channel, replies, callbacks=[on_reply], no_ack=True, auto_declare=reply_to is None):
            producer = Producer(channel)
            for number in range(50):
                producer.publish('call %d' % number, routing_key='calls', reply_to=reply_to or replies.name,
                                 correlation_id=str(number))
                server.drain_events(timeout=10)
            until(lambda: len(answers) == 50, '50 answers', drain(connection))
    assert answers == {number: 'CALL %d' % number for number in range(50)}, answers


@step('remote calls with a reply queue')
def called_by_own_queue():
    with connect() as connection:
        call(connection, Queue('replies', exclusive=True), None)


@step('remote calls through direct reply-to')
def called_by_direct_reply_to():
    with connect() as connection:
        call(connection, Queue('amq.rabbitmq.reply-to', no_ack=True), 'amq.rabbitmq.reply-to')


@step('simple queues and compressed bodies')
def simple():
    with connect() as connection, SimpleQueue(connection, 'simple', serializer='json', compression='zlib') as queue:
        queue.put({'text': 'x' * 200000})
        message = queue.get(timeout=10)
        assert message.payload == {'text': 'x' * 200000}
        message.ack()
        assert queue.qsize() == 0


class Worker(ConsumerMixin):
    """What kombu has for programs that run for long: it connects again, declares again, consumes again."""
    def __init__(self, connection, producer):
        self.connection = connection
        self.producer = producer
        self.got = []
        self.consuming = 0

    def get_consumers(self, consumer, channel):
        return [consumer(Queue('steady', durable=True), callbacks=[self.on_body], prefetch_count=10)]

    def on_consume_ready(self, connection, channel, consumers, **_):
        self.consuming += 1
        self.publish('before' if self.consuming == 1 else 'after')

    def on_body(self, body, message):
        self.got.append(body)
        message.ack()
        if body == 'before':
            restart_broker()
        else:
            self.should_stop = True

    def publish(self, body):
        """With a connection of its own, on which the producer notices by itself that it must connect again."""
        self.producer.publish(body, routing_key='steady', declare=[Queue('steady', durable=True)], retry=True,
                              retry_policy={'interval_start': 0.1, 'interval_step': 0, 'max_retries': 100})


@step('a worker and a producer go on after a restart')
def reconnected():
    with connect() as connection:
        Queue('kept', durable=True)(connection).declare()
        connection.Producer().publish('kept', routing_key='kept')
    with connect() as connection, connect() as other:
        worker = Worker(connection, other.Producer())
        worker.run()
    assert worker.got == ['before', 'after'], worker.got
    with connect() as connection:
        assert Queue('kept', durable=True)(connection).get(no_ack=True).payload == 'kept'


end()
