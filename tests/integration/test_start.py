#!/usr/bin/python3
"""What a start leaves behind when it fails or is given up, and what the process does with signals."""

import os
import signal
import socket
import subprocess
import tempfile
import unittest

import pika

import broker
import tap


@broker.needs_own_broker
@broker.departs('another program')
class Start(unittest.TestCase):
    def fails(self, own, status, *settings):
        kept, own.settings = own.settings, settings
        own.launch()
        self.assertEqual(own.wait_end(), status, own.log())
        own.settings = kept

    def test_one_that_fails_leaves_no_user(self):
        own = broker.Broker(('default_user=admin', 'default_pass=secret'))
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))
            taken.listen()
            self.fails(own, 69, 'listeners.tcp.other=127.0.0.1:%d' % taken.getsockname()[1])
        with own:
            self.assertEqual(own.rows('list_users'), [['admin', '[administrator]']])
            pika.BlockingConnection(own.parameters('admin', 'secret')).close()
            own.check_quiet()

    def check_config(self, *settings, config=None):
        words = ['--check-config'] + (['--config', config] if config else [])
        for setting in settings:
            words += ['--set', setting]
        return subprocess.run([str(broker.BUILD / 'stoatmq'), *words], stdin=subprocess.DEVNULL, timeout=20,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8')

    def test_every_mistake_is_told_in_one_run(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, 'a.conf')
            with open(path, 'w') as config:
                config.write('heartbeet = 60\nheartbeat = 60\nframe_max = 1\nno equals sign\n')
            run = self.check_config('nosuch=1', config=path)
        self.assertEqual(run.returncode, 78)
        self.assertEqual(len(run.stdout.splitlines()), 4, run.stdout)
        for named in path + ':1', path + ':3', path + ':4', "'nosuch' in --set":
            self.assertIn(named, run.stdout)

    def test_the_parts_and_the_whole_are_told_of_together(self):
        run = self.check_config('heartbeat=soon', 'default_permissions.read=(', 'listeners.ssl.default=0',
                                'ssl_options.certfile=/nowhere/cert.pem', 'user=no-such-user')
        self.assertEqual(run.returncode, 78)
        self.assertEqual(len(run.stdout.splitlines()), 4, run.stdout)
        for named in ("'heartbeat' in --set", "'default_permissions.read' in --set: it is no regular expression",
                      'cannot use the certificate in /nowhere/cert.pem',
                      'there is no user no-such-user (user in --set): name it as /etc/passwd does'):
            self.assertIn(named, run.stdout)

    def test_a_user_is_looked_for(self):
        run = self.check_config('user=no-such-user')
        self.assertEqual(run.returncode, 78)
        run = self.check_config('user=nobody')
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertRegex(run.stdout, 'user nobody must be able to|as root or as user nobody')

    def test_the_journal_learns_what_is_an_error(self):
        for shift, prefix in ((0, '<3>'), (1, '')):
            with tempfile.TemporaryFile('w+') as log:
                found = os.fstat(log.fileno())
                stream = '%d:%d' % (found.st_dev, found.st_ino + shift)
                done = subprocess.run([str(broker.BUILD / 'stoatmq'), '--check-config', '--set', 'heartbeat=soon'], stderr=log,
                                      env=dict(os.environ, JOURNAL_STREAM=stream), timeout=20, check=False)
                self.assertEqual(done.returncode, 78)
                log.seek(0)
                self.assertRegex(log.read(), '^%sstoatmq: .*heartbeat' % prefix)

    def test_certificates_are_looked_at(self):
        run = self.check_config('listeners.ssl.default=0', 'ssl_options.certfile=/nowhere/cert.pem')
        self.assertEqual(run.returncode, 78)
        self.assertIn('cannot use the certificate in /nowhere/cert.pem (ssl_options.certfile)', run.stdout)

    def test_a_directory_that_others_can_write_to(self):
        own = broker.Broker()
        os.mkdir(own.data_dir, 0o700)
        os.chmod(own.data_dir, 0o777)
        self.fails(own, 73)
        self.assertIn('chmod go-w %s' % own.data_dir, own.log())
        os.chmod(own.data_dir, 0o700)
        with own.start():
            self.assertEqual('running as root' in own.log(), os.geteuid() == 0)

    def test_a_default_user_who_comes_too_late_is_named(self):
        with broker.Broker() as own:
            own.stop()
            own.settings = ('default_user=admin',)
            own.start()
            self.assertEqual(own.rows('list_users'), [['guest', '[administrator]']])
            self.assertIn("there is no user 'admin' (default_user)", own.log())
            own.ctl('add_user', 'admin', 'secret')
            own.ctl('delete_user', 'guest')
            for settings in own.settings, ():
                own.stop()
                own.settings = settings
                own.start()
                self.assertNotIn('there is no user', own.log())


def launch_told_to_stop(own, number):
    """The program with a signal that waits for it from its first instruction on: it is blocked, and so stays with
    the process when that becomes the program."""
    def tell():
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        os.kill(os.getpid(), number)
    return subprocess.run(own.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding='utf-8', timeout=60, preexec_fn=tell)


@broker.needs_own_broker
@broker.departs('another program')
class Signals(unittest.TestCase):
    def test_a_start_is_given_up(self):
        own = broker.Broker(port=broker.free_port())
        for number in signal.SIGTERM, signal.SIGINT:
            for state in 'new', 'old', 'damaged':
                with self.subTest(number=number, state=state):
                    if state == 'old':
                        with own.start():
                            channel = pika.BlockingConnection(own.parameters()).channel()
                            channel.queue_declare('q', durable=True)
                            channel.confirm_delivery()
                            channel.basic_publish('', 'q', b'm', pika.BasicProperties(delivery_mode=2))
                    if state == 'damaged':  # says the note
                        open(os.path.join(own.data_dir, 'salvage'), 'w').close()
                    run = launch_told_to_stop(own, number)
                    self.assertEqual(run.returncode, 0, run.stdout)
                    self.assertIn('the start is given up', run.stdout)
                    self.assertNotIn('listener', run.stdout)
                    self.assertNotRegex(run.stdout, r'\bready\b')
            with own.start():
                self.assertEqual(own.rows('list_queues', 'name', 'messages'), [['q', '1']])
                own.ctl('delete_queue', 'q')

    def test_what_may_have_been_delivered_is_still_said_to_be(self):
        own = broker.Broker(port=broker.free_port())
        with own.start():
            channel = pika.BlockingConnection(own.parameters()).channel()
            channel.queue_declare('q', durable=True)
            channel.confirm_delivery()
            channel.basic_publish('', 'q', b'm', pika.BasicProperties(delivery_mode=2))
            self.assertFalse(channel.basic_get('q')[0].redelivered)
            own.kill()
        self.assertEqual(launch_told_to_stop(own, signal.SIGTERM).returncode, 0)
        with own.start():
            channel = pika.BlockingConnection(own.parameters()).channel()
            self.assertTrue(channel.basic_get('q')[0].redelivered)

    def test_those_of_other_servers_are_ignored(self):
        with broker.Broker() as own:
            for number in signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE:
                own.process.send_signal(number)
            pika.BlockingConnection(own.parameters()).close()


if __name__ == '__main__':
    tap.main()
