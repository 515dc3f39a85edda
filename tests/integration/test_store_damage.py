#!/usr/bin/python3
"""A store that is damaged, from outside: what verify, compact and stoatdump say of it, and the broker that salvages it."""

import contextlib
import os
import re
import signal
import subprocess
import time

import broker
import lmdb_pages
import tap
from client import PERSISTENT
from store_tools import DATA, IO_ERROR, NO_INPUT, OK, TOOLS, StoreTools, run


@broker.needs_own_broker
@broker.departs('its store is another')
class Damaged(StoreTools):
    def data(self, name='data.mdb'):
        return os.path.join(self.broker.data_dir, name)

    def read(self):
        with open(self.data(), 'rb') as file:
            return file.read()

    def write(self, octets):
        with open(self.data(), 'wb') as file:
            file.write(octets)

    def is_damaged(self, why='is damaged'):
        """So say the tools, and change nothing."""
        octets = self.read()
        for words in TOOLS:
            self.fails(DATA, why, *words, self.broker.data_dir)
            self.assertEqual(self.read(), octets)
            self.assertNotIn('data.mdb.part', os.listdir(self.broker.data_dir))

    def test_a_file_cut_short_is_damaged(self):
        self.fill(self.connect(), 'kept', 0, 100)
        self.broker.stop()
        self.passes('stoatctl', 'compact', self.broker.data_dir)
        whole = self.read()
        for size in (8192, len(whole) // 4 - 5, len(whole) // 2, len(whole) * 3 // 4):
            self.write(whole[:size])
            self.is_damaged()
        self.write(whole)
        self.assertIn('is sound', self.passes('stoatctl', 'verify', self.broker.data_dir))

    def test_what_is_no_store_is_damaged(self):
        self.broker.stop()
        for octets in (b'', b'x' * 5000, os.urandom(100000)):
            self.write(octets)
            for words in TOOLS[:2]:
                self.fails(DATA, 'the next start of a broker salvages it', *words, self.broker.data_dir)
            self.assertNotIn(run('stoatdump', self.broker.data_dir).returncode, (OK, NO_INPUT))

    def test_pages_that_are_lost_are_damaged(self):
        """Zeroed, one of each kind: LMDB dies of some, and others only the first look finds."""
        self.fill(self.connect(), 'kept', 0, 100)
        self.broker.stop()
        whole = self.read()
        pages = {}
        for number, name in lmdb_pages.classify(whole)[0].items():
            if name[0] in ('branch', 'leaf'):
                pages.setdefault(name, number)
        self.assertGreater(len(pages), 5)
        for name, number in pages.items():
            with self.subTest(page=name):
                self.write(whole[:number * 4096] + bytes(4096) + whole[(number + 1) * 4096:])
                for words in TOOLS[:2]:
                    self.fails(DATA, 'is damaged', *words, self.broker.data_dir)
                self.assertIn(run('stoatdump', '--bodies', self.broker.data_dir).returncode, (OK, DATA))
        self.assertNotIn('data.mdb.part', os.listdir(self.broker.data_dir))

    def test_an_assertion_of_lmdb_is_damage(self):
        """It aborts where a page that should be a leaf is none, and the next is found by the one before."""
        self.fill(self.connect(), 'kept', 0, 150)
        self.broker.stop()
        whole = self.read()
        leaves = [number for number, name in lmdb_pages.classify(whole)[0].items() if name == ('leaf', 'index')]
        self.assertGreater(len(leaves), 1)
        said = ''
        for number in leaves:
            self.write(whole[:number * 4096] + bytes(4096) + whole[(number + 1) * 4096:])
            result = run('stoatdump', self.broker.data_dir, 'segments')
            self.assertEqual(result.returncode, DATA, result)
            said += result.stderr
        self.assertIn('is damaged: who read it died of SIGABRT: segments', said)

    def test_a_store_that_asks_for_a_salvage_is_damaged(self):
        self.broker.stop()
        with open(self.data('salvage'), 'w', encoding='utf-8'):
            pass
        for words in TOOLS[:2]:
            self.fails(DATA, 'the last run died of it', *words, self.broker.data_dir)

    def test_nothing_is_left_of_a_compaction(self):
        """That is killed by the system, or told to go; and if something is, the next start of the broker removes it."""
        channel = self.connect()
        channel.queue_declare('kept', durable=True)
        for _ in range(30):
            channel.basic_publish('', 'kept', b'x' * 1000000, PERSISTENT)
        self.broker.stop()
        octets = self.read()
        for handler, why in ((signal.SIG_DFL, 'was killed (SIGXFSZ: copying): whether it is damaged is not known'),
                              (signal.SIG_IGN, 'room for a whole copy of the store is needed')):
            limited = subprocess.run(['prlimit', '--fsize=1000000', str(broker.BUILD / 'stoatctl'), 'compact',
                                      self.broker.data_dir], timeout=60, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.PIPE, encoding='utf-8',
                                     preexec_fn=lambda handler=handler: signal.signal(signal.SIGXFSZ, handler))
            self.assertEqual(limited.returncode, IO_ERROR)
            self.assertIn(why, limited.stderr)
            self.assertNotIn('data.mdb.part', os.listdir(self.broker.data_dir))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            self.stop_compaction(number)
            self.assertEqual('data.mdb.part' in os.listdir(self.broker.data_dir), number == signal.SIGKILL)
            self.assertEqual(self.read(), octets)
        self.broker.start()
        self.assertNotIn('data.mdb.part', os.listdir(self.broker.data_dir))
        self.assertEqual(len(list(self.bodies(self.connect(), 'kept'))), 30)

    def stop_compaction(self, number):
        """With this signal, half-way: the child that copies is held there."""
        for _ in range(20):
            done = subprocess.Popen([str(broker.BUILD / 'stoatctl'), 'compact', self.broker.data_dir],
                                    stdout=subprocess.DEVNULL)
            self.addCleanup(done.kill)
            while not os.path.exists(self.data('data.mdb.part')) and done.poll() is None:
                time.sleep(0.001)
            with contextlib.suppress(OSError, ValueError):
                with open('/proc/%d/task/%d/children' % (done.pid, done.pid), encoding='ascii') as file:
                    os.kill(int(file.read()), signal.SIGSTOP)
                if os.path.exists(self.data('data.mdb.part')):
                    done.send_signal(number)
                    self.assertEqual(done.wait(60), -number)
                    return
            done.kill()
            done.wait()
        self.fail('it is too fast')

    def test_what_a_salvage_loses_is_told(self):
        """And the default user, who may have been deleted, does not come back."""
        self.fill(self.connect(), 'kept', 0, 100)
        self.broker.ctl('add_user', 'admin', 'secret')
        self.broker.ctl('delete_user', 'guest')
        self.broker.stop()
        self.assertNotIn('Salvaged', self.broker_status_after(self.read()))
        self.broker.stop()
        status = self.broker_status_after(self.read()[:8192])
        self.assertRegex(status, r'Salvaged at this start: 20\S+Z\n  saved: 0 messages in 0 queues\n'
                                 r'  could not be read: [1-9]\d* pages or rows\n  damaged file: %s/data.mdb.damaged-'
                         % re.escape(self.broker.data_dir))
        for stop in (self.broker.kill, self.broker.stop):
            self.assertEqual(self.broker.ctl('list_users', '--silent'), '')
            self.assertEqual(self.broker.ctl('list_vhosts', '--silent'), '/\n')
            self.assertIn("there is no user left: nobody can log in until 'stoatctl add_user' makes one", self.broker.log())
            stop()
            self.broker.start()
        self.assertNotIn('Salvaged', self.broker.ctl('status'))
        self.broker.ctl('add_user', 'guest', 'guest')
        self.broker.ctl('set_permissions', 'guest', '.*', '.*', '.*')
        self.fill(self.connect(), 'kept', 0, 5)

    def broker_status_after(self, octets):
        self.write(octets)
        self.broker.start()
        return self.broker.ctl('status')

    def test_users_that_a_salvage_saves_stay(self):
        self.broker.ctl('add_user', 'admin', 'secret')
        self.broker.ctl('delete_user', 'guest')
        self.broker.stop()
        with open(self.data('salvage'), 'w', encoding='utf-8'):
            pass
        self.assertIn('Salvaged', self.broker_status_after(self.read()))
        self.assertEqual(self.broker.ctl('list_users', '--silent').split(), ['admin', '[]'])
        self.assertNotIn('no user left', self.broker.log())


if __name__ == '__main__':
    tap.main()
