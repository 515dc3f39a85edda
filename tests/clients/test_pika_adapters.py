#!/usr/bin/python3
"""pika's adapters that do not block: a confirming publisher and a consumer on each, as services run them."""

import asyncio

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

import tap
from client import PERSISTENT, ClientTest

COUNT = 2000


class Conversation:
    """Publishes with confirms and consumes what it published, acking in batches; written once for every adapter."""

    def __init__(self, queue):
        self.queue = queue
        self.connection = None
        self.channel = None
        self.confirmed = set()
        self.received = []
        self.closed = None      # the reason, once the connection has ended

    def on_open(self, connection):
        self.connection = connection
        connection.channel(on_open_callback=self.on_channel)

    def on_channel(self, channel):
        self.channel = channel
        channel.add_on_close_callback(lambda channel, reason: None)
        channel.basic_qos(prefetch_count=100, callback=self.on_qos)

    def on_qos(self, _):
        self.channel.confirm_delivery(self.on_confirm, callback=self.on_confirming)

    def on_confirming(self, _):
        self.channel.basic_consume(self.queue, self.on_message, callback=self.on_consuming)

    def on_consuming(self, _):
        for number in range(COUNT):
            self.channel.basic_publish('', self.queue, str(number), PERSISTENT)

    def on_confirm(self, frame):
        tag = frame.method.delivery_tag
        self.confirmed.update(range(1, tag + 1) if frame.method.multiple else (tag,))
        self.finish_when_done()

    def on_message(self, channel, method, properties, body):
        self.received.append(int(body))
        if len(self.received) % 50 == 0:
            channel.basic_ack(method.delivery_tag, multiple=True)
        self.finish_when_done()

    def finish_when_done(self):
        if len(self.received) == COUNT and len(self.confirmed) == COUNT and self.connection.is_open:
            self.connection.close()


class Adapters(ClientTest):
    def check(self, conversation):
        self.assertEqual(conversation.closed.reply_code, 200)
        self.assertEqual(conversation.received, list(range(COUNT)))
        self.assertEqual(conversation.confirmed, set(range(1, COUNT + 1)))
        self.assertEqual(self.count(conversation.queue), 0)

    def test_select_connection(self):
        conversation = Conversation(self.queue(durable=True))

        def on_close(connection, reason):
            conversation.closed = reason
            connection.ioloop.stop()
        connection = pika.SelectConnection(self.broker.parameters(), on_open_callback=conversation.on_open,
                                           on_open_error_callback=on_close, on_close_callback=on_close)
        connection.ioloop.call_later(30, connection.ioloop.stop)
        connection.ioloop.start()
        self.check(conversation)

    def test_asyncio_connection(self):
        conversation = Conversation(self.queue(durable=True))

        async def converse():
            loop = asyncio.get_running_loop()
            ended = loop.create_future()

            def on_close(_, reason):
                conversation.closed = reason
                ended.set_result(None)
            AsyncioConnection(self.broker.parameters(), on_open_callback=conversation.on_open, custom_ioloop=loop,
                              on_open_error_callback=on_close, on_close_callback=on_close)
            await asyncio.wait_for(ended, 30)
        asyncio.run(converse())
        self.check(conversation)

    def test_heartbeats_keep_an_idle_connection(self):
        """Both ends ask for heartbeats each second and say nothing else for some seconds."""
        idle_for = 4
        conversation = Conversation(self.queue())
        still_open = []

        def on_open(connection):
            connection.ioloop.call_later(idle_for, lambda: (still_open.append(connection.is_open), connection.close()))

        def on_close(connection, reason):
            conversation.closed = reason
            connection.ioloop.stop()
        connection = pika.SelectConnection(self.broker.parameters(heartbeat=1), on_open_callback=on_open,
                                           on_open_error_callback=on_close, on_close_callback=on_close)
        connection.ioloop.start()
        self.assertEqual(still_open, [True])
        self.assertEqual(conversation.closed.reply_code, 200)


if __name__ == '__main__':
    tap.main()
