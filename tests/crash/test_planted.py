#!/usr/bin/python3
"""A kill test that cannot fail proves nothing: with a bug switched on in the broker the ledger must complain, and
about that bug. Here are the quickest; `make crash` has them all."""

import random
import unittest

import broker
import faults
import planted
import tap


@broker.needs_own_broker
@broker.departs('it has its own bugs')
class Planted(unittest.TestCase):
    def test_every_bug_is_some_rigs(self):
        self.assertEqual(set(planted.CAUGHT) | {'skip-sync', 'skip-checksum'}, set(faults.BUGS))

    def catch(self, bug):
        seed = random.randrange(1 << 32)
        tried, caught = planted.catch(bug, seed)
        print('# %s, seed %d: %s' % (bug, seed, tried.summary()))
        self.assertTrue(caught, 'not caught; complaints: %s' % '\n'.join(tried.complaints[:20]))


for bug in planted.IN_MAKE_TEST:
    setattr(Planted, 'test_' + bug.replace('-', '_'), lambda self, bug=bug: self.catch(bug))

if __name__ == '__main__':
    tap.main()
