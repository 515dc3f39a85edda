#!/usr/bin/python3
"""The queue class: declaring, exclusiveness, auto-delete, purge, delete, and the argument checks."""

import pika

import broker
import tap
from client import ClientTest


class Declare(ClientTest):
    def test_8_1_reserved_prefix(self):
        self.refused(403, "queue name 'amq.mine' contains reserved prefix 'amq.*'", self.channel.queue_declare,
                     'amq.mine')

    def test_8_1_255_octets(self):
        name = 'q' * 255
        self.used.append(name)
        self.assertEqual(self.channel.queue_declare(name, exclusive=True).method.queue, name)

    def test_8_2_server_named(self):
        first = self.channel.queue_declare('', exclusive=True).method.queue
        second = self.channel.queue_declare('', exclusive=True).method.queue
        self.assertRegex(first, r'^amq\.gen-[A-Za-z0-9_-]{22}$')
        self.assertNotEqual(first, second)

    @broker.departs('older ones refuse it by its prefix')
    def test_8_1_server_name_is_declared_again(self):
        name = self.channel.queue_declare('', exclusive=True).method.queue
        self.assertEqual(self.channel.queue_declare(name, exclusive=True).method.queue, name)

    def test_8_3_all_flags(self):
        for number in range(8):
            flags = dict(durable=bool(number & 1), exclusive=bool(number & 2), auto_delete=bool(number & 4))
            with self.subTest(**flags):
                name = self.queue(suffix=str(number), **flags)
                self.assertEqual(self.channel.queue_declare(name, **flags).method.queue, name)

    def test_8_3_exclusive_queue_is_locked_to_others(self):
        name = self.queue(exclusive=True)
        other = self.connect()
        text = "cannot obtain exclusive access to locked queue '%s' in vhost '/'" % name
        for attempt in (lambda channel: channel.queue_declare(name, exclusive=True),
                        lambda channel: channel.queue_declare(name, passive=True),
                        lambda channel: channel.queue_purge(name),
                        lambda channel: channel.queue_delete(name),
                        lambda channel: channel.queue_bind(name, 'amq.direct', 'k'),
                        lambda channel: channel.basic_get(name),
                        lambda channel: channel.basic_consume(name, lambda *_: None)):
            self.refused(405, text, attempt, other.channel())
        self.channel.queue_declare(name, passive=True)

    def test_8_3_exclusive_queue_goes_with_its_connection(self):
        other = self.connect()
        name = self.queue(other.channel(), exclusive=True)
        other.close()
        self.eventually(lambda: self.gone(name), 'the queue is still there')

    def gone(self, name):
        channel = self.connection.channel()
        try:
            channel.queue_declare(name, passive=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code == 404:
                return True
        return False

    def test_8_3_auto_delete_goes_with_its_last_consumer(self):
        name = self.queue(auto_delete=True)
        _, first = self.consume(name)
        _, second = self.consume(name)
        self.channel.basic_cancel(first)
        self.channel.queue_declare(name, passive=True)
        self.channel.basic_cancel(second)
        self.refused(404, 'no queue', self.channel.queue_declare, name, passive=True)

    def test_8_3_auto_delete_stays_before_its_first_consumer(self):
        name = self.queue(auto_delete=True)
        self.channel.basic_get(name)
        self.channel.close()
        self.connection.channel().queue_declare(name, passive=True)

    def test_8_3_auto_delete_goes_with_channel_and_connection(self):
        for what in ('channel', 'connection'):
            with self.subTest(ended=what):
                other = self.connect()
                channel = other.channel()
                name = self.queue(channel, suffix=what, auto_delete=True)
                channel.basic_consume(name, lambda *_: None)
                (channel if what == 'channel' else other).close()
                self.eventually(lambda: self.gone(name), 'the queue is still there')

    def test_8_5_declare_ok_counts(self):
        name = self.queue()
        self.publish(name, 'a', 'b', 'c')
        self.assertIsNotNone(self.channel.basic_get(name)[0])
        self.consume(name, self.connection.channel(), auto_ack=False)
        declared = self.channel.queue_declare(name).method
        self.assertEqual((declared.queue, declared.message_count, declared.consumer_count), (name, 0, 1))

    def test_8_6_passive(self):
        name = self.queue(durable=True)
        self.assertEqual(self.channel.queue_declare(name, passive=True, auto_delete=True).method.queue, name)
        self.refused(404, "no queue 'absent' in vhost '/'", self.channel.queue_declare, 'absent', passive=True)

    def test_8_7_1_exclusive_flag_mismatch_is_405(self):
        name = self.queue()
        self.refused(405, "cannot obtain exclusive access to locked queue '%s' in vhost '/'. It could be originally "
                     "declared on another connection or the exclusive property value does not match that of the "
                     "original declaration." % name, self.channel.queue_declare, name, exclusive=True)

    def test_8_7_2_flag_mismatch_is_406(self):
        name = self.queue()
        for flag in ('durable', 'auto_delete'):
            with self.subTest(flag=flag):
                self.refused(406, "inequivalent arg '%s' for queue '%s' in vhost '/': received 'true' but current is "
                             "'false'" % (flag, name), self.connection.channel().queue_declare, name, **{flag: True})

    def test_8_7_3_argument_mismatch_is_406(self):
        name = self.queue(arguments={'x-message-ttl': 1000})
        self.channel.queue_declare(name, arguments={'x-message-ttl': 1000})
        table = (
            (None, "received none but current is the value '1000' of type '"),
            ({'x-message-ttl': 2000}, "received '2000' but current is '1000'"),
            ({'x-message-ttl': 1000, 'x-expires': 60000}, "inequivalent arg 'x-expires'"),
        )
        for arguments, expected in table:
            with self.subTest(arguments=arguments):
                self.refused(406, expected, self.connection.channel().queue_declare, name, arguments=arguments)

    def test_8_7_3_types_have_an_order_of_their_own(self):
        quorum = {'x-queue-type': 'quorum'}
        name = self.queue(durable=True, arguments=quorum)
        wrong = dict(quorum, **{'x-message-ttl': 1000, 'x-expires': 60000, 'x-max-length': 5})
        self.refused(406, "inequivalent arg 'x-expires'", self.connection.channel().queue_declare, name, durable=True,
                     arguments=wrong)
        del wrong['x-expires']
        self.refused(406, "inequivalent arg 'x-max-length'", self.connection.channel().queue_declare, name, durable=True,
                     arguments=wrong)

    def test_8_7_3_widths_of_integers_are_alike(self):
        name = self.queue(arguments={'x-message-ttl': 100000})
        self.channel.queue_declare(name, arguments={'x-message-ttl': pika.compat.long(100000)})

    def test_8_7_3_unknown_arguments_are_not_compared(self):
        name = self.queue(arguments={'x-of-mine': 'one'})
        self.channel.queue_declare(name, arguments={'x-of-mine': 'two'})

    def test_8_10_queue_type_classic_is_the_default(self):
        name = self.queue(durable=True, arguments={'x-queue-type': 'classic'})
        self.channel.queue_declare(name, durable=True)

    def test_8_11_argument_values(self):
        table = (
            {'x-expires': 0}, {'x-expires': 'soon'}, {'x-message-ttl': -1}, {'x-message-ttl': 'soon'},
            {'x-max-length': -1}, {'x-max-length-bytes': 'much'}, {'x-overflow': 'burst'}, {'x-max-priority': -1},
            {'x-max-priority': 'high'}, {'x-single-active-consumer': 'yes'}, {'x-dead-letter-routing-key': 'alone'},
        )
        for arguments in table:
            with self.subTest(**arguments):
                name = self.name()
                self.refused(406, "invalid arg '%s' for queue '%s' in vhost '/'" % (next(iter(arguments)), name),
                             self.connection.channel().queue_declare, name, arguments=arguments)

    def test_8_8_dead_letter_exchange_must_be_a_string(self):
        self.refused(406, "'x-dead-letter-exchange'", self.channel.queue_declare, self.name(),
                     arguments={'x-dead-letter-exchange': 1})

    def test_8_12_names_are_free_again_after_delete(self):
        for durable in (True, False, True):
            name = self.queue(durable=durable)
            self.publish(name, 'left')
            self.channel.queue_delete(name)
        self.assertEqual(self.channel.queue_declare(name).method.message_count, 0)


class Delete(ClientTest):
    def test_8_12_absent_is_zero(self):
        self.assertEqual(self.channel.queue_delete('absent').method.message_count, 0)

    def test_8_12_counts_ready_messages(self):
        name = self.queue()
        self.publish(name, 'a', 'b', 'c')
        self.channel.basic_get(name)
        self.assertEqual(self.channel.queue_delete(name).method.message_count, 2)

    def test_8_12_if_empty(self):
        name = self.queue()
        self.publish(name, 'a')
        self.refused(406, "queue '%s' in vhost '/' not empty" % name, self.connection.channel().queue_delete, name,
                     if_empty=True)
        self.channel.queue_purge(name)
        self.channel.queue_delete(name, if_empty=True)

    def test_8_12_if_unused(self):
        name = self.queue()
        _, tag = self.consume(name)
        self.refused(406, "queue '%s' in vhost '/' in use" % name, self.connection.channel().queue_delete, name,
                     if_unused=True)
        self.channel.basic_cancel(tag)
        self.channel.queue_delete(name, if_unused=True)

    def test_8_12_consumers_are_told(self):
        name = self.queue()
        told = []
        self.channel.add_on_cancel_callback(lambda frame: told.append(frame.method.consumer_tag))
        _, tag = self.consume(name)
        self.connection.channel().queue_delete(name)
        self.eventually(lambda: told, 'no basic.cancel came')
        self.assertEqual(told, [tag])

    def test_8_12_acking_what_was_delivered_before_the_delete(self):
        name = self.queue()
        self.publish(name, 'a')
        method, _, _ = self.channel.basic_get(name)
        self.channel.queue_delete(name)
        self.channel.basic_ack(method.delivery_tag)
        self.channel.queue_declare('', exclusive=True)


class Purge(ClientTest):
    def test_8_13_ready_go_unacked_stay(self):
        name = self.queue()
        self.publish(name, 'a', 'b', 'c')
        method, _, _ = self.channel.basic_get(name)
        self.assertEqual(self.channel.queue_purge(name).method.message_count, 2)
        self.channel.basic_nack(method.delivery_tag)
        self.expect_count(name, 1)
        self.assertEqual(self.get_all(name), ['a'])

    def test_8_13_absent_is_404(self):
        self.refused(404, "no queue 'absent' in vhost '/'", self.channel.queue_purge, 'absent')

    def test_8_9_empty_name_is_the_last_declared(self):
        name = self.queue()
        self.publish(name, 'a', 'b')
        self.channel.queue_declare(name)
        self.assertEqual(self.channel.queue_purge('').method.message_count, 2)
        self.assertEqual(self.channel.queue_delete('').method.message_count, 0)

    def test_8_9_without_one_declared_is_404(self):
        self.refused(404, 'no previously declared queue', self.channel.queue_purge, '')


if __name__ == '__main__':
    tap.main()
