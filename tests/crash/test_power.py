#!/usr/bin/python3
"""The power goes while clients publish, consume and declare, on a real ext4: see power.py.

TEST_POWER_ROUNDS and TEST_POWER_SEED set how many rounds, and which. `make power-cuts COUNT=N SEED=S` is the long form. Skipped
where there is no root, no loop device, or a kernel without the ioctl.
"""

import os
import random
import time
import unittest

import broker
import power
import tap

ROUNDS = int(os.environ.get('TEST_POWER_ROUNDS', 5))
SEED = int(os.environ.get('TEST_POWER_SEED', random.randrange(1 << 32)))
CAUGHT = {'skip-sync': 12, 'confirm-before-commit': 12}     # in so many rounds
SECONDS = (0.05, 0.5)


@broker.needs_own_broker
class Power(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            power.enter_namespace()
            cls.disk = power.Disk()
        except (power.Unable, OSError) as error:
            raise unittest.SkipTest('the power cannot be cut here: %s' % error) from None

    def test_what_was_confirmed_survives(self):
        started = time.monotonic()
        rig = power.PowerRig(SEED, self.disk, seconds=SECONDS)
        rig.run(ROUNDS)
        print('# seed %d: %s; slowest start %.2f s; %.1f s' % (SEED, rig.summary(), rig.slowest_start,
                                                             time.monotonic() - started))
        self.assertFalse(rig.complaints, '%d complaints, seed %d:\n%s' % (
            len(rig.complaints), SEED, '\n'.join(rig.complaints[:20])))
        self.assertEqual(rig.rounds, ROUNDS)
        self.assertGreater(rig.confirmed, ROUNDS * 20)

    def test_planted_bugs_are_caught(self):
        for bug, rounds in CAUGHT.items():
            with self.subTest(bug):
                rig = power.PowerRig(SEED, self.disk, seconds=SECONDS, bugs=[bug])
                rig.run(rounds)
                self.assertTrue(rig.complaints, rig.summary())
                print('# %s: caught in round %d: %s' % (bug, rig.rounds, rig.complaints[0].splitlines()[0]))


if __name__ == '__main__':
    tap.main()
