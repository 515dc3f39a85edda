"""Brokers that end themselves at a named point, or do something wrong on purpose: see broker/base/fault.h.

    with FaultyBroker(kill='sync-ended:3') as broker: ...
    with FaultyBroker(bugs=['drop-ack']) as broker: ...
"""

import os
import re
import signal

import broker

PROGRAM = broker.BUILD / 'stoatmq-faults'
LISTED = re.compile(r'^(POINT|BUG)\(\w+, "([a-z0-9-]+)", "([^"]+)"\)$', re.MULTILINE)
_listed = LISTED.findall((broker.TOP / 'broker' / 'base' / 'fault.def').read_text())

POINTS = {name: text for kind, name, text in _listed if kind == 'POINT'}
BUGS = {name: text for kind, name, text in _listed if kind == 'BUG'}


class FaultyBroker(broker.Broker):
    """`kill` and `bugs` may be changed between starts."""

    def __init__(self, kill=None, bugs=(), **others):
        super().__init__(**others)
        self.kill_at = kill
        self.bugs = list(bugs)
        self.released = False   # start the released program instead, which has no faults

    def command(self):
        return super().command() if self.released else [str(PROGRAM)] + super().command()[1:]

    def environment(self):
        environment = dict(os.environ)
        if self.kill_at:
            environment['FAULT_KILL'] = self.kill_at
        if self.bugs:
            environment['FAULT_BUGS'] = ','.join(self.bugs)
        return environment

    def has_killed_itself(self):
        return self.process.poll() == -signal.SIGKILL
