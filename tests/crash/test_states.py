#!/usr/bin/python3
"""Crash states of the store, enumerated: build/crash_states, whose source tests/states/states.c says what it does.

A run without a complaint, and one with each planted bug that it can see, which must end with complaints. `make
crash-states COUNT=N SEED=S` is the long form.
"""

import os
import random
import re
import subprocess
import unittest

import broker
import tap

PROGRAM = str(broker.BUILD / 'crash_states')
COUNT = int(os.environ.get('TEST_STATES_COUNT', 500))
SEED = int(os.environ.get('TEST_STATES_SEED', random.randrange(1 << 32)))
PASSED = ('commit-applied', 'range-deleted', 'queue-erased', 'trim-step', 'trim-done', 'reclaim-moved', 'store-opened',
          'close-marked')   # points of base/fault.def that a round of the workload always passes
CAUGHT = {  # bug -> what is said about it
    'skip-sync': '',
    'confirm-before-commit': 'which is below what was durable',
    'drop-ack': 'and should',
    'trim-too-far': 'and should',
}


def run(count, *more):
    return subprocess.run([PROGRAM, '--count', str(count), '--seed', str(SEED), '--jobs', '2', *more],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8')


class States(unittest.TestCase):
    def test_nothing_is_lost(self):
        ended = run(COUNT)
        for line in ended.stdout.splitlines()[-2:]:
            print('# ' + line)
        self.assertEqual(ended.returncode, 0, ended.stdout)
        self.assertGreaterEqual(int(re.search(r'^(\d+) crash states', ended.stdout, re.MULTILINE).group(1)), COUNT)
        for point in PASSED:
            self.assertIn(' %s ' % point, ended.stdout.splitlines()[-1])

    def test_planted_bugs_are_caught(self):
        for bug, said in CAUGHT.items():
            with self.subTest(bug):
                ended = run(2000, '--bug', bug)
                self.assertEqual(ended.returncode, 1, ended.stdout)
                self.assertIn(said, ended.stdout)
                self.assertNotIn(' 0 complaints', ended.stdout)


if __name__ == '__main__':
    tap.main()
