// @cloudamqp/amqp-client: its plain client with channels, and its session, which recovers after a reconnect.
'use strict';

const assert = require('assert');
const {AMQPClient, AMQPSession} = require('@cloudamqp/amqp-client');
const {step, end, restartBroker, until, numbers} = require('./steps.js');

const URL = process.env.URL;

async function withChannel(work) {
  const connection = await new AMQPClient(URL).connect();
  try {
    await work(await connection.channel());
  } finally {
    await connection.close();
  }
}

async function withSession(work) {
  const session = await AMQPSession.connect(URL, {reconnectInterval: 50, maxReconnectInterval: 200});
  try {
    await work(session);
  } finally {
    await session.stop();
  }
}

async function confirmedAndAcked(channel) {
  await channel.confirmSelect();
  await channel.queueDeclare('work', {durable: true});
  const tags = await Promise.all(numbers(500).map((number) => channel.basicPublish('', 'work', String(number), {deliveryMode: 2})));
  assert.strictEqual(Math.max(...tags), 500);
  assert.strictEqual((await channel.queueDeclare('work', {passive: true, durable: true})).messageCount, 500);

  await channel.prefetch(20);
  const got = [];
  const consumer = await channel.basicConsume('work', {noAck: false}, async (message) => {
    got.push(Number(message.bodyToString()));
    await message.ack();
  });
  await until(() => got.length === 500, '500 deliveries');
  assert.deepStrictEqual(got, numbers(500));
  await consumer.cancel();
  assert.strictEqual((await channel.queueDeclare('work', {passive: true, durable: true})).messageCount, 0);
}

async function deadLettered(channel) {
  await channel.exchangeDeclare('dead-letters', 'direct', {durable: false, autoDelete: true});
  await channel.queueDeclare('dead', {exclusive: true});
  await channel.queueBind('dead', 'dead-letters', 'refused');
  await channel.queueDeclare('refused', {exclusive: true}, {'x-dead-letter-exchange': 'dead-letters'});
  await channel.basicConsume('refused', {noAck: false}, (message) => message.reject(false));
  await channel.basicPublish('', 'refused', 'take it away', {messageId: 'one', headers: {kind: 'test'}});
  let dead = null;
  await until(async () => (dead = await channel.basicGet('dead', {noAck: true})) !== null, 'a dead letter');
  assert.strictEqual(dead.bodyToString(), 'take it away');
  assert.strictEqual(dead.properties.messageId, 'one');
  assert.strictEqual(dead.properties.headers.kind, 'test');
  assert.strictEqual(dead.properties.headers['x-death'][0].reason, 'rejected');
  assert.strictEqual(dead.properties.headers['x-first-death-queue'], 'refused');
}

async function calledByOwnQueue(channel) {
  await channel.queueDeclare('upper', {exclusive: true});
  await channel.basicConsume('upper', {noAck: false}, async (request) => {
    const {replyTo, correlationId} = request.properties;
    await channel.basicPublish('', replyTo, request.bodyToString().toUpperCase(), {correlationId});
    await request.ack();
  });
  const replies = await channel.queueDeclare('', {exclusive: true});
  const answers = [];
  await channel.basicConsume(replies.name, {noAck: true}, (reply) => {
    answers[Number(reply.properties.correlationId)] = reply.bodyToString();
  });
  for (const number of numbers(50))
    await channel.basicPublish('', 'upper', 'call ' + number, {replyTo: replies.name, correlationId: String(number)});
  await until(() => Object.keys(answers).length === 50, '50 answers');
  assert.deepStrictEqual(answers, numbers(50).map((number) => 'CALL ' + number));
}

async function committed(channel) {
  const queue = await channel.queueDeclare('', {exclusive: true});
  await channel.txSelect();
  await channel.basicPublish('', queue.name, 'withdrawn');
  await channel.txRollback();
  await channel.basicPublish('', queue.name, 'meant');
  await channel.txCommit();
  assert.strictEqual((await channel.basicGet(queue.name, {noAck: true})).bodyToString(), 'meant');
  assert.strictEqual(await channel.basicGet(queue.name, {noAck: true}), null);
}

async function broughtBack(channel) {
  const message = await new Promise((resolve) => {
    channel.onReturn = resolve;
    channel.basicPublish('', 'nobody-has-this-queue', 'back', {}, true);
  });
  assert.strictEqual(message.replyCode, 312);
  assert.strictEqual(message.bodyToString(), 'back');
}

async function calledByDirectReplyTo(session) {
  await session.rpcServer('double', (request) => String(2 * Number(request.bodyString())), {durable: false, autoDelete: true});
  assert.strictEqual((await session.rpcCall('double', '21')).bodyToString(), '42');
  const caller = await session.rpcClient();
  const answers = await Promise.all(numbers(50).map((number) => caller.call('double', String(number))));
  assert.deepStrictEqual(answers.map((answer) => Number(answer.bodyToString())), numbers(50).map((number) => 2 * number));
  await caller.close();
}

async function reconnected(session) {
  const got = new Set();
  const kept = await session.queue('kept', {durable: true});
  await kept.publish('kept', {deliveryMode: 2});
  const steady = await session.queue('steady', {durable: true});
  const subscription = await steady.subscribe({prefetch: 10}, (message) => { got.add(message.bodyString()); });
  await steady.publish('before', {deliveryMode: 2});
  await until(() => got.has('before'), 'the first message');

  const back = new Promise((resolve) => { session.onconnect = resolve; });
  restartBroker();
  await back;
  await steady.publish('after', {deliveryMode: 2});
  await until(() => got.has('after'), 'a message after the restart');
  assert.strictEqual((await kept.get({noAck: true})).bodyString(), 'kept');
  await subscription.cancel();
}

async function main() {
  await step('500 confirmed messages through a prefetch of 20', () => withChannel(confirmedAndAcked));
  await step('a rejected message becomes a dead letter', () => withChannel(deadLettered));
  await step('remote calls with a reply queue', () => withChannel(calledByOwnQueue));
  await step('remote calls through direct reply-to', () => withSession(calledByDirectReplyTo));
  await step('a transaction is committed, another rolled back', () => withChannel(committed));
  await step('an unroutable message comes back', () => withChannel(broughtBack));
  await step('a session goes on after a restart', () => withSession(reconnected));
  end();
}

main();
