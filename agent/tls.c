#include "agent/tls.h"

#include <errno.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/oid.h>
#include <mbedtls/pk.h>
#include <mbedtls/sha256.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>
#include <mbedtls/x509_csr.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "lib/hex.h"
#include "lib/mem.h"

enum { PEM_MAX = 4096 };

struct tls_identity {
	mbedtls_entropy_context entropy;
	mbedtls_ctr_drbg_context random;
	mbedtls_x509_crt certificate;
	mbedtls_x509_crt ca;
	mbedtls_pk_context key;
	mbedtls_ssl_config config;
	const char *alpn[2];
};

struct tls_link {
	mbedtls_ssl_context ssl;
	mbedtls_net_context net;
	mbedtls_x509_crt *ca; /* NULL: the board is not verified here */
	int wants_write;
	char error[160];
};

void tls_identity_free(struct tls_identity *id)
{
	if (id == NULL)
		return;
	mbedtls_ssl_config_free(&id->config);
	mbedtls_pk_free(&id->key);
	mbedtls_x509_crt_free(&id->ca);
	mbedtls_x509_crt_free(&id->certificate);
	mbedtls_ctr_drbg_free(&id->random);
	mbedtls_entropy_free(&id->entropy);
	free(id);
}

static int pem_read(mbedtls_x509_crt *crt, const char *pem)
{
	return mbedtls_x509_crt_parse(crt, (const unsigned char *)pem, strlen(pem) + 1);
}

/* 0, or -EINVAL and what is wrong. */
static int identity_read(struct tls_identity *id, const char *certificate, const char *key,
			 const char *ca, const char **ret_why)
{
	if (ca != NULL && pem_read(&id->ca, ca) != 0) {
		*ret_why = "the CA of the boards is no certificate (PEM)";
		return -EINVAL;
	}
	if (certificate == NULL)
		return 0;
	if (pem_read(&id->certificate, certificate) != 0) {
		*ret_why = "the certificate is none (PEM)";
		return -EINVAL;
	}
	if (mbedtls_pk_parse_key(&id->key, (const unsigned char *)key, strlen(key) + 1, NULL, 0) !=
	    0) {
		*ret_why = "the key is none (PEM, without a password)";
		return -EINVAL;
	}
	if (mbedtls_pk_check_pair(&id->certificate.pk, &id->key) != 0) {
		*ret_why = "the key is not the certificate's; enrol again";
		return -EINVAL;
	}
	return 0;
}

static void identity_configure(struct tls_identity *id, bool own, bool verify)
{
	mbedtls_ssl_config *c = &id->config;

	mbedtls_ssl_config_defaults(c, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
				    MBEDTLS_SSL_PRESET_DEFAULT);
	mbedtls_ssl_conf_min_version(c, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
	mbedtls_ssl_conf_rng(c, mbedtls_ctr_drbg_random, &id->random);
	/* The boards' certificates are for boards (extended key usage) of this CA; which of them
	 * answers does not matter, so that no name is compared. */
	mbedtls_ssl_conf_authmode(c,
				  verify ? MBEDTLS_SSL_VERIFY_OPTIONAL : MBEDTLS_SSL_VERIFY_NONE);
	mbedtls_ssl_conf_ca_chain(c, &id->ca, NULL);
	mbedtls_ssl_conf_session_tickets(c, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
	if (own)
		mbedtls_ssl_conf_own_cert(c, &id->certificate, &id->key);
}

int tls_identity_new(const char *certificate, const char *key, const char *ca,
		     struct tls_identity **ret, const char **ret_why)
{
	struct tls_identity *id = mem_zalloc(sizeof(*id));

	mbedtls_entropy_init(&id->entropy);
	mbedtls_ctr_drbg_init(&id->random);
	mbedtls_x509_crt_init(&id->certificate);
	mbedtls_x509_crt_init(&id->ca);
	mbedtls_pk_init(&id->key);
	mbedtls_ssl_config_init(&id->config);
	if (mbedtls_ctr_drbg_seed(&id->random, mbedtls_entropy_func, &id->entropy, NULL, 0) != 0)
		*ret_why = "the system gives no random numbers";
	else if (identity_read(id, certificate, key, ca, ret_why) == 0) {
		identity_configure(id, certificate != NULL, ca != NULL);
		*ret = id;
		return 0;
	}
	tls_identity_free(id);
	return -EINVAL;
}

/* --- a connection --- */

/* mbed TLS's own writes with a signal when the board has gone, which is not a library's to do. */
static int socket_send(void *arg, const unsigned char *data, size_t len)
{
	ssize_t sent = send(((mbedtls_net_context *)arg)->fd, data, len, MSG_NOSIGNAL);

	if (sent >= 0)
		return (int)sent;
	if (errno == EAGAIN || errno == EINTR)
		return MBEDTLS_ERR_SSL_WANT_WRITE;
	return errno == EPIPE || errno == ECONNRESET ? MBEDTLS_ERR_NET_CONN_RESET
						     : MBEDTLS_ERR_NET_SEND_FAILED;
}

struct tls_link *tls_link_new(struct tls_identity *id, int fd, const char *alpn)
{
	struct tls_link *t = mem_zalloc(sizeof(*t));

	id->alpn[0] = alpn;
	mbedtls_ssl_conf_alpn_protocols(&id->config, id->alpn);
	mbedtls_ssl_init(&t->ssl);
	if (mbedtls_ssl_setup(&t->ssl, &id->config) != 0)
		abort(); /* out of memory, as in mem_alloc */
	t->net.fd = fd;
	t->ca = id->ca.version != 0 ? &id->ca : NULL;
	mbedtls_ssl_set_bio(&t->ssl, &t->net, socket_send, mbedtls_net_recv, NULL);
	return t;
}

void tls_link_free(struct tls_link *t)
{
	if (t == NULL)
		return;
	mbedtls_ssl_free(&t->ssl);
	free(t);
}

static void verify_error(struct tls_link *t, uint32_t flags)
{
	const char *what = "it is not signed by this cluster's CA";

	if ((flags & MBEDTLS_X509_BADCERT_EXPIRED) != 0)
		what = "it has expired, or this node's clock is ahead";
	else if ((flags & MBEDTLS_X509_BADCERT_FUTURE) != 0)
		what = "it is not valid yet: this node's clock is behind";
	else if ((flags & MBEDTLS_X509_BADCERT_EXT_KEY_USAGE) != 0)
		what = "it is not a board's";
	snprintf(t->error, sizeof(t->error), "the board's certificate is refused: %s", what);
}

/* Our codes for those of the library. */
static int translate(struct tls_link *t, int rv)
{
	char text[100];

	t->wants_write = rv == MBEDTLS_ERR_SSL_WANT_WRITE;
	if (rv == MBEDTLS_ERR_SSL_WANT_READ || rv == MBEDTLS_ERR_SSL_WANT_WRITE)
		return -EAGAIN;
	if (rv == MBEDTLS_ERR_NET_CONN_RESET) {
		snprintf(t->error, sizeof(t->error), "the board has closed the connection");
		return -ECONNRESET;
	}
	if (rv == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE) {
		snprintf(t->error, sizeof(t->error),
			 "the board refuses this node's certificate; was it revoked or has it "
			 "expired?");
		return -EACCES;
	}
	mbedtls_strerror(rv, text, sizeof(text));
	snprintf(t->error, sizeof(t->error), "TLS failed: %s", text);
	return -EPROTO;
}

/* `timeless`: the clock of a new node may be wrong; what matters is who signed it. */
static bool signed_by(const mbedtls_x509_crt *crt, mbedtls_x509_crt *ca, bool timeless)
{
	uint32_t flags = 0;
	int rv = mbedtls_x509_crt_verify((mbedtls_x509_crt *)crt, ca, NULL, NULL, &flags, NULL,
					 NULL);

	if (timeless)
		flags &= ~(uint32_t)(MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
	return rv == 0 || (rv == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED && flags == 0);
}

/* During a rotation of the CA the board's certificate is of the new one, and a bridge comes with
 * it: the new CA's key signed by the old CA, under the same name. RFC 5280 (4.2.1.9) does not count
 * such a self-issued certificate in the length of the path; mbed TLS 2.28 does, so it is looked at
 * here. */
static bool bridged(const mbedtls_x509_crt *leaf, mbedtls_x509_crt *ca, bool timeless)
{
	for (const mbedtls_x509_crt *at = leaf != NULL ? leaf->next : NULL; at != NULL;
	     at = at->next) {
		mbedtls_x509_crt ends[2];
		bool good;

		if (!at->ca_istrue || at->subject_raw.len != at->issuer_raw.len ||
		    memcmp(at->subject_raw.p, at->issuer_raw.p, at->subject_raw.len) != 0)
			continue;
		/* Each alone, without what else the board has sent. */
		mbedtls_x509_crt_init(&ends[0]);
		mbedtls_x509_crt_init(&ends[1]);
		good = mbedtls_x509_crt_parse_der(&ends[0], leaf->raw.p, leaf->raw.len) == 0 &&
		       mbedtls_x509_crt_parse_der(&ends[1], at->raw.p, at->raw.len) == 0 &&
		       signed_by(&ends[0], &ends[1], timeless) && signed_by(&ends[1], ca, timeless);
		mbedtls_x509_crt_free(&ends[0]);
		mbedtls_x509_crt_free(&ends[1]);
		if (good)
			return true;
	}
	return false;
}

static int board_verify(struct tls_link *t)
{
	uint32_t flags = mbedtls_ssl_get_verify_result(&t->ssl);

	if (t->ca == NULL || flags == 0 ||
	    (flags == MBEDTLS_X509_BADCERT_NOT_TRUSTED &&
	     bridged(mbedtls_ssl_get_peer_cert(&t->ssl), t->ca, false)))
		return 0;
	verify_error(t, flags);
	return -EACCES;
}

int tls_link_handshake(struct tls_link *t)
{
	int rv = mbedtls_ssl_handshake(&t->ssl);

	t->wants_write = 0;
	if (rv != 0) {
		uint32_t flags = mbedtls_ssl_get_verify_result(&t->ssl);

		rv = translate(t, rv);
		/* A stranger refuses us as we refuse it; ours is the reason that helps. */
		if (rv != -EAGAIN && t->ca != NULL && flags != 0 && flags != UINT32_MAX)
			verify_error(t, flags);
		return rv;
	}
	if (board_verify(t) != 0)
		return -EACCES;
	if (mbedtls_ssl_get_alpn_protocol(&t->ssl) == NULL) {
		snprintf(t->error, sizeof(t->error),
			 "it does not speak the agent's protocol; is it a board, and of this "
			 "release?");
		return -EPROTO;
	}
	return 0;
}

int tls_link_wants_write(const struct tls_link *t)
{
	return t->wants_write;
}

int tls_link_read(struct tls_link *t, void *data, size_t len)
{
	int rv = mbedtls_ssl_read(&t->ssl, data, len);

	if (rv > 0)
		return rv;
	if (rv == 0 || rv == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || rv == MBEDTLS_ERR_SSL_CONN_EOF) {
		snprintf(t->error, sizeof(t->error), "the board has closed the connection");
		return 0;
	}
	return translate(t, rv);
}

int tls_link_write(struct tls_link *t, const void *data, size_t len)
{
	int rv = mbedtls_ssl_write(&t->ssl, data, len);

	return rv >= 0 ? rv : translate(t, rv);
}

const char *tls_link_error(const struct tls_link *t)
{
	return t->error;
}

/* --- enrolment --- */

static void der_sha256(const mbedtls_x509_crt *crt, char hex[65])
{
	unsigned char digest[32];

	mbedtls_sha256_ret(crt->raw.p, crt->raw.len, digest, 0);
	hex_encode(digest, sizeof(digest), hex);
}

int tls_link_has_root(struct tls_link *t, const char *sha256)
{
	const mbedtls_x509_crt *chain = mbedtls_ssl_get_peer_cert(&t->ssl);
	char hex[65];

	for (const mbedtls_x509_crt *at = chain; at != NULL; at = at->next) {
		mbedtls_x509_crt root;
		bool good;

		der_sha256(at, hex);
		if (strcasecmp(hex, sha256) != 0)
			continue;
		mbedtls_x509_crt_init(&root);
		good = mbedtls_x509_crt_parse_der(&root, at->raw.p, at->raw.len) == 0 &&
		       (signed_by(chain, &root, true) || bridged(chain, &root, true)) &&
		       mbedtls_x509_crt_check_extended_key_usage(
			       chain, MBEDTLS_OID_SERVER_AUTH,
			       MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH)) == 0;
		mbedtls_x509_crt_free(&root);
		return good ? 0 : -EACCES;
	}
	return -EACCES;
}

int tls_key_new(struct tls_identity *id, const char *common_name, char **ret_key,
		char **ret_request)
{
	char *subject = mem_printf("CN=%s", common_name);
	unsigned char *key = mem_zalloc(PEM_MAX);
	unsigned char *request = mem_zalloc(PEM_MAX);
	mbedtls_x509write_csr csr;
	mbedtls_pk_context pk;
	int rv;

	mbedtls_pk_init(&pk);
	mbedtls_x509write_csr_init(&csr);
	rv = mbedtls_pk_setup(&pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));
	if (rv == 0)
		rv = mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(pk),
					 mbedtls_ctr_drbg_random, &id->random);
	if (rv == 0)
		rv = mbedtls_pk_write_key_pem(&pk, key, PEM_MAX);
	mbedtls_x509write_csr_set_key(&csr, &pk);
	mbedtls_x509write_csr_set_md_alg(&csr, MBEDTLS_MD_SHA256);
	if (rv == 0)
		rv = mbedtls_x509write_csr_set_subject_name(&csr, subject);
	if (rv == 0)
		rv = mbedtls_x509write_csr_pem(&csr, request, PEM_MAX, mbedtls_ctr_drbg_random,
					       &id->random);
	mbedtls_x509write_csr_free(&csr);
	mbedtls_pk_free(&pk);
	free(subject);
	if (rv == 0) {
		*ret_key = (char *)key;
		*ret_request = (char *)request;
		return 0;
	}
	mem_wipe(key, PEM_MAX);
	free(key);
	free(request);
	return -EIO;
}

static int64_t time_ms(const mbedtls_x509_time *t)
{
	struct tm when = {.tm_year = t->year - 1900,
			  .tm_mon = t->mon - 1,
			  .tm_mday = t->day,
			  .tm_hour = t->hour,
			  .tm_min = t->min,
			  .tm_sec = t->sec};

	return (int64_t)timegm(&when) * 1000;
}

int tls_pem_life(const char *pem, int64_t *ret_issued_ms, int64_t *ret_not_after_ms)
{
	mbedtls_x509_crt crt;
	int rv;

	mbedtls_x509_crt_init(&crt);
	rv = pem_read(&crt, pem);
	if (rv == 0) {
		*ret_issued_ms = time_ms(&crt.valid_from);
		*ret_not_after_ms = time_ms(&crt.valid_to);
	}
	mbedtls_x509_crt_free(&crt);
	return rv == 0 ? 0 : -EINVAL;
}
