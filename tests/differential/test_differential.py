#!/usr/bin/python3
"""A short run of the differential harness, always with the same seeds; `make differential` makes the long one."""

import contextlib
import io
import pathlib
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


def main():
    printer = tap.Printer()
    rules = compare.read_rules()
    printer.ok('%d explained differences, at most %d' % (len(rules), compare.RULES_MAX))
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
