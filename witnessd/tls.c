/* tls.c: OpenSSL behind bytes.
 *
 * A session has no ciphertext buffers of its own: its BIO reads straight from the bytes handed to
 * tls_session_receive and writes to the caller's `wire`. What OpenSSL keeps itself it gives back
 * while idle (SSL_MODE_RELEASE_BUFFERS), so that a sleeping session costs a few kilobytes.
 *
 * Resumption by stateless tickets (RFC 8446, 2.2), where a server asks for it: nothing is kept here
 * for a client that has gone, and a board can open the tickets of another. Their key follows from
 * the server's own and changes with time, so there is nothing to distribute. The certificate in a
 * ticket was verified when it was made; its validity is looked at again each time, its revocation
 * by the owner as after any handshake. Only TLS 1.3: an older ticket holds what opens a recorded
 * session. Clients of ours never resume. */
#include "witnessd/tls.h"

#include <assert.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#if defined(__arm__) || defined(__aarch64__)
#include <asm/hwcap.h>
#endif

#include "lib/clock.h"
#include "lib/hex.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "witnessd/core.h"

enum {
	PEER_CHAIN_BYTES = 32 * 1024, /* what a peer may send as certificates */
	PEER_CHAIN_DEPTH = 4,
	RECORD_MAX = 16 * 1024,
	TICKET_KEY_S = 12 * 3600, /* a new key each; one before is still taken */
	TICKET_SECRET = 32,
	TICKET_NAME = 16, /* bytes of a key's name (RFC 5077, 4) */
};

struct tls_context {
	_Atomic unsigned references;
	SSL_CTX *ssl;
	BIO_METHOD *wire_method;
	bool server;
	bool verify;
	struct tls_cas cas; /* that peers are verified against */
	char *server_name; /* NULL: none */
	_Atomic int64_t clock_floor_ms;
	uint8_t ticket_secret[TICKET_SECRET]; /* of a server with tickets */
	uint8_t *alpn; /* wire form, in order of preference; NULL: none */
	unsigned alpn_len;
};

enum session_state {
	SESSION_HANDSHAKE,
	SESSION_OPEN,
	SESSION_ENDED, /* the peer closed in order */
	SESSION_FAILED, /* error says why */
};

struct tls_session {
	struct tls_context *context;
	SSL *ssl;
	enum session_state state;
	bool forgotten; /* the peer's certificate */
	const uint8_t *in; /* during tls_session_receive only */
	size_t in_len;
	struct buf *wire; /* during a call only */
	struct buf pending; /* plaintext to send once the handshake is over */
	char *error; /* NULL: none */
	char alpn[20]; /* as negotiated */
};

/* --- the BIO: bytes of the current call --- */

static int wire_read(BIO *bio, char *data, size_t len, size_t *ret_len)
{
	struct tls_session *s = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (s->in_len == 0) {
		BIO_set_retry_read(bio);
		*ret_len = 0;
		return -1;
	}
	if (len > s->in_len)
		len = s->in_len;
	memcpy(data, s->in, len);
	s->in += len;
	s->in_len -= len;
	*ret_len = len;
	return 1;
}

static int wire_write(BIO *bio, const char *data, size_t len, size_t *ret_len)
{
	struct tls_session *s = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	assert(s->wire);
	buf_append(s->wire, data, len);
	*ret_len = len;
	return 1;
}

static long wire_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *wire_method_new(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "wire");

	assert(method);
	BIO_meth_set_read_ex(method, wire_read);
	BIO_meth_set_write_ex(method, wire_write);
	BIO_meth_set_ctrl(method, wire_ctrl);
	return method;
}

/* --- context --- */

static const char *context_message(const char *what)
{
	static _Thread_local char message[256];
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	snprintf(message, sizeof(message), "%s%s%s", what, reason ? ": " : "",
		 reason ? reason : "");
	ERR_clear_error();
	return message;
}

/* Boards up to the Raspberry Pi 4 have no AES instructions: ChaCha20 is several times faster there.
 */
static bool cpu_has_aes(void)
{
#if defined(__aarch64__)
	return getauxval(AT_HWCAP) & HWCAP_AES;
#elif defined(__arm__)
	return getauxval(AT_HWCAP2) & HWCAP2_AES;
#elif defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes");
#else
	return false;
#endif
}

/* Keys are never encrypted here, and OpenSSL must not ask a terminal for a password. */
static int no_password(char *text, int size, int writing, void *arg)
{
	(void)text;
	(void)size;
	(void)writing;
	(void)arg;
	return 0;
}

static X509 *next_certificate(BIO *pem)
{
	X509 *certificate = PEM_read_bio_X509(pem, NULL, no_password, NULL);

	if (!certificate && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
		ERR_clear_error(); /* the end of the text */
	return certificate;
}

static int use_certificate(SSL_CTX *ssl, const char *text, const char **ret_message)
{
	BIO *pem = BIO_new_mem_buf(text, -1);
	X509 *certificate = next_certificate(pem);
	int rv = -EINVAL;

	if (!certificate || SSL_CTX_use_certificate(ssl, certificate) != 1) {
		*ret_message = context_message("no usable certificate in the PEM text");
		goto out;
	}
	X509_free(certificate);
	while ((certificate = next_certificate(pem))) {
		if (SSL_CTX_add0_chain_cert(ssl, certificate) != 1) {
			*ret_message = context_message("unusable certificate in the chain");
			goto out;
		}
	}
	if (ERR_peek_error())
		*ret_message = context_message("damaged certificate in the chain");
	else
		rv = 0;
out:
	X509_free(certificate);
	BIO_free(pem);
	return rv;
}

static int use_key(SSL_CTX *ssl, const char *text, const char **ret_message)
{
	BIO *pem = BIO_new_mem_buf(text, -1);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, no_password, NULL);
	int rv = -EINVAL;

	if (!key)
		*ret_message = context_message("no usable private key in the PEM text");
	else if (SSL_CTX_use_PrivateKey(ssl, key) != 1 || SSL_CTX_check_private_key(ssl) != 1)
		*ret_message = context_message("the private key does not fit the certificate");
	else
		rv = 0;
	EVP_PKEY_free(key);
	BIO_free(pem);
	return rv;
}

/* The first bytes of the SHA-256 of its key. Nobody else's key is ever among those of a context. */
static uint64_t ca_id(const X509 *ca)
{
	uint8_t digest[32];
	uint64_t id = 0;

	if (X509_pubkey_digest(ca, EVP_sha256(), digest, NULL) == 1)
		memcpy(&id, digest, sizeof(id));
	return id;
}

static void cas_add(struct tls_cas *cas, const X509 *ca)
{
	uint64_t id = ca_id(ca);

	if (id != 0 && cas->count < TLS_CAS_MAX && !tls_cas_hold(cas, id))
		cas->ids[cas->count++] = id;
}

void tls_cas_read(const char *text, struct tls_cas *ret)
{
	BIO *pem = BIO_new_mem_buf(text, -1);

	*ret = (struct tls_cas){0};
	for (X509 *ca; (ca = next_certificate(pem));) {
		cas_add(ret, ca);
		X509_free(ca);
	}
	BIO_free(pem);
	ERR_clear_error();
}

bool tls_cas_hold(const struct tls_cas *cas, uint64_t id)
{
	for (unsigned i = 0; i < cas->count; i++)
		if (cas->ids[i] == id)
			return true;
	return false;
}

static int use_ca(struct tls_context *c, const struct tls_options *options,
		  const char **ret_message)
{
	BIO *pem = BIO_new_mem_buf(options->ca, -1);
	X509_STORE *store = SSL_CTX_get_cert_store(c->ssl);
	unsigned count = 0;
	int rv = 0;

	for (X509 *ca; rv == 0 && (ca = next_certificate(pem)); count++) {
		/* The names go to clients as a hint which certificate to send. */
		if (X509_STORE_add_cert(store, ca) != 1 ||
		    (c->server && SSL_CTX_add_client_CA(c->ssl, ca) != 1)) {
			*ret_message = context_message("unusable CA certificate");
			rv = -EINVAL;
		}
		cas_add(&c->cas, ca);
		X509_free(ca);
	}
	if (rv == 0 && (count == 0 || ERR_peek_error())) {
		*ret_message = context_message("no usable CA certificate in the PEM text");
		rv = -EINVAL;
	}
	BIO_free(pem);
	return rv;
}

static int choose_alpn(SSL *ssl, const unsigned char **ret, unsigned char *ret_len,
		       const unsigned char *offered, unsigned offered_len, void *arg)
{
	struct tls_context *c = arg;
	unsigned char *chosen;

	(void)ssl;
	if (SSL_select_next_proto(&chosen, ret_len, c->alpn, c->alpn_len, offered, offered_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*ret = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static void use_alpn(struct tls_context *c, const char *const *names)
{
	struct buf wire = {0};

	for (; *names; names++) {
		assert(strlen(*names) < sizeof((struct tls_session){0}.alpn));
		buf_put_u8(&wire, (uint8_t)strlen(*names));
		buf_puts(&wire, *names);
	}
	c->alpn = wire.data;
	c->alpn_len = (unsigned)wire.len;
	if (c->server)
		SSL_CTX_set_alpn_select_cb(c->ssl, choose_alpn, c);
	else
		SSL_CTX_set_alpn_protos(c->ssl, c->alpn, c->alpn_len);
}

static void set_policy(struct tls_context *c)
{
	bool aes = cpu_has_aes();
	int ok = 1;

	ok &= SSL_CTX_set_min_proto_version(c->ssl, TLS1_2_VERSION);
	ok &= SSL_CTX_set_max_proto_version(c->ssl, TLS1_3_VERSION);
	ok &= SSL_CTX_set_cipher_list(
		c->ssl, aes ? "ECDHE+AESGCM:ECDHE+CHACHA20" : "ECDHE+CHACHA20:ECDHE+AESGCM");
	ok &= SSL_CTX_set_ciphersuites(c->ssl,
				       aes ? "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
					     "TLS_CHACHA20_POLY1305_SHA256"
					   : "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:"
					     "TLS_AES_256_GCM_SHA384");
	ok &= (int)SSL_CTX_set1_groups_list(c->ssl, "X25519:P-256:P-384");
	assert(ok == 1);
	SSL_CTX_set_options(c->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					    SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE |
					    SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_num_tickets(c->ssl, 0);
	SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(c->ssl, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_max_cert_list(c->ssl, PEER_CHAIN_BYTES);
	SSL_CTX_set_verify_depth(c->ssl, PEER_CHAIN_DEPTH);
}

/* The time that certificates are checked against (tls_options.clock_floor_ms). */
static int64_t context_now_ms(struct tls_context *c)
{
	int64_t floor_ms = atomic_load(&c->clock_floor_ms);
	int64_t now = clock_realtime_ms();

	return now < floor_ms || (floor_ms > 0 && now >= CORE_CLOCK_LAST_MS) ? floor_ms : now;
}

/* --- tickets --- */

struct ticket_key {
	uint8_t name[TICKET_NAME];
	uint8_t cipher[32];
	uint8_t mac[32];
};

/* The secret is the key of HMAC as a pseudo-random function (as in RFC 5869, 2.3). */
static void ticket_derive(const struct tls_context *c, const char *use, uint64_t period,
			  uint8_t *out, size_t len)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	char text[64];
	int text_len = snprintf(text, sizeof(text), "tiebreak ticket %s %llu", use,
				(unsigned long long)period);

	HMAC(EVP_sha256(), c->ticket_secret, TICKET_SECRET, (const uint8_t *)text, (size_t)text_len,
	     digest, NULL);
	memcpy(out, digest, len);
	mem_wipe(digest, sizeof(digest));
}

static struct ticket_key ticket_key_of(const struct tls_context *c, uint64_t period)
{
	struct ticket_key key;

	ticket_derive(c, "name", period, key.name, sizeof(key.name));
	ticket_derive(c, "cipher", period, key.cipher, sizeof(key.cipher));
	ticket_derive(c, "mac", period, key.mac, sizeof(key.mac));
	return key;
}

static bool ticket_key_use(struct ticket_key *key, const uint8_t *iv, EVP_CIPHER_CTX *cipher,
			   EVP_MAC_CTX *mac, bool seal)
{
	char sha256[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof(key->mac)),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, sha256, 0),
		OSSL_PARAM_construct_end(),
	};
	bool ok = EVP_MAC_CTX_set_params(mac, params) == 1 &&
		  EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, seal) == 1;

	mem_wipe(key, sizeof(*key));
	return ok;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 1 a key, 2 the same and a new ticket is due, 0 none. */
static int ticket_key_choose(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher,
			     EVP_MAC_CTX *mac, int seal)
{
	struct tls_context *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	uint64_t period = (uint64_t)context_now_ms(c) / 1000 / TICKET_KEY_S;

	if (SSL_version(ssl) < TLS1_3_VERSION)
		return 0;
	if (seal) {
		struct ticket_key key = ticket_key_of(c, period);

		memcpy(name, key.name, sizeof(key.name));
		rng_fill(iv, (size_t)EVP_CIPHER_get_iv_length(EVP_aes_256_cbc()));
		return ticket_key_use(&key, iv, cipher, mac, true) ? 1 : -1;
	}
	for (uint64_t age = 0; age < 2; age++) {
		struct ticket_key key = ticket_key_of(c, period - age);

		if (memcmp(name, key.name, sizeof(key.name)) == 0)
			return !ticket_key_use(&key, iv, cipher, mac, false) ? -1
			       : age == 0				     ? 1
									     : 2;
		mem_wipe(&key, sizeof(key));
	}
	return 0;
}

/* A ticket whose certificate is out of its time is no ticket: the client shows its new one. */
static SSL_TICKET_RETURN ticket_opened(SSL *ssl, SSL_SESSION *session, const uint8_t *name,
				       size_t name_len, SSL_TICKET_STATUS status, void *arg)
{
	const X509 *peer = session ? SSL_SESSION_get0_peer(session) : NULL;
	time_t now = (time_t)(context_now_ms(arg) / 1000);

	(void)ssl;
	(void)name;
	(void)name_len;
	if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	if (peer && (X509_cmp_time(X509_get0_notBefore(peer), &now) > 0 ||
		     X509_cmp_time(X509_get0_notAfter(peer), &now) < 0))
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	/* A ticket serves once (RFC 8446, C.4): a new one comes with each session. */
	return SSL_TICKET_RETURN_USE_RENEW;
}

static void use_tickets(struct tls_context *c, const struct tls_options *options)
{
	/* A server that asks for certificates and one that does not never take each other's. */
	const uint8_t id[] = {'t', 'b', c->verify};
	const char *ca = options->ca ? options->ca : "";
	unsigned len = TICKET_SECRET;

	HMAC(EVP_sha256(), options->key, (int)strlen(options->key), (const uint8_t *)ca, strlen(ca),
	     c->ticket_secret, &len);
	SSL_CTX_set_app_data(c->ssl, c);
	SSL_CTX_set_session_id_context(c->ssl, id, sizeof(id));
	SSL_CTX_set_tlsext_ticket_key_evp_cb(c->ssl, ticket_key_choose);
	SSL_CTX_set_session_ticket_cb(c->ssl, NULL, ticket_opened, c);
	SSL_CTX_set_timeout(c->ssl, TICKET_KEY_S);
	SSL_CTX_clear_options(c->ssl, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(c->ssl, 1);
}

int tls_context_new(const struct tls_options *options, struct tls_context **ret,
		    const char **ret_message)
{
	struct tls_context *c = mem_zalloc(sizeof(*c));
	int rv = 0;

	ERR_clear_error();
	assert(!options->certificate == !options->key);
	assert(!options->server || options->certificate);
	c->references = 1;
	c->server = options->server;
	c->clock_floor_ms = options->clock_floor_ms;
	c->wire_method = wire_method_new();
	c->ssl = SSL_CTX_new(options->server ? TLS_server_method() : TLS_client_method());
	assert(c->ssl);
	set_policy(c);
	if (options->certificate) {
		rv = use_certificate(c->ssl, options->certificate, ret_message);
		if (rv == 0)
			rv = use_key(c->ssl, options->key, ret_message);
	}
	if (rv == 0 && options->ca) {
		rv = use_ca(c, options, ret_message);
		c->verify = !options->server || options->ask_client_certificate;
	}
	if (rv < 0) {
		tls_context_free(c);
		return rv;
	}
	SSL_CTX_set_verify(c->ssl, c->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	if (options->server_name)
		c->server_name = mem_strdup(options->server_name);
	if (options->alpn)
		use_alpn(c, options->alpn);
	if (options->tickets)
		use_tickets(c, options);
	*ret = c;
	return 0;
}

struct tls_context *tls_context_share(struct tls_context *c)
{
	atomic_fetch_add(&c->references, 1);
	return c;
}

void tls_context_free(struct tls_context *c)
{
	if (!c || atomic_fetch_sub(&c->references, 1) > 1)
		return;
	SSL_CTX_free(c->ssl);
	BIO_meth_free(c->wire_method);
	mem_wipe(c->ticket_secret, sizeof(c->ticket_secret));
	free(c->server_name);
	free(c->alpn);
	free(c);
}

void tls_context_set_clock_floor(struct tls_context *c, int64_t floor_ms)
{
	atomic_store(&c->clock_floor_ms, floor_ms);
}

bool tls_context_is_server(const struct tls_context *c)
{
	return c->server;
}

/* --- session --- */

static void expect_server_name(SSL *ssl, const char *name)
{
	/* An address is verified as one and is not sent as SNI (RFC 6066, 3). */
	if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1)
		return;
	ERR_clear_error();
	SSL_set_tlsext_host_name(ssl, name);
	SSL_set1_host(ssl, name);
}

struct tls_session *tls_session_new(struct tls_context *c)
{
	struct tls_session *s = mem_zalloc(sizeof(*s));
	BIO *bio = BIO_new(c->wire_method);

	ERR_clear_error();
	s->context = tls_context_share(c);
	s->ssl = SSL_new(c->ssl);
	assert(s->ssl && bio);
	BIO_set_data(bio, s);
	BIO_set_init(bio, 1);
	SSL_set_bio(s->ssl, bio, bio);
	if (atomic_load(&c->clock_floor_ms) > 0)
		X509_VERIFY_PARAM_set_time(SSL_get0_param(s->ssl), context_now_ms(c) / 1000);
	if (c->server) {
		SSL_set_accept_state(s->ssl);
	} else {
		SSL_set_connect_state(s->ssl);
		if (c->server_name)
			expect_server_name(s->ssl, c->server_name);
	}
	return s;
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	SSL_free(s->ssl);
	tls_context_free(s->context);
	buf_free(&s->pending);
	free(s->error);
	free(s);
}

/* The words an operator looks for, not OpenSSL's. */
static const char *verify_words(long result)
{
	switch (result) {
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return "unknown CA";
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return "certificate has expired";
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return "certificate is not yet valid (is this board's clock right?)";
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return "certificate is for another name";
	case X509_V_ERR_INVALID_PURPOSE:
		return "certificate is not for this use (extended key usage)";
	default:
		return X509_verify_cert_error_string(result);
	}
}

/* Alerts are 1000 + their number among the reasons (SSL_AD_REASON_OFFSET). */
static char *failure_text(const SSL *ssl)
{
	unsigned long code = ERR_peek_error();
	int reason = ERR_GET_REASON(code);
	long verified = SSL_get_verify_result(ssl);

	if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET &&
	    reason < SSL_AD_REASON_OFFSET + 256)
		return mem_printf("the peer refused: %s",
				  SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET));
	/* A CA of the same name and another key leaves the error of the signature first in the
	 * queue. */
	if (verified != X509_V_OK)
		return mem_strdup(verify_words(verified));
	const char *words = ERR_reason_error_string(code);
	return mem_strdup(words ? words : "TLS failed");
}

/* Translates the outcome of an SSL_ call that did not succeed. */
static int session_outcome(struct tls_session *s, int rv)
{
	switch (SSL_get_error(s->ssl, rv)) {
	case SSL_ERROR_WANT_READ:
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		s->state = SESSION_ENDED;
		return -EPIPE;
	default:
		s->state = SESSION_FAILED;
		s->error = failure_text(s->ssl);
		ERR_clear_error();
		return -EPROTO;
	}
}

/* Does the chain that a peer sent lead from its own certificate to `root`, for a server? Otherwise
 * whoever has seen the root, which is public, could send it along with a certificate of his own.
 * The time is left out: a board that joins may not know it yet. */
static bool leads_to_root(const struct tls_session *s, X509 *root)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *check = X509_STORE_CTX_new();
	bool holds = false;

	if (store && check && X509_STORE_add_cert(store, root) == 1 &&
	    X509_STORE_CTX_init(check, store, SSL_get0_peer_certificate(s->ssl),
				SSL_get_peer_cert_chain(s->ssl)) == 1) {
		X509_STORE_CTX_set_purpose(check, X509_PURPOSE_SSL_SERVER);
		X509_STORE_CTX_set_flags(check, X509_V_FLAG_NO_CHECK_TIME);
		holds = X509_verify_cert(check) == 1;
	}
	X509_STORE_CTX_free(check);
	X509_STORE_free(store);
	ERR_clear_error();
	return holds;
}

/* Parsed certificates are the greater part of a sleeping session; on the server's side the list
 * holds what came above the peer's own, which nobody looks at again. */
static void drop_chain(struct tls_session *s)
{
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(s->ssl);

	while (s->context->server && chain && sk_X509_num(chain) > 0)
		X509_free(sk_X509_pop(chain));
}

static void keep_alpn(struct tls_session *s)
{
	const unsigned char *name;
	unsigned len;

	SSL_get0_alpn_selected(s->ssl, &name, &len);
	if (len > 0 && len < sizeof(s->alpn)) /* longer ones are in no list of ours */
		memcpy(s->alpn, name, len);
}

static int session_write(struct tls_session *s, const uint8_t *data, size_t len)
{
	size_t written;

	if (len == 0)
		return 0;
	int rv = SSL_write_ex(s->ssl, data, len, &written);
	if (rv == 1)
		return 0;
	rv = session_outcome(s, rv);
	assert(rv != 0); /* the wire takes everything, and there is no renegotiation */
	return rv;
}

static int session_handshake(struct tls_session *s)
{
	int rv = SSL_do_handshake(s->ssl);

	if (rv != 1)
		return session_outcome(s, rv);
	s->state = SESSION_OPEN;
	drop_chain(s);
	keep_alpn(s);
	if (s->pending.len == 0)
		return 0;
	rv = session_write(s, s->pending.data, s->pending.len);
	mem_wipe(s->pending.data, s->pending.len);
	buf_free(&s->pending);
	return rv;
}

static int session_read(struct tls_session *s, struct buf *plain)
{
	for (;;) {
		size_t len = 0;
		size_t room = s->in_len < RECORD_MAX ? s->in_len + 512 : RECORD_MAX;
		int rv = SSL_read_ex(s->ssl, buf_reserve(plain, room), room, &len);
		if (rv != 1)
			return session_outcome(s, rv);
		plain->len += len;
	}
}

int tls_session_receive(struct tls_session *s, const uint8_t *data, size_t len, struct buf *plain,
			struct buf *wire)
{
	int rv = 0;

	if (s->state == SESSION_ENDED)
		return -EPIPE;
	if (s->state == SESSION_FAILED)
		return -EPROTO;
	ERR_clear_error();
	s->in = data;
	s->in_len = len;
	s->wire = wire;
	if (s->state == SESSION_HANDSHAKE)
		rv = session_handshake(s);
	if (rv == 0 && s->state == SESSION_OPEN)
		rv = session_read(s, plain);
	s->in = NULL;
	s->in_len = 0;
	s->wire = NULL;
	return rv;
}

int tls_session_send(struct tls_session *s, const uint8_t *data, size_t len, struct buf *wire)
{
	if (s->state == SESSION_FAILED)
		return -EPROTO;
	if (s->state == SESSION_HANDSHAKE) {
		buf_append(&s->pending, data, len);
		return 0;
	}
	ERR_clear_error();
	s->wire = wire;
	int rv = session_write(s, data, len);
	s->wire = NULL;
	return rv;
}

int tls_session_start(struct tls_session *s, struct buf *wire)
{
	struct buf none = {0};
	int rv = tls_session_receive(s, NULL, 0, &none, wire);

	buf_free(&none);
	return rv;
}

void tls_session_close(struct tls_session *s, struct buf *wire)
{
	if (s->state != SESSION_OPEN && s->state != SESSION_ENDED)
		return;
	ERR_clear_error();
	s->wire = wire;
	SSL_shutdown(s->ssl);
	s->wire = NULL;
	ERR_clear_error();
}

bool tls_session_established(const struct tls_session *s)
{
	return s->state == SESSION_OPEN || s->state == SESSION_ENDED;
}

size_t tls_session_pending(const struct tls_session *s)
{
	return s->pending.len;
}

const char *tls_session_error(const struct tls_session *s)
{
	return s->error ? s->error : "";
}

const char *tls_session_alpn(const struct tls_session *s)
{
	return s->alpn;
}

/* --- the peer --- */

/* Text of a certificate that fits and has no zero byte inside, else "". */
static void copy_text(const ASN1_STRING *from, char *to, size_t size)
{
	unsigned char *text = NULL;
	int len = ASN1_STRING_to_UTF8(&text, from);

	to[0] = '\0';
	if (len > 0 && (size_t)len < size && !memchr(text, 0, (size_t)len)) {
		memcpy(to, text, (size_t)len);
		to[len] = '\0';
	}
	OPENSSL_free(text);
	ERR_clear_error();
}

static void copy_common_name(const X509 *certificate, char *to, size_t size)
{
	const X509_NAME *subject = X509_get_subject_name(certificate);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	if (at >= 0)
		copy_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), to, size);
}

static void copy_uri(const X509 *certificate, char *to, size_t size)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type == GEN_URI) {
			copy_text(name->d.uniformResourceIdentifier, to, size);
			break;
		}
	}
	GENERAL_NAMES_free(names);
	ERR_clear_error();
}

static void copy_serial(const X509 *certificate, char *to, size_t size)
{
	uint8_t bytes[32];
	const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
	int len = ASN1_STRING_length(serial);

	to[0] = '\0';
	if (len > 0 && (size_t)len <= sizeof(bytes) && 2 * (size_t)len < size) {
		memcpy(bytes, ASN1_STRING_get0_data(serial), (size_t)len);
		hex_encode(bytes, (size_t)len, to);
	}
}

static int64_t not_after_ms(const X509 *certificate)
{
	struct tm end = {0};

	if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1)
		return 0;
	return (int64_t)timegm(&end) * 1000;
}

static const X509 *verified_certificate(const struct tls_session *s)
{
	if (!s->context->verify || s->forgotten || !tls_session_established(s) ||
	    SSL_get_verify_result(s->ssl) != X509_V_OK)
		return NULL;
	return SSL_get0_peer_certificate(s->ssl);
}

/* Who has come back with a ticket has no chain: which of the CAs has signed its certificate? */
static uint64_t signer_of(const struct tls_session *s, const X509 *certificate)
{
	X509_STORE *store = SSL_CTX_get_cert_store(SSL_get_SSL_CTX(s->ssl));
	STACK_OF(X509) *cas = X509_STORE_get1_all_certs(store);
	uint64_t id = 0;

	for (int i = 0; cas && id == 0 && i < sk_X509_num(cas); i++) {
		const X509 *ca = sk_X509_value(cas, i);

		if (X509_verify((X509 *)certificate, X509_get0_pubkey(ca)) == 1)
			id = ca_id(ca);
	}
	sk_X509_pop_free(cas, X509_free);
	ERR_clear_error();
	return id;
}

static uint64_t issuer_of(const struct tls_session *s, const X509 *certificate)
{
	const struct tls_cas *cas = &s->context->cas;
	STACK_OF(X509) *chain = SSL_get0_verified_chain(s->ssl);

	if (cas->count == 1)
		return cas->ids[0];
	for (int i = 1; chain && i < sk_X509_num(chain); i++)
		if (tls_cas_hold(cas, ca_id(sk_X509_value(chain, i))))
			return ca_id(sk_X509_value(chain, i));
	return signer_of(s, certificate);
}

void tls_session_peer(const struct tls_session *s, struct tls_peer *ret)
{
	const X509 *certificate = verified_certificate(s);
	uint8_t digest[32];

	*ret = (struct tls_peer){0};
	if (!certificate)
		return;
	ret->present = true;
	copy_common_name(certificate, ret->common_name, sizeof(ret->common_name));
	copy_serial(certificate, ret->serial, sizeof(ret->serial));
	copy_uri(certificate, ret->uri, sizeof(ret->uri));
	if (X509_digest(certificate, EVP_sha256(), digest, NULL) == 1)
		hex_encode(digest, sizeof(digest), ret->sha256);
	ret->issuer = issuer_of(s, certificate);
	ret->not_after_ms = not_after_ms(certificate);
}

/* OpenSSL keeps the certificate as long as the session and has no call to drop it, but this copy is
 * nobody else's, and what has been looked at can be taken out of it: all but some hundred bytes of
 * five thousand. Its key becomes another reference of our own. */
void tls_session_forget_peer(struct tls_session *s)
{
	X509 *certificate = SSL_get0_peer_certificate(s->ssl);
	X509_NAME *empty = certificate && !s->forgotten ? X509_NAME_new() : NULL;

	s->forgotten = true;
	if (!empty)
		return;
	X509_set_subject_name(certificate, empty);
	X509_set_issuer_name(certificate, empty);
	while (X509_get_ext_count(certificate) > 0)
		X509_EXTENSION_free(X509_delete_ext(certificate, 0));
	if (SSL_get_privatekey(s->ssl))
		X509_set_pubkey(certificate, SSL_get_privatekey(s->ssl));
	X509_NAME_free(empty);
	ERR_clear_error();
}

bool tls_session_resumed(const struct tls_session *s)
{
	return SSL_session_reused(s->ssl);
}

bool tls_session_peer_matches(const struct tls_session *s, const char *host)
{
	const X509 *certificate = verified_certificate(s);

	/* A leading dot would ask OpenSSL for "any name below". */
	if (!certificate || host[0] == '\0' || host[0] == '.')
		return false;
	bool matches = X509_check_host((X509 *)certificate, host, 0, 0, NULL) == 1;
	ERR_clear_error();
	return matches;
}

int tls_session_peer_leads_to(const struct tls_session *s, const char *sha256)
{
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(s->ssl);
	uint8_t digest[32];
	char hex[65];

	for (int i = 0; chain && i < sk_X509_num(chain); i++) {
		X509 *root = sk_X509_value(chain, i);

		if (X509_digest(root, EVP_sha256(), digest, NULL) != 1)
			continue;
		hex_encode(digest, sizeof(digest), hex);
		if (strcasecmp(hex, sha256) == 0)
			return leads_to_root(s, root) ? 0 : -EACCES;
	}
	return -ENOENT;
}
