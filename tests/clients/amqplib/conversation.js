// What programs with amqplib usually do, once with promises and once with callbacks; a line `ok - name` for each.
'use strict';

const assert = require('assert');
const promises = require('amqplib');
const callbacks = require('amqplib/callback_api');

const URL = process.env.URL;

async function step(name, work) {
  try {
    await work();
    console.log('ok - ' + name);
  } catch (error) {
    console.log('not ok - ' + name);
    console.log(error.stack);
    process.exitCode = 1;
  }
}

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
  assert.deepStrictEqual(got, [...Array(500).keys()]);
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

function withCallbacks() {
  return new Promise((resolve, reject) => {
    const must = (next) => (error, value) => (error ? reject(error) : next(value));
    callbacks.connect(URL, must((connection) => {
      connection.createConfirmChannel(must((channel) => {
        channel.assertQueue('', {exclusive: true}, must(({queue}) => {
          channel.consume(queue, (message) => {
            channel.ack(message);
            assert.strictEqual(message.content.toString(), 'by callback');
            connection.close(must(resolve));
          }, {}, must(() => {
            channel.sendToQueue(queue, Buffer.from('by callback'), {}, must(() => {}));
          }));
        }));
      }));
    }));
  });
}

async function main() {
  await step('promises: 500 confirmed messages through a prefetch of 20',
             () => withChannel('createConfirmChannel', confirmedWorkQueue));
  await step('promises: a topic exchange and every kind of header', () => withChannel('createChannel', topicWithHeaders));
  await step('promises: an unroutable message comes back', () => withChannel('createChannel', returned));
  await step('promises: a channel error leaves the connection', () => withChannel('createChannel', channelError));
  await step('promises: a deleted queue cancels its consumer', () => withChannel('createChannel', cancelledByDelete));
  await step('callbacks: publish, confirm, consume, ack, close', withCallbacks);
}

main();
