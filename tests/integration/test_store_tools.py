#!/usr/bin/python3
"""The store from outside: backed up while the broker runs, restored, verified, compacted, dumped."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import broker
import lmdb_pages
import tap
from client import PERSISTENT
from store_tools import DATA, IN_USE, IO_ERROR, NO_ACCESS, NO_INPUT, OK, TOOLS, USAGE, StoreTools, run


@broker.needs_own_broker
@broker.departs('its store is another')
class AtRestAndBeside(StoreTools):
    def test_a_backup_is_a_store_again(self):
        channel = self.connect()
        self.fill(channel, 'kept', 0, 50)
        os.mkdir(self.path('copy'), 0o700)
        self.assertIn('Wrote', self.backup(self.path('copy/data.mdb')))
        self.assertEqual(os.listdir(self.path('copy')), ['data.mdb'])
        self.assertEqual(os.stat(self.path('copy/data.mdb')).st_mode & 0o777, 0o600)
        self.fill(channel, 'kept', 50, 60)
        self.passes('stoatctl', 'verify', self.path('copy'))
        with broker.Broker(data_dir=self.path('copy')) as restored:
            self.assertEqual(list(self.bodies(self.connect(restored), 'kept')),
                             ['kept %d' % number for number in range(50)])

    def test_a_backup_replaces_the_one_before(self):
        self.backup(self.path('file'))
        size = os.stat(self.path('file')).st_size
        self.fill(self.connect(), 'kept', 0, 500)
        self.no_backup(DATA, '--force replaces it', self.path('file'))
        self.assertEqual(os.stat(self.path('file')).st_size, size)
        self.backup(self.path('file'), '--force')
        self.assertGreater(os.stat(self.path('file')).st_size, size)

    @unittest.skipUnless(os.access('/dev/shm', os.W_OK), 'no other file system to write to')
    def test_a_backup_to_another_file_system(self):
        self.fill(self.connect(), 'kept', 0, 500)
        with tempfile.TemporaryDirectory(prefix='stoatmq-tools-', dir='/dev/shm') as other:
            self.assertNotEqual(os.stat(other).st_dev, os.stat(self.broker.data_dir).st_dev)
            path = os.path.join(other, 'data.mdb')
            self.backup(path)
            self.assertEqual(os.listdir(other), ['data.mdb'])
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
            self.assertIn(' 500 messages', self.passes('stoatctl', 'verify', other))
            size = os.stat(path).st_size
            self.assertNotIn('backup.mdb', os.listdir(self.broker.data_dir))

            # No room there: the copy stays where it is, until the next one, or the next start.
            limited = subprocess.run(['prlimit', '--fsize=%d' % (size // 2), str(broker.BUILD / 'stoatctl'), '--data-dir',
                                      self.broker.data_dir, 'backup', path, '--force'], timeout=60, encoding='utf-8',
                                     preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            made = os.path.join(self.broker.data_dir, 'backup.mdb')
            self.assertEqual(limited.returncode, 70, limited)
            self.assertIn('File too large; the copy is %s until' % made, limited.stderr)
            self.assertNotIn('data.mdb.part', os.listdir(other))
            self.assertGreaterEqual(os.stat(made).st_size, size)
        with open(made + '.part', 'wb') as part:  # of a broker that was killed
            part.write(b'x')
        self.broker.restart()
        self.assertFalse(os.path.exists(made) or os.path.exists(made + '.part'))

    def test_a_backup_that_cannot_be_written(self):
        self.no_backup(DATA, 'nowhere', self.path('nowhere/file'))
        os.mkdir(self.path('taken'))
        self.no_backup(DATA, 'taken is there, and is not a file', self.path('taken'), '--force')
        self.assertEqual(os.listdir(self.path('taken')), [])

    def test_a_backup_onto_a_store_in_use(self):
        """The file of the broker that is asked, by whatever name, and of another."""
        os.symlink(self.broker.data_dir, self.path('alias'))
        for directory in (self.broker.data_dir, self.path('alias'), self.broker.data_dir + '/../data'):
            for name in ('data.mdb', 'new'):
                self.no_backup(DATA, "is the broker's data directory", os.path.join(directory, name), '--force')
        with broker.Broker() as other:
            self.no_backup(DATA, 'a broker (pid %d) is using' % other.process.pid,
                           os.path.join(other.data_dir, 'data.mdb'), '--force')
        os.unlink(os.path.join(self.broker.data_dir, 'lock'))
        self.no_backup(DATA, "is the broker's data directory", os.path.join(self.broker.data_dir, 'data.mdb'), '--force')
        self.fill(self.connect(), 'kept', 0, 5)

    def test_a_broker_in_the_way(self):
        for command in ('verify', 'compact'):
            self.fails(IN_USE, 'a broker (pid %d) is using %s; stop it first' % (self.broker.process.pid, self.broker.data_dir),
                       'stoatctl', command, self.broker.data_dir)
            self.fails(NO_INPUT, 'there is no store', 'stoatctl', command, self.path('nowhere'))
        self.assertFalse(os.path.exists(self.path('nowhere')))

    def test_no_directory_and_no_access(self):
        with open(self.path('file'), 'w', encoding='utf-8'):
            pass
        for words in TOOLS:
            self.fails(NO_INPUT, '%s: Not a directory' % self.path('file'), *words, self.path('file'))
        if os.geteuid() != 0:
            return
        self.broker.stop()
        os.chmod(self.directory.name, 0o711)
        for path in (os.environ['TMPDIR'], self.broker.temp):
            os.chmod(path, 0o711)
        for words in TOOLS:
            program = shutil.copy(broker.BUILD / words[0], self.path(words[0]))
            os.chmod(program, 0o755)
            done = subprocess.run([program, *words[1:], self.broker.data_dir], user='nobody', timeout=60, encoding='utf-8',
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, NO_ACCESS, done)
            self.assertIn('%s: Permission denied' % self.broker.data_dir, done.stderr)

    @unittest.skipUnless(os.geteuid() == 0, 'only root can do it for others')
    def test_root_leaves_files_to_their_owner(self):
        """The store of nobody's broker, restored, verified and compacted by root, serves nobody again."""
        nobody = pwd.getpwnam('nobody')
        own = broker.Broker(['user=nobody'])
        for path in (os.environ['TMPDIR'], own.temp):
            os.chmod(path, 0o711)
        with own:
            self.fill(self.connect(own), 'kept', 0, 5)
            with tempfile.TemporaryDirectory(prefix='stoatmq-tools-', dir='/dev/shm') as other:
                for path in (self.path('backup'), os.path.join(other, 'backup')):  # moved, and copied
                    self.passes('stoatctl', '--data-dir', own.data_dir, 'backup', path)
                    self.assertEqual((os.stat(path).st_uid, os.stat(path).st_gid), (nobody.pw_uid, nobody.pw_gid))
            own.stop()
            for name in ('lock', 'lock.mdb'):
                os.unlink(os.path.join(own.data_dir, name))
            for command in ('verify', 'compact', 'verify'):
                self.passes('stoatctl', command, own.data_dir)
            self.passes('stoatdump', own.data_dir)
            for name in os.listdir(own.data_dir):
                status = os.stat(os.path.join(own.data_dir, name))
                self.assertEqual((name, status.st_uid, status.st_gid, status.st_mode & 0o777),
                                 (name, nobody.pw_uid, nobody.pw_gid, 0o600))
            own.start()
            self.assertEqual(len(list(self.bodies(self.connect(own), 'kept'))), 5)

    @unittest.skipUnless(os.geteuid() == 0, 'only root has files that nobody may write')
    def test_root_does_nothing_through_what_the_owner_puts_there(self):
        """Links from nobody's data directory to a file of root's, by every name that is opened there."""
        nobody = pwd.getpwnam('nobody')
        self.broker.stop()
        for path in (os.environ['TMPDIR'], self.broker.temp, self.directory.name):
            os.chmod(path, 0o711)
        for name in os.listdir(self.broker.data_dir):
            os.chown(os.path.join(self.broker.data_dir, name), nobody.pw_uid, nobody.pw_gid)
        os.chown(self.broker.data_dir, nobody.pw_uid, nobody.pw_gid)
        secret = self.path('secret')
        with open(secret, 'w') as file:
            file.write('of root alone')
        os.chmod(secret, 0o600)
        for name in ('lock.mdb', 'data.mdb'):
            path = os.path.join(self.broker.data_dir, name)
            os.rename(path, path + '.kept')
            os.symlink(secret, path)
            for words in TOOLS:
                if name == 'lock.mdb' and words[0] == 'stoatctl':  # alone there, it has no use for it
                    self.passes(*words, self.broker.data_dir)
                    continue
                result = run(*words, self.broker.data_dir)
                self.assertEqual(result.returncode, NO_ACCESS, (words, result))
                self.assertIn('Permission denied', result.stderr)
            os.rename(path + '.kept', path)
        for words in TOOLS:
            self.passes(*words, self.broker.data_dir)
        with open(secret) as file:
            self.assertEqual(file.read(), 'of root alone')
        self.assertEqual((os.stat(secret).st_uid, os.stat(secret).st_mode & 0o777), (0, 0o600))

    def test_compact(self):
        channel = self.connect()
        self.fill(channel, 'emptied', 0, 500)
        self.fill(channel, 'kept', 0, 5)
        channel.queue_purge('emptied')
        self.broker.stop()
        data = os.path.join(self.broker.data_dir, 'data.mdb')
        size = os.stat(data).st_size
        with open(data + '.part', 'wb') as left:  # by one that was killed
            left.write(b'x' * 10000)
        self.assertIn('became', self.passes('stoatctl', 'compact', self.broker.data_dir))
        self.assertLess(os.stat(data).st_size, size / 2)
        self.assertNotIn('data.mdb.part', os.listdir(self.broker.data_dir))
        self.assertIn('is sound', self.passes('stoatctl', 'verify', self.broker.data_dir))
        self.broker.start()
        self.assertEqual(list(self.bodies(self.connect(), 'kept')), ['kept %d' % number for number in range(5)])

    def test_little_address_space(self):
        """A tenth of what is mapped by default: the store and its copy take what there is."""
        limited = ['prlimit', '--as=8000000000']

        class Limited(broker.Broker):
            def command(self):
                return limited + super().command()

        with Limited() as own:
            channel = self.connect(own)
            self.fill(channel, 'kept', 0, 5)
            self.passes('stoatctl', '--data-dir', own.data_dir, 'backup', self.path('data.mdb'))
            own.stop()
            for words in (['stoatctl', 'verify', self.directory.name], ['stoatctl', 'compact', own.data_dir],
                          ['stoatctl', 'verify', own.data_dir], ['stoatdump', own.data_dir]):
                result = subprocess.run(limited + [str(broker.BUILD / words[0]), *words[1:]], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, timeout=60, encoding='utf-8')
                self.assertEqual(result.returncode, OK, (words, result.stdout))
            own.start()
            self.assertEqual(len(list(self.bodies(self.connect(own), 'kept'))), 5)

    def test_damage_is_found(self):
        channel = self.connect()
        self.fill(channel, 'kept', 0, 5)
        channel.basic_publish('', 'kept', b'a body to be damaged', PERSISTENT)
        self.broker.stop()
        self.assertIn('is sound', self.passes('stoatctl', 'verify', self.broker.data_dir))
        self.damage(b'a body to be damaged', b'a body to be DAMAGED')
        result = run('stoatctl', 'verify', self.broker.data_dir)
        self.assertEqual(result.returncode, DATA)
        self.assertIn('its body in blob', result.stdout)
        self.assertIn('findings', result.stderr)
        self.passes('stoatdump', self.broker.data_dir)
        result = run('stoatdump', '--bodies', self.broker.data_dir)
        self.assertEqual((result.returncode, result.stdout.count(' DAMAGED\n')), (DATA, 1), result)
        self.assertIn('kept 0\n', result.stdout)
        self.assertIn('is damaged: 1 damaged rows', result.stderr)

        self.broker.start()  # and finds it by itself
        status = self.verified(1)
        self.assertRegex(status, r'Verification: \d+ messages, 1 findings')
        self.assertIn('Damaged records: 1', status)
        self.assertIn('the store is damaged: entry', self.broker.log())
        self.assertIn("1 findings among 6 messages, of which the first 20 are in the log; what can be is mended, and "
                      "messages are set aside: see 'stoatctl list_quarantine'", self.broker.log())
        self.assertNotIn('verify', self.broker.log())
        self.broker.stop()
        self.assertIn('One of the queues is the quarantine, with 1 of the messages.\nThe store is sound.\n',
                      self.passes('stoatctl', 'verify', self.broker.data_dir))
        self.broker.start()

    def verified(self, quarantined=0):
        """The status once the broker has verified its store, and set aside so many messages."""
        for _ in range(300):
            status = self.broker.ctl('status')
            if 'Verification: under way' not in status and 'Quarantined messages: %d' % quarantined in status:
                break
            time.sleep(0.1)
        return status

    def flip(self, find):
        """One bit of the octet at find(data), of a broker that has stopped."""
        path = os.path.join(self.broker.data_dir, 'data.mdb')
        with open(path, 'rb') as file:
            data = bytearray(file.read())
        data[find(data)] ^= 16
        with open(path, 'wb') as file:
            file.write(data)

    def start_again(self, quarantined=0):
        """What it has logged by the time that it has verified its store, and its status then."""
        self.broker.start()
        status = self.verified(quarantined)
        return self.broker.log(), status

    def test_a_damaged_message_is_set_aside(self):
        for read, stop in ((False, self.broker.stop), (True, self.broker.kill)):
            channel = self.connect()
            self.fill(channel, 'kept', 0, 5)
            channel.basic_publish('', 'kept', b'a body to be damaged', PERSISTENT)
            self.fill(channel, 'kept', 5, 7)
            self.broker.stop()
            self.damage(b'a body to be damaged', b'a body uo be damaged')

            self.broker.start()
            if read:  # before the broker comes to it by itself
                self.assertEqual(len(list(self.bodies(self.connect(), 'kept'))), 7)
                self.fill(self.connect(), 'kept', 0, 7)
            self.verified(1)
            self.assertEqual(self.broker.ctl('list_queues', '--silent', 'name', 'messages').split(), ['kept', '7'])
            self.assertIn('Quarantined messages: 1', self.broker.ctl('status'))
            self.assertIn('is damaged on disk and was set aside', self.broker.log())
            self.assertRegex(self.broker.ctl('list_quarantine', '--silent'), r'/\tkept\t20\S+Z\t\d+\n')
            stop()

            log, status = self.start_again(1)
            self.assertNotIn('damaged', log)
            self.assertIn(' 0 findings', status)
            self.assertIn('Damaged records: 0', status)
            self.assertIn('Quarantined messages: 1', status)
            self.assertEqual(list(self.bodies(self.connect(), 'kept')), ['kept %d' % number for number in range(7)])
            text = self.passes('stoatdump', '--bodies', self.broker.data_dir)
            self.assertIn('a body uo be damaged', text)
            self.broker.ctl('clear_quarantine')
            self.assertIn('Quarantined messages: 0', self.broker.ctl('status'))
            self.assertEqual(self.broker.ctl('list_quarantine', '--silent'), '')
            self.broker.stop()
            self.assertIn('is sound', self.passes('stoatctl', 'verify', self.broker.data_dir))
            self.broker.start()

    def test_a_flipped_bit_of_a_row_costs_nothing(self):
        for database in ('index', 'queue', 'live', 'record'):
            channel = self.connect()
            self.fill(channel, 'kept', 0, 5)
            self.broker.stop()
            self.flip(lambda data: next(begin + (end - begin) // 2 for begin, end, name in
                                        lmdb_pages.classify(bytes(data))[1] if name == database))
            log, status = self.start_again()
            self.assertIn('the store was mended', log)
            self.broker.kill()
            log, status = self.start_again()
            self.assertNotIn('damaged', log)
            self.assertIn(' 0 findings', status)
            self.assertIn('Quarantined messages: 0', status)
            self.assertEqual(list(self.bodies(self.connect(), 'kept')), ['kept %d' % number for number in range(5)])

    def damage(self, old, new):
        path = os.path.join(self.broker.data_dir, 'data.mdb')
        with open(path, 'rb') as file:
            data = file.read()
        self.assertIn(old, data)
        with open(path, 'wb') as file:
            file.write(data.replace(old, new))

    def test_dump(self):
        channel = self.connect()
        self.fill(channel, 'kept', 0, 3)
        self.broker.stop()
        text = self.passes('stoatdump', '--bodies', self.broker.data_dir)
        for line in ('meta state', 'record', 'queue 1 head 0 tail 3 count 3', 'segment 1/0', '  entry 0', 'kept 2',
                     'blob 1 entries 1'):
            self.assertIn(line, text)
        self.assertNotIn('segment', self.passes('stoatdump', self.broker.data_dir, 'queues', 'meta'))
        with open('/dev/full', 'wb') as full:
            cut = subprocess.run([str(broker.BUILD / 'stoatdump'), self.broker.data_dir], timeout=60, stdout=full,
                                 stderr=subprocess.PIPE, encoding='utf-8')
        self.assertEqual((cut.returncode, cut.stderr), (IO_ERROR, 'stoatdump: cannot write: No space left on device\n'))
        self.fails(NO_INPUT, 'there is no store', 'stoatdump', self.path('nowhere'))
        self.fails(USAGE, "there is no kind: x\nTry", 'stoatdump', self.broker.data_dir, 'x')
        self.assertIn('password hashes', self.passes('stoatdump', '--help'))
        self.fails(USAGE, "which data directory?\nTry 'stoatdump --help'", 'stoatdump')
        self.fails(USAGE, "Try 'stoatdump --help'", 'stoatdump', '--bogus')


if __name__ == '__main__':
    tap.main()
