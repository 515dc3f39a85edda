// amqp-connection-manager: amqplib's channels behind a wrapper that sets them up again and keeps what was not sent.
'use strict';

const assert = require('assert');
const manager = require('amqp-connection-manager');
const {step, end, restartBroker, until, numbers} = require('./steps.js');

// Heartbeats are seldom, so that a machine with other work to do ends no connection.
const connection = manager.connect([process.env.URL], {reconnectTimeInSeconds: 0.1, heartbeatIntervalInSeconds: 30});

async function withChannel(setup, work) {
  const wrapper = connection.createChannel({setup});
  try {
    await wrapper.waitForConnect();
    await work(wrapper);
  } finally {
    await wrapper.close();
  }
}

async function confirmedAndAcked() {
  const got = [];
  await withChannel((channel) => channel.assertQueue('work', {durable: true}), async (wrapper) => {
    await Promise.all(numbers(500).map((number) => wrapper.sendToQueue('work', Buffer.from(String(number)), {persistent: true})));
    assert.strictEqual((await wrapper.checkQueue('work')).messageCount, 500);
    const {consumerTag} = await wrapper.consume('work', (message) => {
      got.push(Number(message.content.toString()));
      wrapper.ack(message);
    }, {prefetch: 20});
    await until(() => got.length === 500, '500 deliveries');
    assert.deepStrictEqual(got, numbers(500));
    await wrapper.cancel(consumerTag);
    assert.strictEqual((await wrapper.checkQueue('work')).messageCount, 0);
  });
}

async function deadLettered() {
  const setup = async (channel) => {
    await channel.assertExchange('dead-letters', 'topic', {durable: false, autoDelete: true});
    await channel.assertQueue('dead', {exclusive: true});
    await channel.bindQueue('dead', 'dead-letters', 'was.#');
    await channel.assertQueue('refused', {exclusive: true, deadLetterExchange: 'dead-letters', deadLetterRoutingKey: 'was.refused'});
    await channel.consume('refused', (message) => channel.nack(message, false, false));
  };
  await withChannel(setup, async (wrapper) => {
    await wrapper.sendToQueue('refused', Buffer.from('take it away'));
    let dead = false;
    await until(async () => (dead = await wrapper.get('dead', {noAck: true})) !== false, 'a dead letter');
    assert.strictEqual(dead.content.toString(), 'take it away');
    assert.strictEqual(dead.fields.routingKey, 'was.refused');
    assert.strictEqual(dead.properties.headers['x-death'][0].reason, 'rejected');
  });
}

async function called() {
  const answers = [];
  let replies;
  const setup = async (channel) => {
    await channel.assertQueue('upper', {exclusive: true});
    await channel.consume('upper', (request) => {
      const {replyTo, correlationId} = request.properties;
      channel.sendToQueue(replyTo, Buffer.from(request.content.toString().toUpperCase()), {correlationId});
      channel.ack(request);
    });
    replies = (await channel.assertQueue('', {exclusive: true})).queue;
    await channel.consume(replies, (reply) => {
      answers[Number(reply.properties.correlationId)] = reply.content.toString();
    }, {noAck: true});
  };
  await withChannel(setup, async (wrapper) => {
    for (const number of numbers(50))
      wrapper.sendToQueue('upper', Buffer.from('call ' + number), {replyTo: replies, correlationId: String(number)});
    await until(() => Object.keys(answers).length === 50, '50 answers');
    assert.deepStrictEqual(answers, numbers(50).map((number) => 'CALL ' + number));
  });
}

async function reconnected() {
  const got = new Set();
  const setup = async (channel) => {
    await channel.prefetch(10);
    await channel.assertQueue('kept', {durable: true});
    await channel.assertQueue('steady', {durable: true});
    await channel.consume('steady', (message) => {
      got.add(message.content.toString());
      channel.ack(message);
    });
  };
  await withChannel(setup, async (wrapper) => {
    await wrapper.sendToQueue('kept', Buffer.from('kept'), {persistent: true});
    await wrapper.sendToQueue('steady', Buffer.from('before'), {persistent: true});
    await until(() => got.has('before'), 'the first message');

    const gone = new Promise((resolve) => connection.once('disconnect', resolve));
    restartBroker();
    await gone;
    await wrapper.sendToQueue('steady', Buffer.from('meanwhile'), {persistent: true}); // sent when it is back
    await until(() => got.has('meanwhile'), 'a message after the restart');
    assert.strictEqual((await wrapper.get('kept', {noAck: true})).content.toString(), 'kept');
  });
}

async function main() {
  await step('500 confirmed messages through a prefetch of 20', confirmedAndAcked);
  await step('a rejected message becomes a dead letter', deadLettered);
  await step('remote calls with a reply queue', called);
  await step('what is sent during a restart arrives after it', reconnected);
  await step('the connection closes', () => connection.close());
  end();
}

main();
