#!/usr/bin/python3
"""TLS records that bring nothing: 27 octets on the wire, and a derivation of keys for who has to take them."""

import ctypes
import ctypes.util
import socket
import ssl
import unittest

import broker
import crowd
import tap
import wire

COUNT = 20000       # half a megabyte
TLS_1_3, BIO_CTRL_INFO, NOT_REQUESTED = 0x304, 3, 0


class Flood:
    """A client whose OpenSSL, once hands are shaken, writes into memory: what to send is ready before it is sent."""

    def __init__(self, client):
        loaded = ctypes.CDLL(ctypes.util.find_library('ssl'))
        crypto = ctypes.CDLL(ctypes.util.find_library('crypto'))
        for name in 'TLS_client_method', 'SSL_CTX_new', 'SSL_new':
            getattr(loaded, name).restype = ctypes.c_void_p
        for name in 'BIO_s_mem', 'BIO_new':
            getattr(crypto, name).restype = ctypes.c_void_p
        crypto.BIO_ctrl.restype = ctypes.c_long
        self.loaded, self.crypto, self.client = loaded, crypto, client
        self.context = ctypes.c_void_p(loaded.SSL_CTX_new(ctypes.c_void_p(loaded.TLS_client_method())))
        self.ssl = ctypes.c_void_p(loaded.SSL_new(self.context))
        client.settimeout(None)     # OpenSSL has the socket for itself
        self.demand(loaded.SSL_set_fd(self.ssl, client.fileno()))
        self.demand(loaded.SSL_connect(self.ssl))
        assert loaded.SSL_version(self.ssl) == TLS_1_3
        client.settimeout(crowd.PATIENCE)
        self.incoming, self.outgoing = (ctypes.c_void_p(crypto.BIO_new(ctypes.c_void_p(crypto.BIO_s_mem()))) for _ in range(2))
        loaded.SSL_set_bio(self.ssl, self.incoming, self.outgoing)

    @staticmethod
    def demand(result):
        assert result > 0, result

    def update_keys(self):
        self.demand(self.loaded.SSL_key_update(self.ssl, NOT_REQUESTED))
        self.demand(self.loaded.SSL_do_handshake(self.ssl))

    def write(self, octets):
        self.demand(self.loaded.SSL_write(self.ssl, octets, len(octets)))

    def take(self):
        """All that was written."""
        at = ctypes.c_void_p()
        size = self.crypto.BIO_ctrl(self.outgoing, BIO_CTRL_INFO, ctypes.c_long(0), ctypes.byref(at))
        octets = ctypes.string_at(at, size)
        self.crypto.BIO_ctrl(self.outgoing, 1, ctypes.c_long(0), None)  # reset
        return octets

    def close(self):
        self.loaded.SSL_free(self.ssl)
        self.loaded.SSL_CTX_free(self.context)
        self.client.close()


@broker.needs_own_broker
@unittest.skipUnless(ssl.HAS_TLSv1_3, 'there is no TLS 1.3')
class KeyUpdates(unittest.TestCase):
    def setUp(self):
        self.own = crowd.EncryptedBroker().start()
        self.addCleanup(self.own.__exit__, None, None, None)

    def connect(self):
        flood = Flood(crowd.connect_from(0, self.own.host, self.own.tls_port))
        self.addCleanup(flood.close)
        return flood

    def expect_end(self, flood):
        """It is ended, not heard to the end."""
        try:
            flood.client.sendall(flood.take())
            while flood.client.recv(65536):
                pass
        except OSError as error:
            self.assertNotIsInstance(error, socket.timeout)
        crowd.eventually(lambda: 'too many key updates' in self.own.log(), self.own.log)
        wire.Wire(self.own.host, self.own.port).handshake().close()

    def test_before_the_login(self):  # CVE-2011-1473
        flood = self.connect()
        for _ in range(COUNT):
            flood.update_keys()
        self.expect_end(flood)

    def test_after_the_login(self):  # CVE-2011-1473
        flood = self.connect()
        flood.write(crowd.WHOLE_HANDSHAKE)
        for _ in range(COUNT):
            flood.update_keys()
        self.expect_end(flood)

    def test_with_a_little_between_them(self):  # CVE-2011-1473
        """That little goes on, at the pace of one among others."""
        flood = self.connect()
        for octet in crowd.WHOLE_HANDSHAKE:
            for _ in range(30):
                flood.update_keys()
            flood.write(bytes([octet]))
        flood.client.sendall(flood.take())
        wire.Wire(self.own.host, self.own.port).handshake().close()
        crowd.eventually(lambda: self.own.log().count("granted access to vhost '/'") == 2, self.own.log)


if __name__ == '__main__':
    tap.main()
