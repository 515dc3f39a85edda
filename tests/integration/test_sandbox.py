#!/usr/bin/python3
"""The walls around the process (sandbox.h) as the kernel sees them, and the binary's own hardening."""

import os
import re
import subprocess
import unittest

import pika

import broker
import tap


def kernel_status(pid):
    """Of every thread of the process: what /proc says of it."""
    for thread in os.listdir('/proc/%d/task' % pid):
        with open('/proc/%d/task/%s/status' % (pid, thread)) as status:
            yield dict(line.rstrip('\n').split(':\t', 1) for line in status if ':\t' in line)


@broker.needs_own_broker
@unittest.skipIf(broker.SANITIZED, 'sanitizers do not fit into the sandbox')
class Sandbox(unittest.TestCase):
    def start(self, *settings):
        self.broker = broker.Broker(settings).start()
        self.addCleanup(self.broker.__exit__, None, None, None)
        return self.broker

    def work(self):
        with pika.BlockingConnection(self.broker.parameters()) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare('q', durable=True)
            channel.basic_publish('', 'q', b'm', pika.BasicProperties(delivery_mode=2))
            self.assertEqual(channel.basic_get('q', auto_ack=True)[2], b'm')

    def test_all_threads_are_behind_it_and_serve(self):
        pid = self.start().process.pid
        self.work()
        for status in kernel_status(pid):
            self.assertEqual((status['Seccomp'], status['NoNewPrivs']), ('2', '1'), status['Name'])
        self.broker.restart()
        self.work()
        self.broker.check_quiet()

    def test_it_can_be_switched_off(self):
        pid = self.start('sandbox=false').process.pid
        self.work()
        self.assertEqual({status['Seccomp'] for status in kernel_status(pid)}, {'0'})
        self.assertIn('the sandbox is off (sandbox)', self.broker.log())

    def test_a_core_would_be_empty(self):
        with open('/proc/%d/limits' % self.start().process.pid) as limits:
            self.assertRegex(limits.read(), r'Max core file size +0 +0 ')


@unittest.skipIf(broker.SANITIZED, 'sanitized programs are built otherwise')
class Binary(unittest.TestCase):
    PROGRAMS = ('stoatmq', 'stoatctl', 'stoatperf')

    @staticmethod
    def readelf(program, *words):
        return subprocess.run(['readelf', '-W', *words, str(broker.BUILD / program)], check=True, stdout=subprocess.PIPE,
                              encoding='utf-8').stdout

    def test_position_independent(self):
        for program in self.PROGRAMS:
            self.assertRegex(self.readelf(program, '-h'), r'Type: +DYN')

    def test_addresses_are_bound_early_and_then_read_only(self):
        for program in self.PROGRAMS:
            self.assertIn('GNU_RELRO', self.readelf(program, '-l'))
            self.assertRegex(self.readelf(program, '-d'), r'BIND_NOW|FLAGS.*NOW')

    def test_no_page_is_both_written_and_run(self):
        for program in self.PROGRAMS:
            headers = self.readelf(program, '-l')
            self.assertRegex(headers, r'GNU_STACK .* RW ')
            self.assertNotRegex(headers, r'LOAD .* RWE ')

    def test_checked_functions_and_stack_canaries(self):
        for program in self.PROGRAMS:
            symbols = self.readelf(program, '--dyn-syms')
            self.assertIn('__stack_chk_fail', symbols)
            self.assertTrue(re.search(r'__\w+_chk\b', symbols.replace('__stack_chk_fail', '')), program)


if __name__ == '__main__':
    tap.main()
