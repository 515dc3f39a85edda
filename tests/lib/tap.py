"""Runs the unittest cases of a program and prints the Test Anything Protocol.

    1..3
    ok 1 - Queue.test_8_12_delete_of_absent_queue_succeeds
    not ok 2 - Queue.test_8_5_declare_ok_counts
    # AssertionError: 1 != 2
    ok 3 - Queue.test_restart # SKIP an external broker cannot be restarted

Each line is written as soon as its test has ended, so that a program which is killed still shows how far it came.
The number in a test's name is the rule of the protocol reference that it checks.

A program calls `tap.main()`; what must hold once after all its tests is registered with `tap.at_end(name, check)`
and printed as tests of their own.
"""

import sys
import traceback
import unittest

_at_end = []


def at_end(name, check):
    """Runs check() after the last test; an exception of it is a failed test called name."""
    _at_end.append((name, check))


class Printer:
    """Numbers results and writes them; comments stand under the result that they explain."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def plan(self, count):
        self._line('1..%d' % count)

    def ok(self, name):
        self.count += 1
        self._line('ok %d - %s' % (self.count, name))

    def skip(self, name, reason):
        self.count += 1
        self._line('ok %d - %s # SKIP %s' % (self.count, name, reason))

    def not_ok(self, name, why):
        self.count += 1
        self.failed += 1
        self._line('not ok %d - %s' % (self.count, name))
        self.comment(why)

    def comment(self, text):
        for line in str(text).rstrip().splitlines():
            self._line('# ' + line)

    @staticmethod
    def _line(line):
        sys.stdout.write(line.replace('\r', '\\r') + '\n')
        sys.stdout.flush()


class _Result(unittest.TestResult):
    def __init__(self, printer):
        super().__init__()
        self.printer = printer
        self.broken_subtests = []

    @staticmethod
    def _name(test):
        kind, _, method = test.id().rpartition('.')
        return '%s.%s' % (kind.rpartition('.')[2], method) if kind else method

    def startTest(self, test):
        super().startTest(test)
        self.broken_subtests = []

    def addSuccess(self, test):
        if not self.broken_subtests:
            self.printer.ok(self._name(test))

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.broken_subtests.append(subtest)
            self.printer.not_ok(self._name(test) + ' ' + subtest._subDescription(), self._exc_info_to_string(error, test))

    def addFailure(self, test, error):
        self.printer.not_ok(self._name(test), self._exc_info_to_string(error, test))

    def addError(self, test, error):
        self.printer.not_ok(self._name(test), self._exc_info_to_string(error, test))

    def addSkip(self, test, reason):
        self.printer.skip(self._name(test), reason)


def main(module='__main__'):
    """Runs every test of the module, or those whose names hold one of the program's arguments; ends the program."""
    printer = Printer()
    suite = unittest.TestSuite()
    for case in unittest.defaultTestLoader.loadTestsFromModule(sys.modules[module]):
        for test in case:
            if not sys.argv[1:] or any(part in test.id() for part in sys.argv[1:]):
                suite.addTest(test)
    suite.run(_Result(printer))
    for name, check in _at_end:
        try:
            check()
            printer.ok(name)
        except Exception:
            printer.not_ok(name, traceback.format_exc())
    printer.plan(printer.count)
    sys.exit(1 if printer.failed else 0)
