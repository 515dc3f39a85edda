#!/usr/bin/python3
"""The differential harness: the same scripts on StoatMQ and on RabbitMQ 3.10, and every answer compared.

    differential.py [--count N] [--seed S] [--seconds N] [--features NAME,...] [--lanes N] [--shown N] [--print-script]

A script is what script.py makes of a seed; play.py plays it and writes down what the broker says; compare.py holds the two
transcripts against each other and against the file `explained`. What differs is played again; when it differs again it is shrunk:
steps are left out as long as the same difference remains. It is shown once for each kind, with the seed.

Two processes play, one for each broker, on several lanes at once; the reference has one virtual host a lane, StoatMQ one process a lane.
The status is 0 when no difference is left without an explanation.
"""

import argparse
import collections
import contextlib
import itertools
import math
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'lib'))

import broker       # noqa: E402
import compare      # noqa: E402
import play         # noqa: E402
import reference    # noqa: E402
import script       # noqa: E402

CHUNK = 20              # scripts in a report of a player to the judge
SHRINK_SECONDS = 30     # at most, for one difference
PLUGINS = {             # of the reference, by what needs them
    'policy': ['rabbitmq_management'],
    'exchange-types': ['rabbitmq_consistent_hash_exchange', 'rabbitmq_random_exchange', 'rabbitmq_sharding',
                       'rabbitmq_recent_history_exchange'],
}
REPEATS = 3             # of a script that has differed


class Pair:
    """Both brokers, and the addresses of their lanes."""

    def __init__(self, lanes, features=()):
        self.vhosts = ['lane%d' % number for number in range(lanes)]
        self.reference = reference.Reference(self.vhosts, [plugin for name in features for plugin in PLUGINS.get(name, ())])
        self.temp = tempfile.mkdtemp(prefix='stoatmq-differential-', dir=self.reference.home.parent)
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.temp, ignore_errors=True)
            stack.enter_context(self.reference)
            self.brokers = [stack.enter_context(self._broker(vhost)) for vhost in self.vhosts]
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self.stack.close()

    def _broker(self, vhost):
        return broker.Broker(['default_vhost=' + vhost, 'handshake_timeout=60000'], data_dir=os.path.join(self.temp, vhost))

    def ours(self):
        return [(play.Broker(one.host, one.port, os.path.join(one.data_dir, 'control.sock')), vhost)
                for one, vhost in zip(self.brokers, self.vhosts)]

    def theirs(self):
        return [(play.Broker(self.reference.host, self.reference.port, self.reference.management_port), vhost)
                for vhost in self.vhosts]


def until(deadline, seeds):
    """The seeds, as long as there is time."""
    return itertools.takewhile(lambda _: time.monotonic() < deadline, seeds)


def play_all(lanes, seeds, features, pipe):
    """The work of a playing process: transcripts go into the pipe, CHUNK at a time."""
    player = play.Player(lanes)
    chunk = []
    for played, transcript in player.play(script.write(seed, features) for seed in seeds):
        chunk.append((played.seed, transcript))
        if len(chunk) == CHUNK:
            pipe.send(chunk)
            chunk = []
    pipe.send(chunk)
    player.close()
    pipe.close()


class Judge:
    """Compares transcripts as they come and keeps what differs."""

    def __init__(self, features, rules):
        self.features = features
        self.comparison = compare.Comparison(rules)
        self.scripts = 0
        self.kinds = collections.defaultdict(list)      # signature: seeds

    def run(self, pair, seeds, seconds=math.inf):
        """Plays all seeds on both brokers, or as many as there is time for."""
        seeds = until(time.monotonic() + seconds, seeds)
        pipes, processes = {}, []
        for name, lanes in (('theirs', pair.theirs()), ('ours', pair.ours())):
            near, far = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=play_all, args=(lanes, seeds, self.features, far), daemon=True)
            process.start()
            far.close()
            pipes[near] = name
            processes.append(process)
        waiting = {}
        while pipes:
            for pipe in multiprocessing.connection.wait(list(pipes)):
                try:
                    chunk = pipe.recv()
                except EOFError:
                    del pipes[pipe]
                    continue
                for seed, transcript in chunk:
                    pair_of = waiting.setdefault(seed, {})
                    pair_of[pipes[pipe]] = transcript
                    if len(pair_of) == 2:
                        self.judge(seed, **waiting.pop(seed))
        for process in processes:
            process.join()
            if process.exitcode != 0:
                raise SystemExit('a player ended with status %d' % process.exitcode)

    def judge(self, seed, theirs, ours):
        self.scripts += 1
        found = self.comparison.first_difference(script.write(seed, self.features), theirs, ours)
        if found is not None:
            self.kinds[compare.signature(found)].append(seed)


class Again:
    """Plays scripts once more on both brokers, to see whether a difference stays and what it needs."""

    def __init__(self, pair, rules):
        self.players = [play.Player(lanes) for lanes in (pair.theirs(), pair.ours())]
        self.rules = rules

    def differences(self, scripts):
        """Of each script, played on as many lanes as there are."""
        theirs, ours = ({numbered.seed: transcript for numbered, transcript in
                         player.play(played._replace(seed=n) for n, played in enumerate(scripts))}
                        for player in self.players)
        return [compare.Comparison(self.rules).first_difference(played, theirs[n], ours[n])
                for n, played in enumerate(scripts)]

    def repeats(self, played):
        """The difference, if it comes in one of some repetitions."""
        return next(filter(None, self.differences([played] * REPEATS)), None)

    def shrink(self, played, difference):
        """The fewest steps found that still show a difference of this kind."""
        kind = compare.signature(difference)
        played = played._replace(steps=played.steps[:difference.place + 1])
        size, deadline = len(played.steps) // 2, time.monotonic() + SHRINK_SECONDS
        while size and time.monotonic() < deadline:
            needless = [at for at, _ in self.still(kind, played, [[at] for at in range(0, len(played.steps), size)], size)]
            several = [needless[:len(needless) >> n] for n in range(len(needless).bit_length())]
            found = self.still(kind, played, several, size)
            if found:
                _, (played, difference) = found[0]
            else:
                size //= 2
        return played, difference

    def still(self, kind, played, choices, size):
        """Those lists of places from which so many steps can be left out, with what remains and how it differs then."""
        fewer = [played._replace(steps=[step for n, step in enumerate(played.steps)
                                        if not any(at <= n < at + size for at in places)]) for places in choices]
        return [(places[0], (less._replace(steps=less.steps[:found.place + 1]), found))
                for places, less, found in zip(choices, fewer, self.differences(fewer))
                if found is not None and compare.signature(found) == kind]

    def close(self):
        for player in self.players:
            player.close()


def show(played, seeds, difference):
    print('seed %s (%s):' % (played.seed, ' '.join(sorted(played.features))))
    others = [str(seed) for seed in seeds if seed != played.seed]
    if others:
        print('  and more like it: ' + ' '.join(others))
    for step in played.steps:
        print('    ' + script.text(step))
    for name, lines in (('RabbitMQ', difference.theirs), ('StoatMQ', difference.ours)):
        for line in lines:
            print('  %s: %s' % (name, line))
    sys.stdout.flush()


def examine(pair, judge, shown):
    """Plays again what has differed; returns how many scripts differ for good, and how many once only."""
    again = Again(pair, judge.comparison.rules)
    lasting, passing = 0, 0
    kinds = sorted(judge.kinds.items(), key=lambda item: -len(item[1]))
    for n, (kind, seeds) in enumerate(kinds):
        played = found = None
        for seed in seeds[:REPEATS]:
            played = script.write(seed, judge.features)
            found = again.repeats(played)
            if found is not None:
                break
        if found is None:
            passing += len(seeds)
            print('once only: seeds %s: %s' % (' '.join(map(str, seeds)), kind))
            continue
        lasting += len(seeds)
        if n < shown:
            fewer, found = again.shrink(played, found)
            show(fewer, seeds, found)
        else:
            print('not shown: seeds %s' % ' '.join(map(str, seeds)))
    again.close()
    return lasting, passing


def options():
    parser = argparse.ArgumentParser(description='Plays scripts on StoatMQ and on RabbitMQ; see the top of this file.')
    parser.add_argument('--count', type=int, default=1000, help='scripts to play')
    parser.add_argument('--seed', type=int, default=0, help='the seed of the first; the others follow')
    parser.add_argument('--seconds', type=float, default=math.inf, help='no script is begun after so many')
    parser.add_argument('--features', default='', help='kinds of steps beside the base, or `all`: ' + ', '.join(script.FEATURES))
    parser.add_argument('--lanes', type=int, default=48)
    parser.add_argument('--shown', type=int, default=20, help='differences to shrink and print')
    parser.add_argument('--print-script', action='store_true', help='print the script of the seed and play nothing')
    chosen = parser.parse_args()
    chosen.features = list(script.FEATURES) if chosen.features == 'all' else [f for f in chosen.features.split(',') if f]
    unknown = set(chosen.features) - set(script.FEATURES)
    if unknown:
        parser.error('no such feature: ' + ', '.join(sorted(unknown)))
    return chosen


def main():
    chosen = options()
    if chosen.print_script:
        for step in script.write(chosen.seed, chosen.features).steps:
            print(script.text(step))
        return
    if reference.missing():
        sys.exit(reference.missing())
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))    # so that the brokers are ended
    judge = Judge(chosen.features, compare.read_rules())
    with Pair(chosen.lanes, chosen.features) as pair:
        started = time.monotonic()
        judge.run(pair, range(chosen.seed, chosen.seed + chosen.count), chosen.seconds)
        seconds = time.monotonic() - started
        lasting, passing = examine(pair, judge, chosen.shown)
    for rule, count in judge.comparison.explained.most_common():
        print('explained %d times: %s' % (count, rule.reason))
    print('%d scripts, %d steps compared in %.0f s: %d scripts differ, %d differed once only, %d explained differences' % (
        judge.scripts, judge.comparison.compared, seconds, lasting, passing, sum(judge.comparison.explained.values())))
    sys.exit(1 if lasting else 0)


if __name__ == '__main__':
    main()
