// amqplib: what programs with it usually do, once with promises and once with callbacks.
'use strict';

const assert = require('assert');
const promises = require('amqplib');
const callbacks = require('amqplib/callback_api');
const {step, end, restartBroker, until, numbers} = require('./steps.js');

const URL = process.env.URL;

async function withChannel(kind, work) {
  const connection = await promises.connect(URL);
  const channel = await connection[kind]();
  try {
    await work(channel, connection);
  } finally {
    await connection.close();
  }
}

async function confirmedWorkQueue(channel) {
  const {queue} = await channel.assertQueue('', {exclusive: true, durable: true});
  for (let number = 0; number < 500; number++)
    channel.sendToQueue(queue, Buffer.from(String(number)), {persistent: true});
  await channel.waitForConfirms();
  assert.strictEqual((await channel.checkQueue(queue)).messageCount, 500);

  await channel.prefetch(20);
  const got = [];
  await new Promise((resolve, reject) => {
    channel.consume(queue, (message) => {
      if (message === null) return reject(new Error('cancelled'));
      got.push(Number(message.content.toString()));
      channel.ack(message);
      if (got.length === 500) resolve();
    });
  });
  assert.deepStrictEqual(got, numbers(500));
  assert.strictEqual((await channel.checkQueue(queue)).messageCount, 0);
}

async function topicWithHeaders(channel) {
  await channel.assertExchange('amqplib-topic', 'topic', {durable: false, autoDelete: true});
  const {queue} = await channel.assertQueue('', {exclusive: true});
  await channel.bindQueue(queue, 'amqplib-topic', 'a.#');
  const headers = {string: 'text', number: 1.5, flag: true, list: [1, 'two'], inner: {deep: null}};
  channel.publish('amqplib-topic', 'a.b', Buffer.from('in'), {headers, messageId: 'm', timestamp: 1700000000});
  channel.publish('amqplib-topic', 'b.b', Buffer.from('out'));
  let message = false;
  while (message === false) message = await channel.get(queue, {noAck: true});
  assert.strictEqual(message.content.toString(), 'in');
  assert.deepStrictEqual(message.properties.headers, headers);
  assert.strictEqual(message.properties.messageId, 'm');
  assert.strictEqual(await channel.get(queue), false);
}

async function returned(channel) {
  const message = await new Promise((resolve) => {
    channel.on('return', resolve);
    channel.publish('', 'nobody-has-this-queue', Buffer.from('back'), {mandatory: true});
  });
  assert.strictEqual(message.fields.replyCode, 312);
  assert.strictEqual(message.content.toString(), 'back');
}

async function channelError(channel, connection) {
  const error = await new Promise((resolve) => {
    channel.on('error', resolve);
    channel.checkQueue('nobody-has-this-queue').catch(() => {});
  });
  assert.strictEqual(error.code, 404);
  const next = await connection.createChannel();
  await next.assertQueue('', {exclusive: true});
}

async function cancelledByDelete(channel) {
  const {queue} = await channel.assertQueue('', {exclusive: true});
  const message = await new Promise((resolve) => {
    channel.consume(queue, resolve).then(() => channel.deleteQueue(queue));
  });
  assert.strictEqual(message, null);
}

async function deadLettered(channel) {
  await channel.assertExchange('dead-letters', 'fanout', {durable: false, autoDelete: true});
  const dead = (await channel.assertQueue('', {exclusive: true})).queue;
  await channel.bindQueue(dead, 'dead-letters', '');
  const refused = (await channel.assertQueue('', {exclusive: true, deadLetterExchange: 'dead-letters'})).queue;
  await channel.consume(refused, (message) => channel.reject(message, false));
  channel.sendToQueue(refused, Buffer.from('take it away'), {headers: {kind: 'test'}});
  let message = false;
  await until(async () => (message = await channel.get(dead, {noAck: true})) !== false, 'a dead letter');
  assert.strictEqual(message.content.toString(), 'take it away');
  assert.strictEqual(message.fields.routingKey, refused);
  assert.strictEqual(message.properties.headers.kind, 'test');
  assert.strictEqual(message.properties.headers['x-death'][0].reason, 'rejected');
}

// Fifty calls of a server on another channel, answered to the queue `replies`.
async function call(channel, connection, replies) {
  const server = await connection.createChannel();
  const {queue} = await server.assertQueue('', {exclusive: true});
  await server.consume(queue, (request) => {
    const {replyTo, correlationId} = request.properties;
    server.sendToQueue(replyTo, Buffer.from(request.content.toString().toUpperCase()), {correlationId});
    server.ack(request);
  });
  const answers = [];
  await channel.consume(replies, (reply) => {
    answers[Number(reply.properties.correlationId)] = reply.content.toString();
  }, {noAck: true});
  for (const number of numbers(50))
    channel.sendToQueue(queue, Buffer.from('call ' + number), {replyTo: replies, correlationId: String(number)});
  await until(() => Object.keys(answers).length === 50, '50 answers');
  assert.deepStrictEqual(answers, numbers(50).map((number) => 'CALL ' + number));
}

async function calledByOwnQueue(channel, connection) {
  await call(channel, connection, (await channel.assertQueue('', {exclusive: true})).queue);
}

function calledByDirectReplyTo(channel, connection) {
  return call(channel, connection, 'amq.rabbitmq.reply-to');
}

// amqplib leaves it to the program to connect again.
async function connectAgain() {
  for (;;) {
    try {
      return await promises.connect(URL);
    } catch (error) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function reconnected() {
  const before = await promises.connect(URL);
  const gone = new Promise((resolve) => before.on('close', resolve));
  before.on('error', () => {});
  const publisher = await before.createConfirmChannel();
  await publisher.assertQueue('steady', {durable: true});
  publisher.sendToQueue('steady', Buffer.from('kept'), {persistent: true});
  await publisher.waitForConfirms();
  restartBroker();
  assert.strictEqual((await gone).code, 320);

  const after = await connectAgain();
  const message = await (await after.createChannel()).get('steady', {noAck: true});
  assert.strictEqual(message.content.toString(), 'kept');
  await after.close();
}

// The same interface with callbacks: each step in the callback of the one before.
function withCallbacks(work) {
  return new Promise((resolve, reject) => {
    const must = (next) => (error, value) => (error ? reject(error) : next(value));
    callbacks.connect(URL, must((connection) => {
      connection.createConfirmChannel(must((channel) => work(channel, must, () => connection.close(must(resolve)))));
    }));
  });
}

function confirmedAndAckedByCallbacks(channel, must, done) {
  channel.assertQueue('', {exclusive: true}, must(({queue}) => {
    channel.consume(queue, (message) => {
      assert.strictEqual(message.content.toString(), 'by callback');
      channel.ack(message);
      done();
    }, {}, must(() => {
      channel.sendToQueue(queue, Buffer.from('by callback'), {}, must(() => {}));
    }));
  }));
}

function deadLetteredByCallbacks(channel, must, done) {
  channel.assertQueue('', {exclusive: true}, must((dead) => {
    const to = {exclusive: true, deadLetterExchange: '', deadLetterRoutingKey: dead.queue};
    channel.assertQueue('', to, must((refused) => {
      channel.consume(dead.queue, (message) => {
        assert.strictEqual(message.properties.headers['x-first-death-reason'], 'rejected');
        done();
      }, {noAck: true}, must(() => {
        channel.consume(refused.queue, (message) => channel.nack(message, false, false), {}, must(() => {
          channel.sendToQueue(refused.queue, Buffer.from('take it away'), {}, must(() => {}));
        }));
      }));
    }));
  }));
}

function calledByCallbacks(channel, must, done) {
  channel.assertQueue('', {exclusive: true}, must((replies) => {
    channel.assertQueue('', {exclusive: true}, must((server) => {
      channel.consume(server.queue, (request) => {
        channel.sendToQueue(request.properties.replyTo, Buffer.from('answer'));
        channel.ack(request);
      }, {}, must(() => {
        channel.consume(replies.queue, (reply) => {
          assert.strictEqual(reply.content.toString(), 'answer');
          done();
        }, {noAck: true}, must(() => {
          channel.sendToQueue(server.queue, Buffer.from('question'), {replyTo: replies.queue});
        }));
      }));
    }));
  }));
}

async function main() {
  await step('promises: 500 confirmed messages through a prefetch of 20',
             () => withChannel('createConfirmChannel', confirmedWorkQueue));
  await step('promises: a topic exchange and every kind of header', () => withChannel('createChannel', topicWithHeaders));
  await step('promises: a rejected message becomes a dead letter', () => withChannel('createChannel', deadLettered));
  await step('promises: remote calls with a reply queue', () => withChannel('createChannel', calledByOwnQueue));
  await step('promises: remote calls through direct reply-to', () => withChannel('createChannel', calledByDirectReplyTo));
  await step('promises: an unroutable message comes back', () => withChannel('createChannel', returned));
  await step('promises: a channel error leaves the connection', () => withChannel('createChannel', channelError));
  await step('promises: a deleted queue cancels its consumer', () => withChannel('createChannel', cancelledByDelete));
  await step('promises: a restart closes the connection, and keeps what was confirmed', reconnected);
  await step('callbacks: publish, confirm, consume, ack, close', () => withCallbacks(confirmedAndAckedByCallbacks));
  await step('callbacks: a rejected message becomes a dead letter', () => withCallbacks(deadLetteredByCallbacks));
  await step('callbacks: a remote call', () => withCallbacks(calledByCallbacks));
  end();
}

main();
