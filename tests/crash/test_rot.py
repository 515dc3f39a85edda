#!/usr/bin/python3
"""Damage at rest: a data file in which a bit, a sector, a page or the end has changed while no broker ran. See rot.py.

TEST_ROT_COUNT, TEST_ROT_SEED and TEST_ROT_KINDS set how many injuries, which ones, and of what kinds (of rot.KINDS, all
in turn by default). `make bit-rot COUNT=N SEED=S` is the long form, of flipped bits alone.
"""

import os
import random
import time
import unittest

import broker
import rot
import tap

COUNT = int(os.environ.get('TEST_ROT_COUNT', 60))
SEED = int(os.environ.get('TEST_ROT_SEED', random.randrange(1 << 32)))
KINDS = tuple(os.environ.get('TEST_ROT_KINDS', ' '.join(rot.KINDS)).split())


@broker.needs_own_broker
class Rot(unittest.TestCase):
    def test_damage_at_rest(self):
        started = time.monotonic()
        rig = rot.Rig(SEED)
        rig.run(COUNT, kinds=KINDS)
        print('# seed %d, %.1f s' % (SEED, time.monotonic() - started))
        for line in rig.summary().splitlines():
            print('# ' + line)
        self.assertEqual(rig.injuries, COUNT)
        self.assertFalse(rig.complaints, '\n'.join(rig.complaints[:20]))
        self.assertFalse(rig.failed, '\n'.join('%s\n%s' % pair for pair in rig.failed[:5]))
        if rig.expected:
            self.assertLessEqual(rig.missing / rig.expected, rot.MARGIN)

    def test_a_broker_that_checks_nothing_is_caught(self):
        rig = rot.Rig(SEED, bugs=['skip-checksum'])
        rig.run(200, kinds=('zero', 'flip'), enough=1)
        self.assertTrue(any('a corrupt body was delivered' in sentence for sentence in rig.complaints), rig.summary())


if __name__ == '__main__':
    tap.main()
