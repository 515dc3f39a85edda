#!/usr/bin/python3
"""`make install`: what a packager and a service manager find."""

import os
import re
import shutil
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
                self.check_restarts(unit.read())

    def check_restarts(self, unit):
        """It is started again for ever, unless somebody must come first."""
        self.assertIn('\nExecStart=/usr/bin/stoatmq\n', unit)
        for line in ('Restart=on-failure', 'StartLimitIntervalSec=0', 'RestartPreventExitStatus=64 66 78'):
            self.assertIn('\n%s\n' % line, unit)
        self.assertNotIn('StartLimitBurst', unit)

    @unittest.skipUnless(shutil.which('systemd-analyze'), 'there is no systemd whose sets of system calls could be asked for')
    def test_the_unit_lets_the_sandbox_be_built(self):
        """What the broker needs, and what it builds its own walls with, is in the filter of the unit."""
        with open(broker.TOP / 'etc/stoatmq.service') as unit:
            wanted = re.search(r'^SystemCallFilter=(.*)$', unit.read(), re.M)[1].split()
        with open(broker.TOP / 'broker/sandbox.c') as source:
            text = source.read()
        used = set(re.findall(r'SCMP_SYS\((\w+)\)', text)) | set(re.findall(r'SYS_(\w+)', text)) | {'seccomp', 'prctl'}
        used.update(' '.join(re.findall(r'"([a-z0-9_ ]+ )"', text)).split())
        self.assertGreater(len(used), 100)

        sets, name = {}, None
        for line in subprocess.run(['systemd-analyze', 'syscall-filter'], check=True, timeout=60, stdout=subprocess.PIPE,
                                   encoding='utf-8').stdout.splitlines():
            word = line.strip()
            if line.startswith('@'):
                name = word
            elif word and not word.startswith('#'):
                sets.setdefault(name, set()).add(word)

        def expand(word):
            return set().union(*map(expand, sets[word])) if word in sets else {word}
        self.assertEqual(used - set().union(*map(expand, wanted)), set())


if __name__ == '__main__':
    tap.main()
