#!/usr/bin/python3
"""Celery: a worker of two processes, and programs that send it tasks, await results, steer it and watch it."""

import contextlib
import datetime
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

from celery import chain, group
from celery.exceptions import TaskRevokedError
from kombu import Queue

import broker
import tap

HERE = pathlib.Path(__file__).resolve().parent
RESULT_TIMEOUT = 20

# What Celery's programs leave to the end of their process.
EXPECTED = ('client unexpectedly closed TCP connection',)

tasks = None    # celery_tasks, which needs the broker's address when it is imported


class Worker:
    """`celery worker` as a process of its own."""

    def __init__(self):
        self.log_path = os.path.join(tempfile.gettempdir(), 'worker.log')
        self.process = None

    def start(self):
        with open(self.log_path, 'w') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'celery', '-A', 'celery_tasks', 'worker', '--concurrency', '2',
                 '--task-events', '--loglevel', 'INFO'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def stop(self):
        self.process.terminate()
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        if status != 0:
            raise AssertionError('the worker ended with status %d\n%s' % (status, self.log_tail()))

    def log_tail(self):
        with open(self.log_path, errors='replace') as log:
            return ''.join(log.readlines()[-60:])


def get_from(name):
    """The next message of a queue, as soon as there is one."""
    with tasks.app.connection_for_read() as connection:
        queue = Queue(name, durable=True)(connection.default_channel)
        queue.declare()
        deadline = time.monotonic() + RESULT_TIMEOUT
        while (message := queue.get(no_ack=True)) is None:
            if time.monotonic() > deadline:
                raise AssertionError('nothing comes to %s' % name)
            time.sleep(0.02)
        return message


class Tasks(unittest.TestCase):
    def get(self, result):
        return result.get(timeout=RESULT_TIMEOUT)

    def test_results(self):
        results = [tasks.add.delay(number, number) for number in range(40)]
        self.assertEqual([self.get(result) for result in results], [2 * number for number in range(40)])

    def test_failure_is_a_result(self):
        with self.assertRaisesRegex(ValueError, 'as it should'):
            self.get(tasks.fail.delay())

    def test_group_and_chain(self):
        group_result = group(tasks.add.s(number, 1) for number in range(10))()
        self.assertEqual(self.get(group_result), list(range(1, 11)))
        self.assertEqual(self.get(chain(tasks.add.s(1, 2), tasks.add.s(3), tasks.add.s(4))()), 10)

    def test_retries(self):
        self.assertEqual(self.get(tasks.insist.delay(3)), 3)

    def test_countdown_beyond_the_prefetch_count(self):
        """The worker takes every task that waits for its time, and raises its prefetch count for each."""
        due = time.time() + 4
        waiting = [tasks.now.apply_async(countdown=4) for _ in range(30)]
        self.assertEqual(self.get(tasks.add.delay(1, 1)), 2)
        self.assertLess(time.time(), due, 'an ordinary task waits behind those that are not due')
        for result in waiting:
            self.assertGreaterEqual(self.get(result), due - 0.01)

    def test_eta(self):
        eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
        self.assertGreaterEqual(self.get(tasks.now.apply_async(eta=eta)), eta.timestamp() - 0.01)

    def test_expired_task_is_revoked(self):
        with self.assertRaises(TaskRevokedError):
            self.get(tasks.now.apply_async(countdown=0.5, expires=0.1))

    def test_rejected_task_becomes_a_dead_letter(self):
        with tasks.app.connection_for_read() as connection:
            Queue('dead', durable=True)(connection.default_channel).declare()
        sent = tasks.refuse.delay()
        letter = get_from('dead')
        self.assertEqual(letter.headers['id'], sent.id)
        self.assertEqual(letter.headers['x-death'][0]['reason'], 'rejected')


class Control(unittest.TestCase):
    def test_ping(self):
        replies = tasks.app.control.ping(timeout=2, limit=1)
        self.assertEqual([list(reply.values()) for reply in replies], [[{'ok': 'pong'}]])

    def test_inspect(self):
        inspect = tasks.app.control.inspect(timeout=2, limit=1)
        registered, = inspect.registered().values()
        self.assertIn('celery_tasks.add', registered)
        queues, = inspect.active_queues().values()
        self.assertEqual({queue['name'] for queue in queues}, {'celery', 'refused'})
        stats, = inspect.stats().values()
        self.assertEqual(stats['broker']['transport'], 'amqp')

    def test_scheduled_and_revoked(self):
        waiting = tasks.now.apply_async(countdown=600)
        inspect = tasks.app.control.inspect(timeout=2, limit=1)

        def scheduled():
            requests, = inspect.scheduled().values()
            return waiting.id in [request['request']['id'] for request in requests]
        deadline = time.monotonic() + 10
        while not scheduled():
            self.assertLess(time.monotonic(), deadline, 'it is not scheduled')
        replies = tasks.app.control.revoke(waiting.id, reply=True, timeout=2, limit=1)
        self.assertIn('ok', list(replies[0].values())[0])
        revoked, = inspect.revoked().values()
        self.assertIn(waiting.id, revoked)

    def test_consumers_are_added_and_cancelled(self):
        added = tasks.app.control.add_consumer('extra', reply=True, timeout=2, limit=1)
        self.assertIn('ok', list(added[0].values())[0])
        self.assertEqual(tasks.add.apply_async([2, 3], queue='extra').get(timeout=RESULT_TIMEOUT), 5)
        cancelled = tasks.app.control.cancel_consumer('extra', reply=True, timeout=2, limit=1)
        self.assertIn('ok', list(cancelled[0].values())[0])


class Events(unittest.TestCase):
    def test_a_task_is_watched(self):
        seen = {}

        def on_event(event):
            seen.setdefault(event.get('uuid'), set()).add(event['type'])
        with tasks.app.connection_for_read() as connection:
            receiver = tasks.app.events.Receiver(connection, handlers={'*': on_event})
            with receiver.consumer_context() as (own, _, _):
                watched = tasks.add.delay(1, 1)
                deadline = time.monotonic() + RESULT_TIMEOUT
                while not {'task-received', 'task-started', 'task-succeeded'} <= seen.get(watched.id, set()):
                    self.assertLess(time.monotonic(), deadline, seen)
                    with contextlib.suppress(TimeoutError):
                        own.drain_events(timeout=0.2)


class WorkerAndRestart(unittest.TestCase):
    """The last, because a program that awaits results by rpc:// does not go on with the connection it had."""

    @broker.needs_own_broker
    def test_worker_goes_on(self):
        tasks.leave.apply_async(['after'], countdown=1)
        self.await_scheduled()
        broker.shared().restart()
        self.assertEqual(get_from('left').payload, 'after')
        program = 'import celery_tasks; print(celery_tasks.add.delay(3, 4).get(timeout=%d))' % RESULT_TIMEOUT
        self.assertEqual(subprocess.check_output([sys.executable, '-c', program], encoding='utf-8'), '7\n')

    def await_scheduled(self):
        """The worker has the task, unacked."""
        while not list(tasks.app.control.inspect(timeout=2, limit=1).scheduled().values())[0]:
            pass


def main():
    global tasks
    worker = Worker()
    tap.at_end('the worker ends with status 0', worker.stop)
    shared = broker.shared()
    tap.at_end('the broker had nothing to complain about', lambda: shared.check_quiet(EXPECTED))
    os.environ['URL'] = shared.url()
    os.environ['PYTHONPATH'] = '%s:%s' % (HERE, os.environ['PYTHONPATH'])
    sys.path.insert(0, str(HERE))
    worker.start()
    tasks = importlib.import_module('celery_tasks')
    tasks.app.conf.broker_transport_options = {'confirm_publish': True}
    tasks.add.delay(0, 0).get(timeout=RESULT_TIMEOUT)
    tap.main()


if __name__ == '__main__':
    main()
