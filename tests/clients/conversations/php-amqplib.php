<?php
// php-amqplib: one thread that waits for what comes; a program that survives a restart connects again by itself.

require '/usr/share/php/PhpAmqpLib/autoload.php';

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPExceptionInterface;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

$count = 0;

function step(string $name, callable $work): void
{
    global $count;
    $count++;
    try {
        $work();
        echo "ok $count - $name\n";
    } catch (Throwable $error) {
        echo "not ok $count - $name\n$error\n";
    }
}

function must(bool $truth, string $what): void
{
    if (!$truth) {
        throw new Exception("not so: $what");
    }
}

function connect(): AMQPStreamConnection
{
    // The last two: its usual 3 seconds to connect and to read are short on a machine that has other work to do.
    return new AMQPStreamConnection(getenv('HOST'), getenv('PORT'), 'guest', 'guest',
                                    '/', false, 'AMQPLAIN', null, 'en_US', 30, 30);
}

function withChannel(callable $work): callable
{
    return function () use ($work) {
        $connection = connect();
        $work($connection->channel());
        $connection->close();
    };
}

/** Serves the channel until it is so. */
function until($channel, callable $holds): void
{
    while (!$holds()) {
        $channel->wait(null, false, 10);
    }
}

/** Gets without waiting for a consumer, until there is one. */
function get($channel, string $queue): AMQPMessage
{
    for ($tries = 0; $tries < 500; $tries++) {
        $message = $channel->basic_get($queue, true);
        if ($message !== null) {
            return $message;
        }
        usleep(20000);
    }
    throw new Exception("nothing comes to $queue");
}

function confirmedAndAcked($channel): void
{
    $channel->confirm_select();
    $channel->queue_declare('work', false, true, false, false);
    $confirmed = 0;
    $channel->set_ack_handler(function () use (&$confirmed) { $confirmed++; });
    $channel->set_nack_handler(fn() => throw new Exception('refused'));
    for ($number = 0; $number < 500; $number++) {
        $channel->basic_publish(new AMQPMessage($number, ['delivery_mode' => 2]), '', 'work');
    }
    $channel->wait_for_pending_acks(10);
    must($confirmed === 500, 'all are confirmed');
    must($channel->queue_declare('work', true)[1] === 500, '500 messages are ready');

    $channel->basic_qos(0, 20, false);
    $got = [];
    $tag = $channel->basic_consume('work', '', false, false, false, false, function ($message) use (&$got) {
        $got[] = (int) $message->body;
        $message->ack();
    });
    until($channel, function () use (&$got) { return count($got) === 500; });
    must($got === range(0, 499), 'they come in order');
    $channel->basic_cancel($tag);
    must($channel->queue_declare('work', true)[1] === 0, 'the queue is empty');
}

function publishedInOneBatch($channel): void
{
    [$queue] = $channel->queue_declare('', false, false, true);
    for ($number = 0; $number < 100; $number++) {
        $channel->batch_basic_publish(new AMQPMessage(str_repeat('x', 5000)), '', $queue);
    }
    $channel->publish_batch();
    must(strlen(get($channel, $queue)->body) === 5000, 'the bodies are whole');
    must($channel->queue_purge($queue) === 99, 'and all there');
}

function deadLettered($channel): void
{
    [$dead] = $channel->queue_declare('', false, false, true);
    $channel->exchange_declare('dead-letters', 'headers', false, false, true);
    $channel->queue_bind($dead, 'dead-letters', '', false, new AMQPTable(['x-match' => 'any', 'kind' => 'test']));
    [$refused] = $channel->queue_declare('', false, false, true, true, false,
                                         new AMQPTable(['x-dead-letter-exchange' => 'dead-letters']));
    $channel->basic_consume($refused, '', false, false, false, false, fn($message) => $message->reject(false));
    $headers = ['kind' => 'test', 'list' => [1, 'two', null], 'inner' => ['deep' => true], 'when' => new DateTime('@1700000000')];
    $channel->basic_publish(new AMQPMessage('take it away', ['application_headers' => new AMQPTable($headers)]), '', $refused);
    $channel->wait(null, false, 10);

    $message = get($channel, $dead);
    $got = $message->get('application_headers')->getNativeData();
    must($message->body === 'take it away', 'the body is the same');
    must($got['list'] === [1, 'two', null] && $got['inner'] === ['deep' => true], 'so are the headers');
    must($got['x-death'][0]['reason'] === 'rejected' && $got['x-death'][0]['queue'] === $refused, 'x-death tells');
}

/** Fifty calls of a server on another channel, answered to the queue `$replies`. */
function call($channel, string $replies): void
{
    $other = $channel->getConnection()->channel();
    [$server] = $other->queue_declare('', false, false, true);
    $other->basic_consume($server, '', false, false, false, false, function ($request) use ($other) {
        $answer = new AMQPMessage(strtoupper($request->body), ['correlation_id' => $request->get('correlation_id')]);
        $other->basic_publish($answer, '', $request->get('reply_to'));
        $request->ack();
    });
    $answers = [];
    $channel->basic_consume($replies, '', false, true, false, false, function ($answer) use (&$answers) {
        $answers[$answer->get('correlation_id')] = $answer->body;
    });
    for ($number = 0; $number < 50; $number++) {
        $request = new AMQPMessage("call $number", ['reply_to' => $replies, 'correlation_id' => (string) $number]);
        $channel->basic_publish($request, '', $server);
        $other->wait(null, false, 10);
    }
    until($channel, function () use (&$answers) { return count($answers) === 50; });
    must($answers[7] === 'CALL 7' && $answers[49] === 'CALL 49', 'each answer is the right one');
}

function calledByOwnQueue($channel): void
{
    [$replies] = $channel->queue_declare('', false, false, true);
    call($channel, $replies);
}

function calledByDirectReplyTo($channel): void
{
    call($channel, 'amq.rabbitmq.reply-to');
}

function committed($channel): void
{
    [$queue] = $channel->queue_declare('', false, false, true);
    $channel->tx_select();
    $channel->basic_publish(new AMQPMessage('withdrawn'), '', $queue);
    $channel->tx_rollback();
    $channel->basic_publish(new AMQPMessage('meant'), '', $queue);
    $channel->tx_commit();
    must($channel->basic_get($queue, true)->body === 'meant', 'the second is there');
    must($channel->basic_get($queue, true) === null, 'the first is not');
}

function broughtBack($channel): void
{
    $returned = null;
    $channel->set_return_listener(function ($code, $text, $exchange, $key, $message) use (&$returned) {
        $returned = [$code, $text, $message->body];
    });
    $channel->basic_publish(new AMQPMessage('back'), '', 'nobody-has-this-queue', true);
    until($channel, function () use (&$returned) { return $returned !== null; });
    must($returned === [312, 'NO_ROUTE', 'back'], 'as it was sent');
}

/** A worker as they are written: on any failure of the connection it makes a new one and goes on. */
function work(callable $onMessage): void
{
    while (true) {
        try {
            $connection = connect();
            $channel = $connection->channel();
            $channel->confirm_select();
            $channel->basic_qos(0, 1, false);
            $channel->queue_declare('steady', false, true, false, false);
            $channel->basic_consume('steady', '', false, false, false, false, $onMessage);
            while ($channel->is_consuming()) {
                $channel->wait(null, false, 10);
            }
            $connection->close();
            return;
        } catch (AMQPExceptionInterface $error) {
            usleep(50000);
        }
    }
}

function reconnected(): void
{
    $connection = connect();
    $connection->channel()->queue_declare('steady', false, true, false, false);
    $connection->channel()->basic_publish(new AMQPMessage('before', ['delivery_mode' => 2]), '', 'steady');
    $connection->close();
    $got = [];
    work(function ($message) use (&$got) {
        $got[] = [$message->body, $message->isRedelivered()];
        if (count($got) === 1) {    // not acked: it comes again
            $after = new AMQPMessage('after', ['delivery_mode' => 2]);
            $message->getChannel()->basic_publish($after, '', 'steady');
            $message->getChannel()->wait_for_pending_acks(10);
            echo "restart\n";
            return;
        }
        $message->ack();
        if ($message->body === 'after') {
            $message->getChannel()->basic_cancel($message->getConsumerTag());
        }
    });
    must($got[0] === ['before', false], 'first the one');
    must($got[1] === ['before', true], 'which comes again, marked');
    must($got[2] === ['after', false], 'then what was published before the restart');
}

step('500 confirmed messages through a prefetch of 20', withChannel('confirmedAndAcked'));
step('a hundred messages in one write', withChannel('publishedInOneBatch'));
step('a rejected message becomes a dead letter', withChannel('deadLettered'));
step('remote calls with a reply queue', withChannel('calledByOwnQueue'));
step('remote calls through direct reply-to', withChannel('calledByDirectReplyTo'));
step('a transaction is committed, another rolled back', withChannel('committed'));
step('an unroutable message comes back', withChannel('broughtBack'));
step('a worker connects again after a restart', 'reconnected');
echo "1..$count\n";
