/* Dead letters (section 13): who gets them, what their headers say, when they go round, and that
 * they are never there twice or not at all, whenever the power goes. */
#include "amqp/table.h"
#include "store/memory.h"
#include "tests/lib/one_peer.h"
#include "tests/lib/queue_client.h"
#include "tests/lib/unit.h"

#define TO_DEAD "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sdead"

/* ---- 13.1: reasons ---- */

static void die_rejected(void)
{
    publish(peer, "q", "m");
    reject(peer, get_unacked(peer, "q", "m"), false);
}

static void die_nacked(void)
{
    publish(peer, "q", "m");
    nack(peer, get_unacked(peer, "q", "m"), false);
}

static void die_expired(void)
{
    publish_with(peer, "q", "m", &(struct sent){.expiration = "100", .persistent = true});
    harness_advance(&harness, 200);
}

static void die_expired_at_once(void)
{
    publish_with(peer, "q", "m", &(struct sent){.expiration = "0", .persistent = true});
}

static void die_crowded_out(void)
{
    publish(peer, "q", "m");
    publish(peer, "q", "other");
}

static void die_refused(void)
{
    publish(peer, "q", "other");
    publish(peer, "q", "m");
}

static void die_of_deliveries(void)
{
    publish(peer, "q", "m");
    for (int i = 0; i < 2; i++)
        reject(peer, get_unacked(peer, "q", "m"), true);
}

static const struct {
    const char *arguments;
    void (*die)(void);
    const char *reason;
} deaths[] = {
    {TO_DEAD, die_rejected, "Srejected"},
    {TO_DEAD, die_nacked, "Srejected"},
    {TO_DEAD, die_expired, "Sexpired"},
    {TO_DEAD, die_expired_at_once, "Sexpired"},
    {TO_DEAD ",x-max-length=I1", die_crowded_out, "Smaxlen"},
    {TO_DEAD ",x-max-length=I1,x-overflow=Sreject-publish-dlx", die_refused, "Smaxlen"},
    {TO_DEAD ",x-queue-type=Squorum,x-delivery-limit=I1", die_of_deliveries, "Sdelivery_limit"},
    {TO_DEAD ",x-queue-type=Squorum", die_rejected, "Srejected"},
    {TO_DEAD ",x-max-priority=I5", die_rejected, "Srejected"},
};

START_TEST(each_death_has_its_reason) /* 13.1, 11.5, 10.19 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, deaths[_i].arguments);
    deaths[_i].die();
    harness_run(&harness);
    get_one(peer, "dead", "m");
    ck_assert_str_eq(header_of(peer, "x-first-death-reason"), deaths[_i].reason);
    get_nothing(peer, "dead");
}
END_TEST

START_TEST(purge_delete_and_ack_are_no_deaths) /* 13.1, 8.12, 8.13 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD);
    publish(peer, "q", "acked");
    ack(peer, get_unacked(peer, "q", "acked"));
    publish(peer, "q", "purged");
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_PURGE, .queue_purge.queue = SLICE("q")},
              AMQP_QUEUE_PURGE_OK);
    publish(peer, "q", "deleted");
    publish(peer, "q", "unacked");
    get_unacked(peer, "q", "deleted");
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DELETE, .queue_delete.queue = SLICE("q")},
              AMQP_QUEUE_DELETE_OK);
    close_channel(peer);
    open_channel(peer);
    get_nothing(peer, "dead");
}
END_TEST

/* What is past its time when it is given back has died before the queue ends with its
 * connection. */
START_TEST(what_is_due_dies_before_its_exclusive_queue) /* 11.2, 13.1, 4.5.2 */
{
    struct peer *owner = peer_open_channel(&harness);
    struct buf arguments = BUF_EMPTY;

    declare_queue(peer, "dead", true, NULL);
    peer_call(owner, 1,
              &(struct amqp_method){
                  .id = AMQP_QUEUE_DECLARE,
                  .queue_declare = {.queue = SLICE("q"),
                                    .exclusive = true,
                                    .arguments =
                                        arguments_of(&arguments, TO_DEAD ",x-message-ttl=I100")}},
              AMQP_QUEUE_DECLARE_OK);
    buf_release(&arguments);
    publish(owner, "q", "old");
    get_unacked(owner, "q", "old");
    harness_advance(&harness, 200);
    publish(owner, "q", "young");
    get_unacked(owner, "q", "young");
    peer_call(owner, 0, &(struct amqp_method){.id = AMQP_CONNECTION_CLOSE},
              AMQP_CONNECTION_CLOSE_OK);
    get_one(peer, "dead", "old");
    ck_assert_str_eq(header_of(peer, "x-first-death-reason"), "Sexpired");
    get_nothing(peer, "dead");
}
END_TEST

START_TEST(reject_publish_is_no_death) /* 11.5 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD ",x-max-length=I1,x-overflow=Sreject-publish");
    publish(peer, "q", "kept");
    publish(peer, "q", "refused");
    get_nothing(peer, "dead");
    get_one(peer, "q", "kept");
    get_nothing(peer, "q");
}
END_TEST

/* ---- 11.5: what goes back to a queue that is full ---- */

static void by_close(void)
{
    close_channel(peer);
    open_channel(peer);
}

static void by_recover(void)
{
    peer_call(peer, 1,
              &(struct amqp_method){.id = AMQP_BASIC_RECOVER, .basic_recover.requeue = true},
              AMQP_BASIC_RECOVER_OK);
}

static void by_nack_of_all(void)
{
    peer_send(peer, 1,
              &(struct amqp_method){
                  .id = AMQP_BASIC_NACK, .basic_nack.multiple = true, .basic_nack.requeue = true});
}

static void by_commit(void)
{
    by_nack_of_all();
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT}, AMQP_TX_COMMIT_OK);
}

static void (*const ways_back[])(void) = {by_close, by_recover, by_nack_of_all, by_commit};

/* The tags are not in the order of the queue: the first was given back once before. */
START_TEST(of_what_goes_back_the_oldest_goes_first) /* 11.5, 6.5, 10.17, 10.18 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD ",x-max-length-bytes=I10");
    publish(peer, "q", "first");
    const uint64_t first = get_unacked(peer, "q", "first");
    publish(peer, "q", "the second");
    get_unacked(peer, "q", "the second");
    reject(peer, first, true);
    get_unacked(peer, "q", "first");
    publish(peer, "q", "third, too");
    get_unacked(peer, "q", "third, too");
    publish(peer, "q", "4");
    if (ways_back[_i] == by_commit)
        peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    ways_back[_i]();
    get_one(peer, "dead", "first");
    get_one(peer, "dead", "the second");
    get_one(peer, "dead", "third, too");
    get_one(peer, "q", "4");
    get_nothing(peer, "q");
}
END_TEST

static void expect_dead(const char *const *bodies)
{
    for (; *bodies != NULL; bodies++)
        get_one(peer, "dead", *bodies);
    get_nothing(peer, "dead");
}

/* Of what goes back at once a quorum queue serves whoever waits first, a classic queue drops
 * first. */
START_TEST(who_waits_is_served_before_or_after_the_limit) /* 11.5, 10.17 */
{
    const size_t way = (size_t)_i / 2;
    const bool quorum = _i % 2 == 1;
    struct peer *other = peer_open_channel(&harness);

    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true,
                  quorum ? TO_DEAD ",x-max-length=I1,x-queue-type=Squorum"
                         : TO_DEAD ",x-max-length=I1");
    consume(peer, "q", "own", false, NULL);
    for (const char *const *body = (const char *const[]){"1", "2", "3", "4", NULL}; *body != NULL;
         body++) {
        publish(peer, "q", *body);
        expect_delivery(peer, *body);
    }
    peer_call(
        peer, 1,
        &(struct amqp_method){.id = AMQP_BASIC_CANCEL, .basic_cancel.consumer_tag = SLICE("own")},
        AMQP_BASIC_CANCEL_OK);
    set_prefetch(other, 2);
    consume(other, "q", "c", false, NULL);
    if (ways_back[way] == by_commit)
        peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    ways_back[way]();
    if (quorum) {
        expect_delivery(other, "1");
        expect_delivery(other, "2");
        get_one(peer, "q", "4");
        expect_dead((const char *const[]){"3", NULL});
    } else {
        expect_delivery(other, "4");
        expect_dead((const char *const[]){"1", "2", "3", NULL});
    }
}
END_TEST

/* ---- 13.2, 13.3: where it goes ---- */

START_TEST(keys_of_the_message_or_of_the_queue) /* 13.2, 10.15 */
{
    declare_exchange(peer, "dlx", "topic");
    declare_queue(peer, "by key", true, NULL);
    declare_queue(peer, "by queue", true, NULL);
    bind_queue(peer, "by key", "dlx", "q");
    bind_queue(peer, "by queue", "dlx", "given.#");
    declare_queue(peer, "q", true,
                  _i == 0 ? "x-dead-letter-exchange=Sdlx"
                          : "x-dead-letter-exchange=Sdlx,x-dead-letter-routing-key=Sgiven.key");
    die_rejected();
    const char *target = _i == 0 ? "by key" : "by queue";
    ck_assert_uint_eq(1, count_ready(peer, target));
    ck_assert_uint_eq(0, count_ready(peer, _i == 1 ? "by key" : "by queue"));

    peer_send(
        peer, 1,
        &(struct amqp_method){.id = AMQP_BASIC_GET,
                              .basic_get = {.queue = slice_of_string(target), .no_ack = true}});
    const struct amqp_method got = peer_expect(peer, 1, AMQP_BASIC_GET_OK);
    ck_assert(slice_equal(got.basic_get_ok.exchange, SLICE("dlx")));
    ck_assert(slice_equal(got.basic_get_ok.routing_key, _i == 0 ? SLICE("q") : SLICE("given.key")));
    ck_assert(!got.basic_get_ok.redelivered);
}
END_TEST

START_TEST(every_queue_bound_there_gets_one) /* 13.2 */
{
    declare_queue(peer, "a", true, NULL);
    declare_queue(peer, "b", true, NULL);
    bind_queue(peer, "a", "amq.fanout", "");
    bind_queue(peer, "b", "amq.fanout", "");
    declare_queue(peer, "q", true, "x-dead-letter-exchange=Samq.fanout");
    die_rejected();
    get_one(peer, "a", "m");
    get_one(peer, "b", "m");
}
END_TEST

START_TEST(an_absent_exchange_takes_them_silently) /* 13.3 */
{
    declare_queue(peer, "q", true, "x-dead-letter-exchange=Slater");
    declare_queue(peer, "dead", true, NULL);
    die_rejected();
    ck_assert_uint_eq(0, count_ready(peer, "q"));
    declare_exchange(peer, "later", "fanout");
    bind_queue(peer, "dead", "later", "");
    die_rejected();
    get_one(peer, "dead", "m");
    get_nothing(peer, "dead");
}
END_TEST

/* ---- 13.4 to 13.6: headers ---- */

START_TEST(headers_of_a_first_death) /* 13.4, 13.5, 2.9 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD);
    publish_with(peer, "q", "m",
                 &(struct sent){.expiration = "100", .persistent = true, .headers = "z=I1,a=I2"});
    harness_advance(&harness, 2000);
    get_one(peer, "dead", "m");
    ck_assert_str_eq(
        headers_of(peer),
        "a=I2 x-death=[{count=l1 reason=Sexpired queue=Sq time=T1700000000 exchange=S "
        "routing-keys=[Sq] original-expiration=S100}] "
        "x-first-death-exchange=S x-first-death-queue=Sq x-first-death-reason=Sexpired "
        "x-last-death-exchange=S x-last-death-queue=Sq x-last-death-reason=Sexpired z=I1");

    struct amqp_properties properties;
    ck_assert(amqp_properties_decode(buf_slice(&peer->properties), &properties));
    ck_assert_uint_eq(properties.flags, AMQP_PROPERTY_HEADERS | AMQP_PROPERTY_DELIVERY_MODE);
}
END_TEST

START_TEST(headers_of_more_deaths) /* 13.4, 13.5 */
{
    declare_queue(peer, "two", true,
                  "x-message-ttl=I1000,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sone");
    declare_queue(peer, "one", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Stwo");
    publish(peer, "one", "m");
    for (int i = 0; i < 3; i++) { /* rejected in one, expires in two */
        reject(peer, get_unacked(peer, "one", "m"), false);
        harness_advance(&harness, 1100);
    }
    get_one(peer, "one", "m");
    ck_assert_str_eq(header_of(peer, "x-death"),
                     "[{count=l3 reason=Sexpired queue=Stwo time=T1700000001 exchange=S "
                     "routing-keys=[Stwo]},"
                     "{count=l3 reason=Srejected queue=Sone time=T1700000000 exchange=S "
                     "routing-keys=[Sone]}]");
    ck_assert_str_eq(header_of(peer, "x-first-death-queue"), "Sone");
    ck_assert_str_eq(header_of(peer, "x-first-death-reason"), "Srejected");
    ck_assert_str_eq(header_of(peer, "x-last-death-queue"), "Stwo");
    ck_assert_str_eq(header_of(peer, "x-last-death-reason"), "Sexpired");
}
END_TEST

START_TEST(the_newest_death_is_first) /* 13.4 */
{
    declare_queue(peer, "a", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sb");
    declare_queue(peer, "b", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sc");
    declare_queue(peer, "c", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sa");
    publish(peer, "a", "m");
    for (const char *const *at = (const char *const[]){"a", "b", "c", "a", "b", NULL}; *at != NULL;
         at++)
        reject(peer, get_unacked(peer, *at, "m"), false);
    get_one(peer, "c", "m");
#define DEATH_IN(queue, count)                                                                     \
    "{count=l" count " reason=Srejected queue=S" queue " time=T1700000000 exchange=S "             \
    "routing-keys=[S" queue "]}"
    ck_assert_str_eq(header_of(peer, "x-death"),
                     "[" DEATH_IN("b", "2") "," DEATH_IN("a", "2") "," DEATH_IN("c", "1") "]");
}
END_TEST

/* The exchange and keys of an entry are those of the first time, though the message came another
 * way since. */
START_TEST(a_repeated_death_tells_of_the_first) /* 13.4 */
{
    declare_queue(peer, "q", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sq");
    bind_queue(peer, "q", "amq.direct", "key");
    struct buf out = BUF_EMPTY;
    put_publish(&out, "amq.direct", "key", "m", &(struct sent){.persistent = true});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    for (int i = 0; i < 2; i++)
        reject(peer, get_unacked(peer, "q", "m"), false);
    get_one(peer, "q", "m");
    ck_assert_str_eq(header_of(peer, "x-death"),
                     "[{count=l2 reason=Srejected queue=Sq time=T1700000000 exchange=Samq.direct "
                     "routing-keys=[Skey]}]");
    ck_assert_str_eq(header_of(peer, "x-last-death-exchange"), "S");
}
END_TEST

START_TEST(what_clients_send_is_no_history) /* 13.6 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, TO_DEAD);
    const struct sent forged = {.persistent = true,
                                .headers = "x-death=Sforged,x-first-death-queue=Sforged"};
    publish_with(peer, "q", "m", &forged);
    get_one(peer, "q", "m");
    ck_assert_str_eq(headers_of(peer), "x-death=Sforged x-first-death-queue=Sforged");

    publish_with(peer, "q", "m", &forged);
    reject(peer, get_unacked(peer, "q", "m"), false);
    get_one(peer, "dead", "m");
    ck_assert_str_eq(header_of(peer, "x-first-death-queue"), "Sq");
    ck_assert_str_eq(header_of(peer, "x-death"),
                     "[{count=l1 reason=Srejected queue=Sq time=T1700000000 exchange=S "
                     "routing-keys=[Sq]}]");
}
END_TEST

START_TEST(history_survives_a_restart) /* 13.4, 12 */
{
    declare_queue(peer, "q", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Sq");
    publish(peer, "q", "m");
    reject(peer, get_unacked(peer, "q", "m"), false);
    restart(_i == 1);
    reject(peer, get_unacked(peer, "q", "m"), false);
    restart(_i == 1);
    get_one(peer, "q", "m");
    ck_assert_str_eq(header_of(peer, "x-death"),
                     "[{count=l2 reason=Srejected queue=Sq time=T1700000000 exchange=S "
                     "routing-keys=[Sq]}]");
}
END_TEST

/* ---- 13.7: cycles ---- */

START_TEST(automatic_cycles_end) /* 13.7 */
{
    declare_queue(peer, "a", true,
                  "x-message-ttl=I100,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sb");
    declare_queue(peer, "b", true,
                  "x-message-ttl=I100,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sa");
    publish(peer, "a", "m");
    harness_advance(&harness, 150);
    ck_assert_uint_eq(1, count_ready(peer, "b"));
    publish(peer, "a", "m");
    harness_advance(&harness, 2000);
    ck_assert_uint_eq(0, count_ready(peer, "a") + count_ready(peer, "b"));
    ck_assert_uint_eq(1, harness_logged(&harness, "came round to it")); /* once for each queue */
}
END_TEST

START_TEST(a_queue_that_is_its_own_dead_letter_queue) /* 13.7 */
{
    declare_queue(peer, "q", true,
                  "x-max-length=I1,x-dead-letter-exchange=S,x-dead-letter-routing-key=Sq");
    publish(peer, "q", "first");
    publish(peer, "q", "second");
    get_one(peer, "q", "second");
    get_nothing(peer, "q");
}
END_TEST

START_TEST(a_rejection_in_between_is_no_cycle) /* 13.7 */
{
    declare_queue(peer, "wait", true,
                  "x-message-ttl=I100,x-dead-letter-exchange=S,x-dead-letter-routing-key=Swork");
    declare_queue(peer, "work", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Swait");
    publish(peer, "work", "m");
    for (int i = 0; i < 10; i++) {
        reject(peer, get_unacked(peer, "work", "m"), false);
        harness_advance(&harness, 200);
    }
    get_one(peer, "work", "m");
}
END_TEST

/* ---- one batch: the power goes at any point ---- */

/* q's messages die into dead, or into an overflowing queue and from there into dead. */
static const struct {
    const char *arguments;
    void (*die)(void);
    uint32_t messages; /* in all queues, before and after */
} deaths_cut_short[] = {
    {TO_DEAD, die_rejected, 1},
    {TO_DEAD, die_expired, 1},
    {TO_DEAD ",x-max-length=I1", die_crowded_out, 2},
    {TO_DEAD ",x-queue-type=Squorum,x-delivery-limit=I1", die_of_deliveries, 1},
    {"x-dead-letter-exchange=S,x-dead-letter-routing-key=Ssmall", die_rejected, 2},
    {"x-dead-letter-exchange=S,x-dead-letter-routing-key=Ssmall", die_expired, 2},
};

static uint32_t count_all(void)
{
    return count_ready(peer, "q") + count_ready(peer, "small") + count_ready(peer, "dead");
}

/* So many batches become durable after what happens in the end, then the power goes. */
static void crash_after(unsigned syncs)
{
    for (unsigned i = 0; i < syncs; i++) {
        store_memory_sync(harness.store);
        harness_run(&harness);
    }
    restart(true);
}

enum { SYNCS_MAX = 4 };

START_TEST(a_death_is_all_or_nothing) /* 13.3, 12 */
{
    const size_t death = (size_t)_i / SYNCS_MAX;
    const unsigned syncs = (unsigned)_i % SYNCS_MAX;

    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "small", true, TO_DEAD ",x-max-length=I1");
    declare_queue(peer, "q", true, deaths_cut_short[death].arguments);
    if (deaths_cut_short[death].messages == 2 && death >= 4)
        publish(peer, "small", "in the way");
    harness_run(&harness);

    store_memory_set_auto_sync(harness.store, false);
    deaths_cut_short[death].die();
    crash_after(syncs);
    /* What was published before the power went may be lost as a whole: nobody was told. Nothing is
     * there twice. */
    const uint32_t count = count_all();
    ck_assert_uint_le(count, deaths_cut_short[death].messages);
    if (syncs == SYNCS_MAX - 1)
        ck_assert_uint_eq(count, deaths_cut_short[death].messages);
}
END_TEST

/* The same with a message that was durable before it died: it is in one place, always. */
START_TEST(a_durable_message_is_in_one_place) /* 13.3, 12 */
{
    const unsigned syncs = (unsigned)_i % SYNCS_MAX;
    const bool expires = _i / SYNCS_MAX == 1;

    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "small", true, TO_DEAD ",x-max-length=I1");
    declare_queue(peer, "q", true, "x-dead-letter-exchange=S,x-dead-letter-routing-key=Ssmall");
    publish(peer, "small", "in the way");
    publish_with(peer, "q", "m",
                 &(struct sent){.persistent = true, .expiration = expires ? "1000" : NULL});
    harness_run(&harness);

    store_memory_set_auto_sync(harness.store, false);
    if (expires)
        harness_advance(&harness, 1100);
    else
        reject(peer, get_unacked(peer, "q", "m"), false);
    crash_after(syncs);
    ck_assert_uint_eq(2, count_all());
    ck_assert_uint_eq(1, count_ready(peer, "small")); /* q's or its own: the batch of both is one */
    ck_assert_uint_eq(count_ready(peer, "q"), 1 - count_ready(peer, "dead"));
}
END_TEST

/* ---- confirms ---- */

static void select_confirms(void)
{
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT}, AMQP_CONFIRM_SELECT_OK);
}

static const struct {
    const char *arguments, *expiration;
} dropped_at_once[] = {
    {TO_DEAD, "0"},
    {TO_DEAD ",x-max-length=I0", NULL},
    {TO_DEAD ",x-max-length-bytes=I0", NULL},
    {"x-dead-letter-exchange=S,x-dead-letter-routing-key=Schain,x-max-length=I0", NULL},
};

/* Dropped by the queue it was published to: its confirm waits for the dead letter. */
START_TEST(a_confirm_waits_for_the_dead_letter) /* 9.10, 13.3 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "chain", true, TO_DEAD ",x-max-length=I0");
    declare_queue(peer, "q", true, dropped_at_once[_i].arguments);
    select_confirms();
    store_memory_set_auto_sync(harness.store, false);
    publish_with(peer, "q", "m",
                 &(struct sent){.persistent = true, .expiration = dropped_at_once[_i].expiration});
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_BASIC_ACK);
    restart(true);
    get_one(peer, "dead", "m");
}
END_TEST

/* The dead letter is taken from the open batch before it goes to the store: nothing is left to wait
 * for. */
START_TEST(a_confirm_waits_no_longer_than_the_dead_letter) /* 9.10 */
{
    struct peer *other = peer_open_channel(&harness);

    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", true, dropped_at_once[_i].arguments);
    declare_queue(peer, "chain", true, TO_DEAD ",x-max-length=I0");
    consume(other, "dead", "c", true, NULL);
    select_confirms();
    publish_with(peer, "q", "m",
                 &(struct sent){.persistent = true, .expiration = dropped_at_once[_i].expiration});
    expect_delivery(other, "m");
    peer_expect(peer, 1, AMQP_BASIC_ACK);
    peer_expect_nothing(peer);

    store_memory_set_auto_sync(harness.store, false); /* a batch is under way all the while */
    peer_send(other, 1,
              &(struct amqp_method){.id = AMQP_QUEUE_DECLARE,
                                    .queue_declare = {.queue = SLICE("p"), .durable = true}});
    publish_with(peer, "q", "m",
                 &(struct sent){.persistent = true, .expiration = dropped_at_once[_i].expiration});
    expect_delivery(other, "m");
    peer_expect(peer, 1, AMQP_BASIC_ACK);
    store_memory_sync(harness.store);
    harness_run(&harness);
    peer_expect_nothing(peer);
}
END_TEST

/* Of two copies one dies into a dead letter and the other is settled, in either order, all in the
 * open batch: nobody waits for the message any more, and its confirm waits for the letter. */
START_TEST(a_confirm_waits_for_the_dead_letter_of_one_copy) /* 9.10, 13.3 */
{
    const bool at_once = _i == 1;
    struct buf out = BUF_EMPTY;

    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "other", true, NULL);
    declare_queue(peer, "q", true, at_once ? TO_DEAD ",x-max-length=I0" : TO_DEAD);
    bind_queue(peer, "q", "amq.fanout", "");
    bind_queue(peer, "other", "amq.fanout", "");
    select_confirms();
    store_memory_set_auto_sync(harness.store, false);
    publish(peer, "dead", "first"); /* its batch is under way */
    put_publish(&out, "amq.fanout", "", "m", &(struct sent){.persistent = true});
    peer_send_bytes(peer, buf_slice(&out));
    buf_release(&out);
    if (!at_once)
        reject(peer, get_unacked(peer, "q", "m"), false);
    ack(peer, get_unacked(peer, "other", "m"));
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    ck_assert_uint_eq(1, peer_expect(peer, 1, AMQP_BASIC_ACK).basic_ack.delivery_tag);
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    ck_assert_uint_eq(2, peer_expect(peer, 1, AMQP_BASIC_ACK).basic_ack.delivery_tag);
    restart(true);
    get_one(peer, "dead", "first");
    get_one(peer, "dead", "m");
}
END_TEST

START_TEST(confirmed_once_with_nowhere_to_go) /* 9.10, 13.3 */
{
    declare_queue(peer, "q", true, "x-dead-letter-exchange=Snone,x-max-length=I0");
    select_confirms();
    publish(peer, "q", "m");
    peer_expect(peer, 1, AMQP_BASIC_ACK);
    peer_expect_nothing(peer);
}
END_TEST

/* What a transaction rejects is dead-lettered in its batch. */
START_TEST(commit_ok_waits_for_dead_letters) /* 9.16, 13.3 */
{
    declare_queue(peer, "dead", true, NULL);
    declare_queue(peer, "q", false, TO_DEAD); /* not in the store, its dead letter is */
    publish(peer, "q", "m");
    peer_call(peer, 1, &(struct amqp_method){.id = AMQP_TX_SELECT}, AMQP_TX_SELECT_OK);
    reject(peer, get_unacked(peer, "q", "m"), false);
    ck_assert_uint_eq(0, count_ready(peer, "dead"));
    store_memory_set_auto_sync(harness.store, false);
    peer_send(peer, 1, &(struct amqp_method){.id = AMQP_TX_COMMIT});
    peer_expect_nothing(peer);
    store_memory_sync(harness.store);
    harness_run(&harness);
    peer_expect(peer, 1, AMQP_TX_COMMIT_OK);
    restart(true);
    get_one(peer, "dead", "m");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dead_letter");
    TCase *tests = tcase_create("rules");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, each_death_has_its_reason, 0, countof(deaths));
    tcase_add_test(tests, purge_delete_and_ack_are_no_deaths);
    tcase_add_test(tests, what_is_due_dies_before_its_exclusive_queue);
    tcase_add_test(tests, reject_publish_is_no_death);
    tcase_add_loop_test(tests, of_what_goes_back_the_oldest_goes_first, 0, countof(ways_back));
    tcase_add_loop_test(tests, who_waits_is_served_before_or_after_the_limit, 0,
                        2 * countof(ways_back));
    tcase_add_loop_test(tests, keys_of_the_message_or_of_the_queue, 0, 2);
    tcase_add_test(tests, every_queue_bound_there_gets_one);
    tcase_add_test(tests, an_absent_exchange_takes_them_silently);
    tcase_add_test(tests, headers_of_a_first_death);
    tcase_add_test(tests, headers_of_more_deaths);
    tcase_add_test(tests, the_newest_death_is_first);
    tcase_add_test(tests, a_repeated_death_tells_of_the_first);
    tcase_add_test(tests, what_clients_send_is_no_history);
    tcase_add_loop_test(tests, history_survives_a_restart, 0, 2);
    tcase_add_test(tests, automatic_cycles_end);
    tcase_add_test(tests, a_queue_that_is_its_own_dead_letter_queue);
    tcase_add_test(tests, a_rejection_in_between_is_no_cycle);
    suite_add_tcase(suite, tests);

    TCase *crash = tcase_create("one batch");
    tcase_add_checked_fixture(crash, set_up, tear_down);
    tcase_add_loop_test(crash, a_death_is_all_or_nothing, 0, countof(deaths_cut_short) * SYNCS_MAX);
    tcase_add_loop_test(crash, a_durable_message_is_in_one_place, 0, 2 * SYNCS_MAX);
    tcase_add_loop_test(crash, a_confirm_waits_for_the_dead_letter, 0, countof(dropped_at_once));
    tcase_add_loop_test(crash, a_confirm_waits_no_longer_than_the_dead_letter, 0,
                        countof(dropped_at_once));
    tcase_add_loop_test(crash, a_confirm_waits_for_the_dead_letter_of_one_copy, 0, 2);
    tcase_add_test(crash, confirmed_once_with_nowhere_to_go);
    tcase_add_test(crash, commit_ok_waits_for_dead_letters);
    suite_add_tcase(suite, crash);
    return unit_main(suite);
}
