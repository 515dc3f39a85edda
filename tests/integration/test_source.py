"""What must hold of the source itself: that includes point down, and that no file says what it should not.

    manage session            rooms of broker/, top to bottom; a room may use those of the rows below it
    core access
    net
    store | amqp              which know nothing of each other
    base
"""

import pathlib
import re
import shutil
import subprocess
import unittest

import tap

TOP = pathlib.Path(__file__).resolve().parents[2]

MAY_USE = {
    'base': {'base'},
    'amqp': {'amqp', 'base'},
    'store': {'store', 'base'},
    'net': {'net', 'base'},
    'access': {'access', 'net', 'base', 'amqp'},
    'core': {'core', 'access', 'net', 'store', 'amqp', 'base'},
    'session': {'session', 'core', 'access', 'net', 'store', 'amqp', 'base'},
    'manage': {'manage', 'session', 'core', 'access', 'net', 'store', 'amqp', 'base'},
    'tools': {'tools', 'core', 'access', 'net', 'store', 'amqp', 'base'},
}

INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


def sources():
    """The files of the checkout, or all of them where there is no git."""
    if shutil.which('git'):
        listed = subprocess.run(['git', '-C', str(TOP), 'ls-files', '-co', '--exclude-standard'], capture_output=True, text=True)
        if listed.returncode == 0:
            return [TOP / line for line in listed.stdout.splitlines() if (TOP / line).is_file()]
    return [path for path in TOP.rglob('*') if path.is_file() and 'build' not in path.parts]


def room_of(path):
    parts = path.relative_to(TOP).parts
    if parts[0] == 'broker' and len(parts) > 2:
        return parts[1]
    return parts[0] if parts[0] in MAY_USE else None


class Source(unittest.TestCase):
    def test_includes_point_down(self):
        wrong, seen = [], 0
        for path in sources():
            room = room_of(path)
            if room is None or path.suffix not in ('.c', '.h'):
                continue
            for include in INCLUDE.findall(path.read_text()):
                seen += 1
                target = include.split('/')[0] if '/' in include else room
                if target not in MAY_USE[room]:
                    wrong.append('%s includes %s' % (path.relative_to(TOP), include))
        self.assertGreater(seen, 100)
        self.assertEqual(wrong, [])

    def test_files_open_with_their_design(self):
        bare = [str(path.relative_to(TOP)) for path in sources()
                if path.suffix == '.h' and room_of(path) and not path.read_text().startswith('/*')]
        self.assertEqual(bare, [])

    def test_no_todo_without_a_reason(self):
        marker = re.compile(r'\b(TODO|FIXME|XXX)\b(?!.*:.*\w)')
        found = [str(path.relative_to(TOP)) for path in sources()
                 if path.suffix in ('.c', '.h') and marker.search(path.read_text())]
        self.assertEqual(found, [])


if __name__ == '__main__':
    tap.main()
