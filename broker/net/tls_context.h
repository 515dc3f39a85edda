/* What OpenSSL is told before the first byte: for net/tls.c alone. */
#ifndef NET_TLS_CONTEXT_H
#define NET_TLS_CONTEXT_H

#include <openssl/x509.h>

#include "net/tls.h"

struct tls_context {
    struct tls *tls;
    SSL_CTX *ctx;
};

/* See tls_transport_name. */
const char *tls_certificate_name(const X509 *certificate, enum tls_name kind, unsigned index,
                                 struct buf *name);

#endif
