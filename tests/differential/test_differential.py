#!/usr/bin/python3
"""A short run of the differential harness, always with the same seeds; `make differential` makes the long one."""

import contextlib
import io
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'lib'))

import broker           # noqa: E402
import compare          # noqa: E402
import differential     # noqa: E402
import reference        # noqa: E402
import tap              # noqa: E402

SCRIPTS = 60
LANES = 6
SHOWN = 3
WRITE = 'import script; print([script.write(seed, script.FEATURES).steps for seed in range(30)])'


def written(hash_seed):
    """Scripts as a process writes them that goes through its sets in an order of its own."""
    environment = dict(os.environ, PYTHONHASHSEED=str(hash_seed), PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.run([sys.executable, '-c', WRITE], env=environment, check=True, capture_output=True).stdout


def main():
    printer = tap.Printer()
    rules = compare.read_rules()
    printer.ok('%d explained differences, at most %d' % (len(rules), compare.RULES_MAX))
    name = 'a seed is the same script in every process'
    if written(1) == written(2):
        printer.ok(name)
    else:
        printer.not_ok(name, 'two processes wrote different ones')
    missing = reference.missing() or (broker.SANITIZED and 'the pace of a sanitized broker shows nothing more')
    name = '%d scripts get the same answers' % SCRIPTS
    if missing:
        printer.skip(name, missing)
    else:
        judge = differential.Judge([], rules)
        said = io.StringIO()
        with differential.Pair(LANES) as pair, contextlib.redirect_stdout(said):
            judge.run(pair, range(SCRIPTS))
            lasting, _ = differential.examine(pair, judge, SHOWN)
        if lasting:
            printer.not_ok(name, said.getvalue())
        else:
            printer.ok(name)
    printer.plan(printer.count)
    sys.exit(1 if printer.failed else 0)


if __name__ == '__main__':
    main()
