#!/usr/bin/python3
"""The faults that the other crash tests switch on: they are there when asked for, and never in the released program."""

import os
import signal
import subprocess
import tempfile
import unittest

import broker
import faults
import tap

WORDS = (b'FAULT_KILL', b'FAULT_BUGS', b'sync-ended', b'skip-sync')


def symbols(program):
    listed = subprocess.run(['nm', str(program)], capture_output=True, check=True, encoding='utf-8').stdout
    return {line.split()[-1].partition('@')[0]: line.split()[-2] for line in listed.splitlines()}


class Faults(unittest.TestCase):
    def run_program(self, **environment):
        """Its status, and what it says, when it starts on an empty directory and then gets SIGTERM."""
        own = faults.FaultyBroker()
        own.port = broker.free_port()
        process = subprocess.Popen(own.command(), env=dict(os.environ, **environment), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, encoding='utf-8')
        said = ''
        for line in process.stdout:
            said += line
            if 'ready' in line:
                process.send_signal(signal.SIGTERM)
        return process.wait(30), said

    def test_the_released_program_has_none(self):
        for program, has in ((broker.BUILD / 'stoatmq', False), (faults.PROGRAM, True)):
            data = program.read_bytes()
            for word in WORDS:
                self.assertEqual(word in data, has, '%s in %s' % (word, program))
            listed = symbols(program)
            for name in ('fault_point', 'fault_bug'):
                self.assertEqual(listed.get(name) == 'T', has, '%s in %s' % (name, program))

    def test_nothing_asked_for(self):
        self.assertEqual(self.run_program()[0], 0)

    def test_every_point_and_bug_is_used(self):
        sources = [path.read_text() for room in ('broker', 'store', 'tests/faults') for path in
                   (broker.TOP / room).rglob('*.c')]
        for kind, names in (('fault_point', faults.POINTS), ('fault_bug', faults.BUGS)):
            for name in names:
                used = 'FAULT_' + name.replace('-', '_').upper()
                self.assertTrue(any(used in text for text in sources), used)

    def test_points_of_a_start_and_a_stop(self):
        for point in ('store-opened', 'records-recovered', 'queues-recovered', 'commit-taken', 'commit-applied',
                      'sync-begins:2', 'sync-ended', 'commit-done', 'batch-submitted', 'close-begins', 'close-marked'):
            with self.subTest(point):
                self.assertEqual(self.run_program(FAULT_KILL=point)[0], -signal.SIGKILL)

    def test_a_pass_that_does_not_come(self):
        self.assertEqual(self.run_program(FAULT_KILL='store-opened:2')[0], 0)

    def test_names_that_do_not_exist(self):
        for environment in ({'FAULT_KILL': 'sync-end'}, {'FAULT_BUGS': 'skip-sync,drop'}, {'FAULT_KILL': ''}):
            with self.subTest(str(environment)):
                status, said = self.run_program(**environment)
                self.assertEqual(status, 78)
                self.assertIn('sync-ended' if 'FAULT_KILL' in environment else 'skip-sync', said)

    @unittest.skipIf(broker.SANITIZED, 'a sanitizer must be the first library')
    def test_skip_sync(self):
        """A library in front of the C library's sees the syncs, and sees none when they are skipped."""
        with tempfile.TemporaryDirectory() as place:
            source, library, seen = (os.path.join(place, name) for name in ('spy.c', 'spy.so', 'seen'))
            with open(source, 'w') as text:
                text.write('#include <fcntl.h>\n#include <stdlib.h>\n#include <unistd.h>\n'
                           'int fdatasync(int fd)\n{\n    int log = open(getenv("SPY"), O_WRONLY | O_CREAT | O_APPEND, 0600);\n'
                           '    (void)!write(log, ".", 1);\n    close(log);\n    return fsync(fd);\n}\n')
            subprocess.run(['cc', '-shared', '-fPIC', '-o', library, source], check=True)
            for bugs, some in (({}, True), ({'FAULT_BUGS': 'skip-sync'}, False)):
                self.assertEqual(self.run_program(LD_PRELOAD=library, SPY=seen, STOATMQ_SANDBOX='false', **bugs)[0], 0)
                self.assertEqual(os.path.exists(seen), some)
                if some:
                    os.remove(seen)


if __name__ == '__main__':
    tap.main()
