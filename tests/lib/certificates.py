"""Certificates for tests, made by openssl in a directory of the test's own.

    made = Certificates(directory)
    made.authority('root')                                       root.pem, root.key
    made.authority('middle', signer='root')                      signed by root
    made.leaf('server', signer='middle', names='DNS:localhost')  server.pem with its chain, server.key

Every method returns the path of the certificate; `key(name)` and `path(name)` find the files.
"""

import os
import subprocess


class Certificates:
    def __init__(self, directory):
        self.directory = directory
        self.signers = {}
        self.serials = {}
        self.serial = 1

    def path(self, name):
        return os.path.join(self.directory, name + '.pem')

    def key(self, name):
        return os.path.join(self.directory, name + '.key')

    def _openssl(self, *words, data=None):
        subprocess.run(['openssl', *words], check=True, cwd=self.directory, input=data, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def _make_key(self, name, kind, password):
        how = {'ec': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
               'rsa': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048']}[kind]
        if password is not None:
            how += ['-aes-256-cbc', '-pass', 'pass:' + password]
        self._openssl('genpkey', '-out', self.key(name), *how)

    def _make(self, name, signer, kind, subject, extensions, days, password=None, serial=None):
        self._make_key(name, kind, password)
        self.serial += 1
        request = ['req', '-new', '-key', self.key(name), '-subj', subject, '-out', name + '.csr']
        if password is not None:
            request += ['-passin', 'pass:' + password]
        self._openssl(*request)
        sign = ['x509', '-req', '-in', name + '.csr', '-out', self.path(name), '-set_serial', str(serial or self.serial),
                '-extfile', '/dev/stdin', '-days', str(days)]
        sign += ['-signkey', self.key(name)] if signer is None else ['-CA', self.path(signer), '-CAkey', self.key(signer)]
        self._openssl(*sign, data=extensions.encode())
        self.signers[name] = signer
        self.serials[name] = serial or self.serial
        return self.path(name)

    def authority(self, name, signer=None, subject=None):
        return self._make(name, signer, 'ec', subject or '/O=StoatMQ tests/CN=' + name,
                          'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n', 30)

    def leaf(self, name, signer, kind='ec', subject=None, names=None, days=30, password=None, serial=None):
        """Signed by an authority, whose own certificates up to, but without, the root follow in the same file."""
        extensions = 'basicConstraints=CA:FALSE\n' + ('subjectAltName=%s\n' % names if names else '')
        path = self._make(name, signer, kind, subject or '/O=StoatMQ tests/CN=' + name, extensions, days, password, serial)
        with open(path, 'a') as chain:
            while self.signers[signer] is not None:
                with open(self.path(signer)) as above:
                    chain.write(above.read())
                signer = self.signers[signer]
        return path
