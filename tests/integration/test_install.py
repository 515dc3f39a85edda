#!/usr/bin/python3
"""`make install`: what a packager and a service manager find."""

import os
import stat
import subprocess
import tempfile
import unittest

import broker
import tap


class Install(unittest.TestCase):
    def test_everything_has_its_place_and_mode(self):
        wanted = {'usr/bin/' + name: 0o755 for name in ('stoatmq', 'stoatctl', 'stoatperf', 'stoatdump')}
        wanted.update({name: 0o644 for name in (
            'usr/lib/systemd/system/stoatmq.service', 'usr/lib/sysusers.d/stoatmq.conf',
            'usr/share/doc/stoatmq/stoatmq.conf', 'etc/stoatmq/stoatmq.conf')})
        with tempfile.TemporaryDirectory() as root:
            for _ in range(2):
                subprocess.run(['make', '-s', '-C', broker.TOP, '-o', 'all', 'install', 'BUILD=%s' % broker.BUILD,
                                'DESTDIR=' + root, 'PREFIX=/usr'], check=True, timeout=60, umask=0o077)
                found = {os.path.relpath(os.path.join(folder, name), root):
                         stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode)
                         for folder, _, names in os.walk(root) for name in names}
                self.assertEqual(found, wanted)
                with open(os.path.join(root, 'etc/stoatmq/stoatmq.conf'), 'a') as config:
                    config.write('heartbeat = 7\n')
            with open(os.path.join(root, 'etc/stoatmq/stoatmq.conf')) as config:
                self.assertEqual(config.read().count('heartbeat = 7\n'), 2)
            with open(os.path.join(root, 'usr/lib/systemd/system/stoatmq.service')) as unit:
                self.assertIn('\nExecStart=/usr/bin/stoatmq\n', unit.read())


if __name__ == '__main__':
    tap.main()
