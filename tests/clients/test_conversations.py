#!/usr/bin/python3
"""What programs usually do, with client libraries that others wrote: one program for each, in conversations/.

Each publishes with confirms, consumes with acks, rejects to a dead-letter exchange, calls and is called, and goes on
after a restart of the broker, in the way that its library has for that. They run beside each other, each with a
broker of its own; see lib/conversation.py for how they tell what they find. Arguments name those to run.
"""

import concurrent.futures
import pathlib
import sys

import broker
import npm
import tap
from conversation import Conversation

PROGRAMS = pathlib.Path(__file__).with_name('conversations')
AT_ONCE = 3
INTERPRETERS = {
    '.js': ['node'],
    '.php': ['php'],
    '.py': ['/usr/bin/python3', '-P'],  # or kombu.py would import itself
    '.rb': ['ruby'],
}

# What a program provokes on purpose makes the broker log that it did.
EXPECTED = {
    'amqplib': ("caused a channel exception: NOT_FOUND - no queue 'nobody-has-this-queue'",),
}


def conversations():
    node = {'NODE_PATH': str(npm.install() / 'node_modules')}
    return [Conversation(path.stem, INTERPRETERS[path.suffix] + [str(path)], node, EXPECTED.get(path.stem, ()))
            for path in sorted(PROGRAMS.iterdir()) if path.name != 'steps.js' and (path.stem in sys.argv or not sys.argv[1:])]


def main():
    printer = tap.Printer()
    if broker.EXTERNAL:
        printer.skip('conversations', 'an external broker is not restarted')
    else:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for conversation in concurrent.futures.as_completed([pool.submit(each.hold) for each in conversations()]):
                conversation.result().tell(printer)
    printer.plan(printer.count)
    sys.exit(1 if printer.failed else 0)


if __name__ == '__main__':
    main()
