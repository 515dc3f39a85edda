/* Certificates, keys and rules, from files; and the names in a client's certificate. */
#include "net/tls_context.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdarg.h>

#include "base/alloc.h"

/* TLS 1.2 with forward secrecy and authenticated encryption, and nothing else. */
static const char ciphers_1_2[] = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                  "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
                                  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";

/* Those of TLS 1.3, the one that costs least first: all are good. */
static const char ciphers_1_3[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/* The sentence, and OpenSSL's reason behind it. */
printf_like(2, 3) static bool fail(char error[TLS_ERROR_SIZE], const char *format, ...)
{
    const unsigned long code = ERR_peek_error();
    const char *reason = code == 0                ? NULL
                         : ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code))
                                                  : ERR_reason_error_string(code);
    va_list arguments;

    va_start(arguments, format);
    const int size = vsnprintf(error, TLS_ERROR_SIZE, format, arguments);
    va_end(arguments);
    if (reason != NULL && size >= 0 && size < TLS_ERROR_SIZE)
        snprintf(error + size, (size_t)(TLS_ERROR_SIZE - size), ": %s", reason);
    ERR_clear_error();
    return false;
}

struct key_password {
    const char *text; /* NULL: none is known */
    bool asked;
};

static int give_password(char *room, int size, int writing, void *context)
{
    struct key_password *password = context;
    (void)writing;

    password->asked = true;
    if (password->text == NULL || strlen(password->text) > (size_t)size)
        return -1;
    memcpy(room, password->text, strlen(password->text));
    return (int)strlen(password->text);
}

static bool fail_key(const char *key_file, const struct key_password *password,
                     char error[TLS_ERROR_SIZE])
{
    if (password->asked && password->text == NULL) {
        ERR_clear_error();
        return fail(error, "the private key in %s is encrypted: set ssl_options.password",
                    key_file);
    }
    return fail(error, "cannot use the private key in %s (ssl_options.keyfile)", key_file);
}

/* A context has a place for a certificate and its key of each type, and looks at no other when it
 * takes a key: an RSA key goes beside an EC certificate, and neither can be used. So the two are
 * compared here. */
static bool use_pair(SSL_CTX *ctx, X509 *certificate, EVP_PKEY *key,
                     const struct tls_options *options, const char *key_file,
                     char error[TLS_ERROR_SIZE])
{
    if (X509_check_private_key(certificate, key) != 1) {
        ERR_clear_error();
        return fail(error, "the private key in %s does not belong to the certificate in %s",
                    key_file, options->certificate_file);
    }
    return SSL_CTX_use_PrivateKey(ctx, key) == 1 ||
           fail(error, "cannot use the private key in %s (ssl_options.keyfile)", key_file);
}

static EVP_PKEY *read_key(const char *path, struct key_password *password)
{
    BIO *file = BIO_new_file(path, "r");
    EVP_PKEY *key =
        file == NULL ? NULL : PEM_read_bio_PrivateKey(file, NULL, give_password, password);

    BIO_free(file);
    return key;
}

static bool use_certificate(SSL_CTX *ctx, const struct tls_options *options,
                            char error[TLS_ERROR_SIZE])
{
    struct key_password password = {.text = options->password};
    const char *key_file =
        options->key_file == NULL ? options->certificate_file : options->key_file;

    if (SSL_CTX_use_certificate_chain_file(ctx, options->certificate_file) != 1)
        return fail(error, "cannot use the certificate in %s (ssl_options.certfile)",
                    options->certificate_file);
    EVP_PKEY *key = read_key(key_file, &password);
    const bool ok =
        key == NULL ? fail_key(key_file, &password, error)
                    : use_pair(ctx, SSL_CTX_get0_certificate(ctx), key, options, key_file, error);
    EVP_PKEY_free(key);
    return ok;
}

static bool use_authorities(SSL_CTX *ctx, const struct tls_options *options,
                            char error[TLS_ERROR_SIZE])
{
    int mode = SSL_VERIFY_NONE;

    if (options->ca_file != NULL) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(options->ca_file);
        if (names == NULL || SSL_CTX_load_verify_file(ctx, options->ca_file) != 1) {
            sk_X509_NAME_pop_free(names, X509_NAME_free);
            return fail(error, "cannot use the certificates in %s (ssl_options.cacertfile)",
                        options->ca_file);
        }
        SSL_CTX_set_client_CA_list(ctx, names);
    }
    if (options->verify_peer) {
        mode = SSL_VERIFY_PEER | (options->require_peer ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
        /* A resumed session would take an old look at the certificate for a new one. */
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(ctx, 0);
    }
    SSL_CTX_set_verify(ctx, mode, NULL);
    SSL_CTX_set_verify_depth(ctx, (int)options->depth);
    return true;
}

static bool use_rules(SSL_CTX *ctx, const struct tls_options *options, char error[TLS_ERROR_SIZE])
{
    static const uint8_t session_context[] = "stoatmq";

    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 (options->client_order ? 0 : SSL_OP_CIPHER_SERVER_PREFERENCE));
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ctx, session_context, sizeof(session_context) - 1);
    assert(options->tls_1_2 || options->tls_1_3);
    SSL_CTX_set_min_proto_version(ctx, options->tls_1_2 ? TLS1_2_VERSION : TLS1_3_VERSION);
    SSL_CTX_set_max_proto_version(ctx, options->tls_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    if (SSL_CTX_set_cipher_list(ctx, options->ciphers == NULL ? ciphers_1_2 : options->ciphers) !=
        1)
        return fail(error, "no cipher of TLS 1.2 among ssl_options.ciphers");
    if (SSL_CTX_set_ciphersuites(ctx, options->ciphersuites == NULL ? ciphers_1_3
                                                                    : options->ciphersuites) != 1)
        return fail(error, "no cipher of TLS 1.3 among ssl_options.ciphers");
    return true;
}

struct tls_context *tls_context_new(struct tls *tls, const struct tls_options *options,
                                    char error[TLS_ERROR_SIZE])
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL) {
        fail(error, "cannot set up TLS");
        return NULL;
    }
    if (!use_rules(ctx, options, error) || !use_certificate(ctx, options, error) ||
        !use_authorities(ctx, options, error)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    struct tls_context *context = xmalloc(sizeof(*context));
    *context = (struct tls_context){.tls = tls, .ctx = ctx};
    return context;
}

const char *tls_context_weak_cipher(const struct tls_context *context)
{
    STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(context->ctx);

    for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++) {
        const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(ciphers, i);
        const int exchange = SSL_CIPHER_get_kx_nid(cipher);
        const bool is_1_3 = exchange == NID_kx_any;
        if (!SSL_CIPHER_is_aead(cipher) ||
            (!is_1_3 && exchange != NID_kx_ecdhe && exchange != NID_kx_dhe))
            return SSL_CIPHER_get_name(cipher);
    }
    return NULL;
}

void tls_context_free(struct tls_context **context)
{
    struct tls_context *gone = *context;

    *context = NULL;
    if (gone == NULL)
        return;
    SSL_CTX_free(gone->ctx);
    free(gone);
}

/* ---- names in certificates ---- */

static const char no_such_name[] = "the certificate has no such name";

/* A name with a NUL byte in it means one thing here and another elsewhere: it is none. */
static bool append_text(struct buf *name, const uint8_t *bytes, int size)
{
    if (bytes == NULL || size <= 0 || memchr(bytes, '\0', (size_t)size) != NULL)
        return false;
    buf_append(name, slice_of(bytes, (size_t)size));
    return true;
}

static bool append_string(struct buf *name, const ASN1_STRING *string)
{
    uint8_t *text = NULL;
    const int size = ASN1_STRING_to_UTF8(&text, string);
    const bool ok = append_text(name, text, size);

    OPENSSL_free(text);
    return ok;
}

/* The names that RabbitMQ has for attributes; others it writes as numbers (rabbit_cert_info.erl,
 * format_rdn; its street-address, by which it means the postal one of X.411, never matches). */
static const struct {
    int nid;
    const char *name;
} attributes[] = {
    {NID_commonName, "CN"},
    {NID_surname, "SN"},
    {NID_givenName, "GIVENNAME"},
    {NID_initials, "INITIALS"},
    {NID_generationQualifier, "GENERATIONQUALIFIER"},
    {NID_title, "TITLE"},
    {NID_pseudonym, "PSEUDONYM"},
    {NID_serialNumber, "SERIALNUMBER"},
    {NID_localityName, "L"},
    {NID_stateOrProvinceName, "ST"},
    {NID_organizationName, "O"},
    {NID_organizationalUnitName, "OU"},
    {NID_countryName, "C"},
    {NID_domainComponent, "DC"},
    {NID_pkcs9_emailAddress, "EMAILADDRESS"},
    {NID_userId, "UID"},
};

static bool print_attribute(BIO *out, const X509_NAME_ENTRY *entry)
{
    const ASN1_OBJECT *type = X509_NAME_ENTRY_get_object(entry);
    const int nid = OBJ_obj2nid(type);
    char number[128];
    const char *name = number;

    if (OBJ_obj2txt(number, sizeof(number), type, 1) >= (int)sizeof(number))
        return false;
    for (size_t i = 0; i < countof(attributes); i++)
        if (attributes[i].nid == nid)
            name = attributes[i].name;
    return BIO_printf(out, "%s=", name) > 0 &&
           ASN1_STRING_print_ex(out, X509_NAME_ENTRY_get_data(entry), ASN1_STRFLGS_RFC2253) >= 0;
}

static int part_of(const X509_NAME *subject, int i)
{
    return X509_NAME_ENTRY_set(X509_NAME_get_entry(subject, i));
}

/* The parts of the name backwards, and the attributes of one part as they are. */
static bool print_name(BIO *out, const X509_NAME *subject)
{
    int first;

    for (int last = X509_NAME_entry_count(subject) - 1; last >= 0; last = first - 1) {
        first = last;
        while (first > 0 && part_of(subject, first - 1) == part_of(subject, last))
            first--;
        for (int i = first; i <= last; i++) {
            if (BIO_pending(out) > 0 && BIO_puts(out, i == first ? "," : "+") <= 0)
                return false;
            if (!print_attribute(out, X509_NAME_get_entry(subject, i)))
                return false;
        }
    }
    return true;
}

/* RFC 4514, in which anything may be escaped: RabbitMQ does so to ~, and OpenSSL does not. */
static bool append_distinguished(struct buf *name, const X509_NAME *subject)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *text = NULL;
    const bool ok = out != NULL && print_name(out, subject) && BIO_pending(out) > 0;
    const long size = ok ? BIO_get_mem_data(out, &text) : 0;

    for (long i = 0; i < size; i++)
        buf_append(name, text[i] == '~' ? SLICE("\\7E") : slice_of(text + i, 1));
    BIO_free(out);
    return ok;
}

static const char *append_common(struct buf *name, const X509_NAME *subject)
{
    const int first = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

    if (first < 0)
        return no_such_name;
    if (X509_NAME_get_index_by_NID(subject, NID_commonName, first) >= 0)
        return "the certificate has several common names, and might mean any of them";
    return append_string(name, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, first)))
               ? NULL
               : no_such_name;
}

static bool append_address(struct buf *name, const ASN1_OCTET_STRING *address)
{
    char text[INET6_ADDRSTRLEN];
    const int size = ASN1_STRING_length(address);
    const int family = size == 4 ? AF_INET : AF_INET6;

    return (size == 4 || size == 16) &&
           inet_ntop(family, ASN1_STRING_get0_data(address), text, sizeof(text)) != NULL &&
           append_text(name, (const uint8_t *)text, (int)strlen(text));
}

static bool append_general(struct buf *name, const GENERAL_NAME *general)
{
    return general->type == GEN_IPADD ? append_address(name, general->d.iPAddress)
                                      : append_string(name, general->d.ia5);
}

static bool append_alternative(struct buf *name, const X509 *certificate, int type, unsigned index)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool ok = false;

    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *general = sk_GENERAL_NAME_value(names, i);
        if (general->type != type || index-- > 0)
            continue;
        ok = append_general(name, general);
        break;
    }
    GENERAL_NAMES_free(names);
    return ok;
}

const char *tls_certificate_name(const X509 *certificate, enum tls_name kind, unsigned index,
                                 struct buf *name)
{
    static const int types[] = {[TLS_ALTERNATIVE_DNS] = GEN_DNS,
                                [TLS_ALTERNATIVE_EMAIL] = GEN_EMAIL,
                                [TLS_ALTERNATIVE_URI] = GEN_URI,
                                [TLS_ALTERNATIVE_IP] = GEN_IPADD};
    const X509_NAME *subject = X509_get_subject_name(certificate);

    if (kind == TLS_COMMON_NAME)
        return append_common(name, subject);
    const bool ok = kind == TLS_DISTINGUISHED_NAME
                        ? append_distinguished(name, subject)
                        : append_alternative(name, certificate, types[kind], index);
    return ok ? NULL : no_such_name;
}
