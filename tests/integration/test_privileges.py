#!/usr/bin/python3
"""Started as root, the broker becomes the user that it is told to be (privileges.h)."""

import os
import pwd
import shutil
import subprocess
import unittest

import pika

import broker
import tap

CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE = 1 << 2, 1 << 10
NOBODY = pwd.getpwnam('nobody')


@broker.needs_own_broker
@unittest.skipUnless(os.geteuid() == 0, 'only root can become another user')
class Privileges(unittest.TestCase):
    def start(self, *settings):
        started = broker.Broker(settings)
        os.chmod(os.environ['TMPDIR'], 0o711)
        os.chmod(started.temp, 0o711)
        started.start()
        self.addCleanup(started.__exit__, None, None, None)
        return started

    def fails(self, status, reason, user, name, *words):
        """As that user, from a copy of the program which anybody may run."""
        program = os.path.join(os.environ['TMPDIR'], name)
        shutil.copy(broker.BUILD / name, program)
        os.chmod(os.environ['TMPDIR'], 0o711)
        os.chmod(program, 0o755)
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=20, check=False, user=user)
        self.assertEqual(done.returncode, status)
        self.assertIn(reason, done.stderr)

    def refused(self, setting, reason, user=None, data_dir='/nowhere/at/all', status=78):
        self.fails(status, reason, user, 'stoatmq', '--data-dir', data_dir, '--set', setting)

    def test_it_is_that_user_and_nothing_more(self):
        running = self.start('user=nobody')
        with open('/proc/%d/status' % running.process.pid) as file:
            status = dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)
        self.assertEqual(status['Uid'].split(), [str(NOBODY.pw_uid)] * 4)
        self.assertEqual(status['Gid'].split(), [str(NOBODY.pw_gid)] * 4)
        self.assertEqual(status['Groups'].split(), [str(NOBODY.pw_gid)])
        self.assertEqual([int(status[name], 16) for name in ('CapEff', 'CapPrm', 'CapAmb')], [0] * 3)
        self.assertEqual(os.stat(running.data_dir).st_uid, NOBODY.pw_uid)

    @unittest.skipIf(broker.SANITIZED, 'sanitizers need more')
    def test_root_keeps_what_it_needs(self):
        running = self.start()
        for thread in os.listdir('/proc/%d/task' % running.process.pid):
            with open('/proc/%d/task/%s/status' % (running.process.pid, thread)) as file:
                status = dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)
            for name in 'CapEff', 'CapPrm':
                self.assertEqual(int(status[name], 16) & ~(CAP_DAC_READ_SEARCH | CAP_NET_BIND_SERVICE), 0, thread)
        self.assertIn('running as root', running.log())

    def test_it_serves_and_is_found_again(self):
        running = self.start('user=nobody')
        for publish in (True, False):
            with pika.BlockingConnection(running.parameters()) as connection:
                channel = connection.channel()
                channel.queue_declare('q', durable=True)
                channel.confirm_delivery()
                if publish:
                    channel.basic_publish('', 'q', b'm', pika.BasicProperties(delivery_mode=2))
            self.assertEqual(running.rows('list_queues', 'name', 'messages'), [['q', '1']])
            if publish:
                running.restart()

    def test_a_directory_of_somebody_else(self):
        path = os.path.join(os.environ['TMPDIR'], 'of-root')
        os.mkdir(path, 0o700)
        self.refused('user=nobody', 'user nobody cannot use what is in the data directory %s: Permission denied; give it '
                     'to that user, as chown -R nobody %s does' % (path, path), data_dir=path)
        self.assertEqual(os.stat(path).st_uid, 0)

    def test_a_directory_in_one_of_somebody_else(self):
        """As in a container whose volume is root's: what does not exist is not to be given away."""
        above = os.path.join(os.environ['TMPDIR'], 'volume')
        os.mkdir(above, 0o755)
        path = os.path.join(above, 'data')
        self.refused('log.console.level=info', 'user nobody cannot make the data directory %s: Permission denied; let that user '
                     'write to %s, as chown %d %s does, or name another (data_dir)' % (path, above, NOBODY.pw_uid, above),
                     user='nobody', data_dir=path, status=73)
        os.chmod(above, 0o700)
        self.refused('log.console.level=info', 'user nobody cannot reach the data directory %s: Permission denied; let that '
                     'user into the directories that lead there, or name another (data_dir)' % path,
                     user='nobody', data_dir=path, status=73)

    def test_a_link_is_not_given_away(self):
        target, link = (os.path.join(os.environ['TMPDIR'], name) for name in ('target', 'link'))
        os.mkdir(target, 0o700)
        os.symlink(target, link)
        self.refused('user=nobody', 'Permission denied', data_dir=link)
        self.assertEqual(os.stat(target).st_uid, 0)

    def test_a_user_who_is_not_there(self):
        self.refused('user=somebody-else', 'there is no user somebody-else (user in --set)')

    def test_others_may_not_ask(self):
        running = self.start()
        self.fails(69, 'Run stoatctl as root or as the user that the broker runs as. To ask another broker, name its\n'
                   'data directory with --data-dir.', 'nobody', 'stoatctl', '--data-dir', running.data_dir, 'ping')

    def test_only_root_can(self):
        self.refused('user=root', 'only root can become user root (user)', user='nobody')


if __name__ == '__main__':
    tap.main()
