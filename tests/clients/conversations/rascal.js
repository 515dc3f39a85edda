// rascal: what there is to declare, publish and subscribe to is configuration; recovery strategies say what a failure does.
'use strict';

const assert = require('assert');
const {BrokerAsPromised, withDefaultConfig} = require('rascal');
const {step, end, restartBroker, until, numbers} = require('./steps.js');

const config = {
  vhosts: {
    '/': {
      connections: [{url: process.env.URL, retry: {min: 50, max: 200, factor: 2, strategy: 'linear'}}],
      exchanges: ['work', 'delay', 'retry', 'dead'],
      queues: {
        work: {options: {arguments: {'x-dead-letter-exchange': 'dead'}}},
        delay: {options: {arguments: {'x-message-ttl': 200, 'x-dead-letter-exchange': 'retry'}}},
        dead: {},
        calls: {options: {durable: false, exclusive: true}},
        replies: {replyTo: true, options: {durable: false, exclusive: true}},
      },
      bindings: ['work[job.#] -> work', 'delay[later] -> delay', 'retry[work.#] -> work', 'dead[#] -> dead'],
      publications: {
        job: {exchange: 'work', routingKey: 'job.new', confirm: true},
        later: {exchange: 'delay', routingKey: 'later', confirm: true, options: {CC: ['work.again']}},
        unroutable: {exchange: 'work', routingKey: 'other', options: {mandatory: true}},
        call: {queue: 'calls', replyTo: 'replies'},
        reply: {exchange: ''},
      },
      subscriptions: {
        work: {queue: 'work', prefetch: 20, retry: {min: 50, max: 200, factor: 2, strategy: 'linear'}},
        dead: {queue: 'dead', prefetch: 20},
        calls: {queue: 'calls', contentType: 'text/plain'},
        replies: {queue: 'replies', contentType: 'text/plain'},
      },
    },
  },
};

// Subscribes for the time that `work` takes; each message goes to `onMessage`.
async function subscribed(broker, name, onMessage, work) {
  const session = await broker.subscribe(name);
  session.on('message', onMessage);
  session.on('error', () => {});
  try {
    await work();
  } finally {
    await session.cancel();
  }
}

function published(broker, ...words) {
  return broker.publish(...words).then((publication) => new Promise((resolve, reject) => {
    publication.on('success', resolve).on('error', reject);
  }));
}

async function confirmedAndAcked(broker) {
  const got = [];
  await Promise.all(numbers(500).map((number) => published(broker, 'job', {number})));
  await subscribed(broker, 'work', (message, content, ackOrNack) => {
    got.push(content.number);
    ackOrNack();
  }, () => until(() => got.length === 500, '500 deliveries'));
  assert.deepStrictEqual(got.sort((a, b) => a - b), numbers(500));
}

async function deadLettered(broker) {
  const dead = [];
  const bury = (message, content, ackOrNack) => { dead.push(message); ackOrNack(); };
  const refuse = (message, content, ackOrNack) => ackOrNack(new Error('no'), {strategy: 'nack'});
  await subscribed(broker, 'dead', bury, () => subscribed(broker, 'work', refuse, async () => {
    await published(broker, 'job', 'take it away');
    await until(() => dead.length === 1, 'a dead letter');
  }));
  assert.strictEqual(dead[0].content.toString(), 'take it away');
  assert.strictEqual(dead[0].fields.routingKey, 'job.new');
  assert.strictEqual(dead[0].properties.headers['x-death'][0].reason, 'rejected');
}

async function republished(broker) {
  const attempts = [];
  await subscribed(broker, 'work', (message, content, ackOrNack) => {
    attempts.push(message.properties.headers);
    if (attempts.length < 3) ackOrNack(new Error('not yet'), {strategy: 'republish', attempts: 5});
    else ackOrNack();
  }, async () => {
    await published(broker, 'job', 'hard');
    await until(() => attempts.length === 3, 'three attempts');
  });
  assert.strictEqual(attempts[2].rascal.recovery.work.republished, 2);
}

async function delayed(broker) {
  const got = [];
  const started = Date.now();
  await subscribed(broker, 'work', (message, content, ackOrNack) => { got.push(message); ackOrNack(); }, async () => {
    await published(broker, 'later', 'patience');
    await until(() => got.length === 1, 'a delayed message');
  });
  assert(Date.now() - started >= 195, 'after 200 ms');
  assert.strictEqual(got[0].properties.headers['x-death'][0].reason, 'expired');
}

async function called(broker) {
  const answers = [];
  const serve = (message, content, ackOrNack) => {
    const {replyTo, correlationId} = message.properties;
    published(broker, 'reply', content.toUpperCase(), {routingKey: replyTo, options: {correlationId}});
    ackOrNack();
  };
  const collect = (message, content, ackOrNack) => {
    answers[Number(message.properties.correlationId)] = content;
    ackOrNack();
  };
  await subscribed(broker, 'replies', collect, () => subscribed(broker, 'calls', serve, async () => {
    for (const number of numbers(50))
      await broker.publish('call', 'call ' + number, {options: {correlationId: String(number)}});
    await until(() => Object.keys(answers).length === 50, '50 answers');
  }));
  assert.deepStrictEqual(answers, numbers(50).map((number) => 'CALL ' + number));
}

async function broughtBack(broker) {
  const publication = await broker.publish('unroutable', 'back');
  const message = await new Promise((resolve) => publication.on('return', resolve));
  assert.strictEqual(message.fields.replyCode, 312);
  assert.strictEqual(message.content.toString(), 'back');
}

async function reconnected(broker) {
  const got = new Set();
  await published(broker, 'job', 'before');
  await new Promise((resolve) => {
    broker.once('vhost_initialised', resolve);
    restartBroker();
  });
  await subscribed(broker, 'work', (message, content, ackOrNack) => { got.add(content); ackOrNack(); }, async () => {
    await until(() => got.has('before'), 'the message from before the restart');
    const back = new Promise((resolve) => broker.once('vhost_initialised', resolve));
    restartBroker();
    await back;
    await published(broker, 'job', 'after');
    await until(() => got.has('after'), 'a message after the second restart');
  });
}

async function main() {
  const broker = await BrokerAsPromised.create(withDefaultConfig(config));
  broker.on('error', () => {}); // the restarts; it connects again by itself
  await step('500 confirmed messages through a prefetch of 20', () => confirmedAndAcked(broker));
  await step('a refused message becomes a dead letter', () => deadLettered(broker));
  await step('a message is republished until it is done', () => republished(broker));
  await step('a message is delayed by a queue and routed by its CC header', () => delayed(broker));
  await step('remote calls with a reply queue', () => called(broker));
  await step('an unroutable message comes back', () => broughtBack(broker));
  await step('publications and subscriptions go on after restarts', () => reconnected(broker));
  await step('the broker object shuts down', () => broker.shutdown());
  end();
}

main();
