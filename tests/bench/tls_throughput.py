#!/usr/bin/python3
"""What TLS costs: the same load of 1 KiB messages without and with it, in turn, on one broker; `make bench-tls`.

One publisher, one consumer, no acks and no confirms, or (persistent) both. The ratios are of messages a second, and of the
broker's CPU time for each, which other work on the machine spoils less."""

import json
import os
import statistics
import subprocess

import broker
import crowd

ROUNDS = int(os.environ.get('TEST_BENCH_ROUNDS', 5))
LOADS = {'transient': ['--messages', '1000000'],
         'persistent, confirmed, acked': ['--messages', '300000', '--persistent', '-c', '5000', '-A', '100', '--prefetch', '1000']}


def measure(own, url, load):
    words = [str(broker.BUILD / 'stoatperf'), '-h', url, '-s', '1024', '--pid', str(own.process.pid), '--json', *load]
    result = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    assert result['void'] is None, result['void']
    phase = result['phases'][0]
    return phase['rates']['consumed'], phase['broker_process']['cpu_us_per_message'], phase['own_process']['cpu_us_per_message']


def main():
    with crowd.EncryptedBroker() as own:
        encrypted = 'amqps://guest:guest@localhost:%d/' % own.tls_port
        for name, load in LOADS.items():
            pairs = [(measure(own, own.url() + '/', load), measure(own, encrypted, [*load, '--cacert', own.root])) for _ in range(ROUNDS)]
            plain, tls = ([statistics.median(column) for column in zip(*runs)] for runs in zip(*pairs))
            print('%s: %.0f and %.0f thousand a second, %.2f and %.2f us of the broker, %.2f and %.2f us of stoatperf' % (
                name, plain[0] / 1e3, tls[0] / 1e3, plain[1], tls[1], plain[2], tls[2]))
            print('    TLS / plain: %.3f of the rate, %.3f by CPU time' % (
                statistics.median(b[0] / a[0] for a, b in pairs), statistics.median(a[1] / b[1] for a, b in pairs)), flush=True)


if __name__ == '__main__':
    main()
