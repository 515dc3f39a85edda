#!/usr/bin/python3
"""Direct reply-to: requests whose answers come back without a queue."""

import pika

import broker
import tap
from client import ClientTest

PSEUDO = 'amq.rabbitmq.reply-to'
ASK = pika.BasicProperties(reply_to=PSEUDO)


class ReplyTo(ClientTest):
    def ask(self, requests, channel=None, body='question', properties=ASK):
        """Sends a request over the queue; returns the name that the responder is to answer to."""
        (channel or self.channel).basic_publish('', requests, body, properties)
        self.expect_count(requests, 1)
        _, got, _ = self.responder.basic_get(requests, auto_ack=True)
        return got

    def setUp(self):
        super().setUp()
        self.responder = self.connect().channel()

    def test_14_answers_come_back(self):
        requests = self.queue()
        answers, tag = self.consume(PSEUDO, auto_ack=True)
        for number in range(1, 4):
            got = self.ask(requests, properties=pika.BasicProperties(
                reply_to=PSEUDO, correlation_id=str(number), headers={'k': 'v'}, delivery_mode=2))
            self.assertRegex(got.reply_to, r'^amq\.rabbitmq\.reply-to\..{20,}')
            self.assertEqual((got.headers, got.delivery_mode), ({'k': 'v'}, 2))
            self.responder.basic_publish('', got.reply_to, 'answer %d' % number,
                                         pika.BasicProperties(correlation_id=got.correlation_id))
        self.assertEqual(self.wait_for(answers, 3), ['answer 1', 'answer 2', 'answer 3'])
        method, properties, _ = answers[0]
        self.assertEqual((method.consumer_tag, method.exchange, method.routing_key, method.redelivered),
                         (tag, '', got.reply_to, False))
        self.assertEqual([method.delivery_tag for method, _, _ in answers], [1, 2, 3])
        self.assertEqual(properties.correlation_id, '1')

    def test_14_a_long_answer(self):
        answers, _ = self.consume(PSEUDO, auto_ack=True)
        name = self.ask(self.queue()).reply_to
        self.responder.basic_publish('', name, 'x' * 1000000)
        self.assertEqual(self.wait_for(answers, 1), ['x' * 1000000])

    def test_14_1_must_not_acknowledge(self):
        self.refused(406, 'reply consumer cannot acknowledge', self.channel.basic_consume, PSEUDO, lambda *_: None)

    def test_14_1_one_a_channel(self):
        other = self.connection.channel()
        self.consume(PSEUDO, other, auto_ack=True)
        self.consume(PSEUDO, auto_ack=True)
        self.refused(406, 'reply consumer already set', self.channel.basic_consume, PSEUDO, lambda *_: None,
                     auto_ack=True)

    def test_14_1_one_a_channel_whatever_its_tag(self):
        self.consume(PSEUDO, auto_ack=True, consumer_tag='t')
        self.channel._impl._send_method(pika.spec.Basic.Consume(queue=PSEUDO, consumer_tag='t', no_ack=True))
        self.refused(406, 'reply consumer already set', self.channel.queue_declare, '')

    def test_14_1_its_tag_is_taken(self):
        self.consume(PSEUDO, auto_ack=True, consumer_tag='t')
        frame = pika.spec.Basic.Consume(queue=self.queue(), consumer_tag='t')
        self.channel._impl._send_method(frame)
        self.connection_closed_with(530, "attempt to reuse consumer tag 't'")

    def test_14_1_cancelled_it_can_be_had_again(self):
        answers, tag = self.consume(PSEUDO, auto_ack=True)
        old = self.ask(self.queue()).reply_to
        self.channel.basic_cancel(tag)
        again, _ = self.consume(PSEUDO, auto_ack=True)
        new = self.ask(self.queue()).reply_to
        self.assertNotEqual(old, new)
        self.responder.basic_publish('', old, 'late')
        self.responder.basic_publish('', new, 'in time')
        self.assertEqual(self.wait_for(again, 1), ['in time'])
        self.nothing_more(again, 1)
        self.assertEqual(answers, [])

    def test_14_2_without_a_consumer_is_406(self):
        self.consume(PSEUDO, self.connection.channel(), auto_ack=True)
        self.channel.basic_publish('', self.queue(), 'question', ASK)
        self.closed_with(406, 'fast reply consumer does not exist')

    def test_14_2_other_names_are_left_alone(self):
        requests = self.queue()
        for name in ('mine', PSEUDO + '.', PSEUDO + '.abc', 'amq.rabbitmq.reply-t'):
            self.assertEqual(self.ask(requests, properties=pika.BasicProperties(reply_to=name)).reply_to, name)

    def test_14_2_in_a_transaction(self):
        requests = self.queue()
        answers, _ = self.consume(PSEUDO, auto_ack=True)
        self.channel.tx_select()
        self.channel.basic_publish('', requests, 'question', ASK)
        self.channel.tx_commit()
        _, got, _ = self.responder.basic_get(requests, auto_ack=True)
        self.responder.tx_select()
        self.responder.basic_publish('', got.reply_to, 'dropped')
        self.responder.tx_rollback()
        self.responder.basic_publish('', got.reply_to, 'answer')
        self.responder.tx_commit()
        self.assertEqual(self.wait_for(answers, 1), ['answer'])

    def test_14_3_gone_requester_counts_as_routed(self):
        requester = self.connection.channel()
        self.consume(PSEUDO, requester, auto_ack=True)
        name = self.ask(self.queue(), requester).reply_to
        requester.close()
        self.responder.confirm_delivery()
        self.responder.basic_publish('', name, 'late', mandatory=True)
        with self.assertRaises(pika.exceptions.UnroutableError):
            self.responder.basic_publish('', PSEUDO, 'to nobody', mandatory=True)

    def test_14_3_answers_are_confirmed(self):
        answers, _ = self.consume(PSEUDO, auto_ack=True)
        name = self.ask(self.queue()).reply_to
        self.responder.confirm_delivery()
        self.responder.basic_publish('', name, 'answer', pika.BasicProperties(delivery_mode=2), mandatory=True)
        self.assertEqual(self.wait_for(answers, 1), ['answer'])

    def test_14_3_through_cc(self):
        answers, _ = self.consume(PSEUDO, auto_ack=True)
        name, queue = self.ask(self.queue()).reply_to, self.queue(suffix='cc')
        self.responder.basic_publish('', queue, 'm', pika.BasicProperties(headers={'CC': [name, name]}))
        self.assertEqual(self.wait_for(answers, 1), ['m'])
        self.nothing_more(answers, 1)
        self.assertEqual(self.get_all(queue), ['m'])

    def test_14_4_declaring_tells_whether_somebody_waits(self):
        requester = self.connection.channel()
        self.consume(PSEUDO, requester, auto_ack=True)
        name = self.ask(self.queue(), requester).reply_to
        for queue in (PSEUDO, name):
            for passive in (True, False):
                method = self.channel.queue_declare(queue, passive=passive).method
                self.assertEqual((method.queue, method.message_count, method.consumer_count), (queue, 0, 1))
        requester.close()
        self.refused(404, 'no queue', self.channel.queue_declare, name, passive=True)

    @broker.departs('404 in older ones')
    def test_14_4_get_is_540(self):
        self.cut_off(540, 'NOT_IMPLEMENTED', self.channel.basic_get, PSEUDO)

    @broker.departs('404 in older ones')
    def test_14_4_bind_is_403(self):
        self.refused(403, 'cannot bind or unbind to a volatile (direct reply-to) queue', self.channel.queue_bind, PSEUDO,
                     'amq.direct', 'k')

    def test_14_4_delete_finds_nothing(self):
        self.assertEqual(self.channel.queue_delete(PSEUDO).method.message_count, 0)


if __name__ == '__main__':
    tap.main()
