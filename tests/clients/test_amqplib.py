#!/usr/bin/python3
"""amqplib, the client for Node.js: a program of our own with both of its interfaces, and its own suite.

`npm ci` installs what amqplib/package-lock.json pins into build/cache, once for each state of that file. Three tests
of the suite know only port 5672, one of them on ::1; where the port is taken they are skipped.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess

import broker
import suite

HERE = pathlib.Path(__file__).resolve().parent / 'amqplib'
SKIP_FILE = pathlib.Path(__file__).with_name('amqplib.skip')
ON_DEFAULT_PORT = ('Connect API serverProperties', 'Connect API using custom heartbeat option', 'Connect API ipv6')
TIME_LIMIT = 150


def install():
    """The directory that holds node_modules as the lock file wants it."""
    lock = (HERE / 'package-lock.json').read_bytes()
    place = broker.CACHE / ('amqplib-' + hashlib.sha256(lock).hexdigest()[:16])
    if not (place / 'complete').exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name in ('package.json', 'package-lock.json'):
            shutil.copy(HERE / name, place)
        suite.must(['npm', 'ci', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'], cwd=place)
        (place / 'complete').touch()
    return place


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
    place = install()
    own, missing = start_broker()
    tests = suite.Suite(names_of(place), SKIP_FILE, [(name, 'port 5672 is not ours') for name in missing])
    with own:
        environment = dict(os.environ, URL=own.url(), NODE_PATH=str(place / 'node_modules'))
        conversation = subprocess.run(['node', str(HERE / 'conversation.js')], env=environment, timeout=60, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8')
        for line in conversation.stdout.splitlines():
            verdict, _, name = line.partition(' - ')
            if verdict == 'ok':
                tests.printer.ok(name)
            elif verdict == 'not ok':
                tests.printer.not_ok(name, conversation.stdout)
        if conversation.returncode != 0 and not tests.printer.failed:
            tests.printer.not_ok('conversation.js', conversation.stdout)
        skipped = '|'.join('^%s$' % re.escape(name) for name in tests.skipped)
        only = ['--grep', skipped, '--invert'] if skipped else []
        run = mocha(place, '--check-leaks', '--reporter', 'tap', *only, env=environment, timeout=TIME_LIMIT)
    report(tests, run.stdout)
    tests.finish(run.returncode, run.stdout)


if __name__ == '__main__':
    main()
