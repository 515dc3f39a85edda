"""The tests of the tree by name, with the comment that stands beside each: what tests/rules and tests/advisories read.

    def test_9_10_unroutable_is_acked(self):      # the comment
    START_TEST(refuses_exchanges) /* the comment */
"""

import pathlib
import re

TESTS = pathlib.Path(__file__).resolve().parents[1]

IN_C = re.compile(r'^START_TEST\(\s*(\w+)\)\s*(?:/\*\s*(.*?)\*/)?', re.MULTILINE | re.DOTALL)
IN_PYTHON = re.compile(r'^\s*def (test_\w+)\(.*?\):[ \t]*(?:#\s*(.*))?$', re.MULTILINE)


def tests():
    """(file, name, comment) of each: ('unit/test_frame', 'bad_frames', '2.3'); an absent comment is empty."""
    for pattern, listed in (('*/test_*.c', IN_C), ('*/test_*.py', IN_PYTHON)):
        for path in sorted(TESTS.glob(pattern)):
            for name, comment in listed.findall(path.read_text()):
                yield '%s/%s' % (path.parent.name, path.stem), name, comment


def lines(name):
    """Those of a table in tests/ that are neither empty nor a comment."""
    return [line for line in (TESTS / name).read_text().splitlines() if line.strip() and not line.startswith('#')]
