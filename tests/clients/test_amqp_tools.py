#!/usr/bin/python3
"""The command line programs of Debian's amqp-tools, which shell scripts use."""

import subprocess

import tap
from client import ClientTest


class AmqpTools(ClientTest):
    def run_tool(self, tool, *words, stdin='', status=0):
        run = subprocess.run([tool, '--url', self.broker.url() + '/%2f', *words], input=stdin, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, encoding='utf-8', timeout=20)
        self.assertEqual(run.returncode, status, run.stderr)
        return run.stdout

    def test_declare_publish_get_delete(self):
        queue = self.name()
        self.assertEqual(self.run_tool('amqp-declare-queue', '-d', '-q', queue).strip(), queue)
        self.run_tool('amqp-publish', '-r', queue, '-p', '-b', 'from the shell')
        self.assertEqual(self.count(queue), 1)
        self.assertEqual(self.run_tool('amqp-get', '-q', queue), 'from the shell')
        self.run_tool('amqp-get', '-q', queue, status=2)
        self.run_tool('amqp-publish', '-r', queue, '-b', 'left')
        self.assertEqual(self.run_tool('amqp-delete-queue', '-q', queue).strip(), '1')
        self.refused(404, 'no queue', self.channel.queue_declare, queue, passive=True)

    def test_server_named_queue(self):
        queue = self.run_tool('amqp-declare-queue', '-d', '-q', '').strip()
        self.assertRegex(queue, r'^amq\.gen-')
        self.run_tool('amqp-delete-queue', '-q', queue)

    def test_delete_if_empty_fails_and_says_why(self):
        queue = self.queue()
        self.publish(queue, 'left')
        run = subprocess.run(['amqp-delete-queue', '--url', self.broker.url() + '/%2f', '-e', '-q', queue],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8',
                             timeout=20)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn('PRECONDITION_FAILED', run.stderr)

    def test_properties(self):
        queue = self.queue()
        self.run_tool('amqp-publish', '-r', queue, '-b', '{}', '-C', 'application/json', '-E', 'utf-8', '-t', 'answers',
                      '-H', 'kind: test')
        _, properties, body = self.channel.basic_get(queue, auto_ack=True)
        self.assertEqual((properties.content_type, properties.content_encoding, properties.reply_to,
                          properties.headers, body), ('application/json', 'utf-8', 'answers', {'kind': 'test'}, b'{}'))

    def test_publish_lines_and_consume_them(self):
        queue = self.queue()
        lines = ['line %d\n' % number for number in range(20)]
        self.run_tool('amqp-publish', '-r', queue, '-l', stdin=''.join(lines))
        self.expect_count(queue, 20)
        self.assertEqual(self.run_tool('amqp-consume', '-q', queue, '-c', '20', '-p', '5', 'cat'), ''.join(lines))
        self.assertEqual(self.count(queue), 0)

    def test_consume_what_an_exchange_gives(self):
        consumer = subprocess.Popen(['amqp-consume', '--url', self.broker.url() + '/%2f', '-e', 'amq.topic', '-r',
                                     'tools.*', '-x', '-c', '2', 'cat'], stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8')
        self.addCleanup(consumer.stdout.close)
        self.addCleanup(consumer.stderr.close)
        self.assertTrue(consumer.stderr.readline().startswith('Server provided queue name: '))
        self.await_binding('tools.one')
        self.run_tool('amqp-publish', '-e', 'amq.topic', '-r', 'other.one', '-b', 'not for us')
        self.run_tool('amqp-publish', '-e', 'amq.topic', '-r', 'tools.two', '-b', 'two')
        self.assertEqual(consumer.communicate(timeout=20)[0], 'onetwo')
        self.assertEqual(consumer.returncode, 0)

    def await_binding(self, key):
        """Publishes one message to amq.topic as soon as somebody gets it."""
        returned = []
        self.channel.add_on_return_callback(lambda *got: returned.append(got))

        def arrives():
            before = len(returned)
            self.channel.basic_publish('amq.topic', key, 'one', mandatory=True)
            self.channel.queue_declare('', exclusive=True)
            self.connection.process_data_events(0.01)
            return len(returned) == before
        self.eventually(arrives, 'nobody is bound')


if __name__ == '__main__':
    tap.main()
