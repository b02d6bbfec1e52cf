#include "cli/trust.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/hex.h"
#include "lib/mem.h"

struct trust {
	unsigned char pin[32]; /* if `roots` is NULL */
	STACK_OF(X509) * roots;
	char refusal[300];
};

static const char node_uri[] = "tiebreak:node/";

static int roots_read(struct trust *t, const char *path, char **message)
{
	BIO *file = BIO_new_file(path, "r");
	X509 *cert;

	if (file == NULL) {
		*message = mem_printf("cannot read the CA file %s: %s", path, strerror(errno));
		return -EINVAL;
	}
	t->roots = sk_X509_new_null();
	while ((cert = PEM_read_bio_X509(file, NULL, NULL, NULL)) != NULL)
		sk_X509_push(t->roots, cert);
	BIO_free(file);
	ERR_clear_error();
	if (sk_X509_num(t->roots) > 0)
		return 0;
	*message = mem_printf("%s holds no certificate (PEM)", path);
	return -EINVAL;
}

int trust_new(const char *pin, const char *ca_file, struct trust **ret, char **message)
{
	struct trust *t = mem_zalloc(sizeof(*t));

	if (ca_file != NULL) {
		if (roots_read(t, ca_file, message) != 0) {
			trust_free(t);
			return -EINVAL;
		}
	} else if (strlen(pin) != 64 || hex_decode(pin, t->pin, sizeof(t->pin)) != 0) {
		*message = mem_printf("the fingerprint in the token is damaged");
		trust_free(t);
		return -EINVAL;
	}
	*ret = t;
	return 0;
}

void trust_free(struct trust *t)
{
	if (t == NULL)
		return;
	sk_X509_pop_free(t->roots, X509_free);
	free(t);
}

const char *trust_refusal(const struct trust *t)
{
	return t->refusal;
}

static int is_pinned(const struct trust *t, X509 *cert)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	return X509_digest(cert, EVP_sha256(), digest, &len) == 1 && len == sizeof(t->pin) &&
	       CRYPTO_memcmp(digest, t->pin, len) == 0;
}

static int is_node(X509 *leaf)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
	int found = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const ASN1_IA5STRING *uri;

		if (name->type != GEN_URI)
			continue;
		uri = name->d.uniformResourceIdentifier;
		found = found ||
			(ASN1_STRING_length(uri) > (int)strlen(node_uri) &&
			 memcmp(ASN1_STRING_get0_data(uri), node_uri, strlen(node_uri)) == 0);
	}
	GENERAL_NAMES_free(names);
	return found;
}

static int refuse(struct trust *t, X509_STORE_CTX *ctx, int error, const char *why)
{
	snprintf(t->refusal, sizeof(t->refusal), "%s", why);
	X509_STORE_CTX_set_error(ctx, error);
	return 0;
}

static int chain_verify_against(struct trust *t, X509_STORE_CTX *ctx, STACK_OF(X509) * roots)
{
	X509_STORE_CTX_set0_trusted_stack(ctx, roots);
	if (X509_verify_cert(ctx) != 1) {
		int error = X509_STORE_CTX_get_error(ctx);
		char why[200];

		snprintf(why, sizeof(why), "its certificate is not accepted: %s%s",
			 X509_verify_cert_error_string(error),
			 error == X509_V_ERR_CERT_NOT_YET_VALID ||
					 error == X509_V_ERR_CERT_HAS_EXPIRED
				 ? " (is the clock of this machine right?)"
				 : "");
		return refuse(t, ctx, error, why);
	}
	if (!is_node(X509_STORE_CTX_get0_cert(ctx)))
		return refuse(t, ctx, X509_V_ERR_APPLICATION_VERIFICATION,
			      "its certificate is from this cluster but not a board's");
	return 1;
}

/* SSL_CTX_set_cert_verify_callback: takes the whole decision. */
static int chain_verify(X509_STORE_CTX *ctx, void *arg)
{
	struct trust *t = arg;
	STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(ctx);
	STACK_OF(X509) * pinned;
	int rv;

	t->refusal[0] = '\0';
	if (t->roots != NULL)
		return chain_verify_against(t, ctx, t->roots);
	pinned = sk_X509_new_null();
	for (int i = 0; i < sk_X509_num(sent); i++) {
		if (is_pinned(t, sk_X509_value(sent, i)))
			sk_X509_push(pinned, sk_X509_value(sent, i));
	}
	if (sk_X509_num(pinned) == 0)
		rv = refuse(t, ctx, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
			    "it belongs to another cluster than the token");
	else
		rv = chain_verify_against(t, ctx, pinned);
	X509_STORE_CTX_set0_trusted_stack(ctx, NULL);
	sk_X509_free(pinned);
	return rv;
}

void trust_install(struct trust *t, void *ssl_ctx)
{
	SSL_CTX_set_cert_verify_callback(ssl_ctx, chain_verify, t);
}

void digest_hex(const void *data, size_t len, char hex[65])
{
	unsigned char digest[EVP_MAX_MD_SIZE];

	if (EVP_Digest(data, len, digest, NULL, EVP_sha256(), NULL) != 1)
		abort();
	hex_encode(digest, 32, hex);
}

static void bio_append(BIO *bio, struct buf *out)
{
	char *data;
	long len = BIO_get_mem_data(bio, &data);

	buf_append(out, data, (size_t)len);
	if (len > 0)
		mem_wipe(data, (size_t)len);
	BIO_free(bio);
}

void request_new(const char *common_name, struct buf *ret_key, struct buf *ret_csr)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509_REQ *request = X509_REQ_new();
	X509_NAME *name = X509_NAME_new();
	BIO *key_text = BIO_new(BIO_s_mem()), *csr_text = BIO_new(BIO_s_mem());

	/* Each of these fails only without memory. */
	if (key == NULL || request == NULL || name == NULL || key_text == NULL ||
	    csr_text == NULL ||
	    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
				       (const unsigned char *)common_name, -1, -1, 0) != 1 ||
	    X509_REQ_set_subject_name(request, name) != 1 ||
	    X509_REQ_set_pubkey(request, key) != 1 ||
	    X509_REQ_sign(request, key, EVP_sha256()) == 0 ||
	    PEM_write_bio_PKCS8PrivateKey(key_text, key, NULL, NULL, 0, NULL, NULL) != 1 ||
	    PEM_write_bio_X509_REQ(csr_text, request) != 1)
		abort();
	bio_append(key_text, ret_key);
	bio_append(csr_text, ret_csr);
	X509_NAME_free(name);
	X509_REQ_free(request);
	EVP_PKEY_free(key);
}

int request_of_key(const char *key_pem, struct buf *ret_csr)
{
	BIO *in = BIO_new_mem_buf(key_pem, -1);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, (void *)"");
	X509_REQ *request = X509_REQ_new();
	BIO *text = BIO_new(BIO_s_mem());
	int rv = -EINVAL;

	if (key != NULL && request != NULL && text != NULL &&
	    X509_REQ_set_pubkey(request, key) == 1 &&
	    X509_REQ_sign(request, key, EVP_sha256()) > 0 &&
	    PEM_write_bio_X509_REQ(text, request) == 1)
		rv = 0;
	if (rv == 0)
		bio_append(text, ret_csr);
	else
		BIO_free(text);
	X509_REQ_free(request);
	EVP_PKEY_free(key);
	BIO_free(in);
	ERR_clear_error();
	return rv;
}

static int64_t time_of(const ASN1_TIME *time)
{
	struct tm tm;

	return ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) * 1000 : 0;
}

int certificate_life(const char *pem, int64_t *ret_from_ms, int64_t *ret_until_ms)
{
	BIO *in = BIO_new_mem_buf(pem, -1);
	X509 *cert = PEM_read_bio_X509(in, NULL, NULL, (void *)"");

	BIO_free(in);
	ERR_clear_error();
	if (cert == NULL)
		return -EINVAL;
	*ret_from_ms = time_of(X509_get0_notBefore(cert));
	*ret_until_ms = time_of(X509_get0_notAfter(cert));
	X509_free(cert);
	return 0;
}
