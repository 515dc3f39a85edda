#!/usr/bin/python3
"""The connection class: handshake, refusals, tuning, heartbeats, and what an ended connection leaves."""

import socket
import struct
import time

import pika
from pika.exceptions import ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

import broker
import tap
import wire
from client import ClientTest

SILENT = 'older ones reset the connection without a word'


class Handshake(ClientTest):
    def raw(self):
        connection = wire.Wire(self.broker.host, self.broker.port)
        self.addCleanup(connection.socket.close)
        return connection

    def raw_until_start(self):
        connection = self.raw()
        connection.send(wire.PROTOCOL_HEADER)
        return connection, connection.expect(wire.START)

    def refusal(self, *frames):
        """Code and text of the connection.close that these frames after connection.start bring."""
        connection, _ = self.raw_until_start()
        connection.send(*frames)
        code, text, _, _ = wire.close_reason(self.until_close(connection))
        return code, text

    @staticmethod
    def until_close(connection):
        while True:
            got = connection.read_method()
            if got.id == wire.CLOSE:
                return got.arguments

    def test_4_1_1_start_offers_plain_and_amqplain(self):
        _, start = self.raw_until_start()
        self.assertEqual(start.arguments[:2], b'\x00\x09')
        size = struct.unpack_from('>I', start.arguments, 2)[0]
        mechanisms_at = 6 + size
        size = struct.unpack_from('>I', start.arguments, mechanisms_at)[0]
        mechanisms = start.arguments[mechanisms_at + 4:mechanisms_at + 4 + size].decode().split(' ')
        self.assertIn('PLAIN', mechanisms)
        self.assertIn('AMQPLAIN', mechanisms)
        self.assertEqual(start.arguments[mechanisms_at + 4 + size:], wire.long('en_US'))

    def test_4_1_2_server_properties(self):
        properties = self.connection._impl.server_properties
        self.assertEqual(properties['product'], 'RabbitMQ')
        self.assertRegex(properties['version'], r'^\d+\.\d+\.\d+')
        for name in ('platform', 'copyright', 'information'):
            self.assertIsInstance(properties[name], str)

    def test_4_1_3_capabilities(self):
        capabilities = self.connection._impl.server_properties['capabilities']
        for name in ('publisher_confirms', 'exchange_exchange_bindings', 'basic.nack', 'consumer_cancel_notify',
                     'authentication_failure_close', 'per_consumer_qos', 'direct_reply_to', 'consumer_priorities'):
            self.assertIs(capabilities[name], True, name)

    @broker.departs('no such key')
    def test_server_properties_say_who_we_are(self):
        self.assertRegex(self.connection._impl.server_properties['stoatmq_version'], r'^\d+\.\d+')

    @broker.departs(SILENT)
    def test_4_2_2_plain_with_wrong_shape_is_502(self):
        code, _ = self.refusal(wire.start_ok(response=b'guest'))
        self.assertEqual(code, 502)

    def test_4_2_3_amqplain(self):
        response = wire.table(LOGIN='guest', PASSWORD='guest')[4:]
        connection, _ = self.raw_until_start()
        connection.send(wire.start_ok(mechanism='AMQPLAIN', response=response))
        connection.expect(wire.TUNE)
        connection.send(wire.tune_ok(), wire.open_vhost())
        connection.expect(wire.OPEN_OK)
        connection.close()

    @broker.departs(SILENT)
    def test_4_2_3_amqplain_with_wrong_shape_is_502(self):
        response = wire.table(LOGIN='guest')[4:]
        code, _ = self.refusal(wire.start_ok(mechanism='AMQPLAIN', response=response))
        self.assertEqual(code, 502)

    @broker.departs(SILENT)
    def test_4_2_4_unknown_mechanism_is_503(self):
        code, text = self.refusal(wire.start_ok(mechanism='KERBEROS_V4'))
        self.assertEqual(code, 503)
        self.assertIn("unknown authentication mechanism 'KERBEROS_V4'", text)

    def test_4_2_5_wrong_password_is_403_for_who_understands_it(self):
        for user, password in (('guest', 'wrong'), ('guest', ''), ('nobody', 'guest')):
            with self.subTest(user=user, password=password):
                code, text = self.refusal(wire.start_ok(user, password,
                                                        capabilities={'authentication_failure_close': True}))
                self.assertEqual(code, 403)
                self.assertIn('ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. '
                              'For details see the broker logfile.', text)

    def test_4_2_5_wrong_password_in_pika(self):
        with self.assertRaises(ProbableAuthenticationError):
            pika.BlockingConnection(self.broker.parameters('guest', 'wrong'))

    def test_4_2_5_wrong_password_closes_in_silence_for_others(self):
        connection, _ = self.raw_until_start()
        connection.send(wire.start_ok('guest', 'wrong'))
        self.assertEqual(connection.read_end(6), b'')

    def test_4_3_1_tune_proposal(self):
        connection, _ = self.raw_until_start()
        connection.send(wire.start_ok())
        tune = connection.expect(wire.TUNE)
        self.assertEqual(struct.unpack('>HIH', tune.arguments), (2047, 131072, 60))

    @broker.departs(SILENT)
    def test_4_3_2_tune_ok_outside_the_bounds_is_530(self):  # GHSA-jh48-qjf5-fx5v
        table = (
            (dict(frame_max=131073), 'negotiated frame_max = 131073 is higher than the maximum allowed value (131072)'),
            (dict(frame_max=0), 'negotiated frame_max = 0 (no limit) is higher than the maximum allowed value'),
            (dict(channel_max=2048), 'negotiated channel_max = 2048 is higher than the maximum allowed value (2047)'),
            (dict(channel_max=0), 'negotiated channel_max = 0 (no limit) is higher than the maximum allowed value'),
            (dict(frame_max=4095), 'negotiated frame_max = 4095 is lower than the minimum allowed value (4096)'),
        )
        for tuning, expected in table:
            with self.subTest(**tuning):
                code, text = self.refusal(wire.start_ok(), wire.tune_ok(**tuning), wire.open_vhost())
                self.assertEqual(code, 530)
                self.assertIn(expected, text)

    def test_4_3_2_small_frames_are_accepted_and_kept(self):
        connection = self.raw().handshake(frame_max=4096).open_channel()
        queue = self.name()
        connection.send(wire.queue_declare(1, queue))
        connection.expect(wire.QUEUE_DECLARE_OK)
        body = bytes(range(256)) * 80
        connection.send(wire.publish(1, '', queue, body, frame_max=4096), wire.get(1, queue, no_ack=True))
        connection.expect(wire.GET_OK)
        connection.read_frame()
        received = b''
        while len(received) < len(body):
            _, _, piece = connection.read_frame()
            self.assertLessEqual(len(piece), 4096 - 8)
            received += piece
        self.assertEqual(received, body)
        connection.close()

    def test_4_4_1_unknown_vhost_is_530(self):
        with self.assertRaises(ProbableAccessDeniedError) as caught:
            pika.BlockingConnection(self.broker.parameters(virtual_host='elsewhere'))
        self.assertIn("(530) 'NOT_ALLOWED - vhost elsewhere not found'", str(caught.exception))

    def test_1_3_a_probe_that_says_nothing_harms_nothing(self):
        for _ in range(20):
            self.raw().socket.close()
        self.connect()

    def test_handshake_one_octet_at_a_time(self):
        connection = self.raw()

        def dribble(data):
            for octet in data:
                connection.send(bytes([octet]))
        dribble(wire.PROTOCOL_HEADER)
        connection.expect(wire.START)
        dribble(wire.start_ok())
        connection.expect(wire.TUNE)
        dribble(wire.tune_ok() + wire.open_vhost())
        connection.expect(wire.OPEN_OK)
        dribble(wire.channel_open(1))
        connection.expect(wire.CHANNEL_OPEN_OK)
        connection.close()

    def test_whole_conversation_in_one_segment(self):
        connection = self.raw()
        connection.send(wire.PROTOCOL_HEADER, wire.start_ok(), wire.tune_ok(), wire.open_vhost(),
                        wire.channel_open(1), wire.queue_declare(1, self.name(), exclusive=True))
        connection.expect(wire.START)
        connection.expect(wire.TUNE)
        connection.expect(wire.OPEN_OK)
        connection.expect(wire.CHANNEL_OPEN_OK)
        connection.expect(wire.QUEUE_DECLARE_OK)
        connection.close()


class Heartbeat(ClientTest):
    def test_4_3_4_broker_sends_heartbeats(self):
        connection = wire.Wire(self.broker.host, self.broker.port).handshake(heartbeat=2)
        self.addCleanup(connection.socket.close)
        started = time.monotonic()
        kind, channel, payload = connection.read_frame(5)
        self.assertEqual((kind, channel, payload), (wire.HEARTBEAT, 0, b''))
        self.assertLess(time.monotonic() - started, 2.5)

    def test_4_3_5_silent_client_is_cut_off(self):
        connection = wire.Wire(self.broker.host, self.broker.port).handshake(heartbeat=1)
        self.addCleanup(connection.socket.close)
        started = time.monotonic()
        connection.read_end(6)
        self.assertGreater(time.monotonic() - started, 1.5)

    def test_4_3_5_client_that_sends_heartbeats_stays(self):
        connection = wire.Wire(self.broker.host, self.broker.port).handshake(heartbeat=1)
        self.addCleanup(connection.socket.close)
        for _ in range(8):
            connection.send(wire.frame(wire.HEARTBEAT, 0, b''))
            time.sleep(0.5)
        connection.open_channel()
        connection.close()

    def test_4_3_3_zero_means_none(self):
        connection = wire.Wire(self.broker.host, self.broker.port).handshake(heartbeat=0)
        self.addCleanup(connection.socket.close)
        with self.assertRaises(wire.Silent):
            connection.read_frame(3)
        connection.close()


class End(ClientTest):
    def test_4_5_1_orderly_close(self):
        connection = wire.Wire(self.broker.host, self.broker.port).handshake()
        connection.send(wire.method(0, wire.CLOSE, struct.pack('>H', 200) + wire.short('bye') + b'\0\0\0\0'))
        connection.expect(wire.CLOSE_OK)
        connection.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(connection.read_end(5), b'')

    def test_4_5_1_unacked_messages_are_requeued(self):
        queue = self.queue()
        other = self.connect()
        self.publish(queue, 'one', 'two')
        channel = other.channel()
        for _ in range(2):
            self.assertIsNotNone(channel.basic_get(queue)[0])
        self.expect_count(queue, 0)
        other.close()
        self.expect_count(queue, 2)
        method, _, body = self.channel.basic_get(queue)
        self.assertEqual((body, method.redelivered), (b'one', True))

    def test_4_5_4_vanished_peer_leaves_nothing(self):
        shared, exclusive = self.queue(suffix='shared'), self.name('exclusive')
        self.publish(shared, 'one', 'two')
        gone = wire.Wire(self.broker.host, self.broker.port).handshake().open_channel()
        gone.send(wire.queue_declare(1, exclusive, exclusive=True), wire.consume(1, shared, 'ctag'))
        gone.expect(wire.QUEUE_DECLARE_OK)
        gone.expect(wire.CONSUME_OK)
        gone.expect(wire.DELIVER)
        self.expect_count(shared, 0)
        gone.reset()
        self.expect_count(shared, 2)
        self.assertEqual(self.channel.queue_declare(shared, passive=True).method.consumer_count, 0)
        self.refused(404, 'no queue', self.channel.queue_declare, exclusive, passive=True)

    @broker.needs_own_broker
    @broker.departs('its tool is another')
    def test_vanished_peer_is_not_listed(self):
        before = len(self.broker.rows('list_connections'))
        peers = [wire.Wire(self.broker.host, self.broker.port).handshake().open_channel() for _ in range(10)]
        self.assertEqual(len(self.broker.rows('list_connections')), before + 10)
        for peer in peers:
            peer.reset()
        self.eventually(lambda: len(self.broker.rows('list_connections')) == before, 'connections are still listed')

    def test_100_connections_at_once(self):
        connections = [self.connect() for _ in range(100)]
        for connection in connections:
            connection.channel().queue_declare('', exclusive=True)
        for connection in connections:
            connection.close()

    def test_4_7_1_update_secret(self):
        connection = wire.Wire(self.broker.host, self.broker.port).handshake()
        self.addCleanup(connection.socket.close)
        connection.send(wire.method(0, (10, 70), wire.long('guest') + wire.short('renewed')))
        connection.expect((10, 71))

    @broker.departs('older ones do not look at the secret')
    def test_4_7_2_update_secret_that_does_not_authenticate_is_530(self):
        connection = wire.Wire(self.broker.host, self.broker.port).handshake()
        self.addCleanup(connection.socket.close)
        connection.send(wire.method(0, (10, 70), wire.long('wrong') + wire.short('renewed')))
        got = connection.expect(wire.CLOSE)
        self.assertEqual(wire.close_reason(got.arguments),
                         (530, 'NOT_ALLOWED - New secret was refused by one of the backends', 10, 70))

    def test_4_7_1_update_secret_before_open_is_refused(self):
        with wire.Wire(self.broker.host, self.broker.port) as connection:
            connection.send(wire.PROTOCOL_HEADER)
            connection.expect(wire.START)
            connection.send(wire.start_ok())
            connection.expect(wire.TUNE)
            connection.send(wire.method(0, (10, 70), wire.long('guest') + wire.short('early')))
            got = connection.expect(wire.CLOSE)
            self.assertEqual(wire.close_reason(got.arguments)[0], 504)


class Shutdown(ClientTest):
    @broker.needs_own_broker
    def test_4_5_3_stopping_broker_says_320(self):
        with broker.Broker() as own:
            connection = self.connect(own)
            own.stop()
            with self.assertRaises(ConnectionClosedByBroker) as caught:
                while True:
                    connection.process_data_events(10)
            self.assertEqual(caught.exception.reply_code, 320)
            self.assertIn("broker forced connection closure with reason 'shutdown'", caught.exception.reply_text)


if __name__ == '__main__':
    tap.main()
