#!/usr/bin/python3
"""The suite of amqp091-go, RabbitMQ's client for Go, as Debian ships it: unit and integration tests.

The sources are copied under a GOPATH of our own, because Debian's are read-only and built without modules; compiled
with the tag that switches the integration tests on; and run against a broker that $AMQP_URL names.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import broker
import suite

SOURCES = pathlib.Path('/usr/share/gocode/src')
PACKAGES = ('github.com/rabbitmq/amqp091-go', 'go.uber.org/goleak')
SKIP_FILE = pathlib.Path(__file__).with_name('amqp091-go.skip')
TIME_LIMIT = '150s'
RESULT = re.compile(r'--- (PASS|FAIL|SKIP): (\S+) \(')


def compile_suite():
    """The test program of the package, compiled."""
    temp = tempfile.mkdtemp(prefix='go-')
    for package in PACKAGES:
        shutil.copytree(SOURCES / package, os.path.join(temp, 'src', package))
    package = os.path.join(temp, 'src', PACKAGES[0])
    environment = dict(os.environ, GOPATH=temp, GO111MODULE='off', GOFLAGS='', GOCACHE=str(broker.CACHE / 'go'), HOME=temp)
    suite.must(['go', 'test', '-c', '-tags', 'integration', '-o', os.path.join(temp, 'suite'), '.'], cwd=package,
               env=environment)
    return os.path.join(temp, 'suite'), package


def names_of(program, package):
    listed = suite.must([program, '-test.list', '.*'], cwd=package)
    return [line for line in listed.splitlines() if re.match(r'(Test|Example)\w*$', line)]


def report(tests, output):
    """Tells each result; of a failed test also what was printed since the one before."""
    since = []
    for line in output.splitlines():
        result = RESULT.match(line)
        since.append(line)
        if not result:
            continue
        verdict, name = result.groups()
        if verdict == 'PASS':
            tests.passed(name)
        elif verdict == 'SKIP':
            tests.skip(name, 'by the suite itself')
        else:
            at = output.index(line)
            tests.failed(name, '\n'.join(since[-60:]) + '\n' + output[at:at + 2000])
        since = []


def main():
    program, package = compile_suite()
    tests = suite.Suite(names_of(program, package), SKIP_FILE)
    with broker.Broker() as own:
        run = subprocess.run([program, '-test.v', '-test.timeout', TIME_LIMIT, '-test.run',
                              '^(%s)$' % '|'.join(tests.to_run)], cwd=package, stdin=subprocess.DEVNULL,
                             env=dict(os.environ, AMQP_URL=own.url() + '/'), stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, encoding='utf-8', errors='replace')
    report(tests, run.stdout)
    tests.finish(run.returncode, run.stdout)


if __name__ == '__main__':
    main()
