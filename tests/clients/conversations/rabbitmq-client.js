// rabbitmq-client: publishers, consumers and RPC clients that set themselves up again after every reconnect.
'use strict';

const assert = require('assert');
const {Connection, ConsumerStatus} = require('rabbitmq-client');
const {step, end, restartBroker, until, numbers} = require('./steps.js');

const rabbit = new Connection({url: process.env.URL, retryLow: 50, retryHigh: 200});
rabbit.on('error', () => {}); // the restart; it connects again by itself

async function confirmedAndAcked() {
  const publisher = rabbit.createPublisher({confirm: true, queues: [{queue: 'work', durable: true}]});
  await Promise.all(numbers(500).map((number) => publisher.send({routingKey: 'work', durable: true}, {number})));
  assert.strictEqual((await rabbit.queueDeclare({queue: 'work', passive: true})).messageCount, 500);

  const got = [];
  const consumer = rabbit.createConsumer({queue: 'work', queueOptions: {durable: true}, qos: {prefetchCount: 20}}, (message) => {
    got.push(message.body.number);
  });
  await until(() => got.length === 500, '500 deliveries');
  assert.deepStrictEqual(got, numbers(500));
  await consumer.close();
  assert.strictEqual((await rabbit.queueDeclare({queue: 'work', passive: true})).messageCount, 0);
  await publisher.close();
}

async function deadLettered() {
  const dead = [];
  const undertaker = rabbit.createConsumer({
    queue: 'dead',
    queueOptions: {exclusive: true},
    exchanges: [{exchange: 'dead-letters', type: 'fanout', autoDelete: true}],
    queueBindings: [{exchange: 'dead-letters', queue: 'dead'}],
  }, (message) => { dead.push(message); });
  await new Promise((resolve) => undertaker.once('ready', resolve));

  const refuser = rabbit.createConsumer({
    queue: 'refused',
    queueOptions: {autoDelete: true, arguments: {'x-dead-letter-exchange': 'dead-letters'}},
  }, () => ConsumerStatus.DROP);
  await new Promise((resolve) => refuser.once('ready', resolve));
  const publisher = rabbit.createPublisher({confirm: true});
  await publisher.send('refused', 'take it away');

  await until(() => dead.length === 1, 'a dead letter');
  assert.strictEqual(dead[0].body, 'take it away');
  assert.strictEqual(dead[0].headers['x-death'][0].reason, 'rejected');
  assert.strictEqual(dead[0].headers['x-death'][0].queue, 'refused');
  await Promise.all([refuser.close(), undertaker.close(), publisher.close()]);
}

async function requeued() {
  const seen = [];
  const consumer = rabbit.createConsumer({queue: 'again', queueOptions: {exclusive: true}}, (message) => {
    seen.push(message.redelivered);
    return seen.length < 3 ? ConsumerStatus.REQUEUE : ConsumerStatus.ACK;
  });
  await new Promise((resolve) => consumer.once('ready', resolve));
  const publisher = rabbit.createPublisher({confirm: true});
  await publisher.send('again', 'once more');
  await until(() => seen.length === 3, 'three deliveries');
  assert.deepStrictEqual(seen, [false, true, true]);
  await Promise.all([consumer.close(), publisher.close()]);
}

async function calledByDirectReplyTo() {
  const server = rabbit.createConsumer({queue: 'double', queueOptions: {exclusive: true}}, async (request, reply) => {
    await reply(request.body * 2);
  });
  const caller = rabbit.createRPCClient({confirm: true});
  await new Promise((resolve) => server.once('ready', resolve));
  const answers = await Promise.all(numbers(50).map((number) => caller.send('double', number)));
  assert.deepStrictEqual(answers.map((answer) => answer.body), numbers(50).map((number) => number * 2));
  await Promise.all([caller.close(), server.close()]);
}

async function broughtBack() {
  const returned = [];
  const publisher = rabbit.createPublisher({confirm: true});
  publisher.on('basic.return', (message) => returned.push(message));
  await publisher.send({routingKey: 'nobody-has-this-queue', mandatory: true}, 'back');
  await until(() => returned.length === 1, 'a returned message');
  assert.strictEqual(returned[0].replyCode, 312);
  assert.strictEqual(returned[0].body, 'back');
  await publisher.close();
}

async function reconnected() {
  const got = new Set();
  const consumer = rabbit.createConsumer({queue: 'steady', queueOptions: {durable: true}, qos: {prefetchCount: 10}},
                                         (message) => { got.add(message.body); });
  const publisher = rabbit.createPublisher({confirm: true, maxAttempts: 20});
  await new Promise((resolve) => consumer.once('ready', resolve));
  await publisher.send({routingKey: 'work', durable: true}, 'kept');
  await publisher.send({routingKey: 'steady', durable: true}, 'before');
  await until(() => got.has('before'), 'the first message');

  const back = new Promise((resolve) => consumer.once('ready', resolve));
  restartBroker();
  await back;
  await publisher.send({routingKey: 'steady', durable: true}, 'after');
  await until(() => got.has('after'), 'a message after the restart');
  assert.strictEqual((await rabbit.basicGet({queue: 'work', noAck: true})).body, 'kept');
  await Promise.all([consumer.close(), publisher.close()]);
}

async function main() {
  await step('500 confirmed messages through a prefetch of 20', confirmedAndAcked);
  await step('a message that is dropped becomes a dead letter', deadLettered);
  await step('a message that is put back comes again, marked', requeued);
  await step('remote calls through direct reply-to', calledByDirectReplyTo);
  await step('an unroutable message comes back', broughtBack);
  await step('publisher and consumer go on after a restart', reconnected);
  await step('the connection closes', () => rabbit.close());
  end();
}

main();
