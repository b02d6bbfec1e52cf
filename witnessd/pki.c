#include "witnessd/pki.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/hex.h"
#include "lib/mem.h"
#include "lib/renewal.h"
#include "lib/rng.h"
#include "lib/text.h"

enum {
	SERIAL_LEN = 16,
	COMMON_NAME_MAX = 64, /* bytes; X.520 upper bound of a common name */
	REQUEST_MAX = 16384, /* bytes of a request, PEM or DER */
	RSA_BITS_MIN = 2048,
	RSA_BITS_MAX = 8192,
};

/* What OpenSSL left in the thread's error queue would be taken for an error of the next TLS call.
 */
static int fail(int code, const char **ret_message, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(int code, const char **ret_message, const char *format, ...)
{
	static _Thread_local char message[256];
	va_list args;

	ERR_clear_error();
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	if (ret_message != NULL)
		*ret_message = message;
	return code;
}

/* OpenSSL refused what it should not: no memory, no random numbers, a broken build. */
static int fail_openssl(const char **ret_message, const char *what)
{
	char reason[128];

	ERR_error_string_n(ERR_peek_error(), reason, sizeof(reason));
	return fail(-EIO, ret_message, "OpenSSL could not %s: %s", what, reason);
}

void pki_signed_free(struct pki_signed *s)
{
	free(s->pem);
	*s = (struct pki_signed){0};
}

/* --- text and bytes --- */

/* Without it, OpenSSL asks at the terminal for the password of an encrypted PEM text. */
static char no_password[] = "";

static BIO *bio_of(const void *data, size_t len)
{
	BIO *bio = len <= INT_MAX ? BIO_new_mem_buf(data, (int)len) : NULL;

	assert(bio != NULL);
	return bio;
}

static BIO *bio_empty(void)
{
	BIO *bio = BIO_new(BIO_s_mem());

	assert(bio != NULL);
	return bio;
}

/* The text that was written; frees the BIO, which wipes its copy. */
static char *bio_text(BIO *bio)
{
	char *data;
	long len = BIO_get_mem_data(bio, &data);
	char *text = mem_strndup(data, (size_t)len);

	BIO_free(bio);
	return text;
}

static EVP_PKEY *key_read(const char *pem)
{
	BIO *bio = bio_of(pem, strlen(pem));
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, no_password);

	BIO_free(bio);
	ERR_clear_error();
	return key;
}

static X509 *certificate_read(const char *pem)
{
	BIO *bio = bio_of(pem, strlen(pem));
	X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, no_password);

	BIO_free(bio);
	ERR_clear_error();
	return cert;
}

static X509_REQ *request_read(const void *data, size_t len)
{
	const unsigned char *der = data;
	BIO *bio = bio_of(data, len);
	X509_REQ *request = PEM_read_bio_X509_REQ(bio, NULL, NULL, no_password);

	BIO_free(bio);
	if (request == NULL)
		request = d2i_X509_REQ(NULL, &der, (long)len);
	ERR_clear_error();
	return request;
}

static int64_t time_ms(const ASN1_TIME *time)
{
	struct tm tm;
	int ok = ASN1_TIME_to_tm(time, &tm);

	return ok == 1 ? (int64_t)timegm(&tm) * 1000 : 0;
}

/* --- parts of a certificate --- */

static bool name_set(X509_NAME *name, const char *common_name)
{
	size_t len = strlen(common_name);

	/* Given as what it is, not as a text to be converted to the smallest type. */
	return X509_NAME_add_entry_by_NID(name, NID_commonName, V_ASN1_UTF8STRING,
					  (const unsigned char *)common_name, (int)len, -1, 0) == 1;
}

static bool common_name_is_valid(const char *common_name)
{
	size_t len = strlen(common_name);

	return len > 0 && len <= COMMON_NAME_MAX && text_is_utf8(common_name, len);
}

/* 16 bytes whatever the random numbers: positive, and no leading zero that a printer drops. */
static bool serial_set(X509 *cert, char text[64])
{
	uint8_t serial[SERIAL_LEN];
	BIGNUM *number;
	bool ok;

	rng_fill(serial, sizeof(serial));
	serial[0] = (serial[0] & 0x7f) | 0x40;
	number = BN_bin2bn(serial, sizeof(serial), NULL);
	ok = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL;
	BN_free(number);
	hex_encode(serial, sizeof(serial), text);
	return ok;
}

static bool validity_set(X509 *cert, int64_t now_ms, int64_t not_after_ms)
{
	return ASN1_TIME_set(X509_getm_notBefore(cert), (now_ms - RENEWAL_BACKDATE_MS) / 1000) !=
		       NULL &&
	       ASN1_TIME_set(X509_getm_notAfter(cert), not_after_ms / 1000) != NULL;
}

/* `value` in OpenSSL's configuration language: constants of ours only, it has an escape for
 * everything. */
static bool extension_add(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	bool ok;

	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	ok = extension != NULL && X509_add_ext(cert, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return ok;
}

static bool general_name_add(GENERAL_NAMES *names, int type, const char *text)
{
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *value = ASN1_IA5STRING_new();

	if (name == NULL || value == NULL || ASN1_STRING_set(value, text, -1) != 1) {
		GENERAL_NAME_free(name);
		ASN1_IA5STRING_free(value);
		return false;
	}
	GENERAL_NAME_set0_value(name, type, value);
	if (sk_GENERAL_NAME_push(names, name) > 0)
		return true;
	GENERAL_NAME_free(name);
	return false;
}

static bool alternative_names_add(X509 *cert, const struct pki_sign *how)
{
	GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	bool ok = names != NULL;

	if (ok && how->uri != NULL)
		ok = general_name_add(names, GEN_URI, how->uri);
	for (const char *const *dns = how->dns; ok && dns != NULL && *dns != NULL; dns++)
		ok = general_name_add(names, GEN_DNS, *dns);
	if (ok && sk_GENERAL_NAME_num(names) > 0)
		ok = X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) ==
		     1;
	GENERAL_NAMES_free(names);
	return ok;
}

static void signed_fill(X509 *cert, struct pki_signed *ret)
{
	BIO *bio = bio_empty();

	PEM_write_bio_X509(bio, cert);
	ret->pem = bio_text(bio);
	ret->not_after_ms = time_ms(X509_get0_notAfter(cert));
}

/* --- making --- */

int pki_key_new(char **ret_key)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	BIO *bio;

	if (key == NULL)
		return fail_openssl(NULL, "make a key");
	bio = bio_empty();
	PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
	*ret_key = bio_text(bio);
	EVP_PKEY_free(key);
	return 0;
}

static bool ca_fill(X509 *cert, EVP_PKEY *key, const char *common_name, int64_t now_ms,
		    unsigned days, struct pki_signed *ret)
{
	char name[COMMON_NAME_MAX + 1];

	/* The name is for people; a long one is cut. */
	snprintf(name, sizeof(name), "%s", common_name);
	return X509_set_version(cert, X509_VERSION_3) == 1 && serial_set(cert, ret->serial) &&
	       validity_set(cert, now_ms, now_ms + (int64_t)days * 86400000) &&
	       name_set(X509_get_subject_name(cert), name) &&
	       X509_set_issuer_name(cert, X509_get_subject_name(cert)) == 1 &&
	       X509_set_pubkey(cert, key) == 1 &&
	       extension_add(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
	       extension_add(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
	       extension_add(cert, cert, NID_subject_key_identifier, "hash") &&
	       X509_sign(cert, key, EVP_sha256()) > 0;
}

int pki_ca_new(const char *common_name, const char *key_pem, int64_t now_ms, unsigned days,
	       struct pki_signed *ret)
{
	EVP_PKEY *key = key_read(key_pem);
	struct pki_signed made = {0};
	X509 *cert;
	int rv = 0;

	if (key == NULL)
		return fail(-EINVAL, NULL, "the key cannot be read");
	cert = X509_new();
	if (cert == NULL || !ca_fill(cert, key, common_name, now_ms, days, &made)) {
		rv = fail_openssl(NULL, "make a CA certificate");
	} else {
		signed_fill(cert, &made);
		*ret = made;
	}
	X509_free(cert);
	EVP_PKEY_free(key);
	return rv;
}

int pki_request_new(const char *common_name, const char *key_pem, char **ret_request)
{
	EVP_PKEY *key = key_read(key_pem);
	X509_REQ *request;
	int rv = 0;

	if (key == NULL || !common_name_is_valid(common_name)) {
		EVP_PKEY_free(key);
		return fail(-EINVAL, NULL, "the key or the name cannot be used");
	}
	request = X509_REQ_new();
	if (request == NULL || X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1 ||
	    !name_set(X509_REQ_get_subject_name(request), common_name) ||
	    X509_REQ_set_pubkey(request, key) != 1 ||
	    X509_REQ_sign(request, key, EVP_sha256()) <= 0) {
		rv = fail_openssl(NULL, "make a request");
	} else {
		BIO *bio = bio_empty();

		PEM_write_bio_X509_REQ(bio, request);
		*ret_request = bio_text(bio);
	}
	X509_REQ_free(request);
	EVP_PKEY_free(key);
	return rv;
}

static bool bridge_fill(X509 *cert, X509 *old_ca, EVP_PKEY *old_key, X509 *new_ca, int64_t now_ms)
{
	char serial[64];

	return X509_set_version(cert, X509_VERSION_3) == 1 && serial_set(cert, serial) &&
	       validity_set(cert, now_ms, time_ms(X509_get0_notAfter(old_ca))) &&
	       X509_set_subject_name(cert, X509_get_subject_name(new_ca)) == 1 &&
	       X509_set_issuer_name(cert, X509_get_subject_name(old_ca)) == 1 &&
	       X509_set_pubkey(cert, X509_get0_pubkey(new_ca)) == 1 &&
	       extension_add(cert, old_ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
	       extension_add(cert, old_ca, NID_key_usage, "critical,keyCertSign,cRLSign") &&
	       extension_add(cert, old_ca, NID_subject_key_identifier, "hash") &&
	       extension_add(cert, old_ca, NID_authority_key_identifier, "keyid:always") &&
	       X509_sign(cert, old_key, EVP_sha256()) > 0;
}

int pki_bridge(const char *old_ca_pem, const char *old_key_pem, const char *new_ca_pem,
	       int64_t now_ms, char **ret_pem)
{
	X509 *old_ca = certificate_read(old_ca_pem);
	EVP_PKEY *old_key = key_read(old_key_pem);
	X509 *new_ca = certificate_read(new_ca_pem);
	struct pki_signed made = {0};
	X509 *cert = NULL;
	int rv = 0;

	/* Of the same name, it is self-issued and no step of the path that the old CA forbids. */
	if (old_ca == NULL || old_key == NULL || new_ca == NULL ||
	    X509_NAME_cmp(X509_get_subject_name(old_ca), X509_get_subject_name(new_ca)) != 0) {
		rv = fail(-EINVAL, NULL, "the CAs' certificates and key cannot be used");
		goto out;
	}
	cert = X509_new();
	if (cert == NULL || !bridge_fill(cert, old_ca, old_key, new_ca, now_ms)) {
		rv = fail_openssl(NULL, "sign a CA certificate");
	} else {
		signed_fill(cert, &made);
		*ret_pem = made.pem;
	}
out:
	X509_free(cert);
	X509_free(new_ca);
	EVP_PKEY_free(old_key);
	X509_free(old_ca);
	return rv;
}

/* --- signing --- */

static const struct {
	const char *key_usage;
	const char *extended;
	bool rsa; /* NSS tools make RSA requests */
} uses[] = {
	[PKI_NODE] = {"critical,digitalSignature", "serverAuth,clientAuth", false},
	[PKI_CLIENT] = {"critical,digitalSignature", "clientAuth", false},
	[PKI_QNET_SERVER] = {"critical,digitalSignature", "serverAuth", false},
	[PKI_QNET_CLIENT] = {"critical,digitalSignature,keyEncipherment", "clientAuth", true},
};

static int check_key(EVP_PKEY *key, bool rsa, const char **ret_message)
{
	char group[32];
	int bits = EVP_PKEY_get_bits(key);

	if (EVP_PKEY_is_a(key, "EC") &&
	    EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1 &&
	    (strcmp(group, "prime256v1") == 0 || strcmp(group, "secp384r1") == 0))
		return 0;
	if (rsa && EVP_PKEY_is_a(key, "RSA") && bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX)
		return 0;
	return fail(-EINVAL, ret_message,
		    rsa ? "the request's key must be EC P-256 or P-384, or RSA of 2048 to 8192 bits"
			: "the request's key must be EC P-256 or P-384");
}

/* The key of the request; its holder has signed it. */
static int request_key(const struct pki_sign *how, EVP_PKEY **ret, const char **ret_message)
{
	X509_REQ *request = NULL;
	EVP_PKEY *key;
	int rv = 0;

	if (how->request_len <= REQUEST_MAX)
		request = request_read(how->request, how->request_len);
	if (request == NULL)
		return fail(
			-EINVAL, ret_message,
			"not a certificate request; send PKCS#10 as PEM or DER, at most %d bytes",
			REQUEST_MAX);
	key = X509_REQ_get_pubkey(request);
	if (key == NULL)
		rv = fail(-EINVAL, ret_message, "the request's key cannot be read");
	else
		rv = check_key(key, uses[how->use].rsa, ret_message);
	if (rv == 0 && X509_REQ_verify(request, key) != 1)
		rv = fail(-EINVAL, ret_message,
			  "the request's signature is wrong; make a new request");
	X509_REQ_free(request);
	if (rv != 0)
		EVP_PKEY_free(key);
	else
		*ret = key;
	return rv;
}

static bool certificate_fill(X509 *cert, EVP_PKEY *key, X509 *ca, EVP_PKEY *ca_key,
			     const struct pki_sign *how, struct pki_signed *ret)
{
	int64_t ca_not_after_ms = time_ms(X509_get0_notAfter(ca));
	int64_t not_after_ms =
		how->not_after_ms < ca_not_after_ms ? how->not_after_ms : ca_not_after_ms;

	return X509_set_version(cert, X509_VERSION_3) == 1 && serial_set(cert, ret->serial) &&
	       validity_set(cert, how->now_ms, not_after_ms) &&
	       name_set(X509_get_subject_name(cert), how->common_name) &&
	       X509_set_issuer_name(cert, X509_get_subject_name(ca)) == 1 &&
	       X509_set_pubkey(cert, key) == 1 &&
	       extension_add(cert, ca, NID_basic_constraints, "critical,CA:FALSE") &&
	       extension_add(cert, ca, NID_key_usage, uses[how->use].key_usage) &&
	       extension_add(cert, ca, NID_ext_key_usage, uses[how->use].extended) &&
	       extension_add(cert, ca, NID_subject_key_identifier, "hash") &&
	       extension_add(cert, ca, NID_authority_key_identifier, "keyid:always") &&
	       alternative_names_add(cert, how) && X509_sign(cert, ca_key, EVP_sha256()) > 0;
}

int pki_sign(const struct pki_sign *how, struct pki_signed *ret, const char **ret_message)
{
	X509 *ca = certificate_read(how->ca_cert);
	EVP_PKEY *ca_key = key_read(how->ca_key);
	struct pki_signed made = {0};
	EVP_PKEY *key = NULL;
	X509 *cert = NULL;
	int rv;

	if (ca == NULL || ca_key == NULL || X509_check_private_key(ca, ca_key) != 1)
		rv = fail(-EINVAL, ret_message, "the CA's certificate and key cannot be used");
	else if (!common_name_is_valid(how->common_name))
		rv = fail(-EINVAL, ret_message, "the name must have 1 to %d bytes of UTF-8",
			  COMMON_NAME_MAX);
	else
		rv = request_key(how, &key, ret_message);
	if (rv != 0)
		goto out;
	cert = X509_new();
	if (cert == NULL || !certificate_fill(cert, key, ca, ca_key, how, &made)) {
		rv = fail_openssl(ret_message, "sign a certificate");
		goto out;
	}
	signed_fill(cert, &made);
	*ret = made;
out:
	X509_free(cert);
	EVP_PKEY_free(key);
	EVP_PKEY_free(ca_key);
	X509_free(ca);
	return rv;
}

/* --- other forms --- */

int pki_qnet_server_new(const char *ca_cert, const char *ca_key, int64_t now_ms,
			int64_t not_after_ms, char **ret_cert, char **ret_key)
{
	static const char name[] = "Qnetd Server";
	static const char *const no_dns[] = {NULL};
	struct pki_signed made = {0};
	const char *message;
	char *request;
	int rv = pki_key_new(ret_key);

	if (rv != 0)
		return rv;
	rv = pki_request_new(name, *ret_key, &request);
	if (rv == 0) {
		rv = pki_sign(&(struct pki_sign){.ca_cert = ca_cert,
						 .ca_key = ca_key,
						 .request = request,
						 .request_len = strlen(request),
						 .common_name = name,
						 .dns = no_dns,
						 .use = PKI_QNET_SERVER,
						 .now_ms = now_ms,
						 .not_after_ms = not_after_ms},
			      &made, &message);
		free(request);
	}
	if (rv != 0) {
		mem_wipe(*ret_key, strlen(*ret_key));
		free(*ret_key);
		*ret_key = NULL;
		return rv;
	}
	*ret_cert = made.pem;
	return 0;
}

int pki_der(const char *pem, struct buf *ret_der)
{
	X509 *cert = certificate_read(pem);
	unsigned char *at;
	int len;

	if (cert == NULL)
		return -EINVAL;
	len = i2d_X509(cert, NULL);
	assert(len > 0);
	at = buf_reserve(ret_der, (size_t)len);
	i2d_X509(cert, &at);
	ret_der->len += (size_t)len;
	X509_free(cert);
	return 0;
}

/* NSS of every age reads triple DES and a SHA-1 MAC. An empty password protects nothing, so
 * nothing is lost by it: the file is a secret as the key in it is. */
static PKCS12 *pkcs12_make(EVP_PKEY *key, X509 *cert, X509 *ca, const char *nickname)
{
	enum { ITERATIONS = 2048, NO_MAC = -1 };
	const int pbe = NID_pbe_WithSHA1And3_Key_TripleDES_CBC;
	STACK_OF(X509) *others = sk_X509_new_null();
	PKCS12 *made = NULL;

	if (others != NULL && sk_X509_push(others, ca) > 0)
		made = PKCS12_create("", nickname, key, cert, others, pbe, pbe, ITERATIONS, NO_MAC,
				     0);
	sk_X509_free(others);
	if (made != NULL && PKCS12_set_mac(made, "", 0, NULL, 0, ITERATIONS, EVP_sha1()) != 1) {
		PKCS12_free(made);
		made = NULL;
	}
	return made;
}

int pki_pkcs12(const char *cert_pem, const char *key_pem, const char *ca_pem, const char *nickname,
	       struct buf *ret, const char **ret_message)
{
	X509 *cert = certificate_read(cert_pem);
	X509 *ca = certificate_read(ca_pem);
	EVP_PKEY *key = key_read(key_pem);
	PKCS12 *made = NULL;
	unsigned char *at;
	int len = -1;
	int rv = 0;

	if (cert == NULL || ca == NULL || key == NULL || X509_check_private_key(cert, key) != 1) {
		rv = fail(-EINVAL, ret_message, "certificate, key and CA do not belong together");
		goto out;
	}
	made = pkcs12_make(key, cert, ca, nickname);
	if (made != NULL)
		len = i2d_PKCS12(made, NULL);
	if (len <= 0) {
		rv = fail_openssl(ret_message, "make a PKCS#12 file");
		goto out;
	}
	at = buf_reserve(ret, (size_t)len);
	i2d_PKCS12(made, &at);
	ret->len += (size_t)len;
out:
	PKCS12_free(made);
	EVP_PKEY_free(key);
	X509_free(ca);
	X509_free(cert);
	return rv;
}

int pki_sha256(const char *pem, char hex[65])
{
	X509 *cert = certificate_read(pem);
	unsigned char digest[32];
	int ok;

	if (cert == NULL)
		return -EINVAL;
	ok = X509_digest(cert, EVP_sha256(), digest, NULL);
	X509_free(cert);
	if (ok != 1)
		return fail_openssl(NULL, "hash a certificate");
	hex_encode(digest, sizeof(digest), hex);
	return 0;
}

static int validity_read(const char *pem, const ASN1_TIME *(*end)(const X509 *), int64_t *ret)
{
	X509 *cert = certificate_read(pem);

	if (cert == NULL)
		return -EINVAL;
	*ret = time_ms(end(cert));
	X509_free(cert);
	return 0;
}

int pki_not_before_ms(const char *pem, int64_t *ret)
{
	return validity_read(pem, X509_get0_notBefore, ret);
}

int pki_not_after_ms(const char *pem, int64_t *ret)
{
	return validity_read(pem, X509_get0_notAfter, ret);
}

int pki_serial(const char *pem, char serial[64])
{
	X509 *cert = certificate_read(pem);
	uint8_t bytes[SERIAL_LEN];
	BIGNUM *number = NULL;
	int rv = -EINVAL;

	if (cert != NULL)
		number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
	if (number != NULL && BN_bn2binpad(number, bytes, sizeof(bytes)) == SERIAL_LEN) {
		hex_encode(bytes, sizeof(bytes), serial);
		rv = 0;
	}
	BN_free(number);
	X509_free(cert);
	return rv != 0 ? fail(rv, NULL, "the certificate cannot be read") : 0;
}

int pki_common_name(const char *pem, char **ret)
{
	X509 *cert = certificate_read(pem);
	char name[COMMON_NAME_MAX + 1];
	int len = -1;

	if (cert != NULL)
		len = X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name,
						sizeof(name));
	X509_free(cert);
	if (len < 0)
		return fail(-EINVAL, NULL, "the certificate cannot be read");
	*ret = mem_strndup(name, (size_t)len);
	return 0;
}
