#!/usr/bin/python3
"""The own suite of amqplib, the client for Node.js.

Three of its tests know only port 5672, one of them on ::1; where the port is taken they are skipped.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess

import broker
import npm
import suite

SKIP_FILE = pathlib.Path(__file__).with_name('amqplib.skip')
ON_DEFAULT_PORT = ('Connect API serverProperties', 'Connect API using custom heartbeat option', 'Connect API ipv6')
TIME_LIMIT = 150


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(('::1', 0))
        return True
    return False


def start_broker():
    """A broker, on the default port where that is free, and the names of the tests that cannot be run with it."""
    if not broker.EXTERNAL and not broker.REFERENCE:
        settings = ('listeners.tcp.v6=[::1]:5672',) if has_ipv6() else ()
        with contextlib.suppress(broker.BrokerError):
            own = broker.on_default_port(settings)
            return own, () if settings else ON_DEFAULT_PORT[2:]
    return broker.Broker().start(), ON_DEFAULT_PORT


def mocha(place, *words, **how):
    return subprocess.run([str(place / 'node_modules/.bin/mocha'), '-u', 'tdd', '--exit', *words, 'node_modules/amqplib/test/'],
                          cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding='utf-8', errors='replace', **how)


def names_of(place):
    """Every test of the suite. Two may have one name: they are run, and judged, together."""
    listed = mocha(place, '--dry-run', '--reporter', 'json')
    tests = json.loads(listed.stdout[listed.stdout.index('{'):])['tests']
    return list(dict.fromkeys(test['fullTitle'] for test in tests))


def report(tests, output):
    """Mocha's own TAP, with the lines after a failed test as its explanation."""
    results = {}
    name = None
    for line in output.splitlines():
        result = re.match(r'(ok|not ok) \d+ (.*?)( # SKIP.*)?$', line)
        if result:
            name = result.group(2)
            results.setdefault(name, []).append([result.group(1), bool(result.group(3)), []])
        elif name and line.startswith('  '):
            results[name][-1][2].append(line)
    for name, runs in results.items():
        name = find(tests, name)
        why = ['\n'.join(lines) for verdict, _, lines in runs if verdict != 'ok']
        if why:
            tests.failed(name, '\n'.join(why))
        elif all(skipped for _, skipped, _ in runs):
            tests.skip(name, 'by the suite itself')
        else:
            tests.passed(name)


def find(tests, told):
    """The TAP reporter leaves out every # of a name."""
    return next((name for name in tests.names if name.replace('#', '') == told.replace('#', '')), told)


def main():
    place = npm.install()
    own, missing = start_broker()
    tests = suite.Suite(names_of(place), SKIP_FILE, [(name, 'port 5672 is not ours') for name in missing])
    with own:
        environment = dict(os.environ, URL=own.url())
        skipped = '|'.join('^%s$' % re.escape(name) for name in tests.skipped)
        only = ['--grep', skipped, '--invert'] if skipped else []
        run = mocha(place, '--check-leaks', '--reporter', 'tap', *only, env=environment, timeout=TIME_LIMIT)
    report(tests, run.stdout)
    tests.finish(run.returncode, run.stdout)


if __name__ == '__main__':
    main()
