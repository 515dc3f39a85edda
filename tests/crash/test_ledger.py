#!/usr/bin/python3
"""A broker that lies must be caught: forged findings against a ledger that is right."""

import unittest

import ledger
import tap


class Forged(unittest.TestCase):
    line = {'queue': 'q'}

    def setUp(self):
        self.ledger = ledger.Ledger({'l': self.line})
        for number in range(10):
            self.ledger.publish(['l'], (1, number))
        self.ledger.confirmed.update((1, number) for number in range(8))
        self.of = self.ledger.lines['l']
        self.found = [((1, number), False) for number in range(2, 8)]
        self.behind = []

    def check(self):
        return self.ledger.check('l', self.found, self.behind)

    def complains(self, *texts):
        wrong = self.check()
        self.assertEqual(len(wrong), len(texts), wrong)
        for sentence, text in zip(sorted(wrong), sorted(texts)):
            self.assertIn(text, sentence)


class OneQueue(Forged):
    def setUp(self):
        super().setUp()
        self.of.acked.update({(1, 0), (1, 1)})
        self.of.settled.add((1, 0))

    def test_honest_broker(self):
        self.complains()
        self.found.insert(0, ((1, 1), True))
        self.found.append(((1, 8), False))
        self.complains()

    def test_lost(self):
        del self.found[3]
        self.complains('1.5 was confirmed and is lost')

    def test_all_lost(self):
        self.found = []
        self.assertEqual(len(self.check()), 6)

    def test_twice(self):
        self.found.append(self.found[-1])
        self.complains('1.7 is there twice')

    def test_out_of_order(self):
        self.found[1], self.found[2] = self.found[2], self.found[1]
        self.complains('1.3 stands behind 1.4')

    def test_invented(self):
        self.found.append(((2, 0), False))
        self.complains('2.0 was not published')

    def test_settled_comes_back(self):
        self.found.insert(0, ((1, 0), True))
        self.complains('1.0 came back after its ack was settled')

    def test_acked_comes_back_as_new(self):
        self.found.insert(0, ((1, 1), False))
        self.complains('1.1 was acked and came back as new')

    def test_what_was_found_once_must_stay(self):
        self.found.append(((1, 9), False))
        self.ledger.adopt({'l': (self.found, [])})
        self.complains()
        del self.found[-1]
        self.complains('1.9 was confirmed and is lost')

    def test_what_was_emptied_must_not_come_back(self):
        self.ledger.adopt({'l': ([], [])})
        self.assertEqual(len(self.check()), 6)

    def test_purge_answered(self):
        certain = self.of.purge_begins(self.ledger.confirmed)
        self.ledger.publish(['l'], (1, 10))
        self.ledger.publish(['l'], (1, 11))
        self.of.purge_ends(certain, [(1, 11)])
        self.ledger.confirmed.update({(1, 10), (1, 11)})
        self.found = [((1, 10), False), ((1, 11), False)]
        self.complains()
        del self.found[0]
        self.complains()
        del self.found[0]
        self.complains('1.11 was confirmed and is lost')
        self.found = [((1, 7), True), ((1, 11), False)]
        self.complains('1.7 came back after its ack was settled')

    def test_purge_not_answered(self):
        self.of.purge_ends([])
        self.complains()
        del self.found[3]
        self.complains()


class QueueAndBehind(Forged):
    line = {'queue': 'q', 'behind': 'd'}

    def setUp(self):
        super().setUp()
        self.behind = [((1, 1), False), ((1, 0), False)]

    def test_honest_broker(self):
        self.complains()
        self.of.left.add((1, 0))
        self.complains()
        self.of.acked.add((1, 1))
        del self.behind[0]
        self.complains()

    def test_in_both(self):
        self.behind.append(((1, 5), False))
        self.complains('q: 1.5 is there and in d')

    def test_lost_on_the_way(self):
        del self.found[2], self.behind[0]
        self.complains('1.1 was confirmed and is lost', '1.4 was confirmed and is lost')

    def test_back_from_where_it_went(self):
        self.of.left.add((1, 0))
        self.behind.pop()
        self.found.insert(0, ((1, 0), True))
        self.complains('q: 1.0 came back after it had left')

    def test_left_and_lost(self):
        self.of.left.add((1, 8))
        self.complains('1.8 was moved on and is lost')

    def test_acked_there_comes_back_here(self):
        self.of.acked.add((1, 0))
        self.behind.pop()
        self.found.insert(0, ((1, 0), False))
        self.complains('1.0 was acked and came back as new')


class MaximumLength(Forged):
    line = {'queue': 'q', 'limit': 6}

    def test_honest_broker(self):
        self.complains()
        del self.found[0]
        self.found.append(((1, 8), False))
        self.complains()

    def test_nothing_dropped_yet(self):
        self.ledger.adopt({'l': (self.found[:3], [])})
        self.found = self.found[:3]
        self.complains()

    def test_too_many(self):
        self.found.insert(0, ((1, 1), False))
        self.complains('holds 7 messages, its limit is 6')

    def test_dropped_without_need(self):
        del self.found[0]
        self.complains('has dropped messages and is not full')

    def test_the_wrong_one_dropped(self):
        del self.found[3]
        self.found.append(((1, 8), False))
        self.complains('1.5 was confirmed and is lost')


class Priorities(Forged):
    line = {'queue': 'q', 'priorities': 2}

    def setUp(self):
        super().setUp()
        self.found = [((1, number), False) for number in (1, 3, 5, 7, 0, 2, 4, 6)]

    def test_honest_broker(self):
        self.complains()

    def test_low_before_high(self):
        self.found.append(self.found.pop(3))
        self.complains('1.7 of priority 1 stands behind one of 0')

    def test_out_of_order(self):
        self.found[1], self.found[2] = self.found[2], self.found[1]
        self.complains('1.3 stands behind 1.5')


class Transactions(Forged):
    line = {'queue': 'q', 'behind': 'd'}

    def setUp(self):
        super().setUp()
        self.transaction = ledger.Transaction([(1, 0), (1, 1)])
        self.ledger.transactions.append(self.transaction)

    def complains_of(self, waiting, *texts, behind=()):
        wrong = self.ledger.check_transactions({(1, number) for number in waiting}, {(1, number) for number in behind})
        self.assertEqual(len(wrong), len(texts), wrong)
        for sentence, text in zip(wrong, texts):
            self.assertIn(text, sentence)

    def test_honest_broker(self):
        self.complains_of(range(2, 8), behind=(0, 1))
        self.complains_of(range(8))
        self.complains_of((0,))     # the other was never there
        self.transaction.committed = True
        self.complains_of(range(2, 8), behind=(0, 1))

    def test_half(self):
        self.complains_of(range(1, 8), 'half a transaction: of its 2 messages 1 wait', behind=(0,))
        self.complains_of(range(8), 'half a transaction: of its 2 messages 2 wait', behind=(0,))

    def test_not_at_all(self):
        self.transaction.committed = True
        self.complains_of(range(8), 'was committed, and of its 2 messages 2')

    def test_published_and_not_acked(self):
        self.behind = [((1, 0), False)]
        self.found.insert(0, ((1, 1), True))
        self.found.insert(0, ((1, 0), True))
        self.complains('q: 1.0 is there and in d')

    def test_acked_and_not_published(self):
        self.complains('1.0 was confirmed and is lost', '1.1 was confirmed and is lost')


class Messages(unittest.TestCase):
    def test_damaged(self):
        for size in (0, 1, 100):
            message_id, body = ledger.make_message(1, 2, size)
            self.assertEqual(len(body), size)
            self.assertEqual(ledger.read_message(message_id, body), (1, 2))
            for whole, put_together in ((body, lambda part: (message_id, part)),
                                        (message_id, lambda part: (part, body))):
                for at in range(len(whole)):
                    changed = bytearray(whole)
                    changed[at] ^= 1
                    for bad in (bytes(changed), whole[:at]):
                        with self.assertRaises(ledger.Damaged):
                            ledger.read_message(*put_together(bad))

    def test_another_ones_body(self):
        bodies = {ledger.make_message(publisher, number, 50)[1] for publisher in range(3) for number in range(1000)}
        self.assertGreater(len(bodies), 2900)

    def test_large(self):
        self.assertEqual(len(ledger.make_message(7, 123456, 1 << 20)[1]), 1 << 20)


del Forged  # it has no tests of its own

if __name__ == '__main__':
    tap.main()
