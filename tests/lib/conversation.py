"""A program in any language that converses with a broker of its own and tells on its standard output how it goes:

    ok 1 - a message is confirmed       the Test Anything Protocol, which must end with its plan
    not ok 2 - and comes back
    expected undefined to equal 1       other lines explain the result before them
    restart                             asks for a restart of the broker, and goes on at once
    1..2

The broker's address is in the program's environment: $URL, $HOST and $PORT. A client that does its work properly
must not make the broker log a warning, so that is one more result of each conversation.
"""

import os
import re
import subprocess
import threading
import time

import broker

TIME_LIMIT = 60
RESULT = re.compile(r'(ok|not ok) \d+ - (.*)')


def settled(own, patience=5):
    """Waits until the broker has read the acks that are on their way: what it has not read by its end comes back after it.
    A program that means to leave something unacknowledged is not kept for ever."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if all(count == '0' for count, in own.rows('list_queues', 'messages_unacknowledged')):
            return
        time.sleep(0.02)


class Conversation:
    """Held once; then `results` has (name, None or lines about what went wrong) in the order in which they were told."""

    def __init__(self, name, words, environment=(), expected=()):
        """expected: parts of the warnings that the program provokes on purpose."""
        self.name = name
        self.words = words
        self.environment = dict(environment)
        self.expected = expected
        self.output = []
        self.results = []

    def hold(self):
        own = broker.Broker()
        try:
            with own:
                status = self._serve(own)
            self._judge(status)
            own.check_quiet(self.expected)
            self.results.append(('the broker had nothing to complain about', None))
        except broker.BrokerError as error:
            self.results.append(('the broker had nothing to complain about', [str(error)]))
        return self

    def _serve(self, own):
        """Runs the program to its end and does what it asks for; returns its status."""
        environment = dict(os.environ, URL=own.url(), HOST=own.host, PORT=str(own.port), **self.environment)
        process = subprocess.Popen(self.words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, encoding='utf-8', errors='replace')
        timer = threading.Timer(TIME_LIMIT * (3 if broker.SANITIZED else 1), process.kill)
        timer.start()
        try:
            for line in process.stdout:
                if line == 'restart\n':
                    settled(own)
                    own.restart()
                else:
                    self.output.append(line.rstrip())
            return process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()

    def _judge(self, status):
        why = None      # the lines that explain the result before them, if that is a failure
        for line in self.output:
            result = RESULT.match(line)
            if result:
                why = None if result.group(1) == 'ok' else []
                self.results.append((result.group(2), why))
            elif why is not None:
                why.append(line)
        plan = '1..%d' % len(self.results)
        if plan not in self.output:     # a library may complain of its own end behind it
            self.results.append(('the conversation has an end', ['status %d, not %s after' % (status, plan), *self.output]))

    def tell(self, printer):
        for name, why in self.results:
            if why is None:
                printer.ok('%s: %s' % (self.name, name))
            else:
                printer.not_ok('%s: %s' % (self.name, name), '\n'.join(why))
