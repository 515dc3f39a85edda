# bunny, the client for Ruby: its blocking calls, consumers on threads of their own, and automatic recovery.
require 'bunny'
require 'timeout'

$stdout.sync = true
$count = 0

def step(name)
  $count += 1
  begin
    Timeout.timeout(20) { yield }
    puts "ok #{$count} - #{name}"
  rescue StandardError => error
    puts "not ok #{$count} - #{name}", error.full_message(highlight: false)
  end
end

def must(truth, what)
  raise "not so: #{what}" unless truth
end

def wait_until(what)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 15
  until yield
    raise "in vain: #{what}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.02
  end
end

def with_channel
  channel = $connection.create_channel
  yield channel
ensure
  channel.close if channel&.open?
end

$connection = Bunny.new(ENV['URL'], network_recovery_interval: 0.1, logger: Logger.new(File::NULL))
$connection.start

step '500 confirmed messages through a prefetch of 20' do
  with_channel do |channel|
    channel.confirm_select
    queue = channel.queue('work', durable: true)
    500.times { |number| queue.publish(number.to_s, persistent: true) }
    must channel.wait_for_confirms, 'all are confirmed'
    must queue.message_count == 500, '500 messages are ready'
    channel.prefetch(20)
    got = []
    consumer = queue.subscribe(manual_ack: true) do |delivery, _, body|
      got << body.to_i
      channel.ack(delivery.delivery_tag)
    end
    wait_until('500 deliveries') { got.size == 500 }
    must got == (0...500).to_a, 'they come in order'
    consumer.cancel
    must queue.message_count.zero?, 'the queue is empty'
  end
end

step 'a rejected message becomes a dead letter' do
  with_channel do |channel|
    exchange = channel.fanout('dead-letters', auto_delete: true)
    dead = channel.queue('', exclusive: true).bind(exchange)
    refused = channel.queue('', exclusive: true, arguments: {'x-dead-letter-exchange' => 'dead-letters'})
    refused.subscribe(manual_ack: true) { |delivery, _, _| channel.reject(delivery.delivery_tag, false) }
    refused.publish('take it away', headers: {'kind' => 'test', 'level' => 3}, timestamp: Time.at(1_700_000_000).to_i)
    properties, body = nil
    wait_until('a dead letter') { (_, properties, body = dead.pop) && body }
    must body == 'take it away', 'the body is the same'
    must properties.headers.values_at('kind', 'level') == ['test', 3], 'so are the headers'
    must properties.timestamp == Time.at(1_700_000_000), 'and the time'
    death = properties.headers['x-death'].first
    must death.values_at('reason', 'queue', 'count') == ['rejected', refused.name, 1], 'x-death tells'
  end
end

step 'a priority queue gives the urgent first' do
  with_channel do |channel|
    queue = channel.queue('', exclusive: true, arguments: {'x-max-priority' => 9})
    [1, 5, 9, 5].each { |priority| queue.publish(priority.to_s, priority: priority) }
    wait_until('four messages') { queue.message_count == 4 }
    must Array.new(4) { queue.pop.last } == %w[9 5 5 1], 'they come by priority'
  end
end

step 'a message expires into the next queue' do
  with_channel do |channel|
    last = channel.queue('', exclusive: true)
    first = channel.queue('', exclusive: true, arguments: {'x-dead-letter-exchange' => '',
                                                           'x-dead-letter-routing-key' => last.name})
    first.publish('late', expiration: 100)
    body = nil
    wait_until('the expired message') { body = last.pop.last }
    must body == 'late', 'it is the one'
  end
end

# Fifty calls of a server on `replies`, a queue's name, and what each of them is answered.
def call(channel, server, replies)
  answers = {}
  channel.basic_consume(replies, '', true) do |_, properties, body|
    answers[properties.correlation_id.to_i] = body
  end
  server.subscribe do |_, request, body|
    server.channel.default_exchange.publish(body.upcase, routing_key: request.reply_to,
                                                         correlation_id: request.correlation_id)
  end
  50.times do |number|
    channel.basic_publish("call #{number}", '', server.name, reply_to: replies, correlation_id: number.to_s)
  end
  wait_until('50 answers') { answers.size == 50 }
  must (0...50).all? { |number| answers[number] == "CALL #{number}" }, 'each answer is the right one'
end

step 'remote calls with a reply queue' do
  with_channel do |channel|
    with_channel { |other| call(channel, other.queue('', exclusive: true), channel.queue('', exclusive: true).name) }
  end
end

step 'remote calls through direct reply-to' do
  with_channel do |channel|
    with_channel { |other| call(channel, other.queue('', exclusive: true), 'amq.rabbitmq.reply-to') }
  end
end

step 'an unroutable message comes back' do
  with_channel do |channel|
    returned = Queue.new
    exchange = channel.default_exchange
    exchange.on_return { |info, _, body| returned << [info.reply_code, body] }
    exchange.publish('back', routing_key: 'nobody-has-this-queue', mandatory: true)
    must returned.pop == [312, 'back'], 'as it was sent'
  end
end

step 'a deleted queue cancels its consumer' do
  with_channel do |channel|
    cancelled = Queue.new
    queue = channel.queue('', exclusive: true)
    consumer = Bunny::Consumer.new(channel, queue)
    consumer.on_cancellation { cancelled << true }
    queue.subscribe_with(consumer)
    with_channel { |other| other.queue_delete(queue.name) }
    must cancelled.pop, 'it is told'
  end
end

step 'a transaction is committed, another rolled back' do
  with_channel do |channel|
    queue = channel.queue('', exclusive: true)
    channel.tx_select
    queue.publish('withdrawn')
    channel.tx_rollback
    queue.publish('meant')
    channel.tx_commit
    must [queue.pop.last, queue.pop.last] == ['meant', nil], 'only one of two'
  end
end

step 'connection, topology and consumer recover after a restart' do
  with_channel do |channel|
    channel.confirm_select
    kept = channel.queue('kept', durable: true)
    kept.publish('kept', persistent: true)
    steady = channel.queue('', exclusive: true).bind(channel.topic('steady', durable: true), routing_key: 'a.*')
    got = Queue.new
    steady.subscribe(manual_ack: true) do |delivery, _, body|
      got << body
      channel.ack(delivery.delivery_tag)
    end
    channel.basic_publish('before', 'steady', 'a.b')
    must got.pop == 'before', 'it comes'
    must channel.wait_for_confirms, 'and is confirmed'

    recovered = Queue.new
    $connection.after_recovery_completed { recovered << true }
    puts 'restart'
    recovered.pop
    channel.basic_publish('after', 'steady', 'a.b', persistent: true)
    must got.pop == 'after', 'the consumer is there again'
    must kept.pop.last == 'kept', 'and so is what was kept'
  end
end

step('the connection closes') { $connection.close }
puts "1..#{$count}"
