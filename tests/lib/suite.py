"""Test suites that others wrote, told as the Test Anything Protocol, with a list of what does not pass yet.

A list is a file of lines `name: reason`; lines that begin with # are comments. What it names is not run and is
reported as skipped for that reason. A name that the suite does not have is a failed test: the list must not rot.
"""

import subprocess
import sys

import tap


class Suite:
    def __init__(self, names, skip_file, also_skipped=()):
        """names: every test of the suite; also_skipped: (name, reason) pairs beside those in the file."""
        self.printer = tap.Printer()
        self.names = list(names)
        self.skipped = read_list(skip_file)
        for name in sorted(set(self.skipped) - set(self.names)):
            self.printer.not_ok('%s lists %s' % (skip_file.name, name), 'the suite has no such test')
        self.skipped.update(also_skipped)
        self.to_run = [name for name in self.names if name not in self.skipped]
        self.seen = set()

    def passed(self, name):
        self.seen.add(name)
        self.printer.ok(name)

    def failed(self, name, why):
        self.seen.add(name)
        self.printer.not_ok(name, why)

    def skip(self, name, reason):
        """The suite itself did not run this one."""
        self.seen.add(name)
        self.printer.skip(name, reason)

    def finish(self, status, output):
        """Reports what the list skips and what was never heard of, then ends the program."""
        for name, reason in self.skipped.items():
            if name in self.names:
                self.printer.skip(name, reason)
        silent = [name for name in self.to_run if name not in self.seen]
        for name in silent:
            self.printer.not_ok(name, 'the suite ended without a word about it')
        if silent or (status != 0 and not self.printer.failed):
            self.printer.not_ok('the suite ends with status 0', 'status %d, and at the end:\n%s' % (
                status, '\n'.join(output.splitlines()[-60:])))
        self.printer.plan(self.printer.count)
        sys.exit(1 if self.printer.failed else 0)


def read_list(path):
    entries = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith('#'):
            name, colon, reason = line.partition(': ')
            assert colon and reason.strip(), '%s: no reason in: %s' % (path, line)
            entries[name.strip()] = reason.strip()
    return entries


def must(words, **how):
    """Runs a step of the set-up; when it fails its output is the failed test, and the program ends."""
    run = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         encoding='utf-8', errors='replace', **how)
    if run.returncode != 0:
        printer = tap.Printer()
        printer.not_ok('set-up: ' + ' '.join(words), run.stdout)
        printer.plan(1)
        sys.exit(1)
    return run.stdout
