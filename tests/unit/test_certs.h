/* test_certs.h: certificates made on the spot, for the tests of TLS. All PEM, freed by the caller.
 */
#pragma once
#include <assert.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/mem.h"

struct test_cert {
	EVP_PKEY *private;
	X509 *public;
	char *key;
	char *pem;
};

static inline char *test_cert_text(BIO *bio)
{
	char *data;
	long len = BIO_get_mem_data(bio, &data);
	char *text = mem_strndup(data, (size_t)len);

	BIO_free(bio);
	return text;
}

static inline void test_cert_extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);

	assert(extension);
	X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
}

/* issuer NULL: a CA of its own. `san` NULL: none. Valid from `from_s` to `to_s` around now. */
static inline struct test_cert test_cert_new(const char *name, const struct test_cert *issuer,
					     const char *san, long from_s, long to_s, int rsa)
{
	static long serial = 4096;
	struct test_cert c = {0};
	BIO *bio;

	c.private = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
	c.public = X509_new();
	X509_set_version(c.public, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(c.public), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(c.public), from_s);
	X509_gmtime_adj(X509_getm_notAfter(c.public), to_s);
	X509_set_pubkey(c.public, c.private);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(c.public), "CN", MBSTRING_UTF8,
				   (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(c.public, X509_get_subject_name(issuer ? issuer->public : c.public));
	if (!issuer)
		test_cert_extend(c.public, c.public, NID_basic_constraints, "critical,CA:TRUE");
	if (san)
		test_cert_extend(c.public, issuer ? issuer->public : c.public, NID_subject_alt_name,
				 san);
	X509_sign(c.public, issuer ? issuer->private : c.private, EVP_sha256());
	bio = BIO_new(BIO_s_mem());
	PEM_write_bio_PrivateKey(bio, c.private, NULL, NULL, 0, NULL, NULL);
	c.key = test_cert_text(bio);
	bio = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(bio, c.public);
	c.pem = test_cert_text(bio);
	return c;
}

static inline void test_cert_free(struct test_cert *c)
{
	EVP_PKEY_free(c->private);
	X509_free(c->public);
	free(c->key);
	free(c->pem);
}
