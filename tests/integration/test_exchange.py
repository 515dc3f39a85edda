#!/usr/bin/python3
"""The exchange class: declaring, deleting, and routing by each type."""

import pika

import broker
import tap
from client import ClientTest

BUILTIN = (('amq.direct', 'direct'), ('amq.fanout', 'fanout'), ('amq.topic', 'topic'), ('amq.headers', 'headers'),
           ('amq.match', 'headers'))


class Declare(ClientTest):
    def exchange(self, suffix='it', kind='direct', **flags):
        name = self.name(suffix)
        self.channel.exchange_declare(name, kind, **flags)
        return name

    def test_7_1_predeclared(self):
        for name, kind in BUILTIN:
            with self.subTest(name=name):
                self.channel.exchange_declare(name, kind, durable=True)

    def test_7_1_predeclared_are_not_deleted(self):
        for name, _ in BUILTIN:
            with self.subTest(name=name):
                self.refused(403, 'ACCESS_REFUSED', self.connection.channel().exchange_delete, name)

    def test_7_2_unknown_type(self):
        if broker.REFERENCE:
            self.cut_off(503, "unknown exchange type 'telepathic'", self.exchange, kind='telepathic')
        else:
            self.refused(406, "unknown exchange type 'telepathic'", self.exchange, kind='telepathic')

    def test_7_3_default_exchange_is_not_declared(self):
        for flags in ({}, {'passive': True}):
            with self.subTest(**flags):
                self.refused(403, 'operation not permitted on the default exchange',
                             self.connection.channel().exchange_declare, '', 'direct', durable=True, **flags)

    def test_7_3_reserved_prefix(self):
        self.refused(403, "exchange name 'amq.mine' contains reserved prefix 'amq.*'",
                     self.channel.exchange_declare, 'amq.mine', 'direct')

    def test_7_4_redeclare_alike(self):
        for flags in ({}, {'durable': True}, {'auto_delete': True}, {'internal': True}):
            with self.subTest(**flags):
                name = self.exchange(suffix=str(flags), **flags)
                self.channel.exchange_declare(name, 'direct', **flags)

    def test_7_4_redeclare_otherwise_is_406(self):
        name = self.exchange()
        table = (
            ('fanout', {}, "inequivalent arg 'type' for exchange '%s' in vhost '/': "
                           "received 'fanout' but current is 'direct'"),
            ('direct', {'durable': True}, "inequivalent arg 'durable' for exchange '%s' in vhost '/': "
                                          "received 'true' but current is 'false'"),
            ('direct', {'auto_delete': True}, "inequivalent arg 'auto_delete' for exchange '%s' in vhost '/': "
                                              "received 'true' but current is 'false'"),
            ('direct', {'internal': True}, "inequivalent arg 'internal' for exchange '%s' in vhost '/': "
                                           "received 'true' but current is 'false'"),
        )
        for kind, flags, expected in table:
            with self.subTest(kind=kind, **flags):
                self.refused(406, expected % name, self.connection.channel().exchange_declare, name, kind, **flags)

    def test_7_5_passive(self):
        name = self.exchange(kind='fanout', durable=True)
        self.channel.exchange_declare(name, 'topic', passive=True)
        self.refused(404, "no exchange 'absent' in vhost '/'", self.channel.exchange_declare, 'absent', passive=True)

    def test_7_6_delete(self):
        name = self.exchange()
        self.channel.exchange_delete(name)
        self.channel.exchange_delete(name)
        self.refused(404, 'no exchange', self.channel.exchange_declare, name, passive=True)

    def test_7_6_delete_takes_the_bindings_along(self):
        name, queue = self.exchange(), self.queue()
        self.channel.queue_bind(queue, name, 'k')
        self.channel.exchange_delete(name)
        self.channel.exchange_declare(name)
        self.channel.basic_publish(name, 'k', 'lost')
        self.assertEqual(self.count(queue), 0)

    def test_7_6_if_unused(self):
        name, queue = self.exchange(), self.queue()
        self.channel.queue_bind(queue, name, 'k')
        self.refused(406, "exchange '%s' in vhost '/' in use" % name, self.connection.channel().exchange_delete, name,
                     if_unused=True)
        self.channel.queue_unbind(queue, name, 'k')
        self.channel.exchange_delete(name, if_unused=True)

    def test_7_7_auto_delete_goes_with_its_last_binding(self):
        name, one, two = self.exchange(auto_delete=True), self.queue(suffix='one'), self.queue(suffix='two')
        self.channel.queue_bind(one, name, 'k')
        self.channel.queue_bind(two, name, 'k')
        self.channel.queue_unbind(one, name, 'k')
        self.channel.exchange_declare(name, passive=True)
        self.channel.queue_delete(two)
        self.refused(404, 'no exchange', self.channel.exchange_declare, name, passive=True)

    def test_7_8_internal_is_not_published_to(self):
        name = self.exchange(internal=True)
        self.channel.basic_publish(name, 'k', 'x')
        self.closed_with(403, "cannot publish to internal exchange '%s' in vhost '/'" % name)

    def test_5_7_nowait_that_fails_still_closes(self):
        self.channel._impl.exchange_declare('amq.mine', 'direct')
        self.closed_with(403, 'reserved prefix')


class Route(ClientTest):
    def bound(self, kind, *bindings):
        """An exchange and a queue for each of the bindings (key, arguments)."""
        exchange = self.name('x')
        self.channel.exchange_declare(exchange, kind)
        queues = []
        for number, (key, arguments) in enumerate(bindings):
            queue = self.queue(suffix='q%d' % number)
            self.channel.queue_bind(queue, exchange, key, arguments)
            queues.append(queue)
        return exchange, queues

    def reached(self, exchange, queues, key, headers=None):
        """Which queues, by position, one message came to."""
        self.channel.basic_publish(exchange, key, 'm', pika.BasicProperties(headers=headers))
        return [number for number, queue in enumerate(queues) if self.get_all(queue)]

    def test_7_11_direct(self):
        exchange, queues = self.bound('direct', ('red', None), ('blue', None), ('red', None))
        self.assertEqual(self.reached(exchange, queues, 'red'), [0, 2])
        self.assertEqual(self.reached(exchange, queues, 'blue'), [1])
        self.assertEqual(self.reached(exchange, queues, 'green'), [])

    def test_7_11_fanout(self):
        exchange, queues = self.bound('fanout', ('a', None), ('b', None), ('', None))
        self.assertEqual(self.reached(exchange, queues, 'whatever'), [0, 1, 2])

    def test_7_11_default_exchange(self):
        queue = self.queue()
        self.publish(queue, 'm')
        self.assertEqual(self.get_all(queue), ['m'])
        self.refused(403, 'operation not permitted on the default exchange', self.channel.queue_bind, queue, '', 'k')

    def test_7_12_topic(self):
        keys = ('#', '*', 'a.b.c', 'a.*.c', 'a.#', '#.c', '*.*', 'a.*', '#.b.#', 'a..c', '*.#', '')
        exchange, queues = self.bound('topic', *((key, None) for key in keys))
        table = {
            'a.b.c': {'#', 'a.b.c', 'a.*.c', 'a.#', '#.c', '#.b.#', '*.#'},
            'a': {'#', '*', 'a.#', '*.#'},
            'a.b': {'#', '*.*', 'a.#', 'a.*', '#.b.#', '*.#'},
            'b': {'#', '*', '#.b.#', '*.#'},
            'c': {'#', '*', '#.c', '*.#'},
            'x.y.z': {'#', '*.#'},
            'a..c': {'#', 'a.#', '#.c', 'a..c', 'a.*.c', '*.#'},
            'a.': {'#', 'a.#', 'a.*', '*.*', '*.#'},
            '': {'#', ''},
        }
        if broker.REFERENCE:
            table.pop('')
        for key, expected in table.items():
            with self.subTest(key=key):
                found = {keys[number] for number in self.reached(exchange, queues, key)}
                self.assertEqual(found, expected)

    def test_7_13_headers(self):
        bindings = (
            {'x-match': 'all', 'a': 1, 'b': 'two'},
            {'x-match': 'any', 'a': 1, 'b': 'two'},
            {'a': 1},
            {'x-match': 'all', 'x-own': 'ignored', 'a': 1},
            {'x-match': 'all'},
            {'x-match': 'any'},
            {'x-match': 'all', 'a': None},
        )
        exchange, queues = self.bound('headers', *(('', arguments) for arguments in bindings))
        table = (
            ({'a': 1, 'b': 'two'}, [0, 1, 2, 3, 4, 6]),
            ({'a': 1}, [1, 2, 3, 4, 6]),
            ({'b': 'two'}, [1, 4]),
            ({'a': 2, 'b': 'three'}, [4, 6]),
            ({}, [4]),
            (None, [4]),
        )
        for headers, expected in table:
            with self.subTest(headers=headers):
                self.assertEqual(self.reached(exchange, queues, '', headers), expected)

    def test_7_13_headers_with_x(self):
        exchange, queues = self.bound('headers', ('', {'x-match': 'all-with-x', 'x-own': 1}),
                                      ('', {'x-match': 'any-with-x', 'x-own': 1, 'b': 2}))
        self.assertEqual(self.reached(exchange, queues, '', {'x-own': 1}), [0, 1])
        self.assertEqual(self.reached(exchange, queues, '', {'b': 2}), [1])

    def test_7_13_unknown_x_match_is_406(self):
        queue = self.queue()
        self.refused(406, 'Invalid x-match field value', self.channel.queue_bind, queue, 'amq.headers', '',
                     {'x-match': 'some'})

    def test_7_14_exchange_to_exchange(self):
        source, (direct,) = self.bound('fanout', ('', None))
        middle, end = self.name('middle'), self.queue(suffix='end')
        self.channel.exchange_declare(middle, 'topic', internal=True)
        self.channel.queue_bind(end, middle, 'a.*')
        self.channel.exchange_bind(middle, source, 'ignored by a fanout')
        self.assertEqual(self.reached(source, (direct, end), 'a.b'), [0, 1])
        self.assertEqual(self.reached(source, (direct, end), 'b.b'), [0])
        self.channel.exchange_unbind(middle, source, 'ignored by a fanout')
        self.assertEqual(self.reached(source, (direct, end), 'a.b'), [0])

    def test_7_14_circle_ends_and_each_queue_gets_one(self):
        one, (queue,) = self.bound('fanout', ('', None))
        two = self.name('two')
        self.channel.exchange_declare(two, 'fanout')
        self.channel.exchange_bind(two, one)
        self.channel.exchange_bind(one, two)
        self.channel.queue_bind(queue, two)
        self.channel.basic_publish(one, '', 'm')
        self.assertEqual(self.get_all(queue), ['m'])

    def test_7_15_one_copy_per_queue_however_many_bindings(self):
        exchange, (queue,) = self.bound('topic', ('a.#', None))
        for key in ('#', 'a.*', 'a.b', '*.b'):
            self.channel.queue_bind(queue, exchange, key)
        self.channel.basic_publish(exchange, 'a.b', 'm')
        self.assertEqual(self.get_all(queue), ['m'])

    def test_7_16_cc_and_bcc(self):
        for kind in ('direct', 'topic'):
            with self.subTest(kind=kind):
                exchange, queues = self.bound(kind, ('a', None), ('b', None), ('c', None))
                self.channel.basic_publish(exchange, 'a', 'm',
                                           pika.BasicProperties(headers={'z': 1, 'CC': ['b'], 'BCC': ['c']}))
                for queue in queues:
                    _, properties, _ = self.channel.basic_get(queue, auto_ack=True)
                    self.assertEqual(properties.headers, {'CC': ['b'], 'z': 1})

    def test_7_16_at_the_default_exchange(self):
        queues = [self.queue(suffix=str(i)) for i in range(3)]
        headers = {'CC': [queues[1], queues[0], 'nowhere', 5], 'BCC': [queues[2]]}
        self.channel.basic_publish('', queues[0], 'm', pika.BasicProperties(headers=headers))
        self.channel.basic_publish('', 'nowhere', 'n', pika.BasicProperties(headers={'BCC': [queues[1]]}))
        self.assertEqual([self.get_all(queue) for queue in queues], [['m'], ['m', 'n'], ['m']])

    def test_7_16_through_exchanges(self):
        exchange, (direct,) = self.bound('direct', ('b', None))
        source = self.name('source')
        self.channel.exchange_declare(source, 'fanout')
        self.channel.exchange_bind(exchange, source)
        self.channel.basic_publish(source, 'a', 'm', pika.BasicProperties(headers={'BCC': ['b']}))
        self.assertEqual(self.get_all(direct), ['m'])

    def test_7_16_survives_a_transaction(self):
        queues = [self.queue(suffix=str(i)) for i in range(3)]
        self.channel.tx_select()
        self.channel.basic_publish('', queues[0], 'm', pika.BasicProperties(
            headers={'CC': [queues[1]], 'BCC': [queues[2]]}, delivery_mode=2))
        self.channel.tx_commit()
        self.assertEqual([self.get_all(queue) for queue in queues], [['m']] * 3)

    def test_7_16_returned_without_bcc(self):
        returned = []
        self.channel.add_on_return_callback(lambda *message: returned.append(message))
        self.channel.basic_publish('', 'absent', 'm', pika.BasicProperties(headers={'BCC': ['absent']}), mandatory=True)
        self.eventually(lambda: returned)
        self.assertEqual(returned[0][2].headers, {})

    def test_7_16_wrong_type_is_406(self):
        for headers, text in (({'CC': 'a'}, 'invalid message: {unacceptable_type_in_header,"CC",longstr}'),
                              ({'BCC': 5}, 'invalid message: {unacceptable_type_in_header,"BCC",'),
                              ({'CC': {'a': 'b'}}, 'invalid message: {unacceptable_type_in_header,"CC",table}')):
            with self.subTest(headers=headers):
                self.channel = self.connection.channel()
                self.channel.basic_publish('', 'a', 'm', pika.BasicProperties(headers=headers))
                self.closed_with(406, text)

    def test_7_16_number_of_keys_is_limited(self):
        if broker.REFERENCE:
            self.skipTest('the limit is our own')
        queue = self.queue()
        self.publish(queue, 'm', properties=pika.BasicProperties(headers={'CC': ['a'] * 1024}))
        self.assertEqual(self.get_all(queue), ['m'])
        self.publish(queue, 'm', properties=pika.BasicProperties(headers={'CC': ['a'] * 1024, 'BCC': ['b']}))
        self.closed_with(406, 'invalid message: more than 1024 routing keys in headers CC and BCC')
        self.channel = self.connection.channel()
        self.publish(queue, 'm', properties=pika.BasicProperties(headers={'CC': ['a' * 256]}))
        self.closed_with(406, 'invalid message: a routing key of 256 octets in its headers, at most 255 are allowed')

    def test_7_17_one_of_the_queues(self):
        if broker.REFERENCE:
            self.skipTest('its plugins are not enabled')
        for kind, key in (('x-random', 'k'), ('x-local-random', ''), ('x-modulus-hash', 'k'), ('x-consistent-hash', '5')):
            with self.subTest(kind=kind):
                exchange, queues = self.bound(kind, (key, None), (key, None), (key, None))
                for i in range(100):
                    self.channel.basic_publish(exchange, str(i), 'm')
                self.assertEqual(sum(len(self.get_all(queue)) > 0 for queue in queues), 3)

    def test_7_2_recent_history(self):
        if broker.REFERENCE:
            self.skipTest('its plugins are not enabled')
        exchange = self.name()
        self.channel.exchange_declare(exchange, 'x-recent-history', arguments={'x-recent-history-length': 2})
        for body in ('1', '2', '3'):
            self.channel.basic_publish(exchange, '', body)
        queue = self.queue()
        self.channel.queue_bind(queue, exchange)
        self.channel.basic_publish(exchange, '', '4')
        self.assertEqual(self.get_all(queue), ['2', '3', '4'])

    def test_7_18_binding_twice_is_one_binding(self):
        exchange, (queue,) = self.bound('direct', ('k', None))
        self.channel.queue_bind(queue, exchange, 'k')
        self.channel.queue_unbind(queue, exchange, 'k')
        self.assertEqual(self.reached(exchange, (queue,), 'k'), [])

    def test_7_18_missing_ends(self):
        queue = self.queue()
        self.refused(404, "no exchange 'absent'", self.connection.channel().queue_bind, queue, 'absent', 'k')
        self.refused(404, "no queue 'absent'", self.connection.channel().queue_bind, 'absent', 'amq.direct', 'k')
        self.refused(404, "no exchange 'absent'", self.connection.channel().exchange_bind, 'amq.direct', 'absent')

    def test_7_18_unbinding_what_is_not_there_succeeds(self):
        queue = self.queue()
        self.channel.queue_unbind(queue, 'amq.direct', 'never')
        if not broker.REFERENCE:
            self.channel.queue_unbind(queue, 'absent', 'never')
            self.channel.queue_unbind('absent', 'amq.direct', 'never')

    def test_7_20_empty_names_mean_the_last_declared_queue(self):
        exchange, _ = self.bound('direct')
        queue = self.queue()
        self.channel.queue_bind('', exchange, '')
        self.assertEqual(self.reached(exchange, (queue,), queue), [0])


if __name__ == '__main__':
    tap.main()
