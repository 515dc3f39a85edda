#!/usr/bin/python3
"""SIGKILL while clients do everything that touches the disk, at random moments and at named points: what the broker
promised must be there afterwards, and what is gone must not come back. See rig.py for a round, load.py for the clients,
ledger.py for the promises. The long form is `make crash`.

TEST_KILL_ROUNDS and TEST_KILL_SEED set the number of rounds and repeat a run's choices.
"""

import os
import random
import unittest

import broker
import rig
import tap

ROUNDS = int(os.environ.get('TEST_KILL_ROUNDS', 30))
SEED = int(os.environ.get('TEST_KILL_SEED', random.randrange(1 << 32)))


@broker.needs_own_broker
@broker.departs('who is killed at a point is our program, and acks survive')
class Kill(unittest.TestCase):
    def run_rig(self, rounds, **how):
        tried = rig.Rig(SEED, **how)
        tried.run(rounds)
        print('# %s\n# died at: %s' % (tried.summary(), tried.points_summary()))
        if tried.complaints:
            self.fail('%d complaints from seed %d:\n%s' % (len(tried.complaints), SEED, '\n'.join(tried.complaints[:20])))
        return tried

    def test_everything(self):
        tried = self.run_rig(ROUNDS, seconds=(0.05, 0.4))
        self.assertGreaterEqual(tried.kills, ROUNDS)
        self.assertGreater(tried.confirmed, ROUNDS * 20)
        self.assertGreater(tried.settled, ROUNDS * 5)
        self.assertGreaterEqual(len(tried.died_at), ROUNDS // 10)

    def test_transactions(self):
        tried = self.run_rig(ROUNDS // 2, loads='tx', points=rig.OF_TX, seconds=(0.05, 0.25))
        self.assertGreater(tried.committed, ROUNDS // 2)
        self.assertGreaterEqual(len(tried.died_at), ROUNDS // 10)


if __name__ == '__main__':
    tap.main()
