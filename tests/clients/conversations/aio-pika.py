"""aio-pika on aiormq: robust connections, which restore channels, queues and consumers by themselves."""

import asyncio
import os

import aio_pika
from aio_pika.patterns import RPC, Master

from steps import end, restart_broker, step, until_async

URL = os.environ['URL'] + '/'


@step('500 confirmed messages through a prefetch of 20')
async def confirmed_and_acked():
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue('work', durable=True)
        await asyncio.gather(*(channel.default_exchange.publish(
            aio_pika.Message(b'%d' % number, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), 'work')
            for number in range(500)))
        assert (await channel.declare_queue('work', passive=True)).declaration_result.message_count == 500

        await channel.set_qos(prefetch_count=20)
        got = []
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    got.append(int(message.body))
                if len(got) == 500:
                    break
        assert got == list(range(500)), got
        assert (await channel.declare_queue('work', passive=True)).declaration_result.message_count == 0


@step('a rejected message becomes a dead letter')
async def dead_lettered():
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange('dead-letters', aio_pika.ExchangeType.HEADERS, auto_delete=True)
        dead = await channel.declare_queue(exclusive=True)
        await dead.bind(exchange, arguments={'x-match': 'all', 'kind': 'test'})
        refused = await channel.declare_queue(exclusive=True, arguments={'x-dead-letter-exchange': 'dead-letters'})

        async def refuse(message):
            await message.reject(requeue=False)
        await refused.consume(refuse)
        headers = {'kind': 'test', 'number': 7, 'none': None}
        await channel.default_exchange.publish(aio_pika.Message(b'take it away', headers=headers), refused.name)
        async with dead.iterator(no_ack=True) as messages:
            letter = await messages.__anext__()
        assert letter.body == b'take it away'
        death = letter.headers['x-death'][0]
        assert {name: letter.headers[name] for name in headers} == headers, dict(letter.headers)
        assert (death['reason'], death['queue'], death['count']) == ('rejected', refused.name, 1), death


@step('remote calls with a reply queue')
async def called():
    async with await aio_pika.connect_robust(URL) as connection:
        server = await RPC.create(await connection.channel())
        caller = await RPC.create(await connection.channel())

        async def double(number):
            return number * 2
        await server.register('double', double, auto_delete=True)
        answers = await asyncio.gather(*(caller.proxy.double(number=number) for number in range(50)))
        assert answers == [2 * number for number in range(50)], answers
        await caller.close()
        await server.close()


@step('remote calls through direct reply-to')
async def called_by_direct_reply_to():
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        calls = await channel.declare_queue(exclusive=True)

        async def serve(request):
            answer = aio_pika.Message(request.body.upper(), correlation_id=request.correlation_id)
            await channel.default_exchange.publish(answer, request.reply_to)
            await request.ack()
        await calls.consume(serve)
        other = await connection.channel()
        replies = await other.get_queue('amq.rabbitmq.reply-to', ensure=False)
        answers = {}

        async def collect(reply):
            answers[int(reply.correlation_id)] = reply.body
        await replies.consume(collect, no_ack=True)
        for number in range(50):
            request = aio_pika.Message(b'call %d' % number, correlation_id=str(number), reply_to=replies.name)
            await other.default_exchange.publish(request, calls.name)
        await until_async(lambda: len(answers) == 50, '50 answers')
        assert answers[49] == b'CALL 49', answers


@step('an unroutable message is refused by its publisher, and a transaction is rolled back')
async def returned():
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        try:
            await channel.default_exchange.publish(aio_pika.Message(b'back'), 'nobody-has-this-queue')
            raise AssertionError('it was not returned')
        except aio_pika.exceptions.DeliveryError as error:
            assert error.message.delivery.reply_code == 312, error.message

        plain = await connection.channel(publisher_confirms=False)
        queue = await plain.declare_queue(exclusive=True)
        try:
            async with plain.transaction():
                await plain.default_exchange.publish(aio_pika.Message(b'withdrawn'), queue.name)
                raise KeyError
        except KeyError:
            pass
        async with plain.transaction():
            await plain.default_exchange.publish(aio_pika.Message(b'meant'), queue.name)
        assert (await queue.get(no_ack=True)).body == b'meant'
        assert await queue.get(no_ack=True, fail=False) is None


@step('a master and its worker')
async def commanded():
    async with await aio_pika.connect_robust(URL) as connection:
        done = []

        async def work(task_id):
            done.append(task_id)
        worker = Master(await connection.channel())
        await worker.create_worker('tasks', work, auto_delete=True)
        master = Master(await connection.channel())
        for task_id in range(20):
            await master.proxy.tasks(task_id=task_id)
        await until_async(lambda: len(done) == 20, '20 tasks')
        assert done == list(range(20)), done


@step('a robust connection restores queue, binding and consumer after a restart')
async def reconnected():
    async with await aio_pika.connect_robust(URL, reconnect_interval=0.1) as connection:
        channel = await connection.channel()
        kept = await channel.declare_queue('kept', durable=True)
        await channel.default_exchange.publish(
            aio_pika.Message(b'kept', delivery_mode=aio_pika.DeliveryMode.PERSISTENT), 'kept')
        exchange = await channel.declare_exchange('steady', aio_pika.ExchangeType.TOPIC, durable=False, auto_delete=True)
        steady = await channel.declare_queue('', exclusive=True)
        await steady.bind(exchange, 'a.*')
        got = []

        async def on_message(message):
            async with message.process():
                got.append(message.body)
        await steady.consume(on_message)
        await exchange.publish(aio_pika.Message(b'before'), 'a.b')
        await until_async(lambda: got == [b'before'], 'the first message')

        back = asyncio.Event()
        connection.reconnect_callbacks.add(lambda *_: back.set())
        restart_broker()
        await back.wait()
        await until_async(lambda: connection.connected.is_set(), 'a connection')
        await exchange.publish(aio_pika.Message(b'after'), 'a.b', timeout=10)
        await until_async(lambda: got[-1] == b'after', 'a message after the restart')
        assert (await kept.get(no_ack=True)).body == b'kept'


end()
