#!/usr/bin/python3
"""The differential harness: the same scripts on StoatMQ and on RabbitMQ 3.10, and every answer compared.

    differential.py [--count N] [--seed S] [--features NAME,...] [--lanes N] [--shown N] [--print-script]

A script is what script.py makes of a seed; play.py plays it and writes down what the broker says; compare.py holds the two
transcripts against each other and against the file `explained`. What differs is played again, alone; when it differs again it is
shrunk: steps are left out as long as the same difference remains. It is shown once for each kind, with the seed.

Two processes play, one for each broker, on several lanes at once; the reference has one virtual host a lane, StoatMQ one process a lane.
The status is 0 when no difference is left without an explanation.
"""

import argparse
import collections
import contextlib
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
REPEATS = 3             # of a script that has differed


class Pair:
    """Both brokers, and the addresses of their lanes."""

    def __init__(self, lanes, with_management=False):
        self.vhosts = ['lane%d' % number for number in range(lanes)]
        self.reference = reference.Reference(self.vhosts, ['rabbitmq_management'] if with_management else [])
        self.temp = tempfile.mkdtemp(prefix='stoatmq-differential-', dir=self.reference.home.parent)
        self.with_management = with_management
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
        settings = ['default_vhost=' + vhost]
        management_port = 0
        if self.with_management:
            management_port = broker.free_port()
            settings += ['management.tcp.ip=127.0.0.1', 'management.tcp.port=%d' % management_port]
        started = broker.Broker(settings, data_dir=os.path.join(self.temp, vhost))
        started.management_port = management_port
        return started

    def ours(self):
        return [(play.Broker(one.host, one.port, one.management_port), vhost)
                for one, vhost in zip(self.brokers, self.vhosts)]

    def theirs(self):
        return [(play.Broker(self.reference.host, self.reference.port, self.reference.management_port), vhost)
                for vhost in self.vhosts]


def play_all(lanes, seeds, features, pipe):
    """The work of a playing process: transcripts go into the pipe, CHUNK at a time."""
    player = play.Player(lanes, features)
    chunk = []
    for seed, transcript in player.play((seed, script.write(seed, features)) for seed in seeds):
        chunk.append((seed, transcript))
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

    def run(self, pair, seeds):
        """Plays all seeds on both brokers."""
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
    """Plays single scripts on both brokers, to see whether a difference stays and what it needs."""

    def __init__(self, pair, features, rules):
        self.players = [play.Player(lanes[:1], features) for lanes in (pair.theirs(), pair.ours())]
        self.rules = rules

    def difference(self, steps):
        theirs, ours = (next(player.play([('again', steps)]))[1] for player in self.players)
        return compare.Comparison(self.rules).first_difference(steps, theirs, ours)

    def repeats(self, steps):
        """The difference, if it comes in one of some repetitions."""
        return next(filter(None, (self.difference(steps) for _ in range(REPEATS))), None)

    def shrink(self, steps, difference):
        """The fewest steps found that still show a difference of this kind."""
        kind = compare.signature(difference)
        steps = steps[:difference.place + 1]
        size, deadline = len(steps) // 2, time.monotonic() + SHRINK_SECONDS
        while size:
            at = 0
            while at < len(steps) and time.monotonic() < deadline:
                fewer = steps[:at] + steps[at + size:]
                found = self.difference(fewer)
                if found is not None and compare.signature(found) == kind:
                    steps, difference = fewer[:found.place + 1], found
                else:
                    at += size
            size //= 2
        return steps, difference

    def close(self):
        for player in self.players:
            player.close()


def show(seed, count, steps, difference):
    print('seed %s, and %d more like it:' % (seed, count - 1))
    for step in steps:
        print('    ' + script.text(step))
    for name, lines in (('RabbitMQ', difference.theirs), ('StoatMQ', difference.ours)):
        for line in lines:
            print('  %s: %s' % (name, line))
    sys.stdout.flush()


def examine(pair, judge, shown):
    """Plays again what has differed; returns how many scripts differ for good, and how many once only."""
    again = Again(pair, judge.features, judge.comparison.rules)
    lasting, passing = 0, 0
    kinds = sorted(judge.kinds.items(), key=lambda item: -len(item[1]))
    for n, (_, seeds) in enumerate(kinds):
        found = None
        for seed in seeds[:REPEATS]:
            steps = script.write(seed, judge.features)
            found = again.repeats(steps)
            if found is not None:
                break
        if found is None:
            passing += len(seeds)
            continue
        lasting += len(seeds)
        if n < shown:
            show(seed, len(seeds), *again.shrink(steps, found))
    again.close()
    return lasting, passing


def options():
    parser = argparse.ArgumentParser(description='Plays scripts on StoatMQ and on RabbitMQ; see the top of this file.')
    parser.add_argument('--count', type=int, default=1000, help='scripts to play')
    parser.add_argument('--seed', type=int, default=0, help='the seed of the first; the others follow')
    parser.add_argument('--features', default='', help='kinds of steps beside the base, or `all`: ' + ', '.join(script.FEATURES))
    parser.add_argument('--lanes', type=int, default=12)
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
        for step in script.write(chosen.seed, chosen.features):
            print(script.text(step))
        return
    if reference.missing():
        sys.exit(reference.missing())
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))    # so that the brokers are ended
    judge = Judge(chosen.features, compare.read_rules(chosen.features))
    with Pair(chosen.lanes, 'policy' in chosen.features) as pair:
        started = time.monotonic()
        judge.run(pair, range(chosen.seed, chosen.seed + chosen.count))
        seconds = time.monotonic() - started
        lasting, passing = examine(pair, judge, chosen.shown)
    for rule, count in judge.comparison.explained.most_common():
        print('explained %d times: %s' % (count, rule.reason))
    print('%d scripts, %d steps compared in %.0f s: %d scripts differ, %d differed once only, %d explained differences' % (
        judge.scripts, judge.comparison.compared, seconds, lasting, passing, sum(judge.comparison.explained.values())))
    sys.exit(1 if lasting else 0)


if __name__ == '__main__':
    main()
