"""Bugs that the kill tests must catch: with each of them switched on a rig has to complain.

skip-sync is not among them. A killed broker's writes are still in the kernel; only a power cut shows that bug.
"""

import time

import rig

# How each is caught soonest: which clients, where they die, and what must be complained about. The store notices two of
# them itself, as damage; the log is part of what is checked.
CAUGHT = {
    'confirm-before-commit': (dict(points=['commit-taken', 'commit-applied']), 'was confirmed and is lost'),
    'drop-ack': (dict(points=['batch-back']), 'came back after its ack was settled'),
    'reuse-queue-id': (dict(points=['batch-back']), 'row missing of queue'),
    'trim-too-far': (dict(points=['commit-done']), 'the store is damaged'),
    'split-tx': (dict(loads='tx', points=['commit-taken', 'commit-applied']), 'is there and in kill-tx-a'),
    'lose-dead-letter': (dict(points=['letter-routed']), 'was confirmed and is lost'),
    'split-dead-letter': (dict(points=['batch-submitted', 'commit-done']), 'is lost'),
}
IN_MAKE_TEST = ('confirm-before-commit', 'drop-ack', 'split-tx', 'lose-dead-letter')
TIME_LIMIT = 60


def catch(bug, seed):
    """The rig that ran with the bug, and whether it has complained of it in time."""
    how, text = CAUGHT[bug]
    tried = rig.Rig(seed, bugs=[bug], seconds=(0.05, 0.4), **how)
    until = time.monotonic() + TIME_LIMIT
    tried.run(200, until, text)
    return tried, any(text in sentence for sentence in tried.complaints)
