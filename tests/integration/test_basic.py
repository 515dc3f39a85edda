#!/usr/bin/python3
"""The basic class: publishing, returning, getting, consuming, settling, and how many may be under way."""

import decimal

import pika

import broker
import tap
import wire
from client import PERSISTENT, ClientTest

EVERY_PROPERTY = pika.BasicProperties(
    content_type='text/plain', content_encoding='utf-8', headers={
        'string': 's', 'long': 1 << 40, 'int': -5, 'true': True, 'void': None, 'array': [1, 'two', {'three': 3}],
        'table': {'nested': {'deeper': 'still'}}, 'decimal': decimal.Decimal('2.5')},
    delivery_mode=2, priority=7, correlation_id='c', reply_to='r', expiration='600000', message_id='m',
    timestamp=1700000000, type='t', user_id='guest', app_id='a', cluster_id='ignored')


class Publish(ClientTest):
    def test_properties_come_through(self):
        queue = self.queue()
        self.publish(queue, 'm', properties=EVERY_PROPERTY)
        _, properties, body = self.channel.basic_get(queue, auto_ack=True)
        self.assertEqual(body, b'm')
        for name in ('content_type', 'content_encoding', 'headers', 'delivery_mode', 'priority', 'correlation_id',
                     'reply_to', 'expiration', 'message_id', 'timestamp', 'type', 'user_id', 'app_id'):
            self.assertEqual(getattr(properties, name), getattr(EVERY_PROPERTY, name), name)

    def test_bodies_of_every_size(self):
        queue = self.queue()
        for size in (0, 1, 2, 131063, 131064, 131065, 262128, 262129, 1000000):
            with self.subTest(size=size):
                body = bytes(number * 7 & 255 for number in range(256)) * (size // 256 + 1)
                self.publish(queue, body[:size])
                self.assertEqual(self.channel.basic_get(queue, auto_ack=True)[2], body[:size])

    def test_2_5_zero_length_body_frames_are_accepted(self):
        queue = self.queue()
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.publish_method(1, '', queue), wire.content_header(1, 2), wire.frame(wire.BODY, 1, b''),
                     wire.frame(wire.BODY, 1, b'a'), wire.frame(wire.BODY, 1, b''), wire.frame(wire.BODY, 1, b'b'))
            self.expect_count(queue, 1)
            self.assertEqual(self.get_all(queue), ['ab'])
            raw.close()

    def test_9_1_missing_exchange_is_404(self):
        self.channel.basic_publish('absent', 'k', 'm')
        self.closed_with(404, "no exchange 'absent' in vhost '/'")

    def test_9_2_bad_expiration_is_406(self):
        for expiration, reason in (('soon', 'no_integer'), ('', 'no_integer'), ('-', 'no_integer'),
                                   ('-1', '{value_negative,-1}'), ('1.5', '{leftover_string,".5"}'),
                                   ('99999999999999', '{value_too_large,99999999999999}')):
            with self.subTest(expiration=expiration):
                self.channel = self.connection.channel()
                self.channel.basic_publish('', 'k', 'm', pika.BasicProperties(expiration=expiration))
                self.closed_with(406, "invalid expiration '%s': %s" % (expiration, reason))

    def test_9_3_user_id_of_another_is_406(self):  # GHSA-6588-rqcr-59pw
        self.channel.basic_publish('', 'k', 'm', pika.BasicProperties(user_id='somebody'))
        self.closed_with(406, "user_id property set to 'somebody' but authenticated user was 'guest'")

    def test_9_4_immediate_is_540(self):
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.publish_method(1, '', 'k', immediate=True), wire.content_header(1, 0))
            code, text, _, _ = wire.close_reason(raw.expect(wire.CLOSE).arguments)
            self.assertEqual(code, 540)
            self.assertIn('immediate=true', text)

    def test_9_5_mandatory_comes_back(self):
        returned = []
        self.channel.add_on_return_callback(lambda _, method, properties, body:
                                            returned.append((method, properties, body)))
        self.channel.basic_publish('amq.direct', 'nobody', 'back', EVERY_PROPERTY, mandatory=True)
        self.channel.basic_publish('amq.direct', 'nobody', 'lost')
        self.wait_for(returned, 1)
        method, properties, body = returned[0]
        self.assertEqual((method.reply_code, method.reply_text, method.exchange, method.routing_key, body),
                         (312, 'NO_ROUTE', 'amq.direct', 'nobody', b'back'))
        self.assertEqual(properties.headers, EVERY_PROPERTY.headers)
        self.nothing_more(returned, 1)

    def test_9_5_mandatory_that_is_routed_does_not(self):
        queue = self.queue()
        returned = []
        self.channel.add_on_return_callback(lambda *got: returned.append(got))
        self.channel.basic_publish('', queue, 'm', mandatory=True)
        self.expect_count(queue, 1)
        self.assertEqual(returned, [])

    def test_9_7_order_of_a_channel_is_kept(self):
        queue = self.queue(durable=True)
        sent = [str(number) for number in range(500)]
        for number, body in enumerate(sent):
            self.channel.basic_publish('', queue, body, PERSISTENT if number % 3 else None)
        got, _ = self.consume(queue, auto_ack=True)
        self.assertEqual(self.wait_for(got, 500), sent)


class Get(ClientTest):
    def test_10_12_get(self):
        queue = self.queue()
        self.publish(queue, 'a', 'b', 'c')
        method, _, body = self.channel.basic_get(queue)
        self.assertEqual((method.delivery_tag, method.redelivered, method.exchange, method.routing_key,
                          method.message_count, body), (1, False, '', queue, 2, b'a'))
        method, _, body = self.channel.basic_get(queue, auto_ack=True)
        self.assertEqual((method.delivery_tag, method.message_count, body), (2, 1, b'b'))

    def test_10_12_empty(self):
        self.assertEqual(self.channel.basic_get(self.queue()), (None, None, None))

    def test_absent_queue_is_404(self):
        self.refused(404, "no queue 'absent' in vhost '/'", self.channel.basic_get, 'absent')

    def test_10_4_qos_does_not_limit_get(self):
        queue = self.queue()
        self.publish(queue, 'a', 'b')
        self.channel.basic_qos(prefetch_count=1)
        self.assertIsNotNone(self.channel.basic_get(queue)[0])
        self.assertIsNotNone(self.channel.basic_get(queue)[0])


class Consume(ClientTest):
    def test_10_8_deliver(self):
        queue = self.queue()
        got, tag = self.consume(queue)
        self.channel.queue_bind(queue, 'amq.direct', 'key')
        self.channel.basic_publish('amq.direct', 'key', 'm')
        self.wait_for(got, 1)
        method = got[0][0]
        self.assertEqual((method.consumer_tag, method.delivery_tag, method.redelivered, method.exchange,
                          method.routing_key), (tag, 1, False, 'amq.direct', 'key'))

    def test_10_5_server_named_tag(self):
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.consume(1, self.queue()))
            self.assertRegex(wire.read_short(raw.expect(wire.CONSUME_OK).arguments, 0)[0], r'^amq\.ctag-.{22}$')

    def test_8_9_no_declared_queue_comes_before_a_tag_in_use(self):
        queue = self.queue()
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.consume(1, queue, 'mine'), wire.consume(1, '', 'mine'))
            raw.expect(wire.CONSUME_OK)
            closed = raw.expect(wire.CHANNEL_CLOSE)
            self.assertEqual(wire.close_reason(closed.arguments)[:2], (404, 'NOT_FOUND - no previously declared queue'))

    def test_10_5_tag_in_use_is_530(self):  # 5.5
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            queue = self.queue()
            raw.send(wire.consume(1, queue, 'mine'))
            raw.expect(wire.CONSUME_OK)
            raw.send(wire.consume(1, queue, 'mine'))
            code, text, _, _ = wire.close_reason(raw.expect(wire.CLOSE).arguments)
            self.assertEqual(code, 530)
            self.assertIn("attempt to reuse consumer tag 'mine'", text)

    def test_10_5_absent_queue_is_404(self):
        self.refused(404, "no queue 'absent' in vhost '/'", self.consume, 'absent')

    def test_10_5_exclusive_consumer(self):
        queue = self.queue()
        _, tag = self.consume(queue, exclusive=True)
        self.refused(403, "queue '%s' in vhost '/' in exclusive use" % queue, self.consume, queue,
                     self.connection.channel())
        self.channel.basic_cancel(tag)
        _, tag = self.consume(queue)
        self.refused(403, 'in exclusive use', self.consume, queue, self.connection.channel(), exclusive=True)

    def test_10_6_no_local_is_accepted_and_ignored(self):
        queue = self.queue()
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.method(1, wire.CONSUME, b'\0\0' + wire.short(queue) + wire.short('t') + b'\3' + wire.table()))
            raw.expect(wire.CONSUME_OK)
            raw.send(wire.publish(1, '', queue, b'own'))
            raw.expect(wire.DELIVER)

    def test_10_6_exclusive_is_ignored_on_quorum_queues(self):
        queue = self.queue(durable=True, arguments={'x-queue-type': 'quorum'})
        self.consume(queue)
        self.consume(queue, exclusive=True)
        self.consume(queue)
        self.assertEqual(self.channel.queue_declare(queue, passive=True).method.consumer_count, 3)

    def test_10_7_priority_is_served_first(self):
        queue = self.queue()
        low, _ = self.consume(queue)
        high, _ = self.consume(queue, arguments={'x-priority': 10})
        self.publish(queue, *'abcd')
        self.wait_for(high, 4)
        self.assertEqual(low, [])

    def test_10_7_without_credit_the_next_priority_is_served(self):
        queue = self.queue()
        low, _ = self.consume(queue, arguments={'x-priority': -1})
        self.channel.basic_qos(prefetch_count=2)
        high, _ = self.consume(queue, arguments={'x-priority': 10})
        self.publish(queue, *'abcd')
        self.assertEqual((self.wait_for(high, 2), self.wait_for(low, 2)), (['a', 'b'], ['c', 'd']))
        self.channel.basic_ack(high[0][0].delivery_tag)
        self.publish(queue, 'e')
        self.assertEqual(self.wait_for(high, 3), ['a', 'b', 'e'])

    def test_10_7_other_types_are_406(self):
        queue = self.queue()
        self.refused(406, "invalid arg 'x-priority' for queue '%s' in vhost '/': \"expected integer, got longstr\"" % queue,
                     self.consume, queue, arguments={'x-priority': 'high'})

    def test_10_11_single_active_consumer(self):
        queue = self.queue(arguments={'x-single-active-consumer': True})
        other = self.connection.channel()
        first, _ = self.consume(queue, other)
        second, second_tag = self.consume(queue, arguments={'x-priority': 10})
        self.publish(queue, 'a', 'b')
        self.assertEqual(self.wait_for(first, 2), ['a', 'b'])
        self.assertEqual(second, [])
        other.basic_ack(1)
        other.close()
        self.assertEqual(self.wait_for(second, 1), ['b'])
        self.assertTrue(second[0][0].redelivered)
        self.channel.basic_cancel(second_tag)
        last, _ = self.consume(queue)
        self.publish(queue, 'c')
        self.assertEqual(self.wait_for(last, 1), ['c'])

    def test_10_11_exclusive_consumer_is_refused(self):
        queue = self.queue(arguments={'x-single-active-consumer': True})
        self.refused(403, "queue '%s' in vhost '/' in exclusive use" % queue, self.consume, queue, exclusive=True)

    def test_10_11_get_from_a_quorum_queue_is_refused(self):
        queue = self.queue(durable=True, arguments={'x-single-active-consumer': True, 'x-queue-type': 'quorum'})
        self.refused(405, 'basic.get operations are not supported by quorum queues with single active consumer',
                     self.channel.basic_get, queue)

    def test_10_7_a_consumer_without_room_keeps_its_turn_while_nothing_is_ready(self):
        queue = self.queue()
        self.channel.basic_qos(prefetch_count=1)
        limited, _ = self.consume(queue)
        other, _ = self.consume(queue, auto_ack=True)
        self.publish(queue, 'a', 'b')
        self.wait_for(other, 1)
        self.channel.basic_reject(limited[0][0].delivery_tag, requeue=True)
        self.wait_for(limited, 2)
        self.nothing_more(other, 1)

    def test_consumers_take_turns(self):
        queue = self.queue()
        first, _ = self.consume(queue)
        second, _ = self.consume(queue)
        self.publish(queue, *map(str, range(10)))
        self.eventually(lambda: len(first) + len(second) == 10)
        self.assertEqual((len(first), len(second)), (5, 5))

    def test_10_9_cancel(self):
        queue = self.queue()
        self.publish(queue, 'a', 'b')
        self.channel.basic_qos(prefetch_count=1)
        got, tag = self.consume(queue)
        self.wait_for(got, 1)
        self.channel.basic_cancel(tag)
        self.channel.basic_ack(got[0][0].delivery_tag)
        self.assertEqual(self.get_all(queue), ['b'])

    def test_10_9_cancel_of_unknown_tag_succeeds(self):
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.method(1, (60, 30), wire.short('unknown') + b'\0'))
            self.assertEqual(raw.expect((60, 31)).arguments, wire.short('unknown'))

    def test_10_10_who_cannot_be_cancelled_is_not_told(self):
        queue = self.queue()
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.consume(1, queue, 'mine'))
            raw.expect(wire.CONSUME_OK)
            self.channel.queue_delete(queue)
            raw.send(wire.queue_declare(1, '', exclusive=True))
            raw.expect(wire.QUEUE_DECLARE_OK)

    def test_10_13_tags_are_shared_by_get_and_deliver(self):
        queue = self.queue()
        self.publish(queue, 'a', 'b', 'c')
        self.assertEqual(self.channel.basic_get(queue)[0].delivery_tag, 1)
        got, _ = self.consume(queue, auto_ack=True)
        self.wait_for(got, 2)
        self.assertEqual([method.delivery_tag for method, _, _ in got], [2, 3])

    def test_large_bodies_are_delivered_whole(self):
        queue = self.queue()
        bodies = [bytes([number]) * 700000 for number in range(8)]
        got, _ = self.consume(queue, auto_ack=True)
        self.publish(queue, *bodies)
        self.wait_for(got, 8)
        self.assertEqual([body for _, _, body in got], bodies)


class Qos(ClientTest):
    def test_10_2_per_consumer(self):
        queue = self.queue()
        self.publish(queue, *map(str, range(10)))
        self.channel.basic_qos(prefetch_count=3)
        first, _ = self.consume(queue)
        self.channel.basic_qos(prefetch_count=2)
        second, _ = self.consume(queue)
        self.wait_for(first, 3)
        self.wait_for(second, 2)
        self.nothing_more(first, 3)
        self.nothing_more(second, 2)
        self.channel.basic_ack(first[1][0].delivery_tag)
        self.wait_for(first, 4)
        self.nothing_more(first, 4)
        self.nothing_more(second, 2)

    def test_10_3_shared_by_the_channel(self):
        queue = self.queue()
        self.publish(queue, *map(str, range(10)))
        self.channel.basic_qos(prefetch_count=3, global_qos=True)
        first, _ = self.consume(queue)
        second, _ = self.consume(queue)
        self.eventually(lambda: len(first) + len(second) == 3)
        self.nothing_more(first + second, 3)
        self.channel.basic_ack(2, multiple=True)
        self.eventually(lambda: len(first) + len(second) == 5)
        self.nothing_more(first + second, 5)

    def test_10_2_zero_is_no_limit(self):
        queue = self.queue()
        self.publish(queue, *map(str, range(100)))
        self.channel.basic_qos(prefetch_count=0)
        got, _ = self.consume(queue)
        self.wait_for(got, 100)

    def test_10_4_no_ack_is_not_limited(self):
        queue = self.queue()
        self.publish(queue, *map(str, range(20)))
        self.channel.basic_qos(prefetch_count=1)
        got, _ = self.consume(queue, auto_ack=True)
        self.wait_for(got, 20)

    def test_10_1_prefetch_size_is_540(self):
        self.cut_off(540, 'prefetch_size!=0 (100)', self.channel.basic_qos, prefetch_size=100)

    def test_message_goes_to_who_has_room(self):
        queue = self.queue()
        self.channel.basic_qos(prefetch_count=1)
        first, _ = self.consume(queue)
        second, _ = self.consume(queue)
        self.publish(queue, 'a', 'b', 'c')
        self.wait_for(first, 1)
        self.wait_for(second, 1)
        self.channel.basic_ack(second[0][0].delivery_tag)
        self.wait_for(second, 2)
        self.nothing_more(first, 1)


class Settle(ClientTest):
    def taken(self, *bodies):
        """A queue with these messages, all of them got and unacked."""
        queue = self.queue()
        self.publish(queue, *bodies)
        for _ in bodies:
            self.assertIsNotNone(self.channel.basic_get(queue)[0])
        return queue

    def test_ack_is_forever(self):
        queue = self.taken('a')
        self.channel.basic_ack(1)
        self.channel.close()
        self.channel = self.connection.channel()
        self.assertEqual(self.get_all(queue), [])

    def test_10_16_multiple(self):
        queue = self.taken(*'abcd')
        self.channel.basic_ack(3, multiple=True)
        self.channel.close()
        self.channel = self.connection.channel()
        self.assertEqual(self.get_all(queue), ['d'])

    def test_10_16_zero_with_multiple_is_all(self):
        queue = self.taken(*'abcd')
        self.channel.basic_ack(0, multiple=True)
        self.channel.basic_ack(0, multiple=True)
        self.channel.close()
        self.channel = self.connection.channel()
        self.assertEqual(self.get_all(queue), [])

    def test_10_16_unknown_tag_is_406(self):
        for tag, multiple in ((1, False), (0, False), (7, True)):
            with self.subTest(tag=tag, multiple=multiple):
                self.channel = self.connection.channel()
                self.channel.basic_ack(tag, multiple)
                self.closed_with(406, 'unknown delivery tag %d' % tag)

    def test_10_16_twice_is_406(self):
        self.taken('a', 'b')
        self.channel.basic_ack(1)
        self.channel.basic_ack(1)
        self.closed_with(406, 'unknown delivery tag 1')

    def test_10_16_tag_of_no_ack_is_406(self):
        queue = self.queue()
        self.publish(queue, 'a')
        self.channel.basic_get(queue, auto_ack=True)
        self.channel.basic_ack(1)
        self.closed_with(406, 'unknown delivery tag 1')

    def test_10_17_reject_and_nack_drop(self):
        queue = self.taken(*'abc')
        self.channel.basic_reject(1, requeue=False)
        self.channel.basic_nack(3, multiple=True, requeue=False)
        self.channel.close()
        self.channel = self.connection.channel()
        self.assertEqual(self.get_all(queue), [])

    def test_10_17_requeue_goes_back_to_its_place(self):
        queue = self.queue()
        self.publish(queue, *'abcde')
        for _ in range(3):
            self.channel.basic_get(queue)
        self.channel.basic_reject(2, requeue=True)
        self.expect_count(queue, 3)
        self.channel.basic_nack(1, requeue=True)
        self.expect_count(queue, 4)
        self.channel.basic_ack(3)
        seen = []
        for _ in range(4):
            method, _, body = self.channel.basic_get(queue, auto_ack=True)
            seen.append((body.decode(), method.redelivered))
        self.assertEqual(seen, [('a', True), ('b', True), ('d', False), ('e', False)])

    def test_10_17_nack_multiple_requeues_in_order(self):
        queue = self.taken(*'abcd')
        self.channel.basic_nack(0, multiple=True, requeue=True)
        self.expect_count(queue, 4)
        self.assertEqual(self.get_all(queue), list('abcd'))

    def test_10_14_requeued_comes_again_to_a_consumer(self):
        queue = self.queue()
        self.publish(queue, 'a')
        got, _ = self.consume(queue)
        self.wait_for(got, 1)
        self.channel.basic_reject(got[0][0].delivery_tag, requeue=True)
        self.wait_for(got, 2)
        self.assertEqual([(method.delivery_tag, method.redelivered) for method, _, _ in got], [(1, False), (2, True)])

    def test_10_18_recover(self):
        queue = self.taken('a', 'b')
        self.channel.basic_recover(requeue=True)
        self.expect_count(queue, 2)
        method, _, body = self.channel.basic_get(queue)
        self.assertEqual((body, method.redelivered), (b'a', True))

    def test_10_18_recover_async_has_no_answer(self):
        queue = self.queue()
        with wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() as raw:
            raw.send(wire.publish(1, '', queue, b'm'), wire.get(1, queue))
            raw.expect(wire.GET_OK)
            raw.read_body()
            raw.send(wire.method(1, (60, 100), b'\1'), wire.queue_declare(1, '', exclusive=True))
            raw.expect(wire.QUEUE_DECLARE_OK)
            self.expect_count(queue, 1)

    def test_10_18_recover_without_requeue_is_540(self):
        self.cut_off(540, 'requeue=false', self.channel.basic_recover, requeue=False)

    def test_channels_do_not_settle_each_others(self):
        self.taken('a')
        self.channel = self.connection.channel()
        self.channel.basic_ack(1)
        self.closed_with(406, 'unknown delivery tag 1')


if __name__ == '__main__':
    tap.main()
