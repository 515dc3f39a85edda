#!/usr/bin/python3
"""The long form of the kill tests: `make crash KILLS=N SEED=S`.

    1. N kills under the whole load, at random moments and at every named point in turn
    2. transactions alone: two kills at random moments for every five of those N, and every point that one passes
       at least three times
    3. every planted bug that a kill can show: the ledger must complain

Prints what was done as it goes on; its status is 1 when the ledger complained, or did not where it must.
"""

import argparse
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))

import faults  # noqa: E402
import planted  # noqa: E402
import rig  # noqa: E402

TIMES_EACH = 3
ROUNDS_AT_ONCE = 25


def say(text, *words):
    print(text % words, flush=True)


def rounds(tried, enough):
    """Runs until enough(tried) or a complaint; returns whether all is well."""
    started = time.monotonic()
    while not tried.complaints and not enough(tried):
        tried.run(ROUNDS_AT_ONCE)
        say('    %s, %.0f s', tried.summary(), time.monotonic() - started)
    say('    died at: %s', tried.points_summary())
    say('    ready %.0f ms after start at most', tried.slowest_start * 1000)
    for sentence in tried.complaints[:50]:
        say('    COMPLAINT %s', sentence)
    say('    %d complaints', len(tried.complaints))
    return not tried.complaints


def random_kills(tried):
    return tried.kills - sum(tried.died_at.values())


def main():
    parser = argparse.ArgumentParser(description='Kills the broker, again and again; see the top of this file.')
    parser.add_argument('--kills', type=int, default=500)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--parts', default='all,tx,planted', help='those of the three that are run')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='a setting of the broker')
    options = parser.parse_args()
    parts = options.parts.split(',')
    well = True
    with tempfile.TemporaryDirectory(prefix='stoatmq-kills-') as place:
        tempfile.tempdir = place
        if 'all' in parts:
            say('%d kills under the whole load, seed %d', options.kills, options.seed)
            well &= rounds(rig.Rig(options.seed, settings=options.set, seconds=(0.1, 1.2)),
                           lambda tried: tried.kills >= options.kills)
        if 'tx' in parts:
            kills = options.kills * 2 // 5
            say('transactions: %d kills at random moments, every point %d times, seed %d', kills, TIMES_EACH, options.seed)
            tried = rig.Rig(options.seed, loads='tx', points=rig.OF_TX, settings=options.set, seconds=(0.05, 0.3))
            well &= rounds(tried, lambda tried: random_kills(tried) >= kills and all(
                tried.died_at[point] >= TIMES_EACH for point in rig.OF_TX))
        if 'planted' in parts:
            say('planted bugs')
            for bug in planted.CAUGHT:
                tried, caught = planted.catch(bug, options.seed)
                well &= caught
                say('    %s: %s after %s', bug, 'caught' if caught else 'NOT CAUGHT', tried.summary())
                say('        %s', (tried.complaints or ['no complaint'])[0].splitlines()[0])
            say('    for power cuts: %s', ', '.join(sorted(set(faults.BUGS) - set(planted.CAUGHT))))
    sys.exit(0 if well else 1)


if __name__ == '__main__':
    main()
