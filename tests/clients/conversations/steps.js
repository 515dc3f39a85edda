// How a conversation in JavaScript is told: its steps in order, each a result of the Test Anything Protocol.
'use strict';

const assert = require('assert');

let count = 0;

async function step(name, work) {
  count++;
  try {
    await work();
    console.log('ok %d - %s', count, name);
  } catch (error) {
    console.log('not ok %d - %s\n%s', count, name, error.stack);
  }
}

// The last step is told: whatever the client may still hold open, the program is over.
function end() {
  console.log('1..%d', count);
  process.exit(0);
}

function restartBroker() {
  console.log('restart');
}

async function until(holds, what) {
  const deadline = Date.now() + 15000;
  while (!(await holds())) {
    assert(Date.now() < deadline, 'in vain: ' + what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function numbers(count) {
  return [...Array(count).keys()];
}

module.exports = {step, end, restartBroker, until, numbers};
