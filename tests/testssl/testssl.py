#!/usr/bin/python3
"""testssl.sh over the broker's TLS listener, with an ECDSA and with an RSA certificate: `make testssl`.

Whatever it finds above LOW is a failure, and so is what it could not look at. The findings that are passed over stand below, each
with its reason. It takes some minutes.
"""

import json
import os
import subprocess
import tempfile
import unittest

import broker
import tap
from certificates import Certificates

HARMLESS = ('OK', 'INFO', 'DEBUG', 'LOW')
MINUTES = 60  # it starts thousands of programs, which takes a busy machine long

EXCEPTED = {
    'cert_revocation': 'the certificate is for the time of this test, so that nobody publishes whether it is revoked',
    'sessionresumption_ticket': 'the openssl that it asks with may leave before the ticket comes; test_tls resumes sessions',
}


@broker.needs_own_broker
class Testssl(unittest.TestCase):
    def scan(self, kind):
        directory = tempfile.mkdtemp(prefix='testssl-')
        made = Certificates(directory)
        root = made.authority('root')
        chain = made.leaf('server', 'root', kind=kind, names='DNS:localhost,IP:127.0.0.1', days=180)
        port = broker.free_port()
        report = os.path.join(directory, 'report.json')
        own = broker.Broker(('listeners.ssl.default=127.0.0.1:%d' % port, 'ssl_options.certfile=' + chain,
                             'ssl_options.keyfile=' + made.key('server')))
        with own:
            done = subprocess.run(['testssl', '--quiet', '--color', '0', '--warnings', 'batch', '--nodns', 'none', '--add-ca', root,
                                   '--jsonfile', report, '127.0.0.1:%d' % port], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=MINUTES * 60, errors='replace')
        with open(report) as findings:
            return json.load(findings), done.stdout

    def check(self, kind):
        findings, output = self.scan(kind)
        found = {finding['id'] for finding in findings}
        # It has looked at all of this, and at this certificate.
        for what in ('SSLv2', 'SSLv3', 'TLS1', 'TLS1_1', 'TLS1_2', 'TLS1_3', 'heartbleed', 'ROBOT', 'secure_renego', 'CRIME_TLS',
                     'SWEET32', 'LOGJAM', 'BEAST', 'LUCKY13', 'RC4'):
            self.assertIn(what, found, output)
        keys = [finding['finding'] for finding in findings if finding['id'].startswith('cert_keySize')]
        self.assertIn('RSA' if kind == 'rsa' else 'EC', keys[0])
        bad = []
        for finding in findings:
            if finding['severity'] in HARMLESS:
                continue
            line = '%s: %s: %s' % (finding['id'], finding['severity'], finding['finding'])
            reason = EXCEPTED.get(finding['id'].split(' ')[0])
            print('# %s%s' % (line, ' (%s)' % reason if reason else ''), flush=True)
            if not reason:
                bad.append(line)
        print('# %s: %d findings, %d of them LOW' % (kind, len(findings), sum(f['severity'] == 'LOW' for f in findings)), flush=True)
        self.assertEqual(bad, [])

    def test_ecdsa(self):
        self.check('ec')

    def test_rsa(self):
        self.check('rsa')


if __name__ == '__main__':
    tap.main()
