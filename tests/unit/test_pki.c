/* Keys, certificates and requests, checked by OpenSSL's own verification. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/pki.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const int64_t NOW = 1795000000000; /* 2026-11-18 */
static const int64_t HOUR = 3600000;
static const int64_t DAY = 86400000;

struct ca {
	char *key;
	struct pki_signed cert;
};

static struct ca ca_make(void)
{
	struct ca ca = {0};

	assert_int_equal(pki_key_new(&ca.key), 0);
	assert_int_equal(pki_ca_new("QNet CA", ca.key, NOW, 3650, &ca.cert), 0);
	return ca;
}

static void ca_free(struct ca *ca)
{
	free(ca->key);
	pki_signed_free(&ca->cert);
}

static X509 *x509_of(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

	BIO_free(bio);
	assert_non_null(cert);
	return cert;
}

/* Does the chain verify for this purpose at this time? */
static int verifies(const char *ca_pem, const char *pem, int purpose, int64_t at_ms)
{
	X509 *ca = x509_of(ca_pem);
	X509 *cert = x509_of(pem);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();
	int ok;

	X509_STORE_add_cert(store, ca);
	X509_STORE_CTX_init(context, store, cert, NULL);
	X509_STORE_CTX_set_purpose(context, purpose);
	X509_STORE_CTX_set_time(context, 0, (time_t)(at_ms / 1000));
	X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(context), X509_V_FLAG_X509_STRICT);
	ok = X509_verify_cert(context);
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	X509_free(cert);
	X509_free(ca);
	return ok == 1;
}

static struct pki_sign sign_node(const struct ca *ca, const char *request)
{
	return (struct pki_sign){
		.ca_cert = ca->cert.pem,
		.ca_key = ca->key,
		.request = request,
		.request_len = strlen(request),
		.common_name = "board-1",
		.uri = "tiebreak:node/1",
		.use = PKI_NODE,
		.now_ms = NOW,
		.not_after_ms = NOW + 90 * DAY,
	};
}

static void test_ca(void **state)
{
	struct ca ca = ca_make();
	struct pki_signed other;
	char hex[65];
	char again[65];
	int64_t not_after;
	X509 *cert = x509_of(ca.cert.pem);

	(void)state;
	assert_int_equal(strlen(ca.cert.serial), 32);
	assert_int_equal(strspn(ca.cert.serial, "0123456789abcdef"), 32);
	assert_true(X509_check_ca(cert) == 1);
	assert_true(verifies(ca.cert.pem, ca.cert.pem, X509_PURPOSE_ANY, NOW - HOUR + 1000));
	assert_false(verifies(ca.cert.pem, ca.cert.pem, X509_PURPOSE_ANY, NOW - HOUR - 1000));
	assert_int_equal(ca.cert.not_after_ms, NOW + 3650 * DAY);
	assert_int_equal(pki_not_after_ms(ca.cert.pem, &not_after), 0);
	assert_int_equal(not_after, ca.cert.not_after_ms);
	assert_int_equal(pki_sha256(ca.cert.pem, hex), 0);
	assert_int_equal(strlen(hex), 64);
	/* The same name and key again: another certificate, another number. */
	assert_int_equal(pki_ca_new("QNet CA", ca.key, NOW, 3650, &other), 0);
	assert_string_not_equal(other.serial, ca.cert.serial);
	assert_int_equal(pki_sha256(other.pem, again), 0);
	assert_string_not_equal(hex, again);
	pki_signed_free(&other);
	/* Longer than X.509 allows: cut. */
	assert_int_equal(pki_ca_new("Tiebreak CA 34567890123456789012345678901234567890123456789012"
				    "345678901234567890",
				    ca.key, NOW, 1, &other),
			 0);
	pki_signed_free(&other);
	assert_int_equal(pki_ca_new("x", "no key", NOW, 1, &other), -EINVAL);
	assert_int_equal(pki_sha256("no certificate", hex), -EINVAL);
	assert_int_equal(pki_not_after_ms("", &not_after), -EINVAL);
	assert_int_equal(ERR_peek_error(), 0);
	X509_free(cert);
	ca_free(&ca);
}

static int bridged(const char *root, const char *bridge, const char *pem)
{
	X509 *ca = x509_of(root);
	X509 *between = x509_of(bridge);
	X509 *cert = x509_of(pem);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();
	STACK_OF(X509) *sent = sk_X509_new_null();
	int ok;

	X509_STORE_add_cert(store, ca);
	sk_X509_push(sent, between);
	X509_STORE_CTX_init(context, store, cert, sent);
	X509_STORE_CTX_set_time(context, 0, (time_t)(NOW / 1000));
	X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(context), X509_V_FLAG_X509_STRICT);
	ok = X509_verify_cert(context);
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	sk_X509_free(sent);
	X509_free(cert);
	X509_free(between);
	X509_free(ca);
	return ok == 1;
}

/* Who knows only the old CA believes what the new one signs, by the bridge and not without. */
static void test_bridge(void **state)
{
	struct ca old = ca_make();
	struct ca new = ca_make();
	struct ca stranger = ca_make();
	struct pki_signed made;
	struct pki_sign how;
	const char *message;
	char *bridge;
	char *request;
	char *key;
	char serial[64];

	(void)state;
	assert_int_equal(pki_key_new(&key), 0);
	assert_int_equal(pki_request_new("board-1", key, &request), 0);
	how = sign_node(&new, request);
	assert_int_equal(pki_sign(&how, &made, &message), 0);
	assert_int_equal(pki_bridge(old.cert.pem, old.key, new.cert.pem, NOW, &bridge), 0);
	assert_true(bridged(old.cert.pem, bridge, made.pem));
	assert_false(bridged(stranger.cert.pem, bridge, made.pem));
	assert_false(bridged(old.cert.pem, new.cert.pem, made.pem));
	assert_true(verifies(new.cert.pem, made.pem, X509_PURPOSE_SSL_SERVER, NOW));
	assert_false(verifies(old.cert.pem, made.pem, X509_PURPOSE_SSL_SERVER, NOW));
	assert_int_equal(pki_serial(made.pem, serial), 0);
	assert_string_equal(serial, made.serial);
	assert_int_equal(pki_serial("nonsense", serial), -EINVAL);
	free(bridge);
	/* Of another name it would be a step too many for the old CA's path length. */
	ca_free(&stranger);
	assert_int_equal(pki_key_new(&stranger.key), 0);
	assert_int_equal(pki_ca_new("Other CA", stranger.key, NOW, 3650, &stranger.cert), 0);
	assert_int_equal(pki_bridge(old.cert.pem, old.key, stranger.cert.pem, NOW, &bridge),
			 -EINVAL);
	pki_signed_free(&made);
	free(request);
	free(key);
	ca_free(&stranger);
	ca_free(&new);
	ca_free(&old);
}

/* The text is the number that is in the certificate: 16 bytes without a zero in front. */
static void test_serials(void **state)
{
	char *key;

	(void)state;
	assert_int_equal(pki_key_new(&key), 0);
	for (int i = 0; i < 32; i++) {
		struct pki_signed made;
		BIGNUM *number;
		char *hex;
		X509 *cert;

		assert_int_equal(pki_ca_new("x", key, NOW, 1, &made), 0);
		cert = x509_of(made.pem);
		number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
		hex = BN_bn2hex(number);
		assert_int_equal(strlen(made.serial), 32);
		assert_int_equal(strcasecmp(hex, made.serial), 0);
		assert_in_range(made.serial[0], '4', '7');
		OPENSSL_free(hex);
		BN_free(number);
		X509_free(cert);
		pki_signed_free(&made);
	}
	free(key);
}

static void test_uses(void **state)
{
	static const char *const dns[] = {"board.example", "b.example", NULL};
	static const struct {
		enum pki_use use;
		int server;
		int client;
	} cases[] = {
		{PKI_NODE, 1, 1},
		{PKI_CLIENT, 0, 1},
		{PKI_QNET_SERVER, 1, 0},
		{PKI_QNET_CLIENT, 0, 1},
	};
	struct ca ca = ca_make();
	struct ca stranger = ca_make();
	const char *message = NULL;
	char *request = NULL;
	char *key = NULL;

	(void)state;
	assert_int_equal(pki_key_new(&key), 0);
	assert_int_equal(pki_request_new("ignored", key, &request), 0);
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct pki_sign how = sign_node(&ca, request);
		struct pki_signed made;
		X509 *cert;

		how.use = cases[i].use;
		how.dns = dns;
		assert_int_equal(pki_sign(&how, &made, &message), 0);
		assert_int_equal(made.not_after_ms, NOW + 90 * DAY);
		assert_int_equal(verifies(ca.cert.pem, made.pem, X509_PURPOSE_SSL_SERVER, NOW),
				 cases[i].server);
		assert_int_equal(verifies(ca.cert.pem, made.pem, X509_PURPOSE_SSL_CLIENT, NOW),
				 cases[i].client);
		assert_false(verifies(ca.cert.pem, made.pem, X509_PURPOSE_ANY, NOW + 91 * DAY));
		assert_false(verifies(stranger.cert.pem, made.pem, X509_PURPOSE_ANY, NOW));
		cert = x509_of(made.pem);
		assert_int_equal(X509_check_host(cert, "b.example", 0, 0, NULL), 1);
		assert_int_equal(X509_check_host(cert, "ignored", 0, 0, NULL), 0);
		X509_free(cert);
		pki_signed_free(&made);
	}
	free(request);
	free(key);
	ca_free(&ca);
	ca_free(&stranger);
}

/* The common name names a site or the QNet server when there is no other name. */
static void test_common_name(void **state)
{
	struct ca ca = ca_make();
	const char *message;
	char *request;
	char *key;
	struct pki_signed made;
	struct pki_sign how;
	X509 *cert;

	(void)state;
	assert_int_equal(pki_key_new(&key), 0);
	assert_int_equal(pki_request_new("x", key, &request), 0);
	how = sign_node(&ca, request);
	how.use = PKI_QNET_SERVER;
	how.common_name = "Qnetd Server";
	how.uri = NULL;
	how.not_after_ms = NOW + 100000 * DAY;
	assert_int_equal(pki_sign(&how, &made, &message), 0);
	/* Nothing lives longer than its CA. */
	assert_int_equal(made.not_after_ms, ca.cert.not_after_ms);
	cert = x509_of(made.pem);
	assert_int_equal(X509_check_host(cert, "Qnetd Server", 0, 0, NULL), 1);
	X509_free(cert);
	pki_signed_free(&made);
	how.common_name = "";
	assert_int_equal(pki_sign(&how, &made, &message), -EINVAL);
	how.common_name = "\xff";
	assert_int_equal(pki_sign(&how, &made, &message), -EINVAL);
	free(request);
	free(key);
	ca_free(&ca);
}

static char *request_for(EVP_PKEY *key, int der, size_t *ret_len)
{
	X509_REQ *request = X509_REQ_new();
	BIO *bio = BIO_new(BIO_s_mem());
	char *data;
	char *copy;

	X509_REQ_set_pubkey(request, key);
	X509_REQ_sign(request, key, EVP_sha256());
	if (der)
		i2d_X509_REQ_bio(bio, request);
	else
		PEM_write_bio_X509_REQ_NEW(bio, request);
	*ret_len = (size_t)BIO_get_mem_data(bio, &data);
	copy = mem_strndup(data, *ret_len);
	BIO_free(bio);
	X509_REQ_free(request);
	return copy;
}

static void test_request_keys(void **state)
{
	struct {
		EVP_PKEY *key;
		int node;
		int site;
	} cases[] = {
		{EVP_EC_gen("P-256"), 0, 0},
		{EVP_EC_gen("P-384"), 0, 0},
		{EVP_EC_gen("secp256k1"), -EINVAL, -EINVAL},
		{EVP_RSA_gen(2048), -EINVAL, 0},
		{EVP_RSA_gen(1024), -EINVAL, -EINVAL},
	};
	struct ca ca = ca_make();

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		for (int der = 0; der < 2; der++) {
			const char *message = "";
			size_t len;
			char *request = request_for(cases[i].key, der, &len);
			struct pki_sign how = sign_node(&ca, "");
			struct pki_signed made = {0};

			how.request = request;
			how.request_len = len;
			assert_int_equal(pki_sign(&how, &made, &message), cases[i].node);
			pki_signed_free(&made);
			how.use = PKI_QNET_CLIENT;
			assert_int_equal(pki_sign(&how, &made, &message), cases[i].site);
			if (cases[i].site != 0)
				assert_non_null(strstr(message, "RSA of 2048"));
			pki_signed_free(&made);
			free(request);
		}
		EVP_PKEY_free(cases[i].key);
	}
	ca_free(&ca);
}

static void test_bad_requests(void **state)
{
	static const char *const texts[] = {
		"",
		"-----BEGIN CERTIFICATE REQUEST-----\n",
		"-----BEGIN CERTIFICATE REQUEST-----\nMAAA\n-----END CERTIFICATE REQUEST-----\n",
		/* Would ask at the terminal. */
		"-----BEGIN CERTIFICATE REQUEST-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: "
		"AES-128-CBC,"
		"00112233445566778899AABBCCDDEEFF\n\nMAAA\n-----END CERTIFICATE REQUEST-----\n",
	};
	struct ca ca = ca_make();
	const char *message = "";
	struct pki_signed made;
	struct pki_sign how;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	size_t len;
	char *request;
	char *long_request = mem_zalloc(20000);

	(void)state;
	for (size_t i = 0; i < COUNT(texts); i++) {
		how = sign_node(&ca, texts[i]);
		assert_int_equal(pki_sign(&how, &made, &message), -EINVAL);
		assert_non_null(strstr(message, "PKCS#10"));
		assert_int_equal(ERR_peek_error(), 0);
	}
	/* Each byte of the signature counts. */
	request = request_for(key, 1, &len);
	request[len - 1] ^= 1;
	how.request = request;
	how.request_len = len;
	assert_int_equal(pki_sign(&how, &made, &message), -EINVAL);
	assert_non_null(strstr(message, "signature"));
	assert_int_equal(ERR_peek_error(), 0);
	request[len - 1] ^= 1;
	assert_int_equal(pki_sign(&how, &made, &message), 0);
	pki_signed_free(&made);
	/* What follows a request does no harm, but there is a limit to it. */
	memcpy(long_request, request, len);
	how.request = long_request;
	how.request_len = 16384;
	assert_int_equal(pki_sign(&how, &made, &message), 0);
	pki_signed_free(&made);
	how.request_len = 16385;
	assert_int_equal(pki_sign(&how, &made, &message), -EINVAL);
	how.request = request;
	/* Any cut is refused. */
	for (size_t cut = 0; cut < len; cut++) {
		how.request_len = cut;
		assert_int_equal(pki_sign(&how, &made, &message), -EINVAL);
	}
	how.request_len = len;
	how.ca_key = "no key";
	assert_int_equal(pki_sign(&how, &made, &message), -EINVAL);
	assert_non_null(strstr(message, "CA"));
	free(long_request);
	free(request);
	EVP_PKEY_free(key);
	ca_free(&ca);
}

static void test_der_and_pkcs12(void **state)
{
	struct ca ca = ca_make();
	struct ca other = ca_make();
	const char *message = "";
	char *request;
	char *key;
	struct pki_signed made;
	struct pki_sign how;
	struct buf der = {0};
	struct buf file = {0};
	const unsigned char *at;
	PKCS12 *p12;
	EVP_PKEY *read_key = NULL;
	X509 *read_cert = NULL;
	STACK_OF(X509) *read_ca = NULL;
	int len;

	(void)state;
	assert_int_equal(pki_key_new(&key), 0);
	assert_int_equal(pki_request_new("site-a", key, &request), 0);
	how = sign_node(&ca, request);
	how.use = PKI_QNET_CLIENT;
	assert_int_equal(pki_sign(&how, &made, &message), 0);

	assert_int_equal(pki_der(made.pem, &der), 0);
	at = der.data;
	read_cert = d2i_X509(NULL, &at, (long)der.len);
	assert_non_null(read_cert);
	assert_ptr_equal(at, der.data + der.len);
	X509_free(read_cert);
	assert_int_equal(pki_der("no", &der), -EINVAL);

	assert_int_equal(pki_pkcs12(made.pem, key, ca.cert.pem, "Cluster Cert", &file, &message),
			 0);
	at = file.data;
	p12 = d2i_PKCS12(NULL, &at, (long)file.len);
	assert_non_null(p12);
	read_cert = NULL;
	assert_int_equal(PKCS12_parse(p12, "", &read_key, &read_cert, &read_ca), 1);
	assert_int_equal(X509_check_private_key(read_cert, read_key), 1);
	assert_string_equal((const char *)X509_alias_get0(read_cert, &len), "Cluster Cert");
	assert_int_equal(sk_X509_num(read_ca), 1);
	assert_int_equal(pki_pkcs12(made.pem, other.key, ca.cert.pem, "x", &file, &message),
			 -EINVAL);

	sk_X509_pop_free(read_ca, X509_free);
	X509_free(read_cert);
	EVP_PKEY_free(read_key);
	PKCS12_free(p12);
	buf_free(&der);
	buf_free(&file);
	pki_signed_free(&made);
	free(request);
	free(key);
	ca_free(&ca);
	ca_free(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ca),	     cmocka_unit_test(test_serials),
		cmocka_unit_test(test_bridge),	     cmocka_unit_test(test_uses),
		cmocka_unit_test(test_common_name),  cmocka_unit_test(test_request_keys),
		cmocka_unit_test(test_bad_requests), cmocka_unit_test(test_der_and_pkcs12),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
